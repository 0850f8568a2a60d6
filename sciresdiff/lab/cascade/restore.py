"""A cascade: two models in a row, draw by draw (CDM, Ho et al. 2022, arXiv:2106.15282).

Draw k of the first model is the coarse image of draw k of the second one, so that the draws of the whole carry the
errors of both.  What is passed on is not the draw x_k itself but

    y_k = m + sqrt(1 - 2 sigma^2) (x_k - m) + sigma E z,    of variance  sigma^2 E^2

with m and E the first model's mean and ERR: Gaussian noise of a level sigma that the second model is told, so that it
does not rely on details that the first may have got wrong (conditioning augmentation), and as much less of the draw's
own deviation that truths about y_k are spread as E on the first grid, if E is right: 1 - 2 sigma^2 from the deviation,
sigma^2 from the noise, sigma^2 from what the second model leaves open.  Every draw, and the mean, is held to the frame
itself with the operator of both scales at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciresdiff.diffusion.method_file import LARGEST_USE
from sciresdiff.diffusion.noise import key_of
from sciresdiff.errors import UsageError
from sciresdiff.observation.observation import Observation
from sciresdiff.observation.units import NoiseUnits
from sciresdiff.physics.consistency import Data, consistency_step
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.psf.split import split_kernel
from sciresdiff.physics.statistics import PlaneStatistics
from sciresdiff.restoration.fallback import FINAL_ITERATIONS, PATIENCE
from sciresdiff.restoration.model import Model
from sciresdiff.restoration.ops import box_mean, psf_features, upsample_nearest
from sciresdiff.restoration.posterior import draw_sample, gaussian, has_refiner, perturbed_consistency
from sciresdiff.restoration.prior import Estimate
from sciresdiff.restoration.refiner import condition
from sciresdiff.restoration.restore import (
    Progress,
    estimate,
    posterior_summary,
    refuse_exact,
    restore,
    starting_estimate,
)
from sciresdiff.restoration.restored import RestoredPlane
from sciresdiff.restoration.settings import Settings

Array = NDArray[np.float32]
Second = Callable[[Tensor, Tensor, int | None], Array]
"""(image between the stages, its variance, number of the draw; None: no draw, the best estimate) -> fine image, all in
the frame's unit; the tensors (1, 1, Y, X)."""

STAGE_TWO, WHOLE = 2, 3
"""What tells the noise of the second model, and of the last step, from the first model's."""


def augmentation_level(model: Model) -> float:
    """The noise that a model wants on an earlier one's image, in units of that one's ERR; the most if it was not asked.

    A model that was trained on frames alone trusts details too much that an earlier model may have got wrong.
    """
    told = model.method.augment if model.method else {}
    return float(told.get("use", LARGEST_USE))


def smooth_error(first: RestoredPlane) -> Tensor:
    """The first model's ERR: its mean square over 3 x 3 pixels, as few draws scatter by themselves.

    Returns
    -------
    (1, 1, Y, X), in the frame's unit.
    """
    return box_mean(torch.from_numpy(first.err.astype(np.float64))[None, None].square(), 1).sqrt()


def coarse_draw(
    first: RestoredPlane, error: Tensor, level: float, seed: int, draw: int, data: Data | None = None
) -> tuple[Tensor, Tensor]:
    """What the second model is given for a draw, and its variance; (1, 1, Y, X), in the frame's unit.

    Parameters
    ----------
    first : with its draws. error : `smooth_error`. level : sigma, above 0 and below 1 / sqrt(2).
    data : the frame, which says where in its plane it lies; None: at the origin.
    """
    assert first.draws is not None
    mean, one = (torch.from_numpy(v.astype(np.float64))[None, None] for v in (first.mean, first.draws[draw]))
    noise = gaussian(mean, seed, draw, 1_000_003, data)
    return mean + (1 - 2 * level**2) ** 0.5 * (one - mean) + level * error * noise, (level * error).square()


def chain_draws(
    data: Data,
    first: RestoredPlane,
    second: Second,
    fine: Callable[[Array], Tensor],
    w: Tensor,
    level: float,
    seed: int,
) -> Iterator[Tensor]:
    """Draws of the whole, in noise units, each held to the frame.

    Parameters
    ----------
    data : the frame, with the operator of both scales. fine : a fine image in the frame's unit -> noise units.
    w : (1, 1, s*h, s*w), what the first stage may be wrong by, per fine pixel.
    """
    error = smooth_error(first)
    assert first.draws is not None
    for draw in range(len(first.draws)):
        x = fine(second(*coarse_draw(first, error, level, key_of(seed, STAGE_TWO), draw, data), draw))
        yield perturbed_consistency(data, x, w, key_of(seed, WHOLE), draw)


