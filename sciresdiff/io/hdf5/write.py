"""HDF5 out: one dataset for the image and for each plane, without compression, written in place.

The HDF5 library brings the process down on a full disk; so it writes what is small into memory, with holes where the
pixels belong, and these are written by plain means.
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
from sciresdiff.io.files import in_parts, typed
from sciresdiff.io.flat import Flat, reserve, unbuffered, write_all
from sciresdiff.io.sink import IMAGE, Plane, Sink, counted, layered, put_whole
from sciresdiff.io.told import new_size
from sciresdiff.region import Region

Array = NDArray[Any]
Shapes = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
"""Dataset -> shape and type."""
PAGE = 4096


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
    """Write an image as dataset ``image``, each plane as a dataset in small letters (VAR as ``variance``)."""
    arrays = {name: np.asarray(plane) for name, plane in planes.items()}
    large = {name: array for name, array in arrays.items() if array.ndim > 1 and array.dtype.kind in "iuf"}
    made = Plan(
        _shapes(frame, dtype, {name: (array.shape, array.dtype) for name, array in large.items()}),
        lambda cards: _attributes(frame, {**provenance, **cards}, history, scale),
        {_name(name): array for name, array in planes.items() if name not in large},
    )
    with _growing(Path(path), made, overwrite, None) as (file, finish):
        return {"clipped": put_whole(file.put, frame.pixels, large), **finish({})}


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
    """The same file, written window by window; see ``sciresdiff.io.writing``.

    Raises
    ------
    ResourceError
        There is no room for the file; known before anything is put.
    """
    shapes = {name: (_of(plane, frame.pixels.shape), np.dtype(plane.dtype)) for name, plane in planes.items()}
    made = Plan(
        _shapes(frame, dtype, shapes), lambda cards: _attributes(frame, {**provenance, **cards}, history, scale), {}
    )
    with _growing(Path(path), made, overwrite, part) as (file, finish):
        put, get = layered(file.put, file.get, planes)
        yield counted(put, finish, get, lambda: os.fsync(file.fd))


@dataclass(frozen=True)
class Plan:
    """What a file will hold."""

    shapes: Shapes
    attributes: Callable[[Mapping[str, object]], dict[str, Any]]
    """(cards known at the end) -> attributes."""
    small: Mapping[str, Any]
    """Datasets that are written at once."""


@dataclass(frozen=True)
class File:
    """A file that is being written, in any order."""

    fd: int
    flats: Mapping[str, Flat]

    def put(self, name: str, plane: int, y0: int, x0: int, values: Array) -> int:
        """Write values (h, w) of a plane; how many of them an integer type could not hold."""
        flat = self.flats[_name(name)]
        data, lost = typed(values, flat.dtype) if name == IMAGE else (values.astype(flat.dtype, copy=False), 0)
        flat.put(plane, y0, x0, data)
        return lost

    def get(self, name: str, plane: int, region: Region) -> Array:
        """What is there."""
        return self.flats[_name(name)].get(plane, region)


def _name(name: str) -> str:
    """What a plane's dataset is called."""
    return {IMAGE: "image", "VAR": "variance"}.get(name, name.lower())


