"""Frames: notes, quantity, pixel sizes, and one plane as astropy's CCDData."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units
from astropy.io import fits
from astropy.nddata import CCDData, VarianceUncertainty
from astropy.wcs import WCS

from sciresdiff import io
from sciresdiff.errors import InputError
from sciresdiff.frame import Frame, PixelSize
from sciresdiff.notes import Notes

PIXELS = np.arange(2 * 5 * 6, dtype=np.float32).reshape(2, 5, 6)


def a_frame(planes: int = 1, **fields: Any) -> Frame:
    pixels = PIXELS[:planes]
    return Frame(pixels, pixels > 20, "astro", shape=pixels.shape, axes="TYX", **fields)


def test_arrays_of_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match=r"variance: shape \(1, 2, 2\) does not fit the image's \(1, 5, 6\)"):
        a_frame(variance=np.ones((1, 2, 2)))


@pytest.mark.parametrize(("kind", "usual", "does"), [("astro", "sum", "add up"), ("micro", "mean", "average")])
def test_an_assumed_quantity_is_noted(kind: Any, usual: str, does: str) -> None:
    frame = a_frame().with_(kind=kind)
    line = f"quantity: assumed {usual} (pixels {does}); --quantity states it"
    assert frame.quantity_or_usual() == (usual, Notes(line))
    assert frame.quantity_or_usual("mean") == ("mean", Notes())
    assert frame.with_(quantity="sum").quantity_or_usual() == ("sum", Notes())
    assert frame.with_(quantity="sum").quantity_or_usual("mean") == ("mean", Notes())


def test_notes_add_up() -> None:
    frame = a_frame().with_notes(Notes("a: 1")).with_notes(Notes("b: 2", psf="header"))
    assert frame.notes == Notes("a: 1", "b: 2", psf="header")
    assert a_frame().notes == Notes()


def test_a_finer_grid_has_smaller_pixels() -> None:
    assert PixelSize(0.4, 0.2, "um").refine(4) == PixelSize(0.1, 0.05, "um")


def test_planes_one_by_one() -> None:
    planes = list(a_frame(2, variance=PIXELS.astype(np.float64)))
    assert [plane.planes for plane in planes] == [1, 1]
    np.testing.assert_array_equal(planes[1].variance, PIXELS[1:])


def test_ccddata_of_one_plane() -> None:
    frame = a_frame(unit="electron", variance=PIXELS[:1] + 1.0, dq=PIXELS[:1].astype(np.int32))
    data = frame.to_ccddata()
    assert isinstance(data, CCDData)
    assert data.unit == units.electron
    np.testing.assert_array_equal(data.data, PIXELS[0])
    np.testing.assert_array_equal(data.mask, PIXELS[0] > 20)
    np.testing.assert_array_equal(data.flags, PIXELS[0])
    assert isinstance(data.uncertainty, VarianceUncertainty)
    assert data.uncertainty.unit == units.electron**2
    np.testing.assert_array_equal(data.uncertainty.array, PIXELS[0] + 1)
    np.testing.assert_allclose(data.add(data).uncertainty.array, 2 * (PIXELS[0] + 1))
    assert data.wcs is None


def test_ccddata_of_several_planes_needs_a_number() -> None:
    frame = a_frame(2, unit="adu")
    with pytest.raises(InputError, match=r"plane: the frame has 2 \(axes TYX\).*from 0 to 1, or make a list"):
        frame.to_ccddata()
    np.testing.assert_array_equal(frame.to_ccddata(1).data, PIXELS[1])
    assert [one.to_ccddata().shape for one in frame] == [(5, 6), (5, 6)]
    with pytest.raises(InputError, match="plane: 2 is given, but the frame has 2, counted from 0"):
        frame.to_ccddata(2)


@pytest.mark.parametrize(
    ("unit", "wanted"),
    [
        (None, ""), ("e-/s", "electron / s"), ("ELECTRONS", "electron"), ("counts", "ct"), ("MJy/sr", "MJy / sr"),
        ("nanomaggy", "nmgy"), ("Jy/beam", "Jy / beam"),
    ],
)  # fmt: skip
def test_units_as_files_write_them(unit: str | None, wanted: str) -> None:
    assert a_frame(unit=unit).to_ccddata().unit == units.Unit(wanted)


def test_a_unit_that_astropy_does_not_know() -> None:
    with pytest.raises(
        InputError, match=r"unit: astropy does not know 'flurbs'; give another, frame.with_\(unit='adu'"
    ):
        a_frame(unit="flurbs").to_ccddata()


def sky_header(**cards: object) -> fits.Header:
    sky = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 3.0, "CRPIX2": 2.0, "CRVAL1": 150.0, "CRVAL2": 2.0,
           "CD1_1": -1e-4, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-4, "BUNIT": "adu", "OBJECT": "M31"}  # fmt: skip
    return fits.Header({**sky, **cards})


def test_ccddata_of_a_fits_file_has_its_wcs(tmp_path: Path) -> None:
    fits.PrimaryHDU(PIXELS[0], sky_header()).writeto(tmp_path / "a.fits")
    data = io.read(tmp_path / "a.fits").to_ccddata()
    assert (data.unit, data.header["OBJECT"]) == (units.adu, "M31")
    np.testing.assert_allclose(data.wcs.wcs_pix2world(4, 1, 0), WCS(sky_header()).wcs_pix2world(4, 1, 0))


def test_ccddata_of_a_cube_has_the_sky_axes(tmp_path: Path) -> None:
    cube = sky_header(CTYPE3="FREQ", CRPIX3=1.0, CRVAL3=1e9, CDELT3=1e6)
    fits.PrimaryHDU(PIXELS, cube).writeto(tmp_path / "a.fits")
    data = io.read(tmp_path / "a.fits").to_ccddata(1)
    assert data.wcs.naxis == 2
    np.testing.assert_allclose(data.wcs.wcs_pix2world(4, 1, 0), WCS(sky_header()).wcs_pix2world(4, 1, 0))


def test_ccddata_without_the_distortion_tables(tmp_path: Path) -> None:
    table = {"CPDIS1": "Lookup", "CPDIS2": "Lookup", "DP1.EXTVER": 1, "DP2.EXTVER": 2}
    header = sky_header()
    for key, value in table.items():
        header[f"HIERARCH {key}" if "." in key else key] = value
    fits.PrimaryHDU(PIXELS[0], header).writeto(tmp_path / "a.fits")
    assert io.read(tmp_path / "a.fits").to_ccddata().wcs.has_celestial
