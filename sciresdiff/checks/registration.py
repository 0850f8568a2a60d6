"""Two images of one sky on one grid: matching of their blur, and the ratio of their fluxes.

Their displacement is measured by `physics.registration`. Nothing here reads files or world coordinates:
`jobs.evaluate.register` brings two frames onto one grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.arrays import Array, Mask, fill_with_median
from sciresdiff.checks.check import UnmeasuredError

TOUCHED = 0.05
"""Share of a blurred pixel's light that may come from bad pixels before it is bad too."""
ANNULUS = (1.25, 1.75)
"""Inner and outer radius of the ring that the sky is measured in, in radii of the aperture."""
LEAST_SKY = 0.3
"""Least share of the ring within the frame; with less the sky is that of everything outside the aperture."""


@dataclass(frozen=True)
class Aperture:
    """Sky-subtracted sums in the same aperture, flux."""

    high: float
    low: float
    sky: str
    """Where the sky was measured, in words."""
    radius: float
    """In the unit of the pixel sides."""


def convolve(image: Array, good: Mask, kernel: Array) -> tuple[Array, Mask]:
    """Convolve an image with a kernel, its bad pixels filled by the median; borders reflect.

    Parameters
    ----------
    image, good : (Y, X).
    kernel : (K, L), odd sides, centred, sum 1.

    Returns
    -------
    (Y, X) image, and where at most 5 % of a pixel's light comes from bad pixels.
    """
    from scipy.signal import fftconvolve

    pads = [(min(k // 2, n),) * 2 for k, n in zip(kernel.shape, image.shape, strict=True)]
    inner = tuple(slice(p, p + n) for (p, _), n in zip(pads, image.shape, strict=True))

    def blur(plane: Array) -> Array:
        return np.asarray(fftconvolve(np.pad(plane, pads, mode="symmetric"), kernel, mode="same")[inner])

    valid = good if good.all() else good & (blur((~good).astype(float)) < TOUCHED)
    return blur(fill_with_median(image, good)), valid


def resample_psf(psf: Array, jacobian: NDArray[np.float64]) -> Array:
    """Resample a PSF to another grid by cubic splines. **Below a FWHM of 2 px the splines invent the core.**

    Parameters
    ----------
    psf : (K, L), odd sides, centred.
    jacobian : (2, 2), steps (y, x) on the PSF's grid for a step (y, x) on the new one.

    Returns
    -------
    (M, N), odd sides, centred, sum 1.
    """
    from scipy.ndimage import map_coordinates

    reach = (np.abs(np.linalg.inv(jacobian)) @ (np.array(psf.shape) // 2)).astype(int)
    steps = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"))
    places = np.einsum("ij,jyx->iyx", jacobian, steps) + (np.array(psf.shape) // 2)[:, None, None]
    image = map_coordinates(psf, places, order=3, mode="constant")
    return np.asarray(image / image.sum())


def negative_wings(psf: Array) -> float:
    """Measure by how much the light of a PSF (K, L) within some radius exceeds that of all of it, as a share.

    0 for wings that are nowhere negative on average; more where a subtracted background was too high.
    """
    y, x = np.ogrid[: psf.shape[0], : psf.shape[1]]
    away = np.hypot(y - psf.shape[0] // 2, x - psf.shape[1] // 2)
    within = np.cumsum(psf.ravel()[np.argsort(away, axis=None, kind="stable")])
    return max(0.0, float(within.max() / within[-1]) - 1)


def brightest(image: Array, good: Mask, radius: float, sides: tuple[float, float]) -> tuple[int, int] | None:
    """Find the brightest pixel (y, x) about which a circle fits into the frame; None where there is none.

    Parameters
    ----------
    image, good : (Y, X).
    radius : in the unit of ``sides``.
    sides : of a pixel (y, x).
    """
    away = [_from_edge(n) * side for n, side in zip(image.shape, sides, strict=True)]
    fits = good & (np.minimum.outer(*away) >= radius)
    if not fits.any():
        return None
    place = np.unravel_index(int(np.argmax(np.where(fits, image, -np.inf))), image.shape)
    return int(place[0]), int(place[1])


def _from_edge(n: int) -> Array:
    """Distance of every pixel's centre from the edge of the frame along an axis, px: (n,)."""
    return np.asarray(np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5)


def aperture(
    high: Array, low: Array, good: Mask, place: tuple[float, float], radius: float, sides: tuple[float, float]
) -> Aperture:
    """Sum both images in a circle, less their sky.

    The sky is the median, clipped at 3 sigma, of a ring of 1.25 to 1.75 radii as far as it lies in the frame, else of
    all that is outside the circle. Bad pixels are left out of both images. **A source in the ring raises the sky; light
    beyond the circle is lost to both, and to the blurrier image more of it.**

    Parameters
    ----------
    high, low : (Y, X), on one grid, in flux per pixel of that grid.
    good : (Y, X), pixels that are valid in both.
    place : (y, x) of the circle's centre, px.
    radius : in the unit of ``sides``, the sides of a pixel (y, x).

    Raises
    ------
    UnmeasuredError : no sky, or nothing in the aperture of ``high``.
    """
    y, x = ((np.arange(n) - p) * side for n, p, side in zip(high.shape, place, sides, strict=True))
    away = np.hypot(y[:, None], x[None, :])
    # pixels on the edge count by how far their centre lies inside, a linear ramp one pixel wide
    weight = np.clip((radius - away) / np.sqrt(sides[0] * sides[1]) + 0.5, 0, 1) * good
    ring, words = _ring(away, good, radius, sides)
    if not ring.any():
        raise UnmeasuredError(f"no sky outside an aperture of radius {radius:.3g}; give a smaller one")
    sums = [float(((image - _clipped_median(image[ring])) * weight).sum()) for image in (high, low)]
    if not sums[0] > 0:
        raise UnmeasuredError(f"no flux above the sky in an aperture of radius {radius:.3g}")
    return Aperture(sums[0], sums[1], words, radius)


def _ring(away: Array, good: Mask, radius: float, sides: tuple[float, float]) -> tuple[Mask, str]:
    """Pixels (Y, X) in which the sky is measured, and these in words."""
    inner, outer = (radius * factor for factor in ANNULUS)
    ring = good & (away > inner) & (away < outer)
    share = float(ring.sum()) * sides[0] * sides[1] / (np.pi * (outer**2 - inner**2))
    if share > LEAST_SKY:
        return ring, f"clipped median of a ring of radii {inner:.3g} to {outer:.3g} ({100 * min(share, 1):.0f} % of it)"
    return good & (away > inner), f"clipped median of what is more than {inner:.3g} away"


def _clipped_median(values: Array) -> float:
    from astropy.stats import sigma_clipped_stats

    return float(sigma_clipped_stats(values, sigma=3.0, maxiters=20)[1])