def middle_statistics(statistics: PlaneStatistics, units: NoiseUnits) -> PlaneStatistics:
    """What the plane of the image between the stages is like: the frame's plane, pixel by pixel.

    All of it is told by the frame's plane, so that parts agree; nothing is read off the part.

    Parameters
    ----------
    statistics : of the frame's plane.
    units : of the first model's image, from which a frame's sky and noise are brought to it.
    """
    sky, sigma = units.sky / units.per_fine, units.sigma * units.scale / units.per_fine
    return replace(statistics, sky=sky, sigma=sigma, y=statistics.y / np.float32(units.scale))


def second_stage(model: Model, first: Observation, psf: PSF | None, settings: Settings, device: torch.device) -> Second:
    """The second model as a function of the image between the stages.

    Parameters
    ----------
    first : what the first model restored from; says where the image between the stages lies in its plane.
    psf : what the first model left to undo, on the output grid.
    """
    settings, level = replace(settings, seed=key_of(settings.seed, STAGE_TWO)), augmentation_level(model)
    features = torch.from_numpy(psf_features(psf, model.scale))[None].to(device)
    exposure, scale = first.exposure, first.scale
    statistics = tuple(middle_statistics(one, first.units) for one in exposure.statistics)
    region, core = (None if r is None else r.scaled(scale) for r in (exposure.region, first.core))

    def observe(y: Tensor, variance: Tensor) -> Observation:
        pixels, noise = (v[0, 0].cpu().numpy().astype(np.float32) for v in (y, variance))
        made = Observation.of_arrays(pixels, noise, model.scale, psf, quantity=first.quantity)
        return replace(made, exposures=[replace(made.exposure, statistics=statistics, region=region)], core=core)

    def second(y: Tensor, variance: Tensor, draw: int | None) -> Array:
        between = observe(y, variance)
        data, units = between.data(device), between.units
        best, _ = estimate(data, features, model, settings)
        if draw is None:
            return units.image(best.x)
        assert model.refiner is not None
        known = condition(data, best, features, model.refiner.config.conditions, level)
        return units.image(draw_sample(data, best, known, model, settings, draw))

    return second


@torch.inference_mode()
def cascade(
    observation: Observation,
    models: tuple[Model, Model],
    settings: Settings,
    device: torch.device | str = "cpu",
    progress: Progress = lambda done, total, label: None,
) -> RestoredPlane:
    """Restore one plane by two models in a row; the scale is the product of theirs.

    Parameters
    ----------
    observation : as for `restore`; its PSF is that of both scales together, the same all over the field.
    models : the first one, and the one that goes on with its draws. settings : how draws are made.
    device : where networks run. progress : is told what is done.

    Returns
    -------
    RestoredPlane: ERR is the scatter of the chained draws; **neither model's calibration holds for it**.  GATE is the
    first model's.

    Raises
    ------
    InputError : no valid pixel.
    UsageError : a model without a refiner, or mode ``exact`` with a kernel.
    """
    one, two = models
    if not (has_refiner(one, settings) and has_refiner(two, settings)):
        raise UsageError("--then: a cascade passes draws on; both need a refiner, and --no-refine is not allowed")
    refuse_exact(observation, settings)
    device, total = torch.device(device), 2 * (1 + settings.samples)
    data, units, whole = observation.data(device), observation.units, observation.exposure.psf
    kernels = split_kernel(None if whole is None else whole.mean, two.scale)
    coarse, rest = (None if kernel is None else PSF.constant(kernel) for kernel in kernels)
    exposure = replace(observation.exposure, psf=coarse)
    stage = replace(observation, exposures=[exposure], grid=exposure.grid.refine(one.scale))
    first = restore(stage, one, replace(settings, keep_draws=True), device,
                    lambda done, _, label: progress(done, total, f"{label}, first model"))  # fmt: skip
    error = smooth_error(first)
    second = second_stage(two, stage, rest, settings, device)
    share = two.scale**2 if observation.quantity == "sum" else 1
    w = units.noise_units(upsample_nearest(error, two.scale)[0, 0].numpy() / share, data.y, spread=True)

    def fine(image: Array) -> Tensor:
        return units.noise_units(image, data.y)

    guess = fine(second(torch.from_numpy(first.mean)[None, None], error.square(), None))
    x = consistency_step(data, guess, w.square(), FINAL_ITERATIONS, PATIENCE)
    best = starting_estimate(data, Estimate(x, w, guess), settings)
    gate = upsample_nearest(torch.from_numpy(first.gate)[None, None], two.scale).to(data.y)
    draws = chain_draws(data, first, second, fine, w, augmentation_level(two), settings.seed)
    half = total // 2
    return posterior_summary(observation, data, best, gate, draws, None, settings,
                             lambda done, _, label: progress(half + done, total, f"{label}, second model"))  # fmt: skip
