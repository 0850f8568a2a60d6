"""The sampler: from noise about an anchor to one image, and what a network sees when it learns that.

Forward process (`path`), with x_0 the image, mu the anchor, w the scale of the noise per pixel, eps unit noise:

    x_t = a_t x_0 + b_t mu + s_t w eps                                                            (1)

Backward, from index t to an index r < t, with x^ the estimate of x_0 from x_t and z fresh unit noise:

    x_r = a_r x^ + b_r mu + c (x_t - a_t x^ - b_t mu) + sqrt(s_r^2 - c^2 s_t^2) w z               (2)

c is how much of the noise in x_t is carried on; with x^ = x_0 every c from 0 to s_r / s_t leaves x_r distributed by
(1).  Ancestral sampling draws from the posterior of x_r given x_t and x_0 of the forward process:

    c = b_r / b_t                      a shift to the anchor (ResShift, I2SB)                     (3)
    c = (a_t / a_r) s_r^2 / s_t^2      a Markov chain (DDPM, IR-SDE)                              (4)

`ancestral` is the default method's solver.  Every other solver (`sciresdiff.lab.solvers`) is another c, another
estimate or another order of the same step: c = s_r / s_t is deterministic (DDIM, Euler's rule of EDM and of flow
matching), c = 0 draws anew (consistency models).

References: Ho et al. 2020 (DDPM), arXiv:2006.11239; Song et al. 2021 (DDIM), arXiv:2010.02502; Yue et al. 2023
(ResShift), arXiv:2307.12348.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Union

from sciresdiff.diffusion.method import Method
from sciresdiff.diffusion.path import Path, marginal
from sciresdiff.diffusion.prediction import PREDICTIONS
from sciresdiff.diffusion.solvers import SOLVERS
from sciresdiff.diffusion.weight import DynamicScale, NewScale
from sciresdiff.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

Denoise = Callable[["Tensor", Any], "Tensor"]
"""(x_t, t) -> estimate of x_0; t is an index of the path, and a fraction where a solver looks between two."""
Noise = Callable[[int], "Tensor"]
"""(t) -> the unit noise that enters the state at index t; above T: what else a solver draws."""
Hook = Callable[["Tensor"], "Tensor"]
"""An estimate of x_0 -> a better one."""
Scale = Union["Tensor", DynamicScale, NewScale]
"""The scale of the noise, and how it changes on the way."""


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
    weigh: NewScale | None = None
    """How w changes on the way; None: it does not."""

    def estimate(self, x: Tensor, t: float) -> Tensor:
        """The estimate of the clean image from a state, after every hook, in order.

        Parameters
        ----------
        x : (B, C, Y, X), the state. t : its index; a fraction where a solver looks between two.

        Returns
        -------
        (B, C, Y, X)
        """
        x_hat = self.denoise(x, t)
        for hook in self.hooks:
            x_hat = hook(x_hat)
        return x_hat

    def rescale(self, t: int, r: int, x_t: Tensor, x_r: Tensor, x_hat: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Bring the noise in the state x_r from the scale w to the one that is asked for after index t.

        x_r - a_r x^ - b_r mu is all of its noise, whatever solver made it.

        Parameters
        ----------
        t, r : indices of the step. x_t, x_r, x_hat, w : (B, C, Y, X), states before and after, estimate, scale.

        Returns
        -------
        The state and its scale, both (B, C, Y, X); unchanged where `weigh` is None.
        """
        w_r = w if self.weigh is None or r == 0 else self.weigh(t, x_t)
        if w_r is w:
            return x_r, w
        q = self.path.at(r)
        clean = q.a * x_hat + q.b * self.mu
        return clean + (w_r / w) * (x_r - clean), w_r


def ancestral(task: Task, x: Tensor, *, eta: float = 1.0, heat: float = 1.0) -> Tensor:
    """Ancestral sampling: estimate the image, draw the next state from the posterior, repeat.

    Parameters
    ----------
    task : path, denoiser, anchor, noise and the indices to visit.
    x : (B, C, Y, X), the state at the first index.
    eta : has no effect; every solver takes it.
    heat : factor on the noise that is added, 0..1; below 1 **the draws are narrower than the posterior**, and 0 is
        the posterior's mean at every step (DiffIR).

    Returns
    -------
    (B, C, Y, X), the estimate at the last noisy index: at r = 0 the step (2) has c = 0 and s_r = 0.
    """
    path, mu, w = task.path, task.mu, task.w
    for t, r in pairwise(task.times):
        x_hat = task.estimate(x, t)  # E[x_0 | x_t]: the network's answer, held to the data by the hooks
        c = posterior_carry(path, t, r)  # (3) or (4)
        z = task.noise(r) if heat * added_noise(path, t, r, c) > 0 else None
        x_r = step(path, t, r, x, x_hat, mu, w if heat == 1 else heat * w, z, c)  # (2)
        x, w = task.rescale(t, r, x, x_r, x_hat, w)
    return x


