"""Where a diffusion runs: the units around an image that is known beforehand, and the space of its state.

Every method runs in z = (x - mean) / scale, so that one network serves every brightness; a method's anchor and weight
are brought to the same units.  Most diffuse z itself; the spaces of `CODED` diffuse a code of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from sciresdiff.diffusion.method import Method
from sciresdiff.diffusion.path import Level
from sciresdiff.diffusion.weight import Staged
from sciresdiff.physics.consistency import Data
from sciresdiff.restoration.prior import Estimate

CUT = 30.0
"""Scales beyond which no scale was right; a truth is cut there in training."""
CODED = ("latent", "vector")
"""Spaces whose state is made by an encoder; **their decoders do not conserve flux**."""


@dataclass(frozen=True)
class Around:
    """The units that a method is run in, and its anchor and weight in them; all (B, 1, s*h, s*w)."""

    mean: Tensor
    scale: Tensor
    mu: Tensor
    w: Tensor
    up: Tensor
    """The interpolated frame, as an image."""
    cut: float = CUT
    """Largest |z| of a truth in training."""

    def state(self, x: Tensor, p: Level) -> Tensor:
        """x_t in these units."""
        return (x - (p.a + p.b) * self.mean) / self.scale

    def truth(self, x: Tensor) -> Tensor:
        """An image in these units; beyond ``cut`` it is cut."""
        return ((x - self.mean) / self.scale).clamp(-self.cut, self.cut)

    def image(self, z: Tensor) -> Tensor:
        """An estimate of z_0 as an image."""
        return self.mean + self.scale * z


def framed(method: Method, data: Data, prior: Estimate) -> Around:
    """The units of a method around a prior's estimate.

    They are the prior's mean and scale.  A ``residual`` space has its ``base`` for the mean and ``gain`` times finer
    units (SRDiff, Li et al. 2021: r = gain (x - base)); **a detail beyond ``clip`` is not learned**.
    """
    s, numbers = data.operator.scale, method.space_params
    up = F.interpolate(data.y * data.valid, scale_factor=float(s), mode="bicubic") / s**2
    mean = up if numbers.get("base") == "up" else prior.x
    scale = prior.w / numbers["gain"] if "gain" in numbers else prior.w
    mu = (method.anchored(prior.x, up) - mean) / scale
    w = method.weigh(prior.x, prior.w, up) / prior.w
    return Around(mean, scale, mu, w, up, float(numbers.get("clip", CUT)))


def weighed(method: Method, around: Around, alpha: Tensor | None, image: bool) -> Tensor | Staged:
    """The scale of a method's noise as `diffusion.method.sample` and `train_pair` take it.

    Parameters
    ----------
    alpha : share of the edges in a weight that follows the image, if it is learned.
    image : in units of the image (sampling), else in those of ``around`` (training).
    """
    if image:
        return method.staged(around.scale, around.up, alpha) or around.scale * around.w
    units = {"shift": around.mean, "stretch": around.scale}
    return method.staged(around.scale.new_ones(around.scale.shape), around.up, alpha, **units) or around.w
