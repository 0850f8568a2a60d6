"""Values that are no measurement: numbers that stand for no data, and magnitudes beyond all others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
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
DEPTH = 64
"""Different values that are kept at either end of a plane's: more than may be taken off, and `DIFFERENT` others."""
GAP = 14
"""Powers of two between a magnitude that is absurd and the largest that is not: 16384."""
EXPONENTS = 300
"""Powers of two that float32 has, above and below 1, and some to spare."""


def count_magnitudes(pixels: Array) -> NDArray[np.int64]:
    """How many finite pixels, (...), lie within each power of two, (2 EXPONENTS,); zeros do not count."""
    values = np.abs(pixels[np.isfinite(pixels) & (pixels != 0)])
    return np.bincount(exponent_of(values), minlength=2 * EXPONENTS)


def exponent_of(magnitudes: Array | float) -> Any:
    """The place in `count_magnitudes` of magnitudes, (...), above 0."""
    return np.clip(np.frexp(magnitudes)[1] + EXPONENTS, 0, 2 * EXPONENTS - 1)


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


@dataclass(frozen=True)
class Ends:
    """The least and the greatest different values of a plane, and how often each is there."""

    low: tuple[Array, Array]
    """(levels, counts), up to `DEPTH` of them in ascending order."""
    high: tuple[Array, Array]
    size: int
    """Pixels in all."""

    def without(self, value: float) -> Ends:
        """The same where no pixel has a value, which is at one of the ends."""
        here = [count[level == value] for level, count in (self.low, self.high)]
        low, high = ((level[level != value], count[level != value]) for level, count in (self.low, self.high))
        return Ends(low, high, self.size - int(max(count.sum() for count in here)))


def find_ends(parts: Iterable[Array]) -> Ends:
    """The ends of a plane's values.

    Parameters
    ----------
    parts : its valid pixels, (n,) each.
    """
    none: tuple[Array, Array] = (np.zeros(0, np.float32), np.zeros(0, np.int64))
    low, high, size = none, none, 0
    for part in parts:
        size += part.size
        level, count = low
        below = part if len(level) < DEPTH else part[part <= level[-1]]
        level, count = _merge(low, below)
        low = level[:DEPTH], count[:DEPTH]
        level, count = high
        above = part if len(level) < DEPTH else part[part >= level[0]]
        level, count = _merge(high, above)
        high = level[-DEPTH:], count[-DEPTH:]
    return Ends(low, high, size)


def _merge(known: tuple[Array, Array], more: Array) -> tuple[Array, Array]:
    """Different values and their counts, with those of ``more`` pixels, (n,)."""
    return add_counts([known, np.unique(more, return_counts=True)])


def add_counts(parts: Iterable[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Different values in ascending order and their counts, of such pairs of several parts of a plane."""
    levels, counts = zip(*parts, strict=True)
    level, place = np.unique(np.concatenate(levels), return_inverse=True)
    total = np.zeros(len(level), np.int64)
    np.add.at(total, place, np.concatenate(counts))
    return level, total


def find_sentinels(ends: Ends, valid: Array) -> tuple[float, ...]:
    """Numbers that stand for no data: repeated exactly, or known as such, far outside of all other values.

    Parameters
    ----------
    ends : of all valid pixels of a plane.
    valid : (n,) those of them that tell where most are, the file's unit.
    """
    found: list[float] = []
    while len(ends.low[0]) > DIFFERENT and len(found) < MOST_CODES and valid.size:
        middle = _rank(valid, 0.5)
        # on the narrower side the spread is at least that of the wider half of the pixels
        width = _rank(np.abs(valid - middle), 0.9)
        (least, counts), (greatest, number) = ends.low, ends.high
        last = [(least[0], counts[0], least[1]), (greatest[-1], number[-1], greatest[-2])]
        codes = [float(v) for v, n, beside in last if _is_sentinel(v, n, beside, ends.size, middle, width)]
        if not codes:
            break
        found.append(codes[0])
        ends, valid = ends.without(codes[0]), valid[valid != codes[0]]
    return tuple(found)


def _is_sentinel(value: float, count: int, beside: float, size: int, middle: float, width: float) -> bool:
    """Whether the least or greatest of the values stands for no data.

    Parameters
    ----------
    value, count : it, and how many of ``size`` pixels have it.
    beside : the value next to it.
    middle, width : median of the pixels, and distance from it within which nine tenths are.
    """
    if not (count >= REPEATED or value in CODES) or count > 0.5 * size:
        return False
    spread = max(abs(float(beside) - middle), width)
    return abs(float(value) - middle) > (CODE_BEYOND if value in CODES else BEYOND) * spread


def _rank(values: Array, share: float) -> float:
    """The least of the values (n,) that a ``share`` of them does not exceed."""
    place = min(max(int(np.ceil(share * values.size)) - 1, 0), values.size - 1)
    return float(np.partition(values, place)[place])
