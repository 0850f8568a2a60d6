"""The PSF of a frame, from its own stars or beads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.notes import Notes
from sciresdiff.physics.psf.blind import estimate_width
from sciresdiff.physics.psf.measured import MeasuredPSF
from sciresdiff.physics.psf.moffat_fit import MoffatFits, MoffatShape, Prior
from sciresdiff.physics.psf.point_sources import DOMINANT, Field, Population, fit_population, prepare_field
from sciresdiff.physics.psf.residual_table import measure_residual

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

GUESSES = (3.0, 8.0, 1.5)
"""FWHM, px, with which the search begins; the later ones where the first finds nothing."""

FEW, MOST = 80, 240
"""Sources that are fitted while the width is sought, and in the end."""

DOUBT = 0.15
"""Relative error of the width where one source says it all: it may be a compact galaxy."""

MINORITY = 0.06
"""The same where the points are the minority of the sources: the narrowest ones may be small galaxies."""

MODEL_ERROR = 0.01
"""Least relative error of the width of a Moffat fitted to a PSF that is none."""

SLOWEST = 0.8
"""1 / beta from which on a Moffat is none of a PSF: a quarter of its light would lie beyond ten times its FWHM."""

SOLE = 2
"""Sources that are too few to tell points from galaxies by their widths."""

BEADS = 8
"""Sources of one width that a field of beads has at least."""

BEAD_SHARE = 0.6
"""Share of all usable sources that are of one width, in a field of beads."""


def measure_psf(
    pixels: NDArray[Any],
    mask: Mask | None,
    variance: NDArray[Any] | None,
    kind: str = "astro",
    *,
    beads: bool = False,
    table: bool = True,
    population: Population | None = None,
) -> MeasuredPSF:
    """The PSF that the point sources of a frame show.

    Pixel-integrated elliptical Moffats are fitted to the sources that neighbours reach least, of every brightness.
    Those of one width are taken for points (`point_sources.choose_points`): galaxies are wider and differ, tracks of
    cosmic rays and hot pixels are no Moffat. **One PSF for the whole frame**: how its width changes over the field is
    part of its error (`measured_field.measure_field` follows it where it can).

    Parameters
    ----------
    pixels : (Y, X) array
        Any unit.
    mask : (Y, X) bool array or None
        True where a pixel is bad.
    variance : (Y, X) array or None
        In that unit squared; without it the sky's scatter serves.
    kind : {"astro", "micro"}
        In a ``micro`` frame points have to dominate: 8 sources and 60 % of them of one width, as beads are. Puncta of
        structure differ.
    beads : bool
        The frame is said to show beads, so that any number of sources will do.
    table : bool
        Whether what the sources have beside a Moffat is measured, too (`residual_table.measure_residual`).
    population : Population, optional
        The sources of the frame, where they are known.

    Raises
    ------
    InputError
        No source, or a microscope image in which sources of one width do not dominate.
    """
    population = population or find_population(prepare_field(pixels, mask, variance))
    points = population.points
    if kind == "micro" and not beads:
        _refuse_puncta(population)
    if not len(points):
        how = "beads of the microscope" if kind == "micro" else "a shape such as gaussian:fwhm=...px"
        raise InputError(
            f"psf: no source to measure a PSF from (0 usable of {population.found} seen);"
            f" give --psf with {how} or a FILE, or --psf blind to estimate a width from the frame's spectrum"
        )
    found = summarise(population, "bead" if kind == "micro" else "source", table)
    doubt = Notes() if beads else _doubt_extended(found, pixels, mask)
    return replace(found, notes=found.notes + doubt)


def _refuse_puncta(population: Population) -> None:
    """Refuse a microscope image whose sources are not of one width.

    Raises
    ------
    InputError
    """
    alike, all_ = int(population.point.sum()), len(population.fits)
    if alike < BEADS or population.share < BEAD_SHARE:
        raise InputError(
            f"psf: no source to measure a PSF from, since puncta of a microscope image are no point sources ({alike} of"
            f" {all_} have one width; beads are {BEADS} or more, and {100 * BEAD_SHARE:g} % of all): give"
            " --psf airy:na=...,wavelength=...nm, a FILE, --psf beads (these are beads), --psf beads:FILE"
            " or --psf blind"
        )


def _doubt_extended(found: MeasuredPSF, pixels: NDArray[Any], mask: Mask | None) -> Notes:
    """A warning where a minority of sources is wider than the frame's own spectrum says that a point is.

    Raises
    ------
    InputError
        One or two sources that are, or that fall off as slowly as the fit allows: galaxies.
    """
    if found.used <= SOLE and found.shape.wings >= SLOWEST:
        raise InputError(
            f"psf: no source to measure a PSF from: the {found.used} usable of {found.found} seen fall off as slowly as"
            f" galaxies do (Moffat beta {1 / found.shape.wings:.3g}); give --psf with a shape or a FILE, or --psf blind"
        )
    if found.used > SOLE and found.share >= DOMINANT:
        return Notes()
    try:
        blind = estimate_width(pixels, mask)
    except InputError:  # no structure to compare with
        return Notes()
    if np.log(found.fwhm / blind.fwhm) < 2 * blind.fwhm_error:
        return Notes()
    words = (
        f"fwhm {found.fwhm:.3g} px, wider than the {blind.fwhm:.3g} +- {blind.fwhm_error * blind.fwhm:.2g} px that the"
        " frame's spectrum shows, as galaxies are; give --psf with a shape or a FILE, or --psf blind"
    )
    if found.used > SOLE:
        return Notes(f"WARNING psf: the {found.used} of {found.found} sources have {words}")
    raise InputError(
        f"psf: no source to measure a PSF from: the {found.used} usable of {found.found} seen have {words}"
    )


def find_population(field: Field) -> Population:
    """The point sources of a field, of whatever width.

    Parameters
    ----------
    field : Field
        As `point_sources.prepare_field` makes it.
    """
    best: Population | None = None
    if not field.sigma > 0:
        return fit_population(Field(np.zeros_like(field.flat), field.noise, field.bad, 1.0), GUESSES[0], 1)
    for guess in GUESSES:
        found = _settle(field, guess)
        if best is None or found.point.sum() > best.point.sum():
            best = found
        if best.point.sum() >= 5:
            break
    assert best is not None
    return best


def _settle(field: Field, guess: float) -> Population:
    """Fits with a guess of the width that agrees with what they find."""
    for _ in range(4):
        found = fit_population(field, guess, FEW)
        if not found.point.any():
            return found
        before, guess = guess, float(np.median(found.points.fwhm))
        if abs(np.log(guess / before)) < 0.2:
            break
    # wings and ellipticity of the well measured ones, so that faint ones say their width alone
    points = found.points
    good = points[points.error < max(0.03, float(np.quantile(points.error, 0.5)))] if len(points) > 4 else points
    if len(good) < 3:
        return fit_population(field, guess, MOST)
    shape = {name: float(np.median(getattr(good, name))) for name in ("e1", "e2")}
    prior = Prior(float(np.median(good.wings)), 0.03, **shape, e_error=0.1)
    final = fit_population(field, guess, MOST, prior)
    return final if final.point.sum() >= found.point.sum() else found


def summarise(population: Population, name: str = "source", table: bool = True) -> MeasuredPSF:
    """The weighted mean of the fits with the table of what they leave, its error, and what there is to say.

    Parameters
    ----------
    population : Population
        With at least one point source.
    name : str
        Of a source, for the notes.
    table : bool
        Whether what the sources have beside a Moffat is measured.
    """
    points = population.points
    n, scatter = len(points), _excess_scatter(np.log(points.fwhm), points.error)
    weight = 1 / (points.error**2 + max(scatter, 0.02) ** 2)
    shape = _mean_shape(points, weight)
    residual = measure_residual(points, population.stamps[population.point], shape) if table else None
    # scatter of the sources, doubt whether they are points, and what a Moffat gets wrong
    doubt = DOUBT / n + (MINORITY if population.share < DOMINANT else 0.0)
    of_field, varies = _note_field(population)
    error = float(np.sqrt(1 / weight.sum() + doubt**2 + MODEL_ERROR**2 + varies**2))
    bare = MeasuredPSF(shape, residual, n, population.found, error)
    fwhm, spec = bare.fwhm, shape.spec
    line = f"psf: {spec.shape.capitalize()} fwhm {fwhm:.3g} +- {error * fwhm:.2g} px from {n} of {population.found}"
    notes = Notes(f"{line} {name}{'' if n == 1 else 's'} ({spec})") + of_field + _doubt(n, name)
    return replace(
        bare,
        scatter=scatter,
        e_error=float(1 / np.sqrt((1 / (points.e_error**2 + 0.02**2)).sum())),
        share=population.share,
        notes=notes,
    )


def _excess_scatter(values: Array, errors: Array) -> float:
    """Robust scatter of values beyond their errors; 0 for fewer than 3."""
    from astropy.stats import mad_std

    if len(values) < 3:
        return 0.0
    return float(np.sqrt(max(float(mad_std(values)) ** 2 - float(np.median(errors)) ** 2, 0.0)))


def _doubt(n: int, name: str) -> Notes:
    """A warning where hardly a source says what the PSF is."""
    if n > SOLE:
        return Notes()
    which = f"one {name}" if n == 1 else f"two {name}s"
    return Notes(
        f"WARNING psf: measured from {which} only, which may be wider than a point; compare with --psf blind, or give a"
        " shape or a FILE"
    )


def _note_field(population: Population) -> tuple[Notes, float]:
    """The range of the width where it changes over the field, and how much that is, rms of its logarithm; else 0.

    By a plane fitted to ln FWHM, where it rises by more than 4 of its errors.
    """
    points = population.points
    if len(points) < 12:
        return Notes(), 0.0
    y, x = (v - v.mean() for v in (points.y, points.x))
    weight = 1 / np.hypot(points.error, 0.02)
    design = np.stack([np.ones(len(y)), y, x], 1) * weight[:, None]
    plane, *_ = np.linalg.lstsq(design, np.log(points.fwhm) * weight, rcond=None)
    error = np.sqrt(np.diagonal(np.linalg.pinv(design.T @ design)))
    if not (np.abs(plane[1:]) > 4 * error[1:]).any():
        return Notes(), 0.0
    off = plane[1] * y + plane[2] * x
    low, high = (float(np.exp(plane[0] + end)) for end in (off.min(), off.max()))
    if high < 1.05 * low:
        return Notes(), 0.0
    line = f"psf: its fwhm changes over the field from {low:.3g} to {high:.3g} px; one PSF for all is taken"
    return Notes(f"{line}, and that is part of its error"), float(off.std())


def _mean_shape(points: MoffatFits, weight: Array) -> MoffatShape:
    """The weighted means of width, wings and ellipticity."""
    ln, wings, e1, e2 = (
        float(np.average(v, weights=weight)) for v in (np.log(points.fwhm), points.wings, points.e1, points.e2)
    )
    return MoffatShape(float(np.exp(ln)), wings, e1, e2)
