"""How a PSF changes over the field, as its file says: weights of its images at a place of the frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import interpolate

Array = NDArray[np.float64]
SAME = 1e-6
"""Difference of two coordinates, px, that counts as none."""
CUBIC = 4
"""Lines of places along an axis from which they are joined by a natural cubic spline, which is straight at its ends:
optics change smoothly over a field, and straight lines between five PSFs leave up to 13 % of their light in the wrong
place where they turn.  A spline that bends up to its ends swings in the outer intervals, and leaves twice as much
astray there."""


@dataclass(frozen=True)
class Polynomial:
    """Weights that are the terms of a polynomial of the position, as PSFEx writes them."""

    degree: int
    zero: tuple[float, float]
    """(y, x), in FITS pixels: the centre of the first is 1."""
    scale: tuple[float, float]
    axes: tuple[bool, bool] = (True, True)
    """Whether it depends on y and on x."""

    @property
    def count(self) -> int:
        """Number of terms."""
        return len(self._powers)

    @property
    def _powers(self) -> list[tuple[int, int]]:
        """(power of y, power of x) of every term, in the order of PSFEx: that of x runs first."""
        most = [self.degree if there else 0 for there in self.axes]
        return [(j, i) for j in range(most[0] + 1) for i in range(min(most[1], self.degree - j) + 1)]

    @property
    def middle(self) -> tuple[float, float]:
        """The place (y, x) that it is centred on, px from the centre of the first."""
        return self.zero[0] - 1, self.zero[1] - 1

    @property
    def extent(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """First and last y, and first and last x, of the field that it was fitted on, about."""
        first, last = ([m + side * s / 2 for m, s in zip(self.middle, self.scale, strict=True)] for side in (-1, 1))
        return (first[0], last[0]), (first[1], last[1])

    def weights(self, y: Array, x: Array) -> Array:
        """The terms at places (...), px from the centre of the frame's first pixel: (J, ...)."""
        v, u = ((at + 1 - z) / s for at, z, s in zip((y, x), self.zero, self.scale, strict=True))
        return np.stack([v**j * u**i for j, i in self._powers])


@dataclass(frozen=True)
class Positions:
    """Weights that interpolate between images at known places; beyond the outermost their border counts."""

    places: Array
    """(J, 2), y and x, px from the centre of the frame's first pixel."""

    @property
    def middle(self) -> tuple[float, float]:
        """The middle of all places."""
        y, x = (self.places.min(0) + self.places.max(0)) / 2
        return float(y), float(x)

    @property
    def extent(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """First and last y, and first and last x."""
        (y0, x0), (y1, x1) = self.places.min(0), self.places.max(0)
        return (float(y0), float(y1)), (float(x0), float(x1))

    def weights(self, y: Array, x: Array) -> Array:
        """Weights of the images at places (...), whose sum is 1: (J, ...).

        On a full grid of places cubic splines along each axis with `CUBIC` lines or more, else linear; elsewhere linear
        on the triangles between the places.
        """
        y, x = np.broadcast_arrays(np.asarray(y, np.float64), np.asarray(x, np.float64))
        if not y.ndim:
            return self.weights(y[None], x[None])[:, 0]
        own = np.eye(len(self.places))
        if grid := self._grid():
            (rows, columns), order = grid
            along_y, along_x = _shares(rows, y), _shares(columns, x)
            found = np.empty((*y.shape, len(own)))
            found[..., order] = (along_y[..., :, None] * along_x[..., None, :]).reshape(*y.shape, -1)
        else:
            found = self._scattered(own, y, x)
        return np.moveaxis(found, -1, 0)

    def _grid(self) -> tuple[Sequence[Array], NDArray[Any]] | None:
        """Rows and columns, and the order of the images on them; None where the places make no full grid."""
        rows, columns = (np.unique(np.round(line / SAME) * SAME) for line in self.places.T)
        if len(rows) * len(columns) != len(self.places):
            return None
        order = np.lexsort((self.places[:, 1], np.round(self.places[:, 0] / SAME)))
        at = self.places[order].reshape(len(rows), len(columns), 2)
        full = np.allclose(at[..., 0], rows[:, None]) and np.allclose(at[..., 1], columns[None])
        return ((rows, columns), order) if full else None

    def _scattered(self, own: Array, y: Array, x: Array) -> Array:
        nearest = interpolate.NearestNDInterpolator(self.places, own)(y, x)
        flat = np.linalg.matrix_rank(self.places - self.places.mean(0), tol=SAME) < 2
        if len(self.places) < 3 or flat:
            return np.asarray(nearest)
        between = interpolate.LinearNDInterpolator(self.places, own)(y, x)
        return np.where(np.isfinite(between), between, nearest)


def _shares(lines: Array, at: Array) -> Array:
    """How much every line of a grid counts at places (...) along its axis, sum 1: (..., lines)."""
    if len(lines) == 1:
        return np.ones((*at.shape, 1))
    cubic = len(lines) >= CUBIC
    spline = interpolate.make_interp_spline(
        lines, np.eye(len(lines)), 3 if cubic else 1, bc_type="natural" if cubic else None
    )
    return np.asarray(spline(np.clip(at, lines[0], lines[-1])))
