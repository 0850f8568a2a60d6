"""The measurement of a stack of planes: blur in three dimensions, then integration over the pixels of every plane.

Out-of-focus light of a widefield microscope spreads over a cone, whose disks with their rings are no short sum of
separable kernels: at an aperture of 1.3 the disk 5 um from the focus is 120 fine px wide on either side.  So the
convolution is made by FFTs that are long enough not to wrap: it is linear and no approximation, with an error of the
rounding of float32 (1e-6 of the brightest voxel).

The wanted volume is larger than the stack.  Light reaches the measured planes from above, from below and from beside
them; nothing reflects it back.  What lies there is unknown, is restored with the rest, and is cut off at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from torch import Tensor

from sciresdiff.errors import InputError
from sciresdiff.frame import Quantity
from sciresdiff.physics.local import BlockGrid
from sciresdiff.physics.psf.volume import VolumePSF

TOGETHER = 2**18
"""Numbers of a spectrum whose transforms along z are made together: what a processor's cache holds."""


@dataclass(frozen=True)
class DepthOperator(BlockGrid):
    """y = A x: the planes (1, C, h, w) that a volume (1, D, H, W) gives.

    A is a linear convolution with the kernel of a `VolumePSF` and then the sum, or for quantity ``mean`` the mean, over
    blocks of ``scale x scale`` fine pixels of the C measured planes.  The volume has D = C + 2 mz planes and
    H = s h + 2 m rows, W = s w + 2 m columns, with the margins mz and m; beyond it there is no light. **Light that
    leaves the planes is lost**, as it is under the microscope.

    Parameters
    ----------
    shape : (C, h, w)
        Of the measured planes.
    scale : int
        Fine pixels per pixel and axis.
    psf : VolumePSF
        On the planes and the fine pixels.
    margin : (mz, m)
        Planes above and below, and fine px around the measured ones, that are restored too.
    quantity : {"sum", "mean"}
        Of the measured planes.
    dtype, device
        Of the volumes.

    Raises
    ------
    InputError
        A shape without a pixel, or a margin below 0.
    """

    shape: tuple[int, int, int]
    scale: int
    psf: VolumePSF
    margin: tuple[int, int] = (0, 0)
    quantity: Quantity = "sum"
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"
    absolute: bool = False
    """Whether the kernel's absolute values are applied."""

    def __post_init__(self) -> None:
        """Refuse what has no voxel."""
        if min(self.shape) < 1 or self.scale < 1 or min(self.margin) < 0:
            raise InputError(f"depth: {self.shape} planes and pixels, scale {self.scale}, margin {self.margin}")

    @property
    def volume(self) -> tuple[int, int, int]:
        """(D, H, W) of the wanted volume."""
        (planes, h, w), (mz, m), s = self.shape, self.margin, self.scale
        return planes + 2 * mz, s * h + 2 * m, s * w + 2 * m

    @property
    def inside(self) -> tuple[slice, slice, slice]:
        """The measured planes and their area within the wanted volume."""
        (planes, h, w), (mz, m), s = self.shape, self.margin, self.scale
        return slice(mz, mz + planes), slice(m, m + s * h), slice(m, m + s * w)

    @property
    def pure(self) -> bool:
        """False: the covariance of the data is not diagonal."""
        return False

    @cached_property
    def kernel(self) -> NDArray[np.float64]:
        """(Kz, Ky, Kx), odd sides: the offsets that lie between a voxel and a measured pixel."""
        reach = [at.stop - 1 for at in self.inside]
        kernel: NDArray[np.float64] = self.psf.kernel.astype(np.float64)
        cut = [slice(max(n // 2 - r, 0), n // 2 + min(n // 2, r) + 1) for n, r in zip(kernel.shape, reach, strict=True)]
        kernel = kernel[tuple(cut)]
        return np.abs(kernel) if self.absolute else kernel

    @cached_property
    def lengths(self) -> tuple[int, int, int]:
        """Of the transforms along z, y and x: long enough that nothing that wraps around falls on a measured pixel.

        That along y is a multiple of the scale: the spectrum of every s-th row is then a sum of parts of that of all.
        """
        least = [max(n, at.stop + k // 2) for n, at, k in zip(self.volume, self.inside, self.kernel.shape, strict=True)]
        rows = self.scale * next_fast_len(-(-least[1] // self.scale))
        return next_fast_len(least[0]), rows, next_fast_len(least[2], real=True)

    @cached_property
    def spectrum(self) -> Tensor:
        """(nz, s, ny / s, nx // 2 + 1): transform of the kernel, added up over the pixel at the origin.

        Row i + j ny / s of the transform stands at [j, i].
        """
        nz, ny, nx = self.lengths
        kernel, (mz, m), s = torch.from_numpy(self.kernel).to(self.device, self.dtype), self.margin, self.scale
        planes = torch.zeros(nz, ny, nx // 2 + 1, dtype=self.dtype.to_complex(), device=self.device)
        padded = torch.zeros(ny, nx, dtype=self.dtype, device=self.device)
        depth, height, width = kernel.shape
        box = torch.ones(1, 1, s, s, dtype=self.dtype, device=self.device)
        for k in range(depth):
            padded.zero_()
            padded[: height + s - 1, : width + s - 1] = F.conv2d(kernel[k][None, None], box, padding=s - 1)[0, 0]
            first = [-(n // 2) - m - (s - 1) for n in (height, width)]
            planes[(k - depth // 2 - mz) % nz] = torch.fft.rfft2(padded.roll(first, (0, 1)))
        planes *= self.share / s  # 1 / s of the sum over parts
        for at in row_spans(ny, nz * (nx // 2 + 1)):
            planes[:, at] = torch.fft.fft(planes[:, at], dim=0)
        return planes.reshape(nz, s, ny // s, nx // 2 + 1)

    @property
    def share(self) -> float:
        """Of a fine pixel in the value of its pixel: 1 for ``sum``, 1 / s^2 for ``mean``."""
        return 1.0 if self.quantity == "sum" else self.scale**-2.0

    def apply(self, high: Tensor) -> Tensor:
        """A x: the planes that a volume gives.

        Parameters
        ----------
        high : (..., D, H, W) tensor

        Returns
        -------
        (..., C, h, w) tensor
        """
        return self._each(high, self._apply, self.shape)

    def _apply(self, high: Tensor) -> Tensor:
        """`apply` of one volume (D, H, W)."""
        fine = self.spectrum.new_empty(len(high), *self.spectrum.shape[1:])
        for plane, found in zip(high, fine, strict=True):
            self._transform(plane, found)
        return self._see(fine)

    def _transform(self, plane: Tensor, found: Tensor) -> None:
        """Put the transform along y and x of a plane (H, W) into ``found`` (s, ny / s, nx // 2 + 1)."""
        found.copy_(torch.fft.rfft2(plane, s=self.lengths[1:]).view(found.shape))

    def _see(self, fine: Tensor) -> Tensor:
        """The planes (C, h, w) of a volume's transforms (D, s, ny / s, nx // 2 + 1) along y and x.

        Transforms along z are made of a few rows at a time, which takes little memory.
        """
        (planes, h, w), (nz, ny, nx), s, spectrum = self.shape, self.lengths, self.scale, self.spectrum
        coarse = spectrum.new_empty(planes, *spectrum.shape[2:])
        for at in row_spans(ny // s, spectrum[:, :, 0].numel()):
            product = torch.fft.fft(fine[:, :, at], n=nz, dim=0).mul_(spectrum[:, :, at]).sum(1)
            coarse[:, at] = torch.fft.ifft(product, dim=0)[:planes]
        low = spectrum.real.new_empty(self.shape)
        for found, plane in zip(coarse, low, strict=True):
            plane.copy_(torch.fft.irfft2(found, s=(ny // s, nx))[:h, : s * w : s])
        return low

    def adjoint(self, low: Tensor) -> Tensor:
        """A^T y, with ``<A x, y> == <x, A^T y>`` to rounding.

        **Not an inverse, and it does not conserve flux**: every value goes, through the kernel, to all voxels that it
        may have come from.

        Parameters
        ----------
        low : (..., C, h, w) tensor

        Returns
        -------
        (..., D, H, W) tensor
        """
        return self._each(low, self._adjoint, self.volume)

    def _adjoint(self, low: Tensor) -> Tensor:
        """`adjoint` of the planes (C, h, w)."""
        fine, high = self._spread_back(low), low.new_empty(self.volume)
        for found, plane in zip(fine, high, strict=True):
            plane.copy_(self._transform_back(found))
        return high

    def _spread_back(self, low: Tensor) -> Tensor:
        """Transforms along y and x, as `_see` takes them, of what the adjoint makes of planes (C, h, w)."""
        (nz, ny, nx), s, spectrum, w = self.lengths, self.scale, self.spectrum, low.shape[-1]
        coarse, apart = spectrum.new_empty(len(low), *spectrum.shape[2:]), low.new_zeros(low.shape[-2], nx)
        for plane, found in zip(low, coarse, strict=True):
            apart[:, : s * w : s] = plane
            found.copy_(torch.fft.rfft2(apart, s=(ny // s, nx)))
        fine = spectrum.new_empty(self.volume[0], *spectrum.shape[1:])
        for at in row_spans(ny // s, spectrum[:, :, 0].numel()):
            seen = torch.fft.fft(coarse[:, at], n=nz, dim=0)[:, None]
            fine[:, :, at] = torch.fft.ifft(spectrum[:, :, at].conj() * seen, dim=0)[: len(fine)]
        return fine

    def _transform_back(self, found: Tensor) -> Tensor:
        """A plane (H, W) of the volume out of its transform of `_spread_back`."""
        (_, ny, nx), (_, height, width) = self.lengths, self.volume
        full = torch.fft.irfft2(found.reshape(ny, nx // 2 + 1), s=(ny, nx))
        # the inverse of all rows divides by ny, where that of the measured ones divides by ny / s
        return full[:height, :width].mul_(self.scale)

    def _each(self, given: Tensor, do: Callable[[Tensor], Tensor], shape: tuple[int, int, int]) -> Tensor:
        """What ``do`` makes of every volume of a tensor (..., Z, Y, X)."""
        found = [do(one) for one in given.flatten(0, -4)] if given.ndim > 3 else [do(given)]
        return (found[0][None] if len(found) == 1 else torch.stack(found)).view(*given.shape[:-3], *shape)

    def apply_weighted_gram(self, low: Tensor, w2: Tensor) -> Tensor:
        """A (w^2 A^T y): the Gram matrix A diag(w^2) A^T, applied.

        Parameters
        ----------
        low : (..., C, h, w) tensor
        w2 : (..., D, H, W) tensor
            Weights of the voxels, for example prior variances.
        """
        if low.ndim == 4 and len(low) == 1:
            return self._gram(low[0], w2.expand(1, *self.volume)[0])[None]
        return self.apply(self.adjoint(low).mul_(w2))

    def _gram(self, low: Tensor, w2: Tensor) -> Tensor:
        """`apply_weighted_gram` of one stack: a plane of the volume is weighted between its two transforms."""
        fine = self._spread_back(low)
        for found, weight in zip(fine, w2, strict=True):
            self._transform(self._transform_back(found).mul_(weight), found)
        return self._see(fine)

    def spread(self, low: Tensor) -> Tensor:
        """A map of the planes' pixels on the volume's voxels: each on its area, the outermost beyond it.

        Parameters
        ----------
        low : (1, C, h, w) tensor

        Returns
        -------
        (1, D, H, W) tensor
        """
        mz, m = self.margin
        fine = low.repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2)
        return F.pad(fine[None], (m, m, m, m, mz, mz), mode="replicate")[0]

    def crop(self, high: Tensor) -> Tensor:
        """The measured planes' part (1, C, s*h, s*w) of a volume (1, D, H, W)."""
        return high[(..., *self.inside)]

    def rescale(self, factor: float) -> DepthOperator:
        """The operator of a PSF that is drawn out by a factor, see `VolumePSF.rescale`."""
        return replace(self, psf=self.psf.rescale(factor))

    @cached_property
    def magnitude(self) -> DepthOperator:
        """An operator whose matrix is that of this one's absolute values, to the rounding of its type."""
        return replace(self, absolute=True) if (self.psf.kernel < 0).any() else self

    def double(self) -> DepthOperator:
        """The same in float64."""
        return replace(self, dtype=torch.float64)


def row_spans(rows: int, numbers: int) -> list[slice]:
    """All rows of a spectrum, each of so many numbers, some at a time."""
    some = max(TOGETHER // numbers, 1)
    return [slice(first, min(first + some, rows)) for first in range(0, rows, some)]
