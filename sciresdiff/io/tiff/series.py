"""The pixels of a TIFF's first series, read region by region.

Only the strips and tiles that a region touches are decoded.

Kept here instead of tifffile's Zarr stores, whose interface changes between versions and needs the optional library
zarr; decoding itself is tifffile's.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from sciresdiff.errors import InputError, SciresdiffError
from sciresdiff.io.files import first_line
from sciresdiff.io.raw_array import RawArray
from sciresdiff.io.source import ReadRegion
from sciresdiff.io.tiff.ome_set import check_ome, resolve_ome_set
from sciresdiff.region import Region

Array = NDArray[Any]
Part = tuple[slice, ...]

tifffile.logger().addHandler(logging.NullHandler())  # its messages on damaged files would go to stderr

CACHE = 2**27
"""Bytes of decoded strips and tiles that are kept for the next region."""


@dataclass(frozen=True)
class SeriesReader:
    """The pixels of an image."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: str
    window: ReadRegion
    """(plane, region) -> values (h, w) in native byte order; planes are counted as in `read.to_planes`."""
    missing: frozenset[int] = frozenset()
    """Planes that the metadata name and the file does not have."""

    @property
    def planes(self) -> int:
        """Number of YX planes."""
        return int(np.prod([n for a, n in zip(self.axes, self.shape, strict=True) if a not in "YX"], initial=1))


@contextmanager
def open_tiff(path: Path, outside: bool = False) -> Iterator[Any]:
    """Open a TIFF file with at least one image.

    Parameters
    ----------
    path : Path
        The file, or a companion that describes several.
    outside : bool
        Whether it may name files outside its folder.

    Raises
    ------
    InputError
        Missing or foreign file, no image in it, or a file elsewhere.
    """
    file, xml = resolve_ome_set(path, outside)
    with report_damage(file):
        tif = tifffile.TiffFile(file, omexml=xml)
    with tif:
        with report_damage(file):
            if described := xml or tif.ome_metadata:  # followed by what comes next
                check_ome(file, described, outside)
            series = tif.series
        if not series:
            raise InputError(f"{path}: no image in it")
        yield tif


@contextmanager
def report_damage(path: Path) -> Iterator[None]:
    """Turn any error in the block into an InputError, except our own and those of memory and permissions.

    tifffile follows tags only when they are used, and raises many kinds of errors on damaged files.
    """
    try:
        yield
    except (SciresdiffError, MemoryError, PermissionError):
        raise
    except Exception as error:
        raise InputError(f"{path}: not a whole TIFF file ({first_line(error)}); check or fetch it again") from error


def series_reader(path: Path, tif: Any, axes: str) -> SeriesReader:
    """Return the reader of the first series of an open file.

    Parameters
    ----------
    path : Path
        Named in errors.
    tif : TiffFile
        The open file.
    axes : str
        A letter for each axis.

    Raises
    ------
    InputError
        The file ends before its pixels do. A damaged strip or tile is found when a region touches it.
    """
    series = tif.series[0]
    _check_length(path, series)
    shape, dtype = tuple(series.shape), np.dtype(series.dtype)
    if (start := _raw_offset(series)) is not None:
        flat = RawArray(tif.filehandle.fileno(), start, dtype.newbyteorder(tif.byteorder), shape, axes)
        return SeriesReader(shape, dtype, axes, _raw_reader(path, flat.get))
    take = _page_reader(path, series) if _is_page_stack(series) else _load_whole(path, series)
    # a page may hold several planes: all of them are missing with it
    pixels = SeriesReader(shape, dtype, axes, _region_reader(shape, axes, take))
    share = pixels.planes // len(series.pages)
    missing = [n for n, page in enumerate(series.pages) if page is None]
    return replace(pixels, missing=frozenset(n * share + i for n in missing for i in range(share)))


def _check_length(path: Path, series: Any) -> None:
    """Refuse a truncated file: tifffile would fill with zeros what is missing."""
    try:
        for page in series.pages:
            if page is not None and page.dataoffsets:
                length = page.parent.filehandle.size
                ends = max(o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True))
                if ends > length:
                    raise InputError(
                        f"{path}: not a whole TIFF file (truncated at {length} bytes); check or fetch it again"
                    )
    except (ValueError, tifffile.TiffFileError) as error:
        raise InputError(f"{path}: pixels cannot be read ({first_line(error)}); check or fetch it again") from error


def _raw_offset(series: Any) -> int | None:
    """First byte of the array, if it is contiguous and uncompressed; else None."""
    page = series.keyframe
    plain = page.predictor == 1 and page.fillorder == 1 and not page.is_subsampled and series.transform is None
    start = series.dataoffset if plain else None
    if start is None or series.is_multifile or series.dtype.itemsize * 8 != page.bitspersample or page.is_tiled:
        return None
    size = int(np.prod(series.shape)) * series.dtype.itemsize
    return int(start) if start + size <= page.parent.filehandle.size else None


def _is_page_stack(series: Any) -> bool:
    """Whether the array is a stack of pages."""
    page, shape = series.keyframe, tuple(series.shape)
    lead = len(shape) - len(page.shape)
    stacked = lead >= 0 and shape[lead:] == tuple(page.shape) and int(np.prod(shape[:lead])) == len(series.pages)
    return stacked and series.transform is None and page.jpegheader is None and set(page.axes) <= set("SDZYX")


def _raw_reader(path: Path, get: ReadRegion) -> ReadRegion:
    def window(plane: int, region: Region) -> Array:
        try:
            return get(plane, region)
        except OSError as error:
            raise InputError(f"{path}: pixels cannot be read ({first_line(error)}); check or fetch it again") from error

    return window


