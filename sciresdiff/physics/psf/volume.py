"""The point spread function of a stack: a kernel in three dimensions.

**Its plane of focus has the sum 1**, whatever the kind of microscope: a restored volume is in the light that the plane
of focus receives.  A widefield microscope sees all light of a point in every plane, so that the sum over each plane is
1 before the kernel is cut; a confocal one and a light sheet lose it with the distance.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sciresdiff.errors import InputError


@dataclass(frozen=True, eq=False)
class VolumePSF:
    """Blur between points and the planes of a stack, before the fine pixels are added up."""

    kernel: NDArray[np.float32]
    """(Kz, Ky, Kx), odd sides, the focus in the middle; in planes of the stack and fine px."""
    name: str = "psf"
    """Where it comes from, for messages."""

    def __post_init__(self) -> None:
        """Refuse a kernel without a centre or without light."""
        kernel = self.kernel
        if kernel.ndim != 3 or any(n % 2 == 0 for n in kernel.shape):
            raise InputError(f"{self.name}: a kernel of odd sides (z, y, x) is needed, got {kernel.shape}")
        if not np.isfinite(kernel).all() or not kernel[len(kernel) // 2].sum() > 0:
            raise InputError(f"{self.name}: a PSF has finite values and light in its plane of focus; check it")

    @classmethod
    def of_array(cls, kernel: NDArray[Any], name: str = "psf") -> VolumePSF:
        """The PSF of a kernel of any sum."""
        kernel = np.asarray(kernel, np.float64)
        return cls((kernel / kernel[len(kernel) // 2].sum()).astype(np.float32), name)

    @property
    def focus(self) -> NDArray[np.float64]:
        """(Ky, Kx), the plane of focus."""
        return self.kernel[len(self.kernel) // 2].astype(np.float64)

    @property
    def axial(self) -> NDArray[np.float64]:
        """(Kz,): what a point's own pixel receives, from the plane of focus outwards on both sides."""
        planes, h, w = self.kernel.shape
        return self.kernel[:, h // 2, w // 2].astype(np.float64)

    @cached_property
    def digest(self) -> str:
        """Hash of the kernel."""
        return hashlib.blake2b(np.ascontiguousarray(self.kernel).data, digest_size=16).hexdigest()

    def rescale(self, factor: float) -> VolumePSF:
        """The PSF drawn out by a factor along all axes, its plane of focus of the same sum."""
        axes = [np.arange(n) - n // 2 for n in self.kernel.shape]
        places = np.meshgrid(
            *(a / factor + n // 2 for a, n in zip(axes, self.kernel.shape, strict=True)), indexing="ij"
        )
        kernel = ndimage.map_coordinates(self.kernel.astype(np.float64), places, order=3, mode="nearest")
        return VolumePSF.of_array(kernel * (self.focus.sum() / kernel[len(kernel) // 2].sum()), self.name)
