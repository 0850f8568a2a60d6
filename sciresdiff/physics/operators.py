"""The measurement: blur by a kernel, then integration over the coarse pixel, with an exact adjoint.

A separable kernel acts on one axis after the other, and blur, reflection at the border and block sum of one axis are
together one banded matrix.  A kernel that is not separable is a short sum of separable ones (its singular value
decomposition).  The matrices are held in strips of rows, so that a frame of any size costs a few dozen multiply-adds
per fine pixel, and the adjoint is the transpose of the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sciresdiff.errors import InputError
from sciresdiff.frame import Quantity

ROWS = 16
"""Coarse rows of a strip: enough for an efficient matrix product, few enough that few zeros are multiplied."""


def separable(kernel: NDArray[np.float64], error: float = 1e-5, max_rank: int = 12) -> NDArray[np.float64]:
    """A kernel as a sum of outer products, ``kernel[y, x] = sum_r u[r, y] v[r, x]``.

    Parameters
    ----------
    kernel : (K, L) float array.
    error : largest sum of absolute differences between the kernel and the result, as a share of ``sum |kernel|``.
    max_rank : most terms; a kernel that needs more is cut there.

    Returns
    -------
    (rank, 2, max(K, L)) array: ``u`` and ``v`` of every term, zero-padded to one length, and scaled so that the sum
    over the kernel is kept exactly.
    """
    u, s, vt = np.linalg.svd(kernel)
    norm = np.abs(kernel).sum()
    rank = 1
    while rank < min(max_rank, len(s)) and np.abs(kernel - (u[:, :rank] * s[:rank]) @ vt[:rank]).sum() > error * norm:
        rank += 1
    side = max(kernel.shape)
    terms = np.zeros((rank, 2, side))
    for r in range(rank):
        root = np.sqrt(s[r]) * np.sign(u[:, r].sum() or 1.0)
        for axis, vector in enumerate((u[:, r] * root, vt[r] * root)):
            start = (side - len(vector)) // 2
            terms[r, axis, start : start + len(vector)] = vector
    total = (terms[:, 0].sum(-1) * terms[:, 1].sum(-1)).sum()
    terms[:, 0] *= kernel.sum() / total
    return terms


def reflected(index: Tensor, size: int) -> Tensor:
    """Positions beyond the border, reflected about the pixel edge (d c b a | a b c d | d c b a)."""
    index = torch.remainder(index, 2 * size)
    return torch.minimum(index, 2 * size - 1 - index)


def measurement_matrix(kernel: Tensor, low: int, scale: int) -> Tensor:
    """Blur and block sum along one axis, as a matrix.

    Parameters
    ----------
    kernel : (..., K) tensor with K odd: a convolution kernel on the fine grid, centred.
    low : number of coarse pixels.
    scale : fine pixels per coarse pixel.

    Returns
    -------
    (..., low, scale * low) tensor; row i holds the weights of the fine pixels in coarse pixel i.
    """
    radius = kernel.shape[-1] // 2
    fine = torch.arange(low * scale, device=kernel.device)
    matrix = kernel.new_zeros(*kernel.shape[:-1], low, low * scale)
    for k in range(kernel.shape[-1]):
        source = reflected(fine - (k - radius), low * scale)
        weight = kernel[..., k : k + 1].expand(*kernel.shape[:-1], low * scale)
        matrix.view(*kernel.shape[:-1], -1).index_add_(-1, (fine // scale) * (low * scale) + source, weight)
    return matrix


@dataclass(frozen=True)
class Strips:
    """A banded matrix, held as one dense matrix for every strip of its rows."""

    matrices: Tensor
    """(..., strips, rows, reach): strip k reads the columns from ``k * step - before``, and zeros beyond the frame."""
    step: int
    before: int
    shape: tuple[int, int]
    """Rows and columns of the whole matrix."""

    @cached_property
    def cut(self) -> list[tuple[slice, slice, Tensor]]:
        """(rows, columns, values) of every strip, without what lies beyond the frame."""
        height, reach = self.matrices.shape[-2:]
        strips = []
        for k, matrix in enumerate(self.matrices.unbind(-3)):
            top, start = k * height, k * self.step - self.before
            bottom, first, last = min(top + height, self.shape[0]), max(start, 0), min(start + reach, self.shape[1])
            values = matrix[..., : bottom - top, first - start : last - start]
            strips.append((slice(top, bottom), slice(first, last), values))
        return strips

    def of(self, x: Tensor) -> Tensor:
        """The product with every column of ``x`` (..., columns, n): (..., rows, n)."""
        if x.is_cuda:
            return self.together(x)
        if plain(x) and self.matrices.ndim == 3:
            flat = x.reshape(x.shape[-2:])
            return torch.cat([m @ flat[columns] for _, columns, m in self.cut]).view(*x.shape[:-2], -1, x.shape[-1])
        return torch.cat([m @ x[..., columns, :] for _, columns, m in self.cut], dim=-2)

    def of_rows(self, x: Tensor) -> Tensor:
        """The product with every row of ``x`` (..., n, columns): (..., n, rows)."""
        if x.is_cuda:
            return self.together(x.mT).mT
        return torch.cat([x[..., columns] @ m.mT for _, columns, m in self.cut], dim=-1)

    def together(self, x: Tensor) -> Tensor:
        """`of` as one batched product, where starting work costs more than doing it."""
        count, _, reach = self.matrices.shape[-3:]
        beyond = (count - 1) * self.step + reach - self.before - self.shape[1]
        windows = F.pad(x, (0, 0, self.before, max(beyond, 0))).unfold(-2, reach, self.step)[..., :count, :, :]
        return (self.matrices @ windows.mT).flatten(-3, -2)[..., : self.shape[0], :]


def plain(x: Tensor) -> bool:
    """True for a single image, whose plain matrix product costs a quarter of a batched one."""
    return x[..., 0, 0].numel() == 1


@dataclass(frozen=True)
class Banded:
    """A banded matrix and its transpose, both in strips."""

    forward: Strips
    backward: Strips

    @classmethod
    def of(cls, kernel: Tensor, low: int, scale: int) -> Banded:
        """The matrix of `measurement_matrix`, without most of its zeros."""
        margin = -(-(kernel.shape[-1] // 2) // scale) + 1
        count, lead = -(-low // ROWS), kernel.shape[:-1]
        reach = ROWS + 2 * margin
        forward = kernel.new_zeros(*lead, count, ROWS, scale * reach)
        backward = kernel.new_zeros(*lead, count, scale * ROWS, reach)
        inner: list[int] = []
        for k in range(count):
            r0, r1 = k * ROWS, min(low, (k + 1) * ROWS)
            w0, w1 = max(0, r0 - margin), min(low, r1 + margin)
            if w0 > 0 and w1 < low:
                inner.append(k)
                if len(inner) > 1:  # away from the borders strips are the same
                    continue
            # a window of the frame has the same rows as the frame, but near borders that are not the frame's
            pad0, pad1 = (margin if w0 else 0), (margin if w1 < low else 0)
            window = measurement_matrix(kernel, w1 - w0 + pad0 + pad1, scale)
            top, high, at, wide = pad0 + r0 - w0, r1 - r0, w0 - r0 + margin, w1 - w0
            rows = window[..., top : top + high, scale * pad0 : scale * (pad0 + wide)]
            columns = window[..., pad0 : pad0 + wide, scale * top : scale * (top + high)]
            forward[..., k, :high, scale * at : scale * (at + wide)] = rows
            backward[..., k, : scale * high, at : at + wide] = columns.mT
        for k in inner[1:]:
            forward[..., k, :, :], backward[..., k, :, :] = forward[..., inner[0], :, :], backward[..., inner[0], :, :]
        fine = scale * low
        return cls(
            Strips(forward, scale * ROWS, scale * margin, (low, fine)), Strips(backward, ROWS, margin, (fine, low))
        )


@dataclass(frozen=True)
class Operator:
    """y = A x: the coarse image that a fine one gives.

    ``A`` is a convolution with ``kernel`` on the fine grid (borders reflect about the pixel edge) and then the sum, or
    for quantity ``mean`` the mean, over blocks of ``scale x scale`` fine pixels: fine pixels s*i ... s*i+s-1 are the
    area of coarse pixel i.  **A kernel whose sum is not 1 does not conserve flux.**

    Parameters
    ----------
    shape : (h, w) of the coarse image.
    scale : fine pixels per coarse pixel and axis, at least 1.
    kernel : (K, L) array with odd sides, centred; None for pure pixel integration.
    quantity : ``sum`` or ``mean``.
    dtype, device : of the matrices; images of another dtype are not accepted by torch.

    Raises
    ------
    InputError : a kernel with even sides, or one larger than the frame.
    """

    shape: tuple[int, int]
    scale: int
    kernel: NDArray[np.float64] | None = None
    quantity: Quantity = "sum"
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"
    terms: Sequence[tuple[Banded, Banded]] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        """Build the matrices of every separable term."""
        if self.terms:
            return
        kernel = np.ones((1, 1)) if self.kernel is None else np.asarray(self.kernel, dtype=np.float64)
        self._refuse(kernel)
        vectors = torch.from_numpy(separable(kernel)).to(self.device, self.dtype)
        object.__setattr__(self, "terms", self._matrices(vectors))

    def _refuse(self, kernel: NDArray[np.float64]) -> None:
        if any(side % 2 == 0 for side in kernel.shape):
            raise InputError(f"kernel: sides must be odd so that it has a centre, got {kernel.shape}")
        size = tuple(self.scale * side for side in self.shape)
        if any(k > n for k, n in zip(kernel.shape, size, strict=True)):
            raise InputError(f"kernel: {kernel.shape} fine px is too large for a frame of {size}; give a narrower one")

    def _matrices(self, vectors: Tensor) -> list[tuple[Banded, Banded]]:
        share = 1 / self.scale if self.quantity == "mean" else 1.0  # per axis
        h, w = self.shape
        return [
            (
                Banded.of(vectors[..., r, 0, :] * share, h, self.scale),
                Banded.of(vectors[..., r, 1, :] * share, w, self.scale),
            )
            for r in range(vectors.shape[-3])
        ]

    @classmethod
    def batch(cls, shape: tuple[int, int], scale: int, vectors: Tensor) -> Operator:
        """An operator with another kernel for every sample of a batch.

        Parameters
        ----------
        vectors : (B, rank, 2, K) tensor, the terms of `separable` of every sample.

        Returns
        -------
        An operator on (B, C, s*h, s*w) images, quantity ``sum``.
        """
        bare = cls(shape, scale, dtype=vectors.dtype, device=vectors.device)
        return cls(shape, scale, None, "sum", vectors.dtype, vectors.device, bare._matrices(vectors[:, None]))

    def apply(self, high: Tensor) -> Tensor:
        """The coarse image (..., h, w) of a fine one (..., s*h, s*w)."""
        low = [columns.forward.of_rows(rows.forward.of(high)) for rows, columns in self.terms]
        return torch.stack(low).sum(0) if len(low) > 1 else low[0]

    def adjoint(self, low: Tensor) -> Tensor:
        """The transpose: a fine image (..., s*h, s*w) with ``<apply(x), y> == <x, adjoint(y)>``."""
        out = None
        for rows, columns in self.terms:
            part = rows.backward.of(columns.backward.of_rows(low))
            out = part if out is None else out.add_(part) if not part.requires_grad else out + part
        assert out is not None
        return out

    def there_and_back(self, low: Tensor, w2: Tensor) -> Tensor:
        """A (w^2 A^T y), of a coarse image (..., h, w) with w^2 (..., s*h, s*w).

        On a CPU and without gradients strip by strip, so that the fine image between never leaves the cache.
        """
        if torch.is_grad_enabled() or low.is_cuda or self.batched or not (plain(low) and plain(w2)):
            return self.apply(w2 * self.adjoint(low))
        weights, image = w2.reshape(w2.shape[-2:]), low.reshape(low.shape[-2:])
        wide = [columns.backward.of_rows(image) for _, columns in self.terms]
        sums = [torch.zeros_like(v) for v in wide]
        cuts = [rows.backward.cut for rows, _ in self.terms]
        for strips in zip(*cuts, strict=True):
            at, reach, _ = strips[0]
            fine = strips[0][2] @ wide[0][reach]
            for (_, _, m), v in zip(strips[1:], wide[1:], strict=True):
                fine.addmm_(m, v[reach])
            fine.mul_(weights[at])
            for (_, _, m), total in zip(strips, sums, strict=True):
                total[reach].addmm_(m.mT, fine)
        parts = [columns.forward.of_rows(total) for (_, columns), total in zip(self.terms, sums, strict=True)]
        return (torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]).view(low.shape)

    @property
    def batched(self) -> bool:
        """True with a kernel of its own for every sample."""
        return self.terms[0][0].forward.matrices.ndim > 3

    @property
    def pure(self) -> bool:
        """True for pixel integration alone, where consistency has a closed form."""
        return self.kernel is None and not self.batched

    @cached_property
    def magnitude(self) -> Operator:
        """The operator of ``|kernel|``: itself where the kernel has no negative lobe worth the name."""
        if self.kernel is None or self.kernel.min() >= -1e-4 * self.kernel.max():
            return self
        return Operator(self.shape, self.scale, np.abs(self.kernel), self.quantity, self.dtype, self.device)
