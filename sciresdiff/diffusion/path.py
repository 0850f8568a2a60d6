"""How an image is lost in noise: the arrays a, b, s of a path, and the schedules that fill them.

Every diffusion used here has the forward marginal x_t = a_t x_0 + b_t mu + s_t w eps, with mu an image known
beforehand (the anchor), w a map of the noise's scale and eps unit noise.  Index 0 is the clean image, T the noisiest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]
Carry = Literal["markov", "shift"]
Grid = Literal["time", "lambda", "karras"]


class Level(NamedTuple):
    """The numbers of a path at one index: floats, or tensors that broadcast over a batch."""

    a: Any
    b: Any
    s: Any
    sigma: Any
    """sqrt(span * b), the standard deviation of a bridge's forward process."""
    sd: float


@dataclass(frozen=True, eq=False)
class Path:
    """A forward process on a grid of T + 1 indices.

    Raises
    ------
    ValueError : arrays of different length, shorter than 2 or not finite; index 0 is not the clean image; the ratio of
        noise to signal falls with the index.
    """

    a: Array
    """Weight of the image; a[0] = 1."""
    b: Array
    """Weight of the anchor; b[0] = 0."""
    s: Array
    """Standard deviation of the noise in units of w; s[0] = 0."""
    carry: Carry = "markov"
    """Whose posterior the ancestral step draws from: a Markov chain's, or a shift's to the anchor (ResShift, I2SB)."""
    span: float = 1.0
    """Total variance of a bridge's forward process; 1 elsewhere."""
    sd: float = 1.0
    """Standard deviation of the images about their anchor, in units of w, for preconditioning."""

    def __post_init__(self) -> None:
        """Refuse arrays that no step could use."""
        if not (self.a.shape == self.b.shape == self.s.shape and self.a.ndim == 1 and len(self.a) >= 2):
            raise ValueError("a, b and s have to be of one length, 2 or more")
        if not np.isfinite([self.a, self.b, self.s]).all() or (self.s < 0).any() or (self.a < 0).any():
            raise ValueError("a, b and s have to be finite, a and s not negative")
        if (self.a[0], self.b[0], self.s[0]) != (1, 0, 0):
            raise ValueError("index 0 has to be the clean image: a = 1, b = 0, s = 0")
        if self.carry == "shift" and not (self.b[1:] > 0).all():
            raise ValueError("a shift needs an anchor, b > 0, at every index but 0")
        if (self.s[1:] * self.a[:-1] < self.s[:-1] * self.a[1:] * (1 - 1e-12)).any():
            raise ValueError("the ratio of noise to signal falls with the index; exchange its two ends")

    @property
    def T(self) -> int:  # noqa: N802
        """Index of the noisiest state."""
        return len(self.a) - 1

    def at(self, t: int | Tensor | NDArray[np.int_], like: Tensor | None = None) -> Level:
        """The numbers at index t: floats, or with ``like`` (B, ...) and t (B,) tensors of shape (B, 1, ...)."""
        if like is None:
            assert isinstance(t, int | np.integer)
            a, b, s = (float(v[t]) for v in (self.a, self.b, self.s))
            return Level(a, b, s, math.sqrt(self.span * max(b, 0.0)), self.sd)
        index = np.asarray(t.cpu() if hasattr(t, "cpu") else t, dtype=np.int64).reshape(-1)
        shape = (-1, *[1] * (like.ndim - 1))
        columns = (self.a, self.b, self.s, np.sqrt(self.span * self.b.clip(0)))
        a_, b_, s_, sigma = (like.new_tensor(v[index]).view(shape) for v in columns)
        return Level(a_, b_, s_, sigma, self.sd)


def marginal(path: Path, t: int | Tensor | NDArray[np.int_], x0: Tensor, mu: Tensor, w: Tensor, eps: Tensor) -> Tensor:
    """x_t = a_t x_0 + b_t mu + s_t w eps; t is one index, or one for every image of the batch."""
    p = path.at(t) if isinstance(t, int) else path.at(t, x0)
    return p.a * x0 + p.b * mu + p.s * w * eps


def subset(path: Path, steps: int, grid: Grid = "time") -> Path:
    """The same process on fewer indices: 0, T and between them ``steps`` - 1 of the others.

    Parameters
    ----------
    steps : 1 to T. grid : the picks are uniform in the index (``time``), in lambda = ln(a / s) (``lambda``) or in
        (s / a)^(1/7) (``karras``, Karras et al. 2022), as nearly as the indices allow.

    Raises
    ------
    UsageError : more steps than the path has, or a grid that a path without noise cannot have.
    """
    if not 1 <= steps <= path.T:
        raise UsageError(f"--steps {steps}: this method has {path.T} steps; give 1 to {path.T}")
    if grid not in get_args(Grid):
        raise UsageError(f"grid {grid!r}: allowed are {', '.join(get_args(Grid))}")
    picks = np.linspace(0, path.T, steps + 1)[1:] if grid == "time" else _uniform(path, steps, grid)
    index = np.concatenate([[0], _distinct(np.rint(picks).astype(int), path.T)])
    return replace(path, a=path.a[index], b=path.b[index], s=path.s[index])


def _uniform(path: Path, steps: int, grid: Grid) -> NDArray[np.int_]:
    """Indices whose lambda, or whose seventh root of the noise, is closest to uniform; the last is T."""
    usable = np.flatnonzero((path.a > 0) & (path.s > 0))
    if not len(usable):
        raise UsageError(f"grid {grid!r}: the path has no noise; use time")
    ratio = path.s[usable] / path.a[usable]
    value = -np.log(ratio) if grid == "lambda" else ratio ** (1 / 7)
    wanted = np.linspace(value[0], value[-1], steps)
    picks = usable[np.abs(value[None] - wanted[:, None]).argmin(axis=1)]
    picks[-1] = path.T
    return picks


