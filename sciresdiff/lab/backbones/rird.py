"""A light residual-in-residual network: narrow dense blocks in groups, for the cost of a plain residual network.

Groups with a skip each and one long skip are RCAN's (Zhang et al. 2018a), without its channel attention, which is a
statistic over the tile; dense blocks closed by a 1x1 convolution are RDN's (Zhang et al. 2018b).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciresdiff.nets.resnet import zero_init

CONVOLUTIONS = 3
"""Of a narrow dense block."""
BLOCKS = 2
"""Of a group."""


class NarrowBlock(nn.Module):
    """x + fuse([x, three 3x3 convolutions, each of which sees all before it]) with a 1x1 fuse, zero at the start."""

    def __init__(self, width: int, growth: int) -> None:
        """Channels in and out, and channels that each convolution adds."""
        super().__init__()
        steps = range(CONVOLUTIONS)
        self.convs = nn.ModuleList([nn.Conv2d(width + k * growth, growth, 3, padding=1) for k in steps])
        self.fuse = zero_init(nn.Conv2d(width + CONVOLUTIONS * growth, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) to the same."""
        seen = [x]
        for conv in self.convs:
            seen.append(F.leaky_relu_(conv(torch.cat(seen, dim=1)), 0.2))
        return self.fuse(torch.cat(seen, dim=1)).add_(x)


class Group(nn.Module):
    """x + mix(blocks(x)) with a 1x1 mix, zero at the start."""

    def __init__(self, width: int, growth: int) -> None:
        """Channels, and the growth of the blocks."""
        super().__init__()
        self.blocks = nn.Sequential(*[NarrowBlock(width, growth) for _ in range(BLOCKS)])
        self.mix = zero_init(nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) to the same."""
        return self.mix(self.blocks(x)).add_(x)


class RIRD(nn.Module):
    """Convolution, ``depth`` groups and a convolution with a skip around them, convolution.

    0.50 million parameters at base, with three times the reach of a plain residual network of that size.  The growth is
    a quarter of the width.
    """

    multiple_of = 1
    tile_exact = True

    def __init__(self, inputs: int, outputs: int, width: int = 64, depth: int = 5) -> None:
        """Channels in and out, channels inside, number of groups."""
        super().__init__()
        growth = max(width // 4, 1)
        self.head = nn.Conv2d(inputs, width, 3, padding=1)
        self.body = nn.Sequential(*[Group(width, growth) for _ in range(depth)])
        self.join = nn.Conv2d(width, width, 3, padding=1)
        self.tail = zero_init(nn.Conv2d(width, outputs, 3, padding=1))
        self.receptive_px = CONVOLUTIONS * BLOCKS * depth + 3

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w)."""
        x = self.head(x)
        return self.tail(self.join(self.body(x)).add_(x))
