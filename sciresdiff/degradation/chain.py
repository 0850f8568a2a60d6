"""A chain of degradations: steps that are data, carried out one after the other on one plane.

Every grid on the way covers exactly the area of the fine image, so that nothing shifts. Beside the pixels a chain
carries the variance of the noise that it adds and the blur of all it does, for as long as these are known; where they
are not any more, the reason stands in ``unknown``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.degradation import eightbit
from sciresdiff.degradation.grids import Array, Mask, any_of, compose, cut, dilated, filled, trimmed
from sciresdiff.degradation.kernels import kernel_of, text_of
from sciresdiff.degradation.resize import antialias_kernel
from sciresdiff.degradation.state import State, measured, noisier, resampled, settled
from sciresdiff.errors import InputError
from sciresdiff.frame import Quantity
from sciresdiff.physics.detector import Detector

BRIGHT_PERCENTILE = 99.9
"""Percentile of a frame whose light above the median is its ``bright`` part."""

Chance = np.random.Generator | None
"""None: no noise and no coding, the linear part of the chain alone."""


@dataclass(frozen=True)
class Step:
    """One thing that happens to a plane: a name of `STEPS` and its numbers."""

    name: str
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """For the record, JSON-able."""
        plain = {key: "map" if isinstance(x, np.ndarray) else x for key, x in self.numbers.items() if key != "image"}
        return {"step": self.name, **plain}


@dataclass(frozen=True)
class Low:
    """A degraded plane."""

    pixels: Array
    """(h, w), unit of the fine image; offset, sky and dark current are taken off again: its mean is A high."""
    mask: Mask
    """True where a fine pixel of this area was masked."""
    variance: Array | None
    """Of the noise that was added; where none was, of the fine image's own noise, if that is known."""
    saturated: Mask
    """True where the detector or the code was full, or a fine pixel of this area was flagged so."""
    expected: Array
    """The pixels before the last noise."""
    detector: Detector | None = None
    """What read them out last."""
    kernel: Array | None = None
    """The blur of all steps, on the fine grid; None for pixel integration alone, or where it is unknown."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """``variance``, ``kernel`` -> why it is not known."""


def blur(state: State, numbers: Mapping[str, Any], rng: Chance) -> State:
    """Convolve with a kernel of this grid; borders reflect, **which keeps the flux of mirror-symmetric kernels only**.

    Of an oblique kernel what crosses the border comes back at another place.
    """
    kernel = kernel_of(numbers)
    if kernel is None:
        return state
    state = settled(state)
    if "image" not in numbers:
        kernel = cut(kernel, (min(state.pixels.shape) - 1) // 2)
    state = replace(state, pending=kernel)
    if "kernel" in state.unknown:
        return state
    if state.factor is None:
        return state.lost(kernel="a blur on a grid between fine and coarse")
    return replace(state, kernel=compose(state.kernel, dilated(kernel, state.factor)))


def resize(state: State, numbers: Mapping[str, Any], rng: Chance) -> State:
    """Go to another grid; values per area are kept, and with quantity ``sum`` so are sums.

    ``to`` (``coarse``) or ``ratio`` times the ``of`` grid (``fine``, ``coarse``); ``filter``, ``antialias``. From the
    fine to the coarse grid ``area`` and the antialiased filters are a kernel and the pixel integration, and known as
    such; every other resizing has no kernel.
    """
    shape, name, smooth = _target(state, numbers), str(numbers["filter"]), bool(numbers.get("antialias"))
    if shape == state.pixels.shape:
        return state
    if state.factor == 1 and shape == state.coarse and (smooth or name == "area"):
        more = antialias_kernel(name, state.scale)
        state = state if "kernel" in state.unknown else replace(state, kernel=compose(state.kernel, more))
        both = compose(state.pending, more)
        if both is not None and any(k > n for k, n in zip(both.shape, state.pixels.shape, strict=True)):
            state, both = settled(state), more
        return measured(state, shape, state.scale, both)
    return resampled(settled(state), shape, name, smooth)


def _target(state: State, numbers: Mapping[str, Any]) -> tuple[int, int]:
    """Shape of the grid that a resizing goes to, at least two pixels a side."""
    if "ratio" not in numbers:
        return state.coarse
    sides = [n * (1 if numbers.get("of") == "coarse" else state.scale) for n in state.coarse]
    return max(round(sides[0] * numbers["ratio"]), 2), max(round(sides[1] * numbers["ratio"]), 2)


def detect(state: State, numbers: Mapping[str, Any], rng: Chance) -> State:
    """Read out with a `Detector` of these numbers; ``bright`` sets the gain by the light of this plane.

    Offset, sky and dark current are taken off again. **Where a pixel is full, light is lost.**
    """
    state = settled(state)
    fields = dict(numbers)
    if (bright := fields.pop("bright", None)) is not None:
        fields["gain"] = bright / brightness(state.pixels)
    camera = Detector(**fields)
    if rng is None or not camera.noisy:
        return replace(state, camera=camera)
    exposure = camera.expose(state.pixels * camera.gain, rng)
    noise = camera.variance(state.pixels + camera.pedestal)
    return replace(noisier(state, exposure.pixels - camera.pedestal, noise, exposure.saturated), camera=camera)


def gaussian(state: State, numbers: Mapping[str, Any], rng: Chance) -> State:
    """Normal noise of ``sigma`` in 8-bit levels; **nothing is clipped**, so that the mean is kept."""
    state = settled(state)
    if rng is None:
        return state
    sigma = numbers["sigma"] / eightbit.TOP * state.span
    noise = eightbit.shared(state.together, numbers, rng).standard_normal(state.pixels.shape)
    return noisier(state, state.pixels + sigma * noise, np.full(state.pixels.shape, sigma**2))


def poisson(state: State, numbers: Mapping[str, Any], rng: Chance) -> State:
    """Photon noise of ``electrons`` at the 8-bit white, times ``strength``; see `eightbit.photons`."""
    state = settled(state)
    if rng is None:
        return state
    light = np.maximum((state.pixels - state.black) / state.span, 0)
    noise, variance = eightbit.photons(light, numbers, rng, state.together)
    return noisier(state, state.pixels + noise * state.span, variance * state.span**2)


def jpeg(state: State, numbers: Mapping[str, Any], rng: Chance) -> State:
    """Round to 8 bits and code as JPEG: **flux is not conserved, what lies beyond the levels is lost**.

    Pixels above white count as saturated. Neither the noise nor the blur of what comes out is known.
    """
    state = settled(state)
    if rng is None:
        return state
    code = (state.pixels - state.black) / state.span
    pixels = state.black + state.span * eightbit.coded(code, round(numbers["quality"]))
    full = state.full | (code * eightbit.TOP > eightbit.TOP + 0.5)
    after = replace(state, pixels=pixels, full=full, expected=state.pixels, added=True)
    return after.lost(variance="JPEG", kernel="JPEG")


STEPS: dict[str, Callable[[State, Mapping[str, Any], Chance], State]] = {
    "blur": blur,
    "resize": resize,
    "detector": detect,
    "gaussian": gaussian,
    "poisson": poisson,
    "jpeg": jpeg,
}
"""Name of a step -> what it does."""


def run(
    high: NDArray[Any],
    steps: Sequence[Step],
    *,
    scale: int,
    quantity: Quantity,
    rng: Chance,
    mask: Mask | None = None,
    variance: NDArray[Any] | None = None,
    saturated: Mask | None = None,
    percentiles: tuple[float, float] = eightbit.PERCENTILES,
    levels: tuple[float, float] | None = None,
    together: tuple[int, ...] | None = None,
) -> Low:
    """Carry a plane through a chain.

    Parameters
    ----------
    high : (Y, X) fine image; rows and columns beyond a multiple of ``scale`` are left out. NaN is filled from the
        nearest pixel first, so that it does not reach the neighbours, and is NaN again in the result.
    steps : the chain, which has to end on the coarse grid.
    scale : fine pixels per coarse pixel and axis.
    quantity : whether values of pixels that are joined add up or average.
    rng : source of all noise; None for the linear part alone.
    mask, variance, saturated : (Y, X) planes of the fine image.
    percentiles : of the fine image, which 8-bit noise and coding take for 0 and 255.
    levels : these two values, where the image is part of a larger one.
    together : seed of what the planes of a colour image share.

    Raises
    ------
    InputError : an image smaller than a coarse pixel or than a kernel, without a finite pixel, or a chain that does
        not end on the coarse grid.
    """
    high = trimmed(np.asarray(high, np.float64), scale)
    bad = ~np.isfinite(high)
    clean = filled(high, bad)
    if levels is None and any(step.name in eightbit.USED_BY for step in steps):
        levels = eightbit.levels(clean, percentiles)
    state = State(
        clean,
        (high.shape[0] // scale, high.shape[1] // scale),
        scale,
        quantity,
        np.zeros(high.shape, bool) if saturated is None else trimmed(saturated, scale),
        levels or (0.0, 1.0),
        together,
        None if variance is None else trimmed(variance, scale),
    )
    for step in steps:
        state = STEPS[step.name](state, step.numbers, rng)
    return _low(settled(state), bad if mask is None else bad | trimmed(mask, scale), bad)


def _low(state: State, masked: Mask, bad: Mask) -> Low:
    if state.pixels.shape != state.coarse:
        raise InputError(f"chain: ends on a grid of {state.pixels.shape}, not {state.coarse}; resize to coarse")
    pixels = state.pixels.copy()
    expected = pixels.copy() if state.expected is None else state.expected
    pixels[any_of(bad, state.scale)] = np.nan
    mask = any_of(masked, state.scale) | state.full
    return Low(pixels, mask, state.variance, state.full, expected, state.camera, state.kernel, state.unknown)


def brightness(expected: NDArray[Any]) -> float:
    """99.9th percentile above the median; of a flat frame its level, of an empty one 1."""
    values = expected[np.isfinite(expected)]
    if not values.size:
        raise InputError("image: no pixel has a finite value; nothing to degrade")
    middle, top = np.percentile(values, [50, BRIGHT_PERCENTILE])
    return float(next((x for x in (top - middle, abs(middle)) if x > 0), 1.0))


def blurs(steps: Sequence[Step]) -> list[str]:
    """The blurs of a chain in words, in their order."""
    return [text_of(step.numbers) for step in steps if step.name == "blur"]
