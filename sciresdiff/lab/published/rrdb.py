"""ESRGAN and Real-ESRGAN as published (Wang et al. 2018; Wang et al. 2021), under the names of their weights.

RRDBNet: a convolution, residual-in-residual dense blocks with a skip around them, nearest-neighbour doublings each
followed by a convolution, two convolutions; leaky ReLU of slope 0.2, residuals times 0.2.  Real-ESRGAN's x2 and x1
networks are the same after a pixel-unshuffle by 2 or 4.  The compact network of Real-ESRGAN's small models is a chain
of convolutions and PReLUs, a pixel-shuffle, and the input repeated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shapes = Mapping[str, tuple[int, ...]]

SLOPE = 0.2
RESIDUAL = 0.2


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def count(names: Shapes, pattern: str) -> int:
    """One more than the largest number that ``pattern`` catches at the start of a name; 0 where it matches nothing."""
    found = [int(match[1]) for name in names if (match := re.match(pattern, name))]
    return max(found, default=-1) + 1


class Dense(nn.Module):
    """x + 0.2 f(x); each of five convolutions sees x and all that the ones before it made."""

    def __init__(self, width: int, growth: int) -> None:
        """Channels, and those that each of the first four convolutions adds."""
        super().__init__()
        for k in range(4):
            self.add_module(f"conv{k + 1}", conv(width + k * growth, growth))
        self.conv5 = conv(width + 4 * growth, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) to the same."""
        seen = [x]
        for k in range(4):
            seen.append(F.leaky_relu_(self.get_submodule(f"conv{k + 1}")(torch.cat(seen, dim=1)), SLOPE))
        return torch.add(x, self.conv5(torch.cat(seen, dim=1)), alpha=RESIDUAL)


class Block(nn.Module):
    """x + 0.2 f(x), where f is three dense blocks."""

    def __init__(self, width: int, growth: int) -> None:
        """Channels and growth of the dense blocks."""
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (Dense(width, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) to the same."""
        return torch.add(x, self.rdb3(self.rdb2(self.rdb1(x))), alpha=RESIDUAL)


class RRDBNet(nn.Module):
    """(B, channels, h, w) in [0, 1] to (B, channels, scale h, scale w)."""

    def __init__(self, channels: int, width: int, growth: int, depth: int, doublings: int, unshuffle: int) -> None:
        """Colours; channels inside, growth, blocks; doublings at the end; the side of the pixel-unshuffle in front."""
        super().__init__()
        self.channels, self.unshuffle, self.doublings = channels, unshuffle, doublings
        self.scale, self.multiple_of = 2**doublings // unshuffle, unshuffle
        self.conv_first = conv(channels * unshuffle**2, width)
        self.body = nn.Sequential(*[Block(width, growth) for _ in range(depth)])
        self.conv_body = conv(width, width)
        for k in range(doublings):
            self.add_module(f"conv_up{k + 1}", conv(width, width))
        self.conv_hr, self.conv_last = conv(width, width), conv(width, channels)
        tail = sum(2.0 ** -(k + 1) for k in range(doublings)) + 2 * 2.0**-doublings  # of the grid before doubling
        self.receptive_px = unshuffle * (15 * depth + 2 + math.ceil(tail)) + unshuffle - 1

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to (B, channels, scale h, scale w); h and w are multiples of ``multiple_of``."""
        x = self.conv_first(F.pixel_unshuffle(x, self.unshuffle) if self.unshuffle > 1 else x)
        x = self.conv_body(self.body(x)).add_(x)
        for k in range(self.doublings):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = F.leaky_relu_(self.get_submodule(f"conv_up{k + 1}")(x), SLOPE)
        return self.conv_last(F.leaky_relu_(self.conv_hr(x), SLOPE))


def new_names(names: Shapes) -> dict[str, str]:
    """Names of the three generations of RRDB state dictionaries -> those of the newest (BasicSR's).

    ``model.1.sub.0.RDB1.conv1.0`` (2018, a sequence of numbered layers), ``RRDB_trunk.0.RDB1.conv1`` (2019) and
    ``body.0.rdb1.conv1``.  A name that is none of these is left as it is.
    """
    depth = count(names, r"model\.1\.sub\.(\d+)\.RDB1")
    ends = sorted({int(m[1]) for name in names if (m := re.match(r"model\.(\d+)\.(weight|bias)$", name))} - {0})
    last = {n: name for n, name in zip(ends[-2:], ("conv_hr", "conv_last"), strict=False)}
    tops = {0: "conv_first", **{n: f"conv_up{k + 1}" for k, n in enumerate(ends[:-2])}, **last}
    rules = [
        (rf"model\.1\.sub\.{depth}\.", "conv_body."),
        (r"(?:model\.1\.sub|RRDB_trunk)\.(\d+)\.RDB(\d)\.conv(\d)(?:\.0)?\.", r"body.\1.rdb\2.conv\3."),
        (r"trunk_conv\.", "conv_body."),
        (r"upconv(\d)\.", r"conv_up\1."),
        (r"HRconv\.", "conv_hr."),
        *((rf"model\.{n}\.(?=weight|bias)", f"{name}.") for n, name in tops.items()),
    ]
    return {name: rename(name, rules) for name in names}


def rename(name: str, rules: list[tuple[str, str]]) -> str:
    """A name with the first rule that matches its start applied."""
    for pattern, into in rules:
        if re.match(pattern, name):
            return re.sub("^" + pattern, into, name)
    return name


def rrdb_sizes(names: Shapes) -> dict[str, int] | None:
    """The arguments of `RRDBNet` that newest-style names and shapes tell; None where they are of another network."""
    if not {"conv_first.weight", "body.0.rdb1.conv1.weight", "conv_last.weight"} <= set(names):
        return None
    channels = names["conv_last.weight"][0]
    return {
        "channels": channels,
        "width": names["conv_first.weight"][0],
        "growth": names["body.0.rdb1.conv1.weight"][0],
        "depth": count(names, r"body\.(\d+)\."),
        "doublings": count(names, r"conv_up(\d+)\.") - 1,
        "unshuffle": math.isqrt(max(names["conv_first.weight"][1] // channels, 1)),
    }


class Compact(nn.Module):
    """Convolutions and PReLUs in a row, a pixel-shuffle, plus the input repeated over its fine pixels."""

    def __init__(self, channels: int, width: int, depth: int, scale: int) -> None:
        """Colours, channels inside, convolutions between the first and the last, scale."""
        super().__init__()
        self.channels, self.scale, self.multiple_of = channels, scale, 1
        layers: list[nn.Module] = [conv(channels, width), nn.PReLU(width)]
        for _ in range(depth):
            layers += [conv(width, width), nn.PReLU(width)]
        self.body = nn.Sequential(*layers, conv(width, channels * scale**2))
        self.receptive_px = depth + 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) in [0, 1] to (B, channels, scale h, scale w)."""
        return F.pixel_shuffle(self.body(x), self.scale) + F.interpolate(x, scale_factor=float(self.scale))


def compact_sizes(names: Shapes) -> dict[str, int] | None:
    """The arguments of `Compact` that names and shapes tell; None where they are of another network."""
    layers = count(names, r"body\.(\d+)\.(?:weight|bias)$")
    if layers < 3 or len(names.get("body.1.weight", ())) != 1 or f"body.{layers - 1}.weight" not in names:
        return None
    width, channels = names["body.0.weight"][:2]
    scale = math.isqrt(names[f"body.{layers - 1}.weight"][0] // channels)
    return {"channels": channels, "width": width, "depth": (layers - 3) // 2, "scale": scale}
