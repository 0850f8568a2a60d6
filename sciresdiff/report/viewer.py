"""The pictures of a page: panels that zoom together, colour bars, and the sources drawn over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from sciresdiff.checks import UnmeasuredError
from sciresdiff.checks.arrays import Array
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.residual import find_blobs, residual_map
from sciresdiff.checks.sources import ENOUGH, classify_sources
from sciresdiff.region import Region
from sciresdiff.report.images import (
    LEVELS,
    Norm,
    Plate,
    close_ups,
    crop,
    data_uri,
    norm_of,
    palette,
    plates,
    shared_norm,
    shrink,
)
from sciresdiff.report.templates import render

SIDE = 512
"""Longer side of a picture of the whole frame, at most."""
CLOSE_PX = 192
"""Side of a close-up, fine px."""
ICON_PX = 96
"""Longer side of the small picture that a page carries as its icon."""
RADIUS_PX = 5.0
"""Radius of the circle about a source, fine px."""
FEW = 150
"""Most sources of a class that are drawn from the start; more would cover the picture."""
MOST = 4000
"""Most sources of a class that are drawn."""
MARKED = frozenset({"output", "truth", "bicubic", "Richardson-Lucy", "output - truth", "output - bicubic"})
"""Plates that sources are drawn over."""
CLASSES = {
    "matched": ("in the truth and found", "found, and the data show it"),
    "missed": ("in the truth, not found", ""),
    "spurious": ("found, not in the truth", "found, below 2 sigma in the data"),
}
"""Class -> what it is where there is a truth, and where there is none."""

Shapes = Sequence[tuple[str, str]]
"""CSS class and path of what is drawn."""


@dataclass(frozen=True)
class Box:
    """The coordinates of drawings over a region: fine px, (0, 0) the corner of the frame's first pixel."""

    width: int
    height: int
    transform: str
    """From the frame to the picture."""


@dataclass(frozen=True)
class Panel:
    """One picture of a region, with its caption and colour bar."""

    title: str
    words: str
    unit: str
    picture: str
    """PNG as a ``data:`` address."""
    width: int
    height: int
    percent: str
    """Width in the panel; coarse pixels may reach beyond it."""
    edge: str
    """Edge of the panel that the picture starts at."""
    stops: str
    """Colours of the bar."""
    ends: Sequence[str]
    """Values at the bar's ends and in its middle."""
    marked: bool
    """Whether the sources are drawn over it."""
    shapes: Shapes
    """What else is."""


@dataclass(frozen=True)
class PanelSet:
    """All panels of one region."""

    name: str
    where: str
    box: Box
    marks_id: str
    marks: Shapes
    panels: Sequence[Panel]


@dataclass(frozen=True)
class SourceClass:
    """A class of sources that can be switched on and off."""

    name: str
    words: str
    count: int

    @property
    def shown(self) -> bool:
        """Whether it is drawn from the start: what is wrong, as long as it does not cover the picture."""
        return self.name != "matched" and self.count <= FEW


def pictures(evidence: Evidence, unit: str) -> Markup:
    """Make the section of the pictures: every set of panels, and the buttons for zoom, close-ups and sources.

    Without scripts all sets are shown and the buttons are not.

    Parameters
    ----------
    evidence : one plane.
    unit : of the pixels' values.
    """
    found = [plate for plate in plates(evidence, unit) if plate.image is not None and np.isfinite(plate.image).any()]
    shared = shared_norm(evidence)
    norms = {plate.title: norm_of(plate, shared, evidence) for plate in found}
    frame = Region.of_shape(evidence.high.shape)
    regions = {"whole frame": frame, **close_ups(evidence, CLOSE_PX)}
    marks = sources(evidence)
    classes = [SourceClass(name, CLASSES[name][evidence.truth is None], len(xy)) for name, xy in marks.items()]
    return render(
        "viewer.html.j2",
        hidden=[one.name for one in classes if not one.shown],
        resolution=_resolution(evidence),
        sets=[_set(name, regions, found, norms, marks, evidence) for name in regions],
        classes=classes,
    )


def icon(evidence: Evidence) -> str:
    """Encode the judged image, small, as a ``data:`` address; empty where nothing in it is judged.

    It is the page's icon, and `summary` reads it from there for the table of images.
    """
    if not evidence.good_high.any():
        return ""
    small, _ = shrink(np.where(evidence.good_high, evidence.high, np.nan), ICON_PX)
    return data_uri(small, shared_norm(evidence), "asinh", evidence.kind == "astro")


