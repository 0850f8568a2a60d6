"""A network run over a frame tile by tile, with the answer of the whole frame."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sciresdiff import tiling
from sciresdiff.restoration.prior import Run


def run_in_tiles(side: int, receptive_px: int, multiple_of: int) -> Run:
    """How a network is evaluated over a frame.

    Parameters
    ----------
    side : of a tile, coarse px; 0 for the whole frame.
    receptive_px, multiple_of : of the network, coarse px.
    """

    def run(net: nn.Module, parts: Sequence[Tensor]) -> Tensor:
        h, w = parts[0].shape[-2:]
        tiles = tiling.plan((h, w), side or max(h, w), receptive_px, multiple_of)
        return tiling.run(net, parts, tiles)

    return run
