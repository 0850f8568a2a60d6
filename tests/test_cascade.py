"""Two models in a row: what is passed on, what comes out, and what the second one is trained on."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from sciresdiff.diffusion import method as methods
from sciresdiff.errors import UsageError
from sciresdiff.lab.cascade.augment import augment
from sciresdiff.lab.cascade.restore import cascade, chain_draws, coarse_draw, smooth_error
from sciresdiff.observation.observation import Observation
from sciresdiff.physics import psf
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.psf.split import split_kernel
from sciresdiff.physics.statistics import PlaneStatistics
from sciresdiff.region import Region
from sciresdiff.restoration.model import Model
from sciresdiff.restoration.prior import Prior, PriorConfig
from sciresdiff.restoration.refiner import Refiner, RefinerConfig, condition
from sciresdiff.restoration.restored import RestoredPlane
from sciresdiff.restoration.settings import Settings
from sciresdiff.tiling import Tile
from sciresdiff.training.data import Pairs
from sciresdiff.training.recipe import DataRecipe

CLEAR = np.zeros((20, 24), dtype=bool)
CDM = methods.load("cdm")


def rendered(spec: str) -> np.ndarray:
    return psf.render(spec, None, integrate=False)


def scene(shape=(80, 96), fwhm=2.0, seed=0):
    rng = np.random.default_rng(seed)
    image = np.zeros(shape)
    for _ in range(12):
        image[tuple(rng.integers(3, n - 3) for n in shape)] += 10 ** rng.uniform(2, 4)
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(image, fwhm / 2.355) + 3


def seen(image: np.ndarray, scale: int, kernel: np.ndarray | None) -> np.ndarray:
    h, w = (n // scale for n in image.shape)
    operator = Operator((h, w), scale, kernel, dtype=torch.float64)
    return operator.apply(torch.from_numpy(image)[None, None])[0, 0].numpy()


def frame(kernel=None, seed=0):
    """A coarse frame at a fourth of the resolution, its variance, and the truth."""
    truth = scene(seed=seed)
    low = seen(truth, 4, kernel)
    variance = 9 + 0.1 * low
    noise = np.random.default_rng(seed + 1).normal(size=low.shape) * np.sqrt(variance)
    return (low + noise).astype("f4"), variance.astype("f4"), truth


def model(seed: int, method="sciresdiff", std=0.03) -> Model:
    """A small untrained x2 model whose networks do something."""
    torch.manual_seed(seed)
    chosen = methods.load(method)
    config = RefinerConfig(2, width=8, depth=1, prediction=chosen.prediction, conditions=chosen.conditions)
    made = Model(Prior(PriorConfig(2, width=8, depth=1, stages=1)), Refiner(config), chosen, {"name": method})
    for network in (made.prior, made.refiner):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=std)
    return made.to(torch.device("cpu"))


@pytest.fixture(scope="module")
def models():
    return model(0), model(1)


def run(models, kernel=None, quantity="sum", **settings):
    low, variance, _ = frame(kernel)
    if quantity == "mean":
        low, variance = low / 16, variance / 256
    told = Settings(**{"samples": 2, "keep_draws": True, **settings})
    return low, cascade(Observation.of_arrays(low, variance, 4, kernel, quantity=quantity), models, told)


def restored(mean: np.ndarray, draws: np.ndarray, err: float) -> RestoredPlane:
    """What of a restoration is passed on."""
    flat = np.full(mean.shape, err, dtype="f4")
    return cast(RestoredPlane, SimpleNamespace(mean=mean.astype("f4"), err=flat, draws=draws.astype("f4")))


@pytest.mark.parametrize("quantity", ["sum", "mean"])
@pytest.mark.parametrize("kernel", [None, rendered("gaussian:sigma=1.2px"), rendered("gaussian:sigma=3px")])
def test_total_flux_is_that_of_the_frame(models, kernel, quantity):
    low, done = run(models, kernel, quantity)
    fine = done.mean.astype("f8").sum() / (1 if quantity == "sum" else 16)
    assert done.mean.shape == done.err.shape == done.gate.shape == (80, 96)
    assert done.flux_ratio == pytest.approx(1, abs=1e-5)  # cells are closed in three rounds
    if kernel is None:  # through a kernel the noise of the border stays outside of the sum
        assert fine == pytest.approx(low.astype("f8").sum(), rel=1e-3)  # the flux of 16 x 16 cells is closed


def test_exact_mode_conserves_every_pixel(models):
    low, done = run(models, None, consistency="exact")
    np.testing.assert_allclose(seen(done.mean.astype("f8"), 4, None), low, rtol=1e-4)  # float32 of the image


def test_a_part_of_a_plane_is_what_it_is_in_the_whole(models):
    kernel, truth = rendered("gaussian:sigma=1.2px"), scene(shape=(480, 80))
    low = (seen(truth, 4, kernel) + np.random.default_rng(1).normal(size=(120, 20)) * 3).astype("f4")
    observation = Observation.of_arrays(low, np.full_like(low, 9), 4, kernel)
    data, units = observation.data(), observation.units
    statistics = PlaneStatistics(units.sky, units.sigma, data.y.numpy().ravel(), data.noise.numpy().ravel(), 10)
    plane = replace(observation, exposures=[replace(observation.exposure, statistics=(statistics,))])

    def run(core: Region, window: Region) -> RestoredPlane:
        return cascade(plane.window(0, Tile(core, window)), models, Settings(samples=2, keep_draws=True))

    everything = Region(0, 120, 0, 20)
    whole, window = run(everything, everything), run(Region(96, 120, 0, 20), Region(32, 120, 0, 20))
    inside, same = window.draws[:, 4 * 64 :], whole.draws[:, 4 * 96 :]
    assert np.abs(inside - same).max() < 0.01 * np.median(whole.err)  # what 64 coarse pixels around it cut off
    assert window.total < whole.total and whole.flux_ratio == pytest.approx(1, abs=1e-5)  # closed in three rounds


def test_runs_with_one_seed_are_equal_and_others_are_not(models):
    one, same, other = (run(models, seed=seed)[1] for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.draws, same.draws)
    assert np.abs(one.draws - other.draws).max() > 0.1 * one.err.mean()


def test_the_first_draws_do_not_depend_on_how_many_follow(models):
    few, more = run(models, samples=2)[1], run(models, samples=4)[1]
    assert few.draws.shape[0] == 2 and more.draws.shape[0] == 4
    # what is passed on is about the first stage's mean, which more draws move by less than their scatter
    assert np.median(np.abs(few.draws - more.draws[:2])) < np.median(few.err)


def test_perfect_stages_return_the_truth():
    low, variance, truth = frame(rendered("gaussian:sigma=3px"))
    kernel, rest = rendered("gaussian:sigma=3px"), split_kernel(rendered("gaussian:sigma=3px"), 2)[1]
    low = seen(truth, 4, kernel).astype("f4")
    observation = Observation.of_arrays(low, variance, 4, kernel)
    data, units = observation.data(), observation.units
    middle = seen(truth, 2, rest)
    first = restored(middle, np.stack([middle] * 2), 1e-3)
    found = chain_draws(
        data,
        first,
        lambda y, variance, draw: truth.astype("f4"),
        lambda image: units.noise_units(image, data.y),
        torch.full(truth.shape, 1e-4)[None, None],
        0.5,
        seed=0,
    )
    for draw in found:
        np.testing.assert_allclose(units.image(draw), truth, rtol=2e-3, atol=2e-3)  # what 1e-4 of a noise leaves open


def test_draw_k_of_the_first_stage_goes_into_draw_k_of_the_second(models):
    low, variance, truth = frame()
    observation = Observation.of_arrays(low, variance, 4)
    data, units = observation.data(), observation.units
    middle = seen(truth, 2, None)
    first = restored(middle, np.stack([middle + 100 * k for k in range(3)]), 1e-3)
    asked: list[tuple[float, int | None]] = []

    def second(y, variance, draw):
        asked.append((float((y - torch.from_numpy(middle)).median()), draw))
        return truth.astype("f4")

    level = 0.5
    list(chain_draws(data, first, second, lambda v: units.noise_units(v, data.y), torch.zeros(1, 1, 80, 96), level, 0))
    assert [draw for _, draw in asked] == [0, 1, 2]
    expected = [(1 - 2 * level**2) ** 0.5 * 100 * k for k in range(3)]
    np.testing.assert_allclose([v for v, _ in asked], expected, atol=1e-3)  # the noise added is 5e-4


@pytest.mark.parametrize("level", [0.1, 0.5, 0.7])
def test_what_is_passed_on_and_its_stated_noise_have_the_first_stages_error(level):
    rng = np.random.default_rng(0)
    mean, error, shape = rng.normal(size=(1, 400, 500)), 3.0, (400, 500)
    first = restored(mean[0], mean + error * rng.normal(size=(1, *shape)), error)
    assert smooth_error(first).numpy() == pytest.approx(error)
    y, stated = coarse_draw(first, smooth_error(first), level, seed=0, draw=0)
    np.testing.assert_allclose(stated.numpy(), (level * error) ** 2, rtol=1e-6)  # ERR is float32
    spread = float((y[0, 0] - torch.from_numpy(mean[0])).var()) + (level * error) ** 2
    assert spread == pytest.approx(error**2, rel=0.02)  # 2e5 pixels: 0.3 %, six times over


def test_draws_that_are_passed_on_come_in_antithetic_pairs():
    rng = np.random.default_rng(0)
    off = rng.normal(size=(30, 40))
    first = restored(np.zeros((30, 40)), np.stack([off, -off]), 2.0)
    one, two = (coarse_draw(first, smooth_error(first), 0.5, seed=3, draw=k)[0] for k in (0, 1))
    torch.testing.assert_close(one, -two, rtol=0, atol=1e-6)  # float32 draws


@pytest.mark.parametrize("spec", ["sigma=0.8px", "sigma=2px", "sigma=2.2px", "sigma=3px,ratio=0.7,theta=30deg"])
def test_both_stages_operators_in_a_row_are_the_whole_one(spec):
    kernel, image = rendered("gaussian:" + spec), scene(shape=(160, 160))
    first, second = split_kernel(kernel, 2)
    whole, row = seen(image, 4, kernel), seen(seen(image, 2, second), 2, first)
    assert np.abs(whole - row).max() < 1e-3 * np.ptp(whole)  # the cut at the middle grid's Nyquist frequency
    if first is not None:
        assert first.sum() == pytest.approx(1, abs=1e-3) and second.sum() == pytest.approx(1)  # cut off far out


def test_pixel_integration_splits_into_itself():
    assert split_kernel(None, 2) == (None, None)


def test_models_without_a_refiner_cannot_be_chained(models):
    one, two = models
    low, variance, _ = frame()
    for pair, told in (((one, replace(two, refiner=None)), Settings()), ((one, two), Settings(refine=False))):
        with pytest.raises(UsageError, match="--then: .* need a refiner"):
            cascade(Observation.of_arrays(low, variance, 4), pair, told)
    with pytest.raises(UsageError, match="--consistency exact"):
        observation = Observation.of_arrays(low, variance, 4, rendered("gaussian:sigma=1px"))
        cascade(observation, models, Settings(consistency="exact"))


def test_augmentation_has_the_drawn_noise_and_tells_its_level():
    recipe = DataRecipe(scale=2, patch=16, scene_px=96, pool=4)
    batch = Pairs(recipe, 0).batch(0, 6)
    louder, level = augment(batch, CDM.augment, torch.Generator().manual_seed(0))
    low, high = CDM.augment["sigma"]
    assert (
        level.shape == (6,) and float(level.min()) >= low and float(level.max()) <= high and level.unique().numel() == 6
    )
    square = level.view(-1, 1, 1, 1)
    torch.testing.assert_close(louder.truth * square, batch.truth)
    before, after = batch.data.residual(batch.truth), louder.data.residual(louder.truth)
    # in the truth's old units: sigma times the noise; float32 of pedestals of thousands
    torch.testing.assert_close(square * after, square * before, rtol=0, atol=1e-2)
    assert louder.data.noise is batch.data.noise
    estimate = Prior(PriorConfig(2, width=4, depth=1, stages=1))(louder.data, louder.kernel)[-1]
    told = condition(louder.data, estimate, louder.kernel, ("augmentation",), level)[:, -1]
    torch.testing.assert_close(told, level.log()[:, None, None].expand_as(told))


def test_a_method_without_augmentation_is_trained_on_pairs_as_they_are():
    batch = Pairs(DataRecipe(scale=2, patch=16, scene_px=96, pool=4), 0).batch(0, 2)
    same, level = augment(batch, {}, torch.Generator())
    assert same is batch and level == 1


def test_the_told_level_reaches_the_second_model(models, monkeypatch):
    import sciresdiff.lab.cascade.restore as room

    asked = []
    monkeypatch.setattr(room, "condition", lambda *args: asked.append(args[-1]) or condition(*args))
    low, variance, _ = frame()
    second = model(2, "cdm", std=1e-3)
    cascade(Observation.of_arrays(low, variance, 4), (models[0], second), Settings(samples=2, steps=3))
    assert asked == [CDM.augment["use"]] * 2
