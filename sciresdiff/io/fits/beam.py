"""The beam of a radio map as an ellipse on its pixels: BMAJ, BMIN, BPA, of cards, of HISTORY, or of a table."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from sciresdiff.frame import Frame
from sciresdiff.io.fits.header import card_number, card_value, valid_header
from sciresdiff.notes import Notes

WIDEST = 0.5
"""Share of the frame's shorter side that a beam may be wide and still be believed."""
ROUND = 1e-3
"""Relative difference of two axes that counts as none."""
CLEAN = re.compile(r"BMAJ\s*=\s*(\S+)\s+BMIN\s*=\s*(\S+)(?:\s+BPA\s*=\s*(\S+))?")
"""What AIPS writes into HISTORY after cleaning."""
TO_DEGREES = {"deg": 1.0, "degree": 1.0, "arcmin": 1 / 60, "arcsec": 1 / 3600, "mas": 1 / 3.6e6, "rad": 180 / np.pi}


@dataclass(frozen=True)
class Beam:
    """FWHM along both axes, and the angle of the major one from north through east; degrees."""

    major: float
    minor: float
    angle: float = 0.0


@dataclass(frozen=True)
class Ellipse:
    """A beam on the pixels: geometric mean of the FWHM (px), minor over major axis, angle from +x to +y (degrees)."""

    fwhm: float
    ratio: float
    theta: float

    @property
    def spec(self) -> str:
        """As a SPEC of a Gaussian."""
        shape = "" if 1 - self.ratio < ROUND else f",ratio={self.ratio:.6g},theta={self.theta:.6g}deg"
        return f"gaussian:fwhm={self.fwhm:.8g}px{shape}"


def find_beam(headers: Iterable[fits.Header]) -> tuple[Beam | None, Notes]:
    """The beam of the first header that has one: cards in degrees (or as their comment says), else AIPS' HISTORY.

    Parameters
    ----------
    headers : iterable of Header
        The image's own first.
    """
    headers = tuple(headers)
    for header in headers:
        major, minor, angle = (card_number(header, key) for key in ("BMAJ", "BMIN", "BPA"))
        if major is not None and major > 0:
            unit = _unit_factor(str(header.comments["BMAJ"]))
            minor = major if minor is None or minor <= 0 else minor
            return _with_angle(Beam(unit * major, unit * minor, angle or 0.0), angle)
    for header in headers:
        found = [m for line in header.get("HISTORY", []) if (m := CLEAN.search(str(line)))]
        if found and (numbers := [_number(text) for text in found[-1].groups()])[0] and numbers[1]:
            return Beam(numbers[0], numbers[1], numbers[2] or 0.0), Notes("beam: BMAJ, BMIN and BPA of HISTORY (AIPS)")
    return None, Notes()


def _with_angle(beam: Beam, angle: float | None) -> tuple[Beam, Notes]:
    """A beam whose angle may be missing, which matters where it is elongated."""
    if angle is None and abs(beam.major / beam.minor - 1) > ROUND:
        return beam, Notes("WARNING beam: BMAJ and BMIN differ and BPA is missing; taken as 0, the long axis north")
    return beam, Notes()


def _unit_factor(comment: str) -> float:
    """What a comment names as the unit, in degrees; degrees where it names none."""
    words = re.findall(r"[a-z]+", comment.lower())
    return next((TO_DEGREES[w] for word in words for w in (word, word.removesuffix("s")) if w in TO_DEGREES), 1.0)


def _number(text: str | None) -> float:
    """A number of AIPS' text; 0 for none."""
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def project_beam(
    beam: Beam, header: fits.Header, shape: tuple[int, ...], sides: tuple[float, float]
) -> tuple[Ellipse | None, Notes]:
    """A beam on the pixels in the middle of a frame.

    Parameters
    ----------
    beam : Beam
    header : Header
        With the WCS: its rotation, handedness, order of axes and unequal pixels are obeyed. North is the direction of
        increasing latitude of the map's own coordinates, galactic ones too.
    shape : (..., h, w)
        Of the frame.
    sides : (float, float)
        Of a pixel along y and x, arcsec, where the WCS cannot be used: then north is up and east is left.

    Returns
    -------
    ellipse : Ellipse or None
        None where the beam is too wide to be in degrees.
    notes : Notes
    """
    per_pixel = sky_per_pixel(header, shape)
    if per_pixel is None:
        per_pixel = np.array([[-sides[1], 0], [0, sides[0]]]) / 3600
    t = np.deg2rad(beam.angle)
    along, across = np.array([np.sin(t), np.cos(t)]), np.array([np.cos(t), -np.sin(t)])  # (east, north)
    sky = beam.major**2 * np.outer(along, along) + beam.minor**2 * np.outer(across, across)
    inverse = np.linalg.inv(per_pixel)
    squares, axes = np.linalg.eigh(inverse @ sky @ inverse.T)
    minor, major = np.sqrt(squares)
    if major > WIDEST * min(shape[-2:]) and beam.major > 0.1:
        return None, Notes(
            f"WARNING beam: BMAJ = {beam.major:g} in degrees would be {major:.3g} px wide, half of the frame or more; "
            "not used: check its unit, or give --psf gaussian:fwhm=...arcsec"
        )
    theta = float(np.rad2deg(np.arctan2(axes[1, 1], axes[0, 1]))) % 180
    return Ellipse(float(np.sqrt(minor * major)), float(minor / major), theta), Notes()


