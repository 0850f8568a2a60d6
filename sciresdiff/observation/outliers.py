"""Values that are no measurement: numbers that stand for no data, and magnitudes beyond all others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

CODES = frozenset([-99.0, -999.0, -9999.0, -99999.0, -32768.0, -32767.0, -2147483648.0, -2147483647.0])
"""Numbers that usually stand for no data, of which a single one is enough."""
REPEATED = 3
"""Times that another number is there exactly."""
BEYOND, CODE_BEYOND = 5.0, 2.5
"""Distance of such a number from the middle of the image, in units of that of the farthest other pixel; of a code."""
MOST_CODES = 4
"""Such numbers in a plane, at most."""
DIFFERENT = 16
"""Values that an image has at least; fewer are labels."""
GAP = 14
"""Powers of two between a magnitude that is absurd and the largest that is not: 16384."""
EXPONENTS = 300
"""Powers of two that float32 has, above and below 1, and some to spare."""


def count_magnitudes(pixels: Array) -> NDArray[np.int64]:
    """How many finite pixels, (...), lie within each power of two, (2 EXPONENTS,); zeros do not count."""
    values = np.abs(pixels[np.isfinite(pixels) & (pixels != 0)])
    exponents = np.frexp(values)[1] + EXPONENTS
    return np.bincount(np.clip(exponents, 0, 2 * EXPONENTS - 1), minlength=2 * EXPONENTS)


def absurd_level(counts: Iterable[int] | NDArray[np.int64]) -> float:
    """The magnitude from which on pixels are absurd; infinite where none is.

    Light has no gap of `GAP` powers of two between its brightest pixels and all others: the wings of a source fill it.

    Parameters
    ----------
    counts : as `count_magnitudes` gives them, of a whole plane.
    """
    found = np.asarray(counts)
    there = np.flatnonzero(found)
    if len(there) < 2:
        return np.inf
    gaps = np.flatnonzero(np.diff(there) > GAP)
    # of most pixels none is beyond the others
    for i in gaps:
        if found[there[i + 1] :].sum() < 0.5 * found.sum() and found[: there[i] + 1].sum() >= DIFFERENT:
            return float(2.0 ** (int(there[i + 1]) - 1 - EXPONENTS))
    return np.inf


def find_sentinels(pixels: Array, bad: NDArray[np.bool_]) -> tuple[float, ...]:
    """Numbers that stand for no data: repeated exactly, or known as such, far outside of all other values.

    Parameters
    ----------
    pixels : (h, w), the file's unit.
    bad : (h, w), True where a pixel is known to be no data.
    """
    level, count = np.unique(pixels[~bad & np.isfinite(pixels)], return_counts=True)
    found: list[float] = []
    while len(level) > DIFFERENT and len(found) < MOST_CODES:
        middle = float(level[np.searchsorted(np.cumsum(count), 0.5 * count.sum())])
        ends = [i for i in (0, -1) if _is_sentinel(level, count, i, middle)]
        if not ends:
            break
        found.append(float(level[ends[0]]))
        level, count = np.delete(level, ends[0]), np.delete(count, ends[0])
    return tuple(found)


def _is_sentinel(level: Array, count: Array, end: int, middle: float) -> bool:
    """Whether the least (0) or greatest (-1) of the values, in order, stands for no data."""
    value, beside = float(level[end]), float(level[1 if end == 0 else -2])
    often = count[end] >= REPEATED or value in CODES
    if not often or count[end] > 0.5 * count.sum():
        return False
    # the spread of the rest, on the narrower side at least that of the wider half of the pixels
    spread = max(abs(beside - middle), _half_width(level, count, middle))
    return abs(value - middle) > (CODE_BEYOND if value in CODES else BEYOND) * spread


def _half_width(level: Array, count: Array, middle: float) -> float:
    """Distance from the middle within which nine tenths of the pixels are."""
    distance = np.abs(level - middle)
    order = np.argsort(distance)
    share = np.cumsum(count[order]) / count.sum()
    return float(distance[order][np.searchsorted(share, 0.9)])
