"""Reading the cards of a FITS header that may be malformed, and a header as bytes.

astropy raises only when a bad card is accessed, and then in several ways; a restoration should not fail because an
observatory wrote one card wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from astropy.io import fits

BLOCK = 2880
"""Bytes of a FITS block; headers and data fill whole blocks."""


def card_value(header: fits.Header, key: str | tuple[str, int], default: Any = None) -> Any:
    """Value of a card, or the default where the card is missing or cannot be parsed.

    Of cards that stand more than once it is the first, or with ``(key, n)`` the n-th.
    """
    try:
        found = header.get(key, default)
    except (fits.VerifyError, ValueError):
        return default
    return default if isinstance(found, fits.card.Undefined) else found


def card_number(header: fits.Header, key: str | tuple[str, int]) -> float | None:
    """Value of a card as a finite number, or None; a number that is written as text counts."""
    try:
        found = float(card_value(header, key))
    except (TypeError, ValueError):
        return None
    return found if np.isfinite(found) else None


def last_number(header: fits.Header, key: str) -> float | None:
    """Last value of a card that stands more than once, as a finite number; None where there is none.

    wcslib, and with it astropy, ds9 and IRAF, take the last of the cards of a plate solution.
    """
    count = header.count(key) if key in header else 0
    return next((x for i in reversed(range(count)) if (x := card_number(header, (key, i))) is not None), None)


def repeated_keys(header: fits.Header) -> dict[str, list[Any]]:
    """Keys that stand more than once with different values -> these values, in order.

    COMMENT, HISTORY and blank cards are meant to be repeated, and left out.
    """
    found: dict[str, list[Any]] = {}
    for card in valid_cards(header):
        if card.keyword not in ("", "COMMENT", "HISTORY", "CONTINUE"):
            found.setdefault(card.keyword, []).append(card.value)
    return {key: values for key, values in found.items() if any(x != values[0] for x in values)}


def valid_cards(header: fits.Header) -> Iterator[fits.Card]:
    """Cards that can be parsed, mended silently where astropy can."""
    for card in header.cards:
        try:
            card.verify("silentfix")
            _ = card.value, card.comment, str(card)  # astropy parses a card when it is accessed
        except (fits.VerifyError, ValueError):
            continue
        yield card


def valid_header(header: fits.Header) -> fits.Header:
    """Copy of a header without the cards that cannot be parsed."""
    return fits.Header(list(valid_cards(header)))


def count_cards(header: fits.Header) -> int:
    """Number of 80-character records, without END; a long text takes several (CONTINUE)."""
    return len(_card_text(header)) // 80


def count_blocks(cards: int) -> int:
    """Number of blocks that hold so many cards and END."""
    return -(-80 * (cards + 1) // BLOCK)


def header_bytes(header: fits.Header, blocks: int) -> bytes:
    """Bytes of a header that fills exactly so many blocks, with blank cards before END."""
    text = _card_text(header).ljust((blocks - 1) * BLOCK)  # END must be in the last block
    return (text + "END").ljust(blocks * BLOCK).encode("ascii")


def _card_text(header: fits.Header) -> str:
    return header.tostring(sep="", endcard=False, padding=False)
