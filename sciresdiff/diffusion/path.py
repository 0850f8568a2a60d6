"""How an image is lost in noise: the arrays a, b, s of a path.

Every diffusion used here has the forward marginal x_t = a_t x_0 + b_t mu + s_t w eps, with mu an image known
beforehand (the anchor), w a map of the noise's scale and eps unit noise.  Index 0 is the clean image, T the noisiest.
"""

from __future__ import annotations

import math
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


class NoiseLevel(NamedTuple):
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
    whole: Path | None = None
    """The path of which this one is a `subset`; what lies between two indices is looked up there."""
    index: Array | None = None
    """The indices of ``whole`` that this path has."""

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

    def at(self, t: float | Tensor | NDArray[np.int_], like: Tensor | None = None) -> NoiseLevel:
        """The numbers at index t: floats, or with ``like`` tensors of shape (B, 1, ...).

        Parameters
        ----------
        t : one index, or (B,) indices with ``like``.  One may be a fraction: between two indices of the whole path
            a, b and ln(s / a) are linear in it, and s where that logarithm is not finite.
        like : a tensor (B, ...), whose dtype and device the numbers are to have.
        """
        if like is None:
            assert isinstance(t, int | float | np.integer)
            whole, t = (self, t) if t == int(t) else self._within(t)
            a, b, s = (float(v[int(t)]) for v in (whole.a, whole.b, whole.s)) if t == int(t) else whole._between(t)
            return NoiseLevel(a, b, s, math.sqrt(self.span * max(b, 0.0)), self.sd)
        index = np.asarray(t.cpu() if hasattr(t, "cpu") else t, dtype=np.int64).reshape(-1)
        shape = (-1, *[1] * (like.ndim - 1))
        columns = (self.a, self.b, self.s, np.sqrt(self.span * self.b.clip(0)))
        a_, b_, s_, sigma = (like.new_tensor(v[index]).view(shape) for v in columns)
        return NoiseLevel(a_, b_, s_, sigma, self.sd)

    def _within(self, t: float) -> tuple[Path, float]:
        """The whole path, and the index there."""
        if self.whole is None or self.index is None:
            return self, t
        return self.whole, float(np.interp(t, np.arange(self.T + 1), self.index))

    def _between(self, t: float) -> tuple[float, float, float]:
        """a, b and s at a fraction of an index of this path."""
        i = int(t)
        (a, b, s), (a_, b_, s_) = ([float(v[k]) for v in (self.a, self.b, self.s)] for k in (i, i + 1))
        share, mean = t - i, a + (t - i) * (a_ - a)
        if min(a, a_, s, s_) > 0:
            noise = mean * math.exp((1 - share) * math.log(s / a) + share * math.log(s_ / a_))
        else:
            noise = s + share * (s_ - s)
        return mean, b + share * (b_ - b), noise

    def index_of(self, ratio: float) -> float:
        """The index, mostly a fraction, at which s / a is ``ratio``: the other way of `at`, at most T."""
        whole, index = (self, np.arange(self.T + 1)) if self.whole is None else (self.whole, self.index)
        usable = np.flatnonzero((whole.s > 0) & (whole.a > 0))
        t = np.interp(math.log(ratio), np.log(whole.s[usable] / whole.a[usable]), usable)
        return float(np.interp(t, index, np.arange(self.T + 1)))  # type: ignore[arg-type]


def marginal(path: Path, t: int | Tensor | NDArray[np.int_], x0: Tensor, mu: Tensor, w: Tensor, eps: Tensor) -> Tensor:
    """A state of the forward process: x_t = a_t x_0 + b_t mu + s_t w eps.

    Parameters
    ----------
    t : one index, or (B,), one for every image of the batch.
    x0, mu, w, eps : (B, C, Y, X), image, anchor, scale of the noise, unit noise.

    Returns
    -------
    (B, C, Y, X)
    """
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
    whole, at = (path, index) if path.whole is None else (path.whole, path.index[index])  # type: ignore[index]
    return replace(path, a=path.a[index], b=path.b[index], s=path.s[index], whole=whole, index=at)


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