def _distinct(picks: NDArray[np.int_], T: int) -> NDArray[np.int_]:
    """The same indices, ascending, moved as little as makes them differ and fit into 1..T."""
    k = np.arange(len(picks))
    rising = np.maximum.accumulate(np.maximum(picks, 1) - k) + k
    return np.minimum(rising, T - k[::-1])


def _path(a: Array, b: Array, s: Array, carry: Carry = "markov", span: float = 1.0, sd: float = 1.0) -> Path:
    """A path from its noisy indices 1..T."""
    a, b, s = (np.concatenate([[first], v]) for first, v in ((1.0, a), (0.0, b), (0.0, s)))
    return Path(a, b, s, carry, span, sd)


def _from_betas(beta: Array) -> Path:
    """A variance-preserving path: abar_t = prod(1 - beta), a = sqrt(abar), s = sqrt(1 - abar)."""
    abar = np.cumprod(1 - beta)
    return _path(np.sqrt(abar), np.zeros_like(abar), np.sqrt(1 - abar))


def vp_linear(T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Path:
    """Beta linear in the index (DDPM, Ho et al. 2020)."""
    return _from_betas(np.linspace(beta_start, beta_end, T))


def scaled_linear(T: int = 1000, beta_start: float = 0.0015, beta_end: float = 0.0195) -> Path:
    """The square root of beta linear in the index (latent diffusion, Rombach et al. 2022)."""
    return _from_betas(np.linspace(math.sqrt(beta_start), math.sqrt(beta_end), T) ** 2)


def vp_cosine(T: int = 1000, offset: float = 0.008, beta_max: float = 0.999) -> Path:
    """abar_t proportional to cos^2(pi/2 (t/T + offset) / (1 + offset)) (Nichol & Dhariwal 2021)."""
    abar = np.cos((np.arange(T + 1) / T + offset) / (1 + offset) * np.pi / 2) ** 2
    return _from_betas(np.minimum(1 - abar[1:] / abar[:-1], beta_max))


def resshift(
    T: int = 15, power: float = 0.3, kappa: float = 2.0, min_noise: float = 0.04, end: float = 0.99, sd: float = 1.0
) -> Path:
    """a = 1 - eta, b = eta, s = kappa sqrt(eta); sqrt(eta_t) = e0 (end / e0)^(((t-1)/(T-1))^power) (Yue et al. 2023).

    e0 = min(min_noise / kappa, min_noise).  ``end`` is the square root of the last eta.
    """
    first = min(min_noise / kappa, min_noise)
    root = first * (end / first) ** (np.linspace(0, 1, T) ** power) if T > 1 else np.array([end])
    return _path(1 - root**2, root**2, kappa * root, "shift", sd=sd)


def mean_reverting(T: int = 100, stationary_sd: float = 30 / 255, delta: float = 0.005) -> Path:
    """a = exp(-Theta), b = 1 - a, s = stationary_sd sqrt(1 - a^2), a_T = delta (IR-SDE, Luo et al. 2023).

    Theta_t is the sum of theta_i = 1 - cos^2(pi/2 ((i + 1) / (T + 2) + 0.008) / 1.008), scaled to end at ln(1 / delta).
    """
    angle = np.cos((np.arange(T + 2) / (T + 2) + 0.008) / 1.008 * np.pi / 2) ** 2
    theta = 1 - angle[1:] / angle[0]
    total = np.cumsum(theta)[1:] - theta[0]
    a = np.exp(total * math.log(delta) / total[-1])
    return _path(a, 1 - a, stationary_sd * np.sqrt(1 - a**2))


def bridge(T: int = 1000, beta_min: float = 0.1, beta_max: float = 0.3, noise: float = 1.0) -> Path:
    """A Schroedinger bridge from image to anchor (I2SB, Liu et al. 2023), beta symmetric about the middle.

    With v_t the sum of beta up to t: b = v_t / v_T, a = 1 - b, s = noise sqrt(v_T a b).  No noise at either end;
    ``noise`` = 0 is optimal transport.
    """
    rising = np.linspace(math.sqrt(beta_min / T), math.sqrt(beta_max / T), T) ** 2
    beta = np.concatenate([rising[: (T + 1) // 2], rising[: T // 2][::-1]])
    span = float(beta.sum())
    b = np.cumsum(beta) / span
    b[-1] = 1.0
    return _path(1 - b, b, noise * np.sqrt(span * b * (1 - b)), "shift", span=span)


def linear_flow(T: int = 20) -> Path:
    """a = 1 - t/T, s = t/T (flow matching, Lipman et al. 2023; rectified flow, Liu et al. 2023)."""
    s = np.arange(1, T + 1) / T
    return _path(1 - s, 0 * s, s)


def edm(T: int = 18, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0, sd: float = 0.5) -> Path:
    """a = 1, s = sigma with sigma^(1/rho) linear in the index (Karras et al. 2022); sd is that of the data."""
    s = np.linspace(sigma_min ** (1 / rho), sigma_max ** (1 / rho), T) ** rho if T > 1 else np.array([sigma_max])
    return _path(np.ones(T), np.zeros(T), s, sd=sd)


SCHEDULES: dict[str, Callable[..., Path]] = {
    "resshift": resshift,
    "vp-linear": vp_linear,
    "vp-cosine": vp_cosine,
    "scaled-linear": scaled_linear,
    "mean-reverting": mean_reverting,
    "bridge": bridge,
    "linear-flow": linear_flow,
    "edm": edm,
}
"""Schedules by the name that a method file gives them."""
