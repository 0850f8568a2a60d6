"""The trust mask's promise, measured: random splits of one pool of frames, and frames that are not what was stated."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks import LIMITS
from sciresdiff.checks.trust import contrast, risk, wrong
from sciresdiff.restoration import trust
from sciresdiff.training import trust as calibration
from sciresdiff.training.recipe import DataRecipe
from sciresdiff.training.simulated_frame import SimulatedFrame, simulate_frames

MODELS = ("astro-x2", "astro-x4", "micro-x2")
POOL, CALIBRATION, SPLITS, SHIFTED = 200, 120, 50, 20
WIDER, UNDERSTATED = 1.5, 2.0
"""Width of the true PSF and noise over the stated ones."""
POOL_SEED, SHIFT_SEED = 777, 555


def model_and_recipe(name: str) -> tuple[Any, DataRecipe]:
    """A shipped model, and what its training frames were drawn from."""
    from sciresdiff.restoration import model as models

    model = models.load(name)
    drawn = model.card["trained"]["prior"]["data"]
    recipe = DataRecipe(**{k: tuple(v) if isinstance(v, list) else v for k, v in drawn.items()})
    return model, calibration.exchangeable(recipe)


def pool_of(name: str) -> list[calibration.FrameCounts]:
    """Counts of every frame of the pool, restored once."""
    model, recipe = model_and_recipe(name)
    found = []
    for n, known in enumerate(simulate_frames(recipe, POOL_SEED, POOL)):
        found.append(calibration.count_frame(model, known))
        if n % 20 == 19:
            print(name, n + 1, file=sys.stderr, flush=True)
    return found


def splits(found: list[calibration.FrameCounts]) -> dict[str, float]:
    """Risk on held-out frames over repetitions of calibration and test."""
    rng, risks = np.random.default_rng(0), np.stack([one.risks for one in found])
    kept = np.stack([one.kept >= trust.FEWEST for one in found])
    held: list[tuple[float, float]] = []
    for _ in range(SPLITS):
        order = rng.permutation(len(found))
        chosen = calibration.choose_threshold(risks[order[:CALIBRATION]])
        at = None if chosen is None else int(np.searchsorted(calibration.THRESHOLDS, chosen))
        test = order[CALIBRATION:]
        if at is None:
            held.append((0.0, 0.0))
        else:
            speaking = test[kept[test, at]]
            held.append((float(risks[test, at].mean()), float(risks[speaking, at].mean()) if speaking.size else 0.0))
    values, among = np.array(held).T
    below = float((values <= calibration.ALPHA).mean())
    return {"below": below, "mean": float(values.mean()), "worst": float(values.max()), "keeping": float(among.mean())}


def widened(known: SimulatedFrame) -> NDArray[np.float64]:
    """The stated kernel made wider by a Gaussian, so that its sigma is 1.5 times as large (of none: 0.3 px wider)."""
    from scipy.ndimage import gaussian_filter

    psf = known.observation.exposure.psf
    assert psf is not None
    sigma = max(psf.width, 0.3) * np.sqrt(WIDER**2 - 1)
    room = max(0, min(int(4 * sigma) + 1, min(known.truth.shape) - max(psf.kernels[0].shape) // 2 - 1))
    wide = gaussian_filter(np.pad(psf.kernels[0], room), sigma, mode="constant")
    return np.asarray(wide / wide.sum())


@dataclass(frozen=True)
class Shifted:
    """What the mask and the chi2 checks say of a frame."""

    kept: int
    """Pixels that the threshold alone would keep."""
    risk: float
    refused: bool
    failed: bool
    """Whether chi2 misses its default limits."""


def restored(
    model: Any, known: SimulatedFrame, low: NDArray[Any], variance: NDArray[Any], card: dict[str, Any]
) -> Shifted:
    """A frame, restored with what is stated of it."""
    from sciresdiff.restoration.restore import restore

    observation = known.observation.with_pixels(low, variance)
    done = restore(observation, model)
    kept = trust.trusted_pixels(trust.score(done, observation), float(card["threshold"]))
    bad = wrong(done.mean, known.truth, contrast(done.mean, model.scale))
    limit = LIMITS[card["field"]]["chi2"]
    assert limit.low is not None and limit.high is not None
    room = 3 * np.sqrt(2 / low.size)
    fits = limit.low - room <= done.chi2 <= limit.high + room
    return Shifted(int(kept.sum()), risk(kept, bad), trust.mask(card, done, observation)[0] is None, not fits)


def shifts(name: str, card: dict[str, Any]) -> dict[str, list[Shifted]]:
    """The same frames as stated, with a PSF that is wider, and with noise that is understated."""
    import torch

    from sciresdiff.physics.operators import Operator

    model, recipe = model_and_recipe(name)
    found: dict[str, list[Shifted]] = {"as stated": [], "PSF 50 % wider": [], "noise understated by 2": []}
    for known in simulate_frames(recipe, SHIFT_SEED, SHIFTED):
        exposure, truth = known.observation.exposure, torch.from_numpy(known.truth)[None, None]
        y, variance = exposure.pixels, exposure.variance
        assert exposure.psf is not None
        sharp, wide = (
            Operator(exposure.grid.shape, model.scale, kernel).apply(truth)[0, 0].numpy()
            for kernel in (exposure.psf.kernels[0], widened(known))
        )
        low = (y + wide - sharp).astype(np.float32)
        found["as stated"].append(restored(model, known, y, variance, card))
        found["PSF 50 % wider"].append(restored(model, known, low, variance, card))
        found["noise understated by 2"].append(restored(model, known, y, variance / UNDERSTATED**2, card))
    print(name, "shifts", file=sys.stderr, flush=True)
    return found


def line(found: list[Shifted]) -> str:
    """Of the frames that keep something: refused, chi2 failed, neither; risk of the whole and of what is left."""
    some = [one for one in found if one.kept]
    left = [one for one in some if not (one.refused or one.failed)]

    def mean(part: list[Shifted]) -> str:
        return f"{np.mean([one.risk for one in part]):.3f}" if part else "-"

    return (
        f"{len(some)} | {sum(one.refused for one in some)} | {sum(one.failed for one in some)} | {len(left)} | "
        f"{mean(some)} | {mean(left)} | {sum(one.risk for one in left) / len(found):.3f}"
    )


def page() -> str:
    """Both tables."""
    first = [
        "| model | threshold | trusted share | true structure kept | "
        f"splits with a risk <= {calibration.ALPHA:g} | mean | worst | mean of frames that keep something |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    second = [
        "| model | frames | keep something | refused | chi2 fails | neither | risk, were nothing refused | "
        "risk of those left | mean over all frames |", "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name in MODELS:
        pool = pool_of(name)
        card = {**calibration.trust_card(pool[:CALIBRATION]), "field": name[:5]}
        got = splits(pool)
        shares = f"{card['trusted_share']:.2f} | {card['true_structure']:.2f} | {got['below']:.2f}"
        rest = f"{got['mean']:.3f} | {got['worst']:.3f} | {got['keeping']:.3f}"
        first.append(f"| `{name}` | {card['threshold']:g} | {shares} | {rest} |")
        for what, found in shifts(name, card).items():
            second.append(f"| `{name}` | {what} | {line(found)} |")
    head = (
        f"{POOL} simulated frames a model, {CALIBRATION} for the calibration and {POOL - CALIBRATION} held out, "
        f"{SPLITS} random splits; alpha {calibration.ALPHA:g}, delta {calibration.DELTA:g}."
    )
    return "\n".join([head, "", *first, "", f"{SHIFTED} more frames a model, three times each.", "", *second])
