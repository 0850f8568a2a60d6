"""NAFNet (Chen et al. 2022): a U-Net without activations, modulated by the level as in Refusion (Luo et al. 2023)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciresdiff.lab.backbones.branch import pad_to_multiple
from sciresdiff.lab.backbones.modulation import Code, FiLM
from sciresdiff.nets.resnet import zero_init

REACH = 2
"""Radius of the attention's window, in pixels of the coarsest level."""


class ChannelNorm(nn.Module):
    """Every pixel's channels brought to mean 0 and variance 1, then scaled and shifted: no statistic over the tile."""

    def __init__(self, width: int) -> None:
        """Number of channels."""
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, v: Tensor) -> Tensor:
        """(B, width, h, w) to the same."""
        out: Tensor = self.norm(v.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out


class LocalAttention(nn.Module):
    """v times a 1x1 convolution of its mean over a window, of those pixels inside the image.

    NAFNet's simplified channel attention takes the mean over the whole tile, so that tiles disagree.  A window of fixed
    size is what TLC (Chu et al. 2022) puts in its place after training; here it is there from the start.
    """

    def __init__(self, width: int, radius: int) -> None:
        """Channels, and the radius of the window in pixels."""
        super().__init__()
        self.radius = radius
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, v: Tensor) -> Tensor:
        """(B, width, h, w) to the same."""
        mean = F.avg_pool2d(v, 2 * self.radius + 1, stride=1, padding=self.radius, count_include_pad=False)
        return v * self.mix(mean)


def simple_gate(v: Tensor) -> Tensor:
    """The product of both halves of the channels, (B, 2 C, h, w) to (B, C, h, w), in place of an activation."""
    a, b = v.chunk(2, dim=1)
    return a * b


class NAFBlock(nn.Module):
    """x + beta mix(x), then x + gamma feed(x), each after a norm and a modulation; the identity at the start."""

    def __init__(self, width: int, radius: int) -> None:
        """Channels, and the radius of the attention's window; 0 for none."""
        super().__init__()
        self.norms = nn.ModuleList([ChannelNorm(width) for _ in range(2)])
        self.films = nn.ModuleList([FiLM(width) for _ in range(2)])
        self.spread = nn.Conv2d(width, 2 * width, 1)
        self.look = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.attention = LocalAttention(width, radius) if radius else nn.Identity()
        self.mix = nn.Conv2d(width, width, 1)
        self.feed = nn.Conv2d(width, 2 * width, 1)
        self.back = nn.Conv2d(width, width, 1)
        self.beta = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.receptive_px = 1 + radius

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """(B, width, h, w) and the code of the level, to the same."""
        v = self.films[0](self.norms[0](x), code)
        v = self.mix(self.attention(simple_gate(self.look(self.spread(v)))))
        x = torch.addcmul(x, v, self.beta.to(v.dtype))
        v = self.films[1](self.norms[1](x), code)
        v = self.back(simple_gate(self.feed(v)))
        return torch.addcmul(x, v, self.gamma.to(v.dtype))


class Row(nn.ModuleList):
    """Blocks, one after the other."""

    def __init__(self, width: int, depth: int, radius: int = 0) -> None:
        """``depth`` blocks of ``width`` channels, and the radius of their attention."""
        super().__init__([NAFBlock(width, radius) for _ in range(depth)])
        self.receptive_px = depth * (1 + radius)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """(B, width, h, w) and the code of the level, to the same."""
        for block in self:
            x = block(x, code)
        return x


class NAFNet(nn.Module):
    """Three levels, down by a strided convolution, up by a pixel shuffle, with skips that are added.

    ``depth`` blocks on the coarsest level, half as many on each side of the others.  The coarsest level alone has the
    attention, over windows of 5 x 5 of its pixels (20 x 20 of the finest): on every level it would double the reach.
    3.5 million parameters at base.
    """

    multiple_of = 4
    tile_exact = True

    def __init__(self, inputs: int, outputs: int, width: int = 32, depth: int = 4) -> None:
        """Channels in and out, channels of the finest level, blocks on the coarsest."""
        super().__init__()
        side, widths = max(depth // 2, 1), (width, 2 * width, 4 * width)
        self.code = Code()
        self.head = nn.Conv2d(inputs, width, 3, padding=1)
        self.left = nn.ModuleList([Row(c, side) for c in widths[:-1]])
        self.down = nn.ModuleList([nn.Conv2d(c, 2 * c, 2, stride=2) for c in widths[:-1]])
        self.middle = Row(widths[-1], depth, REACH)
        self.up = nn.ModuleList([nn.Conv2d(2 * c, 4 * c, 1, bias=False) for c in widths[:-1]])
        self.right = nn.ModuleList([Row(c, side) for c in widths[:-1]])
        self.tail = zero_init(nn.Conv2d(width, outputs, 3, padding=1))
        reach = self.middle.receptive_px
        for _ in self.down:  # r cells of the coarser level reach 2 r + 1 pixels of the finer one
            reach = 2 * reach + 1 + 2 * side
        self.receptive_px = reach + 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w); the last three channels are constant maps."""
        h, w = x.shape[-2:]
        x = pad_to_multiple(x, self.multiple_of)
        code = self.code(x)
        x = self.head(x)
        skips = []
        for row, down in zip(self.left, self.down, strict=True):
            x = row(x, code)
            skips.append(x)
            x = down(x)
        x = self.middle(x, code)
        for k in reversed(range(len(skips))):
            x = self.right[k](F.pixel_shuffle(self.up[k](x), 2) + skips[k], code)
        return self.tail(x)[..., :h, :w]
