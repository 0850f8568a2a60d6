"""The way back: one affine step that is every published first-order sampler, and solvers made of it.

    x_r = a_r x^ + b_r mu + c (x_t - a_t x^ - b_t mu) + sqrt(s_r^2 - c^2 s_t^2) w z

x^ is the estimate of the clean image, c how much of the present noise is carried on.  c = s_r / s_t is deterministic:
DDIM, Euler for EDM and flow matching, PNDM's transfer, DPM-Solver++(1), SinSR.  The smaller c of `posterior_carry` is
ancestral: DDPM, IR-SDE, ResShift, I2SB.  In u = x - b mu and lambda = ln(a / s) every solver of an ordinary diffusion
holds, and w drops out of lambda's differences.

The step to index 0 is of order one in every solver, so what is returned is the last estimate, after its hooks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from sciresdiff.diffusion.path import Path

if TYPE_CHECKING:
    from torch import Tensor

Denoise = Callable[["Tensor", int], "Tensor"]
"""(x_t, t) -> estimate of x_0."""
Noise = Callable[[int], "Tensor"]
"""(t) -> the unit noise that enters the state at index t."""
Hook = Callable[["Tensor"], "Tensor"]
"""An estimate of x_0 -> a better one."""
Solve = Callable[..., "Tensor"]
"""solve(path, denoise, x_T, mu, w, noise, *, times, eta, hooks) -> x_0."""


def posterior_carry(path: Path, t: int, r: int) -> float:
    """c of the posterior x_r | x_t, x_0: (a_t / a_r) s_r^2 / s_t^2 of a Markov chain, b_r / b_t of a shift."""
    p, q = path.at(t), path.at(r)
    if path.carry == "shift":
        return float(q.b / p.b)
    return float(p.a / q.a * q.s**2 / p.s**2) if p.s > 0 else 0.0


def carry(path: Path, t: int, r: int, eta: float) -> float:
    """c between the deterministic step (eta = 0) and the posterior (eta = 1): sqrt(s_r^2 - eta^2 v) / s_t.

    v = s_r^2 - c_1^2 s_t^2 is the variance that the posterior adds.  At a noiseless end (a bridge's) there is nothing
    to carry, and eta has no meaning.
    """
    s_t, s_r, c = float(path.s[t]), float(path.s[r]), posterior_carry(path, t, r)
    if s_t == 0 or eta == 1:
        return c
    added = max(s_r**2 - c**2 * s_t**2, 0.0)
    return math.sqrt(max(s_r**2 - eta**2 * added, 0.0)) / s_t


def added_noise(path: Path, t: int, r: int, c: float) -> float:
    """sqrt(s_r^2 - c^2 s_t^2), 0 where that is rounding."""
    s_r = float(path.s[r])
    left = s_r**2 - c**2 * float(path.s[t]) ** 2
    return math.sqrt(left) if left > 1e-14 * s_r**2 else 0.0


def step(
    path: Path, t: int, r: int, x_t: Tensor, x_hat: Tensor, mu: Tensor, w: Tensor, z: Tensor | None, c: float
) -> Tensor:
    """One step from index t to r < t.

    Parameters
    ----------
    x_t, x_hat, mu, w : (B, C, Y, X), state, estimate of the clean image, anchor, scale of the noise.
    z : unit noise of that shape; None where `added_noise` is 0.
    c : 0 <= c <= s_r / s_t.
    """
    p, q = path.at(t), path.at(r)
    x = (q.a - c * p.a) * x_hat
    for factor, image in ((q.b - c * p.b, mu), (c, x_t)):
        if factor != 0:
            x = x + factor * image
    return x if z is None else x + added_noise(path, t, r, c) * (w * z)


def estimated(denoise: Denoise, hooks: Sequence[Hook], x: Tensor, t: int) -> Tensor:
    """The estimate of the clean image after every hook, in order."""
    x_hat = denoise(x, t)
    for hook in hooks:
        x_hat = hook(x_hat)
    return x_hat


def _drawn(path: Path, t: int, r: int, c: float, noise: Noise) -> Tensor | None:
    """Noise for the step to r, if it needs any."""
    return noise(r) if added_noise(path, t, r, c) > 0 else None


def ddim(
    path: Path, denoise: Denoise, x_T: Tensor, mu: Tensor, w: Tensor, noise: Noise, *, times: Sequence[int],
    eta: float = 0.0, hooks: Sequence[Hook] = (),
) -> Tensor:
    """First-order steps (Song et al. 2021): eta = 0 is deterministic, eta = 1 ancestral.

    Parameters
    ----------
    x_T : state at ``times[0]``. mu, w : anchor and scale of the noise, same shape.
    times : indices of the path, falling, the last is 0.

    Returns
    -------
    x_0, the last estimate.
    """
    x = x_T
    for t, r in pairwise(times):
        c = carry(path, t, r, eta)
        x = step(path, t, r, x, estimated(denoise, hooks, x, t), mu, w, _drawn(path, t, r, c, noise), c)
    return x


def ancestral(
    path: Path, denoise: Denoise, x_T: Tensor, mu: Tensor, w: Tensor, noise: Noise, *, times: Sequence[int],
    eta: float = 1.0, hooks: Sequence[Hook] = (),
) -> Tensor:
    """Draws from the path's own posterior (DDPM, ResShift, IR-SDE, I2SB): `ddim` with eta = 1, whatever is given."""
    return ddim(path, denoise, x_T, mu, w, noise, times=times, eta=1.0, hooks=hooks)


def euler(
    path: Path, denoise: Denoise, x_T: Tensor, mu: Tensor, w: Tensor, noise: Noise, *, times: Sequence[int],
    eta: float = 0.0, hooks: Sequence[Hook] = (),
) -> Tensor:
    """Euler's rule for the probability-flow equation in s / a, which is `ddim` with eta = 0, whatever is given."""
    return ddim(path, denoise, x_T, mu, w, noise, times=times, eta=0.0, hooks=hooks)


def heun(
    path: Path, denoise: Denoise, x_T: Tensor, mu: Tensor, w: Tensor, noise: Noise, *, times: Sequence[int],
    eta: float = 0.0, hooks: Sequence[Hook] = (),
) -> Tensor:
    """Heun's rule in s / a (Karras et al. 2022, algorithm 1 without churn); two estimates a step, eta is 0.

    With sigma = s / a and y = u / a the equation is dy/dsigma = (y - x^) / sigma.  An end with a = 0 or s = 0 takes
    its step at order one.
    """
    x = x_T
    for t, r in pairwise(times):
        p, q = path.at(t), path.at(r)
        x_hat = estimated(denoise, hooks, x, t)
        c = carry(path, t, r, 0.0)
        ahead = step(path, t, r, x, x_hat, mu, w, _drawn(path, t, r, c, noise), c)
        if q.s > 0 and p.s > 0 and p.a > 0:
            y, y_ahead = (x - p.b * mu) / p.a, (ahead - q.b * mu) / q.a
            sigma, sigma_r = p.s / p.a, q.s / q.a
            slope = (y - x_hat) / sigma + (y_ahead - estimated(denoise, hooks, ahead, r)) / sigma_r
            ahead = q.a * (y + (sigma_r - sigma) / 2 * slope) + q.b * mu
        x = ahead
    return x


ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
"""Weights of the present and the earlier noise estimates, by how many there are."""


def plms(
    path: Path, denoise: Denoise, x_T: Tensor, mu: Tensor, w: Tensor, noise: Noise, *, times: Sequence[int],
    eta: float = 0.0, hooks: Sequence[Hook] = (),
) -> Tensor:
    """Linear multistep on the implied noise (Liu et al. 2022) with lower orders as warm-up; eta is 0."""
    x = x_T
    history: list[Tensor] = []
    for t, r in pairwise(times):
        p, q = path.at(t), path.at(r)
        x_hat = estimated(denoise, hooks, x, t)
        if p.s > 0 and p.a > 0:
            u = x - p.b * mu
            history = [(u - p.a * x_hat) / p.s, *history[:3]]
            if q.s > 0:
                e = sum(k * past for k, past in zip(ADAMS_BASHFORTH[len(history) - 1], history, strict=True))
                x_hat = (u - p.s * e) / p.a
        c = carry(path, t, r, 0.0)
        x = step(path, t, r, x, x_hat, mu, w, _drawn(path, t, r, c, noise), c)
    return x


def dpmpp2m(
    path: Path, denoise: Denoise, x_T: Tensor, mu: Tensor, w: Tensor, noise: Noise, *, times: Sequence[int],
    eta: float = 0.0, hooks: Sequence[Hook] = (),
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022): the one step with an estimate extrapolated by half a step in lambda.

    x^ -> x^ + (x^ - x^_before) / (2 q), q = h_before / h.  With eta = 1 on a Markov path this is its SDE form.
    """
    x, before, h_before = x_T, None, 0.0
    for t, r in pairwise(times):
        p, q = path.at(t), path.at(r)
        x_hat = x_used = estimated(denoise, hooks, x, t)
        if min(p.a, p.s, q.s) > 0:
            h = math.log(q.a / q.s) - math.log(p.a / p.s)
            if before is not None:
                x_used = x_hat + (h / (2 * h_before)) * (x_hat - before)
            before, h_before = x_hat, h
        c = carry(path, t, r, eta)
        x = step(path, t, r, x, x_used, mu, w, _drawn(path, t, r, c, noise), c)
    return x


SOLVERS: dict[str, Solve] = {
    "ancestral": ancestral,
    "ddim": ddim,
    "euler": euler,
    "heun": heun,
    "plms": plms,
    "dpmpp2m": dpmpp2m,
}
"""Solvers by name, one signature."""
ETAS: dict[str, tuple[float, float]] = {
    "ancestral": (1.0, 1.0), "ddim": (0.0, 1.0), "euler": (0.0, 0.0), "heun": (0.0, 0.0), "plms": (0.0, 0.0),
    "dpmpp2m": (0.0, 1.0),
}
"""Smallest and largest eta of every solver; without one in a method file the smallest is taken."""
NEEDS_DISTIL: dict[str, str] = {}
"""Solvers that only a distilled model can be run with, and how it is taught."""
