"""Which two axes of a FITS image are directions on the sky or the detector, and which only count its planes.

A PSF blurs along the former. Axes of frequency, velocity, polarisation or time come in any place (FITS standard 4.0,
section 8; Greisen et al. 2006, Paper III, tables 1 and 6).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from astropy.io import fits

from sciresdiff.errors import InputError
from sciresdiff.io.fits.header import card_value, last_number
from sciresdiff.notes import Notes

CELESTIAL = re.compile(r"(RA|DEC|[A-Z]?(LON|LAT))(-|$)|[A-Z]{2}L[NT]-|SOLAR[XY]$")
"""Directions: right ascension and declination, longitudes and latitudes, and the Sun's (Thompson 2006)."""

_LATITUDE = re.compile(r"DEC|[A-Z]?LAT|[A-Z]{2}LT-|SOLARY")

NO_DIRECTION = re.compile(
    r"FREQ|ENER|WAV[NE]|AWAV|LAMBDA|V(RAD|OPT|ELO)|ZOPT|FELO|BETA|STOKES|TIME|UT[C1]?$|TAI$|COMPLEX|FARADAY|CHANNEL"
)
"""CTYPE of an axis that is no direction."""

DISPERSION = re.compile(r"WAV[NE]|AWAV|LAMBDA")
"""Axes along which a spectrograph's detector lies: its PSF is one there, too."""

_SPECTRAL_UNIT = re.compile(r"[kMGT]?Hz|k?m ?(/s|s\^?-1)|[kM]?eV", re.IGNORECASE)


def plane_axes(header: fits.Header) -> tuple[int, int]:
    """Numbers (from 1, as FITS counts) of the axes X and Y of an image plane, X < Y.

    They are the two pixel axes that the sky's world axes depend on; 1 and 2 where the header has no two such axes.
    """
    count = _count_axes(header)
    if pair := _sky_pair(header, count):
        return pair
    return 1, 2


def axis_letters(path: Path, header: fits.Header, shape: Sequence[int], stated: str | None) -> tuple[str, Notes]:
    """Give every axis of an array a letter: Y and X to the plane, the last of TCZ to the others.

    Parameters
    ----------
    path : Path
        The file, for errors.
    header : Header
        CTYPE, CUNIT and the matrix tell which axes are on the sky.
    shape : sequence of int
        As numpy has it, FITS axis 1 last.
    stated : str, optional
        The user's letters, which are believed.

    Returns
    -------
    letters : str
        In the order of ``shape``, ``YXC`` for instance.
    notes : Notes
        Says so where the plane is not the first two FITS axes.

    Raises
    ------
    InputError
        Letters that do not fit, or an axis of the plane that is no direction (a position-velocity slice).
    """
    count = len(shape)
    if stated:
        return _check_letters(path, stated.upper(), shape), Notes()
    x, y = plane_axes(header)
    if not (x < y <= count and shape[count - x] > 1 < shape[count - y]):
        x, y = 1, 2
    notes = _check_plane(path, header, count, (x, y))
    lead = iter("TCZ"[-(count - 2) :] if 2 < count <= 5 else "ABCDEFGH"[: count - 2])
    letters = "".join({x: "X", y: "Y"}.get(count - i) or next(lead) for i in range(count))
    if count > 5:
        letters = ""
    return _check_letters(path, letters, shape), notes


def _check_letters(path: Path, letters: str, shape: Sequence[int]) -> str:
    fits_shape = len(letters) == len(shape) and len(set(letters)) == len(letters) and letters.isalpha()
    if not fits_shape or not {"Y", "X"} <= set(letters):
        raise InputError(
            f"{path}: axes {letters or '?'!r} do not fit shape {tuple(shape)}; one letter per axis, Y and X among them"
        )
    return letters


def _check_plane(path: Path, header: fits.Header, count: int, pair: tuple[int, int]) -> Notes:
    """Refuse a plane along an axis that is no direction; note a plane of other axes than the first two."""
    names = {i: _ctype(header, i) for i in range(1, count + 1)}
    wrong = [i for i in pair if _is_no_direction(header, i)]
    if not wrong:
        if pair == (1, 2):
            return Notes()
        others = ", ".join(f"{i} ({names[i] or 'no CTYPE'})" for i in range(1, pair[1]) if i not in pair)
        sky = " and ".join(f"{i} ({names[i]})" for i in pair)
        return Notes(f"axes: the image lies in FITS axes {sky}; axis {others} left as it is")
    what = ", ".join(f"axis {i} is {names[i] or card_value(header, f'CUNIT{i}')}" for i in wrong)
    beside = [i for i in pair if i not in wrong]
    if all(DISPERSION.match(names[i]) for i in wrong) and not any(CELESTIAL.match(names[i]) for i in beside):
        return Notes(
            f"WARNING axes: {what}, no direction of the sky; taken as a detector's, the PSF blurs along it as well"
        )
    example = "YX" if count == 2 else "TCZYX"[-count:-2] + "YX" if count <= 5 else "?" * count
    raise InputError(
        f"{path}: CTYPE: {what}, which is no direction of the sky: a PSF does not blur along it; give an image whose "
        f"axes are directions (numpy.moveaxis puts them last), or --axes, for instance {example}, to say which axes "
        "are Y and X all the same"
    )


def _ctype(header: fits.Header, i: int) -> str:
    return str(card_value(header, f"CTYPE{i}", "") or "").strip().upper()


def _is_no_direction(header: fits.Header, i: int) -> bool:
    name = _ctype(header, i)
    if CELESTIAL.match(name):
        return False
    unit = str(card_value(header, f"CUNIT{i}", "") or "").strip()
    return bool(NO_DIRECTION.match(name) or _SPECTRAL_UNIT.fullmatch(unit))


def _count_axes(header: fits.Header) -> int:
    found = [int(m[1]) for key in header if (m := re.fullmatch(r"CTYPE([1-9])", key))]
    return max(found, default=0)


def _sky_pair(header: fits.Header, count: int) -> tuple[int, int] | None:
    """The pixel axes of the sky; None without a longitude and a latitude."""
    sky = [i for i in range(1, count + 1) if CELESTIAL.match(_ctype(header, i))]
    if len(sky) != 2 or sum(bool(_LATITUDE.match(_ctype(header, i))) for i in sky) != 1:
        return None
    couplings = [j for j in range(1, count + 1) if any(_coupling(header, i, j) for i in sky)]
    x, y = couplings if len(couplings) == 2 else sky  # more: a slit whose sky moves with a third axis
    return x, y


def _coupling(header: fits.Header, i: int, j: int) -> float:
    """Whether world axis i changes along pixel axis j; a missing matrix is the unit matrix."""
    for stem in ("PC", "CD"):
        if any(re.fullmatch(rf"{stem}\d_\d", key) for key in header):
            found = last_number(header, f"{stem}{i}_{j}")
            return float(stem == "PC" and i == j) if found is None else found
    return float(i == j)
