"""Calibrating TRUST: the largest threshold at which the share of wrong claims among kept pixels stays below alpha.

Learn then test (Angelopoulos, Bates, Candes, Jordan and Lei 2021, arXiv 2110.01052): the thresholds of a grid that was
fixed beforehand are tested from the strictest on, each by a p-value for "its risk is above alpha", until one is not
rejected (fixed-sequence testing); the last that was rejected has a risk below alpha with confidence 1 - delta, whatever
the shape of the risk.  The p-value is that of Hoeffding and Bentkus (Bates et al. 2021, arXiv 2101.02703, section 3.1),
in the number of images.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.trust import contrast, wrong
from sciresdiff.errors import UsageError
from sciresdiff.observation.observation import Observation
from sciresdiff.restoration.model import Model
from sciresdiff.restoration.restore import restore
from sciresdiff.restoration.restored import RestoredPlane
from sciresdiff.restoration.trust import FEWEST, SCORE, SNR_EDGES, facts, fineness, score
from sciresdiff.training.recipe import DataRecipe
from sciresdiff.training.simulated_frame import SimulatedFrame, simulate_frames

THRESHOLDS = np.round(np.geomspace(0.02, 1.0, 60), 4)
"""What is tested, the strictest first."""
ALPHA, DELTA = 0.1, 0.1
LEAST_IMAGES = 50
"""Fewer calibration images give no guarantee worth having."""
CHI2_QUANTILES = (0.01, 0.98)
"""Of the calibration frames: outside them the noise, or the kernel, is not what was stated."""
SHARPNESS_QUANTILE = 0.2
"""Of the calibration frames: the broadest fifth looks like frames whose PSF is wider than stated."""


@dataclass(frozen=True)
class FrameCounts:
    """One calibration frame: what it keeps at every threshold, and what decides whether a frame is like it."""

    kept: NDArray[np.float64]
    """(thresholds,), pixels that are kept."""
    wrong: NDArray[np.float64]
    """(thresholds,), those of them whose claim is wrong."""
    sharpness: NDArray[np.float64]
    """(thresholds,), of the kept structure."""
    true: NDArray[np.float64]
    """(thresholds,), share of the true structure, sum of |t - mean of t over five coarse px|, that is kept."""
    claimed: int
    """Pixels that claim structure, kept or not."""
    facts: dict[str, float]
    """`restoration.trust.facts`: width of the PSF, signal to noise, noise, chi2."""

    @property
    def risks(self) -> NDArray[np.float64]:
        """(thresholds,), share of wrong claims among kept ones; 0 where nothing, or too little, is kept."""
        return np.where(self.kept >= FEWEST, self.wrong / np.maximum(self.kept, 1), 0.0)


def calibrate_trust(
    model: Model,
    recipe: DataRecipe,
    seed: int,
    count: int = 120,
    progress: Callable[[int, int, str], None] = lambda done, total, label: None,
) -> Model:
    """Calibrate the TRUST mask of a model on simulated frames: the entry ``trust`` of its card.

    The error plane must be calibrated before (`training.calibrate`): the score is made of it.

    Parameters
    ----------
    model : whose error plane is calibrated.
    recipe : what the frames are drawn from.
    seed : of a stream of frames that neither training nor the calibration of ERR draws from.
    count : number of frames.
    progress : takes the frames done, their number, and what they are for.

    Raises
    ------
    UsageError : fewer than 50 frames.
    """
    if count < LEAST_IMAGES:
        raise UsageError(f"--count: {count} calibration images give no guarantee; give {LEAST_IMAGES} or more")
    counts = []
    for n, frame in enumerate(simulate_frames(exchangeable(recipe), seed, count)):
        counts.append(count_frame(model, frame))
        progress(n + 1, count, "trust")
    digest = hashlib.sha256(json.dumps(recipe.to_dict(), sort_keys=True).encode()).hexdigest()[:12]
    about = {"field": recipe.kind, "from": "simulation", "seed": seed, "recipe": digest}
    return model.with_card(trust={**trust_card(counts), **about})


def exchangeable(recipe: DataRecipe) -> DataRecipe:
    """The recipe with a scene of its own for every frame, and truths without grain.

    The guarantee is for exchangeable frames, and frames that share a scene are not.
    """
    return replace(recipe, grain_share=0.0, real_share=0.0, pool=1, reuse=1)


def count_frame(model: Model, frame: SimulatedFrame) -> FrameCounts:
    """Restore a simulated frame with the default settings, and count."""
    return count_claims(restore(frame.observation, model), frame.observation, frame.truth)


def count_claims(restored: RestoredPlane, observation: Observation, truth: NDArray[Any]) -> FrameCounts:
    """Count kept and wrong pixels, and measure the sharpness of the kept, at every threshold.

    Parameters
    ----------
    restored : what was made of a simulated frame.
    observation : the simulated frame, (h, w).
    truth : (s*h, s*w), what it shows.
    """
    scores, scale = score(restored, observation), observation.scale
    bad = wrong(restored.mean, truth, contrast(restored.mean, scale))
    at = np.searchsorted(THRESHOLDS, scores).ravel()  # first threshold that keeps the pixel

    # Cumulative sums over the thresholds: a pixel that one keeps, all larger ones keep.
    def up_to(weights: NDArray[Any]) -> NDArray[np.float64]:
        sums = np.bincount(at, weights.ravel().astype(float), len(THRESHOLDS) + 1)
        return np.asarray(np.cumsum(sums)[:-1], np.float64)

    kept, off = up_to(np.ones(scores.shape)), up_to(bad)
    fine, coarse = (up_to(part) for part in fineness(restored.mean, scale))
    real = np.abs(contrast(truth, scale))
    sharp = np.where(kept >= FEWEST, np.sqrt(fine / np.maximum(coarse, 1e-300)), np.nan)
    true = np.where(kept >= FEWEST, up_to(real) / max(float(real.sum()), 1e-300), 0.0)
    return FrameCounts(kept, off, sharp, true, int(np.isfinite(scores).sum()), facts(observation, restored.chi2))


def p_value(risk: float, count: int, alpha: float) -> float:
    """Hoeffding-Bentkus p-value of "the mean risk is above alpha" (Bates et al. 2021, section 3.1).

    p = min(exp(-n h(min(r, alpha), alpha)), e P(Bin(n, alpha) <= ceil(n r))), with h the Kullback-Leibler divergence of
    two Bernoulli variables, h(a, b) = a log(a / b) + (1 - a) log((1 - a) / (1 - b)).

    Parameters
    ----------
    risk : r, mean of the risks of the images, 0 ... 1.
    count : n, number of images.
    alpha : 0 ... 1.
    """
    from scipy.special import xlogy
    from scipy.stats import binom

    r = min(risk, alpha)
    divergence = float(xlogy(r, r / alpha) + xlogy(1 - r, (1 - r) / (1 - alpha)))
    # n r is a whole number where every risk is 0 or 1: rounded first, so that ceil does not add one.
    bentkus = float(np.e * binom.cdf(np.ceil(round(count * risk, 9)), count, alpha))
    return min(1.0, float(np.exp(-count * divergence)), bentkus)


def choose_threshold(risks: NDArray[np.float64], alpha: float = ALPHA, delta: float = DELTA) -> float | None:
    """The largest threshold that fixed-sequence testing reaches; None where the strictest fails.

    Parameters
    ----------
    risks : (images, thresholds), 0 ... 1.
    alpha : largest mean risk that is allowed.
    delta : chance that it is exceeded nevertheless.

    Raises
    ------
    UsageError : fewer than 50 images.
    """
    if len(risks) < LEAST_IMAGES:
        raise UsageError(f"--count: {len(risks)} calibration images give no guarantee; give {LEAST_IMAGES} or more")
    passed = [p_value(float(mean), len(risks), alpha) <= delta for mean in risks.mean(0)]
    reached = passed.index(False) if False in passed else len(passed)
    return float(THRESHOLDS[reached - 1]) if reached else None


def domain(frames: list[FrameCounts], at: int) -> dict[str, Any]:
    """Which frames the calibration speaks for.

    Parameters
    ----------
    frames : counts of the calibration frames.
    at : index of the chosen threshold.

    Returns
    -------
    Ranges of the frames' facts, and the least sharpness of what the threshold keeps.
    """
    sharp = np.array([c.sharpness[at] for c in frames])
    sharp = sharp[np.isfinite(sharp)]
    spans = {name: _range([c.facts[name] for c in frames]) for name in ("sigma_low_px", "snr")}
    least = float(np.quantile(sharp, SHARPNESS_QUANTILE)) if sharp.size else 0.0
    quiet = round(min(c.facts["noise"] for c in frames), 4)
    return {**spans, "noise": quiet, "chi2": chi2_ranges(frames), "sharpness": round(least, 4)}


def _range(values: list[float]) -> list[float]:
    return [round(float(f(values)), 4) for f in (min, max)]


def chi2_ranges(frames: list[FrameCounts]) -> list[list[float]]:
    """The range of chi2 among frames of each brightness; where these are fewer than ten, among all of them.

    Returns
    -------
    Of every bin of SNR_EDGES the CHI2_QUANTILES: bright frames have another chi2 than faint ones.
    """
    every = np.array([[c.facts["snr"], c.facts["chi2"]] for c in frames])
    bins = np.searchsorted(SNR_EDGES, every[:, 0])
    parts = [every[bins == b, 1] for b in range(len(SNR_EDGES) + 1)]
    chosen = [part if len(part) >= 10 else every[:, 1] for part in parts]
    return [[round(float(v), 4) for v in np.quantile(part, CHI2_QUANTILES)] for part in chosen]


def trust_card(frames: list[FrameCounts], alpha: float = ALPHA, delta: float = DELTA) -> dict[str, Any]:
    """The calibration as a model card has it, JSON-able, without where the frames came from.

    Parameters
    ----------
    frames : counts of the calibration frames, 50 or more.
    alpha, delta : as for `choose_threshold`.

    Raises
    ------
    UsageError : fewer than 50 frames.
    """
    risks = np.stack([c.risks for c in frames])
    chosen = choose_threshold(risks, alpha, delta)
    at = None if chosen is None else int(np.searchsorted(THRESHOLDS, chosen))
    return {
        "alpha": alpha,
        "delta": delta,
        "threshold": chosen,
        "images": len(frames),
        "score": SCORE,
        "domain": domain(frames, -1 if at is None else at),
        "risk": None if at is None else round(float(risks[:, at].mean()), 4),
        "trusted_share": None if at is None else trusted_share(frames, at),
        "true_structure": None if at is None else round(float(np.mean([c.true[at] for c in frames])), 4),
    }


def trusted_share(frames: list[FrameCounts], at: int) -> float:
    """Kept over claimed pixels of all frames together, at threshold number ``at``."""
    kept = sum(int(c.kept[at]) for c in frames if c.kept[at] >= FEWEST)
    return round(kept / max(sum(c.claimed for c in frames), 1), 4)
