"""Borders and blocks of one value: frames that were shifted, resampled or put together, and padded with a constant.

What tells padding from a dark sky of honest zeros is its edge: beside padding there is sky like everywhere else, while
zeros that were counted give way to ones, and a background that was cut off to values just above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sciresdiff.observation.bands import Band, Bands
from sciresdiff.observation.outliers import add_counts

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
KEPT = 2**20
"""Values with a square or a run to themselves that are counted, and pixels beside a value's blocks that are kept."""


@dataclass(frozen=True)
class Padding:
    """A value that fills borders or blocks of a plane."""

    value: float
    box: int
    """Side of the squares that blocks of it are made of; 0: every pixel of that value is padding."""


@dataclass
class _Border:
    """What lies beside the blocks of a value, as bands of the plane bring it."""

    beside: list[Array] = field(default_factory=list)
    """Pixels up to 2 px from the blocks, (n,) each."""
    step: int = 1
    """Of so many of them one is kept."""
    outside: bool = False
    """Whether a pixel outside of all blocks has the value."""

    def add(self, more: Array) -> None:
        self.beside.append(more[:: self.step])
        if sum(map(len, self.beside)) > 4 * KEPT:
            self.beside, self.step = [np.concatenate(self.beside)[::2]], 2 * self.step


def find_padding(bands: Bands, candidates: Sequence[float], pixels: Array, bad: Mask) -> tuple[Padding, ...]:
    """The values that pad a plane.

    Parameters
    ----------
    bands : all of the plane.
    candidates : as `constant_values` finds them.
    pixels, bad : (h, w), the plane or windows that tell what its picture is like; True where a pixel is known to be no
        data.

    Returns
    -------
    None of them for an image whose pixels are few different values (a mask, labels), or one of single events.
    """
    if not candidates:
        return ()
    values = np.where(bad, np.nan, pixels)
    picture = np.isfinite(values) & ~_all_blocks(values, candidates)
    rest = values[picture]
    if rest.size < FEWEST or not _is_varied(rest) or _is_flat(values, picture):
        return ()
    borders, top, size = _find_borders(bands, candidates)
    found = []
    for value, border in borders.items():
        beside = np.concatenate([np.zeros(0, np.float32), *border.beside])
        if _is_coherent(picture & (values != value)) and _ends_at_an_edge(beside, value, rest, top):
            found.append(_padding_of(value, beside, border.outside, size))
    return tuple(padding for padding in found if padding is not None)


def _find_borders(bands: Bands, candidates: Sequence[float]) -> tuple[dict[float, _Border], float, int]:
    """Border of each value; the greatest value outside of blocks, and the pixels of the plane."""
    borders, top, size = {value: _Border() for value in candidates}, -np.inf, 0
    for band in bands():
        values = band.values
        size += values[band.core].size
        blocks = {v: inside for v in candidates if (inside := _blocks(values == v, BOXES[0])).any()}
        picture = ~band.bad
        for inside in blocks.values():
            picture &= ~inside
        top = float(np.max(values[band.core], initial=top, where=picture[band.core]))
        for value, border in borders.items():
            border.outside |= bool((picture & (values == value))[band.core].any())
            if value in blocks:
                near = _dilated(_dilated(blocks[value], 5, 0), 5, 1)[2:-2, 2:-2]
                border.add(values[band.core][(picture & near)[band.core]])
    return borders, top, size


def mark_padding(pixels: Array, padding: tuple[Padding, ...]) -> Mask:
    """(h, w), True where ``pixels`` are padding; decided by what is up to `REACH` px away."""
    marked = np.zeros(pixels.shape, bool)
    for one in padding:
        equal = pixels == one.value
        marked |= _blocks(equal, one.box) if one.box else equal
    return marked


def _all_blocks(values: Array, candidates: Sequence[float]) -> Mask:
    """(h, w), True in blocks of any of the candidates."""
    return np.logical_or.reduce([_blocks(values == value, BOXES[0]) for value in candidates])


def _blocks(equal: Mask, box: int) -> Mask:
    """The pixels of all squares of ``box`` px, and of all runs, that are True throughout."""
    if not equal.any():
        return equal
    found = np.zeros_like(equal)
    for h, w in ((box, box), (1, RUN), (RUN, 1)):
        corners = _runs(_runs(equal, h, 0), w, 1)
        if corners.any():
            found |= _dilated(_dilated(corners, h, 0), w, 1)
    return found


