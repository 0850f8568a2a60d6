"""The blur of an image by one kernel through its Fourier transform, with an exact adjoint.

Several exposures see one image: its transform is made once for all of their kernels, and the light that their adjoints
send back is added up before it is transformed.  Rounding is 1e-7 of the image's root mean square.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciresdiff.errors import InputError
from sciresdiff.physics.field_blur import fold, reflected_line, room_of
from sciresdiff.physics.psf.rescale import rescale_kernel


@dataclass(frozen=True)
class KernelBlur:
    """B x = k * x on one grid; borders reflect about the pixel edge (d c b a | a b c d | d c b a).

    ``apply`` is ``blur(transform(x))``, ``adjoint`` is ``fold(gather(y))``: blurs of the same `layout` share
    `transform`, and `fold` takes the sum of what several of them gather.

    Parameters
    ----------
    kernel : (K, L) array
        Odd sides, centred.
    size : (Y, X)
        Of the image.
    margin : (int, int)
        By which the image is reflected beyond its borders, at least half of the kernel's sides.
    dtype, device
        Of the images.

    Raises
    ------
    InputError
        A kernel with even sides, or one that reaches beyond the margin.
    """

    kernel: NDArray[np.float64]
    size: tuple[int, int]
    margin: tuple[int, int]
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        """Hold the kernel against the margin."""
        if any(side % 2 == 0 or side // 2 > most for side, most in zip(self.kernel.shape, self.margin, strict=True)):
            raise InputError(f"kernel: sides must be odd and reach {self.margin} px at most, got {self.kernel.shape}")

    @cached_property
    def layout(self) -> tuple[int, ...]:
        """What blurs that share transforms have in common: room and margin."""
        return *self.room, *self.margin

    @cached_property
    def room(self) -> tuple[int, int]:
        """Lengths of the transforms, in which what is cut off alone wraps around."""
        m, n = room_of(self.size, [2 * one + 1 for one in self.margin])
        return m, n

    def _kernel_spectrum(self) -> Tensor:
        """Transform of the kernel with its centre at the origin, in float64."""
        wide = np.zeros(self.room)
        wide[: self.kernel.shape[0], : self.kernel.shape[1]] = self.kernel
        return torch.fft.rfft2(torch.from_numpy(np.roll(wide, [-(side // 2) for side in self.kernel.shape], (0, 1))))

    def _to_device(self, spectrum: Tensor) -> Tensor:
        """A spectrum on the device, in the precision that is asked for."""
        return spectrum.to(self.device, torch.complex128 if self.dtype == torch.float64 else torch.complex64)

    @cached_property
    def spectrum(self) -> Tensor:
        """Transform of the kernel."""
        return self._to_device(self._kernel_spectrum())

    @cached_property
    def adjoint_spectrum(self) -> Tensor:
        """Transform of the kernel turned by half a turn, displaced by the margin."""
        (m, n), (h, w) = self.room, self.margin
        y, x = torch.fft.fftfreq(m, dtype=torch.float64), torch.fft.rfftfreq(n, dtype=torch.float64)
        angle = -2 * torch.pi * (h * y[:, None] + w * x)
        return self._to_device(self._kernel_spectrum().conj() * torch.polar(torch.ones_like(angle), angle))

    def transform(self, image: Tensor) -> Tensor:
        """Spectrum of an image (..., Y, X) with its reflected margin."""
        y, x = (
            torch.from_numpy(reflected_line(n, k)).to(image.device) for n, k in zip(self.size, self.margin, strict=True)
        )
        return torch.fft.rfft2(image.index_select(-2, y).index_select(-1, x), s=self.room)

    def blur(self, spectrum: Tensor) -> Tensor:
        """The blurred image, (..., Y, X), of what `transform` gives."""
        (y, x), (h, w) = self.margin, self.size
        return torch.fft.irfft2(spectrum * self.spectrum, s=self.room)[..., y : y + h, x : x + w]

    def gather(self, seen: Tensor) -> Tensor:
        """Spectrum of what the transpose sends to the image and its margin."""
        return torch.fft.rfft2(seen, s=self.room) * self.adjoint_spectrum

    def fold(self, spectrum: Tensor) -> Tensor:
        """The image (..., Y, X) of a spectrum that was gathered: what lies in the margin is folded back."""
        (y, x), (h, w) = self.margin, self.size
        wide = torch.fft.irfft2(spectrum, s=self.room)[..., : h + 2 * y, : w + 2 * x]
        return fold(fold(wide, h, -2), w, -1)

    def apply(self, image: Tensor) -> Tensor:
        """B x, (..., Y, X) to (..., Y, X)."""
        return self.blur(self.transform(image))

    def adjoint(self, seen: Tensor) -> Tensor:
        """B^T y, with ``<B x, y> == <x, B^T y>`` to rounding, (..., Y, X) to (..., Y, X)."""
        return self.fold(self.gather(seen))

    def rescale(self, factor: float) -> KernelBlur:
        """The blur by the kernel drawn out by a factor."""
        kernel = rescale_kernel(self.kernel, factor)
        margin = [max(most, side // 2) for most, side in zip(self.margin, kernel.shape, strict=True)]
        return replace(self, kernel=kernel, margin=(margin[0], margin[1]))

    @property
    def magnitude(self) -> KernelBlur:
        """The blur by the absolute values of the kernel."""
        return replace(self, kernel=np.abs(self.kernel))

    def double(self) -> KernelBlur:
        """The same blur in float64."""
        return replace(self, dtype=torch.float64)
