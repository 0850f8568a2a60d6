"""Stars cut flat at a common level, where no card says from which value on the detector is saturated."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sciresdiff.observation.peaks import PeakNoise

Array = NDArray[Any]
Mask = NDArray[np.bool_]

BRIGHT = 20.0
"""Scatters above the sky of a level at which anything is cut."""
PILED = 3.0
"""Times that a level has more pixels than what lies within three scatters below it."""
SPREAD = 0.04
"""Width of a level that was flat-fielded, as a share of it."""
FEWEST = 3
"""Stars with a flat top that show such a level."""


def saturation_level(pixels: Array, bad: Mask, noise: PeakNoise | None) -> float:
    """The value from which on pixels are saturated, as the frame shows it; infinite where it does not.

    The largest value of a frame is that of one pixel, and just below it there are others. Where several have it and
    hardly any is within the noise below, it is where the detector ends.

    Parameters
    ----------
    pixels : (h, w), the file's unit.
    bad : (h, w), True where a pixel is known to be no data.
    noise : of the frame; without noise equal pixels say nothing.
    """
    valid = ~bad & np.isfinite(pixels)
    if noise is None or not valid.any():
        return np.inf
    values = np.where(valid, pixels, -np.inf)
    top = float(values.max())
    if top < noise.sky + BRIGHT * np.sqrt(noise.dark):
        return np.inf
    if _is_cut(values, top, noise):
        return top
    return _level_of_flat_field(values, top, noise)


def _is_cut(values: Array, top: float, noise: PeakNoise) -> bool:
    """Whether pixels pile up at exactly the largest value."""
    equal = values == top
    count, side_by_side = int(equal.sum()), _pairs(equal)
    if count < 2 or (count == 2 and not side_by_side):
        return False
    width = 3 * float(np.sqrt(noise.dark + noise.slope * (top - noise.sky)))
    just_below = int(((values < top) & (values > top - min(width, 0.02 * (top - noise.sky)))).sum())
    if count <= PILED * just_below:
        return False
    # a filtered image has equal pixels side by side at any level
    bright = (values < top) & (values > noise.sky + BRIGHT * np.sqrt(noise.dark))
    others = int(((values[:, 1:] == values[:, :-1]) & bright[:, 1:]).sum())
    others += int(((values[1:] == values[:-1]) & bright[1:]).sum())
    return others <= side_by_side


def _pairs(mask: Mask) -> int:
    """Number of neighbours both of which are True."""
    return int((mask[:, 1:] & mask[:, :-1]).sum() + (mask[1:] & mask[:-1]).sum())


def _level_of_flat_field(values: Array, top: float, noise: PeakNoise) -> float:
    """The lower end of a level that a flat field has spread; infinite where there is none.

    The tops of several stars end within `SPREAD` of the largest value, each with several pixels, and hardly a pixel is
    within as much below.
    """
    step = SPREAD * (top - noise.sky)
    piled, below = values > top - step, (values <= top - step) & (values > top - 2 * step)
    objects, number = ndimage.label(piled, np.ones((3, 3)))
    sizes = np.bincount(objects.ravel())[1:]
    if (sizes >= 4).sum() < FEWEST or sizes[sizes >= 4].sum() < 0.8 * piled.sum():
        return np.inf
    return top - step if piled.sum() > 2 * PILED * below.sum() else np.inf
