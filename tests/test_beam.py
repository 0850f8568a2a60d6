"""The beam of a radio map on its pixels, whatever the orientation and the handedness of the map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from sciresdiff import io
from sciresdiff.io.fits.beam import Beam, find_beam, project_beam
from sciresdiff.physics import psf

STEP = 1 / 3600
MAPS: dict[str, dict[str, Any]] = {
    "north up": {"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "CDELT1": -STEP, "CDELT2": STEP},
    "east right": {"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "CDELT1": STEP, "CDELT2": STEP},
    "south up": {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -STEP, "CDELT2": -STEP},
    "axes swapped": {"CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN", "CDELT1": STEP, "CDELT2": STEP},
    "CROTA2": {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -STEP, "CDELT2": STEP, "CROTA2": 37.0},
    "CD": {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CD1_1": -2e-4, "CD1_2": 2e-4, "CD2_1": 2e-4, "CD2_2": 2e-4},
    "galactic": {"CTYPE1": "GLON-CAR", "CTYPE2": "GLAT-CAR", "CDELT1": -STEP, "CDELT2": STEP},
}


def header_of(cards: dict[str, Any], side: int = 101) -> fits.Header:
    header = fits.Header({"NAXIS": 2, "CRPIX1": side // 2 + 1, "CRPIX2": side // 2 + 1, **cards})
    declination = 0.0 if "CAR" in cards["CTYPE1"] else 22.0
    swapped = cards["CTYPE1"].startswith("DEC")
    header["CRVAL1"], header["CRVAL2"] = (declination, 83.0) if swapped else (83.0, declination)
    return header


def long_axis(header: fits.Header, beam: Beam, side: int = 101) -> tuple[float, float]:
    """Angle from +x to +y and length, px, of the line between both ends of the beam on the sky."""
    wcs, c = WCS(header).celestial, (side - 1) / 2
    world = wcs.wcs_pix2world([[c, c]], 0)[0]
    lon, lat, ends = wcs.wcs.lng, wcs.wcs.lat, []
    for half in (-beam.major / 2, beam.major / 2):
        end, angle = world.copy(), np.deg2rad(beam.angle)
        end[lat] += half * np.cos(angle)
        end[lon] += half * np.sin(angle) / np.cos(np.deg2rad(world[lat]))
        ends.append(wcs.wcs_world2pix([end], 0)[0])
    x, y = ends[1] - ends[0]
    return float(np.rad2deg(np.arctan2(y, x))) % 180, float(np.hypot(x, y))


@pytest.mark.parametrize("angle", [0.0, 30.0, 75.0, 90.0, 120.0, 175.0, -40.0])
@pytest.mark.parametrize("name", MAPS)
def test_the_long_axis_lies_as_on_the_sky(name: str, angle: float) -> None:
    header, beam = header_of(MAPS[name]), Beam(6 * STEP, 2.5 * STEP, angle)
    found, notes = project_beam(beam, header, (101, 101), (1.0, 1.0))
    assert found is not None
    assert not notes
    theta, length = long_axis(header, beam)
    assert abs((found.theta - theta + 90) % 180 - 90) < 0.1  # the sphere over a beam of 6 arcsec
    assert found.fwhm / np.sqrt(found.ratio) == pytest.approx(length, rel=1e-3)
    assert found.ratio == pytest.approx(2.5 / 6, rel=1e-3)


def test_unequal_pixels_change_ratio_and_angle() -> None:
    header = header_of({**MAPS["north up"], "CDELT2": 2 * STEP})
    found, _ = project_beam(Beam(6 * STEP, 6 * STEP, 0.0), header, (101, 101), (2.0, 1.0))
    assert found is not None
    assert found.ratio == pytest.approx(0.5, rel=1e-3)  # a round beam is twice as many px wide as high
    assert found.theta % 180 == pytest.approx(0, abs=0.1)


def save(path: Path, cards: dict[str, Any], shape: tuple[int, ...] = (64, 64), extra: tuple[Any, ...] = ()) -> str:
    header = header_of(MAPS["north up"], 64)
    for key, value in cards.items():
        if key == "HISTORY":
            header.add_history(value)
        else:
            header[key] = value
    image = fits.PrimaryHDU(np.random.default_rng(1).normal(0, 1, shape).astype("f4"), header)
    fits.HDUList([image, *extra]).writeto(path, overwrite=True)
    return str(path)


def test_what_files_say_of_a_beam(tmp_path: Path) -> None:
    unit = {"BUNIT": "Jy/beam"}
    frame = io.read(save(tmp_path / "a.fits", {**unit, "BMAJ": 6 * STEP, "BMIN": 2.5 * STEP, "BPA": 30.0}))
    assert isinstance(frame.psf, str)
    spec = psf.parse(frame.psf)
    assert spec.params["ratio"][0] == pytest.approx(2.5 / 6, rel=1e-4)
    assert spec.params["theta"][0] == pytest.approx(120, abs=0.1)  # north is +y, east is -x
    history = "AIPS   CLEAN BMAJ=  1.6667E-03 BMIN=  6.9444E-04 BPA=  30.00"
    clean = io.read(save(tmp_path / "b.fits", {**unit, "HISTORY": history}))
    assert isinstance(clean.psf, str)
    assert psf.parse(clean.psf).params["fwhm"][0] == pytest.approx(spec.params["fwhm"][0], rel=1e-3)
    arcsec = io.read(save(tmp_path / "c.fits", {**unit, "BMAJ": (6.0, "[arcsec]"), "BMIN": 2.5, "BPA": 30.0}))
    assert arcsec.psf == frame.psf
    lacking = io.read(save(tmp_path / "d.fits", {**unit, "BMAJ": 6 * STEP, "BMIN": 2.5 * STEP}))
    assert any("BPA" in line for line in lacking.notes.warnings)
    wide = io.read(save(tmp_path / "e.fits", {**unit, "BMAJ": 6.0, "BMIN": 2.5, "BPA": 30.0}))  # arcsec, unsaid
    assert wide.psf is None
    assert any("BMAJ" in line for line in wide.notes.warnings)
    round_one = io.read(save(tmp_path / "f.fits", {**unit, "BMAJ": 6 * STEP}))
    assert round_one.psf is not None
    assert "ratio" not in round_one.psf
    assert not round_one.notes.warnings


@pytest.mark.parametrize(("shape", "third"), [((2, 3, 64, 64), "FREQ"), ((3, 2, 64, 64), "STOKES")])
def test_a_table_has_a_beam_for_each_plane(tmp_path: Path, shape: tuple[int, ...], third: str) -> None:
    places = [(c, p) for c in range(3) for p in range(2)]
    columns = [
        fits.Column("BMAJ", "E", unit="arcsec", array=[4.0 + c + 10 * p for c, p in places]),
        fits.Column("BMIN", "E", unit="arcsec", array=[4.0 + c + 10 * p for c, p in places]),
        fits.Column("BPA", "E", unit="deg", array=[0.0] * 6),
        fits.Column("CHAN", "J", array=[c for c, _ in places]),
        fits.Column("POL", "J", array=[p for _, p in places]),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="BEAMS")
    frame = io.read(save(tmp_path / "a.fits", {"BUNIT": "Jy/beam", "CASAMBM": True, "CTYPE3": third}, shape, (table,)))
    assert isinstance(frame.psf, tuple)
    found = [psf.parse(spec).params["fwhm"][0] for spec in frame.psf]
    order = [(c, p) for p in range(2) for c in range(3)] if third == "FREQ" else places
    np.testing.assert_allclose(found, [4 + c + 10 * p for c, p in order], rtol=1e-4)


def test_no_beam_is_no_beam() -> None:
    assert find_beam([fits.Header(), fits.Header({"BMAJ": 0.0})])[0] is None
