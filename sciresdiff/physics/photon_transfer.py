"""Gain and read noise from how the noise grows with the light: variance = read_noise^2 / gain^2 + signal / gain.

`detector_from_photon_transfer` measures the variance on the pixels of one frame, `gain_from_variance` reads it from a
stated variance plane.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sciresdiff.errors import UsageError
from sciresdiff.notes import Notes
from sciresdiff.physics.detector import Detector

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SECOND_DIFFERENCE = np.outer([1, -2, 1], [1, -2, 1]) / 6
"""Of noise it keeps the variance, of smooth structure next to nothing (Immerkaer 1996)."""


def detector_from_photon_transfer(pixels: NDArray[Any], mask: Mask | None = None) -> tuple[Detector | None, Notes]:
    """Offset, read noise and gain of a camera from one of its frames; an assumption, and noted as one.

    Offset: the 1st percentile of local means, where the frame is darkest. Gain: the slope of local variance against
    local mean (photon transfer, Janesick 2001), var = read_noise^2 / gain^2 + (mean - offset) / gain, the variance
    being that of a second difference, which smooth structure does not reach; medians in bins of the mean, weighted
    line. **If light reaches the darkest parts, the offset is too high and the read noise holds their photon noise.**

    Parameters
    ----------
    pixels : (Y, X) array
        ADU, offset still in it.
    mask : (Y, X) bool array, optional
        True where a pixel is bad.

    Returns
    -------
    detector : Detector or None
        Gain (e/ADU), read_noise (e), offset (ADU); None where no slope can be measured.
    notes : Notes
        What was found or why not, one line each.
    """
    pixels = np.asarray(pixels, np.float64)
    mean, variance = _patch_mean_and_variance(pixels, mask)
    if len(mean) < 100 or not np.ptp(mean) > 0:
        return None, Notes(
            "gain: too few pixels or no contrast for a photon-transfer slope; give --gain and --read-noise"
        )
    offset = float(np.percentile(mean, 1))  # the minimum would be that of the noise
    fitted = _fit_binned_line(mean - offset, variance)
    if fitted is None:
        return None, Notes("gain: the noise does not grow with the signal, so no photon-transfer slope; give --gain")
    slope, dark = fitted
    gain, read_noise = 1 / slope, float(np.sqrt(max(dark, 0.0))) / slope
    return Detector(gain=gain, read_noise=read_noise, offset=offset), Notes(
        f"offset: assumed {offset:.5g}, the darkest level of the histogram; --offset states it",
        f"gain: assumed {gain:.3g} e per unit, from the photon-transfer slope of the frame itself; --gain states it",
        f"read noise: assumed {read_noise:.3g} e, from the noise of the darkest level; --read-noise states it",
    )


def _patch_mean_and_variance(pixels: Array, mask: Mask | None, side: int = 8) -> tuple[Array, Array]:
    """Mean and noise variance of patches of 8 x 8 pixels without a bad or saturated one."""
    bad = ~np.isfinite(pixels) if mask is None else ~np.isfinite(pixels) | mask
    clean = np.where(bad, 0.0, pixels)
    # the brightest value may be saturation, which has no noise; a second difference sees the next pixels too
    bad = ndimage.binary_dilation(bad | (clean >= clean.max()), structure=np.ones((3, 3)))
    noise = ndimage.convolve(clean, SECOND_DIFFERENCE, mode="nearest") ** 2
    h, w = (n // side * side for n in pixels.shape)
    cut = [a[:h, :w].reshape(h // side, side, w // side, side) for a in (clean, noise, bad)]
    good = ~cut[2].any((1, 3)).ravel()
    return cut[0].mean((1, 3)).ravel()[good], cut[1].mean((1, 3)).ravel()[good]


def _fit_binned_line(signal: Array, variance: Array, bins: int = 16) -> tuple[float, float] | None:
    """Slope and value at zero of the line through the bins' medians; None where the slope is below 3 of its errors."""
    order = np.argsort(signal)
    groups = [g for g in np.array_split(order, bins) if g.size >= 5]
    x = np.array([np.median(signal[g]) for g in groups])
    y = np.array([np.median(variance[g]) for g in groups])
    if len(x) < 4 or not (y > 0).all():
        return None
    weight = np.sqrt([len(g) for g in groups]) / y  # the error of a variance is proportional to it
    design = np.stack([x, np.ones_like(x)], 1)
    solution, *_ = np.linalg.lstsq(design * weight[:, None], y * weight, rcond=None)
    residual = (design @ solution - y) * weight
    spread = np.linalg.inv((design * weight[:, None]).T @ (design * weight[:, None]))
    error = np.sqrt(spread[0, 0] * (residual**2).sum() / max(len(x) - 2, 1))
    if not solution[0] > 3 * error:  # noise that does not grow with the light
        return None
    # an intercept below zero is no variance
    return float(solution[0]), float(max(solution[1], y.min() * 0.1))


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
