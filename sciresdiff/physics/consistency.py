"""Hold an image to its data: the noise-aware consistency step, and the closing of the flux.

Notation: y = A x + n with A the `Operator`, N = diag(noise) the covariance of n, and Sigma = diag(w^2) the variance
that is believed of the fine image x.

Everything here is linear in the pixel values or homogeneous in them, works in the data's own units, and is local: a
pixel of the result depends on a neighbourhood of the frame and on no sum over it, so that tiles of a frame agree.  That
is why conjugate gradients, whose step lengths are inner products over the frame, are not used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sciresdiff.errors import InputError
from sciresdiff.physics.depth import DepthOperator
from sciresdiff.physics.exposures import ExposuresOperator
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.statistics import PlaneStatistics
from sciresdiff.physics.variance_model import VarianceModel

GROWTH = 1e-3
"""Share by which rounding may let the squared norm of a residual grow."""
REACH = 16
"""Coarse pixels around an unconverged pixel in which the iteration goes on."""


def lowest_eigenvalue(iterations: int) -> float:
    """Lower end of the interval on which the Chebyshev polynomial is small: what so many iterations can reach.

    Below it convergence is slower, not wrong.  The polynomial's bound on [e, 1] falls as exp(-2 n sqrt(e)).
    """
    return min(0.02, max(8 / iterations**2, 0.002))


@dataclass(frozen=True)
class Data:
    """A coarse image, its noise, and how it was measured.

    All tensors have shape (..., h, w) and one dtype and device; of a stack in depth (1, C, h, w), and what is called an
    image (..., s*h, s*w) elsewhere is then the volume (1, D, H, W) of its `DepthOperator`.
    """

    y: Tensor
    """Measured values; finite everywhere (masked pixels may hold anything finite)."""
    noise: Tensor
    """Variance of y, > 0 where valid, in the unit of y squared."""
    valid: Tensor
    """1 where y carries information, else 0."""
    operator: Operator | DepthOperator | ExposuresOperator
    """A, from the fine image to this one."""
    statistics: PlaneStatistics | None = None
    """Of the plane that this is a part of; None where it is the whole."""
    origin: tuple[int, int] = (0, 0)
    """(y, x) of the first pixel in the plane."""
    model: VarianceModel | None = None
    """Variance as a function of A x, in the unit of y; None where it does not depend on it."""
    width_error: float = 0.0
    """Standard error of the kernel's width, as a share of it: one factor for the whole plane."""
    weight: Tensor | None = None
    """(1, C, 1, 1): how much each of several exposures counts in a sum over them; None for one."""

    @property
    def planar(self) -> Operator | ExposuresOperator:
        """The operator, of one image: of data that are no stack in depth."""
        assert not isinstance(self.operator, DepthOperator)
        return self.operator

    @property
    def scale(self) -> int:
        """Fine pixels per pixel and axis, of data on one regular grid, which networks see."""
        scale = self.operator.scale
        assert isinstance(scale, int)
        return scale

    def renew_noise(self, x: Tensor) -> Data:
        """The data with the noise that an image (..., s*h, s*w) gives them: N(A x) in place of N of an older estimate.

        One step of iteratively reweighted least squares with the model's variances (Pearson's).
        """
        if self.model is None:
            return self
        noise = self.model.at(self.operator.apply(x))
        return replace(self, noise=torch.where(self.valid > 0, noise, torch.ones_like(noise)))

    def residual(self, x: Tensor) -> Tensor:
        """y - A x, (..., h, w) of an image (..., s*h, s*w); zero where masked."""
        return (self.y - self.operator.apply(x)) * self.valid

    def chi2(self, x: Tensor) -> Tensor:
        """Mean of (y - A x)^2 / N over the valid pixels, (...) of images (..., s*h, s*w): 1 for the noise stated."""
        total = (self.residual(x).square() / self.noise).sum((-2, -1))
        return total / self.valid.sum((-2, -1)).clamp_min(1)


def row_sum_bound(operator: Operator | DepthOperator | ExposuresOperator, w2: Tensor, noise: Tensor) -> Tensor:
    """M = |A| (w^2 |A|^T 1) + N, the row sums that bound A Sigma A^T + N.

    With this diagonal as preconditioner all eigenvalues of M^-1 (A Sigma A^T + N) lie in (0, 1], whatever the scene
    (Gershgorin): |A| is that of `Operator.magnitude`, which bounds what is applied, and the sum over it is made in
    float64, as it cancels.

    Parameters
    ----------
    operator : Operator
    w2 : (..., s*h, s*w) tensor
        Diagonal of Sigma, >= 0.
    noise : (..., h, w) tensor
        Diagonal of N, >= 0.

    Returns
    -------
    (..., h, w) tensor
    """
    return absolute_gram(operator, torch.ones_like(noise), w2) + noise


