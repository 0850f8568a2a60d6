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

from sciresdiff.degradation import eightbit, grids
from sciresdiff.degradation.grids import Array, Mask
from sciresdiff.degradation.kernels import kernel_from_numbers, kernel_text
from sciresdiff.degradation.resize import antialias_kernel
from sciresdiff.degradation.state import ChainState, add_noise, apply_pending_blur, blur_and_bin, resample
from sciresdiff.errors import InputError
from sciresdiff.frame import Quantity
from sciresdiff.physics.detector import Detector

BRIGHT_PERCENTILE = 99.9
"""Percentile of a frame whose light above the median is its ``bright`` part."""

Random = np.random.Generator | None
"""None: no noise and no coding, the linear part of the chain alone."""


@dataclass(frozen=True)
class Step:
    """One thing that happens to a plane: a name of `STEPS` and its numbers."""

    name: str
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """JSON-able: arrays are named, not stored."""
        plain = {key: "map" if isinstance(x, np.ndarray) else x for key, x in self.numbers.items() if key != "image"}
        return {"step": self.name, **plain}


@dataclass(frozen=True)
class DegradedPlane:
    """What comes out of a chain; arrays have the shape (h, w) of the coarse grid."""

    pixels: Array
    """Unit of the fine image; offset, sky and dark current are taken off again: its mean is A high."""
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


