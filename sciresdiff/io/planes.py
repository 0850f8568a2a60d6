"""The planes that go with an image: what noise and data-quality planes are called, and which flags are bad."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import Frame
from sciresdiff.io.fits.wcs import number, value
from sciresdiff.region import Region

Array = NDArray[Any]


def _inverse(weight: Array) -> Array:
    """1 / weight; NaN where there is no weight."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(weight > 0, 1 / np.asarray(weight, np.float64), np.nan)


def _square(sigma: Array) -> Array:
    """sigma**2; NaN where sigma is not positive."""
    return np.where(sigma > 0, np.asarray(sigma, np.float64) ** 2, np.nan)


def _positive(variance: Array) -> Array:
    """The variance; NaN where it is not positive."""
    return np.where(variance > 0, np.asarray(variance, np.float64), np.nan)


NOISE_PLANES: dict[str, Callable[[Array], Array]] = {
    "VAR": _positive, "VARIANCE": _positive, "ERR": _square, "ERROR": _square, "SIGMA": _square, "RMS": _square,
    "UNCERT": _square, "UNC": _square, "UNCERTAINTY": _square, "STD": _square, "STDDEV": _square, "NOISE": _square,
    "WHT": _inverse, "WEIGHT": _inverse, "IVM": _inverse, "IVAR": _inverse, "INVVAR": _inverse,
}  # fmt: skip
"""Name of a plane -> how it becomes a variance, in order of preference."""

RELATIVE = ("WHT", "WEIGHT")
"""Planes that may be weights in any unit, an exposure time for instance."""

DQ_PLANES = ("DQ", "MASK", "FLAGS", "FLAG", "BPM", "DQM", "BADPIX", "QUALITY")
"""Names of data-quality planes."""

OUR_PLANES = ("SUPPORT", "GATE", "TRUST", "KERNEL")
"""Planes that this program writes; those of an input are not carried over."""

STATED = {
    "variance": _positive, "rms": _square, "sigma": _square, "weight": _inverse, "ivar": _inverse,
}  # fmt: skip
"""``rms:SPEC``: what a plane is, said by the user; a ``weight`` may be in any unit, ``ivar`` is 1/variance."""

NAME_PARTS = {
    r"oow|wht|weight|ivar|invvar|ivm": _inverse,
    r"var": _positive,
    r"err|sigma|rms|noise|uncert": _square,
}
"""Part of an extension's or file's name -> how its image becomes a variance."""

HST_HARMLESS = 64 | 1024
"""Warm pixel, charge trap: corrected well enough in the calibration."""

HST_SATURATED = 256 | 2048
"""Full well, and the converter's limit."""

JWST_BAD, JWST_SATURATED = 1 | 2, 2
"""DO_NOT_USE and SATURATED; all else is information."""

CP_CODES_HARMLESS, CP_CODES_SATURATED = (7,), (3,)
"""Community Pipeline from 3.5 on: integer codes. 7 is a difference to other exposures: variable stars have it."""

CP_BITS_SATURATED = 2
"""Community Pipeline before 3.5: bits."""

LSST_BAD = {"BAD", "SAT", "INTRP", "CR", "NO_DATA", "SUSPECT", "UNMASKEDNAN", "STREAK", "CROSSTALK", "VIGNETTED"}
"""Mask planes (MP_*) that make a pixel bad. DETECTED is where the sources are, and never bad."""


def to_variance(data: Array, *names: str) -> Array:
    """An image that the user calls a noise plane, as variance in float64; NaN where it has no information.

    The first of the names (extension, then file) that tells how decides; without any it is a variance.
    """
    for name in names:
        if turn := NOISE_PLANES.get(name.strip().upper()):
            return turn(data)
        if turn := next((turn for pattern, turn in NAME_PARTS.items() if re.search(pattern, name.lower())), None):
            return turn(data)
    return _positive(data)


