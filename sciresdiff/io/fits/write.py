"""FITS out: the input's own file with a new pixel scale, and the planes that belong to the result."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sciresdiff.errors import ResourceError
from sciresdiff.frame import Frame
from sciresdiff.io.files import in_parts, typed
from sciresdiff.io.fits.carry import PIECE, pieces
from sciresdiff.io.fits.checksum import with_sums
from sciresdiff.io.fits.layer import axes_of, turned
from sciresdiff.io.fits.layout import Slot
from sciresdiff.io.fits.pack import packed
from sciresdiff.io.fits.plan import Plan, layers, plan
from sciresdiff.io.fits.text import BLOCK, text
from sciresdiff.io.flat import Flat, reserve, unbuffered, write_all
from sciresdiff.io.sink import IMAGE, Plane, Sink, counted, put_whole
from sciresdiff.region import Region

Array = NDArray[Any]


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
    """Write a frame as primary header + SCI + planes + the input's other extensions; see ``sciresdiff.io.write``."""
    arrays = {name: np.asarray(plane) for name, plane in planes.items()}
    shapes = {name: (plane.shape, plane.dtype) for name, plane in arrays.items()}
    made = plan(frame, shapes, provenance, history, scale, dtype)
    with _growing(Path(path), made, overwrite, None) as (file, finish):
        return {"clipped": put_whole(file.put, frame.pixels, arrays), **finish({})}


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
        There is no room for the whole file; known before anything is put.
    """
    shapes = {name: (layers(frame, plane), np.dtype(plane.dtype)) for name, plane in planes.items()}
    made = plan(frame, shapes, provenance, history, scale, dtype)
    with _growing(Path(path), made, overwrite, part) as (file, finish):
        yield counted(file.put, finish, file.get, file.sync)


@dataclass(frozen=True)
class File:
    """A file that is being written, in any order."""

    fd: int
    slots: Mapping[str, Slot]

    def put(self, name: str, plane: int, y0: int, x0: int, values: Array) -> int:
        """Write values (h, w), or (K, h, w) of layers; how many of them an integer type could not hold."""
        slot = self.slots[name]
        data, lost = typed(values, slot.kind) if name == IMAGE else (values.astype(slot.kind), 0)
        data = turned(data) if slot.stored.kind != slot.kind.kind else data
        layers = data.reshape(-1, *data.shape[-2:])
        for k, layer in enumerate(layers):
            _flat(self.fd, slot).put(plane * len(layers) + k, y0, x0, layer)
        return lost

    def get(self, name: str, plane: int, region: Region) -> Array:
        """What is there: (h, w), or (K, h, w) where the plane has more layers than the image has planes."""
        slot, image = self.slots[name], self.slots[IMAGE]
        k = _planes(slot) // _planes(image)
        found = np.stack([_flat(self.fd, slot).get(plane * k + i, region) for i in range(k)])
        data = turned(found) if slot.stored.kind != slot.kind.kind else found
        return data[0] if k == 1 else data

    def fill(self, name: str, array: Array) -> None:
        """Write a whole array."""
        for i, plane in enumerate(array.reshape(-1, *array.shape[-2:])):
            self.put(name, i, 0, 0, plane)

    def sync(self) -> None:
        """Wait until it is on the disk."""
        os.fsync(self.fd)

    def pieces(self, start: int, length: int) -> Iterator[bytes]:
        """What is there, piece by piece."""
        for at in range(start, start + length, PIECE):
            yield os.pread(self.fd, min(PIECE, start + length - at), at)


def _planes(slot: Slot) -> int:
    return int(np.prod(slot.shape[:-2], initial=1))


def _flat(fd: int, slot: Slot) -> Flat:
    return Flat(fd, slot.data_at, slot.stored, slot.shape, axes_of(slot.shape))


Finish = Callable[[Mapping[str, object]], dict[str, Any]]


@contextmanager
def _growing(path: Path, made: Plan, overwrite: bool, part: Path | None) -> Iterator[tuple[File, Finish]]:
    """The file with its headers and all of its room, and what completes it."""
    with in_parts([path], overwrite=overwrite, part=part) as (names, appear):
        place = names[path]
        ours = _ours(place, made)
        with unbuffered(place, anew=not ours) as fd:
            file = File(fd, {slot.name: slot for slot in made.slots})
            if not ours:  # where room is taken by writing, what another process writes might be lost
                _reserve(path, fd, made.size)
            _headers(file, made, {}, sums=False)
            if made.kernel is not None:
                file.fill("KERNEL", made.kernel)

            def finish(cards: Mapping[str, object]) -> dict[str, Any]:
                _complete(file, made, cards)
                if part is not None:
                    file.sync()
                packed(path, place, made.slots, made.rest_at)
                return {"files": appear()}

            yield file, finish


def _ours(place: Path, made: Plan) -> bool:
    """Whether the unfinished file of an earlier run is there: one of this size, with these headers."""
    if not place.is_file() or place.stat().st_size != made.size:
        return False
    open_keys = {*made.provenance, "CHECKSUM", "DATASUM", ""}

    def told(header: bytes) -> list[str]:
        return [str(card) for card in fits.Header.fromstring(header).cards if card.keyword not in open_keys]

    with place.open("rb") as stream:
        for slot in made.slots:
            stream.seek(slot.at)
            there = stream.read(slot.blocks * BLOCK)
            if told(there) != told(text(made.header(slot, {}), slot.blocks)):
                return False
    return True


def _reserve(path: Path, fd: int, size: int) -> None:
    try:
        reserve(fd, size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise ResourceError(
            f"{path}: no room on the disk for its {size / 1e9:.3g} GB; free some, or write elsewhere"
        ) from error


def _complete(file: File, made: Plan, cards: Mapping[str, object]) -> None:
    """What is carried over, and the headers with the values that are known now."""
    at = made.rest_at
    for piece in pieces(made.rest):
        write_all(file.fd, piece, at)
        at += len(piece)
    _headers(file, made, cards, sums=made.checksum)


def _headers(file: File, made: Plan, cards: Mapping[str, object], *, sums: bool) -> None:
    for slot in made.slots:
        header = made.header(slot, cards)
        if sums:
            header = with_sums(header, slot.blocks, file.pieces(slot.data_at, slot.length))
        write_all(file.fd, text(header, slot.blocks), slot.at)
