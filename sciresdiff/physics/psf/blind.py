"""The width of a PSF where no point source is known: an estimate from the power spectrum of the frame.

What a scene holds beyond points is no noise of any law, but its power falls with frequency like a power law between
flat (points) and steep (smooth bodies), while a PSF bends the spectrum down to the level of the noise:

    P(k) = A k^-alpha |OTF(k; FWHM)|^2 |pixel(k)|^2 + N

The slope and the width are told apart by the bend alone, so that the estimate is good to 10 or 20 %, and said so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize, special

from sciresdiff.errors import InputError
from sciresdiff.notes import Notes
from sciresdiff.physics.psf.shapes import AIRY_FWHM
from sciresdiff.physics.psf.spec import PSFSpec

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

RINGS = 48
"""Frequencies at which the spectrum is averaged over directions."""

SMALLEST = 32
"""Side of a frame, px, below which a spectrum has too few frequencies."""

SCENE_ERROR = 0.15
"""Error of the width from scenes that are no power law, rms over simulated skies and cells."""

SLOPE = 2.0, 1.5
"""Exponent of a scene that is expected, and its scatter."""

RING_ERROR = 0.1
"""Scatter of a scene's spectrum about a power law, in ln."""

SIGNAL = 3.0
"""Times the noise that the spectrum has to reach at the lowest frequencies."""

NARROWEST = 0.8
"""FWHM, px, below which the pixel itself is what bends the spectrum; the fit may go down to half of that."""

STARTS = (1.5, 3.0, 6.0)
"""FWHM, px, from which the fit begins."""


@dataclass(frozen=True)
class BlindWidth:
    """A width that was estimated without a point source."""

    spec: PSFSpec
    """A Gaussian, before the pixel integrates it."""
    fwhm: float
    """px of the frame."""
    fwhm_error: float
    """Standard error, as a share of the width."""
    notes: Notes = field(default_factory=Notes)


def estimate_width(pixels: NDArray[Any], mask: Mask | None = None) -> BlindWidth:
    """The width of the PSF from the frame's power spectrum.

    Three PSFs are fitted (Gaussian, Moffat of turbulence with beta 4.765, Airy) and averaged by how well they fit. The
    error holds that of the fit, what the three differ by, and 15 % for scenes that are no power law. **A round PSF of
    one width is all that is found**; where the detector undersamples, the width is an upper limit.

    Parameters
    ----------
    pixels : (Y, X) array
        Any unit.
    mask : (Y, X) bool array, optional
        True where a pixel is bad.

    Raises
    ------
    InputError
        A frame below 32 px, without a valid pixel, without structure above its noise, or whose spectrum does not bend.
    """
    k, power, count = radial_spectrum(pixels, mask)
    fits = {name: _fit(k, power, count, otf) for name, otf in TRANSFER.items()}
    cost = np.array([f[2] for f in fits.values()])
    share = np.exp(-0.5 * (cost - cost.min()))
    share /= share.sum()
    widths, errors = (np.array([f[i] for f in fits.values()]) for i in (0, 1))
    ln = float(share @ widths)
    error = float(np.sqrt(share @ (errors**2 + (widths - ln) ** 2) + SCENE_ERROR**2))
    fwhm = float(np.exp(ln))
    if fwhm < NARROWEST:
        raise InputError(
            f"psf: blind finds no bend in the frame's spectrum that a PSF of {NARROWEST:g} px or more would leave; its "
            "noise may be correlated, or its PSF narrower than a pixel: give --psf SPEC"
        )
    spec = PSFSpec("gaussian", {"fwhm": (round(fwhm, 4), "px")})
    line = (
        f"psf: estimated blindly, fwhm {fwhm:.3g} +- {error * fwhm:.2g} px, from the power spectrum of the frame;"
        " a PSF that was measured on stars or beads is better"
    )
    return BlindWidth(spec, fwhm, error, Notes(line))


