"""Every method against derivations made without the package: marginals, posteriors, deterministic steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from sciresdiff.diffusion.method import Method, load, names
from sciresdiff.diffusion.path import Path, subset
from sciresdiff.diffusion.sampler import added_noise, posterior_carry, step
from sciresdiff.diffusion.schedule import SCHEDULES
from sciresdiff.lab.solvers import carry

Array = NDArray[np.float64]
Numbers = tuple[float, float, float]
NAMES = names()
ROUNDING = 1e-12  # float64 formulae on numbers of order 1


@cache
def whole(name: str) -> Path:
    """The path that a method is trained on."""
    return load(name).training_path()


# Forward marginals: a, b, s of index t, each from its paper -----------------------------------------------------------


@cache
def log_abar(kind: str, T: int, first: float, last: float) -> tuple[float, ...]:
    """ln of the product of 1 - beta up to every index, by compensated sums."""
    if kind == "linear":
        beta = [first + (last - first) * i / max(T - 1, 1) for i in range(T)]
    else:
        beta = [(first**0.5 + (last**0.5 - first**0.5) * i / max(T - 1, 1)) ** 2 for i in range(T)]
    logs = [math.log1p(-v) for v in beta]
    return tuple(math.fsum(logs[:i]) for i in range(T + 1))


def discrete(kind: str, T: int, first: float, last: float) -> Callable[[int], Numbers]:
    """DDPM's a and s of a schedule of beta."""

    def marginal(t: int) -> Numbers:
        log = log_abar(kind, T, first, last)[t]
        return math.exp(log / 2), 0.0, math.sqrt(-math.expm1(log))

    return marginal


def cosine(T: int) -> Callable[[int], Numbers]:
    """Nichol & Dhariwal: abar = f(t) / f(0), with beta cut at 0.999, which only the last index feels."""

    def f(t: int) -> float:
        return math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2

    def marginal(t: int) -> Numbers:
        abar = f(t) / f(0) if t < T else f(T - 1) / f(0) * 1e-3
        return math.sqrt(abar), 0.0, math.sqrt(1 - abar)

    return marginal


def vp_moments(t: int, sub: bool) -> Numbers:
    """Mean and variance of dx = -beta x / 2 dt + g dW, integrated from 0; g^2 = beta, or beta (1 - exp(-2 B))."""
    time = 1e-3 + (t - 1) / 999 * (1 - 1e-3)

    def rate(u: float, y: Array) -> list[float]:
        beta = 0.1 + u * 19.9
        return [-beta / 2 * y[0], beta * ((1 - math.exp(-2 * y[2]) if sub else 1.0) - y[1]), beta]

    done = solve_ivp(rate, (0, time), [1.0, 0.0, 0.0], method="DOP853", rtol=1e-13, atol=1e-16)
    return float(done.y[0, -1]), 0.0, math.sqrt(done.y[1, -1])


def exploding(t: int) -> Numbers:
    """Score-SDE's VE: a geometric sequence of sigma."""
    return 1.0, 0.0, math.exp(math.log(0.01) + (1e-5 + (t - 1) / 999 * (1 - 1e-5)) * math.log(5000))


def shifted(T: int, kappa: float, least: float, power: float) -> Callable[[int], Numbers]:
    """ResShift: eta by its logarithm."""
    low = math.log(min(least / kappa, least))

    def marginal(t: int) -> Numbers:
        root = math.exp(low + (math.log(0.99) - low) * ((t - 1) / (T - 1)) ** power)
        return 1 - root**2, root**2, kappa * root

    return marginal


@cache
def mean_reversion() -> tuple[Array, float]:
    """theta_0..100 and dt of IR-SDE."""
    cos2 = np.array([math.cos((j / 102 + 0.008) / 1.008 * math.pi / 2) ** 2 for j in range(102)])
    theta = 1 - cos2[1:] / cos2[0]
    return theta, -math.log(0.005) / math.fsum(theta[1:])


def reverting(t: int) -> Numbers:
    """dx = theta (mu - x) dt + sqrt(2 theta) dW, solved over the indices."""
    theta, dt = mean_reversion()
    passed = dt * math.fsum(theta[1 : t + 1])
    return math.exp(-passed), -math.expm1(-passed), math.sqrt(-math.expm1(-2 * passed))


@cache
def bridge_time() -> tuple[float, ...]:
    """Variance of I2SB's forward process at every index, with 28.3 times the published beta."""
    first, last = math.sqrt(2.83 / 1000), math.sqrt(8.49 / 1000)
    half = [(first + i / 999 * (last - first)) ** 2 for i in range(500)]
    beta = [*half, *half[::-1]]
    return tuple(math.fsum(beta[:i]) for i in range(1001))


