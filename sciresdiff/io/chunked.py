"""Images in chunked containers (HDF5 datasets, Zarr arrays): a region costs the chunks that it touches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import Frame
from sciresdiff.io.dtypes import to_float32
from sciresdiff.io.files import first_line
from sciresdiff.io.masks import check_mask
from sciresdiff.io.source import ReadFrame, ReadRegion, Source, count_planes, overlay, placeholder, replace_frame
from sciresdiff.io.variance import NoVarianceError, fill_variance, median_variance
from sciresdiff.notes import Notes
from sciresdiff.region import Region

Array = NDArray[Any]


def region_reader(path: Path, array: Any, label: str, errors: tuple[type[Exception], ...]) -> ReadRegion:
    """Return the function that reads regions of an array.

    Parameters
    ----------
    path : Path
        The file, for errors.
    array : (..., h, w) dataset or Zarr array
        Open; axes before the last two count planes, the last of them fastest.
    label : str
        ``dataset 'image'``, for errors.
    errors : tuple of exception types
        What the library raises on damaged chunks; becomes an InputError.
    """

    def read(plane: int, region: Region) -> Array:
        lead = tuple(int(i) for i in np.unravel_index(plane, array.shape[:-2])) if array.ndim > 2 else ()
        try:
            found = np.asarray(array[(*lead, *region.slices)])
        except errors as error:
            raise InputError(
                f"{path}: {label} cannot be read at plane {plane}, rows {region.y0} to {region.y1 - 1} "
                f"({first_line(error)}); check or fetch it again"
            ) from error
        return found.astype(found.dtype.newbyteorder("="), copy=False)

    return read


def frame_reader(path: Path, read: ReadRegion, frame: Frame) -> ReadFrame:
    """Return the function that reads regions as frames of one plane.

    Parameters
    ----------
    path : Path
        The file, for errors.
    read : callable
        Reads the values (h, w) of a region.
    frame : Frame
        Everything but the values.
    """

    def window(plane: int, region: Region) -> Frame:
        pixels, bad = to_float32(path, read(plane, region)[None])
        return frame.with_(pixels=pixels, mask=bad)

    return window


def read_whole(read: ReadRegion, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Read all planes of an array.

    Parameters
    ----------
    read : callable
        Reads the values (h, w) of a region.
    shape : tuple of int
        (..., h, w).

    Returns
    -------
    (..., h, w) float64 array
    """
    planes = [read(i, Region.of_shape(shape)) for i in range(count_planes(shape))]
    return np.stack(planes).reshape(shape).astype(np.float64)


def plane_reader(read: ReadRegion, shape: tuple[int, ...], image: tuple[int, ...], name: str) -> ReadRegion:
    """Return the function that reads regions (1, h, w) of a plane that belongs to an image.

    Parameters
    ----------
    read : callable
        Reads regions (h, w) of the plane.
    shape : tuple of int
        (..., h, w) of the plane; a single plane serves all of the image's.
    image : tuple of int
        (planes, h, w) of the image.
    name : str
        For errors.

    Raises
    ------
    InputError
        The shapes do not fit.
    """
    planes = count_planes(shape)
    if shape[-2:] != image[1:] or planes not in (1, image[0]):
        raise InputError(f"{name} has shape {shape}, the image {image}")
    return lambda plane, region: read(plane % planes, region)[None]


EMPTY = Notes("noise: the variance of the file has no value above 0 anywhere; not used")


def add_planes(source: Source, variance: ReadRegion | None, mask: ReadRegion | None, stated: bool = True) -> Source:
    """Return a source with a variance and a mask.

    Parameters
    ----------
    source : Source
        The image.
    variance : callable or None
        Reads regions (1, h, w), NaN where the variance is unknown: those pixels are masked and get the median of the
        others.
    mask : callable or None
        Reads regions (1, h, w), bad where they are not 0.
    stated : bool
        Whether the user named the variance; the file's own is left out where it holds no value above 0.
    """
    if mask is not None:

        def bad(plane: int, region: Region) -> Array:
            return mask(plane, region) != 0  # NaN is bad, too

        def hide(window: Frame, plane: int, region: Region) -> Frame:
            return window.with_(mask=window.mask | bad(plane, region))

        notes = check_mask("the mask", source.frame.pixels.shape, source.window, bad)
        source = overlay(source, hide, source.frame.with_notes(notes))
    if variance is None:
        return source
    shape = source.frame.pixels.shape
    try:
        fill = median_variance(variance, shape)
    except NoVarianceError:
        if stated:
            raise
        return replace_frame(source, source.frame.with_notes(EMPTY))

    def add(window: Frame, plane: int, region: Region) -> Frame:
        return fill_variance(window, variance(plane, region), fill)

    return overlay(source, add, source.frame.with_(variance=placeholder(shape, np.float64)))
