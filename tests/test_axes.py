"""Which axes of a FITS image are the image: a cube's other axes stay as they are, wherever they stand."""

import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from sciresdiff import io
from sciresdiff.errors import InputError
from sciresdiff.io import sampling
from sciresdiff.region import Region

SIDES = {"RA---TAN": 20, "DEC--TAN": 16, "GLON-CAR": 20, "GLAT-CAR": 16, "HPLN-TAN": 20, "HPLT-TAN": 16}


def cube(path, kinds, **cards):
    """A cube with these CTYPEs, FITS axis 1 first; directions have 20 and 16 px, all else 3."""
    header = fits.Header()
    for i, kind in enumerate(kinds, 1):
        header[f"CTYPE{i}"], header[f"CRPIX{i}"], header[f"CDELT{i}"] = kind, 2.0, 0.1
        header[f"CRVAL{i}"] = 20.0 if kind in SIDES else 1e9 if kind == "FREQ" else 1e3
    header.update({"BUNIT": "K", **cards})
    shape = tuple(SIDES.get(kind, 3) for kind in reversed(kinds))
    data = np.random.default_rng(1).normal(10, 1, shape).astype("f4")
    fits.writeto(path, data, header)
    return data


def double(path, out, **options):
    """Read a file and write it on a grid twice as fine, each pixel repeated."""
    frame = io.read(path, **options)
    fine = frame.with_(pixels=frame.pixels.repeat(2, 1).repeat(2, 2), mask=frame.mask.repeat(2, 1).repeat(2, 2))
    io.write(out, fine, planes={"ERR": fine.pixels}, scale=2)
    return frame


@pytest.mark.parametrize(
    ("kinds", "axes"),
    [
        (("RA---TAN", "DEC--TAN", "FREQ"), "ZYX"),
        (("VELO-LSR", "GLON-CAR", "GLAT-CAR"), "YXZ"),
        (("VRAD", "RA---TAN", "DEC--TAN"), "YXZ"),
        (("RA---TAN", "FREQ", "DEC--TAN"), "YZX"),
        (("STOKES", "RA---TAN", "DEC--TAN"), "YXZ"),
        (("FREQ", "STOKES", "RA---TAN", "DEC--TAN"), "YXCZ"),
        (("TIME", "HPLN-TAN", "HPLT-TAN"), "YXZ"),
        (("STOKES", "DEC--TAN", "FREQ", "RA---TAN"), "YCXZ"),
    ],
)
def test_the_axes_of_the_sky_are_made_finer_and_the_others_stay(tmp_path, kinds, axes):
    data = cube(tmp_path / "a.fits", kinds)
    frame = double(tmp_path / "a.fits", tmp_path / "b.fits")
    assert frame.axes == axes
    fine = data
    for axis in (axes.index("Y"), axes.index("X")):
        fine = fine.repeat(2, axis)
    with fits.open(tmp_path / "b.fits") as out:
        np.testing.assert_array_equal(out["SCI"].data, fine)
        np.testing.assert_array_equal(out["ERR"].data, fine)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # astropy renames VELO-LSR
            old, new = WCS(fits.getheader(tmp_path / "a.fits")), WCS(out["SCI"].header)
    places = np.random.default_rng(2).uniform(1, 3, (5, len(kinds)))
    finer = np.array([kind in SIDES for kind in kinds])
    moved = np.where(finer, 2 * (places - 0.5) + 0.5, places)
    np.testing.assert_allclose(old.wcs_pix2world(places, 1), new.wcs_pix2world(moved, 1), rtol=1e-12)


def test_a_cube_with_the_sky_last_reads_back(tmp_path):
    cube(tmp_path / "a.fits", ("FREQ", "RA---TAN", "DEC--TAN"))
    frame = double(tmp_path / "a.fits", tmp_path / "b.fits")
    again = io.read(tmp_path / "b.fits")
    np.testing.assert_array_equal(again.pixels, frame.pixels.repeat(2, 1).repeat(2, 2))
    assert again.variance is not None and again.variance.shape == again.pixels.shape
    assert any("axis 1 (FREQ) left as it is" in line for line in frame.notes)


@pytest.mark.parametrize(
    "kinds",
    [("RA---TAN", "VRAD"), ("GLON-CAR", "VELO-LSR"), ("OFFSET", "FREQ"), ("STOKES", "DEC--TAN"), ("FREQ", "TIME")],
)
def test_a_slice_along_no_direction_is_refused_unless_axes_are_stated(tmp_path, kinds):
    cube(tmp_path / "a.fits", kinds)
    with pytest.raises(InputError, match=r"CTYPE.*no direction of the sky.*--axes"):
        io.read(tmp_path / "a.fits")
    assert io.read(tmp_path / "a.fits", axes="YX").axes == "YX"


def test_a_position_velocity_slice_with_a_third_axis_of_one_pixel_is_refused(tmp_path):
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "VRAD", "CTYPE3": "DEC--TAN"})
    fits.writeto(tmp_path / "a.fits", np.ones((1, 9, 9), "f4"), header)
    with pytest.raises(InputError, match="axis 2 is VRAD"):
        io.read(tmp_path / "a.fits")


@pytest.mark.parametrize("cards", [{}, {"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}, {"CTYPE1": "PIXEL"}, {"CTYPE1": "X"}])
def test_a_detector_says_nothing(tmp_path, cards):
    fits.writeto(tmp_path / "a.fits", np.ones((9, 9), "f4"), fits.Header({**cards, "BUNIT": "adu"}))
    assert not io.read(tmp_path / "a.fits").notes.lines


def test_a_spectrum_on_a_detector_is_warned_of(tmp_path):
    fits.writeto(tmp_path / "a.fits", np.ones((9, 9), "f4"), fits.Header({"CTYPE1": "WAVE", "CTYPE2": "LINEAR"}))
    assert any("WAVE" in line for line in io.read(tmp_path / "a.fits").notes.warnings)


def test_stated_axes_of_any_order_are_obeyed(tmp_path):
    data = np.arange(3 * 16 * 20, dtype="f4").reshape(16, 20, 3)
    fits.writeto(tmp_path / "a.fits", data)
    np.testing.assert_array_equal(io.read(tmp_path / "a.fits", axes="YXC").pixels, np.moveaxis(data, 2, 0))


@pytest.mark.parametrize("packed", [False, True])
def test_windows_of_a_cube_in_another_order_are_those_of_the_whole(tmp_path, packed, monkeypatch):
    cube(tmp_path / "a.fits", ("RA---TAN", "FREQ", "DEC--TAN"))
    if packed:
        with fits.open(tmp_path / "a.fits") as file:
            tiles = fits.CompImageHDU(file[0].data, file[0].header, "GZIP_2", quantize_level=0)
        tiles.writeto(tmp_path / "a.fits", overwrite=True)
    whole = io.read(tmp_path / "a.fits").pixels
    monkeypatch.setattr(sampling, "MOST", 10)  # so that it is read window by window
    with io.open_source(tmp_path / "a.fits") as source:
        for plane in range(3):
            part = source.window(plane, Region(2, 9, 5, 17)).pixels[0]
            np.testing.assert_array_equal(part, whole[plane, 2:9, 5:17])
