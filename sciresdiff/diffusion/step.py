"""The one step that every solver is made of.

    x_r = a_r x^ + b_r mu + c (w_r / w_t) (x_t - a_t x^ - b_t mu) + sqrt(s_r^2 - c^2 s_t^2) w_r z

x^ is the estimate of the clean image, c how much of the present noise is carried on, w the scale of the noise, mostly
the same all the way.  c = s_r / s_t is deterministic: DDIM, Euler for EDM and flow matching, PNDM's transfer,
DPM-Solver++(1), SinSR.  The smaller c of `posterior_carry` is ancestral: DDPM, IR-SDE, ResShift, I2SB.  c = 0 draws
anew: consistency models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sciresdiff.diffusion.path import Path

if TYPE_CHECKING:
    from torch import Tensor

Denoise = Callable[["Tensor", Any], "Tensor"]
"""(x_t, t) -> estimate of x_0; t is an index of the path, and a fraction where a solver looks between two."""
Noise = Callable[[int], "Tensor"]
"""(t) -> the unit noise that enters the state at index t; above T: what else a solver draws."""
Hook = Callable[["Tensor"], "Tensor"]
"""An estimate of x_0 -> a better one."""
Weigh = Callable[[int, "Tensor"], "Tensor"]
"""(t, x_t) -> the scale that the noise is to have after the step from index t."""


@dataclass(frozen=True, eq=False)
class Task:
    """What every solver is given, beside the state that it starts from."""

    path: Path
    denoise: Denoise
    mu: Tensor
    """(B, C, Y, X), the anchor."""
    w: Tensor
    """(B, C, Y, X), the scale of the noise in the first state."""
    noise: Noise
    times: Sequence[int]
    """Indices of the path, falling; the last is 0."""
    hooks: Sequence[Hook] = ()
    """What is done to every estimate, unless ``denoise`` does it."""
    weigh: Weigh | None = None
    """How w changes on the way; None: it does not."""

    def estimate(self, x: Tensor, t: float) -> Tensor:
        """The estimate of the clean image after every hook, in order."""
        x_hat = self.denoise(x, t)
        for hook in self.hooks:
            x_hat = hook(x_hat)
        return x_hat

    def extra(self, t: int, k: int = 0) -> Tensor:
        """Unit noise at index t beside the step's own, the k-th of it: a key that no step uses."""
        return self.noise((k + 1) * (self.path.T + 1) + t)


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
    """One step from index t to r < t with the same w at both.

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


def reweighed(path: Path, r: int, x_r: Tensor, x_hat: Tensor, mu: Tensor, w: Tensor, w_r: Tensor) -> Tensor:
    """The state x_r with all of its noise, x_r - a_r x^ - b_r mu, brought from the scale w to w_r.

    After `step` this is the formula above; after a step of any other solver it is the same change of scale.
    """
    q = path.at(r)
    clean = q.a * x_hat + q.b * mu
    return clean + (w_r / w) * (x_r - clean)
