"""Noise planes of every convention (variance, sigma, weight) as variances, and pixels without one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import Frame
from sciresdiff.io.sampling import sample_regions
from sciresdiff.io.source import ReadRegion
from sciresdiff.region import Region

Array = NDArray[Any]
ROWS = 64
"""Rows read at a time in the search for the first variance of an image."""


def _from_weight(weight: Array) -> Array:
    """1 / weight; NaN where the weight is not positive and finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((weight > 0) & np.isfinite(weight), 1 / np.asarray(weight, np.float64), np.nan)


def _from_sigma(sigma: Array) -> Array:
    """sigma**2; NaN where sigma is not positive."""
    return np.where(sigma > 0, np.asarray(sigma, np.float64) ** 2, np.nan)


def _from_variance(variance: Array) -> Array:
    """The variance; NaN where it is not positive."""
    return np.where(variance > 0, np.asarray(variance, np.float64), np.nan)


NOISE_PLANES: dict[str, Callable[[Array], Array]] = {
    "VAR": _from_variance, "VARIANCE": _from_variance, "STAT": _from_variance,
    "ERR": _from_sigma, "ERROR": _from_sigma, "SIGMA": _from_sigma, "RMS": _from_sigma, "UNCERT": _from_sigma,
    "UNC": _from_sigma, "UNCERTAINTY": _from_sigma, "STD": _from_sigma, "STDDEV": _from_sigma, "NOISE": _from_sigma,
    "NOISE_MAP": _from_sigma,
    "WHT": _from_weight, "WEIGHT": _from_weight, "IVM": _from_weight, "IVAR": _from_weight, "INVVAR": _from_weight,
}  # fmt: skip
"""Name of a plane -> its conversion to a variance, in order of preference."""

RELATIVE = ("WHT", "WEIGHT")
"""Weights that may be in any unit, an exposure time for instance."""

STATED = {
    "variance": _from_variance, "rms": _from_sigma, "sigma": _from_sigma, "weight": _from_weight, "ivar": _from_weight,
}  # fmt: skip
"""What the user calls a plane, ``rms:SPEC``; a ``weight`` may be in any unit, ``ivar`` is 1/variance."""

NAME_PARTS = {
    r"oow|wht|weight|ivar|invvar|ivm": _from_weight,
    r"var": _from_variance,
    r"err|sigma|rms|noise|uncert": _from_sigma,
}
"""Part of an extension's or file's name -> conversion to a variance."""

NO_VARIANCE = "variance: no pixel has one above 0; give another plane, or gain and read noise"


def split_noise_kind(spec: str) -> tuple[str | None, str]:
    """Split ``rms:FILE[EXT]`` into what the user calls the plane and the rest.

    Returns
    -------
    kind : str or None
        A key of `STATED`; None where there is none, as in ``C:/x.fits``.
    spec : str
    """
    kind, colon, rest = spec.partition(":")
    return (kind, rest) if colon and kind in STATED and rest else (None, spec)


def to_variance(data: Array, *names: str) -> Array:
    """Convert a noise plane to variances by its name.

    Parameters
    ----------
    data : (..., h, w) array
        Variance, standard deviation or weight.
    names : str
        Name of the extension, then of the file. The first that is known decides; without any it is a variance.

    Returns
    -------
    (..., h, w) float64 array
        Variance; NaN where the plane is not positive.
    """
    for name in names:
        if convert := NOISE_PLANES.get(name.strip().upper()):
            return convert(data)
        if convert := next((convert for part, convert in NAME_PARTS.items() if re.search(part, name.lower())), None):
            return convert(data)
    return _from_variance(data)


def fill_variance(frame: Frame, variance: Array, fill: float | None = None) -> Frame:
    """Add a variance to a frame; pixels without one are masked and get a typical value.

    The value keeps sums and ratios over the plane finite.

    Parameters
    ----------
    frame : Frame
        Of the same shape.
    variance : (planes, h, w) array
        Variance in unit**2; NaN where it is unknown.
    fill : float, optional
        The value; without it the median of the others.

    Raises
    ------
    InputError
        Without ``fill``, no pixel has a variance.
    """
    good = np.isfinite(variance)
    if fill is None and not good.any():
        raise InputError(NO_VARIANCE)
    typical = np.median(variance[good]) if fill is None else fill
    filled = np.where(good, variance, typical).astype(np.float64)  # 1e-20 squared is 0 in single precision
    return frame.with_(variance=filled, mask=frame.mask | ~good)


class NoVarianceError(InputError):
    """A noise plane without a value above 0."""


def median_variance(read: ReadRegion, shape: tuple[int, ...]) -> float:
    """Measure the median of a variance plane where it is finite.

    Parameters
    ----------
    read : callable
        (plane, region) -> variance, NaN where it is unknown.
    shape : tuple of int
        (planes, Y, X). Of a large plane only `sample_regions` are read; if nothing is finite there, the first rows
        that have a finite value.

    Raises
    ------
    NoVarianceError
        No pixel has a variance.
    """
    found = np.concatenate([v[np.isfinite(v)] for v in (read(*place) for place in sample_regions(shape))])
    planes, h, w = shape
    bands = ((plane, Region(y, min(y + ROWS, h), 0, w)) for plane in range(planes) for y in range(0, h, ROWS))
    while not found.size:
        place = next(bands, None)
        if place is None:
            raise NoVarianceError(NO_VARIANCE)
        values = read(*place)
        found = values[np.isfinite(values)]
    return float(np.median(found))
