"""The extensions of an input that have no part in the restoration, carried over to its output as they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from sciresdiff.errors import InputError
from sciresdiff.io import wcs
from sciresdiff.io.fits_open import Chosen, Opened, is_image, opened, role_of
from sciresdiff.io.fits_text import BLOCK
from sciresdiff.io.planes import OUR_PLANES

LOOKUP_TABLES = ("WCSDVARR", "D2IMARR")
PIECE = 1 << 24
"""Bytes in memory at once."""


@dataclass(frozen=True)
class Carried:
    """An extension: where its bytes lie, or itself, if it has to be adapted to the new pixels (such ones are small)."""

    name: str
    version: int
    path: Path
    header: bytes
    """As it is in the file, or as it becomes where an image moves from the primary place to an extension's."""
    at: int
    """Where its data begin, in bytes."""
    length: int
    """Of the data, with what fills the last block."""
    lookup: fits.ImageHDU | None = None


def rest_of(chosen: Chosen, used: set[int]) -> tuple[Carried, ...]:
    """All that is carried over: neither used, nor a plane that this program writes itself."""
    there = [i for i, hdu in enumerate(chosen.hdus) if i not in used and (i > 0 or is_image(hdu))]
    return tuple(_carried(chosen.file, i) for i in there if role_of(chosen.hdus[i]) not in OUR_PLANES)


def _carried(file: Opened, index: int) -> Carried:
    hdu: Any = file.hdus[index]
    raw = getattr(hdu, "_bintable", None) or hdu  # astropy's view of a compressed image has no place in the file
    where = raw.fileinfo() or hdu.fileinfo()
    header = _as_extension(hdu.header) if index == 0 else _bytes(file, where["hdrLoc"], where["datLoc"])
    lookup = None
    if hdu.name in LOOKUP_TABLES and is_image(hdu):
        lookup = fits.ImageHDU(np.array(hdu.data), wcs.sanitised(hdu.header))
    return Carried(str(hdu.name), int(hdu.ver), file.path, header, where["datLoc"], where["datSpan"], lookup)


def _bytes(file: Opened, start: int, stop: int) -> bytes:
    file.stream.seek(start)
    return file.stream.read(stop - start)


def _as_extension(primary: fits.Header) -> bytes:
    """The header of a primary image, for an extension of the same data."""
    first = ("SIMPLE", "BITPIX", "NAXIS", *(f"NAXIS{i + 1}" for i in range(int(primary["NAXIS"]))))
    cards = [("XTENSION", "IMAGE"), *((key, primary[key]) for key in first[1:]), ("PCOUNT", 0), ("GCOUNT", 1)]
    others = [c for c in wcs.sanitised(primary).cards if c.keyword not in (*first, "EXTEND", "PCOUNT", "GCOUNT")]
    return fits.Header([*cards, *others]).tostring().encode("ascii")


def ready(carried: Carried, scale: float) -> Carried:
    """As it is written: distortion tables lie on the image's pixels."""
    if carried.lookup is None:
        return carried
    hdu = wcs.rescale_lookup(carried.lookup, scale)
    data = np.asarray(hdu.data)
    length = -(-data.nbytes // BLOCK) * BLOCK
    header = hdu.header.tostring().encode("ascii")
    return Carried(carried.name, carried.version, carried.path, header, 0, length, hdu)


def pieces(carried: list[Carried]) -> Iterator[bytes]:
    """The bytes of extensions, one after the other.

    Raises
    ------
    InputError
        The file has changed since it was read.
    """
    for path, group in _by_file(carried):
        if path is None:
            for one in group:
                yield one.header
                yield _padded(one)
        else:
            with opened(path) as file:
                for one in group:
                    yield one.header
                    yield from _copied(file, one)


def _by_file(carried: list[Carried]) -> Iterator[tuple[Path | None, list[Carried]]]:
    """Neighbours that lie in one file, so that it is opened once."""
    group: list[Carried] = []
    for one in carried:
        if group and _place(group[-1]) != _place(one):
            yield _place(group[0]), group
            group = []
        group.append(one)
    if group:
        yield _place(group[0]), group


def _place(one: Carried) -> Path | None:
    return one.path if one.lookup is None else None


def _padded(one: Carried) -> bytes:
    data = np.asarray(one.lookup.data)  # type: ignore[union-attr]
    return data.astype(data.dtype.newbyteorder(">")).tobytes().ljust(one.length, b"\0")


def _copied(file: Opened, one: Carried) -> Iterator[bytes]:
    file.stream.seek(one.at)
    left = one.length
    while left:
        piece = file.stream.read(min(left, PIECE))
        if not piece:
            raise InputError(f"{one.path}: has changed since it was read; extension {one.name} is no more where it was")
        left -= len(piece)
        yield piece
