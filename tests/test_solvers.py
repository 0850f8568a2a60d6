"""Solvers beyond the plain step, from the papers' algorithms: churn, Runge-Kutta, correctors, students, starts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciresdiff.diffusion.method import Method, load
from sciresdiff.diffusion.path import Path, marginal, subset
from sciresdiff.diffusion.sampler import Task, added_noise, sample
from sciresdiff.diffusion.schedule import SCHEDULES
from sciresdiff.diffusion.solvers import SOLVERS
from sciresdiff.errors import UsageError
from sciresdiff.lab.solvers import carry

Array = NDArray[np.float64]
ROUNDING = 1e-12  # float64 formulae of a dozen operations on numbers of order 1
rng = np.random.default_rng(11)
SHAPE = (2, 1, 4, 5)
truth, anchor, eps = (torch.from_numpy(rng.normal(size=SHAPE)) for _ in range(3))
weight = torch.from_numpy(rng.uniform(0.4, 1.6, SHAPE))
ZERO, ONE = torch.zeros_like(truth), torch.ones_like(truth)


def keyed(t: int) -> Tensor:
    """Unit noise, a pure function of t."""
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(t), dtype=torch.float64)


def answer(x: Any, level: float) -> Any:
    """A smooth nonlinear estimate that depends on the state and on its noise."""
    return 0.3 * x / (1 + 0.1 * x * x) + 0.01 * level


def denoiser(path: Path) -> Any:
    """`answer` by s / a of an index."""
    return lambda x, t: answer(x, path.at(t).s / path.at(t).a)


def solved(name: str, path: Path, x: Tensor, mu: Tensor = ZERO, w: Tensor = ONE, **options: Any) -> Tensor:
    """The package's solver on `answer`."""
    return SOLVERS[name](Task(path, denoiser(path), mu, w, keyed, range(path.T, -1, -1)), x, **options)


def close(given: Tensor, expected: Tensor, tolerance: float = ROUNDING) -> None:
    """Equal within rounding."""
    torch.testing.assert_close(given, expected, rtol=tolerance, atol=tolerance)


def test_churn_is_algorithm_2_of_edm() -> None:
    N, S_churn, S_min, S_max, S_noise = 10, 4.0, 0.05, 50.0, 1.003
    path = SCHEDULES["edm"](T=N)
    sigma, x = path.s, 80 * eps
    for t in range(N, 0, -1):
        gamma = min(S_churn / N, math.sqrt(2) - 1) if S_min <= sigma[t] <= S_max else 0.0
        hat = sigma[t] * (1 + gamma)
        x = x + math.sqrt(hat**2 - sigma[t] ** 2) * S_noise * keyed(N + 1 + t)
        d = (x - answer(x, hat)) / hat
        ahead = x + (sigma[t - 1] - hat) * d
        if t > 1:
            ahead = x + (sigma[t - 1] - hat) / 2 * (d + (ahead - answer(ahead, sigma[t - 1])) / sigma[t - 1])
        x = ahead
    options = {"churn": S_churn, "churn_min": S_min, "churn_max": S_max, "churn_noise": S_noise}
    close(solved("heun", path, 80 * eps, **options), x, 1e-11)  # the level hat goes through a logarithm and back


def test_churn_does_not_leave_the_path() -> None:
    path, seen = SCHEDULES["edm"](T=6), []
    task = Task(path, lambda x, t: seen.append(t) or truth, ZERO, ONE, keyed, range(6, -1, -1))
    SOLVERS["heun"](task, 80 * eps, churn=40.0)
    assert max(seen) == 6 and seen[2] % 1 > 0


def noise_of(x: Any, a: float, s: float) -> Any:
    """The noise that `answer` implies in a state without anchor."""
    return (x - a * answer(x, s / a)) / s


