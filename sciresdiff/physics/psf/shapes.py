"""Shapes of a point spread function: Gaussian, Moffat, Airy, and a pupil with spiders and aberrations.

Every shape is a function of position in one unit of length (pixels, arcsec or micrometres), with its peak or its sum
not yet normalised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

Array = NDArray[np.float64]
Values = Mapping[str, float]

FWHM_PER_SIGMA = float(2 * np.sqrt(2 * np.log(2)))
AIRY_FWHM = 1.0289939
"""FWHM of an unobstructed Airy pattern in units of lambda / D."""

WIDEST = 8.0
"""Radius, in FWHM, at which a profile with wide wings is cut."""

FLUX_LEFT = 1e-6
"""Share of the flux beyond the radius at which any other profile is cut."""


@dataclass(frozen=True)
class Shape:
    """What is known of a shape; lengths in one unit."""

    profile: Callable[[Array, Array, Values], Array]
    """(y, x, values) -> intensity, any constant factor."""
    fwhm: Callable[[Values], float]
    reach: Callable[[Values], float]
    """Radius to which it is drawn."""
    takes: Mapping[str, str]
    """Parameter -> kind of its value (`psf.UNITS`)."""
    needs: tuple[tuple[str, ...], ...]
    """Sets of parameters of which exactly one has to be given."""


def elliptical_radius2(y: Array, x: Array, values: Values) -> Array:
    """Squared radius on which an elliptical profile is constant.

    The geometric mean of the axes is kept, so that ``ratio`` changes the shape and not the area.

    Parameters
    ----------
    y, x : (Y, 1) and (1, X) arrays, or any that broadcast
        Positions from the centre, in one unit of length.
    values : mapping
        ``ratio``, minor over major axis; ``theta``, angle of the major axis in degrees, from +x towards +y.
    """
    ratio = values.get("ratio", 1.0)
    if ratio == 1.0:
        return np.asarray(y * y + x * x)
    angle = np.deg2rad(values.get("theta", 0.0))
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.asarray(along**2 * ratio + across**2 / ratio)


def extent(values: Values) -> tuple[float, float]:
    """How much farther than a circle of the same area an ellipse reaches along y and x."""
    ratio, angle = values.get("ratio", 1.0), np.deg2rad(values.get("theta", 0.0))
    c2, s2 = np.cos(angle) ** 2, np.sin(angle) ** 2
    return float(np.sqrt(s2 / ratio + c2 * ratio)), float(np.sqrt(c2 / ratio + s2 * ratio))


def gaussian(y: Array, x: Array, values: Values) -> Array:
    """exp(-r^2 / (2 sigma^2)), 1 at the centre.

    Parameters
    ----------
    y, x : (Y, 1) and (1, X) arrays, or any that broadcast
        Positions from the centre, in one unit of length.
    values : mapping
        ``sigma`` in that unit, and what `elliptical_radius2` takes.
    """
    return np.asarray(np.exp(-0.5 * elliptical_radius2(y, x, values) / values["sigma"] ** 2))


def moffat(y: Array, x: Array, values: Values) -> Array:
    """(1 + r^2 / alpha^2)^-beta, alpha = FWHM / (2 sqrt(2^(1/beta) - 1)) (Moffat 1969), 1 at the centre.

    Parameters
    ----------
    y, x : (Y, 1) and (1, X) arrays, or any that broadcast
        Positions from the centre, in one unit of length.
    values : mapping
        ``fwhm`` in that unit, ``beta`` > 1, and what `elliptical_radius2` takes.
    """
    return np.asarray((1 + elliptical_radius2(y, x, values) / _alpha(values) ** 2) ** -values["beta"])


def _alpha(values: Values) -> float:
    """Scale radius of a Moffat profile."""
    return float(values["fwhm"] / (2 * np.sqrt(2 ** (1 / values["beta"]) - 1)))


def _moffat_reach(values: Values) -> float:
    """Radius beyond which `FLUX_LEFT` of the light lies: (1 + r^2 / alpha^2)^(1 - beta) = FLUX_LEFT."""
    left = FLUX_LEFT ** (1 / (1 - values["beta"]))
    return float(min(_alpha(values) * np.sqrt(left - 1), WIDEST * values["fwhm"]))


def _jinc(v: Array) -> Array:
    """2 J1(v) / v, 1 at 0."""
    safe = np.where(np.abs(v) < 1e-9, 1.0, v)
    return np.where(np.abs(v) < 1e-9, 1.0, 2 * special.j1(safe) / safe)


def airy(y: Array, x: Array, values: Values) -> Array:
    """Diffraction by a circular pupil with a central obstruction (Born & Wolf 8.5.2), 1 at the centre.

    ((jinc(v) - e^2 jinc(e v)) / (1 - e^2))^2 with v = pi r / scale and jinc(v) = 2 J1(v) / v.

    Parameters
    ----------
    y, x : (Y, 1) and (1, X) arrays, or any that broadcast
        Positions from the centre, in the unit of ``scale``.
    values : mapping
        ``scale``, lambda / D for a telescope and lambda / (2 NA) for a microscope; ``obstruction``, the ratio e of the
        diameters, 0 ... 0.99.
    """
    v, e = np.pi * np.hypot(y, x) / values["scale"], values.get("obstruction", 0.0)
    amplitude = _jinc(v) if e == 0 else (_jinc(v) - e**2 * _jinc(e * v)) / (1 - e**2)
    return np.asarray(amplitude**2)


RADII, NODES = 2048, 96
"""Radii at which a pattern of high aperture is computed, and nodes of its integrals."""


def vectorial(y: Array, x: Array, values: Values) -> Array:
    """Diffraction by an objective of high aperture, in focus, of light without polarisation.

    |I0|^2 + 2 |I1|^2 + |I2|^2 (Richards & Wolf 1959, eq. 3.16 averaged over the azimuth); with a pinhole the confocal
    one, excitation times (emission convolved with the pinhole's disk).

    Parameters
    ----------
    y, x : (Y, 1) and (1, X) arrays, or any that broadcast
        Positions from the centre, in the unit of ``scale``.
    values : mapping
        ``scale``, lambda / (2 NA); ``na``; ``ri``, refractive index of the immersion, above ``na``; ``pinhole``, its
        diameter in Airy units (1.22 lambda / NA), 0 or missing for widefield; ``excitation``, its wavelength as a
        share of the emission's, 1 where it is missing.
    """
    key = tuple(float(values.get(name, usual)) for name, usual in
                (("na", 1.0), ("ri", 1.0), ("pinhole", 0.0), ("excitation", 1.0)))  # fmt: skip
    radii, pattern = _radial_pattern(*key)
    return np.asarray(np.interp(np.hypot(y, x) / values["scale"], radii, pattern, right=0.0))


@lru_cache(maxsize=16)
def _radial_pattern(na: float, ri: float, pinhole: float, excitation: float) -> tuple[Array, Array]:
    """Radii in lambda / (2 NA), and the intensity there, 1 at the centre."""
    radii = np.linspace(0, 3 * WIDEST, RADII)
    emission = _focal_intensity(radii, na, ri)
    if not pinhole:
        return radii, emission / emission[0]
    # mean of the emission over a disk about every radius; 1 Airy unit is 2.44 lambda / (2 NA)
    nodes, weights = np.polynomial.legendre.leggauss(16)
    rho, angle = 1.22 * pinhole * (nodes + 1) / 2, np.pi * (np.arange(24) + 0.5) / 24
    away = np.sqrt(
        radii[:, None, None] ** 2 + rho[:, None] ** 2 + 2 * radii[:, None, None] * rho[:, None] * np.cos(angle)
    )
    seen = (np.interp(away, radii, emission, right=0.0).mean(2) * (weights * rho)).sum(1)
    both = seen * _focal_intensity(radii / excitation, na, ri)
    return radii, both / both[0]


def _focal_intensity(radii: Array, na: float, ri: float) -> Array:
    """Intensity at radii in lambda / (2 NA), any factor."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    theta = np.arcsin(na / ri) * (nodes + 1) / 2
    sine, cosine = np.sin(theta), np.cos(theta)
    v = np.pi * radii[:, None] * sine * ri / na  # k r sin(theta)
    apodisation = weights * np.sqrt(cosine) * sine
    zero = (apodisation * (1 + cosine) * special.j0(v)).sum(1)
    one = (apodisation * sine * special.j1(v)).sum(1)
    two = (apodisation * (1 - cosine) * special.jv(2, v)).sum(1)
    return np.asarray(zero**2 + 2 * one**2 + two**2)


ZERNIKE: dict[str, Callable[[Array, Array], Array]] = {
    "defocus": lambda r, t: np.sqrt(3) * (2 * r**2 - 1),
    "astigmatism": lambda r, t: np.sqrt(6) * r**2 * np.cos(2 * t),
    "astigmatism45": lambda r, t: np.sqrt(6) * r**2 * np.sin(2 * t),
    "coma": lambda r, t: np.sqrt(8) * (3 * r**3 - 2 * r) * np.cos(t),
    "coma90": lambda r, t: np.sqrt(8) * (3 * r**3 - 2 * r) * np.sin(t),
    "trefoil": lambda r, t: np.sqrt(8) * r**3 * np.cos(3 * t),
    "spherical": lambda r, t: np.sqrt(5) * (6 * r**4 - 6 * r**2 + 1),
}
"""Aberrations by name, of rms 1 over the full pupil (Noll 1976)."""

PUPIL, FOCAL = 64, 1024
"""Pixels across the pupil, and of its transform: the pattern is known on a grid of scale * PUPIL / FOCAL."""


def pupil_amplitude(values: Values) -> NDArray[np.complex128]:
    """Complex amplitude over a pupil of PUPIL pixels, edges anti-aliased.

    Parameters
    ----------
    values : mapping
        ``obstruction`` (ratio of diameters), ``spiders`` (number of vanes, the first along +y), ``spider_width`` (share
        of the diameter), and the aberrations of `ZERNIKE` in rms waves.

    Returns
    -------
    (PUPIL, PUPIL) complex array
    """
    line = (np.arange(PUPIL) - PUPIL / 2 + 0.5) * 2 / PUPIL
    y, x = np.meshgrid(line, line, indexing="ij")
    r, t = np.hypot(y, x), np.arctan2(y, x)
    edge = PUPIL / 2
    amplitude = np.clip((1 - r) * edge + 0.5, 0, 1) * np.clip((r - values.get("obstruction", 0.0)) * edge + 0.5, 0, 1)
    for vane in range(round(values.get("spiders", 0))):
        angle = np.pi / 2 + 2 * np.pi * vane / values["spiders"]
        along, across = x * np.cos(angle) + y * np.sin(angle), x * np.sin(angle) - y * np.cos(angle)
        # vanes are half-lines: the other half is another vane
        open_ = np.clip((np.abs(across) - values.get("spider_width", 0.02)) * edge + 0.5, 0, 1)
        amplitude = amplitude * np.where(along > 0, open_, 1)
    waves = sum((values[name] * term(r, t) for name, term in ZERNIKE.items() if values.get(name)), np.zeros_like(r))
    return np.asarray(amplitude * np.exp(2j * np.pi * waves))


def optical(y: Array, x: Array, values: Values) -> Array:
    """|FFT of the pupil|^2, interpolated by cubic splines; **zero beyond 32 lambda / D**.

    Parameters
    ----------
    y, x : (Y, 1) and (1, X) arrays, or any that broadcast
        Positions from the centre, in the unit of ``scale``.
    values : mapping
        ``scale``, lambda / D, and what `pupil_amplitude` takes.
    """
    of_pupil = {key: x for key, x in values.items() if key in _PUPIL or key == "obstruction"}
    # one transform serves every grid: the kernel's pixels read it by interpolation
    pattern = _focal_pattern(tuple(sorted(of_pupil.items())))
    step = values["scale"] * PUPIL / FOCAL
    places = np.broadcast_arrays(y / step + FOCAL // 2, x / step + FOCAL // 2)
    return np.asarray(ndimage.map_coordinates(pattern, places, order=3, mode="constant", prefilter=False))


@lru_cache(maxsize=4)
def _focal_pattern(values: tuple[tuple[str, float], ...]) -> Array:
    """Spline coefficients of the intensity in the focal plane, the centre of the pupil's transform in the middle."""
    # Fraunhofer diffraction; zero-padding the pupil FOCAL / PUPIL times samples lambda / D by as many points
    field = np.fft.fft2(pupil_amplitude(dict(values)), (FOCAL, FOCAL))
    return np.asarray(ndimage.spline_filter(np.fft.fftshift(np.abs(field) ** 2), order=3))


_ELLIPSE = {"ratio": "ratio", "theta": "angle"}
_DIFFRACTION = {"fwhm": "length", "aperture": "aperture", "na": "number", "wavelength": "wavelength"}
_PUPIL = {"spiders": "count", "spider_width": "share", **dict.fromkeys(ZERNIKE, "signed")}


def _airy_fwhm(values: Values) -> float:
    """FWHM of the unobstructed pattern."""
    return AIRY_FWHM * values["scale"]


def _diffraction_shape(profile: Callable[[Array, Array, Values], Array], more: Mapping[str, str]) -> Shape:
    """A shape that is made by a pupil; ``more`` it takes beside the obstruction."""
    takes: dict[str, Any] = {**_DIFFRACTION, "obstruction": "share", **more}
    wide = lambda values: WIDEST * _airy_fwhm(values)  # noqa: E731
    return Shape(profile, _airy_fwhm, wide, takes, (("fwhm", "aperture", "na"),))


SHAPES: dict[str, Shape] = {
    "gaussian": Shape(
        gaussian,
        lambda values: FWHM_PER_SIGMA * values["sigma"],
        lambda values: 5 * values["sigma"],
        {"fwhm": "length", "sigma": "length", **_ELLIPSE},
        (("fwhm", "sigma"),),
    ),
    "moffat": Shape(
        moffat,
        lambda values: values["fwhm"],
        _moffat_reach,
        {"fwhm": "length", "beta": "number", **_ELLIPSE},
        (("fwhm",), ("beta",)),
    ),
    "airy": _diffraction_shape(airy, {}),
    "optical": _diffraction_shape(optical, _PUPIL),
    "vectorial": Shape(
        vectorial,
        _airy_fwhm,
        lambda values: WIDEST * _airy_fwhm(values),
        {"na": "number", "ri": "number", "wavelength": "wavelength", "excitation": "wavelength", "pinhole": "number"},
        (("na",), ("ri",)),
    ),
}
"""Name in a SPEC -> shape."""
