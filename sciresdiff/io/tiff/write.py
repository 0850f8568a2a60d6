"""TIFF out: axes, type and metadata style of the input, with the pixel size adapted wherever it stands."""

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
from sciresdiff.io.atomic import atomic_files
from sciresdiff.io.dtypes import cast_pixels
from sciresdiff.io.provenance import output_pixel_size, provenance_writer
from sciresdiff.io.raw_array import RawArray, open_unbuffered, reserve_space, write_at
from sciresdiff.io.sink import IMAGE, Finish, Plane, Sink, count_clipped, put_image, split_layers
from sciresdiff.io.tiff import description
from sciresdiff.io.tiff.ifd import BIG, START, file_header, pack_directories
from sciresdiff.io.tiff.layout import Layout, page_directories
from sciresdiff.io.tiff.metadata import TiffHeader
from sciresdiff.io.tiff.ome import OME_TYPES, new_ome
from sciresdiff.io.tiff.pyramid import write_pyramid
from sciresdiff.region import Region

Array = NDArray[Any]

SIDECARS = ("ERR", "SUPPORT", "TRUST", "VAR", "DQ", "DRAWS")
"""Planes that get a file of their own beside the image: whole numbers for DQ, else float32."""


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
    """Write the image, and ERR, SUPPORT, TRUST, VAR, DQ and DRAWS in files beside it; **GATE is not written**.

    Parameters, returns and errors are those of `sciresdiff.io.write`.
    """
    stacks = {name: np.asarray(planes[name]) for name in SIDECARS if name in planes}
    stacks = {name: array.reshape(-1, *array.shape[-2:]) for name, array in stacks.items()}
    layers = {name: len(stack) for name, stack in stacks.items()}
    plans = _plan(Path(path), frame, layers, scale, dtype, pyramid)
    record = provenance_writer(frame, planes, provenance, history, scale)
    with _open_outputs(Path(path), plans, record, overwrite, None) as (files, finish):
        clipped = put_image(lambda name, *where: files[name].put(*where), frame.pixels, stacks)
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
    """Open the same files to be written region by region; see `sciresdiff.io.open_sink`.

    **GATE is not written.**

    Raises
    ------
    ResourceError
        There is no room for the files; found before anything is written.
    """
    layers = {name: max(1, plane.layers) * frame.planes for name, plane in planes.items() if name in SIDECARS}
    plans = _plan(Path(path), frame, layers, scale, dtype, pyramid)
    record = provenance_writer(frame, planes, provenance, history, scale)
    with _open_outputs(Path(path), plans, record, overwrite, part) as (files, finish):

        def put(name: str, plane: int, y0: int, x0: int, values: Array) -> int:
            return files[name].put(plane, y0, x0, values) if name in files else 0

        def get(name: str, plane: int, region: Region) -> Array:
            return files[name].array.get(plane, region) if name in files else np.zeros((0, 0), np.float32)

        def sync() -> None:
            for file in files.values():
                os.fsync(file.array.fd)

        put_all, get_all = split_layers(put, get, planes)
        yield count_clipped(put_all, finish, get_all, sync, plans[IMAGE].dtype)


@dataclass(frozen=True)
class OutputPlan:
    """A file to be written."""

    path: Path
    header: TiffHeader
    """Its shape is the output's, its pixel size the input's."""
    dtype: np.dtype[Any]
    scale: float
    pyramid: bool = False

    @property
    def layout(self) -> Layout:
        """How the pixels are stored."""
        return Layout(self.header.axes, self.header.shape, self.dtype.newbyteorder("<"))

    @property
    def big(self) -> bool:
        """Whether it is BigTIFF."""
        return self.layout.nbytes > BIG


@dataclass(frozen=True)
class OutputFile:
    """A file that is being written, in any order."""

    plan: OutputPlan
    array: RawArray

    def put(self, plane: int, y0: int, x0: int, values: Array) -> int:
        """Write values into a plane.

        Parameters
        ----------
        plane : int
            Number of the (Y, X) plane.
        y0, x0 : int
            First row and column.
        values : (h, w) array
            Pixels.

        Returns
        -------
        int
            Number of values that an integer type could not hold.
        """
        data, lost = cast_pixels(values, self.plan.dtype)
        self.array.put(plane, y0, x0, data)
        return lost

    def complete(self, place: Path, record: Mapping[str, Any]) -> None:
        """Write the directories behind the pixels, or the whole file again as a pyramid.

        Parameters
        ----------
        place : Path
            The unfinished file.
        record : mapping
            Provenance, in JSON's types.
        """
        plan, fd = self.plan, self.array.fd
        first = description.description_tags(plan.header, plan.dtype, plan.scale, record)
        resolution = description.resolution_tags(plan.header, plan.dtype, plan.scale)
        if plan.pyramid:
            return write_pyramid(place, self.array, plan.layout, resolution, first)
        end = START + plan.layout.nbytes
        end += -end % 16  # directories begin at a multiple of 16 bytes
        at, data = pack_directories(page_directories(plan.layout, START, plan.big, resolution, first), end, plan.big)
        os.ftruncate(fd, end)
        write_at(fd, data, end)
        # last, so that a file that was cut short has no directory
        write_at(fd, file_header(plan.big, at), 0)