def test_pndm_is_three_runge_kutta_steps_and_then_adams_bashforth() -> None:
    """Liu et al. 2022, algorithm 2; half-way indices are those of the whole path."""
    whole = SCHEDULES["vp-linear"]()
    path, at = subset(whole, 10), [100 * k for k in range(11)]
    a, s = whole.a, whole.s

    def transfer(x: Tensor, e: Tensor, t: int, r: int) -> Tensor:
        A, B, root = a[t] ** 2, a[r] ** 2, math.sqrt
        slope = x / (root(A) * (root(A) + root(B))) - e / (root(A) * (root((1 - B) * A) + root((1 - A) * B)))
        return x + (B - A) * slope

    x, old = eps, []
    for k in range(10, 1, -1):
        t, r, half = at[k], at[k - 1], (at[k] + at[k - 1]) // 2
        old = [noise_of(x, a[t], s[t]), *old]
        if len(old) < 4:
            second = noise_of(transfer(x, old[0], t, half), a[half], s[half])
            third = noise_of(transfer(x, second, t, half), a[half], s[half])
            fourth = noise_of(transfer(x, third, t, r), a[r], s[r])
            e = (old[0] + 2 * second + 2 * third + fourth) / 6
        else:
            e = (55 * old[0] - 59 * old[1] + 37 * old[2] - 9 * old[3]) / 24
        x = transfer(x, e, t, r)
    close(solved("pndm", path, eps), answer(x, s[100] / a[100]), 1e-9)  # abar = 4e-5 under a root, 4 times in a row


def test_pndm_is_of_second_order_on_the_exact_gaussian_denoiser() -> None:
    """Liu et al. 2022, section 3.4: order 4 in the noise is order 2 in the image, as the transfer is not the flow."""
    sd, errors = 0.5, {}
    for name in ("plms", "pndm"):
        for T in (41, 81):
            lam = np.linspace(9, -3, T)
            a, s = 1 / np.sqrt(1 + np.exp(-2 * lam)), 1 / np.sqrt(1 + np.exp(2 * lam))
            path = Path(*(np.concatenate([[first], v]) for first, v in ((1.0, a), (0.0, 0 * a), (0.0, s))))

            def exact(x: Tensor, t: float, path: Path = path) -> Tensor:
                p = path.at(t)
                return x * (p.a * sd**2 / (p.a**2 * sd**2 + p.s**2))

            done = SOLVERS[name](Task(path, exact, ZERO, ONE, keyed, range(T, -1, -1)), ONE)
            errors[name, T] = abs(float(done[0, 0, 0, 0]) * math.hypot(path.a[-1] * sd, path.s[-1]) / sd - 1)
    for name in ("plms", "pndm"):
        assert abs(math.log2(errors[name, 41] / errors[name, 81]) - 2) < 0.35  # the next order is a tenth of it
    assert errors["pndm", 81] < 0.002  # C h^2 with h = 0.15 and C below 1/10


@pytest.mark.parametrize("schedule", ["vp-linear", "ve"])
def test_reverse_diffusion_is_ancestral_sampling_with_the_variance_of_the_transition(schedule: str) -> None:
    """DDPM: (x + beta score) / sqrt(1 - beta) + sqrt(beta) z.  SMLD: x + (s_t^2 - s_r^2) (score + z / its root)."""
    path, x = SCHEDULES[schedule](T=6), 2 * eps
    for t in range(6, 1, -1):
        score = -noise_of(x, path.a[t], path.s[t]) / path.s[t]
        if schedule == "ve":
            beta, kept = path.s[t] ** 2 - path.s[t - 1] ** 2, 1.0
        else:
            beta = np.linspace(1e-4, 0.02, 6)[t - 1]
            kept = math.sqrt(1 - beta)
        x = (x + beta * score) / kept + math.sqrt(beta) * keyed(t - 1)
    # beta = 1 - abar_t / abar_(t-1) of the first indices has 1e-16 / 1e-4 of rounding
    close(solved("reverse-diffusion", path, 2 * eps), answer(x, path.s[1] / path.a[1]), 1e-11)


