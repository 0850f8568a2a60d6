"""Separable terms of a PSF, (rank, 2, K): u_r[y] and v_r[x] with the kernel sum_r u_r[y] v_r[x] on the fine grid.

Training patches are turned, mirrored and stacked into batches; so are the terms of their kernels, which is cheaper than
to separate every turned kernel anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.degradation.grids import crop_kernel
from sciresdiff.physics.separable import separable_terms


def kernel_terms(kernel: NDArray[np.float64], rank: int, side: int | None = None) -> NDArray[np.float64]:
    """Separate a kernel, and pad its terms with zeros.

    Parameters
    ----------
    kernel : (K, K), on the fine grid, sum 1.
    rank : number of terms; **a kernel of higher rank is cut there**.
    side : length of the terms, at least K; by default K.

    Returns
    -------
    (rank, 2, side)
    """
    terms = separable_terms(kernel, max_rank=rank)
    pad = 0 if side is None else (side - terms.shape[-1]) // 2
    return np.pad(terms, ((0, rank - len(terms)), (0, 0), (pad, pad)))


def crop_terms(terms: NDArray[np.float64], radius: int) -> NDArray[np.float64]:
    """Cut terms (rank, 2, K) at a radius in fine px, to (rank, 2, 2 radius + 1); the sum of their kernel is kept."""
    middle = terms.shape[-1] // 2
    if radius >= middle:
        return terms
    near = terms[..., middle - radius : middle + radius + 1].copy()
    near[:, 0] *= terms.sum(-1).prod(-1).sum() / near.sum(-1).prod(-1).sum()
    return near


def rotate_terms(terms: NDArray[np.float64], turns: int, flip: bool) -> NDArray[np.float64]:
    """Terms (rank, 2, K) of a kernel that was turned by `numpy.rot90` ``turns`` times, then mirrored in y if ``flip``.

    A quarter turn takes u[y] v[x] to v[-y] u[x], a mirror in y to u[-y] v[x].

    Parameters
    ----------
    terms : (rank, 2, K).
    turns : quarter turns, counter-clockwise as `numpy.rot90` has them.
    flip : whether the turned kernel is mirrored.

    Returns
    -------
    (rank, 2, K)
    """
    for _ in range(turns % 4):
        terms = np.stack([terms[:, 1, ::-1], terms[:, 0]], axis=1)
    return np.stack([terms[:, 0, ::-1], terms[:, 1]], axis=1) if flip else terms


def stack_terms(terms: list[NDArray[Any]]) -> NDArray[Any]:
    """Stack terms (rank, 2, K) of B kernels into (B, rank, 2, K), padded with zeros where rank or K differ."""
    rank, side = (max(t.shape[axis] for t in terms) for axis in (0, 2))
    return np.stack([
        np.pad(t, ((0, rank - t.shape[0]), (0, 0), ((side - t.shape[2]) // 2,) * 2)) for t in terms
    ])  # fmt: skip


def trim_kernel(kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cut off the zeros around a kernel (K, K), about its middle pixel."""
    y, x = np.nonzero(kernel)
    middle = [n // 2 for n in kernel.shape]
    return crop_kernel(kernel, int(max(np.abs(y - middle[0]).max(), np.abs(x - middle[1]).max(), 0)))
