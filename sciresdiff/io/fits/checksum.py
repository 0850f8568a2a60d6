"""DATASUM and CHECKSUM of FITS (standard 4.0, section 4.4.2.7 and appendix J), by pieces."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sciresdiff.io.fits.text import text

_FORBIDDEN = frozenset(b":;<=>?@[\\]^_`")
_ZERO = 48
"""ASCII of 0: the code uses letters and digits only."""


def with_sums(header: fits.Header, blocks: int, data: Iterable[bytes]) -> fits.Header:
    """The header of an HDU of those data, with DATASUM and CHECKSUM."""
    total = sum32(data)
    new = header.copy()
    new["CHECKSUM"] = ("0" * 16, "HDU checksum updated by sciresdiff")
    new["DATASUM"] = (str(total), "data unit checksum updated by sciresdiff")
    new["CHECKSUM"] = encoded(sum32([text(new, blocks)], total))
    return new


def sum32(pieces: Iterable[bytes], start: int = 0) -> int:
    """Ones' complement sum of big-endian 32-bit words; every piece but the last has whole words."""
    total = start
    for piece in pieces:
        words = np.frombuffer(piece.ljust(-(-len(piece) // 4) * 4, b"\0"), ">u4")
        total += int(words.sum(dtype=np.uint64))
        total = _folded(total)
    return total


def _folded(total: int) -> int:
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def encoded(total: int) -> str:
    """The 16 characters that bring the sum of an HDU to -0, where its sum with 16 zeros in their place is ``total``."""
    words = [_letters(((~total & 0xFFFFFFFF) >> shift) & 0xFF) for shift in (24, 16, 8, 0)]
    text = np.array(words, np.uint8).T.reshape(-1)
    return bytes(np.roll(text, 1)).decode("ascii")


def _letters(byte: int) -> NDArray[np.int64]:
    """Four characters that sum up to a byte and four zeros, none of them a punctuation mark."""
    four = np.full(4, byte // 4 + _ZERO)
    four[0] += byte % 4
    while any(int(x) in _FORBIDDEN for x in four):
        for i in (0, 2):
            if {int(four[i]), int(four[i + 1])} & _FORBIDDEN:
                four[i] += 1
                four[i + 1] -= 1
    return four
