"""What a Moffat leaves of a real PSF: a table of splines, measured on many stars at their sub-pixel places.

Anderson & King (2000, PASP 112, 1360) tabulate an effective PSF finer than the pixel from stars that fall on different
parts of it. Here the table holds the difference to a Moffat alone, which carries the wings and the steep core; it is
small and smooth, so that few stars determine it, and it goes to zero where they say nothing. **It ends at 2.5 FWHM**:
of an Airy pattern, a twelfth of the light lies farther out, where stars of a frame do not show it above their sky.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from sciresdiff.physics.psf.moffat_fit import LOW, NAMES, MoffatFits, MoffatShape, Stamps, moffat_pixels

Array = NDArray[np.float64]

PRIOR = 0.06
"""Expected size of the table, as a share of the square root of the Moffat's value (peak 1)."""

PRIOR_WINGS = 0.003
"""The same far out, as a share of the peak."""

STAR_ERROR = 0.01
"""What differs from star to star (the PSF over the field, the detector), as a share of the star's own light."""

STARS = 60
"""Stars that a table is measured on, the best first."""

FEWEST = 6
"""Sources that a table needs: two halves that are measured apart."""

WINGS = NAMES.index("wings")
VOTE = 9.0
"""Difference of chi2 that one source may say at most, so that a bright one does not decide for all."""
OUTLIER = 5.0
"""Standard errors beyond which a pixel is no part of the PSF."""

ROUNDS = 3
"""Table and fluxes are measured in turn."""


