"""Sky and noise of a frame, measured on the frame itself.

Four estimators stand side by side, because they answer four questions; on a frame full of light they differ by design:

======================= ==================================== ================================================
function                what it measures                     who uses it, and why
======================= ==================================== ================================================
`estimate_sky`          one level and scatter of the plane:  the zero point and unit in which a plane is
                        clipped median, the mode where it is restored, the fit of a stretch. Equivariant under
                        crowded; scatter of the pixels below a y + b, right in crowded fields and with padded
                                                             borders; one number, blind to gradients
`background_map`        a smooth map: clipped medians of     what has to be taken off before sources are fitted
                        squares                              or scatter is measured. Follows gradients; **takes
                                                             up light of objects wider than a square**
`sky_noise`             scatter in the squares that are as   the variance of a frame that states none. Texture
                        quiet as the quietest fifth          and sources in the other squares do not count
`noise_correlation`     scatter of box sums over quadrature  whether that variance holds for sums of pixels, as
                        in the quiet squares                 in resampled frames it does not
======================= ==================================== ================================================

The checks measure with ``photutils.Background2D`` instead (`sciresdiff.checks.detection.background`), so that what is
restored is not judged by the estimators that restored it. `photon_transfer` measures how the noise grows with light.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sciresdiff.errors import InputError
from sciresdiff.physics.differences import MEDIAN_SQUARE, difference, separable, undisturbed

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

MAD_TO_SIGMA = 1.482602218505602
"""Standard deviation of a Gaussian over its median absolute deviation, 1 / norm.ppf(3 / 4), as in astropy.stats."""

QUARTILE_TO_SIGMA = 1.4826022
"""The same number to 1e-8: of a Gaussian, over the distance from its lower quartile to its median."""

SAMPLE = 400_000
"""Pixels that a level is measured on; its error is then below 0.01 sigma."""

BLOCK = 32
"""Side of the squares in which background and scatter are measured, px."""

LIKE_QUIETEST = 1.15
"""Scatter of a square of sky, at most, in units of the quietest fifth's."""

ORDER = 4
"""Of the differences of neighbours."""
PATCH = 16
"""Side of the squares in which differences are taken, px."""
QUIETER = 0.89
"""Quarter's quantile of the medians of white noise in such squares, over that of all of it."""
ALIKE = 0.8
"""Share of it that differences of twice the order have at least where it is noise that they measure."""
WHITE = 0.9
"""Noise whose differences are at least so large, in units of its scatter, is white."""
CHANCE = 3.5
"""Three times their relative scatter in white noise, times the root of the number of pixels."""
FAINT = 0.035
"""Share of the sky's variance at large lags from which on it holds faint structure, where its noise is not known."""
MOST_OF_KNOWN = 1.2
"""Variance of the sky over the stated one from which on it holds structure."""
SKEWED = 0.08
"""Skew of sums of sky from which on sources are in it."""
BOX = 4
"""Side of the box whose scatter is compared with quadrature, px."""


def estimate_sky(pixels: NDArray[Any], mask: Mask | None = None) -> tuple[float, float]:
    """Level and scatter of the sky, robust against sources, crowding and padded borders.

    A clipped median; where the clipped pixels are still skewed (a crowded field, a full microscope image) the mode
    takes its place, and the scatter is that of the pixels below it. Equivariant: ``a y + b`` gives ``a sky + b`` and
    ``|a| sigma`` for a > 0.

    Parameters
    ----------
    pixels : (...) array
        Any unit; a frame with more than 400,000 valid pixels is sampled evenly.
    mask : (...) bool array, optional
        True where a pixel says nothing; NaN and infinity never count.

    Returns
    -------
    sky, sigma : float
        In the unit of the pixels; sigma is 0 where all are equal.

    Raises
    ------
    InputError
        No valid pixel.
    """
    values = _without_padding(sorted_sample(pixels, mask))
    if values[0] == values[-1]:
        return float(values[0]), 0.0
    sky, sigma, kept = _clip(values)
    if sigma == 0:
        return sky, _scatter_of_counts(values)
    if (kept.mean() - sky) > 0.1 * sigma:  # of a clean sky the mean and the median agree
        sky = _half_sample_mode(kept)
        below = sky - kept[kept < sky]
        sigma = MAD_TO_SIGMA * float(np.median(below)) if len(below) else sigma
    return sky, sigma


