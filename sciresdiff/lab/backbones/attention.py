"""What the networks with attention are made of: windows, attention within them, positions, and how far they look.

Maps are (B, h, w, channels) here.  Windows lie on the grid of the frame; where they are shifted, the map is padded and
the padding is masked.  A roll around the tile, as Swin transformers have it, would join opposite borders of the tile,
and tiles would see each other's borders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciresdiff.lab.backbones.modulation import FiLM

WINDOW = 8
"""Side of a window, in pixels of its grid."""
HEAD = 16
"""Channels of a head of the attention."""

Span = tuple[int, int]
Step = Callable[[Span], Span]


def looks(radius: int) -> Step:
    """A convolution: what depends on pixels a to b of an axis, afterwards, are a - radius to b + radius."""
    return lambda span: (span[0] - radius, span[1] + radius)


def within(window: int, shift: int = 0) -> Step:
    """Attention in windows: everything in the windows that a to b touch."""

    def step(span: Span) -> Span:
        first, last = ((at + shift) // window for at in span)
        return first * window - shift, (last + 1) * window - shift - 1

    return step


def down(factor: int) -> Step:
    """To cells of ``factor`` pixels."""
    return lambda span: (span[0] // factor, span[1] // factor)


def up(factor: int) -> Step:
    """From cells to their ``factor`` pixels each."""
    return lambda span: (span[0] * factor, span[1] * factor + factor - 1)


def reach(steps: Sequence[Step], period: int) -> int:
    """How far away a pixel may be that depends on another; the steps repeat themselves every ``period`` pixels."""
    far = 0
    for at in range(period):
        span = (at, at)
        for step in steps:
            span = step(span)
        far = max(far, at - span[0], span[1] - at)
    return far


def heads_for(width: int) -> int:
    """Number of heads of about `HEAD` channels that divide ``width``."""
    return next(n for n in range(max(width // HEAD, 1), 0, -1) if width % n == 0)


def split_windows(x: Tensor, window: int) -> Tensor:
    """(B, h, w, C) -> (B * windows, window^2, C)."""
    b, h, w, c = x.shape
    x = x.view(b, h // window, window, w // window, window, c).transpose(2, 3)
    return x.reshape(-1, window**2, c)


def merge_windows(x: Tensor, window: int, h: int, w: int) -> Tensor:
    """The inverse of `split_windows`: (B * windows, window^2, C) -> (B, h, w, C).

    Parameters
    ----------
    window : side of a window, divides h and w. h, w : size of the map.
    """
    x = x.view(-1, h // window, w // window, window, window, x.shape[-1]).transpose(2, 3)
    return x.reshape(-1, h, w, x.shape[-1])


def split_shifted(x: Tensor, window: int, shift: int) -> Tensor:
    """Windows of a grid that is shifted; it goes beyond the map, and the windows have zeros there.

    Parameters
    ----------
    x : (B, h, w, C), multiples of the window. window : side. shift : up and to the left, 0 for none.

    Returns
    -------
    (B windows, window^2, C)
    """
    if shift:
        x = F.pad(x, (0, 0, shift, window - shift, shift, window - shift))
    return split_windows(x, window)


def merge_shifted(x: Tensor, window: int, shift: int, h: int, w: int) -> Tensor:
    """The inverse of `split_shifted`: (B windows, window^2, C) -> (B, h, w, C).

    Parameters
    ----------
    window, shift : as they were split. h, w : size of the map.
    """
    if not shift:
        return merge_windows(x, window, h, w)
    return merge_windows(x, window, h + window, w + window)[:, shift : shift + h, shift : shift + w]


def beyond_map(h: int, w: int, window: int, shift: int, device: torch.device) -> Tensor | None:
    """The places of every window that lie beyond the map, bool (windows, window^2); None where there are none."""
    if not shift:
        return None
    return split_shifted(torch.ones(1, h, w, 1, device=device), window, shift).squeeze(-1) == 0


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v, head by head (Vaswani et al. 2017, equation 1).

    Parameters
    ----------
    q, k, v : (N, places, C), d = C / heads. bias : broadcast to (N, heads, places, places); -inf masks a key.
    """
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    mask = None if bias is None else bias.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def mask_bias(bias: Tensor, gone: Tensor | None, count: int) -> Tensor:
    """A bias (heads, places, keys) with -inf for the keys that are gone, for ``count`` windows.

    Parameters
    ----------
    gone : bool (windows, keys), the same for every image of the batch, or None. count : images times windows.
    """
    if gone is None:
        return bias[None]
    hidden = torch.zeros_like(gone, dtype=bias.dtype).masked_fill_(gone, -torch.inf)
    full = bias[None] + hidden[:, None, None, :]
    return full.expand(count // len(gone), *full.shape).flatten(0, 1)


def positions(h: int, w: int, width: int) -> Tensor:
    """Sines and cosines of row and column, (h w, width); a quarter of the channels each, zeros for what is left over.

    Wavelengths grow from 2 pi to 2 pi 10 000 cells (Vaswani et al. 2017, section 3.5), so no size is special.
    """
    quarter = width // 4
    rate = torch.exp(torch.arange(quarter) * (-torch.log(torch.tensor(1e4)) / max(quarter, 1)))
    y, x = (torch.arange(n)[:, None] * rate for n in (h, w))
    rows = torch.cat([y.sin(), y.cos()], dim=1)[:, None].expand(-1, w, -1)
    columns = torch.cat([x.sin(), x.cos()], dim=1)[None].expand(h, -1, -1)
    return F.pad(torch.cat([rows, columns], dim=2).flatten(0, 1), (0, width - 4 * quarter))


class LevelNorm(nn.Module):
    """Every pixel's channels brought to mean 0 and variance 1, then modulated by the level; no statistic of tiles."""

    def __init__(self, width: int) -> None:
        """Number of channels."""
        super().__init__()
        self.norm, self.film = nn.LayerNorm(width), FiLM(width)

    def forward(self, v: Tensor, code: Tensor) -> Tensor:
        """(B, h, w, width) and the code of the level, to the same."""
        v = self.norm(v)
        scale, shift = (n[:, None, None].to(v.dtype) for n in self.film.numbers(code))
        return torch.addcmul(shift, v, 1 + scale)


class Feedforward(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        """Channels outside and inside."""
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same."""
        return self.fc2(F.gelu(self.fc1(x)))


def relative_index(window: int) -> Tensor:
    """Row of the bias table for every pair of places in a window, (window^2, window^2): dy (2 window - 1) + dx."""
    y, x = (v.flatten() for v in torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"))
    dy, dx = y[:, None] - y[None, :], x[:, None] - x[None, :]
    return (dy + window - 1) * (2 * window - 1) + dx + window - 1


class RelativeBias(nn.Module):
    """A learned number for every head and every offset between two places of a window; zero at the start."""

    def __init__(self, window: int, heads: int) -> None:
        """Side of the window, and heads."""
        super().__init__()
        self.table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("index", relative_index(window), persistent=False)
        self.index: Tensor

    def forward(self) -> Tensor:
        """(heads, window^2, window^2)."""
        return self.table[self.index].permute(2, 0, 1)


class WindowAttention(nn.Module):
    """Attention among the pixels of a window, of queries, keys and values that were made elsewhere."""

    def __init__(self, width: int, shift: int = 0, window: int = WINDOW) -> None:
        """Channels, by how much the windows are shifted, their side."""
        super().__init__()
        self.window, self.shift, self.heads = window, shift, heads_for(width)
        self.bias = RelativeBias(window, self.heads)
        self.proj = nn.Linear(width, width)

    def forward(self, qkv: Tensor) -> Tensor:
        """(B, h, w, 3 width) to (B, h, w, width); h and w are multiples of the window."""
        h, w = qkv.shape[1:3]
        q, k, v = split_shifted(qkv, self.window, self.shift).chunk(3, dim=-1)
        gone = beyond_map(h, w, self.window, self.shift, qkv.device)
        out = attend(q, k, v, self.heads, mask_bias(self.bias(), gone, len(q)))
        return self.proj(merge_shifted(out, self.window, self.shift, h, w))
