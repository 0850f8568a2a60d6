"""The recipe: coarse image and its physics in; mean, error, support and draws on the fine grid out.

Physics first (a Richardson-Lucy start and the consistency step), the prior second, the refiner last; the physics holds
both to the data and runs over the whole frame, only the networks are tiled.  All in linear units: the sky is taken off
and the noise of the sky is the unit, and that is undone at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sciresdiff import tiling
from sciresdiff.diffusion import noise as noise_field
from sciresdiff.diffusion.sampler import sample
from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Quantity
from sciresdiff.malloc import keep_freed
from sciresdiff.normalize import background
from sciresdiff.physics.consistency import Data, close_flux, consistent, richardson_lucy, row_sums, support
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.statistics import Level
from sciresdiff.restoration.hooks import Args, apply_hooks
from sciresdiff.restoration.model import Model
from sciresdiff.restoration.prior import Estimate, Run, bounded_below, box, contrast, finer, kernel_features, pedestal
from sciresdiff.restoration.refiner import CachedCondition, Refiner, condition
from sciresdiff.restoration.residual_space import noise_scale, residual_space

Consistency = Literal["noise", "exact", "off"]
Progress = Callable[[int, int, str], None]

CHI2_LIMIT = 2.1
"""Local chi2 over 5 x 5 pixels that chance exceeds once in a thousand (chi-square of 25 degrees of freedom)."""
PHYSICS_ITERATIONS = 30
"""Most accelerated Richardson-Lucy iterations of the physics-only estimate; it stops sooner where chi2 reaches 1."""
PRIOR_ITERATIONS = 16
"""Chebyshev iterations between the stages of the prior."""
FINAL_ITERATIONS = 40
"""Chebyshev iterations of the last consistency step."""
REFRESH_ITERATIONS = 24
"""The same, of the step that ends a draw."""
PATIENCE = 120
"""More of them in either, where bright cores are not yet within their noise."""
MODEL_ERROR = 0.002
"""Share of the signal by which the stated kernel may be wrong, as the gate and the model see it."""


@dataclass(frozen=True)
class Settings:
    """How a frame is restored."""

    samples: int = 8
    steps: int | None = None
    refine: bool = True
    consistency: Consistency = "noise"
    tile: int = 256
    """Coarse pixels of a tile; 0 for all that is restored together."""
    seed: int = 0
    keep_draws: bool = False
    realism: float | None = None
    """0 (a mean) to 1 (a likely image) of a one-step student that was taught both; None: 1."""


@dataclass(frozen=True)
class Part:
    """A window of a plane that is restored in parts."""

    level: Level
    """What the plane is like."""
    origin: tuple[int, int]
    """Place of the window's first pixel in the plane, (y, x)."""
    core: tuple[slice, slice]
    """Coarse pixels of the window that count; the others are there for them."""


@dataclass(frozen=True)
class Restored:
    """One plane on the fine grid, in the frame's own unit; all arrays (s*h, s*w)."""

    mean: NDArray[np.float32]
    err: NDArray[np.float32]
    """Standard deviation of the posterior, per pixel; **errors of neighbouring pixels are correlated**."""
    support: NDArray[np.float32]
    """0..1, how much of the structure the data fix by themselves."""
    gate: NDArray[np.float32]
    """0..1, weight of the physics-only estimate."""
    draws: NDArray[np.float32] | None
    """(K, s*h, s*w), if they were kept."""
    chi2: float
    """Of the mean, re-degraded, over the valid pixels (of a part: in its core)."""
    flux_ratio: float
    """Total of the mean over total of the data, of the same pixels."""
    draws_used: int
    total: float = float("nan")
    """That of the data, in units of sigma."""


