"""Every method that the package carries, from two steps of training to a restored frame: finite, seeded, tiled."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from sciresdiff.diffusion import method as methods
from sciresdiff.errors import UsageError
from sciresdiff.observation.observation import Observation
from sciresdiff.restoration import model as models
from sciresdiff.restoration.model import Model
from sciresdiff.restoration.prior import Prior, PriorConfig
from sciresdiff.restoration.refiner import refiner_for
from sciresdiff.restoration.restore import restore
from sciresdiff.restoration.restored import RestoredPlane
from sciresdiff.restoration.settings import Settings
from sciresdiff.training import refiner as training
from sciresdiff.training.batch import Batch
from sciresdiff.training.data import Pairs
from sciresdiff.training.recipe import DataRecipe

SCALE, STEPS = 2, 3
Y, X = np.mgrid[:20, :28]
FRAME = (40 * np.exp(-((Y - 8) ** 2 + (X - 15) ** 2) / 8) + np.random.default_rng(0).normal(size=Y.shape)).astype("f4")
VARIANCE = np.ones_like(FRAME)


@cache
def prior() -> Prior:
    torch.manual_seed(1)
    return Prior(PriorConfig(SCALE, width=8, depth=1, stages=1)).eval().requires_grad_(False)


@cache
def batch() -> Batch:
    return Pairs(DataRecipe(scale=SCALE, patch=12, scene_px=64, pool=2, sigma=(0.4, 0.7), focus=(0.4, 0.7)), 3).batch(
        0, 2
    )


@cache
def trained(name: str) -> tuple[Model, tuple[float, ...]]:
    """A model after two steps of training, and its losses."""
    torch.manual_seed(2)
    method = methods.load(name)
    refiner = refiner_for(method, training.refiner_config(method, SCALE, method.network(), "tiny"))
    optimizer, losses = torch.optim.Adam([p for p in refiner.parameters() if p.requires_grad], 1e-3), []
    for n in range(2):
        optimizer.zero_grad()
        value, _ = training.loss(refiner, batch(), torch.Generator().manual_seed(n), prior(), method, False)
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    return Model(prior(), refiner, method, {"name": name, "kind": "astro"}).to(torch.device("cpu")), tuple(losses)


def drawn(model: Model, **settings: object) -> RestoredPlane:
    method = model.method
    assert method is not None
    steps = min(STEPS, method.steps or method.training_path().T)
    told = Settings(**{"samples": 2, "steps": steps, "keep_draws": True, "tile": 0, **settings})  # type: ignore[arg-type]
    return restore(Observation.of_arrays(FRAME, VARIANCE, SCALE), model, told)


@pytest.mark.parametrize("name", methods.names())
def test_two_steps_of_training_are_finite_and_teach_every_part(name: str) -> None:
    model, losses = trained(name)
    assert model.refiner is not None
    assert np.isfinite(losses).all()
    assert all(bool(torch.isfinite(p).all()) for p in model.refiner.parameters())
    fresh = refiner_for(model.method, model.refiner.config)  # type: ignore[arg-type]
    shapes = {k: v.shape for k, v in fresh.state_dict().items()}
    assert shapes == {k: v.shape for k, v in model.refiner.state_dict().items()}


@pytest.mark.parametrize("name", methods.names())
def test_draws_are_finite_and_the_same_seed_gives_the_same_bytes(name: str) -> None:
    model, _ = trained(name)
    one, two = (drawn(model) for _ in range(2))
    assert one.draws is not None and two.draws is not None
    assert np.isfinite(one.draws).all() and np.isfinite(one.mean).all() and (one.err >= 0).all()
    assert one.draws.tobytes() == two.draws.tobytes() and one.err.tobytes() == two.err.tobytes()
    other = drawn(model, seed=1)
    assert other.draws is not None
    assert not np.array_equal(one.draws, other.draws)
    assert one.flux_ratio == pytest.approx(1, abs=1e-3)  # the mean of draws is closed in cells, whatever the method


@pytest.mark.parametrize("name", methods.names())
def test_tiles_agree_where_the_network_says_so(name: str) -> None:
    model, _ = trained(name)
    assert model.refiner is not None
    whole, tiled = drawn(model), drawn(model, tile=8)
    assert whole.draws is not None and tiled.draws is not None
    assert np.isfinite(tiled.draws).all()
    if model.refiner.tile_exact:
        assert np.abs(whole.draws - tiled.draws).max() < 1e-3 * np.abs(whole.draws).max()  # float32 over many steps


def test_a_start_next_to_the_image_is_the_priors() -> None:
    # sdedit with t0 -> 0 enters the path where s is next to nothing: the estimate is the prior's own
    model, _ = trained("sdedit")
    assert model.method is not None
    best = restore(Observation.of_arrays(FRAME, VARIANCE, SCALE), model, Settings(refine=False))
    off = []
    for t0 in (1e-9, 0.1, 0.5):  # 1, 10 and 50 of 100 steps; the first level has s = 0.04
        near = replace(model, method=replace(model.method, start_params={"t0": t0}))
        found = drawn(near, steps=100)
        assert found.draws is not None
        off.append(float(np.abs(found.draws - best.mean).mean()))
    assert off[0] < 0.1 * off[2] and off[0] < off[1] < off[2]


def test_model_files_keep_conditions_and_a_learned_share(tmp_path) -> None:  # type: ignore[no-untyped-def]
    for name in ("hf-resdiff", "edge-frequency"):
        model, _ = trained(name)
        assert model.refiner is not None
        with torch.no_grad():
            for p in model.refiner.parameters():
                p.add_(0.01)
        models.save(model, tmp_path / f"{name}.safetensors")
        again = models.load(str(tmp_path / f"{name}.safetensors"))
        assert again.refiner is not None
        assert again.refiner.config == model.refiner.config
        one, two = drawn(model), drawn(again)
        assert one.mean.tobytes() == two.mean.tobytes()
        assert (again.refiner.alpha is not None) == (name == "edge-frequency")


def test_a_network_of_another_method_is_held_to_the_data_by_projection() -> None:
    model, _ = trained("ddpm")
    left = []
    for asked in ("ddpm", "ddnm-plus", "ddnm"):
        found = drawn(model.run_by(methods.load(asked)), steps=100)
        assert found.draws is not None
        left.append(float((found.draws[0].reshape(20, 2, 28, 2).sum((1, 3)) - FRAME).std()))
    # ddnm meets the data, ddnm-plus only while the state is noisier than they are; the closing step adds a little noise
    assert left[2] < 0.1 * left[0] and left[2] < left[1] < left[0]
    told = {"trust": {}, "calibration": {"extra": 0.5, "prior_err": {}}}
    assert model.with_card(**told).run_by(methods.load("ddnm")).card == {**model.card, "calibration": {"prior_err": {}}}
    with pytest.raises(UsageError, match="--method resshift: the prediction is x0"):
        model.run_by(methods.load("resshift"))
    with pytest.raises(UsageError, match="--method ddnm: the model t has no refiner"):
        Model(prior(), card={"name": "t"}).run_by(methods.load("ddnm"))
