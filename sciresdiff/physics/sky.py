"""What a frame tells about its own noise and camera: sky scatter, correlation, offset, read noise and gain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sciresdiff.physics.detector import Detector
from sciresdiff.physics.psf.measure import psf_from_sources

__all__ = ["background", "camera_from_histogram", "noise_correlation", "psf_from_sources", "sky_noise"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

BLOCK = 32
"""Side of the squares in which background and scatter are measured, px."""

MAD = 1.4826022
"""Standard deviation of a Gaussian over its median absolute deviation."""

LIKE_QUIETEST = 1.15
"""Scatter of a square of sky, at most, in units of the quietest fifth's."""

BOX = 4
"""Side of the box whose scatter is compared with quadrature, px."""


def background(pixels: NDArray[Any], mask: Mask | None = None, block: int = BLOCK) -> Array:
    """A smooth background: clipped medians of squares, median-filtered 3 x 3, interpolated; shape as ``pixels``."""
    levels = np.array([[_level(values)[0] for values in row] for row in _squares(pixels, mask, block)])
    known = np.isfinite(levels)
    if not known.any():
        return np.zeros(pixels.shape)
    levels = np.where(known, levels, np.median(levels[known]))
    levels = ndimage.median_filter(levels, 3, mode="nearest")
    places = [(np.arange(n) + 0.5) / block - 0.5 for n in pixels.shape]
    grid = np.meshgrid(*places, indexing="ij")
    return np.asarray(ndimage.map_coordinates(levels, grid, order=1, mode="nearest"))


def _squares(pixels: NDArray[Any], mask: Mask | None, block: int) -> list[list[Array]]:
    """The good values of each square; the last ones are cut short where the side is no multiple."""
    good = np.isfinite(pixels) if mask is None else np.isfinite(pixels) & ~mask
    h, w = pixels.shape
    return [
        [
            np.asarray(pixels[y : y + block, x : x + block][good[y : y + block, x : x + block]], np.float64)
            for x in range(0, w, block)
        ]
        for y in range(0, h, block)
    ]