def _resolution(evidence: Evidence) -> str:
    """How the pictures are rebinned, in words."""
    n = max(1, -(-max(evidence.high.shape) // SIDE))
    if n == 1:
        return "at full resolution"
    return f"each pixel of the whole frame's is the mean of {n} × {n}; close-ups are at full resolution"


def _set(
    name: str,
    regions: Mapping[str, Region],
    found: Sequence[Plate],
    norms: Mapping[str, Norm],
    marks: Mapping[str, Array],
    evidence: Evidence,
) -> PanelSet:
    """All panels of one region; the close-ups are outlined in the whole frame."""
    region, frame = regions[name], Region.of_shape(evidence.high.shape)
    whole, flip = name == "whole frame", evidence.kind == "astro"
    turn = f"translate({-region.x0} {region.y1}) scale(1 -1)" if flip else f"translate({-region.x0} {-region.y0})"
    drawn = [(kind, path) for kind, xy in marks.items() if (path := _circles(xy, region))]
    outlines = [("square", _outline(other)) for other in regions.values() if whole and other != frame]
    over: dict[str, Shapes] = {"output": outlines, "residual": _blobs(evidence)}
    return PanelSet(
        name,
        "" if whole else f" (x {region.x0} to {region.x1 - 1}, y {region.y0} to {region.y1 - 1})",
        Box(region.shape[1], region.shape[0], turn),
        f"marks-{name.replace(' ', '-')}",
        drawn,
        [
            _panel(plate, image, norms[plate.title], evidence, region, over.get(plate.title, ()))
            for plate in found
            if (image := crop(plate, None if whole else region, evidence)) is not None
        ],
    )


def _panel(plate: Plate, image: Array, norm: Norm, evidence: Evidence, region: Region, shapes: Shapes) -> Panel:
    """One picture of a region."""
    flip = evidence.kind == "astro"
    small, n = shrink(image, SIDE)
    pixel = n * (evidence.high.shape[0] // (plate.image.shape[0] if plate.image is not None else 1))
    colours = palette(plate.stretch)[np.linspace(0, LEVELS - 1, 9).astype(int)]
    return Panel(
        plate.title,
        plate.words,
        plate.unit,
        data_uri(small, norm, plate.stretch, flip),
        small.shape[1],
        small.shape[0],
        f"{100 * small.shape[1] * pixel / region.shape[1]:.4g}",
        "bottom" if flip else "top",
        ",".join("#{:02x}{:02x}{:02x}".format(*colour) for colour in colours),
        [format_end(value) for value in (norm.low, norm.middle, norm.high)],
        plate.title in MARKED,
        shapes,
    )


def format_end(value: float) -> str:
    """Format a value of a colour bar: three digits, as few letters as can be, a true minus sign."""
    text = f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"
    return text.replace("-", "−")


def _outline(region: Region) -> str:
    """Path about a region."""
    return f"M{region.x0} {region.y0}H{region.x1}V{region.y1}H{region.x0}Z"


def _blobs(evidence: Evidence) -> Shapes:
    """Circles about the regions of the residual that chance does not make, at most `FEW`."""
    found, s = residual_map(evidence), evidence.scale
    # the centre of coarse pixel i lies at s (i + 1/2) - 1/2 of the fine grid
    places = [] if found is None else [(s * (b.x + 0.5) - 0.5, s * (b.y + 0.5) - 0.5) for b in find_blobs(found)[:FEW]]
    return [("blob", _circles(np.array(places), Region.of_shape(evidence.high.shape)))] if places else []


def _circles(xy: Array, region: Region) -> str:
    """Path of circles about the positions (n, 2) in a region; the first pixel's centre is at 0.5 of the drawing."""
    inside = (xy[:, 0] > region.x0) & (xy[:, 0] < region.x1) & (xy[:, 1] > region.y0) & (xy[:, 1] < region.y1)
    r = RADIUS_PX
    return "".join(
        f"M{x + 0.5 - r:.1f} {y + 0.5:.1f}a{r:g} {r:g} 0 1 0 {2 * r:g} 0a{r:g} {r:g} 0 1 0 {-2 * r:g} 0"
        for x, y in xy[inside][:MOST]
    )


def sources(evidence: Evidence) -> dict[str, Array]:
    """Sort the sources into `CLASSES`.

    Returns
    -------
    Class -> positions (n, 2) as x, y in fine px; empty where true and false ones cannot be told apart: no truth and no
    data with noise and blur, or a microscope image with few spots.
    """
    try:
        found = classify_sources(evidence)
    except UnmeasuredError:
        return {}
    if evidence.truth is not None:
        return {"matched": found.matched, "missed": found.missed, "spurious": found.spurious}
    if len(found.found) < ENOUGH[evidence.kind]:
        return {}
    return {"matched": found.matched, "spurious": found.spurious}