def sorted_sample(pixels: NDArray[Any], mask: Mask | None) -> Array:
    """The valid values, at most `SAMPLE` of them, in ascending order: (n,).

    Parameters
    ----------
    pixels : (...) array
    mask : (...) bool array or None
        True where a pixel says nothing.

    Raises
    ------
    InputError
        No valid pixel.
    """
    good = np.isfinite(pixels) if mask is None else np.isfinite(pixels) & ~np.asarray(mask, bool)
    values = np.asarray(pixels)[good]
    if not values.size:
        raise InputError("no valid pixel: all are NaN or masked")
    step = 1 + values.size // SAMPLE
    return np.sort(values[::step].astype(np.float64))


def _without_padding(values: Array) -> Array:
    """Drop a value that fills a border: far commoner than any other, and not where the rest has its sky."""
    # real noise repeats a value less often than a border of zeros does, unless counts are few
    level, counts = np.unique(values, return_counts=True)
    order = np.argsort(counts)
    filler = level[order[-1]]
    if counts[order[-1]] < 0.05 * values.size or len(level) < 3:
        return values
    rest = values[values != filler]
    sky, sigma, _ = _clip(rest)
    continuous = counts[order[-2]] < 0.02 * rest.size
    straddles = 0.1 < np.mean(rest < filler) < 0.9
    return rest if abs(sky - filler) > 5 * sigma > 0 or (continuous and straddles) else values


def _clip(values: Array, limit: float = 3.0, rounds: int = 20) -> tuple[float, float, Array]:
    """Median and scatter of sorted values, those beyond ``limit`` scatters left out until none is."""
    from astropy.stats import mad_std

    for _ in range(rounds):
        sky, sigma = float(np.median(values)), float(mad_std(values))
        low, high = np.searchsorted(values, [sky - limit * sigma, sky + limit * sigma])
        if sigma == 0 or high - low == values.size:
            break
        values = values[low:high]
    return sky, sigma, values


def _half_sample_mode(values: Array, fraction: float = 0.5, least: float = 0.1) -> float:
    """Median of the densest part of sorted values: the shortest half, again and again, down to a tenth of them.

    Half-sample mode of Bickel & Fruehwirth (2006), stopped early so that its scatter stays that of many pixels.
    """
    stop = max(least * values.size, 10)
    while values.size > stop:
        n = int(np.ceil(fraction * values.size))
        start = int(np.argmin(values[n - 1 :] - values[: values.size - n + 1]))
        values = values[start : start + n]
    return float(np.median(values))


def _scatter_of_counts(values: Array) -> float:
    """Scatter of values more than half of which are equal, as in photon counting: standard deviation, clipped."""
    for _ in range(3):
        values = values[np.abs(values - np.median(values)) <= 5 * values.std()]
    return float(values.std())


def background_map(pixels: NDArray[Any], mask: Mask | None = None, block: int = BLOCK) -> Array:
    """A smooth background: clipped medians of squares, median-filtered 3 x 3, interpolated linearly.

    Parameters
    ----------
    pixels : (Y, X) array
    mask : (Y, X) bool array, optional
        True where a pixel is bad.
    block : int
        Side of the squares, px.

    Returns
    -------
    (Y, X) array
        In the unit of the pixels; 0 where no square has 9 good pixels. **Objects wider than a square are taken for
        background.**
    """
    levels = np.array([[_clipped_lower_half(v)[0] for v in row] for row in _block_values(pixels, mask, block)])
    known = np.isfinite(levels)
    if not known.any():
        return np.zeros(pixels.shape)
    levels = np.where(known, levels, np.median(levels[known]))
    levels = ndimage.median_filter(levels, 3, mode="nearest")  # a square full of one object is an outlier
    # centres of the pixels in units of squares, whose centres are whole numbers
    places = [(np.arange(n) + 0.5) / block - 0.5 for n in pixels.shape]
    grid = np.meshgrid(*places, indexing="ij")
    return np.asarray(ndimage.map_coordinates(levels, grid, order=1, mode="nearest"))


