"""The HDUs of an output: their headers, and where in the file each of them lies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from astropy.io import fits

from sciresdiff.io.fits import wcs
from sciresdiff.io.fits.text import BLOCK, blocks_of, cards_of

TEXT_CARDS = 2
"""Cards that are kept free for a text that is not known yet."""

STRUCTURE = re.compile(r"SIMPLE|BITPIX|NAXIS\d*|EXTEND|XTENSION|PCOUNT|GCOUNT|GROUPS|EXTNAME|EXTVER|INHERIT|SRD\w+")


@dataclass(frozen=True)
class Slot:
    """An HDU's place in the file."""

    name: str
    header: fits.Header
    """Without what `stamped` adds."""
    shape: tuple[int, ...]
    kind: np.dtype[Any]
    """Type of the values."""
    stamped: bool
    """Whether it bears the provenance."""
    at: int = 0
    """Its first byte."""
    blocks: int = 1
    """Of 2880 bytes, of the header."""

    @property
    def data_at(self) -> int:
        """First byte of the data."""
        return self.at + self.blocks * BLOCK

    @property
    def length(self) -> int:
        """Bytes of the data, with what fills the last block."""
        return -(-int(np.prod(self.shape, initial=1)) * self.kind.itemsize // BLOCK) * BLOCK if self.shape else 0

    @property
    def stored(self) -> np.dtype[Any]:
        """Type in the file: big-endian, and signed, but for bytes."""
        signed = f"i{self.kind.itemsize}" if self.kind.kind == "u" and self.kind.itemsize > 1 else self.kind
        return np.dtype(signed).newbyteorder(">")


def cards(header: fits.Header, scale: float, quantity: str | None) -> fits.Header:
    """An input's cards for the new grid, without those that say how its data are stored."""
    new = wcs.rescale_header(header, scale, quantity=quantity)
    kept = [card for card in new.cards if not STRUCTURE.fullmatch(card.keyword)]
    while kept and kept[-1].is_blank:
        kept.pop()
    return fits.Header(kept)


def primary(others: fits.Header) -> Slot:
    """The first HDU, which has no data."""
    head = [("SIMPLE", True, "conforms to FITS standard"), ("BITPIX", 8, "array data type"),
            ("NAXIS", 0, "number of array dimensions"), ("EXTEND", True)]  # fmt: skip
    return Slot("PRIMARY", fits.Header([*head, *others.cards]), (), np.dtype("u1"), True)


def image(name: str, version: int, shape: Sequence[int], kind: Any, others: fits.Header, *, stamped: bool) -> Slot:
    """An image extension."""
    kind = np.dtype(kind).newbyteorder("=")
    bits = kind.itemsize * (-8 if kind.kind == "f" else 8)
    head: list[Any] = [("XTENSION", "IMAGE", "Image extension"), ("BITPIX", bits, "array data type"),
                       ("NAXIS", len(shape), "number of array dimensions"),
                       *((f"NAXIS{i + 1}", n) for i, n in enumerate(reversed(shape))),
                       ("PCOUNT", 0, "number of parameters"), ("GCOUNT", 1, "number of groups")]  # fmt: skip
    if kind.kind == "u" and kind.itemsize > 1:
        head += [("BSCALE", 1), ("BZERO", 1 << (8 * kind.itemsize - 1))]
    head += [("EXTNAME", name, "extension name"), ("EXTVER", version, "extension value")]
    return Slot(name, fits.Header([*head, *others.cards]), tuple(shape), kind, stamped)


def stamped(slot: Slot, provenance: Mapping[str, object], history: Sequence[str]) -> fits.Header:
    """The header with provenance and history; a text that has no room is cut."""
    header = slot.header.copy()
    if not slot.stamped:
        return header
    for key, told in provenance.items():
        if told is not None and not (isinstance(told, float) and not np.isfinite(told)):  # a card holds no NaN
            header[key] = told if isinstance(told, bool | int | float | str) else str(told)
    for line in history:
        header.add_history(line.encode("ascii", "replace").decode())
    return header


def reserved(slot: Slot, provenance: Mapping[str, object], history: Sequence[str], checksum: bool) -> int:
    """Blocks that the header needs whatever the values of the provenance will be."""
    count = cards_of(stamped(slot, {}, history)) + (2 if checksum else 0)
    if slot.stamped:
        count += sum(_room(key, told) for key, told in provenance.items())
    return blocks_of(count)


def _room(key: str, told: object) -> int:
    if isinstance(told, bool | int | float):
        return 1
    return TEXT_CARDS if told is None else max(TEXT_CARDS, cards_of(fits.Header([(key, str(told))])))


def fitted(told: object, key: str, before: object) -> object:
    """A value as long as the room that was kept for it."""
    if not isinstance(told, str):
        return told
    while cards_of(fits.Header([(key, told)])) > _room(key, before):
        told = told[:-4] + "..."
    return told


def placed(slots: Sequence[Slot]) -> tuple[Slot, ...]:
    """The slots one after the other."""
    done: list[Slot] = []
    for slot in slots:
        end = done[-1].data_at + done[-1].length if done else 0
        done.append(replace(slot, at=end))
    return tuple(done)