def _runs(mask: Mask, length: int, axis: int) -> Mask:
    """True where ``length`` pixels in a row that are True begin, along an axis; so many fewer, less one."""
    if mask.shape[axis] < length:
        return np.zeros_like(mask, shape=[0 if i == axis else n for i, n in enumerate(mask.shape)])
    done = 1
    while done < length:
        more = min(done, length - done)
        first, last = (slice(None),) * axis + (slice(None, -more),), (slice(None),) * axis + (slice(more, None),)
        mask, done = mask[first] & mask[last], done + more
    return mask


def _dilated(mask: Mask, length: int, axis: int) -> Mask:
    """True from each True on for ``length`` pixels along an axis, which is so many longer, less one."""
    if mask.shape[axis] == 0:
        return np.zeros_like(mask, shape=[length - 1 if i == axis else n for i, n in enumerate(mask.shape)])
    room = [(length - 1, length - 1) if i == axis else (0, 0) for i in range(2)]
    return ~_runs(np.pad(~mask, room, constant_values=True), length, axis)


def constant_values(bands: Bands) -> list[float]:
    """Values of a plane that have a square of 3 x 3 or a run to themselves, the commonest first."""
    level, count = np.zeros(0, np.float32), np.zeros(0, np.int64)
    for band in bands():
        level, count = add_counts([(level, count), count_constant(band)])
        keep = np.sort(np.argsort(-count, kind="stable")[:KEPT])
        level, count = level[keep], count[keep]
    return commonest(level, count)


def commonest(level: Array, count: Array) -> list[float]:
    """The values that are looked at, of those that `count_constant` counts in all of a plane."""
    if len(level) > MOST:  # an image that was filtered or magnified is constant everywhere by pieces
        level, count = level[count > 10 * np.median(count)], count[count > 10 * np.median(count)]
    return [float(level[i]) for i in np.argsort(-count, kind="stable")][:MOST]


def count_constant(band: Band) -> tuple[Array, Array]:
    """The values that have a square or a run to themselves in a band, and how many of these there are."""
    values, (y0, y1) = band.values, (band.core.start, band.core.stop)
    right, down = values[:, :-1] == values[:, 1:], values[:-1] == values[1:]
    squares = _runs(_runs(right, 3, 0), 2, 1) & _runs(_runs(down, 2, 0), 3, 1)
    rows, columns = _runs(right, RUN - 1, 1), _runs(down, RUN - 1, 0)
    places = [(squares, 1), (rows, 0), (columns, 0)]
    parts = []
    for mask, start in places:  # a square counts where its middle is, a run where it begins
        inner = mask[max(y0 - start, 0) : y1 - start]
        room = values[max(y0, start) :, start:]
        parts.append(room[: inner.shape[0], : inner.shape[1]][inner])
    return np.unique(np.concatenate(parts), return_counts=True)


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


def _ends_at_an_edge(beside: Array, value: float, rest: Array, top: float) -> bool:
    """Whether the pixels beside blocks of a value are sky like elsewhere, and not the value's own neighbours.

    Parameters
    ----------
    beside : (n,) pixels up to 2 px from the blocks.
    rest : (m,) pixels outside of blocks, all or those of a sample.
    top : the greatest of all of them.
    """
    others = beside[beside != value]
    if others.size < 8:
        return False
    quarter, half, more = np.quantile(rest, [0.25, 0.5, 0.75])
    if value >= top and np.median(others) > half + 2 * max(more - half, half - quarter):
        return False  # the flat top of a star lies in its light, and not in the sky
    below, above, same = (float(np.mean(found)) for found in (beside < value, beside > value, beside == value))
    if min(below, above) > 0.15 and same < 0.25:
        return value == 0  # noise is on both sides of 0 where the sky was subtracted; of another value it makes blocks
    step = 1.0 if bool((rest == np.rint(rest)).all()) else 0.0
    distance = np.abs(others - value)
    typical = float(np.median(np.abs(rest[rest != value] - value)))
    close = float(np.mean(np.abs(beside - value) <= max(step, 0.2 * float(np.median(distance)))))
    return close < 0.1 and float(np.median(distance)) > 0.3 * typical


def _padding_of(value: float, beside: Array, outside: bool, size: int) -> Padding | None:
    """The padding of a value that ends at an edge; None where its pixels may as well be noise of the sky.

    Parameters
    ----------
    beside : as of `_ends_at_an_edge`.
    outside : whether a pixel outside of all blocks has the value.
    size : pixels of the plane.
    """
    if not outside:
        return Padding(value, 0)
    most = (float((beside == value).sum()) + 3) / (beside.size + 3)  # 95 % upper limit of its share among the sky
    if size * most**RUN > BY_CHANCE:
        return None
    return next((Padding(value, box) for box in BOXES if size * most ** (box**2) < BY_CHANCE), None)
