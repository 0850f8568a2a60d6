"""Tiles in integers: cores that cover a frame once, and the windows that a network has to read for them.

A window ends only where the frame ends or at least ``halo`` pixels from its core, and starts on a multiple of the
network's stride.  A tile-exact network therefore answers the same in every tiling, so nothing is blended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from sciresdiff.errors import UsageError
from sciresdiff.region import Region

if TYPE_CHECKING:
    from torch import Tensor, nn


Run = Callable[["nn.Module", "Sequence[Tensor]"], "Tensor"]
"""How a network is evaluated on a frame whose channels come in parts: at once, or in tiles."""
Span = tuple[int, int, int, int]
"""Along one axis: first pixel of a core and the one behind its last, the same of its window."""


@dataclass(frozen=True)
class Tile:
    """A part of a frame that is computed by itself."""

    core: Region
    """Where the answer goes."""
    window: Region
    """What is read for it."""

    def inside(self, scale: int = 1) -> tuple[slice, slice]:
        """The core within the window, on a grid ``scale`` times finer."""
        return self.core.within(self.window).scaled(scale).slices


def rounded_up(value: int, multiple_of: int) -> int:
    """The smallest multiple that is not less."""
    return -(-value // multiple_of) * multiple_of


def halo_for(receptive_px: int, multiple_of: int = 1) -> int:
    """The halo that a network of this receptive field and stride needs, in its own input pixels."""
    return rounded_up(receptive_px, multiple_of)


def spans(length: int, tile: int, halo: int, multiple_of: int) -> list[Span]:
    """Core and window of every tile along one axis; the cores are nearly equal multiples of the stride."""
    tile = rounded_up(tile, multiple_of)
    count = -(-length // tile)
    size = rounded_up(-(-length // count), multiple_of)
    edges = [*range(0, length, size), length]
    return [(a, b, max(a - halo, 0), min(b + halo, length)) for a, b in pairwise(edges)]


def plan(shape: tuple[int, int], tile: int, halo: int, multiple_of: int = 1) -> list[Tile]:
    """Tiles of a frame, row by row.

    Parameters
    ----------
    shape : (h, w) of the frame. tile : largest side of a core, rounded up to ``multiple_of``.
    halo : pixels read around a core, rounded up likewise. multiple_of : the network's stride.

    Raises
    ------
    UsageError : a tile or frame without pixels, a negative halo.
    """
    if tile < 1:
        raise UsageError(f"--tile {tile}: a tile has at least 1 pixel; try 256")
    if min(shape) < 1 or halo < 0 or multiple_of < 1:
        raise UsageError(f"tiling: shape {shape}, halo {halo}, stride {multiple_of}; sides and stride start at 1")
    halo = halo_for(halo, multiple_of)
    rows, columns = (spans(length, tile, halo, multiple_of) for length in shape)
    return tiles_of(rows, columns)


def tiles_of(rows: Sequence[Span], columns: Sequence[Span]) -> list[Tile]:
    """Every row of cores and windows with every column."""
    return [
        Tile(Region(y0, y1, x0, x1), Region(ry0, ry1, rx0, rx1))
        for y0, y1, ry0, ry1 in rows
        for x0, x1, rx0, rx1 in columns
    ]


def together(parts: Sequence[Tensor]) -> Tensor:
    """Channels that come in parts as one tensor; a lone part as it is."""
    import torch

    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)


def run(
    fn: Callable[[Tensor], Tensor], features: Tensor | Sequence[Tensor], tiles: Sequence[Tile], scale: int = 1
) -> Tensor:
    """A network over a frame, tile by tile.

    Parameters
    ----------
    fn : (B, C, h, w) -> (B, C', scale*h, scale*w), tile-exact for the halo of the plan.
    features : (B, C, h, w), the whole frame; or several, whose channels are put together tile by tile.
    tiles : `plan` of (h, w).

    Returns
    -------
    (B, C', scale*h, scale*w); the same for every tiling, but for the rounding of convolutions of another size.
    """
    import torch

    parts = [features] if isinstance(features, torch.Tensor) else features
    if len(tiles) == 1:
        return fn(together(parts))
    h, w = parts[0].shape[-2:]
    whole: Tensor | None = None
    for tile in tiles:
        part = fn(together([v[(..., *tile.window.slices)] for v in parts]))
        if whole is None:
            last = part.is_contiguous(memory_format=torch.channels_last)
            layout = torch.channels_last if last else torch.contiguous_format
            size = (*part.shape[:2], scale * h, scale * w)
            whole = torch.empty(size, dtype=part.dtype, device=part.device, memory_format=layout)
        whole[(..., *tile.core.scaled(scale).slices)] = part[(..., *tile.inside(scale))]
    assert whole is not None
    return whole


def run_at_once(net: nn.Module, parts: Sequence[Tensor]) -> Tensor:
    """A network evaluated on the whole frame, (B, C, h, w), whose channels come in parts."""
    out: Tensor = net(together(parts))
    return out


def run_in_tiles(side: int, receptive_px: int, multiple_of: int) -> Run:
    """How a network is evaluated over a frame, tile by tile.

    Parameters
    ----------
    side : of a tile, coarse px; 0 for the whole frame.
    receptive_px, multiple_of : of the network, coarse px.
    """

    def evaluate(net: nn.Module, parts: Sequence[Tensor]) -> Tensor:
        h, w = parts[0].shape[-2:]
        return run(net, parts, plan((h, w), side or max(h, w), receptive_px, multiple_of))

    return evaluate
