"""A file's image, read window by window: what is there without its values, and the values of a part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import Frame
from sciresdiff.region import Region

PLANES = ("pixels", "mask", "variance", "saturated", "dq")
"""The arrays of a frame."""


@dataclass(frozen=True)
class Source:
    """An open file."""

    frame: Frame
    """All that the file says but its values: arrays have the file's shape, NaN or False everywhere, and no memory."""
    cut: Callable[[int, Region], Frame]
    """(plane, region) -> that part, as a frame of one plane."""
    path: str = ""

    def window(self, plane: int, region: Region) -> Frame:
        """A region of one plane, as a frame of one plane with its header and facts.

        Raises
        ------
        InputError
            The file is damaged there.
        """
        return self.cut(plane, region)

    def whole(self) -> Frame:
        """Every plane, in memory.

        Raises
        ------
        InputError
            There is no number in it, or the file is damaged.
        """
        everything = Region.of_shape(self.frame.pixels.shape)
        planes = [self.window(plane, everything) for plane in range(self.frame.planes)]
        if not any(np.isfinite(plane.pixels).any() for plane in planes):
            raise InputError(f"{self.path}: all pixels are NaN or infinite; nothing to restore from")
        return planes[0] if len(planes) == 1 else self.frame.with_(**{name: _stacked(planes, name) for name in PLANES})


def _stacked(planes: list[Frame], name: str) -> NDArray[Any] | None:
    arrays = [getattr(plane, name) for plane in planes]
    return None if any(array is None for array in arrays) else np.concatenate(arrays)


def hollow(frame: Frame) -> Frame:
    """A frame without its values: arrays of the same shape that take no memory."""
    shape = frame.pixels.shape
    there = [name for name in PLANES if getattr(frame, name) is not None]
    return frame.with_(**{name: empty(shape, getattr(frame, name).dtype) for name in there})


def empty(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """NaN, 0 or False in every place, one number in memory."""
    dtype = np.dtype(dtype)
    return np.broadcast_to(np.array(np.nan if dtype.kind == "f" else 0, dtype), shape)


def in_memory(frame: Frame) -> Source:
    """A source over a frame that was read whole."""

    def cut(plane: int, region: Region) -> Frame:
        here = (slice(plane, plane + 1), *region.slices)
        there = [name for name in PLANES if getattr(frame, name) is not None]
        return frame.with_(**{name: getattr(frame, name)[here] for name in there})

    return Source(hollow(frame), cut)
