"""Posterior samples: images drawn about the best estimate, each held to the data; and what they say together.

With a refiner a sample is drawn by its method and then measured against the data once more; with the physics alone it
is drawn from the linear-Gaussian posterior.  Mean and scatter are summed up while sampling, so that no sample has to be
kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from sciresdiff.diffusion import noise as noise_field
from sciresdiff.diffusion.sampler import sample
from sciresdiff.physics.consistency import Data, consistency_step, row_sum_bound
from sciresdiff.restoration.fallback import PATIENCE
from sciresdiff.restoration.hooks import Args, apply_hooks
from sciresdiff.restoration.model import Model
from sciresdiff.restoration.ops import local_contrast, upsample_nearest
from sciresdiff.restoration.prior import Estimate
from sciresdiff.restoration.refiner import CachedCondition, Refiner, condition
from sciresdiff.restoration.residual_space import noise_scale, residual_space
from sciresdiff.restoration.settings import Settings
from sciresdiff.tiling import Run, run_in_tiles

PERTURBATION_ITERATIONS = 16
"""Chebyshev iterations of a draw from the linear-Gaussian posterior."""
CONSISTENCY_ITERATIONS = 24
"""The same, of the step that ends a sample."""
PERTURBED_SCENE, PERTURBED_DATA, ADDED_BACK = 1_000_000, 1_000_001, 1_000_002
"""Steps of the noise field that no sampler reaches, so that no noise is used twice."""
WIDTH, GOLDEN = 1_000_003, 0.6180339887498949
"""Number of the deviate of the kernel's width, and the golden ratio less one."""


