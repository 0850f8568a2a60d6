"""Losses: what their minimisers are, that a right answer costs nothing, that masked pixels do not matter."""

from __future__ import annotations

import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from sciresdiff.diffusion import losses
from sciresdiff.diffusion.losses import LOSSES, PIXELWISE, Context
from sciresdiff.errors import UsageError
from sciresdiff.lab import lpips_network
from sciresdiff.restoration.prior import Prior, PriorConfig
from sciresdiff.training import prior as training
from sciresdiff.training.data import Pairs
from sciresdiff.training.loop import mixed_precision
from sciresdiff.training.recipe import DataRecipe

SCALE, SIDE = 2, 16
HERE = [name for name in LOSSES if name != "lpips"]
NLL = ("gaussian-nll", "laplace-nll")


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor, Context]:
    """A scene above its sky, an answer that is off by about one unit, and all that losses may know."""
    rng = np.random.default_rng(0)
    shape = (2, 1, SIDE * SCALE, SIDE * SCALE)
    target = torch.from_numpy(rng.gamma(0.5, 2.0, shape))
    unit = torch.from_numpy(rng.uniform(0.5, 2, shape))
    answer = target + unit * torch.from_numpy(rng.normal(size=shape))
    noise = torch.from_numpy(rng.uniform(1, 2, (2, 1, SIDE, SIDE)))
    slope = torch.tensor([0.3, 0.01], dtype=torch.float64).view(2, 1, 1, 1)
    context = Context(unit, scale=0.7 * unit, noise=noise, sky=torch.ones_like(slope), slope=slope)
    return answer, target, context


def minimiser(name: str, values: np.ndarray, chances: np.ndarray, context: Context, grid: np.ndarray) -> float:
    """The constant of least expected loss under a discrete distribution."""
    a, v = torch.from_numpy(grid).view(-1, 1), torch.from_numpy(values).view(1, -1)
    expected = LOSSES[name](a.expand(-1, v.shape[1]), v.expand(len(grid), -1), context) * torch.from_numpy(chances)
    return float(grid[int(expected.sum(1).argmin())])


def test_minimisers_of_a_skewed_posterior_are_its_mean_and_its_median() -> None:
    chances = np.full(4001, 1 / 4001)
    law = stats.expon(scale=2.0)  # mean 2, median 2 ln 2
    values = law.ppf((np.arange(4001) + 0.5) / 4001)
    grid = np.linspace(0.5, 3, 2501)
    noise = torch.ones(1, 1, dtype=torch.float64)
    for name, expected in [("mse", values.mean()), ("l1", 2 * np.log(2)), ("charbonnier", 2 * np.log(2))]:
        found = minimiser(name, values, chances, Context(), grid)
        assert found == pytest.approx(expected, abs=2e-3)  # two steps of the grid
    photons = Context(noise=noise.expand(1, 4001), sky=1.0, slope=0.5)
    assert minimiser("poisson-nll", values, chances, photons, grid) == pytest.approx(
        values.mean(), abs=2e-3
    )  # likewise
    wide, narrow = Context(knee=1e6), Context(knee=1e-3)
    assert minimiser("huber", values, chances, wide, grid) == pytest.approx(values.mean(), abs=2e-3)  # likewise
    assert minimiser("huber", values, chances, narrow, grid) == pytest.approx(2 * np.log(2), abs=2e-3)  # likewise


def test_minimiser_of_huber_solves_its_own_equation() -> None:
    law, knee = stats.expon(), 1.0
    grid = np.linspace(0.5, 1.2, 7001)
    values = law.ppf((np.arange(4001) + 0.5) / 4001)
    found = minimiser("huber", values, np.full(4001, 1 / 4001), Context(knee=knee), grid)
    # E clip(x - a, -k, k) = 0 with x ~ Exp(1), a <= k: 1 - e^-(a + k) = a
    equation = 1 - np.exp(-(found + knee)) - found
    assert abs(equation) < 1e-3  # quantiles in place of the law


