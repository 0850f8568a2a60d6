"""The prior: stages of a network and the consistency step, unrolled and trained together.

Everything between reading and writing stays linear in the pixel values: the network sees scale-free copies of the
current estimate and answers with a bounded correction in units of the local contrast, and with the scale of the error
that it expects to leave.  That scale is the Sigma of the consistency step that follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciresdiff.errors import InputError
from sciresdiff.nets import BACKBONES
from sciresdiff.physics.consistency import Data, consistency_step
from sciresdiff.physics.richardson_lucy import pedestal, richardson_lucy
from sciresdiff.restoration.ops import asinh, constant_maps, local_contrast, stack_channels, upsample_nearest
from sciresdiff.tiling import Run, run_at_once


@dataclass(frozen=True)
class PriorConfig:
    """What the architecture of a prior is, as stored in its model card."""

    scale: int
    backbone: str = "resnet"
    stages: int = 2
    width: int = 64
    depth: int = 5
    early: int = 4
    """Accelerated Richardson-Lucy iterations of the smooth start estimate."""
    late: int = 12
    """The same, of the sharp start estimate, which the first stage corrects."""
    iterations: int = 8
    """Chebyshev iterations of a consistency step in training."""
    bound: float = 3.0
    """Largest correction of one stage, in units of the local contrast."""

    def to_dict(self) -> dict[str, Any]:
        """For the model card."""
        return asdict(self)


@dataclass(frozen=True)
class Estimate:
    """An image on the fine grid and the scale of its error before the data were consulted."""

    x: Tensor
    """(B, 1, s*h, s*w), noise units of the coarse pixel, quantity ``sum``."""
    w: Tensor
    """Same shape, > 0."""
    guess: Tensor
    """The network's estimate before the consistency step."""
    unseen: Tensor | None = None
    """Same shape, 0..1: where it is a positive estimate instead, see `unseen`; None where it is 0 everywhere."""
    iterations: int | None = None
    """Of Richardson-Lucy that it took; None of a network's."""


def bound_below(data: Data, estimate: Estimate) -> Estimate:
    """An estimate that stays above the pedestal's floor, and whose scale leaves it little way below.

    No scene is darker than its darkest data by more than their noise: without this bound the consistency step pays for
    a core that is too narrow with a dark ring around it.
    """
    s = data.planar.scale
    floor = -pedestal(data) / s**2
    guess = torch.maximum(estimate.guess, floor)
    w = torch.minimum(estimate.w, guess - floor + data.planar.spread_sigma(data.noise))
    return Estimate(guess, w, guess)


def starting_estimates(data: Data, early: int, late: int) -> tuple[Tensor, Tensor]:
    """A smooth and a sharp Richardson-Lucy estimate, both (B, 1, s*h, s*w).

    Parameters
    ----------
    early, late : accelerated iterations of the smooth and of the sharp one.
    """
    smooth = sharp = data.y
    for k, x in enumerate(richardson_lucy(data, pedestal(data)), start=1):
        if k == early:
            smooth = x
        if k >= late:
            sharp = x
            break
    return smooth, sharp


def refuse_nonfinite(*answers: Tensor) -> None:
    """Refuse a network's answer that holds NaN or infinity; not asked where gradients are kept.

    Raises
    ------
    InputError
    """
    if not torch.is_grad_enabled() and not all(bool(one.isfinite().all()) for one in answers):
        raise InputError(
            "model: the network's answer to this frame is not finite; its weights may be damaged: try --model physics"
        )


