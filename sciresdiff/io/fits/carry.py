"""The extensions of an input that have no part in the restoration, carried over to its output as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from sciresdiff.errors import InputError
from sciresdiff.io.fits import wcs
from sciresdiff.io.fits.open import Chosen, Opened, is_image, opened, role_of
from sciresdiff.io.fits.text import BLOCK
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
    adapted: Any = None
    """The HDU, where it depends on the image's pixels."""


def rest_of(chosen: Chosen, used: set[int]) -> tuple[Carried, ...]:
    """All that is carried over: neither used, nor a plane that this program writes itself."""
    there = [i for i, hdu in enumerate(chosen.hdus) if i not in used and (i > 0 or is_image(hdu))]
    return tuple(_carried(chosen, i) for i in there if role_of(chosen.hdus[i]) not in OUR_PLANES)


def _carried(chosen: Chosen, index: int) -> Carried:
    file, hdu = chosen.file, chosen.hdus[index]
    raw = getattr(hdu, "_bintable", None) or hdu  # astropy's view of a compressed image has no place in the file
    where = raw.fileinfo() or hdu.fileinfo()
    header = _as_extension(hdu.header) if index == 0 else _bytes(file, where["hdrLoc"], where["datLoc"])
    adapted = None
    if hdu.name in LOOKUP_TABLES and is_image(hdu):
        adapted = fits.ImageHDU(np.array(hdu.data), wcs.sanitised(hdu.header))
    elif _is_of_groups(chosen, hdu):
        adapted = hdu.copy()
    return Carried(str(hdu.name), int(hdu.ver), file.path, header, where["datLoc"], where["datSpan"], adapted)


def _is_of_groups(chosen: Chosen, hdu: Any) -> bool:
    """Whether a table has a row for each plane of a primary cube, and says where each lies: waivered FITS, GEIS."""
    if (
        chosen.index
        or not isinstance(hdu, fits.TableHDU | fits.BinTableHDU)
        or not {*wcs.GROUP_CARDS} & {*hdu.columns.names}
    ):
        return False
    return len(chosen.image.shape) > 2 and int(hdu.header["NAXIS2"]) == int(np.prod(chosen.image.shape[:-2]))


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
    """As it is written: what lies on the image's pixels follows them."""
    hdu = carried.adapted
    if hdu is None:
        return carried
    new = wcs.rescale_lookup(hdu, scale) if is_image(hdu) else wcs.rescale_groups(hdu, scale)
    space = BytesIO()
    fits.HDUList([fits.PrimaryHDU(), new]).writeto(space)
    return replace(carried, header=space.getvalue()[BLOCK:], length=0)


def pieces(carried: Sequence[Carried]) -> Iterator[bytes]:
    """The bytes of extensions, one after the other.

    Raises
    ------
    InputError
        The file has changed since it was read.
    """
    for path, group in groupby(carried, lambda one: one.path if one.length else None):
        if path is None:
            yield from (one.header for one in group)
            continue
        with opened(path) as file:
            for one in group:
                yield one.header
                yield from _copied(file, one)


def _copied(file: Opened, one: Carried) -> Iterator[bytes]:
    file.stream.seek(one.at)
    left = one.length
    while left:
        piece = file.stream.read(min(left, PIECE))
        if not piece:
            raise InputError(f"{one.path}: has changed since it was read; extension {one.name} is no more where it was")
        left -= len(piece)
        yield piece
