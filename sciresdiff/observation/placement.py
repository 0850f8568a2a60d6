"""Where the pixels of an exposure lie on the grid of the output: by its WCS, or by a map that was measured.

A WCS with distortions is evaluated at knots and interpolated between them, so that blocks, resumed runs and other
processes get the same places in no time; what that leaves is measured and stated.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline

from sciresdiff.errors import InputError
from sciresdiff.physics.affine import Affine
from sciresdiff.region import Region

Array = NDArray[np.float64]
PixelMap = Callable[[Array], Array]

STEP = 24
"""Pixels between knots, at the most."""
FEWEST_KNOTS = 5
"""Along an axis, for cubic splines."""
NEWTON = 3
"""Steps of the inverse of a distorted map."""
STRAIGHT = 1e-7
"""Difference from an affine map below which there is none, px."""


@dataclass(frozen=True)
class Placement:
    """The map of places (y, x) of an exposure to places of the output grid, px of each."""

    affine: Affine
    knots: tuple[Array, Array] | None = None
    """Rows and columns of the exposure at which the rest is known; None where the affine map is all."""
    rest: Array = field(default_factory=lambda: np.zeros((2, 0, 0)))
    """(2, rows, columns): by what the place differs from the affine map's, px of the output."""
    error: float = 0.0
    """Largest error of the interpolation between the knots, px of the output."""

    @classmethod
    def of_function(cls, place: PixelMap, shape: tuple[int, int]) -> Placement:
        """The placement that a function gives, for an exposure of a shape (h, w).

        Parameters
        ----------
        place : (..., 2) of y and x -> the same on the output grid.

        Raises
        ------
        InputError : pixels without a place.
        """
        knots = tuple(np.linspace(-1, n, max(FEWEST_KNOTS, -(-n // STEP) + 1)) for n in shape)
        here = np.stack(np.meshgrid(*knots, indexing="ij"), -1)
        there = place(here)
        if not np.isfinite(there).all():
            raise InputError("wcs: pixels have no place on the output grid; crop the exposure to where they have one")
        middle = (np.array(shape, float) - 1) / 2
        terms = np.concatenate([np.ones((here[..., 0].size, 1)), (here - middle).reshape(-1, 2)], 1)
        fitted, *_ = np.linalg.lstsq(terms, there.reshape(-1, 2), rcond=None)
        affine = Affine(fitted[1:].T.copy(), fitted[0] - middle, middle)
        rest = np.moveaxis(there - affine(here), -1, 0)
        if np.abs(rest).max() < STRAIGHT:
            return cls(affine)
        found = cls(affine, (knots[0], knots[1]), rest)
        between = np.stack(np.meshgrid(*((k[1:] + k[:-1]) / 2 for k in knots), indexing="ij"), -1)
        error = float(np.abs(found(between) - place(between)).max())
        return cls(affine, found.knots, rest, error)

    @cached_property
    def _splines(self) -> list[RectBivariateSpline]:
        assert self.knots is not None
        return [RectBivariateSpline(*self.knots, one) for one in self.rest]

    def __call__(self, places: Array) -> Array:
        """Where places (..., 2) of the exposure lie."""
        there = self.affine(places)
        if self.knots is None:
            return there
        return np.asarray(there + np.stack([one.ev(places[..., 0], places[..., 1]) for one in self._splines], -1))

    def inverse(self, places: Array) -> Array:
        """The places of the exposure that lie at places (..., 2) of the output, to 1e-3 px for what telescopes distort.

        Newton's method with the affine map's derivative, which distortions change by little.
        """
        back, a = np.linalg.inv(self.affine.matrix).T, self.affine
        here = (places - a.middle - a.shift) @ back + a.middle
        for _ in range(0 if self.knots is None else NEWTON):
            here = here - (self(here) - places) @ back
        return np.asarray(here)

    def corners(self, region: Region) -> Array:
        """The corners of the pixels of a region, (h + 1, w + 1, 2)."""
        y, x = np.arange(region.y0, region.y1 + 1) - 0.5, np.arange(region.x0, region.x1 + 1) - 0.5
        there = self.affine(np.stack(np.meshgrid(y, x, indexing="ij"), -1))
        return there if self.knots is None else np.asarray(there + np.stack([one(y, x) for one in self._splines], -1))

    @property
    def largest_rest(self) -> float:
        """By what a place differs from the affine map's at the most, px of the output."""
        return float(np.abs(self.rest).max()) if self.rest.size else 0.0

    @property
    def scale(self) -> float:
        """Output pixels along the side of a pixel, in the mean."""
        return self.affine.scale

    def overlap(self, window: Region, shape: tuple[int, int]) -> Region | None:
        """The pixels of an exposure (h, w) that may lie in a region of the output; None where there is none.

        Parameters
        ----------
        window : of the output, px; it may reach beyond its grid.
        """
        wide = self.largest_rest + 1
        y = np.array([window.y0 - 0.5 - wide, window.y1 - 0.5 + wide])
        x = np.array([window.x0 - 0.5 - wide, window.x1 - 0.5 + wide])
        back = np.linalg.inv(self.affine.matrix)
        corners = np.stack(np.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2)
        middle = self.affine.middle
        here = (corners - middle - self.affine.shift) @ back.T + middle
        first, last = np.floor(here.min(0)).astype(int), np.ceil(here.max(0)).astype(int) + 1
        y0, x0 = (max(int(v), 0) for v in first)
        y1, x1 = (min(int(v), n) for v, n in zip(last, shape, strict=True))
        return Region(y0, y1, x0, x1) if y1 > y0 and x1 > x0 else None

    def extent(self, shape: tuple[int, int]) -> tuple[float, float, float, float]:
        """(y0, y1, x0, x1) of the area on the output grid that an exposure (h, w) covers, px."""
        y, x = (np.linspace(-0.5, n - 0.5, 9) for n in shape)
        edge = [np.stack(np.broadcast_arrays(a, b), -1) for a in (y[0], y[-1]) for b in (x,)]
        edge += [np.stack(np.broadcast_arrays(a, b), -1) for a in (y,) for b in (x[0], x[-1])]
        there = self(np.concatenate(edge))
        return tuple(float(f(there[:, a])) for a in (0, 1) for f in (np.min, np.max))  # type: ignore[return-value]

    def moved(self, y: float, x: float) -> Placement:
        """The same on a grid whose first pixel lies at (y, x) of this one."""
        a = self.affine
        shifted = Affine(a.matrix, a.shift - np.array([y, x]), a.middle, a.covariance)
        return Placement(shifted, self.knots, self.rest, self.error)


def sky_of(header: Any, path: str, name: str) -> Any:
    """The celestial WCS of an image, with its distortions.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Of the image.
    path : of its file, whose lookup tables (CPDIS, D2IM) are read; "" where there is none.
    name : for messages.

    Raises
    ------
    InputError : no WCS, or one that astropy does not understand.
    """
    from astropy.io import fits
    from astropy.wcs import WCS

    from sciresdiff.frame import LOOKUP_CARDS
    from sciresdiff.io.files import split_spec
    from sciresdiff.io.fits.header import valid_header
    from sciresdiff.io.fits.wcs import has_wcs

    if header is None or not has_wcs(header):
        raise InputError(
            f"{name}: no WCS (CTYPE1 RA---TAN or the like), which says where it lies; add one, or give --align measure"
        )
    cards = valid_header(header)
    tables = any(LOOKUP_CARDS.match(card.keyword) for card in cards.cards)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy mends old headers, and says so
        try:
            if tables and path and Path(split_spec(path)[0]).is_file():
                with fits.open(split_spec(path)[0]) as hdus:
                    return WCS(cards, fobj=hdus).celestial
            kept = [card for card in cards.cards if not LOOKUP_CARDS.match(card.keyword)]
            return WCS(fits.Header(kept)).celestial
        except Exception as error:
            raise InputError(f"{name}: astropy cannot read its WCS ({error}); check CTYPE, CRPIX and CD") from error


def between(here: Any, there: Any, name: str) -> PixelMap:
    """The map of pixels (y, x) of one WCS to pixels of another.

    Parameters
    ----------
    here, there : astropy.wcs.WCS, celestial.
    name : of the exposure, for messages.
    """
    from astropy.wcs.utils import pixel_to_pixel

    def place(places: Array) -> Array:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # astropy warns where it does not converge; those places are looked at
            x, y = pixel_to_pixel(here, there, places[..., 1], places[..., 0])
        found = np.stack([y, x], -1)
        if not np.isfinite(found).all():
            raise InputError(f"{name}: its sky has no place on the output grid; do the exposures overlap?")
        return found

    return place
