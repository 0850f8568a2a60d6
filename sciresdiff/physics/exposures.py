"""The measurement of several exposures of one image: each with its own blur, on its own pixels.

An exposure sees the image through its PSF, a convolution on the image's grid, and then through its own pixels, which
lie shifted, turned, distorted or of another size on that grid (`resample`).  Its values are stacked beside those of the
others as channels; one that has fewer pixels is filled up with pixels that see nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sciresdiff.physics.kernel_blur import KernelBlur
from sciresdiff.physics.local import box_mean
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.resample import Resampling

AROUND = 2.5
"""Radius over which a background is averaged, coarse px."""
TOUCHED = 1e-3
"""Part of a pixel that a map has to cover to be felt there."""
LOBES = 1e-3
"""Negative light of a kernel, in units of its sum, that is felt."""


@dataclass(frozen=True)
class Seen:
    """What one exposure sees: a blur on the grid of the image, then its own pixels."""

    blur: KernelBlur | Operator | None
    """On the image: by one kernel, or (of scale 1) by a PSF that changes over the field; None for none."""
    pixels: Resampling

    @cached_property
    def lobes(self) -> KernelBlur | None:
        """The blur by the negative values of the kernel (of the mean one where it changes), taken positive."""
        if isinstance(self.blur, KernelBlur):
            kernel, margin = self.blur.kernel, self.blur.margin
        elif self.blur is not None and self.blur.blur is not None:
            kernel = self.blur.blur.psf.mean
            margin = kernel.shape[0] // 2, kernel.shape[1] // 2
        else:
            return None
        below = np.maximum(-kernel, 0)
        if below.sum() < LOBES * kernel.sum():
            return None
        return KernelBlur(below, self.pixels.size, margin, self.pixels.dtype, self.pixels.device)


@dataclass(frozen=True)
class ExposuresOperator:
    """y = A x: what C exposures (1, C, h, w) see of one image (1, 1, Y, X).

    <A x, y> == <x, A^T y> to rounding, with A^T y the sum over exposures.  Pixels whose area leaves the image, and
    those that an exposure has not, see nothing: their values are 0, and **they have to be invalid in the data**.

    Parameters
    ----------
    parts : of every exposure.
    scale : float
        Pixels of the image along the side of one of a typical exposure.
    """

    parts: Sequence[Seen]
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w): the largest sides of the exposures."""
        return max(p.pixels.shape[0] for p in self.parts), max(p.pixels.shape[1] for p in self.parts)

    @property
    def size(self) -> tuple[int, int]:
        """(Y, X) of the image."""
        return self.parts[0].pixels.size

    @property
    def dtype(self) -> torch.dtype:
        """Of the images."""
        return self.parts[0].pixels.dtype

    @property
    def pure(self) -> bool:
        """False: exposures share the pixels of the image, so that the covariance of the data is not diagonal."""
        return False

    def _stack(self, each: Sequence[Tensor]) -> Tensor:
        """(1, 1, h_k, w_k) of every exposure as channels (1, C, h, w)."""
        h, w = self.shape
        return torch.cat([F.pad(one, (0, w - one.shape[-1], 0, h - one.shape[-2])) for one in each], dim=1)

    def _of(self, number: int, seen: Tensor) -> Tensor:
        """The pixels (1, 1, h_k, w_k) that an exposure has, of a stack."""
        h, w = self.parts[number].pixels.shape
        return seen[:, number : number + 1, :h, :w]

    def apply(self, image: Tensor) -> Tensor:
        """A x, (1, 1, Y, X) to (1, C, h, w): the light on every pixel of every exposure."""
        spectra: dict[tuple[int, ...], Tensor] = {}
        each = []
        for part in self.parts:
            blurred, blur = image, part.blur
            if isinstance(blur, KernelBlur):
                if blur.layout not in spectra:
                    spectra[blur.layout] = blur.transform(image)
                blurred = blur.blur(spectra[blur.layout])
            elif blur is not None:
                blurred = blur.apply(image)
            each.append(part.pixels.apply(blurred))
        return self._stack(each)

    def adjoint(self, seen: Tensor) -> Tensor:
        """A^T y, (1, C, h, w) to (1, 1, Y, X): the sum over exposures. **Not an inverse.**"""
        spectra: dict[tuple[int, ...], tuple[KernelBlur, Tensor]] = {}
        total = seen.new_zeros(1, 1, *self.size)
        for number, part in enumerate(self.parts):
            light, blur = part.pixels.adjoint(self._of(number, seen)), part.blur
            if isinstance(blur, KernelBlur):
                gathered = blur.gather(light)
                if blur.layout in spectra:
                    gathered += spectra[blur.layout][1]
                spectra[blur.layout] = blur, gathered
            else:
                total += light if blur is None else blur.adjoint(light)
        for blur, gathered in spectra.values():
            total += blur.fold(gathered)
        return total

    def apply_weighted_gram(self, seen: Tensor, w2: Tensor) -> Tensor:
        """A (w^2 A^T y): the Gram matrix A diag(w^2) A^T, applied.

        Parameters
        ----------
        seen : (1, C, h, w) tensor
            y.
        w2 : (1, 1, Y, X) tensor
        """
        return self.apply(w2 * self.adjoint(seen))

    def adjoint_of_lobes(self, seen: Tensor) -> Tensor:
        """What the negative values of the blurs, taken positive, send back: (1, C, h, w) to (1, 1, Y, X).

        A^T y + 2 of it is |B|^T R^T y.

        Parameters
        ----------
        seen : y, at least 0.
        """
        total = seen.new_zeros(1, 1, *self.size)
        for number, part in enumerate(self.parts):
            if part.lobes is not None:
                total += part.lobes.adjoint(part.pixels.adjoint(self._of(number, seen)).clamp_min(0))
        return total

    @cached_property
    def area(self) -> Tensor:
        """(1, C, h, w), of every pixel in pixels of the image; 0 where it sees nothing."""
        each = [torch.from_numpy(part.pixels.area)[None, None] for part in self.parts]
        return self._stack([one.to(self.parts[0].pixels.device, self.parts[0].pixels.dtype) for one in each])

    @cached_property
    def coverage(self) -> Tensor:
        """(1, C, h, w), 1 where a pixel lies on the image."""
        return (self.area > 0).to(self.area.dtype)

    @cached_property
    def relative_area(self) -> Tensor:
        """(1, C, h, w), area of a pixel over scale^2; 1 where it sees nothing."""
        return torch.where(self.area > 0, self.area / self.scale**2, torch.ones_like(self.area))

    @cached_property
    def _seen_by(self) -> list[Tensor]:
        """How much of a pixel of the image every exposure's pixels cover, (1, 1, Y, X), 0 to 1."""
        ones = self.coverage
        return [part.pixels.adjoint(self._of(k, ones)) for k, part in enumerate(self.parts)]

    def spread(self, coarse: Tensor) -> Tensor:
        """A map (1, C, h, w) of the exposures on the image, (1, 1, Y, X): the largest of what is over a pixel.

        For weights and flags, which are at least 0: **sums are not conserved**.
        """
        each = [
            part.pixels.adjoint(self._of(k, coarse)) / self._seen_by[k].clamp_min(0.1)
            for k, part in enumerate(self.parts)
        ]
        return torch.stack(each).amax(0).clamp_min(0)

    def gather(self, fine: Tensor) -> Tensor:
        """The mean of a map (1, 1, Y, X), at least 0, in every pixel of the exposures; 0 where that is below 1e-3."""
        mean = self._stack([part.pixels.apply(fine) for part in self.parts]) / self.area.clamp_min(1e-6)
        return torch.where(mean > TOUCHED, mean, torch.zeros_like(mean))

    def seen_by_others(self, valid: Tensor) -> Tensor:
        """How often valid pixels of the other exposures cover a pixel, (1, C, h, w), 0 to C - 1.

        Parameters
        ----------
        valid : (1, C, h, w) tensor
            1 where a pixel is valid, else 0.
        """
        each = [part.pixels.adjoint(self._of(k, valid)) for k, part in enumerate(self.parts)]
        total = torch.stack(each).sum(0)
        seen = [part.pixels.apply(total - one) for part, one in zip(self.parts, each, strict=True)]
        return self._stack(seen) / self.area.clamp_min(1e-6)

    def significance(self, y: Tensor, noise: Tensor, valid: Tensor, radius: int) -> Tensor:
        """How many standard deviations the light around a pixel of the image is above the sky, (1, 1, Y, X).

        sum y / N over sqrt(sum 1 / N), over what valid pixels of all exposures see of a square.

        Parameters
        ----------
        y, noise, valid : (1, C, h, w) tensors
            Light above the sky, variances above 0, and 1 where a pixel is valid, else 0.
        radius : int
            The square has 2 radius + 1 pixels of the image.
        """
        inverse = valid / noise
        light, weight = (
            torch.stack([part.pixels.adjoint(self._of(k, seen)) for k, part in enumerate(self.parts)]).sum(0)
            for seen in (inverse * y, inverse)
        )
        # a pixel of an exposure weighs scale^2 times in a sum over the image
        side = (2 * radius + 1) / self.scale
        return side * box_mean(light, radius) / box_mean(weight, radius).clamp_min(1e-9).sqrt()

    def average(self, fine: Tensor, radius: int) -> Tensor:
        """Means of a map (1, 1, Y, X) over ``2 radius + 1`` pixels of a typical exposure."""
        return box_mean(fine, round((radius + 0.5) * self.scale))

    def information(self, noise: Tensor) -> Tensor:
        """Inverse variance of a pixel of the image (1, 1, Y, X) that the noise of the pixels over it gives.

        Parameters
        ----------
        noise : (1, C, h, w) tensor
            Variances, above 0.
        """
        inverse = self.area.square() / noise
        each = [part.pixels.adjoint(self._of(k, inverse)).clamp_min(0) for k, part in enumerate(self.parts)]
        return torch.stack(each).sum(0)

    def spread_sigma(self, noise: Tensor) -> Tensor:
        """Standard deviation of a pixel of the image (1, 1, Y, X) that the noise (1, C, h, w) of all exposures gives.

        That of the mean over a pixel of an exposure; at most what a single pixel of noise 100 would give.
        """
        least = self.scale**4 / 1e4
        return self.information(noise).clamp_min(least).rsqrt()

    def contrast(self, fine: Tensor, noise: Tensor) -> Tensor:
        """How strongly an image varies about its local background, (1, 1, Y, X), never below its noise.

        The background is the mean over five pixels of an exposure; the contrast the root mean square deviation from it
        over 3 x 3 pixels of the image.
        """
        background = box_mean(fine, round(AROUND * self.scale))
        return (box_mean((fine - background).square(), 1) + self.spread_sigma(noise).square()).sqrt()

    def rescale(self, factor: float) -> ExposuresOperator:
        """The operator whose kernels are drawn out by a factor."""
        return replace(self, parts=[replace(p, blur=p.blur and p.blur.rescale(factor)) for p in self.parts])

    @cached_property
    def magnitude(self) -> ExposuresOperator:
        """An operator in float64 whose matrix is nowhere below the absolute values of this one's: |R| |B|."""
        parts = [Seen(p.blur and p.blur.magnitude.double(), p.pixels.magnitude()) for p in self.parts]
        return replace(self, parts=parts)

    def double(self) -> ExposuresOperator:
        """The same operator in float64."""
        parts = [Seen(p.blur and p.blur.double(), replace(p.pixels, dtype=torch.float64)) for p in self.parts]
        return replace(self, parts=parts)
