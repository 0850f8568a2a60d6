"""A U-Net body whose blocks know the level of the noise: what the networks with branches or guidance are made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciresdiff.lab.backbones.modulation import FiLM
from sciresdiff.nets.resnet import zero_init


def pad_to_multiple(x: Tensor, multiple_of: int) -> Tensor:
    """An image whose last row and column are repeated until its sides are multiples; constant maps stay constant.

    Parameters
    ----------
    x : (B, C, h, w). multiple_of : of both sides.
    """
    h, w = x.shape[-2:]
    return F.pad(x, (0, -w % multiple_of, 0, -h % multiple_of), mode="replicate")


class ModulatedBlock(nn.Module):
    """x + conv(relu(FiLM(conv(x)))); the identity at the start."""

    def __init__(self, width: int) -> None:
        """Two 3x3 convolutions of ``width`` channels."""
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.film = FiLM(width)
        self.second = zero_init(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """(B, width, h, w) and the code of the level, to the same."""
        return self.second(self.film(self.first(x), code).relu_()).add_(x)


class Blocks(nn.ModuleList):
    """Modulated blocks, one after the other."""

    def __init__(self, width: int, depth: int) -> None:
        """``depth`` blocks of ``width`` channels."""
        super().__init__([ModulatedBlock(width) for _ in range(depth)])

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """(B, width, h, w) and the code of the level, to the same."""
        for block in self:
            x = block(x, code)
        return x


class Guide(nn.Module):
    """v (1 + scale) + shift, both made pixel by pixel from other maps of the same grid; the identity at the start."""

    def __init__(self, width: int, bands: int) -> None:
        """Channels to be guided, and channels of the maps that guide."""
        super().__init__()
        self.first = nn.Conv2d(bands, width, 1)
        self.second = zero_init(nn.Conv2d(width, 2 * width, 1))

    def forward(self, v: Tensor, bands: Tensor) -> Tensor:
        """(B, width, h, w) and (B, bands, h, w) to (B, width, h, w)."""
        scale, shift = self.second(self.first(bands).relu_()).chunk(2, dim=1)
        return torch.addcmul(shift, v, 1 + scale)


class Branch(nn.Module):
    """The body of a U-Net, from features to features.

    Each level has half the grid and twice the channels of the one before; down by a strided 2x2 convolution, up by
    nearest neighbours.  Where ``bands`` are given, they guide the skips.
    """

    def __init__(self, width: int, depth: int, levels: int, bands: Sequence[int] = ()) -> None:
        """Channels of the finest level, blocks per level and side, levels, channels of the bands of each skip."""
        super().__init__()
        widths = [width * 2**k for k in range(levels)]
        pairs = list(zip(widths, widths[1:], strict=False))
        self.left = nn.ModuleList([Blocks(c, depth) for c in widths])
        self.right = nn.ModuleList([Blocks(c, depth) for c in widths[:-1]])
        self.down = nn.ModuleList([nn.Conv2d(a, b, 2, stride=2) for a, b in pairs])
        self.up = nn.ModuleList([nn.Conv2d(b + a, a, 3, padding=1) for a, b in pairs])
        self.guides = nn.ModuleList([Guide(c, n) for c, n in zip(widths, bands, strict=False)])
        self.multiple_of = 2 ** (levels - 1)
        self.receptive_px = 2 * depth
        for _ in pairs:  # r cells of the coarser level reach 2 r + 1 pixels of the finer one
            self.receptive_px = 2 * self.receptive_px + 1 + 2 * 2 * depth + 1

    def forward(self, x: Tensor, code: Tensor, bands: Sequence[Tensor] = ()) -> Tensor:
        """(B, width, h, w) to the same; h and w are multiples of ``multiple_of``.

        Parameters
        ----------
        code : (B, CODE), `sciresdiff.lab.backbones.modulation.Code` of the input.
        bands : maps on the grid of each skip, (B, n, h, w), (B, n', h/2, w/2) ...
        """
        skips = []
        for k, down in enumerate(self.down):
            x = self.left[k](x, code)
            skips.append(self.guides[k](x, bands[k]) if self.guides else x)
            x = F.relu(down(x))
        x = self.left[-1](x, code)
        for k in reversed(range(len(self.up))):
            x = torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skips[k]], dim=1)
            x = self.right[k](self.up[k](x).relu_(), code)
        return x
