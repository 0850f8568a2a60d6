"""Values, variances and validity of an image between its pixels, of the pixels next to the place alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

REACH = 2
"""Pixels on either side of a place that its value is made of."""
LOST = 0.02
"""Share of a value's weight that may be of bad pixels, which count as the sky, before it is bad too."""


@dataclass(frozen=True)
class Resampled:
    """An image on other pixels; every plane has the shape of the places."""

    values: Array
    variance: Array
    valid: Mask
    """Nothing beyond the image and no bad pixel is in the value."""


def keys(distance: Array) -> Array:
    """Weights of cubic convolution, Keys 1981 (IEEE Trans. ASSP 29, 1153), eq. 15 with a = -1/2."""
    d = np.abs(distance)
    near, far = (1.5 * d - 2.5) * d * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def resample_cubic(image: NDArray[Any], variance: NDArray[Any], bad: Mask, places: Array) -> Resampled:
    """Interpolate an image at places between its pixels by cubic convolution.

    The value is of 4 x 4 pixels and of no others, so that a window gives what the whole image gives. **Where the PSF is
    narrower than 2 px the value between pixels is wrong by up to a third of the local difference.**

    Parameters
    ----------
    image, variance : (h, w), without its sky where ``bad`` pixels are to count as sky.
    bad : (h, w)
    places : (2, ...) of y and x, px.
    """
    h, w = image.shape
    y, x = places
    first = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    usable = np.isfinite(y) & np.isfinite(x)
    values, noise, lost = (np.zeros(y.shape) for _ in range(3))
    clean, spread = np.where(bad, 0, image), np.where(bad, 0, variance)
    inside = usable & (first[0] >= 1) & (first[1] >= 1) & (first[0] < h - 2) & (first[1] < w - 2)
    for dy in range(-1, 3):
        iy = first[0] + dy
        wy, iy = keys(y - iy), np.clip(iy, 0, h - 1)
        for dx in range(-1, 3):
            ix = first[1] + dx
            weight, ix = wy * keys(x - ix), np.clip(ix, 0, w - 1)
            values += weight * clean[iy, ix]
            noise += weight**2 * spread[iy, ix]
            lost += np.abs(weight) * bad[iy, ix]
    return Resampled(values, noise, inside & (lost <= LOST))
