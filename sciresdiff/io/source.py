"""An open image file, read region by region."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import PLANES, Frame
from sciresdiff.region import Region

Array = NDArray[Any]
ReadRegion = Callable[[int, Region], Array]
"""(plane, region) -> values (h, w)."""
ReadFrame = Callable[[int, Region], Frame]
"""(plane, region) -> that part, as a frame of one plane."""
Change = Callable[[Frame, int, Region], Frame]
"""(window, plane, region) -> the window with a mask or variance added."""

MOST = 2**45
"""Pixels of an image: 140 TB of single precision."""
BAND = 2**22
"""Pixels read at a time where a whole image is scanned."""


@dataclass(frozen=True)
class Source:
    """An open file."""

    frame: Frame
    """Everything but the values: the arrays have the file's shape and take no memory (see `placeholder`)."""
    cut: ReadFrame
    path: str = ""

    def window(self, plane: int, region: Region) -> Frame:
        """Read a region of one plane, as a frame of one plane with the header and facts of the file.

        Raises
        ------
        InputError
            The file is damaged there.
        """
        return self.cut(plane, region)

    def whole(self) -> Frame:
        """Read every plane into memory.

        Raises
        ------
        InputError
            No pixel is finite, or the file is damaged.
        """
        everything = Region.of_shape(self.frame.pixels.shape)
        planes = [self.window(plane, everything) for plane in range(self.frame.planes)]
        if not any(np.isfinite(plane.pixels).any() for plane in planes):
            raise InputError(no_finite_pixel(self.path))
        if len(planes) == 1:
            return planes[0]
        return self.frame.with_(**{name: _concatenate(planes, name) for name in PLANES})


def no_finite_pixel(path: object) -> str:
    """Message of the error for an image without a finite pixel."""
    return f"{path}: all pixels are NaN or infinite; nothing to restore from"


def _concatenate(planes: list[Frame], name: str) -> Array | None:
    arrays = [getattr(plane, name) for plane in planes]
    return None if any(array is None for array in arrays) else np.concatenate(arrays)


def check_size(path: Path | str, shape: tuple[int, ...]) -> None:
    """Refuse a shape that only a damaged file can state.

    Raises
    ------
    InputError
        It has more than `MOST` pixels.
    """
    if math.prod(int(n) for n in shape) > MOST:
        raise InputError(f"{path}: says that it has {' x '.join(map(str, shape))} pixels; check or fetch it again")


def placeholder(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return an array that takes no memory: one number, broadcast.

    Parameters
    ----------
    shape : tuple of int
        Any.
    dtype : dtype
        The number is NaN for floats, else 0 or False.
    """
    dtype = np.dtype(dtype)
    return np.broadcast_to(np.array(np.nan if dtype.kind == "f" else 0, dtype), shape)


def without_arrays(frame: Frame) -> Frame:
    """Return the frame with a `placeholder` for each of its arrays."""
    shape = frame.pixels.shape
    there = [name for name in PLANES if getattr(frame, name) is not None]
    return frame.with_(**{name: placeholder(shape, getattr(frame, name).dtype) for name in there})


def in_memory(frame: Frame) -> Source:
    """Return a source over a frame (planes, Y, X) in memory; its windows are views."""

    def cut(plane: int, region: Region) -> Frame:
        here = (slice(plane, plane + 1), *region.slices)
        there = [name for name in PLANES if getattr(frame, name) is not None]
        return frame.with_(**{name: getattr(frame, name)[here] for name in there})

    return Source(without_arrays(frame), cut)


def overlay(source: Source, change: Change, frame: Frame) -> Source:
    """Return a source whose windows pass through ``change``.

    Parameters
    ----------
    source : Source
        The image.
    change : callable
        (window, plane, region) -> window; it may replace the arrays.
    frame : Frame
        Frame of the new source, whose notes, facts, PSF, quantity and kernel its windows get.
    """

    def cut(plane: int, region: Region) -> Frame:
        window = change(source.cut(plane, region), plane, region)
        return window.with_(notes=frame.notes, facts=frame.facts, psf=frame.psf, quantity=frame.quantity,
                            kernel=frame.kernel, kernel_scale=frame.kernel_scale)  # fmt: skip

    return Source(frame, cut, source.path)


def replace_frame(source: Source, frame: Frame) -> Source:
    """Return a source with the same values and other facts.

    Parameters
    ----------
    source : Source
        The image.
    frame : Frame
        Whose notes, facts, PSF, quantity and kernel the windows get.
    """
    return overlay(source, lambda window, _plane, _region: window, frame)


def iter_bands(source: Source) -> Iterator[Frame]:
    """Read every plane, in bands of full rows with about ``BAND`` pixels."""
    planes, h, w = source.frame.pixels.shape
    step = max(1, BAND // w)
    for plane in range(planes):
        for y in range(0, h, step):
            yield source.cut(plane, Region(y, min(y + step, h), 0, w))


def count_planes(shape: tuple[int, ...]) -> int:
    """Number of (Y, X) planes of an array of shape (..., Y, X)."""
    return int(np.prod(shape[:-2], initial=1))
