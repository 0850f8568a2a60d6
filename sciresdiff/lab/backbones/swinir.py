"""SwinIR (Liang et al. 2021): groups of attention in windows, every second time shifted, with long skips."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sciresdiff.lab.backbones.attention import (
    WINDOW,
    Feedforward,
    LevelNorm,
    Step,
    WindowAttention,
    looks,
    reach,
    within,
)
from sciresdiff.lab.backbones.branch import pad_to_multiple
from sciresdiff.lab.backbones.modulation import Code
from sciresdiff.nets.resnet import zero_init

GROWTH = 2
"""Channels inside the feedforward, in widths."""
SHIFTS = (0, WINDOW // 2)
"""Of the windows of a group's layers, in pixels."""


class SwinLayer(nn.Module):
    """x + attention(norm x), then x + feedforward(norm x); the level modulates both norms."""

    def __init__(self, width: int, shift: int) -> None:
        """Channels, and by how much the windows are shifted."""
        super().__init__()
        self.norms = nn.ModuleList([LevelNorm(width) for _ in range(2)])
        self.qkv = nn.Linear(width, 3 * width)
        self.attention = WindowAttention(width, shift)
        self.feed = Feedforward(width, GROWTH * width)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """(B, h, w, width) and the code of the level, to the same."""
        x = x + self.attention(self.qkv(self.norms[0](x, code)))
        return x + self.feed(self.norms[1](x, code))


class SwinGroup(nn.Module):
    """x + conv(layers(x)), of two layers: windows on the grid, windows shifted by half a window."""

    def __init__(self, width: int) -> None:
        """Channels."""
        super().__init__()
        self.layers = nn.ModuleList([SwinLayer(width, shift) for shift in SHIFTS])
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """(B, width, h, w) and the code of the level, to the same."""
        v = x.permute(0, 2, 3, 1)
        for layer in self.layers:
            v = layer(v, code)
        return self.conv(v.permute(0, 3, 1, 2)).add_(x)


class SwinIR(nn.Module):
    """Convolution, ``depth`` groups and a convolution with a skip around them, convolution.

    The level of the noise modulates every layer.  Windows of 8 x 8 on the grid of the frame; the shifted ones are
    padded and masked at the border, so that tiles agree.  0.67 million parameters at base.
    """

    multiple_of = WINDOW
    tile_exact = True

    def __init__(self, inputs: int, outputs: int, width: int = 48, depth: int = 4) -> None:
        """Channels in and out, channels inside, number of groups."""
        super().__init__()
        self.code = Code()
        self.head = nn.Conv2d(inputs, width, 3, padding=1)
        self.body = nn.ModuleList([SwinGroup(width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.join = nn.Conv2d(width, width, 3, padding=1)
        self.tail = zero_init(nn.Conv2d(width, outputs, 3, padding=1))
        group: list[Step] = [*(within(WINDOW, shift) for shift in SHIFTS), looks(1)]
        self.receptive_px = reach([looks(1), *group * depth, looks(1), looks(1)], WINDOW)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w); the last three channels are constant maps."""
        h, w = x.shape[-2:]
        x = pad_to_multiple(x, self.multiple_of)
        code = self.code(x)
        first = v = self.head(x)
        for group in self.body:
            v = group(v, code)
        v = self.norm(v.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.tail(torch.add(first, self.join(v)))[..., :h, :w]
