"""The measurement: blur by a kernel, then integration over the coarse pixel, with an exact adjoint.

A separable kernel acts on one axis after the other, and blur, reflection at the border and block sum of one axis are
together one banded matrix.  A kernel that is not separable is a short sum of separable ones (its singular value
decomposition).  The matrices are held in strips of rows, so that a frame of any size costs a few dozen multiply-adds
per fine pixel, and the adjoint is the transpose of the same numbers.

There is no library for this.  FFTs wrap at the borders and round by the whole frame; where the PSF changes over the
field, and hundreds of separable terms would be needed, they serve patch by patch (`field_blur.FieldBlur`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sciresdiff.errors import InputError
from sciresdiff.frame import Quantity
from sciresdiff.physics.field_blur import FieldBlur
from sciresdiff.physics.local import BlockGrid
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.psf.rescale import rescale_kernel
from sciresdiff.physics.separable import bounding_terms, is_nonnegative, separable_terms

ROWS = 16
"""Coarse rows of a strip: enough for an efficient matrix product, few enough that few zeros are multiplied."""


def reflect_index(index: Tensor, size: int) -> Tensor:
    """Positions beyond the border, reflected about the pixel edge (d c b a | a b c d | d c b a).

    Reflection about the edge, and not about the pixel's centre, keeps the flux: every pixel is hit equally often.

    Parameters
    ----------
    index : (...) integer tensor
        Any whole numbers.
    size : int
        Pixels of the axis; the result lies in 0 ... size - 1.
    """
    index = torch.remainder(index, 2 * size)
    return torch.minimum(index, 2 * size - 1 - index)


def measurement_matrix(kernel: Tensor, low: int, scale: int) -> Tensor:
    """Blur and block sum along one axis, as a dense matrix.

    Parameters
    ----------
    kernel : (..., K) tensor
        K odd: a convolution kernel on the fine grid, centred.
    low : int
        Coarse pixels.
    scale : int
        Fine pixels per coarse pixel.

    Returns
    -------
    (..., low, scale * low) tensor
        Row i holds the weights of the fine pixels in coarse pixel i.
    """
    radius = kernel.shape[-1] // 2
    fine = torch.arange(low * scale, device=kernel.device)
    matrix = kernel.new_zeros(*kernel.shape[:-1], low, low * scale)
    for k in range(kernel.shape[-1]):
        # a convolution: the fine pixel f of the blurred image takes kernel[k] times the pixel f - (k - radius)
        source = reflect_index(fine - (k - radius), low * scale)
        weight = kernel[..., k : k + 1].expand(*kernel.shape[:-1], low * scale)
        matrix.view(*kernel.shape[:-1], -1).index_add_(-1, (fine // scale) * (low * scale) + source, weight)
    return matrix


@dataclass(frozen=True)
class BandedMatrix:
    """A banded matrix, held as one dense matrix for every strip of its rows."""

    matrices: Tensor
    """(..., strips, rows, reach): strip k reads the columns from ``k * step - before``, and zeros beyond the frame."""
    step: int
    before: int
    shape: tuple[int, int]
    """Rows and columns of the whole matrix."""

    @cached_property
    def strips(self) -> list[tuple[slice, slice, Tensor]]:
        """(rows, columns, values) of every strip, without what lies beyond the frame."""
        height, reach = self.matrices.shape[-2:]
        strips = []
        for k, matrix in enumerate(self.matrices.unbind(-3)):
            top, start = k * height, k * self.step - self.before
            bottom, first, last = min(top + height, self.shape[0]), max(start, 0), min(start + reach, self.shape[1])
            values = matrix[..., : bottom - top, first - start : last - start]
            strips.append((slice(top, bottom), slice(first, last), values))
        return strips

    def multiply(self, x: Tensor) -> Tensor:
        """M x: the product with every column of ``x`` (..., columns, n): (..., rows, n)."""
        if x.is_cuda:
            return self.multiply_batched(x)
        if is_single_image(x) and self.matrices.ndim == 3:
            flat = x.reshape(x.shape[-2:])
            return torch.cat([m @ flat[columns] for _, columns, m in self.strips]).view(*x.shape[:-2], -1, x.shape[-1])
        return torch.cat([m @ x[..., columns, :] for _, columns, m in self.strips], dim=-2)

    def multiply_rows(self, x: Tensor) -> Tensor:
        """x M^T: the product with every row of ``x`` (..., n, columns): (..., n, rows)."""
        if x.is_cuda:
            return self.multiply_batched(x.mT).mT
        return torch.cat([x[..., columns] @ m.mT for _, columns, m in self.strips], dim=-1)

    def multiply_batched(self, x: Tensor) -> Tensor:
        """`multiply` as one batched product of all strips, (..., columns, n) to (..., rows, n).

        On a GPU, where starting a product costs more than multiplying the zeros beyond the frame.
        """
        count, _, reach = self.matrices.shape[-3:]
        beyond = (count - 1) * self.step + reach - self.before - self.shape[1]
        windows = F.pad(x, (0, 0, self.before, max(beyond, 0))).unfold(-2, reach, self.step)[..., :count, :, :]
        return (self.matrices @ windows.mT).flatten(-3, -2)[..., : self.shape[0], :]


def is_single_image(x: Tensor) -> bool:
    """Whether (..., h, w) holds one image; its plain matrix product costs a quarter of a batched one."""
    return x[..., 0, 0].numel() == 1


@dataclass(frozen=True)
class AxisOperator:
    """Blur and block sum along one axis, and the transpose, both as banded matrices of the same numbers."""

    matrix: BandedMatrix
    transpose: BandedMatrix

    @classmethod
    def from_kernel(cls, kernel: Tensor, low: int, scale: int) -> AxisOperator:
        """The matrix of `measurement_matrix` for a kernel (..., K), without most of its zeros.

        Parameters
        ----------
        kernel : (..., K) tensor
            K odd, on the fine grid.
        low, scale : int
            Coarse pixels, and fine pixels per coarse pixel.
        """
        margin = -(-(kernel.shape[-1] // 2) // scale) + 1  # coarse pixels that the kernel reaches over, rounded up
        count, lead = -(-low // ROWS), kernel.shape[:-1]
        reach = ROWS + 2 * margin
        matrix = kernel.new_zeros(*lead, count, ROWS, scale * reach)
        transpose = kernel.new_zeros(*lead, count, scale * ROWS, reach)
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
            matrix[..., k, :high, scale * at : scale * (at + wide)] = rows
            transpose[..., k, : scale * high, at : at + wide] = columns.mT
        for k in inner[1:]:
            matrix[..., k, :, :], transpose[..., k, :, :] = matrix[..., inner[0], :, :], transpose[..., inner[0], :, :]
        fine = scale * low
        return cls(
            BandedMatrix(matrix, scale * ROWS, scale * margin, (low, fine)),
            BandedMatrix(transpose, ROWS, margin, (fine, low)),
        )


@dataclass(frozen=True)
class Operator(BlockGrid):
    """y = A x: the coarse image that a fine one gives.

    ``A`` is a convolution with ``kernel`` on the fine grid (borders reflect about the pixel edge) and then the sum, or
    for quantity ``mean`` the mean, over blocks of ``scale x scale`` fine pixels: fine pixels s*i ... s*i+s-1 are the
    area of coarse pixel i.  **A kernel whose sum is not 1 does not conserve flux.**

    With a `PSF` that changes over the field, A x = B sum_j P_j (w_j x): the image weighted by the map w_j of every
    basis kernel P_j and convolved with it, and one block sum B.  The adjoint is sum_j w_j P_j^T B^T y; both are those
    of `FieldBlur`.

    Parameters
    ----------
    shape : (h, w)
        Of the coarse image.
    scale : int
        Fine pixels per coarse pixel and axis, at least 1.
    kernel : (K, L) float array or PSF, optional
        Odd sides, centred; None for pure pixel integration.  A PSF's weights lie on the fine grid, (J, s*h, s*w).
    quantity : {"sum", "mean"}
        Of the coarse image.
    dtype, device
        Of the matrices; images of another dtype are not accepted by torch.

    Raises
    ------
    InputError
        A kernel with even sides, or weights of another shape than the fine image's.
    """

    shape: tuple[int, int]
    scale: int
    kernel: NDArray[np.float64] | PSF | None = None
    quantity: Quantity = "sum"
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"
    terms: Sequence[tuple[AxisOperator, AxisOperator]] = field(default=(), repr=False)
    """Matrices along y and x of every separable term of one kernel."""
    vectors: Tensor | None = field(default=None, repr=False)
    """(..., rank, 2, K): the terms of one kernel, or of the kernel of every sample, as they are applied."""
    blur: FieldBlur | None = field(default=None, repr=False)
    """The blur on the fine grid, where the PSF changes over the field."""

    def __post_init__(self) -> None:
        """Build the matrices of every separable term, or the blur by a PSF that changes over the field."""
        if self.terms or self.blur:
            return
        if isinstance(self.kernel, PSF):
            psf, size = self.kernel.simplest, (self.scale * self.shape[0], self.scale * self.shape[1])
            if self.kernel.varies:
                blur = FieldBlur(self.kernel, size, self.dtype, self.device)  # refuses weights of another size
                object.__setattr__(self, "blur", blur if psf.varies else None)
            if psf.varies:
                return
            object.__setattr__(self, "kernel", psf.kernels[0])
        kernel = np.ones((1, 1)) if self.kernel is None else np.asarray(self.kernel, dtype=np.float64)
        self._check_kernel(kernel)
        vectors = torch.from_numpy(separable_terms(kernel)).to(self.device, self.dtype)
        object.__setattr__(self, "vectors", vectors)
        object.__setattr__(self, "terms", self._axis_operators(vectors))

    def _check_kernel(self, kernel: NDArray[np.float64]) -> None:
        if any(side % 2 == 0 for side in kernel.shape):
            raise InputError(f"kernel: sides must be odd so that it has a centre, got {kernel.shape}")

    def _axis_operators(self, vectors: Tensor) -> list[tuple[AxisOperator, AxisOperator]]:
        """Matrices along y and x of the terms (..., rank, 2, K)."""
        share = 1 / self.scale if self.quantity == "mean" else 1.0  # per axis
        h, w = self.shape
        return [
            (
                AxisOperator.from_kernel(vectors[..., r, 0, :] * share, h, self.scale),
                AxisOperator.from_kernel(vectors[..., r, 1, :] * share, w, self.scale),
            )
            for r in range(vectors.shape[-3])
        ]

    @classmethod
    def batch(cls, shape: tuple[int, int], scale: int, vectors: Tensor) -> Operator:
        """An operator with another kernel for every sample of a batch.

        Parameters
        ----------
        shape : (h, w)
            Of the coarse images.
        scale : int
            Fine pixels per coarse pixel and axis.
        vectors : (B, rank, 2, K) tensor
            The `separable_terms` of every sample, K odd.

        Returns
        -------
        Operator
            On (B, C, s*h, s*w) images, quantity ``sum``.
        """
        identity = cls(shape, scale, dtype=vectors.dtype, device=vectors.device)
        each = vectors[:, None]
        terms = identity._axis_operators(each)
        return cls(shape, scale, None, "sum", vectors.dtype, vectors.device, terms, each)

    def apply(self, high: Tensor) -> Tensor:
        """A x: the coarse image of a fine one.

        Parameters
        ----------
        high : (..., s*h, s*w) tensor

        Returns
        -------
        (..., h, w) tensor
            A sum over blocks, or for quantity ``mean`` their mean.
        """
        if self.blur:
            return self._block_sum(self.blur.apply(high))
        low = [columns.matrix.multiply_rows(rows.matrix.multiply(high)) for rows, columns in self.terms]
        return torch.stack(low).sum(0) if len(low) > 1 else low[0]

    def adjoint(self, low: Tensor) -> Tensor:
        """A^T y, with ``<A x, y> == <x, A^T y>`` to rounding.

        **Not an inverse, and it does not conserve flux**: for quantity ``sum`` each coarse value goes, through the
        kernel, to every fine pixel of its area.

        Parameters
        ----------
        low : (..., h, w) tensor

        Returns
        -------
        (..., s*h, s*w) tensor
        """
        if self.blur:
            return self.blur.adjoint(self._spread(low))
        return _total(rows.transpose.multiply(columns.transpose.multiply_rows(low)) for rows, columns in self.terms)

    def apply_weighted_gram(self, low: Tensor, w2: Tensor) -> Tensor:
        """A (w^2 A^T y): the Gram matrix A diag(w^2) A^T, applied.

        On a CPU and without gradients strip by strip, so that the fine image between never leaves the cache.

        Parameters
        ----------
        low : (..., h, w) tensor
            The coarse image y.
        w2 : (..., s*h, s*w) tensor
            Weights on the fine grid, for example prior variances.

        Returns
        -------
        (..., h, w) tensor
        """
        separate = self.blur or self.batched or not (is_single_image(low) and is_single_image(w2))
        if torch.is_grad_enabled() or low.is_cuda or separate:
            return self.apply(w2 * self.adjoint(low))
        weights, image = w2.reshape(w2.shape[-2:]), low.reshape(low.shape[-2:])
        wide = [columns.transpose.multiply_rows(image) for _, columns in self.terms]
        sums = [torch.zeros_like(v) for v in wide]
        for strips in zip(*(rows.transpose.strips for rows, _ in self.terms), strict=True):
            at, reach, _ = strips[0]
            fine = strips[0][2] @ wide[0][reach]
            for (_, _, m), v in zip(strips[1:], wide[1:], strict=True):
                fine.addmm_(m, v[reach])
            fine.mul_(weights[at])
            for (_, _, m), total in zip(strips, sums, strict=True):
                total[reach].addmm_(m.mT, fine)
        parts = [columns.matrix.multiply_rows(total) for (_, columns), total in zip(self.terms, sums, strict=True)]
        return (torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]).view(low.shape)

    def rescale(self, factor: float) -> Operator:
        """The operator whose kernels are drawn out by a factor, see `rescale_kernel`; pixel integration has none."""
        if self.blur:
            return Operator(
                self.shape, self.scale, self.blur.psf.rescale(factor), self.quantity, self.dtype, self.device
            )
        if not isinstance(self.kernel, np.ndarray):
            return self
        kernel = rescale_kernel(self.kernel, factor)
        return Operator(self.shape, self.scale, kernel, self.quantity, self.dtype, self.device)

    @property
    def batched(self) -> bool:
        """True with a kernel of its own for every sample."""
        return bool(self.terms) and self.terms[0][0].matrix.matrices.ndim > 3

    @property
    def pure(self) -> bool:
        """True for pixel integration alone, where consistency has a closed form."""
        return self.kernel is None and not self.blur and not self.batched

    @cached_property
    def magnitude(self) -> Operator:
        """An operator in float64 whose matrix is nowhere below the absolute values of this one's.

        Of the terms that are applied, not of the kernel that they stand for: a cut sum is negative where the kernel is
        not, and where w^2 is the square of a bright star's 10^4 sigma the smallest negative value outweighs the noise
        (`separable.bounding_terms`).  Terms without negative values are their own bound.  Of a PSF that changes
        over the field `FieldBlur` knows the bound.
        """
        if self.blur:
            return replace(self, dtype=torch.float64, blur=replace(self.blur, dtype=torch.float64, bounding=True))
        if self.vectors is None or all(is_nonnegative(v) for v in self._each_kernel()):
            return self
        rounding = torch.finfo(self.dtype).eps
        bounds = [bounding_terms(v, rounding) for v in self._each_kernel()]
        most = max(len(b) for b in bounds)
        padded = np.stack([np.pad(b, ((0, most - len(b)), (0, 0), (0, 0))) for b in bounds])
        vectors = torch.from_numpy(padded[:, None] if self.batched else padded[0]).to(self.device)
        terms = self._axis_operators(vectors)
        return replace(self, kernel=None, dtype=torch.float64, terms=terms, vectors=vectors)

    def _each_kernel(self) -> list[NDArray[np.float64]]:
        """The applied terms (rank, 2, K) of every kernel, of a batch or the only one."""
        assert self.vectors is not None
        applied = self.vectors.detach().double().cpu().numpy()
        return list(applied.reshape(-1, *applied.shape[-3:]))

    def double(self) -> Operator:
        """The same operator in float64."""
        if self.dtype == torch.float64:
            return self
        vectors = None if self.vectors is None else self.vectors.double()
        terms = () if vectors is None else self._axis_operators(vectors)
        blur = self.blur and replace(self.blur, dtype=torch.float64)
        return replace(self, dtype=torch.float64, terms=terms, vectors=vectors, blur=blur)

    def _block_sum(self, high: Tensor) -> Tensor:
        """The sum, or for quantity ``mean`` the mean, over the fine pixels of every coarse one."""
        divisor = self.scale**2 if self.quantity == "mean" else 1
        blocks = F.avg_pool2d(high.reshape(-1, 1, *high.shape[-2:]), self.scale, divisor_override=divisor)
        return blocks.reshape(*high.shape[:-2], *self.shape)

    def _spread(self, low: Tensor) -> Tensor:
        """The transpose of `_block_sum`."""
        s, (h, w) = self.scale, low.shape[-2:]
        low = low / s**2 if self.quantity == "mean" else low
        return low[..., :, None, :, None].expand(*low.shape[:-2], h, s, w, s).reshape(*low.shape[:-2], s * h, s * w)


def _total(parts: Iterable[Tensor]) -> Tensor:
    """The sum of tensors of one shape, in place where no gradient is needed."""
    total: Tensor | None = None
    for part in parts:
        total = part if total is None else total + part if part.requires_grad else total.add_(part)
    assert total is not None
    return total
