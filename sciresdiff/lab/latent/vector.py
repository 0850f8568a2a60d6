"""DiffIR (Xia et al. 2023): a picture's vector, the network that guesses it, and the one that draws by it.

An encoder turns feature maps into one vector by a mean over the frame, so that all tiles of a frame share it.  A plain
network takes the vector and the level of the noise to the clean vector.  A residual network draws the image, every
block scaled and shifted by the vector (the paper's dynamic layers on a convolutional body of our own).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciresdiff.lab.backbones.modulation import FiLM
from sciresdiff.nets.resnet import Block, zero_init

LENGTH = 256
"""Numbers of the vector: 4 x 64 in the paper."""


class Encoder(nn.Module):
    """(B, inputs, h, w) to maps (B, width, h, w), whose mean over the frame `vector` turns into (B, length)."""

    multiple_of = 1
    tile_exact = True

    def __init__(self, inputs: int, length: int = LENGTH, width: int = 48, depth: int = 2) -> None:
        """Channels in, numbers of the vector, channels inside, blocks."""
        super().__init__()
        self.head = nn.Conv2d(inputs, width, 3, padding=1)
        self.body = nn.Sequential(*[Block(width) for _ in range(depth)])
        self.mix = nn.Sequential(nn.Linear(width, length), nn.SiLU(), nn.Linear(length, length))
        self.receptive_px, self.length = 2 * depth + 1, length

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to maps (B, width, h, w); they may be made in tiles."""
        out: Tensor = F.relu(self.body(F.relu(self.head(x))))
        return out

    def vector(self, features: Tensor) -> Tensor:
        """(B, width, h, w), the whole frame, to (B, length) of order one."""
        return F.layer_norm(self.mix(features.mean((2, 3))), (self.length,))


class Guess(nn.Module):
    """(noisy vector, the data's vector, level) -> the clean vector: linear layers with leaky ReLU."""

    def __init__(self, length: int = LENGTH, layers: int = 4) -> None:
        """Numbers of a vector, hidden layers."""
        super().__init__()
        sides = [2 * length + 3, *[length] * layers]
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in zip(sides, sides[1:], strict=False)])
        self.last = nn.Linear(length, length)

    def forward(self, noisy: Tensor, seen: Tensor, levels: Tensor) -> Tensor:
        """(B, length), (B, length), (B, 3) -> (B, length)."""
        v = torch.cat([noisy, seen, levels], dim=1)
        for layer in self.layers:
            v = F.leaky_relu(layer(v), 0.1)
        out: Tensor = self.last(v)
        return out


class Drawer(nn.Module):
    """Convolution, residual blocks each scaled and shifted by the vector, convolution; zero at the start."""

    multiple_of = 1
    tile_exact = True

    def __init__(self, inputs: int, outputs: int, length: int = LENGTH, width: int = 48, depth: int = 4) -> None:
        """Channels in and out, numbers of the vector, channels inside, blocks."""
        super().__init__()
        self.head = nn.Conv2d(inputs, width, 3, padding=1)
        self.body = nn.ModuleList([Block(width) for _ in range(depth)])
        self.by = nn.ModuleList([FiLM(width, length) for _ in range(depth)])
        self.tail = zero_init(nn.Conv2d(width, outputs, 3, padding=1))
        self.receptive_px = 2 * depth + 2

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """(B, inputs, h, w) and (B, length) to (B, outputs, h, w)."""
        x = F.relu(self.head(x))
        for block, by in zip(self.body, self.by, strict=True):
            x = block(by(x, vector))
        out: Tensor = self.tail(x)
        return out


class By(nn.Module):
    """A `Drawer` with its vector put in: a network of maps alone, which can be run in tiles."""

    def __init__(self, drawer: Drawer, vector: Tensor) -> None:
        """The drawer is shared, not copied."""
        super().__init__()
        self.drawer, self.vector = drawer, vector

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w)."""
        out: Tensor = self.drawer(x, self.vector)
        return out
