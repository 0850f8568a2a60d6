"""TIFF structures as bytes: file header, directories (IFD) and tags, classic or BigTIFF, little-endian.

TIFF Revision 6.0 (Adobe, 1992), section 2; BigTIFF as in libtiff. Pixels come first and directories last, so that the
metadata can be written when they are known. Kept here instead of `tifffile.TiffWriter`, which writes a page at a time
in order, metadata first: an interrupted output could not be resumed, nor could processes write regions of one page.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

START = 16
"""First byte of the pixels, in either kind of file."""

BIG = 2**32 - 2**25
"""Bytes of pixels beyond which a file is BigTIFF, since offsets of 32 bits would not reach."""

_KINDS = {"B": 1, "s": 2, "H": 3, "I": 4, "Q": 16}
"""Letter of `struct` -> TIFF type."""
_RATIO = 5
"""TIFF type of a fraction."""


@dataclass(frozen=True)
class Tag:
    """Values of a tag, all of one type: B, H, I, Q as in `struct`, s for text, or R for fractions."""

    kind: str
    values: Sequence[Any] | bytes


@dataclass(frozen=True)
class Directory:
    """Tags of a page, and those of its smaller copies (SubIFDs)."""

    tags: Mapping[int, Tag]
    smaller: Sequence[Mapping[int, Tag]] = field(default_factory=tuple)


def file_header(big: bool, first: int = 0) -> bytes:
    """First 16 bytes of a file; ``first`` is the offset of the first directory, 0 while there is none."""
    return struct.pack("<2sHHHQ", b"II", 43, 8, 0, first) if big else struct.pack("<2sHIQ", b"II", 42, first, 0)


def pack_directories(directories: Sequence[Directory], start: int, big: bool) -> tuple[int, bytes]:
    """Pack all directories of a file.

    Parameters
    ----------
    directories : sequence of Directory
        One for each page.
    start : int
        Byte of the file at which they will lie.
    big : bool
        Whether the file is BigTIFF.

    Returns
    -------
    first : int
        Offset of the first directory.
    data : bytes
    """
    out, link, first = bytearray(), -1, 0
    # SubIFDs lie before the page that points to them; each page links to the next
    for directory in directories:
        tags, places = dict(directory.tags), list[int]()
        for smaller in directory.smaller:
            places.append(start + len(out))
            out += _pack_directory(smaller, start + len(out), big)
        if places:
            tags[330] = Tag("Q" if big else "I", places)
        begin = len(out)
        out += _pack_directory(tags, start + begin, big)
        if link < 0:
            first = start + begin
        else:
            struct.pack_into("<Q" if big else "<I", out, link, start + begin)
        link = begin + (8 + 20 * len(tags) if big else 2 + 12 * len(tags))
    return first, bytes(out)


def _pack_directory(tags: Mapping[int, Tag], start: int, big: bool) -> bytes:
    """A directory and the values that do not fit into it, padded to 16 bytes."""
    inline, entry = (8, "<HHQ") if big else (4, "<HHI")
    head = 8 + 20 * len(tags) + 8 if big else 2 + 12 * len(tags) + 4
    body, table = bytearray(), bytearray(struct.pack("<Q" if big else "<H", len(tags)))
    for code in sorted(tags):  # TIFF 6.0, section 2: ascending order
        kind, count, data = _pack_tag(tags[code])
        table += struct.pack(entry, code, kind, count)
        if len(data) <= inline:
            table += data.ljust(inline, b"\0")
        else:
            table += struct.pack("<Q" if big else "<I", start + head + len(body))
            body += data + b"\0" * (len(data) % 2)  # values begin at even bytes
    table += bytes(8 if big else 4)
    whole = bytes(table + body)
    return whole + b"\0" * (-len(whole) % 16)


def _pack_tag(tag: Tag) -> tuple[int, int, bytes]:
    """TIFF type, count and bytes of a tag."""
    if tag.kind == "s":
        text = bytes(tag.values) + b"\0"
        return _KINDS["s"], len(text), text
    if tag.kind == "R":
        pairs = [part for x in tag.values for part in to_rational(float(x))]
        return _RATIO, len(pairs) // 2, struct.pack(f"<{len(pairs)}I", *pairs)
    if isinstance(tag.values, bytes):
        return _KINDS[tag.kind], len(tag.values) // struct.calcsize(tag.kind), tag.values
    return _KINDS[tag.kind], len(tag.values), struct.pack(f"<{len(tag.values)}{tag.kind}", *tag.values)


def to_rational(x: float) -> tuple[int, int]:
    """Closest fraction of two unsigned 32-bit numbers.

    (0, 1) where there is none: x outside 2**-32 to 2**32 - 1, or NaN.
    """
    if not 2**-32 < x < 2**32 - 1:
        return 0, 1
    top = 2**32 - 1
    found = Fraction(x).limit_denominator(max(1, int(top / max(x, 1.0))))
    if found == 0 or found.numerator > top:  # x below 1 / top, or rounding beyond it
        found = Fraction(1, int(min(top, round(1 / x))))
    return found.numerator, found.denominator
