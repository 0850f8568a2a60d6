"""The models that come with the package: loadable, small, and as good as their cards say on scenes never seen."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sciresdiff.checks.baselines import bicubic
from sciresdiff.restoration import model as models
from sciresdiff.restoration.restore import restore
from sciresdiff.restoration.settings import Settings
from sciresdiff.training.recipe import DataRecipe
from sciresdiff.training.simulated_frame import SimulatedFrame, simulate_frames

NAMES = ("astro-x2", "astro-x4", "micro-x2")
COUNT = 6


def simulated(model: models.Model) -> list[SimulatedFrame]:
    """Frames like those of the training, of a stream of their own and without grain."""
    drawn = model.card["trained"]["prior"]["data"]
    recipe = DataRecipe(**{k: tuple(v) if isinstance(v, list) else v for k, v in drawn.items()})
    return list(simulate_frames(replace(recipe, grain_share=0.0, scene_px=256, pool=8), 99, COUNT))


@pytest.mark.parametrize("name", NAMES)
def test_card_says_what_a_user_needs(name):
    card = next(card for card in models.shipped_cards() if card["name"] == name)
    assert card["prior"]["scale"] == int(name[-1])
    assert card["kind"] == name[:5]
    assert {"target_fwhm_px", "range", "trained", "calibration", "method", "refiner"} <= set(card)
    assert {"data", "samples", "minutes", "seed"} <= set(card["trained"]["refiner"])
    assert models.locate(name).stat().st_size < 10e6  # the bar: at most 10 MB a model


@pytest.mark.parametrize("name", NAMES)
def test_default_by_kind_and_scale(name):
    assert models.default_for(name[:5], int(name[-1])) == name
    assert models.default_for(name[:5], 7) is None


@pytest.mark.parametrize("name", NAMES)
def test_better_than_bicubic_with_honest_errors_and_draws(name):
    model = models.load(name)
    gains, inside, chi2 = [], [], []
    for known in simulated(model):
        done = restore(known.observation, model, Settings(samples=4, keep_draws=True))
        plain = bicubic(known.observation.exposure.pixels, known.observation.operator())
        gains.append(10 * np.log10(((plain - known.truth) ** 2).mean() / ((done.mean - known.truth) ** 2).mean()))
        inside.append((np.abs(done.mean - known.truth) < done.err).mean())
        chi2.append(known.chi2(done.draws))
    assert np.mean(gains) > 3  # measured: 8 and more; a model that learned nothing has less
    assert 0.5 < np.mean(inside) < 0.85  # 0.68 on many frames; these are six
    assert 0.85 < np.median(chi2) < 1.15  # the median: frames of 1e5 sigma have more, see docs/reference/benchmarks.md


@pytest.mark.parametrize("name", NAMES)
def test_weights_hold_no_code(name):
    path = Path(models.locate(name))
    assert path.suffix == ".safetensors"
    assert all(isinstance(v, torch.Tensor) for v in models.tensors(models.load(name)).values())
