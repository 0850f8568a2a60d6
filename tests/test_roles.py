"""Planes that belong to an image by their names, alone or one set for each band."""

import numpy as np
import pytest
from astropy.io import fits

from sciresdiff import io
from sciresdiff.io.fits.open import expand_chips
from sciresdiff.io.fits.roles import split_name

SHAPE = (20, 24)
RNG = np.random.default_rng(4)


def write(path, *planes):
    """Planes (name, value, EXTVER); images are noise about their value, PSFs are 5 x 5."""
    hdus = [fits.PrimaryHDU()]
    for name, value, version in planes:
        shape = (5, 5) if "PSF" in name else SHAPE
        data = RNG.normal(value, 1, shape) if "FLUX" in name or "SCI" in name else np.full(shape, float(value))
        if name.endswith("DQ"):
            data = np.eye(*shape)
        hdus.append(fits.ImageHDU(data.astype("f4"), name=name, ver=version))
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("SCI", ("SCI", "")), ("image", ("SCI", "")), ("ERR", ("ERR", "")), ("VIS_FLUX", ("SCI", "VIS")),
        ("NIR_Y_RMS", ("RMS", "NIR_Y")), ("NIR_Y_PSF", ("PSF", "NIR_Y")), ("VIS_BGSUB", ("SCI", "VIS")),
        ("1-1.E.FLG", ("FLG", "1-1.E")), ("VAR_POISSON", ("VAR", "POISSON")), ("SCI_F200W", ("SCI", "F200W")),
        ("PRIMARY", ("PRIMARY", "")), ("AREA", ("AREA", "AREA")), ("KERNEL", ("KERNEL", "")), ("", ("", "")),
    ],
)  # fmt: skip
def test_a_name_is_a_word_and_a_tag(name, wanted):
    assert split_name(name) == wanted


BANDS = [(f"{band}_{word}", value + i, 1) for i, band in enumerate(("VIS", "NIR_Y")) for word, value in
         (("FLUX", 100), ("PSF", 1), ("RMS", 2), ("DQ", 0))]  # fmt: skip


def test_each_band_has_its_own_planes(tmp_path):
    path = write(tmp_path / "a.fits", *BANDS)
    for spec, sigma, psf in ((f"{path}", 2, "VIS_PSF"), (f"{path}[NIR_Y_FLUX]", 3, "NIR_Y_PSF")):
        frame = io.read(spec)
        assert (frame.variance == sigma**2).all()
        assert frame.psf == f"{path}[{psf}]" and frame.dq is not None
    assert expand_chips(f"{path}[*]") == [f"{path}[1]", f"{path}[5]"]


@pytest.mark.parametrize("suffix", ["BGSUB", "SCI", "IMAGE", "FLUX"])
@pytest.mark.parametrize(("noise", "variance"), [("RMS", 9.0), ("VAR", 3.0), ("IVAR", 1 / 3), ("ERR", 9.0)])
def test_the_plane_of_a_prefix_is_read_by_its_word(tmp_path, suffix, noise, variance):
    path = write(tmp_path / "a.fits", (f"X_{suffix}", 50, 1), (f"X_{noise}", 3, 1))
    np.testing.assert_allclose(io.read(path).variance, variance, rtol=1e-6)


def test_a_plane_of_another_band_is_not_used(tmp_path):
    path = write(tmp_path / "a.fits", ("VIS_FLUX", 50, 1), ("NIR_FLUX", 50, 1), ("NIR_RMS", 3, 1), ("NIR_PSF", 3, 1))
    assert io.read(path).variance is None and io.read(path).psf is None
    assert io.read(f"{path}[NIR_FLUX]").variance is not None


def test_planes_belong_by_their_version(tmp_path):
    path = write(tmp_path / "a.fits", ("SCI", 50, 1), ("ERR", 2, 1), ("SCI", 50, 2), ("ERR", 3, 2), ("PSF", 1, 2))
    assert (io.read(f"{path}[SCI,1]").variance == 4).all() and io.read(f"{path}[SCI,1]").psf is None
    assert (io.read(f"{path}[SCI,2]").variance == 9).all()
    assert io.read(f"{path}[SCI,2]").psf == f"{path}[PSF,2]"


def test_the_variances_of_one_source_are_not_the_variance(tmp_path):
    path = write(tmp_path / "a.fits", ("SCI", 50, 1), ("VAR_POISSON", 2, 1), ("VAR_RNOISE", 2, 1))
    assert io.read(path).variance is None


def test_planes_in_files_beside_an_image(tmp_path):
    data = RNG.normal(50, 3, SHAPE).astype("f4")
    fits.writeto(tmp_path / "x_data.fits", data)
    fits.writeto(tmp_path / "x_noise_map.fits", np.full(SHAPE, 3, "f4"))
    fits.writeto(tmp_path / "x_psf.fits", np.ones((5, 5), "f4"))
    frame = io.read(tmp_path / "x_data.fits")
    assert (frame.variance == 9).all() and frame.psf == str(tmp_path / "x_psf.fits")
