"""World coordinates and other header cards that depend on the size of a pixel.

``f`` is the number of new pixels per old pixel along each axis: ``s`` for a grid of ``s`` times smaller pixels, ``1/s``
for binning. Only the two axes of the image plane change (`axes.plane_axes`). Pixel edges stay where they are
(pixel-area registration). A card that stands more than once is rescaled wherever it stands: programs differ in which
they read, and each finds the sky where it found it before.

Kept here instead of astropy's ``WCS.slice``, which leaves a CD matrix unscaled and does not rescale SIP coefficients
(astropy 8.0), and which returns a new header instead of the input's own cards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sciresdiff.frame import PixelSize
from sciresdiff.io.fits.axes import plane_axes
from sciresdiff.io.fits.header import card_number, card_value, last_number, repeated_keys, valid_cards
from sciresdiff.notes import Notes

Matrix = NDArray[np.float64]

LENGTH_CARDS = (
    "PIXSCALE", "PIXSCAL", "PIXSCAL1", "PIXSCAL2", "PIXSCL", "PXSCAL1", "PXSCAL2", "SECPIX", "SECPIX1", "SECPIX2",
    "D001SCAL", "D002SCAL", "XPIXSZ", "YPIXSZ", "PIXSIZE1", "PIXSIZE2", "XPIXELSZ", "YPIXELSZ",
)  # fmt: skip
"""Sides of a pixel: divided by f."""

AREA_CARDS = ("PIXAR_SR", "PIXAR_A2")
"""Areas of a pixel: divided by f**2."""

SATURATION_CARDS = ("SATURATE", "SATURATA", "SATURATB", "SATLEVEL")
"""Levels per pixel: divided by f**2 where blocks of pixels add up."""

STALE = re.compile(
    r"CHECKSUM|DATASUM|ZHECKSUM|ZDATASUM|BSCALE|BZERO|BLANK"
    r"|DATAMIN|DATAMAX|GOODMIN|GOODMAX|GOODMEAN|NGOODPIX|SNRMIN|SNRMAX|SNRMEAN|MDRIZSKY|DATE|IRAF-TLM|IRAF-MIN|IRAF-MAX"
    r"|SEEING|FWHM|PSF_FWHM|SEEINGP|ELLIPTIC|FILENAME"
)
"""Cards that are true of the input's pixels only."""

SECTIONS = re.compile(r"(DATASEC|TRIMSEC|BIASSEC)[A-D]?")
"""Sections of the image, in its own pixels."""

DETECTOR_SECTIONS = re.compile(r"(CCDSEC|DETSEC|AMPSEC)[A-D]?|CCDSUM")
"""Place of the image on the detector, and detector pixels per pixel."""

GROUP_CARDS = {"CRPIX1": "at", "CRPIX2": "at", "CD1_1": "step", "CD1_2": "step", "CD2_1": "step", "CD2_2": "step"}
"""Columns of a table with a row for each plane of a cube (waivered FITS, GEIS)."""

