"""``make judges``: which check catches which planted defect, at which strength, and how often a good image is accused.

    python docs/judges.py [--only defects,alarms,trust] [--frames N] [--clean N] [--print]

Clean frames are simulated scenes, measured with noise and restored by the shipped models.  Nine defects are planted
into them at strengths that are fixed below, together with the one at which each must be caught; the registry's checks
are run with the default limits, with and without the truth.  A check has caught a defect when it misses a limit that it
kept before.  The tables go into docs/judges.md.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sciresdiff import checks
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.trust import contrast
from sciresdiff.frame import Kind

PAGE = Path(__file__).with_name("judges.md")
Array = NDArray[np.float64]
FIELDS: dict[Kind, tuple[str, str]] = {"astro": ("astro-x2", "survey"), "micro": ("micro-x2", "filaments")}
"""Kind of frame -> model and scene of the frames that defects are planted into."""
SCALE, SIDE = 2, 96
APART, EDGE = 14, 24
"""Least distance of planted things from each other and from the border, fine px."""
COUNT = 8
"""Stars that are planted, or sources that are erased or shifted."""
STAR = 0.9
"""Width (sigma) of a planted star, fine px."""


@dataclass(frozen=True)
class Setting:
    """How a simulated scene is measured, in units of the coarse sky noise and coarse px."""

    scene: str
    noise: float = 0.5
    """Sky noise / scale, in units of the scene."""
    sigma: float = 0.6
    """Of the Gaussian kernel."""
    slope: float = 0.05
    """Of the variance with the signal."""
    level: float = 50.0
    """Background."""


def clean(kind: Kind, seed: int, setting: Setting | None = None, side: int = SIDE, refine: bool = True) -> Evidence:
    """A simulated scene, measured and restored by the shipped model, with its truth, planes and draws."""
    import torch

    from sciresdiff import trust
    from sciresdiff.physics import psf, scenes
    from sciresdiff.physics.operators import Operator
    from sciresdiff.restore import Settings, restore

    model, setting = model_of(FIELDS[kind][0]), setting or Setting(FIELDS[kind][1])
    rng = np.random.default_rng([7, seed])
    scene = scenes.scene(setting.scene, rng, side * SCALE).pixels
    truth = scene.astype(float) / (setting.noise * SCALE) + setting.level / SCALE**2
    kernel = psf.render(psf.parse(f"gaussian:sigma={setting.sigma * SCALE}px"), None, integrate=False)
    operator = Operator((side, side), SCALE, kernel, dtype=torch.float64)
    expected = operator.apply(torch.from_numpy(truth)[None, None])[0, 0].numpy()
    variance = 1 + setting.slope * np.clip(expected - setting.level, 0, None)
    low = (expected + rng.normal(size=expected.shape) * np.sqrt(variance)).astype(np.float32)
    nothing, settings = np.zeros(low.shape, bool), Settings(keep_draws=True, refine=refine)
    done = restore(low, variance.astype(np.float32), nothing, kernel, SCALE, "sum", model, settings)
    seen = trust.Seen(
        done.mean, done.err, done.support, done.gate, low, variance, nothing, kernel, SCALE, "sum", done.chi2
    )
    mask, _ = trust.mask(model.card.get("trust"), seen)
    draws = None if done.draws is None else done.draws.astype(float)
    return Evidence(
        done.mean.astype(float), SCALE, low=low.astype(float), variance=variance, truth=truth, operator=operator,
        err=done.err.astype(float), support=done.support.astype(float), draws=draws,
        trust=None if mask is None else mask.astype(float), kind=kind,
    )  # fmt: skip


@cache
def model_of(name: str):  # type: ignore[no-untyped-def]
    """A shipped model, read once."""
    from sciresdiff import model as models

    return models.load(name)


Defect = Callable[[Evidence, float, np.random.Generator], Array]
"""Image, strength and chance -> the image with the defect."""


def gaussian(shape: tuple[int, ...], x: float, y: float, sigma: float = STAR) -> Array:
    """A Gaussian of sum 1."""
    yy, xx = np.indices(shape)
    return np.asarray(np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2))


def unit_flux(evidence: Evidence) -> float:
    """Flux of a star that stands out of the data's typical noise by one sigma, by its matched filter."""
    assert evidence.variance is not None
    seen = evidence.degraded(gaussian(evidence.high.shape, *(n / 2 for n in evidence.high.shape[::-1])))
    return float(np.sqrt(np.median(evidence.variance) / (seen**2).sum()))