def absolute_gram(operator: Operator | DepthOperator | ExposuresOperator, low: Tensor, w2: Tensor) -> Tensor:
    """|A| (w^2 |A|^T y) >= 0 for y >= 0, by `Operator.magnitude`; (..., h, w), in the type of ``low``."""
    magnitude = operator.magnitude
    found = magnitude.apply_weighted_gram(low.to(magnitude.dtype), w2.to(magnitude.dtype))
    return found.to(low.dtype).clamp_min(0)  # float64 rounds, too


def solve_covariance(data: Data, w2: Tensor, r: Tensor, iterations: int, patience: int = 0) -> Tensor:
    """An approximation of (A Sigma A^T + N)^-1 r by a Chebyshev iteration.

    The iteration needs no inner product: its coefficients depend on the interval [`lowest_eigenvalue`, 1] alone
    (Saad, Iterative Methods for Sparse Linear Systems, 2nd edition, algorithm 12.1), so the result is local and tiles
    agree.  For pure pixel integration the matrix is diagonal and the result exact.

    Parameters
    ----------
    data : Data
    w2 : (..., s*h, s*w) tensor
        Diagonal of Sigma, >= 0.
    r : (..., h, w) tensor
        Zero where masked.
    iterations : int
        Chebyshev steps, >= 1.
    patience : int
        So many more around pixels that these leave off by more than their noise, as bright cores are, see
        `unconverged_weight`.

    Returns
    -------
    (..., h, w) tensor
        Zero where masked.

    Raises
    ------
    InputError
        The residual has grown, or is not finite; not asked where gradients are kept.
    """
    inverse = data.valid / row_sum_bound(data.operator, w2, data.noise)
    if data.operator.pure:
        return inverse * r
    q = chebyshev_iteration(data, w2, r, inverse, iterations)
    if patience:
        left = r - apply_covariance(data, w2, q)
        refuse_divergence(left, r, inverse)
        weight = unconverged_weight(left, data.noise)
        if bool(weight.any()):
            q = q + chebyshev_iteration(data, w2, left * weight, inverse, patience)
    return q


def refuse_divergence(left: Tensor, r: Tensor, inverse: Tensor) -> None:
    """Refuse an iteration that leaves more than it was given.

    The polynomial is at most 1 in (0, 1], where all eigenvalues lie, so that the norm (r M^-1 r)^1/2 cannot grow; where
    it does, the operator is not what it is taken for, or the numbers have left the range of float32.

    Parameters
    ----------
    left, r : (..., h, w) tensors
        What is left of the right-hand side, and the right-hand side.
    inverse : (..., h, w) tensor
        M^-1, 0 where masked.

    Raises
    ------
    InputError
    """
    if torch.is_grad_enabled():
        return
    root = inverse.sqrt()
    before, after = (float((v * root).double().square().sum()) for v in (r, left))
    if not after <= before * (1 + GROWTH):  # not a number is refused, too
        raise InputError(
            f"solver: the misfit to the data grows from {before**0.5:.3g} to {after**0.5:.3g} where it must fall; look "
            "for pixels of absurd size (--mask, --saturation), a wrong noise (--variance) or PSF (--psf)"
        )


