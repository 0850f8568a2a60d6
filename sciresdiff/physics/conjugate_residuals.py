"""(A Sigma A^T + N) q = r by conjugate residuals: for data that see a volume, whose row sums bound the matrix badly.

Every voxel of a widefield stack reaches every plane, so that row sums (`consistency.row_sum_bound`) are far above the
eigenvalues, and a Chebyshev iteration that rests on them needs hundreds of steps.  **Step lengths are inner products
over all pixels**: parts of a stack agree as far as both have converged, and no further.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciresdiff.physics.consistency import Data, apply_covariance, refuse_divergence

LEFT, LEFT_RMS = 0.75, 0.02
"""What a solution may leave of any pixel and in the root mean square, in sigma of the data."""
MOST_STEPS = 160
"""Steps at most."""


def solve_by_conjugate_residuals(data: Data, w2: Tensor, r: Tensor, most: int = MOST_STEPS) -> Tensor:
    """(A Sigma A^T + N)^-1 r by conjugate residuals (Saad, Iterative Methods, 2nd edition, algorithm 6.20).

    The matrix is N^-1/2 (A Sigma A^T + N) N^-1/2, whose residual, in sigma of the data, falls with every step.  The
    iteration ends where no pixel is left off by more than `LEFT` and all together by no more than `LEFT_RMS`.

    Parameters
    ----------
    data : Data
        (1, C, h, w).
    w2 : (1, D, H, W) tensor
        Diagonal of Sigma, >= 0.
    r : (1, C, h, w) tensor
        Zero where masked.
    most : int
        Steps at most, >= 1.

    Returns
    -------
    (1, C, h, w) tensor
        Zero where masked.

    Raises
    ------
    InputError
        The residual has grown, or is not finite.
    """
    root = data.valid / data.noise.sqrt()

    def whitened(v: Tensor) -> Tensor:
        return root * apply_covariance(data, w2, root * v)

    q, left = torch.zeros_like(r), root * r
    p, seen = left, whitened(left)
    ahead, size = seen, inner(left, seen)
    for _ in range(most):
        if is_solved(left, data.valid):
            break
        step = size / inner(ahead, ahead)
        q, left = torch.add(q, p, alpha=step), torch.sub(left, ahead, alpha=step)
        seen = whitened(left)
        before, size = size, inner(left, seen)
        p, ahead = torch.add(left, p, alpha=size / before), torch.add(seen, ahead, alpha=size / before)
    refuse_divergence(left, root * r, data.valid)
    return root * q


def is_solved(left: Tensor, valid: Tensor) -> bool:
    """Whether what is left of the right-hand side, in sigma of the data, is far below the noise."""
    off = left.square()
    return bool(off.max() <= LEFT**2) and bool(off.sum() <= LEFT_RMS**2 * valid.sum())


def inner(a: Tensor, b: Tensor) -> float:
    """a . b in float64, plane by plane, so that it does not depend on the number of threads."""
    return float((a * b).sum((-2, -1), dtype=torch.float64).sum())


def volume_step(data: Data, x: Tensor, w2: Tensor, most: int = MOST_STEPS) -> Tensor:
    """x + Sigma A^T (A Sigma A^T + N)^-1 (y - A x), as `consistency.consistency_step`, of a volume (1, D, H, W)."""
    q = solve_by_conjugate_residuals(data, w2, data.residual(x), most)
    return torch.addcmul(x, w2, data.operator.adjoint(q))
