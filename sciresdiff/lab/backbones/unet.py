"""A U-Net without normalisation (Ronneberger et al. 2015; the shape of CARE, Weigert et al. 2018)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciresdiff.nets.resnet import Block, zero_init


class UNet(nn.Module):
    """Three levels, halved by a strided convolution and doubled by nearest neighbours, with skips.

    10.3 million parameters at base.
    """

    multiple_of = 4
    tile_exact = True

    def __init__(self, inputs: int, outputs: int, width: int = 32, depth: int = 1) -> None:
        """Channels in and out, channels of the finest level, residual blocks per level and side."""
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        self.head = nn.Conv2d(inputs, width, 3, padding=1)
        self.down = nn.ModuleList([nn.Conv2d(a, b, 2, stride=2) for a, b in zip(widths, widths[1:], strict=False)])
        self.up = nn.ModuleList([nn.Conv2d(b + a, a, 3, padding=1) for a, b in zip(widths, widths[1:], strict=False)])
        self.left = nn.ModuleList([nn.Sequential(*[Block(c) for _ in range(depth)]) for c in widths])
        self.right = nn.ModuleList([nn.Sequential(*[Block(c) for _ in range(depth)]) for c in widths[:-1]])
        self.tail = zero_init(nn.Conv2d(width, outputs, 3, padding=1))
        self.receptive_px = 2 * depth
        for _ in self.down:  # r cells of the coarser level reach 2 r + 1 pixels of the finer one
            self.receptive_px = 2 * self.receptive_px + 1 + 4 * depth + 1
        self.receptive_px += 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w); h and w are padded to multiples of 4 inside."""
        h, w = x.shape[-2:]
        x = F.relu(self.head(F.pad(x, (0, -w % 4, 0, -h % 4))))
        skips = []
        for blocks, down in zip(self.left, self.down, strict=False):
            x = blocks(x)
            skips.append(x)
            x = F.relu(down(x))
        x = self.left[-1](x)
        for level in reversed(range(len(self.up))):
            x = torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skips[level]], dim=1)
            x = self.right[level](F.relu(self.up[level](x)))
        return self.tail(x)[..., :h, :w]
