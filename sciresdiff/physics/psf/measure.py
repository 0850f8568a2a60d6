"""The PSF of a frame, from its own stars or beads."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy.spatial import cKDTree

from sciresdiff.errors import InputError
from sciresdiff.notes import Notes
from sciresdiff.physics.psf.spec import PSFSpec
from sciresdiff.physics.sky import background_map, sky_noise

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

FEWEST = 5
"""Sources that a PSF needs."""

MOST = 60
"""Sources that are fitted, the brightest first."""

CLUMP = 0.15
"""Relative width of the window in which the FWHM of stars lie."""

NODES, WEIGHTS = np.polynomial.legendre.leggauss(4)


@dataclass(frozen=True)
class MoffatFit:
    """An elliptical Moffat profile, integrated over the pixel, fitted to one source."""

    fwhm: float
    """Geometric mean of the axes, px."""
    beta: float
    """Power of the wings."""
    e1: float
    """Logarithm of the axis ratio times cos(2 theta)."""
    e2: float
    """The same times sin(2 theta)."""
    chi2: float
    """Per degree of freedom, with 2 % of the model's own value as an error besides the noise."""


def psf_from_sources(
    pixels: NDArray[Any], mask: Mask | None, variance: NDArray[Any] | None, kind: str = "astro", *, beads: bool = False
) -> tuple[PSFSpec, int, Notes]:
    """The optical PSF: the median of pixel-integrated elliptical Moffat fits to isolated, unsaturated point sources.

    Sources are found at 10 sigma, those near another, a bad pixel or the border are left out, and of the fits those
    count whose FWHM lie in the densest clump (stars; galaxies are wider and differ, cosmic rays are narrower than
    1.2 px). **One PSF for the whole frame**: a change over the field is noted, not followed.

    Parameters
    ----------
    pixels : (Y, X) array
        Any unit.
    mask : (Y, X) bool array or None
        True where a pixel is bad.
    variance : (Y, X) array or None
        In that unit squared; without it the sky's scatter serves.
    kind : {"astro", "micro"}
        ``micro`` is refused unless ``beads`` says that the frame shows beads: puncta are structure.
    beads : bool
        Whether every point source counts, however narrow.

    Returns
    -------
    psf : PSFSpec
        In px of this frame, not integrated over the pixel (``kernel_from_psf`` does that).
    used : int
        Sources.
    notes : Notes

    Raises
    ------
    InputError
        A microscope image, or fewer than 5 sources.
    """
    from astropy.stats import mad_std

    if kind == "micro" and not beads:
        raise InputError(
            "psf: no source to measure a PSF from, since puncta of a microscope image are no point sources;"
            " give --psf airy:na=...,wavelength=...nm or --psf FILE, from beads for instance"
        )
    fits = _fit_sources(np.asarray(pixels, np.float64), mask, variance)
    stars = _densest_clump([f for f in fits if f.fwhm > 1.2 or beads])
    if len(stars) < FEWEST:
        raise InputError(
            f"psf: no source to measure a PSF from ({len(stars)} usable, {FEWEST} are needed);"
            " give --psf gaussian:fwhm=...px or --psf FILE"
        )
    psf = _median_spec(stars)
    spread = float(mad_std([f.fwhm for f in stars]))
    notes = Notes(f"psf: {psf} from {len(stars)} of {len(fits)} sources, scatter of the FWHM {spread:.2g} px")
    if spread > 0.1 * psf.params["fwhm"][0]:
        notes += Notes("psf: the width differs by more than 10 % across the frame; one PSF for all is an approximation")
    return psf, len(stars), notes


def _fit_sources(pixels: Array, mask: Mask | None, variance: NDArray[Any] | None) -> list[MoffatFit]:
    """A fit for every source that can be used."""
    bad = ~np.isfinite(pixels) if mask is None else ~np.isfinite(pixels) | mask
    flat = np.where(bad, 0.0, pixels - background_map(pixels, bad))
    sigma = sky_noise(pixels, bad)
    if not sigma > 0:
        return []
    noise = np.full(pixels.shape, sigma**2) if variance is None else np.maximum(variance, 0.01 * sigma**2)
    guess = 3.0
    for most in (15, MOST):  # the first pass, on few, tells how wide stars are
        radius = int(np.clip(np.ceil(2 * guess), 4, 24))
        places = _isolated_sources(flat, bad, sigma, guess, radius)
        fits = [fit for place in places[:most] if (fit := _fit_moffat(flat, noise, place, radius, guess))]
        if not fits:
            return []
        guess = float(np.median([f.fwhm for f in _densest_clump(fits) or fits]))
    return fits


def _isolated_sources(flat: Array, bad: Mask, sigma: float, fwhm: float, radius: int) -> NDArray[np.int64]:
    """(n, 2) pixels at sources with nothing brighter than 5 % of them within two radii; brightest first."""
    found, peaks = _find_sources(flat, bad, sigma, fwhm)
    if not len(found):
        return found
    top = np.percentile(flat[~bad], 99.999)
    good = []
    for place, peak, near in zip(found, peaks, cKDTree(found).query_ball_point(found, 1.7 * radius), strict=True):
        y, x = place
        inside = radius <= y < flat.shape[0] - radius and radius <= x < flat.shape[1] - radius
        alone = max((peaks[i] for i in near if tuple(found[i]) != (y, x)), default=0.0) < 0.05 * peak
        clean = inside and not bad[y - radius : y + radius + 1, x - radius : x + radius + 1].any()
        # what reaches the brightest values of the frame may be saturated
        good.append(bool(clean and alone and (peak < 0.95 * top or len(found) < 3 * FEWEST)))
    kept, bright = found[np.array(good)], peaks[np.array(good)]
    return np.asarray(kept[np.argsort(-bright)])


