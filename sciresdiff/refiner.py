"""The refiner: a network that draws images from what the prior leaves open.

Every method is run in z = (x - prior mean) / prior scale, so that one network serves every brightness; a method's
anchor and weight are brought to the same units.  The network sees the state at the coarse grid (pixel-unshuffle:
nothing is lost, flux can be held), the level of the noise in it, and scale-free copies of what the prior knew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciresdiff.diffusion.method import Method
from sciresdiff.diffusion.path import Level
from sciresdiff.diffusion.prediction import PREDICTIONS
from sciresdiff.nets import BACKBONES
from sciresdiff.physics.consistency import Data
from sciresdiff.prior import Estimate, Run, at_once, contrast, finer, maps, stacked

LEVELS = 3
"""Channels that tell the network how noisy the state is."""


@dataclass(frozen=True)
class RefinerConfig:
    """What the architecture of a refiner is, as stored in its model card."""

    scale: int
    backbone: str = "resnet"
    width: int = 48
    depth: int = 4
    prediction: str = "x0"
    """What the network is asked for, a name of PREDICTIONS."""

    def to_dict(self) -> dict[str, Any]:
        """For the model card."""
        return asdict(self)


def condition(data: Data, prior: Estimate, kernel: Tensor) -> Tensor:
    """What the prior knew, scale-free: (B, 3 s^2 + 7, h, w)."""
    s, root = data.operator.scale, data.noise.sqrt()
    background, amplitude = contrast(prior.x, data.noise, s)

    def fine() -> Iterator[Tensor]:
        yield (prior.x - background) / amplitude
        yield torch.log(amplitude * s**2 / finer(root, s)) / 3
        yield torch.log(prior.w / amplitude)

    r = data.residual(prior.x) / root
    coarse = [torch.asinh(data.y * data.valid) / 4, torch.asinh(r) / 2, data.valid]
    return stacked(fine(), [*coarse, *maps(kernel, data.y)], s, 3 * s**2 + 7)


def levels_of(p: Level, like: Tensor) -> Tensor:
    """Three numbers for the level of the noise, (B, 3): the weights of signal and noise, and their ratio."""
    a, s = (torch.as_tensor(v, dtype=like.dtype, device=like.device).reshape(-1) for v in (p.a, p.s))
    size = torch.where(a + s > 0, s / (a + s), 1.0)  # a bridge ends at its anchor: neither signal nor noise
    return torch.stack([a, s, size], dim=-1).expand(like.shape[0], -1)


@dataclass(frozen=True)
class Around:
    """The units that a method is run in, and its anchor and weight in them; all (B, 1, s*h, s*w)."""

    mean: Tensor
    scale: Tensor
    mu: Tensor
    w: Tensor

    def state(self, x: Tensor, p: Level) -> Tensor:
        """x_t in these units."""
        return (x - (p.a + p.b) * self.mean) / self.scale

    def truth(self, x: Tensor) -> Tensor:
        """An image in these units; beyond 30 scales, where no scale was right, it is cut."""
        return ((x - self.mean) / self.scale).clamp(-30, 30)

    def image(self, z: Tensor) -> Tensor:
        """An estimate of z_0 as an image."""
        return self.mean + self.scale * z


def framed(method: Method, data: Data, prior: Estimate) -> Around:
    """The units of a method around a prior's estimate."""
    s = data.operator.scale
    up = F.interpolate(data.y * data.valid, scale_factor=float(s), mode="bicubic") / s**2
    mu = (method.anchored(prior.x, up) - prior.x) / prior.w
    return Around(prior.x, prior.w, mu, method.weigh(prior.x, prior.w, up) / prior.w)


class Refiner(nn.Module):
    """(state, level, condition) -> the method's prediction."""

    def __init__(self, config: RefinerConfig) -> None:
        """Build the network, untrained (an untrained refiner answers the prior's mean)."""
        super().__init__()
        self.config = config
        square = config.scale**2
        self.net = BACKBONES[config.backbone](4 * square + 7 + LEVELS, square, config.width, config.depth)

    @property
    def receptive_px(self) -> int:
        """Coarse pixels on each side that one evaluation looks at."""
        return int(self.net.receptive_px)  # type: ignore[arg-type]

    def forward(self, u: Tensor, levels: Tensor, known: Tensor, run: Run | None = None) -> Tensor:
        """What the method's prediction asks for.

        Parameters
        ----------
        u : (B, 1, s*h, s*w), the state without its anchor, in units of the prior's scale.
        levels : (B, 3), `levels_of`. known : (B, 3 s^2 + 7, h, w), `condition`. run : how the network is evaluated.

        Returns
        -------
        (B, 1, s*h, s*w)
        """
        s = self.config.scale
        signal, noise, size = (v[:, :, None, None] for v in levels.split(1, dim=1))
        state = F.pixel_unshuffle(u, s) / (signal + noise).clamp_min(1e-3)  # of order one at every level
        parts = [state, known, levels[:, :, None, None].expand(-1, -1, *known.shape[-2:])]
        out = (run or at_once)(self.net, parts).float()
        if self.config.prediction == "x0":  # with little noise left the state itself is the better answer
            out = torch.addcmul(out, 1 - size, state)
        return F.pixel_shuffle(out, s)

    def estimate(
        self, x: Tensor, p: Level, around: Around, known: Tensor, run: Run | None = None
    ) -> tuple[Tensor, Tensor]:
        """The network's answer to a state in `Around`'s units, and the estimate of z_0 that follows from it."""
        answer = self(x - p.b * around.mu, levels_of(p, x), known, run)
        return answer, PREDICTIONS[self.config.prediction].estimate(p, x, answer, around.mu, around.w)
