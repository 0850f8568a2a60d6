"""Smaller copies of an image, to look at: every level has half the pixels of the one before along y and x.

A pixel is the mean of the (up to four) numbers below it, also where pixels add up: levels are for looking at, and
**their sums are not those of the image**.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.io.flat import Flat
from sciresdiff.region import Region

SIDE = 512
"""Side of a tile; the last level fits into one."""


def sizes(h: int, w: int) -> list[tuple[int, int]]:
    """Height and width of all levels, the image itself first."""
    found = [(h, w)]
    while max(found[-1]) > SIDE:
        found.append(tuple(-(-n // 2) for n in found[-1]))  # type: ignore[arg-type]
    return found


def halved(values: NDArray[Any]) -> NDArray[Any]:
    """Means of blocks of 2 x 2; at an odd edge of what is there. Integers are rounded half to even, NaN left out."""
    h, w = values.shape
    full = np.full((-(-h // 2) * 2, -(-w // 2) * 2), np.nan)
    full[:h, :w] = values
    blocks = full.reshape(full.shape[0] // 2, 2, full.shape[1] // 2, 2)
    there = np.isfinite(blocks)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(there, blocks, 0).sum((1, 3)) / there.sum((1, 3))
    return (np.rint(means) if values.dtype.kind in "iu" else means).astype(values.dtype)


def tiles(h: int, w: int) -> Iterator[Region]:
    """Regions of all tiles, row by row; the last ones are cut off."""
    for y in range(0, h, SIDE):
        for x in range(0, w, SIDE):
            yield Region(y, min(y + SIDE, h), x, min(x + SIDE, w))


def twice(tile: Region, h: int, w: int) -> Region:
    """The pixels (h, w) of the level before that a tile is made of; at an odd edge there is one fewer."""
    return Region(2 * tile.y0, min(2 * tile.y1, h), 2 * tile.x0, min(2 * tile.x1, w))


def halve(fine: Flat, coarse: Flat, planes: int) -> None:
    """Fill a level from the one before."""
    h, w = (coarse.shape[coarse.axes.index(a)] for a in "YX")
    top, right = (fine.shape[fine.axes.index(a)] for a in "YX")
    for plane in range(planes):
        for tile in tiles(h, w):
            coarse.put(plane, tile.y0, tile.x0, halved(fine.get(plane, twice(tile, top, right))))


def beside(place: Path) -> Path:
    """Where the levels of an unfinished file lie until it is finished."""
    return place.with_name(f"{place.name}.levels")