def _find_sources(flat: Array, bad: Mask, sigma: float, fwhm: float) -> tuple[NDArray[np.int64], Array]:
    """Places and peaks of what stands 10 sigma above the sky in the image smoothed by the PSF."""
    from photutils.detection import DAOStarFinder

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = DAOStarFinder(threshold=5 * sigma, fwhm=fwhm)(flat, mask=bad)
    if table is None or not len(table):
        return np.zeros((0, 2), np.int64), np.zeros(0)
    # xcentroid or x_centroid, by the version of photutils
    names = [next(n for n in table.colnames if n.replace("_", "") == c) for c in ("ycentroid", "xcentroid")]
    places = np.stack([np.rint(np.asarray(table[name])).astype(int) for name in names], 1)
    places = np.clip(places, 0, np.array(flat.shape) - 1)
    peaks = flat[places[:, 0], places[:, 1]]
    bright = peaks > 10 * sigma
    return places[bright], peaks[bright]


def _fit_moffat(flat: Array, noise: Array, place: NDArray[np.int64], radius: int, guess: float) -> MoffatFit | None:
    """Least squares for flux, centre, width, beta, ellipticity and sky of one source; None where it is no star."""
    y0, x0 = place
    window = slice(y0 - radius, y0 + radius + 1), slice(x0 - radius, x0 + radius + 1)
    data = flat[window]
    line = np.arange(-radius, radius + 1.0)
    weight = 1 / np.sqrt(noise[window] + (0.02 * np.clip(data, 0, None)) ** 2)
    scale = max(float(data.max()), 1e-30)

    def residual(p: Array) -> Array:
        return np.asarray(((_moffat_model(p, line) * scale - data) * weight).ravel())

    start = np.array([1.0, 0.0, 0.0, np.log(guess), np.log(3.0), 0.0, 0.0, 0.0])
    low = [0, -2, -2, np.log(0.3), np.log(1.3), -1.5, -1.5, -1]
    high = [np.inf, 2, 2, np.log(8 * guess), np.log(100), 1.5, 1.5, 1]
    try:
        found = optimize.least_squares(residual, start, bounds=(low, high), max_nfev=40, x_scale="jac")
    except ValueError:
        return None
    p, chi2 = found.x, 2 * found.cost / (data.size - len(start))
    ok = np.hypot(p[1], p[2]) < 1.5 and np.hypot(p[5], p[6]) < 0.7 and chi2 < 10
    return MoffatFit(float(np.exp(p[3])), float(np.exp(p[4])), float(p[5]), float(p[6]), float(chi2)) if ok else None


def _moffat_model(p: Array, line: Array) -> Array:
    """Peak 1, integrated over the pixel; p = amplitude, y, x, ln FWHM, ln beta, e1, e2, sky."""
    amplitude, y0, x0, width, beta, e1, e2, sky = p
    fwhm, beta = np.exp(width), np.exp(beta)
    alpha2 = fwhm**2 / (4 * (2 ** (1 / beta) - 1))
    y, x = (line[:, None] - y0), (line[None, :] - x0)
    points, weights = (NODES, WEIGHTS) if fwhm < 3 else np.polynomial.legendre.leggauss(2)
    # exp of the traceless matrix (e1, e2): axes exp(+-e/2), area kept
    e = np.hypot(e1, e2)
    c, s = np.cosh(e), (np.sinh(e) / e if e > 1e-9 else 1.0)
    total = np.zeros((len(line), len(line)))
    for dy, wy in zip(points / 2, weights / 2, strict=True):
        for dx, wx in zip(points / 2, weights / 2, strict=True):
            yy, xx = y + dy, x + dx
            r2 = xx**2 * (c - s * e1) + yy**2 * (c + s * e1) - 2 * s * e2 * xx * yy
            total += wy * wx * (1 + r2 / alpha2) ** -beta
    return np.asarray(amplitude * total + sky)


def _densest_clump(fits: list[MoffatFit]) -> list[MoffatFit]:
    """The fits in the window of FWHM, 15 % wide, that holds most."""
    ordered = sorted(fits, key=lambda f: f.fwhm)
    widths = np.array([f.fwhm for f in ordered])
    if not len(widths):
        return []
    ends = np.searchsorted(widths, widths * (1 + CLUMP), side="right")
    first = int(np.argmax(ends - np.arange(len(widths))))
    return ordered[first : ends[first]]


def _median_spec(fits: list[MoffatFit]) -> PSFSpec:
    """The median of every parameter; a Gaussian where beta is above 40, a circle where the axes agree to 2 %."""
    fwhm, beta, e1, e2 = (float(np.median([getattr(f, name) for f in fits])) for name in ("fwhm", "beta", "e1", "e2"))
    params: dict[str, tuple[float, str]] = {"fwhm": (fwhm, "px")}
    if beta < 40:
        params["beta"] = (beta, "")
    e = float(np.hypot(e1, e2))
    if e > 0.02:
        theta = float(np.rad2deg(0.5 * np.arctan2(e2, e1)))
        params |= {"ratio": (float(np.exp(-e)), ""), "theta": (theta, "deg")}
    return PSFSpec("moffat" if beta < 40 else "gaussian", params)
