"""A network that others trained, as the prior: its image is the guess, the physics holds it to the data.

Such a network knows images in [0, 1] and neither noise nor kernel.  The plane is brought there by an invertible stretch
that is measured on the whole frame, given in as many equal channels as the network has colours, and the mean of its
channels is brought back.  Its error is taken to be a factor times the local contrast, of its own image or of the data,
whichever is more; the factor is measured on simulated frames when the network is taken over.  **What a network trained
for L1 or with a discriminator shows is not flux-true**: the consistency step, chi2 and the gate deal with it as with
any prior.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciresdiff.lab.published.networks import LIBRARY, build_network
from sciresdiff.physics.consistency import Data
from sciresdiff.physics.stretch import Stretch, fit_stretch
from sciresdiff.restoration.ops import local_contrast
from sciresdiff.restoration.prior import Estimate, Prior, PriorConfig, bound_below
from sciresdiff.tiling import Run

HALO = 64
"""Coarse pixels that tiles overlap at most: beyond it what these networks still see is negligible, but not nothing."""


@dataclass(frozen=True)
class PublishedConfig(PriorConfig):
    """What a published network is and how it is used, as stored in the model card; ``backbone`` names it."""

    stages: int = 1
    early: int = 4
    late: int = 4
    kind: str = "published"
    sizes: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that rebuild the network, a name of nets.published.ARCHITECTURES."""
    stretch: str = "linear"
    """``linear`` or ``asinh``, a name of STRETCHES."""
    settings: Mapping[str, float] = field(default_factory=dict)
    """Of the stretch, as `fit_stretch` takes them."""
    factor: float = 1.0
    """The scale of the error of the guess, in units of the local contrast."""
    halo: int | None = None
    """Coarse pixels that tiles overlap; the receptive field, and at most HALO, where it is not given."""

    def to_dict(self) -> dict[str, Any]:
        """For the model card."""
        return asdict(self)


@dataclass(frozen=True)
class Unit:
    """The map of one plane to [0, 1] and back: u = (stretch(y) - low) / width."""

    stretch: Stretch
    low: float = 0.0
    width: float = 1.0
    widest: float = math.inf
    """Answers beyond [1 - widest, widest] are cut."""

    def forward(self, y: Tensor) -> Tensor:
        """Noise units of the coarse pixel -> the network's units, (1, 1, h, w)."""
        out: Tensor = (self.stretch.forward(y) - self.low) / self.width
        return out

    def inverse(self, u: Tensor) -> Tensor:
        """The network's units -> noise units, (1, 1, s*h, s*w).  **Answers beyond ``widest`` are cut.**"""
        out: Tensor = self.stretch.inverse(u.clamp(1 - self.widest, self.widest) * self.width + self.low)
        return out


def linear(y: Any, bad: Any, noise: Any, **settings: float) -> Unit:
    """From the 3rd to the 99.8th percentile of the plane (Weigert et al. 2018); brighter pixels lie above 1."""
    del noise
    return Unit(fit_stretch("percentile", y, bad, None, **settings))


def asinh(y: Any, bad: Any, noise: Any, **settings: float) -> Unit:
    """softening asinh((y - sky) / (softening sigma)), from the darkest to the brightest pixel of the plane.

    For frames with bright stars.  Answers beyond [-0.5, 1.5] are cut: the inverse grows exponentially.
    """
    stretch = fit_stretch("asinh", y, bad, noise, **settings)
    values = stretch.forward(y[~bad])
    low = float(values.min())
    return Unit(stretch, low, float(values.max()) - low or 1.0, widest=1.5)


STRETCHES: dict[str, Callable[..., Unit]] = {"linear": linear, "asinh": asinh}
"""How a plane is brought to [0, 1]."""


