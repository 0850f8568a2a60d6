"""Affine maps of the plane, and the one by which the sources of one frame lie on those of another."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sciresdiff.errors import UnmeasuredError
from sciresdiff.physics.source_list import Sources

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

CLIP = 3.5
"""Residuals in robust standard deviations beyond which a match is left out of the fit."""
LEAST_MATCHES = 4
"""Matches that a map needs to be believed."""
PARAMETERS = {"shift": 2, "similarity": 4, "affine": 6}
"""Kinds of maps -> numbers that they have."""
ENOUGH = 6
"""Matches from which a rotation and a scale are fitted."""
SIGNIFICANT = 25.0
"""Fall of chi2 from which the axes are scaled and turned apart: 1e-5 by chance of two further numbers."""


@dataclass(frozen=True)
class Affine:
    """r = matrix (p - middle) + middle + shift; all in (y, x), px."""

    matrix: Array
    """(2, 2)"""
    shift: Array
    """(2,), at the middle."""
    middle: Array = field(default_factory=lambda: np.zeros(2))
    """(2,)"""
    covariance: Array = field(default_factory=lambda: np.zeros((6, 6)))
    """(6, 6) of the shift and of the rows of the matrix (yy, yx, xy, xx), px^2; per px of distance for the matrix."""

    @classmethod
    def identity(cls, middle: tuple[float, float] = (0.0, 0.0)) -> Affine:
        """The map that moves nothing."""
        return cls(np.eye(2), np.zeros(2), np.array(middle))

    def __call__(self, places: Array) -> Array:
        """Where places (..., 2) lie."""
        return np.asarray((places - self.middle) @ self.matrix.T + self.middle + self.shift)

    @cached_property
    def inverse(self) -> Affine:
        """The map back; **without errors**."""
        back = np.linalg.inv(self.matrix)
        return Affine(np.asarray(back, float), np.asarray(-back @ self.shift), self.middle)

    def error(self, places: Array) -> Array:
        """Standard error per axis of where places (n, 2) lie, px: (n,), the larger of the two axes."""
        away = places - self.middle
        rows = np.zeros((2, len(places), 6))
        rows[0, :, 0] = rows[1, :, 1] = 1
        rows[0, :, 2:4] = rows[1, :, 4:6] = away
        return np.asarray(np.sqrt(np.einsum("knp,pq,knq->kn", rows, self.covariance, rows)).max(0))

    def largest_move(self, shape: tuple[int, ...]) -> float:
        """How far the map moves a pixel of a frame (h, w) at the most, px; corners count."""
        h, w = shape
        corners = np.array([(y, x) for y in (0.0, h - 1.0) for x in (0.0, w - 1.0)])
        return float(np.hypot(*(self(corners) - corners).T).max())

    @property
    def rotation(self) -> float:
        """Degrees from y to x."""
        return float(np.rad2deg(np.arctan2(self.matrix[1, 0] - self.matrix[0, 1], np.trace(self.matrix))))

    @property
    def scale(self) -> float:
        """Square root of the determinant."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix))))


@dataclass(frozen=True)
class Fit:
    """A map and the matches that it rests on."""

    map: Affine
    pairs: NDArray[np.int64]
    """(n, 2) numbers of sources in the two lists."""
    chi2: float
    """Per degree of freedom, before the errors are made larger by it."""
    kind: str
    """``shift``, ``similarity`` or ``affine``."""


def fit_map(here: Array, there: Array, errors: Array, kind: str, middle: Array) -> tuple[Affine, Array]:
    """Least-squares map of places onto others.

    Parameters
    ----------
    here, there : (n, 2), px.
    errors : (n,) of ``there`` - ``here``, per axis, px.
    kind : of `PARAMETERS`.
    middle : (2,) of the map.

    Returns
    -------
    map : Affine
        Its covariance is that of the errors as they are stated.
    residuals : (n, 2)
        In units of the errors.
    """
    away, target = here - middle, there - here
    n, p = len(here), PARAMETERS[kind]
    rows = np.zeros((2, n, p))
    rows[0, :, 0] = rows[1, :, 1] = 1
    # numbers of the fit -> those of the map: shift, and matrix - 1
    spread = np.zeros((6, p))
    spread[0, 0] = spread[1, 1] = 1
    if kind == "similarity":  # ((a, -b), (b, a)) in (y, x)
        rows[0, :, 2], rows[0, :, 3], rows[1, :, 2], rows[1, :, 3] = away[:, 0], -away[:, 1], away[:, 1], away[:, 0]
        spread[[2, 5], 2], spread[3, 3], spread[4, 3] = 1, -1, 1
    if kind == "affine":
        rows[0, :, 2:4] = rows[1, :, 4:6] = away
        spread[2:, 2:] = np.eye(4)
    design = (rows / errors[:, None]).reshape(2 * n, p)
    values = (target.T / errors).ravel()
    normal = design.T @ design
    found = np.linalg.solve(normal, design.T @ values)
    all_six = spread @ found
    matrix = np.eye(2) + all_six[2:].reshape(2, 2)
    covariance = spread @ np.linalg.inv(normal) @ spread.T
    return Affine(matrix, all_six[:2], middle, covariance), (values - design @ found).reshape(2, n).T


