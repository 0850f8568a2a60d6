"""DATASUM and CHECKSUM of FITS (standard 4.0, section 4.4.2.7 and appendix J), computed piece by piece.

Kept here instead of astropy's: those need the data of an HDU in memory, which a large output never is.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sciresdiff.io.fits.header import header_bytes

_FORBIDDEN = frozenset(b":;<=>?@[\\]^_`")
"""Punctuation between the digits and letters of ASCII, which the code leaves out."""
_ZERO = 48
"""ASCII code of the digit 0."""


def add_checksums(header: fits.Header, blocks: int, data: Iterable[bytes]) -> fits.Header:
    """Return the header of an HDU with DATASUM and CHECKSUM.

    Parameters
    ----------
    header : Header
        Of the HDU; not changed.
    blocks : int
        Blocks that the header fills in the file.
    data : iterable of bytes
        Its data in order, with the padding.
    """
    total = ones_complement_sum(data)
    new = header.copy()
    new["CHECKSUM"] = ("0" * 16, "HDU checksum updated by sciresdiff")
    new["DATASUM"] = (str(total), "data unit checksum updated by sciresdiff")
    new["CHECKSUM"] = encode_checksum(ones_complement_sum([header_bytes(new, blocks)], total))
    return new


def ones_complement_sum(pieces: Iterable[bytes], start: int = 0) -> int:
    """Ones' complement sum of big-endian 32-bit words (standard 4.0, appendix J.1).

    Parameters
    ----------
    pieces : iterable of bytes
        Every piece but the last has whole words.
    start : int
        Sum of what came before.
    """
    total = start
    for piece in pieces:
        words = np.frombuffer(piece.ljust(-(-len(piece) // 4) * 4, b"\0"), ">u4")
        total += int(words.sum(dtype=np.uint64))
        total = _fold(total)
    return total


def _fold(total: int) -> int:
    # ones' complement: a carry out of the top is added at the bottom
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def encode_checksum(total: int) -> str:
    """Encode the complement of a sum in 16 ASCII characters (appendix J.2).

    ``total`` is the sum of the HDU with 16 zeros in their place; with the characters it becomes -0.
    """
    # a byte of the complement goes into the same byte of four words, whose sum has it back
    words = [_encode_byte(((~total & 0xFFFFFFFF) >> shift) & 0xFF) for shift in (24, 16, 8, 0)]
    text = np.array(words, np.uint8).T.reshape(-1)
    # the value begins in column 12 of its card, the last byte of a word, so it is rotated by one
    return bytes(np.roll(text, 1)).decode("ascii")


def _encode_byte(byte: int) -> NDArray[np.int64]:
    """Four characters whose codes add up to a byte and four times the digit 0, none of them punctuation."""
    four = np.full(4, byte // 4 + _ZERO)
    four[0] += byte % 4
    while any(int(x) in _FORBIDDEN for x in four):
        for i in (0, 2):  # one up and one down keeps the sum
            if {int(four[i]), int(four[i + 1])} & _FORBIDDEN:
                four[i] += 1
                four[i + 1] -= 1
    return four
