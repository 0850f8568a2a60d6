"""Making the error plane true: how far the truth really lies from the mean, on simulated frames, by signal to noise.

The frames go through the same recipe as a user's; their truth has no grain of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sciresdiff.observation.observation import Observation
from sciresdiff.physics.operators import Operator
from sciresdiff.restoration.model import Model
from sciresdiff.restoration.ops import local_contrast
from sciresdiff.restoration.restore import restore
from sciresdiff.restoration.restored import Restored
from sciresdiff.restoration.settings import Settings
from sciresdiff.training.data import DataRecipe, Pairs

EDGES = np.array([-np.inf, 0.25, 0.5, 1, 1.5, 2, 3, 4.5, 6.5, np.inf])
"""Bins of the logarithm of the local contrast over the noise."""
ONE_SIGMA = 0.6827


@dataclass(frozen=True)
class Known:
    """A simulated frame with its truth, in noise units."""

    truth: NDArray[np.float32]
    """(s*h, s*w)."""
    observation: Observation
    """The frame, of sky noise about 1."""

    def chi2(self, images: NDArray[np.float32]) -> float:
        """Mean chi2 of images (K, s*h, s*w) after they are measured again."""
        exposure = self.observation.exposure
        low = self.observation.operator(torch.float32).apply(torch.from_numpy(images)[:, None])[:, 0].numpy()
        return float(((exposure.pixels - low) ** 2 / exposure.variance).mean())


def frames(recipe: DataRecipe, seed: int, count: int) -> Iterator[Known]:
    """Simulated frames as training draws them, without masks."""
    pairs = Pairs(recipe, seed)
    for n in range(count):
        drawn = pairs.draw(n)
        kernel = np.einsum("ry,rx->yx", drawn["terms"][:, 0].astype(float), drawn["terms"][:, 1].astype(float))
        shape = drawn["normal"].shape
        clean = Operator(shape, recipe.scale, kernel).apply(torch.from_numpy(drawn["truth"])[None, None])[0, 0].numpy()
        variance = drawn["sky"] + drawn["slope"] * np.clip(clean, 0, None)
        y = clean + drawn["normal"] * np.sqrt(variance)
        yield Known(drawn["truth"], Observation.of_arrays(y, variance, recipe.scale, kernel))


def pulls(model: Model, known: Known, settings: Settings) -> tuple[NDArray[Any], NDArray[Any], Restored]:
    """|error| / spread of every fine pixel, the logarithm of its signal to noise, and the restoration."""
    done = restore(known.observation, model, settings)
    data, units = known.observation.data(), known.observation.units
    x = torch.from_numpy((done.mean - units.sky / units.per_fine) / units.sigma)[None, None].float()
    _, amplitude = local_contrast(x, data.noise, model.scale)
    noise = data.noise.sqrt().repeat_interleave(model.scale, -1).repeat_interleave(model.scale, -2)
    snr = torch.log(amplitude * model.scale**2 / noise).squeeze().numpy()
    return np.abs(done.mean - known.truth) / np.maximum(done.err, 1e-12), snr, done


def factors(pull: NDArray[Any], snr: NDArray[Any]) -> dict[str, list[float]]:
    """The factor that makes 68 % of the truths lie within one sigma, by bin of signal to noise."""
    at, factor = [], []
    for low, high in zip(EDGES, EDGES[1:], strict=False):
        inside = (snr >= low) & (snr < high)
        if inside.sum() >= 200:
            at.append(round(float(np.median(snr[inside])), 3))
            factor.append(round(float(np.quantile(pull[inside], ONE_SIGMA)), 4))
    return {"log_snr": at, "factor": factor}


def calibrated_card(model: Model, recipe: DataRecipe, seed: int, count: int = 24) -> Model:
    """The model with a calibration measured on ``count`` simulated frames: of draws, and of the prior alone.

    ``extra`` is the share of linear-Gaussian posterior noise that is added to a draw so that its chi2 is 1 in the
    mean over the frames; it stands for the variance that few steps leave out.  ``mean_share``: see `mean_share`.
    """
    bare = model.with_card(calibration={})
    # grain of a truth is not in the data's noise, nor is it what ERR speaks of
    known = list(frames(replace(recipe, grain_share=0.0), seed, count))
    chi2 = {extra: draw_chi2(bare, known[: count // 2], extra) for extra in (0.0, 0.5)}
    slope = (chi2[0.5] - chi2[0.0]) / 0.25  # chi2 grows with the square of what is added
    extra = float(np.sqrt(np.clip((1 - chi2[0.0]) / slope, 0, 1))) if slope > 0 else 0.0
    share = mean_share(bare.with_card(calibration={"extra": round(extra, 4)}), known)
    model = bare.with_card(calibration={"extra": round(extra, 4), "mean_share": share})
    tables = {}
    for name, settings in (("err", Settings(samples=8)), ("prior_err", Settings(samples=1, refine=False))):
        parts = [pulls(model, k, settings)[:2] for k in known]
        tables[name] = factors(*(np.concatenate([p[i].ravel() for p in parts]) for i in (0, 1)))
    about = {"frames": count, "seed": seed, "draw_chi2_without_extra": round(chi2[0.0], 4)}
    return model.with_card(calibration={"extra": round(extra, 4), "mean_share": share, **tables, **about})


def mean_share(model: Model, known: list[Known]) -> float:
    """How far the mean over draws is followed, away from the prior's mean: the share that surely gains most decibels.

    The mean gain less two standard errors decides, so that chance among a few frames does not.

    The prior is trained for the mean, the refiner for draws; eight of them and a few steps need not mean better.
    """
    gains: dict[float, list[float]] = {share: [] for share in (0.0, 0.25, 0.5, 0.75, 1.0)}
    for k in known:
        alone, drawn = (restore(k.observation, model, Settings(refine=refine)).mean for refine in (False, True))
        error, step = (k.truth - alone).astype(np.float64), (drawn - alone).astype(np.float64)
        for share, found in gains.items():
            found.append(float(np.log((error**2).mean() / ((error - share * step) ** 2).mean())))
    return max(gains, key=lambda share: float(np.mean(gains[share]) - 2 * np.std(gains[share]) / len(known) ** 0.5))


def draw_chi2(model: Model, known: list[Known], extra: float) -> float:
    """Mean chi2 of single draws."""
    model = model.with_card(calibration={"extra": extra})
    values = []
    for k in known:
        draws = pulls(model, k, Settings(samples=2, keep_draws=True))[2].draws
        assert draws is not None
        values.append(k.chi2(draws))
    return float(np.mean(values))