def posterior_carry(path: Path, t: int, r: int) -> float:
    """c of the posterior of x_r given x_t and x_0: equation (3) or (4), by the path's own rule."""
    p, q = path.at(t), path.at(r)
    if path.carry == "shift":
        return float(q.b / p.b)  # (3)
    return float(p.a / q.a * q.s**2 / p.s**2) if p.s > 0 else 0.0  # (4)


def added_noise(path: Path, t: int, r: int, c: float) -> float:
    """sqrt(s_r^2 - c^2 s_t^2), the noise that step (2) adds, in units of w; 0 where that is rounding."""
    s_r = float(path.s[r])
    left = s_r**2 - c**2 * float(path.s[t]) ** 2
    return math.sqrt(left) if left > 1e-14 * s_r**2 else 0.0


def step(
    path: Path, t: int, r: int, x_t: Tensor, x_hat: Tensor, mu: Tensor, w: Tensor, z: Tensor | None, c: float
) -> Tensor:
    """One step, equation (2), from index t to r < t with the same w at both.

    The terms are gathered by image, (a_r - c a_t) x^ + (b_r - c b_t) mu + c x_t, and those with a factor of 0 left out.

    Parameters
    ----------
    x_t, x_hat, mu, w : (B, C, Y, X), state, estimate of the clean image, anchor, scale of the noise.
    z : unit noise of that shape; None where `added_noise` is 0.
    c : 0 <= c <= s_r / s_t.

    Returns
    -------
    (B, C, Y, X)
    """
    p, q = path.at(t), path.at(r)
    x = (q.a - c * p.a) * x_hat
    for factor, image in ((q.b - c * p.b, mu), (c, x_t)):
        if factor != 0:
            x = x + factor * image
    return x if z is None else x + added_noise(path, t, r, c) * (w * z)


def sample(
    method: Method,
    denoise: Denoise,
    mu: Tensor,
    w: Scale,
    noise: Noise,
    steps: int | None = None,
    hooks: Sequence[Hook] = (),
    prior: Tensor | None = None,
) -> Tensor:
    """One draw by a method: its start, then its solver.

    The start is (1) at the last index T with the anchor in place of x_0; without noise for ``start = "anchor"``; and
    for ``start = "sdedit"`` (Meng et al. 2022) at the share t0 of the path with the prior's mean in place of x_0.

    Parameters
    ----------
    denoise : (x_t, t) -> estimate of x_0, with t an index of ``method.path(steps)`` (a fraction between two in pndm,
        and in heun with churn).
    mu : (B, C, Y, X), the anchor.
    w : the scale of the noise: a tensor of that shape, a `DynamicScale`, or (t, x_t) -> the scale after index t.
    noise : (t) -> unit noise of that shape which enters the state at index t; a pure function of t.
    steps : number of steps; None for the method's own.
    hooks : what the method's hooks stand for, unless ``denoise`` applies them itself.
    prior : what the start ``sdedit`` noises, of that shape; None: the anchor.

    Returns
    -------
    (B, C, Y, X), the last estimate of x_0.

    Raises
    ------
    UsageError : more steps than the path has; a start at the anchor without any noise to come.
    """
    path = method.path(steps)
    first = path.T if method.start != "sdedit" else max(1, round(float(method.start_params["t0"]) * path.T))
    p = path.at(first)
    x = (p.a + p.b) * mu if method.start != "sdedit" or prior is None else p.a * prior + p.b * mu
    weigh = w.following(path) if isinstance(w, DynamicScale) else w if callable(w) else None
    scale = w.w if isinstance(w, DynamicScale) else w(first, x) if callable(w) else w
    if method.start == "anchor" and path.s.any() and not bool((scale != 0).any()):
        raise UsageError(
            f"--method {method.name}: w = 0 everywhere, and the start is the anchor without noise, so that every draw "
            "would be the same; give another weight"
        )
    if method.start != "anchor" and p.s > 0:
        x = x + p.s * (scale * noise(first))
    task = Task(path, denoise, mu, scale, noise, range(first, -1, -1), hooks, weigh)
    return SOLVERS[method.solver](task, x, eta=method.eta, **method.solver_params)


def train_pair(
    method: Method, x0: Tensor, mu: Tensor, w: Scale, t: int | Tensor, eps: Tensor
) -> tuple[Tensor, Tensor, Any]:
    """What a network sees in training, equation (1), what it should answer, and the weight of its squared error.

    Parameters
    ----------
    x0, mu, eps : (B, C, Y, X) truth, anchor, unit noise.
    w : scale of the noise, as for `sample`; one that changes is taken at t, of a state with its first map.
    t : index of ``method.training_path()``, 1 to T; one, or (B,).

    Returns
    -------
    x_t, target : (B, C, Y, X). weight : a number, or (B, 1, 1, 1).
    """
    path = method.training_path()
    p = path.at(t) if isinstance(t, int) else path.at(t, x0)
    if isinstance(w, DynamicScale):
        w = w.at(path, t, marginal(path, t, x0, mu, w.w.detach(), eps)).w
    elif callable(w):
        w = w(t, (p.a + p.b) * mu)  # type: ignore[arg-type]
    asked = PREDICTIONS[method.prediction]
    return marginal(path, t, x0, mu, w, eps), asked.target(p, x0, eps, mu, w), asked.weight(p)
