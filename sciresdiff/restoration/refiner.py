"""The refiner: a network that draws images from what the prior leaves open.

Every method is run in the units of a `ResidualSpace`.  The network sees the state on the coarse grid (pixel-unshuffle:
nothing is lost, flux can be held), the level of the noise in it, and scale-free copies of what the prior knew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciresdiff.diffusion.method import Method
from sciresdiff.diffusion.path import NoiseLevel
from sciresdiff.diffusion.prediction import PREDICTIONS
from sciresdiff.nets import BACKBONES
from sciresdiff.physics.consistency import Data
from sciresdiff.plugins import Registry
from sciresdiff.restoration.ops import constant_maps, local_contrast, pixel_unshuffle, stack_channels, upsample_nearest
from sciresdiff.restoration.prior import Estimate
from sciresdiff.restoration.residual_space import ResidualSpace
from sciresdiff.tiling import Run, run_at_once

Noise = Callable[[Tensor, int], Tensor]
"""(a tensor, index) -> unit noise of its shape, a pure function of the index."""
GAUSSIAN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"eps": lambda a, s: s, "flow": lambda a, s: s - a}
"""(a, s) -> numerator of the factor on the state that answers best where z_0 is Gaussian of unit variance; the network
learns the rest."""
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
    conditions: Sequence[str] = ()
    """What it sees besides, names of CONDITIONS."""
    alpha: float | None = None
    """Share of the edges in a weight that follows the image, as it was before training; None: the method has none."""

    def __post_init__(self) -> None:
        """A list, which JSON makes of a tuple, is a tuple again."""
        object.__setattr__(self, "conditions", tuple(self.conditions))

    def to_dict(self) -> dict[str, Any]:
        """For the model card."""
        return asdict(self)


@dataclass(frozen=True)
class Condition:
    """What a network may see besides."""

    maps: Callable[[Data, Estimate, Tensor], list[Tensor]]
    """(data, prior, level of augmentation) -> maps on the coarse grid, each (B, 1, h, w)."""
    count: Callable[[int], int]
    """Scale -> how many they are."""


CONDITIONS: Registry[Condition] = Registry(
    {
        "frequency": "sciresdiff.lab.conditions:FREQUENCY",
        "snr": "sciresdiff.lab.conditions:SNR",
        "augmentation": "sciresdiff.lab.conditions:AUGMENTATION",
    }
)
"""Conditions by the name that a method file gives them; the default method has none."""


def known_channels(scale: int, conditions: Sequence[str] = ()) -> int:
    """Channels of `condition`: three fine images unshuffled, three coarse ones, four of the kernel, and more."""
    return 3 * scale**2 + 7 + sum(CONDITIONS[name].count(scale) for name in conditions)


def condition(
    data: Data, prior: Estimate, kernel: Tensor, conditions: Sequence[str] = (), level: Tensor | float = 1.0
) -> Tensor:
    """What the prior knew, scale-free, and what ``conditions`` add: (B, `known_channels`, h, w).

    Parameters
    ----------
    level : noise on the coarse image over its maker's error, above 0 up to 1, one or (B,); 1 for a frame as it came.
    """
    s, root = data.scale, data.noise.sqrt()
    background, amplitude = local_contrast(prior.x, data.noise, s)

    def fine() -> Iterator[Tensor]:
        yield (prior.x - background) / amplitude
        yield torch.log(amplitude * s**2 / upsample_nearest(root, s)) / 3
        yield torch.log(prior.w / amplitude)

    # asinh and logarithms: linear for faint structure, and bright stars stay within what a network can learn
    r = data.residual(prior.x) / root
    coarse = [torch.asinh(data.y * data.valid) / 4, torch.asinh(r) / 2, data.valid]
    told = torch.as_tensor(level, dtype=data.y.dtype, device=data.y.device)
    more = [v for name in conditions for v in CONDITIONS[name].maps(data, prior, told)]
    return stack_channels(fine(), [*coarse, *constant_maps(kernel, data.y), *more], s, known_channels(s, conditions))


def level_features(p: NoiseLevel, like: Tensor) -> Tensor:
    """Three numbers for the level of the noise: the weights of signal and noise, and the noise's share.

    Parameters
    ----------
    p : one level, or one for every image. like : (B, ...), whose dtype and device they have.

    Returns
    -------
    (B, 3) : a, s and s / (a + s).
    """
    a, s = (torch.as_tensor(v, dtype=like.dtype, device=like.device).reshape(-1) for v in (p.a, p.s))
    size = torch.where(a + s > 0, s / (a + s), 1.0)  # a bridge ends at its anchor: neither signal nor noise
    return torch.stack([a, s, size], dim=-1).expand(like.shape[0], -1)


def with_realism(levels: Tensor, realism: float | Tensor) -> Tensor:
    """Levels that also say what a one-step student is to draw: from 0, a mean, to 1, a likely image.

    Realism r moves r s from the noise's number to the signal's; their sum, which brings the state to order one, stays.

    Parameters
    ----------
    levels : (B, 3), `level_features`. realism : 0..1, one or one for every image.

    Returns
    -------
    (B, 3)
    """
    a, s, size = levels.unbind(-1)
    r = torch.as_tensor(realism, dtype=levels.dtype, device=levels.device).reshape(-1)
    return torch.stack([a + r * s, s - r * s, size.expand_as(a + r * s)], dim=-1)


@dataclass(frozen=True)
class CachedCondition:
    """What a network was told of the channels of `condition`, so that no step tells it again."""

    head: Tensor
    """(B, width, h, w), their share of the first convolution."""
    channels: int
    """How many they are."""


class Refiner(nn.Module):
    """(state, level, condition) -> the method's prediction."""

    latent = False
    """True where the diffusion runs on a code of the image; such a refiner brings its own `draw` and `loss`."""

    def __init__(self, config: RefinerConfig) -> None:
        """Build the network, untrained (an untrained refiner answers the prior's mean)."""
        super().__init__()
        self.config = config
        square = config.scale**2
        inputs = square + known_channels(config.scale, config.conditions) + LEVELS  # state, condition, level
        self.net = BACKBONES[config.backbone](inputs, square, config.width, config.depth)
        start = None if config.alpha is None else torch.logit(torch.tensor(float(config.alpha)), 1e-3)
        self.logit = None if start is None else nn.Parameter(start)

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Refiner:
        """The refiner that a model card describes, not filled yet."""
        return cls(RefinerConfig(**card))

    @classmethod
    def for_method(cls, method: Method, config: RefinerConfig) -> Refiner:
        """An untrained refiner for a method."""
        return cls(config)

    @property
    def alpha(self) -> Tensor | None:
        """Learned share of the edges in a weight that follows the image, 0..1."""
        return None if self.logit is None else torch.sigmoid(self.logit)

    @property
    def tile_exact(self) -> bool:
        """Whether the answer is the same in every tiling."""
        return bool(getattr(self.net, "tile_exact", True))

    @property
    def receptive_px(self) -> int:
        """Coarse pixels on each side that one evaluation looks at."""
        return int(self.net.receptive_px)  # type: ignore[arg-type]

    def cache_condition(self, known: Tensor, run: Run | None = None) -> Tensor | CachedCondition:
        """What the first convolution makes of `condition`, which is the same in all steps and draws.

        Parameters
        ----------
        known : (B, `known_channels`, h, w), `condition`. run : how the network is evaluated.

        Returns
        -------
        The cache, or ``known`` itself where gradients are asked for or the network cannot do it.
        """
        if torch.is_grad_enabled() or not hasattr(self.net, "partial_head"):
            return known
        net: Any = self.net
        net = partial(net.partial_head, first=self.config.scale**2)
        return CachedCondition((run or run_at_once)(net, [known]), known.shape[1])

    def forward(self, u: Tensor, levels: Tensor, known: Tensor | CachedCondition, run: Run | None = None) -> Tensor:
        """What the method's prediction asks for.

        Parameters
        ----------
        u : (B, 1, s*h, s*w), the state without its anchor, in units of the prior's scale.
        levels : (B, 3), `level_features`.
        known : (B, `known_channels`, h, w), `condition`, or what `cache_condition` made of it.
        run : how the network is evaluated.

        Returns
        -------
        (B, 1, s*h, s*w)
        """
        s = self.config.scale
        signal, noise, size = (v[:, :, None, None] for v in levels.split(1, dim=1))
        state = pixel_unshuffle(u, s) / (signal + noise).clamp_min(1e-3)  # of order one at every level
        level = levels[:, :, None, None].expand(-1, -1, *state.shape[-2:])
        level = level.contiguous(memory_format=torch.channels_last)  # as convolutions want it
        net: Any = self.net
        if isinstance(known, CachedCondition):
            net = partial(net.forward_from_head, first=s**2, count=known.channels)
            out = (run or run_at_once)(net, [state, level, known.head]).float()
        else:
            out = (run or run_at_once)(net, [state, known, level]).float()
        if self.config.prediction == "x0":  # with little noise left the state itself is the better answer
            out = torch.addcmul(out, 1 - size, state)
        elif self.config.prediction in GAUSSIAN:  # what is known of the answer where z_0 is of unit variance
            weight = GAUSSIAN[self.config.prediction](signal, noise) * (signal + noise) / (signal**2 + noise**2)
            out = torch.addcmul(out, weight, state)
        return F.pixel_shuffle(out, s)

    def estimate(
        self,
        x: Tensor,
        p: NoiseLevel,
        space: ResidualSpace,
        known: Tensor | CachedCondition,
        run: Run | None = None,
        realism: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """The network's answer to a state, and the estimate of z_0 that follows from it.

        Parameters
        ----------
        x : (B, 1, s*h, s*w), a state in the units of ``space``. p : its level.
        known : `condition`, (B, `known_channels`, h, w), or what `cache_condition` made of it.
        run : how the network is evaluated. realism : 0..1, see `with_realism`.

        Returns
        -------
        answer, estimate : (B, 1, s*h, s*w) each.
        """
        answer = self(x - p.b * space.mu, with_realism(level_features(p, x), realism), known, run)
        return answer, PREDICTIONS[self.config.prediction].estimate(p, x, answer, space.mu, space.w)

    def draw(
        self, method: Method, space: ResidualSpace, known: Tensor, noise: Noise, run: Run, steps: int | None
    ) -> Tensor:
        """One draw as an image, where `latent`.

        Parameters
        ----------
        known : (B, `known_channels`, h, w), its `condition`. noise : unit noise of a tensor's shape, by index.
        run : how the network is evaluated. steps : of the path; None for the method's own.

        Returns
        -------
        (B, 1, s*h, s*w), noise units.
        """
        raise NotImplementedError

    def loss(
        self,
        method: Method,
        space: ResidualSpace,
        known: Tensor,
        truth: Tensor,
        valid: Tensor,
        gen: torch.Generator,
        run: Run,
    ) -> Tensor:
        """The loss of a batch where `latent`.

        Parameters
        ----------
        truth : (B, 1, s*h, s*w), in `ResidualSpace`'s units. valid : the same shape, 1 where a pixel counts.
        """
        raise NotImplementedError


REFINERS: Registry[type[Refiner]] = Registry(
    {
        "latent": "sciresdiff.lab.latent.refiner:LatentRefiner",
        "vector": "sciresdiff.lab.latent.refiner:VectorRefiner",
    }
)
"""Spaces whose state is a code of the image, each with a refiner of its own."""


def refiner_from_card(card: Mapping[str, Any]) -> Refiner:
    """The refiner that a model card describes, not filled yet; one of `REFINERS` where the card has a ``kind``."""
    return (REFINERS[card["kind"]] if "kind" in card else Refiner).from_card(card)


def refiner_for(method: Method, config: RefinerConfig) -> Refiner:
    """An untrained refiner for a method: one of `REFINERS` where its space is there, else one of images.

    Raises
    ------
    UsageError : a method whose space and other values do not go together.
    """
    return REFINERS.get(method.space, Refiner).for_method(method, config)