def unconverged_weight(left: Tensor, noise: Tensor) -> Tensor:
    """1 within 16 px (a square) of a pixel that is off by its noise or more, down to 0 where that is 0.75 of it.

    The iteration is linear in r, so that what is left may be taken up in one place and not in another; the smooth
    fall keeps parts of a plane together, which see the same pixel with different rounding.

    Parameters
    ----------
    left : (..., h, w) tensor
        r - (A Sigma A^T + N) q, what is left of r.
    noise : (..., h, w) tensor
        Variances, > 0.

    Returns
    -------
    (..., h, w) tensor
        0 ... 1.
    """
    off = (left.abs() / noise.sqrt()).reshape(-1, 1, *left.shape[-2:])
    for side in ((2 * REACH + 1, 1), (1, 2 * REACH + 1)):  # the maximum over a square is separable
        off = F.max_pool2d(off, side, stride=1, padding=(side[0] // 2, side[1] // 2))
    return (4 * off - 3).clamp_(0, 1).reshape(left.shape)


def apply_covariance(data: Data, w2: Tensor, q: Tensor) -> Tensor:
    """(A Sigma A^T + N) q.

    Parameters
    ----------
    data : Data
    w2 : (..., s*h, s*w) tensor
        Diagonal of Sigma, >= 0.
    q : (..., h, w) tensor
        Zero where masked, and so is the result.
    """
    return data.valid * data.operator.apply_weighted_gram(q, w2) + data.noise * q


def chebyshev_iteration(data: Data, w2: Tensor, r: Tensor, inverse: Tensor, iterations: int) -> Tensor:
    """The iteration of `solve_covariance` from zero (Saad, algorithm 12.1, preconditioned).

    Parameters
    ----------
    data : Data
    w2 : (..., s*h, s*w) tensor
        Diagonal of Sigma, >= 0.
    r : (..., h, w) tensor
        Right-hand side, zero where masked.
    inverse : (..., h, w) tensor
        The preconditioner: one over `row_sum_bound`, 0 where masked.
    iterations : int
        Steps, >= 1; the matrix is applied once less.

    Returns
    -------
    (..., h, w) tensor
    """
    lowest = lowest_eigenvalue(iterations)
    centre, half = (1 + lowest) / 2, (1 - lowest) / 2  # theta and delta in Saad's notation
    sigma = centre / half
    rho = 1 / sigma
    d = inverse * r / centre
    q = d
    for _ in range(iterations - 1):
        r = r - apply_covariance(data, w2, d)
        following = 1 / (2 * sigma - rho)  # rho_{k+1}
        d = following * rho * d + (2 * following / half) * (inverse * r)
        q, rho = q + d, following
    return q


def consistency_step(data: Data, x: Tensor, w2: Tensor, iterations: int = 12, patience: int = 0) -> Tensor:
    """x + Sigma A^T (A Sigma A^T + N)^-1 (y - A x): the best linear estimate when x has the covariance Sigma.

    Parameters
    ----------
    data : Data
    x : (..., s*h, s*w) tensor
        The estimate so far, in the unit of y per fine pixel.
    w2 : (..., s*h, s*w) tensor
        Its variance per pixel, >= 0.
    iterations, patience : int
        Of `solve_covariance`.

    Returns
    -------
    (..., s*h, s*w) tensor
        Where w2 is zero or the data are masked, x is returned as it came.  **With N = 0 and a kernel the noise of the
        data is amplified without bound.**
    """
    q = solve_covariance(data, w2, data.residual(x), iterations, patience)
    return torch.addcmul(x, w2, data.operator.adjoint(q))


def close_flux(data: Data, x: Tensor, w2: Tensor, cell: int = 16) -> Tensor:
    """x with the flux of every cell of ``cell x cell`` coarse pixels brought to that of the data.

    r = y - A x and m = |A|(w^2 |A|^T 1) are summed over cells, and w^2 A^T (sum r / sum m) is added: the large-scale
    photometry is kept, the detail inside a cell is not touched by the noise of single pixels. The sums of m are the row
    sums of the matrix between cells, so that no round makes a misfit grow (`row_sum_bound`).

    Parameters
    ----------
    data : Data
        Of shape (B, C, h, w).
    x : (B, C, s*h, s*w) tensor
        The image, in the unit of y per fine pixel.
    w2 : (B, C, s*h, s*w) tensor
        Where inside a cell the missing flux goes, > 0.
    cell : int
        Coarse pixels.

    Returns
    -------
    (B, C, s*h, s*w) tensor
        Cell sums of its residual are below 1e-5 of what they were.
    """

    def cell_sums(v: Tensor) -> Tensor:
        pad = [(-v.shape[-1]) % cell, (-v.shape[-2]) % cell]
        sums = F.avg_pool2d(F.pad(v, (0, pad[0], 0, pad[1])), cell, divisor_override=1)
        return sums.repeat_interleave(cell, -1).repeat_interleave(cell, -2)[..., : v.shape[-2], : v.shape[-1]]

    m = absolute_gram(data.operator, data.valid, w2) * data.valid
    least = cell_sums(m).clamp_min(torch.finfo(x.dtype).tiny)
    for _ in range(3):  # flux leaks over cell borders through the kernel: three rounds bring it below 1e-5
        share = cell_sums(data.residual(x)) / least
        x = torch.addcmul(x, w2, data.operator.adjoint(share * data.valid))
    return x


def support(data: Data, x: Tensor, w2: Tensor, iterations: int = 12) -> Tensor:
    """Fraction of the structure at each fine pixel that the data constrain by themselves, 0 ... 1.

    <d^2> / (<d^2> + <n^2>) over the kernel, where d = Sigma A^T (A Sigma A^T + N)^-1 A x is what the data give back
    of x with a flat Sigma, and n = x - d is what the model supplied.

    Parameters
    ----------
    data : Data
    x : (..., s*h, s*w) tensor
        The restored image above its sky.
    w2 : (..., s*h, s*w) tensor
        A flat variance.
    iterations : int
        Of `solve_covariance`.

    Returns
    -------
    (..., s*h, s*w) tensor
    """
    seen = data.operator.apply(x) * data.valid
    d = w2 * data.operator.adjoint(solve_covariance(data, w2, seen, iterations))
    share = data.operator.adjoint(torch.ones_like(data.y))

    def local_mean(v: Tensor) -> Tensor:
        return data.operator.adjoint(data.operator.apply(v)) / share

    measured, supplied = local_mean(d.square()), local_mean((x - d).square())
    return measured / (measured + supplied).clamp_min(torch.finfo(x.dtype).tiny)