def test_scales_of_the_likelihoods_are_those_of_the_errors() -> None:
    scales = torch.linspace(0.2, 3, 2801, dtype=torch.float64).view(-1, 1)
    q = (np.arange(4001) + 0.5) / 4001
    for name, law in (("gaussian-nll", stats.norm(scale=1.3)), ("laplace-nll", stats.laplace(scale=1.3 / np.sqrt(2)))):
        error = torch.from_numpy(law.ppf(q)).view(1, -1)
        value = LOSSES[name](error.expand(len(scales), -1), 0.0, Context(scale=scales)).mean(1)
        assert float(scales[int(value.argmin())]) == pytest.approx(1.3, rel=5e-3)  # quantiles cut the wings


def test_values_by_hand() -> None:
    e = torch.tensor([-5.0, -1, 0, 3, 4], dtype=torch.float64)
    assert LOSSES["mse"](e).tolist() == [25, 1, 0, 9, 16]
    assert LOSSES["l1"](e).tolist() == [5, 1, 0, 3, 4]
    reference = torch.nn.functional.huber_loss(e, 0 * e, delta=3.0, reduction="none")
    assert torch.equal(LOSSES["huber"](e), reference)
    c = losses.CHARBONNIER
    assert torch.allclose(LOSSES["charbonnier"](e), (e**2 + c**2).sqrt() - c, rtol=1e-12, atol=1e-15)  # rounding
    assert LOSSES["mse"](e, e - 2, Context(unit=2.0)).tolist() == [1] * 5


def test_likelihoods_are_those_of_scipy() -> None:
    rng = np.random.default_rng(1)
    answer, target, scale = rng.normal(size=50), rng.normal(size=50), rng.uniform(0.3, 2, 50)
    c = Context(scale=torch.from_numpy(scale))
    mine = [LOSSES[name](torch.from_numpy(answer), torch.from_numpy(target), c).numpy() for name in NLL]
    gaussian = -stats.norm.logpdf(target, answer, scale) - np.log(2 * np.pi) / 2
    np.testing.assert_allclose(mine[0], gaussian, rtol=1e-12, atol=1e-12)  # rounding
    np.testing.assert_allclose(
        mine[1], -stats.laplace.logpdf(target, answer, scale / np.sqrt(2)), rtol=1e-12, atol=1e-12
    )


def test_poisson_is_half_the_deviance_of_electrons() -> None:
    gain, sky = 2.5, 4.0  # electrons per value; variance of the sky in values squared
    target, answer = np.array([[3.0, 0.0, 40.0, 2.0]]), np.array([[5.0, 1.0, 30.0, 2.0]])
    electrons, expected = (gain * v + sky * gain**2 for v in (target, answer))
    c = Context(noise=torch.ones(1, 4), sky=sky, slope=1 / gain)
    mine = LOSSES["poisson-nll"](torch.from_numpy(answer), torch.from_numpy(target), c).numpy()
    theirs = stats.poisson.logpmf(np.round(electrons), np.round(electrons)) - stats.poisson.logpmf(
        np.round(electrons), expected
    )
    at = electrons == np.round(electrons)
    np.testing.assert_allclose(mine[at], theirs[at], rtol=1e-10)  # differences of logarithms of factorials
    assert at.sum() >= 3
    assert float(mine[0, 3]) == 0


def test_poisson_goes_on_below_an_empty_sky() -> None:
    x = torch.linspace(-60, 20, 2001, dtype=torch.float64).requires_grad_()
    c = Context(noise=torch.ones(1, 2001), sky=4.0, slope=0.4)
    value = LOSSES["poisson-nll"](x[None], torch.full((1, 2001), 2.0, dtype=torch.float64), c)[0]
    (slope,) = torch.autograd.grad(value.sum(), x)
    bend = slope.diff()
    assert bool(torch.isfinite(value).all()) and bool((bend > 0).all())  # convex everywhere
    assert float(bend.max() / bend.min()) < 1e3  # and without a kink