def _block_values(pixels: NDArray[Any], mask: Mask | None, block: int) -> list[list[Array]]:
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


def _clipped_lower_half(values: Array) -> tuple[float, float]:
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
        sigma = QUARTILE_TO_SIGMA * float(middle - lower)
        if not sigma > 0:  # half of the values are equal, as in photon counting: quartiles say nothing
            return float(middle), float(ordered[first:last].std())
        ends = np.searchsorted(ordered, [middle - 3 * sigma, middle + 3 * sigma])
        if (ends == (first, last)).all():
            break
        first, last = int(ends[0]), int(ends[1])
    return float(middle), sigma


@dataclass(frozen=True)
class _QuietSky:
    """The parts of a frame that are as quiet as its quietest."""

    flat: Array
    """(Y, X), background removed."""
    good: Mask
    """True in the quiet squares, where nothing is masked."""
    share: float
    """Of the squares that are quiet."""
    squares: int
    """How many they are."""


def _quiet_sky(pixels: NDArray[Any], mask: Mask | None) -> _QuietSky:
    """The squares whose scatter is at most `LIKE_QUIETEST` times that of the quietest fifth."""
    pixels = np.asarray(pixels, np.float64)
    flat = pixels - background_map(pixels, mask)
    scatter = np.array([[_clipped_lower_half(v)[1] for v in row] for row in _block_values(flat, mask, BLOCK)])
    known = np.isfinite(scatter) & (scatter > 0)
    if not known.any():
        return _QuietSky(flat, np.zeros(flat.shape, bool), 0.0, 0)
    quiet = known & (scatter <= LIKE_QUIETEST * np.percentile(scatter[known], 20))
    good = np.kron(quiet, np.ones((BLOCK, BLOCK), bool))[: flat.shape[0], : flat.shape[1]].astype(bool)
    good &= np.isfinite(flat) if mask is None else np.isfinite(flat) & ~mask
    return _QuietSky(flat, good, float(quiet.sum() / known.sum()), int(quiet.sum()))


def sky_noise(pixels: NDArray[Any], mask: Mask | None = None) -> float:
    """Standard deviation of a pixel of sky, over the squares that are as quiet as the quietest fifth.

    Parameters
    ----------
    pixels : (Y, X) array
    mask : (Y, X) bool array, optional
        True where a pixel is bad.

    Returns
    -------
    float
        In the unit of the pixels; 0 for a constant image. **Texture that covers the whole frame counts as noise.**
    """
    sky = _quiet_sky(pixels, mask)
    return _clipped_lower_half(sky.flat[sky.good])[1] if sky.squares else 0.0


