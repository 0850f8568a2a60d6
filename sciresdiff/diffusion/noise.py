"""Unit noise that is a pure function of (seed, draw, step, channel, y, x), so that tiles and resumed runs agree.

A 64-bit hash (SplitMix64's finaliser, Steele et al. 2014) of every pair of pixels in a row gives two uniforms, and
Box-Muller makes two independent normals of them.  The integers are the same on every device; logarithm and cosine
may differ in the last bit of a double, which the rounding to float32 hides but for about one pixel in 1e8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
CHUNK = 1 << 15
"""Pairs of pixels worked on at a time by a thread of a CPU; their buffers stay in its second-level cache."""
RADIUS_BITS, ANGLE_BITS = 40, 24
"""How the hash is shared out: the largest possible value is sqrt(82 ln 2) = 7.5, the angle is as fine as float32."""


def mix(z: int) -> int:
    """A bijection of 64-bit integers in which every bit of the answer depends on every bit of z."""
    z = (z + GOLDEN) & WORD
    z = ((z ^ (z >> 30)) * FIRST) & WORD
    z = ((z ^ (z >> 27)) * SECOND) & WORD
    return z ^ (z >> 31)


def key_of(*values: int) -> int:
    """A 64-bit key of integers of any size and sign; the order matters."""
    key = 0
    for value in values:
        while value not in (0, -1):
            key = mix(key ^ (value & WORD))
            value >>= 64
        key = mix(mix(key) ^ (value & WORD))
    return key


def _to_int64(z: int) -> int:
    """The int64 of the same bits."""
    return z - (1 << 64) if z >> 63 else z


def _fold(z: Tensor, bits: int, spare: Tensor) -> None:
    """z ^= z >>> bits, in place."""
    torch.bitwise_right_shift(z, bits, out=spare)
    z.bitwise_xor_(spare.bitwise_and_((1 << (64 - bits)) - 1))


def _mix(z: Tensor, spare: Tensor) -> None:
    """`mix` of every int64, in place."""
    z.add_(_to_int64(GOLDEN))
    _fold(z, 30, spare)
    z.mul_(_to_int64(FIRST))
    _fold(z, 27, spare)
    z.mul_(_to_int64(SECOND))
    _fold(z, 31, spare)


def _hash_range(key: int, start: int, count: int, device: torch.device | str) -> Tensor:
    """``mix(key ^ i)`` for i = start ... start + count - 1, int64."""
    z = torch.arange(start, start + count, dtype=torch.int64, device=device).bitwise_xor_(_to_int64(key))
    _mix(z, torch.empty_like(z))
    return z


def _box_muller(z: Tensor, spare: Tensor, out: Tensor) -> None:
    """Two normals of every int64 hash: z (rows, n) -> out (rows, n, 2) float32; z and spare are used up."""
    torch.bitwise_right_shift(z, ANGLE_BITS, out=spare)
    radius = spare.bitwise_and_((1 << RADIUS_BITS) - 1).double()
    radius.add_(0.5).mul_(2.0**-RADIUS_BITS).log_().mul_(-2).sqrt_()
    angle = z.bitwise_and_((1 << ANGLE_BITS) - 1).double().add_(0.5).mul_(2 * math.pi / 2**ANGLE_BITS)
    out[..., 0] = torch.cos(angle).mul_(radius)
    out[..., 1] = angle.sin_().mul_(radius)


def gaussian(
    seed: int,
    draw: int,
    step: int,
    channel: int,
    y0: int,
    x0: int,
    height: int,
    width: int,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Unit noise of a window of the frame: a window equals the same pixels of the whole frame bit for bit.

    Parameters
    ----------
    seed, draw, step, channel : integers of any size; each combination is a field of its own.
    y0, x0 : first row and column in whole-frame coordinates. height, width : pixels.

    Returns
    -------
    (height, width) float32, mean 0, variance 1, no value beyond 7.6.
    """
    key = key_of(seed, draw, step, channel)
    first, last = x0 >> 1, (x0 + width + 1) >> 1
    pairs = last - first
    rows = _hash_range(mix(key), y0, height, device)
    columns = _hash_range(mix(key ^ 1), first, pairs, device)
    field = torch.empty((height, pairs, 2), dtype=torch.float32, device=device)
    many = height if torch.device(device).type != "cpu" else max(1, CHUNK * torch.get_num_threads() // max(pairs, 1))
    for top in range(0, height, many):
        z = rows[top : top + many, None] ^ columns
        spare = torch.empty_like(z)
        _mix(z, spare)
        _box_muller(z, spare, field[top : top + many])
    return field.view(height, 2 * pairs)[:, x0 - 2 * first : x0 - 2 * first + width].contiguous()


def field(
    seed: int,
    draw: int,
    step: int,
    channels: int | Sequence[int],
    y0: int,
    x0: int,
    height: int,
    width: int,
    device: torch.device | str = "cpu",
) -> Tensor:
    """`gaussian` of several channels: the first n, or those that are listed.

    Returns
    -------
    (channels, height, width) float32
    """
    listed = range(channels) if isinstance(channels, int) else channels
    return torch.stack([gaussian(seed, draw, step, c, y0, x0, height, width, device) for c in listed])
