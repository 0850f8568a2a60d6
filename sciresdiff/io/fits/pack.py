"""A finished FITS file, compressed without loss: ``.gz`` as a whole, ``.fz`` image by image in tiles."""

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

from sciresdiff.io.fits.carry import PIECE
from sciresdiff.io.fits.checksum import with_sums
from sciresdiff.io.fits.layer import axes_of
from sciresdiff.io.fits.layout import Slot
from sciresdiff.io.fits.text import BLOCK, blocks_of, cards_of, text
from sciresdiff.io.flat import Flat
from sciresdiff.region import Region

Array = NDArray[Any]
LEVEL = 6
TILE = 256
"""Side of a tile, so that a window of a large image unpacks little more than itself."""

WIDE = 2**30
"""Bytes of an image from where on its tiles are found by 64-bit numbers."""

STRUCTURE = ("XTENSION", "BITPIX", "NAXIS", "PCOUNT", "GCOUNT", "CHECKSUM", "DATASUM")


def packed(path: Path, place: Path, slots: tuple[Slot, ...], rest_at: int) -> None:
    """Compress a file where its final name says so; the same content gives the same bytes, without clock or name.

    Parameters
    ----------
    path : Path
        The final name.
    place : Path
        The file, which is replaced.
    slots : tuple of Slot
        Its images, and where they lie.
    rest_at : int
        From where on it is copied as it is, for ``.fz``.
    """
    name = path.name.lower()
    if not name.endswith((".gz", ".fz")):
        return
    small = place.with_name(f"{place.name}.pack")
    try:
        with place.open("rb") as plain, small.open("wb+") as stream:
            if name.endswith(".gz"):
                with gzip.GzipFile("", "wb", LEVEL, stream, mtime=0) as out:
                    shutil.copyfileobj(plain, out, PIECE)
            else:
                _tiled(plain, stream, slots, rest_at)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(small, place)
    finally:
        small.unlink(missing_ok=True)


def _tiled(plain: BinaryIO, out: BinaryIO, slots: tuple[Slot, ...], rest_at: int) -> None:
    for slot in slots:
        plain.seek(slot.at)
        head = plain.read(slot.blocks * BLOCK)
        if slot.shape:
            _image(plain.fileno(), out, slot, fits.Header.fromstring(head))
        else:
            out.write(head)
    plain.seek(rest_at)
    shutil.copyfileobj(plain, out, PIECE)


def _image(fd: int, out: BinaryIO, slot: Slot, header: fits.Header) -> None:
    """An image as a table of tiles, GZIP_2 (FITS standard 4.0, section 10): the bytes of one rank lie together."""
    shape = slot.shape
    count = int(np.prod([-(-n // t) for n, t in zip(shape, _tile(shape), strict=True)]))
    kind = "Q" if slot.length > WIDE else "P"
    table = np.zeros((count, 2), ">i8" if kind == "Q" else ">i4")
    cards = _cards(slot, header, table, kind)
    start = out.tell()
    blocks = blocks_of(cards_of(cards) + 2)
    data = start + blocks * BLOCK
    out.seek(data + table.nbytes)
    heap = 0
    for i, tile in enumerate(_tiles(fd, slot)):
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
        cards = with_sums(cards, blocks, _pieces(out.fileno(), data, end))
    out.seek(start)
    out.write(text(cards, blocks))
    out.seek(end)


def _tile(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*(1 for _ in shape[:-2]), *(min(n, TILE) for n in shape[-2:]))


def _cards(slot: Slot, header: fits.Header, table: Array, kind: str) -> fits.Header:
    """Of the table: its own structure, that of the image, and all else that the image's header says."""
    shape, tile = slot.shape[::-1], _tile(slot.shape)[::-1]
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
    if slot.kind.kind == "f":
        head.append(("ZQUANTIZ", "NONE", "lossless"))
    structure = {*STRUCTURE, *(f"NAXIS{i + 1}" for i in range(len(shape)))}
    return fits.Header([*head, *(c for c in header.cards if c.keyword not in structure and not c.is_blank)])


def _tiles(fd: int, slot: Slot) -> Iterator[Array]:
    """The tiles in their order, as stored."""
    flat = Flat(fd, slot.data_at, slot.stored, slot.shape, axes_of(slot.shape))
    h, w = slot.shape[-2:]
    for plane in range(int(np.prod(slot.shape[:-2], initial=1))):
        for y in range(0, h, TILE):
            strip = flat.get(plane, Region(y, min(y + TILE, h), 0, w)).astype(slot.stored)
            for x in range(0, w, TILE):
                yield strip[:, x : x + TILE]


def _gzip2(tile: Array) -> bytes:
    ranks = np.ascontiguousarray(tile).view(np.uint8).reshape(-1, tile.itemsize).T
    coder = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)
    return coder.compress(ranks.tobytes()) + coder.flush()


def _pieces(fd: int, start: int, stop: int) -> Iterator[bytes]:
    for at in range(start, stop, PIECE):
        yield os.pread(fd, min(PIECE, stop - at), at)
