"""OME-TIFF with levels: tiles, deflate, smaller copies in SubIFDs, out of the finished image.

OME-TIFF specification, "Sub-resolutions" (6.0).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from sciresdiff.io.flat import Flat, unbuffered
from sciresdiff.io.levels import SIDE, beside, halve, sizes, tiles
from sciresdiff.io.tiff.ifd import BIG, START, Directory, Tag, packed, start_of
from sciresdiff.io.tiff.layout import Layout, tags

ADOBE_DEFLATE, DIFFERENCES = 8, 2
FASTEST = 1
"""Level of deflate: on pixels with noise the others take several times as long and gain nothing."""


def write_pyramid(
    place: Path, base: Flat, layout: Layout, resolution: Mapping[int, Tag], first: Mapping[int, Tag]
) -> None:
    """Replace a file of pixels as they are by one with tiles and levels.

    Parameters
    ----------
    place : Path
        The file.
    base : Flat
        Its pixels.
    layout : Layout
        How they lie.
    resolution, first : mapping
        Tags of every page at full size, and of the first one.

    Raises
    ------
    OSError
        The disk is full; the file is as it was.
    """
    target = place.with_name(f"{place.name}.tiles")
    try:
        with _levels(place, base, layout) as flats, target.open("wb") as stream:
            stream.write(bytes(START))
            made = [
                Directory(
                    {**pages[0], **resolution, **(first if number == 0 else {})},
                    [{**page, 254: Tag("I", [1])} for page in pages[1:]],
                )
                for number, pages in enumerate(_pages(stream, flats, layout))
            ]
            _close(stream, made)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(target, place)
    finally:
        target.unlink(missing_ok=True)
        beside(place).unlink(missing_ok=True)


def _close(stream: BinaryIO, made: list[Directory]) -> None:
    """Directories behind the tiles, and the start of the file, whose kind is known now."""
    stream.write(bytes(-stream.tell() % 16))
    end = stream.tell()
    big = end > BIG
    kind = "Q" if big else "I"

    def fit(found: Mapping[int, Tag]) -> dict[int, Tag]:
        return {code: replace(tag, kind=kind) if code in (324, 325) else tag for code, tag in found.items()}

    at, data = packed([Directory(fit(one.tags), [fit(t) for t in one.smaller]) for one in made], end, big)
    stream.write(data)
    stream.seek(0)
    stream.write(start_of(big, at))


@contextmanager
def _levels(place: Path, base: Flat, layout: Layout) -> Iterator[list[Flat]]:
    """The image and its levels, these in a file of their own."""
    h, w = (layout.shape[layout.axes.index(a)] for a in "YX")
    planes = layout.pages * layout.sides[2]
    with unbuffered(beside(place), anew=True) as fd:
        flats, start = [base], 0
        for size in sizes(h, w)[1:]:
            sides = dict(zip("YX", size, strict=True))
            shape = tuple(sides.get(a, n) for a, n in zip(layout.axes, layout.shape, strict=True))
            flats.append(Flat(fd, start, base.dtype, shape, base.axes))
            start += int(np.prod(shape)) * base.dtype.itemsize
        os.ftruncate(fd, start)
        for fine, coarse in zip(flats, flats[1:], strict=False):
            halve(fine, coarse, planes)
        yield flats


def _pages(stream: BinaryIO, flats: list[Flat], layout: Layout) -> Iterator[list[dict[int, Tag]]]:
    """Tags of every page at all its levels, once its tiles are written."""
    samples = layout.sides[2]
    for page in range(layout.pages):
        planes = range(page * samples, (page + 1) * samples)
        groups = [[plane] for plane in planes] if layout.separate else [list(planes)]
        yield [_level(stream, flat, layout, groups) for flat in flats]


def _level(stream: BinaryIO, flat: Flat, layout: Layout, groups: list[list[int]]) -> dict[int, Tag]:
    h, w = (flat.shape[flat.axes.index(a)] for a in "YX")
    places = []
    for planes in groups:
        for tile in tiles(h, w):
            data = _packed(np.stack([flat.get(plane, tile) for plane in planes], -1))
            places.append((stream.tell(), len(data)))
            stream.write(data)
    return {
        **tags(layout, {}, h, w),
        259: Tag("H", [ADOBE_DEFLATE]),
        317: Tag("H", [DIFFERENCES if layout.dtype.kind in "iu" else 1]),
        322: Tag("I", [SIDE]),
        323: Tag("I", [SIDE]),
        324: Tag("Q", [at for at, _ in places]),
        325: Tag("Q", [n for _, n in places]),
    }


def _packed(values: NDArray[Any]) -> bytes:
    """A tile (h, w, samples), filled up with 0, deflated; of integers the differences along x."""
    h, w, samples = values.shape
    tile = np.zeros((SIDE, SIDE, samples), values.dtype.newbyteorder("<"))
    tile[:h, :w] = values
    if tile.dtype.kind in "iu":
        tile[:, 1:] = np.diff(tile, axis=1)
    return bytes(imagecodecs.deflate_encode(tile.tobytes(), FASTEST))
