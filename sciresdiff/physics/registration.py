"""Displacement of two images of one thing on one grid, and whether it is the only one that they allow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import UnmeasuredError

Array = NDArray[Any]
Mask = NDArray[np.bool_]

STEPS = 30
"""Most Gauss-Newton steps; from a start within a PSF's width five are enough."""
EXACT_PX = 1e-4
"""Step at which the search ends, px."""
BLOCKS = 4
"""Blocks per side for the jackknife error of the displacement."""
ALIKE = 0.5
"""Least correlation of the registered images; below it the displacement is refused."""


@dataclass(frozen=True)
class Displacement:
    """Position of a source in ``low`` less that in ``high``, and the slope of the brightness."""

    y: float
    """Px of the common grid."""
    x: float
    """Px of the common grid."""
    error: float
    """Standard error per axis, px, by a delete-one-block jackknife."""
    slope: float
    """low = slope * high + constant, over all pixels."""
    correlation: float
    """Of the two images after the displacement."""


def displacement(high: Array, low: Array, good: Mask) -> Displacement:
    """Measure the displacement of one image against another on the same grid with the same blur.

    Begins at the peak of the windowed cross-correlation (whole pixels), and continues by Gauss-Newton with the model
    low(r) = slope * high(r - d) + constant, least squares over the good pixels (Lucas & Kanade 1981, IJCAI, 674). The
    error is a jackknife over 4 x 4 blocks of the frame, so that correlated noise and local differences count.
    **Colour gradients, variable or moving sources and a PSF image that is not centred are displacements, too.**

    Parameters
    ----------
    high, low : (Y, X).
    good : (Y, X), pixels that are valid in both.

    Raises
    ------
    UnmeasuredError : no structure in common.
    """
    inside = _inner(good)
    if not inside.any() or np.ptp(high[inside]) == 0 or np.ptp(low[inside]) == 0:
        raise UnmeasuredError("nothing but one value where both images are good")
    sky_high, sky_low = np.median(high[inside]), np.median(low[inside])
    units = float(np.std(high[inside])), float(np.std(low[inside]))  # fluxes of 1e-11 would upset the algebra
    high, low = np.where(good, high - sky_high, 0) / units[0], np.where(good, low - sky_low, 0) / units[1]
    shift = _whole_pixel_shift(high, low)
    for _ in range(STEPS):
        step = _step(_normal_equations(high, low, inside, shift))
        shift = shift + np.clip(step, -3, 3)
        if np.abs(step).max() < EXACT_PX:
            break
    moved = shift_image(high, shift)
    alike = float(np.corrcoef(moved[inside], low[inside])[0, 1])
    if not alike > ALIKE:
        raise UnmeasuredError(f"the images have too little in common (correlation {alike:.2f} after registration)")
    sums = _normal_equations(high, low, inside, shift)
    slope = float(_solve(sum(sums))[0]) * units[1] / units[0]  # type: ignore[arg-type]
    return Displacement(float(shift[0]), float(shift[1]), _jackknife(sums), slope, alike)