def apart(order: Iterable[tuple[int, int]], shape: tuple[int, ...], count: int = COUNT) -> list[tuple[int, int]]:
    """The first places (y, x) that lie apart from each other and from the border."""
    chosen: list[tuple[int, int]] = []
    for y, x in order:
        inside = EDGE <= y < shape[0] - EDGE and EDGE <= x < shape[1] - EDGE
        if inside and all(np.hypot(y - v, x - u) >= APART for v, u in chosen):
            chosen.append((int(y), int(x)))
        if len(chosen) == count:
            break
    return chosen


def quiet_places(evidence: Evidence, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Places where the truth has nothing."""
    from scipy.ndimage import gaussian_filter, maximum_filter

    assert evidence.truth is not None
    busy = maximum_filter(np.abs(contrast(gaussian_filter(evidence.truth, 1), SCALE)), 9)
    quiet = np.argwhere(busy <= np.percentile(busy, 30))
    return apart((tuple(p) for p in rng.permutation(quiet)), busy.shape)


def bright_places(evidence: Evidence) -> list[tuple[int, int]]:
    """The brightest peaks of the truth, as far as they lie apart."""
    from scipy.ndimage import gaussian_filter, maximum_filter

    assert evidence.truth is not None
    smooth = contrast(gaussian_filter(evidence.truth, 1), SCALE)
    peaks = np.argwhere(maximum_filter(smooth, 7) == smooth)
    order = np.argsort([-smooth[tuple(p)] for p in peaks])
    return apart((tuple(peaks[i]) for i in order), smooth.shape)


def cut_out(image: Array, place: tuple[int, int], radius: int = 6) -> Array:
    """What stands out of its surroundings at a place: (Y, X), zero beyond the radius."""
    yy, xx = np.indices(image.shape)
    far = np.hypot(yy - place[0], xx - place[1])
    level = np.median(image[(far > radius - 1) & (far < radius + 2)])
    taper = np.clip((radius - far) / 2, 0, 1)
    return np.asarray(np.where(far < radius, (image - level) * taper, 0))


def fake_stars(evidence: Evidence, strength: float, rng: np.random.Generator) -> Array:
    """Stars where there are none, of so many sigma in the data."""
    flux = strength * unit_flux(evidence)
    places = quiet_places(evidence, rng)
    return evidence.high + sum(flux * gaussian(evidence.high.shape, x, y) for y, x in places)


def erased_stars(evidence: Evidence, strength: float, rng: np.random.Generator) -> Array:
    """A share of the light of the brightest sources is taken away."""
    return evidence.high - strength * sum(cut_out(evidence.high, place) for place in bright_places(evidence))


def shifted_sources(evidence: Evidence, strength: float, rng: np.random.Generator) -> Array:
    """The brightest sources are displaced, each in a direction of its own, by so many fine px."""
    from scipy.ndimage import shift

    image = evidence.high.copy()
    for place in bright_places(evidence):
        angle, source = rng.uniform(0, 2 * np.pi), cut_out(evidence.high, place)
        image += shift(source, (strength * np.sin(angle), strength * np.cos(angle)), order=3) - source
    return image


def invented_filaments(evidence: Evidence, strength: float, rng: np.random.Generator) -> Array:
    """Three bent lines of 60 fine px; light in a coarse pixel's length of line, in sigmas of the data."""
    assert evidence.variance is not None
    light = strength * float(np.sqrt(np.median(evidence.variance)))  # per coarse px of length
    image = evidence.high.copy()
    for y, x in quiet_places(evidence, rng)[:3]:
        angle, bend = rng.uniform(0, 2 * np.pi), rng.uniform(-0.03, 0.03)
        for _ in range(60):
            image += light / SCALE * gaussian(image.shape, x, y)
            y, x, angle = y + np.sin(angle), x + np.cos(angle), angle + bend
    return image


def flux_drift(evidence: Evidence, strength: float, rng: np.random.Generator) -> Array:
    """All values are too high by a share."""
    return evidence.high * (1 + strength)


def shifted_image(evidence: Evidence, strength: float, rng: np.random.Generator) -> Array:
    """The image is displaced by so many fine px along both axes."""
    from scipy.ndimage import shift

    return np.asarray(shift(evidence.high, strength, order=3, mode="nearest"))


def forgotten_scale(evidence: Evidence, strength: float, rng: np.random.Generator) -> Array:
    """Values are too high by a factor, s^2 where they were not divided among the fine pixels."""
    return evidence.high * strength


def smoothed_noise(evidence: Evidence, strength: float, rng: np.random.Generator) -> Array:
    """Noise of no frame, smoothed by 1 px so that it looks like structure; rms in units of the data's noise / s^2."""
    from scipy.ndimage import gaussian_filter

    assert evidence.variance is not None
    grain = gaussian_filter(rng.normal(size=evidence.high.shape), 1, mode="wrap")
    return evidence.high + strength * grain / grain.std() * float(np.sqrt(np.median(evidence.variance))) / SCALE**2


def oversharpened(evidence: Evidence, strength: float, rng: np.random.Generator) -> Array:
    """Unsharp masking: x + a (x - x smoothed by 1 px)."""
    from scipy.ndimage import gaussian_filter

    return evidence.high + strength * (evidence.high - gaussian_filter(evidence.high, 1, mode="reflect"))


@dataclass(frozen=True)
class Plan:
    """A defect, its strengths, and the one at which it must be caught."""

    make: Defect
    unit: str
    strengths: tuple[float, ...]
    must: float


DEFECTS = {
    "fake stars": Plan(fake_stars, "sigma", (3, 5, 10, 20), 10),
    "erased stars": Plan(erased_stars, "of their light", (0.1, 0.25, 0.5, 1), 0.5),
    "invented filaments": Plan(invented_filaments, "sigma per coarse px", (1, 2, 4, 8), 8),
    "shifted sources": Plan(shifted_sources, "fine px", (0.25, 0.5, 1, 2), 1),
    "flux drift": Plan(flux_drift, "of all values", (0.001, 0.003, 0.01, 0.03), 0.01),
    "half-pixel shift": Plan(shifted_image, "fine px", (0.1, 0.25, 0.5), 0.5),
    "forgotten 1/s^2": Plan(forgotten_scale, "times", (1.05, 2, 4), 4),
    "smoothed noise": Plan(smoothed_noise, "noise / s^2", (0.5, 1, 2, 4), 2),
    "over-sharpening": Plan(oversharpened, "of the detail", (0.25, 0.5, 1, 2), 1),
}
"""The nine."""


def planted(evidence: Evidence, name: str, strength: float) -> Evidence:
    """The evidence with a defect in its image; what the image claims of itself stays, and so do low and truth."""
    image = DEFECTS[name].make(evidence, strength, np.random.default_rng([11, round(1000 * strength)]))
    offset = image - evidence.high
    draws = None if evidence.draws is None else evidence.draws + offset
    return replace(evidence, high=image, draws=draws)


Missed = dict[str, set[str]]
"""With and without truth -> checks whose limit was missed, by name and region."""


def missed(evidence: Evidence) -> Missed:
    """Names of the results that miss a limit, with the truth and without it."""
    blind = replace(evidence, truth=None, shared={})
    return {how: {f"{r.name}/{r.region}" for r in checks.check(one) if r.passed is False}
            for how, one in (("truth", evidence), ("blind", blind))}  # fmt: skip


def caught(before: Missed, after: Missed) -> Missed:
    """Checks that miss a limit which they kept on the clean image."""
    return {how: {name.split("/")[0] for name in after[how] - before[how]} for how in after}


def weakest(kind: Kind, frames: int) -> dict[str, dict[str, dict[str, float]]]:
    """Defect -> with or without truth -> check -> weakest strength from which on it catches it on most frames."""
    bases = [clean(kind, seed) for seed in range(frames)]
    before = [missed(base) for base in bases]
    table: dict[str, dict[str, dict[str, float]]] = {}
    for name, plan in DEFECTS.items():
        table[name] = {"truth": {}, "blind": {}}
        for strength in plan.strengths:
            found = [caught(b, missed(planted(e, name, strength))) for b, e in zip(before, bases, strict=True)]
            for how, row in table[name].items():
                counts = Counter(check for one in found for check in one[how])
                often = {check for check, n in counts.items() if 2 * n > frames}
                for check in [check for check in row if check not in often]:
                    del row[check]
                row.update({check: row.get(check, strength) for check in often})
                if strength == plan.must and not all(one[how] for one in found):
                    row[MISSED] = strength
        print(kind, name, table[name], file=sys.stderr, flush=True)
    return table


MISSED = "(not caught on every frame at the stated strength)"


def cells(row: dict[str, float]) -> str:
    """Checks by the weakest strength that they catch, strongest judge first."""
    named = sorted(row.items(), key=lambda item: (item[1], item[0]))
    return ", ".join(f"{check} {at:g}" for check, at in named) or "none"


def defect_table(frames: int) -> str:
    """The tables of both fields."""
    parts = []
    for kind, (model, scene) in FIELDS.items():
        found = weakest(kind, frames)
        lines = [
            f"{kind}, {frames} frames (`{scene}`, {SIDE} x {SIDE} px, `{model}`)", "",
            "| defect | strengths | must be caught at | caught with a truth, from | caught without a truth, from |",
            "|---|---|---|---|---|",
        ]  # fmt: skip
        for name, plan in DEFECTS.items():
            strengths = ", ".join(f"{s:g}" for s in plan.strengths)
            lines.append(f"| {name} | {strengths} {plan.unit} | {plan.must:g} | {cells(found[name]['truth'])} | "
                         f"{cells(found[name]['blind'])} |")  # fmt: skip
        parts.append("\n".join([*lines, "", blind_spots(found)]))
    return "\n\n".join(parts)


def blind_spots(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Checks that caught nothing, and defects that each of the others did not see."""
    from sciresdiff.checks.limits import LIMITS

    lines = ["What each judge did not see at any strength tried (with a truth):", ""]
    seen = {name: [d for d in DEFECTS if name in found[d]["truth"]] for name in LIMITS["astro"]}
    for name, saw in seen.items():
        if saw:
            lines.append(f"- `{name}`: {', '.join(d for d in DEFECTS if d not in saw) or 'nothing'}")
    idle = [f"`{name}`" for name, saw in seen.items() if not saw]
    return "\n".join([*lines, f"- saw none of the nine: {', '.join(idle)}"])


def setting_of(kind: Kind, rng: np.random.Generator) -> Setting:
    """A frame as it may be met: any scene of the field, a kernel and noise in the middle of the models' range."""
    width, noise, slope = (float(np.exp(rng.uniform(*np.log(r)))) for r in ((0.4, 0.8), (0.2, 3.0), (0.003, 0.3)))
    return Setting(kind, noise, width, slope, float(rng.uniform(0, 100)))


def alarms(count: int) -> str:
    """Verdicts on clean frames, and which limits were missed."""
    verdicts: Counter[str] = Counter()
    names: Counter[str] = Counter()
    for n in range(count):
        kind: Kind = "astro" if n % 2 == 0 else "micro"
        evidence = clean(kind, 1000 + n, setting_of(kind, np.random.default_rng([13, n])), 64)
        for how, one in (("with", evidence), ("without", replace(evidence, truth=None, shared={}))):
            found = checks.check(one)
            verdicts[f"{how} {checks.verdict(found, {}, kind)}"] += 1
            names.update({f"{how} {r.name}" for r in found if r.passed is False})
        print("alarms", n, dict(verdicts), dict(names), file=sys.stderr, flush=True)
    rows = [f"| {name} | {names[f'with {name}']} | {names[f'without {name}']} |"
            for name in sorted({key.split()[1] for key in names})]  # fmt: skip
    head = ["| of so many clean frames: " + f"{count} | with a truth | without |", "|---|---|---|"]
    told = [
        f"| **{v}** | **{verdicts[f'with {v}']}** | **{verdicts[f'without {v}']}** |" for v in ("pass", "warn", "fail")
    ]
    return "\n".join([*head, *told, *rows])


def put(name: str, text: str) -> None:
    """Replace what stands between the page's marks of a part."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    page = PAGE.read_text()
    PAGE.write_text(re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{text}\n{end}", page, flags=re.DOTALL))


def main(words: Sequence[str] | None = None) -> None:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="defects,alarms,trust")
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--clean", type=int, default=100)
    parser.add_argument("--print", action="store_true")
    given = parser.parse_args(words)
    import judges_trust

    parts = {
        "defects": lambda: defect_table(given.frames),
        "alarms": lambda: alarms(given.clean),
        "trust": judges_trust.page,
    }
    for name in given.only.split(","):
        text = parts[name]()
        if given.print:
            print(text)
        else:
            put(name, text)


if __name__ == "__main__":
    main()
