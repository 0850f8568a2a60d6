"""The units in which a refiner draws: differences to an image that is known beforehand, in units of its error.

Every method runs in z = (x - mean) / scale, so that one network serves every brightness; a method's anchor and weight
are brought to the same units.  Most methods diffuse z itself; those of `sciresdiff.lab.latent` diffuse a code of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from sciresdiff.diffusion.method import Method
from sciresdiff.diffusion.path import NoiseLevel
from sciresdiff.diffusion.weight import DynamicScale
from sciresdiff.physics.consistency import Data
from sciresdiff.restoration.prior import Estimate

CUT = 30.0
"""Scales beyond which no scale was right; a truth is cut there in training."""


@dataclass(frozen=True)
class ResidualSpace:
    """The units that a method is run in, and its anchor and weight in them; all (B, 1, s*h, s*w)."""

    mean: Tensor
    """The image that is known beforehand, noise units."""
    scale: Tensor
    """The unit, noise units, > 0."""
    mu: Tensor
    """The method's anchor, in these units."""
    w: Tensor
    """The scale of the method's noise, in these units."""
    up: Tensor
    """The interpolated frame, as an image."""
    cut: float = CUT
    """Largest |z| of a truth in training."""

    def state(self, x: Tensor, p: NoiseLevel) -> Tensor:
        """A state of images as one of z: x_t - (a + b) mean, in units.

        a x + b mu = (a + b) mean + scale (a z + b mu_z), so that the same path holds for z.

        Parameters
        ----------
        x : (B, 1, s*h, s*w), the state at level p. p : one level, or of shape (B, 1, 1, 1).
        """
        return (x - (p.a + p.b) * self.mean) / self.scale

    def truth(self, x: Tensor) -> Tensor:
        """An image, (B, 1, s*h, s*w), in these units; **beyond ``cut`` it is cut**."""
        return ((x - self.mean) / self.scale).clamp(-self.cut, self.cut)

    def image(self, z: Tensor) -> Tensor:
        """An estimate of z_0, (B, 1, s*h, s*w), as an image."""
        return self.mean + self.scale * z


def residual_space(method: Method, data: Data, prior: Estimate) -> ResidualSpace:
    """The units of a method around a prior's estimate: the prior's mean and scale.

    A ``residual`` space has its ``base`` for the mean and ``gain`` times finer units (SRDiff, Li et al. 2021:
    r = gain (x - base)); **a detail beyond ``clip`` is not learned**.

    Parameters
    ----------
    data : (B, 1, h, w) tensors in noise units. prior : its images (B, 1, s*h, s*w).
    """
    s, numbers = data.scale, method.space_params
    # y is a sum over s^2 fine pixels
    up = F.interpolate(data.y * data.valid, scale_factor=float(s), mode="bicubic") / s**2
    mean = up if numbers.get("base") == "up" else prior.x
    scale = prior.w / numbers["gain"] if "gain" in numbers else prior.w
    mu = (method.anchor_image(prior.x, up) - mean) / scale
    w = method.noise_scale(prior.x, prior.w, up) / prior.w
    return ResidualSpace(mean, scale, mu, w, up, float(numbers.get("clip", CUT)))


def noise_scale(method: Method, space: ResidualSpace, alpha: Tensor | None, image: bool) -> Tensor | DynamicScale:
    """The scale of a method's noise as `diffusion.sampler.sample` and `train_pair` take it.

    Parameters
    ----------
    alpha : share of the edges in a weight that follows the image, if it is learned.
    image : in units of the image (sampling), else in those of ``space`` (training).

    Returns
    -------
    (B, 1, s*h, s*w), or what makes such maps on the way.
    """
    if image:
        return method.dynamic_scale(space.scale, space.up, alpha) or space.scale * space.w
    units = {"shift": space.mean, "stretch": space.scale}
    return method.dynamic_scale(space.scale.new_ones(space.scale.shape), space.up, alpha, **units) or space.w
