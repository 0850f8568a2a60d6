"""Noise units: the sky is zero and the noise of the sky is one, whatever unit a file has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class NoiseUnits:
    """The affine map between a frame's unit and noise units."""

    sky: float
    """Level of the sky, in the frame's unit."""
    sigma: float
    """Noise of a typical pixel, in the frame's unit."""
    per_fine: float
    """What one coarse value is divided by to give a fine one: s^2 for ``sum``, 1 for ``mean``."""
    scale: float
    """s, fine pixels per coarse pixel and axis."""

    def image(self, x: Tensor) -> NDArray[np.float32]:
        """A fine image (1, 1, Y, X) in noise units as (Y, X) in the frame's unit: s^2 sigma x / p + sky / p."""
        values = x.double() * (self.sigma * self.scale**2 / self.per_fine) + self.sky / self.per_fine
        return values.float().squeeze().cpu().numpy()

    def spread(self, x: Tensor) -> NDArray[np.float32]:
        """A fine standard deviation (1, 1, Y, X) in noise units as (Y, X) in the frame's unit."""
        return (x.double() * (self.sigma * self.scale**2 / self.per_fine)).float().squeeze().cpu().numpy()

    def noise_units(self, values: NDArray[np.floating], like: Tensor, spread: bool = False) -> Tensor:
        """The inverse of `image`, or of `spread`.

        Parameters
        ----------
        values : (Y, X), in the frame's unit.
        like : a tensor whose dtype and device the result has.
        spread : whether ``values`` are standard deviations, which have no sky.

        Returns
        -------
        (1, 1, Y, X)
        """
        sky = 0.0 if spread else self.sky
        noise = (values.astype(np.float64) * self.per_fine - sky) / (self.sigma * self.scale**2)
        return torch.from_numpy(noise)[None, None].to(like)
