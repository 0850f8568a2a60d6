"""A blur on one grid as it is on another: turned, and of another pixel size.

Kernels belong to images whose pixels hold the light that falls on them: B(x) is the light on the pixels of the blurred
image.  On a grid with other pixels the same blur has another kernel, for what blurs the sky itself is the kernel
without the one pixel in it and with the other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sciresdiff.physics.psf.image import ROLL_OFF, roll_off, trim_radius

Array = NDArray[np.float64]
Spectrum = NDArray[np.complex128]

ROOM = 8
"""Pixels around a kernel for what a change of it adds to its wings."""
FINENESS = 3
"""How many times longer than a kernel the transform is between whose frequencies it is interpolated: by quintic splines
to 6e-5 of what is at the kernel's ends and 6e-7 of what is half-way there."""


def regrid_kernels(kernels: Array, matrix: Array) -> Array:
    """Kernels on a grid that lies turned, or has pixels of another size: linear, with their sums.

    The transform of a kernel at the frequencies of the other grid, times that of the other's pixel over that of its
    own.  For pixels of one size that lie alike this is 1; larger ones widen the kernel, smaller ones sharpen it, by up
    to 1.57 at the Nyquist frequency.  **Detail beyond the Nyquist frequency of either grid is lost**, smoothly: a
    kernel that is one pixel stays one.

    Parameters
    ----------
    kernels : (J, K, L) array
        Odd sides, centred.
    matrix : (2, 2) array
        Of offsets (y, x) in px of their grid to offsets in px of the other.

    Returns
    -------
    (J, K', L') array
        Odd sides, centred. **May have negative values, as those that are given.**
    """
    if np.allclose(matrix, np.eye(2), atol=1e-6):
        return kernels
    half = np.array(kernels.shape[1:]) // 2
    reach = np.ceil(np.abs(matrix) @ (half + 0.5)).astype(int) + ROOM
    n = 2 * reach + 1
    # the roll-off ends beyond the Nyquist frequency, and what lies there is folded back
    steps = [np.arange(-most, most + 1) for most in np.ceil((0.5 + ROLL_OFF / 2) * n).astype(int)]
    lines = [s / m for s, m in zip(steps, n, strict=True)]
    fy, fx = np.meshgrid(*lines, indexing="ij")
    own = np.einsum("ab,aij->bij", matrix, np.stack([fy, fx]))  # cycles per px of the kernels' grid
    other, one = (np.prod(np.sinc(np.clip(f, -0.5, 0.5)), axis=0) for f in ((fy, fx), own))
    factor = other / one * roll_off(np.abs(fy)) * roll_off(np.abs(fx))
    straight = np.allclose(matrix, np.diag(np.diag(matrix)), atol=1e-6)
    found = np.empty((len(kernels), *n))
    for kernel, out in zip(kernels, found, strict=True):
        seen = straight_spectrum(kernel, own[0][:, 0], own[1][0]) if straight else spectrum_at(kernel, own)
        spectrum = np.zeros(n, np.complex128)
        np.add.at(spectrum, np.ix_(steps[0] % n[0], steps[1] % n[1]), factor * seen)
        out[:] = np.fft.fftshift(np.fft.ifft2(spectrum).real)
    return found


def straight_spectrum(kernel: Array, y: Array, x: Array) -> Spectrum:
    """Transform of a kernel (K, L) at the frequencies (m,) of y and (n,) of x, cycles per px, as `spectrum_at`."""
    waves = [
        np.exp(-2j * np.pi * np.outer(np.clip(f, -0.5, 0.5), np.arange(side) - side // 2))
        for f, side in zip((y, x), kernel.shape, strict=True)
    ]
    return np.asarray(waves[0] @ kernel @ waves[1].T)


def spectrum_at(kernel: Array, frequencies: Array) -> Spectrum:
    """Transform of a kernel (K, L) at frequencies (2, m, n) of y and x, cycles per px.

    Beyond its Nyquist frequency it is what it is there: zero for a kernel that is well sampled, one for a single pixel.
    """
    sides = [FINENESS * side for side in kernel.shape]
    wide = np.zeros(sides)
    wide[: kernel.shape[0], : kernel.shape[1]] = kernel
    spectrum = np.fft.fft2(np.roll(wide, [-(side // 2) for side in kernel.shape], (0, 1)))
    at = np.clip(frequencies, -0.5, 0.5) * np.array(sides)[:, None, None]
    return np.asarray(ndimage.map_coordinates(spectrum, at, order=5, mode="grid-wrap"))


def trim_kernels(kernels: Array) -> Array:
    """The middle of kernels (J, K, L) beyond which no one has light worth the name, see `trim_radius`."""
    radius = max(trim_radius(kernel) for kernel in kernels)
    cuts = [max(side // 2 - radius, 0) for side in kernels.shape[1:]]
    return kernels[:, cuts[0] : kernels.shape[1] - cuts[0], cuts[1] : kernels.shape[2] - cuts[1]]
