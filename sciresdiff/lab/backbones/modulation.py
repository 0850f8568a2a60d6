"""Networks that know how noisy their input is: the last three input channels as a scale and a shift per channel.

The last three channels of every input are constant maps: in a refiner the three numbers of the noise level, in a prior
numbers of the kernel.  They are read at the first pixel, so that every tile reads the same and nothing is averaged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sciresdiff.nets.resnet import zero_init

NUMBERS = 3
"""Constant channels at the end of every input."""
CODE = 32
"""Length of the code that the numbers are turned into."""


class Code(nn.Module):
    """The three numbers of the level as a vector: linear, SiLU, linear, SiLU of asinh(numbers).

    The asinh keeps levels of variance-exploding methods (up to some hundreds) of order one.
    """

    def __init__(self, length: int = CODE) -> None:
        """Length of the vector."""
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(NUMBERS, length), nn.SiLU(), nn.Linear(length, length), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        """The whole input (B, inputs, h, w), of which the last three channels are constant, to (B, length)."""
        code: Tensor = self.layers(torch.asinh(x[:, -NUMBERS:, 0, 0]))
        return code


class FiLM(nn.Module):
    """v (1 + scale) + shift with scale and shift from a code (Perez et al. 2018); the identity at the start."""

    def __init__(self, width: int, length: int = CODE) -> None:
        """Channels to be modulated, and the length of the code."""
        super().__init__()
        self.linear = zero_init(nn.Linear(length, 2 * width))

    def numbers(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """(B, length) to scale and shift, (B, width) each: for features that are no maps, such as tokens."""
        scale, shift = self.linear(code).chunk(2, dim=1)
        return scale, shift

    def forward(self, v: Tensor, code: Tensor) -> Tensor:
        """Maps (B, width, h, w) and a code (B, length) to the maps, modulated."""
        scale, shift = (n[:, :, None, None].to(v.dtype) for n in self.numbers(code))
        return torch.addcmul(shift, v, 1 + scale)