@pytest.mark.parametrize("name", HERE)
def test_a_right_answer_costs_nothing_and_a_wrong_one_something(name: str, pair) -> None:
    answer, target, c = pair
    right, wrong = (LOSSES[name](x, target, c).mean() for x in (target, answer))
    if name not in NLL:
        assert float(right) == pytest.approx(0, abs=1e-12)  # rounding
    assert float(right) < float(wrong)


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gradients_are_finite(name: str, pair, dtype: torch.dtype) -> None:
    answer, target, c = pair
    to = {k: v.to(dtype) if torch.is_tensor(v) else v for k, v in vars(c).items()}
    for start in (answer, target, 0 * answer, 1e4 * answer):  # off, right, empty, far off
        x = start.to(dtype).clone().requires_grad_()
        (gradient,) = torch.autograd.grad(LOSSES[name](x, target.to(dtype), Context(**to)).mean(), x)
        assert bool(torch.isfinite(gradient).all())
        assert gradient.dtype == dtype
    assert float(gradient.abs().max()) > 0


@pytest.mark.parametrize("name", HERE)
def test_masked_pixels_do_not_matter(name: str, pair) -> None:
    answer, target, c = pair
    valid = torch.ones_like(answer)
    valid[..., 5:9, 7:12] = 0
    c = replace(c, valid=valid)
    x = answer.clone().requires_grad_()
    value = LOSSES[name](x, target, c).mean()
    (gradient,) = torch.autograd.grad(value, x)
    assert float(gradient[..., 5:9, 7:12].abs().max()) == 0
    assert float(gradient.abs().max()) > 0
    spoilt = torch.where(valid > 0, answer, float("nan"))
    assert float(LOSSES[name](spoilt, target, c).mean()) == float(value.detach())


@pytest.mark.parametrize("name", ["mse", "l1", "huber", "charbonnier", "ssim", "haar", "fft", "gaussian-nll"])
def test_units_alone_decide(name: str, pair) -> None:
    answer, target, c = pair
    other = replace(c, unit=7 * c.unit, scale=7 * c.scale)
    one, two = float(LOSSES[name](answer, target, c).mean()), float(LOSSES[name](7 * answer, 7 * target, other).mean())
    assert one == pytest.approx(two, rel=1e-10)  # rounding


def test_haar_keeps_the_energy_and_fft_a_sum() -> None:
    x = torch.randn(1, 1, 24, 32, dtype=torch.float64)
    energy = sum(float(band.square().sum()) for band in losses._pyramid(x))
    assert energy == pytest.approx(float(x.square().sum()), rel=1e-12)  # orthonormal
    flat = losses._spectra(torch.ones(1, 1, 16, 16, dtype=torch.float64))
    assert float(flat[..., 0, 0].abs()) == pytest.approx(8 * 8 / 16, rel=1e-12)  # sum of Hann windows / sqrt(n)


