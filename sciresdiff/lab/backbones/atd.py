"""ATD (Zhang et al. 2024): a dictionary of tokens that every pixel asks, and that says which pixels ask each other."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciresdiff.lab.backbones.attention import HEAD, WINDOW, Feedforward, LevelNorm, WindowAttention, attend, heads_for
from sciresdiff.lab.backbones.branch import pad_to_multiple
from sciresdiff.lab.backbones.modulation import Code
from sciresdiff.nets.resnet import zero_init

TOKENS = 64
"""Entries of the dictionary; the published light network has as many."""
GROUP = WINDOW**2
"""Pixels of a category that ask each other.  A map of whole windows has whole groups."""
GROWTH = 2
"""Channels inside the feedforward, in widths."""
HALO = 32
"""Pixels that are read around a tile; every one of them may change every output."""


def category_order(category: Tensor) -> Tensor:
    """The order that puts pixels of one category side by side, those of equal category in the order of the image.

    Stable, because the order of equal ones would otherwise be the machine's choice, and so would the groups.

    Parameters
    ----------
    category : integers, (B, pixels).

    Returns
    -------
    Indices of pixels, (B, pixels).
    """
    return torch.sort(category, dim=1, stable=True).indices


def attend_in_categories(qkv: Tensor, category: Tensor, heads: int) -> Tensor:
    """Attention within groups of `GROUP` pixels that follow each other once the pixels are sorted by category.

    Parameters
    ----------
    qkv : (B, pixels, 3 C), a multiple of `GROUP` pixels. category : integers, (B, pixels).

    Returns
    -------
    (B, pixels, C), in the order of the image.
    """
    order = category_order(category)[..., None]
    groups = qkv.gather(1, order.expand(qkv.shape)).unflatten(1, (-1, GROUP)).flatten(0, 1)
    q, k, v = groups.chunk(3, dim=-1)
    out = attend(q, k, v, heads).unflatten(0, (len(qkv), -1)).flatten(1, 2)
    return torch.zeros_like(out).scatter(1, order.expand(out.shape), out)


class DictionaryAttention(nn.Module):
    """softmax(cos(q, k) (1 + clip(tau, 0, 1) ln M)) v: pixels ask, the M tokens of the dictionary answer.

    The temperature is learned per token.  Queries, keys and similarities keep their precision under autocast: the
    categories are decided by them, and half precision would make ties.
    """

    def __init__(self, width: int) -> None:
        """Channels; queries and keys have fewer."""
        super().__init__()
        narrow = max(width // 4, HEAD // 2)
        self.q, self.k, self.v = nn.Linear(width, narrow), nn.Linear(width, narrow), nn.Linear(width, width)
        self.tau = nn.Parameter(torch.full((TOKENS,), 0.5))

    def forward(self, x: Tensor, dictionary: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (B, n, width) and tokens (B, M, width) to the answers (B, n, width) and the similarities (B, n, M)."""
        with torch.autocast(x.device.type, enabled=False):
            exact = self.q.weight.dtype
            q, k = (F.normalize(v, dim=-1) for v in (self.q(x.to(exact)), self.k(dictionary.to(exact))))
            likeness = (q @ k.mT) * (1 + self.tau.clamp(0, 1) * math.log(TOKENS))
        return likeness.softmax(dim=-1) @ self.v(dictionary), likeness


def refine_tokens(dictionary: Tensor, likeness: Tensor, x: Tensor, share: Tensor) -> Tensor:
    """(1 - share) D + share softmax(norm(A^T)) X: tokens become more like the pixels that ask them.

    Parameters
    ----------
    dictionary : D, (B, M, C). likeness : A, (B, n, M); normalised and softened over the pixels.
    x : pixels, (B, n, C). share : (M, 1), in [0, 1].
    """
    centred = likeness - likeness.mean(dim=1, keepdim=True)
    normal = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
    answer = (normal.softmax(dim=1).mT @ x).to(dictionary.dtype)
    return torch.lerp(dictionary, answer, share)


class ATDLayer(nn.Module):
    """x + the dictionary's answer + attention in the category + attention in the window, then x + feedforward."""

    def __init__(self, width: int, shift: int) -> None:
        """Channels, and by how much the windows are shifted."""
        super().__init__()
        self.norms = nn.ModuleList([LevelNorm(width) for _ in range(2)])
        self.ask = DictionaryAttention(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.window = WindowAttention(width, shift)
        self.feed = Feedforward(width, GROWTH * width)
        self.heads = heads_for(width)

    def forward(self, x: Tensor, dictionary: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """(B, h, w, width), tokens (B, M, width) and the code of the level, to the map and the similarities."""
        v = self.norms[0](x, code)
        answer, likeness = self.ask(v.flatten(1, 2), dictionary)
        qkv = self.qkv(v)
        category = self.proj(attend_in_categories(qkv.flatten(1, 2), likeness.argmax(dim=-1), self.heads))
        x = x + (answer + category).view_as(x) + self.window(qkv)
        return x + self.feed(self.norms[1](x, code)), likeness


class ATDGroup(nn.Module):
    """x + conv(layers(x)), of two layers with a dictionary that the first refines for the second."""

    def __init__(self, width: int) -> None:
        """Channels."""
        super().__init__()
        self.dictionary = nn.Parameter(torch.randn(TOKENS, width))
        self.share = nn.Parameter(torch.full((TOKENS, 1), -3.0))
        self.first, self.second = ATDLayer(width, 0), ATDLayer(width, WINDOW // 2)
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """(B, width, h, w) and the code of the level, to the same."""
        dictionary = self.dictionary.expand(len(x), -1, -1)
        v, likeness = self.first(x.permute(0, 2, 3, 1), dictionary, code)
        dictionary = refine_tokens(dictionary, likeness, v.flatten(1, 2), self.share.sigmoid())
        v, _ = self.second(v, dictionary, code)
        return self.conv(v.permute(0, 3, 1, 2)).add_(x)


class ATD(nn.Module):
    """Convolution, ``depth`` groups and a convolution with a skip around them, convolution.

    Windows as in `sciresdiff.lab.backbones.swinir`.  0.80 million parameters at base.

    **The dictionary is refined by, and the categories are sorted over, the whole tile: tilings differ.**
    ``receptive_px`` is no bound here, but what is read around a tile.
    """

    multiple_of = WINDOW
    tile_exact = False
    receptive_px = HALO

    def __init__(self, inputs: int, outputs: int, width: int = 48, depth: int = 4) -> None:
        """Channels in and out, channels inside, number of groups."""
        super().__init__()
        self.code = Code()
        self.head = nn.Conv2d(inputs, width, 3, padding=1)
        self.body = nn.ModuleList([ATDGroup(width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.join = nn.Conv2d(width, width, 3, padding=1)
        self.tail = zero_init(nn.Conv2d(width, outputs, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w); the last three channels are constant maps."""
        h, w = x.shape[-2:]
        x = pad_to_multiple(x, self.multiple_of)
        code = self.code(x)
        first = v = self.head(x)
        for group in self.body:
            v = group(v, code)
        v = self.norm(v.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.tail(torch.add(first, self.join(v)))[..., :h, :w]
