"""What networks are fed with: local means and contrasts, and images moved between the two grids without loss."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import interp1d
from torch import Tensor

from sciresdiff.physics.local import box_mean, local_contrast, upsample_nearest
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.psf.width import moments_of_square

__all__ = [
    "asinh",
    "box_mean",
    "constant_maps",
    "local_contrast",
    "pixel_unshuffle",
    "psf_features",
    "stack_channels",
    "upsample_nearest",
]

LATTICE = 64
"""Output pixels between places at which a network is told of a PSF that changes over the field."""


def pixel_unshuffle(v: Tensor, scale: int) -> Tensor:
    """`F.pixel_unshuffle` of (B, 1, s*h, s*w) into channels-last memory, which convolutions want."""
    b, _, height, width = v.shape
    h, w = height // scale, width // scale
    cells = v.reshape(b, h, scale, w, scale).transpose(2, 3).reshape(b, h, w, scale**2)
    return cells.permute(0, 3, 1, 2)


def stack_channels(fine: Iterator[Tensor], coarse: list[Tensor], scale: int, channels: int) -> Tensor:
    """Fine images, unshuffled to the coarse grid, and coarse ones as the channels of one input (B, channels, h, w).

    Without gradients the fine images are made one by one, so that only one of them is in memory beside the result.

    Parameters
    ----------
    fine : (B, 1, s*h, s*w) each; every one gives s^2 channels.
    coarse : (B, 1, h, w) each.
    scale : s.
    channels : how many there are in all.
    """
    if torch.is_grad_enabled():
        return torch.cat([*(pixel_unshuffle(v, scale) for v in fine), *coarse], dim=1)
    size = (coarse[0].shape[0], channels, *coarse[0].shape[-2:])
    out = torch.empty(size, dtype=coarse[0].dtype, device=coarse[0].device, memory_format=torch.channels_last)
    at = 0
    for v in itertools.chain((pixel_unshuffle(v, scale) for v in fine), coarse):
        out[:, at : at + v.shape[1]] = v
        at += v.shape[1]
    return out


def constant_maps(numbers: Tensor, like: Tensor) -> list[Tensor]:
    """(B, n) numbers as n constant images of the size of ``like`` (B, 1, h, w); (B, n, h, w) are images already."""
    if numbers.ndim == 4:
        return list(numbers.split(1, dim=1))
    return list(numbers[:, :, None, None].expand(-1, -1, *like.shape[-2:]).split(1, dim=1))


def asinh(x: Tensor) -> Tensor:
    """asinh x = sign(x) log1p(|x| + x^2 / (1 + sqrt(1 + x^2))); without gradients in place.

    torch's own takes eight times as long.  The form keeps small values exact, where log(x + sqrt(1 + x^2)) loses them.
    """
    if torch.is_grad_enabled():
        return torch.asinh(x)
    for part in x.split(64, dim=-2):
        size = part.abs().clamp_max_(1e18)  # whose square is a float32
        square = size.square()
        root = (1 + square).sqrt_()
        part.copy_(square.div_(root.add_(1)).add_(size).log1p_().copysign_(part))
    return x


def psf_features(psf: PSF | None, scale: int) -> NDArray[np.float32]:
    """Four numbers that tell a network how wide a PSF is; images of them, where it changes over the field.

    Parameters
    ----------
    psf : on the output grid; None for none.
    scale : output pixels per coarse pixel.

    Returns
    -------
    (4,) float32 of `kernel_features`, or (4, h, w).
    """
    if psf is None or psf.weights is None:
        return kernel_features(np.ones((1, 1)) if psf is None else psf.kernels[0], scale)
    y, x = psf.lattice(LATTICE)
    numbers = np.array([[kernel_features(psf.at(v, u), scale) for u in x] for v in y], np.float64)
    middles = [scale * np.arange(n // scale) + (scale - 1) / 2 for n in psf.weights.shape[1:]]
    by_row = interp1d(y, numbers, axis=0)(middles[0])
    return np.moveaxis(interp1d(x, by_row, axis=1)(middles[1]), -1, 0).astype(np.float32)


def kernel_features(kernel: NDArray[np.float64], scale: int) -> NDArray[np.float32]:
    """How wide a kernel (K, L) is, in four numbers.

    The second moments of the squared kernel (the square keeps far wings from deciding) along y, x and across, and the
    noise-equivalent area 1 / sum k^2, in coarse pixels and as logarithms.

    Returns
    -------
    (4,) float32.
    """
    yy, xx, across = moments_of_square(kernel)
    xy = across / (yy + xx + 1e-9)
    area = kernel.sum() ** 2 / (kernel**2).sum() / scale**2
    logs = [np.log(0.05 + v / scale**2) for v in (yy, xx)]
    return np.array([*logs, xy, np.log(0.1 + area)], dtype=np.float32)
