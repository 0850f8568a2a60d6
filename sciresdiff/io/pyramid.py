"""Smaller copies of an image for viewers: each level has half the pixels of the one before along y and x.

A pixel is the mean of the (up to four) finite values below it, also where pixels add up: **the sums of a level are not
those of the image**.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.io.raw_array import RawArray
from sciresdiff.region import Region

SIDE = 512
"""Side of a tile in pixels; the last level fits into one."""


def level_shapes(h: int, w: int) -> list[tuple[int, int]]:
    """Height and width of all levels, the image itself first.

    ``level_shapes(2000, 700)`` is (2000, 700), (1000, 350), (500, 175).
    """
    found = [(h, w)]
    while max(found[-1]) > SIDE:
        found.append(tuple(-(-n // 2) for n in found[-1]))  # type: ignore[arg-type]
    return found


def downsample(values: NDArray[Any]) -> NDArray[Any]:
    """Average blocks of 2 x 2 pixels.

    Parameters
    ----------
    values : (h, w) array
        Any type.

    Returns
    -------
    (ceil(h / 2), ceil(w / 2)) array
        Of the same type. Integers are rounded half to even; NaN is left out of the mean; a block at an odd edge has
        fewer
        pixels.
    """
    h, w = values.shape
    # an odd edge is padded with NaN, which the mean leaves out
    full = np.full((-(-h // 2) * 2, -(-w // 2) * 2), np.nan)
    full[:h, :w] = values
    blocks = full.reshape(full.shape[0] // 2, 2, full.shape[1] // 2, 2)
    there = np.isfinite(blocks)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(there, blocks, 0).sum((1, 3)) / there.sum((1, 3))
    return (np.rint(means) if values.dtype.kind in "iu" else means).astype(values.dtype)


def iter_tiles(h: int, w: int) -> Iterator[Region]:
    """Tiles of an image, row by row; those at the end are smaller."""
    for y in range(0, h, SIDE):
        for x in range(0, w, SIDE):
            yield Region(y, min(y + SIDE, h), x, min(x + SIDE, w))


def parent_region(tile: Region, h: int, w: int) -> Region:
    """Region of the level before that a tile is made of.

    Parameters
    ----------
    tile : Region
        Of the smaller level.
    h, w : int
        Size of the level before; where it is odd, the last tile has one pixel fewer.
    """
    return Region(2 * tile.y0, min(2 * tile.y1, h), 2 * tile.x0, min(2 * tile.x1, w))


def fill_level(fine: RawArray, coarse: RawArray, planes: int) -> None:
    """Compute a level from the one before.

    Parameters
    ----------
    fine, coarse : RawArray
        Arrays of both levels.
    planes : int
        Number of planes.
    """
    h, w = (coarse.shape[coarse.axes.index(a)] for a in "YX")
    top, right = (fine.shape[fine.axes.index(a)] for a in "YX")
    for plane in range(planes):
        for tile in iter_tiles(h, w):
            coarse.put(plane, tile.y0, tile.x0, downsample(fine.get(plane, parent_region(tile, top, right))))


def levels_path(place: Path) -> Path:
    """Path of the file that holds the levels of an unfinished file."""
    return place.with_name(f"{place.name}.levels")
