"""Local means and contrasts of an image, and what goes between a fine grid and one of blocks of its pixels."""

from __future__ import annotations

from typing import ClassVar

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


class BlockGrid:
    """A grid whose pixels are blocks of ``scale x scale`` fine ones: maps and noise of the one on the other."""

    scale: int
    """Fine pixels per coarse pixel and axis."""
    relative_area: ClassVar[float] = 1.0
    """Area of a coarse pixel over that of ``scale x scale`` fine ones: a tensor where coarse pixels differ."""

    def spread(self, coarse: Tensor) -> Tensor:
        """A map (B, C, h, w) of the coarse grid on the fine one, (B, C, s*h, s*w), by bilinear interpolation.

        For weights and flags: **sums are not conserved**.
        """
        return F.interpolate(coarse, scale_factor=float(self.scale), mode="bilinear")

    def gather(self, fine: Tensor) -> Tensor:
        """The largest value of a map (B, C, s*h, s*w) in every coarse pixel, (B, C, h, w)."""
        return F.max_pool2d(fine, self.scale)

    def average(self, fine: Tensor, radius: int) -> Tensor:
        """Means of a map (B, C, s*h, s*w) over the ``2 radius + 1`` coarse pixels around, one value a coarse pixel."""
        return upsample_nearest(box_mean(F.avg_pool2d(fine, self.scale), radius), self.scale)

    def spread_sigma(self, noise: Tensor) -> Tensor:
        """Standard deviation of a fine pixel (B, C, s*h, s*w) that the noise of its coarse one gives.

        Parameters
        ----------
        noise : (B, C, h, w) tensor
            Variances.

        Returns
        -------
        (B, C, s*h, s*w) tensor
            sigma / s^2: that of the mean over the pixel.
        """
        return upsample_nearest(noise.sqrt(), self.scale) / self.scale**2

    def contrast(self, fine: Tensor, noise: Tensor) -> Tensor:
        """How strongly an image varies about its local background, (B, C, s*h, s*w); see `local_contrast`."""
        return local_contrast(fine, noise, self.scale)[1]
