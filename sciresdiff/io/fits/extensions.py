"""The input's other extensions (tables, further images), copied byte for byte to the output.

What depends on the pixel grid and can be brought to the new one is: distortion tables, and maps whose values stay
(`REPEATED`). What cannot is left out (noise and flags of the input's pixels, ASDF trees) or left as it is, and named.
Copied here instead of by astropy, which rewrites headers and would read the data of every extension into memory.
"""

from __future__ import annotations

import re
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
from sciresdiff.io.fits.dq import DQ_PLANES
from sciresdiff.io.fits.header import (
    BLOCK,
    card_number,
    card_value,
    count_blocks,
    count_cards,
    header_bytes,
    valid_header,
)
from sciresdiff.io.fits.open import FitsFile, ImageChoice, is_image, open_fits
from sciresdiff.io.fits.roles import OUR_PLANES, hdu_role, hdu_tag, is_plane
from sciresdiff.io.variance import NOISE_PLANES
from sciresdiff.notes import Notes

DROPPED, STAYS = "dropped", "stays"
LOOKUP_TABLES = ("WCSDVARR", "D2IMARR")
"""Images that hold distortions of the WCS."""
PIECE = 1 << 24
"""Bytes copied at a time."""

REPEATED = re.compile(r"AREA|CON|CTX|CONTEXT|(N?EXP|EXPOSURE|COV(ERAGE)?|NCOADD|NIMG)(_?(MAP|TIME))?|WAVELENGTH")
"""Maps of which a finer pixel has the value of the pixel that it lies in: relative areas, contexts, exposure times."""

SOLUTION_TABLES = re.compile(r"WCSCORR|HDRLET|HDRLETS?|WCSDVARR|D2IMARR")
"""Tables of plate solutions (HST)."""

PIXEL_COLUMN = re.compile(
    r"[XY](_?(IMAGE|POS(ITION)?|PIX(ELS?)?|CEN(T(ER|RE|ROID)?)?|C|WIN_IMAGE|PEAK_IMAGE|MIN_IMAGE|FIT|INIT|0))?"
)
"""Columns of tables that hold places in pixels."""


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
    repeat: int = 0
    """For a map of the image's pixels: how many times each of its pixels is written along x and y; 0 for no map."""
    says: str = ""
    """What is to be said of it on another grid: ``dropped``, or in which pixels it stays."""


def other_extensions(chosen: ImageChoice, used: set[int]) -> tuple[Extension, ...]:
    """Find the extensions to copy, and those that an output on another grid has to leave out.

    Parameters
    ----------
    chosen : ImageChoice
        The file and its image.
    used : set of int
        Numbers of the HDUs that are part of the restoration. Planes that this program writes itself are left out too.
    """
    unused = [i for i, hdu in enumerate(chosen.hdus) if i not in used and (i > 0 or is_image(hdu))]
    return tuple(_extension(chosen, i) for i in unused if hdu_role(chosen.hdus[i]) not in OUR_PLANES)


def describe_extensions(extensions: Sequence[Extension], scale: float) -> Notes:
    """Name the extensions that do not come along to another grid, or stay on the input's.

    Parameters
    ----------
    extensions : sequence of Extension
        Of the input.
    scale : float
        Output pixels per input pixel and axis.
    """
    notes, gone = Notes(), [one for one in extensions if _is_dropped(one, scale)]
    if gone:
        notes += Notes(f"extensions: {_names(gone)} describe the input's pixels and are left out of the output")
    if there := [one for one in extensions if one.says == STAYS and not _is_dropped(one, scale)]:
        notes += Notes(f"extensions: {_names(there)} are copied as they are, in the pixels of the input")
    if maps := [one for one in extensions if one.repeat and not _is_dropped(one, scale)]:
        notes += Notes(f"extensions: {_names(maps)} are repeated on the new pixels")
    return notes


def _names(extensions: Sequence[Extension]) -> str:
    names = [f"{one.name or 'without a name'}{f',{one.version}' if one.version != 1 else ''}" for one in extensions]
    return ", ".join(dict.fromkeys(names))


def _is_dropped(one: Extension, scale: float) -> bool:
    return one.says == DROPPED or bool(one.repeat and (scale < 1 or scale != round(scale)))


def _extension(chosen: ImageChoice, index: int) -> Extension:
    file, hdu = chosen.file, chosen.hdus[index]
    raw = getattr(hdu, "_bintable", None) or hdu  # astropy's view of a compressed image does not know its bytes
    where = raw.fileinfo() or hdu.fileinfo()
    header = _extension_header(hdu.header) if index == 0 else _read_bytes(file, where["hdrLoc"], where["datLoc"])
    rescalable = None
    if _is_lookup(chosen, hdu):
        rescalable = fits.ImageHDU(np.array(hdu.data), valid_header(hdu.header))
    elif _is_group_table(chosen, hdu):
        rescalable = hdu.copy()
    one = Extension(str(hdu.name), int(hdu.ver), file.path, header, where["datLoc"], where["datSpan"], rescalable)
    return one if rescalable is not None else replace(one, **_fate(chosen, hdu, raw))


