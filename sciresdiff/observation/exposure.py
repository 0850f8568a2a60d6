"""One image that was taken: its pixels, its noise, its PSF, and where it lies on the output grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import Frame, Quantity
from sciresdiff.io.source import Source, in_memory
from sciresdiff.observation.grid import Grid
from sciresdiff.observation.noise import PER_PIXEL, Noise, crop_frame
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.statistics import PlaneStatistics
from sciresdiff.region import Region

Array = NDArray[Any]
UNIT_SUM = 1e-3
"""How far a kernel's sum may be from 1; a flux that is off by so little is within any calibration."""


@dataclass(frozen=True)
class Exposure:
    """y = A x + n, as far as one image tells it: y and what is no data, the variance of n, and what A is made of.

    The image may have several planes (times, channels, depths), which share the noise model, and the PSF unless
    ``psfs`` has one for each; it may be a file that is read by windows.  `window` gives the same for a part of one
    plane, in memory.
    """

    image: Source
    """Pixels, mask, and what the file says of the variance; (planes, h, w), read by windows."""
    grid: Grid
    """The image's own pixels."""
    noise: Noise
    psf: PSF | None = None
    """Blur between the wanted image and this one, on the output grid; None: integration over the pixel alone.
    Where the planes have PSFs of their own, that of the first."""
    quantity: Quantity = "sum"
    """``sum``: the value of a pixel is the sum of the finer pixels in it; ``mean``: their mean."""
    statistics: tuple[PlaneStatistics, ...] = ()
    """What every plane is like as a whole, where planes are restored in parts; else empty."""
    region: Region | None = None
    """Where a window lies in its plane; None for whole planes."""
    psfs: tuple[PSF | None, ...] = ()
    """The PSF of every plane, where they differ (channels of several wavelengths, beams); else empty."""

    def __post_init__(self) -> None:
        """Refuse PSFs that are not one for each plane."""
        planes = self.image.frame.planes
        if self.psfs and len(self.psfs) != planes:
            raise InputError(f"psf: {len(self.psfs)} PSFs for {planes} planes; give one, or one for each plane")

    @classmethod
    def of_arrays(
        cls,
        pixels: Array,
        variance: Array,
        mask: Array | None = None,
        psf: PSF | Array | None = None,
        quantity: Quantity = "sum",
    ) -> Exposure:
        """An exposure of one plane out of arrays.

        Parameters
        ----------
        pixels : (h, w), any linear unit; NaN where there is no value.
        variance : (h, w), unit**2, of the noise; a pixel without a variance above 0 counts as masked.
        mask : (h, w), True where a pixel carries no information.
        psf : the blur on the output grid, a `PSF` or one kernel (K, L) with odd sides and sum 1; None for none.
        quantity : ``sum`` or ``mean``.

        Raises
        ------
        InputError : arrays whose shapes differ or that are no real numbers, a kernel with even sides or of another sum
            than 1, or a quantity that is none.
        """
        pixels, variance = np.asarray(pixels), np.asarray(variance)
        for name, given in (("pixels", pixels), ("variance", variance)):
            if given.ndim != 2 or not given.size or given.dtype.kind not in "iuf":
                raise InputError(
                    f"{name}: an array of shape {given.shape} and type {given.dtype} is given; give numbers of shape "
                    "(h, w)"
                )
        if quantity not in get_args(Quantity):
            raise InputError(f"quantity: {quantity!r} is given, but sum or mean is allowed")
        if isinstance(psf, str):
            raise InputError(f"psf: the text {psf!r} is given; give a PSF or an array (K, L) on the output grid")
        values = pixels.astype(np.float32)
        bad = ~np.isfinite(values) if mask is None else np.asarray(mask, bool)
        frame = Frame(values[None], bad[None], "astro", variance=variance[None], quantity=quantity, shape=values.shape)
        blur = psf if isinstance(psf, PSF | None) else PSF.constant(psf)
        if isinstance(psf, np.ndarray) and not abs(psf.sum() - 1) < UNIT_SUM:
            raise InputError(f"psf: the kernel's sum is {psf.sum():g}, but 1 keeps the flux; divide it by its sum")
        return cls(in_memory(frame), Grid((values.shape[0], values.shape[1])), Noise(), blur, quantity)

    @property
    def origin(self) -> tuple[int, int]:
        """(y, x) of the first pixel in its plane."""
        return (0, 0) if self.region is None else (self.region.y0, self.region.x0)

    def psf_of(self, plane: int) -> PSF | None:
        """The PSF of a plane."""
        return self.psfs[plane] if self.psfs else self.psf

    @property
    def distinct_psfs(self) -> tuple[PSF | None, ...]:
        """The PSFs of the planes, each once, in the order of the planes."""
        return tuple(dict.fromkeys(self.psfs)) if self.psfs else (self.psf,)

    def window(self, plane: int, region: Region) -> Exposure:
        """A part of one plane, in memory; the same whoever asks, and whatever was asked before.

        Parameters
        ----------
        region : pixels of this exposure.
        """
        # The expected signal of a pixel, and what the PSF's width changes in it, depend on pixels beyond the window.
        wide = region.grown(self.noise.reach, self.grid.shape)
        frame, noise, inside = self.image.window(plane, wide), self.noise.window(plane, wide), region.within(wide)
        if noise.depends_on_signal:
            noise = replace(noise, expected=noise.expectation(frame))
        if noise.width_errors:
            noise = replace(noise, width_change=noise.change_of_width(frame))
        return replace(
            self,
            image=in_memory(frame if wide == region else crop_frame(frame, inside.slices)),
            grid=replace(self.grid, shape=region.shape),
            noise=noise.window(0, inside),
            psf=self.psf_of(plane),
            psfs=(),
            statistics=self.statistics[plane : plane + 1],
            region=region,
        )

    def with_pixels(self, pixels: Array, variance: Array) -> Exposure:
        """The same exposure of one plane with other data: another sky seen through it.

        Parameters
        ----------
        pixels, variance : (h, w), unit and unit**2.
        """
        changed = self.plane.with_(pixels=np.asarray(pixels, np.float32)[None], variance=np.asarray(variance)[None])
        return replace(self, image=in_memory(changed), noise=Noise())

    @cached_property
    def plane(self) -> Frame:
        """The values of an exposure of one plane, as a frame."""
        return self.image.window(0, Region.of_shape(self.grid.shape))

    @property
    def pixels(self) -> NDArray[np.float32]:
        """(h, w), of an exposure of one plane."""
        return self.plane.pixels[0]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(h, w), True where a pixel carries no information."""
        return self.plane.mask[0]

    @cached_property
    def variance(self) -> NDArray[np.floating[Any]]:
        """(h, w), unit**2, of the noise; not finite or 0 where it is not known."""
        return self.noise.variance(self.plane)

    @cached_property
    def pixel_variance(self) -> NDArray[np.floating[Any]]:
        """The same with `PER_PIXEL` of error of the PSF's width at most: what a restoration takes for noise."""
        return self.noise.limited(PER_PIXEL).variance(self.plane)

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """(h, w), True where a pixel carries information: finite, not masked, with a variance above 0."""
        v = self.variance
        return ~self.mask & np.isfinite(self.pixels) & np.isfinite(v) & (v > 0)