@dataclass(frozen=True)
class Units:
    """The affine map between the frame's unit and noise units."""

    sky: float
    sigma: float
    per_fine: float
    """What one coarse value is divided by to give a fine one: s^2 for ``sum``, 1 for ``mean``."""
    scale: int

    def image(self, x: Tensor) -> NDArray[np.float32]:
        """A fine image in the frame's unit."""
        values = x.double() * (self.sigma * self.scale**2 / self.per_fine) + self.sky / self.per_fine
        return values.float().squeeze().cpu().numpy()

    def spread(self, x: Tensor) -> NDArray[np.float32]:
        """A fine standard deviation in the frame's unit."""
        return (x.double() * (self.sigma * self.scale**2 / self.per_fine)).float().squeeze().cpu().numpy()

    def noise_units(self, values: NDArray[np.floating], like: Tensor, spread: bool = False) -> Tensor:
        """The way back from `image`, or from `spread`: (s*h, s*w) to (1, 1, s*h, s*w), dtype and device of ``like``."""
        sky = 0.0 if spread else self.sky
        noise = (values.astype(np.float64) * self.per_fine - sky) / (self.sigma * self.scale**2)
        return torch.from_numpy(noise)[None, None].to(like)


def prepared(
    pixels: NDArray[np.float32],
    variance: NDArray[np.float32],
    mask: NDArray[np.bool_],
    kernel: NDArray[np.float64] | None,
    scale: int,
    quantity: Quantity,
    device: torch.device,
    part: Part | None = None,
) -> tuple[Data, Units]:
    """The data in noise units as tensors, and the way back.

    Raises
    ------
    InputError : nothing valid, or no noise at all.
    """
    bad = mask | ~np.isfinite(pixels) | ~np.isfinite(variance) | (variance <= 0)
    if bad.all():
        raise InputError("variance: no pixel is valid and has a variance above zero; give --variance or --mask")
    level = part.level if part else None
    sky = level.sky if level else background(pixels, bad)[0]
    sigma = level.sigma if level else float(np.sqrt(np.median(variance[~bad])))
    y = np.where(bad, 0, (pixels.astype(np.float64) - sky) / sigma)
    n = np.where(bad, 1, variance.astype(np.float64) / sigma**2)
    y_, n_, valid = (torch.from_numpy(v.astype(np.float32))[None, None].to(device) for v in (y, n, ~bad))
    per_fine = float(scale**2 if quantity == "sum" else 1)
    operator = Operator(pixels.shape, scale, kernel, device=device)  # type: ignore[arg-type]
    origin = part.origin if part else (0, 0)
    return Data(y_, n_, valid, operator, level, origin), Units(float(sky), sigma, per_fine, scale)


def with_model_error(data: Data) -> Data:
    """The data with the noise that an imperfectly known kernel adds."""
    return replace(data, noise=data.noise + (MODEL_ERROR * data.y).square())


def explained(data: Data) -> tuple[Tensor, int]:
    """Richardson-Lucy until chi2 = 1, and the iterations that this took; of a part of a plane, until the plane has."""
    x, k = data.y, 0
    for k, x in enumerate(richardson_lucy(data, pedestal(data)), start=1):
        if k >= PHYSICS_ITERATIONS or (data.level is None and float(data.chi2(x).max()) <= 1):
            break
        if data.level is not None and k >= data.level.iterations:
            break
    return x, k


def physics_only(data: Data) -> Estimate:
    """Richardson-Lucy until the data are explained (chi2 = 1), then one consistency step."""
    x, _ = explained(data)
    _, amplitude = contrast(x, data.noise, data.operator.scale)
    start = bounded_below(data, Estimate(x, amplitude * float(np.exp(-1)), x))
    return replace(start, x=consistent(data, start.x, start.w.square(), FINAL_ITERATIONS, PATIENCE))


def tiled(settings: Settings, net_px: int, multiple_of: int) -> Run:
    """How a network is evaluated over a frame."""

    def run(net: nn.Module, parts: Sequence[Tensor]) -> Tensor:
        h, w = parts[0].shape[-2:]
        tile = settings.tile or max(h, w)
        plan = tiling.plan((h, w), tile, net_px, multiple_of)
        return tiling.run(net, parts, plan)

    return run