def _fate(chosen: ImageChoice, hdu: Any, raw: Any) -> dict[str, Any]:
    """What becomes of an extension on another grid: ``repeat`` and ``says`` of `Extension`."""
    if not is_image(hdu):
        return {"says": _fate_of_table(hdu)}
    same = hdu.shape[-2:] == chosen.image.shape[-2:]
    if not same:
        return {}
    role, tag = hdu_role(hdu), hdu_tag(hdu)
    mine = tag in (hdu_tag(chosen.image), "", role) or not _has_image(chosen, tag)
    own = mine and hdu.ver == chosen.image.ver
    if own and role in (*NOISE_PLANES, *DQ_PLANES):
        return {"says": DROPPED}
    plain = raw is hdu and chosen.axes.endswith("YX") and not card_value(hdu.header, "BUNIT")
    if own and plain and REPEATED.fullmatch(role):
        return {"repeat": 1}
    return {"says": STAYS}


def _has_image(chosen: ImageChoice, tag: str) -> bool:
    """Whether an image of the file has this tag, so that planes with the tag are its own."""
    return any(is_image(h) and hdu_tag(h) == tag and not is_plane(h) for h in chosen.hdus)


def _fate_of_table(hdu: Any) -> str:
    """An ASDF tree holds the plate solution of the input's pixels (JWST), which its readers put before the cards."""
    if hdu.name.upper() == "ASDF":
        return DROPPED
    columns = getattr(hdu, "columns", None)
    names = [str(name).upper() for name in columns.names] if columns is not None else []
    found = {name[0] for name in names if PIXEL_COLUMN.fullmatch(name)}
    return STAYS if found == {"X", "Y"} or SOLUTION_TABLES.fullmatch(hdu.name.upper()) else ""


def _is_lookup(chosen: ImageChoice, hdu: Any) -> bool:
    """Whether an image is a distortion table of the image; others belong to other chips, which stay as they are."""
    if hdu.name not in LOOKUP_TABLES or not is_image(hdu):
        return False
    stem = "D2IM" if hdu.name == "D2IMARR" else "D[PQ]"
    header = chosen.image.header
    stated = [card_number(header, key) for key in header if re.fullmatch(rf"{stem}\d\.EXTVER", key)]
    return not stated or hdu.ver in stated


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


def rescale_extension(extension: Extension, scale: float) -> Extension | None:
    """Return an extension for the new grid; None where it has no meaning there.

    Parameters
    ----------
    extension : Extension
        Returned as it is, unless it depends on the pixel grid.
    scale : float
        New pixels per old one.
    """
    if scale == 1:
        return extension
    if _is_dropped(extension, scale):
        return None
    if extension.repeat:
        return _repeat(extension, round(scale))
    hdu = extension.rescalable
    if hdu is None:
        return extension
    new = wcs.rescale_lookup(hdu, scale) if is_image(hdu) else wcs.rescale_groups(hdu, scale)
    space = BytesIO()
    fits.HDUList([fits.PrimaryHDU(), new]).writeto(space)
    return replace(extension, header=space.getvalue()[BLOCK:], length=0, rescalable=new)


def _repeat(extension: Extension, scale: int) -> Extension:
    """A map whose pixels are each written ``scale`` x ``scale`` times."""
    old = fits.Header.fromstring(extension.header)
    structure = {key: old.pop(key) for key in ("BSCALE", "BZERO", "BLANK") if key in old}  # the bytes stay as they are
    new = wcs.rescale_header(old, scale, quantity="mean")
    for axis in (1, 2):
        new[f"NAXIS{axis}"] = scale * int(old[f"NAXIS{axis}"])
    new.update(structure)
    bits = abs(int(new["BITPIX"])) * int(np.prod([new[f"NAXIS{i + 1}"] for i in range(int(new["NAXIS"]))]))
    length = -(-bits // (8 * BLOCK)) * BLOCK
    return replace(
        extension,
        header=header_bytes(new, count_blocks(count_cards(new))),
        length=length,
        repeat=scale * extension.repeat,
    )


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
    if one.repeat > 1:
        yield from _repeat_rows(file, one)
        return
    left = one.length
    while left:
        piece = file.stream.read(min(left, PIECE))
        if not piece and not file.padded and left < BLOCK:
            piece = b"\0" * left  # what fills the last block
        if not piece:
            raise InputError(f"{one.path}: has changed since it was read; extension {one.name} is no more where it was")
        left -= len(piece)
        yield piece


def _repeat_rows(file: FitsFile, one: Extension) -> Iterator[bytes]:
    """The rows of a map, each pixel and each row ``repeat`` times."""
    header, n = fits.Header.fromstring(one.header), one.repeat
    size = abs(int(header["BITPIX"])) // 8
    width = int(header["NAXIS1"]) // n
    count = int(np.prod([header[f"NAXIS{i + 1}"] for i in range(1, int(header["NAXIS"]))])) // n
    for _ in range(count):
        row = file.stream.read(size * width)
        if len(row) < size * width:
            raise InputError(f"{one.path}: has changed since it was read; extension {one.name} is no more where it was")
        yield np.frombuffer(row, f"V{size}").repeat(n).tobytes() * n
    yield b"\0" * (one.length - size * width * count * n * n)
