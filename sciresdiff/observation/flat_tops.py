"""Stars cut flat at a common level, where no card says from which value on the detector is saturated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sciresdiff.observation.bands import Bands
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


@dataclass(frozen=True)
class Top:
    """What has a plane's largest value, and what lies just below it."""

    level: float
    """The largest value."""
    step: float
    """`SPREAD` of it above the sky."""
    equal: int = 0
    """Pixels that have it."""
    pairs: int = 0
    """Neighbours both of which have it."""
    just_below: int = 0
    """Pixels within three scatters below it."""
    other_pairs: int = 0
    """Equal neighbours of any other bright value."""
    piled: int = 0
    """Pixels less than ``step`` below it."""
    below: int = 0
    """Pixels less than as much below these."""
    tops: int = 0
    """Objects of at least four of the piled pixels."""
    in_tops: int = 0
    """Pixels in these."""

    @property
    def is_cut(self) -> bool:
        """Whether pixels pile up at exactly the largest value."""
        if self.equal < 2 or (self.equal == 2 and not self.pairs):
            return False
        # a filtered image has equal pixels side by side at any level
        return self.equal > PILED * self.just_below and self.other_pairs <= self.pairs

    @property
    def is_flat_field(self) -> bool:
        """Whether they pile up at a level that a flat field has spread.

        The tops of several stars end within `SPREAD` of the largest value, each with several pixels, and hardly a pixel
        is within as much below.
        """
        if self.tops < FEWEST or self.in_tops < 0.8 * self.piled:
            return False
        return self.piled > 2 * PILED * self.below


def saturation_level(bands: Bands, top: float, noise: PeakNoise | None) -> float:
    """The value from which on pixels are saturated, as the frame shows it; infinite where it does not.

    The largest value of a frame is that of one pixel, and just below it there are others. Where several have it and
    hardly any is within the noise below, it is where the detector ends.

    Parameters
    ----------
    bands : all of the plane, the file's unit.
    top : its largest value.
    noise : of the frame; without noise equal pixels say nothing.
    """
    if noise is None or top < noise.sky + BRIGHT * np.sqrt(noise.dark):
        return np.inf
    found = find_top(bands, top, noise)
    if found.is_cut:
        return top
    return top - found.step if found.is_flat_field else np.inf


def find_top(bands: Bands, top: float, noise: PeakNoise) -> Top:
    """What lies at and just below the largest value of a plane; see `saturation_level`."""
    step = SPREAD * (top - noise.sky)
    scatter = float(np.sqrt(noise.dark + noise.slope * (top - noise.sky)))
    width, bright = min(3 * scatter, 0.02 * (top - noise.sky)), noise.sky + BRIGHT * np.sqrt(noise.dark)
    counts = np.zeros(8, np.int64)
    for band in bands():
        values = np.where(band.bad, -np.inf, band.pixels)
        core, equal = values[band.core], values == top
        piled = values > top - step
        counts += (
            int(equal[band.core].sum()),
            count_pairs(equal, equal, band.core),
            int(((core < top) & (core > top - width)).sum()),
            count_pairs(values, (values < top) & (values > bright), band.core),
            int(piled[band.core].sum()),
            int(((core <= top - step) & (core > top - 2 * step)).sum()),
            *count_tops(piled, band.core),
        )
    return Top(top, step, *map(int, counts))


def count_pairs(values: Array, where: Mask, core: slice) -> int:
    """Neighbours of equal value, the second of which is ``where``; those of which the first is in rows of the core.

    Parameters
    ----------
    values, where : (h, w).
    core : rows.
    """
    right = (values[core, 1:] == values[core, :-1]) & where[core, 1:]
    below = slice(core.start + 1, core.stop + 1)
    lower = values[below]
    down = (lower == values[core][: len(lower)]) & where[below]
    return int(right.sum() + down.sum())


def count_tops(mask: Mask, core: slice, least: int = 4) -> tuple[int, int]:
    """Objects of at least so many pixels that begin in rows of the core, and pixels of the core in such objects.

    An object that goes on beyond the rows around the core is as large as what is seen of it.
    """
    if not mask.any():
        return 0, 0
    objects, number = ndimage.label(mask, np.ones((3, 3)))
    large = np.bincount(objects.ravel(), minlength=number + 1) >= least
    large[0] = False
    begin = np.array([place[0].start for place in ndimage.find_objects(objects)])
    inside = (begin >= core.start) & (begin < core.stop)
    return int((large[1:] & inside).sum()), int(large[objects[core]].sum())