def test_haar_of_one_square_by_hand() -> None:
    a, b, c, d = 1.0, 2.0, 5.0, 11.0
    x = torch.tensor([[a, b], [c, d]], dtype=torch.float64)[None, None].repeat(1, 1, 4, 4)
    first = [float(band[0, 0, 0, 0]) for band in losses._pyramid(x)][:3]
    assert first == [(a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2]


@pytest.mark.parametrize("shape", [(7, 9), (16, 16), (17, 40)])
def test_structural_losses_take_any_side_and_see_every_pixel(shape: tuple[int, int]) -> None:
    target = torch.zeros(1, 1, *shape, dtype=torch.float64)
    for name in ("ssim", "haar", "fft"):
        x = torch.randn(1, 1, *shape, dtype=torch.float64).requires_grad_()
        (gradient,) = torch.autograd.grad(LOSSES[name](x, target).mean(), x)
        seen = gradient.abs()[..., 1:, 1:] if name == "fft" else gradient.abs()  # a Hann window begins with zero
        assert bool((seen > 0).all()), name


def test_flux_is_the_error_of_the_sum_in_its_noise() -> None:
    noise = torch.full((1, 1, 8, 8), 4.0, dtype=torch.float64)
    target = torch.rand(1, 1, 16, 16, dtype=torch.float64)
    shuffled = target.flatten()[torch.randperm(256)].view_as(target)
    assert float(LOSSES["flux"](shuffled, target, Context(noise=noise))) == pytest.approx(0, abs=1e-24)  # rounding
    off = target.clone()
    off[..., 3, 5] += 8.0  # noise of the sum: sqrt(64 * 4) = 16, so half a sigma
    assert float(LOSSES["flux"](off, target, Context(noise=noise))) == pytest.approx(
        0.5 * 0.5**2, rel=1e-12
    )  # rounding
    small = losses.flux_error(torch.ones(1, 1, 6, 6), torch.ones(1, 1, 3, 3))
    assert small.shape == (1, 1, 1, 1)
    assert float(small) == pytest.approx(12)  # 36 in a noise of 3


def test_a_loss_that_knows_too_little_says_what_it_needs() -> None:
    x = torch.zeros(1, 1, 4, 4)
    for name in ("gaussian-nll", "laplace-nll", "poisson-nll", "flux"):
        with pytest.raises(UsageError, match=f"loss: '{name}' needs .*; allowed are {', '.join(PIXELWISE)}"):
            LOSSES[name](x, x)


class Stand(nn.Module):
    """LPIPS's interface with one convolution."""

    def __init__(self, net: str, pnet_rand: bool, verbose: bool) -> None:
        super().__init__()
        assert (net, pnet_rand, verbose) == ("alex", True, False)
        self.net = nn.ModuleDict({"slice1": nn.ModuleDict({"0": nn.Conv2d(3, 2, 3)})})

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        first = self.net["slice1"]["0"]
        return (first(one) - first(other)).square().mean((1, 2, 3), keepdim=True)


def test_lpips_takes_local_weights_and_says_what_is_missing(tmp_path, monkeypatch) -> None:
    lpips_network._network.cache_clear()
    monkeypatch.delenv(lpips_network.FOLDER, raising=False)
    target = torch.rand(1, 1, 32, 32)
    answer = (target + 0.1 * torch.randn(1, 1, 32, 32)).requires_grad_()
    with pytest.raises(UsageError, match="loss: 'lpips' needs AlexNet's weights: set SCIRESDIFF_LPIPS"):
        LOSSES["lpips"](answer, target)
    with pytest.raises(UsageError, match="'lpips' needs 32 px on each side, the patch has 16"):
        LOSSES["lpips"](answer[..., :16], target[..., :16])
    stored = {f"features.{k.split('.', 1)[1]}": v for k, v in Stand("alex", True, False).net.state_dict().items()}
    torch.save(stored, tmp_path / lpips_network.FILE)
    monkeypatch.setenv(lpips_network.FOLDER, str(tmp_path))
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(UsageError, match=r"needs the package lpips \(pip install 'sciresdiff\[perceptual\]'"):
        LOSSES["lpips"](answer, target)
    library = types.ModuleType("lpips")
    library.LPIPS = Stand
    monkeypatch.setitem(sys.modules, "lpips", library)
    assert float(LOSSES["lpips"](target, target)) == 0
    value = LOSSES["lpips"](answer, target)
    value.backward()
    assert float(value.detach()) > 0
    assert bool(torch.isfinite(answer.grad).all())
    lpips_network._network.cache_clear()


# The prior's training


@pytest.fixture(scope="module")
def batch():
    return Pairs(DataRecipe(scale=2, patch=20, scene_px=64, pool=2, photon=(3e-2, 1.0)), 3).batch(0, 3)


def small_prior() -> Prior:
    torch.manual_seed(1)
    prior = Prior(PriorConfig(2, width=4, depth=1, stages=2, iterations=2))
    for values in prior.parameters():
        values.data += 0.05 * torch.randn_like(values)
    return prior


def plain_loss(prior: Prior, batch) -> torch.Tensor:
    """The default loss, written out."""
    estimates = prior(batch.data, batch.kernel, mixed_precision(False))
    unit, total = training.local_scale(batch.truth, batch.data), torch.zeros(())
    for k, estimate in enumerate(estimates):
        error = estimate.x - batch.truth
        fit = nn.functional.huber_loss(error / unit, torch.zeros_like(error), delta=2.0)
        ratio = ((estimate.guess - batch.truth).detach() / estimate.w).square().clamp_max(50)
        scale = (torch.log(estimate.w / unit) + 0.5 * ratio).mean()
        noise = nn.functional.avg_pool2d(batch.data.noise, 8, divisor_override=1)
        off = nn.functional.avg_pool2d(error, 16, divisor_override=1) / noise.sqrt()
        flux = nn.functional.huber_loss(off, torch.zeros_like(off), delta=2.0)
        total = total + (1.0 if k == len(estimates) - 1 else 0.5) * (fit + 0.1 * scale + 0.02 * flux)
    return total


def test_the_default_loss_of_the_prior_and_its_gradients_bit_for_bit(batch) -> None:
    one, two = small_prior(), small_prior()
    first, _ = training.loss(one, batch, torch.Generator(), False)
    second = plain_loss(two, batch)
    first.backward()
    second.backward()
    assert torch.equal(first.detach(), second.detach())
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("name", HERE)
def test_a_prior_can_be_trained_with_every_loss(name: str, batch) -> None:
    prior = small_prior()
    value, parts = training.loss(prior, batch, torch.Generator(), False, {name: 1.0})
    value.backward()
    assert set(parts) == {name}
    gradients = [p.grad for p in prior.parameters()]
    assert all(bool(torch.isfinite(g).all()) for g in gradients)
    assert any(float(g.abs().max()) > 0 for g in gradients)


def test_sky_and_slope_are_found_in_the_variance(batch) -> None:
    clean = batch.data.operator.apply(batch.truth).clamp_min(0)
    sky, slope = training.fit_photon_noise(batch)
    # float32 variances, of which some hardly change
    assert torch.allclose(sky + slope * clean, batch.data.noise, rtol=1e-4)


def test_recipes_name_their_losses(tmp_path) -> None:
    file = tmp_path / "r.toml"
    usual = {"huber": 1.0, "scale": 0.1, "flux": 0.02}
    assert training.read_losses(None) == training.TERMS == usual
    for text, found in [
        ("[data]\npatch = 20\n", usual),
        ("loss = {huber = 1.0, flux = 0.02}", usual),
        ("[loss]\nmse = 1\nscale = 0.2\n", {"mse": 1.0, "scale": 0.2}),
        ('loss = "haar"', {"haar": 1.0, "scale": 0.1}),
    ]:
        file.write_text(text)
        assert list(training.read_losses(str(file)).items()) == list(found.items())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[loss]\nhubert = 1.0", r"\[loss\] has no loss 'hubert'; allowed are mse, .*; nearest: huber"),
        ("[loss]\nhuber = -1", r"\[loss\] huber = -1; allowed is a finite weight"),
        ("[loss]\nhuber = true", r"\[loss\] huber = True; allowed is a finite weight"),
        ("[loss]\nflux = 1.0", "says nothing of single pixels"),
        ("loss = 3", "loss = 3; allowed is a name or a table"),
    ],
)
def test_losses_that_cannot_be_used_say_so(tmp_path, text: str, said: str) -> None:
    file = tmp_path / "r.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=f"^--recipe: .*{said}"):
        training.read_losses(str(file))
