"""Flags of any width, and masks that are the wrong way round."""

import h5py
import numpy as np
import pytest
import tifffile
from astropy.io import fits

from sciresdiff import io
from sciresdiff.api.image import with_planes
from sciresdiff.errors import InputError

PIXELS = np.random.default_rng(3).normal(100, 5, (30, 40)).astype("f4")
GOOD = np.ones((30, 40), "u1")
GOOD[10:13, 20:23] = 0


def with_plane(path, plane, name, pixels=PIXELS, **cards):
    image = fits.PrimaryHDU(pixels, fits.Header({"BUNIT": "adu", **cards}))
    fits.HDUList([image, fits.ImageHDU(plane, name=name)]).writeto(path, overwrite=True)
    return path


@pytest.mark.parametrize(
    ("kind", "flag", "wanted"),
    [
        ("i1", 1, 1), ("u1", 128, 128), ("i2", -(2**15), 2**15), ("u2", 40000, 40000), ("i4", -(2**31), -(2**31)),
        ("u4", 2**31, -(2**31)), ("i8", 2**40, 2**30), ("u8", 2**63, 2**30), ("u8", 2**33 + 4, 2**30 + 4),
        ("f4", 4.0, 4), ("f8", 2.0**40, 2**30),
    ],
)  # fmt: skip
def test_flags_of_any_width_mask(tmp_path, kind, flag, wanted):
    plane = np.zeros(PIXELS.shape, kind)
    plane[4:6, 7:9] = flag
    frame = io.read(with_plane(tmp_path / "a.fits", plane, "DQ"))
    np.testing.assert_array_equal(frame.mask[0], plane != 0)
    assert frame.dq[0, 4, 7] == wanted and frame.dq[0, 0, 0] == 0


def test_flags_above_bit_31_follow_the_rule_of_their_observatory(tmp_path):
    plane = np.zeros(PIXELS.shape, "i8")
    plane[4, 7], plane[5, 7] = 2**40, 1
    frame = io.read(with_plane(tmp_path / "a.fits", plane, "DQ", TELESCOP="JWST"))
    assert frame.mask.sum() == 1 and frame.mask[0, 5, 7]


def test_nan_flags_are_bad(tmp_path):
    plane = np.zeros(PIXELS.shape, "f4")
    plane[4, 7], plane[5, 7] = np.nan, 2
    assert io.read(with_plane(tmp_path / "a.fits", plane, "DQ")).mask.sum() == 2


@pytest.mark.parametrize("name", ["MASK", "DQ", "FLAG", "BPM"])
@pytest.mark.parametrize("value", [1, 255])
def test_a_plane_that_is_1_where_pixels_are_good_is_warned_of(tmp_path, name, value):
    frame = io.read(with_plane(tmp_path / "a.fits", value * GOOD, name))
    assert any("mask" in line and name in line and "99.2 %" in line for line in frame.notes.warnings)
    assert not io.read(with_plane(tmp_path / "b.fits", value * (1 - GOOD), name)).notes.warnings


def test_a_mask_option_that_is_1_where_pixels_are_good_is_warned_of(tmp_path):
    fits.writeto(tmp_path / "a.fits", PIXELS)
    tifffile.imwrite(tmp_path / "a.tif", (20 * PIXELS).astype("u2"))
    fits.writeto(tmp_path / "m.fits", GOOD)
    tifffile.imwrite(tmp_path / "m.tif", 255 * GOOD)
    for image in ("a.fits", "a.tif"):
        for mask in ("m.fits", "m.tif"):
            frame = io.read(tmp_path / image, mask=str(tmp_path / mask))
            assert any(f"mask: {mask}" in line for line in frame.notes.warnings)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"], file["mask"] = PIXELS, GOOD
    assert any("mask" in line for line in io.read(tmp_path / "a.h5").notes.warnings)


@pytest.mark.parametrize("empty", [0.0, np.nan])
def test_a_mask_that_leaves_only_the_border_is_warned_of(tmp_path, empty):
    pixels, good = PIXELS.copy(), np.ones(PIXELS.shape, "u1")
    pixels[:12], good[:12] = empty, 0
    good[20, 20] = 0
    frame = io.read(with_plane(tmp_path / "a.fits", good, "MASK", pixels))
    assert any("mask" in line for line in frame.notes.warnings)
    assert not io.read(with_plane(tmp_path / "b.fits", 1 - good, "MASK", pixels)).notes.warnings


def test_a_mask_of_half_the_frame_is_believed(tmp_path):
    half = np.zeros(PIXELS.shape, "u1")
    half[:, :24] = 1
    assert not io.read(with_plane(tmp_path / "a.fits", half, "MASK")).notes.warnings


def test_a_mask_of_every_pixel_is_refused(tmp_path):
    with pytest.raises(InputError, match="mask: MASK flags every pixel"):
        io.read(with_plane(tmp_path / "a.fits", np.ones(PIXELS.shape, "u1"), "MASK"))


def test_a_mask_in_python_that_is_true_where_pixels_are_good_is_warned_of(tmp_path):
    fits.writeto(tmp_path / "a.fits", PIXELS)
    frame = io.read(tmp_path / "a.fits")
    assert any("mask" in line for line in with_planes(frame, {"mask": GOOD > 0}).notes.warnings)
    assert not with_planes(frame, {"mask": GOOD == 0}).notes.warnings
