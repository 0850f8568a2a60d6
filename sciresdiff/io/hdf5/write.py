"""HDF5 out: one dataset for the image and for each plane, uncompressed, written in place.

The HDF5 library ends the process on a full disk. So it writes the small structures into memory, with gaps for the
pixels, and the pixels are written with pwrite.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sciresdiff.frame import Frame
from sciresdiff.io.atomic import atomic_files
from sciresdiff.io.dtypes import cast_pixels
from sciresdiff.io.provenance import output_pixel_size
from sciresdiff.io.raw_array import RawArray, open_unbuffered, reserve_space, write_at
from sciresdiff.io.sink import IMAGE, Finish, Plane, Sink, count_clipped, file_shape, put_image, split_layers
from sciresdiff.region import Region

Array = NDArray[Any]
Shapes = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
"""Dataset -> shape and type."""
PAGE = 4096
"""Bytes of a page of `SparseFile`."""


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
) -> dict[str, Any]:
    """Write dataset ``image``, and each plane under its name in small letters (VAR as ``variance``).

    See `sciresdiff.io.write`.
    """
    arrays = {name: np.asarray(plane) for name, plane in planes.items()}
    large = {name: array for name, array in arrays.items() if array.ndim > 1 and array.dtype.kind in "iuf"}
    plan = Plan(
        _shapes(frame, dtype, {name: (array.shape, array.dtype) for name, array in large.items()}),
        lambda cards: _attributes(frame, {**provenance, **cards}, history, scale),
        {_dataset_name(name): array for name, array in planes.items() if name not in large},
    )
    with _open_output(Path(path), plan, overwrite, None) as (file, finish):
        return {"clipped": put_image(file.put, frame.pixels, large), **finish({})}


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
    part: Path | None = None,
) -> Iterator[Sink]:
    """Open the same file to be written region by region; see `sciresdiff.io.open_sink`.

    Raises
    ------
    ResourceError
        There is no room for the file; found before anything is written.
    """
    shapes = {name: (plane.file_shape(frame.pixels.shape), np.dtype(plane.dtype)) for name, plane in planes.items()}
    plan = Plan(
        _shapes(frame, dtype, shapes), lambda cards: _attributes(frame, {**provenance, **cards}, history, scale), {}
    )
    with _open_output(Path(path), plan, overwrite, part) as (file, finish):
        put, get = split_layers(file.put, file.get, planes)
        yield count_clipped(put, finish, get, lambda: os.fsync(file.fd), file.flats[_dataset_name(IMAGE)].dtype)


@dataclass(frozen=True)
class Plan:
    """What a file will hold."""

    shapes: Shapes
    attributes: Callable[[Mapping[str, object]], dict[str, Any]]
    """(cards whose values were not known before) -> attributes."""
    small: Mapping[str, Any]
    """Datasets that are written at once."""


@dataclass(frozen=True)
class OutputFile:
    """A file that is being written, in any order."""

    fd: int
    flats: Mapping[str, RawArray]

    def put(self, name: str, plane: int, y0: int, x0: int, values: Array) -> int:
        """Write values into a plane.

        Parameters
        ----------
        name : str
            Of the plane, in capitals.
        plane : int
            Number of the (Y, X) plane in the dataset.
        y0, x0 : int
            First row and column.
        values : (h, w) array
            Pixels.

        Returns
        -------
        int
            Number of the image's values that an integer type could not hold.
        """
        flat = self.flats[_dataset_name(name)]
        data, lost = cast_pixels(values, flat.dtype) if name == IMAGE else (values.astype(flat.dtype, copy=False), 0)
        flat.put(plane, y0, x0, data)
        return lost

    def get(self, name: str, plane: int, region: Region) -> Array:
        """Read back a region (h, w)."""
        return self.flats[_dataset_name(name)].get(plane, region)


def _dataset_name(name: str) -> str:
    """Name of a plane's dataset."""
    return {IMAGE: "image", "VAR": "variance"}.get(name, name.lower())


def _shapes(frame: Frame, dtype: str | np.dtype[Any] | None, planes: Shapes) -> Shapes:
    return {
        "image": (file_shape(frame), np.dtype(dtype or "f4")),
        **{_dataset_name(name): kind for name, kind in planes.items()},
    }


def _attributes(frame: Frame, cards: Mapping[str, object], history: Sequence[str], scale: float) -> dict[str, Any]:
    shape, size = file_shape(frame), output_pixel_size(frame, scale)
    attrs: dict[str, Any] = {key: x for key, x in cards.items() if x is not None}
    attrs |= {"kind": frame.kind, "axes": _axes(frame, shape)}
    attrs |= {key: x for key, x in (("quantity", frame.quantity), ("unit", frame.unit)) if x}
    if history:
        attrs["history"] = json.dumps(list(history))
    if size:
        attrs |= {"pixel_size": (size.y, size.x), "pixel_unit": size.unit}
    return attrs


