"""Local means and contrasts of an image, and values of coarse pixels repeated over their fine ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def local_contrast(x: Tensor, noise: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """The local background, and how strongly the image varies about it.

    What a network sees is (x - background) / amplitude: the same whatever the brightness.

    Parameters
    ----------
    x : (B, 1, s*h, s*w), noise units.
    noise : (B, 1, h, w), variance of the coarse pixels.
    scale : s.

    Returns
    -------
    background and amplitude, both (B, 1, s*h, s*w): the mean over five coarse pixels, and the root mean square
    deviation from it over 3 x 3 fine pixels, never below the noise spread over the coarse pixel.
    """
    # A plane of light is background wherever its slope is; without the floor empty sky would be divided by nothing.
    background = F.interpolate(box_mean(F.avg_pool2d(x, scale), 2), scale_factor=float(scale), mode="bilinear")
    floor = upsample_nearest(noise, scale) / scale**4
    return background, (box_mean((x - background).square(), 1) + floor).sqrt()


def box_mean(v: Tensor, radius: int) -> Tensor:
    """Mean over a square of 2 radius + 1 pixels, of those inside the image; one axis after the other.

    Parameters
    ----------
    v : (..., Y, X).
    radius : 0 gives v.
    """
    for axis in (-2, -1):
        size = v.shape[axis]
        total = v.clone()
        for k in range(1, min(radius, size - 1) + 1):
            total.narrow(axis, k, size - k).add_(v.narrow(axis, 0, size - k))
            total.narrow(axis, 0, size - k).add_(v.narrow(axis, k, size - k))
        at = torch.arange(size, device=v.device)
        inside = (1 + at.clamp_max(radius) + (size - 1 - at).clamp_max(radius)).to(v.dtype)
        v = total / (inside[:, None] if axis == -2 else inside)
    return v


def upsample_nearest(coarse: Tensor, scale: int) -> Tensor:
    """Every coarse pixel of (B, C, h, w) repeated over its fine pixels, (B, C, s*h, s*w)."""
    return F.interpolate(coarse, scale_factor=float(scale), mode="nearest")