@dataclass(frozen=True)
class ResidualTable:
    """A smooth function of the place, sum of products of cubic B-splines; the Moffat's peak is 1."""

    coefficients: Array
    """(K, K)."""
    step: float
    """Distance of the nodes, px."""

    @property
    def radius(self) -> float:
        """Where it ends, px."""
        return self.step * (len(self.coefficients) // 2)

    def evaluate(self, y: Array, x: Array, side: float) -> Array:
        """Means over pixels of a ``side`` in px, their centres at (y, x): (len(y), len(x))."""
        return np.asarray(self._basis(y, side) @ self.coefficients @ self._basis(x, side).T)

    def _basis(self, line: Array, side: float) -> Array:
        return spline_basis(line, side, self.step, len(self.coefficients))


def spline_basis(line: Array, side: float, step: float, count: int) -> Array:
    """Cubic B-splines averaged over pixels: (len(line), count).

    Parameters
    ----------
    line : (n,) array
        Centres of the pixels, px.
    side : float
        Of a pixel, px.
    step : float
        Distance of the nodes, px; the middle one is at 0.
    count : int
        Nodes, an odd number.
    """
    bump = BSpline.basis_element(np.arange(-2, 3), extrapolate=False)
    places = (np.arange(count) - count // 2) * step
    nodes, weights = np.polynomial.legendre.leggauss(4)
    out = np.zeros((len(line), count))
    for d, w in zip(nodes / 2 * side, weights / 2, strict=True):
        out += w * np.nan_to_num(bump((line[:, None] + d - places) / step))
    return out


@dataclass(frozen=True)
class ResidualTables:
    """A table that changes over the field, sum of tables times terms of the place."""

    coefficients: Array
    """(T, K, K)."""
    step: float
    """Distance of the nodes, px."""

    def at(self, terms: Array) -> ResidualTable:
        """The table where the terms have these values, (T,)."""
        return ResidualTable(np.tensordot(terms, self.coefficients, 1), self.step)

    @property
    def nothing(self) -> ResidualTables:
        """Tables of zeros on the same nodes."""
        return ResidualTables(np.zeros_like(self.coefficients), self.step)


def measure_residual(fits: MoffatFits, stamps: Stamps, shape: MoffatShape) -> ResidualTable | None:
    """The table that most sources agree on, by regularised least squares; None where it does not help.

    Parameters
    ----------
    fits : MoffatFits
        Of the point sources.
    stamps : Stamps
        Of the same.
    shape : MoffatShape
        The Moffat that stands for all.
    """
    same = np.tile([np.log(shape.fwhm), shape.wings, shape.e1, shape.e2], (len(fits), 1))
    found = measure_residuals(fits, stamps, same, np.ones((len(fits), 1)))
    return None if found is None else ResidualTable(found.coefficients[0], found.step)


def measure_residuals(fits: MoffatFits, stamps: Stamps, shapes: Array, terms: Array) -> ResidualTables | None:
    """The tables that most sources agree on, by regularised least squares; None where they do not help.

    Bright sources decide a table, and if rings and spikes are theirs alone it is wrong for all others. Therefore every
    source has a vote of the same size, how much its chi2 falls by a table of *other* sources (every second one). If the
    vote is against, the fainter half is tried alone.

    Parameters
    ----------
    fits : MoffatFits
        Of the point sources.
    stamps : Stamps
        Of the same.
    shapes : (n, 4) array
        Of the Moffat of every source: ln FWHM, wings, e1 and e2.
    terms : (n, T) array
        Of the place of every source; the first is 1.
    """
    order = np.argsort(-fits.snr, kind="stable")
    most = STARS * min(terms.shape[1], 2)
    for chosen in (order[:most], order[len(order) // 2 :][:most]):
        if len(chosen) < FEWEST * terms.shape[1]:
            return None
        halves = chosen[::2], chosen[1::2]
        tables = [_measure(fits[half], stamps[half], shapes[half], terms[half])[0] for half in halves]
        votes = [
            _vote(fits[h], stamps[h], shapes[h], terms[h], t) for h, t in zip(halves, reversed(tables), strict=True)
        ]
        if np.concatenate(votes).mean() > 1:
            return _measure(fits[chosen], stamps[chosen], shapes[chosen], terms[chosen])[0]
    return None


def _measure(fits: MoffatFits, stamps: Stamps, shapes: Array, terms: Array) -> tuple[ResidualTables, Array]:
    """The tables of these sources; what they leave in standard errors (n, P)."""
    # the finer the nodes the more stars are needed; a third of the FWHM follows the core
    fwhm = float(np.exp(np.median(shapes[:, 0])))
    step = max(fwhm / 3, 0.5 if len(fits) >= 30 else 1.0)
    count = 2 * int(np.floor(stamps.radius / step)) + 1
    tables = ResidualTables(np.zeros((terms.shape[1], count, count)), step)
    p = parameters_of(fits, stamps, shapes)
    keep = np.isfinite(stamps.noise)
    for turn in range(ROUNDS):
        p = _fit_places(p, stamps, keep, tables, terms, fwhm)
        tables, left = _solve(p, stamps, keep, tables, terms, fwhm)
        if turn == 0:  # cosmic rays and neighbours in the wings
            keep = keep & (np.abs(left) < OUTLIER)
    return tables, left


def _vote(fits: MoffatFits, stamps: Stamps, shapes: Array, terms: Array, tables: ResidualTables) -> Array:
    """How much chi2 falls by a table, as `votes_of` sources count it: (n,)."""
    start, keep = parameters_of(fits, stamps, shapes), np.isfinite(stamps.noise)
    fwhm = float(np.exp(np.median(shapes[:, 0])))
    chi2 = []
    for one in (tables.nothing, tables):
        p = start
        for _ in range(2):
            p = _fit_places(p, stamps, keep, one, terms, fwhm)
        model, _ = _model(p, stamps, one, terms, fwhm)
        left = np.where(keep, (stamps.data - p[:, 7:8]) / p[:, :1] - model, 0.0)
        square = left**2 / _variance(p, stamps, keep, model)
        chi2.append(np.minimum(square, OUTLIER**2).sum(1))
    return votes_of(chi2[0], chi2[1], keep)


def votes_of(plain: Array, other: Array, keep: NDArray[np.bool_]) -> Array:
    """How much lower chi2 of another model is, in units of what it leaves per pixel; at most `VOTE` either way: (n,).

    Parameters
    ----------
    plain, other : (n,) arrays
        chi2 of every source.
    keep : (n, P) bool array
        Pixels that count.
    """
    per_pixel = np.maximum(other / np.maximum(keep.sum(1), 1), 1)
    return np.asarray(np.clip((plain - other) / per_pixel, -VOTE, VOTE))


def parameters_of(fits: MoffatFits, stamps: Stamps, shapes: Array) -> Array:
    """Peaks, places and skies of the fits with other shapes: (n, 8), as `moffat_fit.NAMES`."""
    shape = shapes[:, 0], np.maximum(shapes[:, 1], LOW[WINGS]), shapes[:, 2], shapes[:, 3]
    return np.stack([fits.peak, fits.y - stamps.places[:, 0], fits.x - stamps.places[:, 1], *shape, fits.sky], 1)


def _model(p: Array, stamps: Stamps, tables: ResidualTables, terms: Array, fwhm: float) -> tuple[Array, Array]:
    """Moffat and table at every pixel, peak 1 and no sky (n, P); derivatives of the Moffat by y and x (n, P, 2)."""
    unit = p.copy()
    unit[:, 0], unit[:, 7] = 1, 0
    model, slope = moffat_pixels(unit, stamps.grid, fwhm)
    line = np.arange(-stamps.radius, stamps.radius + 1.0)
    for i, (y, x) in enumerate(p[:, 1:3]):
        model[i] += tables.at(terms[i]).evaluate(line - y, line - x, 1.0).ravel()
    return model, slope[:, :, 1:3]


def _variance(p: Array, stamps: Stamps, keep: NDArray[np.bool_], model: Array) -> Array:
    """Of the pixels in units of the source's peak squared; infinite where they do not count: (n, P)."""
    return np.where(keep, stamps.noise / p[:, :1] ** 2 + (STAR_ERROR * model) ** 2, np.inf)


def _fit_places(
    p: Array, stamps: Stamps, keep: NDArray[np.bool_], tables: ResidualTables, terms: Array, fwhm: float
) -> Array:
    """Peak, centre and sky of every source for a given PSF: one linear step."""
    model, slope = _model(p, stamps, tables, terms, fwhm)
    weight = 1 / _variance(p, stamps, keep, model)
    design = np.concatenate([model[:, :, None], slope, np.ones((*model.shape, 1))], 2)
    data = np.where(keep, stamps.data, 0.0) / p[:, :1]
    left = data - model - p[:, 7:8] / p[:, :1]
    bend = np.einsum("npk,np,npl->nkl", design, weight, design) + 1e-9 * np.eye(4)
    down = np.einsum("npk,np,np->nk", design, weight, left)
    step = np.linalg.solve(bend, down[:, :, None])[:, :, 0]
    out = p.copy()
    out[:, 1:3] += np.clip(step[:, 1:3], -0.3, 0.3)
    out[:, 7] += step[:, 3] * p[:, 0]
    out[:, 0] *= np.clip(1 + step[:, 0], 0.5, 2)
    return out


def _solve(
    p: Array, stamps: Stamps, keep: NDArray[np.bool_], tables: ResidualTables, terms: Array, fwhm: float
) -> tuple[ResidualTables, Array]:
    """The tables for given places and fluxes, and the residuals that they leave in standard errors (n, P)."""
    shape, step = tables.coefficients.shape, tables.step
    line = np.arange(-stamps.radius, stamps.radius + 1.0)
    bare, _ = _model(p, stamps, tables.nothing, terms, fwhm)
    variance = _variance(p, stamps, keep, bare)
    left = np.where(keep, (stamps.data - p[:, 7:8]) / p[:, :1] - bare, 0.0)
    prior = np.tile(_prior_variance(p, tables.at(terms[0]), fwhm), shape[0])
    bend, down = np.diag(1 / prior), np.zeros(len(prior))
    for i, (y, x) in enumerate(p[:, 1:3]):
        basis = np.kron(*(spline_basis(line - v, 1.0, step, shape[1]) for v in (y, x)))
        basis = np.kron(terms[i][None], basis)
        weighted = basis / variance[i][:, None]
        bend += basis.T @ weighted
        down += weighted.T @ left[i]
    found = ResidualTables(np.asarray(np.linalg.solve(bend, down).reshape(shape), np.float64), step)
    after = np.stack(
        [found.at(terms[i]).evaluate(line - y, line - x, 1.0).ravel() for i, (y, x) in enumerate(p[:, 1:3])]
    )
    return found, (left - after) / np.sqrt(variance)


def _prior_variance(p: Array, table: ResidualTable, fwhm: float) -> Array:
    """(K^2,) of the coefficients: a share of the profile's square root, as rings and spikes are near the core."""
    count = len(table.coefficients)
    line = (np.arange(count) - count // 2) * table.step
    mean = np.median(p, 0)[None]
    mean[:, :3], mean[:, 7] = (1, 0, 0), 0
    y, x = np.meshgrid(line, line, indexing="ij")
    profile = moffat_pixels(mean, (y.ravel(), x.ravel()), fwhm)[0][0]
    return np.asarray((PRIOR * np.sqrt(np.clip(profile, 0, 1))) ** 2 + PRIOR_WINGS**2)
