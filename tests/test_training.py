"""Training: reproducible pairs, a resumed run equals an uninterrupted one, models that load without code."""

import json

import numpy as np
import pytest
import torch

from sciresdiff.errors import InputError, UsageError
from sciresdiff.restoration import model as models
from sciresdiff.restoration.prior import Prior, PriorConfig
from sciresdiff.training import prior as prior_training
from sciresdiff.training import refiner as refiner_training
from sciresdiff.training.calibrate import one_sigma_factors
from sciresdiff.training.data import Pairs
from sciresdiff.training.loop import LoopOptions, Run, learning_rate
from sciresdiff.training.options import TrainOptions
from sciresdiff.training.recipe import DataRecipe

RECIPE = """
[data]
patch = 12
scene_px = 64
pool = 2
sigma = [0.4, 0.7]
focus = [0.4, 0.7]
[loop]
batch = 4
warmup = 8
interval = 1e9
bf16 = false
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return str(path)


@pytest.fixture(autouse=True)
def small_checks(monkeypatch):
    """Validation and calibration on next to nothing."""
    monkeypatch.setattr(prior_training, "Validation", lambda pairs: lambda prior: {"gain_db": 0.0})
    monkeypatch.setattr(refiner_training, "validation", lambda *_: lambda refiner: {"held_out": 0.0})
    monkeypatch.setattr(refiner_training, "calibrate_err", lambda model, *_: model)
    monkeypatch.setattr(refiner_training, "calibrate_trust", lambda model, *_: model.with_card(trust={"images": 0}))


def options(recipe, output, **changes):
    small = {"scale": 2, "recipe": recipe, "preset": "tiny", "images": 16}
    return TrainOptions(**{"output": str(output), **small, **changes})


def arrays_of(pair):
    """The arrays of a pair by name, those of its coarse image or noise too."""
    return {name: np.asarray(x) for name, x in {**vars(pair), **vars(pair.coarse)}.items() if name != "coarse"}


def test_pairs_are_a_function_of_their_number():
    recipe = DataRecipe(scale=2, patch=12, scene_px=64, pool=2)
    forwards, backwards = Pairs(recipe, 5), Pairs(recipe, 5)
    drawn = [forwards.draw(n) for n in range(40)]
    for n in (39, 0, 17):
        again = arrays_of(backwards.draw(n))
        assert all(np.array_equal(arrays_of(drawn[n])[k], again[k]) for k in again)
    assert not np.array_equal(drawn[0].truth, Pairs(recipe, 6).draw(0).truth)


def test_noise_of_a_batch_has_the_stated_variance():
    recipe = DataRecipe(scale=2, patch=16, scene_px=64, pool=2)
    batch = Pairs(recipe, 0).batch(0, 64)
    chi2 = batch.data.chi2(batch.truth)
    assert float(chi2.mean()) == pytest.approx(1, abs=5 * (2 / (64 * 256)) ** 0.5)  # five sigma of 64 x 256 pixels


def test_resumed_run_equals_an_uninterrupted_one(recipe, tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    prior_training.train(options(recipe, whole), lambda line: None)
    step, count = Run.step, 0

    def interrupted(self, batch, loss):
        nonlocal count
        count += 1
        if count == 3:
            self.save()
            raise KeyboardInterrupt
        return step(self, batch, loss)

    monkeypatch.setattr(Run, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prior_training.train(options(recipe, parts), lambda line: None)
    prior_training.train(options(recipe, parts), lambda line: None)
    one, two = (models.tensors(models.load(str(p))) for p in (whole, parts))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_refiner_trains_on_a_prior_and_keeps_it(recipe, tmp_path):
    prior, whole = tmp_path / "prior.safetensors", tmp_path / "model.safetensors"
    prior_training.train(options(recipe, prior), lambda line: None)
    lines = []
    refiner_training.train(options(recipe, whole, prior=str(prior)), lines.append)
    before, after = models.load(str(prior)), models.load(str(whole))
    kept = models.tensors(before)
    assert all(torch.equal(kept[k], models.tensors(after)[k]) for k in kept)
    assert after.refiner is not None and after.method is not None
    assert set(after.card["trained"]) == {"prior", "refiner"}
    assert after.card["trust"] == {"images": 0}  # the mask is calibrated at the end
    logged = [json.loads(line) for line in whole.with_suffix(".jsonl").read_text().splitlines()]
    assert logged[-1]["samples"] == 16
    assert any("16/16 samples" in line for line in lines)


def test_a_refiner_does_not_inherit_what_was_measured_on_another_ones_draws(recipe, tmp_path):
    output = tmp_path / "model.safetensors"
    refiner_training.train(options(recipe, output, prior="astro-x2", calibrate=False), lambda line: None)
    shipped, ours = models.load("astro-x2"), models.load(str(output))
    assert "trust" in shipped.card and "trust" not in ours.card
    assert ours.calibration == {"prior_err": shipped.calibration["prior_err"]}  # the prior is the same


def test_training_lowers_the_loss(recipe, tmp_path):
    lines = []
    output = tmp_path / "prior.safetensors"
    prior_training.train(options(recipe, output, images=400), lines.append)
    untrained = tmp_path / "untrained.safetensors"
    prior_training.train(options(recipe, untrained, images=4), lines.append)
    pairs = Pairs(DataRecipe(scale=2, patch=12, scene_px=64, pool=2, sigma=(0.4, 0.7), focus=(0.4, 0.7)), 99)
    batch = pairs.batch(0, 64)

    def loss(path):
        with torch.no_grad():
            return float(prior_training.loss(models.load(str(path)).prior, batch, torch.Generator(), False)[0])

    assert loss(output) < loss(untrained)


def test_rate_rises_and_falls():
    loop = LoopOptions(batch=10, rate=1.0, warmup=100, final_rate=0.1)
    rates = [learning_rate(seen, 1000, loop) for seen in range(0, 1001, 10)]
    assert rates[0] < rates[5] < rates[9]
    assert rates[-1] == pytest.approx(0.1)


def test_recipe_with_an_unknown_key_is_refused(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text("[data]\nptach = 3\n")
    with pytest.raises(UsageError, match=r"--recipe: \[data\] has no key 'ptach'; allowed are"):
        prior_training.read_recipe(options(str(path), "x"))


def test_refiner_without_prior_is_refused(recipe, tmp_path):
    with pytest.raises(UsageError, match="--prior: a refiner needs the prior"):
        refiner_training.train(options(recipe, tmp_path / "m.safetensors"), lambda line: None)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"no model", "not a readable .safetensors"), (b"", "not a readable .safetensors")],
    ids=["text", "empty"],
)
def test_foreign_model_files_are_refused(tmp_path, content, said):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        models.load(str(path))


def test_model_without_our_card_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="holds no sciresdiff card"):
        models.load(str(tmp_path / "other.safetensors"))


def test_unknown_model_lists_what_there_is():
    with pytest.raises(InputError, match="no model or file 'nonesuch'; shipped models are .*physics"):
        models.load("nonesuch")


def test_calibration_factor_brings_coverage_to_one_sigma():
    rng = np.random.default_rng(0)
    snr = rng.uniform(0, 4, 20_000)
    pull = np.abs(rng.normal(size=20_000)) * (1 + snr)  # spreads that are too small by a known factor
    table = one_sigma_factors(pull, snr)
    factor = np.interp(snr, table["log_snr"], table["factor"])
    assert (pull / factor < 1).mean() == pytest.approx(0.683, abs=0.02)  # bins are finite


def test_only_networks_run_in_bfloat16(monkeypatch):
    from sciresdiff.physics.operators import Operator

    recipe = DataRecipe(scale=2, patch=12, scene_px=64, pool=2)
    batch = Pairs(recipe, 0).batch(0, 2)
    prior = Prior(PriorConfig(2, width=4, depth=1))
    seen: dict[str, set[bool]] = {"physics": set(), "network": set()}

    def watched(name, function):
        def call(*args, **kwargs):
            seen[name].add(torch.is_autocast_enabled("cpu"))
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(Operator, "apply", watched("physics", Operator.apply))
    monkeypatch.setattr(Operator, "adjoint", watched("physics", Operator.adjoint))
    monkeypatch.setattr(prior.stages[0], "forward", watched("network", prior.stages[0].forward))
    prior_training.loss(prior, batch, torch.Generator(), True)
    assert seen == {"physics": {False}, "network": {True}}