def sky_per_pixel(header: fits.Header, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    """Degrees towards east and north per pixel along x and y, in the middle of a frame; None without a celestial WCS.

    Parameters
    ----------
    header : Header
    shape : (..., h, w)
    """
    try:
        wcs = WCS(valid_header(header)).celestial
        y, x = ((n - 1) / 2 for n in shape[-2:])
        places = np.array([[x, y], [x + 0.5, y], [x - 0.5, y], [x, y + 0.5], [x, y - 0.5]])
        lon, lat = np.array(wcs.wcs_pix2world(places, 0)).T[[wcs.wcs.lng, wcs.wcs.lat]]
    except Exception:  # noqa: BLE001  (wcslib raises what it likes on a header that is none)
        return None
    east = (lon - lon[0] + 180) % 360 - 180
    steps = np.array([east[[1, 3]] - east[[2, 4]], lat[[1, 3]] - lat[[2, 4]]])
    steps[0] *= np.cos(np.deg2rad(lat[0]))
    return steps if np.isfinite(steps).all() and abs(np.linalg.det(steps)) > 0 else None


def beams_of_table(hdus: Any, header: fits.Header, planes: int) -> list[Beam] | None:
    """The beams of the planes, of CASA's table BEAMS; None without one that has all of them.

    Parameters
    ----------
    hdus : HDUList
    header : Header
        Of the image, whose axes say how planes are counted.
    planes : int
    """
    table = next((h for h in hdus if isinstance(h, fits.BinTableHDU) and h.name == "BEAMS"), None)
    if table is None or not {"BMAJ", "BMIN", "BPA"} <= set(table.columns.names):
        return None
    rows = table.data
    units = {c.name: TO_DEGREES.get(str(c.unit).strip().lower(), 1 / 3600) for c in table.columns}
    numbers = [Beam(float(r["BMAJ"]) * units["BMAJ"], float(r["BMIN"]) * units["BMIN"], float(r["BPA"])) for r in rows]
    if not {"CHAN", "POL"} <= set(table.columns.names):
        return numbers if len(numbers) == planes else None
    polarisations = int(max(rows["POL"])) + 1
    channels = int(max(rows["CHAN"])) + 1
    by_place = {(int(r["CHAN"]), int(r["POL"])): beam for r, beam in zip(rows, numbers, strict=True)}
    # FITS axis 3 varies fastest among the planes
    inner_is_pol = str(card_value(header, "CTYPE3", "")).strip().upper() == "STOKES"
    order = [
        (i // polarisations, i % polarisations) if inner_is_pol else (i % channels, i // channels)
        for i in range(channels * polarisations)
    ]
    return [by_place[place] for place in order] if len(order) == planes and set(order) <= set(by_place) else None


def with_beam(frame: Frame, header: fits.Header, hdus: Any = ()) -> Frame:
    """A frame with the PSF that its beam is, one for each plane where a table has them.

    Parameters
    ----------
    frame : Frame
        With ``bmaj``, ``bmin`` and ``bpa`` among its facts, where the headers have a beam.
    header : Header
        Of the image, with the WCS.
    hdus : iterable of HDUs
        Of the file.
    """
    facts, size = frame.facts, frame.pixel_size
    beams = beams_of_table(hdus, header, frame.planes)
    if beams is None and "bmaj" in facts:
        beams = [Beam(facts["bmaj"], facts["bmin"], facts["bpa"])]
    if beams is None or size is None or size.unit != "arcsec":
        return frame
    ellipses = [project_beam(one, header, frame.shape, (size.y, size.x)) for one in beams]
    notes = sum((more for _, more in ellipses), Notes()).unique()
    known = [one for one, _ in ellipses if one is not None]
    if len(known) < len(beams):
        return frame.with_notes(notes)
    first, specs = beams[0], [one.spec for one in known]
    of_beam = {"bmaj": first.major, "bmin": first.minor, "bpa": first.angle, "fwhm": known[0].fwhm}
    frame = frame.with_(facts={**facts, **of_beam})
    if len(beams) > 1:
        notes += Notes(f"beam: one for each of {len(beams)} planes, of the table BEAMS")
    return frame.with_(psf=tuple(specs) if len(set(specs)) > 1 else specs[0]).with_notes(notes)
