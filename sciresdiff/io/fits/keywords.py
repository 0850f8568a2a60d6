"""Unit, detector and seeing from the keywords of a FITS header."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from astropy.io import fits

from sciresdiff.frame import PixelSize
from sciresdiff.io.fits.beam import find_beam
from sciresdiff.io.fits.header import card_number, card_value
from sciresdiff.notes import Notes
from sciresdiff.units import clean_unit, is_count, is_electron, is_rate

GAIN = ("EGAIN", "GAIN", "CCDGAIN", "ATODGAIN", "ESO DET OUT1 CONAD")
"""Electrons per ADU, in the order of belief: beside EGAIN, GAIN is a setting of the camera (100, 139)."""
GAINS = ("GAINA", "GAINB", "GAINC", "GAIND")
READ_NOISE = ("RDNOISE", "READNOIS", "READNOISE", "RON", "ENOISE", "ESO DET OUT1 RON")
READ_NOISES = ("RDNOISEA", "RDNOISEB", "RDNOISEC", "RDNOISED")
SATURATION = ("SATURATE", "SATLEVEL")
SATURATIONS = ("SATURATA", "SATURATB")
EXPOSURE = ("EXPTIME", "EXPOSURE", "XPOSURE", "EXP_TIME")
ZERO_POINT = ("MAGZERO", "MAGZPT", "PHOTZP", "MAGZP", "ZEROPNT", "PHOTZPT")
"""Magnitude of a source of one unit, or of one unit per second."""
FLUX_DENSITY = ("PHOTMJSR", "PHOTFLAM", "PHOTFNU")
"""Light of one unit per second, of every camera in its own unit."""
FWHM = ("PSF_FWHM", "FWHM", "SEEING")
READ_KEYS = (
    "BUNIT", *GAIN, *GAINS, *READ_NOISE, *READ_NOISES, *SATURATION, *SATURATIONS, *EXPOSURE, *FWHM,
    "BMAJ", "BMIN", "BPA",
)  # fmt: skip
"""All cards that are read for the physics of a frame."""


def read_unit(headers: Iterable[fits.Header]) -> str | None:
    """Read BUNIT from the first header that has a meaningful one.

    Values such as ``unitless``, ``none`` and ``n/a`` mean that nobody filled it in.
    """
    for header in headers:
        if unit := clean_unit(card_value(header, "BUNIT", "")):
            return unit
    return None


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
        ``zero_point`` (mag), ``flux_density`` (of one unit per second),
        ``softening`` of an asinh scale (BSOFTEN of Pan-STARRS),
        ``fwhm`` (px), ``bmaj``, ``bmin``, ``bpa`` (degrees), where the headers have them.
    notes : Notes
        What was not used, and why.
    """
    exposure = _first_positive(headers, EXPOSURE)
    gain, of_gain = _gain(headers, unit, exposure)
    saturation = _first_positive(headers, SATURATION) or min(_each_positive(headers, SATURATIONS), default=None)
    if saturation and is_rate(unit):
        saturation = saturation / exposure if exposure else None
    beam, of_beam = find_beam(headers)
    axes = {} if beam is None else {"bmaj": beam.major, "bmin": beam.minor, "bpa": beam.angle}
    width, of_width = _fwhm(headers, size) if beam is None else (None, Notes())
    found = {
        "softening": _first_positive(headers, ("BSOFTEN",)),
        "zero_point": _first_positive(headers, ZERO_POINT), "flux_density": _first_positive(headers, FLUX_DENSITY),
        "exposure": exposure, "gain": gain, "read_noise": _read_noise(headers), "saturation": saturation, **axes,
        "fwhm": width,
    }  # fmt: skip
    return {key: float(x) for key, x in found.items() if x is not None}, of_gain + of_beam + of_width


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
    if is_electron(unit):
        gain: float | None = 1.0
    else:
        several = _each_positive(headers, GAINS)
        gain = _first_positive(headers, GAIN) or (float(np.mean(several)) if several else None)
        if gain is not None and unit and not is_count(unit):
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


def _fwhm(headers: tuple[fits.Header, ...], size: PixelSize | None) -> tuple[float | None, Notes]:
    """FWHM of the PSF in pixels.

    FWHM and PSF_FWHM are in pixels and SEEING in arcsec, unless the comment says otherwise.
    """
    side, notes = (size.x * size.y) ** 0.5 if size and size.unit == "arcsec" else None, Notes()
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
