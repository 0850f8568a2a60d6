"""The measurement of a stack of planes: blur in three dimensions, then integration over the pixels of every plane.

Out-of-focus light of a widefield microscope spreads over a cone, whose disks with their rings are no short sum of
separable kernels: at an aperture of 1.3 the disk 5 um from the focus is 120 fine px wide on either side.  So the
convolution is made by FFTs that are long enough not to wrap: it is linear and no approximation, with an error of the
rounding of float32 (1e-6 of the brightest voxel).

The wanted volume is larger than the stack.  Light reaches the measured planes from above, from below and from beside
them; nothing reflects it back.  What lies there is unknown, is restored with the rest, and is cut off at the end.
"""

from __future__ import annotations

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
        """Of the transforms: long enough that nothing that wraps around falls on a measured pixel."""
        return tuple(  # type: ignore[return-value]
            next_fast_len(max(n, at.stop + k // 2), real=True)
            for n, at, k in zip(self.volume, self.inside, self.kernel.shape, strict=True)
        )

    @cached_property
    def spectrum(self) -> Tensor:
        """The kernel's transform; its centre is the first voxel."""
        kernel, n = torch.from_numpy(self.kernel).to(self.device, self.dtype), self.lengths
        padded = torch.zeros(n, dtype=self.dtype, device=self.device)
        padded[tuple(slice(0, k) for k in kernel.shape)] = kernel
        padded = padded.roll([-(k // 2) for k in kernel.shape], (0, 1, 2))
        return torch.fft.rfftn(padded)

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
        found = torch.fft.rfftn(high, s=self.lengths, dim=(-3, -2, -1)).mul_(self.spectrum)
        seen = torch.fft.irfftn(found, s=self.lengths, dim=(-3, -2, -1))[(..., *self.inside)]
        return block_sums(seen, self.scale) * self.share

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
        fine = low.repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2) * self.share
        before = [at.start for at in self.inside]
        padding = [p for m, n, at in zip(before, self.lengths, self.inside, strict=True) for p in (m, n - at.stop)]
        found = torch.fft.rfftn(F.pad(fine, padding[4:] + padding[2:4] + padding[:2]), dim=(-3, -2, -1))
        found = found.mul_(self.spectrum.conj())
        return torch.fft.irfftn(found, s=self.lengths, dim=(-3, -2, -1))[
            (..., *(slice(0, n) for n in self.volume))
        ].contiguous()

    def apply_weighted_gram(self, low: Tensor, w2: Tensor) -> Tensor:
        """A (w^2 A^T y): the Gram matrix A diag(w^2) A^T, applied.

        Parameters
        ----------
        low : (..., C, h, w) tensor
        w2 : (..., D, H, W) tensor
            Weights of the voxels, for example prior variances.
        """
        return self.apply(self.adjoint(low).mul_(w2))

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


def block_sums(v: Tensor, scale: int) -> Tensor:
    """(..., s*h, s*w) added up over blocks of ``scale x scale``, (..., h, w)."""
    *lead, height, width = v.shape
    return v.reshape(*lead, height // scale, scale, width // scale, scale).sum((-3, -1))
