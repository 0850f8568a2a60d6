"""SwinIR as published (Liang et al. 2021), under the names of its state dictionaries.

A convolution; residual groups of Swin transformer layers (attention in windows that shift by half a window in every
second layer, with a learned bias per relative position) and a convolution; then one of three up-samplers: pixel-shuffle
(classical), a single pixel-shuffle (lightweight), nearest neighbours and convolutions (real-world).

A window starts on a multiple of its side, so tiles have to, too (``multiple_of``); every layer looks half a window
further.  Frames are continued by reflection to whole windows.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciresdiff.lab.backbones.attention import Feedforward, merge_windows, relative_index, split_windows
from sciresdiff.lab.published.edsr import mean_colour, upsampler, upsampler_reach, upsampler_scale
from sciresdiff.lab.published.rrdb import SLOPE, Shapes, conv, count

UPSAMPLERS = ("pixelshuffle", "pixelshuffledirect", "nearest+conv")
INSIDE = 64
"""Channels of the last convolutions."""


@lru_cache(maxsize=2)
@torch.inference_mode(False)  # what is kept may serve a training, too
def shift_mask(h: int, w: int, window: int) -> Tensor:
    """-100 between places of a shifted window that are no neighbours in the image, (windows, window^2, window^2)."""

    def region(length: int) -> Tensor:
        at = torch.arange(length)
        return (at >= length - window).long() + (at >= length - window // 2).long()

    label = (3 * region(h)[:, None] + region(w)[None, :])[None, :, :, None].float()
    flat = split_windows(label, window).squeeze(-1)
    return torch.where(flat[:, :, None] == flat[:, None, :], 0.0, -100.0)


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d) + bias) v within a window."""

    def __init__(self, width: int, window: int, heads: int) -> None:
        """Channels, side of a window, heads."""
        super().__init__()
        self.window, self.heads = window, heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B * windows, window^2, width) to the same."""
        n, places, width = x.shape
        q, k, v = self.qkv(x).view(n, places, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        index = relative_index(self.window).to(x.device)
        bias = self.relative_position_bias_table[index].permute(2, 0, 1)[None]
        if mask is not None:
            bias = bias + mask.to(x).repeat(n // len(mask), 1, 1)[:, None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return self.proj(out.transpose(1, 2).reshape(n, places, width))


class Layer(nn.Module):
    """x + attention(norm x), x + feedforward(norm x)."""

    def __init__(self, width: int, window: int, heads: int, hidden: int, shift: int) -> None:
        """Sizes, and by how much the windows are shifted."""
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = Attention(width, window, heads), Feedforward(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, width) to the same."""
        h, w, s = x.shape[1], x.shape[2], self.shift
        y = self.norm1(x)
        if s:
            y = y.roll((-s, -s), (1, 2))
        y = self.attn(split_windows(y, self.window), shift_mask(h, w, self.window) if s else None)
        y = merge_windows(y, self.window, h, w)
        x = x + (y.roll((s, s), (1, 2)) if s else y)
        return x + self.mlp(self.norm2(x))


