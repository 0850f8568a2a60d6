"""Every published step and solver, from the papers' own formulae, against the one step of the package."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciresdiff.diffusion.losses import LOSSES
from sciresdiff.diffusion.path import Path, marginal, subset
from sciresdiff.diffusion.prediction import PREDICTIONS, c_in
from sciresdiff.diffusion.sampler import Task, added_noise, posterior_carry, step
from sciresdiff.diffusion.schedule import SCHEDULES
from sciresdiff.diffusion.solvers import SOLVERS
from sciresdiff.diffusion.weight import WEIGHTS
from sciresdiff.errors import UsageError
from sciresdiff.lab.solvers import carry

Array = NDArray[np.float64]
ROUNDING = 1e-12  # float64 formulae of a dozen operations on numbers of order 1
rng = np.random.default_rng(3)
x0, mu, eps, z, x_hat = (rng.normal(size=(1, 1, 4, 5)) for _ in range(5))
w = rng.uniform(0.4, 1.6, (1, 1, 4, 5))
ONE = np.ones_like(w)
ZERO = np.zeros_like(w)


def state(path: Path, t: int, anchor: Array, weight: Array) -> Array:
    """x_t by the definition."""
    return path.a[t] * x0 + path.b[t] * anchor + path.s[t] * weight * eps


def ours(path: Path, t: int, r: int, anchor: Array, weight: Array, eta: float) -> Array:
    """The package's step from that state with the estimate x_hat."""
    images = (torch.from_numpy(v) for v in (state(path, t, anchor, weight), x_hat, anchor, weight, z))
    return step(path, t, r, *images, carry(path, t, r, eta)).numpy()


def close(given: Array, expected: Array, tolerance: float = ROUNDING) -> None:
    """Equal within rounding."""
    np.testing.assert_allclose(given, expected, rtol=tolerance, atol=tolerance)


def betas(first: float = 1e-4, last: float = 0.02, T: int = 1000) -> tuple[Array, Array]:
    """beta and abar of DDPM, index 0 unused."""
    beta = np.concatenate([[0.0], first + (last - first) * np.arange(T) / (T - 1)])
    return beta, np.exp(np.cumsum(np.log1p(-beta)))


@pytest.mark.parametrize("t", [2, 3, 500, 1000])
def test_ddpm_posterior(t: int) -> None:
    beta, abar = betas()
    path = SCHEDULES["vp-linear"](T=1000)
    x = state(path, t, ZERO, ONE)
    mean = math.sqrt(abar[t - 1]) * beta[t] / (1 - abar[t]) * x_hat
    mean = mean + math.sqrt(1 - beta[t]) * (1 - abar[t - 1]) / (1 - abar[t]) * x
    variance = beta[t] * (1 - abar[t - 1]) / (1 - abar[t])
    close(ours(path, t, t - 1, ZERO, ONE, 1.0), mean + math.sqrt(variance) * z, 1e-10)  # 1 - abar cancels 4 digits


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_at_every_eta(eta: float) -> None:
    _, abar = betas()
    path, t, r = SCHEDULES["vp-linear"](T=1000), 700, 400
    x = state(path, t, ZERO, ONE)
    noise = (x - math.sqrt(abar[t]) * x_hat) / math.sqrt(1 - abar[t])
    sigma = eta * math.sqrt((1 - abar[r]) / (1 - abar[t])) * math.sqrt(1 - abar[t] / abar[r])
    expected = math.sqrt(abar[r]) * x_hat + math.sqrt(1 - abar[r] - sigma**2) * noise + sigma * z
    close(ours(path, t, r, ZERO, ONE, eta), expected)


def transfer(x: Array, e: Array, A: float, B: float) -> Array:
    """PNDM's transfer of x from abar = A to B with the noise e (Liu et al. 2022, equation 9)."""
    root = math.sqrt
    slope = x / (root(A) * (root(A) + root(B))) - e / (root(A) * (root((1 - B) * A) + root((1 - A) * B)))
    return x + (B - A) * slope


def test_pndm_transfer() -> None:
    _, abar = betas()
    path, t, r = SCHEDULES["vp-linear"](T=1000), 800, 780
    x = state(path, t, ZERO, ONE)
    noise = (x - math.sqrt(abar[t]) * x_hat) / math.sqrt(1 - abar[t])
    close(ours(path, t, r, ZERO, ONE, 0.0), transfer(x, noise, abar[t], abar[r]))