def test_predictor_corrector() -> None:
    """Song et al. 2021, algorithms 3 and 5: e = 2 alpha (snr |z| / |score|)^2, x += e score + sqrt(2 e) z."""
    path, x, snr = SCHEDULES["vp-linear"](T=6), eps, 0.16
    beta = [0.0, *np.linspace(1e-4, 0.02, 6)]
    for t in range(6, 1, -1):
        score = -noise_of(x, path.a[t], path.s[t]) / path.s[t]
        x = (x + beta[t] * score) / math.sqrt(1 - beta[t]) + math.sqrt(beta[t]) * keyed(t - 1)
        for k in (1, 2):
            score, z = -noise_of(x, path.a[t - 1], path.s[t - 1]) / path.s[t - 1], keyed(k * 7 + t - 1)
            ratio = torch.stack([z[i].norm() / score[i].norm() for i in range(2)]).view(2, 1, 1, 1)
            e = 2 * (1 - beta[t - 1]) * (snr * ratio) ** 2
            x = x + e * score + torch.sqrt(2 * e) * z
    close(solved("predictor-corrector", path, eps, snr=snr, corrector=2), answer(x, path.s[1] / path.a[1]), 1e-11)


def test_a_corrector_keeps_the_distribution_of_a_level() -> None:
    """Many corrections at the exact score leave the variance, up to a share of order snr^2 (unadjusted Langevin)."""
    n, sd = 200_000, 0.7
    path = Path(np.array([1, 0.9, 0.9]), np.zeros(3), np.array([0, 0.5, 0.5]), "markov")
    generator = torch.Generator().manual_seed(3)
    noise = [torch.randn(1, 1, 1, n, generator=generator, dtype=torch.float64) for _ in range(80)]
    one, seen = torch.ones_like(noise[0]), []
    expected = 0.81 * sd**2 + 0.25

    def exact(x: Tensor, t: float) -> Tensor:
        seen.append(float(x.var()))
        return x * (0.9 * sd**2 / expected)

    task = Task(path, exact, 0 * one, one, lambda t: noise[t], range(2, -1, -1))
    SOLVERS["predictor-corrector"](task, math.sqrt(expected) * noise[0], snr=0.1, corrector=20)
    size = 2 * 0.01 * expected  # e, with |z|^2 = n and |score|^2 = n / variance
    assert seen[-1] == pytest.approx(expected / (1 - size / (2 * expected)), rel=0.015)  # 5 sigma of a variance of n


def test_consistency_draws_anew_and_one_step_stops_at_once() -> None:
    path = subset(SCHEDULES["resshift"](), 4)
    x = (path.a[4] + path.b[4]) * anchor + path.s[4] * weight * keyed(4)
    first = answer(x, path.s[4] / path.a[4])
    close(solved("one-step", path, x, anchor, weight), first)
    for t in (3, 2, 1):
        x = path.a[t] * first + path.b[t] * anchor + path.s[t] * weight * keyed(t)
        first = answer(x, path.s[t] / path.a[t])
    start = (path.a[4] + path.b[4]) * anchor + path.s[4] * weight * keyed(4)
    close(solved("consistency", path, start, anchor, weight), first)


def test_without_heat_every_step_is_the_posterior_mean() -> None:
    """DiffIR's sampler: the mean of DDPM's posterior, no noise but the first."""
    path = load("diffir").training_path()
    x, abar = eps, path.a**2
    for t in range(4, 1, -1):
        beta = 1 - abar[t] / abar[t - 1]
        mean = math.sqrt(abar[t - 1]) * beta / (1 - abar[t]) * answer(x, path.s[t] / path.a[t])
        x = mean + math.sqrt(1 - beta) * (1 - abar[t - 1]) / (1 - abar[t]) * x
    task = Task(path, denoiser(path), ZERO, ONE, lambda t: pytest.fail("noise was drawn"), range(4, -1, -1))
    close(SOLVERS["ancestral"](task, eps, heat=0.0), answer(x, path.s[1] / path.a[1]))


