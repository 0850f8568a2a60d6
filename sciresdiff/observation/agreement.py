"""Whether exposures have the flux and the place that their headers state, by what the first one shows of the same sky.

Both are read in one window, the middle of what they have in common.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import UnmeasuredError
from sciresdiff.notes import Notes
from sciresdiff.observation.alignment import PixelMap, hold_wcs, measure_alignment
from sciresdiff.observation.exposure_outliers import Cut, Shown, counterpart
from sciresdiff.observation.flux_scale import MeasuredScale, measure_scale
from sciresdiff.physics.interpolation import resample_cubic
from sciresdiff.physics.psf.point_sources import Field
from sciresdiff.region import Region

Array = NDArray[np.float64]

SIDE = 512
"""Largest side of the window, px of the first exposure."""


@dataclass(frozen=True)
class Pair:
    """A window of the first exposure and of another one, each in its own unit without its sky."""

    reference: Cut
    other: Cut
    to_reference: PixelMap
    """Px of the other window -> px of the first one's."""
    from_reference: PixelMap
    widths: tuple[float, float]
    """FWHM of PSF and pixel, px of each."""
    step: float
    """Side of the other one's pixels, px of the first."""

    @classmethod
    def read(cls, first: Shown, other: Shown) -> Pair:
        """The windows of two exposures.

        Parameters
        ----------
        first : whose pixels are the reference's.
        other : an exposure that overlaps it.

        Raises
        ------
        UnmeasuredError : they do not overlap.
        """
        common = counterpart(other, Region.of_shape(other.shape), first)
        if common is None:
            raise UnmeasuredError("the exposures do not overlap")
        y0, x0 = ((a + b - SIDE) // 2 if b - a > SIDE else a for a, b in zip(*_ends(common), strict=True))
        y1, x1 = (min(a + SIDE, b) for a, b in ((y0, common.y1), (x0, common.x1)))
        here = Region(y0, y1, x0, x1)
        there = counterpart(first, here, other)
        if there is None:
            raise UnmeasuredError("the exposures do not overlap")
        origin, corner = np.array([here.y0, here.x0]), np.array([there.y0, there.x0])
        return cls(
            first.read(here),
            other.read(there),
            _chain(corner, other.to_reference, first.from_reference, origin),
            _chain(origin, first.to_reference, other.from_reference, corner),
            (first.fwhm, other.fwhm),
            other.step / first.step,
        )

    def scale(self, adds_up: bool) -> MeasuredScale:
        """Flux in the other exposure over flux in the first, per light.

        Parameters
        ----------
        adds_up : whether the value of a pixel grows with its area.

        Raises
        ------
        UnmeasuredError : too little light in both.
        """
        shape = self.reference.values.shape
        places = np.moveaxis(self.from_reference(np.moveaxis(np.indices(shape).astype(float), 0, -1)), -1, 0)
        laid = resample_cubic(self.other.values, self.other.variance, self.other.bad, places)
        area = self.step**2 if adds_up else 1.0
        there = (
            np.where(laid.valid, laid.values, 0) / area,
            np.where(laid.valid, laid.variance, 0) / area**2,
            laid.valid,
        )
        here = self.reference.values, self.reference.variance, ~self.reference.bad
        return measure_scale(here, there, (self.widths[0], self.widths[1] * self.step))

    def hold_place(self, name: str, offsets: tuple[Array, Array]) -> Notes:
        """A warning where sources of the other exposure do not lie where its WCS has them; nothing where none tell.

        Parameters
        ----------
        name : of its file.
        offsets : by what centroids of the first and of the other exposure differ from where sources are, px of each:
            a lopsided PSF that is turned moves them, and no WCS knows of it.
        """
        fields, (first, other) = (_field(self.reference), _field(self.other)), offsets
        try:
            found = measure_alignment(
                *fields,
                self.widths,
                lambda places: self.to_reference(places - other) + first,
                lambda places: self.from_reference(places - first) + other,
            )
        except UnmeasuredError:
            return Notes()
        return hold_wcs(name, found)


def _ends(region: Region) -> tuple[tuple[int, int], tuple[int, int]]:
    """First pixels and ends of a region."""
    return (region.y0, region.x0), (region.y1, region.x1)


def _chain(start: Array, one: PixelMap, two: PixelMap, end: Array) -> Callable[[Array], Array]:
    """The map of a window's pixels to those of another one."""
    return lambda places: two(one(np.asarray(places) + start)) - end


def _field(cut: Cut) -> Field:
    """A window as sources are looked for in it."""
    noise = np.where(cut.bad, np.inf, cut.variance)
    good = cut.variance[~cut.bad]
    sigma = float(np.sqrt(np.median(good))) if len(good) else 1.0
    return Field(np.where(cut.bad, 0, cut.values), noise, cut.bad, sigma)
