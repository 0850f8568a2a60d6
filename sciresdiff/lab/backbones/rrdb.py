"""The network of ESRGAN (Wang et al. 2018): residual-in-residual dense blocks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciresdiff.nets.resnet import zero_init

RES_SCALE = 0.2
"""What a dense block, and three of them together, add is multiplied by this (section 3.1 of the paper)."""
CONVOLUTIONS = 5
"""Of a dense block."""


def quiet(conv: nn.Conv2d) -> nn.Conv2d:
    """The same convolution with a tenth of He's initial weights and no bias, as the paper starts its blocks."""
    nn.init.kaiming_normal_(conv.weight)
    with torch.no_grad():
        conv.weight.mul_(0.1)
        assert conv.bias is not None
        conv.bias.zero_()
    return conv


class DenseBlock(nn.Module):
    """x + 0.2 f(x), where each of f's five convolutions sees x and all that the ones before it made."""

    def __init__(self, width: int, growth: int) -> None:
        """Channels in and out, and channels that each of the first four convolutions adds."""
        super().__init__()
        steps = range(CONVOLUTIONS)
        made = [growth] * (CONVOLUTIONS - 1) + [width]
        self.convs = nn.ModuleList([quiet(nn.Conv2d(width + k * growth, made[k], 3, padding=1)) for k in steps])

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) to the same."""
        seen = [x]
        for conv in self.convs[:-1]:
            seen.append(F.leaky_relu_(conv(torch.cat(seen, dim=1)), 0.2))
        return torch.add(x, self.convs[-1](torch.cat(seen, dim=1)), alpha=RES_SCALE)


class ResidualInResidual(nn.Module):
    """x + 0.2 f(x), where f is three dense blocks."""

    def __init__(self, width: int, growth: int) -> None:
        """Channels, and the growth of the dense blocks."""
        super().__init__()
        self.blocks = nn.Sequential(*[DenseBlock(width, growth) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) to the same."""
        return torch.add(x, self.blocks(x), alpha=RES_SCALE)


class RRDB(nn.Module):
    """Convolution, ``depth`` residual-in-residual dense blocks and a convolution with a skip around them, convolution.

    3.65 million parameters at base; the paper's network is width 64 and depth 23 with growth 32.  The growth is half of
    the width.  The paper's up-sampling layers are left out, as in EDSR.
    """

    multiple_of = 1
    tile_exact = True

    def __init__(self, inputs: int, outputs: int, width: int = 64, depth: int = 23) -> None:
        """Channels in and out, channels inside, number of residual-in-residual blocks."""
        super().__init__()
        growth = max(width // 2, 1)
        self.head = nn.Conv2d(inputs, width, 3, padding=1)
        self.body = nn.Sequential(*[ResidualInResidual(width, growth) for _ in range(depth)])
        self.join = nn.Conv2d(width, width, 3, padding=1)
        self.tail = zero_init(nn.Conv2d(width, outputs, 3, padding=1))
        self.receptive_px = 3 * CONVOLUTIONS * depth + 3

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w)."""
        x = self.head(x)
        return self.tail(self.join(self.body(x)).add_(x))
