"""TIFF out: the input's axes, type and metadata style, with the pixel size adapted wherever it stands."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.frame import Frame
from sciresdiff.io import stem, suffix
from sciresdiff.io.files import in_parts, typed
from sciresdiff.io.flat import Flat, reserve, unbuffered, write_all
from sciresdiff.io.sink import IMAGE, Plane, Sink, counted, layered, put_whole
from sciresdiff.io.tiff import style
from sciresdiff.io.tiff.ifd import BIG, START, packed, start_of
from sciresdiff.io.tiff.layout import Layout, directories
from sciresdiff.io.tiff.meta import TiffHeader
from sciresdiff.io.tiff.ome import OME_TYPES, new_ome
from sciresdiff.io.tiff.pyramid import write_pyramid
from sciresdiff.io.told import new_size, telling
from sciresdiff.region import Region

Array = NDArray[Any]
Finish = Callable[[Mapping[str, object]], dict[str, Any]]

BESIDE = ("ERR", "SUPPORT", "TRUST", "VAR", "DRAWS")
"""Planes that get a file of their own beside the image."""


def write(
    path: str | Path,
    frame: Frame,
    *,
    planes: Mapping[str, Array],
    provenance: Mapping[str, object],
    history: Sequence[str],
    scale: float = 1.0,
    overwrite: bool = False,
    dtype: str | np.dtype[Any] | None = None,
    pyramid: bool = False,
) -> dict[str, Any]:
    """Write the image, and ERR, SUPPORT, TRUST, VAR and DRAWS beside it; see ``sciresdiff.io.write``."""
    stacks = {name: np.asarray(planes[name]) for name in BESIDE if name in planes}
    stacks = {name: array.reshape(-1, *array.shape[-2:]) for name, array in stacks.items()}
    layers = {name: len(stack) for name, stack in stacks.items()}
    made = _plan(Path(path), frame, layers, scale, dtype, pyramid)
    told = telling(frame, planes, provenance, history, scale)
    with _growing(Path(path), made, told, overwrite, None) as (files, finish):
        clipped = put_whole(lambda name, *where: files[name].put(*where), frame.pixels, stacks)
        return {"clipped": clipped, **finish({})}


@contextmanager
def sink(
    path: str | Path,
    frame: Frame,
    *,
    planes: Mapping[str, Plane],
    provenance: Mapping[str, object],
    history: Sequence[str],
    scale: float = 1.0,
    overwrite: bool = False,
    dtype: str | np.dtype[Any] | None = None,
    pyramid: bool = False,
    part: Path | None = None,
) -> Iterator[Sink]:
    """The same files, written window by window; see ``sciresdiff.io.writing``. GATE and DQ are taken and dropped.

    Raises
    ------
    ResourceError
        There is no room for the files; known before anything is put.
    """
    layers = {name: max(1, plane.layers) * frame.planes for name, plane in planes.items() if name in BESIDE}
    made = _plan(Path(path), frame, layers, scale, dtype, pyramid)
    told = telling(frame, planes, provenance, history, scale)
    with _growing(Path(path), made, told, overwrite, part) as (files, finish):

        def put(name: str, plane: int, y0: int, x0: int, values: Array) -> int:
            return files[name].put(plane, y0, x0, values) if name in files else 0

        def get(name: str, plane: int, region: Region) -> Array:
            return files[name].flat.get(plane, region) if name in files else np.zeros((0, 0), np.float32)

        def sync() -> None:
            for file in files.values():
                os.fsync(file.flat.fd)

        put_all, get_all = layered(put, get, planes)
        yield counted(put_all, finish, get_all, sync)


@dataclass(frozen=True)
class One:
    """A file that is to be written."""

    path: Path
    header: TiffHeader
    """Its shape is the output's, its sizes the input's."""
    dtype: np.dtype[Any]
    scale: float
    pyramid: bool = False

    @property
    def layout(self) -> Layout:
        """How the pixels lie."""
        return Layout(self.header.axes, self.header.shape, self.dtype.newbyteorder("<"))

    @property
    def big(self) -> bool:
        """Whether it needs offsets of 64 bits."""
        return self.layout.nbytes > BIG


@dataclass(frozen=True)
class File:
    """A file that is being written, in any order."""

    one: One
    flat: Flat

    def put(self, plane: int, y0: int, x0: int, values: Array) -> int:
        """Write values (h, w) of a plane; how many of them an integer type could not hold."""
        data, lost = typed(values, self.one.dtype)
        self.flat.put(plane, y0, x0, data)
        return lost

    def complete(self, place: Path, told: Mapping[str, Any]) -> None:
        """Write the directories, behind the pixels; or the whole file anew, in tiles."""
        one, fd = self.one, self.flat.fd
        first = style.said(one.header, one.dtype, one.scale, told)
        resolution = style.resolution(one.header, one.dtype, one.scale)
        if one.pyramid:
            return write_pyramid(place, self.flat, one.layout, resolution, first)
        end = START + one.layout.nbytes
        end += -end % 16
        at, data = packed(directories(one.layout, START, one.big, resolution, first), end, one.big)
        os.ftruncate(fd, end)
        write_all(fd, data, end)
        write_all(fd, start_of(one.big, at), 0)


@contextmanager
def _growing(
    path: Path, made: Mapping[str, One], told: Callable[..., dict[str, Any]], overwrite: bool, part: Path | None
) -> Iterator[tuple[dict[str, File], Finish]]:
    """The files with all of their room, and what completes them."""
    paths = [one.path for one in made.values()]
    with in_parts(paths, overwrite=overwrite, part=part) as (names, appear), ExitStack() as stack:
        files = {name: _opened(stack, names[one.path], one) for name, one in made.items()}

        def finish(cards: Mapping[str, object]) -> dict[str, Any]:
            for name, file in files.items():
                file.complete(names[file.one.path], told(cards) if name == IMAGE else {})
                if part is not None:
                    os.fsync(file.flat.fd)
            return {"files": appear()}

        yield files, finish


def _opened(stack: ExitStack, place: Path, one: One) -> File:
    """A file with room for its pixels: the unfinished one, if there is one of this size."""
    size = START + one.layout.nbytes
    ours = place.is_file() and place.stat().st_size >= size
    fd = stack.enter_context(unbuffered(place, anew=not ours))
    if not ours:
        reserve(fd, size)
        write_all(fd, start_of(one.big), 0)
    return File(one, Flat(fd, START, one.layout.dtype, one.header.shape, one.header.axes))


def _plan(
    path: Path,
    frame: Frame,
    layers: Mapping[str, int],
    scale: float,
    dtype: str | np.dtype[Any] | None,
    pyramid: bool,
) -> dict[str, One]:
    """The image's file, and one for each plane beside it: plain TIFF in float32."""
    header = _of_size(_fitting(frame, path, scale), frame.pixels.shape)
    wanted = np.dtype(dtype) if dtype is not None else frame.dtype
    made = {IMAGE: One(path, header, _held(wanted.newbyteorder("="), header), scale, pyramid)}
    for name, count in layers.items():
        beside = style.plain(header)
        if count != _count(beside):
            beside = replace(beside, axes="TYX", shape=(count, *frame.pixels.shape[1:]), colour=False)
        other = path.with_name(f"{stem(path)}_{name.lower()}.tif")
        made[name] = One(other, beside, np.dtype(np.float32), scale)
    return made