def _region_reader(shape: tuple[int, ...], axes: str, take: Callable[[Part], Array]) -> ReadRegion:
    """Reads regions of planes, by parts of the array."""
    others = [i for i, a in enumerate(axes) if a not in "YX"]

    def window(plane: int, region: Region) -> Array:
        where = np.unravel_index(plane, [shape[i] for i in others]) if others else ()
        spans = {i: slice(int(k), int(k) + 1) for i, k in zip(others, where, strict=True)}
        spans |= dict(zip((axes.index("Y"), axes.index("X")), region.slices, strict=True))
        part = take(tuple(spans[i] for i in range(len(shape))))
        transposed = axes.index("Y") > axes.index("X")
        flat = part.reshape(region.shape[::-1] if transposed else region.shape)
        return flat.T if transposed else flat

    return window


def _load_whole(path: Path, series: Any) -> Callable[[Part], Array]:
    """Reads files that are no stack of pages: everything, into memory."""
    try:
        data = np.asarray(series.asarray())
    except Exception as error:  # unknown codecs, damaged strips
        raise InputError(f"{path}: pixels cannot be read ({first_line(error)}); check or fetch it again") from error
    data = data.astype(data.dtype.newbyteorder("="), copy=False)
    return lambda part: data[part]


def _page_reader(path: Path, series: Any) -> Callable[[Part], Array]:
    """Reads parts of a stack of pages."""
    page, shape, dtype = series.keyframe, tuple(series.shape), np.dtype(series.dtype).newbyteorder("=")
    lead = len(shape) - len(page.shape)
    segments = _segment_cache(path, series)

    def take(part: Part) -> Array:
        out = np.empty([s.stop - s.start for s in part], dtype)
        for turn in np.ndindex(*out.shape[:lead]):
            number = np.ravel_multi_index([s.start + i for s, i in zip(part, turn, strict=False)], shape[:lead])
            out[turn] = _read_page(page, part[lead:], partial(segments, int(number))).reshape(out.shape[lead:])
        return out

    return take


def _read_page(page: Any, part: Sequence[slice], segment: Callable[[int], tuple[Any, Any]]) -> Array:
    """Read a part of a page in tifffile's full form (sample, depth, y, x, sample)."""
    spans = [slice(0, n) for n in page.shaped]
    for i, letter in enumerate(page.axes):
        last = letter == "S" and i > page.axes.index("Y")
        spans[4 if last else {"S": 0, "D": 1, "Z": 1, "Y": 2, "X": 3}[letter]] = part[i]
    out = np.full([s.stop - s.start for s in spans], page.nodata, np.dtype(page.dtype).newbyteorder("="))
    for number in _segments_of(page, spans):
        data, start = segment(number)
        if data is not None:
            _paste(out, spans, data, start)
    return out


def _segments_of(page: Any, spans: Sequence[slice]) -> Iterator[int]:
    """Numbers of the strips or tiles that a part of a page touches."""
    _, depth, height, width, _ = page.shaped
    sides = (page.tiledepth, page.tilelength, page.tilewidth) if page.is_tiled else (1, page.rowsperstrip, width)
    counts = [-(-n // side) for n, side in zip((depth, height, width), sides, strict=True)]
    ranges = [range(s.start // side, -(-s.stop // side)) for s, side in zip(spans[1:4], sides, strict=True)]
    for sample, z, y, x in product(range(spans[0].start, spans[0].stop), *ranges):
        yield ((sample * counts[0] + z) * counts[1] + y) * counts[2] + x


def _paste(out: Array, spans: Sequence[slice], data: Array, start: Sequence[int]) -> None:
    """Copy a strip or tile, which begins at ``start`` of the page, into a part of it."""
    sizes = (1, *data.shape)
    here = [slice(max(s.start, b) - s.start, min(s.stop, b + n) - s.start)
            for s, b, n in zip(spans, start, sizes, strict=True)]  # fmt: skip
    there = [slice(max(s.start, b) - b, min(s.stop, b + n) - b) for s, b, n in zip(spans, start, sizes, strict=True)]
    out[tuple(here)] = data[None][tuple(there)]


def _segment_cache(path: Path, series: Any) -> Callable[[int, int], tuple[Any, Any]]:
    """Decoder of strips and tiles, (page, number) -> values and start; those used last are kept."""
    page = series.keyframe
    side = page.tilelength * page.tilewidth * page.tiledepth if page.is_tiled else page.rowsperstrip * page.imagewidth
    size = max(1, int(side) * int(page.samplesperpixel) * series.dtype.itemsize)
    lock = threading.Lock()  # decoding seeks in the file

    @lru_cache(maxsize=max(1, CACHE // size))
    def segment(number: int, index: int) -> tuple[Any, Any]:
        if series.pages[number] is None:
            return None, None
        try:
            return _decode_segment(series.pages[number], index)
        except Exception as error:  # damaged strips, unknown codecs
            raise InputError(
                f"{path}: page {number} cannot be read ({first_line(error)}); check or fetch it again"
            ) from error

    def locked(number: int, index: int) -> tuple[Any, Any]:
        with lock:
            return segment(number, index)

    return locked


def _decode_segment(page: Any, index: int) -> tuple[Any, Any]:
    stream = page.parent.filehandle
    if stream.closed:  # another file of the set
        stream.open()
    count = page.databytecounts[index]
    stream.seek(page.dataoffsets[index])
    packed = stream.read(count) if count else None
    if packed is not None and len(packed) < count:
        raise OSError("the file ends before its pixels do")
    tables = {"jpegtables": page.jpegtables} if page.keyframe.compression in (6, 7, 34892, 33007) else {}
    data, start, _ = page.keyframe.decode(packed, index, **tables)
    return data, start
