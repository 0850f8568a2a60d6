"""Extensions that describe the input's pixels: on the new grid, left out, or left as they are; always named."""

import numpy as np
import pytest
from astropy.io import fits

from sciresdiff import io
from sciresdiff.errors import InputError
from sciresdiff.io.fits.header import BLOCK

N = 16
RNG = np.random.default_rng(5)
ONE = np.ones((N, N), "f4")


def jwst(path, *others, **cards):
    """A file of the JWST pipeline's kind, with further HDUs."""
    header = fits.Header(
        {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 8.0, "CRPIX2": 8.0, "CDELT1": -1e-5, "CDELT2": 1e-5,
         "BUNIT": "MJy/sr", **cards}
    )  # fmt: skip
    image = fits.ImageHDU(RNG.normal(5, 1, (N, N)).astype("f4"), header, name="SCI")
    fits.HDUList([fits.PrimaryHDU(), image, fits.ImageHDU(ONE, name="ERR"), *others]).writeto(path, overwrite=True)
    return io.read(path)


def write(frame, path, scale):
    """Write a frame on another grid; pixels do not matter here."""
    n = round(N * scale)
    pixels = np.zeros((1, n, n), "f4")
    io.write(path, frame.with_(pixels=pixels, mask=pixels > 0, variance=None), scale=scale)
    with fits.open(path) as out:
        out.verify("exception")
    return fits.open(path)


MAPS = {
    "AREA": RNG.normal(1, 0.1, (N, N)).astype("f4"),
    "CON": RNG.integers(-(2**31), 2**31, (2, N, N)).astype("i4"),
    "NEXP": RNG.integers(0, 2**16, (N, N)).astype("u2"),
    "EXPMAP": RNG.normal(1, 0.1, (N, N)),
    "COVERAGE": RNG.integers(0, 9, (N, N)).astype("u1"),
}


@pytest.mark.parametrize("scale", [2, 3])
def test_maps_whose_values_stay_are_repeated(tmp_path, scale):
    frame = jwst(tmp_path / "a.fits", *(fits.ImageHDU(data, name=name) for name, data in MAPS.items()))
    with write(frame, tmp_path / "b.fits", scale) as out:
        for name, data in MAPS.items():
            np.testing.assert_array_equal(out[name].data, data.repeat(scale, -1).repeat(scale, -2))
    assert (tmp_path / "b.fits").stat().st_size % BLOCK == 0
    assert any(all(name in line for name in MAPS) for line in io.describe_output(frame, scale).lines)


def test_maps_are_left_out_of_a_coarser_grid_and_named(tmp_path):
    frame = jwst(tmp_path / "a.fits", *(fits.ImageHDU(data, name=name) for name, data in MAPS.items()))
    with write(frame, tmp_path / "b.fits", 0.5) as out:
        assert not set(MAPS) & {hdu.name for hdu in out}
    assert any("left out" in line and "AREA" in line for line in io.describe_output(frame, 0.5).lines)


def test_noise_and_flags_of_the_old_pixels_and_asdf_are_left_out_and_named(tmp_path):
    names = ("VAR_POISSON", "VAR_RNOISE", "VAR_FLAT", "WHT", "MASK")
    tree = fits.BinTableHDU(np.zeros(1, [("ASDF_METADATA", "u1", (50,))]), name="ASDF")
    frame = jwst(tmp_path / "a.fits", *(fits.ImageHDU(ONE, name=name) for name in names[:-1]), tree)
    with write(frame, tmp_path / "b.fits", 2) as out:
        assert not {*names, "ASDF"} & {hdu.name for hdu in out}
    said = " ".join(io.describe_output(frame, 2).lines)
    assert all(name in said for name in (*names[:-1], "ASDF"))


