"""Pairs whose low image is given: brought to noise units, cut into patches, with their own noise and kernel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sciresdiff.degradation.grids import block_any, crop_kernel
from sciresdiff.errors import InputError
from sciresdiff.frame import Quantity
from sciresdiff.physics.operators import separable_terms
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.sky import MAD_TO_SIGMA, estimate_sky
from sciresdiff.restoration.ops import psf_features

Array = NDArray[np.float32]

RANK = 6
"""Separable terms of a kernel that is given."""

BEYOND = 0.01
"""Share of a kernel's light that may come from beyond a patch's border, at most."""

SECOND_DIFFERENCE = np.outer([1, -2, 1], [1, -2, 1]) / 6
"""Of white noise it has the noise's own standard deviation, of a plane of any slope it is 0 (Immerkaer 1996)."""


@dataclass(frozen=True)
class Given:
    """One plane of a pair in units of the low image's median noise, quantity ``sum``, the sky taken off."""

    low: Array
    """(h, w), 0 where not valid."""
    high: Array
    """(s h, s w)"""
    noise: Array
    """(h, w), variance of ``low``."""
    valid: Array
    """(h, w), 1 or 0."""
    kernel: NDArray[np.float64]
    """On the fine grid, odd sides, sum 1."""

    @property
    def scale(self) -> int:
        """Fine pixels per pixel of ``low``."""
        return self.high.shape[0] // self.low.shape[0]

    @cached_property
    def terms(self) -> NDArray[np.float64]:
        """The kernel's separable_terms terms, (RANK, 2, K)."""
        terms = separable_terms(self.kernel, max_rank=RANK)
        return np.pad(terms, ((0, RANK - len(terms)), (0, 0), (0, 0)))

    @cached_property
    def reach(self) -> int:
        """Low pixels from a border within which more than BEYOND of the light may come from outside."""
        size = np.abs(self.kernel)
        y, x = (np.abs(np.arange(n) - n // 2) for n in size.shape)
        order = np.maximum(y[:, None], x[None, :])
        outside = np.array([size[order > r].sum() / size.sum() for r in range(int(order.max()) + 1)])
        return -(-int(np.argmax(outside <= BEYOND)) // self.scale)


def given(
    name: str,
    low: NDArray[Any],
    high: NDArray[Any],
    *,
    kernel: NDArray[np.float64] | None,
    quantity: Quantity,
    variance: NDArray[Any] | None = None,
    step: NDArray[Any] | float = 0.0,
    mask: NDArray[np.bool_] | None = None,
    high_mask: NDArray[np.bool_] | None = None,
) -> Given:
    """Bring a pair to noise units.

    Parameters
    ----------
    name : of the file, for errors.
    low, high : (h, w) and (s h, s w).
    kernel : blur between them on the fine grid; None for pixel integration alone.
    variance : (h, w) of ``low``; where no pixel's is a number above 0 the noise is measured, see `noise_of`.
    step : of the code of ``low``, whose rounding adds step^2 / 12.
    mask, high_mask : True where bad. A low pixel with a bad high pixel in it is not valid.

    Raises
    ------
    InputError : no valid pixel, or a constant image whose noise is not given.
    """
    scale = high.shape[0] // low.shape[0]
    wrong = ~np.isfinite(high) | (np.zeros(high.shape, bool) if high_mask is None else high_mask)
    bad = ~np.isfinite(low) | block_any(wrong, scale) | (np.zeros(low.shape, bool) if mask is None else mask)
    if bad.all():
        raise InputError(f"{name}: no pixel is valid in both images of the pair")
    noise = _variance(name, np.asarray(low, np.float64), bad, variance, step)
    sky, _ = estimate_sky(low, bad)
    sigma = float(np.sqrt(np.median(noise[~bad])))
    per_fine, share = (scale**2, 1.0) if quantity == "sum" else (1, 1.0 / scale**2)
    truth = np.where(wrong, 0, (np.asarray(high, np.float64) - sky / per_fine) * share / sigma)
    return Given(
        np.where(bad, 0, (np.asarray(low, np.float64) - sky) / sigma).astype(np.float32),
        truth.astype(np.float32),
        np.where(bad, 1, noise / sigma**2).astype(np.float32),
        (~bad).astype(np.float32),
        np.ones((1, 1)) if kernel is None else tight(kernel),
    )


def _variance(
    name: str, low: NDArray[np.float64], bad: NDArray[np.bool_], told: NDArray[Any] | None, step: NDArray[Any] | float
) -> NDArray[np.float64]:
    """The variance that is told where it is one, else what is measured and what rounding adds."""
    stated = np.zeros(low.shape) if told is None else np.nan_to_num(np.asarray(told, np.float64))
    there = (stated > 0) & ~bad
    if there.any():  # as io has it: a pixel without a variance gets the median of the others
        return np.where(stated > 0, stated, np.median(stated[there]))
    measured = np.maximum(noise_of(low, bad) ** 2, np.square(step) / 12)
    if not (np.broadcast_to(measured, low.shape)[~bad] > 0).all():
        raise InputError(
            f"{name}: the low image is constant or free of noise, which cannot be measured; give a variance"
        )
    return np.asarray(np.broadcast_to(measured, low.shape))


def noise_of(pixels: NDArray[np.float64], bad: NDArray[np.bool_]) -> float:
    """Standard deviation of the noise, from the median size of the second differences in y and x (Immerkaer 1996).

    **Structure finer than two pixels over more than half of the image counts as noise.**
    """
    filled = np.where(bad, np.median(pixels[~bad]), pixels)
    ripples = ndimage.convolve(filled, SECOND_DIFFERENCE, mode="reflect")
    good = ~ndimage.binary_dilation(bad, np.ones((3, 3)))
    return float(MAD_TO_SIGMA * np.median(np.abs(ripples[good if good.any() else ~bad])))


def patch(pair: Given, side: int, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """A random patch of ``side`` low pixels, turned and mirrored at random with its kernel.

    Where the patch is cut out of a larger image, the low pixels that light from beyond the cut reaches are not valid:
    the operator of a patch reflects at its border, the image went on.

    Returns
    -------
    truth, y, noise, valid, kernel (the features), terms : as `data.Pairs.draw`.
    """
    scale, (h, w) = pair.scale, pair.low.shape
    y0, x0 = int(rng.integers(h - side + 1)), int(rng.integers(w - side + 1))
    turns, flip = int(rng.integers(4)), bool(rng.random() < 0.5)
    low = np.s_[y0 : y0 + side, x0 : x0 + side]
    high = np.s_[scale * y0 : scale * (y0 + side), scale * x0 : scale * (x0 + side)]
    valid = pair.valid[low] * _inside((y0, x0), (h, w), side, pair.reach)
    turned = {
        name: np.ascontiguousarray(np.rot90(image, turns)[::-1] if flip else np.rot90(image, turns))
        for name, image in (
            ("truth", pair.high[high]), ("y", pair.low[low]), ("noise", pair.noise[low]), ("valid", valid),
        )
    }  # fmt: skip
    kernel = np.rot90(pair.kernel, turns)[::-1] if flip else np.rot90(pair.kernel, turns)
    terms = turned_terms(within(pair.terms, (side * scale - 1) // 2), turns, flip).astype(np.float32)
    return {**turned, "terms": terms, "kernel": psf_features(PSF.constant(kernel), scale)}


def _inside(start: tuple[int, int], shape: tuple[int, int], side: int, rim: int) -> Array:
    """1 but in the rim along those borders of a patch that are not the image's own."""
    inside = np.ones((side, side), np.float32)
    for axis in (0, 1):
        view = np.moveaxis(inside, axis, 0)
        if rim and start[axis] > 0:
            view[:rim] = 0
        if rim and start[axis] + side < shape[axis]:
            view[-rim:] = 0
    return inside


def tight(kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """A kernel without the zeros around it."""
    y, x = np.nonzero(kernel)
    middle = [n // 2 for n in kernel.shape]
    return crop_kernel(kernel, int(max(np.abs(y - middle[0]).max(), np.abs(x - middle[1]).max(), 0)))


def within(terms: NDArray[np.float64], radius: int) -> NDArray[np.float64]:
    """Terms (rank, 2, K) cut at a radius, the sum of their kernel kept."""
    middle = terms.shape[-1] // 2
    if radius >= middle:
        return terms
    near = terms[..., middle - radius : middle + radius + 1].copy()
    near[:, 0] *= terms.sum(-1).prod(-1).sum() / near.sum(-1).prod(-1).sum()
    return near


def turned_terms(terms: NDArray[np.float64], turns: int, flip: bool) -> NDArray[np.float64]:
    """The terms u, v of a kernel u[y] v[x] that was turned by `numpy.rot90` and then, perhaps, mirrored in y."""
    for _ in range(turns % 4):
        terms = np.stack([terms[:, 1, ::-1], terms[:, 0]], axis=1)
    return np.stack([terms[:, 0, ::-1], terms[:, 1]], axis=1) if flip else terms


def stacked_terms(terms: list[NDArray[Any]]) -> NDArray[Any]:
    """Terms (rank, 2, K) of several kernels as one array, padded with zeros where they differ."""
    rank, side = (max(t.shape[axis] for t in terms) for axis in (0, 2))
    return np.stack([
        np.pad(t, ((0, rank - t.shape[0]), (0, 0), ((side - t.shape[2]) // 2,) * 2)) for t in terms
    ])  # fmt: skip


def stated_kernel(told: str, scale: int) -> NDArray[np.float64] | None:
    """The kernel of a name or SPEC (px are fine px); ``area``, ``bilinear`` and ``bicubic`` are antialiased reductions.

    Raises
    ------
    UsageError : a SPEC that is none.
    """
    from sciresdiff.degradation import resize
    from sciresdiff.physics import psf

    if told in resize.FILTERS:
        return resize.antialias_kernel(told, scale)
    parsed = psf.parse(told)
    return None if parsed.shape == "none" else psf.render(parsed, None, integrate=False)
