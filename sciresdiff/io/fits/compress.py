"""Lossless compression of a finished FITS file: ``.gz`` as a whole, ``.fz`` image by image in tiles.

Kept here instead of astropy's CompImageHDU, which needs the image in memory, and quantises floats unless told not to.
"""

from __future__ import annotations

import gzip
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sciresdiff.files import open_new
from sciresdiff.io.fits.checksum import add_checksums
from sciresdiff.io.fits.extensions import PIECE
from sciresdiff.io.fits.header import BLOCK, count_blocks, count_cards, header_bytes
from sciresdiff.io.fits.image_reader import axis_letters
from sciresdiff.io.fits.layout import HDUSlot
from sciresdiff.io.raw_array import RawArray
from sciresdiff.region import Region

Array = NDArray[Any]
LEVEL = 6
"""Level of deflate."""
TILE = 256
"""Side of a tile, so that reading a region of a large image unpacks little more than the region."""

WIDE = 2**30
"""Bytes of an image from which on the offsets of its tiles have 64 bits."""

STRUCTURE = ("XTENSION", "BITPIX", "NAXIS", "PCOUNT", "GCOUNT", "CHECKSUM", "DATASUM")
"""Cards of the image that the table replaces by its own."""


def compress_file(path: Path, place: Path, slots: tuple[HDUSlot, ...], rest_offset: int) -> None:
    """Compress a file where its final name asks for it; the same content gives the same bytes.

    Parameters
    ----------
    path : Path
        The final name.
    place : Path
        The file, which is replaced.
    slots : tuple of HDUSlot
        Its HDUs.
    rest_offset : int
        First byte of what is copied as it is, for ``.fz``.
    """
    name = path.name.lower()
    if not name.endswith((".gz", ".fz")):
        return
    small = place.with_name(f"{place.name}.pack")  # replaces the file only when it is complete
    try:
        with place.open("rb") as plain, open(open_new(small), "wb+") as stream:
            if name.endswith(".gz"):
                with gzip.GzipFile("", "wb", LEVEL, stream, mtime=0) as out:  # no name, no time: same bytes
                    shutil.copyfileobj(plain, out, PIECE)
            else:
                _compress_images(plain, stream, slots, rest_offset)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(small, place)
    finally:
        small.unlink(missing_ok=True)


def _compress_images(plain: BinaryIO, out: BinaryIO, slots: tuple[HDUSlot, ...], rest_offset: int) -> None:
    for slot in slots:
        plain.seek(slot.offset)
        head = plain.read(slot.header_blocks * BLOCK)
        if slot.shape:
            _compress_image(plain.fileno(), out, slot, fits.Header.fromstring(head))
        else:
            out.write(head)
    plain.seek(rest_offset)
    shutil.copyfileobj(plain, out, PIECE)


def _compress_image(fd: int, out: BinaryIO, slot: HDUSlot, header: fits.Header) -> None:
    """Write an image as a table of tiles with GZIP_2 (FITS standard 4.0, section 10.4.2): bytes of one rank lie
    together.

    The table of offsets comes before the tiles and is written after them.
    """
    shape = slot.shape
    count = int(np.prod([-(-n // t) for n, t in zip(shape, _tile_shape(shape), strict=True)]))
    kind = "Q" if slot.data_size > WIDE else "P"
    table = np.zeros((count, 2), ">i8" if kind == "Q" else ">i4")
    cards = _table_header(slot, header, table, kind)
    start = out.tell()
    blocks = count_blocks(count_cards(cards) + 2)  # CHECKSUM and DATASUM
    data = start + blocks * BLOCK
    out.seek(data + table.nbytes)
    heap = 0
    for i, tile in enumerate(_iter_tiles(fd, slot)):
        piece = _gzip2(tile)
        out.write(piece)
        table[i] = len(piece), heap
        heap += len(piece)
    out.write(b"\0" * (-(table.nbytes + heap) % BLOCK))
    end = out.tell()
    out.seek(data)
    out.write(table.tobytes())
    cards["PCOUNT"], cards["TFORM1"] = heap, f"1{kind}B({int(table[:, 0].max())})"
    out.flush()
    if "CHECKSUM" in header:
        cards = add_checksums(cards, blocks, _iter_pieces(out.fileno(), data, end))
    out.seek(start)
    out.write(header_bytes(cards, blocks))
    out.seek(end)


def _tile_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a tile: one plane, at most ``TILE`` pixels square."""
    return (*(1 for _ in shape[:-2]), *(min(n, TILE) for n in shape[-2:]))


def _table_header(slot: HDUSlot, header: fits.Header, table: Array, kind: str) -> fits.Header:
    """Header of the table: its own structure, that of the image (Z cards), and all other cards of the image."""
    shape, tile = slot.shape[::-1], _tile_shape(slot.shape)[::-1]
    head: list[Any] = [
        ("XTENSION", "BINTABLE", "binary table extension"), ("BITPIX", 8), ("NAXIS", 2),
        ("NAXIS1", table.shape[1] * table.itemsize), ("NAXIS2", len(table)), ("PCOUNT", 0), ("GCOUNT", 1),
        ("TFIELDS", 1), ("TTYPE1", "COMPRESSED_DATA"), ("TFORM1", f"1{kind}B({2**31})"),
        ("ZIMAGE", True, "extension contains compressed image"), ("ZTENSION", "IMAGE"),
        ("ZBITPIX", header["BITPIX"]), ("ZNAXIS", len(shape)),
        *((f"ZNAXIS{i + 1}", n) for i, n in enumerate(shape)), ("ZPCOUNT", 0), ("ZGCOUNT", 1),
        *((f"ZTILE{i + 1}", n) for i, n in enumerate(tile)),
        ("ZCMPTYPE", "GZIP_2", "lossless"),
    ]  # fmt: skip
    if slot.dtype.kind == "f":
        head.append(("ZQUANTIZ", "NONE", "lossless"))
    structure = {*STRUCTURE, *(f"NAXIS{i + 1}" for i in range(len(shape)))}
    return fits.Header([*head, *(c for c in header.cards if c.keyword not in structure and not c.is_blank)])


def _iter_tiles(fd: int, slot: HDUSlot) -> Iterator[Array]:
    """Tiles of an image in order, in the stored type."""
    flat = RawArray(fd, slot.data_offset, slot.stored_dtype, slot.shape, axis_letters(slot.shape))
    h, w = slot.shape[-2:]
    for plane in range(int(np.prod(slot.shape[:-2], initial=1))):
        for y in range(0, h, TILE):
            strip = flat.get(plane, Region(y, min(y + TILE, h), 0, w)).astype(slot.stored_dtype)
            for x in range(0, w, TILE):
                yield strip[:, x : x + TILE]


def _gzip2(tile: Array) -> bytes:
    """Shuffle the bytes of a tile by rank and compress them; without name and time, so that the bytes are the same."""
    ranks = np.ascontiguousarray(tile).view(np.uint8).reshape(-1, tile.itemsize).T
    coder = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)
    return coder.compress(ranks.tobytes()) + coder.flush()


def _iter_pieces(fd: int, start: int, stop: int) -> Iterator[bytes]:
    for at in range(start, stop, PIECE):
        yield os.pread(fd, min(PIECE, stop - at), at)
