"""Two U-Nets, one for texture and one for structure, fused pixel by pixel.

Texture lives between neighbouring pixels, and much of it is noise; structure is what is left when 2 x 2 pixels are
averaged.  Each has a network on its own grid, and a learned gate says at every pixel whom to believe.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciresdiff.lab.backbones.branch import Branch, pad_to_multiple
from sciresdiff.lab.backbones.modulation import Code, FiLM
from sciresdiff.nets.resnet import zero_init


class TwoBranch(nn.Module):
    """tail(g texture + (1 - g) structure), with a gate 0 < g < 1 per pixel and channel.

    The texture branch sees the input, the structure branch its means over 2 x 2 pixels; both are U-Nets of two levels.
    The gate sees the features of both and the level of the noise.  2.2 million parameters at base.
    """

    multiple_of = 4
    tile_exact = True

    def __init__(self, inputs: int, outputs: int, width: int = 32, depth: int = 2) -> None:
        """Channels in and out, channels of a branch's finest level, twice the number of blocks per level and side."""
        super().__init__()
        blocks = max(depth // 2, 1)
        self.code = Code()
        self.fine = nn.Conv2d(inputs, width, 3, padding=1)
        self.texture = Branch(width, blocks, 2)
        self.coarse = nn.Conv2d(inputs, width, 3, padding=1)
        self.structure = Branch(width, blocks, 2)
        self.gate = nn.Conv2d(2 * width, width, 1)
        self.film = FiLM(width)
        self.tail = zero_init(nn.Conv2d(width, outputs, 3, padding=1))
        self.receptive_px = 2 * (self.structure.receptive_px + 1) + 1 + 1  # of the half grid, and the tail

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w); the last three channels are constant maps."""
        h, w = x.shape[-2:]
        x = pad_to_multiple(x, self.multiple_of)
        code = self.code(x)
        texture = self.texture(self.fine(x).relu_(), code)
        structure = self.structure(self.coarse(F.avg_pool2d(x, 2)).relu_(), code)
        structure = F.interpolate(structure, scale_factor=2.0, mode="nearest")
        gate = torch.sigmoid(self.film(self.gate(torch.cat([texture, structure], dim=1)), code))
        return self.tail(torch.lerp(structure, texture, gate.to(texture.dtype)))[..., :h, :w]
