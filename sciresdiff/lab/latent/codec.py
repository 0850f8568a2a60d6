"""A small autoencoder with a continuous code: images as fewer numbers on a coarser grid, and back.

**Neither way conserves flux.**  Untrained it keeps the lowest cosine components of every block of pixels, so that
training starts from a sensible image; the networks on top of that learn what the kept numbers say about the rest.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciresdiff.nets.resnet import Block, zero_init

LEAST = 1e-3
"""Smallest spread that a channel of the code is divided by."""


def cosines(factor: int, channels: int) -> Tensor:
    """The ``channels`` lowest cosine components of blocks of ``factor`` x ``factor`` pixels, (channels, factor^2).

    Rows are orthonormal; lowest in the sum of both frequencies.
    """
    at = torch.arange(factor, dtype=torch.float64)
    basis = torch.cos(math.pi * at[:, None] * (at[None, :] + 0.5) / factor)
    basis = basis / basis.norm(dim=1, keepdim=True)
    order = sorted(((i, j) for i in range(factor) for j in range(factor)), key=lambda p: (p[0] + p[1], p[0]))
    return torch.stack([torch.outer(basis[i], basis[j]).flatten() for i, j in order[:channels]]).float()


class Mapping(nn.Module):
    """A linear map of every pixel's channels plus convolutions with residual blocks, which start as zero."""

    multiple_of = 1
    tile_exact = True

    def __init__(self, linear: Tensor, width: int, depth: int) -> None:
        """(outputs, inputs) of the linear map at the start; channels inside and number of blocks."""
        super().__init__()
        outputs, inputs = linear.shape
        self.linear = nn.Conv2d(inputs, outputs, 1, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(linear[:, :, None, None])
        self.head = nn.Conv2d(inputs, width, 3, padding=1)
        self.body = nn.Sequential(*[Block(width) for _ in range(depth)])
        self.tail = zero_init(nn.Conv2d(width, outputs, 3, padding=1))
        self.receptive_px = 2 * depth + 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w)."""
        out: Tensor = self.linear(x) + self.tail(self.body(F.relu(self.head(x))))
        return out


class Codec(nn.Module):
    """Images (B, 1, Y, X) to codes (B, channels, Y / factor, X / factor) and back.

    The code has mean 0 and spread 1 in every channel once `settle` was told what to expect, as a diffusion needs it.
    """

    shift: Tensor
    spread: Tensor

    def __init__(self, factor: int = 2, channels: int = 2, width: int = 32, depth: int = 2) -> None:
        """Fine pixels of a pixel of the code along an axis; numbers of the code there; sizes of both networks."""
        super().__init__()
        self.factor, self.channels = factor, channels
        basis = cosines(factor, channels)
        self.encoder, self.decoder = Mapping(basis, width, depth), Mapping(basis.T, width, depth)
        self.register_buffer("shift", torch.zeros(channels))
        self.register_buffer("spread", torch.ones(channels))
        self.receptive_px = self.encoder.receptive_px
        """Of either way, in pixels of the code."""

    def encode(self, x: Tensor) -> Tensor:
        """(B, 1, Y, X) to (B, channels, Y / factor, X / factor)."""
        code: Tensor = self.encoder(F.pixel_unshuffle(x, self.factor))
        return (code - self.shift[:, None, None]) / self.spread[:, None, None]

    def decode(self, code: Tensor) -> Tensor:
        """(B, channels, Y / factor, X / factor) to (B, 1, Y, X)."""
        code = code * self.spread[:, None, None] + self.shift[:, None, None]
        out: Tensor = F.pixel_shuffle(self.decoder(code), self.factor)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """There and back, (B, 1, Y, X) to the same."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def settle(self, x: Tensor) -> None:
        """Make the codes of images like these of mean 0 and spread 1; what comes back does not change.

        Parameters
        ----------
        x : (B, 1, Y, X), images of the kind that will be coded.
        """
        code = self.encode(x) * self.spread[:, None, None] + self.shift[:, None, None]
        self.shift.copy_(code.mean((0, 2, 3)))
        self.spread.copy_(code.std((0, 2, 3)).clamp_min(LEAST))
