"""Borders and blocks of one value: frames that were shifted, resampled or put together, and padded with a constant.

What tells padding from a dark sky of honest zeros is its edge: beside padding there is sky like everywhere else, while
zeros that were counted give way to ones, and a background that was cut off to values just above it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[Any]
Mask = NDArray[np.bool_]

RUN = 16
"""Pixels in a row, along a line or a column, that are a border of one pixel's width."""
BOXES = (3, 5, 9)
"""Sides of a block, px; the smallest that chance does not make is taken."""
REACH = RUN
"""Pixels around one that decide about it."""
MOST = 6
"""Values that are looked at, the commonest first."""
BY_CHANCE = 0.01
"""Blocks that chance may make in a plane, at most."""
FEWEST = 64
"""Pixels of a picture, beside what pads it."""


@dataclass(frozen=True)
class Padding:
    """A value that fills borders or blocks of a plane."""

    value: float
    box: int
    """Side of the squares that blocks of it are made of; 0: every pixel of that value is padding."""


def find_padding(pixels: Array, bad: Mask) -> tuple[Padding, ...]:
    """The values that pad a plane.

    Parameters
    ----------
    pixels : (h, w), the file's unit.
    bad : (h, w), True where a pixel is known to be no data.

    Returns
    -------
    None of them for an image whose pixels are few different values (a mask, labels), or one of single events.
    """
    values = np.where(bad, np.nan, pixels)
    blocks = {v: _blocks(values == v, BOXES[0]) for v in _constant_values(values)[:MOST]}
    if not blocks:
        return ()
    picture = np.isfinite(values) & ~np.logical_or.reduce(list(blocks.values()))
    rest = values[picture]
    if rest.size < FEWEST or not _is_varied(rest) or _is_flat(values, picture):
        return ()
    found = []
    for value, inside in blocks.items():
        beside = values[picture & ndimage.binary_dilation(inside, np.ones((3, 3)), 2)]
        if _is_coherent(picture & (values != value)) and _ends_at_an_edge(beside, value, rest):
            found.append(_padding_of(value, beside, rest, values.size))
    return tuple(padding for padding in found if padding is not None)


def mark_padding(pixels: Array, padding: tuple[Padding, ...]) -> Mask:
    """(h, w), True where ``pixels`` are padding; decided by what is up to `REACH` px away."""
    marked = np.zeros(pixels.shape, bool)
    for one in padding:
        equal = pixels == one.value
        marked |= _blocks(equal, one.box) if one.box else equal
    return marked


def _blocks(equal: Mask, box: int) -> Mask:
    """The pixels of all squares of ``box`` px, and of all runs, that are True throughout."""
    if not equal.any():
        return equal
    shapes = ((box, box), (1, RUN), (RUN, 1))
    return np.logical_or.reduce([ndimage.binary_opening(equal, np.ones(shape, bool)) for shape in shapes])


def _constant_values(values: Array) -> list[float]:
    """Values that have a square of 3 x 3 or a run to themselves, the commonest first."""
    right, down = values[:, :-1] == values[:, 1:], values[:-1] == values[1:]
    squares = right[:-1] & right[1:] & down[:, :-1] & down[:, 1:]
    squares = squares[:-1, :-1] & squares[1:, :-1] & squares[:-1, 1:] & squares[1:, 1:]
    rows, columns = _full_runs(right), _full_runs(down.T).T
    parts = [values[1:-1, 1:-1][squares], values[:, : rows.shape[1]][rows], values[: columns.shape[0]][columns]]
    level, count = np.unique(np.concatenate(parts), return_counts=True)
    if len(level) > MOST:  # an image that was filtered or magnified is constant everywhere by pieces
        level, count = level[count > 10 * np.median(count)], count[count > 10 * np.median(count)]
    return [float(level[i]) for i in np.argsort(-count, kind="stable")]


def _full_runs(equal: Mask) -> Mask:
    """(h, w - RUN + 2), True where RUN equal pixels begin; ``equal`` (h, w) tells whether a pixel is like the next."""
    if equal.shape[1] < RUN - 1:
        return np.zeros((equal.shape[0], 0), bool)
    total = np.cumsum(np.pad(equal, ((0, 0), (1, 0))), axis=1, dtype=np.int32)
    return np.asarray(total[:, RUN - 1 :] - total[:, : 1 - RUN] == RUN - 1)


def _is_varied(rest: Array) -> bool:
    """Whether the pixels of a picture are many values, as noise makes them."""
    count = np.unique(rest, return_counts=True)[1]
    return bool(len(count) >= 16 and count.max() < 0.3 * rest.size)


def _is_flat(values: Array, picture: Mask) -> bool:
    """Whether most pixels of a picture are like the next one, as labels are."""
    pairs = picture[:, 1:] & picture[:, :-1]
    return bool((values[:, 1:] == values[:, :-1])[pairs].mean() > 0.5) if pairs.any() else False


def _is_coherent(picture: Mask) -> bool:
    """Whether the pixels of a picture lie side by side, and are no single events on an empty ground."""
    neighbours = ndimage.uniform_filter(picture.astype(np.float64), 3, mode="nearest")
    return bool((neighbours[picture] > 0.7).mean() > 0.5)


def _ends_at_an_edge(beside: Array, value: float, rest: Array) -> bool:
    """Whether the pixels beside blocks of a value are sky like elsewhere, and not the value's own neighbours.

    Parameters
    ----------
    beside : (n,) pixels up to 2 px from the blocks.
    rest : (m,) all pixels outside of blocks.
    """
    others = beside[beside != value]
    if others.size < 8:
        return False
    quarter, half, more = np.quantile(rest, [0.25, 0.5, 0.75])
    if value >= rest.max() and np.median(others) > half + 2 * max(more - half, half - quarter):
        return False  # the flat top of a star lies in its light, and not in the sky
    below, above, same = (float(np.mean(found)) for found in (beside < value, beside > value, beside == value))
    if min(below, above) > 0.15 and same < 0.25:
        return value == 0  # noise is on both sides of 0 where the sky was subtracted; of another value it makes blocks
    step = 1.0 if bool((rest == np.rint(rest)).all()) else 0.0
    distance = np.abs(others - value)
    typical = float(np.median(np.abs(rest[rest != value] - value)))
    close = float(np.mean(np.abs(beside - value) <= max(step, 0.2 * float(np.median(distance)))))
    return close < 0.1 and float(np.median(distance)) > 0.3 * typical


def _padding_of(value: float, beside: Array, rest: Array, size: int) -> Padding | None:
    """The padding of a value that ends at an edge; None where its pixels may as well be noise of the sky.

    Parameters
    ----------
    beside, rest : as of `_ends_at_an_edge`.
    size : pixels of the plane.
    """
    if not (rest == value).any():
        return Padding(value, 0)
    most = (float((beside == value).sum()) + 3) / (beside.size + 3)  # 95 % upper limit of its share among the sky
    if size * most**RUN > BY_CHANCE:
        return None
    return next((Padding(value, box) for box in BOXES if size * most ** (box**2) < BY_CHANCE), None)
