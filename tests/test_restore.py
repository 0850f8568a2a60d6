"""The recipe: flux, affine law, tiles, seeds, masks, modes, the gate and the draws."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sciresdiff.diffusion import method as methods
from sciresdiff.errors import InputError, UsageError
from sciresdiff.observation.observation import Observation
from sciresdiff.restoration.fallback import fallback_weight
from sciresdiff.restoration.model import Model
from sciresdiff.restoration.posterior import posterior_perturbation
from sciresdiff.restoration.prior import Prior, PriorConfig
from sciresdiff.restoration.refiner import Refiner, RefinerConfig
from sciresdiff.restoration.restore import restore
from sciresdiff.restoration.settings import Settings

SCALE = 2


def gaussian(sigma: float) -> np.ndarray:
    radius = int(5 * sigma + 0.5)
    g = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.outer(g, g) / g.sum() ** 2


KERNEL = gaussian(1.2)


def stars(shape=(40, 56), seed=0, brightest=4.0):
    """A coarse star field, its variance, and the fine truth."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((shape[0] * SCALE, shape[1] * SCALE))
    for _ in range(20):
        y, x = (rng.integers(2, n - 2) for n in truth.shape)
        truth[y, x] += 10 ** rng.uniform(1, brightest)
    from scipy.ndimage import gaussian_filter

    truth = gaussian_filter(truth, 0.85) + 5
    low = gaussian_filter(truth, 1.2, mode="reflect", truncate=5).reshape(shape[0], SCALE, shape[1], SCALE).sum((1, 3))
    variance = 4 + 0.1 * low
    return (low + rng.normal(size=shape) * np.sqrt(variance)).astype("f4"), variance.astype("f4"), truth


def clear(pixels):
    return np.zeros(pixels.shape, dtype=bool)


@pytest.fixture(scope="module")
def model():
    """A small untrained model whose networks do something."""
    torch.manual_seed(0)
    made = Model(
        Prior(PriorConfig(SCALE, width=8, depth=1)),
        Refiner(RefinerConfig(SCALE, width=8, depth=1)),
        methods.load("sciresdiff"),
        {"name": "tiny", "kind": "astro"},
    )
    for network in (made.prior, made.refiner):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.03)
    return made.to(torch.device("cpu"))


def run(low, variance, model=None, mask=None, kernel=KERNEL, quantity="sum", **settings):
    observation = Observation.of_arrays(low, variance, SCALE, kernel, mask, quantity)
    return restore(observation, model, Settings(**{"samples": 2, **settings}))


@pytest.mark.parametrize("consistency", ["noise", "exact"])
@pytest.mark.parametrize("quantity", ["sum", "mean"])
def test_total_flux_is_conserved(model, consistency, quantity):
    low, variance, _ = stars()
    done = run(low, variance, model, kernel=None, consistency=consistency, quantity=quantity)
    fine = done.mean.astype("f8").sum() / (1 if quantity == "sum" else SCALE**2)
    assert fine == pytest.approx(low.astype("f8").sum(), rel=1e-3)  # the flux of 16 x 16 cells is closed


def test_exact_mode_conserves_every_pixel(model):
    low, variance, _ = stars()
    done = run(low, variance, model, kernel=None, consistency="exact")
    h, w = low.shape
    blocks = done.mean.astype("f8").reshape(h, SCALE, w, SCALE)
    error = np.abs(blocks.sum((1, 3)) - low) / (np.abs(low) + np.abs(blocks).sum((1, 3)))
    assert error.max() < 1e-6  # a few float32 roundings


def test_exact_mode_refuses_a_kernel(model):
    low, variance, _ = stars()
    with pytest.raises(UsageError, match="--consistency exact: with a kernel"):
        run(low, variance, model, consistency="exact")


@pytest.mark.parametrize("quantity", ["sum", "mean"])
@pytest.mark.parametrize("a, b", [(3.0, 100.0), (0.01, -5.0)])
def test_affine_law(model, quantity, a, b):
    low, variance, _ = stars(brightest=3.0)
    share = SCALE**2 if quantity == "sum" else 1
    once = run(low, variance, model, quantity=quantity)
    twice = run((a * low + b).astype("f4"), (a * a * variance).astype("f4"), model, quantity=quantity)
    off = np.abs(twice.mean - (a * once.mean + b / share)) / (a * np.sqrt(np.median(variance)))
    assert off.max() < 1e-3  # float32 of inputs a thousand sigma bright


