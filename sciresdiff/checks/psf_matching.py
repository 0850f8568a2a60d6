"""PSF matching of image and truth before fluxes are compared, as far as an aperture can tell."""

from __future__ import annotations

import numpy as np

from sciresdiff.checks.adaptive_moments import stamps
from sciresdiff.checks.arrays import Array
from sciresdiff.checks.check import UnmeasuredError
from sciresdiff.checks.detection import APERTURE_PX
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.shape import HALF, star_widths
from sciresdiff.checks.source_lists import image_sources, truth_sources

ALIKE = 0.005
"""Difference of the shares of a star's light in the aperture below which PSFs are not matched: 0.005 mag."""
WIDE = 2.0
"""Radius of the circle that all of a star's light is counted in, in apertures."""
RING = 3.0
"""Radius from which on a stamp holds a star's surroundings, in apertures."""
BROADEST = 8.0
"""Largest sigma of the blur, px."""
HALVINGS = 20
"""Steps of the search for the blur: to 8 / 2^20 px."""


def match_psfs(evidence: Evidence) -> tuple[Array, Array, str]:
    """Blur the sharper of image and truth by a Gaussian until stars have the same share of light in the aperture.

    The share is that of a circle of 4 px in one of 8 px, on the median of the stars. **Matching by the FWHM is not
    enough: a restored star has no Gaussian wings, and at x4 it cost Richardson-Lucy 0.15 mag.**

    Returns
    -------
    image, truth : (Y, X), above their backgrounds.
    how : what was done, in words; also where there are too few stars, and nothing was.
    """
    flat, true = image_sources(evidence).flat, truth_sources(evidence).flat
    try:
        found = star_widths(evidence)
    except UnmeasuredError as why:
        return flat, true, f"PSFs not matched: {why}"
    widths = f"FWHM {found.image:.3g} px, {found.truth:.3g} px in the truth"
    image_star, true_star = (median_star(plane, found.xy) for plane in (flat, true))
    image_share, true_share = aperture_share(image_star), aperture_share(true_star)
    if abs(image_share - true_share) < ALIKE:
        return flat, true, f"PSFs alike in the aperture: {widths}"
    if image_share < true_share:
        truth = gaussian_blur(true, blur_sigma(true_star, image_share))
        return flat, truth, f"the truth blurred to the image's PSF: {widths}"
    image = gaussian_blur(flat, blur_sigma(image_star, true_share))
    return image, true, f"the image blurred to the truth's PSF: {widths}"


def median_star(flat: Array, xy: Array) -> Array:
    """Stack stars by the median, each above its own surroundings and divided by its own light.

    Parameters
    ----------
    flat : (Y, X), above its background.
    xy : (n, 2), the stars.

    Returns
    -------
    (k, k), sum about 1 within two apertures.
    """
    each = stamps(flat, xy, HALF)[0]
    each = each - np.median(each[:, _radius() > RING * APERTURE_PX], axis=1)[:, None, None]
    return np.asarray(np.median(each / each[:, _radius() <= WIDE * APERTURE_PX].sum(1)[:, None, None], axis=0))


def aperture_share(star: Array) -> float:
    """Measure the light of a star (k, k) within the aperture, over that within two apertures.

    Whole pixels by their centres, which is enough for a ratio that is compared with itself.
    """
    return float(star[_radius() <= APERTURE_PX].sum() / star[_radius() <= WIDE * APERTURE_PX].sum())


def _radius() -> Array:
    """(k, k), distance of a stamp's pixels from the middle, px."""
    span = np.arange(-HALF, HALF + 1.0)
    return np.asarray(np.hypot(*np.meshgrid(span, span)))


def blur_sigma(star: Array, share: float) -> float:
    """Find the sigma of the Gaussian that leaves a share of a star (k, k) in the aperture; px, at most 8.

    By bisection: the share falls with every wider blur.
    """
    low, high = 0.0, BROADEST
    padded = np.pad(star, 2 * HALF)
    middle = (slice(2 * HALF, -2 * HALF),) * 2
    for _ in range(HALVINGS):
        sigma = (low + high) / 2
        low, high = (sigma, high) if aperture_share(gaussian_blur(padded, sigma)[middle]) > share else (low, sigma)
    return (low + high) / 2


def gaussian_blur(plane: Array, sigma: float) -> Array:
    """Convolve a plane (Y, X) with a Gaussian that may be narrower than a pixel, sigma in px.

    In Fourier space, exact for any sigma. **Periodic: for sources away from the border only.**
    """
    from scipy.fft import irfft2, rfft2
    from scipy.ndimage import fourier_gaussian

    return np.asarray(irfft2(fourier_gaussian(rfft2(plane), sigma, n=plane.shape[1]), s=plane.shape), np.float64)