# Starts ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("t0", "first"), [(0.5, 5), (0.04, 1), (1.0, 10)])
def test_sdedit_enters_the_path_at_its_share(t0: float, first: int) -> None:
    record = {**load("sdedit").to_dict(), "start": {"name": "sdedit", "t0": t0}}
    method, seen = Method.from_dict(record), []
    prior = torch.from_numpy(rng.normal(size=SHAPE))
    denoise = lambda x, t: seen.append((t, x)) or truth  # noqa: E731
    sample(method, denoise, anchor, weight, keyed, steps=10, prior=prior)
    p = method.path(10).at(first)
    assert [t for t, _ in seen] == list(range(first, 0, -1))
    close(seen[0][1], p.a * prior + p.b * anchor + p.s * weight * keyed(first))
    sample(method, denoise, anchor, weight, keyed, steps=10)
    close(seen[first][1], (p.a + p.b) * anchor + p.s * weight * keyed(first))


def test_a_start_at_the_anchor_without_any_noise_is_refused() -> None:
    record = {"start": "anchor", "path": {"schedule": "bridge", "T": 5}}
    method = Method.from_dict({"name": "mine", **record})
    with pytest.raises(
        UsageError, match="--method mine: w = 0 everywhere, and the start is the anchor.*another weight"
    ):
        sample(method, lambda x, t: truth, anchor, ZERO, keyed)
    transport = Method.from_dict({"start": "anchor", "path": {"schedule": "bridge", "T": 5, "noise": 0.0}})
    assert torch.equal(sample(transport, lambda x, t: truth, anchor, ZERO, keyed), truth)  # it never has noise


# A weight that changes on the way -------------------------------------------------------------------------------------


def moving(t: int, x: Tensor) -> Tensor:
    """A scale of the noise that depends on index and place."""
    return weight * (1 + 0.1 * t)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_what_is_carried_scales_with_the_ratio_of_the_weights(eta: float) -> None:
    """The formula written out: x_r = a_r x^ + b_r mu + c (w_r / w_t) (...) + sqrt(s_r^2 - c^2 s_t^2) w_r z."""
    path = SCHEDULES["resshift"](T=5)
    x = w = None
    states: list[Tensor] = []
    for t in range(5, 0, -1):
        if x is None:
            w = moving(5, ZERO)
            x = anchor + path.s[5] * w * keyed(5)
        states.append(x)
        x_hat, r, w_r = answer(x, t), t - 1, moving(t, x)
        c = carry(path, t, r, eta)
        left = x - path.a[t] * x_hat - path.b[t] * anchor
        x = path.a[r] * x_hat + path.b[r] * anchor + c * (w_r / w) * left
        x, w = x + added_noise(path, t, r, c) * w_r * keyed(r), w_r
    record = {"path": {"schedule": "resshift", "T": 5}, "solver": {"name": "ddim", "eta": eta}}
    seen: list[Tensor] = []
    sample(Method.from_dict(record), lambda x, t: seen.append(x) or answer(x, t), anchor, moving, keyed)
    for given, expected in zip(seen, states, strict=True):
        close(given, expected)


@pytest.mark.parametrize("solver", ["ddim", "euler", "heun", "plms", "pndm", "dpmpp2m"])
def test_with_the_truth_as_estimate_the_state_has_noise_of_the_present_weight(solver: str) -> None:
    method = Method.from_dict({"path": {"schedule": "resshift", "T": 8}, "solver": {"name": solver}})
    path, seen = method.path(), {}

    def denoise(x: Tensor, t: float) -> Tensor:
        seen.setdefault(t, x)
        return truth

    assert torch.equal(sample(method, denoise, truth, moving, lambda t: eps), truth)
    for t in range(8, 0, -1):
        w = moving(min(t + 1, 8), ZERO)
        if solver in ("heun", "pndm") and t < 8:  # they look ahead with the weight of the step before
            continue
        close(seen[t], marginal(path, t, truth, truth, w, eps), 1e-11)  # rounding over a = 0.02


def test_a_weight_that_stays_changes_nothing() -> None:
    method = load("resshift")
    plain = sample(method, answer, anchor, weight, keyed)
    assert torch.equal(sample(method, answer, anchor, lambda t, x: weight, keyed), plain)
