"""Kernels as short sums of separable ones: those that are applied, and those that bound what is applied."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FEW_TERMS = 12
"""Terms that a kernel may have until `ERROR` is met."""
MOST_TERMS = 32
"""Terms that it may have until `PEAK_ERROR` is met; every one costs a pass over the frame."""
ERROR = 1e-5
"""Share of the light that the terms may misplace in all."""
PEAK_ERROR = 1e-4
"""Share of the kernel's peak by which a pixel may be off: below the noise around stars of a signal-to-noise of 10^4."""
BOUND_ERROR = 1e-6
"""As `ERROR`, of the terms that bound a kernel; what is left over is bounded by one more term."""


def separable_terms(kernel: Array, error: float = ERROR, max_rank: int = MOST_TERMS) -> Array:
    """A kernel as a sum of outer products, ``kernel[y, x] = sum_r u[r, y] v[r, x]``.

    Parameters
    ----------
    kernel : (K, L) float array
    error : float
        Largest sum of absolute differences between the kernel and the result, as a share of ``sum |kernel|``. **Beyond
        `FEW_TERMS` it is enough that no pixel is off by more than `PEAK_ERROR` of the largest**: diffraction spikes
        would ask for a hundred terms.
    max_rank : int
        Most terms.  **A kernel that needs more is cut there, whatever the error**, see `truncation`.

    Returns
    -------
    (rank, 2, max(K, L)) array
        ``u`` and ``v`` of every term, zero-padded to one length, and scaled so that the sum over the kernel is kept
        exactly.  **A basis kernel whose sum is below 1 % of ``sum |kernel|`` is not scaled**; its sum is then off by at
        most ``error * sum |kernel|``.
    """
    terms = truncate(kernel, error, max_rank)
    total = (terms[:, 0].sum(-1) * terms[:, 1].sum(-1)).sum()
    if abs(total) > 0.01 * np.abs(kernel).sum():  # a mode without flux has no sum to be scaled to
        terms[:, 0] *= kernel.sum() / total
    return terms


def truncate(kernel: Array, error: float, max_rank: int) -> Array:
    """The singular value decomposition of a kernel, cut as `separable_terms` says; (rank, 2, max(K, L))."""
    u, s, vt = np.linalg.svd(kernel)
    norm, peak = np.abs(kernel).sum(), np.abs(kernel).max()
    for rank in range(1, min(max_rank, len(s)) + 1):
        off = np.abs(kernel - (u[:, :rank] * s[:rank]) @ vt[:rank])
        if off.sum() <= error * norm or rank >= FEW_TERMS and off.max() <= PEAK_ERROR * peak:
            break
    side = max(kernel.shape)
    terms = np.zeros((rank, 2, side))
    for r in range(rank):
        # the SVD leaves the sign of a pair open: sums of u above 0 make the terms the same on every machine
        root = np.sqrt(s[r]) * np.sign(u[:, r].sum() or 1.0)
        for axis, vector in enumerate((u[:, r] * root, vt[r] * root)):
            start = (side - len(vector)) // 2
            terms[r, axis, start : start + len(vector)] = vector
    return terms


def sum_terms(terms: Array) -> Array:
    """The kernel that terms (..., rank, 2, K) add up to, (..., K, K)."""
    return np.asarray(np.einsum("...ry,...rx->...yx", terms[..., 0, :], terms[..., 1, :]))


def truncation(kernel: Array) -> tuple[float, float]:
    """What `separable_terms` leave of a kernel: share of its light, and the largest error as a share of its peak."""
    terms = separable_terms(kernel)
    off = np.abs(sum_terms(terms) - pad_square(kernel))
    return float(off.sum() / np.abs(kernel).sum()), float(off.max() / np.abs(kernel).max())


def pad_square(kernel: Array) -> Array:
    """A kernel (K, L) of odd sides with zeros around it, (max(K, L), max(K, L))."""
    side = max(kernel.shape)
    return np.pad(kernel, [((side - n) // 2,) * 2 for n in kernel.shape])


def is_nonnegative(terms: Array) -> bool:
    """Whether no term has a negative value, as that of a round Gaussian: sums over such terms cancel nothing."""
    return bool((terms >= 0).all())


def bounding_terms(terms: Array, rounding: float) -> Array:
    """Terms whose sum lies nowhere below the absolute value of what ``terms`` add up to.

    What is bounded is ``|sum_r u_r v_r| + 4 rounding sum_r |u_r| |v_r|``: the kernel as it is applied, whose terms
    cancel in its wings, and what rounding makes of that.  It is cut as any kernel, and the rank-one bound of what the
    cut leaves is one more term, so that nothing is missing however many terms a kernel would need.

    Parameters
    ----------
    terms : (rank, 2, K) array
        As applied, of `separable_terms`.
    rounding : float
        Relative rounding of the numbers that they are applied with.

    Returns
    -------
    (<= rank + 4, 2, K) array
    """
    target = np.abs(sum_terms(terms)) + 4 * rounding * sum_terms(np.abs(terms))
    found = truncate(target, BOUND_ERROR, len(terms) + 3)
    return np.concatenate([found, rank_one_bound(target - sum_terms(found))[None]])


def rank_one_bound(matrix: Array) -> Array:
    """Vectors a and b >= 0 with ``a[y] b[x] >= |matrix[y, x]|``, (2, K).

    b is the root of the largest value of every column, and a the least that then suffices.
    """
    size = np.abs(matrix)
    # where a column is empty b is 0 and asks nothing of a
    b = np.sqrt(size.max(axis=0))
    a = np.divide(size, b, out=np.zeros_like(size), where=b > 0).max(axis=1)
    return np.stack([a, b]) * (1 + 1e-12)  # the division rounds
