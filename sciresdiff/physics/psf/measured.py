"""A PSF that was measured: a Moffat, what the sources have beside it, and how well its width is known."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sciresdiff.notes import Notes
from sciresdiff.physics.psf.image import difference_kernel, fwhm
from sciresdiff.physics.psf.kernel import render, target_psf
from sciresdiff.physics.psf.moffat_fit import MoffatShape, moffat_pixels
from sciresdiff.physics.psf.residual_table import ResidualTable

Array = NDArray[np.float64]

CORE = 1e-3
"""Share of the peak above which pixels count for the centre of a PSF."""

FINE = 6
"""Points per px with which a width is measured."""


@dataclass(frozen=True)
class MeasuredPSF:
    """A PSF measured on point sources."""

    shape: MoffatShape
    table: ResidualTable | None
    """What the sources have beside it; None for nothing."""
    used: int
    """Sources that it was measured from."""
    found: int
    """Sources that were seen."""
    fwhm_error: float
    """Standard error of the width, as a share of it."""
    scatter: float = 0.0
    """Of ln FWHM from source to source, beyond their errors."""
    e_error: float = 0.0
    """Standard error of the ellipticity."""
    share: float = 1.0
    """Of the usable sources, those of this width."""
    notes: Notes = field(default_factory=Notes)

    @cached_property
    def fwhm(self) -> float:
        """Width at half maximum before the pixel integrates it, px of the frame."""
        if self.table is None:
            return self.shape.fwhm
        return fwhm(self._draw(FINE, 1e-3, 1.2 * self.shape.fwhm)) / FINE

    def render(self, oversample_of: int = 1) -> Array:
        """The PSF integrated over the pixels of a grid that is so many times finer: (K, L), odd sides, sum 1."""
        if self.table is None:
            return render(self.shape.spec, None, integrate=True, oversample_of=oversample_of)
        sides = render(self.shape.spec, None, integrate=False, oversample_of=oversample_of).shape
        reach = max(max(sides) // 2 / oversample_of, self.table.radius)
        image = self._draw(oversample_of, 1 / oversample_of, reach)
        return image / image.sum()

    def _draw(self, fine: int, side: float, reach: float) -> Array:
        """Values out to ``reach`` px, ``fine`` of them per px, each a mean over a ``side``; centred on its light."""
        line = np.arange(-int(np.ceil(reach * fine)), int(np.ceil(reach * fine)) + 1) / fine
        place = np.zeros(2)
        for _ in range(3):  # the threshold of the centroid moves with the image
            image = self._values(line + place[0], line + place[1], side)
            weight = np.where(image > CORE * image.max(), image, 0)
            place = place + [weight.sum(1) @ line / weight.sum(), weight.sum(0) @ line / weight.sum()]
        return self._values(line + place[0], line + place[1], side)

    def _values(self, y: Array, x: Array, side: float) -> Array:
        """Means over pixels at (y, x), px; the Moffat's peak is 1."""
        shape = self.shape
        p = np.array([[1, 0, 0, np.log(shape.fwhm / side), max(shape.wings, 0.004), shape.e1, shape.e2, 0]])
        grid = [a.ravel() / side for a in np.meshgrid(y, x, indexing="ij")]
        image = moffat_pixels(p, (grid[0], grid[1]), shape.fwhm / side)[0].reshape(len(y), len(x))
        return image if self.table is None else image + self.table.evaluate(y, x, side)

    def rescale(self, factor: float) -> MeasuredPSF:
        """The same PSF in pixels that are ``factor`` times smaller."""
        shape = replace(self.shape, fwhm=self.shape.fwhm * factor)
        table = self.table and replace(self.table, step=self.table.step * factor)
        return replace(self, shape=shape, table=table)

    def kernel(self, scale: int, target_fwhm: float) -> Array:
        """The kernel between an image with a Gaussian PSF of ``target_fwhm`` fine px and the frame: (K, L).

        Parameters
        ----------
        scale : int
            Fine pixels per pixel of the frame.
        target_fwhm : float
            Fine px.

        Raises
        ------
        InputError : the PSF is narrower than the target.
        """
        return difference_kernel(self.render(scale), target_psf(target_fwhm))