def gaussian(like: Tensor, seed: int, draw: int, step: int, data: Data | None = None) -> Tensor:
    """Unit noise that is a pure function of (seed, draw, step, channel, y, x).

    Draws come in antithetic pairs: an odd one has the noise of the even one before it with the other sign, so that the
    noise of the mean over draws cancels as far as a draw is linear in it.  Each draw by itself is as random as before.

    Parameters
    ----------
    like : (..., C, h, w); shape, dtype and device of the noise.
    seed, draw, step : whole numbers, at least 0.
    data : says where in its frame ``like`` lies; None: at the origin.
    """
    channels, h, w = like.shape[-3:]
    y, x = (0, 0) if data is None else first_pixel(data, like)
    fields = [noise_field.gaussian(seed, draw // 2, step, c, y, x, h, w, like.device) for c in range(channels)]
    noise = (fields[0][None] if channels == 1 else torch.stack(fields))[None].to(like.dtype)  # one plane: no copy
    return -noise if draw % 2 else noise


def first_pixel(data: Data, like: Tensor) -> tuple[int, int]:
    """(y, x) of the first pixel in the frame, on the grid of ``like``; (0, 0) for what is no image of the data."""
    (h, w), (H, W) = data.y.shape[-2:], like.shape[-2:]
    ratio = H // h
    return (ratio * data.origin[0], ratio * data.origin[1]) if (ratio * h, ratio * w) == (H, W) else (0, 0)


def posterior_perturbation(data: Data, w: Tensor, seed: int, draw: int) -> Tensor:
    """A draw from the linear-Gaussian posterior of covariance Sigma - Sigma A^T (A Sigma A^T + N)^-1 A Sigma.

    Perturb, then apply the consistency step to the perturbation (Papandreou & Yuille 2010): with e ~ N(0, Sigma) and
    n ~ N(0, N) the result e + Sigma A^T (A Sigma A^T + N)^-1 (n - A e) has that covariance exactly.

    Parameters
    ----------
    w : (1, 1, s*h, s*w), the root of the diagonal of Sigma, noise units.
    seed, draw : of the noise.

    Returns
    -------
    (1, 1, s*h, s*w), of mean zero.
    """
    return scene_error(data, w, noise_of_draw(data, seed, draw), seed, draw)


def noise_of_draw(data: Data, seed: int, draw: int) -> Tensor:
    """n ~ N(0, N), the noise of the data that belongs to a draw, (1, C, h, w)."""
    return data.noise.sqrt() * gaussian(data.noise, seed, draw, PERTURBED_DATA, data)


def scene_error(data: Data, w: Tensor, n: Tensor, seed: int, draw: int) -> Tensor:
    """e + Sigma A^T (A Sigma A^T + N)^-1 (n - A e) with e ~ N(0, Sigma): without noise n what data leave of e unseen.

    Parameters
    ----------
    w : (1, 1, s*h, s*w), the root of the diagonal of Sigma, noise units.
    n : (1, 1, h, w), noise of the data, or 0.
    seed, draw : of e.

    Returns
    -------
    (1, 1, s*h, s*w), of mean zero.
    """
    e = w * gaussian(w, seed, draw, PERTURBED_SCENE, data)
    return consistency_step(replace(data, y=n), e, w.square(), PERTURBATION_ITERATIONS, PATIENCE)


def perturbed_consistency(data: Data, x: Tensor, w: Tensor, seed: int, draw: int) -> Tensor:
    """A sample held to the data once more, with the noise that this takes out of it put back.

    The step x + Sigma A^T (A Sigma A^T + N)^-1 (y - A x) turns a residual r into (1 - h) r with h = S / (S + N) and
    S = A Sigma A^T.  A sample's residual has the variance N; what the step takes, N (1 - (1 - h)^2), is put back by
    perturbing the data with noise of variance N (2 - h) / h, so that its chi2 stays 1 where it was 1 and comes to 1
    where the sample was wrong by more than the noise (h near 1).

    Parameters
    ----------
    x : (B, 1, s*h, s*w), the sample.
    w : the same shape, the scale by which it may still be wrong.
    seed, draw : of the noise.

    Returns
    -------
    (B, 1, s*h, s*w)
    """
    w2 = w.square()
    signal = row_sum_bound(data.operator, w2, torch.zeros_like(data.noise))
    h = signal / (signal + data.noise)
    noise = (data.noise * (2 - h) / h.clamp_min(1e-6)).sqrt()
    noise = noise * gaussian(noise, seed, draw, ADDED_BACK, data)
    return consistency_step(replace(data, y=data.y + noise), x, w2, CONSISTENCY_ITERATIONS, PATIENCE)


def response_to_width(data: Data, best: Estimate) -> Tensor | None:
    """What one standard error of the kernel's width changes in an estimate, (1, 1, s*h, s*w); None where it has none.

    With A_+ and A_- of the kernels drawn out by 1 + f and 1 - f, the estimate that explains the same data takes up
    (A - A_+) x and (A - A_-) x.  Half of the difference of the two is the derivative times f.

    Parameters
    ----------
    data : with ``width_error``, f.
    best : the estimate x and the scale w of its error, noise units.
    """
    if not data.width_error:
        return None
    seen, changes = data.operator.apply(best.x), []
    for sign in (1, -1):
        other = replace(data, operator=data.operator.rescale(1 + sign * data.width_error))
        missing = replace(other, y=seen - other.operator.apply(best.x))
        nothing = torch.zeros_like(best.x)
        changes.append(consistency_step(missing, nothing, best.w.square(), PERTURBATION_ITERATIONS, PATIENCE))
    return (changes[0] - changes[1]) / 2


def width_of_draw(seed: int, draw: int) -> float:
    """By how many standard errors the kernel of a draw is wider than the one that is believed.

    Normal deviates of a low-discrepancy sequence (the golden ratio's multiples), so that few draws have the right
    scatter; those of a pair have opposite signs.  All parts of a frame have the same.
    """
    u = (noise_field.key_of(seed, WIDTH) % 2**32 / 2**32 + (draw // 2 + 1) * GOLDEN) % 1
    # |z| of the pair: a quantile of the half-normal distribution, its outermost thousandth left out
    z = float(ndtri(0.5 + 0.5 * min(u, 0.999)))
    return -z if draw % 2 else z


def count_samples(model: Model | None, settings: Settings) -> int:
    """How many samples will be drawn."""
    return settings.samples if settings.refine and (model is None or model.refiner) else 0


def has_refiner(model: Model | None, settings: Settings) -> bool:
    """Whether the samples are a refiner's."""
    return bool(model and model.refiner and settings.refine)


def draw_samples(
    data: Data,
    best: Estimate,
    features: Tensor,
    model: Model | None,
    settings: Settings,
    errors: Iterator[Tensor] | None = None,
) -> Iterator[Tensor]:
    """Samples about the best estimate, one after the other.

    Parameters
    ----------
    best : the estimate that they scatter about.
    features : (1, 4), `ops.psf_features`.
    model : None for the physics alone.
    errors : deviations of the physics' estimate, as many as there are samples; by default those of the linear-Gaussian
        posterior about it.

    Yields
    ------
    (1, 1, s*h, s*w), noise units.
    """
    response = response_to_width(data, best) if count_samples(model, settings) > 1 else None

    def other_kernel(x: Tensor, draw: int) -> Tensor:
        """The sample as the kernel of its draw would have it."""
        return x if response is None else torch.add(x, response, alpha=width_of_draw(settings.seed, draw))

    if model is None or not has_refiner(model, settings):
        for draw in range(count_samples(model, settings)):
            error = next(errors) if errors else posterior_perturbation(data, best.w, settings.seed, draw)
            yield other_kernel(best.x + error, draw)
        return
    assert model.refiner is not None
    known = condition(data, best, features, model.refiner.config.conditions)
    cached = model.refiner.cache_condition(known, run_refiner(model.refiner, settings))
    for draw in range(settings.samples):
        yield other_kernel(draw_sample(data, best, cached, model, settings, draw), draw)


def draw_sample(
    data: Data, best: Estimate, known: Tensor | CachedCondition, model: Model, settings: Settings, draw: int
) -> Tensor:
    """One sample of a model's refiner, held to the data.

    Parameters
    ----------
    known : the refiner's `condition`, or what it made of it beforehand.
    draw : its number; the noise depends on it alone.

    Returns
    -------
    (1, 1, s*h, s*w), noise units.
    """
    left = best.w * scale_left_open(model, settings)
    x = perturbed_consistency(data, refine(data, best, known, model, settings, draw), left, settings.seed, draw)
    extra = float(model.calibration.get("extra", 0.0))
    return x + extra * posterior_perturbation(data, best.w, settings.seed, draw) if extra else x


def refine(
    data: Data, prior: Estimate, known: Tensor | CachedCondition, model: Model, settings: Settings, draw: int
) -> Tensor:
    """An image that the refiner's method draws, (1, 1, s*h, s*w); noise units, **not yet held to the data**.

    The method runs in units of the prior's error, z = (x - mean) / scale (`residual_space`).
    """
    refiner, method = model.refiner, model.method
    assert refiner is not None and method is not None
    run = run_refiner(refiner, settings)
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


def scale_left_open(model: Model, settings: Settings) -> float:
    """Share of the prior's scale by which a refiner's image may still be wrong.

    It is that of the last level, s / sqrt(a^2 + s^2); of an image that a decoder made it is all.
    """
    assert model.method is not None
    last = model.method.path(settings.steps).at(1)
    return 1.0 if model.refiner and model.refiner.latent else last.s / float(np.hypot(last.a, last.s))


@dataclass(frozen=True)
class Moments:
    """Sums over samples of their deviations from the best estimate."""

    total: Tensor | float = 0.0
    """Over complete pairs: the noise of a lone draw has none to cancel it."""
    squares: Tensor | float = 0.0
    last: Tensor | float = 0.0
    count: int = 0

    def with_sample(self, deviation: Tensor) -> Moments:
        """The sums with one sample more."""
        total = self.total + self.last + deviation if self.count % 2 else self.total
        return Moments(total, self.squares + deviation.square(), deviation, self.count + 1)

    def mean(self) -> Tensor | float:
        """Mean deviation."""
        return self.total / max(self.count // 2 * 2, 1)

    def spread(self) -> Tensor:
        """Standard deviation of the samples.

        In antithetic pairs the mean's own error is of second order, so neither K / (K - 1) nor 1 + 1 / K is due.
        """
        return torch.as_tensor(self.squares / self.count - self.mean() ** 2).clamp_min(0).sqrt()


def calibrate(spread: Tensor, best: Tensor, data: Data, model: Model | None, settings: Settings) -> Tensor:
    """A spread times the model's calibration factor, a function of the local signal-to-noise ratio.

    Parameters
    ----------
    spread : (1, 1, s*h, s*w), standard deviation, noise units.
    best : the same shape, the estimate whose contrast over the noise is the signal-to-noise ratio.
    """
    name = "err" if has_refiner(model, settings) and settings.samples > 1 else "prior_err"
    table = model.calibration.get(name) if model else None
    if not table:
        return spread
    s = data.scale
    _, amplitude = local_contrast(best, data.noise, s)
    snr = amplitude * s**2 / upsample_nearest(data.noise.sqrt(), s)
    at, factor = (np.asarray(table[k]) for k in ("log_snr", "factor"))
    values = np.interp(torch.log(snr).cpu().numpy(), at, factor).astype(np.float32)
    return spread * torch.from_numpy(values).to(spread.device)


def run_refiner(refiner: Refiner, settings: Settings) -> Run:
    """How a refiner's network is evaluated over a frame."""
    return run_in_tiles(settings.tile, refiner.receptive_px, int(getattr(refiner.net, "multiple_of", 1)))