def in_single(path: Path, stack: Array) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Planes (planes, Y, X) in single precision, NaN where there is no number, and True there.

    Raises
    ------
    InputError
        No number at all, or one beyond 3.4e38.
    """
    planes, bad = part_in_single(path, stack)
    if bad.all():
        raise InputError(nothing_in(path))
    return planes, bad


def part_in_single(path: Path, stack: Array) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """`in_single` of a part of an image, in which there need not be a number."""
    with np.errstate(over="ignore"):
        planes = stack.astype(np.float32)
    bad = ~np.isfinite(planes)
    if np.isfinite(stack[bad]).any():
        raise InputError(f"{path}: values beyond 3.4e38 are not held here; bring the image to a larger unit")
    planes[bad] = np.nan
    return planes, bad


def nothing_in(path: Path) -> str:
    """What is said of an image without a number."""
    return f"{path}: all pixels are NaN or infinite; nothing to restore from"


def settled(frame: Frame, variance: Array, fill: float | None = None) -> Frame:
    """Mask the pixels without a variance; they get a typical one, so that arithmetic stays finite.

    ``fill`` is the variance that they get; without it the median of the others.
    """
    good = np.isfinite(variance)
    if fill is None and not good.any():
        raise InputError(NO_VARIANCE)
    middle = np.median(variance[good]) if fill is None else fill
    filled = np.where(good, variance, middle).astype(np.float64)  # 1e-20 squared is 0 in single
    return frame.with_(variance=filled, mask=frame.mask | ~good)


NO_VARIANCE = "variance: no pixel has one above 0; give another plane, or gain and read noise"


MOST, SIDE = 2048**2, 512
"""A frame of so many pixels is looked at whole; of a larger one windows of that side."""


def patches(shape: tuple[int, ...]) -> list[tuple[int, Region]]:
    """Planes and regions that tell what an image of (planes, Y, X) is like.

    All of it, where it has at most ``MOST`` pixels; else windows of ``SIDE``**2 spread evenly over up to four of its
    planes, as many as fill ``MOST``.
    """
    planes, h, w = shape
    if planes * h * w <= MOST:
        return [(plane, Region(0, h, 0, w)) for plane in range(planes)]
    chosen = sorted({round(i) for i in np.linspace(0, planes - 1, min(planes, 4))})
    count = max(1, int((MOST / len(chosen) / SIDE**2) ** 0.5))
    ys, xs = ([(round(a), min(round(a) + SIDE, n)) for a in np.linspace(0, max(n - SIDE, 0), count)] for n in (h, w))
    regions = [Region(*y, *x) for y in dict.fromkeys(ys) for x in dict.fromkeys(xs)]
    return [(plane, region) for plane in chosen for region in regions]


def stated(spec: str) -> tuple[str | None, str]:
    """``rms:FILE[EXT]`` -> what the user says it is (a key of `STATED`), and the rest; None where nothing is said."""
    kind, colon, rest = spec.partition(":")
    return (kind, rest) if colon and kind in STATED and rest else (None, spec)


def flagged(
    dq: Array, headers: tuple[fits.Header, ...], mask_header: fits.Header
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], str]:
    """Which pixels are bad, which of them saturated, and by which rule.

    Parameters
    ----------
    dq : integer array
        Flags as the file has them.
    headers : tuple of Header
        The image's and the primary one: TELESCOP, INSTRUME, PLVER, SDQFLAGS.
    mask_header : Header
        Of the plane itself: MP_* cards.
    """
    planes = {str(key)[3:]: int(number(mask_header, key) or 0) for key in mask_header if str(key).startswith("MP_")}
    if planes:
        return _lsst(dq, planes)
    telescope = _text(headers, "TELESCOP").upper()
    if telescope.startswith("HST"):
        serious = next((int(x) for h in headers if (x := number(h, "SDQFLAGS"))), 2**15 - 1)
        return (dq & serious & ~HST_HARMLESS) != 0, (dq & HST_SATURATED) != 0, "HST bits without the harmless ones"
    if telescope.startswith("JWST"):
        return (dq & JWST_BAD) != 0, (dq & JWST_SATURATED) != 0, "JWST's DO_NOT_USE and SATURATED"
    if version := re.match(r"V?(\d+)\.(\d+)", _text(headers, "PLVER")):
        return _community_pipeline(dq, headers, (int(version[1]), int(version[2])))
    return dq != 0, np.zeros(dq.shape, bool), "every flag"


def _text(headers: tuple[fits.Header, ...], key: str) -> str:
    return next((str(found).strip() for h in headers if (found := value(h, key))), "")


def _lsst(dq: Array, planes: Mapping[str, int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_], str]:
    bad = sum(1 << bit for name, bit in planes.items() if name in LSST_BAD)
    saturated = 1 << planes["SAT"] if "SAT" in planes else 0
    named = " ".join(sorted(LSST_BAD & set(planes)))
    return (dq & bad) != 0, (dq & saturated) != 0, f"mask planes {named}"


def _community_pipeline(
    dq: Array, headers: tuple[fits.Header, ...], version: tuple[int, int]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], str]:
    if version < (3, 5) and "decam" in _text(headers, "INSTRUME").lower():
        return dq != 0, (dq & CP_BITS_SATURATED) != 0, "every bit (Community Pipeline before 3.5)"
    bad = (dq != 0) & ~np.isin(dq, CP_CODES_HARMLESS)
    return bad, np.isin(dq, CP_CODES_SATURATED), "Community Pipeline codes, 7 being harmless"
