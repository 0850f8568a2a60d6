"""What is laid over a TIFF's pixels: saturation, and masks and variances from files of their own."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import Frame
from sciresdiff.io.files import split_spec
from sciresdiff.io.planes import STATED, settled, stated, to_variance
from sciresdiff.io.source import Source, empty
from sciresdiff.io.tiff.series import Pixels, opened_tiff, pixels_of, sound
from sciresdiff.io.windows import Cut, changed, middle
from sciresdiff.region import Region

Array = NDArray[Any]


def other_planes(image: Source, stack: ExitStack, file: Path, variance: str | None, mask: str | None) -> Source:
    """Variance and mask from files of their own."""
    if mask is not None:
        values = _plane(image.frame, stack, file, "mask", mask)

        def cover(window: Frame, plane: int, region: Region) -> Frame:
            return window.with_(mask=window.mask | (np.nan_to_num(values(plane, region), nan=1.0) != 0))

        image = changed(image, cover, image.frame)
    return image if variance is None else with_variance(image, stack, file, variance)


def with_variance(image: Source, stack: ExitStack, file: Path, spec: str) -> Source:
    """The variance from a file of its own; pixels without one are masked and get the median of the others.

    The median is taken over `planes.patches`.
    """
    kind, spec = stated(spec)
    values, name = _plane(image.frame, stack, file, "variance", spec), split_spec(spec)[0].name

    def get(plane: int, region: Region) -> Array:
        return STATED[kind](values(plane, region)) if kind else to_variance(values(plane, region), name)

    fill = middle(get, image.frame.pixels.shape)

    def cover(window: Frame, plane: int, region: Region) -> Frame:
        return settled(window, get(plane, region), fill)

    return changed(image, cover, image.frame.with_(variance=empty(image.frame.pixels.shape, np.float64)))


def _plane(frame: Frame, stack: ExitStack, file: Path, what: str, spec: str) -> Cut:
    """Regions (1, h, w) of a plane in a file of its own, in float64."""
    other, _ = split_spec(spec)
    if not other.is_file():
        raise InputError(f"{other}: no such file; {what} of a TIFF is a file of its own")
    shape, get = _windows_of(stack, spec)
    if shape[1:] != frame.pixels.shape[1:] or shape[0] not in (1, frame.planes):
        raise InputError(f"{file}: {what} {spec} has shape {_squeezed(shape)}, the image {frame.shape}")
    return lambda plane, region: get(plane % shape[0], region)[None].astype(np.float64)


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:] if shape[0] == 1 else shape


def _windows_of(stack: ExitStack, spec: str) -> tuple[tuple[int, ...], Cut]:
    """Shape (planes, Y, X) and regions of any image; of other formats than TIFF it is held in memory."""
    from sciresdiff.io import format_of
    from sciresdiff.io import read_image as read_any

    if format_of(spec) == "tiff":
        pixels = image_of(stack, split_spec(spec)[0])
        return (pixels.planes, *(pixels.shape[pixels.axes.index(a)] for a in "YX")), pixels.window
    planes = read_any(spec)
    planes = planes.reshape(-1, *planes.shape[-2:])
    return planes.shape, lambda plane, region: planes[(plane, *region.slices)]


def image_of(stack: ExitStack, file: Path) -> Pixels:
    """The first series of a file, whatever its axes are called."""
    tif = stack.enter_context(opened_tiff(file))
    with sound(file):
        axes = str(tif.series[0].axes)
        return pixels_of(file, tif, axes if {"Y", "X"} <= set(axes) else "ABCDEFGHIJ"[: len(axes) - 2] + "YX")
