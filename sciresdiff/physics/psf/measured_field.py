"""A PSF that changes over the field, measured on the frame's own stars, where they show that it does.

Width and ellipticity of the Moffats of single stars are polynomials of the place.  What stars have beside a Moffat, as
coma, is a table that changes linearly over the field (`residual_table`).  A polynomial is taken where it predicts stars
that it was not fitted to better than a lower one does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sciresdiff.io.psf_places import Positions
from sciresdiff.notes import Notes
from sciresdiff.physics.psf.field import PSF, SmoothMaps
from sciresdiff.physics.psf.file import KNOTS, PLACES, compress, local_weights
from sciresdiff.physics.psf.image import difference_kernel
from sciresdiff.physics.psf.kernel import target_psf
from sciresdiff.physics.psf.measured import MeasuredPSF
from sciresdiff.physics.psf.moffat_fit import MoffatFits, MoffatShape
from sciresdiff.physics.psf.point_sources import DOMINANT, Population
from sciresdiff.physics.psf.residual_table import ResidualTables, measure_residuals

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

FEWEST = 60
"""Stars that a PSF field needs."""
ZONES, IN_ZONE = 3, 3
"""Zones along each axis that they have to lie in, and how many in each."""
PER_TERM = 6
"""Stars for each term of a polynomial."""
HIGHEST = 3
"""Degree of a polynomial at most."""
FOLDS = 8
"""Parts of the stars that are left out in turn."""
CERTAIN = 4.0
"""Standard errors by which a polynomial has to predict left out stars better than a lower one."""
UNLIKE, MOST_UNLIKE = 0.02, 0.1
"""What differs from star to star beside noise, in ln FWHM and in ellipticity: at least, and at most."""
STRAY = 4.0
"""Standard errors, of `UNLIKE` and the fit together, beyond which a source is no star of the field."""
ROUNDS = 30
"""Iterations of a robust fit."""


@dataclass(frozen=True)
class MeasuredField:
    """A PSF measured on the stars of a frame, as it changes over it."""

    coefficients: Array
    """(T, 3): ln FWHM, e1 and e2 as polynomials of `terms_of`."""
    degree: int
    wings: float
    """1 / beta of all stars."""
    tables: ResidualTables | None
    """What the stars have beside a Moffat, constant and linear in the place."""
    size: tuple[int, int]
    """(Y, X) of the frame, px."""
    used: int
    """Stars that it was measured from."""
    found: int
    """Sources that were seen."""
    fwhm_error: float
    """Standard error of the local width, as a share of it."""
    notes: Notes

    def at(self, y: float, x: float) -> MeasuredPSF:
        """The PSF at a place of the frame, px."""
        where = np.array([y]), np.array([x])
        ln, e1, e2 = (terms_of(*where, self.size, self.degree) @ self.coefficients)[0]
        table = None if self.tables is None else self.tables.at(terms_of(*where, self.size, 1)[0])
        shape = MoffatShape(float(np.exp(ln)), self.wings, float(e1), float(e2))
        return MeasuredPSF(shape, table, self.used, self.found, self.fwhm_error)

    def blur(self, scale: int, target_fwhm: float) -> PSF:
        """The PSF on an output grid: drawn at 9 x 9 places, cubic splines between them.

        Parameters
        ----------
        scale : int
            Output pixels per pixel of the frame.
        target_fwhm : float
            Of the wanted image, output px.

        Raises
        ------
        InputError : the PSF is narrower than the target somewhere.
        """
        lines = [np.linspace(0, n - 1, PLACES) for n in self.size]
        places = np.stack(np.meshgrid(*lines, indexing="ij"), -1).reshape(-1, 2)
        target = target_psf(target_fwhm)
        drawn = [difference_kernel(self.at(y, x).render(scale), target) for y, x in places]
        side = max(len(kernel) for kernel in drawn)
        kernels = np.stack([np.pad(kernel, (side - len(kernel)) // 2) for kernel in drawn])
        mixing, basis = compress(kernels, np.eye(len(places)))
        at = partial(local_weights, Positions(places), (0.0, 0.0), scale, mixing, basis.sum((1, 2)))
        size = scale * self.size[0], scale * self.size[1]
        return PSF(basis, SmoothMaps.of_function(at, size, KNOTS), self.fwhm_error)


def terms_of(y: Array, x: Array, size: tuple[int, int], degree: int) -> Array:
    """The terms of a polynomial of the place, -1 to 1 over the frame along each axis: (n, T), the first is 1.

    Parameters
    ----------
    y, x : (n,) arrays
        px of the frame.
    size : (int, int)
        (Y, X) of the frame.
    degree : int
    """
    v, u = (2 * at / max(n - 1, 1) - 1 for at, n in zip((y, x), size, strict=True))
    powers = [(j, total - j) for total in range(degree + 1) for j in range(total + 1)]
    return np.stack([v**j * u**i for j, i in powers], -1)


def measure_field(population: Population, y: Array, x: Array, size: tuple[int, int]) -> MeasuredField | None:
    """The PSF field that the stars of a frame show; None where they are too few, or show none.

    Parameters
    ----------
    population : Population
        Of the frame or a sample of it.
    y, x : (n,) arrays
        Where its fits lie in the frame, px.
    size : (int, int)
        (Y, X) of the frame.
    """
    fits = population.fits
    if len(fits) < FEWEST:
        return None
    values, errors = _numbers(fits)
    star, scatter = choose_stars(values, errors, y, x, size)
    errors = np.hypot(errors, scatter)
    says = np.minimum(1, (UNLIKE / fits.error) ** 2)
    share = float(says[star].sum() / says.sum())
    if star.sum() < FEWEST or share < DOMINANT or not spread_over(y[star], x[star], size):
        return None
    degree = best_degree(values[star], errors[star], y[star], x[star], size)
    if degree == 0:
        return None
    return _fit_field(population, star, scatter, y, x, size, degree)


def _numbers(fits: MoffatFits) -> tuple[Array, Array]:
    """ln FWHM, e1 and e2 of fits, and their errors: (n, 3) each."""
    errors = np.stack([fits.error, fits.e_error, fits.e_error], 1)
    return np.stack([np.log(fits.fwhm), fits.e1, fits.e2], 1), errors


def choose_stars(values: Array, errors: Array, y: Array, x: Array, size: tuple[int, int]) -> tuple[Mask, Array]:
    """The sources that agree on a PSF which changes slowly over the field, (n,), and how they scatter about it, (3,).

    A robust fit (Cauchy weights) of polynomials, degree by degree; galaxies and blends stand out of it.

    Parameters
    ----------
    values, errors : (n, 3) arrays
        ln FWHM, e1 and e2.
    y, x : (n,) arrays
    size : (int, int)
    """
    from astropy.stats import mad_std

    model = np.broadcast_to(np.median(values, 0), values.shape)
    scatter = np.full(3, MOST_UNLIKE)
    for degree in range(HIGHEST):
        terms = terms_of(y, x, size, degree)
        if PER_TERM * terms.shape[1] > len(values):
            break
        for _ in range(ROUNDS):
            each = np.hypot(errors, scatter)
            weight = 1 / (1 + ((values - model) ** 2 / each**2).mean(1))
            model = terms @ fit_polynomial(terms, values, each / np.sqrt(weight)[:, None])
        sure = errors.max(1) < MOST_UNLIKE
        scatter = np.clip(mad_std((values - model)[sure], 0) if sure.any() else scatter, UNLIKE, MOST_UNLIKE)
    off = np.abs(values - model) / np.hypot(errors, scatter)
    return np.asarray((off < STRAY).all(1)), scatter


def fit_polynomial(terms: Array, values: Array, errors: Array) -> Array:
    """Least squares, each column of ``values`` (n, 3) for itself: (T, 3).

    Parameters
    ----------
    terms : (n, T) array
    values, errors : (n, 3) arrays
    """
    columns = [
        np.linalg.lstsq(terms / e[:, None], v / e, rcond=None)[0] for v, e in zip(values.T, errors.T, strict=True)
    ]
    return np.stack(columns, 1)


def spread_over(y: Array, x: Array, size: tuple[int, int]) -> bool:
    """Whether stars at (n,) places lie in every zone of a frame."""
    rows, columns = (np.clip((at * ZONES / n).astype(int), 0, ZONES - 1) for at, n in zip((y, x), size, strict=True))
    return bool(np.bincount(rows * ZONES + columns, minlength=ZONES**2).min() >= IN_ZONE)


def best_degree(values: Array, errors: Array, y: Array, x: Array, size: tuple[int, int]) -> int:
    """The degree of the polynomial that predicts left out stars best; 0 where none does significantly better.

    Parameters
    ----------
    values, errors : (n, 3) arrays
        Of stars.
    y, x : (n,) arrays
    size : (int, int)
    """
    part = np.random.default_rng(0).permutation(len(values)) % FOLDS
    best, least = 0, _left_out(values, errors, terms_of(y, x, size, 0), part)
    for degree in range(1, HIGHEST + 1):
        terms = terms_of(y, x, size, degree)
        if PER_TERM * terms.shape[1] > len(values):
            break
        off = _left_out(values, errors, terms, part)
        gain = least - off
        if gain.mean() > CERTAIN * gain.std() / np.sqrt(len(gain)):
            best, least = degree, off
    return best


def _left_out(values: Array, errors: Array, terms: Array, part: NDArray[np.int64]) -> Array:
    """chi2 of every star by the polynomial of the other parts, each of its three numbers at most `STRAY` squared."""
    off = np.zeros(len(values))
    for k in range(FOLDS):
        out = part == k
        model = terms[out] @ fit_polynomial(terms[~out], values[~out], errors[~out])
        off[out] = np.minimum(((values[out] - model) / errors[out]) ** 2, STRAY**2).sum(1)
    return off


def _fit_field(
    population: Population, star: Mask, scatter: Array, y: Array, x: Array, size: tuple[int, int], degree: int
) -> MeasuredField:
    fits, stamps = population.fits[star], population.stamps[star]
    y, x = y[star], x[star]
    values, errors = _numbers(fits)
    errors = np.hypot(errors, scatter)
    terms = terms_of(y, x, size, degree)
    coefficients = fit_polynomial(terms, values, errors)
    wings = float(np.average(fits.wings, weights=1 / errors[:, 0] ** 2))
    model = terms @ coefficients
    shapes = np.stack([model[:, 0], np.full(len(fits), wings), model[:, 1], model[:, 2]], 1)
    tables = measure_residuals(fits, stamps, shapes, terms_of(y, x, size, 1))
    error = _width_error(fits, values[:, 0] - model[:, 0], errors[:, 0], terms)
    width = np.exp(model[:, 0])
    field = MeasuredField(coefficients, degree, wings, tables, size, len(fits), population.found, error, Notes())
    line = (
        f"psf: it changes over the field: Moffat fwhm {width.min():.3g} to {width.max():.3g} px (median"
        f" {np.median(width):.3g} +- {error * np.median(width):.2g}), ellipticity to"
        f" {np.hypot(model[:, 1], model[:, 2]).max():.2g}; polynomial of degree {degree} from {len(fits)} of"
        f" {population.found} sources"
    )
    return replace(field, notes=Notes(line))


def _width_error(fits: MoffatFits, left: Array, errors: Array, terms: Array) -> float:
    """Error of the local width: that of the polynomial in the mean over the stars, and what no Moffat describes."""
    from astropy.stats import mad_std

    scatter = max(float(mad_std(left)), float(np.median(errors)))
    return float(np.hypot(scatter * np.sqrt(terms.shape[1] / len(fits)), 0.01))
