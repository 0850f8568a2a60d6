"""Power spectra: the image's power at each spatial frequency over the truth's, and their cross-coherence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.arrays import Array, Mask, fill_with_median
from sciresdiff.checks.baselines import bicubic, bicubic_image
from sciresdiff.checks.check import Check, UnmeasuredError
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.result import Result, not_computed
from sciresdiff.checks.source_lists import data_noise

SMALLEST = 32
"""Shortest side of a plane that is transformed, px."""
RING_PX = 24
"""Pixels that a ring must have for its correlation to be read."""
LEAK_RINGS = 2
"""Half-width of a Hann window's main lobe, rings: how far power leaks beyond the edge of the data's band."""
FLOOR = 3e-7
"""Share of a plane's power that leaks from its borders to high frequencies through a Hann window of 64 px or more."""
ROWS = 256
"""Rows of a transform that are processed at once, to bound memory."""
MEND_PX = 17
"""Side of the square whose good pixels fill a masked one, px."""
HALF = 0.5
"""Cross-coherence at which image and truth count as no longer alike."""


@dataclass(frozen=True, eq=False)
class Spectra:
    """Curves over rings of equal width, from 0 to 0.5 cycles/px."""

    frequency: Array
    """(n,), mean of the ring, cycles per fine px."""
    count: Array
    """(n,), pixels of the ring on the whole plane; half of them are independent."""
    image: Array
    """(n,), mean power, (image unit)**2; white noise of variance v has v."""
    truth: Array | None = None
    bicubic: Array | None = None
    coherence: Array | None = None
    """(n,), cross-coherence of image and truth, 0..1; NaN where one of them has no power."""


def hann(side: int) -> Array:
    """The Hann window at pixel centres, 1/2 - 1/2 cos(2 pi (i + 1/2) / side): (side,)."""
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(side) + 0.5) / side))


def transform(plane: Array, window: Callable[[int], Array]) -> NDArray[np.complex64]:
    """Fourier transform a windowed plane; its windowed mean is subtracted first.

    Scaled such that white noise of variance v has the mean power v. **In float32: power below 1e-14 of the total is
    rounding.**

    Parameters
    ----------
    plane : (Y, X), finite.
    window : side -> (side,) weights of one axis.

    Returns
    -------
    (Y, X // 2 + 1), the half with frequencies of 0 and more along x.
    """
    from scipy.fft import rfft2

    wy, wx = window(plane.shape[0]), window(plane.shape[1])
    mean = float(wy @ plane @ wx / (wy.sum() * wx.sum()))
    flat = np.empty(plane.shape, np.float32)
    np.subtract(plane, mean, out=flat, casting="same_kind")
    flat *= (wy / np.sqrt(np.sum(wy**2) * np.sum(wx**2))).astype(np.float32)[:, None]
    flat *= wx.astype(np.float32)
    return np.asarray(rfft2(flat, overwrite_x=True))


