"""All pixels of a plane, band of rows by band of rows, with the rows around each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.frame import Frame
from sciresdiff.io.source import BAND, Source
from sciresdiff.observation.sample import Sample, mask_saturated
from sciresdiff.region import Region

Array = NDArray[Any]
Mask = NDArray[np.bool_]

AROUND = 32
"""Rows that are read above and below a band, for what is decided by the pixels nearby."""


@dataclass(frozen=True)
class Band:
    """Rows of a plane, and those around them."""

    pixels: Array
    """(h, w), the file's unit."""
    bad: Mask
    """(h, w), True where a pixel is known to be no data."""
    core: slice
    """Rows that are counted: every row of a plane is in the core of one band."""
    variance: Array | None = None
    """(h, w), as the file has it, unit**2; None where it has none."""

    @property
    def values(self) -> Array:
        """(h, w), NaN where a pixel is no data."""
        return np.where(self.bad, np.float32(np.nan), self.pixels)

    @property
    def valid(self) -> Array:
        """(n,) pixels of the core that are data."""
        return np.asarray(self.pixels[self.core][~self.bad[self.core]])

    def without(self, more: Mask) -> Band:
        """The same where ``more`` pixels, (h, w), are no data."""
        return replace(self, bad=self.bad | more)


Bands = Callable[[], Iterator[Band]]
"""Reads all bands of a plane, each time it is called."""


def bands_of_plane(source: Source, plane: int, sample: Sample, saturation: float | None) -> Bands:
    """The bands of a plane; one, where it is small enough to be its own sample.

    Parameters
    ----------
    source : the image.
    plane : number of the plane.
    sample : of the plane.
    saturation : value from which a pixel is saturated, where it is stated.
    """
    _, h, w = source.frame.pixels.shape

    def read() -> Iterator[Band]:
        if sample.whole:
            yield Band(sample.pixels, sample.mask | ~np.isfinite(sample.pixels), slice(0, h), variance_of(sample.frame))
            return
        step = max(1, BAND // w)
        for y in range(0, h, step):
            region = Region(y, min(y + step, h), 0, w)
            wide = region.grown(AROUND, (h, w))
            frame = mask_saturated(source.window(plane, Region(wide.y0, wide.y1, 0, w)), saturation)
            core = slice(region.y0 - wide.y0, region.y1 - wide.y0)
            yield Band(frame.pixels[0], frame.mask[0] | ~np.isfinite(frame.pixels[0]), core, variance_of(frame))

    return read


def variance_of(frame: Frame) -> Array | None:
    """The variance (h, w) of a frame of one plane, as its file has it; None where it has none."""
    return None if frame.variance is None else frame.variance[0]