_ALTERNATES = ("", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_SIP = re.compile(r"(A|B|AP|BP)_(\d)_(\d)")
_CELESTIAL = re.compile(r"RA--|DEC-|[A-Z]L(ON|AT)|[A-Z]{2}L[NT]-")
_WCS = re.compile(
    r"WCSAXES[A-Z]?|WCSNAME[A-Z]?|(CRPIX|CRVAL|CTYPE|CUNIT|CDELT|CROTA|CRDER|CSYER|CNAME)\d[A-Z]?|(CD|PC|PV|PS)\d_\d+[A-Z]?"
    r"|LONPOLE[A-Z]?|LATPOLE[A-Z]?|RADESYS[A-Z]?|RADECSYS|EQUINOX[A-Z]?|(A|B|AP|BP)_(\d_\d|ORDER|DMAX)"
    r"|LT[MV]\d(_\d)?|WAT\d_\d+|WCSDIM|C[PQ](DIS|ERR)\d|D[PQ]\d(\..*)?|D2IM(DIS|ERR)?\d(\..*)?|AXISCORR"
)


def rescale_header(
    header: fits.Header, f: float, *, quantity: str | None = "sum", axes: tuple[int, int] | None = None
) -> fits.Header:
    """Return the header of the same sky on another pixel grid.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Header of the input grid; not changed.
    f : float
        New pixels per old pixel and axis, above 0.
    quantity : {"sum", "mean", None}
        With ``sum``, saturation levels are divided by f**2.
    axes : (x, y), optional
        Numbers of the FITS axes of the image plane; those that CTYPE tells by default.

    Returns
    -------
    astropy.io.fits.Header
        CRPIX' = f (CRPIX - 1/2) + 1/2; CD' = CD / f, or CDELT' = CDELT / f with PC unchanged; SIP coefficients of order
        p + q times f**(1 - p - q); LTM' = f LTM, LTV' = f LTV + (1 - f)/2; the same for alternates A to Z. PV, TPV,
        TNX (WAT) and everything in world units stay. Photometric cards (EXPTIME, GAIN, MAGZERO, PHOTFLAM ...) stay.
        Sections of the image (DATASEC) are rescaled; those of the detector (CCDSEC) stay and CCDSUM is rescaled, as
        long
        as both remain whole numbers. **Cards that are true of the old pixels only are dropped**, and named in HISTORY.
    """
    new, plane = header.copy(), axes or plane_axes(header)
    for alternate in _ALTERNATES:  # Greisen & Calabretta 2002 (Paper I), section 2.1.3
        _rescale_linear(new, alternate, f, plane)
    _rescale_sip(new, f)
    _rescale_physical(new, f, plane)
    _multiply(new, LENGTH_CARDS, 1 / f)
    _multiply(new, AREA_CARDS, 1 / f**2)
    _multiply(new, ("A_DMAX", "B_DMAX", "CPERR1", "CPERR2", "D2IMERR1", "D2IMERR2", "CNPIX1", "CNPIX2"), f)
    if quantity != "mean":
        _multiply(new, SATURATION_CARDS, 1 / f**2)
    _drop_stale(new, _rescale_sections(new, f))
    return new


def rescale_lookup(hdu: fits.ImageHDU, f: float) -> fits.ImageHDU:
    """Return a distortion table (WCSDVARR, D2IMARR) for the new grid.

    Both its grid and its values are in image pixels, and so are multiplied by f.
    """
    new = fits.ImageHDU(np.asarray(hdu.data) * np.float32(f), hdu.header.copy())
    for i in (1, 2):
        new.header[f"CRVAL{i}"] = f * (card_number(hdu.header, f"CRVAL{i}") or 0.0) + (1 - f) / 2
        new.header[f"CDELT{i}"] = f * (card_number(hdu.header, f"CDELT{i}") or 1.0)
    return new


def rescale_groups(table: Any, f: float) -> Any:
    """Return a table with a row for each plane of a cube: reference pixels and matrices for the new grid."""
    new = table.copy()
    for column, what in GROUP_CARDS.items():
        if column in new.columns.names:
            old = np.asarray(new.data[column], np.float64)
            new.data[column][:] = f * (old - 0.5) + 0.5 if what == "at" else old / f
    return new


def wcs_cards(header: fits.Header) -> fits.Header:
    """Return the cards of the WCS only, for planes on the same grid."""
    return fits.Header([card for card in valid_cards(header) if _WCS.fullmatch(card.keyword)])


def has_wcs(header: fits.Header) -> bool:
    """Whether the image plane is on the sky: right ascension and declination, or longitude and latitude."""
    return all(_CELESTIAL.match(str(card_value(header, f"CTYPE{i}", ""))) for i in plane_axes(header))


def warn_repeated(header: fits.Header, used: Iterable[str] = ()) -> Notes:
    """Warn of cards that stand more than once with different values: two plate solutions, two gains.

    Parameters
    ----------
    header : Header
        Of the image.
    used : iterable of str
        Keys that are read beside those of the WCS; of these the first card counts.
    """
    repeated, notes = repeated_keys(header), Notes()
    if solved := [key for key in repeated if _WCS.fullmatch(key)]:
        notes += Notes(
            f"WARNING wcs: more than once in the header, with different values: {_list(solved)} (two plate solutions?);"
            " each is rescaled, but programs differ in which they read; delete those that are wrong"
        )
    for key in [key for key in repeated if key in {*used, *LENGTH_CARDS} and key not in solved]:
        values = ", ".join(str(x) for x in repeated[key])
        notes += Notes(
            f"WARNING header: {key} stands more than once, with different values ({values}); the first counts"
        )
    if _is_matrix(header, "CD", "") and _is_matrix(header, "PC", "") and not _agree(header):
        notes += Notes(
            "WARNING wcs: CD1_1 ... and PC1_1 ... stand in one header and differ, which FITS does not allow; both are "
            "rescaled, and positions are those of PC and CDELT, as wcslib reads them"
        )
    return notes


def _list(keys: Sequence[str]) -> str:
    return ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")


def pixel_size(header: fits.Header) -> PixelSize | None:
    """Measure the sides of a pixel.

    Returns
    -------
    PixelSize or None
        In arcsec: of the WCS (lengths of the columns of its matrix), else of a pixel-scale card (PIXSCALE, SECPIX ...);
        None where there is neither.
    """
    if has_wcs(header):
        i, j = plane_axes(header)
        matrix = _jacobian(header, "")[np.ix_([i - 1, j - 1], [i - 1, j - 1])]
        x, y = 3600 * np.hypot(*matrix) / _per_degree(header, i)
        return PixelSize(float(y), float(x), "arcsec") if x > 0 and y > 0 else None
    for pair in (("PIXSCAL1", "PIXSCAL2"), ("SECPIX1", "SECPIX2"), ("PIXSCALE",) * 2, ("SECPIX",) * 2):
        sides = [abs(card_number(header, key) or 0) for key in pair]
        if all(sides):
            return PixelSize(sides[1], sides[0], "arcsec")
    return None


def _change(header: fits.Header, key: str, function: Callable[[float], float]) -> bool:
    """Apply a function to the value of a card, wherever it stands; return whether it stands anywhere."""
    places = [(key, i) for i in range(header.count(key) if key in header else 0)]
    numbers = [(place, x) for place in places if (x := card_number(header, place)) is not None]
    for place, x in numbers:
        header[place] = function(x)
    return bool(numbers)


def _multiply(header: fits.Header, keys: Iterable[str], factor: float) -> None:
    for key in keys:
        _change(header, key, lambda x: x * factor)


def _count_axes(header: fits.Header, alternate: str) -> int:
    """Number of axes of a WCS; 0 where there is none of that name."""
    stems = "CTYPE|CRPIX|CRVAL|CDELT|CD|PC"
    found = [int(m[2]) for key in header if (m := re.fullmatch(rf"({stems})([1-9])(_[1-9])?{alternate}", key))]
    return max(found, default=0)


def _is_matrix(header: fits.Header, stem: str, alternate: str) -> bool:
    return any(re.fullmatch(rf"{stem}\d_\d{alternate}", key) for key in header)


def _rescale_linear(header: fits.Header, alternate: str, f: float, plane: tuple[int, int]) -> None:
    axes = _count_axes(header, alternate)
    if not axes:
        return
    for i in plane:
        # the edge of the first pixel, at 0.5, stays; a missing CRPIX is 0
        if not _change(header, f"CRPIX{i}{alternate}", lambda x: f * (x - 0.5) + 0.5):
            header[f"CRPIX{i}{alternate}"] = 0.5 - 0.5 * f
    if _is_matrix(header, "CD", alternate):
        _multiply(header, (f"CD{i}_{j}{alternate}" for i in range(1, axes + 1) for j in plane), 1 / f)
        if not _is_matrix(header, "PC", alternate):
            # with a CD matrix CDELT has no meaning, but some readers take it for the pixel scale; 1 is a placeholder
            for i in plane:
                _change(header, f"CDELT{i}{alternate}", lambda x: x if x == 1 else x / f)
            return
    if _couples(header, alternate, axes, plane):
        # CDELT scales world axes: one shared with an axis that keeps its pixels must not change, so PC does
        for i in range(1, axes + 1):
            for j in plane:
                if not _change(header, f"PC{i}_{j}{alternate}", lambda x: x / f):
                    header[f"PC{i}_{j}{alternate}"] = float(i == j) / f
    else:
        for i in plane:
            if not _change(header, f"CDELT{i}{alternate}", lambda x: x / f):
                header[f"CDELT{i}{alternate}"] = 1 / f


def _pc(header: fits.Header, i: int, j: int, alternate: str) -> float:
    found = last_number(header, f"PC{i}_{j}{alternate}")
    return float(i == j) if found is None else found


def _couples(header: fits.Header, alternate: str, axes: int, plane: tuple[int, int]) -> bool:
    """Whether the pixel axes of the plane share world axes with others."""
    others = [i for i in range(1, axes + 1) if i not in plane]
    return any(_pc(header, i, j, alternate) or _pc(header, j, i, alternate) for i in others for j in plane)


def _agree(header: fits.Header) -> bool:
    """Whether a CD matrix says the same as the PC matrix and CDELT beside it."""
    cd, pc = (_jacobian(header, "", stem) for stem in ("CD", "PC"))
    return bool(np.allclose(cd, pc, rtol=1e-4, atol=1e-7 * np.abs(cd).max(initial=0)))


def _jacobian(header: fits.Header, alternate: str, stem: str = "") -> Matrix:
    """World units per pixel. Of cards that stand more than once the last counts, and PC before CD, as in wcslib.

    ``stem`` names the matrix where both are there.
    """
    axes = max(_count_axes(header, alternate), 2)
    if stem == "CD" or (not stem and _is_matrix(header, "CD", alternate) and not _is_matrix(header, "PC", alternate)):
        rows = [[last_number(header, f"CD{i + 1}_{j + 1}{alternate}") or 0.0 for j in range(axes)] for i in range(axes)]
        return np.array(rows)
    steps = [last_number(header, f"CDELT{i + 1}{alternate}") for i in range(axes)]
    rows = [[_pc(header, i + 1, j + 1, alternate) for j in range(axes)] for i in range(axes)]
    return np.array([1.0 if s is None else s for s in steps])[:, None] * np.array(rows)


def _per_degree(header: fits.Header, axis: int) -> float:
    unit = str(card_value(header, f"CUNIT{axis}", "deg")).strip().lower()
    return {"arcsec": 3600.0, "arcmin": 60.0, "rad": np.pi / 180, "mas": 3.6e6}.get(unit, 1.0)


def _rescale_sip(header: fits.Header, f: float) -> None:
    for key in dict.fromkeys(header):
        if match := _SIP.fullmatch(key):
            # f(u, v) = sum A_pq u^p v^q in pixels (Shupe et al. 2005, eq. 2): u' = f u, and so is the result
            _multiply(header, (key,), f ** (1 - int(match[2]) - int(match[3])))


def _set(header: fits.Header, key: str, value: float) -> None:
    """Set a card that is missing, or that cannot be parsed and therefore not be given a value."""
    header.remove(key, ignore_missing=True)
    header[key] = value


def _rescale_physical(header: fits.Header, f: float, plane: tuple[int, int]) -> None:
    """Rescale IRAF's image = LTM physical + LTV; a missing LTM is the unit matrix."""
    if not any(re.fullmatch(r"LTV\d|LTM\d_\d", key) for key in header):
        return
    for i in plane:
        if not _change(header, f"LTV{i}", lambda x: f * x + (1 - f) / 2):
            _set(header, f"LTV{i}", (1 - f) / 2)
        if not _change(header, f"LTM{i}_{i}", lambda x: f * x):
            _set(header, f"LTM{i}_{i}", f)
        _multiply(header, (f"LTM{i}_{j}" for j in plane if j != i), f)


def _rescale_sections(header: fits.Header, f: float) -> list[str]:
    """Rescale sections; return the keys of those that are no whole numbers on the new grid."""
    keys = list(dict.fromkeys(header))
    # a section that has no whole numbers on the new grid is dropped, not rounded
    sections = {key: _section(str(card_value(header, key)), f) for key in keys if SECTIONS.fullmatch(key)}
    header.update({key: text for key, text in sections.items() if text})
    detector = [key for key in keys if DETECTOR_SECTIONS.fullmatch(key)]
    binning = _whole(float(n) / f for n in re.findall(r"[\d.]+", str(card_value(header, "CCDSUM", ""))))
    if binning:
        header["CCDSUM"] = " ".join(binning)
    return [key for key, text in sections.items() if not text] + ([] if binning or f == 1 else detector)


def _section(text: str, f: float) -> str | None:
    """``[x1:x2,y1:y2]`` of the same area, in the same direction; None where it is no whole number of pixels."""
    match = re.fullmatch(r"\s*\[\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*:\s*(\d+)\s*\]\s*", text)
    if match is None:
        return None
    pairs = [(int(a), int(b)) for a, b in ((match[1], match[2]), (match[3], match[4]))]
    ends = [_whole((f * (min(p) - 1) + 1, f * max(p))) for p in pairs]
    if not all(ends):
        return None
    turned = [e if a <= b else e[::-1] for e, (a, b) in zip(ends, pairs, strict=True)]
    return "[" + ",".join(":".join(e) for e in turned) + "]"


def _whole(numbers: Iterable[float]) -> list[str]:
    """Numbers as text if all are whole and above 0; else none."""
    found = list(numbers)
    good = all(n > 0.5 and abs(n - round(n)) < 1e-6 for n in found)
    return [str(round(n)) for n in found] if good else []


def _drop_stale(header: fits.Header, others: Sequence[str] = ()) -> None:
    named = []
    for key in [key for key in dict.fromkeys(header) if STALE.fullmatch(key) or key in others]:
        if key not in ("CHECKSUM", "DATASUM"):
            named.append(f"{key}={card_value(header, key)}")
        header.remove(key, remove_all=True)
    if named:
        header.add_history("sciresdiff: of the input's pixels only, dropped: " + " ".join(named))
