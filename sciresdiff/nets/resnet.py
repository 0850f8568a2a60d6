"""A plain residual network without normalisation, at one resolution."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciresdiff.nets import half

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def zero_init(layer: Layer) -> Layer:
    """The same layer with all its weights zero, so that what it adds is nothing until it has learned."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    """x + conv(relu(conv(x))), as in EDSR (Lim et al. 2017)."""

    half_branch = False
    """Whether the convolutions are done in bfloat16 where no gradient is asked for, see `half`; the sum never is."""

    def __init__(self, width: int) -> None:
        """Two 3x3 convolutions of ``width`` channels."""
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = zero_init(nn.Conv2d(width, width, 3, padding=1))  # a block starts as the identity

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) to the same."""
        if self.half_branch and not torch.is_grad_enabled():
            return half.bfloat16_branch(self.first, self.second, x).add_(x)
        return self.second(self.first(x).relu_()).add_(x)  # in place: a twentieth less time


class ResNet(nn.Module):
    """Convolution, ``depth`` residual blocks, convolution; 0.39 million parameters at base."""

    multiple_of = 1
    tile_exact = True

    def __init__(self, inputs: int, outputs: int, width: int = 64, depth: int = 5) -> None:
        """Channels in and out, channels inside, number of blocks."""
        super().__init__()
        self.head = nn.Conv2d(inputs, width, 3, padding=1)
        self.body = nn.Sequential(*[Block(width) for _ in range(depth)])
        self.tail = zero_init(nn.Conv2d(width, outputs, 3, padding=1))
        self.receptive_px = 2 * depth + 2  # a pixel for each 3x3 convolution in a row

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w)."""
        return self.tail(self.body(self.head(x).relu_()))

    def partial_head(self, x: Tensor, first: int) -> Tensor:
        """What n channels add to the first convolution; it is linear, so that channels that stay are worked in once.

        Parameters
        ----------
        x : (B, n, h, w), n channels of the input. first : which channel of the input the first of them is.

        Returns
        -------
        (B, width, h, w), without the bias.
        """
        return F.conv2d(x, self.head.weight[:, first : first + x.shape[1]], padding=1)

    def forward_from_head(self, x: Tensor, first: int, count: int) -> Tensor:
        """The network on the other channels, and what `partial_head` made of those that are left out.

        Parameters
        ----------
        x : (B, inputs - count + width, h, w), the other channels, then the answer of `partial_head`.
        first, count : which channels of the input are left out.

        Returns
        -------
        (B, outputs, h, w)
        """
        weight, others = self.head.weight, x.shape[1] - self.head.out_channels
        kept = torch.cat([weight[:, :first], weight[:, first + count :]], dim=1)
        head = F.conv2d(x[:, :others], kept, self.head.bias, padding=1).add_(x[:, others:])
        return self.tail(self.body(head.relu_()))
