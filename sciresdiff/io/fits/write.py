"""FITS out: the input's own file on the new pixel grid, with the planes of the result.

Kept here instead of astropy's ``writeto`` and ``StreamingHDU``: those write from the first byte to the last, while
regions are written in any order, and an interrupted output is resumed in place.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sciresdiff.errors import ResourceError
from sciresdiff.frame import Frame
from sciresdiff.io.atomic import atomic_files
from sciresdiff.io.dtypes import cast_pixels
from sciresdiff.io.fits.checksum import add_checksums
from sciresdiff.io.fits.compress import compress_file
from sciresdiff.io.fits.extensions import PIECE, iter_bytes
from sciresdiff.io.fits.header import BLOCK, header_bytes
from sciresdiff.io.fits.image_reader import flip_sign_bit
from sciresdiff.io.fits.layout import HDUSlot
from sciresdiff.io.fits.plan import Plan, plan_output
from sciresdiff.io.raw_array import open_unbuffered, reserve_space, write_at
from sciresdiff.io.sink import IMAGE, Finish, Plane, Sink, count_clipped, put_image
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
    """Write primary header, SCI, planes and the input's other extensions.

    Parameters, returns and errors are those of `sciresdiff.io.write`.
    """
    arrays = {name: np.asarray(plane) for name, plane in planes.items()}
    shapes = {name: (plane.shape, plane.dtype) for name, plane in arrays.items()}
    plan = plan_output(frame, shapes, provenance, history, scale, dtype)
    with _open_output(Path(path), plan, overwrite, None) as (file, finish):
        return {"clipped": put_image(file.put, frame.pixels, arrays), **finish({})}


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
        There is no room for the whole file; found before anything is written.
    """
    shapes = {name: (plane.file_shape(frame.pixels.shape), np.dtype(plane.dtype)) for name, plane in planes.items()}
    plan = plan_output(frame, shapes, provenance, history, scale, dtype)
    with _open_output(Path(path), plan, overwrite, part) as (file, finish):
        yield count_clipped(file.put, finish, file.get, file.sync, file.slots[IMAGE].dtype)


@dataclass(frozen=True)
class OutputFile:
    """A file that is being written, in any order."""

    fd: int
    slots: Mapping[str, HDUSlot]

    def put(self, name: str, plane: int, y0: int, x0: int, values: Array) -> int:
        """Write a region of a plane.

        Parameters
        ----------
        name : str
            EXTNAME.
        plane : int
            Number of the image plane.
        y0, x0 : int
            First row and column.
        values : (h, w) or (K, h, w) array
            Pixels, or layers of the plane.

        Returns
        -------
        int
            Number of values that an integer type could not hold.
        """
        slot = self.slots[name]
        data, lost = cast_pixels(values, slot.dtype) if name == IMAGE else (values.astype(slot.dtype), 0)
        data = flip_sign_bit(data) if slot.stored_dtype.kind != slot.dtype.kind else data
        layers = data.reshape(-1, *data.shape[-2:])
        for k, layer in enumerate(layers):
            slot.array(self.fd).put(plane * len(layers) + k, y0, x0, layer)
        return lost

    def get(self, name: str, plane: int, region: Region) -> Array:
        """Read back a region of a plane, in the type of its values.

        Parameters
        ----------
        name : str
            EXTNAME.
        plane : int
            Number of the image plane.
        region : Region
            Rows and columns.

        Returns
        -------
        array
            (h, w), or (K, h, w) where the plane has K layers for each plane of the image.
        """
        slot, image = self.slots[name], self.slots[IMAGE]
        k = math.prod(slot.shape) // math.prod(image.shape)
        found = np.stack([slot.array(self.fd).get(plane * k + i, region) for i in range(k)])
        data = flip_sign_bit(found) if slot.stored_dtype.kind != slot.dtype.kind else found
        return data[0] if k == 1 else data

    def fill(self, name: str, array: Array) -> None:
        """Write a whole plane (..., Y, X)."""
        for i, plane in enumerate(array.reshape(-1, *array.shape[-2:])):
            self.put(name, i, 0, 0, plane)

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        os.fsync(self.fd)

    def pieces(self, start: int, length: int) -> Iterator[bytes]:
        """Bytes of a part of the file, piece by piece."""
        for at in range(start, start + length, PIECE):
            yield os.pread(self.fd, min(PIECE, start + length - at), at)


@contextmanager
def _open_output(path: Path, plan: Plan, overwrite: bool, part: Path | None) -> Iterator[tuple[OutputFile, Finish]]:
    """Open the file with its headers and all of its room; also yields the function that completes it."""
    with atomic_files([path], overwrite=overwrite, part=part) as (names, publish):
        place = names[path]
        resumed = _is_resumable(place, plan)
        with open_unbuffered(place, anew=not resumed) as fd:
            file = OutputFile(fd, {slot.name: slot for slot in plan.slots})
            if not resumed:  # reserving may write zeros, over what another process has written meanwhile
                _reserve(path, fd, plan.size)
            _write_headers(file, plan, {}, sums=False)
            if plan.kernel is not None:
                file.fill("KERNEL", plan.kernel)

            def finish(cards: Mapping[str, object]) -> dict[str, Any]:
                _complete(file, plan, cards)
                if part is not None:
                    file.sync()
                compress_file(path, place, plan.slots, plan.rest_offset)
                return {"files": publish()}

            yield file, finish


def _is_resumable(place: Path, plan: Plan) -> bool:
    """Whether the unfinished file of an earlier run exists: the same size and the same headers."""
    if not place.is_file() or place.stat().st_size != plan.size:
        return False
    # cards whose values are set when the file is finished
    open_keys = {*plan.provenance, "CHECKSUM", "DATASUM", ""}

    def fixed_cards(header: bytes) -> list[str]:
        return [str(card) for card in fits.Header.fromstring(header).cards if card.keyword not in open_keys]

    with place.open("rb") as stream:
        for slot in plan.slots:
            stream.seek(slot.offset)
            written = stream.read(slot.header_blocks * BLOCK)
            if fixed_cards(written) != fixed_cards(header_bytes(plan.header(slot, {}), slot.header_blocks)):
                return False
    return True


def _reserve(path: Path, fd: int, size: int) -> None:
    try:
        reserve_space(fd, size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise ResourceError(
            f"{path}: no room on the disk for its {size / 1e9:.3g} GB; free some, or write elsewhere"
        ) from error


def _complete(file: OutputFile, plan: Plan, cards: Mapping[str, object]) -> None:
    """Write the copied extensions, and the headers with the final values."""
    at = plan.rest_offset
    for piece in iter_bytes(plan.rest):
        write_at(file.fd, piece, at)
        at += len(piece)
    _write_headers(file, plan, cards, sums=plan.checksum)


def _write_headers(file: OutputFile, plan: Plan, cards: Mapping[str, object], *, sums: bool) -> None:
    for slot in plan.slots:
        header = plan.header(slot, cards)
        if sums:
            header = add_checksums(header, slot.header_blocks, file.pieces(slot.data_offset, slot.data_size))
        write_at(file.fd, header_bytes(header, slot.header_blocks), slot.offset)