class Planes(nn.Module):
    """A network of images in [0, 1] under the contract of the backbones: (B, 1, h, w) to (B, s^2, h, w).

    The plane in every channel, reflected to whole multiples of ``multiple_of`` at its right and lower end; the mean
    over the channels, pixel-unshuffled.
    """

    def __init__(self, net: nn.Module, halo: int | None = None) -> None:
        """``net``: what `networks.build_network` returns; ``halo``: as in `PublishedConfig`."""
        super().__init__()
        self.net = net
        self.scale, self.channels = int(net.scale), int(net.channels)  # type: ignore[arg-type]
        self.multiple_of = int(net.multiple_of)  # type: ignore[arg-type]
        reach = int(net.receptive_px)  # type: ignore[arg-type]
        self.receptive_px = min(reach, HALO) if halo is None else halo
        self.tile_exact = bool(getattr(net, "tile_exact", True)) and self.receptive_px >= reach

    def forward(self, u: Tensor) -> Tensor:
        """(B, 1, h, w) to (B, s^2, h, w), for any h and w."""
        h, w = u.shape[-2:]
        bottom, right = -h % self.multiple_of, -w % self.multiple_of
        mode = "reflect" if bottom < h and right < w else "replicate"
        v = self.net(F.pad(u, (0, right, 0, bottom), mode).expand(-1, self.channels, -1, -1))
        return F.pixel_unshuffle(v.mean(1, keepdim=True)[..., : h * self.scale, : w * self.scale], self.scale)


class PublishedPrior(Prior):
    """y, N -> a published network's image, held to the data: one stage of network and consistency."""

    config: PublishedConfig

    def __init__(self, config: PublishedConfig, weights: Mapping[str, Tensor] | None = None) -> None:
        """Rebuild the network; ``weights`` under its own names (spandrel's networks cannot be built without)."""
        nn.Module.__init__(self)
        self.config = config
        self.stages = nn.ModuleList([Planes(build_network(config.backbone, config.sizes, weights), config.halo)])
        self.requires_grad_(False).eval()

    @classmethod
    def from_card(cls, card: Mapping[str, Any], weights: Mapping[str, Tensor]) -> PublishedPrior:
        """The prior that a model card describes, not filled yet.

        Parameters
        ----------
        card : fields of `PublishedConfig`.
        weights : all tensors of the model file by name; a network of spandrel's cannot be built without its own.
        """
        config, start = PublishedConfig(**card), "prior.stages.0.net.net."
        own = {k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)}
        return cls(config, own if config.backbone == LIBRARY else None)

    def stage(self, k: int, data: Data, estimate: Estimate, smooth: Tensor, kernel: Tensor, run: Run) -> Estimate:
        """The network's image and the scale of its error; masked pixels are filled from a smooth estimate.

        Parameters
        ----------
        k : 0, the only stage. data : (B, 1, h, w) tensors in noise units. smooth : (B, 1, s*h, s*w), Richardson-Lucy's.
        estimate, kernel : not used. run : how the network is evaluated.
        """
        del estimate, kernel
        s = self.config.scale
        y = torch.where(data.valid > 0, data.y, data.operator.apply(smooth))
        units = self.units(y, data)
        u = torch.cat([unit.forward(plane) for unit, plane in zip(units, y.split(1), strict=True)])
        v = F.pixel_shuffle(run(self.stages[k], [u]).float(), s)
        guess = torch.cat([unit.inverse(plane) for unit, plane in zip(units, v.split(1), strict=True)]) / s**2
        seen, drawn = (local_contrast(x, data.noise, s)[1] for x in (smooth, guess))
        amplitude = torch.maximum(seen, drawn)  # a source that the network wipes out leaves room to come back
        return bound_below(data, Estimate(guess, self.config.factor * amplitude, guess))

    def units(self, y: Tensor, data: Data) -> list[Unit]:
        """The map to [0, 1] of every image of a batch, measured on its valid pixels, or on the plane around it.

        Parameters
        ----------
        y : (B, 1, h, w), filled, noise units. data : valid pixels, noise, and perhaps the plane's statistics.
        """
        make, settings = STRETCHES[self.config.stretch], self.config.settings
        if data.statistics is not None:
            known = data.statistics.y[None], np.zeros((1, data.statistics.y.size), bool), data.statistics.noise[None]
            return [make(*known, **settings)] * len(y)
        planes, bad, noise = (np.asarray(v.cpu()) for v in (y, data.valid <= 0, data.noise))
        return [make(*each, **settings) for each in zip(planes, bad, noise, strict=True)]