def pinned(v: float, total: float) -> Numbers:
    """A Brownian motion that starts at x_0 and is known to be at mu when its variance is ``total``, at variance v.

    By conditioning the pair (W_v, W_total) of covariance [[v, v], [v, total]] on the second.
    """
    gain = v / total
    return 1 - gain, gain, math.sqrt(max(v - gain * v, 0.0))


def flow(T: int) -> Callable[[int], Numbers]:
    """The straight path."""
    return lambda t: (1 - t / T, 0.0, t / T)


def karras(t: int) -> Numbers:
    """EDM's sigma over 256 indices; its equation 5 counts from the noisy end."""
    i = 256 - t
    return 1.0, 0.0, (80 ** (1 / 7) + i / 255 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7


DDPM = discrete("linear", 1000, 1e-4, 0.02)
RESSHIFT = shifted(15, 2.0, 0.04, 0.3)
RESDIFF = discrete("linear", 1000, 1e-6, 1e-2)
MARGINALS: dict[str, Callable[[int], Numbers]] = {
    **dict.fromkeys(("ddpm", "ddim", "u-vit", "ddnm", "ddnm-plus", "sdedit", "lcm"), DDPM),
    **dict.fromkeys(("resshift", "difiisr", "dit-sr", "sinsr", "oftsr"), RESSHIFT),
    **dict.fromkeys(("resdiff", "hf-resdiff"), RESDIFF),
    **dict.fromkeys(("ir-sde", "ir-sde-posterior"), reverting),
    **dict.fromkeys(("flow-matching", "dit4sr"), flow(1000)),
    "sciresdiff": shifted(4, 1.0, 0.2, 0.3),
    "resshift-4": shifted(4, 2.0, 0.2, 0.3),
    "upsr": shifted(5, 2.5, math.sqrt(1e-3) * 2.5, 0.2),
    "edge-frequency": shifted(15, 1.0, 0.04, 0.3),
    "sr3": discrete("linear", 2000, 1e-6, 1e-2),
    "ldm": discrete("scaled", 1000, 0.0015, 0.0195),
    "diffbir": discrete("scaled", 1000, 0.00085, 0.012),
    "diffir": discrete("scaled", 4, 0.1, 0.99),
    "srdiff": cosine(100),
    "cdm": cosine(1000),
    "score-sde-vp": lambda t: vp_moments(t, sub=False),
    "score-sde-subvp": lambda t: vp_moments(t, sub=True),
    "score-sde-ve": exploding,
    "edm": karras,
    "resmatching": flow(19),
    "i2sb": lambda t: pinned(bridge_time()[t], bridge_time()[-1]),
    "stochastic-interpolant": lambda t: pinned(2 * t / 20, 2.0),
}


def some(path: Path) -> list[int]:
    """Indices from end to end."""
    return sorted({1, 2, path.T // 7 + 1, path.T // 2, path.T - 1, path.T} - {0})


@pytest.mark.parametrize("name", NAMES)
def test_forward_marginal(name: str) -> None:
    path = whole(name)
    # 1 - abar of the first indices loses the digits that abar has before it: 1e-16 / s^2
    for t in some(path):
        given, expected = [float(v[t]) for v in (path.a, path.b, path.s)], MARGINALS[name](t)
        slack = ROUNDING + 1e-15 / max(expected[2], 1e-8)
        np.testing.assert_allclose(given, expected, rtol=ROUNDING, atol=slack)


# Posterior steps: Gaussian conditioning on covariance matrices --------------------------------------------------------


def joint(method: Method, path: Path, t: int, r: int) -> Array:
    """Covariance of (x_r, x_t) given image and anchor, in units of w^2."""
    a, s = path.a, path.s
    if method.schedule in ("bridge", "interpolant"):  # motion at r, t and the end, conditioned on the end: 3 by 3
        v_r, v_t, end = (path.span * (2 if method.schedule == "interpolant" else 1) * path.b[k] for k in (r, t, path.T))
        full = np.array([[v_r, v_r, v_r], [v_r, v_t, v_t], [v_r, v_t, end]])
        return full[:2, :2] - np.outer(full[:2, 2], full[2, :2]) / end
    if path.carry == "shift":  # x_t = x_r + shift + independent noise
        return np.array([[s[r] ** 2, s[r] ** 2], [s[r] ** 2, s[t] ** 2]])
    kept = a[t] / a[r]  # x_t = kept x_r + anchor + independent noise
    return np.array([[s[r] ** 2, kept * s[r] ** 2], [kept * s[r] ** 2, s[t] ** 2]])


def conditioned(
    method: Method, path: Path, t: int, r: int, x: float, image: float, anchor: float
) -> tuple[float, float]:
    """Mean and variance of x_r given x_t, image and anchor."""
    covariance = joint(method, path, t, r)
    mean_r, mean_t = (path.a[k] * image + path.b[k] * anchor for k in (r, t))
    gain = covariance[0, 1] / covariance[1, 1] if covariance[1, 1] > 0 else 0.0
    return mean_r + gain * (x - mean_t), covariance[0, 0] - gain * covariance[0, 1]


def one(value: float) -> torch.Tensor:
    """A single pixel."""
    return torch.full((1, 1, 1, 1), value, dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
def test_posterior_step(name: str) -> None:
    method, path = load(name), whole(name)
    for t in some(path):
        for r in {t - 1, t // 2} - {0}:
            x, image, anchor, w, z = 0.7, -0.3, 1.1, 1.7, 0.4
            if path.s[t] == 0:  # a bridge's end is its anchor
                x = anchor
            mean, variance = conditioned(method, path, t, r, x, image, anchor)
            c = posterior_carry(path, t, r)
            given = float(step(path, t, r, one(x), one(image), one(anchor), one(w), one(z), c))
            # the variance is a difference; where s_r^2 and what is subtracted agree, sqrt keeps half of the digits
            slack = ROUNDING + 1e-15 * path.s[r] / max(math.sqrt(max(variance, 0)) / max(path.s[r], 1e-300), 1e-7)
            assert given == pytest.approx(mean + math.sqrt(max(variance, 0)) * w * z, rel=ROUNDING, abs=slack)


# Deterministic steps: the probability-flow equation of each process ---------------------------------------------------


def drawn_flow(rate: Callable[[float, float], float], x: float, start: float, end: float) -> float:
    """An ordinary differential equation solved to rounding."""
    done = solve_ivp(lambda t, y: [rate(t, y[0])], (start, end), [x], method="DOP853", rtol=3e-14, atol=1e-16)
    return float(done.y[0, -1])


def vp_flow(x: float, image: float, start: float, end: float, sub: bool) -> float:
    """dx/dt = -beta x / 2 - g^2 score / 2 with score = -(x - a x^) / s^2 (Song et al. 2021, equation 13)."""

    def rate(t: float, y: float) -> float:
        beta, log = 0.1 + 19.9 * t, -(t**2) * 19.9 / 4 - t * 0.05
        a, gone = math.exp(log), -math.expm1(2 * log)
        square = beta * -math.expm1(4 * log) if sub else beta
        return -beta / 2 * y + square / 2 * (y - a * image) / (gone**2 if sub else gone)

    return drawn_flow(rate, x, start, end)


def ve_flow(x: float, image: float, start: float, end: float) -> float:
    """dx/dt = -(d sigma^2 / dt) score / 2."""
    return drawn_flow(lambda t, y: math.log(5000) * (y - image), x, start, end)


def straight_flow(x: float, image: float, start: float, end: float) -> float:
    """dx/dt = v = (x - x^) / t."""
    return drawn_flow(lambda t, y: (y - image) / t, x, start, end)


def reverting_flow(x: float, image: float, anchor: float, start: float, end: float) -> float:
    """dx = theta (mu - x) - theta score, in the time in which theta is 1, lambda = 1 (IR-SDE)."""

    def rate(t: float, y: float) -> float:
        a = math.exp(-t)
        return (anchor - y) + (y - a * image - (1 - a) * anchor) / -math.expm1(-2 * t)

    return drawn_flow(rate, x, start, end)


def edm_flow(x: float, image: float, start: float, end: float) -> float:
    """dx/dsigma = (x - D) / sigma (Karras et al. 2022, equation 1 with 3)."""
    return drawn_flow(lambda t, y: (y - image) / t, x, start, end)


def integrated(name: str, t: int, r: int, x: float, image: float, anchor: float) -> float:
    """The state at r by integration of the process itself."""
    first = {"score-sde-vp": 1e-3, "score-sde-subvp": 1e-3, "score-sde-ve": 1e-5}.get(name, 0.0)
    start, end = (first + (k - 1) / 999 * (1 - first) for k in (t, r))
    if name in ("score-sde-vp", "score-sde-subvp"):
        return vp_flow(x, image, start, end, sub=name.endswith("subvp"))
    if name == "score-sde-ve":
        return ve_flow(x, image, start, end)
    if name == "flow-matching":
        return straight_flow(x, image, t / 1000, r / 1000)
    if name == "edm":
        return edm_flow(x, image, karras(t)[2], karras(r)[2])
    theta, dt = mean_reversion()
    return reverting_flow(x, image, anchor, *(dt * math.fsum(theta[1 : k + 1]) for k in (t, r)))


FLOWS = ("score-sde-vp", "score-sde-subvp", "score-sde-ve", "flow-matching", "edm", "ir-sde")


@pytest.mark.parametrize("name", FLOWS)
def test_deterministic_step_is_the_probability_flow(name: str) -> None:
    path = whole(name)
    for t, r in ((path.T, path.T - 9), (path.T // 2, path.T // 2 - 7), (path.T // 2, path.T // 4)):
        if name == "flow-matching" and t == path.T:
            t -= 1  # at t = 1 nothing of the image is left, and x^ is all there is
        x, image, anchor = 0.9, -0.4, 1.3
        given = step(path, t, r, one(x), one(image), one(anchor), one(1.7), None, carry(path, t, r, 0.0))
        expected = integrated(name, t, r, x, image, anchor)
        assert float(given) == pytest.approx(expected, rel=3e-12, abs=3e-12)  # DOP853 with rtol 3e-14, 30 to 200 steps


@pytest.mark.parametrize("name", NAMES)
def test_deterministic_step_keeps_the_implied_noise(name: str) -> None:
    """DDIM: x_r = a_r x^ + b_r mu + s_r e with the e that x_t implies, and nothing added."""
    path = whole(name)
    for t in some(path):
        if path.s[t] == 0:
            continue
        for r in {t - 1, t // 2}:
            x, image, anchor, w = 0.7, -0.3, 1.1, 1.7
            p, q = path.at(t), path.at(r)
            noise = (x - p.a * image - p.b * anchor) / p.s
            c = carry(path, t, r, 0.0)
            given = step(path, t, r, one(x), one(image), one(anchor), one(w), None, c)
            assert float(given) == pytest.approx(q.a * image + q.b * anchor + q.s * noise, rel=ROUNDING, abs=ROUNDING)
            assert added_noise(path, t, r, c) <= 1e-6 * q.s  # rounding under a root


# Published numbers ----------------------------------------------------------------------------------------------------


def test_published_schedules_to_the_digits_published() -> None:
    sigma = load("edm").path().s  # 18 steps are every fifteenth of the 256 levels
    expected = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(17, -1, -1)]
    np.testing.assert_allclose(sigma[1:], expected, rtol=1e-13)
    ir = SCHEDULES["mean-reverting"]()
    assert ir.a[-1] == pytest.approx(0.005, rel=1e-12) and ir.s[-1] == pytest.approx(30 / 255, rel=2e-5)  # 1 - a^2
    assert SCHEDULES["bridge"]().s.max() == pytest.approx(0.188, abs=1e-3)
    assert whole("i2sb").s.max() == pytest.approx(1.0, abs=2e-3)
    zero = SCHEDULES["vp-zero-snr"]()
    assert zero.a[-1] == 0 and zero.s[-1] == 1
    assert zero.a[1] == pytest.approx(SCHEDULES["scaled-linear"](1000, 0.00085, 0.012).a[1], rel=1e-15)
    assert 1 - SCHEDULES["resshift"]().b[-1] == pytest.approx(0.0199, abs=1e-12)
    assert len(whole("resmatching").a) == 20  # the 20 fixed times, 19 estimates
    np.testing.assert_allclose(
        whole("diffir").a ** 2, np.cumprod([1, 0.9, 0.70572, 0.40904, 0.01]), rtol=1e-4
    )  # to five digits


# The way between two indices ------------------------------------------------------------------------------------------


def test_between_two_indices_of_a_subset_lies_the_whole_path() -> None:
    path = subset(SCHEDULES["vp-linear"](), 20)
    assert path.at(7.5) == SCHEDULES["vp-linear"]().at(375)
    assert path.at(7.0) == path.at(7)
    twice = subset(path, 5)
    assert twice.at(2.5) == path.at(10)
    for t in (0.5, 3.25, 19.9):
        p = path.at(t)
        assert path.at(math.floor(t)).s < p.s < path.at(math.ceil(t)).s
        assert path.index_of(p.s / p.a) == pytest.approx(
            t if t > 1 else t, abs=0.05
        )  # below index 1 of the whole: 0.02


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_index_of_undoes_at(schedule: str) -> None:
    path = SCHEDULES[schedule]()
    for t in (1.3, path.T / 2, path.T - 1.6):
        p = path.at(t)
        if p.s > 0 and p.a > 0:
            assert path.index_of(p.s / p.a) == pytest.approx(t, rel=1e-9)  # the slope of the logarithm, 1e-3 and more
