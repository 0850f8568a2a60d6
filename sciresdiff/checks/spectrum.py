"""What the image holds at each spatial frequency: its power over the truth's, and how much of it is the truth's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.check import Check, UnmeasuredError, absent
from sciresdiff.checks.evidence import HIDDEN, Array, Evidence, Mask, Result, filled

SMALLEST = 32
"""Shortest side of a plane that is transformed, px."""
RING_PX = 24
"""Pixels that a ring must have for its correlation to be read."""
LEAK_RINGS = 2
"""Half-width of a Hann window's main lobe, rings; so far power leaks from the data's band beyond its edge."""
FLOOR = 3e-7
"""Share of a plane's power that its borders leave at high frequencies through a Hann window (64 px; less of more)."""
ROWS = 256
"""Rows of a transform that are treated at once."""
MEND_PX = 17
"""Side of the square whose good pixels fill a masked one."""
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
    """The Hann window, (side,)."""
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(side) + 0.5) / side))


def transform(plane: Array, window: Callable[[int], Array]) -> NDArray[np.complex64]:
    """Half of the windowed plane's transform, (Y, X // 2 + 1); the windowed mean is subtracted first.

    Scaled such that white noise of variance v has the mean power v. float32 inside: 1e-14 of the total is noise.
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
    """Sums over rings of true radial frequency, 1 / min(shape) cycles/px wide, from 0 to 0.5.

    Parameters
    ----------
    shape : (Y, X) of the plane.
    parts : for some rows of the half-plane its quantities, each (rows, X // 2 + 1), the same in the other half.

    Returns
    -------
    Pixels of each ring, the sum of their frequencies, and the sums of the quantities; (min(shape) // 2 + 1,) each.
    """
    height, width = shape
    short = min(shape)
    fy, fx = np.fft.fftfreq(height), np.fft.rfftfreq(width)
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
    """|F|^2."""
    return np.asarray(spectrum.real**2 + spectrum.imag**2)


def cross(one: NDArray[np.complex64], other: NDArray[np.complex64]) -> NDArray[np.float32]:
    """Re F G*; the imaginary part cancels between the halves of the plane."""
    return np.asarray(one.real * other.real + one.imag * other.imag)


def first_below(frequency: Array, count: Array, curve: Array, threshold: Array | float) -> float:
    """Frequency at which a curve first falls below a threshold, linear between rings, cycles/px.

    Rings with fewer than 24 px are left out.

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


def mended(plane: Array, good: Mask) -> Array:
    """A plane whose bad pixels are the mean of the good ones within 8 px (the median where there is none)."""
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


def interpolated(evidence: Evidence) -> Array:
    """The bicubic image, (Y, X), whose data were mended where they say nothing; needs ``low``."""
    from sciresdiff.checks.baselines import bicubic

    low = evidence.low
    assert low is not None
    known = np.isfinite(low) if evidence.mask_low is None else np.isfinite(low) & ~evidence.mask_low
    if known.all():
        return evidence.bicubic
    fine = evidence.once("bicubic_mended", lambda: bicubic(mended(low, known), evidence.scale, evidence.quantity))
    return np.asarray(fine)


def truth_and_image(evidence: Evidence) -> tuple[Array, Array]:
    """Truth and image, whose pixels that are not judged are the truth's; needs ``truth``.

    Raises
    ------
    UnmeasuredError : one of them is constant, or there is nothing to judge.
    """
    assert evidence.truth is not None
    good = evidence.known
    if not good.any():
        raise UnmeasuredError("every pixel is masked")
    truth = filled(evidence.truth, np.isfinite(evidence.truth))
    for name, plane in (("image", evidence.high), ("truth", truth)):
        if np.ptp(plane[good]) == 0:
            raise UnmeasuredError(f"the {name} is constant")
    return truth, evidence.high if good.all() else np.where(good, evidence.high, truth)


def large_enough(evidence: Evidence) -> None:
    """Raises UnmeasuredError for a plane with a side of less than 32 px."""
    if min(evidence.high.shape) < SMALLEST:
        raise UnmeasuredError(f"needs {SMALLEST} px on each side")


def spectra(evidence: Evidence) -> Spectra:
    """The curves of an image, and beside it those of the truth and of the bicubic image where there are any.

    Hann window, mean subtracted. Pixels that are not judged are the truth's, else the mean of those around them.

    Raises
    ------
    UnmeasuredError : too small, all masked, or (with a truth) constant.
    """
    large_enough(evidence)
    size = (evidence.high.shape[0], evidence.high.shape[1])
    bicubic = None if evidence.low is None else _profile(mended(interpolated(evidence), evidence.known))
    if evidence.truth is None:
        frequency, count, image = _rings(size, transform(mended(evidence.high, evidence.known), hann))
        return Spectra(frequency, count, image, bicubic=bicubic)
    truth, plane = (transform(p, hann) for p in truth_and_image(evidence))
    frequency, count, image = _rings(size, plane)
    _, _, there, common = ring_sums(size, lambda rows: (power(truth[rows]), cross(plane[rows], truth[rows])))
    with np.errstate(divide="ignore", invalid="ignore"):
        alike = np.abs(common) / np.sqrt(image * count * there)
    return Spectra(frequency, count, image, there / count, bicubic, alike)


def _rings(size: tuple[int, int], spectrum: NDArray[np.complex64]) -> tuple[Array, Array, Array]:
    """Frequency, pixels and mean power of the rings."""
    count, frequency, total = ring_sums(size, lambda rows: (power(spectrum[rows]),))
    return frequency / count, count, total / count


def _profile(plane: Array) -> Array:
    return _rings((plane.shape[0], plane.shape[1]), transform(plane, hann))[2]


def power_ratio_high(evidence: Evidence) -> list[Result]:
    """Power of the image over the truth's above the data's Nyquist frequency, and the period down to which they agree.

    power_ratio_high = sum (P_x(k) + v) / sum (P_t(k) + v) over 1 / (2 scale) < k <= 1 / 2 cycles/px, with P the power
    of the planes under a Hann window and v the variance of the data's noise, spread over the fine pixels (0 without
    data): without it a truth that has nothing there would make invention of every ripple. 1 for the truth and for a
    draw from the posterior, less for a mean, more for an image that supplies texture. coherence_half_px = 1 / k, fine
    px, for the least k at which the cross-coherence |sum X T*| / sqrt(sum |X|^2 sum |T|^2) over a ring falls below 0.5
    (Saxton and Baumeister 1982, J. Microsc. 127, 127; over a whole ring the sum is real, so that this is the size of
    the Fourier ring correlation under another window). **The power is blind to where the structure is, the coherence to
    its strength; a noisy truth has power at every frequency and agrees with no image there.**
    """
    assert evidence.truth is not None
    curves = spectra(evidence)
    return [_measured("power_ratio_high", lambda: _ratio(evidence, curves)),
            _measured("coherence_half_px", lambda: _half(curves))]  # fmt: skip


def _measured(name: str, make: Callable[[], Result]) -> Result:
    try:
        return make()
    except UnmeasuredError as why:
        return absent(name, str(why))


def _ratio(evidence: Evidence, curves: Spectra) -> Result:
    assert curves.truth is not None and curves.coherence is not None
    edge = 0.5 / evidence.scale + LEAK_RINGS / min(evidence.high.shape)
    band = curves.frequency > edge
    there = curves.truth * curves.count
    if not band.any():
        raise UnmeasuredError("the data's own grid reaches as far as the image's")
    if there[band].sum() <= FLOOR * there.sum() and not evidence.hidden:
        raise UnmeasuredError("the truth has no power above the data's Nyquist frequency")
    floor = (evidence.hidden / HIDDEN) ** 2 * curves.count[band].sum()
    value = float(((curves.image * curves.count)[band].sum() + floor) / (there[band].sum() + floor))
    alike = float(np.sum((curves.coherence * curves.count)[band]) / curves.count[band].sum())
    meaning = f"{edge:.3g} to 0.5 cycles/px; mean cross-coherence with the truth there {alike:.2g}"
    return Result("power_ratio_high", value, "", "all", meaning=meaning)


def _half(curves: Spectra) -> Result:
    assert curves.coherence is not None
    at = first_below(curves.frequency, curves.count, curves.coherence, HALF)
    return Result("coherence_half_px", 1 / at, "px", "all", meaning=f"{at:.3g} cycles per fine px; 2 px is the finest")


CHECKS = {
    "power_ratio_high": Check(
        power_ratio_high,
        "Fine structure over the truth's: below 1 too smooth, above 1 invented; and the finest period that they share.",
        "Whether structure is in its place (the power); strength (the coherence); a noisy truth has power of its own.",
        ("truth",),
        ("power_ratio_high", "coherence_half_px"),
    ),
}
