"""One measurement as two in a row: what a cascade's coarse stage undoes, and what its fine stage does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sciresdiff.physics import psf
from sciresdiff.physics.psf.width import narrowest_sigma

Array = NDArray[np.float64]

TARGET = 2.0
"""FWHM that the image between the stages is to have, in its own pixels, as the last one has in its."""
LEAST = 0.75
"""Sigma of what is left for the coarse stage, middle px, below which the fine one takes the whole kernel."""
AROUND = 4
"""Pixels of the middle grid by which its kernel may reach further than the whole one's."""


def split_kernel(kernel: Array | None, fine: int) -> tuple[Array | None, Array | None]:
    """Kernels k_1 and k_2 whose operators in a row, D_1 k_1 D_2 k_2, are the one of the kernel, D k.

    D sums over pixels.  k_2 is the Gaussian between an image of FWHM `TARGET` fine pixels and one of as many middle
    pixels; k_1 is the rest, k / k_2, whose spectrum is cut at the middle grid's Nyquist frequency; it may have negative
    lobes.  **That cut is an error**, up to 0.1 % of the peak: the image between the stages is held to an approximation,
    and the last one has to be held to the kernel itself.  Of a kernel that is too narrow to leave
    anything for the coarse stage, and of none, the fine stage takes all, which is exact.

    Parameters
    ----------
    kernel : (K, L) array or None
        On the fine grid; None for pixel integration alone.
    fine : int
        Fine pixels per middle pixel and axis.

    Returns
    -------
    k_1, k_2 : arrays or None
        On the middle grid and on the fine one.
    """
    # variances add: sigma_2^2 = (TARGET fine)^2 - TARGET^2 in units of 2.355^2
    between = TARGET / np.sqrt(8 * np.log(2)) * np.sqrt(fine**2 - 1)
    if kernel is None or narrowest_sigma(kernel) < np.hypot(between, LEAST * fine):
        return None, kernel
    second = psf.render(f"gaussian:sigma={between}px", None, integrate=False)
    side = max(kernel.shape) // fine + 2 * AROUND
    side += 1 - side % 2
    whole = low_frequencies(kernel, side, fine)
    rest = np.fft.ifft2(whole / low_frequencies(second, side, fine)).real
    return np.fft.fftshift(rest), second


def low_frequencies(kernel: Array, side: int, fine: int) -> Array:
    """The lowest frequencies of a kernel on the fine grid, in the order of FFTs.

    Parameters
    ----------
    kernel : (K, L) array
        Odd sides, centred.
    side : int
        Frequencies per axis.
    fine : int
        The frequencies are those of a grid of ``side * fine`` pixels.

    Returns
    -------
    (side, side) complex array
    """
    n = side * fine
    y, x = (np.arange(m) - m // 2 for m in kernel.shape)
    f = np.fft.fftfreq(side) * side
    # a direct transform: only side x side of the (side fine)^2 frequencies are needed
    waves = [np.exp(-2j * np.pi * f[:, None] * at / n) for at in (y, x)]
    return np.asarray(waves[0] @ kernel @ waves[1].T)
