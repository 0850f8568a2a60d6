"""Noise and flags: what they are called, where they lie, and what is made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from sciresdiff import io
from sciresdiff.errors import InputError
from sciresdiff.io import sampling
from sciresdiff.io.companions import find_noise_and_flags
from sciresdiff.io.sampling import sample_regions
from sciresdiff.io.variance import NOISE_PLANES, STATED, split_noise_kind
from sciresdiff.jobs import inputs
from sciresdiff.jobs.identity import identify

RNG = np.random.default_rng(3)
IMAGE = RNG.normal(100, 5, (30, 40)).astype("f4")


def image(data=IMAGE, name="", ver=1):
    return fits.ImageHDU(data, name=name, ver=ver)


def save(path: Path, *hdus) -> Path:
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    return path


NAMES = {
    "c4d_170316_ooi_z_v1.fits.fz": ("c4d_170316_oow_z_v1.fits.fz", "c4d_170316_ood_z_v1.fits.fz"),
    "k4m_opi.fits": ("k4m_opw.fits", "k4m_opd.fits"),
    "0001-w1-int-3.fits": ("0001-w1-unc-3.fits", "0001-w1-msk-3.fits"),
    "m31_image.fits": ("m31_weight.fits", "m31_dq.fits"),
    "M31_IMAGE.FITS": ("M31_RMS.FITS", "M31_MASK.FITS"),
    "hst_drz_sci.fits": ("hst_drz_wht.fits", None),
    "legacy-image-r.fits.fz": ("legacy-invvar-r.fits.fz", None),
    "coadd.fits": ("coadd.weight.fits", "coadd.flags.fits"),
    "image.fits": ("err.fits", "bpm.fits"),
    "imagery.fits": (None, None),
    "m31_image.tif": (None, None),
}


@pytest.mark.parametrize("name", NAMES)
def test_files_beside_the_image(tmp_path, name):
    for other in NAMES[name]:
        if other:
            (tmp_path / other).write_bytes(b"x")
    for other in ("imagery_weight.fits", "m31_mask.tif", "m31_weight.tif"):
        (tmp_path / other).write_bytes(b"x")
    found = find_noise_and_flags(tmp_path / name)
    assert tuple(found[kind][0].name if kind in found else None for kind in ("noise", "flags")) == NAMES[name]


@pytest.mark.parametrize("word", ["weight", "invvar", "rms", "var", "unc"])
def test_a_triplet_by_its_names(tmp_path, word):
    """sigma is 5 whatever the file holds, and it is said where it comes from."""
    value = {"weight": 1 / 25, "invvar": 1 / 25, "rms": 5.0, "var": 25.0, "unc": 5.0}[word]
    flags = np.zeros(IMAGE.shape, "i2")
    flags[3, 4] = 1
    path = save(tmp_path / "x_image.fits", image())
    save(tmp_path / f"x_{word}.fits", image(np.full_like(IMAGE, value)))
    save(tmp_path / "x_mask.fits", image(flags))
    frame = io.read(path)
    np.testing.assert_allclose(frame.variance, 25, rtol=1e-6)  # float32
    assert frame.mask.sum() == 1
    said = " ".join(frame.notes)
    assert f"x_{word}.fits" in said
    assert "x_mask.fits" in said


def test_a_file_beside_that_does_not_fit_is_named_and_left(tmp_path):
    path = save(tmp_path / "x.fits", image())
    save(tmp_path / "x.weight.fits", image(IMAGE[:5]))
    frame = io.read(path)
    assert frame.variance is None
    assert "x.weight.fits: shape (5, 40) does not fit the image; not used" in frame.notes.lines


def test_exposure_times_beside_the_image_are_scaled(tmp_path):
    path = save(tmp_path / "x_sci.fits", image())
    save(tmp_path / "x_wht.fits", image(np.full_like(IMAGE, 900.0)))
    frame = io.read(path)
    assert np.median(frame.variance) ** 0.5 == pytest.approx(5, rel=0.15)  # a MAD of 1170 differences: 4 %
    assert any("no inverse variance" in line for line in frame.notes.lines)


@pytest.mark.parametrize("kind", STATED)
def test_what_the_user_says_of_a_plane_wins(tmp_path, kind):
    """An extension called ERR that holds something else."""
    value = {"variance": 25.0, "rms": 5.0, "sigma": 5.0, "weight": 1 / 25, "ivar": 1 / 25}[kind]
    path = save(tmp_path / "x.fits", image(), image(np.full_like(IMAGE, value), "ERR"))
    np.testing.assert_allclose(io.read(path, variance=f"{kind}:ERR").variance, 25, rtol=1e-6)
    np.testing.assert_allclose(io.read(path, variance=f"{kind}:{path}[ERR]").variance, 25, rtol=1e-6)
    assert split_noise_kind(f"{kind}:ERR") == (kind, "ERR")
    with pytest.raises(InputError, match="no extension 'NOPE'"):
        io.read(path, variance=f"{kind}:NOPE")


def test_a_colon_that_says_nothing():
    assert split_noise_kind("C:/x.fits") == (None, "C:/x.fits")
    assert split_noise_kind("rms:") == (None, "rms:")


@pytest.mark.parametrize("name", NOISE_PLANES)
def test_every_name_of_a_noise_plane(tmp_path, name):
    """A plane and the same in the place of an image: variance 25 from each."""
    turn = NOISE_PLANES[name]
    value = next(v for v in (25.0, 5.0, 1 / 25) if abs(float(turn(np.array(v))) - 25) < 1e-9)
    path = save(tmp_path / "x.fits", image(name="SCI"), image(np.full_like(IMAGE, value), name))
    np.testing.assert_allclose(io.read(path).variance, 25, rtol=1e-6)


def test_chips_of_one_file(tmp_path):
    """Each with the noise of its own version, also where it is asked for by name alone."""
    hdus = [image(IMAGE + v, name, v) for v in (1, 2, 3) for name in ("SCI", "ERR")]
    path = save(tmp_path / "x.fits", *hdus)
    found = inputs.find_inputs([f"{path}[SCI,*]"])
    assert [item.path.name for item in found] == ["x.fits[SCI,1]", "x.fits[SCI,2]", "x.fits[SCI,3]"]
    tasks = inputs.name_outputs(found, str(tmp_path / "out"), [f"{path}[SCI,*]"], lambda _: 2)
    assert [t.target.name for t in tasks if t.target] == ["x_SCI1_x2.fits", "x_SCI2_x2.fits", "x_SCI3_x2.fits"]
    for v in (1, 2, 3):
        frame = io.read(f"{path}[SCI,{v}]", variance="ERR")
        np.testing.assert_array_equal(frame.pixels[0], IMAGE + v)
        np.testing.assert_allclose(frame.variance[0], (IMAGE + v) ** 2.0, rtol=1e-6)
    assert [item.path.name for item in inputs.find_inputs([f"{path}[*]"])] == ["x.fits[1]", "x.fits[3]", "x.fits[5]"]
    with pytest.raises(InputError, match="no image NOPE"):
        inputs.find_inputs([f"{path}[NOPE,*]"])


def test_a_folder_of_triplets_holds_one_image_each(tmp_path):
    for name in ("a_ooi_1.fits", "a_oow_1.fits", "a_ood_1.fits", "b.fits", "b.rms.fits", "c_weight.fits"):
        save(tmp_path / name, image())
    found = [item.path.name for item in inputs.find_inputs([str(tmp_path)])]
    assert found == ["a_ooi_1.fits", "b.fits", "c_weight.fits"]


def test_an_output_depends_on_the_files_beside_its_input(tmp_path):
    from sciresdiff.jobs.upscale.options import UpscaleOptions

    path = save(tmp_path / "x.fits", image())
    alone = identify(path, UpscaleOptions())
    save(tmp_path / "x.rms.fits", image())
    beside = identify(path, UpscaleOptions())
    assert {*beside} - {*alone} == {"beside (noise)"}
    other = UpscaleOptions(variance=f"rms:{tmp_path / 'x.rms.fits'}")
    assert identify(path, other)["--variance"].startswith("rms:x.rms.fits:")


@pytest.mark.parametrize(
    "shape", [(1, 2048, 2048), (1, 2049, 2048), (3, 20000, 20000), (900, 600, 700), (1, 10, 10**7)]
)
def test_patches_are_bounded_and_inside(shape):
    found = sample_regions(shape)
    assert sum(region.shape[0] * region.shape[1] for _, region in found) <= sampling.MOST
    assert len(set(found)) == len(found)
    for plane, region in found:
        assert 0 <= plane < shape[0]
        assert 0 <= region.y0 < region.y1 <= shape[1]
        assert 0 <= region.x0 < region.x1 <= shape[2]
    assert {plane for plane, _ in found} >= {0, shape[0] - 1}