def _held(dtype: np.dtype[Any], header: TiffHeader) -> np.dtype[Any]:
    """The type that is written: half precision is too coarse for a mean, and OME has no integers of 64 bits."""
    if dtype == np.float16:
        return np.dtype(np.float32)
    return np.dtype(np.float64) if header.style == "ome" and dtype.name not in OME_TYPES else dtype


def _count(header: TiffHeader) -> int:
    """How many planes the input's axes hold."""
    lead = [n for a, n in zip(header.axes, header.shape, strict=True) if a not in "YX"]
    return int(np.prod(lead, initial=1))


def _of_size(header: TiffHeader, shape: tuple[int, ...]) -> TiffHeader:
    """A header with Y and X of the output."""
    sides = {"Y": shape[1], "X": shape[2]}
    return replace(header, shape=tuple(sides.get(a, n) for a, n in zip(header.axes, header.shape, strict=True)))


def _fitting(frame: Frame, path: Path, scale: float) -> TiffHeader:
    """The input's header, where its axes hold as many planes as there are; a stack of another kind is plain.

    A name in .ome.tif asks for OME.
    """
    header = frame.header if isinstance(frame.header, TiffHeader) else _fresh(frame, scale)
    header = replace(header, quantity=frame.quantity)
    if _count(header) != frame.planes:
        header = replace(style.plain(header), axes="TYX", shape=frame.pixels.shape, colour=False)
    return _as_ome(header) if suffix(path).lower().startswith(".ome.") and header.style != "ome" else header


def _as_ome(header: TiffHeader) -> TiffHeader:
    """The header with OME-XML; axes that OME does not know are called T, Z or C."""
    free = [a for a in "TZC" if a not in header.axes]
    axes = "".join(a if a in "TZCYXS" else free.pop(0) if free else a for a in header.axes)
    if not set(axes) <= set("TZCYXS") or not axes.endswith(("YX", "YXS")):
        lead = _count(header)
        sides = tuple(header.shape[header.axes.index(a)] for a in "YX")
        header, axes = replace(header, shape=(lead, *sides), colour=False), "TYX"
    header = replace(header, axes=axes)
    return replace(header, ome=new_ome(header), style="ome")


def _fresh(frame: Frame, scale: float) -> TiffHeader:
    """A header for a frame that does not come from TIFF."""
    shape = tuple(frame.shape)
    fits = len(frame.axes) == len(shape) and int(np.prod(shape[:-2], initial=1)) == frame.planes
    axes, shape = (frame.axes, shape) if fits and frame.axes.endswith("YX") else ("TYX", frame.pixels.shape)
    if len(axes) == 3 and frame.planes == 1:
        axes, shape = "YX", shape[1:]
    size = new_size(frame, scale)
    return TiffHeader(style="plain", axes=axes, shape=shape, pixel_size=size.finer(1 / scale) if size else None)