def blur(state: ChainState, numbers: Mapping[str, Any], rng: Random) -> ChainState:
    """Convolve with a kernel of this grid; borders reflect, **which keeps the flux of mirror-symmetric kernels only**.

    Of an oblique kernel what crosses the border comes back at another place.
    """
    kernel = kernel_from_numbers(numbers)
    if kernel is None:
        return state
    state = apply_pending_blur(state)
    if "image" not in numbers:  # a drawn kernel may be wider than a small image; one that is given is refused
        kernel = grids.crop_kernel(kernel, (min(state.pixels.shape) - 1) // 2)
    state = replace(state, pending=kernel)
    if "kernel" in state.unknown:
        return state
    if state.factor is None:
        return state.forget(kernel="a blur on a grid between fine and coarse")
    return replace(state, kernel=grids.compose_kernels(state.kernel, grids.dilate_kernel(kernel, state.factor)))


def resize(state: ChainState, numbers: Mapping[str, Any], rng: Random) -> ChainState:
    """Go to another grid; values per area are kept, and with quantity ``sum`` so are sums.

    ``to`` (``coarse``) or ``ratio`` times the ``of`` grid (``fine``, ``coarse``); ``filter``, ``antialias``. From the
    fine to the coarse grid ``area`` and the antialiased filters are a kernel and the pixel integration, and known as
    such; every other resizing has no kernel.
    """
    shape, name, smooth = _target_shape(state, numbers), str(numbers["filter"]), bool(numbers.get("antialias"))
    if shape == state.pixels.shape:
        return state
    if state.factor == 1 and shape == state.coarse and (smooth or name == "area"):
        more = antialias_kernel(name, state.scale)
        state = state if "kernel" in state.unknown else replace(state, kernel=grids.compose_kernels(state.kernel, more))
        both = grids.compose_kernels(state.pending, more)
        # two blurs in one operator save a pass, but their kernel may be larger than a small image
        if both is not None and any(k > n for k, n in zip(both.shape, state.pixels.shape, strict=True)):
            state, both = apply_pending_blur(state), more
        return blur_and_bin(state, shape, state.scale, both)
    return resample(apply_pending_blur(state), shape, name, smooth)


def _target_shape(state: ChainState, numbers: Mapping[str, Any]) -> tuple[int, int]:
    """Shape of the grid that a resizing goes to, at least two pixels a side."""
    if "ratio" not in numbers:
        return state.coarse
    sides = [n * (1 if numbers.get("of") == "coarse" else state.scale) for n in state.coarse]
    return max(round(sides[0] * numbers["ratio"]), 2), max(round(sides[1] * numbers["ratio"]), 2)


def read_out(state: ChainState, numbers: Mapping[str, Any], rng: Random) -> ChainState:
    """Read out with a `Detector` of these numbers; ``bright`` sets the gain by the light of this plane.

    Offset, sky and dark current are taken off again. **Where a pixel is full, light is lost.**
    """
    state = apply_pending_blur(state)
    fields = dict(numbers)
    if (bright := fields.pop("bright", None)) is not None:
        fields["gain"] = bright / light_above_median(state.pixels)
    detector = Detector(**fields)
    if rng is None or not detector.noisy:
        return replace(state, detector=detector)
    exposure = detector.expose(state.pixels * detector.gain, rng)
    noise = detector.variance(state.pixels + detector.pedestal)
    noisy = add_noise(state, exposure.pixels - detector.pedestal, noise, exposure.saturated)
    return replace(noisy, detector=detector)


def add_gaussian_noise(state: ChainState, numbers: Mapping[str, Any], rng: Random) -> ChainState:
    """Normal noise of ``sigma`` in 8-bit levels (Wang et al. 2021, section 3.1).

    **Nothing is clipped**, so that the mean is kept.
    """
    state = apply_pending_blur(state)
    if rng is None:
        return state
    sigma = numbers["sigma"] / eightbit.TOP * state.span
    noise = eightbit.shared_generator(state.shared_seed, numbers, rng).standard_normal(state.pixels.shape)
    return add_noise(state, state.pixels + sigma * noise, np.full(state.pixels.shape, sigma**2))


def add_poisson_noise(state: ChainState, numbers: Mapping[str, Any], rng: Random) -> ChainState:
    """Photon noise of ``electrons`` at the 8-bit white, times ``strength``; see `eightbit.poisson_noise`."""
    state = apply_pending_blur(state)
    if rng is None:
        return state
    light = np.maximum((state.pixels - state.black) / state.span, 0)
    noise, variance = eightbit.poisson_noise(light, numbers, rng, state.shared_seed)
    return add_noise(state, state.pixels + noise * state.span, variance * state.span**2)


def compress_jpeg(state: ChainState, numbers: Mapping[str, Any], rng: Random) -> ChainState:
    """Round to 8 bits and code as JPEG: **flux is not conserved, what lies beyond the levels is lost**.

    Pixels above white count as saturated. Neither the noise nor the blur of what comes out is known.
    """
    state = apply_pending_blur(state)
    if rng is None:
        return state
    code = (state.pixels - state.black) / state.span
    pixels = state.black + state.span * eightbit.jpeg_round_trip(code, round(numbers["quality"]))
    full = state.saturated | (code * eightbit.TOP > eightbit.TOP + 0.5)
    after = replace(state, pixels=pixels, saturated=full, expected=state.pixels, added=True)
    return after.forget(variance="JPEG", kernel="JPEG")


STEPS: dict[str, Callable[[ChainState, Mapping[str, Any], Random], ChainState]] = {
    "blur": blur,
    "resize": resize,
    "detector": read_out,
    "gaussian": add_gaussian_noise,
    "poisson": add_poisson_noise,
    "jpeg": compress_jpeg,
}
"""Name of a step -> what it does."""


def run_chain(
    high: NDArray[Any],
    steps: Sequence[Step],
    *,
    scale: int,
    quantity: Quantity,
    rng: Random,
    mask: Mask | None = None,
    variance: NDArray[Any] | None = None,
    saturated: Mask | None = None,
    percentiles: tuple[float, float] = eightbit.PERCENTILES,
    levels: tuple[float, float] | None = None,
    shared_seed: tuple[int, ...] | None = None,
) -> DegradedPlane:
    """Carry a plane through a chain.

    Parameters
    ----------
    high : (Y, X) array
        Fine image; rows and columns beyond a multiple of ``scale`` are left out. NaN is filled from the nearest pixel
        first, so that it does not reach the neighbours, and is NaN again in the result.
    steps : sequence of Step
        The chain, which has to end on the coarse grid.
    scale : int
        Fine pixels per coarse pixel and axis.
    quantity : {"sum", "mean"}
        Whether values of pixels that are joined add up or average.
    rng : numpy.random.Generator or None
        Source of all noise; None for the linear part alone.
    mask, variance, saturated : (Y, X) array, optional
        Planes of the fine image: True where it is bad, variance in its unit squared, True where it is saturated.
    percentiles : (low, high)
        Of the fine image, which 8-bit noise and coding take for 0 and 255.
    levels : (low, high), optional
        These two values, where the image is part of a larger one.
    shared_seed : tuple of int, optional
        Seed of what the planes of a colour image share.

    Raises
    ------
    InputError
        An image smaller than a coarse pixel or than a kernel, without a finite pixel, or a chain that does not end on
        the coarse grid.
    """
    high = grids.crop_to_multiple(np.asarray(high, np.float64), scale)
    bad = ~np.isfinite(high)
    clean = grids.fill_nearest(high, bad)
    if levels is None and any(step.name in eightbit.USED_BY for step in steps):
        levels = eightbit.percentile_levels(clean, percentiles)
    state = ChainState(
        clean,
        (high.shape[0] // scale, high.shape[1] // scale),
        scale,
        quantity,
        np.zeros(high.shape, bool) if saturated is None else grids.crop_to_multiple(saturated, scale),
        levels or (0.0, 1.0),
        shared_seed,
        None if variance is None else grids.crop_to_multiple(variance, scale),
    )
    for step in steps:
        state = STEPS[step.name](state, step.numbers, rng)
    masked = bad if mask is None else bad | grids.crop_to_multiple(mask, scale)
    return _degraded_plane(apply_pending_blur(state), masked, bad)


def _degraded_plane(state: ChainState, masked: Mask, bad: Mask) -> DegradedPlane:
    """The result; ``masked`` and ``bad`` are on the fine grid, and bad pixels come out as NaN."""
    if state.pixels.shape != state.coarse:
        raise InputError(f"chain: ends on a grid of {state.pixels.shape}, not {state.coarse}; resize to coarse")
    pixels = state.pixels.copy()
    expected = pixels.copy() if state.expected is None else state.expected
    pixels[grids.block_any(bad, state.scale)] = np.nan  # filled for the blur alone
    mask = grids.block_any(masked, state.scale) | state.saturated
    return DegradedPlane(
        pixels, mask, state.variance, state.saturated, expected, state.detector, state.kernel, state.unknown
    )


def light_above_median(expected: NDArray[Any]) -> float:
    """What the 99.9th percentile of an image lies above its median; of a flat frame its level, of an empty one 1.

    Parameters
    ----------
    expected : (...) array
        Any unit; NaN does not count.

    Raises
    ------
    InputError
        No pixel has a finite value.
    """
    values = expected[np.isfinite(expected)]
    if not values.size:
        raise InputError("image: no pixel has a finite value; nothing to degrade")
    middle, top = np.percentile(values, [50, BRIGHT_PERCENTILE])
    return float(next((x for x in (top - middle, abs(middle)) if x > 0), 1.0))


def blur_names(steps: Sequence[Step]) -> list[str]:
    """The blurs of a chain in words, in their order."""
    return [kernel_text(step.numbers) for step in steps if step.name == "blur"]
