"""Peaks of a single pixel that are sharper than any light through the PSF can be: cosmic rays, hot and dead pixels.

Light that falls through a PSF reaches the neighbours of a pixel, too: with b the darkest level nearby, the mean of the
four neighbours above b is at least T times the pixel above b, where T is that of a point source in the middle of the
pixel.  A sum of sources, a galaxy or a gradient only has more.  What has less, by more than the noise explains, is no
light from the sky.  The same holds for holes, with the signs exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sciresdiff.physics.photon_transfer import SECOND_DIFFERENCE
from sciresdiff.physics.psf.field import PSF

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

ANY_PSF = 0.08
"""T where the PSF is not known: a Gaussian of FWHM 0.8 px, narrower than any that is sampled."""
NARROWER = 0.85
"""The true PSF may be narrower than the stated one by this factor."""
UNDERSAMPLED = 0.15
"""T below which stars cannot be told from single pixels: a Gaussian of FWHM 1.3 px as it is stated."""
SIGNIFICANT = 6.0
"""Scatters by which the neighbours must fall short, and 1.5 times as many by which the pixel must stand out."""
TAIL = 8.0
"""The same, in units of the slope of the variance, the light of one photon."""
PASSES = 4
"""Times that the test is repeated on what is left, so that hits of several pixels are taken off from their ends."""
REACH = 3 * PASSES
"""Pixels around one that decide about it."""
MEDIAN_OF_SQUARE = 0.4549364
"""Median of the square of a standard normal variable."""


@dataclass(frozen=True)
class PeakNoise:
    """The noise of a pixel as far as its frame shows it: variance = dark + slope (value - sky), in the file's unit."""

    dark: float
    slope: float
    sky: float

    def variance(self, values: Array) -> Array:
        """(h, w), unit**2, where ``values`` are expected."""
        return self.dark + self.slope * np.maximum(values - self.sky, 0.0)


def measure_peak_noise(pixels: NDArray[Any], bad: Mask) -> PeakNoise | None:
    """An upper estimate of the noise of every pixel, sources being on top of it.

    The variance is that of the second difference of Immerkaer (1996), whose median in bins of the local mean hardly
    sees single pixels.  Structure makes it larger, never smaller: of the slopes in the bins the least is taken.

    Parameters
    ----------
    pixels : (h, w), the file's unit.
    bad : (h, w), True where a pixel says nothing.

    Returns
    -------
    None where nothing scatters (an image without noise, or one with less than a photon in most pixels), or where
    hardly a pixel is valid.
    """
    values = np.where(bad, 0.0, pixels).astype(np.float64)
    square = ndimage.convolve(values, SECOND_DIFFERENCE, mode="nearest") ** 2
    mean = ndimage.uniform_filter(values, 3, mode="nearest")
    good = ~ndimage.binary_dilation(bad, np.ones((3, 3)))
    if good.sum() < 100:
        return None
    sky, mean, square = float(np.median(values[~bad])), mean[good], square[good]
    dark = float(np.median(square[mean <= np.median(mean)])) / MEDIAN_OF_SQUARE
    if not dark > 0:
        return None
    return PeakNoise(dark, max(_least_slope(mean - sky, square, dark), _slope_of_counts(values[~bad], sky, dark)), sky)


def _least_slope(light: Array, square: Array, dark: float) -> float:
    """The least d(variance) / d(value) of the bins of ``light`` (n,) above the sky that hold enough pixels; else 0."""
    slopes = []
    low = 2 * np.sqrt(dark)
    while low < light.max(initial=0.0):
        inside = (light >= low) & (light < 2 * low)
        if (n := int(inside.sum())) >= 20:
            # three standard errors of a median of squares more
            upper = float(np.median(square[inside])) / MEDIAN_OF_SQUARE * (1 + 7 / np.sqrt(n))
            slopes.append(max(upper - dark, 0.0) / float(np.median(light[inside])))
        low *= 2
    return min(slopes, default=0.0)


def _slope_of_counts(values: Array, sky: float, dark: float) -> float:
    """The slope that counts have: 1 for whole numbers, and variance over level of a sky that was not subtracted."""
    whole = bool((values == np.rint(values)).all())
    return max(1.0 if whole else 0.0, dark / sky if sky > 3 * np.sqrt(dark) else 0.0)


def least_neighbour(psf: PSF | None, scale: int) -> float:
    """T of the sharpest image: the mean of the four neighbours of the brightest pixel over that pixel, for one output
    pixel seen through the PSF, the least over its places in the pixel of the frame.

    Parameters
    ----------
    psf : on the output grid; None for integration over the pixel alone.
    scale : output pixels per pixel of the frame and axis.

    Returns
    -------
    Between 0 and 1; for a PSF that is narrower than stated by `NARROWER`.
    """
    if psf is None:
        return 0.0
    kernels = [psf.mean] if psf.weights is None else [psf.at(y, x) for y, x in _places(psf.weights.shape[1:])]
    least = min(_least_of_kernel(kernel, scale) for kernel in kernels)
    # of a Gaussian T = exp(-4 ln 2 / FWHM^2), whose power is the squared ratio of the widths
    return float(max(least, 0.0) ** (1 / NARROWER**2))