def test_dpm_solver_pp_of_order_one_in_the_shifted_variable() -> None:
    path, t, r = SCHEDULES["resshift"](T=15), 11, 8
    u = state(path, t, mu, w) - path.b[t] * mu
    h = math.log(path.a[r] / path.s[r]) - math.log(path.a[t] / path.s[t])
    expected = path.s[r] / path.s[t] * u - path.a[r] * math.expm1(-h) * x_hat + path.b[r] * mu
    close(ours(path, t, r, mu, w, 0.0), expected)


def roots(T: int, least: float, kappa: float, power: float) -> Array:
    """sqrt(eta_1..T) of ResShift, by its logarithm."""
    first = math.log(min(least / kappa, least))
    return np.exp([first + (math.log(0.99) - first) * (i / (T - 1)) ** power for i in range(T)])


@pytest.mark.parametrize("t", [2, 9, 15])
def test_resshift_posterior(t: int) -> None:
    path, eta = SCHEDULES["resshift"](T=15, kappa=2.0, power=0.3, min_noise=0.04), roots(15, 0.04, 2, 0.3) ** 2
    E, F = eta[t - 1], eta[t - 2]
    mean = F / E * state(path, t, mu, w) + (E - F) / E * x_hat
    close(ours(path, t, t - 1, mu, w, 1.0), mean + 2 * math.sqrt(F * (E - F) / E) * w * z)


def test_sinsr_deterministic_step() -> None:
    path, eta = SCHEDULES["resshift"](T=15), roots(15, 0.04, 2, 0.3) ** 2
    E, F = eta[12], eta[8]
    k = 1 - F + math.sqrt(E * F) - math.sqrt(F / E)
    m, j = math.sqrt(F / E), F - math.sqrt(E * F)
    close(ours(path, 13, 9, mu, w, 0.0), k * x_hat + m * state(path, 13, mu, w) + j * mu)


@pytest.mark.parametrize("t", [2, 60, 100])
def test_ir_sde_posterior(t: int) -> None:
    T, lam = 100, 30 / 255
    cos2 = [math.cos((j / (T + 2) + 0.008) / 1.008 * math.pi / 2) ** 2 for j in range(T + 2)]
    theta = [1 - c / cos2[0] for c in cos2[1:]]
    dt = -math.log(0.005) / sum(theta[1:])
    C, B = (math.exp(-dt * sum(theta[1 : i + 1])) for i in (t - 1, t))
    A = math.exp(-dt * theta[t])
    path = SCHEDULES["mean-reverting"](T=T)
    x = state(path, t, mu, ONE)
    mean = mu + A * (1 - C**2) / (1 - B**2) * (x - mu) + C * (1 - A**2) / (1 - B**2) * (x_hat - mu)
    variance = lam**2 * (1 - A**2) * (1 - C**2) / (1 - B**2)
    close(ours(path, t, t - 1, mu, ONE, 1.0), mean + math.sqrt(variance) * z, 1e-11)  # 1 - B^2 cancels a digit