def neighbour_noise(pixels: NDArray[Any], mask: Mask | None = None, order: int = ORDER) -> float:
    """Standard deviation of a pixel by the differences of neighbours, in the quieter places of a frame.

    The root of the median square of differences along both axes, in squares; of these the quarter's quantile.
    **Noise that neighbours share counts for less; structure sharper than a PSF of 2 px FWHM counts as noise.**

    Parameters
    ----------
    pixels : (Y, X) array
    mask : (Y, X) bool array, optional
        True where a pixel is bad.
    order : int
        Of the differences, even.

    Returns
    -------
    float
        In the unit of the pixels; NaN where too few pixels are good.
    """
    bad = ~np.isfinite(pixels) if mask is None else ~np.isfinite(pixels) | mask
    good = undisturbed(bad, order // 2)
    squares = separable(np.where(bad, 0, pixels), difference(order)) ** 2
    medians = [
        np.median(squares[y : y + PATCH, x : x + PATCH][inside])
        for y in range(0, bad.shape[0], PATCH)
        for x in range(0, bad.shape[1], PATCH)
        if (inside := good[y : y + PATCH, x : x + PATCH]).sum() > PATCH**2 / 4
    ]
    return float(np.sqrt(np.percentile(medians, 25) / QUIETER / MEDIAN_SQUARE)) if medians else np.nan


@dataclass(frozen=True)
class NoiseScatter:
    """Scatter of the noise of a frame, in two ways that structure and correlation spoil differently."""

    sky: float
    """Of the quiet squares, see `sky_noise`; NaN where there is none. Structure makes it larger."""
    neighbours: float
    """By differences, see `neighbour_noise`; NaN where nothing is measured. Correlation makes it smaller."""
    empty: bool
    """Whether the quiet squares are sky without structure, so that ``sky`` is the noise."""
    white: bool
    """Whether differences of a higher order give the same, as they do of white noise, and not of sharp structure."""
    correlation: float
    """Scatter of box sums over quadrature in empty sky; 1 where that is not known."""

    @property
    def least(self) -> float:
        """A scatter that the noise has at least, 0 where nothing is known."""
        if self.empty:
            return self.sky
        return float(np.nan_to_num(np.fmin(self.sky, self.neighbours))) if self.white else 0.0

    @property
    def most(self) -> float:
        """A scatter that the noise has at most, infinity where nothing is known; of sums, where it is correlated."""
        found = self.sky * self.correlation if self.empty else float(np.fmax(self.sky, self.neighbours))
        return found if found > 0 else np.inf

    @property
    def inflation(self) -> float:
        """What sums of pixels scatter beyond the stated noise, of a frame in its units: at least 1.

        Error planes of resampled frames often hold the correlation already: pixels then scatter less than they state.
        """
        return max(self.correlation * min(self.sky, 1.0), 1.0) if self.empty else 1.0


def noise_scatter(pixels: NDArray[Any], mask: Mask | None = None, known: bool = False) -> NoiseScatter:
    """Scatter and correlation of the noise of a frame.

    Parameters
    ----------
    pixels : (Y, X) array
        In any unit; in units of the stated noise the scatter is 1 where that is right.
    mask : (Y, X) bool array, optional
        True where a pixel is bad.
    known : bool
        Whether the pixels are in units of a stated noise. With it, white noise is told from correlated where sources
        fill the frame: structure adds to the differences of neighbours, and never takes from them.
    """
    sky = _quiet_sky(pixels, mask)
    scatter = _clipped_lower_half(sky.flat[sky.good])[1] if sky.squares else np.nan
    neighbours = neighbour_noise(pixels, mask)
    alike = neighbour_noise(pixels, mask, 2 * ORDER) > ALIKE * neighbours
    empty = _without_sources(sky, scatter, known)
    if empty is None:
        return NoiseScatter(scatter, neighbours, False, alike, 1.0)
    # the differences of a small frame scatter by themselves
    white = neighbours > (WHITE - CHANCE / np.sqrt(np.size(pixels))) * (min(scatter, 1.0) if known else scatter)
    factor = 1.0 if white else _box_factor(*empty)
    return NoiseScatter(scatter, neighbours, True, alike, factor)


def noise_correlation(pixels: NDArray[Any], mask: Mask | None = None, variance: NDArray[Any] | None = None) -> float:
    """Scatter of box sums of sky over the quadrature sum of their pixels': 1 for independent noise.

    factor^2 = sum over lags of (1 - |dy|/b)(1 - |dx|/b) C(dy, dx) / C(0) for a box of b = 4 pixels, with C the sky's
    autocovariance over the quiet squares, its value at lags of 4 to 6 px taken off: resampled noise has none there,
    faint structure has.

    Parameters
    ----------
    pixels : (Y, X) array
    mask : (Y, X) bool array, optional
        True where a pixel is bad.
    variance : (Y, X) array, optional
        Of the pixels, where it is known: with it structure is told from noise.

    Returns
    -------
    float
        At least 1. **1 as well where there is no empty sky**: fewer than 4 or than a third of the squares are quiet,
        their sums are skewed as sources make them, their variance is more than 1.2 times the known one, or without one,
        more than 3.5 % of it lie at lags of 4 to 6 px. And 1 where fourth differences are those of white noise.
    """
    if variance is None:
        return noise_scatter(pixels, mask).correlation
    bad = ~(variance > 0) if mask is None else mask | ~(variance > 0)
    level = background_map(pixels, bad)
    return noise_scatter((pixels - level) / np.sqrt(np.where(bad, 1, variance)), bad, known=True).correlation


def _without_sources(sky: _QuietSky, scatter: float, known: bool) -> tuple[Array, Mask, float, float] | None:
    """Quiet sky at zero level, where it is, its variance, and what structure adds to that; None if it is not empty."""
    if sky.squares < 4 or sky.share < 1 / 3:
        return None
    # sources left in the quiet squares would correlate over their own width
    with np.errstate(invalid="ignore"):
        good = sky.good & ~ndimage.binary_dilation(np.abs(sky.flat) > 4 * scatter, iterations=2)
    if good.sum() < BLOCK**2:
        return None
    flat = np.where(good, sky.flat - sky.flat[good].mean(), 0.0)
    zero = float((flat**2).sum() / good.sum())
    # C at lags beyond the reach of common resampling kernels: what is left there is faint structure
    structure = float(np.mean([_autocovariance(flat, good, *lag) for d in (4, 5, 6) for lag in ((d, 0), (0, d))]))
    faint = structure > FAINT * zero and not (known and zero <= MOST_OF_KNOWN)
    if faint or _skew_of_sums(flat, good) > SKEWED:
        return None
    return flat, good, zero, max(structure, 0.0)


def _skew_of_sums(flat: Array, good: Mask, side: int = 3) -> float:
    """How much farther the brighter 5 % of sums over 3 x 3 px reach than the darker ones: -1..1.

    Noise is symmetric, correlated or not; light only adds.
    """
    sums = separable(flat, np.full(side, 1.0))[ndimage.binary_erosion(good, np.ones((side, side)))]
    if sums.size < 100:
        return np.inf
    low, middle, high = np.percentile(sums, (5, 50, 95))
    return float((high + low - 2 * middle) / max(high - low, 1e-30))


def _box_factor(flat: Array, good: Mask, zero: float, structure: float) -> float:
    """The factor from the autocovariance of the good pixels, ``zero`` at lag 0 and ``structure`` at large ones."""
    total = 0.0
    for dy in range(BOX):
        for dx in range(-BOX + 1 if dy else 0, BOX):
            weight = (1 - dy / BOX) * (1 - abs(dx) / BOX) * (1 if dy == dx == 0 else 2)  # C(-dy, -dx) = C(dy, dx)
            total += weight * (_autocovariance(flat, good, dy, dx) - structure)
    return float(np.sqrt(max(total / (zero - structure), 1.0))) if zero > structure else 1.0


def _autocovariance(flat: Array, good: Mask, dy: int, dx: int) -> float:
    """Mean product of the good pixels that are (dy, dx) apart; ``flat`` is 0 elsewhere."""
    (a, b), (ga, gb) = _lagged_views(flat, dy, dx), _lagged_views(good, dy, dx)
    pairs = int((ga & gb).sum())
    return float((a * b).sum()) / pairs if pairs else 0.0


def _lagged_views(plane: NDArray[Any], dy: int, dx: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Two views of a plane, (dy, dx) apart, dy >= 0."""
    h, w = plane.shape
    first = plane[: h - dy, max(0, -dx) : w - max(0, dx)]
    return first, plane[dy:, max(0, dx) : w - max(0, -dx)]