def fit_robustly(here: Array, there: Array, errors: Array, kind: str, middle: Array) -> tuple[Affine, Mask, float]:
    """The same without matches that contradict the others, with errors that explain what the others scatter by.

    Returns
    -------
    map : Affine
    kept : (n,)
    chi2 : per degree of freedom.
    """
    kept = np.ones(len(here), bool)
    least = PARAMETERS[kind] // 2 + 1
    found = Affine.identity()
    for _ in range(20):
        found, residuals = fit_map(here[kept], there[kept], errors[kept], kind, middle)
        off = np.hypot(*((there - found(here)).T / errors))
        typical = max(float(np.median(off[kept])) / 1.1774, 1.0)  # of a Rayleigh distribution
        new = off < CLIP * typical * 1.25
        if new.sum() < least or (new == kept).all():
            break
        kept = new
    freedom = 2 * int(kept.sum()) - PARAMETERS[kind]
    found, residuals = fit_map(here[kept], there[kept], errors[kept], kind, middle)
    chi2 = float((residuals**2).sum() / max(freedom, 1))
    grown = Affine(found.matrix, found.shift, middle, found.covariance * max(chi2, 1.0))
    return grown, kept, chi2


def choose_map(here: Array, there: Array, errors: Array, middle: Array) -> tuple[Affine, Mask, float, str]:
    """The map of the kind that the matches can tell.

    A shift below `ENOUGH` matches; else a similarity, whether or not it turns, so that the error holds what it would
    hide; an affine map of twice as many where chi2 falls by `SIGNIFICANT`, in units of what is left per degree of
    freedom.
    """
    if len(here) < ENOUGH:
        return (*fit_robustly(here, there, errors, "shift", middle), "shift")
    best = (*fit_robustly(here, there, errors, "similarity", middle), "similarity")
    if len(here) < 2 * ENOUGH:
        return best
    one = (*fit_robustly(here, there, errors, "affine", middle), "affine")
    keep = one[1]
    left = [(((there - m(here))[keep] / errors[keep, None]) ** 2).sum() for m in (best[0], one[0])]
    unit = max(left[1] / (2 * keep.sum() - PARAMETERS["affine"]), 1.0)
    return one if (left[0] - left[1]) / unit > SIGNIFICANT else best


def match_sources(one: Sources, other: Sources, start: Affine, reach: float, middle: Array) -> Fit:
    """Match the sources of two frames by a map that is nearly known, and improve it.

    Parameters
    ----------
    one, other : the sources; the map takes those of ``one`` to those of ``other``.
    start : the map as far as it is known.
    reach : how wrong it may be, px.
    middle : (2,) of the map.

    Raises
    ------
    UnmeasuredError : fewer than `LEAST_MATCHES` matches.
    """
    tree = cKDTree(other.places)
    here, found = start(one.places), start
    limit = reach
    pairs = np.zeros((0, 2), np.int64)
    result = None
    for _ in range(4):
        distance, index = tree.query(found(one.places), distance_upper_bound=limit)
        back = cKDTree(found(one.places)).query(other.places)[1]
        mutual = [(i, j) for i, j in enumerate(index) if np.isfinite(distance[i]) and back[j] == i]
        pairs = np.array(mutual, np.int64).reshape(-1, 2)
        if len(pairs) < LEAST_MATCHES:
            raise UnmeasuredError(f"{len(pairs)} sources are in both, and {LEAST_MATCHES} are needed")
        here, there = start(one.places[pairs[:, 0]]), other.places[pairs[:, 1]]
        errors = np.hypot(one.errors[pairs[:, 0]], other.errors[pairs[:, 1]])
        result = choose_map(here, there, errors, middle)
        if result[1].sum() < LEAST_MATCHES:
            raise UnmeasuredError(
                f"only {int(result[1].sum())} of {len(pairs)} matches of sources agree, and {LEAST_MATCHES} must"
            )
        found = _compose(result[0], start)
        scatter = float(np.median(np.hypot(*(there - result[0](here)).T)[result[1]]))
        limit = float(np.clip(6 * scatter, 0.5, reach))
    assert result is not None
    return Fit(found, pairs[result[1]], result[2], result[3])


def _compose(last: Affine, first: Affine) -> Affine:
    """The map that is ``first`` and then ``last``, with the errors of ``last``."""
    matrix = last.matrix @ first.matrix
    return Affine(matrix, last(first(last.middle[None]))[0] - last.middle, last.middle, last.covariance)