class Layers(nn.Module):
    """Layers whose windows are shifted in every second one."""

    def __init__(self, width: int, depth: int, window: int, heads: int, hidden: int) -> None:
        """Sizes of a group."""
        super().__init__()
        half = window // 2
        self.blocks = nn.Sequential(*[Layer(width, window, heads, hidden, half * (k % 2)) for k in range(depth)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, width) to the same."""
        return self.blocks(x)


def connection(width: int, convolutions: int) -> nn.Module:
    """One 3 x 3 convolution, or three through a quarter of the channels (the large real-world network)."""
    if convolutions == 1:
        return conv(width, width)
    narrow, slope = width // 4, SLOPE
    return nn.Sequential(
        conv(width, narrow), nn.LeakyReLU(slope), nn.Conv2d(narrow, narrow, 1), nn.LeakyReLU(slope), conv(narrow, width)
    )


class Group(nn.Module):
    """x + conv(layers(x))."""

    def __init__(self, width: int, depth: int, window: int, heads: int, hidden: int, convolutions: int) -> None:
        """Sizes of a group, and of its `connection`."""
        super().__init__()
        self.residual_group = Layers(width, depth, window, heads, hidden)
        self.conv = connection(width, convolutions)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, width) to the same."""
        return x + self.conv(self.residual_group(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Embedding(nn.Module):
    """The normalisation after the first convolution."""

    def __init__(self, width: int) -> None:
        """Channels."""
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, width) to the same."""
        return self.norm(x)


class SwinIRNet(nn.Module):
    """(B, channels, h, w) in [0, 1] to (B, channels, scale h, scale w)."""

    def __init__(
        self,
        channels: int,
        width: int,
        depths: list[int],
        heads: int,
        window: int,
        hidden: int,
        convolutions: int,
        upsampler_: str,
        scale: int,
    ) -> None:
        """Colours, channels inside, layers of each group, heads, side of a window, channels of the feedforward,
        convolutions of a `connection`, one of UPSAMPLERS, scale."""
        super().__init__()
        self.channels, self.scale, self.multiple_of, self.kind = channels, scale, window, upsampler_
        self.conv_first = conv(channels, width)
        self.patch_embed = Embedding(width)
        self.layers = nn.Sequential(*[Group(width, d, window, heads, hidden, convolutions) for d in depths])
        self.norm = nn.LayerNorm(width)
        self.conv_after_body = connection(width, convolutions)
        self._end(width)
        reach = 2 * (len(depths) + 1) if convolutions == 3 else len(depths) + 1
        half = window - window // 2
        self.receptive_px = 1 + window + half * sum(depths) + reach + upsampler_reach(4)

    def _end(self, width: int) -> None:
        """The layers of the up-sampler."""
        if self.kind == "pixelshuffledirect":
            layers = [conv(width, self.channels * self.scale**2), nn.PixelShuffle(self.scale)]
            self.upsample = nn.Sequential(*layers)
            return
        self.conv_before_upsample = nn.Sequential(conv(width, INSIDE), nn.LeakyReLU())
        if self.kind == "pixelshuffle":
            self.upsample = upsampler(INSIDE, self.scale)
        else:
            for k in range(int(math.log2(self.scale))):
                self.add_module(f"conv_up{k + 1}", conv(INSIDE, INSIDE))
            self.conv_hr = conv(INSIDE, INSIDE)
        self.conv_last = conv(INSIDE, self.channels)

    def enlarge(self, x: Tensor) -> Tensor:
        """Features (B, width, h, w) to the fine image (B, channels, scale h, scale w)."""
        if self.kind == "pixelshuffledirect":
            return self.upsample(x)
        x = self.conv_before_upsample(x)
        if self.kind == "pixelshuffle":
            return self.conv_last(self.upsample(x))
        for k in range(int(math.log2(self.scale))):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = F.leaky_relu_(self.get_submodule(f"conv_up{k + 1}")(x), SLOPE)
        return self.conv_last(F.leaky_relu_(self.conv_hr(x), SLOPE))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to (B, channels, scale h, scale w); h and w are multiples of ``multiple_of``."""
        mean = mean_colour(self.channels).to(x)
        x = self.conv_first(x - mean)
        y = self.norm(self.layers(self.patch_embed(x.permute(0, 2, 3, 1))))
        return self.enlarge(self.conv_after_body(y.permute(0, 3, 1, 2)) + x) + mean


def swinir_sizes(names: Shapes) -> dict[str, object] | None:
    """The arguments of `SwinIRNet` that names and shapes tell; None where they are of another network."""
    first = "layers.0.residual_group.blocks.0."
    table, fc1 = names.get(first + "attn.relative_position_bias_table"), names.get(first + "mlp.fc1.weight")
    if table is None or fc1 is None or "conv_first.weight" not in names:
        return None
    width, channels = names["conv_first.weight"][:2]
    kind, scale = end_of(names, channels)
    groups = range(count(names, r"layers\.(\d+)\."))
    return {
        "channels": channels,
        "width": width,
        "depths": [count(names, rf"layers\.{g}\.residual_group\.blocks\.(\d+)\.") for g in groups],
        "heads": table[1],
        "window": (math.isqrt(table[0]) + 1) // 2,
        "hidden": fc1[0],
        "convolutions": 3 if "conv_after_body.0.weight" in names else 1,
        "upsampler_": kind,
        "scale": scale,
    }


def end_of(names: Shapes, channels: int) -> tuple[str, int]:
    """Which up-sampler the names are of, and its scale; the scale is 1 for a network that only denoises."""
    if "conv_hr.weight" in names:
        return "nearest+conv", 4 if "conv_up2.weight" in names else 2
    if "conv_before_upsample.0.weight" in names:
        return "pixelshuffle", upsampler_scale(names)
    direct = names.get("upsample.0.weight")
    return "pixelshuffledirect", math.isqrt(direct[0] // channels) if direct else 1


def swinir_names(names: Shapes) -> dict[str, str]:
    """The names without the tables that follow from the sizes."""
    return {name: name for name in names if not name.endswith(("relative_position_index", "attn_mask"))}