@pytest.mark.parametrize("tile", [8, 13, 24])
def test_tiles_agree_with_the_whole_frame(model, tile):
    low, variance, _ = stars()
    whole, tiled = run(low, variance, model, tile=0), run(low, variance, model, tile=tile)
    sigma = np.sqrt(variance).repeat(SCALE, 0).repeat(SCALE, 1)
    limit = 1e-4 * sigma + 8 * np.spacing(np.abs(whole.mean))
    assert (np.abs(whole.mean - tiled.mean) <= limit).all()


def test_same_seed_same_bytes_and_other_seed_other_draws(model):
    low, variance, _ = stars()
    one, two, other = (run(low, variance, model, seed=s, keep_draws=True).draws for s in (0, 0, 1))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one[0], one[1])


def test_masked_pixels_never_poison_their_neighbours(model):
    low, variance, _ = stars()
    mask = clear(low)
    mask[10, 10:14] = True
    results = []
    for value in (0, np.nan, 1e12):
        spoiled = low.copy()
        spoiled[mask] = value
        results.append(run(spoiled, variance, model, mask=mask).mean)
    assert np.isfinite(results[0]).all()
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_physics_stops_where_the_data_are_explained():
    low, variance, truth = stars(seed=3)
    done = run(low, variance)
    assert 0.3 < done.chi2 < 1.1  # a mean fits its own data: below 1, never far above
    bicubic = np.repeat(np.repeat(low, SCALE, 0), SCALE, 1) / SCALE**2
    assert ((done.mean - truth) ** 2).mean() < 0.5 * ((bicubic - truth) ** 2).mean()


def test_no_noise_means_no_answer():
    low, variance, _ = stars()
    with pytest.raises(InputError, match="no pixel is valid"):
        run(low, 0 * variance)


def test_gate_opens_only_where_the_model_fails_and_the_physics_does_not():
    low, variance, truth = stars()
    observation = Observation.of_arrays(low, variance, SCALE, KERNEL)
    data, units = observation.data(), observation.units
    right = torch.from_numpy((truth - units.sky / SCALE**2) / units.sigma).float()[None, None]
    wrong = right.clone()
    wrong[..., 20:24, 30:34] += 50
    assert fallback_weight(data, right, lambda: pytest.fail("the physics is not needed")) is None
    gate = fallback_weight(data, wrong, lambda: right)
    assert gate is not None
    gate = gate[0, 0]
    assert float(gate[22, 32]) > 0.9
    assert float(gate[60:, 80:].max()) == 0


def test_linear_gaussian_draws_have_the_posterior_covariance():
    low, variance, _ = stars((8, 8))
    data = Observation.of_arrays(low, variance, SCALE).data()
    w = torch.full((1, 1, 16, 16), 0.7)
    draws = torch.cat([posterior_perturbation(data, w, 0, k) for k in range(0, 6000, 2)])
    got = draws.var(0)[0]
    m = (SCALE**2 * 0.49 + data.noise[0, 0]).repeat_interleave(SCALE, 0).repeat_interleave(SCALE, 1)
    want = 0.49 - 0.49**2 / m  # Sigma - Sigma A^T (A Sigma A^T + N)^-1 A Sigma for pure pixel integration
    assert float((got / want - 1).abs().max()) < 0.15  # 3000 draws: 2.6 % a pixel, 256 pixels, five sigma


@pytest.mark.parametrize("physics", [False, True])
def test_prior_or_physics_alone_need_no_draws(model, physics):
    low, variance, _ = stars()
    done = run(low, variance, None if physics else model, refine=False)
    assert done.draws_used == 0
    assert (done.err > 0).all()


def test_negative_and_shifted_data_are_kept():
    low, variance, _ = stars()
    done = run(low - 50, variance)
    assert done.mean.min() < 0
    assert done.mean.astype("f8").sum() == pytest.approx((low.astype("f8") - 50).sum(), rel=1e-3)


@pytest.mark.parametrize("name", methods.names())
def test_every_shipped_method_draws_through_the_same_refiner(model, name):
    low, variance, _ = stars((16, 16))
    method = methods.load(name)
    refiner = Refiner(RefinerConfig(SCALE, width=8, depth=1, prediction=method.prediction))
    made = replace(model, refiner=refiner, method=method).to(torch.device("cpu"))
    done = run(low, variance, made, samples=1, steps=min(4, method.path(None).T))
    assert np.isfinite(done.mean).all()
