"""The prior: stages of a network and the consistency step, unrolled and trained together.

Everything between reading and writing stays linear in the pixel values: the network sees scale-free copies of the
current estimate and answers with a bounded correction in units of the local contrast, and with the scale of the error
that it expects to leave.  That scale is the Sigma of the consistency step that follows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sciresdiff.nets import BACKBONES
from sciresdiff.physics.consistency import Data, consistency_step, richardson_lucy
from sciresdiff.physics.psf.width import moments_of_square

Run = Callable[[nn.Module, Sequence[Tensor]], Tensor]
"""How a network is evaluated on a frame whose channels come in parts: at once, or in tiles."""


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


def at_once(net: nn.Module, parts: Sequence[Tensor]) -> Tensor:
    """A network evaluated on the whole frame."""
    out: Tensor = net(torch.cat(list(parts), dim=1))
    return out


def kernel_features(kernel: NDArray[np.float64] | None, scale: int) -> NDArray[np.float32]:
    """Four numbers that tell a network how wide a kernel is.

    The second moments of the squared kernel (the square keeps far wings from deciding) along y, x and across, and the
    noise-equivalent area 1 / sum k^2, in coarse pixels and as logarithms.

    Returns
    -------
    (4,) float32.
    """
    k = np.ones((1, 1)) if kernel is None else np.asarray(kernel, dtype=np.float64)
    yy, xx, across = moments_of_square(k)
    xy = across / (yy + xx + 1e-9)
    area = k.sum() ** 2 / (k**2).sum() / scale**2
    logs = [np.log(0.05 + v / scale**2) for v in (yy, xx)]
    return np.array([*logs, xy, np.log(0.1 + area)], dtype=np.float32)


def box(v: Tensor, radius: int) -> Tensor:
    """Mean over a square of 2 radius + 1 pixels, of those inside the image; one axis after the other."""
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


def asinh_(x: Tensor) -> Tensor:
    """The inverse hyperbolic sine, without gradients in place; torch's own takes eight times as long."""
    if torch.is_grad_enabled():
        return torch.asinh(x)
    for part in x.split(64, dim=-2):
        size = part.abs().clamp_max_(1e18)  # whose square is a float32
        square = size.square()
        root = (1 + square).sqrt_()
        part.copy_(square.div_(root.add_(1)).add_(size).log1p_().copysign_(part))
    return x


def unshuffled(v: Tensor, scale: int) -> Tensor:
    """`F.pixel_unshuffle` of (B, 1, s*h, s*w) into channels-last memory, which convolutions want."""
    b, _, height, width = v.shape
    h, w = height // scale, width // scale
    cells = v.reshape(b, h, scale, w, scale).transpose(2, 3).reshape(b, h, w, scale**2)
    return cells.permute(0, 3, 1, 2)


