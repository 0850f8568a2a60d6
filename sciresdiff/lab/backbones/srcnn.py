"""SRCNN (Dong et al. 2014): three convolutions, the oldest network for super-resolution and a floor for the others."""

from __future__ import annotations

from torch import Tensor, nn

from sciresdiff.nets.resnet import zero_init


class SRCNN(nn.Module):
    """Convolutions of 9, 1 and 5 pixels with ``width``, ``width / 2`` and ``outputs`` channels.

    0.15 million parameters at base.  It runs on the coarse grid with the fine pixels as channels, and not on a bicubic
    image.
    """

    multiple_of = 1
    tile_exact = True
    receptive_px = 4 + 0 + 2

    def __init__(self, inputs: int, outputs: int, width: int = 64, depth: int = 1) -> None:
        """Channels in and out, channels inside; ``depth`` changes nothing: three layers are what SRCNN is."""
        super().__init__()
        half = max(width // 2, 1)
        self.head = nn.Conv2d(inputs, width, 9, padding=4)
        self.middle = nn.Conv2d(width, half, 1)
        self.tail = zero_init(nn.Conv2d(half, outputs, 5, padding=2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w)."""
        return self.tail(self.middle(self.head(x).relu_()).relu_())
