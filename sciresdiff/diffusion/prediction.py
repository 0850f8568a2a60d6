"""What a network is asked for, and the estimate of the clean image that follows from its answer.

u = x_t - b_t mu is the state without its anchor; n = w eps the noise.  At index 0 nothing is left to predict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sciresdiff.diffusion.path import NoiseLevel

if TYPE_CHECKING:
    from torch import Tensor

Estimate = Callable[[NoiseLevel, Any, Any, Any, Any], Any]
Target = Callable[[NoiseLevel, Any, Any, Any, Any], Any]


def _one(p: NoiseLevel) -> Any:
    """The same weight at every level."""
    return 1.0


@dataclass(frozen=True)
class Prediction:
    """Two functions that undo each other."""

    estimate: Estimate
    """(level, x_t, answer, mu, w) -> estimate of x_0."""
    target: Target
    """(level, x_0, eps, mu, w) -> what the network should answer."""
    weight: Callable[[NoiseLevel], Any] = _one
    """(level) -> factor on the squared error."""


def c_in(p: NoiseLevel, w: Tensor) -> Tensor:
    """1 / sqrt(a^2 sd^2 + s^2 w^2): brings x_t - (a + b) mu to unit variance; with a = 1 that of EDM.

    Parameters
    ----------
    p : level of the state. w : (B, C, Y, X), scale of the noise.

    Returns
    -------
    (B, C, Y, X)
    """
    return (p.a**2 * p.sd**2 + (p.s * w) ** 2) ** -0.5


def _skip_out(p: NoiseLevel, w: Tensor) -> tuple[Tensor, Tensor]:
    """EDM's c_skip = a sd^2 / (a^2 sd^2 + s^2 w^2) and c_out = s w sd / sqrt(a^2 sd^2 + s^2 w^2)."""
    scaling = c_in(p, w)
    return p.a * p.sd**2 * scaling**2, p.s * w * p.sd * scaling


def _edm_estimate(p: NoiseLevel, x: Tensor, out: Tensor, mu: Tensor, w: Tensor) -> Tensor:
    """c_skip u + c_out F."""
    c_skip, c_out = _skip_out(p, w)
    return c_skip * (x - p.b * mu) + c_out * out


def _edm_target(p: NoiseLevel, x0: Tensor, eps: Tensor, mu: Tensor, w: Tensor) -> Tensor:
    """(x_0 - c_skip u) / c_out."""
    c_skip, c_out = _skip_out(p, w)
    return (x0 - c_skip * (p.a * x0 + p.s * w * eps)) / c_out


PREDICTIONS: dict[str, Prediction] = {
    "x0": Prediction(
        lambda p, x, out, mu, w: out,
        lambda p, x0, eps, mu, w: x0,
    ),
    # (1) of sampler.py, solved for x_0
    "eps": Prediction(
        lambda p, x, out, mu, w: (x - p.b * mu - p.s * w * out) / p.a,
        lambda p, x0, eps, mu, w: eps,
    ),
    "eps_scale": Prediction(
        lambda p, x, out, mu, w: (x - p.b * mu - out) / p.a,
        lambda p, x0, eps, mu, w: p.s * w * eps,
        lambda p: 1 / p.s**2,  # so that every level counts as in eps
    ),
    "v": Prediction(
        lambda p, x, out, mu, w: p.a * (x - p.b * mu) - p.s * out,
        lambda p, x0, eps, mu, w: p.a * w * eps - p.s * x0,
    ),
    "flow": Prediction(
        lambda p, x, out, mu, w: x - p.b * mu - p.s * out,
        lambda p, x0, eps, mu, w: w * eps - x0,
    ),
    "bridge": Prediction(
        lambda p, x, out, mu, w: x - p.sigma * out,
        lambda p, x0, eps, mu, w: ((p.a - 1) * x0 + p.b * mu + p.s * w * eps) / p.sigma,
    ),
    "residual": Prediction(
        lambda p, x, out, mu, w: mu - out,
        lambda p, x0, eps, mu, w: mu - x0,
    ),
    "edm": Prediction(_edm_estimate, _edm_target),
}
"""x0; eps (DDPM); eps_scale = n (an option of ResShift); v = a n - s x_0, where a^2 + s^2 = 1; flow = n - x_0, where
a + s = 1; bridge = (x_t - x_0) / sigma_t (I2SB); residual = mu - x_0; edm = F of Karras et al."""