class Prior(nn.Module):
    """y, N, kernel -> the conservative estimate: K stages of (network, consistency) from a Richardson-Lucy start."""

    def __init__(self, config: PriorConfig) -> None:
        """Build the networks of every stage, untrained (an untrained prior is the physics alone)."""
        super().__init__()
        self.config = config
        inputs, outputs = 5 * config.scale**2 + 8, 2 * config.scale**2
        make = BACKBONES[config.backbone]
        self.stages = nn.ModuleList([make(inputs, outputs, config.width, config.depth) for _ in range(config.stages)])

    @property
    def receptive_px(self) -> int:
        """Coarse pixels on each side that one network evaluation looks at."""
        return max(int(stage.receptive_px) for stage in self.stages)  # type: ignore[arg-type]

    def features(self, data: Data, estimate: Estimate, smooth: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
        """What a stage sees, (B, 5 s^2 + 8, h, w), and the local contrast that scales its answer.

        Parameters
        ----------
        data, estimate : in noise units.
        smooth : (B, 1, s*h, s*w), the smooth start: where the two estimates differ, detail is in doubt.
        kernel : (B, 4), `ops.psf_features`.
        """
        s, x = self.config.scale, estimate.x
        background, amplitude = local_contrast(x, data.noise, s)
        first = [(x - background) / amplitude]
        del background  # what is not held is not in memory when the features are
        r = data.residual(x)
        root = data.noise.sqrt()

        def fine() -> Iterator[Tensor]:
            yield first.pop()
            yield (smooth - x) / amplitude
            yield torch.log(amplitude * s**2 / upsample_nearest(root, s)) / 3
            yield torch.log(estimate.w / amplitude)
            yield asinh(data.operator.adjoint(r / root) / s**2)

        coarse = [
            torch.asinh(data.y * data.valid) / 4,
            torch.asinh(r / root) / 2,
            torch.log(data.noise) / 4,
            data.valid,
        ]
        return stack_channels(fine(), [*coarse, *constant_maps(kernel, data.y)], s, 5 * s**2 + 8), amplitude

    def stage(self, k: int, data: Data, estimate: Estimate, smooth: Tensor, kernel: Tensor, run: Run) -> Estimate:
        """The network of stage k: a bounded correction and the scale of the error that is left.

        x + b A tanh(c / b) with A the local contrast, b the bound and c the network's answer: no stage moves a pixel by
        more than b times the contrast around it, whatever the network has learned.

        Parameters
        ----------
        k : number of the stage, from 0.
        data, estimate, smooth, kernel : as for `features`.
        run : how the network is evaluated.
        """
        features, amplitude = self.features(data, estimate, smooth, kernel)
        out = run(self.stages[k], [features]).float()
        del features  # the largest of all
        correction, scale = F.pixel_shuffle(out, self.config.scale).chunk(2, dim=1)
        refuse_nonfinite(correction, scale)
        bound = self.config.bound
        guess = estimate.x + amplitude * bound * torch.tanh(correction / bound)
        w = amplitude * torch.exp(4 * torch.tanh(scale / 4) - 1)
        return bound_below(data, Estimate(guess, w, guess))

    def forward(
        self,
        data: Data,
        kernel: Tensor,
        run: Run | None = None,
        iterations: int | None = None,
        last: int | None = None,
        patience: int = 0,
    ) -> list[Estimate]:
        """Every stage's estimate, the last one last.

        Parameters
        ----------
        data : (B, 1, h, w) tensors in noise units, quantity ``sum``.
        kernel : (B, 4), `psf_features`.
        run : how a network is evaluated; at once by default.
        iterations, last : of the consistency steps, and of the last one; the training's number by default.
        patience : more of the last one, where bright cores ask for it.
        """
        run = run or run_at_once
        with torch.no_grad():
            smooth, sharp = starting_estimates(data, self.config.early, self.config.late)
            _, amplitude = local_contrast(sharp, data.noise, self.config.scale)
        estimate = Estimate(sharp, amplitude * float(np.exp(-1)), sharp)
        counts = [(iterations or self.config.iterations, 0)] * self.config.stages
        counts[-1] = (last or counts[-1][0], patience)
        estimates = []
        for k, count in enumerate(counts):
            proposed = self.stage(k, data, estimate, smooth, kernel, run)
            estimate = replace(proposed, x=consistency_step(data, proposed.x, proposed.w.square(), *count))
            estimates.append(estimate)
        return estimates