def _level(values: Array) -> tuple[float, float]:
    """Median and scatter of the values that are left after clipping at 3 sigma; the scatter is that of the lower half.

    Sources are brighter than the sky, so that what lies below the median is sky alone.
    """
    if values.size < 9:
        return np.nan, np.nan
    ordered = np.sort(values)
    first, last = 0, ordered.size
    middle = sigma = 0.0
    for _ in range(8):
        middle, lower = ordered[(first + last) // 2], ordered[first + (last - first) // 4]
        sigma = MAD * float(middle - lower)
        if not sigma > 0:
            return float(middle), float(ordered[first:last].std())
        ends = np.searchsorted(ordered, [middle - 3 * sigma, middle + 3 * sigma])
        if (ends == (first, last)).all():
            break
        first, last = int(ends[0]), int(ends[1])
    return float(middle), sigma


@dataclass(frozen=True)
class Sky:
    """The parts of a frame that are as quiet as its quietest."""

    flat: Array
    """(Y, X), background removed."""
    good: Mask
    """True in the quiet squares, where nothing is masked."""
    share: float
    """Of the squares that are quiet."""
    squares: int
    """How many they are."""


def _sky(pixels: NDArray[Any], mask: Mask | None) -> Sky:
    pixels = np.asarray(pixels, np.float64)
    flat = pixels - background(pixels, mask)
    scatter = np.array([[_level(values)[1] for values in row] for row in _squares(flat, mask, BLOCK)])
    known = np.isfinite(scatter) & (scatter > 0)
    if not known.any():
        return Sky(flat, np.zeros(flat.shape, bool), 0.0, 0)
    quiet = known & (scatter <= LIKE_QUIETEST * np.percentile(scatter[known], 20))
    good = np.kron(quiet, np.ones((BLOCK, BLOCK), bool))[: flat.shape[0], : flat.shape[1]].astype(bool)
    good &= np.isfinite(flat) if mask is None else np.isfinite(flat) & ~mask
    return Sky(flat, good, float(quiet.sum() / known.sum()), int(quiet.sum()))


def sky_noise(pixels: NDArray[Any], mask: Mask | None = None) -> float:
    """Standard deviation of a pixel of sky, over the squares that are as quiet as the quietest fifth.

    Parameters
    ----------
    pixels : (Y, X). mask : True where a pixel is bad.

    Returns
    -------
    In the unit of the pixels; 0 for a constant image. **Texture that covers the whole frame counts as noise.**
    """
    sky = _sky(pixels, mask)
    return _level(sky.flat[sky.good])[1] if sky.squares else 0.0


def noise_correlation(pixels: NDArray[Any], mask: Mask | None = None, variance: NDArray[Any] | None = None) -> float:
    """Scatter of box sums of sky over the quadrature sum of their pixels': 1 for independent noise.

    factor^2 = sum over lags of (1 - |dy|/b)(1 - |dx|/b) C(dy, dx) / C(0) for a box of b = 4 pixels, with C the sky's
    autocovariance over the quiet squares, its value at lags of 4 to 6 px taken off: resampled noise has none there,
    faint structure has.

    Parameters
    ----------
    pixels, mask : (Y, X). variance : of the pixels, where it is known: with it structure is told from noise.

    Returns
    -------
    At least 1. **1 as well where noise cannot be told from structure**: fewer than 4 or than a third of the squares are
    quiet, the sky's scatter is more than 1.2 times the known variance, or without one, more than 3.5 % of it lie at
    lags of 4 to 6 px.
    """
    sky = _sky(pixels, mask)
    if sky.squares < 4 or sky.share < 1 / 3:
        return 1.0
    limit = 4 * _level(sky.flat[sky.good])[1]
    with np.errstate(invalid="ignore"):
        good = sky.good & ~ndimage.binary_dilation(np.abs(sky.flat) > limit, iterations=2)
    if good.sum() < BLOCK**2:
        return 1.0
    flat = np.where(good, sky.flat - sky.flat[good].mean(), 0.0)
    zero = float((flat**2).sum() / good.sum())
    structure = float(np.mean([_covariance(flat, good, *lag) for d in (4, 5, 6) for lag in ((d, 0), (0, d))]))
    known = None if variance is None else float(np.median(variance[good]))
    if structure > 0.035 * zero if known is None else zero > 1.2 * known:
        return 1.0
    return _box_factor(flat, good, zero, max(structure, 0.0))


def _box_factor(flat: Array, good: Mask, zero: float, structure: float) -> float:
    """The factor from the autocovariance of the good pixels."""
    total = 0.0
    for dy in range(BOX):
        for dx in range(-BOX + 1 if dy else 0, BOX):
            weight = (1 - dy / BOX) * (1 - abs(dx) / BOX) * (1 if dy == dx == 0 else 2)
            total += weight * (_covariance(flat, good, dy, dx) - structure)
    return float(np.sqrt(max(total / (zero - structure), 1.0))) if zero > structure else 1.0


def _covariance(flat: Array, good: Mask, dy: int, dx: int) -> float:
    """Mean product of the good pixels that are (dy, dx) apart; ``flat`` is 0 elsewhere."""
    (a, b), (ga, gb) = _lagged(flat, dy, dx), _lagged(good, dy, dx)
    pairs = int((ga & gb).sum())
    return float((a * b).sum()) / pairs if pairs else 0.0


def _lagged(plane: NDArray[Any], dy: int, dx: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Two views of a plane, (dy, dx) apart, dy >= 0."""
    h, w = plane.shape
    first = plane[: h - dy, max(0, -dx) : w - max(0, dx)]
    return first, plane[dy:, max(0, dx) : w - max(0, -dx)]


LAPLACE = np.outer([1, -2, 1], [1, -2, 1]) / 6
"""Of noise it keeps the variance, of smooth structure next to nothing (Immerkaer 1996)."""


def camera_from_histogram(pixels: NDArray[Any], mask: Mask | None = None) -> tuple[Detector | None, list[str]]:
    """Offset, read noise and gain of a camera from one of its frames; an assumption, and said as one.

    Offset: the 1st percentile of local means, where the frame is darkest. Gain: the slope of local variance against
    local mean (photon transfer), var = read_noise^2 / gain^2 + (mean - offset) / gain, the variance being that of a
    second difference, which smooth structure does not reach; medians in bins of the mean, weighted line. **If light
    reaches the darkest parts, the offset is too high and the read noise holds their photon noise.**

    Returns
    -------
    detector : gain (e/ADU), read_noise (e), offset (ADU); None where no slope can be measured.
    said : what was found or why not, one line each.
    """
    pixels = np.asarray(pixels, np.float64)
    mean, variance = _patches(pixels, mask)
    if len(mean) < 100 or not np.ptp(mean) > 0:
        return None, ["gain: too few pixels or no contrast for a photon-transfer slope; give --gain and --read-noise"]
    offset = float(np.percentile(mean, 1))
    fitted = _transfer(mean - offset, variance)
    if fitted is None:
        return None, ["gain: the noise does not grow with the signal, so no photon-transfer slope; give --gain"]
    slope, dark = fitted
    gain, read_noise = 1 / slope, float(np.sqrt(max(dark, 0.0))) / slope
    said = [
        f"offset: assumed {offset:.5g}, the darkest level of the histogram; --offset states it",
        f"gain: assumed {gain:.3g} e per unit, from the photon-transfer slope of the frame itself; --gain states it",
        f"read noise: assumed {read_noise:.3g} e, from the noise of the darkest level; --read-noise states it",
    ]
    return Detector(gain=gain, read_noise=read_noise, offset=offset), said


def _patches(pixels: Array, mask: Mask | None, side: int = 8) -> tuple[Array, Array]:
    """Mean and noise variance of patches of 8 x 8 pixels without a bad or saturated one."""
    bad = ~np.isfinite(pixels) if mask is None else ~np.isfinite(pixels) | mask
    clean = np.where(bad, 0.0, pixels)
    bad = ndimage.binary_dilation(bad | (clean >= clean.max()), structure=np.ones((3, 3)))
    noise = ndimage.convolve(clean, LAPLACE, mode="nearest") ** 2
    h, w = (n // side * side for n in pixels.shape)
    cut = [a[:h, :w].reshape(h // side, side, w // side, side) for a in (clean, noise, bad)]
    good = ~cut[2].any((1, 3)).ravel()
    return cut[0].mean((1, 3)).ravel()[good], cut[1].mean((1, 3)).ravel()[good]


def _transfer(signal: Array, variance: Array, bins: int = 16) -> tuple[float, float] | None:
    """Slope and value at zero of the line through the bins' medians; None where the slope is below 3 of its errors."""
    order = np.argsort(signal)
    groups = [g for g in np.array_split(order, bins) if g.size >= 5]
    x = np.array([np.median(signal[g]) for g in groups])
    y = np.array([np.median(variance[g]) for g in groups])
    if len(x) < 4 or not (y > 0).all():
        return None
    weight = np.sqrt([len(g) for g in groups]) / y
    design = np.stack([x, np.ones_like(x)], 1)
    solution, *_ = np.linalg.lstsq(design * weight[:, None], y * weight, rcond=None)
    residual = (design @ solution - y) * weight
    spread = np.linalg.inv((design * weight[:, None]).T @ (design * weight[:, None]))
    error = np.sqrt(spread[0, 0] * (residual**2).sum() / max(len(x) - 2, 1))
    if not solution[0] > 3 * error:
        return None
    return float(solution[0]), float(max(solution[1], y.min() * 0.1))
