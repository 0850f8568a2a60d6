"""Two streams of tokens, the state and its condition, in joint attention, as DiT4SR has them (Duan et al. 2025)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciresdiff.lab.backbones.attention import (
    WINDOW,
    LevelNorm,
    RelativeBias,
    attend,
    beyond_map,
    heads_for,
    looks,
    mask_bias,
    merge_shifted,
    reach,
    split_shifted,
    within,
)
from sciresdiff.lab.backbones.branch import pad_to_multiple
from sciresdiff.lab.backbones.modulation import Code
from sciresdiff.nets.resnet import zero_init

GROWTH = 2
"""Channels inside the feedforward, in widths."""


class JointAttention(nn.Module):
    """Every pixel of a window asks the pixels of both streams there.

    Both streams share one projection to queries, keys and values; the condition adds one of its own, zero at the start.
    The learned bias of a relative position is the same within and between the streams.
    """

    def __init__(self, width: int, shift: int) -> None:
        """Channels, and by how much the windows are shifted."""
        super().__init__()
        self.shift, self.heads = shift, heads_for(width)
        self.bias = RelativeBias(WINDOW, self.heads)
        self.qkv = nn.Linear(width, 3 * width)
        self.extra = zero_init(nn.Linear(width, 3 * width))

    def forward(self, state: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """(B, h, w, width) twice, to what each stream is told; h and w are multiples of the window."""
        h, w = state.shape[1:3]
        streams = (self.qkv(state), self.qkv(condition) + self.extra(condition))
        both = torch.cat([split_shifted(qkv, WINDOW, self.shift) for qkv in streams], dim=1)
        gone = beyond_map(h, w, WINDOW, self.shift, state.device)
        gone = None if gone is None else gone.repeat(1, 2)
        bias = mask_bias(self.bias().repeat(1, 2, 2), gone, len(both))
        q, k, v = both.chunk(3, dim=-1)
        told = attend(q, k, v, self.heads, bias).chunk(2, dim=1)
        first, second = (merge_shifted(part, WINDOW, self.shift, h, w) for part in told)
        return first, second


class TwoStreamBlock(nn.Module):
    """Joint attention, then a feedforward whose hidden features in the condition are injected into those of the state.

    The injection is a depthwise 3x3 convolution, zero at the start, as is what the condition takes from the attention.
    The last block of a network leaves the condition as it is.
    """

    def __init__(self, width: int, shift: int, last: bool) -> None:
        """Channels, by how much the windows are shifted, and whether no block follows."""
        super().__init__()
        hidden = GROWTH * width
        self.norms = nn.ModuleList([LevelNorm(width) for _ in range(4)])
        self.attention = JointAttention(width, shift)
        self.proj = nn.Linear(width, width)
        self.spread = nn.ModuleList([nn.Linear(width, hidden) for _ in range(2)])
        self.inject = zero_init(nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden))
        self.back = nn.Linear(hidden, width)
        self.kept = None if last else nn.ModuleList([zero_init(nn.Linear(width, width)), nn.Linear(hidden, width)])

    def forward(self, state: Tensor, condition: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """(B, h, w, width) twice and the code of the level, to both streams."""
        told, heard = self.attention(self.norms[0](state, code), self.norms[1](condition, code))
        state = state + self.proj(told)
        if self.kept is not None:
            condition = condition + self.kept[0](heard)
        hidden = F.gelu(self.spread[1](self.norms[3](condition, code)))
        injected = self.inject(hidden.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        state = state + self.back(F.gelu(self.spread[0](self.norms[2](state, code))) + injected)
        if self.kept is not None:
            condition = condition + self.kept[1](hidden)
        return state, condition


class TwoStream(nn.Module):
    """A convolution for each stream, ``depth`` blocks, a convolution of the state.

    The first ``outputs`` channels of the input are the state, all others the condition.  Attention in windows of 8 x 8,
    every second time shifted, where the published network has all pixels at once: tiles agree.  0.44 million
    parameters at base.
    """

    multiple_of = WINDOW
    tile_exact = True

    def __init__(self, inputs: int, outputs: int, width: int = 48, depth: int = 4) -> None:
        """Channels in and out, channels of a stream, number of blocks."""
        super().__init__()
        self.outputs = outputs
        self.code = Code()
        self.state = nn.Conv2d(outputs, width, 3, padding=1)
        self.condition = nn.Conv2d(inputs - outputs, width, 3, padding=1)
        shifts = [WINDOW // 2 * (k % 2) for k in range(depth)]
        self.body = nn.ModuleList([TwoStreamBlock(width, s, k == depth - 1) for k, s in enumerate(shifts)])
        self.tail = zero_init(nn.Conv2d(width, outputs, 3, padding=1))
        steps = [step for shift in shifts for step in (within(WINDOW, shift), looks(1))]
        steps.pop()  # what the last block injects has not been through its attention
        self.receptive_px = reach([looks(1), *steps, looks(1)], WINDOW)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w); the last three channels are constant maps."""
        h, w = x.shape[-2:]
        x = pad_to_multiple(x, self.multiple_of)
        code = self.code(x)
        state = self.state(x[:, : self.outputs]).permute(0, 2, 3, 1)
        condition = self.condition(x[:, self.outputs :]).permute(0, 2, 3, 1)
        for block in self.body:
            state, condition = block(state, condition, code)
        return self.tail(state.permute(0, 3, 1, 2))[..., :h, :w]
