"""The input's other extensions (tables, further images), copied byte for byte to the output.

Tables and images that depend on the pixel grid are rescaled. Copied here instead of by astropy, which rewrites headers
and would read the data of every extension into memory.
"""

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
from sciresdiff.io.fits.header import BLOCK, valid_header
from sciresdiff.io.fits.open import OUR_PLANES, FitsFile, ImageChoice, hdu_role, is_image, open_fits

LOOKUP_TABLES = ("WCSDVARR", "D2IMARR")
"""Images that hold distortions of the WCS."""
PIECE = 1 << 24
"""Bytes copied at a time."""


@dataclass(frozen=True)
class Extension:
    """An extension of the input: the place of its bytes, or the HDU itself if it has to be rescaled.

    Those that are rescaled are small.
    """

    name: str
    version: int
    path: Path
    header: bytes
    """As in the file; rewritten where an image moves from the primary HDU to an extension."""
    offset: int
    """First byte of its data."""
    length: int
    """Bytes of its data, with the padding of the last block."""
    rescalable: Any = None
    """The HDU, where it depends on the pixel grid."""


def other_extensions(chosen: ImageChoice, used: set[int]) -> tuple[Extension, ...]:
    """Find the extensions to copy.

    Parameters
    ----------
    chosen : ImageChoice
        The file and its image.
    used : set of int
        Numbers of the HDUs that are part of the restoration. Planes that this program writes itself are left out too.
    """
    unused = [i for i, hdu in enumerate(chosen.hdus) if i not in used and (i > 0 or is_image(hdu))]
    return tuple(_extension(chosen, i) for i in unused if hdu_role(chosen.hdus[i]) not in OUR_PLANES)


def _extension(chosen: ImageChoice, index: int) -> Extension:
    file, hdu = chosen.file, chosen.hdus[index]
    raw = getattr(hdu, "_bintable", None) or hdu  # astropy's view of a compressed image does not know its bytes
    where = raw.fileinfo() or hdu.fileinfo()
    header = _extension_header(hdu.header) if index == 0 else _read_bytes(file, where["hdrLoc"], where["datLoc"])
    rescalable = None
    if hdu.name in LOOKUP_TABLES and is_image(hdu):
        rescalable = fits.ImageHDU(np.array(hdu.data), valid_header(hdu.header))
    elif _is_group_table(chosen, hdu):
        rescalable = hdu.copy()
    return Extension(str(hdu.name), int(hdu.ver), file.path, header, where["datLoc"], where["datSpan"], rescalable)


def _is_group_table(chosen: ImageChoice, hdu: Any) -> bool:
    """Whether a table has a row with reference pixels for each plane of a primary cube (waivered FITS, GEIS)."""
    if (
        chosen.index
        or not isinstance(hdu, fits.TableHDU | fits.BinTableHDU)
        or not {*wcs.GROUP_CARDS} & {*hdu.columns.names}
    ):
        return False
    return len(chosen.image.shape) > 2 and int(hdu.header["NAXIS2"]) == int(np.prod(chosen.image.shape[:-2]))


def _read_bytes(file: FitsFile, start: int, stop: int) -> bytes:
    file.stream.seek(start)
    return file.stream.read(stop - start)


def _extension_header(primary: fits.Header) -> bytes:
    """Header of a primary image as that of an extension."""
    first = ("SIMPLE", "BITPIX", "NAXIS", *(f"NAXIS{i + 1}" for i in range(int(primary["NAXIS"]))))
    cards = [("XTENSION", "IMAGE"), *((key, primary[key]) for key in first[1:]), ("PCOUNT", 0), ("GCOUNT", 1)]
    others = [c for c in valid_header(primary).cards if c.keyword not in (*first, "EXTEND", "PCOUNT", "GCOUNT")]
    return fits.Header([*cards, *others]).tostring().encode("ascii")


def rescale_extension(extension: Extension, scale: float) -> Extension:
    """Return an extension for the new grid.

    Parameters
    ----------
    extension : Extension
        Returned as it is, unless it depends on the pixel grid.
    scale : float
        New pixels per old one.
    """
    hdu = extension.rescalable
    if hdu is None:
        return extension
    new = wcs.rescale_lookup(hdu, scale) if is_image(hdu) else wcs.rescale_groups(hdu, scale)
    space = BytesIO()
    fits.HDUList([fits.PrimaryHDU(), new]).writeto(space)
    return replace(extension, header=space.getvalue()[BLOCK:], length=0)


def iter_bytes(extensions: Sequence[Extension]) -> Iterator[bytes]:
    """Bytes of extensions, one after the other.

    Raises
    ------
    InputError
        The file has changed since it was read.
    """
    # consecutive extensions of one file, so that it is opened once
    for path, group in groupby(extensions, lambda one: one.path if one.length else None):
        if path is None:
            yield from (one.header for one in group)
            continue
        with open_fits(path) as file:
            for one in group:
                yield one.header
                yield from _copy_data(file, one)


def _copy_data(file: FitsFile, one: Extension) -> Iterator[bytes]:
    file.stream.seek(one.offset)
    left = one.length
    while left:
        piece = file.stream.read(min(left, PIECE))
        if not piece:
            raise InputError(f"{one.path}: has changed since it was read; extension {one.name} is no more where it was")
        left -= len(piece)
        yield piece