def _of(plane: Plane, image: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a plane: layers of a single plane have no axis for it."""
    shape = plane.shape(image)
    return shape[1:] if plane.layers and shape[0] == 1 else shape


def _shapes(frame: Frame, dtype: str | np.dtype[Any] | None, planes: Shapes) -> Shapes:
    return {"image": (_shape(frame), np.dtype(dtype or "f4")), **{_name(name): kind for name, kind in planes.items()}}


def _shape(frame: Frame) -> tuple[int, ...]:
    lead = frame.shape[:-2]
    fits = int(np.prod(lead, initial=1)) == frame.planes
    return (*lead, *frame.pixels.shape[1:]) if fits else frame.pixels.shape


def _attributes(frame: Frame, cards: Mapping[str, object], history: Sequence[str], scale: float) -> dict[str, Any]:
    shape, size = _shape(frame), new_size(frame, scale)
    attrs: dict[str, Any] = {key: x for key, x in cards.items() if x is not None}
    attrs |= {"kind": frame.kind, "axes": frame.axes if len(frame.axes) == len(shape) else "TCZYX"[-len(shape) :]}
    attrs |= {key: x for key, x in (("quantity", frame.quantity), ("unit", frame.unit)) if x}
    if history:
        attrs["history"] = json.dumps(list(history))
    if size:
        attrs |= {"pixel_size": (size.y, size.x), "pixel_unit": size.unit}
    return attrs


Finish = Callable[[Mapping[str, object]], dict[str, Any]]


@contextmanager
def _growing(path: Path, made: Plan, overwrite: bool, part: Path | None) -> Iterator[tuple[File, Finish]]:
    """The file with all of its room, and what completes it."""
    rest, places = _around(made, {})
    with in_parts([path], overwrite=overwrite, part=part) as (names, appear):
        place = names[path]
        ours = place.is_file() and place.stat().st_size >= rest.size
        with unbuffered(place, anew=not ours) as fd:
            if not ours:  # where room is taken by writing, what another process writes might be lost
                reserve(fd, rest.size)
            flats = {name: Flat(fd, places[name], kind, shape, "ABCDEFGHIJKLM"[: len(shape) - 2] + "YX")
                     for name, (shape, kind) in made.shapes.items()}  # fmt: skip

            def finish(cards: Mapping[str, object]) -> dict[str, Any]:
                whole, _ = _around(made, cards)
                whole.write_to(fd, {places[name]: _bytes(*kind) for name, kind in made.shapes.items()})
                if part is not None:
                    os.fsync(fd)
                return {"files": appear()}

            yield File(fd, flats), finish


def _around(made: Plan, cards: Mapping[str, object]) -> tuple[Holes, dict[str, int]]:
    """The file without its pixels, and where these belong; attributes come last and do not move them."""
    holes = Holes()
    with h5py.File(holes, "w") as file:
        kind = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        kind.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        kind.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        kind.set_obj_track_times(False)
        places = {}
        for name, (shape, dtype) in made.shapes.items():
            space = h5py.h5s.create_simple(shape)
            data = h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype), space, kind)
            places[name] = int(data.get_offset())
        for name, array in made.small.items():
            file.create_dataset(name, data=array, track_times=False)
        file.attrs.update(made.attributes(cards))
    return holes, places


def _bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return int(np.prod(shape)) * dtype.itemsize


@dataclass
class Holes:
    """A file in memory of which only the pages that were written are there."""

    pages: dict[int, bytearray] = field(default_factory=dict)
    at: int = 0
    size: int = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte."""
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        return self.at

    def tell(self) -> int:
        """Where we are."""
        return self.at

    def truncate(self, size: int | None = None) -> int:
        """Set the size."""
        self.size = self.at if size is None else size
        return self.size

    def flush(self) -> None:
        """Nothing is held back."""

    def write(self, data: Any) -> int:
        """Write at the place where we are."""
        view = memoryview(data).cast("B")
        for page, a, b, done in _split(self.at, len(view)):
            self.pages.setdefault(page, bytearray(PAGE))[a:b] = view[done : done + b - a]
        self.at += len(view)
        self.size = max(self.size, self.at)
        return len(view)

    def readinto(self, target: Any) -> int:
        """Read from the place where we are; 0 where nothing was written."""
        view = memoryview(target).cast("B")
        n = max(0, min(len(view), self.size - self.at))
        for page, a, b, done in _split(self.at, n):
            view[done : done + b - a] = self.pages.get(page, bytes(PAGE))[a:b]
        self.at += n
        return n

    def read(self, n: int = -1) -> bytes:
        """Read bytes from the place where we are."""
        found = bytearray(max(0, self.size - self.at) if n < 0 else n)
        return bytes(found[: self.readinto(found)])

    def write_to(self, fd: int, spare: Mapping[int, int]) -> None:
        """Write everything into a file but what lies in ``spare``: start -> length."""
        start = 0
        for a, n in [*sorted(spare.items()), (self.size, 0)]:
            self.seek(start)
            write_all(fd, self.read(a - start), start)
            start = a + n
        os.ftruncate(fd, self.size)


def _split(start: int, n: int) -> Iterator[tuple[int, int, int, int]]:
    """Pages that a piece of a file touches: number, first and last byte in it, and bytes of the piece before."""
    done = 0
    while done < n:
        page, a = divmod(start + done, PAGE)
        b = min(PAGE, a + n - done)
        yield page, a, b, done
        done += b - a
