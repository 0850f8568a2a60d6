"""A U-Net whose skips are guided by the high frequencies of its input, after ResDiff (Shang et al. 2024).

ResDiff and HF-ResDiff split the input by a high-pass in Fourier space and let attention look for its Haar bands.  Both
are statements about the whole tile.  Here the bands are fixed filters of a few pixels and guide by a scale and a shift
per pixel, so that every tiling gives the same answer; HF-ResDiff's control of the dose is the modulation by the level.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciresdiff.lab.backbones.branch import Branch, pad_to_multiple
from sciresdiff.lab.backbones.modulation import NUMBERS, Code
from sciresdiff.nets.resnet import zero_init


def high_pass(x: Tensor) -> Tensor:
    """x minus its mean over 3 x 3 pixels with weights (1, 2, 1)/4 each way; the edge pixel is repeated.

    Zero for constant maps, and 1 at the highest frequency of either axis.
    """
    p = F.pad(x, (1, 1, 1, 1), mode="replicate")
    rows = (p[..., :-2, :] + 2 * p[..., 1:-1, :] + p[..., 2:, :]) / 4
    return x - (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4


def haar(x: Tensor) -> Tensor:
    """The three high bands of the Haar transform: across x, across y, across both.

    Parameters
    ----------
    x : (B, C, h, w), even sides.

    Returns
    -------
    (B, 3 C, h/2, w/2), half-differences of means of two, so that a jump of 1 between two pixels is 1/2.
    """
    a, b, c, d = (x[..., i::2, j::2] for i in (0, 1) for j in (0, 1))
    return torch.cat([a - b + c - d, a + b - c - d, a - b - c + d], dim=1) / 4


class Freq(nn.Module):
    """Convolution, U-Net of three levels, convolution; the bands of the input guide the two skips.

    The finest skip is guided by `high_pass` of the input, the one on half the grid by its Haar bands (the three
    constant maps have none and are left out).  4.7 million parameters at base.
    """

    multiple_of = 4
    tile_exact = True

    def __init__(self, inputs: int, outputs: int, width: int = 32, depth: int = 2) -> None:
        """Channels in and out, channels of the finest level, twice the number of blocks per level and side."""
        super().__init__()
        seen = inputs - NUMBERS
        self.code = Code()
        self.head = nn.Conv2d(inputs, width, 3, padding=1)
        self.body = Branch(width, max(depth // 2, 1), 3, (seen, 3 * seen))
        self.tail = zero_init(nn.Conv2d(width, outputs, 3, padding=1))
        self.receptive_px = self.body.receptive_px + 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w); the last three channels are constant maps."""
        h, w = x.shape[-2:]
        x = pad_to_multiple(x, self.multiple_of)
        maps = x[:, :-NUMBERS]
        y = self.body(F.relu(self.head(x)), self.code(x), (high_pass(maps), haar(maps)))
        return self.tail(y)[..., :h, :w]
