"""Refiners whose diffusion runs on a code of the image: the code of an autoencoder, or one vector for the whole frame.

Both code z = (x - prior mean) / prior scale, as the other refiners diffuse it.  **Their decoders do not conserve
flux**; a draw is held to the data by the step that ends every draw, and by nothing on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciresdiff.diffusion.losses import LOSSES
from sciresdiff.diffusion.method import Method
from sciresdiff.diffusion.prediction import PREDICTIONS
from sciresdiff.diffusion.sampler import sample, train_pair
from sciresdiff.diffusion.share import draw_samples
from sciresdiff.errors import UsageError
from sciresdiff.lab.latent.codec import Codec
from sciresdiff.lab.latent.vector import By, Drawer, Encoder, Guess
from sciresdiff.nets import BACKBONES
from sciresdiff.restoration.refiner import (
    LEVELS,
    CachedCondition,
    Noise,
    Refiner,
    RefinerConfig,
    known_channels,
    level_features,
)
from sciresdiff.restoration.residual_space import ResidualSpace
from sciresdiff.tiling import Run, run_at_once

CUT = 20.0
"""Errors beyond so many units weigh no more in training."""


@dataclass(frozen=True)
class CodeConfig(RefinerConfig):
    """What the architecture of such a refiner is, as stored in its model card."""

    kind: str = "latent"
    """A name of `sciresdiff.restoration.refiner.REFINERS`."""
    numbers: Mapping[str, int] = field(default_factory=dict)
    """Of the method's space."""


class CodeRefiner(Refiner):
    """A refiner that draws by its own rules and brings its own loss."""

    config: CodeConfig
    latent = True

    def cache_condition(self, known: Tensor, run: Run | None = None) -> Tensor:
        """`condition` as it is, (B, channels, h, w): nothing is worked in beforehand.

        Parameters
        ----------
        known : `condition`. run : not used.
        """
        return known

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> CodeRefiner:
        """The refiner that a model card describes, not filled yet."""
        return cls(CodeConfig(**card))

    @classmethod
    def for_method(cls, method: Method, config: RefinerConfig) -> CodeRefiner:
        """An untrained refiner for a method.

        Raises
        ------
        UsageError : hooks, which are for images; a factor that does not fit.
        """
        if method.hooks:
            raise UsageError(
                f"--method {method.name}: hooks = {list(method.hooks)} act on images, and the space {method.space!r} "
                "has none on the way; take them out"
            )
        shared = {f.name: getattr(config, f.name) for f in fields(RefinerConfig)}
        return cls(CodeConfig(**shared, kind=method.space, numbers=dict(method.space_params)))


class Way(nn.Module):
    """One way of a codec under the contract of the backbones: all its pixels are channels of the coarse grid."""

    def __init__(self, way: Callable[[Tensor], Tensor], unfold: int, fold: int) -> None:
        """Pixels of what comes in and of what goes out along a coarse pixel."""
        super().__init__()
        self.way, self.unfold, self.fold = way, unfold, fold

    def forward(self, x: Tensor) -> Tensor:
        """(B, C unfold^2, h, w) to (B, C' fold^2, h, w)."""
        return F.pixel_unshuffle(self.way(F.pixel_shuffle(x, self.unfold)), self.fold)


