"""The size of a pixel as the user writes it."""

from __future__ import annotations

from typing import Literal

from sciresdiff.errors import UsageError
from sciresdiff.frame import PixelSize

UNITS: dict[str, tuple[float, Literal["arcsec", "um"]]] = {
    "arcsec": (1, "arcsec"),
    "um": (1, "um"),
    "nm": (1e-3, "um"),
}
"""Unit -> factor, and the unit that it becomes."""


def parse_pixel_size(text: str | None, option: str = "--pixel-size") -> PixelSize | None:
    """Read ``0.2arcsec``, ``0.11um`` or ``65nm`` as the size of a square pixel; None of None.

    Raises
    ------
    UsageError : no number above 0, or another unit.
    """
    if text is None:
        return None
    unit = next((unit for unit in UNITS if text.endswith(unit)), "")
    try:
        side = float(text.removesuffix(unit)) * UNITS[unit][0]
    except (KeyError, ValueError):
        side = 0.0
    if not 0 < side < float("inf"):
        raise UsageError(f"{option}: {text!r} is no size; give a number with arcsec, um or nm, for example 0.11um")
    return PixelSize(side, side, UNITS[unit][1])
