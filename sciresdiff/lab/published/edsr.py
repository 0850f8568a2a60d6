"""EDSR as published (Lim et al. 2017), under the names that its state dictionaries have in BasicSR.

A convolution, residual blocks without normalisation with a skip around them and a convolution, convolutions and
pixel-shuffles, a convolution; on (x - mean) * 255 with DIV2K's mean colour.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciresdiff.lab.published.rrdb import Shapes, conv, count

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean colour of the training set DIV2K, in [0, 1]."""


def mean_colour(channels: int) -> Tensor:
    """What is taken off before the network and added after it, (1, channels, 1, 1): zero unless there are three."""
    return torch.tensor(DIV2K_MEAN if channels == 3 else [0.0] * channels).view(1, channels, 1, 1)


def upsampler(width: int, scale: int) -> nn.Sequential:
    """Convolutions and pixel-shuffles: by 2 as often as needed, or once by 3."""
    layers: list[nn.Module] = []
    for factor in [3] if scale == 3 else [2] * int(math.log2(scale)):
        layers += [conv(width, factor**2 * width), nn.PixelShuffle(factor)]
    return nn.Sequential(*layers)


def upsampler_scale(names: Shapes) -> int:
    """The scale of an `upsampler`, from the shapes of its convolutions; 1 where there is none."""
    shapes = [shape for name, shape in names.items() if name.startswith("upsample.") and name.endswith(".weight")]
    return math.prod(math.isqrt(shape[0] // shape[1]) for shape in shapes)


def upsampler_reach(scale: int) -> int:
    """Coarse pixels that an `upsampler` and one more convolution look at."""
    if scale == 3:
        return 1 + 1
    return math.ceil(sum(2.0**-k for k in range(int(math.log2(scale)) + 1)))


class Residual(nn.Module):
    """x + r conv(relu(conv(x)))."""

    def __init__(self, width: int, factor: float) -> None:
        """Channels, and r."""
        super().__init__()
        self.factor, self.conv1, self.conv2 = factor, conv(width, width), conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) to the same."""
        return torch.add(x, self.conv2(F.relu_(self.conv1(x))), alpha=self.factor)


class EDSRNet(nn.Module):
    """(B, channels, h, w) in [0, 1] to (B, channels, scale h, scale w)."""

    multiple_of = 1

    def __init__(self, channels: int, width: int, depth: int, scale: int) -> None:
        """Colours, channels inside, blocks, scale.

        The shapes do not tell the factor of the residuals: it is 0.1 at 256 channels and 1 below, as in the paper.
        """
        super().__init__()
        self.channels, self.scale = channels, scale
        self.conv_first = conv(channels, width)
        self.body = nn.Sequential(*[Residual(width, 0.1 if width >= 256 else 1.0) for _ in range(depth)])
        self.conv_after_body = conv(width, width)
        self.upsample = upsampler(width, scale)
        self.conv_last = conv(width, channels)
        self.receptive_px = 2 * depth + 2 + upsampler_reach(scale)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to (B, channels, scale h, scale w), for any h and w."""
        mean = mean_colour(self.channels).to(x)
        x = self.conv_first((x - mean) * 255)
        return self.conv_last(self.upsample(self.conv_after_body(self.body(x)) + x)) / 255 + mean


def edsr_sizes(names: Shapes) -> dict[str, int] | None:
    """The arguments of `EDSRNet` that names and shapes tell; None where they are of another network."""
    if not {"conv_first.weight", "body.0.conv1.weight", "conv_after_body.weight", "upsample.0.weight"} <= set(names):
        return None
    width, channels = names["conv_first.weight"][:2]
    depth = count(names, r"body\.(\d+)\.")
    return {"channels": channels, "width": width, "depth": depth, "scale": upsampler_scale(names)}
