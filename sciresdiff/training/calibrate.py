"""Making ERR true: how far the truth really lies from the mean, on simulated frames, by signal to noise.

The frames go through the same recipe as a user's; their truth has no grain of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sciresdiff.restoration.model import Model
from sciresdiff.restoration.ops import local_contrast
from sciresdiff.restoration.restore import restore
from sciresdiff.restoration.restored import RestoredPlane
from sciresdiff.restoration.settings import Settings
from sciresdiff.training.recipe import DataRecipe
from sciresdiff.training.simulated_frame import SimulatedFrame, simulate_frames

EDGES = np.array([-np.inf, 0.25, 0.5, 1, 1.5, 2, 3, 4.5, 6.5, np.inf])
"""Bins of the logarithm of the local contrast over the noise."""
FEWEST = 200
"""Fewest pixels of a bin that has a factor of its own."""
ONE_SIGMA = 0.6827
"""Share of a normal distribution within one sigma."""


def calibrate_err(model: Model, recipe: DataRecipe, seed: int, count: int = 24) -> Model:
    """Measure the calibration of a model on simulated frames: of draws, and of the prior alone.

    ``extra``
        Share of linear-Gaussian posterior noise that is added to a draw so that its chi2 is 1 in the mean over the
        frames; it stands for the variance that few steps leave out.  chi2(e) = chi2(0) + slope e^2, hence
        extra = sqrt((1 - chi2(0)) / slope), within 0 ... 1.
    ``mean_share``
        See `choose_mean_share`.
    ``err``, ``prior_err``
        See `one_sigma_factors`: of eight draws, and of the prior alone.

    Parameters
    ----------
    model : whose calibration is replaced.
    recipe : what the frames are drawn from.
    seed : of a stream of frames that training never draws from.
    count : number of frames; the first half of them serves for ``extra``.
    """
    bare = model.with_card(calibration={})
    # Grain of a truth is not in the noise of the data, nor is it what ERR speaks of.
    frames = list(simulate_frames(replace(recipe, grain_share=0.0), seed, count))
    chi2 = {extra: mean_draw_chi2(bare, frames[: count // 2], extra) for extra in (0.0, 0.5)}
    slope = (chi2[0.5] - chi2[0.0]) / 0.25
    extra = float(np.sqrt(np.clip((1 - chi2[0.0]) / slope, 0, 1))) if slope > 0 else 0.0
    share = choose_mean_share(bare.with_card(calibration={"extra": round(extra, 4)}), frames)
    model = bare.with_card(calibration={"extra": round(extra, 4), "mean_share": share})
    tables = {}
    for name, settings in (("err", Settings(samples=8)), ("prior_err", Settings(samples=1, refine=False))):
        parts = [pulls(model, frame, settings)[:2] for frame in frames]
        tables[name] = one_sigma_factors(*(np.concatenate([p[i].ravel() for p in parts]) for i in (0, 1)))
    about = {"frames": count, "seed": seed, "draw_chi2_without_extra": round(chi2[0.0], 4)}
    return model.with_card(calibration={"extra": round(extra, 4), "mean_share": share, **tables, **about})


def pulls(model: Model, frame: SimulatedFrame, settings: Settings) -> tuple[NDArray[Any], NDArray[Any], RestoredPlane]:
    """Restore a frame, and compare its error with its ERR.

    Returns
    -------
    |mean - truth| / err and log(contrast / noise) of every fine pixel, (s*h, s*w) each, and the restoration.
    """
    restored = restore(frame.observation, model, settings)
    data, units = frame.observation.data(), frame.observation.units
    x = torch.from_numpy((restored.mean - units.sky / units.per_fine) / units.sigma)[None, None].float()
    _, amplitude = local_contrast(x, data.noise, model.scale)
    noise = data.noise.sqrt().repeat_interleave(model.scale, -1).repeat_interleave(model.scale, -2)
    snr = torch.log(amplitude * model.scale**2 / noise).squeeze().numpy()
    return np.abs(restored.mean - frame.truth) / np.maximum(restored.err, 1e-12), snr, restored


def one_sigma_factors(pull: NDArray[Any], snr: NDArray[Any]) -> dict[str, list[float]]:
    """The factor on ERR that makes 68 % of the truths lie within one sigma, by bin of signal to noise.

    It is the 0.6827 quantile of |error| / err in the bin.

    Parameters
    ----------
    pull, snr : (n,) or (h, w), as of `pulls`.

    Returns
    -------
    log_snr : median of every bin with enough pixels; factor : its factor.
    """
    at, factor = [], []
    for low, high in zip(EDGES, EDGES[1:], strict=False):
        inside = (snr >= low) & (snr < high)
        if inside.sum() >= FEWEST:
            at.append(round(float(np.median(snr[inside])), 3))
            factor.append(round(float(np.quantile(pull[inside], ONE_SIGMA)), 4))
    return {"log_snr": at, "factor": factor}


def choose_mean_share(model: Model, frames: list[SimulatedFrame]) -> float:
    """How far the mean over draws is followed, away from the prior's mean: the share that surely gains most decibels.

    The prior is trained for the mean, the refiner for draws; eight of them and a few steps need not mean better.  The
    mean gain less two standard errors decides, so that chance among a few frames does not.
    """
    gains: dict[float, list[float]] = {share: [] for share in (0.0, 0.25, 0.5, 0.75, 1.0)}
    for frame in frames:
        alone, drawn = (restore(frame.observation, model, Settings(refine=refine)).mean for refine in (False, True))
        error, step = (frame.truth - alone).astype(np.float64), (drawn - alone).astype(np.float64)
        for share, gain in gains.items():
            gain.append(float(np.log((error**2).mean() / ((error - share * step) ** 2).mean())))
    return max(gains, key=lambda share: float(np.mean(gains[share]) - 2 * np.std(gains[share]) / len(frames) ** 0.5))


def mean_draw_chi2(model: Model, frames: list[SimulatedFrame], extra: float) -> float:
    """Mean chi2 of single draws over frames, with a share ``extra`` of posterior noise added to each draw."""
    model = model.with_card(calibration={"extra": extra})
    values = []
    for frame in frames:
        draws = pulls(model, frame, Settings(samples=2, keep_draws=True))[2].draws
        assert draws is not None
        values.append(frame.chi2(draws))
    return float(np.mean(values))
