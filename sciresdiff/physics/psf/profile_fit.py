"""The profile that an undersampled image of a PSF shows.

An image on pixels wider than half its FWHM is aliased: what it has beyond its own Nyquist frequency cannot be told from
what lies below, and a finer grid needs both.  Where a Gaussian or a Moffat profile, integrated over the pixel, is the
image to within its accuracy, that profile says how it goes on between the pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from sciresdiff.physics.psf.kernel import gaussian, moffat
from sciresdiff.physics.psf.shapes import FWHM_PER_SIGMA
from sciresdiff.physics.psf.spec import PSFSpec
from sciresdiff.physics.psf.width import moments_of_square

Array = NDArray[np.float64]

UNDERSAMPLED = 2.2
"""FWHM below which an image is aliased, px of its own: Nyquist needs 2, and an image has noise."""
LIKE = 0.01
"""Largest difference from a profile that is the image, as a share of the peak."""


def profile_of(image: Array) -> PSFSpec | None:
    """The profile of an undersampled image of a whole PSF, which has its pixel in it; None where it is none.

    Parameters
    ----------
    image : (K, L) array
        Odd sides, centred, sum 1.
    """
    yy, xx, _ = moments_of_square(image)
    start = max(float(FWHM_PER_SIGMA * np.sqrt(2 * max(yy, xx))), 1.2)  # the square of a Gaussian is narrower by 2^1/2
    if start > 1.5 * UNDERSAMPLED:
        return None
    for name in ("gaussian", "moffat"):
        spec, left, fwhm = _fit(image, name, start)
        if left < LIKE:
            return spec if fwhm < UNDERSAMPLED else None
    return None


def _fit(image: Array, name: str, start: float) -> tuple[PSFSpec, float, float]:
    """A profile, its largest difference as a share of the peak, and its FWHM with the pixel."""

    def draw(p: Array) -> Array:
        fwhm, e1, e2 = np.exp(p[0]), p[1], p[2]
        size = min(float(np.hypot(e1, e2)), 0.9)
        ratio, theta = (1 - size) / (1 + size), float(np.degrees(np.arctan2(e2, e1)) / 2)
        if name == "gaussian":
            drawn = gaussian(fwhm, ratio=ratio, theta=theta)
        else:
            drawn = moffat(fwhm, beta_of(p), ratio=ratio, theta=theta)
        return same_size(drawn, image.shape)

    first = np.array([np.log(start), 0.03, 0.03, np.log(2.5)][: 3 if name == "gaussian" else 4])
    found = least_squares(lambda p: (draw(p) - image).ravel(), first, diff_step=1e-4)
    size = min(float(np.hypot(found.x[1], found.x[2])), 0.9)
    params = {"fwhm": (float(np.exp(found.x[0])), "px")}
    if name == "moffat":
        params["beta"] = (beta_of(found.x), "")
    if size > 1e-3:
        params["ratio"] = ((1 - size) / (1 + size), "")
        params["theta"] = (float(np.degrees(np.arctan2(found.x[2], found.x[1])) / 2), "deg")
    left = float(np.abs(draw(found.x) - image).max() / image.max())
    return PSFSpec(name, params), left, float(np.sqrt(params["fwhm"][0] ** 2 + FWHM_PER_SIGMA**2 / 12))


def beta_of(p: Array) -> float:
    """The exponent of a Moffat profile, 1.05 to 20, of the logarithm that is fitted."""
    return float(np.clip(1 + np.exp(p[3]), 1.05, 20))


def same_size(kernel: Array, shape: tuple[int, ...]) -> Array:
    """A kernel cut or filled with zeros to a shape of odd sides, about its centre."""
    for axis, n in enumerate(shape):
        more = (n - kernel.shape[axis]) // 2
        if more >= 0:
            kernel = np.pad(kernel, [(more, more) if i == axis else (0, 0) for i in range(2)])
        else:
            kernel = kernel.take(np.arange(-more, kernel.shape[axis] + more), axis)
    return kernel