@pytest.mark.parametrize(("t", "r"), [(700, 400), (1000, 999), (30, 1)])
def test_i2sb_posterior(t: int, r: int) -> None:
    T = 1000
    half = [(math.sqrt(1e-4) + i / (T - 1) * (math.sqrt(3e-4) - math.sqrt(1e-4))) ** 2 for i in range(T // 2)]
    variance = np.concatenate([[0], np.cumsum([*half, *half[::-1]])])
    path = SCHEDULES["bridge"](T=T, beta_max=0.3)
    rho, x = variance[r] / variance[t], state(path, t, mu, ONE)
    spread = math.sqrt(variance[r] * (variance[t] - variance[r]) / variance[t])
    close(ours(path, t, r, mu, ONE, 1.0), (1 - rho) * x_hat + rho * x + spread * z)
    assert abs(path.s.max() - 0.188) < 1e-3  # the paper's largest noise, to the digits known


def test_i2sb_optimal_transport() -> None:
    path, t, r = SCHEDULES["bridge"](T=10, noise=0.0), 7, 3
    rho = path.b[r] / path.b[t]
    close(ours(path, t, r, mu, ONE, 1.0), (1 - rho) * x_hat + rho * state(path, t, mu, ONE))


def test_flow_matching_euler() -> None:
    path, t, r = SCHEDULES["linear-flow"](T=20), 14, 13
    x = state(path, t, ZERO, ONE)
    velocity = (x - x_hat) / 0.7
    close(ours(path, t, r, ZERO, ONE, 0.0), x - 0.05 * velocity)


def karras(T: int = 18) -> Array:
    """sigma_0..T, the noisiest last."""
    i = np.arange(T)
    noisy = (80 ** (1 / 7) + i / (T - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    return np.concatenate([[0], noisy[::-1]])


def test_edm_euler_and_k_diffusion_ancestral() -> None:
    path, sigma = SCHEDULES["edm"](T=18), karras()
    close(path.s, sigma)
    t, r = 12, 10
    x = state(path, t, ZERO, ONE)
    d = (x - x_hat) / sigma[t]
    close(ours(path, t, r, ZERO, ONE, 0.0), x + (sigma[r] - sigma[t]) * d)
    up = min(sigma[r], math.sqrt(sigma[r] ** 2 * (sigma[t] ** 2 - sigma[r] ** 2) / sigma[t] ** 2))
    down = math.sqrt(sigma[r] ** 2 - up**2)
    close(ours(path, t, r, ZERO, ONE, 1.0), x + (down - sigma[t]) * d + up * z)


# Whole solvers ------------------------------------------------------------------------------------------------------


def answer(x: Array | Tensor, t: int) -> Array | Tensor:
    """An estimate that depends on everything, smooth and nonlinear, for arrays and tensors."""
    return 0.3 * x / (1 + 0.1 * x * x) + 0.01 * t


def solved(name: str, path: Path, x_T: Array, anchor: Array = ZERO, weight: Array = ONE, **options: float) -> Array:
    """The package's solver on `answer`."""
    x, anchor_, weight_ = (torch.from_numpy(v) for v in (x_T, anchor, weight))
    return SOLVERS[name](Task(path, answer, anchor_, weight_, no_noise, falling(path)), x, **options).numpy()


def falling(path: Path) -> range:
    """Every index, the noisiest first."""
    return range(path.T, -1, -1)


def no_noise(t: int) -> Tensor:
    """A deterministic solver never asks."""
    raise AssertionError("noise was asked for")


def test_edm_heun_is_algorithm_1() -> None:
    sigma, x = karras(10), 80 * eps
    for t in range(10, 0, -1):
        d = (x - answer(x, t)) / sigma[t]
        ahead = x + (sigma[t - 1] - sigma[t]) * d
        if t > 1:
            d_ahead = (ahead - answer(ahead, t - 1)) / sigma[t - 1]
            ahead = x + (sigma[t - 1] - sigma[t]) * (d / 2 + d_ahead / 2)
        x = ahead
    close(solved("heun", SCHEDULES["edm"](T=10), 80 * eps), x)


def test_plms_is_the_transfer_of_a_multistep_noise() -> None:
    _, abar = betas()
    path = subset(SCHEDULES["vp-linear"](), 8)
    A = [1.0, *abar[125 * np.arange(1, 9)]]
    x, old = eps, []
    for t in range(8, 1, -1):
        old = [(x - math.sqrt(A[t]) * answer(x, t)) / math.sqrt(1 - A[t]), *old]
        e = [
            lambda e: e[0],
            lambda e: (3 * e[0] - e[1]) / 2,
            lambda e: (23 * e[0] - 16 * e[1] + 5 * e[2]) / 12,
            lambda e: (55 * e[0] - 59 * e[1] + 37 * e[2] - 9 * e[3]) / 24,
        ][min(len(old), 4) - 1](old)
        x = transfer(x, e, A[t], A[t - 1])
    close(solved("plms", path, eps), answer(x, 1), 1e-10)  # the transfer divides by sqrt(abar) = 0.006 at the start


def test_dpm_solver_pp_2m_on_resshift() -> None:
    path = SCHEDULES["resshift"](T=6)
    a, s = path.a, path.s
    lam = [math.inf, *np.log(a[1:] / s[1:])]
    x, before = mu + s[6] * w * eps, None
    for t in range(6, 1, -1):
        h, now = lam[t - 1] - lam[t], answer(x, t)
        used = now
        if before is not None:
            q = (lam[t] - lam[t + 1]) / h
            used = (1 + 1 / (2 * q)) * now - 1 / (2 * q) * before
        u = s[t - 1] / s[t] * (x - path.b[t] * mu) - a[t - 1] * (math.exp(-h) - 1) * used
        x, before = u + path.b[t - 1] * mu, now
    close(solved("dpmpp2m", path, mu + s[6] * w * eps, mu, w), answer(x, 1))


def test_dpm_solver_pp_sde_2m() -> None:
    sigma, x, before = karras(8), 80 * eps, None
    path, draws = SCHEDULES["edm"](T=8), np.random.default_rng(0).normal(size=(9, *eps.shape))
    for t in range(8, 1, -1):
        h, now = math.log(sigma[t] / sigma[t - 1]), answer(x, t)
        new = sigma[t - 1] / sigma[t] * math.exp(-h) * x + (1 - math.exp(-2 * h)) * now
        if before is not None:
            q = math.log(sigma[t + 1] / sigma[t]) / h
            new = new + 0.5 * (1 - math.exp(-2 * h)) / q * (now - before)
        x, before = new + sigma[t - 1] * math.sqrt(1 - math.exp(-2 * h)) * draws[t - 1], now
    x_T, zero, one, noise = (torch.from_numpy(v) for v in (80 * eps, ZERO, ONE, draws))
    done = SOLVERS["dpmpp2m"](Task(path, answer, zero, one, lambda t: noise[t], falling(path)), x_T, eta=1.0)
    close(done.numpy(), answer(x, 1))


def even(T: int) -> Path:
    """A variance-preserving path uniform in lambda from -3 to 9."""
    lam = np.linspace(9, -3, T)
    a, s = 1 / np.sqrt(1 + np.exp(-2 * lam)), 1 / np.sqrt(1 + np.exp(2 * lam))
    return Path(*(np.concatenate([[first], v]) for first, v in ((1.0, a), (0.0, 0 * a), (0.0, s))))


def gaussian_denoiser(path: Path, sd: float) -> Callable[[Tensor, int], Tensor]:
    """E[x_0 | x_t] for x_0 ~ N(0, sd^2)."""
    return lambda x, t: x * float(path.a[t] * sd**2 / (path.a[t] ** 2 * sd**2 + path.s[t] ** 2))


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("ddim", 1), ("heun", 2), ("dpmpp2m", 2), ("plms", 2)])
def test_order_on_the_exact_gaussian_denoiser(name: str, order: int) -> None:
    sd, errors = 0.5, []
    for T in (41, 81):
        path = even(T)
        one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        exact = float(path.s[0] + sd / math.hypot(path.a[-1] * sd, path.s[-1]))
        task = Task(path, gaussian_denoiser(path, sd), 0 * one, one, no_noise, falling(path))
        done = SOLVERS[name](task, one, eta=0.0)
        errors.append(abs(float(done) / exact - 1))
    assert abs(math.log2(errors[0] / errors[1]) - order) < 0.35  # the next order is 1/40 to 1/10 of the leading error
    assert errors[1] < (0.05 if order == 1 else 0.005)  # C h^order with h = 0.15 and C of order 1/3


# Laws -----------------------------------------------------------------------------------------------------------------

ALL = [(name, make()) for name, make in SCHEDULES.items()]


@pytest.mark.parametrize(("name", "path"), ALL, ids=[name for name, _ in ALL])
def test_carry_lies_between_nothing_and_the_deterministic_step(name: str, path: Path) -> None:
    for t in range(1, path.T + 1, max(1, path.T // 20)):
        for r in range(0, t, max(1, t // 5)):
            c, most = posterior_carry(path, t, r), path.s[r] / path.s[t] if path.s[t] else math.inf
            assert 0 <= c <= most * (1 + 1e-9)  # rounding of 1 - abar near the clean end
            if path.s[t]:
                assert carry(path, t, r, 0.0) == pytest.approx(most, rel=1e-12)
                assert added_noise(path, t, r, carry(path, t, r, 0.0)) <= 1e-6 * path.s[r]  # rounding under a root


@pytest.mark.parametrize("solver", ["euler", "ddim", "heun", "plms", "pndm", "dpmpp2m"])
@pytest.mark.parametrize(("name", "path"), ALL, ids=[name for name, _ in ALL])
def test_with_the_truth_as_estimate_the_state_stays_on_the_path(name: str, path: Path, solver: str) -> None:
    path = subset(path, min(path.T, 12))
    truth, anchor, weight, noise = (torch.from_numpy(v) for v in (x0, mu, w, eps))
    seen = []

    def denoise(x: Tensor, t: int) -> Tensor:
        p = path.at(t)
        seen.append((x - p.a * truth - p.b * anchor - p.s * weight * noise).abs().max() / (1 + p.s))
        return truth

    x_T = marginal(path, path.T, truth, anchor, weight, noise)
    done = SOLVERS[solver](Task(path, denoise, anchor, weight, lambda t: noise, falling(path)), x_T, eta=0.0)
    assert torch.equal(done, truth)
    assert max(seen) < 1e-9  # rounding, times 1/a = 160 at the noisy end of some paths


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("name", "path"), ALL, ids=[name for name, _ in ALL])
def test_draws_from_the_exact_posterior_keep_the_variance_of_the_path(name: str, path: Path, eta: float) -> None:
    """x_r has the variance a_r^2 sd^2 + s_r^2 at every step, when the estimate is drawn from p(x_0 | x_t)."""
    path, sd, n = subset(path, min(path.T, 5)), 0.7, 100_000
    generator = torch.Generator().manual_seed(5)
    at: list[tuple[float, float]] = []

    def normal() -> Tensor:
        return torch.randn(1, 1, 1, n, generator=generator, dtype=torch.float64)

    def denoise(x: Tensor, t: int) -> Tensor:
        a, s = float(path.a[t]), float(path.s[t])
        at.append((float(x.var()), a**2 * sd**2 + s**2))
        gain = a * sd**2 / (a**2 * sd**2 + s**2) if s + a else 0.0
        return gain * x + math.sqrt(max(sd**2 * (1 - gain * a), 0)) * normal()

    one = torch.ones(1, 1, 1, n, dtype=torch.float64)
    x_T = float(path.a[-1]) * sd * normal() + float(path.s[-1]) * normal()
    done = SOLVERS["ddim"](Task(path, denoise, 0 * one, one, lambda t: normal(), falling(path)), x_T, eta=eta)
    at.append((float(done.var()), sd**2))
    for measured, expected in at:
        assert measured == pytest.approx(expected, rel=5 * math.sqrt(2 / n), abs=1e-12)  # 5 sigma of a variance of n


@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.parametrize("batch", [False, True])
def test_estimate_undoes_target(name: str, batch: bool) -> None:
    where = {"v": "vp-cosine", "flow": "linear-flow", "bridge": "bridge", "edm": "edm"}.get(name, "resshift")
    path = SCHEDULES[where]()
    t = max(1, path.T // 3)
    truth, anchor, weight, noise = (torch.from_numpy(np.repeat(v, 2, 0)) for v in (x0, mu, w, eps))
    index = torch.tensor([t, t + 1]) if batch else t
    p = path.at(index, truth) if batch else path.at(t)
    x = marginal(path, index, truth, anchor, weight, noise)
    answer_ = PREDICTIONS[name].target(p, truth, noise, anchor, weight)
    close(PREDICTIONS[name].estimate(p, x, answer_, anchor, weight).numpy(), truth.numpy(), 1e-10)  # / a = 0.2 .. 1


def test_published_targets() -> None:
    path = SCHEDULES["bridge"](T=1000)
    t, total = 600, np.cumsum(np.diff(path.b) * path.span)
    target = PREDICTIONS["bridge"].target(path.at(t), x0, eps, mu, ONE)
    close(target, (state(path, t, mu, ONE) - x0) / math.sqrt(total[t - 1]), 1e-10)  # a sum of 600 differences
    path = SCHEDULES["edm"](T=18)
    t, sigma = 9, path.s[9]
    x, root = state(path, t, ZERO, ONE), math.sqrt(sigma**2 + 0.25)
    d = PREDICTIONS["edm"].estimate(path.at(t), *(torch.from_numpy(v) for v in (x, z, ZERO, ONE)))
    close(d.numpy(), 0.25 / root**2 * x + sigma * 0.5 / root * z)
    close(c_in(path.at(t), torch.from_numpy(ONE)).numpy(), ONE / root)


def test_target_has_unit_variance_and_edm_weight() -> None:
    """F is made so that its target has unit variance: the reason for c_skip and c_out."""
    path, n = SCHEDULES["edm"](T=18), 200_000
    draws = np.random.default_rng(1).normal(size=(2, n))
    for t in (1, 9, 18):
        images = [torch.from_numpy(v) for v in (0.5 * draws[0], draws[1], 0 * draws[0], np.ones(n))]
        target = PREDICTIONS["edm"].target(path.at(t), *images)
        assert float(target.var()) == pytest.approx(1, rel=5 * math.sqrt(2 / n))  # 5 sigma of a variance of n


def test_losses() -> None:
    e = torch.tensor([-5.0, -1.0, 0.0, 3.0, 4.0])
    assert LOSSES["mse"](e).tolist() == [25, 1, 0, 9, 16]
    assert LOSSES["l1"](e).tolist() == [5, 1, 0, 3, 4]
    close(LOSSES["huber"](e).numpy(), torch.nn.functional.huber_loss(e, 0 * e, delta=3.0, reduction="none").numpy())


def test_weights() -> None:
    prior, up, scale = torch.tensor([0.0, 0.1, 0.2, 1.0]), torch.zeros(4), torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert WEIGHTS["ones"](prior, scale, up).tolist() == [1, 1, 1, 1]
    assert WEIGHTS["scale"](prior, scale, up) is scale
    close(WEIGHTS["upsr"](prior, scale, up).double().numpy(), np.array([0.4, 0.7, 1.0, 1.0]), 1e-6)  # float32
    close(WEIGHTS["upsr"](9 * prior, scale, up, unit=9.0).numpy(), WEIGHTS["upsr"](prior, scale, up).numpy(), 1e-6)


# Paths ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", ["time", "lambda", "karras"])
@pytest.mark.parametrize(("name", "path"), ALL, ids=[name for name, _ in ALL])
def test_subset_keeps_both_ends_and_takes_distinct_indices(name: str, path: Path, grid: str) -> None:
    for steps in (1, 2, 3, path.T // 2, path.T - 1, path.T):
        part = subset(path, steps, grid)  # type: ignore[arg-type]
        index = [
            int(np.flatnonzero((path.b == b) & (path.a == a) & (path.s == s))[0])
            for a, b, s in zip(part.a, part.b, part.s, strict=True)
        ]
        assert len(index) == steps + 1 and index[0] == 0 and index[-1] == path.T
        assert (np.diff(index) > 0).all()
        assert (part.carry, part.span, part.sd) == (path.carry, path.span, path.sd)


def test_subset_in_lambda_is_nearly_uniform_in_lambda() -> None:
    part = subset(SCHEDULES["vp-linear"](), 10, "lambda")
    gaps = -np.diff(np.log(part.a[1:] / part.s[1:]))
    assert gaps.max() / gaps.min() < 1.4  # lambda jumps by 0.4 between the first indices, a gap is 1.1


def test_subset_says_what_is_possible() -> None:
    with pytest.raises(UsageError, match="--steps 9: this method has 4 steps; give 1 to 4"):
        subset(SCHEDULES["resshift"](T=4), 9)
    with pytest.raises(UsageError, match="no noise; use time"):
        subset(SCHEDULES["bridge"](T=4, noise=0.0), 2, "lambda")
    with pytest.raises(UsageError, match="allowed are time, lambda, karras"):
        subset(SCHEDULES["resshift"](T=4), 2, "cosine")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("a", "b", "s", "match"),
    [
        ([1], [0], [0], "2 or more"),
        ([1, np.nan], [0, 0], [0, 1], "finite"),
        ([0.9, 0.5], [0, 0], [0, 1], "clean image"),
        ([1, 0.5, 0.5], [0, 0, 0], [0, 1, 0.5], "falls with the index"),
    ],
)
def test_a_path_that_no_step_could_use_is_refused(a: list[float], b: list[float], s: list[float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Path(np.array(a, float), np.array(b, float), np.array(s, float))
