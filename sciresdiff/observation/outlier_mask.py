"""Exposures of one field whose windows have what contradicts the other exposures masked, whoever reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from sciresdiff.frame import Frame
from sciresdiff.io.quality_bits import OUTLIER
from sciresdiff.io.source import Source
from sciresdiff.notes import Notes
from sciresdiff.observation.alignment import PixelMap
from sciresdiff.observation.defects import count_objects
from sciresdiff.observation.exposure import Exposure
from sciresdiff.observation.exposure_outliers import Cut, Shown, describe_outliers, find_outliers
from sciresdiff.observation.field_change import describe_changes, find_changes, warn_contradiction
from sciresdiff.region import Region

TILE = 512
"""Side of the windows that a whole exposure is looked at by, px."""


@dataclass(frozen=True)
class Calibration:
    """How an exposure's pixels compare with the reference's."""

    sky: float
    """Of the exposure, in its unit."""
    factor: float
    """Its flux over the reference's, per pixel of the reference's size."""
    fwhm: float
    """Of its PSF with the pixel, px of its own."""
    step: float = 1.0
    """Side of its pixels, px of the reference."""


def show_exposure(exposure: Exposure, known: Calibration, maps: tuple[PixelMap, PixelMap], plane: int = 0) -> Shown:
    """An exposure as others are held to it, read by windows; it pickles if the maps do.

    Parameters
    ----------
    exposure : of a file or in memory.
    known : its sky, flux and width.
    maps : px of the exposure -> px of the reference, and back.
    plane : its number.
    """
    read = partial(_read, exposure, known, plane)
    return Shown(read, exposure.grid.shape, *maps, fwhm=known.fwhm, step=known.step)


def _read(exposure: Exposure, known: Calibration, plane: int, region: Region) -> Cut:
    """A window of an exposure in the units of the reference."""
    window = exposure.window(plane, region)
    values = (window.pixels.astype(np.float64) - known.sky) / known.factor
    variance = np.where(window.valid, window.pixel_variance, 0).astype(np.float64) / known.factor**2
    return Cut(np.where(window.valid, values, 0), variance, ~window.valid, region)


def mask_outliers(exposures: Sequence[Exposure], shown: Sequence[Shown]) -> list[Exposure]:
    """The same exposures; their windows have what contradicts the others masked, with its bit in ``flags``.

    Every window is decided from the files alone, so that blocks of any size agree.

    Parameters
    ----------
    exposures : of one field, of one plane each.
    shown : the same, in the same order.
    """
    return [
        replace(one, image=Source(one.image.frame, partial(_cut, one.image, tuple(shown), k), one.image.path))
        for k, one in enumerate(exposures)
    ]


def _cut(image: Source, shown: tuple[Shown, ...], number: int, plane: int, region: Region) -> Frame:
    """A window of an exposure with its outliers masked."""
    frame = image.window(plane, region)
    found = find_outliers(shown, number, region)[None]
    return _flagged(frame, found)


def _flagged(frame: Frame, found: NDArray[np.bool_]) -> Frame:
    """A frame with pixels (1, h, w) masked as outliers."""
    bit = np.where(found, OUTLIER.bit, 0).astype(np.int32)
    return frame.with_(mask=frame.mask | found, flags=bit if frame.flags is None else frame.flags | bit)


def mask_places(exposure: Exposure, places: NDArray[np.int64]) -> Exposure:
    """The same exposure, of one plane; its windows have some pixels masked, with the bit of `OUTLIER` in ``flags``.

    Parameters
    ----------
    exposure : of a file or in memory.
    places : (n, 2) of y and x, px.
    """
    source = exposure.image
    return replace(exposure, image=Source(source.frame, partial(_cut_places, source, places), source.path))


def _cut_places(image: Source, places: NDArray[np.int64], plane: int, region: Region) -> Frame:
    """A window of an exposure with some of its pixels masked."""
    frame = image.window(plane, region)
    y, x = (places - [region.y0, region.x0]).T
    h, w = region.shape
    inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
    found = np.zeros((1, h, w), bool)
    found[0, y[inside], x[inside]] = True
    return _flagged(frame, found)


def count_places(places: NDArray[np.int64]) -> int:
    """Number of objects that pixels (n, 2) make up, those that touch each other being one."""
    touching = cKDTree(places).sparse_distance_matrix(cKDTree(places), 1.5)
    return int(connected_components(touching)[0])


def regions_of(shape: tuple[int, int], side: int) -> list[Region]:
    """The windows of an exposure (h, w), row by row."""
    h, w = shape
    return [Region(y, min(y + side, h), x, min(x + side, w)) for y in range(0, h, side) for x in range(0, w, side)]


def survey_outliers(names: Sequence[str], shown: Sequence[Shown], tile: int = TILE) -> Notes:
    """Look at all of every exposure once: what is masked is counted, and what changed in the field is told.

    Parameters
    ----------
    names : of the exposures' files.
    shown : the exposures.
    tile : side of the windows they are read by, px.
    """
    notes = Notes()
    for k, (name, one) in enumerate(zip(names, shown, strict=True)):
        found, changes = np.zeros(one.shape, bool), []
        for region in regions_of(one.shape, tile):
            found[region.slices] = find_outliers(shown, k, region)
            changes += find_changes(shown, k, region)
        pixels, others = int(found.sum()), len(shown) - 1
        notes += describe_outliers(name, pixels, count_objects(found) if pixels else 0, OUTLIER.bit, others)
        notes += describe_changes(name, sorted(changes, key=lambda change: -abs(change.sigmas)))
        notes += warn_contradiction(name, pixels, found.size)
    return notes


def survey_changes(names: Sequence[str], shown: Sequence[Shown], tile: int = TILE) -> Notes:
    """Tell what changed in the field between the first of some exposures and the others; nothing is masked.

    Parameters
    ----------
    names : of the files of all but the first.
    shown : the exposures.
    tile : side of the windows they are read by, px.
    """
    notes = Notes()
    for k, name in enumerate(names, start=1):
        changes = [change for region in regions_of(shown[k].shape, tile) for change in find_changes(shown, k, region)]
        notes += describe_changes(name, sorted(changes, key=lambda change: -abs(change.sigmas)))
    return notes
