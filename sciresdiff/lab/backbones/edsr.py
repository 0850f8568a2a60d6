"""EDSR (Lim et al. 2017): residual blocks with a residual scale, and one long skip around them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sciresdiff.nets.resnet import zero_init

RES_SCALE = 0.1
"""What a block adds is multiplied by this (section 3.1 of the paper), so that deep networks train stably."""


class ScaledBlock(nn.Module):
    """x + 0.1 conv(relu(conv(x)))."""

    def __init__(self, width: int) -> None:
        """Two 3x3 convolutions of ``width`` channels."""
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) to the same."""
        return torch.add(x, self.second(self.first(x).relu_()), alpha=RES_SCALE)


class EDSR(nn.Module):
    """Convolution, ``depth`` scaled blocks and a convolution with a skip around them, convolution.

    0.43 million parameters at base; the paper's baseline is width 64 and depth 16, its large network 256 and 32.  The
    answer is made of pixel-unshuffled channels, so the paper's up-sampling layers are left out.
    """

    multiple_of = 1
    tile_exact = True

    def __init__(self, inputs: int, outputs: int, width: int = 64, depth: int = 16) -> None:
        """Channels in and out, channels inside, number of blocks."""
        super().__init__()
        self.head = nn.Conv2d(inputs, width, 3, padding=1)
        self.body = nn.Sequential(*[ScaledBlock(width) for _ in range(depth)])
        self.join = nn.Conv2d(width, width, 3, padding=1)
        self.tail = zero_init(nn.Conv2d(width, outputs, 3, padding=1))
        self.receptive_px = 2 * depth + 3

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w)."""
        x = self.head(x)
        return self.tail(self.join(self.body(x)).add_(x))
