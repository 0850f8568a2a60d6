"""Image and truth brought to one PSF, as far as an aperture can tell, before fluxes are compared."""

from __future__ import annotations

import numpy as np

from sciresdiff.checks.check import UnmeasuredError
from sciresdiff.checks.detection import APERTURE_PX
from sciresdiff.checks.evidence import Array, Evidence
from sciresdiff.checks.moments import stamps
from sciresdiff.checks.shape import HALF, widths

ALIKE = 0.005
"""Difference of the shares of a star's light in the aperture below which PSFs are not matched: 0.005 mag."""
WIDE = 2.0
"""Radius of the circle that all of a star's light is counted in, in apertures."""
RING = 3.0
"""Radius from which on a stamp holds a star's surroundings, in apertures."""
BROADEST = 8.0
"""Largest sigma of the blur, px."""


def matched_images(evidence: Evidence) -> tuple[Array, Array, str]:
    """Image and truth above their backgrounds, one of them blurred until both have the same share of a star's light in
    the aperture; and what was done, in words.

    The share is that of a circle of 4 px in one of 8 px, on the median of the stars; the blur is a Gaussian. **Matching
    by the FWHM would not do: a restored star has no Gaussian wings, and at x4 it cost Richardson-Lucy 0.15 mag.**
    """
    flat, true = evidence.detected.flat, evidence.reference.flat
    try:
        found = widths(evidence)
    except UnmeasuredError as why:
        return flat, true, f"PSFs not matched: {why}"
    told = f"FWHM {found.image:.3g} px, {found.truth:.3g} px in the truth"
    image_star, true_star = (star(plane, found.xy) for plane in (flat, true))
    image_share, true_share = share(image_star), share(true_star)
    if abs(image_share - true_share) < ALIKE:
        return flat, true, f"PSFs alike in the aperture: {told}"
    if image_share < true_share:
        return flat, blurred(true, blur(true_star, image_share)), f"the truth blurred to the image's PSF: {told}"
    return blurred(flat, blur(image_star, true_share)), true, f"the image blurred to the truth's PSF: {told}"


def star(flat: Array, xy: Array) -> Array:
    """Median of the stars at ``xy`` (n, 2), each above its own surroundings and divided by its own light: (k, k)."""
    each = stamps(flat, xy, HALF)[0]
    each = each - np.median(each[:, _radius() > RING * APERTURE_PX], axis=1)[:, None, None]
    return np.asarray(np.median(each / each[:, _radius() <= WIDE * APERTURE_PX].sum(1)[:, None, None], axis=0))


def share(one: Array) -> float:
    """Light of a star within the aperture, over that within two apertures."""
    return float(one[_radius() <= APERTURE_PX].sum() / one[_radius() <= WIDE * APERTURE_PX].sum())


def _radius() -> Array:
    """Distance of a stamp's pixels from the middle, px."""
    span = np.arange(-HALF, HALF + 1.0)
    return np.asarray(np.hypot(*np.meshgrid(span, span)))


def blur(one: Array, wanted: float) -> float:
    """Sigma of the Gaussian that leaves the share ``wanted`` in the aperture, px; at most 8."""
    low, high = 0.0, BROADEST
    padded = np.pad(one, 2 * HALF)
    middle = (slice(2 * HALF, -2 * HALF),) * 2
    for _ in range(20):
        sigma = (low + high) / 2
        low, high = (sigma, high) if share(blurred(padded, sigma)[middle]) > wanted else (low, sigma)
    return (low + high) / 2


def blurred(plane: Array, sigma: float) -> Array:
    """Convolution with a Gaussian that may be narrower than a pixel; periodic, sources are away from the border."""
    from scipy.fft import irfft2, rfft2
    from scipy.ndimage import fourier_gaussian

    return np.asarray(irfft2(fourier_gaussian(rfft2(plane), sigma, n=plane.shape[1]), s=plane.shape), np.float64)