class LatentRefiner(CodeRefiner):
    """Diffusion of an autoencoder's code (Rombach et al. 2022), which is trained and frozen first."""

    def __init__(self, config: CodeConfig) -> None:
        """Build codec and network, untrained.

        Raises
        ------
        UsageError : a code whose pixels do not fit into the coarse ones.
        """
        nn.Module.__init__(self)
        self.config, self.logit = config, None
        factor, channels, s = config.numbers["factor"], config.numbers["channels"], config.scale
        if s % factor or channels > factor**2:
            raise UsageError(
                f"[space] factor = {factor}, channels = {channels}: at scale {s} the factor has to divide {s}, and "
                f"channels are 1 to factor^2; try factor = {2 if s % 2 == 0 else s}"
            )
        self.fold = s // factor
        self.codec = Codec(factor, channels).requires_grad_(False)
        square = channels * self.fold**2
        self.net = BACKBONES[config.backbone](
            square + known_channels(config.scale, config.conditions) + LEVELS, square, config.width, config.depth
        )

    @property
    def receptive_px(self) -> int:
        """Coarse pixels on each side that one evaluation of the network or the codec looks at."""
        return max(int(self.net.receptive_px), -(-self.codec.receptive_px // self.fold))  # type: ignore[arg-type]

    def encode(self, z: Tensor, run: Run) -> Tensor:
        """The code of images by the frozen autoencoder.

        Parameters
        ----------
        z : (B, 1, s*h, s*w), in the units of the space. run : how the codec is evaluated.

        Returns
        -------
        (B, channels, s*h / factor, s*w / factor)
        """
        way = Way(self.codec.encode, s := self.config.scale, self.fold)
        return F.pixel_shuffle(run(way, [F.pixel_unshuffle(z, s)]).float(), self.fold)

    def decode(self, code: Tensor, run: Run) -> Tensor:
        """The images of codes.  **Flux is not conserved.**

        Parameters
        ----------
        code : (B, channels, s*h / factor, s*w / factor). run : how the codec is evaluated.

        Returns
        -------
        (B, 1, s*h, s*w)
        """
        way = Way(self.codec.decode, self.fold, s := self.config.scale)
        return F.pixel_shuffle(run(way, [F.pixel_unshuffle(code, self.fold)]).float(), s)

    def forward(self, u: Tensor, levels: Tensor, known: Tensor | CachedCondition, run: Run | None = None) -> Tensor:
        """What the method's prediction asks for.

        Parameters
        ----------
        u : (B, channels, s*h / factor, s*w / factor), a code without its anchor. levels : (B, 3), `level_features`.
        known : (B, `known_channels`, h, w), `condition`. run : how the network is evaluated.
        """
        assert not isinstance(known, CachedCondition)
        signal, noise, size = (v[:, :, None, None] for v in levels.split(1, dim=1))
        state = F.pixel_unshuffle(u, self.fold) / (signal + noise).clamp_min(1e-3)
        parts = [state, known, levels[:, :, None, None].expand(-1, -1, *known.shape[-2:])]
        out = (run or run_at_once)(self.net, parts).float()
        if self.config.prediction == "x0":
            out = torch.addcmul(out, 1 - size, state)
        return F.pixel_shuffle(out, self.fold)

    def draw(
        self, method: Method, space: ResidualSpace, known: Tensor, noise: Noise, run: Run, steps: int | None
    ) -> Tensor:
        """One draw as an image: sample a code, decode it.

        The code's own noise has the scale 1; the method's weight is of images and not used.

        Parameters
        ----------
        known : (B, `known_channels`, h, w), `condition`. noise : unit noise of a tensor's shape, by index.
        run : how networks are evaluated. steps : of the path; None for the method's own.

        Returns
        -------
        (B, 1, s*h, s*w), noise units.
        """
        mu, path = self.encode(space.mu, run), method.path(steps)
        w, asked = torch.ones_like(mu), PREDICTIONS[method.prediction]

        def denoise(x: Tensor, t: Any) -> Tensor:
            p = path.at(t)
            return asked.estimate(p, x, self(x - p.b * mu, level_features(p, x), known, run), mu, w)

        code = sample(method, denoise, mu, w, lambda t: noise(mu, t), steps)
        return space.image(self.decode(code, run))

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
        """The loss of the prediction, at random steps of the path, in the code's own units.

        Parameters
        ----------
        known : (B, `known_channels`, h, w), `condition`. truth : (B, 1, s*h, s*w), in units of the space.
        valid : the same shape, 1 where a pixel counts. gen : where random numbers come from.
        """
        with torch.no_grad():
            x0, mu = self.encode(truth, run), self.encode(space.mu, run)
        w, path = torch.ones_like(x0), method.training_path()
        size, device = len(x0), x0.device
        t = draw_samples(lambda n: torch.randint(1, path.T + 1, (n,), generator=gen, device=device), size, gen)
        eps = draw_samples(lambda n: torch.randn((n, *x0.shape[1:]), generator=gen, device=device), size, gen)
        x, target, weight = train_pair(method, x0, mu, w, t, eps)
        p = path.at(t, x0)
        answer = self(x - p.b * mu, level_features(p, x), known, run)
        error = (answer - target).clamp(-CUT, CUT) * F.avg_pool2d(valid, self.codec.factor)
        return (LOSSES[method.loss](error) * weight).mean()


class VectorRefiner(CodeRefiner):
    """DiffIR (Xia et al. 2023): a vector is diffused, and a network that it modulates draws the image.

    The paper trains the encoder of truth and data with the network first, and both with the diffusion later; here all
    are trained at once, through the whole chain.  The data's own vector is a mean over the frame: tiles share it.
    """

    net: Drawer

    def __init__(self, config: CodeConfig) -> None:
        """Build all parts, untrained (an untrained one answers the prior's mean)."""
        nn.Module.__init__(self)
        self.config, self.logit = config, None
        length, square, seen = (
            config.numbers["length"],
            config.scale**2,
            known_channels(config.scale, config.conditions),
        )
        self.sees, self.told = Encoder(seen, length), Encoder(seen + square, length)
        self.guess = Guess(length)
        self.net = Drawer(seen, square, length, config.width, config.depth)

    @property
    def receptive_px(self) -> int:
        """Coarse pixels on each side that one evaluation looks at, but for the vector, which is the frame's."""
        return max(self.net.receptive_px, self.sees.receptive_px)

    def vector(self, encoder: Encoder, parts: list[Tensor], run: Run) -> Tensor:
        """The vector of a whole frame.

        Parameters
        ----------
        encoder : of the data, or of data and truth. parts : its input, (B, n, h, w) each. run : how it is evaluated.

        Returns
        -------
        (B, length)
        """
        return encoder.vector(run(encoder, parts).float())

    def run_chain(self, method: Method, seen: Tensor, noise: Callable[[int], Tensor], steps: int | None) -> Tensor:
        """The end of the chain of vectors.

        Parameters
        ----------
        seen : (B, length), the data's vector. noise : unit noise (B, length), by index.
        steps : of the chain; None for the method's own.

        Returns
        -------
        (B, length)
        """
        path = method.path(steps)

        def denoise(x: Tensor, t: Any) -> Tensor:
            return self.guess(x, seen, level_features(path.at(t), x))

        return sample(method, denoise, torch.zeros_like(seen), torch.ones_like(seen), noise, steps)

    def draw_by_vector(self, known: Tensor, vector: Tensor, run: Run) -> Tensor:
        """z as the network draws it by a vector.

        Parameters
        ----------
        known : (B, `known_channels`, h, w), `condition`. vector : (B, length). run : how the network is evaluated.

        Returns
        -------
        (B, 1, s*h, s*w)
        """
        return F.pixel_shuffle(run(By(self.net, vector), [known]).float(), self.config.scale)

    def draw(
        self, method: Method, space: ResidualSpace, known: Tensor, noise: Noise, run: Run, steps: int | None
    ) -> Tensor:
        """One draw as an image; draws differ by the vector that the chain starts from.

        Parameters
        ----------
        known : (B, `known_channels`, h, w), `condition`. noise : unit noise of a tensor's shape, by index.
        run : how networks are evaluated. steps : of the chain; None for the method's own.

        Returns
        -------
        (B, 1, s*h, s*w), noise units.
        """
        seen = self.vector(self.sees, [known], run)
        vector = self.run_chain(method, seen, lambda t: noise(seen[:, None, None], t)[:, 0, 0], steps)
        return space.image(self.draw_by_vector(known, vector, run))

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
        """The loss of the images by the true vector and by the chain's, and of the chain's vector.

        The chain starts at x_T of the true vector, as in the paper, and is run to its end.

        Parameters
        ----------
        known : (B, `known_channels`, h, w), `condition`. truth : (B, 1, s*h, s*w), in units of the space.
        valid : the same shape, 1 where a pixel counts. gen : where random numbers come from.
        """
        true = self.vector(self.told, [known, F.pixel_unshuffle(truth, self.config.scale)], run)
        path = method.training_path()
        size, length = true.shape
        end = path.at(path.T)
        eps = draw_samples(lambda n: torch.randn((n, length), generator=gen, device=true.device), size, gen)

        def noise(t: int) -> Tensor:  # at the start: s_T noise(T) is a_T v + s_T eps
            return eps + (end.a / end.s) * true.detach() if t == path.T else torch.zeros_like(eps)

        seen = self.vector(self.sees, [known], run)
        guess = self.run_chain(method, seen, noise, path.T)
        count = LOSSES[method.loss]
        images = [self.draw_by_vector(known, v, run) for v in (true, guess)]
        fits = [(count((image - truth).clamp(-CUT, CUT)) * valid).mean() for image in images]
        return fits[0] + fits[1] + (guess - true.detach()).abs().mean()