def test_what_stays_in_the_old_pixels_is_named(tmp_path):
    places = fits.BinTableHDU(np.zeros(3, [("X_IMAGE", "f4"), ("Y_IMAGE", "f4")]), name="CAT")
    solutions = fits.BinTableHDU(np.zeros(3, [("WCSNAME", "S4")]), name="WCSCORR")
    plain = fits.BinTableHDU(np.zeros(3, [("RA", "f4"), ("DEC", "f4")]), name="SKY")
    other = fits.ImageHDU(np.ones((4, 5), "f4"), name="INSET")
    model = fits.ImageHDU(ONE, name="MODEL")
    frame = jwst(tmp_path / "a.fits", places, solutions, plain, other, model)
    with write(frame, tmp_path / "b.fits", 2) as out:
        assert {"CAT", "WCSCORR", "SKY", "INSET", "MODEL"} <= {hdu.name for hdu in out}
    (line,) = io.describe_output(frame, 2).lines
    assert "CAT, WCSCORR, MODEL" in line and "SKY" not in line and "INSET" not in line


def test_the_planes_of_another_image_stay_with_it(tmp_path):
    chip = [fits.ImageHDU(ONE, name=name, ver=2) for name in ("SCI", "ERR", "DQ")]
    frame = jwst(tmp_path / "a.fits", *chip)
    with write(frame, tmp_path / "b.fits", 2) as out:
        assert [(hdu.name, hdu.ver) for hdu in out][-3:] == [("SCI", 2), ("ERR", 2), ("DQ", 2)]
    assert "SCI,2, ERR,2, DQ,2" in " ".join(io.describe_output(frame, 2).lines)


def test_distortion_tables_of_another_chip_are_not_rescaled(tmp_path):
    tables = [fits.ImageHDU(np.ones((4, 4), "f4"), name="D2IMARR", ver=version) for version in (1, 2)]
    frame = jwst(tmp_path / "a.fits", *tables, **{"D2IMDIS1": "LOOKUP", "D2IM1.EXTVER": 1.0})
    with write(frame, tmp_path / "b.fits", 2) as out:
        assert out["D2IMARR", 1].data[0, 0] == 2 and out["D2IMARR", 2].data[0, 0] == 1


def test_a_file_of_an_image_alone_says_nothing(tmp_path):
    assert not io.describe_output(jwst(tmp_path / "a.fits"), 2)


# ------------------------------------------------------------------ files that end before their last block is full


def unpadded(path, hdus, size, cut=0):
    """Write HDUs without what fills the last block; ``size`` bytes of the last are data, ``cut`` of them are lost."""
    fits.HDUList(hdus).writeto(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - (-size % BLOCK) - cut])
    return path


LAST = {
    "image": (fits.ImageHDU(ONE, name="SCI"), 4 * N * N),
    "noise": (fits.ImageHDU(ONE, name="ERR"), 4 * N * N),
    "other": (fits.ImageHDU(np.ones((5, 10), "f4"), name="INSET"), 200),
    "table": (fits.BinTableHDU(np.zeros(7, [("a", "f4"), ("b", "i2")]), name="T"), 42),
}


@pytest.mark.parametrize("last", LAST)
def test_a_last_block_that_is_not_filled_is_read_and_written_whole(tmp_path, last):
    hdu, size = LAST[last]
    first = [] if last == "image" else [fits.ImageHDU(ONE, name="SCI")]
    frame = io.read(unpadded(tmp_path / "a.fits", [fits.PrimaryHDU(), *first, hdu], size))
    assert (frame.pixels == 1).all()
    with write(frame, tmp_path / "b.fits", 2) as out:
        assert last in ("image", "noise") or hdu.name in out
    assert (tmp_path / "b.fits").stat().st_size % BLOCK == 0


@pytest.mark.parametrize("last", LAST)
def test_a_file_that_lacks_a_pixel_is_refused(tmp_path, last):
    hdu, size = LAST[last]
    first = [] if last == "image" else [fits.ImageHDU(ONE, name="SCI")]
    path = unpadded(tmp_path / "a.fits", [fits.PrimaryHDU(), *first, hdu], size, cut=1)
    with pytest.raises(InputError, match="not a whole FITS file"):
        io.read(path)
