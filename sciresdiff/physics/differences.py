"""Differences of neighbouring pixels: noise without the structure that a PSF has smoothed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import comb

Array = NDArray[np.float64]

MEDIAN_SQUARE = 0.45494
"""Median of the square of a normal number of scatter 1."""


def difference(order: int) -> Array:
    """Coefficients (order + 1,) of the difference of an order, which keep the variance of white noise.

    Its response to a frequency f is (2 sin(pi f))^order: next to nothing where a PSF passes light.
    """
    plain = comb(order, np.arange(order + 1)) * (-1.0) ** np.arange(order + 1)
    return np.asarray(plain / np.sqrt((plain**2).sum()))


def separable(plane: NDArray[Any], weights: Array) -> Array:
    """The plane (h, w) under weights (n,) along both axes; reflected at its borders."""
    return np.asarray(ndimage.correlate1d(ndimage.correlate1d(plane, weights, 0), weights, 1))


def undisturbed(bad: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """True where neither a bad pixel nor the border (h, w) is within ``reach`` px along an axis."""
    grown = np.pad(bad, 1, constant_values=True)
    return ~ndimage.binary_dilation(grown, np.ones((2 * reach + 1,) * 2))[1:-1, 1:-1]
