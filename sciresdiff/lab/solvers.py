"""Solvers to compare with ancestral sampling: ``solve(task, x_T, *, eta, ...) -> x_0``, see `sampler.Task`.

In u = x - b mu and lambda = ln(a / s) every solver of an ordinary diffusion holds, and w drops out of lambda's
differences.  The step to index 0 is of order one in every solver, so what is returned is the last estimate, after its
hooks.  Where w changes on the way, each step is taken with one w, and the noise is then brought to the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

from sciresdiff.diffusion.path import NoiseLevel, Path
from sciresdiff.diffusion.sampler import Task, added_noise, posterior_carry, step

if TYPE_CHECKING:
    from torch import Tensor

Advance = Callable[[int, int, "Tensor", "Tensor"], "tuple[Tensor, Tensor]"]
"""(t, r, x_t, w) -> the estimate used, and x_r with the noise still of scale w."""


def follow(task: Task, x: Tensor, advance: Advance) -> Tensor:
    """Take every step, and bring the noise from scale to scale where w changes.

    Parameters
    ----------
    x : (B, C, Y, X), the state at the first index.
    advance : (t, r, x_t, w) -> the estimate used, and x_r with the noise still of scale w.

    Returns
    -------
    (B, C, Y, X), the state at the last index.
    """
    w = task.w
    for t, r in pairwise(task.times):
        x_hat, x_r = advance(t, r, x, w)
        x, w = task.rescale(t, r, x, x_r, x_hat, w)
    return x


def carry(path: Path, t: int, r: int, eta: float) -> float:
    """c between the deterministic step (eta = 0) and the posterior (eta = 1): sqrt(s_r^2 - eta^2 v) / s_t.

    v = s_r^2 - c_1^2 s_t^2 is the variance that the posterior adds: equation 16 of Song et al. 2021 for every path.
    At a noiseless end (a bridge's) there is nothing to carry, and eta has no meaning.
    """
    s_t, s_r, c = float(path.s[t]), float(path.s[r]), posterior_carry(path, t, r)
    if s_t == 0 or eta == 1:
        return c
    added = max(s_r**2 - c**2 * s_t**2, 0.0)
    return math.sqrt(max(s_r**2 - eta**2 * added, 0.0)) / s_t


def extra_noise(task: Task, t: int, k: int = 0) -> Tensor:
    """Unit noise at index t beside the step's own, the k-th of it: a key that no step uses; (B, C, Y, X)."""
    return task.noise((k + 1) * (task.path.T + 1) + t)


def take_step(task: Task, t: int, r: int, x: Tensor, x_hat: Tensor, w: Tensor, c: float, heat: float = 1.0) -> Tensor:
    """`sampler.step` with ``heat`` times the noise that it adds, drawn only where there is some.

    Parameters
    ----------
    t, r : indices of the step. x, x_hat, w : (B, C, Y, X), state, estimate, scale of the noise.
    c : how much of the present noise is carried on. heat : factor on the noise that is added, 0..1.

    Returns
    -------
    (B, C, Y, X), the state at index r.
    """
    z = task.noise(r) if heat * added_noise(task.path, t, r, c) > 0 else None
    return step(task.path, t, r, x, x_hat, task.mu, w if heat == 1 else heat * w, z, c)


def ddim(task: Task, x: Tensor, *, eta: float = 0.0, heat: float = 1.0) -> Tensor:
    """First-order steps (Song et al. 2021): eta = 0 is deterministic, eta = 1 ancestral.

    Parameters
    ----------
    x : (B, C, Y, X), the first state. eta : 0..1.
    heat : factor on the noise that is added, 0..1; below 1 **the draws are narrower than the posterior**, and 0 is the
        posterior's mean at every step.
    """

    def advance(t: int, r: int, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        x_hat = task.estimate(x, t)
        return x_hat, take_step(task, t, r, x, x_hat, w, carry(task.path, t, r, eta), heat)

    return follow(task, x, advance)


def euler(task: Task, x: Tensor, *, eta: float = 0.0) -> Tensor:
    """Euler's rule for the probability-flow equation in s / a, which is `ddim` with eta = 0.

    Parameters
    ----------
    x : (B, C, Y, X), the first state. eta : has no effect.
    """
    return ddim(task, x)


def heun(
    task: Task,
    x: Tensor,
    *,
    eta: float = 0.0,
    churn: float = 0.0,
    churn_min: float = 0.0,
    churn_max: float = math.inf,
    churn_noise: float = 1.0,
) -> Tensor:
    """Heun's rule in sigma = s / a (Karras et al. 2022, algorithm 2); two estimates a step.

    With y = (x - b mu) / a the equation is dy/dsigma = (y - x^) / sigma.  An end with a = 0 or s = 0 takes its step at
    order one.

    Parameters
    ----------
    x : (B, C, Y, X), the first state. eta : has no effect.
    churn : S_churn; before a step noise is added until sigma is larger by min(churn / steps, sqrt(2) - 1), but not
        beyond the path's end, where no network was trained.
    churn_min, churn_max : S_min and S_max, the sigmas between which that is done. churn_noise : S_noise.
    """
    most = min(churn / (len(task.times) - 1), math.sqrt(2) - 1)

    def advance(t: int, r: int, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        p, q = task.path.at(t), task.path.at(r)
        at: float = t
        if most > 0 and p.a > 0 and churn_min <= p.s / p.a <= churn_max:
            at = task.path.index_of((1 + most) * p.s / p.a)  # lines 5 and 6 of algorithm 2: up by churn
            p = task.path.at(at)
            x = _add_churn(task, t, p, x, churn_noise * w)
        x_hat = task.estimate(x, at)
        if min(p.s, p.a, q.s) == 0:
            return x_hat, take_step(task, t, r, x, x_hat, w, carry(task.path, t, r, 0.0))
        y, sigma, sigma_r = (x - p.b * task.mu) / p.a, p.s / p.a, q.s / q.a
        slope = (y - x_hat) / sigma  # line 7
        ahead = q.a * (y + (sigma_r - sigma) * slope) + q.b * task.mu  # line 8: Euler's step
        x_hat = task.estimate(ahead, r)
        slope = slope + ((ahead - q.b * task.mu) / q.a - x_hat) / sigma_r  # line 10
        return x_hat, q.a * (y + (sigma_r - sigma) / 2 * slope) + q.b * task.mu  # line 11: the mean of both slopes

    return follow(task, x, advance)


def _add_churn(task: Task, t: int, higher: NoiseLevel, x: Tensor, w: Tensor) -> Tensor:
    """The state of index t taken up the path by fresh noise."""
    p = task.path.at(t)
    kept = higher.a / p.a
    left = max(higher.s**2 - (kept * p.s) ** 2, 0.0)
    return kept * (x - p.b * task.mu) + math.sqrt(left) * (w * extra_noise(task, t)) + higher.b * task.mu


ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
"""Weights of the present and the earlier noise estimates, by how many there are."""


STEEP = 10.0
"""A step over which the image's share grows more is too steep for Runge-Kutta: rounding grows by the fourth power."""


def _transfer(p: NoiseLevel, q: NoiseLevel, u: Tensor, e: Tensor) -> Tensor:
    """PNDM's transfer of u = x - b mu from p to q along the noise e (Liu et al. 2022, equation 11)."""
    return (q.a / p.a) * (u - p.s * e) + q.s * e


def _multistep(task: Task, x: Tensor, warm: Callable[[int, int, Tensor, Tensor], Tensor] | None) -> Tensor:
    """Adams-Bashforth on the implied noise; ``warm`` (t, r, u, e) -> e makes up for earlier noise at the start."""
    history: list[tuple[Tensor, Tensor]] = []

    def advance(t: int, r: int, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal history
        p, q = task.path.at(t), task.path.at(r)
        x_hat = task.estimate(x, t)
        if min(p.s, p.a) > 0:
            u = x - p.b * task.mu
            e = (u - p.a * x_hat) / p.s  # the noise that the estimate implies, w included
            history = [(e, w), *history[:3]]
            if q.s > 0:
                # where w changed on the way, earlier noise is brought to the present scale
                past = [old if v is w else old * (w / v) for old, v in history]
                if warm is not None and len(past) < 4 and q.a < STEEP * p.a:
                    e = warm(t, r, u, e)
                else:
                    e = sum(k * v for k, v in zip(ADAMS_BASHFORTH[len(past) - 1], past, strict=True))  # type: ignore
                x_hat = (u - p.s * e) / p.a
        return x_hat, take_step(task, t, r, x, x_hat, w, carry(task.path, t, r, 0.0))

    return follow(task, x, advance)


def plms(task: Task, x: Tensor, *, eta: float = 0.0) -> Tensor:
    """Linear multistep on the implied noise (Liu et al. 2022) with lower orders as warm-up.

    Parameters
    ----------
    x : (B, C, Y, X), the first state. eta : has no effect.
    """
    return _multistep(task, x, None)


def pndm(task: Task, x: Tensor, *, eta: float = 0.0) -> Tensor:
    """F-PNDM (Liu et al. 2022): `plms` whose first three steps are pseudo Runge-Kutta of order 4.

    Four estimates in each of those: at t, twice half-way to r in the index, and at r, weighted 1, 2, 2, 1; one, as in
    `plms`, where the step is too steep for that.

    Parameters
    ----------
    x : (B, C, Y, X), the first state. eta : has no effect.
    """

    def noise_at(u: Tensor, t: float) -> Tensor:
        p = task.path.at(t)
        return (u - p.a * task.estimate(u + p.b * task.mu, t)) / p.s

    def warm(t: int, r: int, u: Tensor, first: Tensor) -> Tensor:
        middle = (t + r) / 2
        p, m, q = (task.path.at(v) for v in (t, middle, r))
        second = noise_at(_transfer(p, m, u, first), middle)
        third = noise_at(_transfer(p, m, u, second), middle)
        fourth = noise_at(_transfer(p, q, u, third), r)
        return (first + 2 * second + 2 * third + fourth) / 6

    return _multistep(task, x, warm)


def dpmpp2m(task: Task, x: Tensor, *, eta: float = 0.0) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022): the one step with an estimate extrapolated by half a step in lambda.

    x^ -> x^ + (x^ - x^_before) / (2 q), q = h_before / h, with h the step in lambda = ln(a / s).  With eta = 1 on a
    Markov path this is its SDE form.

    Parameters
    ----------
    x : (B, C, Y, X), the first state. eta : 0..1.
    """
    before: tuple[Tensor, float] | None = None

    def advance(t: int, r: int, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal before
        p, q = task.path.at(t), task.path.at(r)
        x_hat = used = task.estimate(x, t)
        if min(p.a, p.s, q.s) > 0:
            h = math.log(q.a / q.s) - math.log(p.a / p.s)  # the step in lambda
            if before is not None:
                used = x_hat + (h / (2 * before[1])) * (x_hat - before[0])
            before = (x_hat, h)
        return used, take_step(task, t, r, x, used, w, carry(task.path, t, r, eta))

    return follow(task, x, advance)


def _reverse_step(task: Task, t: int, r: int, x: Tensor, x_hat: Tensor, w: Tensor) -> Tensor:
    """The posterior's mean with the noise of the transition u_t = A u_r + G w z added, not the posterior's."""
    p, q = task.path.at(t), task.path.at(r)
    if p.s == 0 or r == 0:
        return take_step(task, t, r, x, x_hat, w, carry(task.path, t, r, 1.0))
    kept = p.a / q.a
    mean = step(task.path, t, r, x, x_hat, task.mu, w, None, kept * (q.s / p.s) ** 2)  # the posterior's c
    return mean + math.sqrt(max(p.s**2 - (kept * q.s) ** 2, 0.0)) * (w * task.noise(r))


def reverse_diffusion(task: Task, x: Tensor, *, eta: float = 1.0) -> Tensor:
    """The reverse equation by the path's own transitions (Song et al. 2021, appendix F; IR-SDE).

    u_r = (u_t + G^2 w^2 score) / A + G w z of the transition u_t = A u_r + G w z.  Its noise is exact only as steps
    become short: **few steps leave too much**; `sampler.ancestral` has no such error.

    Parameters
    ----------
    x : (B, C, Y, X), the first state. eta : has no effect.
    """

    def advance(t: int, r: int, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        x_hat = task.estimate(x, t)
        return x_hat, _reverse_step(task, t, r, x, x_hat, w)

    return follow(task, x, advance)


def predictor_corrector(task: Task, x: Tensor, *, eta: float = 1.0, snr: float = 0.16, corrector: int = 1) -> Tensor:
    """`reverse_diffusion`, after each step Langevin steps at the level reached (Song et al. 2021, algorithms 2 to 5).

    In v = u / w the score is -n / s with n the implied unit noise; v += e score + sqrt(2 e) z with
    e = 2 (a_r / a_(r-1))^2 (snr |z| / |score|)^2, the norms taken over each image by itself.

    Parameters
    ----------
    x : (B, C, Y, X), the first state. eta : has no effect.
    snr : signal-to-noise ratio of a correction, > 0. corrector : corrections after a step.
    """

    def langevin_step(r: int, x: Tensor, w: Tensor, k: int) -> tuple[Tensor, Tensor]:
        q, before = task.path.at(r), task.path.at(r - 1)
        x_hat = task.estimate(x, r)
        score = -(x - q.b * task.mu - q.a * x_hat) / (q.s**2 * w)
        z = extra_noise(task, r, k)
        ratio = _norm(z) / _norm(score).clamp_min(1e-12)
        size = 2 * (q.a / before.a) ** 2 * (snr * ratio) ** 2
        return x_hat, x + w * (size * score + (2 * size).sqrt() * z)

    def advance(t: int, r: int, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        x_hat = task.estimate(x, t)
        x = _reverse_step(task, t, r, x, x_hat, w)
        for k in range(corrector if task.path.s[r] > 0 else 0):
            x_hat, x = langevin_step(r, x, w, k)
        return x_hat, x

    return follow(task, x, advance)


def _norm(x: Tensor) -> Tensor:
    """Euclidean norm of every image, (B, 1, 1, 1)."""
    return x.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))


def consistency(task: Task, x: Tensor, *, eta: float = 1.0) -> Tensor:
    """Estimate, noise anew to the next index, estimate again (Song et al. 2023, algorithm 1): the step with c = 0.

    Only for a network that was taught to jump (LCM, Luo et al. 2023); for any other **the draws are too smooth**.

    Parameters
    ----------
    x : (B, C, Y, X), the first state. eta : has no effect.
    """

    def advance(t: int, r: int, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        x_hat = task.estimate(x, t)
        return x_hat, take_step(task, t, r, x, x_hat, w, 0.0)

    return follow(task, x, advance)


def one_step(task: Task, x: Tensor, *, eta: float = 0.0) -> Tensor:
    """The first estimate, whatever the number of steps (SinSR, Wang et al. 2024).

    Parameters
    ----------
    x : (B, C, Y, X), the first state. eta : has no effect.
    """
    return task.estimate(x, task.times[0])