def contrast(x: Tensor, noise: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """The local background, and how strongly the image varies about it.

    Parameters
    ----------
    x : (B, 1, s*h, s*w). noise : (B, 1, h, w), variance of the coarse pixels.

    Returns
    -------
    background and amplitude, both (B, 1, s*h, s*w): the mean over five coarse pixels, and the root mean square
    deviation from it over 3 x 3 fine pixels, never below the noise spread over the coarse pixel.
    """
    background = F.interpolate(box(F.avg_pool2d(x, scale), 2), scale_factor=float(scale), mode="bilinear")
    floor = finer(noise, scale) / scale**4
    return background, (box((x - background).square(), 1) + floor).sqrt()


def finer(coarse: Tensor, scale: int) -> Tensor:
    """Every coarse pixel repeated over its fine pixels."""
    return F.interpolate(coarse, scale_factor=float(scale), mode="nearest")


def maps(numbers: Tensor, like: Tensor) -> list[Tensor]:
    """(B, n) numbers as n constant images of the size of ``like`` (B, 1, h, w)."""
    return list(numbers[:, :, None, None].expand(-1, -1, *like.shape[-2:]).split(1, dim=1))


def stacked(fine: Iterator[Tensor], coarse: list[Tensor], scale: int, channels: int) -> Tensor:
    """Fine images, unshuffled to the coarse grid, and coarse ones as the channels of one input (B, channels, h, w).

    Without gradients the fine images are made one by one, so that only one of them is in memory beside the result.
    """
    if torch.is_grad_enabled():
        return torch.cat([*(unshuffled(v, scale) for v in fine), *coarse], dim=1)
    size = (coarse[0].shape[0], channels, *coarse[0].shape[-2:])
    out = torch.empty(size, dtype=coarse[0].dtype, device=coarse[0].device, memory_format=torch.channels_last)
    at = 0
    for v in itertools.chain((unshuffled(v, scale) for v in fine), coarse):
        out[:, at : at + v.shape[1]] = v
        at += v.shape[1]
    return out


def low_quantile(v: Tensor, share: float) -> Tensor:
    """`torch.quantile` of a vector for a small share, without sorting all of it."""
    at = share * (len(v) - 1)
    below = v.topk(min(int(at) + 2, len(v)), largest=False).values[-2:]
    return torch.lerp(below[0], below[-1], at - int(at))


def pedestal(data: Data) -> Tensor:
    """What to add to y so that Richardson-Lucy finds it positive: 4 sigma below all but 0.1 % of the valid pixels."""
    if data.statistics is not None:
        return data.y.new_tensor(4 - np.quantile(data.statistics.y, 0.001)).clamp_min(4).view(1, 1, 1, 1)
    low = [
        low_quantile(plane[ok > 0][:: 1 + ok.numel() // 1_000_000], 0.001) if bool(ok.any()) else plane.new_zeros(())
        for plane, ok in zip(data.y.flatten(0, -3), data.valid.flatten(0, -3), strict=True)
    ]
    return (4 - torch.stack(low)).clamp_min(4).view(*data.y.shape[:-2], 1, 1)


def bounded_below(data: Data, estimate: Estimate) -> Estimate:
    """An estimate that stays above the pedestal's floor, and whose scale leaves it little way below.

    No scene is darker than its darkest data by more than their noise: without this bound the consistency step pays for
    a core that is too narrow with a dark ring around it.
    """
    s = data.operator.scale
    floor = -pedestal(data) / s**2
    guess = torch.maximum(estimate.guess, floor)
    w = torch.minimum(estimate.w, guess - floor + finer(data.noise.sqrt(), s) / s**2)
    return Estimate(guess, w, guess)


def starts(data: Data, early: int, late: int) -> tuple[Tensor, Tensor]:
    """A smooth and a sharp Richardson-Lucy estimate."""
    smooth = sharp = data.y
    for k, x in enumerate(richardson_lucy(data, pedestal(data)), start=1):
        if k == early:
            smooth = x
        if k >= late:
            sharp = x
            break
    return smooth, sharp


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
        """What a stage sees, (B, 5 s^2 + 8, h, w), and the local contrast that scales its answer."""
        s, x = self.config.scale, estimate.x
        background, amplitude = contrast(x, data.noise, s)
        first = [(x - background) / amplitude]
        del background  # what is not held is not in memory when the features are
        r = data.residual(x)
        root = data.noise.sqrt()

        def fine() -> Iterator[Tensor]:
            yield first.pop()
            yield (smooth - x) / amplitude
            yield torch.log(amplitude * s**2 / finer(root, s)) / 3
            yield torch.log(estimate.w / amplitude)
            yield asinh_(data.operator.adjoint(r / root) / s**2)

        coarse = [
            torch.asinh(data.y * data.valid) / 4,
            torch.asinh(r / root) / 2,
            torch.log(data.noise) / 4,
            data.valid,
        ]
        return stacked(fine(), [*coarse, *maps(kernel, data.y)], s, 5 * s**2 + 8), amplitude

    def stage(self, k: int, data: Data, estimate: Estimate, smooth: Tensor, kernel: Tensor, run: Run) -> Estimate:
        """The network of stage k: a bounded correction and the scale of the error that is left."""
        features, amplitude = self.features(data, estimate, smooth, kernel)
        out = run(self.stages[k], [features]).float()
        del features  # the largest of all
        correction, scale = F.pixel_shuffle(out, self.config.scale).chunk(2, dim=1)
        bound = self.config.bound
        guess = estimate.x + amplitude * bound * torch.tanh(correction / bound)
        w = amplitude * torch.exp(4 * torch.tanh(scale / 4) - 1)
        return bounded_below(data, Estimate(guess, w, guess))

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
        kernel : (B, 4), `kernel_features`.
        run : how a network is evaluated; at once by default.
        iterations, last : of the consistency steps, and of the last one; the training's number by default.
        patience : more of the last one, where bright cores ask for it.
        """
        run = run or at_once
        with torch.no_grad():
            smooth, sharp = starts(data, self.config.early, self.config.late)
            _, amplitude = contrast(sharp, data.noise, self.config.scale)
        estimate = Estimate(sharp, amplitude * float(np.exp(-1)), sharp)
        counts = [(iterations or self.config.iterations, 0)] * self.config.stages
        counts[-1] = (last or counts[-1][0], patience)
        estimates = []
        for k, count in enumerate(counts):
            proposed = self.stage(k, data, estimate, smooth, kernel, run)
            estimate = replace(proposed, x=consistency_step(data, proposed.x, proposed.w.square(), *count))
            estimates.append(estimate)
        return estimates