def gate_of(data: Data, model: Tensor, physics: Callable[[], Tensor]) -> Tensor | None:
    """Weight of the physics-only estimate: 0 unless the model explains the data badly and the physics does better.

    Rises smoothly from 0 to 1 while the local chi2 (5 x 5 coarse pixels) goes from twice the limit, `CHI2_LIMIT` or the
    physics' own where that is higher, to four times.  None where it is 0 everywhere; ``physics`` is asked only where
    the model's own chi2 leaves that open.
    """
    data = with_model_error(data)

    def local(x: Tensor) -> Tensor:
        return box(data.residual(x).square() / data.noise, 2)

    found = local(model)
    if float(found.max()) <= 2 * CHI2_LIMIT:
        return None
    limit = local(physics()).clamp_min(CHI2_LIMIT)
    t = (found / (2 * limit) - 1).clamp(0, 1)
    smooth = t * t * (3 - 2 * t)
    return F.interpolate(smooth, scale_factor=float(data.operator.scale), mode="bilinear")


def blended(model: Estimate, physics: Estimate, gate: Tensor) -> Estimate:
    """The model's estimate, and the physics' where the gate is open."""
    return Estimate(
        **{f.name: torch.lerp(getattr(model, f.name), getattr(physics, f.name), gate) for f in fields(model)}
    )


def modelled(data: Data, kernel: Tensor, model: Model, settings: Settings) -> tuple[Estimate, Tensor | None]:
    """The prior's estimate, the physics' where the gate is open, and the gate; None where it is closed everywhere."""
    run = tiled(settings, model.prior.receptive_px, int(getattr(model.prior.stages[0], "multiple_of", 1)))
    best = model.prior(data, kernel, run, PRIOR_ITERATIONS, FINAL_ITERATIONS, PATIENCE)[-1]
    physics = cache(lambda: physics_only(data))
    gate = gate_of(data, best.x, lambda: physics().x)
    return (best, None) if gate is None else (blended(best, physics(), gate), gate)


def settled(data: Data, x: Tensor, w2: Tensor, mode: Consistency) -> Tensor:
    """An estimate brought to what a mode promises: the flux of cells (``noise``) or of every pixel (``exact``).

    The noise-aware step is part of the estimate already; a second one would count the data twice and fit their noise.
    """
    if mode == "off":
        return x
    if mode == "noise":
        return close_flux(data, x, w2)
    exact = replace(data, noise=torch.full_like(data.noise, 1e-12))
    for _ in range(2):  # the second round takes up what float32 left of the first
        x = consistent(exact, x, w2, 1)
    return x