@contextmanager
def _open_outputs(
    path: Path,
    plans: Mapping[str, OutputPlan],
    record: Callable[..., dict[str, Any]],
    overwrite: bool,
    part: Path | None,
) -> Iterator[tuple[dict[str, OutputFile], Finish]]:
    """Open the files with all of their room; also yields the function that completes them."""
    paths = [plan.path for plan in plans.values()]
    with atomic_files(paths, overwrite=overwrite, part=part) as (names, publish), ExitStack() as stack:
        files = {name: _open_output(stack, names[plan.path], plan) for name, plan in plans.items()}

        def finish(cards: Mapping[str, object]) -> dict[str, Any]:
            for name, file in files.items():
                file.complete(names[file.plan.path], record(cards) if name == IMAGE else {})
                if part is not None:
                    os.fsync(file.array.fd)
            return {"files": publish()}

        yield files, finish


def _open_output(stack: ExitStack, place: Path, plan: OutputPlan) -> OutputFile:
    """Open a file with room for its pixels: the unfinished one of this size, if it exists."""
    size = START + plan.layout.nbytes
    resumed = place.is_file() and place.stat().st_size >= size
    fd = stack.enter_context(open_unbuffered(place, anew=not resumed))
    if not resumed:
        reserve_space(fd, size)
        write_at(fd, file_header(plan.big), 0)
    return OutputFile(plan, RawArray(fd, START, plan.layout.dtype, plan.header.shape, plan.header.axes))


def _plan(
    path: Path,
    frame: Frame,
    layers: Mapping[str, int],
    scale: float,
    dtype: str | np.dtype[Any] | None,
    pyramid: bool,
) -> dict[str, OutputPlan]:
    """Plan the image's file, and one for each plane beside it (plain TIFF)."""
    header = _with_sides(_output_header(frame, path, scale), frame.pixels.shape)
    wanted = np.dtype(dtype) if dtype is not None else frame.dtype
    plans = {IMAGE: OutputPlan(path, header, _writable_dtype(wanted.newbyteorder("="), header), scale, pyramid)}
    for name, count in layers.items():
        beside = description.without_style(header)  # display ranges and channels are the image's
        if count != _count_planes(beside):
            beside = replace(beside, axes="TYX", shape=(count, *frame.pixels.shape[1:]), colour=False)
        other = path.with_name(f"{stem(path)}_{name.lower()}.tif")
        plans[name] = OutputPlan(other, beside, np.dtype(np.int32 if name == "DQ" else np.float32), scale)
    return plans


def _writable_dtype(dtype: np.dtype[Any], header: TiffHeader) -> np.dtype[Any]:
    """Type that is written: half precision is too coarse for a mean, and OME has no 64-bit integers."""
    if dtype == np.float16:
        return np.dtype(np.float32)
    return np.dtype(np.float64) if header.style == "ome" and dtype.name not in OME_TYPES else dtype


def _count_planes(header: TiffHeader) -> int:
    """Number of planes that the axes of a header hold."""
    lead = [n for a, n in zip(header.axes, header.shape, strict=True) if a not in "YX"]
    return int(np.prod(lead, initial=1))


def _with_sides(header: TiffHeader, shape: tuple[int, ...]) -> TiffHeader:
    """Header with Y and X of the output."""
    sides = {"Y": shape[1], "X": shape[2]}
    return replace(header, shape=tuple(sides.get(a, n) for a, n in zip(header.axes, header.shape, strict=True)))


def _output_header(frame: Frame, path: Path, scale: float) -> TiffHeader:
    """The input's header if its axes hold as many planes as the output has, else a plain one.

    A name in .ome.tif asks for OME.
    """
    header = frame.header if isinstance(frame.header, TiffHeader) else _new_header(frame, scale)
    header = replace(header, quantity=frame.quantity)
    if _count_planes(header) != frame.planes:
        header = replace(description.without_style(header), axes="TYX", shape=frame.pixels.shape, colour=False)
    return _as_ome(header) if suffix(path).lower().startswith(".ome.") and header.style != "ome" else header


def _as_ome(header: TiffHeader) -> TiffHeader:
    """Header with OME-XML; axes that OME does not know become T, Z or C."""
    free = [a for a in "TZC" if a not in header.axes]
    axes = "".join(a if a in "TZCYXS" else free.pop(0) if free else a for a in header.axes)
    if not set(axes) <= set("TZCYXS") or not axes.endswith(("YX", "YXS")):
        lead = _count_planes(header)
        sides = tuple(header.shape[header.axes.index(a)] for a in "YX")
        header, axes = replace(header, shape=(lead, *sides), colour=False), "TYX"
    header = replace(header, axes=axes)
    return replace(header, ome=new_ome(header), style="ome")


def _new_header(frame: Frame, scale: float) -> TiffHeader:
    """Header for a frame that does not come from TIFF."""
    shape = tuple(frame.shape)
    fits = len(frame.axes) == len(shape) and int(np.prod(shape[:-2], initial=1)) == frame.planes
    axes, shape = (frame.axes, shape) if fits and frame.axes.endswith("YX") else ("TYX", frame.pixels.shape)
    if len(axes) == 3 and frame.planes == 1:
        axes, shape = "YX", shape[1:]
    size = output_pixel_size(frame, scale)
    return TiffHeader(style="plain", axes=axes, shape=shape, pixel_size=size.refine(1 / scale) if size else None)
