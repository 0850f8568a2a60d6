"""Data-quality bits that this program sets in the DQ plane of its outputs, beside those of the input.

They lie above the 16 bits of HST, the codes of the NOIRLab Community Pipeline and the usual mask planes of LSST. JWST
uses every bit of its 32; what a bit of ours means is said by a card of the DQ header (``SRDBIT17`` ...).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Kind:
    """A reason why a pixel is no data."""

    name: str
    """As in the lines for the user."""
    number: int
    """Of the bit, from 0."""
    words: str
    """For a header card."""
    option: str = ""
    """What keeps such pixels; empty where nothing does."""

    @property
    def bit(self) -> int:
        """The value of the bit."""
        return 1 << self.number


BLANK = Kind("blank", 16, "no value: NaN or BLANK")
SENTINEL = Kind("sentinels", 17, "a number that stands for no data", "--no-sentinels")
PADDING = Kind("padding", 18, "constant border, block or plane", "--no-padding")
ABSURD = Kind("absurd", 19, "magnitude beyond all others", "--no-absurd")
SATURATED = Kind("saturation", 20, "saturated", "--no-saturation")
HOT = Kind("hot pixels", 21, "hot or dead pixel", "--no-hot-pixels")
RING = Kind("rings", 22, "rings around a masked core")
COSMIC = Kind("cosmic rays", 23, "sharper than the PSF: cosmic ray", "--no-cosmic")
OUTLIER = Kind("outliers", 24, "contradicts the other exposures", "--no-cosmic")
KINDS = (BLANK, SENTINEL, PADDING, ABSURD, SATURATED, HOT, RING, COSMIC)
OURS = sum(kind.bit for kind in KINDS)
"""All bits of ours that a single exposure has."""


def header_cards(kinds: Iterable[Kind] = KINDS) -> Iterator[tuple[str, str, str]]:
    """Cards of a DQ header that name the bits of kinds: keyword, value, comment."""
    for kind in kinds:
        yield f"SRDBIT{kind.number}", kind.words, f"bit {kind.number}: value {kind.bit}"


def where(flags: NDArray[np.int32], kind: Kind) -> NDArray[np.bool_]:
    """True where ``flags``, of any shape, have the kind's bit."""
    return np.asarray((flags & kind.bit) != 0)
