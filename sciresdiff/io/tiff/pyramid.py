"""OME-TIFF with a pyramid: tiles, deflate, and smaller copies in SubIFDs, made from the finished image.

OME-TIFF specification 6.0, "Sub-resolutions".
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

from sciresdiff.files import open_new
from sciresdiff.io.pyramid import SIDE, fill_level, iter_tiles, level_shapes, levels_path
from sciresdiff.io.raw_array import RawArray, open_unbuffered
from sciresdiff.io.tiff.ifd import BIG, START, Directory, Tag, file_header, pack_directories
from sciresdiff.io.tiff.layout import Layout, page_tags

ADOBE_DEFLATE, DIFFERENCES = 8, 2
"""Values of Compression and Predictor (horizontal differences)."""
FASTEST = 1
"""Level of deflate: on noisy pixels higher levels take several times as long and gain nothing."""


def write_pyramid(
    place: Path, base: RawArray, layout: Layout, resolution: Mapping[int, Tag], first: Mapping[int, Tag]
) -> None:
    """Replace an uncompressed file by one with tiles and levels.

    Parameters
    ----------
    place : Path
        The file.
    base : RawArray
        Its pixels.
    layout : Layout
        How they are stored.
    resolution, first : mapping
        Tags of every page at full size, and of the first one.

    Raises
    ------
    OSError
        The disk is full; the file is unchanged.
    """
    target = place.with_name(f"{place.name}.tiles")
    try:
        with _open_levels(place, base, layout) as flats, open(open_new(target), "wb") as stream:
            stream.write(bytes(START))
            directories = [
                Directory(
                    {**pages[0], **resolution, **(first if number == 0 else {})},
                    [{**page, 254: Tag("I", [1])} for page in pages[1:]],
                )
                for number, pages in enumerate(_write_pages(stream, flats, layout))
            ]
            _write_directories(stream, directories)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(target, place)
    finally:
        target.unlink(missing_ok=True)
        levels_path(place).unlink(missing_ok=True)


def _write_directories(stream: BinaryIO, directories: list[Directory]) -> None:
    """Write the directories behind the tiles, then the file header, whose kind depends on their size."""
    stream.write(bytes(-stream.tell() % 16))
    end = stream.tell()
    big = end > BIG  # of the compressed size
    kind = "Q" if big else "I"

    def fit(found: Mapping[int, Tag]) -> dict[int, Tag]:
        return {code: replace(tag, kind=kind) if code in (324, 325) else tag for code, tag in found.items()}

    fitted = [Directory(fit(one.tags), [fit(tags) for tags in one.smaller]) for one in directories]
    at, data = pack_directories(fitted, end, big)
    stream.write(data)
    stream.seek(0)
    stream.write(file_header(big, at))


@contextmanager
def _open_levels(place: Path, base: RawArray, layout: Layout) -> Iterator[list[RawArray]]:
    """Arrays of the image and its levels, which are in a file of their own."""
    h, w = (layout.shape[layout.axes.index(a)] for a in "YX")
    planes = layout.pages * layout.sides[2]
    with open_unbuffered(levels_path(place), anew=True) as fd:
        flats, start = [base], 0
        for size in level_shapes(h, w)[1:]:
            sides = dict(zip("YX", size, strict=True))
            shape = tuple(sides.get(a, n) for a, n in zip(layout.axes, layout.shape, strict=True))
            flats.append(RawArray(fd, start, base.dtype, shape, base.axes))
            start += int(np.prod(shape)) * base.dtype.itemsize
        os.ftruncate(fd, start)
        for fine, coarse in zip(flats, flats[1:], strict=False):
            fill_level(fine, coarse, planes)
        yield flats


def _write_pages(stream: BinaryIO, flats: list[RawArray], layout: Layout) -> Iterator[list[dict[int, Tag]]]:
    """Write the tiles of every page; yields the tags of its levels."""
    samples = layout.sides[2]
    for page in range(layout.pages):
        planes = range(page * samples, (page + 1) * samples)
        groups = [[plane] for plane in planes] if layout.separate else [list(planes)]
        yield [_write_level(stream, flat, layout, groups) for flat in flats]


def _write_level(stream: BinaryIO, flat: RawArray, layout: Layout, groups: list[list[int]]) -> dict[int, Tag]:
    h, w = (flat.shape[flat.axes.index(a)] for a in "YX")
    places = []
    for planes in groups:
        for tile in iter_tiles(h, w):
            data = _encode_tile(np.stack([flat.get(plane, tile) for plane in planes], -1))
            places.append((stream.tell(), len(data)))
            stream.write(data)
    return {
        **page_tags(layout, {}, h, w),
        259: Tag("H", [ADOBE_DEFLATE]),
        317: Tag("H", [DIFFERENCES if layout.dtype.kind in "iu" else 1]),
        322: Tag("I", [SIDE]),
        323: Tag("I", [SIDE]),
        324: Tag("Q", [at for at, _ in places]),
        325: Tag("Q", [n for _, n in places]),
    }


def _encode_tile(values: NDArray[Any]) -> bytes:
    """Pad a tile (h, w, samples) with 0 and compress it; of integers the differences along x."""
    h, w, samples = values.shape
    tile = np.zeros((SIDE, SIDE, samples), values.dtype.newbyteorder("<"))
    tile[:h, :w] = values
    if tile.dtype.kind in "iu":
        tile[:, 1:] = np.diff(tile, axis=1)
    return bytes(imagecodecs.deflate_encode(tile.tobytes(), FASTEST))
