"""Holding an image to its data: Richardson-Lucy, the noise-aware consistency step, and the closing of the flux.

Everything here is linear in the pixel values or homogeneous in them, works in the data's own units, and is local: a
pixel of the result depends on a neighbourhood of the frame and on no sum over it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sciresdiff.physics.operators import Operator
from sciresdiff.physics.statistics import PlaneStatistics

REACH = 16
"""Coarse pixels around a pixel that asks for patience in which it is had."""


def lowest_eigenvalue(iterations: int) -> float:
    """Lower end of the interval on which the Chebyshev polynomial is small: what so many iterations can reach.

    Below it convergence is slower, not wrong.  The polynomial's bound on [e, 1] falls as exp(-2 n sqrt(e)).
    """
    return min(0.02, max(8 / iterations**2, 0.002))


@dataclass(frozen=True)
class Data:
    """A coarse image, its noise, and how it was measured.

    All tensors have shape (..., h, w) and one dtype and device.
    """

    y: Tensor
    """Measured values; finite everywhere (masked pixels may hold anything finite)."""
    noise: Tensor
    """Variance of y, > 0 where valid."""
    valid: Tensor
    """1 where y carries information, else 0."""
    operator: Operator
    statistics: PlaneStatistics | None = None
    """What the plane is like that this is a part of; None where it is the whole."""
    origin: tuple[int, int] = (0, 0)
    """Place of the first pixel in the plane, (y, x)."""

    def residual(self, x: Tensor) -> Tensor:
        """y - A x, zero where masked."""
        return (self.y - self.operator.apply(x)) * self.valid

    def chi2(self, x: Tensor) -> Tensor:
        """Mean of (y - A x)^2 / N over the valid pixels of every image: (...)."""
        total = (self.residual(x).square() / self.noise).sum((-2, -1))
        return total / self.valid.sum((-2, -1)).clamp_min(1)


def row_sums(operator: Operator, w2: Tensor, noise: Tensor) -> Tensor:
    """M = |A| (w^2 |A|^T 1) + N, the row sums that bound A Sigma A^T + N.

    With this diagonal as preconditioner all eigenvalues of M^-1 (A Sigma A^T + N) lie in (0, 1], whatever the scene.

    Parameters
    ----------
    w2 : (..., s*h, s*w), the diagonal of Sigma. noise : (..., h, w), the diagonal of N.

    Returns
    -------
    (..., h, w)
    """
    magnitude = operator.magnitude
    return magnitude.there_and_back(torch.ones_like(noise), w2) + noise


def solve(data: Data, w2: Tensor, r: Tensor, iterations: int, patience: int = 0) -> Tensor:
    """An approximation of (A Sigma A^T + N)^-1 r by a Chebyshev iteration.

    The iteration needs no inner product: its coefficients depend on the interval [`lowest_eigenvalue`, 1] alone
    (Saad, Iterative Methods for Sparse Linear Systems, section 12.3), so the result is local and tiles agree.  For
    pure pixel integration the matrix is diagonal and the result exact.

    Parameters
    ----------
    w2 : (..., s*h, s*w), the diagonal of Sigma, >= 0. r : (..., h, w), zero where masked.
    iterations : number of applications of the matrix, >= 1.
    patience : so many more around pixels that these leave off by more than their noise, as bright cores are, see
        `pressing`.

    Returns
    -------
    (..., h, w), zero where masked.
    """
    inverse = data.valid / row_sums(data.operator, w2, data.noise)
    if data.operator.pure:
        return inverse * r
    q = chebyshev(data, w2, r, inverse, iterations)
    if patience:
        left = r - matrix(data, w2, q)
        weight = pressing(left, data.noise)
        if bool(weight.any()):
            q = q + chebyshev(data, w2, left * weight, inverse, patience)
    return q


def pressing(left: Tensor, noise: Tensor) -> Tensor:
    """1 within 16 px (a square) of a pixel that is off by its noise or more, down to 0 where that is 0.75 of it.

    The iteration is linear in r, so that what is left may be taken up in one place and not in another; the smooth
    fall keeps parts of a plane together, which see the same pixel with different rounding.

    Parameters
    ----------
    left : (..., h, w), what is left of r. noise : variances of the same shape.
    """
    off = (left.abs() / noise.sqrt()).reshape(-1, 1, *left.shape[-2:])
    for side in ((2 * REACH + 1, 1), (1, 2 * REACH + 1)):
        off = F.max_pool2d(off, side, stride=1, padding=(side[0] // 2, side[1] // 2))
    return (4 * off - 3).clamp_(0, 1).reshape(left.shape)


def matrix(data: Data, w2: Tensor, q: Tensor) -> Tensor:
    """(A Sigma A^T + N) q, zero where masked if q is."""
    return data.valid * data.operator.there_and_back(q, w2) + data.noise * q


def chebyshev(data: Data, w2: Tensor, r: Tensor, inverse: Tensor, iterations: int) -> Tensor:
    """The iteration of `solve` from zero; ``inverse`` is one over the `row_sums`, 0 where masked."""
    lowest = lowest_eigenvalue(iterations)
    centre, half = (1 + lowest) / 2, (1 - lowest) / 2
    sigma = centre / half
    rho = 1 / sigma
    d = inverse * r / centre
    q = d
    for _ in range(iterations - 1):
        r = r - matrix(data, w2, d)
        following = 1 / (2 * sigma - rho)
        d = following * rho * d + (2 * following / half) * (inverse * r)
        q, rho = q + d, following
    return q


def consistent(data: Data, x: Tensor, w2: Tensor, iterations: int = 12, patience: int = 0) -> Tensor:
    """x + Sigma A^T (A Sigma A^T + N)^-1 (y - A x): the best linear estimate when x has the covariance Sigma.

    Parameters
    ----------
    x : (..., s*h, s*w), the estimate so far. w2 : its variance per pixel, >= 0.
    iterations, patience : of `solve`.

    Returns
    -------
    (..., s*h, s*w).  Where w2 is zero or the data are masked, x is returned as it came.  **With N = 0 and a kernel the
    noise of the data is amplified without bound.**
    """
    return torch.addcmul(x, w2, data.operator.adjoint(solve(data, w2, data.residual(x), iterations, patience)))


def richardson_lucy(data: Data, pedestal: Tensor, floor: float = 1e-2) -> Iterator[Tensor]:
    """Accelerated Richardson-Lucy estimates of x, one after the other.

    Each estimate is multiplied by A^T(y / A x) / A^T 1 (Richardson 1972; Lucy 1974) after an extrapolation in its
    logarithm with the fixed momentum (k - 1) / (k + 2): about k^2 / 4 plain iterations for k of these.  The fixed
    momentum keeps it local, where the usual one (Biggs & Andrews 1997) is an inner product over the frame.

    Parameters
    ----------
    data : quantity ``sum``; no gradients are kept.
    pedestal : (..., 1, 1), added to y for the duration, so that a sky around zero stays positive; in units of y.
    floor : smallest value of y + pedestal that is used, same units.

    Yields
    ------
    (..., s*h, s*w) estimates with the pedestal taken off again.  **Pixels of y below floor - pedestal lose flux.**
    """
    operator, scale = data.operator, data.operator.scale
    y = torch.where(data.valid > 0, (data.y + pedestal).clamp_min(floor), pedestal)
    weight = operator.adjoint(torch.ones_like(y)).reciprocal_()
    x = (operator.adjoint(y) * weight / scale**2).clamp_min(floor / scale**2 * 1e-3)
    before, k, tiny = x, 0, floor / scale**2 * 1e-6
    while True:
        k += 1
        momentum = (k - 1) / (k + 2)
        guess = (x / before).clamp_(1e-2, 1e2).pow_(momentum).mul_(x) if momentum else x
        ratio = torch.where(data.valid > 0, y / operator.apply(guess).clamp_min(1e-3 * floor), torch.ones_like(y))
        before, x = x, operator.adjoint(ratio).mul_(guess).mul_(weight).clamp_min_(tiny)
        yield x - pedestal / scale**2


def close_flux(data: Data, x: Tensor, w2: Tensor, cell: int = 16) -> Tensor:
    """x with the flux of every cell of ``cell x cell`` coarse pixels brought to that of the data.

    r = y - A x and m = A(w^2 A^T 1) are binned, and w^2 A^T (bin r / bin m) is added: the large-scale photometry is
    kept, the detail inside a cell is not touched by the noise of single pixels.

    Parameters
    ----------
    x, w2 : (B, C, s*h, s*w); data of shape (B, C, h, w).
    """

    def binned(v: Tensor) -> Tensor:
        pad = [(-v.shape[-1]) % cell, (-v.shape[-2]) % cell]
        sums = F.avg_pool2d(F.pad(v, (0, pad[0], 0, pad[1])), cell, divisor_override=1)
        return sums.repeat_interleave(cell, -1).repeat_interleave(cell, -2)[..., : v.shape[-2], : v.shape[-1]]

    m = data.operator.there_and_back(data.valid, w2) * data.valid
    least = binned(m).clamp_min(torch.finfo(x.dtype).tiny)
    for _ in range(3):  # flux leaks over cell borders through the kernel: three rounds bring it below 1e-5
        share = binned(data.residual(x)) / least
        x = torch.addcmul(x, w2, data.operator.adjoint(share * data.valid))
    return x


def support(data: Data, x: Tensor, w2: Tensor, iterations: int = 12) -> Tensor:
    """How much of the structure at each fine pixel the data fix by themselves, 0..1.

    <d^2> / (<d^2> + <n^2>) over the kernel, where d = Sigma A^T (A Sigma A^T + N)^-1 A x is what the data give back
    of x with a flat Sigma, and n = x - d is what the model supplied.

    Parameters
    ----------
    x : (..., s*h, s*w), the restored image above its sky. w2 : (..., s*h, s*w), a flat variance.
    """
    seen = data.operator.apply(x) * data.valid
    d = w2 * data.operator.adjoint(solve(data, w2, seen, iterations))
    share = data.operator.adjoint(torch.ones_like(data.y))

    def local(v: Tensor) -> Tensor:
        return data.operator.adjoint(data.operator.apply(v)) / share

    measured, supplied = local(d.square()), local((x - d).square())
    return measured / (measured + supplied).clamp_min(torch.finfo(x.dtype).tiny)