def ring_sums(shape: tuple[int, int], parts: Callable[[slice], Sequence[NDArray[Any]]]) -> list[Array]:
    """Sum quantities over rings of true radial frequency, 1 / min(shape) cycles/px wide, from 0 to 0.5.

    Parameters
    ----------
    shape : (Y, X) of the plane.
    parts : rows -> quantities of these rows of the half-plane, each (rows, X // 2 + 1), the same in the other half.

    Returns
    -------
    Pixels of each ring, the sum of their frequencies, and the sums of the quantities; (min(shape) // 2 + 1,) each.
    """
    height, width = shape
    short = min(shape)
    fy, fx = np.fft.fftfreq(height), np.fft.rfftfreq(width)
    # the half-plane stands for both halves, but for its first and, of even sides, last column
    twice = np.where((fx == 0) | (fx == 0.5), 1.0, 2.0)
    sums: list[Array] = []
    for top in range(0, height, ROWS):
        rows = slice(top, min(top + ROWS, height))
        radius = np.hypot(fy[rows, None], fx)
        ring = np.where(radius <= 0.5, np.rint(radius * short), short // 2 + 1).astype(np.intp).ravel()
        for i, part in enumerate((np.ones_like(radius), radius, *parts(rows))):
            found = np.asarray(np.bincount(ring, (part * twice).ravel(), minlength=short // 2 + 2)[:-1], np.float64)
            sums[i : i + 1] = [found if top == 0 else sums[i] + found]
    return sums


def power(spectrum: NDArray[np.complex64]) -> NDArray[np.float32]:
    """Compute |F|^2 of a transform (Y, X // 2 + 1)."""
    return np.asarray(spectrum.real**2 + spectrum.imag**2)


def cross(one: NDArray[np.complex64], other: NDArray[np.complex64]) -> NDArray[np.float32]:
    """Compute Re F G* of two transforms (Y, X // 2 + 1); the imaginary part cancels between the halves of the plane."""
    return np.asarray(one.real * other.real + one.imag * other.imag)


def first_below(frequency: Array, count: Array, curve: Array, threshold: Array | float) -> float:
    """Find the frequency at which a curve first falls below a threshold, linear between rings, cycles/px.

    Rings with fewer than 24 px are left out.

    Parameters
    ----------
    frequency, count, curve : (n,), of the rings; count in px.
    threshold : a number or (n,).

    Raises
    ------
    UnmeasuredError : it never does, or it is below from the start.
    """
    use = (count >= RING_PX) & np.isfinite(curve)
    f, gap = frequency[use], (curve - threshold)[use]
    below = np.flatnonzero(gap < 0)
    if not below.size:
        raise UnmeasuredError("image and truth are alike down to the finest period, 2 px")
    at = int(below[0])
    if at == 0:
        raise UnmeasuredError("image and truth differ at every period")
    return float(np.interp(0.0, [gap[at], gap[at - 1]], [f[at], f[at - 1]]))


def fill_locally(plane: Array, good: Mask) -> Array:
    """Replace the bad pixels of a plane (h, w) by the mean of the good ones within 8 px, or by the median of all."""
    if good.all():
        return plane
    if not good.any():
        raise UnmeasuredError("every pixel is masked")
    from scipy.ndimage import uniform_filter

    middle = float(np.median(plane[good]))
    total = uniform_filter(np.where(good, plane - middle, 0), MEND_PX, mode="reflect")
    share = uniform_filter(good.astype(np.float32), MEND_PX, mode="reflect")
    near = np.where(share > 0.5 / MEND_PX**2, total / np.maximum(share, 0.5 / MEND_PX**2), 0)
    return np.where(good, plane, near + middle)


def smooth_bicubic_image(evidence: Evidence) -> Array:
    """Make the bicubic image (Y, X) of the data with masked pixels filled from their surroundings; needs ``low``.

    `bicubic_image` keeps the values of masked pixels; their steps would have power at every frequency.
    """
    low, known = evidence.low, evidence.unmasked_low
    assert low is not None and known is not None
    if known.all():
        return bicubic_image(evidence)
    return evidence.share("smooth_bicubic", lambda: bicubic(fill_locally(low, known), evidence))


def truth_and_image(evidence: Evidence) -> tuple[Array, Array]:
    """Truth and image (Y, X), with the truth's values in pixels that are not valid; needs ``truth``.

    Raises
    ------
    UnmeasuredError : one of them is constant, or there is nothing to judge.
    """
    assert evidence.truth is not None
    good = evidence.valid_high
    if not good.any():
        raise UnmeasuredError("every pixel is masked")
    truth = fill_with_median(evidence.truth, np.isfinite(evidence.truth))
    for name, plane in (("image", evidence.high), ("truth", truth)):
        if np.ptp(plane[good]) == 0:
            raise UnmeasuredError(f"the {name} is constant")
    return truth, evidence.high if good.all() else np.where(good, evidence.high, truth)


def require_size(evidence: Evidence) -> None:
    """Refuse a plane with a side of less than 32 px.

    Raises
    ------
    UnmeasuredError : with the reason.
    """
    if min(evidence.high.shape) < SMALLEST:
        raise UnmeasuredError(f"needs {SMALLEST} px on each side")


def spectra(evidence: Evidence) -> Spectra:
    """Compute the spectra of the image, the truth and the bicubic image, as far as they are known.

    Hann window, mean subtracted. Pixels that are not valid have the truth's values, else the mean of those around them.

    Raises
    ------
    UnmeasuredError : too small, all masked, or (with a truth) constant.
    """
    require_size(evidence)
    size = (evidence.high.shape[0], evidence.high.shape[1])
    plain = (
        None if evidence.low is None else _profile(fill_locally(smooth_bicubic_image(evidence), evidence.valid_high))
    )
    if evidence.truth is None:
        frequency, count, image = _rings(size, transform(fill_locally(evidence.high, evidence.valid_high), hann))
        return Spectra(frequency, count, image, bicubic=plain)
    truth, plane = (transform(p, hann) for p in truth_and_image(evidence))
    frequency, count, image = _rings(size, plane)
    _, _, there, common = ring_sums(size, lambda rows: (power(truth[rows]), cross(plane[rows], truth[rows])))
    with np.errstate(divide="ignore", invalid="ignore"):
        coherence = np.abs(common) / np.sqrt(image * count * there)
    return Spectra(frequency, count, image, there / count, plain, coherence)


def _rings(size: tuple[int, int], spectrum: NDArray[np.complex64]) -> tuple[Array, Array, Array]:
    """Frequency, pixels and mean power of the rings, (n,) each."""
    count, frequency, total = ring_sums(size, lambda rows: (power(spectrum[rows]),))
    return frequency / count, count, total / count


def _profile(plane: Array) -> Array:
    """Mean power of a plane (Y, X) over the rings: (n,)."""
    return _rings((plane.shape[0], plane.shape[1]), transform(plane, hann))[2]


def power_ratio_high(evidence: Evidence) -> list[Result]:
    """Power of the image over the truth's above the data's Nyquist frequency, and the period down to which they agree.

    power_ratio_high = sum (P_x(k) + v) / sum (P_t(k) + v) over 1 / (2 scale) < k <= 1 / 2 cycles/px, with P the power
    of the planes under a Hann window and v the variance of the data's noise per fine pixel (0 without data): without it
    every ripple would count as invented where the truth has nothing. 1 for the truth and for a
    draw from the posterior, less for a mean, more for an image that supplies texture. coherence_half_px = 1 / k, fine
    px, for the least k at which the cross-coherence |sum X T*| / sqrt(sum |X|^2 sum |T|^2) over a ring falls below 0.5
    (Saxton and Baumeister 1982, J. Microsc. 127, 127; over a whole ring the sum is real, so that this is the size of
    the Fourier ring correlation under another window). **The power is blind to where the structure is, the coherence to
    its strength; a noisy truth has power at every frequency and agrees with no image there.**
    """
    assert evidence.truth is not None
    curves = spectra(evidence)
    return [_attempt("power_ratio_high", lambda: _ratio(evidence, curves)),
            _attempt("coherence_half_px", lambda: _half(curves))]  # fmt: skip


def _attempt(name: str, make: Callable[[], Result]) -> Result:
    """One of the two results, or why there is none; the other is not lost with it."""
    try:
        return make()
    except UnmeasuredError as why:
        return not_computed(name, str(why))


def _ratio(evidence: Evidence, curves: Spectra) -> Result:
    assert curves.truth is not None and curves.coherence is not None
    edge = 0.5 / evidence.scale + LEAK_RINGS / min(evidence.high.shape)
    band = curves.frequency > edge
    there = curves.truth * curves.count
    if not band.any():
        raise UnmeasuredError("the data's own grid reaches as far as the image's")
    if there[band].sum() <= FLOOR * there.sum() and not data_noise(evidence):
        raise UnmeasuredError("the truth has no power above the data's Nyquist frequency")
    # white noise of variance v has power v in every pixel of the transform
    floor = data_noise(evidence) ** 2 * curves.count[band].sum()
    value = float(((curves.image * curves.count)[band].sum() + floor) / (there[band].sum() + floor))
    coherence = float(np.sum((curves.coherence * curves.count)[band]) / curves.count[band].sum())
    meaning = f"{edge:.3g} to 0.5 cycles/px; mean cross-coherence with the truth there {coherence:.2g}"
    return Result("power_ratio_high", value, "", "all", meaning=meaning)


def _half(curves: Spectra) -> Result:
    assert curves.coherence is not None
    at = first_below(curves.frequency, curves.count, curves.coherence, HALF)
    return Result("coherence_half_px", 1 / at, "px", "all", meaning=f"{at:.3g} cycles per fine px; 2 px is the finest")


CHECKS = {
    "power_ratio_high": Check(
        power_ratio_high,
        "Power of fine structure over the truth's, above 1 invented; and the finest period that both share.",
        "Positions of structure (the power); its amplitude (the coherence); and a noisy truth has power of its own.",
        ("truth",),
        ("power_ratio_high", "coherence_half_px"),
    ),
}