def _inner(good: Mask) -> Mask:
    """Good pixels away from the border, where a displaced image is not known."""
    edge = [max(2, n // 20) for n in good.shape]
    inside = np.zeros(good.shape, bool)
    inside[edge[0] : -edge[0], edge[1] : -edge[1]] = True
    return good & inside


def _whole_pixel_shift(high: Array, low: Array) -> Array:
    """The peak of the cross-correlation under a Hann window, whole px."""
    from scipy import fft

    # without a window the borders of the frame, which do not move, would correlate at zero
    window = np.outer(*(np.hanning(n) for n in high.shape))
    product = fft.rfft2(low * window) * np.conj(fft.rfft2(high * window))
    peak = np.unravel_index(int(np.argmax(fft.irfft2(product, s=high.shape))), high.shape)
    return np.array([p - n if p > n // 2 else p for p, n in zip(peak, high.shape, strict=True)], float)


def shift_image(image: Array, shift: Array | tuple[float, float]) -> Array:
    """Shift an image (Y, X) by (y, x) px with cubic splines; beyond the border its values are repeated."""
    from scipy import ndimage

    return np.asarray(ndimage.shift(image, shift, order=3, mode="nearest"))


def _normal_equations(high: Array, low: Array, inside: Mask, shift: Array) -> list[Array]:
    """Normal equations (4, 5) of slope, constant and slope times the next step (y, x), for every block."""
    moved = shift_image(high, shift)
    slopes = np.gradient(moved)
    # to first order high(r - d - e) = high(r - d) - e grad high(r - d): linear in slope, constant and slope e
    columns = np.stack([moved, np.ones_like(moved), -slopes[0], -slopes[1], low])
    rows, cols = (np.linspace(0, n, BLOCKS + 1).astype(int) for n in high.shape)
    cells = [np.s_[rows[i] : rows[i + 1], cols[j] : cols[j + 1]] for i in range(BLOCKS) for j in range(BLOCKS)]
    chosen = [columns[:, *cell][:, inside[cell]] for cell in cells if inside[cell].any()]
    return [part[:4] @ part.T for part in chosen]


def _solve(sums: Array) -> Array:
    return np.asarray(np.linalg.lstsq(sums[:, :4], sums[:, 4], rcond=1e-12)[0])


def _step(sums: list[Array]) -> Array:
    """The next step of the displacement."""
    found = _solve(sum(sums))  # type: ignore[arg-type]
    return found[2:] / found[0] if found[0] else np.zeros(2)


def _jackknife(sums: list[Array]) -> float:
    """Standard error per axis of the displacement, leaving out one block at a time."""
    total, n = sum(sums), len(sums)
    if n < 2:
        return float("inf")
    # delete-one jackknife, Efron 1982, chapter 3: (n - 1) / n sum (d_i - mean d)^2
    steps = np.array([_step([total - part]) for part in sums])
    return float(np.sqrt((n - 1) / n * ((steps - steps.mean(0)) ** 2).sum(0)).mean())


LEAST_OVERLAP = 0.2
"""Least share of the smaller image's good pixels that must lie on the other for a shift to be judged."""
UNIQUE = 0.1
"""Excess of the highest correlation over the next peak below which both shifts are possible."""
SIGNIFICANT = 6.0
"""Highest correlation over the scatter of the correlations of all shifts, from which there is a common structure."""


@dataclass(frozen=True)
class WholePixelShift:
    """The shift of highest correlation, whole px."""

    y: int
    """Position of a source in the second image less that in the first."""
    x: int
    correlation: float
    """At this shift."""
    runner_up: float
    """Of the next peak that does not belong to the same structure."""
    rival: tuple[int, int]
    """Where that is."""


def correlate_masked(one: Array, other: Array, good: Mask, good_other: Mask) -> tuple[Array, Array]:
    """Correlation coefficient of two images at every whole-pixel shift, over the pixels that are good in both.

    Padfield 2012, IEEE Trans. Image Process. 21, 2706, eqs. 12 to 14; `skimage.registration` has the same, but only
    returns the place of the maximum, which says nothing of others beside it.

    Parameters
    ----------
    one, other : (h, w) and (k, l).
    good, good_other : of the same shapes, pixels that count.

    Returns
    -------
    coefficients, overlap : (h + k - 1, w + l - 1)
        Entry (i, j) is of ``other`` shifted so that its pixel (k - 1 - i + y, l - 1 - j + x) meets (y, x) of ``one``;
        and the number of pixels that meet. 0 where they do not scatter.
    """
    from scipy import fft

    shape = [n + m - 1 for n, m in zip(one.shape, other.shape, strict=True)]
    size = [fft.next_fast_len(n, real=True) for n in shape]
    one, other = (np.where(g, image - image[g].mean(), 0) for image, g in ((one, good), (other, good_other)))

    def spectrum(image: Array) -> Array:
        return np.asarray(fft.rfft2(image.astype(np.float64), s=size))

    def correlate(a: Array, b: Array) -> Array:
        return np.asarray(fft.irfft2(a * b, s=size)[: shape[0], : shape[1]])

    mask, image, square = (spectrum(v) for v in (good, one, one**2))
    mask_, image_, square_ = (spectrum(v[::-1, ::-1]) for v in (good_other, other, other**2))
    overlap = np.maximum(np.rint(correlate(mask, mask_)), 1)
    sums, sums_ = correlate(image, mask_), correlate(mask, image_)
    both = correlate(image, image_) - sums * sums_ / overlap
    power = np.maximum(correlate(square, mask_) - sums**2 / overlap, 0)
    power_ = np.maximum(correlate(mask, square_) - sums_**2 / overlap, 0)
    norm = np.sqrt(power * power_)
    # what a constant region leaves of rounding is no scatter
    sound = norm > 1e-9 * norm.max()
    return np.where(sound, both / np.where(sound, norm, 1), 0), overlap


def find_whole_shift(one: Array, other: Array, good: Mask, good_other: Mask, near: float = np.inf) -> WholePixelShift:
    """Find the whole-pixel shift of highest correlation, and the next possible one.

    Parameters
    ----------
    one, other : (h, w) and (k, l)
        Of the same pixel size; compress their range first (arcsinh), or the brightest source decides alone.
    good, good_other : of the same shapes, pixels that count.
    near : largest shift along an axis that is looked at, px.

    Raises
    ------
    UnmeasuredError : no common structure, or several shifts are as good.
    """
    table, overlap = correlate_masked(one, other, good, good_other)
    table = np.where(overlap >= LEAST_OVERLAP * min(good.sum(), good_other.sum()), table, -1)
    y, x = (np.arange(n) - (m - 1) for n, m in zip(table.shape, other.shape, strict=True))
    table[(abs(y) > near)[:, None] | (abs(x) > near)] = -1
    looked = table > -1
    if not looked.any():
        raise UnmeasuredError("the images do not overlap enough")
    i, j = np.unravel_index(int(np.argmax(table)), table.shape)
    best, (ri, rj) = float(table[i, j]), _next_peak(table, int(i), int(j))
    found = WholePixelShift(int(-y[i]), int(-x[j]), best, float(table[ri, rj]), (int(-y[ri]), int(-x[rj])))
    values = table[looked]
    scatter = float(1.4826 * np.median(np.abs(values - np.median(values))))
    if not best > min(max(np.median(values) + SIGNIFICANT * scatter, 0.05), ALIKE):
        raise UnmeasuredError(f"the images have no structure in common (highest correlation {best:.2f})")
    if found.runner_up > (1 - UNIQUE) * best:
        raise UnmeasuredError(
            f"the shifts ({found.y}, {found.x}) and ({found.rival[0]}, {found.rival[1]}) px are as good"
            f" (correlation {best:.2f} and {found.runner_up:.2f}); the scene repeats itself"
        )
    return found


def _next_peak(table: Array, i: int, j: int) -> tuple[int, int]:
    """The highest local maximum that a valley below half of the main peak, or 3 px, separates from it."""
    from scipy import ndimage

    middle = np.median(table[table > -1])
    high = table > middle + 0.5 * (table[i, j] - middle)
    label = ndimage.label(high)[0]
    away = label != label[i, j]
    away[max(i - 3, 0) : i + 4, max(j - 3, 0) : j + 4] = False
    place = np.unravel_index(int(np.argmax(np.where(away, table, -np.inf))), table.shape)
    return int(place[0]), int(place[1])