def gaussian(like: Tensor, seed: int, draw: int, step: int, data: Data | None = None) -> Tensor:
    """Unit noise that is a pure function of (seed, draw, step, channel, y, x).

    Draws come in antithetic pairs: an odd one has the noise of the even one before it with the other sign, so that the
    noise of the mean over draws cancels as far as a draw is linear in it.  Each draw by itself is as random as before.

    Parameters
    ----------
    data : says where in its frame ``like`` lies; without it at the origin.
    """
    channels, h, w = like.shape[-3:]
    y, x = (0, 0) if data is None else place(data, like)
    fields = [noise_field.gaussian(seed, draw // 2, step, c, y, x, h, w, like.device) for c in range(channels)]
    noise = (fields[0][None] if channels == 1 else torch.stack(fields))[None].to(like.dtype)  # one plane: no copy
    return -noise if draw % 2 else noise


def place(data: Data, like: Tensor) -> tuple[int, int]:
    """(y, x) of the first pixel in the frame, on the grid of ``like``; (0, 0) for what is no image of the data."""
    (h, w), (H, W) = data.y.shape[-2:], like.shape[-2:]
    finer = H // h
    return (finer * data.origin[0], finer * data.origin[1]) if (finer * h, finer * w) == (H, W) else (0, 0)


def deviation(data: Data, w: Tensor, seed: int, draw: int, iterations: int = 16) -> Tensor:
    """A draw from the linear-Gaussian posterior of covariance Sigma - Sigma A^T (A Sigma A^T + N)^-1 A Sigma.

    Perturb, then apply the consistency step to the perturbation (Papandreou & Yuille 2010): with e ~ N(0, Sigma) and
    n ~ N(0, N) the result e + Sigma A^T (A Sigma A^T + N)^-1 (n - A e) has that covariance exactly.
    """
    e = w * gaussian(w, seed, draw, 1_000_000, data)
    n = data.noise.sqrt() * gaussian(data.noise, seed, draw, 1_000_001, data)
    return consistent(replace(data, y=n), e, w.square(), iterations, PATIENCE)


def refined(
    data: Data, prior: Estimate, known: Tensor | CachedCondition, model: Model, settings: Settings, draw: int
) -> Tensor:
    """One draw of the refiner, in noise units; ``known`` is its `condition`, or what it made of it."""
    refiner, method = model.refiner, model.method
    assert refiner is not None and method is not None
    run = run_of(refiner, settings)
    around, path = residual_space(method, data, prior), method.path(settings.steps)
    if refiner.latent:
        assert not isinstance(known, CachedCondition)
        noise = partial(gaussian, seed=settings.seed, draw=draw, data=data)
        return refiner.draw(method, around, known, lambda like, step: noise(like, step=step), run, settings.steps)

    w = noise_scale(method, around, refiner.alpha, image=True)
    around = replace(around, up=around.mean)  # the interpolated frame has served, and is large
    realism = 0.0 if not method.has_realism else 1.0 if settings.realism is None else settings.realism

    def denoise(x: Tensor, t: float) -> Tensor:
        p = path.at(t)
        _, z = refiner.estimate(around.state(x, p), p, around, known, run, realism)
        args = Args(data, prior, around, p, path.at(max(int(np.ceil(t)) - 1, 0)), method.hook_params)
        return apply_hooks(method, around.image(z), args)

    def unit(step: int) -> Tensor:
        return gaussian(prior.x, settings.seed, draw, step, data)

    return sample(method, denoise, around.image(around.mu), w, unit, settings.steps, prior=prior.x)


def run_of(refiner: Refiner, settings: Settings) -> Run:
    """How a refiner's network is evaluated over a frame."""
    return tiled(settings, refiner.receptive_px, int(getattr(refiner.net, "multiple_of", 1)))


def known_to(model: Model | None, data: Data, best: Estimate, kernel: Tensor) -> Tensor:
    """What a model's refiner is told beside the state."""
    assert model is not None and model.refiner is not None
    return condition(data, best, kernel, model.refiner.config.conditions)


def drawing(model: Model | None, settings: Settings) -> int:
    """How many draws will be made."""
    return settings.samples if settings.refine and (model is None or model.refiner) else 0


def draws_of(data: Data, best: Estimate, kernel: Tensor, model: Model | None, settings: Settings) -> Iterator[Tensor]:
    """K draws about the best estimate; for the physics alone they are linear-Gaussian noise."""
    known: Tensor | CachedCondition = kernel
    if model is not None and refines(model, settings):
        assert model.refiner is not None
        known = model.refiner.cache_condition(known_to(model, data, best, kernel), run_of(model.refiner, settings))
    for draw in range(drawing(model, settings)):
        if model is None or model.method is None:
            yield best.x + deviation(data, best.w, settings.seed, draw)
            continue
        yield drawn(data, best, known, model, settings, draw)


def drawn(
    data: Data, best: Estimate, known: Tensor | CachedCondition, model: Model, settings: Settings, draw: int
) -> Tensor:
    """One draw of a model's refiner, held to the data."""
    left = best.w * left_open(model, settings)
    x = refreshed(data, refined(data, best, known, model, settings, draw), left, settings.seed, draw)
    extra = float(model.calibration.get("extra", 0.0))
    return x + extra * deviation(data, best.w, settings.seed, draw) if extra else x


def left_open(model: Model, settings: Settings) -> float:
    """Share of the prior's scale by which a refiner's image may still be wrong.

    It is that of the last level, s / sqrt(a^2 + s^2); of an image that a decoder made it is all.
    """
    assert model.method is not None
    last = model.method.path(settings.steps).at(1)
    return 1.0 if model.refiner and model.refiner.latent else last.s / float(np.hypot(last.a, last.s))


def refreshed(data: Data, x: Tensor, w: Tensor, seed: int, draw: int) -> Tensor:
    """A draw held to the data once more, with the noise that this takes out of it put back.

    The step x + Sigma A^T (A Sigma A^T + N)^-1 (y - A x) turns a residual r into (1 - h) r with h = S / (S + N) and
    S = A Sigma A^T.  A draw's residual has the variance N; what the step takes, N (1 - (1 - h)^2), is put back by
    perturbing the data with noise of variance N (2 - h) / h, so that its chi2 stays 1 where it was 1 and comes to 1
    where the draw was wrong by more than the noise (h near 1).

    Returns
    -------
    (B, 1, s*h, s*w)
    """
    w2 = w.square()
    signal = row_sums(data.operator, w2, torch.zeros_like(data.noise))
    share = signal / (signal + data.noise)
    noise = (data.noise * (2 - share) / share.clamp_min(1e-6)).sqrt()
    noise = noise * gaussian(noise, seed, draw, 1_000_002, data)
    return consistent(replace(data, y=data.y + noise), x, w2, REFRESH_ITERATIONS, PATIENCE)


def refines(model: Model | None, settings: Settings) -> bool:
    """True where the refiner draws."""
    return bool(model and model.refiner and settings.refine)


def calibrated(spread: Tensor, amplitude: Tensor, data: Data, model: Model | None, settings: Settings) -> Tensor:
    """A spread times the model's calibration factor, a function of the local signal-to-noise ratio."""
    name = "err" if refines(model, settings) and settings.samples > 1 else "prior_err"
    table = model.calibration.get(name) if model else None
    if not table:
        return spread
    s = data.operator.scale
    snr = amplitude * s**2 / finer(data.noise.sqrt(), s)
    at, factor = (np.asarray(table[k]) for k in ("log_snr", "factor"))
    values = np.interp(torch.log(snr).cpu().numpy(), at, factor).astype(np.float32)
    return spread * torch.from_numpy(values).to(spread.device)


@dataclass(frozen=True)
class Moments:
    """Sums over draws of their deviations from the best estimate, so that no draw has to be kept."""

    total: Tensor | float = 0.0
    """Over complete pairs: the noise of a lone draw has none to cancel it."""
    squares: Tensor | float = 0.0
    last: Tensor | float = 0.0
    count: int = 0

    def with_draw(self, deviation: Tensor) -> Moments:
        """The sums with one more draw."""
        total = self.total + self.last + deviation if self.count % 2 else self.total
        return Moments(total, self.squares + deviation.square(), deviation, self.count + 1)

    def mean(self) -> Tensor | float:
        """Mean deviation."""
        return self.total / max(self.count // 2 * 2, 1)

    def spread(self) -> Tensor:
        """Standard deviation of the draws.

        In antithetic pairs the mean's own error is of second order, so neither K / (K - 1) nor 1 + 1 / K is due.
        """
        return torch.as_tensor(self.squares / self.count - self.mean() ** 2).clamp_min(0).sqrt()


@torch.inference_mode()
def restore(
    pixels: NDArray[np.float32],
    variance: NDArray[np.float32],
    mask: NDArray[np.bool_],
    kernel: NDArray[np.float64] | None,
    scale: int,
    quantity: Quantity,
    model: Model | None,
    settings: Settings,
    device: torch.device | str = "cpu",
    progress: Progress = lambda done, total, label: None,
    part: Part | None = None,
) -> Restored:
    """Restore one plane, or a part of it.

    Parameters
    ----------
    pixels : (h, w), the frame's own unit. variance : (h, w), its square. mask : (h, w), True = no information.
    kernel : blur between the wanted image and this one, on the fine grid; None for pixel integration alone.
    scale : fine pixels per coarse pixel and axis. quantity : ``sum`` or ``mean``.
    model : None for the physics alone.
    part : where a window lies in a plane that is larger; None for a whole plane.

    Returns
    -------
    Restored; masked pixels are filled from their surroundings by the model.  **Single draws conserve the flux only
    within the noise**; the mean is closed in cells of 16 coarse pixels.

    Raises
    ------
    InputError : no valid pixel.
    UsageError : mode ``exact`` with a kernel.
    """
    keep_freed()
    if settings.consistency == "exact" and kernel is not None:
        raise UsageError("--consistency exact: with a kernel it amplifies the noise by 1e3 and more; use noise")
    data, units = prepared(pixels, variance, mask, kernel, scale, quantity, torch.device(device), part)
    features = torch.from_numpy(kernel_features(kernel, scale))[None].to(device)
    best, gate = modelled(data, features, model, settings) if model else (physics_only(data), None)
    best = begun(data, best, settings)
    progress(1, 1 + drawing(model, settings), "prior" if model else "physics")
    draws = draws_of(data, best, features, model, settings)
    return summed_up(data, units, best, gate, draws, model, settings, progress, part)


def begun(data: Data, best: Estimate, settings: Settings) -> Estimate:
    """The estimate that draws are drawn about, as the mode wants it."""
    x = settled(data, best.x if settings.consistency == "noise" else best.guess, best.w.square(), settings.consistency)
    return replace(best, x=x, guess=x)  # a plane less to hold


def summed_up(
    data: Data,
    units: Units,
    best: Estimate,
    gate: Tensor | None,
    draws: Iterator[Tensor],
    model: Model | None,
    settings: Settings,
    progress: Progress,
    part: Part | None = None,
) -> Restored:
    """Draws about the best estimate as mean and error, held to the data.

    Parameters
    ----------
    gate : None where it is closed everywhere; without a model, open.
    model : its calibration holds for these draws; None: none does.
    """
    moments, kept, mode = Moments(), [], settings.consistency
    for draw in draws:
        moments = moments.with_draw(draw - best.x)
        if settings.keep_draws:
            kept.append(units.image(draw))
        progress(1 + moments.count, 1 + drawing(model, settings), "draws")
    count = moments.count
    share = float(model.calibration.get("mean_share", 1.0)) if model else 1.0
    x, spread, w2 = best.x + moments.last, best.w, best.w.square()
    if count > 1:
        x, spread = best.x + share * moments.mean(), moments.spread()
    if count > 1 or mode == "exact":
        x = settled(data, x, w2, mode)
    scale = data.operator.scale
    _, amplitude = contrast(best.x, data.noise, scale)
    flat = finer(box(F.avg_pool2d(w2, scale), 8), scale)
    counted = data if part is None else replace(data, valid=within(data.valid, part))
    seen, total = fluxes(counted, x, units)
    return Restored(
        units.image(x),
        units.spread(calibrated(spread, amplitude, data, model, settings)),
        support(data, x, flat).clamp(0, 1).squeeze().cpu().numpy(),
        torch.as_tensor(float(model is None) if gate is None else gate).expand_as(x).squeeze().cpu().numpy(),
        np.stack(kept) if kept else None,
        float(counted.chi2(x)),
        seen / total if total else float("nan"),
        count,
        total,
    )


def within(valid: Tensor, part: Part) -> Tensor:
    """``valid`` in the core of a part, 0 around it."""
    inside = torch.zeros_like(valid)
    inside[(..., *part.core)] = valid[(..., *part.core)]
    return inside


def fluxes(data: Data, x: Tensor, units: Units) -> tuple[float, float]:
    """Totals of A x and of y over the valid pixels, in units of the noise, from the zero of the frame's unit."""
    sky = units.sky / units.sigma
    y = ((data.y.double() + sky) * data.valid).sum()
    seen = ((data.operator.apply(x).double() + sky) * data.valid).sum()
    return float(seen), float(y)
