"""DiT-SR (Cheng et al. 2024): a U of transformers of one width, modulated by the level frequency by frequency."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciresdiff.lab.backbones.attention import (
    WINDOW,
    Feedforward,
    Step,
    WindowAttention,
    down,
    looks,
    reach,
    up,
    within,
)
from sciresdiff.lab.backbones.branch import pad_to_multiple
from sciresdiff.lab.backbones.modulation import CODE, Code
from sciresdiff.nets.resnet import zero_init

GROWTH = 4
"""Channels inside the feedforward, in widths."""


def filter_windows(v: Tensor, gains: Tensor) -> Tensor:
    """Re IFFT2(S FFT2(v)) in windows of p x p, the same S for all windows and channels.

    The real part is that of a gain (S(k) + S(-k)) / 2; S = 1 is the identity.  In float32 at least, because half
    precision has no transforms of every length.

    Parameters
    ----------
    v : (B, h, w, C), h and w multiples of p. gains : S, (B, p, p).
    """
    p, exact = gains.shape[-1], torch.promote_types(v.dtype, torch.float32)
    blocks = v.to(exact).unflatten(2, (-1, p)).unflatten(1, (-1, p))
    waves = torch.fft.fft2(blocks, dim=(2, 4)) * gains.to(exact)[:, None, :, None, :, None]
    return torch.fft.ifft2(waves, dim=(2, 4)).real.flatten(3, 4).flatten(1, 2).to(v.dtype)


class AdaFM(nn.Module):
    """`filter_windows`, with p^2 gains from the code of the level; the identity at the start."""

    def __init__(self, window: int = WINDOW) -> None:
        """Side of the windows."""
        super().__init__()
        self.window = window
        self.linear = zero_init(nn.Linear(CODE, window**2))

    def forward(self, v: Tensor, code: Tensor) -> Tensor:
        """(B, h, w, C) and a code (B, CODE) to (B, h, w, C)."""
        return filter_windows(v, 1 + self.linear(code).unflatten(1, (self.window, self.window)))


class DiTBlock(nn.Module):
    """x + attention(adafm(norm x)), then x + feedforward(adafm(norm x))."""

    def __init__(self, width: int, shift: int) -> None:
        """Channels, and by how much the windows of the attention are shifted."""
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.adafms = nn.ModuleList([AdaFM() for _ in range(2)])
        self.qkv = nn.Linear(width, 3 * width)
        self.attention = WindowAttention(width, shift)
        self.feed = Feedforward(width, GROWTH * width)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """(B, h, w, width) and the code of the level, to the same."""
        x = x + self.attention(self.qkv(self.adafms[0](self.norms[0](x), code)))
        return x + self.feed(self.adafms[1](self.norms[1](x), code))


class DiTRow(nn.ModuleList):
    """Blocks, one after the other; every second one with shifted windows."""

    def __init__(self, width: int, depth: int) -> None:
        """Channels, and number of blocks."""
        shifts = [WINDOW // 2 * (k % 2) for k in range(depth)]
        super().__init__([DiTBlock(width, shift) for shift in shifts])
        grid = within(WINDOW)  # of AdaFM, before the attention and after
        self.steps: list[Step] = [step for shift in shifts for step in (grid, within(WINDOW, shift), grid)]

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """(B, width, h, w) and the code of the level, to the same."""
        v = x.permute(0, 2, 3, 1)
        for block in self:
            v = block(v, code)
        return v.permute(0, 3, 1, 2)


class DiTSR(nn.Module):
    """Two levels of the same width, down by a strided convolution, up by a pixel shuffle, the skip put beside it.

    ``depth`` blocks on the coarser level, half as many on each side of the finer.  Windows of 8 x 8 pixels of their
    level, for the attention as for the gains.  0.56 million parameters at base.
    """

    multiple_of = 2 * WINDOW
    tile_exact = True

    def __init__(self, inputs: int, outputs: int, width: int = 48, depth: int = 4) -> None:
        """Channels in and out, channels inside, blocks on the coarser level."""
        super().__init__()
        side = max(depth // 2, 1)
        self.code = Code()
        self.head = nn.Conv2d(inputs, width, 3, padding=1)
        self.left = DiTRow(width, side)
        self.down = nn.Conv2d(width, width, 2, stride=2)
        self.middle = DiTRow(width, depth)
        self.up = nn.Conv2d(width, 4 * width, 1)
        self.join = nn.Conv2d(2 * width, width, 1)
        self.right = DiTRow(width, side)
        self.tail = zero_init(nn.Conv2d(width, outputs, 3, padding=1))
        middle = [down(2), *self.middle.steps, up(2)]
        self.receptive_px = reach([looks(1), *self.left.steps, *middle, *self.right.steps, looks(1)], self.multiple_of)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w); the last three channels are constant maps."""
        h, w = x.shape[-2:]
        x = pad_to_multiple(x, self.multiple_of)
        code = self.code(x)
        fine = self.left(self.head(x), code)
        coarse = self.middle(self.down(fine), code)
        x = self.join(torch.cat([F.pixel_shuffle(self.up(coarse), 2), fine], dim=1))
        return self.tail(self.right(x, code))[..., :h, :w]
