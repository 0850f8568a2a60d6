"""Optical profiles on the sub-pixel grid of simulated scenes: Gaussian, Moffat, halo, diffraction by a pupil."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from sciresdiff.physics.psf.shapes import FWHM_PER_SIGMA
from sciresdiff.scenes.draw import MARGIN, OVER, Array, Rng, ScenePSF, random_field

PIXEL_VARIANCE = (4 / 12 + 1 / 4) / OVER**2
"""Variance, px^2, that the B-spline of a drawn point and the sum over a pixel add to every optical profile."""


def _kernel_grid() -> tuple[Array, Array]:
    """Open coordinates (y, x) of a kernel in pixels, 0 in the middle."""
    line = (np.arange(2 * OVER * MARGIN, dtype=np.float32) - OVER * MARGIN) / OVER
    return line[:, None], line[None, :]


def psf_from_profile(profile: Array) -> ScenePSF:
    """Taper a profile to zero at the margin, normalise it, and measure it as a lone star.

    Parameters
    ----------
    profile : (2 * OVER * MARGIN, 2 * OVER * MARGIN) array
        On `_kernel_grid`, any constant factor.
    """
    y, x = _kernel_grid()
    taper = np.clip((MARGIN - np.hypot(x, y)) / (0.25 * MARGIN), 0, 1)
    kernel = profile * taper * taper * (3 - 2 * taper)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    fwhm, peak = _lone_star(kernel)
    return ScenePSF(kernel, fwhm, peak)


def _lone_star(kernel: Array) -> tuple[float, float]:
    """Width (of the circle with the area above half maximum) and peak of a star as `render` shows it."""
    c, r = kernel.shape[0] // 2, 10 * OVER
    core = kernel[c - r : c + r + 1, c - r : c + r + 1].astype(np.float64)
    taps = np.convolve([1 / 48, 23 / 48, 23 / 48, 1 / 48], np.ones(2))  # B-spline half-way, then the pixel
    core = ndimage.convolve1d(ndimage.convolve1d(core, taps, 0), taps, 1)
    fine = ndimage.zoom(core, 8, order=3)
    step = (core.shape[0] - 1) / (fine.shape[0] - 1) / OVER
    area = np.count_nonzero(fine > fine.max() / 2) * step**2
    return float(2 * np.sqrt(area / np.pi)), float(core.max())


def optical_width(fwhm_px: float) -> float:
    """FWHM in px of the Gaussian that, with the pixel, gives ``fwhm_px``."""
    return float(np.sqrt(fwhm_px**2 - PIXEL_VARIANCE * FWHM_PER_SIGMA**2))


def _radius2(ellipticity: float, angle: float) -> Array:
    """Squared elliptical radius over `_kernel_grid`, px^2, area kept."""
    y, x = _kernel_grid()
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return u**2 * (1 - ellipticity) + v**2 / (1 - ellipticity)


def gaussian_psf(fwhm_px: float, ellipticity: float = 0.0, angle: float = 0.0) -> ScenePSF:
    """Gaussian whose lone star has the width ``fwhm_px``.

    Parameters
    ----------
    fwhm_px : float
        Pixel included; above 0.9, which the pixel alone has.
    ellipticity : float
        1 - axis ratio.
    angle : float
        Of the major axis, radians from +x towards +y.
    """
    sigma = optical_width(fwhm_px) / FWHM_PER_SIGMA
    return psf_from_profile(np.exp(-_radius2(ellipticity, angle) / (2 * sigma**2)))


def moffat_psf(fwhm_px: float, beta: float, ellipticity: float = 0.0, angle: float = 0.0) -> ScenePSF:
    """Moffat profile (1 + r^2 / a^2)^-beta, the seeing of a ground-based telescope; parameters as `gaussian_psf`."""
    a2 = (optical_width(fwhm_px) / 2) ** 2 / (2 ** (1 / beta) - 1)
    return psf_from_profile((1 + _radius2(ellipticity, angle) / a2) ** -beta)


def halo_psf(core_px: float, halo_px: float, share: float) -> ScenePSF:
    """Two Gaussians: a core, and a halo with ``share`` of the flux; widths are FWHM in px, pixel included."""
    r2 = _radius2(0.0, 0.0)
    core, halo = (optical_width(w) / FWHM_PER_SIGMA for w in (core_px, halo_px))
    inner = (1 - share) * np.exp(-r2 / (2 * core**2)) / core**2
    return psf_from_profile(inner + share * np.exp(-r2 / (2 * halo**2)) / halo**2)


def pupil_psf(
    rng: Rng,
    width_px: float,
    obstruction: float,
    spider: float,
    waves: float,
    stretch: float = 1.0,
    power: int = 1,
    scatter: float = 0.0,
) -> ScenePSF:
    """Diffraction by an aberrated pupil, averaged over a band of wavelengths.

    Parameters
    ----------
    rng : numpy.random.Generator
        For the aberrations, the turn of the vanes and the blur of the band.
    width_px : float
        wavelength / diameter, in pixels (the width of the core is about the same).
    obstruction, spider : float
        Diameter of the central obstruction and width of the four vanes, in units of the pupil's diameter; 0 for none.
    waves : float
        Root-mean-square aberration in waves: low orders, and a weak zonal part that makes the halo's speckle.
    stretch : float
        Ratio of the pixel's sides on the sky.
    power : int
        2 for a confocal microscope (illumination times detection).
    scatter : float
        Share of the light in an exponential halo a few pixels wide.
    """
    n = 2 * OVER * MARGIN
    line = (np.arange(n, dtype=np.float32) - n / 2) * (2 * OVER * width_px / n)
    y, x = line[:, None] * stretch, line[None, :] / stretch
    turn = rng.uniform(0, np.pi / 2)
    total = np.zeros((n, n), np.float32)
    phase = _zernikes(rng, waves)
    zonal = [0.4 * waves * field for field in (random_field(rng, n, 2.0), random_field(rng, n, 1.0))]
    rough = zonal[0] + 0.5 * zonal[1]
    for shift in (0.9, 0.97, 1.03, 1.1):  # wavelengths of the band
        u, v = x * shift, y * shift
        # a path difference in waves is a phase that grows as 1 / wavelength
        wave = np.exp(np.complex64(2j * np.pi / shift) * (phase(u, v) + rough))
        field = np.fft.fft2(_aperture(u, v, obstruction, spider, turn, 2 * OVER * width_px / n) * wave)
        total += np.abs(field).astype(np.float32) ** 2
    profile = ndimage.gaussian_filter(np.fft.fftshift(total) ** power, OVER * rng.uniform(0.2, 0.4))
    far = np.sqrt(_radius2(0.0, 0.0)) / rng.uniform(4, 15)
    return psf_from_profile(profile / profile.sum() + scatter * np.exp(-far) / np.exp(-far).sum())


def _aperture(u: Array, v: Array, obstruction: float, spider: float, turn: float, step: float) -> Array:
    """Transmission of the pupil (radius 1), edges softened over one sample."""
    r = np.hypot(u, v)
    open_ = np.clip((1 - r) / step + 0.5, 0, 1) * np.clip((r - obstruction) / step + 0.5, 0, 1)
    if spider > 0:
        a, b = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
        for across in (a, b):
            open_ = open_ * np.clip((np.abs(across) - spider) / step + 0.5, max(0.0, 1 - 2 * spider / step), 1)
    return open_.astype(np.float32)


def _zernikes(rng: Rng, waves: float) -> Callable[[Array, Array], Array]:
    """Random defocus, astigmatism, coma, trefoil and sphere of `waves` in all, as a function of the pupil's plane."""
    c = rng.normal(size=8) * np.array([1, 1, 1, 0.8, 0.8, 0.5, 0.5, 0.7])
    c *= waves / np.sqrt((c**2).sum())

    def phase(u: Array, v: Array) -> Array:
        # Noll 1976, table I: sqrt(3), sqrt(6), sqrt(8) and sqrt(5) make each term of rms 1 over the pupil
        r2 = u * u + v * v
        low = c[0] * 1.73 * (2 * r2 - 1) + c[1] * 2.45 * (u * u - v * v) + c[2] * 4.9 * u * v
        coma = 2.83 * (3 * r2 - 2) * (c[3] * u + c[4] * v)
        trefoil = 2.83 * (c[5] * u * (u * u - 3 * v * v) + c[6] * v * (3 * u * u - v * v))
        return np.where(r2 < 1.2, low + coma + trefoil + c[7] * 2.24 * (6 * r2 * r2 - 6 * r2 + 1), 0).astype(np.float32)

    return phase
