"""Clean frames, and the nine defects that are planted into them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.trust import contrast
from sciresdiff.frame import Kind

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

    from sciresdiff import scenes
    from sciresdiff.observation.observation import Observation
    from sciresdiff.physics import psf
    from sciresdiff.physics.operators import Operator
    from sciresdiff.restoration import trust
    from sciresdiff.restoration.restore import restore
    from sciresdiff.restoration.settings import Settings

    model, setting = model_of(FIELDS[kind][0]), setting or Setting(FIELDS[kind][1])
    rng = np.random.default_rng([7, seed])
    scene = scenes.scene(setting.scene, rng, side * SCALE).pixels
    truth = scene.astype(float) / (setting.noise * SCALE) + setting.level / SCALE**2
    kernel = psf.render(psf.parse(f"gaussian:sigma={setting.sigma * SCALE}px"), None, integrate=False)
    operator = Operator((side, side), SCALE, kernel, dtype=torch.float64)
    expected = operator.apply(torch.from_numpy(truth)[None, None])[0, 0].numpy()
    variance = 1 + setting.slope * np.clip(expected - setting.level, 0, None)
    low = (expected + rng.normal(size=expected.shape) * np.sqrt(variance)).astype(np.float32)
    observation = Observation.of_arrays(low, variance.astype(np.float32), SCALE, kernel)
    done = restore(observation, model, Settings(keep_draws=True, refine=refine))
    mask, _ = trust.mask(model.card.get("trust"), done, observation)
    draws = None if done.draws is None else done.draws.astype(float)
    return Evidence(
        done.mean.astype(float), SCALE, low=low.astype(float), variance=variance, truth=truth, operator=operator,
        err=done.err.astype(float), support=done.support.astype(float), draws=draws,
        trust=None if mask is None else mask.astype(float), kind=kind,
    )  # fmt: skip


@cache
def model_of(name: str):  # type: ignore[no-untyped-def]
    """A shipped model, read once."""
    from sciresdiff.restoration import model as models

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
    seen = evidence.degrade(gaussian(evidence.high.shape, *(n / 2 for n in evidence.high.shape[::-1])))
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
