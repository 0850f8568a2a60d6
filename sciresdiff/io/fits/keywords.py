"""Unit, detector and seeing from the keywords of a FITS header.

BUNIT is matched with patterns of our own: half of the units in use (``counts/s``, ``e-``, ``nanomaggies``) are not
FITS,
and astropy.units does not parse them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np
from astropy.io import fits

from sciresdiff.frame import PixelSize, Quantity
from sciresdiff.io.fits.header import card_number, card_value
from sciresdiff.notes import Notes

MEAN_UNITS = (
    r".*(/|per |\s)(sr|beam|bm|arcsec(\^|\*\*)?-?2|sq\.? ?arcsec|pix(el)?\^?-2)(\^|\*\*)?-?[12]?\b.*",
    r".*(sr|beam|arcsec)(\^|\*\*)?-[12].*",
    r"m?k(elvin)?( ?km.*)?", r"mag.*", r"k?m(/s| s-1)",
)  # fmt: skip
"""Surface brightness and other intensive units: blocks of pixels average."""

SUM_UNITS = (
    r"adu|dn|du|counts?|cts?|electrons?|e-?|photo-?electrons?|photons?|ph",
    r"[munp]?jy(/(pix(el)?|px))?", r"nano-?maggy|nano-?maggies|nmgy|maggies|maggy",
    r"erg/s/cm\^?2(/(a|angstrom|hz))?",
)  # fmt: skip
"""Counts and other extensive units, per pixel or not, per second or not: blocks of pixels add up."""

_RATE = r"\s*(/|\.|\*|per|\s)\s*(s|sec|second)(ond)?(-1|\^-1|\*\*-1)?$"
_COUNTS = r"adu|dn|du|counts?|cts?"
_ELECTRONS = r"electrons?|e-?|photo-?electrons?|photons?|ph"

GAIN = ("EGAIN", "GAIN", "CCDGAIN", "ATODGAIN", "ESO DET OUT1 CONAD")
"""Electrons per ADU, in the order of belief: beside EGAIN, GAIN is a setting of the camera (100, 139)."""
GAINS = ("GAINA", "GAINB", "GAINC", "GAIND")
READ_NOISE = ("RDNOISE", "READNOIS", "READNOISE", "RON", "ENOISE", "ESO DET OUT1 RON")
READ_NOISES = ("RDNOISEA", "RDNOISEB", "RDNOISEC", "RDNOISED")
SATURATION = ("SATURATE", "SATLEVEL")
SATURATIONS = ("SATURATA", "SATURATB")
EXPOSURE = ("EXPTIME", "EXPOSURE", "XPOSURE", "EXP_TIME")
FWHM = ("PSF_FWHM", "FWHM", "SEEING")


def read_unit(headers: Iterable[fits.Header]) -> str | None:
    """Read BUNIT from the first header that has a meaningful one.

    Values such as ``unitless``, ``none`` and ``n/a`` mean that nobody filled it in.
    """
    for header in headers:
        unit = str(card_value(header, "BUNIT", "") or "").strip()
        if unit and unit.lower() not in ("unitless", "none", "unknown", "na", "n/a"):
            return unit
    return None


def quantity_of_unit(unit: str | None) -> Quantity | None:
    """Tell from a unit whether values of a block of pixels add up or average.

    Returns
    -------
    {"sum", "mean"} or None
        ``sum`` for counts and fluxes per pixel, also per second (``adu``, ``electron/s``, ``nJy/pixel``); ``mean`` for
        surface brightness and temperatures (``MJy/sr``, ``Jy/beam``, ``K``); None for a unit in neither list.
    """
    plain = (unit or "").strip().lower()
    if any(re.fullmatch(pattern, plain) for pattern in MEAN_UNITS):
        return "mean"
    per_pixel = re.sub(r"\s*(/|per)\s*(pix(el)?|px)$", "", plain)
    bare = re.sub(_RATE, "", per_pixel)
    return "sum" if any(re.fullmatch(pattern, text) for pattern in SUM_UNITS for text in (plain, bare)) else None


def is_rate(unit: str | None) -> bool:
    """Whether a unit is per second."""
    return re.search(_RATE, (unit or "").strip().lower()) is not None


def read_facts(
    headers: tuple[fits.Header, ...], unit: str | None, size: PixelSize | None
) -> tuple[dict[str, float], Notes]:
    """Read what the headers say about detector and seeing.

    Parameters
    ----------
    headers : tuple of Header
        The image's own first, then the primary one.
    unit : str or None
        BUNIT.
    size : PixelSize or None
        In arcsec, to convert angles to pixels.

    Returns
    -------
    facts : dict
        ``gain`` (electrons per data unit), ``read_noise`` (electrons), ``saturation`` (data units), ``exposure`` (s),
        ``fwhm`` (px), ``bmaj``, ``bmin``, ``bpa`` (degrees), where the headers have them.
    notes : Notes
        What was not used, and why.
    """
    exposure = _first_positive(headers, EXPOSURE)
    gain, of_gain = _gain(headers, unit, exposure)
    saturation = _first_positive(headers, SATURATION) or min(_each_positive(headers, SATURATIONS), default=None)
    if saturation and is_rate(unit):
        saturation = saturation / exposure if exposure else None
    beam = {key: _first(headers, (key.upper(),)) for key in ("bmaj", "bmin", "bpa")}
    width, of_width = _fwhm(headers, beam, size)
    found = {
        "exposure": exposure, "gain": gain, "read_noise": _read_noise(headers), "saturation": saturation, **beam,
        "fwhm": width,
    }  # fmt: skip
    return {key: float(x) for key, x in found.items() if x is not None}, of_gain + of_width


def _first(headers: Iterable[fits.Header], keys: Iterable[str]) -> float | None:
    keys = tuple(keys)
    found = (card_number(header, key) for header in headers for key in keys)
    return next((x for x in found if x is not None), None)


def _first_positive(headers: Iterable[fits.Header], keys: Iterable[str]) -> float | None:
    keys = tuple(keys)
    found = (card_number(header, key) for header in headers for key in keys)
    return next((x for x in found if x is not None and x > 0), None)


def _each_positive(headers: Iterable[fits.Header], keys: Iterable[str]) -> list[float]:
    found = (_first_positive(headers, (key,)) for key in keys)
    return [x for x in found if x is not None]


def _gain(headers: tuple[fits.Header, ...], unit: str | None, exposure: float | None) -> tuple[float | None, Notes]:
    """Electrons per data unit: 1 where the unit is electrons; times the exposure where it is per second."""
    bare = re.sub(_RATE, "", (unit or "").strip().lower())
    if re.fullmatch(_ELECTRONS, bare):
        gain: float | None = 1.0
    else:
        several = _each_positive(headers, GAINS)
        gain = _first_positive(headers, GAIN) or (float(np.mean(several)) if several else None)
        if gain is not None and unit and not re.fullmatch(_COUNTS, re.sub(r"/(pix(el)?|px)$", "", bare)):
            return None, Notes(f"gain: the header's are electrons per ADU, and BUNIT is {unit}; not used")
    # electrons per (unit / s), times s, are electrons per value
    if gain is None or not is_rate(unit):
        return gain, Notes()
    if exposure is None:
        return None, Notes(f"gain: BUNIT is {unit}, but there is no exposure time; the header's gain is not used")
    return gain * exposure, Notes()


def _read_noise(headers: tuple[fits.Header, ...]) -> float | None:
    amplifiers = next((str(card_value(h, "CCDAMP")) for h in headers if card_value(h, "CCDAMP")), "ABCD")
    # HST states a read noise for each amplifier, and which of them read the frame
    hubble = _each_positive(headers, [f"READNSE{a}" for a in amplifiers if a.isalpha()])
    several = hubble or _each_positive(headers, READ_NOISES)
    return _first_positive(headers, READ_NOISE) or (float(np.mean(several)) if several else None)


def _fwhm(
    headers: tuple[fits.Header, ...], beam: Mapping[str, float | None], size: PixelSize | None
) -> tuple[float | None, Notes]:
    """FWHM of the PSF in pixels.

    FWHM and PSF_FWHM are in pixels and SEEING in arcsec, unless the comment says otherwise.
    """
    side, notes = (size.x * size.y) ** 0.5 if size and size.unit == "arcsec" else None, Notes()
    if (major := beam["bmaj"]) and side:
        minor = major if beam["bmin"] is None else beam["bmin"]
        # BMAJ and BMIN are in degrees; the width of the round beam of the same area
        return 3600 * (major * minor) ** 0.5 / side, notes
    for header in headers:
        for key in FWHM:
            width = card_number(header, key)
            if width is None or width <= 0:
                continue
            comment = header.comments[key].lower()
            angle = "arcsec" in comment or (key == "SEEING" and "pix" not in comment)
            if angle and side is None:
                notes += Notes(f"{key}={width:g}: taken as arcsec, but the pixel size is unknown; give --pixel-size")
                continue
            return (width / side if angle and side else width), notes
    return None, notes
