"""Masks and variances of a TIFF image, which are in files of their own."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import Frame
from sciresdiff.io import format_of, read_image
from sciresdiff.io.files import split_spec
from sciresdiff.io.masks import check_mask
from sciresdiff.io.source import ReadRegion, Source, overlay, placeholder
from sciresdiff.io.tiff.series import SeriesReader, open_tiff, report_damage, series_reader
from sciresdiff.io.variance import STATED, fill_variance, median_variance, split_noise_kind, to_variance
from sciresdiff.region import Region

Array = NDArray[Any]


def add_planes(image: Source, stack: ExitStack, file: Path, variance: str | None, mask: str | None) -> Source:
    """Return the source with the variance and mask that the user named.

    Parameters
    ----------
    image : Source
        The image.
    stack : ExitStack
        Holds the files that are opened.
    file : Path
        The image's file, for errors.
    variance, mask : str or None
        As in `sciresdiff.io.read`.

    Raises
    ------
    InputError
        No such file, or it does not fit.
    """
    if mask is not None:
        values = _plane_reader(image.frame, stack, file, "mask", mask)

        def bad(plane: int, region: Region) -> Array:
            return np.nan_to_num(values(plane, region), nan=1.0) != 0

        def cover(window: Frame, plane: int, region: Region) -> Frame:
            return window.with_(mask=window.mask | bad(plane, region))

        notes = check_mask(split_spec(mask)[0].name, image.frame.pixels.shape, image.window, bad)
        image = overlay(image, cover, image.frame.with_notes(notes))
    return image if variance is None else add_variance(image, stack, file, variance)


def add_variance(image: Source, stack: ExitStack, file: Path, spec: str) -> Source:
    """Return the source with a variance; pixels without one are masked and get the median of the others.

    The median is taken over `sampling.sample_regions`.

    Parameters
    ----------
    image : Source
        The image.
    stack : ExitStack
        Holds the file that is opened.
    file : Path
        The image's file, for errors.
    spec : str
        ``FILE``, or ``rms:FILE``; without a kind the file's name tells.
    """
    kind, spec = split_noise_kind(spec)
    values, name = _plane_reader(image.frame, stack, file, "variance", spec), split_spec(spec)[0].name

    def get(plane: int, region: Region) -> Array:
        return STATED[kind](values(plane, region)) if kind else to_variance(values(plane, region), name)

    fill = median_variance(get, image.frame.pixels.shape)

    def cover(window: Frame, plane: int, region: Region) -> Frame:
        return fill_variance(window, get(plane, region), fill)

    return overlay(image, cover, image.frame.with_(variance=placeholder(image.frame.pixels.shape, np.float64)))


def _plane_reader(frame: Frame, stack: ExitStack, file: Path, what: str, spec: str) -> ReadRegion:
    """Reads regions (1, h, w) of a plane in a file of its own, in float64."""
    other, _ = split_spec(spec)
    if not other.is_file():
        raise InputError(f"{other}: no such file; {what} of a TIFF is a file of its own")
    shape, get = _open_plane(stack, spec)
    if shape[1:] != frame.pixels.shape[1:] or shape[0] not in (1, frame.planes):
        raise InputError(f"{file}: {what} {spec} has shape {_squeeze(shape)}, the image {frame.shape}")
    # a single plane serves all of the image's
    return lambda plane, region: get(plane % shape[0], region)[None].astype(np.float64)


def _squeeze(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:] if shape[0] == 1 else shape


def _open_plane(stack: ExitStack, spec: str) -> tuple[tuple[int, ...], ReadRegion]:
    """Shape (planes, Y, X) of any image and the function that reads it; other formats than TIFF are held in memory."""
    if format_of(spec) == "tiff":
        pixels = open_first_series(stack, split_spec(spec)[0])
        return (pixels.planes, *(pixels.shape[pixels.axes.index(a)] for a in "YX")), pixels.window
    planes = read_image(spec)
    planes = planes.reshape(-1, *planes.shape[-2:])
    return planes.shape, lambda plane, region: planes[(plane, *region.slices)]


def open_first_series(stack: ExitStack, file: Path) -> SeriesReader:
    """Open the first series of a file, whatever its axes are called."""
    tif = stack.enter_context(open_tiff(file))
    with report_damage(file):
        axes = str(tif.series[0].axes)
        return series_reader(file, tif, axes if {"Y", "X"} <= set(axes) else "ABCDEFGHIJ"[: len(axes) - 2] + "YX")
