"""A blur on one grid as it is on another: turned, of another pixel size, and without the pixel in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sciresdiff.physics.interpolation import keys

Array = NDArray[np.float64]

ROOM = 8
"""Pixels around a kernel for what a change of it adds to its wings."""
NEGLIGIBLE = 1e-6
"""Light in the outermost rows of a kernel, as a share, that is cut off."""


def turn_kernel(kernel: Array, matrix: Array, positive: bool = True) -> Array:
    """A kernel on a grid that lies turned or has pixels of another size.

    Interpolated by quintic splines, then normalised to its sum. **A kernel narrower than 1.5 px (FWHM) is not known
    between its pixels.**

    Parameters
    ----------
    kernel : (K, L) array
        Odd sides, centred.
    matrix : (2, 2) array
        Of offsets (y, x) in px of its grid to offsets in px of the other.
    positive : bool
        Whether it is a PSF by itself; one of several that are added up is left as it is turned, negative or not.

    Returns
    -------
    (K', L') array
        Odd sides, centred, of the same sum; of one among several the sum is the same to the interpolation.
    """
    if np.allclose(matrix, np.eye(2), atol=1e-6):
        return kernel
    half = np.array(kernel.shape) // 2
    reach = np.ceil(np.abs(matrix) @ (half + 0.5)).astype(int)
    wide = np.pad(kernel, ROOM)
    back = np.linalg.inv(matrix)
    y, x = np.mgrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1]
    at = np.einsum("ab,bij->aij", back, np.stack([y, x]).astype(float)) + (half + ROOM)[:, None, None]
    turned = ndimage.map_coordinates(wide, at, order=5, mode="constant")
    if not positive:
        return np.asarray(turned / abs(np.linalg.det(matrix)), np.float64)
    turned = np.maximum(turned, 0)
    return np.asarray(turned * (kernel.sum() / turned.sum()), np.float64)


def pixel_response(frequency: Array) -> Array:
    """Transform of an image pixel as `resample` integrates over it: a square of 1 px of the cubic interpolation.

    Parameters
    ----------
    frequency : (n,) cycles per px.
    """
    nodes, weights = np.polynomial.legendre.leggauss(20)
    taps = np.arange(-2, 3)
    # keys() is a cubic on either side of every whole and half number
    places = np.concatenate([0.25 * nodes - 0.25, 0.25 * nodes + 0.25])
    values = 0.25 * keys(taps[:, None] - places) @ np.tile(weights, 2)
    return np.asarray((values[:, None] * np.cos(2 * np.pi * taps[:, None] * frequency)).sum(0))


def without_pixel(kernel: Array, positive: bool = True) -> Array:
    """The blur that comes before `resample`, of one that comes before a sum over whole pixels of the image.

    `resample` integrates the image between its pixels, which is as wide as 1 px of it more than their sum.

    Parameters
    ----------
    kernel : (K, L) array
        Odd sides, centred: such that a block sum of the blurred image gives the data.
    positive : bool
        As of `turn_kernel`.

    Returns
    -------
    (K', L') array
        Odd sides, centred, of the same sum; without negative values where it is a PSF by itself. **A kernel narrower
        than 1 px (FWHM) becomes wider by up to that pixel.**
    """
    wide = np.pad(kernel, ROOM)
    responses = [pixel_response(np.fft.fftfreq(n).astype(np.float64)) for n in wide.shape]
    spectrum = np.fft.fft2(np.fft.ifftshift(wide)) / np.outer(*responses)
    found = np.fft.fftshift(np.fft.ifft2(spectrum).real)
    if not positive:
        return np.asarray(found)
    found = np.maximum(found, 0)  # Richardson-Lucy has no negative light
    return trim(found * (kernel.sum() / found.sum()))


def trim(kernel: Array) -> Array:
    """A kernel without outer rows and columns that hold next to nothing; its sum stays."""
    total = kernel.sum()
    while min(kernel.shape) > 3:
        ring = np.abs(kernel).sum() - np.abs(kernel[1:-1, 1:-1]).sum()
        if ring > NEGLIGIBLE * abs(total):
            break
        kernel = kernel[1:-1, 1:-1]
    return np.asarray(kernel * (total / kernel.sum()))
