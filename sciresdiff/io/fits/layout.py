"""The HDUs of an output: their headers, and the place of each in the file.

Sizes are fixed before any pixel is known, so that regions can be written in any order, by several processes, and
resumed
after a kill; astropy's writers need the data of an HDU first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from astropy.io import fits

from sciresdiff.io.fits import wcs
from sciresdiff.io.fits.header import BLOCK, count_blocks, count_cards
from sciresdiff.io.fits.image_reader import axis_letters
from sciresdiff.io.raw_array import RawArray
from sciresdiff.text import visible

TEXT_CARDS = 2
"""Cards reserved for a text that is known only at the end."""

STRUCTURE = re.compile(r"SIMPLE|BITPIX|NAXIS\d*|EXTEND|XTENSION|PCOUNT|GCOUNT|GROUPS|EXTNAME|EXTVER|INHERIT|SRD\w+")
"""Cards of an input that describe its own file."""


@dataclass(frozen=True)
class HDUSlot:
    """An HDU and its place in the file."""

    name: str
    header: fits.Header
    """Without the cards that `add_provenance` adds."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    """Type of the values."""
    provenance: bool
    """Whether it has the provenance cards."""
    axes: str = ""
    """A letter for each axis; empty for Y and X at the end."""
    offset: int = 0
    """First byte of the HDU."""
    header_blocks: int = 1
    """Blocks of 2880 bytes of the header."""

    @property
    def data_offset(self) -> int:
        """First byte of the data."""
        return self.offset + self.header_blocks * BLOCK

    @property
    def data_size(self) -> int:
        """Bytes of the data, with the padding of the last block."""
        return -(-int(np.prod(self.shape, initial=1)) * self.dtype.itemsize // BLOCK) * BLOCK if self.shape else 0

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """Type in the file: big-endian, and signed except for bytes (FITS standard 4.0, section 5.2)."""
        signed = f"i{self.dtype.itemsize}" if self.dtype.kind == "u" and self.dtype.itemsize > 1 else self.dtype
        return np.dtype(signed).newbyteorder(">")

    def array(self, fd: int) -> RawArray:
        """The pixels in an open file."""
        return RawArray(fd, self.data_offset, self.stored_dtype, self.shape, self.axes or axis_letters(self.shape))


def rescale_cards(
    header: fits.Header, scale: float, quantity: str | None, axes: tuple[int, int] | None = None
) -> fits.Header:
    """Cards of an input for the new grid, without those about its own file.

    Parameters
    ----------
    header : Header
        Of the input.
    scale : float
        New pixels per old one.
    quantity : {"sum", "mean"} or None
        Decides whether saturation levels scale.
    axes : (x, y), optional
        As in `wcs.rescale_header`.
    """
    new = wcs.rescale_header(header, scale, quantity=quantity, axes=axes)
    remaining = [card for card in new.cards if not STRUCTURE.fullmatch(card.keyword)]
    while remaining and remaining[-1].is_blank:  # room that the input kept for cards of its own
        remaining.pop()
    return fits.Header(remaining)


def primary_slot(others: fits.Header) -> HDUSlot:
    """The primary HDU, which has no data."""
    head = [("SIMPLE", True, "conforms to FITS standard"), ("BITPIX", 8, "array data type"),
            ("NAXIS", 0, "number of array dimensions"), ("EXTEND", True)]  # fmt: skip
    return HDUSlot("PRIMARY", fits.Header([*head, *others.cards]), (), np.dtype("u1"), True)


def image_slot(
    name: str, version: int, shape: Sequence[int], kind: Any, others: fits.Header, *, provenance: bool, axes: str = ""
) -> HDUSlot:
    """An image extension.

    Parameters
    ----------
    name, version : str, int
        EXTNAME and EXTVER.
    shape : sequence of int
        (..., Y, X).
    kind : dtype
        Type of the values; unsigned integers get BZERO.
    others : Header
        All other cards.
    provenance : bool
        Whether `add_provenance` adds its cards.
    axes : str
        A letter for each axis, if Y and X are not the last.
    """
    kind = np.dtype(kind).newbyteorder("=")
    bits = kind.itemsize * (-8 if kind.kind == "f" else 8)
    head: list[Any] = [("XTENSION", "IMAGE", "Image extension"), ("BITPIX", bits, "array data type"),
                       ("NAXIS", len(shape), "number of array dimensions"),
                       *((f"NAXIS{i + 1}", n) for i, n in enumerate(reversed(shape))),
                       ("PCOUNT", 0, "number of parameters"), ("GCOUNT", 1, "number of groups")]  # fmt: skip
    if kind.kind == "u" and kind.itemsize > 1:
        head += [("BSCALE", 1), ("BZERO", 1 << (8 * kind.itemsize - 1))]
    head += [("EXTNAME", name, "extension name"), ("EXTVER", version, "extension value")]
    return HDUSlot(name, fits.Header([*head, *others.cards]), tuple(shape), kind, provenance, axes)


def add_provenance(slot: HDUSlot, provenance: Mapping[str, object], history: Sequence[str]) -> fits.Header:
    r"""Return the header of an HDU with provenance and HISTORY cards.

    Parameters
    ----------
    slot : HDUSlot
        Unchanged if it has no provenance.
    provenance : mapping
        Card -> value. None and NaN, which a card cannot hold, are left out.
    history : sequence of str
        Control characters are shown (``\x1b``); others outside ASCII become question marks, as in provenance.
    """
    header = slot.header.copy()
    if not slot.provenance:
        return header
    for key, value in provenance.items():
        if value is not None and not (isinstance(value, float) and not np.isfinite(value)):  # a card holds no NaN
            header[key] = value if isinstance(value, bool | int | float) else _card_text(str(value))
    for line in history:
        header.add_history(_card_text(line))
    return header


def _card_text(text: str) -> str:
    """Text that a card can hold (FITS standard 4.0, section 4.2.1.1): of the printable characters of ASCII."""
    return visible(text).encode("ascii", "replace").decode()


def count_header_blocks(slot: HDUSlot, provenance: Mapping[str, object], history: Sequence[str], checksum: bool) -> int:
    """Count the blocks that a header needs whatever the values of the provenance will be.

    Parameters
    ----------
    slot : HDUSlot
        The HDU.
    provenance, history
        As in `add_provenance`.
    checksum : bool
        Whether CHECKSUM and DATASUM are added.
    """
    count = count_cards(add_provenance(slot, {}, history)) + (2 if checksum else 0)
    if slot.provenance:
        count += sum(_card_room(key, value) for key, value in provenance.items())
    return count_blocks(count)


def _card_room(key: str, value: object) -> int:
    """Cards reserved for a value."""
    if isinstance(value, bool | int | float):
        return 1
    return TEXT_CARDS if value is None else max(TEXT_CARDS, count_cards(fits.Header([(key, _card_text(str(value)))])))


def fit_provenance(provenance: Mapping[str, object], cards: Mapping[str, object]) -> dict[str, object]:
    """Provenance with the values that are known at the end, in the room that was reserved for it.

    Parameters
    ----------
    provenance : mapping
        Card -> the value for which room was reserved.
    cards : mapping
        Card -> its value; texts are cut, other cards than those of the provenance are left out.
    """
    return {
        key: _shorten(key, cards[key], _card_room(key, reserved)) if key in cards else reserved
        for key, reserved in provenance.items()
    }


def _shorten(key: str, value: object, room: int) -> object:
    """Cut a text to a number of cards."""
    if not isinstance(value, str):
        return value
    value = _card_text(value)
    while count_cards(fits.Header([(key, value)])) > room:
        value = value[:-4] + "..."
    return value


def assign_offsets(slots: Sequence[HDUSlot]) -> tuple[HDUSlot, ...]:
    """Place the HDUs one after the other."""
    done: list[HDUSlot] = []
    for slot in slots:
        end = done[-1].data_offset + done[-1].data_size if done else 0
        done.append(replace(slot, offset=end))
    return tuple(done)
