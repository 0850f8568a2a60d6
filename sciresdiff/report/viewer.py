"""The pictures of a page: panels that zoom together, colour bars, and the sources drawn over them."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np

from sciresdiff.checks import UnmeasuredError
from sciresdiff.checks.arrays import Array
from sciresdiff.checks.evidence import Evidence
from sciresdiff.report.images import (
    LEVELS,
    Plate,
    Region,
    Tone,
    close_ups,
    cut,
    data_uri,
    intensity,
    palette,
    plates,
    thinned,
    tone_of,
)

SIDE = 512
"""Longer side of a picture of the whole frame, at most."""
CLOSE_PX = 192
"""Side of a close-up, fine px."""
ICON_PX = 96
"""Longer side of the small picture that a page carries as its icon."""
RADIUS_PX = 5.0
"""Radius of the circle about a source, fine px."""
FEW = 150
"""Sources of a class that are drawn from the start; of more one sees nothing but circles."""
MOST = 4000
"""Sources of a class that are drawn."""
MARKED = frozenset({"output", "truth", "bicubic", "Richardson-Lucy", "output - truth", "output - bicubic"})
"""Plates that sources are drawn over."""
CLASSES = {
    "matched": ("in the truth and found", "found, and the data show it"),
    "missed": ("in the truth, not found", ""),
    "spurious": ("found, not in the truth", "found, below 2 sigma in the data"),
}
"""Class -> what it is where there is a truth, and where there is none."""


def pictures(evidence: Evidence, unit: str) -> str:
    """The section: every set of panels, with the buttons for zoom, close-ups and sources."""
    found = [plate for plate in plates(evidence, unit) if plate.image is not None]
    tones = {plate.title: tone_of(plate, intensity(evidence), evidence) for plate in found if _any(plate)}
    regions: dict[str, Region | None] = {"whole frame": None, **close_ups(evidence, CLOSE_PX)}
    marks = sources(evidence)
    sets = "".join(_set(name, region, regions, found, tones, marks, evidence) for name, region in regions.items())
    hidden = "".join(f" hide-{name}" for name in marks if not _at_once(name, marks))
    return (
        f'<section class="viewer{hidden}"><h2>Pictures <small>{_thinning(evidence)}</small></h2>'
        f"{_buttons(list(regions), marks, evidence.truth is not None)}{sets}</section>"
    )


def icon(evidence: Evidence) -> str:
    """The image that is judged, small, as a ``data:`` address; empty where nothing in it is judged."""
    if not evidence.good_high.any():
        return ""
    small, _ = thinned(np.where(evidence.good_high, evidence.high, np.nan), ICON_PX)
    return data_uri(small, intensity(evidence), "asinh", evidence.kind == "astro")


def _any(plate: Plate) -> bool:
    return plate.image is not None and bool(np.isfinite(plate.image).any())


def _thinning(evidence: Evidence) -> str:
    n = max(1, -(-max(evidence.high.shape) // SIDE))
    return (
        "at full resolution"
        if n == 1
        else f"each pixel of the whole frame's is the mean of {n} × {n}; close-ups are at full resolution"
    )


def _buttons(names: list[str], marks: Mapping[str, Array], true: bool) -> str:
    """What can be pressed; shown only where scripts run."""
    picks = "".join(f'<button type="button" data-show="{n}" aria-pressed="false">{n}</button>' for n in names)
    acts = "".join(
        f'<button type="button" data-act="{act}" aria-label="{words}">{sign}</button>'
        for act, words, sign in (("in", "zoom in", "+"), ("out", "zoom out", "−"), ("reset", "whole picture", "reset"))
    )
    ticks = "".join(
        f'<label><input type="checkbox" data-hide="{name}"{" checked" if _at_once(name, marks) else ""}>'
        f'<span class="dot {name}"></span>{len(marks[name])} {name} '
        f'<span class="soft">({words[not true]})</span></label>'
        for name, words in CLASSES.items()
        if name in marks
    )
    return (
        f'<div class="bar scripted">{picks if len(names) > 1 else ""}{acts}'
        f'<span class="soft">wheel or pinch to zoom, drag to move, double click for closer; keys + − arrows 0</span>'
        f"</div>"
        f'{f"""<div class="bar scripted">{ticks}</div>""" if marks else ""}'
    )


def _at_once(name: str, marks: Mapping[str, Array]) -> bool:
    """Whether a class is drawn before it is asked for: what is wrong, as long as it does not cover the picture."""
    return name != "matched" and len(marks[name]) <= FEW


def _set(
    name: str,
    region: Region | None,
    regions: Mapping[str, Region | None],
    found: list[Plate],
    tones: Mapping[str, Tone],
    marks: Mapping[str, Array],
    evidence: Evidence,
) -> str:
    """All panels of one region."""
    place = region or (0, evidence.high.shape[0], 0, evidence.high.shape[1])
    top, bottom, left, right = place
    flip = evidence.kind == "astro"
    shapes, use = _drawing(name, marks, place, flip)
    squares = _over(_squares(regions), place, flip) if region is None and len(regions) > 1 else ""
    over = {title: use for title in MARKED} | {
        "output": use + squares,
        "residual": _over(_blobs(evidence), place, flip),
    }
    panels = "".join(
        _panel(plate, image, tones[plate.title], evidence, right - left, over.get(plate.title, ""))
        for plate in found
        if plate.title in tones and (image := cut(plate, region, evidence)) is not None
    )
    where = "" if region is None else f" (x {left} to {right - 1}, y {top} to {bottom - 1})"
    return (
        f'<div class="set" data-set="{name}" tabindex="0" role="group" style="--ratio:{right - left}/{bottom - top}" '
        f'aria-label="{name}: pictures that zoom together; plus, minus, arrow keys, 0"><h3>{name}{where}</h3>'
        f"{shapes}{panels}</div>"
    )


def _panel(plate: Plate, image: Array, tone: Tone, evidence: Evidence, wide: int, over: str) -> str:
    """One picture of a region that is ``wide`` fine pixels wide, with its caption and colour bar."""
    flip = evidence.kind == "astro"
    small, n = thinned(image, SIDE)
    pixel = n * (evidence.high.shape[0] // (plate.image.shape[0] if plate.image is not None else 1))
    width = 100 * small.shape[1] * pixel / wide
    alt = escape(f"{plate.title}. {plate.words} From {short(tone.low)} to {short(tone.high)} {plate.unit}.", quote=True)
    return (
        f'<figure class="plate"><div class="window"><div class="sheet"><img '
        f'src="{data_uri(small, tone, plate.stretch, flip)}" '
        f'alt="{alt}" width="{small.shape[1]}" height="{small.shape[0]}" '
        f'style="width:{width:.4g}%;{"bottom" if flip else "top"}:0">{over}</div>'
        f'<div class="cross"></div></div><figcaption><div class="head"><b>{escape(plate.title)}</b>'
        f'<button type="button" aria-pressed="false" aria-label="enlarge {escape(plate.title)}">⤢</button></div>'
        f"{_ramp(plate, tone)}"
        f'<span class="soft">{escape(plate.unit)}</span></figcaption></figure>'
    )


def _ramp(plate: Plate, tone: Tone) -> str:
    """The colour bar with the values at its ends and in its middle."""
    colours = palette(plate.stretch)[np.linspace(0, LEVELS - 1, 9).astype(int)]
    stops = ",".join("#{:02x}{:02x}{:02x}".format(*colour) for colour in colours)
    ends = "".join(f"<span>{short(value)}</span>" for value in (tone.low, tone.middle, tone.high))
    return f'<div class="ramp" style="background:linear-gradient(90deg,{stops})"></div><div class="ends">{ends}</div>'


def short(value: float) -> str:
    """Three digits, as few letters as can be; a true minus sign."""
    text = f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"
    return text.replace("-", "−")


def _drawing(name: str, marks: Mapping[str, Array], region: Region, flip: bool) -> tuple[str, str]:
    """The sources of a set: the shapes, defined once, and what shows them in a panel; empty where there are none."""
    shapes = "".join(_path(kind, xy, region) for kind, xy in marks.items())
    if not shapes:
        return "", ""
    mark = f"marks-{name.replace(' ', '-')}"
    return (
        '<svg width="0" height="0" style="position:absolute" class="marks" aria-hidden="true">'
        f'<defs><g id="{mark}">{shapes}</g></defs></svg>',
        _over(f'<use href="#{mark}"/>', region, flip),
    )


def _over(shapes: str, region: Region, flip: bool) -> str:
    """Shapes in fine pixels, (0, 0) the corner of the first one, laid over a picture of the region."""
    top, bottom, left, right = region
    turn = f"translate({-left} {bottom}) scale(1 -1)" if flip else f"translate({-left} {-top})"
    return (
        f'<svg class="marks" viewBox="0 0 {right - left} {bottom - top}" preserveAspectRatio="none" aria-hidden="true">'
        f'<g transform="{turn}">{shapes}</g></svg>'
    )


def _squares(regions: Mapping[str, Region | None]) -> str:
    """Where the close-ups are."""
    found = [region for region in regions.values() if region is not None]
    return "".join(f'<path class="mark square" d="M{c} {a}H{d}V{b}H{c}Z"/>' for a, b, c, d in found)


def _blobs(evidence: Evidence) -> str:
    """Circles about the regions of the residual that chance does not make, at most `FEW`."""
    from sciresdiff.checks.residual import find_blobs, residual_map

    found, s = residual_map(evidence), evidence.scale
    places = [] if found is None else [(s * (b.x + 0.5) - 0.5, s * (b.y + 0.5) - 0.5) for b in find_blobs(found)[:FEW]]
    return _path("blob", np.array(places), (0, evidence.high.shape[0], 0, evidence.high.shape[1])) if places else ""


def _path(kind: str, xy: Array, region: Region) -> str:
    """Circles about the sources of a region; the centre of the first pixel is at 0.5 of the drawing."""
    top, bottom, left, right = region
    inside = (xy[:, 0] > left) & (xy[:, 0] < right) & (xy[:, 1] > top) & (xy[:, 1] < bottom)
    r = RADIUS_PX
    circles = "".join(
        f"M{x + 0.5 - r:.1f} {y + 0.5:.1f}a{r:g} {r:g} 0 1 0 {2 * r:g} 0a{r:g} {r:g} 0 1 0 {-2 * r:g} 0"
        for x, y in xy[inside][:MOST]
    )
    return f'<path class="mark {kind}" d="{circles}"/>' if circles else ""


def sources(evidence: Evidence) -> dict[str, Array]:
    """Class -> positions (n, 2) as x, y in fine px; empty where sources cannot be told from false ones."""
    from sciresdiff.checks.sources import ENOUGH, classify_sources

    try:
        found = classify_sources(evidence)
    except UnmeasuredError:
        return {}
    if evidence.truth is not None:
        return {"matched": found.matched, "missed": found.missed, "spurious": found.spurious}
    if len(found.found) < ENOUGH[evidence.kind]:
        return {}
    return {"matched": found.matched, "spurious": found.spurious}