def _places(shape: tuple[int, ...]) -> list[tuple[float, float]]:
    """Nine places spread over a field."""
    return [(y * (shape[0] - 1), x * (shape[1] - 1)) for y in (0.1, 0.5, 0.9) for x in (0.1, 0.5, 0.9)]


def _least_of_kernel(kernel: Array, scale: int) -> float:
    ratios = []
    for dy in range(scale):
        for dx in range(scale):
            h, w = kernel.shape
            lead = (scale + dy, scale + dx)
            more = [(a, scale + (-(a + n)) % scale) for a, n in zip(lead, (h, w), strict=True)]
            padded = np.pad(kernel, more)
            coarse = padded.reshape(padded.shape[0] // scale, scale, padded.shape[1] // scale, scale).sum((1, 3))
            y, x = np.unravel_index(int(np.argmax(coarse)), coarse.shape)
            beside = coarse[y - 1, x] + coarse[y + 1, x] + coarse[y, x - 1] + coarse[y, x + 1]
            ratios.append(float(beside / 4 / coarse[y, x]))
    return min(ratios)


def sharp_peaks(pixels: NDArray[Any], bad: Mask, noise: PeakNoise, least: float) -> tuple[Mask, Mask]:
    """Pixels that stand out of their neighbours more sharply than light through the PSF can, up and down.

    A pixel is decided by those up to `REACH` px away, whatever surrounds these.

    Parameters
    ----------
    pixels : (h, w), the file's unit.
    bad : (h, w), True where a pixel says nothing.
    noise : of the frame.
    least : T.

    Returns
    -------
    peaks, holes : (h, w), True at them.
    """
    values = np.where(bad, 0.0, pixels).astype(np.float64)
    peaks, holes = np.zeros(bad.shape, bool), np.zeros(bad.shape, bool)
    # beside the masked core of a star the pixels that are left fall off steeply
    beside = ndimage.binary_dilation(bad)
    for _ in range(PASSES):
        out = bad | peaks | holes
        up = _sharp(values, out, noise, least, 1.0) & ~beside
        down = _sharp(values, out, noise, least, -1.0) & ~beside
        if not (up.any() or down.any()):
            break
        peaks |= up
        holes |= down
    return peaks, holes


def _sharp(values: Array, out: Mask, noise: PeakNoise, least: float, sign: float) -> Mask:
    """One pass: True where a valid pixel is too sharp."""
    signed = np.where(out, np.nan, sign * values)
    found = np.zeros(out.shape, bool)
    # few pixels stand out of their neighbours at all, and only these are looked at closely
    with np.errstate(invalid="ignore"):
        apart = signed - _second_neighbour(np.where(out, -np.inf, signed))
        place = np.nonzero(apart > SIGNIFICANT * np.sqrt(noise.dark))
    if not len(place[0]):
        return found
    around = _around(signed, place)
    floor = np.nanmin(around, axis=(1, 2))
    four = around[:, [1, 3, 2, 2], [2, 2, 1, 3]]
    count = np.isfinite(four).sum(1)
    beside = np.where(np.isfinite(four), four, 0.0).sum(1) / np.maximum(count, 1)
    height, excess = around[:, 2, 2] - floor, beside - floor
    # what the neighbours of a source of this height would scatter by
    at_neighbours = noise.variance(sign * (floor + least * height))
    scatter = np.sqrt(least**2 * noise.variance(sign * around[:, 2, 2]) + at_neighbours / np.maximum(count, 1))
    short = least * height - excess > SIGNIFICANT * scatter
    # an electron multiplier makes of single photons an exponential tail, of half the slope
    short &= height - excess / least > TAIL * noise.slope
    # beside a hit one neighbour is far off, which makes nothing of the pixels around it
    stands_out = np.minimum(height, 1.5 * apart[place]) > 1.5 * SIGNIFICANT * np.sqrt(noise.variance(sign * floor))
    found[place] = (count >= 2) & short & stands_out
    return found


def _around(values: Array, place: tuple[NDArray[np.intp], ...]) -> Array:
    """The 5 x 5 pixels around each of n places, (n, 5, 5); NaN beyond the border."""
    padded = np.pad(values, 2, constant_values=np.nan)
    line = np.arange(5)
    return padded[place[0][:, None, None] + line[:, None], place[1][:, None, None] + line]


def _second_neighbour(values: Array) -> Array:
    """The second highest of the four neighbours; -inf beyond the border."""
    padded = np.pad(values, 1, constant_values=-np.inf)
    above, below, left, right = padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]
    highest = np.minimum(np.maximum(above, below), np.maximum(left, right))
    return np.maximum(highest, np.maximum(np.minimum(above, below), np.minimum(left, right)))
