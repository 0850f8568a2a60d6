"""Peaks of a single pixel that are sharper than any light through the PSF can be: cosmic rays, hot and dead pixels.

Light that falls through a PSF reaches the neighbours of a pixel, too: with b the darkest level nearby, the mean of the
four neighbours above b is at least T times the pixel above b, where T is that of a point source in the middle of the
pixel.  A sum of sources, a galaxy or a gradient only has more.  What has less, by more than the noise explains, is no
light from the sky.  The same holds for holes, with the signs exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
GENEROUS, FEWEST = 2.0, 20
"""Factor by which the variance of light may be larger than stated, and pixels that show how it is stated."""
TAIL = 8.0
"""The same, in units of the slope of the variance, the light of one photon."""
PASSES = 4
"""Times that the test is repeated on what is left, so that hits of several pixels are taken off from their ends."""
REACH = 3 * PASSES
"""Pixels around one that decide about it."""
EDGE = 2
"""Pixels around one that are looked at in one pass."""
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


def with_stated(noise: PeakNoise, pixels: NDArray[Any], bad: Mask, variance: NDArray[Any]) -> PeakNoise:
    """The noise of peaks with a slope of at most `GENEROUS` times that of a stated variance.

    Where stars are hardly sampled their own shape looks like noise, and single pixels beside it like stars.

    Parameters
    ----------
    noise : as measured.
    pixels, bad : (h, w), as of `measure_peak_noise`.
    variance : (h, w), unit**2, as it is stated.
    """
    light = np.asarray(pixels, np.float64) - noise.sky
    good = ~bad & np.isfinite(variance) & (variance > 0)
    bright = good & (light > 10 * np.sqrt(noise.dark))
    if good.sum() < FEWEST or bright.sum() < FEWEST:
        return noise
    slopes = (variance[bright] - np.median(variance[good])) / light[bright]
    return replace(noise, slope=min(noise.slope, GENEROUS * max(float(np.percentile(slopes, 90)), 0.0)))


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
    room = np.pad(np.where(bad, np.nan, pixels), EDGE, constant_values=np.nan)
    found = {sign: np.zeros(bad.shape, bool) for sign in (1.0, -1.0)}
    # beside the masked core of a star the pixels that are left fall off steeply
    allowed = ~ndimage.binary_dilation(bad)
    places = {sign: np.nonzero(_stands_out(room, sign, noise) & allowed) for sign in found}
    # what is left of a star without its peak is no cosmic ray, should the PSF be narrower than stated
    for limit in (least, *(least / 2,) * (PASSES - 1)):
        for sign, place in places.items():
            keep = _is_sharp(room, place, noise, limit, sign)
            places[sign] = (place[0][keep], place[1][keep])
        new = np.zeros(bad.shape, bool)
        for sign, place in places.items():
            new[place] = found[sign][place] = True
        if not new.any():
            break
        room[EDGE:-EDGE, EDGE:-EDGE][new] = np.nan
        near = ndimage.binary_dilation(new, np.ones((5, 5))) & allowed & ~found[1.0] & ~found[-1.0]
        places = dict.fromkeys(found, np.nonzero(near))
    return found[1.0], found[-1.0]


def _stands_out(room: Array, sign: float, noise: PeakNoise) -> Mask:
    """Pixels that are far above a neighbour along the row and one along the column: few, and these are looked at."""
    here = room[EDGE:-EDGE, EDGE:-EDGE]
    least = np.float32(SIGNIFICANT * np.sqrt(noise.dark))
    one, two = (np.fmin, 1) if sign > 0 else (np.fmax, -1)
    with np.errstate(invalid="ignore"):
        row = two * (here - one(room[EDGE:-EDGE, 1:-3], room[EDGE:-EDGE, 3:-1])) > least
        return np.asarray(row & (two * (here - one(room[1:-3, EDGE:-EDGE], room[3:-1, EDGE:-EDGE])) > least))


def _is_sharp(room: Array, place: tuple[NDArray[np.intp], ...], noise: PeakNoise, least: float, sign: float) -> Mask:
    """(n,) True for the places, (n,) rows and columns, whose pixel is too sharp.

    Parameters
    ----------
    room : (h + 4, w + 4), the pixels and a border of `EDGE`; NaN where nothing is known.
    place, noise, least : as of `sharp_peaks`.
    sign : 1 for peaks, -1 for holes.
    """
    if not len(place[0]):
        return np.zeros(0, bool)
    line = np.arange(2 * EDGE + 1)
    around = sign * room[place[0][:, None, None] + line[:, None], place[1][:, None, None] + line].astype(np.float64)
    peak, four = around[:, EDGE, EDGE], around[:, [1, 3, 2, 2], [2, 2, 1, 3]]
    count = np.isfinite(four).sum(1)
    ordered = np.sort(np.where(np.isfinite(four), four, -np.inf), axis=1)
    floor = np.nanmin(around, axis=(1, 2))
    beside = np.where(np.isfinite(four), four, 0.0).sum(1) / np.maximum(count, 1)
    height, excess = peak - floor, beside - floor
    # what the neighbours of a source of this height would scatter by
    at_neighbours = noise.variance(sign * (floor + least * height))
    scatter = np.sqrt(least**2 * noise.variance(sign * peak) + at_neighbours / np.maximum(count, 1))
    short = least * height - excess > SIGNIFICANT * scatter
    # an electron multiplier makes of single photons an exponential tail, of half the slope
    short &= height - excess / least > TAIL * noise.slope
    # beside a hit one neighbour is far off, which makes nothing of the pixels around it: so the second one counts
    apart = np.minimum(height, 1.5 * (peak - ordered[:, 2]))
    return np.asarray((count >= 2) & short & (apart > 1.5 * SIGNIFICANT * np.sqrt(noise.variance(sign * floor))))
