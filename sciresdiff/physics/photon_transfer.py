"""Gain and read noise from how the noise grows with the light: variance = read_noise^2 / gain^2 + signal / gain.

`detector_from_photon_transfer` measures the variance on the pixels of one frame, `gain_from_variance` reads it from a
stated variance plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sciresdiff.errors import UsageError
from sciresdiff.notes import Notes
from sciresdiff.physics.detector import Detector
from sciresdiff.physics.differences import MEDIAN_SQUARE, difference, separable, undisturbed

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SECOND_DIFFERENCE = np.outer([1, -2, 1], [1, -2, 1]) / 6
"""Of noise it keeps the variance, of smooth structure next to nothing (Immerkaer 1996)."""


ORDERS = 4, 6
"""Of the differences along both axes whose squares are the variance: structure that a PSF of 2 px FWHM or more has
smoothed does not reach them, and it reaches the second less than the first."""
BINS, FEWEST = 16, 50
"""Bins of the light, and pixels that each has at least."""
SURE = 3.0
"""The slope has to be so many times its error."""
ALIKE = 1.6
"""The slopes by the two differences differ by less than this factor where it is noise that they measure."""
UNSURE = 0.2
"""Relative error of the slope from which on it is called unsure."""
FEW = Notes("gain: too few pixels or no contrast for a photon-transfer slope; give --gain and --read-noise")
MARGIN = max(ORDERS) // 2
"""Pixels that a difference reaches."""


def detector_from_photon_transfer(pixels: NDArray[Any], mask: Mask | None = None) -> tuple[Detector | None, Notes]:
    """Offset, read noise and gain of a camera from one of its frames; an assumption, and noted as one.

    Offset: the darkest level of local means. Gain: the slope of local variance against local mean (photon transfer,
    Janesick 2001), var = read_noise^2 / gain^2 + (mean - offset) / gain. The variance is the median square of a
    fourth difference along both axes, which structure that a PSF has smoothed does not reach, in bins of the light. It
    is believed where the slope is 3 times its error and sixth differences, which structure reaches less, give the same.
    **If light reaches the darkest parts, the offset is too high and the read noise holds their photon noise. Behind an
    electron multiplier the gain holds the excess: it is that over F^2.**

    Parameters
    ----------
    pixels : (Y, X) array
        Any type, any unit that is linear in the light, offset still in it or not; 64 x 64 px are enough.
    mask : (Y, X) bool array, optional
        True where a pixel is bad.

    Returns
    -------
    detector : Detector or None
        Gain (e/ADU), read_noise (e), offset (ADU); None where no slope can be measured.
    notes : Notes
        What was found and how sure it is, or why not, one line each.
    """
    pixels = np.asarray(pixels, np.float64)
    bad = _unusable(pixels, mask)
    if bad.all():
        return None, FEW
    clean = np.where(bad, np.median(pixels[~bad]), pixels)
    used = undisturbed(bad, MARGIN)
    if used.sum() < 4 * FEWEST or not np.ptp(pixels[used]) > 0:
        return None, FEW
    # The darkest mean, as the darkest pixel is that of the noise.
    offset = float(np.percentile(ndimage.uniform_filter(clean, MARGIN * 2 + 1)[used], 1))
    line = _measure_line(clean, used, offset)
    if line is None:
        return None, Notes("gain: the noise does not grow with the signal, so no photon-transfer slope; give --gain")
    gain, read_noise = 1 / line.slope, float(np.sqrt(line.dark)) / line.slope
    unsure = "" if line.error < UNSURE else ", unsure"
    return Detector(gain=gain, read_noise=read_noise, offset=offset), Notes(
        f"offset: assumed {offset:.5g}, the darkest level of the histogram; --offset states it",
        f"gain: assumed {gain:.3g} e per unit, from the photon-transfer slope of the frame itself (+- "
        f"{100 * line.error:.0f} %{unsure}); --gain states it",
        f"read noise: assumed {read_noise:.3g} e, from the noise of the darkest level; --read-noise states it",
    )


@dataclass(frozen=True)
class _Line:
    """Variance against light: variance = dark + slope * light."""

    slope: float
    dark: float
    error: float
    """Relative, of the slope."""


def _unusable(pixels: Array, mask: Mask | None) -> Mask:
    """Bad pixels, and those at the brightest value, which may be saturation and has no noise."""
    bad = ~np.isfinite(pixels) if mask is None else ~np.isfinite(pixels) | mask
    return bad if bad.all() else bad | (pixels >= pixels[~bad].max())


def _measure_line(clean: Array, used: Mask, offset: float) -> _Line | None:
    """The line of variance against light; None where it is no noise of photons."""
    lines = []
    for order in ORDERS:
        weights = difference(order)
        # The mean of the light that the difference's variance is the mean of; the two are hardly correlated (0.06).
        light = separable(clean, weights**2) - offset
        lines.append(_fit_line(light[used], separable(clean, weights)[used] ** 2))
    first, second = lines
    alike = first and second and 1 / ALIKE < second.slope / first.slope < ALIKE
    return first if alike else None


def _fit_line(light: Array, squares: Array) -> _Line | None:
    """Line through the bins' variances; None where the slope is below 3 of its errors.

    Bins are equally wide in the root of the light, whose noise is the same everywhere. Bins that lie above the line by
    more than chance hold structure, and are left out one by one.
    """
    bins = np.sqrt(np.maximum(light, 0))
    edges = np.linspace(0, np.percentile(bins, 99.9), BINS + 1)[1:-1]
    number = np.digitize(bins, edges)
    groups = [g for g in (np.flatnonzero(number == i) for i in range(BINS)) if g.size >= FEWEST]
    x = np.array([light[g].mean() for g in groups])
    y = np.array([np.median(squares[g]) / MEDIAN_SQUARE for g in groups])
    # relative error of a variance by the median of n squares that neighbours share
    share = 3 / np.sqrt([g.size for g in groups])
    keep = y > 0
    while keep.sum() >= 3:
        solution, error = _weighted_line(x[keep], y[keep], share[keep])
        model = np.maximum(solution[1] + solution[0] * x, 0.1 * y[keep].min())
        off = np.where(keep, (y - model) / (share * model), -np.inf)
        if off.max() < 3:
            break
        keep[np.argmax(off)] = False
    else:
        return None
    if not solution[0] > SURE * error:  # noise that does not grow with the light
        return None
    # an intercept below zero is no variance
    dark = max(float(solution[1]), 0.1 * float(y[keep].min()))
    return _Line(float(solution[0]), dark, float(error / solution[0]))


def _weighted_line(x: Array, y: Array, share: Array) -> tuple[Array, float]:
    """Slope and value at zero of a line through y (n,) of relative errors ``share``; and the error of the slope."""
    design, model = np.stack([x, np.ones_like(x)], 1), y
    for _ in range(3):  # the error of a variance is proportional to what is expected of it
        weight = 1 / (share * model)
        solution, *_ = np.linalg.lstsq(design * weight[:, None], y * weight, rcond=None)
        model = np.maximum(design @ solution, 0.1 * y.min())
    residual = (design @ solution - y) * weight
    spread = np.linalg.inv((design * weight[:, None]).T @ (design * weight[:, None]))
    scatter = max(float((residual**2).sum()) / max(len(x) - 2, 1), 1.0)
    return np.asarray(solution, np.float64), float(np.sqrt(spread[0, 0] * scatter))


def gain_from_variance(
    pixels: NDArray[Any], mask: Mask | None, variance: NDArray[Any], offset: float
) -> tuple[float, float]:
    """Gain and read noise from a stated variance: the line variance = (x - offset) / gain + (read_noise / gain)^2.

    Parameters
    ----------
    pixels : (...) array
        Data units.
    mask : (...) bool array or None
        True where a pixel says nothing.
    variance : (...) array
        Data units squared; pixels without a positive one do not count.
    offset : float
        Value of a pixel without light, data units.

    Returns
    -------
    gain, read_noise : float
        Electrons per unit, and electrons.

    Raises
    ------
    UsageError
        A constant frame, or a variance that does not grow with the signal.
    """
    good = np.isfinite(pixels) & np.isfinite(variance) & (variance > 0)
    if mask is not None:
        good &= ~mask
    x, var = np.asarray(pixels, np.float64)[good] - offset, np.asarray(variance, np.float64)[good]
    if x.size < 2 or np.ptp(x) == 0:
        raise UsageError("anscombe: the variance does not tell a gain on a constant frame; give gain and read_noise")
    slope, level = np.polyfit(x, var, 1)
    if slope <= 0:
        raise UsageError("anscombe: the variance does not grow with the signal; give gain and read_noise")
    return 1 / slope, float(np.sqrt(max(level, 0.0)) / slope)