def _axes(frame: Frame, shape: tuple[int, ...]) -> str:
    """A letter for each axis: the frame's where Y and X are its last."""
    same = len(frame.axes) == len(shape) and frame.axes.endswith("YX")
    return frame.axes if same else "TCZYX"[-len(shape) :]


@contextmanager
def _open_output(path: Path, plan: Plan, overwrite: bool, part: Path | None) -> Iterator[tuple[OutputFile, Finish]]:
    """Open the file with all of its room; also yields the function that completes it."""
    rest, places = _skeleton(plan, {})
    with atomic_files([path], overwrite=overwrite, part=part) as (names, publish):
        place = names[path]
        resumed = place.is_file() and place.stat().st_size >= rest.size
        with open_unbuffered(place, anew=not resumed) as fd:
            if not resumed:  # reserving may write zeros, over what another process has written meanwhile
                reserve_space(fd, rest.size)
            flats = {name: RawArray(fd, places[name], kind, shape, "ABCDEFGHIJKLM"[: len(shape) - 2] + "YX")
                     for name, (shape, kind) in plan.shapes.items()}  # fmt: skip

            def finish(cards: Mapping[str, object]) -> dict[str, Any]:
                whole, _ = _skeleton(plan, cards)
                whole.write_to(fd, {places[name]: _nbytes(*kind) for name, kind in plan.shapes.items()})
                if part is not None:
                    os.fsync(fd)
                return {"files": publish()}

            yield OutputFile(fd, flats), finish


def _skeleton(plan: Plan, cards: Mapping[str, object]) -> tuple[SparseFile, dict[str, int]]:
    """The file without its pixels, and their places; attributes come last and do not move them."""
    holes = SparseFile()
    with h5py.File(holes, "w") as file:
        # contiguous, allocated at once and not filled: the offset is known and nothing is written there
        kind = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        kind.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        kind.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        kind.set_obj_track_times(False)
        places = {}
        for name, (shape, dtype) in plan.shapes.items():
            space = h5py.h5s.create_simple(shape)
            data = h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype), space, kind)
            places[name] = int(data.get_offset())
        for name, array in plan.small.items():
            file.create_dataset(name, data=array, track_times=False)
        file.attrs.update(plan.attributes(cards))
    return holes, places


def _nbytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return int(np.prod(shape)) * dtype.itemsize


@dataclass
class SparseFile:
    """A file in memory that stores only the pages that were written."""

    pages: dict[int, bytearray] = field(default_factory=dict)
    at: int = 0
    size: int = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position."""
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        return self.at

    def tell(self) -> int:
        """Return the position."""
        return self.at

    def truncate(self, size: int | None = None) -> int:
        """Set the size."""
        self.size = self.at if size is None else size
        return self.size

    def flush(self) -> None:
        """Do nothing: writes are not buffered."""

    def write(self, data: Any) -> int:
        """Write at the position."""
        view = memoryview(data).cast("B")
        for page, a, b, done in _iter_pages(self.at, len(view)):
            self.pages.setdefault(page, bytearray(PAGE))[a:b] = view[done : done + b - a]
        self.at += len(view)
        self.size = max(self.size, self.at)
        return len(view)

    def readinto(self, target: Any) -> int:
        """Read at the position; 0 where nothing was written."""
        view = memoryview(target).cast("B")
        n = max(0, min(len(view), self.size - self.at))
        for page, a, b, done in _iter_pages(self.at, n):
            view[done : done + b - a] = self.pages.get(page, bytes(PAGE))[a:b]
        self.at += n
        return n

    def read(self, n: int = -1) -> bytes:
        """Read bytes at the position."""
        found = bytearray(max(0, self.size - self.at) if n < 0 else n)
        return bytes(found[: self.readinto(found)])

    def write_to(self, fd: int, spare: Mapping[int, int]) -> None:
        """Write everything into a file except the ranges in ``spare`` (first byte -> length)."""
        start = 0
        for a, n in [*sorted(spare.items()), (self.size, 0)]:
            self.seek(start)
            write_at(fd, self.read(a - start), start)
            start = a + n
        os.ftruncate(fd, self.size)


def _iter_pages(start: int, n: int) -> Iterator[tuple[int, int, int, int]]:
    """Pages of a range of bytes: number, first and last byte in it, and bytes of the range before it."""
    done = 0
    while done < n:
        page, a = divmod(start + done, PAGE)
        b = min(PAGE, a + n - done)
        yield page, a, b, done
        done += b - a