def radial_spectrum(pixels: NDArray[Any], mask: Mask | None = None) -> tuple[Array, Array, Array]:
    """Power averaged over directions: frequency (cycles/px), power and number of modes, (n,) each.

    Bad pixels take the mean of their surroundings; the borders are faded out (Hann).

    Parameters
    ----------
    pixels : (Y, X) array
    mask : (Y, X) bool array, optional
        True where a pixel is bad.

    Raises
    ------
    InputError
        A frame below 32 px, or without a valid pixel.
    """
    pixels = np.asarray(pixels, np.float64)
    bad = ~np.isfinite(pixels) if mask is None else ~np.isfinite(pixels) | mask
    if min(pixels.shape) < SMALLEST or bad.all():
        raise InputError(
            f"psf: blind needs a frame of {SMALLEST} px a side with valid pixels, and this one has"
            f" {pixels.shape[0]} x {pixels.shape[1]}; give --psf SPEC"
        )
    flat = _fill(np.where(bad, 0.0, pixels - np.median(pixels[~bad])), bad)
    h, w = flat.shape
    window = np.outer(np.hanning(h + 2)[1:-1], np.hanning(w + 2)[1:-1])
    flat = flat - (flat * window).sum() / window.sum()
    power = np.abs(np.fft.rfft2(flat * window)) ** 2 / (window**2).sum()
    frequency = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None])
    edges = np.linspace(2.5 / min(h, w), 0.5, RINGS + 1)
    ring = np.digitize(frequency.ravel(), edges) - 1
    inside = (ring >= 0) & (ring < RINGS)
    sums = [np.bincount(ring[inside], v.ravel()[inside], RINGS) for v in (frequency, power, np.ones(power.shape))]
    k, p, n = (v[sums[2] > 0] for v in sums)
    return k / n, p / n, np.asarray(n, np.float64)


def _fill(flat: Array, bad: Mask) -> Array:
    """Bad pixels as the mean of what lies around them, weighted by a Gaussian of 3 px."""
    if not bad.any():
        return flat
    known, share = ndimage.gaussian_filter(flat, 3.0), ndimage.gaussian_filter((~bad).astype(np.float64), 3.0)
    return np.where(bad, known / np.maximum(share, 1e-6) * (share > 1e-3), flat)


def _fit(k: Array, power: Array, count: Array, transfer: Callable[[Array, float], Array]) -> tuple[float, float, float]:
    """ln FWHM, its error, and the cost of the fit of one PSF.

    Raises
    ------
    InputError
        No structure above the noise.
    """
    ln_power = np.log(np.maximum(power, 1e-300))
    # 4: neighbouring modes are correlated by the window
    error = np.sqrt(4 / count + RING_ERROR**2)
    pixel = 2 * np.log(np.sinc(k / np.sqrt(2)))  # the mean over directions is close to the diagonal

    def model(q: Array) -> Array:
        scene = q[0] - q[1] * np.log(k / 0.05) + 2 * transfer(k, float(np.exp(q[2]))) + pixel
        return np.asarray(np.logaddexp(scene, q[3]))

    def residual(q: Array) -> Array:
        return np.append((model(q) - ln_power) / error, (q[1] - SLOPE[0]) / SLOPE[1])

    low, high = [-np.inf, -0.5, np.log(0.4), -np.inf], [np.inf, 4.5, np.log(30), np.inf]
    floor = float(np.median(ln_power[-4:]))
    if ln_power[:3].mean() < floor + np.log(SIGNAL):
        raise InputError(
            "psf: blind finds no structure above the noise whose sharpness would show a PSF; give --psf SPEC"
        )
    found = [
        optimize.least_squares(
            residual, [ln_power[:3].mean(), 2.0, np.log(f), floor], bounds=(low, high), loss="soft_l1"
        )
        for f in STARTS
    ]
    best = min(found, key=lambda r: float(r.cost))
    covariance = np.linalg.pinv(best.jac.T @ best.jac) * max(1.0, 2 * best.cost / max(len(k) - 4, 1))
    return float(best.x[2]), float(np.sqrt(covariance[2, 2])), float(best.cost)


def _gaussian(k: Array, fwhm: float) -> Array:
    """ln of exp(-2 pi^2 sigma^2 k^2)."""
    return np.asarray(-((np.pi * k * fwhm) ** 2) / (4 * np.log(2)))


def _moffat(k: Array, fwhm: float, beta: float = 4.765) -> Array:
    """ln of 2 (z/2)^(beta-1) K_(beta-1)(z) / Gamma(beta-1), z = 2 pi k alpha (Trujillo et al. 2001, MNRAS 328, 977)."""
    z = np.maximum(2 * np.pi * k * fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1)), 1e-6)
    order = beta - 1
    # kve is K e^z, which does not underflow
    bessel = np.log(special.kve(order, z)) - z
    return np.asarray(np.log(2) + order * np.log(z / 2) - special.gammaln(order) + bessel)


def _airy(k: Array, fwhm: float) -> Array:
    """ln of 2 / pi (arccos v - v sqrt(1 - v^2)), v the frequency over the cut-off; -9 beyond it."""
    v = np.clip(k * fwhm / AIRY_FWHM, 0, 1)
    return np.asarray(np.log(np.maximum(2 / np.pi * (np.arccos(v) - v * np.sqrt(1 - v * v)), 1e-4)))


TRANSFER: Mapping[str, Callable[[Array, float], Array]] = {"gaussian": _gaussian, "moffat": _moffat, "airy": _airy}
"""PSF -> ln of its transfer function at k (cycles/px) for a FWHM (px)."""
