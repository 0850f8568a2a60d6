"""A FITS header as bytes."""

from __future__ import annotations

from astropy.io import fits

BLOCK = 2880
"""Bytes; headers and data fill whole blocks."""


def cards_of(header: fits.Header) -> int:
    """How many cards of 80 characters it takes, without END."""
    return len(_bare(header)) // 80


def blocks_of(cards: int) -> int:
    """How many blocks so many cards take, with END."""
    return -(-80 * (cards + 1) // BLOCK)


def text(header: fits.Header, blocks: int) -> bytes:
    """The header's bytes, filled with empty cards to so many blocks."""
    bare = _bare(header).ljust((blocks - 1) * BLOCK)  # END lies in the last block
    return (bare + "END").ljust(blocks * BLOCK).encode("ascii")


def _bare(header: fits.Header) -> str:
    return header.tostring(sep="", endcard=False, padding=False)
