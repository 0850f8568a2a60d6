"""The recipe: an observation in; mean, error, support and posterior samples on the output grid out.

Physics first (Richardson-Lucy and the consistency step), the prior second, the refiner last; the physics holds both to
the data and runs over the whole frame, only the networks are tiled.  All in noise units: the sky is taken off, the
noise of the sky is the unit, and that is undone at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from sciresdiff.errors import InputError, UsageError
from sciresdiff.malloc import keep_freed
from sciresdiff.observation.observation import Observation
from sciresdiff.physics.consistency import Data, close_flux, consistency_step, support
from sciresdiff.physics.richardson_lucy import richardson_lucy_until_chi2_one
from sciresdiff.restoration.bootstrap import Bootstrap, excess, student_factor, with_opposites
from sciresdiff.restoration.fallback import (
    FINAL_ITERATIONS,
    PATIENCE,
    blend,
    fallback_weight,
    physics_estimate,
)
from sciresdiff.restoration.model import Model
from sciresdiff.restoration.ops import psf_features
from sciresdiff.restoration.posterior import (
    Moments,
    calibrate,
    count_samples,
    draw_samples,
    noise_of_draw,
    scene_error,
)
from sciresdiff.restoration.prior import Estimate
from sciresdiff.restoration.restored import RestoredPlane
from sciresdiff.restoration.settings import Consistency, Settings
from sciresdiff.restoration.unseen import fit_joint, hold_positive, unseen_weight
from sciresdiff.tiling import run_in_tiles

Progress = Callable[[int, int, str], None]

PRIOR_ITERATIONS = 16
"""Chebyshev iterations between the stages of the prior."""
FLAT_PX = 8
"""Coarse px about a pixel over which Sigma is averaged for SUPPORT."""


@torch.inference_mode()
def restore(
    observation: Observation,
    model: Model | None = None,
    settings: Settings | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = lambda done, total, label: None,
) -> RestoredPlane:
    """Restore one plane, or a window of it.

    Parameters
    ----------
    observation : of one plane in memory; (h, w) on its own grid, (s*h, s*w) on the output grid.
    model : None for the physics alone; of the observation's scale.
    settings : the default ones without.
    device : where the tensors live.
    progress : told (done, total, what).

    Returns
    -------
    RestoredPlane; masked pixels are filled from their surroundings by the model.  **Single samples conserve the flux
    only within the noise**; the mean is closed in cells of 16 coarse pixels.

    Raises
    ------
    InputError : no valid pixel, or a PSF that does not fit the frame.
    UsageError : mode ``exact`` with a kernel.
    """
    keep_freed()
    settings = settings or Settings()
    refuse_exact(observation, settings)
    data = observation.data(device)
    features = torch.from_numpy(psf_features(observation.exposure.psf, observation.scale))[None].to(device)
    best, gate = estimate(data, features, model, settings)
    iterations = best.iterations
    best = starting_estimate(data, best, settings)
    progress(1, 1 + count_samples(model, settings), "prior" if model else "physics")
    # The noise of the draws is that of the estimate; that of chi2 does not depend on the image that is judged by it.
    renewed = data.renew_noise(best.x)
    drawn = model is None and count_samples(model, settings) > 0
    errors = physics_errors(renewed, best, iterations, settings) if drawn else None
    samples = draw_samples(renewed, best, features, model, settings, errors)
    return posterior_summary(observation, data, best, gate, samples, model, settings, progress)


def refuse_exact(observation: Observation, settings: Settings) -> None:
    """Refuse to meet noisy data exactly through a blur.

    Raises
    ------
    UsageError
    """
    if settings.consistency == "exact" and observation.exposure.psf is not None:
        raise UsageError("--consistency exact: with a kernel it amplifies the noise by 1e3 and more; use noise")


def estimate(data: Data, features: Tensor, model: Model | None, settings: Settings) -> tuple[Estimate, Tensor | None]:
    """The prior's estimate, or the physics' where that explains the data better; and the weight of the latter.

    Parameters
    ----------
    features : (1, 4), `ops.psf_features`.
    model : None for the physics alone.

    Returns
    -------
    The estimate, and the weight (1, 1, s*h, s*w) of the physics; None where it is 0 everywhere, or there is no model.
    """
    if model is None:
        return physics_estimate(data), None
    run = run_in_tiles(settings.tile, model.prior.receptive_px, int(getattr(model.prior.stages[0], "multiple_of", 1)))
    best = model.prior(data, features, run, PRIOR_ITERATIONS, FINAL_ITERATIONS, PATIENCE)[-1]
    physics = cache(lambda: physics_estimate(data))
    gate = fallback_weight(data, best.x, lambda: physics().x)
    return (best, None) if gate is None else (blend(best, physics(), gate), gate)


def starting_estimate(data: Data, best: Estimate, settings: Settings) -> Estimate:
    """The estimate that samples are drawn about, positive around unseen cores, with the flux that the mode promises.

    Parameters
    ----------
    data, best : of one plane, noise units.
    settings : ``consistency``; in mode ``noise`` the estimate is held to the data already.
    """
    weight = unseen_weight(data, best.x)
    if weight is not None:
        best = fit_joint(data, hold_positive(best, richardson_lucy_until_chi2_one(data)[0], weight), weight)
    x = enforce_flux(
        data, best.x if settings.consistency == "noise" else best.guess, best.w.square(), settings.consistency
    )
    return replace(best, x=x, guess=x)  # a plane less to hold


def physics_errors(data: Data, best: Estimate, iterations: int | None, settings: Settings) -> Iterator[Tensor]:
    """Deviations of the physics' estimate, (1, 1, s*h, s*w), in pairs of opposite sign.

    Three things: by the `Bootstrap` of the whole procedure its noise, enlarged by Student's t for few pairs; by the
    same what it leaves undone, whose size is known and whose sign changes from pair to pair; and structure that the
    data do not hold, of the scale ``w`` where the image is more than noise or no valid pixel sees it.  Of the last two
    the larger counts.

    Parameters
    ----------
    data : with the noise of the estimate.
    best : the estimate.
    iterations : of Richardson-Lucy that it took.
    """

    def again(made: Data) -> Tensor:
        return starting_estimate(made, physics_estimate(made, iterations), settings).x

    def noise_error(draw: int) -> Tensor:
        return bootstrap.noise_error(noise_of_draw(data, settings.seed, draw))

    def deviations() -> Iterator[Tensor]:
        first = noise_error(0)
        bias = bootstrap.undone(first)
        share = torch.maximum(bootstrap.structure_share(first), unmeasured_share(data))
        scale, silent = best.w * share.sqrt(), torch.zeros_like(data.y)
        for draw in range(0, settings.samples, 2):
            error = noise_error(draw) if draw else first
            unseen = scene_error(data, scale, silent, settings.seed, draw)
            left = (-bias if draw % 4 else bias) + excess(unseen, bias)
            yield torch.add(left, error, alpha=student_factor(settings.samples))

    bootstrap = Bootstrap(data, best.x, again)
    return with_opposites(deviations(), settings.samples)


def unmeasured_share(data: Data) -> Tensor:
    """Share of the pixels over one that are not valid, seen through the PSF, 0 to 1; (1, 1, s*h, s*w)."""
    seen, all_ = (data.operator.adjoint(v) for v in (data.valid, torch.ones_like(data.valid)))
    return (1 - seen / all_).clamp(0, 1)


def enforce_flux(data: Data, x: Tensor, w2: Tensor, mode: Consistency) -> Tensor:
    """Enforce the flux constraint of the chosen mode: of cells (``noise``) or of every pixel (``exact``).

    The noise-aware step is part of the estimate already; a second one would count the data twice and fit their noise.

    Parameters
    ----------
    x, w2 : (1, 1, s*h, s*w), the image and its variance, noise units.
    """
    if mode == "off":
        return x
    if mode == "noise":
        return close_flux(data, x, w2)
    exact = replace(data, noise=torch.full_like(data.noise, 1e-12))
    for _ in range(2):  # the second round takes up what float32 left of the first
        x = consistency_step(exact, x, w2, 1)
    return x


def posterior_summary(
    observation: Observation,
    data: Data,
    best: Estimate,
    gate: Tensor | None,
    samples: Iterator[Tensor],
    model: Model | None,
    settings: Settings,
    progress: Progress,
) -> RestoredPlane:
    """Samples about the best estimate as mean and error, held to the data, in the frame's unit.

    Parameters
    ----------
    observation, data : the same plane, in the frame's unit and in noise units.
    gate : (1, 1, s*h, s*w), 0..1; None where it is 0 everywhere, or there is no model.
    samples : (1, 1, s*h, s*w) each, noise units.
    model : its calibration holds for these samples; None: none does.
    """
    moments, kept, units, mode = Moments(), [], observation.units, settings.consistency
    for sample in samples:
        moments = moments.with_sample(sample - best.x)
        if settings.keep_draws:
            kept.append(units.image(sample))
        progress(1 + moments.count, 1 + count_samples(model, settings), "draws")
    count = moments.count
    x, spread, w2 = best.x + moments.last, best.w, best.w.square()
    if count > 1:
        share = float(model.calibration.get("mean_share", 1.0)) if model else 1.0
        x, spread = best.x + share * moments.mean() * seen_share(best), moments.spread()
    if count > 1 or mode == "exact":
        x = enforce_flux(data, x, w2, mode)
    refuse_nonfinite_image(x, spread)
    counted = restrict_to_core(data, observation)
    unseen = None if best.unseen is None else (best.unseen > 0).squeeze().cpu().numpy()
    seen, total = total_flux(counted, x, units.sky / units.sigma)
    flat = data.planar.average(w2, FLAT_PX)
    return RestoredPlane(
        units.image(x),
        units.spread(calibrate(spread, best.x, data, model, settings)),
        support(data, x, flat).clamp(0, 1).squeeze().cpu().numpy(),
        torch.as_tensor(float(model is None) if gate is None else gate).expand_as(x).squeeze().cpu().numpy(),
        np.stack(kept) if kept else None,
        float(counted.chi2(x)),
        seen / total if total else float("nan"),
        count,
        total,
        unseen,
    )


def refuse_nonfinite_image(x: Tensor, spread: Tensor) -> None:
    """Refuse an image or an error with NaN or infinity: the data are finite where they are valid.

    Raises
    ------
    InputError
    """
    if not all(bool(one.isfinite().all()) for one in (x, spread)):
        raise InputError(
            "image: finite data gave values that are not finite (NaN); look for pixels of absurd size (--mask), a "
            "wrong noise (--variance) or PSF (--psf), or damaged weights (--model physics)"
        )


def seen_share(best: Estimate) -> Tensor | float:
    """1 less the weight of unseen cores, where the mean of the samples would be the linear step's once more."""
    return 1.0 if best.unseen is None else 1 - best.unseen


def restrict_to_core(data: Data, observation: Observation) -> Data:
    """The data with no other pixel valid than those that count."""
    if observation.core is None:
        return data
    inside, here = torch.zeros_like(data.valid), (..., *observation.core.slices)
    inside[here] = data.valid[here]
    return replace(data, valid=inside)


def total_flux(data: Data, x: Tensor, sky: float) -> tuple[float, float]:
    """Totals of A x and of y over the valid pixels, in units of the noise, from the zero of the frame's unit.

    Parameters
    ----------
    x : (1, 1, s*h, s*w), noise units.
    sky : of the frame, in units of its noise.
    """
    y = ((data.y.double() + sky) * data.valid).sum()
    seen = ((data.operator.apply(x).double() + sky) * data.valid).sum()
    return float(seen), float(y)
