"""U-ViT (Bao et al. 2023): patches and the level as tokens of one transformer, with long skips."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciresdiff.lab.backbones.attention import Feedforward, attend, heads_for, positions
from sciresdiff.lab.backbones.branch import pad_to_multiple
from sciresdiff.lab.backbones.modulation import CODE, Code
from sciresdiff.nets.resnet import zero_init

PATCH = 4
"""Side of a patch in pixels: 4096 tokens for 256 x 256 pixels."""
GROWTH = 4
"""Channels of a token, and those inside the feedforward, in widths of the layer before."""
HALO = 32
"""Pixels that are read around a tile; every one of them changes every output."""


class Block(nn.Module):
    """x + attention(norm x), then x + feedforward(norm x); before that, a skip is joined where there is one."""

    def __init__(self, width: int, skip: bool = False) -> None:
        """Channels of a token, and whether `forward` is given a skip."""
        super().__init__()
        self.join = nn.Linear(2 * width, width) if skip else None
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = Feedforward(width, GROWTH * width)
        self.heads = heads_for(width)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """(B, tokens, width) to the same."""
        if self.join is not None and skip is not None:
            x = self.join(torch.cat([x, skip], dim=-1))
        q, k, v = self.qkv(self.norms[0](x)).chunk(3, dim=-1)
        x = x + self.proj(attend(q, k, v, self.heads))
        return x + self.feed(self.norms[1](x))


class UViT(nn.Module):
    """Convolution, a transformer of patches of 4 x 4 pixels beside it, convolution of the sum of both.

    ``depth`` blocks, or the next odd number: half of them keep their tokens, one in the middle, half of them join what
    was kept, the last first.  A token has four times the channels of a pixel.  The positions are sinusoidal, so that
    any size goes; the pixels' own features pass by the patches.  4.8 million parameters at base.

    **Every output depends on the whole tile, and on where in the tile it is: tilings differ.**  ``receptive_px`` is no
    bound here, but what is read around a tile.
    """

    multiple_of = PATCH
    tile_exact = False
    receptive_px = HALO

    def __init__(self, inputs: int, outputs: int, width: int = 48, depth: int = 5) -> None:
        """Channels in and out, channels of a pixel, number of blocks."""
        super().__init__()
        inside, side = GROWTH * width, max(depth // 2, 1)
        self.code = Code()
        self.head = nn.Conv2d(inputs, width, 3, padding=1)
        self.patches = nn.Conv2d(width, inside, PATCH, stride=PATCH)
        self.level = nn.Linear(CODE, inside)
        self.left = nn.ModuleList([Block(inside) for _ in range(side)])
        self.middle = Block(inside)
        self.right = nn.ModuleList([Block(inside, skip=True) for _ in range(side)])
        self.norm = nn.LayerNorm(inside)
        self.pixels = nn.Linear(inside, PATCH**2 * width)
        self.tail = zero_init(nn.Conv2d(width, outputs, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w); the last three channels are constant maps."""
        h, w = x.shape[-2:]
        x = pad_to_multiple(x, self.multiple_of)
        level = self.level(self.code(x))
        x = self.head(x)
        # in float32: oneDNN's bfloat16 convolution of 4 x 4 at stride 4 is wrong for 16 channels on CPUs with AMX
        with torch.autocast(x.device.type, enabled=False):
            patches = self.patches(x.to(self.patches.weight.dtype))
        places = positions(patches.shape[2], patches.shape[3], patches.shape[1]).to(patches)
        tokens = self.transform(torch.cat([level[:, None], patches.flatten(2).mT + places], dim=1))[:, 1:]
        back = self.pixels(self.norm(tokens)).mT.unflatten(2, patches.shape[-2:])
        return self.tail(x + F.pixel_shuffle(back, PATCH))[..., :h, :w]

    def transform(self, tokens: Tensor) -> Tensor:
        """(B, tokens, 4 width) to the same."""
        skips = []
        for block in self.left:
            tokens = block(tokens)
            skips.append(tokens)
        tokens = self.middle(tokens)
        for block in self.right:
            tokens = block(tokens, skips.pop())
        return tokens
