"""The front door in Python: arrays and files give what the command line gives, and nothing is written unasked."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy import units
from astropy.io import fits
from astropy.nddata import CCDData, NDData, StdDevUncertainty, UnknownUncertainty, VarianceUncertainty
from astropy.wcs import WCS
from scipy.ndimage import gaussian_filter

import sciresdiff
from sciresdiff.cli.app import main
from sciresdiff.errors import InputError, ResourceError, SciresdiffWarning, UsageError
from sciresdiff.io.quality_bits import BLANK
from sciresdiff.jobs import blocks
from sciresdiff.physics import psf
from sciresdiff.physics.psf.field import PSF

KERNEL = "gaussian:sigma=1.2px"
SIDE, SCALE = 40, 2


def field(seed: int = 0, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Stars on a sky of 20 as a telescope sees them, and the variance."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((SCALE * side, SCALE * side))
    for _ in range(side // 2):
        truth[tuple(rng.integers(5, SCALE * side - 5, 2))] += 10 ** rng.uniform(2, 3.5)
    seen = gaussian_filter(gaussian_filter(truth, 0.85) + 5, 1.2)
    low = seen.reshape(side, SCALE, side, SCALE).sum((1, 3))
    variance = 4 + 0.1 * low
    return (low + rng.normal(size=low.shape) * np.sqrt(variance)).astype("f4"), variance


def physics(image: object, **more: object) -> sciresdiff.Restored:
    """Restored by the physics alone, which is fast."""
    settings = {"scale": SCALE, "kernel": KERNEL, "model": "physics", "samples": 2, "quantity": "sum"}
    return sciresdiff.restore(image, **{**settings, **more})


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main_with(words)
    return int(end.value.code or 0)


def main_with(words: tuple[str, ...]) -> None:
    from unittest import mock

    with mock.patch("sys.argv", ["sciresdiff", *words]):
        main()


def test_an_array_gives_what_its_file_gives_on_the_command_line(tmp_path: Path) -> None:
    low, variance = field()
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(low, name="SCI"), fits.ImageHDU(variance, name="VAR")]
    fits.HDUList(hdus).writeto(tmp_path / "low.fits")
    options = ["--scale", "2", "--kernel", KERNEL, "--model", "physics", "--samples", "2", "--quantity", "sum", "-q"]
    assert run("upscale", str(tmp_path / "low.fits"), "-o", str(tmp_path / "high.fits"), *options) == 0
    from_array, from_file = physics(low, variance=variance), physics(tmp_path / "low.fits")
    with fits.open(tmp_path / "high.fits") as wanted:
        for name in ("sci", "err", "support", "gate", "dq"):
            np.testing.assert_array_equal(getattr(from_file, name), wanted[name.upper()].data)
            np.testing.assert_array_equal(getattr(from_array, name), wanted[name.upper()].data)
    before = sorted(os.listdir(tmp_path))
    (written,) = from_file.write(tmp_path / "python.fits")
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "python.fits"])  # no sidecar
    assert written.read_bytes() == (tmp_path / "high.fits").read_bytes()


def test_nothing_is_written_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    low, variance = field()
    physics(low, variance=variance)
    assert os.listdir(tmp_path) == []


def test_planes_keep_their_axis_and_one_plane_has_none() -> None:
    low, variance = field()
    one, two = (
        physics(low, variance=variance),
        physics(np.stack([low, 2 * low]), variance=np.stack([variance, 4 * variance])),
    )
    assert one.sci.shape == (SCALE * SIDE, SCALE * SIDE) and two.sci.shape == (2, SCALE * SIDE, SCALE * SIDE)
    np.testing.assert_array_equal(two.sci[0], one.sci)
    assert len(two.chi2) == len(two.flux_ratio) == 2
    assert two.frame.shape == two.sci.shape


def test_draws_are_returned_where_they_are_asked_for() -> None:
    low, variance = field()
    assert physics(low, variance=variance).draws is None
    done = physics(low, variance=variance, save_samples=True)
    assert done.draws is not None and done.draws.shape == (2, SCALE * SIDE, SCALE * SIDE)
    np.testing.assert_allclose(done.draws.mean(0), done.sci, atol=0.05 * float(done.err.mean()))  # the flux is closed


def test_a_type_of_pixels_that_does_not_exist_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    low, variance = field()
    with pytest.raises(UsageError, match="--dtype: nosuch is not written here"):
        physics(low, variance=variance).write(tmp_path / "high.tif", dtype="nosuch")
    assert os.listdir(tmp_path) == []


def test_an_image_that_memory_does_not_hold_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    low, variance = field()
    monkeypatch.setattr("sciresdiff.api.restored.physical_memory", lambda: 1e-6)
    with pytest.raises(ResourceError, match="image: restored to 80 x 80 px it takes"):
        physics(low, variance=variance)


def test_blocks_in_memory_are_those_of_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "CORE", 64)
    low, variance = field(side=72)
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(low, name="SCI"), fits.ImageHDU(variance, name="VAR")]
    fits.HDUList(hdus).writeto(tmp_path / "low.fits")
    done = physics(tmp_path / "low.fits")
    assert any(line.startswith("blocks: ") for line in done.notes)
    options = ["--scale", "2", "--kernel", KERNEL, "--model", "physics", "--samples", "2", "--quantity", "sum", "-q"]
    assert run("upscale", str(tmp_path / "low.fits"), "-o", str(tmp_path / "high.fits"), *options) == 0
    np.testing.assert_array_equal(done.sci, fits.getdata(tmp_path / "high.fits", "SCI"))


def test_masked_pixels_and_nan_are_flagged_and_come_back_as_they_were() -> None:
    low, variance = field()
    spoiled, mask = low.copy(), np.zeros(low.shape, bool)
    spoiled[5, 6], mask[20, 21] = np.nan, True
    done = physics(spoiled, variance=variance, mask=mask)
    assert (
        (done.dq[10:12, 12:14] == 1 + BLANK.bit).all()
        and (done.dq[40:42, 42:44] == 1).all()
        and (done.dq > 0).sum() == 8
    )
    assert np.isnan(done.sci[10:12, 12:14]).all() and np.isfinite(done.sci[40:42, 42:44]).all()
    assert np.isfinite(np.delete(done.sci.ravel(), np.flatnonzero(done.dq))).all()


def test_ccddata_in_and_out() -> None:
    low, variance = field()
    ccd = CCDData(low, unit=units.adu, uncertainty=StdDevUncertainty(np.sqrt(variance)))
    done = physics(ccd)
    np.testing.assert_allclose(done.sci, physics(low, variance=variance).sci, rtol=1e-5)  # a root and its square
    back = done.to_ccddata()
    assert back.unit == units.adu and isinstance(back.uncertainty, StdDevUncertainty)
    np.testing.assert_array_equal(back.data, done.sci)
    np.testing.assert_array_equal(back.uncertainty.array, done.err)


def test_psf_and_kernel_may_be_arrays_or_a_field() -> None:
    low, variance = field()
    kernel = psf.render(KERNEL, None, integrate=False)
    by_text = physics(low, variance=variance)
    np.testing.assert_array_equal(physics(low, variance=variance, kernel=kernel).sci, by_text.sci)
    np.testing.assert_array_equal(physics(low, variance=variance, kernel=PSF.constant(kernel)).sci, by_text.sci)
    whole = psf.render("gaussian:fwhm=1.8px", None, integrate=True)
    done = physics(low, variance=variance, kernel=None, psf=whole)
    assert done.notes.origins["psf"] == "--psf" and done.observation.target_fwhm == 2.0


def test_a_psf_that_varies_reaches_the_image_with_its_weights() -> None:
    low, variance = field()
    narrow, wide = (psf.render(f"gaussian:sigma={s}px", None, integrate=False) for s in (0.9, 1.8))
    side = max(len(narrow), len(wide))
    kernels = np.stack([np.pad(k, (side - len(k)) // 2) for k in (narrow, wide)])
    right = np.broadcast_to(np.linspace(0, 1, SCALE * SIDE), (SCALE * SIDE, SCALE * SIDE))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # over much of the field each of them is wrong, and that is told
        done = physics(low, variance=variance, kernel=PSF(kernels, np.stack([1 - right, right])))
        left_half, right_half = (physics(low, variance=variance, kernel=k) for k in (narrow, wide))
    error = float(np.median(done.err))
    near = np.abs(done.sci[:, :8] - left_half.sci[:, :8]).mean(), np.abs(done.sci[:, :8] - right_half.sci[:, :8]).mean()
    assert near[0] < near[1]  # at the left border the field is the narrow kernel
    assert np.isfinite(done.sci).all() and error > 0


def test_an_observation_is_restored_as_the_arrays_it_is_made_of() -> None:
    low, variance = field()
    kernel = psf.render(KERNEL, None, integrate=False)
    observation = sciresdiff.Observation.of_arrays(low, variance, SCALE, kernel, quantity="sum")
    done = sciresdiff.restore(observation, model="physics", samples=2)
    for name in ("sci", "err", "support", "gate", "dq"):
        np.testing.assert_array_equal(getattr(done, name), getattr(physics(low, variance=variance), name))
    assert done.scale == SCALE and done.observation is not None


@pytest.mark.parametrize(
    ("change", "words"),
    [({"kernel": KERNEL}, "kernel: given beside an Observation"), ({"gain": 2.0}, "gain: given beside an Observation"),
     ({"variance": 4.0}, "variance: given beside"), ({"scale": 4}, "scale: 4 is given, but the Observation's")],
)  # fmt: skip
def test_an_observation_states_its_physics_itself(change: dict, words: str) -> None:
    low, variance = field()
    with pytest.raises(UsageError, match=words):
        sciresdiff.restore(sciresdiff.Observation.of_arrays(low, variance, SCALE), model="physics", **change)


def test_a_kernel_that_does_not_keep_the_flux_is_refused() -> None:
    low, variance = field()
    with pytest.raises(InputError, match="psf: the kernel's sum is 9, but 1 keeps the flux"):
        sciresdiff.Observation.of_arrays(low, variance, SCALE, np.ones((3, 3)))


def test_two_exposures_are_refused_in_words() -> None:
    low, variance = field()
    one = sciresdiff.Observation.of_arrays(low, variance, SCALE)
    two = sciresdiff.Observation([one.exposure, one.exposure], one.grid)
    with pytest.raises(InputError, match="exposures: 2 are given; give one"):
        sciresdiff.restore(two, model="physics")


def test_what_was_assumed_is_in_the_notes_and_warnings_are_raised() -> None:
    low, variance = field()
    done = physics(low, variance=variance, quantity=None)
    assert "quantity: assumed sum (pixels add up); --quantity states it" in done.notes.lines
    assert done.notes.origins["noise"] == "file" and not done.notes.warnings
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        wide = sciresdiff.restore(low, 2, kernel="gaussian:sigma=5px", variance=variance, refine=False, quantity="sum")
    assert any(line.startswith("WARNING kernel: ") for line in wide.notes)
    assert any(re.match("kernel: width .* is outside", str(one.message)) for one in raised)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        physics(low, variance=variance)


def test_noise_in_another_unit_is_warned_of_in_both_interfaces(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    low, variance = field()
    variance = 1e-6 * variance
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        physics(low, variance=variance)
    told = [str(one.message) for one in raised if one.category is SciresdiffWarning]
    assert any(re.match("chi2: .* of the image against the data, where 1 is right", line) for line in told)
    assert any(re.match("noise: the file's plane makes it too small", line) for line in told)
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(low, name="SCI"), fits.ImageHDU(variance, name="VAR")]
    fits.HDUList(hdus).writeto(tmp_path / "low.fits")
    options = ["--scale", "2", "--kernel", KERNEL, "--model", "physics", "--samples", "2", "--quantity", "sum"]
    assert run("upscale", str(tmp_path / "low.fits"), "-o", str(tmp_path / "high.fits"), *options) == 0
    assert "WARNING chi2: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "problem", "words"),
    [
        ({"kernal": "none"}, UsageError, "kernal: no such option; did you mean kernel"),
        ({"gain": -1.0}, UsageError, "--gain: -1.0 is given, but a finite number of 0 or more"),
        ({"variance": np.ones((3, 3))}, InputError, "variance: shape (3, 3) does not fit"),
        ({"variance": "VAR"}, InputError, "variance: 'VAR' names a part of a file"),
        ({"kernel": np.ones((4, 4)) / 16}, InputError, "odd"),
        ({"model": "nothing-like-it"}, InputError, "--model"),
        ({"scale": 0}, UsageError, "--scale: 0 is given"),
        ({"scale": "2"}, UsageError, "--scale: '2' is given, but a number is allowed"),
        ({"scale": 2.5}, UsageError, "--scale: 2.5 is given, but a whole number is allowed"),
        ({"samples": True}, UsageError, "--samples: True is given, but a whole number is allowed"),
        ({"seed": "a"}, UsageError, "--seed: 'a' is given, but a whole number is allowed"),
        ({"refine": "no"}, UsageError, "--refine: 'no' is given, but True or False is allowed"),
        ({"quantity": "total"}, UsageError, "--quantity: 'total' is given, but 'sum' or 'mean' is allowed"),
        ({"saturation": "high"}, UsageError, "--saturation: 'high' is given, but a number is allowed"),
        ({"gain": np.ones((4, 4))}, UsageError, "--gain: an array of shape (4, 4) is given, but a number or a text"),
        ({"gain": "none.fits"}, InputError, "--gain: none.fits: no such file; give a number, or the file of a map"),
        ({"model": 5}, UsageError, "--model: 5 is given, but a text is allowed"),
        ({"options": 5}, UsageError, "options: int is given, but UpscaleOptions is needed"),
        ({"kind": "radio"}, UsageError, "kind: 'radio' is given, but astro or micro is allowed"),
        ({"unit": 5}, UsageError, "unit: 5 is given, but a text is needed"),
        ({"pixel_size": 0.1}, UsageError, "pixel_size: 0.1 is given; say the unit too"),
        ({"variance": np.ones((SIDE, SIDE), complex)}, InputError, "variance: an array of type complex128"),
        ({"mask": np.full((SIDE, SIDE), "no")}, InputError, "mask: an array of type <U2; give True where"),
        ({"kernel": np.zeros((5, 5))}, InputError, "kernel: a kernel has finite values and a sum above 0"),
        ({"kernel": np.ones((5, 5), complex)}, InputError, "kernel: an array of shape (5, 5) and type complex128"),
        ({"kernel": PSF.constant(np.zeros((5, 5)))}, InputError, "kernel: its sum is 0, which keeps no light"),
        ({"kernel": PSF(np.ones((1, 3, 3)) / 9, np.ones((1, 7, 7)))}, InputError, "kernel: weight maps of (7, 7) px"),
        ({"kernel": Path("none.fits")}, InputError, "none.fits: no such file"),
        ({"kernel": None, "psf": Path("none.fits")}, InputError, "none.fits: no such file"),
        (
            {"kernel": None, "psf": PSF.constant(np.ones((3, 3)))},
            InputError,
            "psf: a PSF field is the blur on the output",
        ),
        ({"kernel": None, "psf": np.ones((5, 5), complex)}, InputError, "psf: an array of type complex128"),
        ({"kernel": None, "psf": "moffat:fwhm=2px"}, UsageError, "moffat:fwhm=2px: give beta too"),
        ({"kernel": None, "psf": "gaussian:fwhm=0px"}, UsageError, "fwhm=0px is out of range; give a number above 0"),
    ],
)
def test_bad_arguments_are_the_command_lines_sentences(change: dict, problem: type[Exception], words: str) -> None:
    low, variance = field()
    with pytest.raises(problem) as caught:
        physics(low, **{"variance": variance, **change})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "image",
    [np.ones(5), np.ones((2, 3, 4, 5)), np.ones((4, 4), complex), np.ones((0, 4)), np.ones((4, 4), bool), None, b"low"],
)
def test_what_is_no_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"image: .* is given; give numbers of shape \(h, w\)"):
        physics(image)


def test_what_makes_no_array_or_does_not_fit_float32_is_refused() -> None:
    with pytest.raises(InputError, match="image: list is given, which makes no array"):
        physics([[1, 2], [3]])
    with pytest.raises(InputError, match=r"image: values up to 1\.0e\+40, but float32 ends at"):
        physics(np.full((4, 4), 1e40))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pixels": np.ones(5)}, r"pixels: an array of shape \(5,\)"),
        ({"pixels": np.ones((4, 4), complex)}, "pixels: an array of shape .* type complex128"),
        ({"variance": np.ones((3, 4))}, "variance: shape"),
        ({"quantity": "total"}, "quantity: 'total' is given, but sum or mean is allowed"),
        ({"psf": "none"}, "psf: the text 'none' is given"),
        ({"scale": 0}, "scale: 0 is given, but a whole number of 1 or more is needed"),
        ({"scale": "2"}, "scale: '2' is given, but a whole number"),
    ],
)
def test_an_observation_of_arrays_that_do_not_fit_is_refused(change: dict, words: str) -> None:
    arrays = {"pixels": np.ones((4, 4)), "variance": np.ones((4, 4))}
    with pytest.raises(InputError, match=words):
        sciresdiff.Observation.of_arrays(**{**arrays, "scale": 2, **change})


def test_pixels_without_a_variance_above_zero_are_flagged() -> None:
    low, variance = field()
    variance[5, 6], variance[7, 8], variance[9, 3] = -1, 0, np.inf
    assert (physics(low, variance=variance).dq > 0).sum() == 3 * SCALE**2


def test_a_masked_array_keeps_its_mask() -> None:
    low, variance = field()
    mask = np.zeros(low.shape, bool)
    mask[20, 21] = True
    done = physics(np.ma.masked_array(low, mask), variance=variance)
    np.testing.assert_array_equal(done.sci, physics(low, variance=variance, mask=mask).sci)
    assert (done.dq > 0).sum() == 4


def test_one_number_is_the_variance_of_every_pixel() -> None:
    low, variance = field()
    np.testing.assert_array_equal(
        physics(low, variance=9.0).sci, physics(low, variance=np.full(variance.shape, 9.0)).sci
    )


def test_a_kernel_array_of_another_sum_gives_the_same_flux() -> None:
    low, variance = field()
    kernel = psf.render(KERNEL, None, integrate=False)
    done = physics(low, variance=variance, kernel=7 * kernel)
    np.testing.assert_allclose(done.sci, physics(low, variance=variance, kernel=kernel).sci, rtol=1e-4)


def test_units_of_data_and_noise_are_obeyed() -> None:
    low, variance = field()
    wanted = physics(low, variance=variance).sci
    in_milli = VarianceUncertainty(variance * 1e6, unit=units.mJy**2)
    for image in (CCDData(low, unit=units.Jy, uncertainty=in_milli), NDData(low, in_milli, unit=units.Jy)):
        done = physics(image)
        np.testing.assert_allclose(done.sci, wanted, rtol=1e-4)
        assert done.frame.unit == "Jy"
    done = physics(low * units.Jy, variance=variance * 1e6 * units.mJy**2)
    np.testing.assert_allclose(done.sci, wanted, rtol=1e-4)
    assert done.frame.unit == "Jy"
    with pytest.raises(InputError, match="variance: adu2 is given, but the image is in Jy"):
        physics(low * units.Jy, variance=variance * units.adu**2)
    with pytest.raises(InputError, match="uncertainty: UnknownUncertainty"):
        physics(NDData(low, UnknownUncertainty(variance), unit=units.Jy))
    with pytest.raises(UsageError, match="unit: 'adu' is given, but this image states its own"):
        physics(CCDData(low, unit=units.Jy), variance=variance, unit="adu")


def test_ccddata_keeps_its_header_and_its_coordinates(tmp_path: Path) -> None:
    low, variance = field()
    sky = WCS(naxis=2)
    sky.wcs.ctype, sky.wcs.crval = ["RA---TAN", "DEC--TAN"], [150.0, 2.0]
    sky.wcs.crpix, sky.wcs.cdelt = [10.0, 12.0], [-1e-4, 1e-4]
    header = fits.Header({"OBJECT": "M 13", "GAIN": 2.0, "NAXIS1": SIDE, "CD1_1": -1e-4, "CD2_2": 1e-4})
    done = physics(CCDData(low, unit=units.adu, wcs=sky, meta=header), variance=variance)
    back = done.to_ccddata()
    assert back.meta["OBJECT"] == "M 13" and done.frame.pixel_size.x == pytest.approx(0.18)
    (written,) = done.write(tmp_path / "high.fits")
    of_file = WCS(fits.getheader(written, "SCI"))
    assert back.meta["SRDSCALE"] == SCALE
    assert back.wcs.pixel_shape is None
    for one in (back.wcs, of_file):
        np.testing.assert_allclose(one.pixel_to_world_values(2 * 5 + 0.5, 2 * 7 + 0.5), sky.pixel_to_world_values(5, 7))
    assert fits.getheader(written, "SCI")["BUNIT"] == "adu"


def test_coordinates_follow_the_grid_down_and_up(tmp_path: Path) -> None:
    sky = WCS(naxis=2)
    sky.wcs.ctype, sky.wcs.crval = ["RA---TAN", "DEC--TAN"], [150.0, 2.0]
    sky.wcs.crpix, sky.wcs.cdelt = [10.0, 12.0], [-1e-4, 1e-4]
    fits.PrimaryHDU(scene(), sky.to_header()).writeto(tmp_path / "high.fits")
    low = sciresdiff.degrade(tmp_path / "high.fits", 2, kernel=KERNEL, gain=2.0, read_noise=3.0, quantity="sum")
    done = sciresdiff.restore(low, model="physics", samples=2)
    low.write(tmp_path / "low.fits")
    done.write(tmp_path / "again.fits")
    place = sky.pixel_to_world_values(20.5, 30.5)
    for one in (low.to_ccddata().wcs, WCS(fits.getheader(tmp_path / "low.fits", "SCI"))):
        np.testing.assert_allclose(one.pixel_to_world_values(10, 15), place)
    for one in (done.to_ccddata().wcs, WCS(fits.getheader(tmp_path / "again.fits", "SCI"))):
        np.testing.assert_allclose(one.pixel_to_world_values(20.5, 30.5), place)


# -- degrade ----------------------------------------------------------------------------------------------------------


def scene() -> np.ndarray:
    """Stars, well sampled, on a sky of 5."""
    rng = np.random.default_rng(3)
    truth = np.zeros((SCALE * SIDE, SCALE * SIDE))
    for _ in range(20):
        truth[tuple(rng.integers(6, SCALE * SIDE - 6, 2))] += 10 ** rng.uniform(2, 3.5)
    return (gaussian_filter(truth, 0.85) + 5).astype("f4")


def test_a_degraded_array_is_what_the_command_line_writes(tmp_path: Path) -> None:
    fits.PrimaryHDU(scene()).writeto(tmp_path / "high.fits")
    options = ["--scale", "2", "--kernel", KERNEL, "--gain", "2", "--read-noise", "3", "--quantity", "sum", "-q"]
    assert run("degrade", str(tmp_path / "high.fits"), "-o", str(tmp_path / "low.fits"), *options) == 0
    settings = {"kernel": KERNEL, "gain": 2.0, "read_noise": 3.0, "quantity": "sum"}
    of_array, of_file = (sciresdiff.degrade(one, 2, **settings) for one in (scene(), tmp_path / "high.fits"))
    with fits.open(tmp_path / "low.fits") as wanted:
        for low in (of_array, of_file):
            np.testing.assert_array_equal(low.sci, wanted["SCI"].data)
            np.testing.assert_array_equal(low.var.astype("f4"), wanted["VAR"].data)
            np.testing.assert_array_equal(low.dq, wanted["DQ"].data)
            np.testing.assert_allclose(low.kernel, wanted["KERNEL"].data)
    (written,) = of_file.write(tmp_path / "python.fits")
    assert written.read_bytes() == (tmp_path / "low.fits").read_bytes()


def test_what_was_degraded_is_restored_with_its_own_blur_noise_and_scale() -> None:
    low = sciresdiff.degrade(scene(), 2, kernel=KERNEL, gain=2.0, read_noise=3.0, quantity="sum")
    done = sciresdiff.restore(low, model="physics", samples=2)
    assert done.scale == 2 and done.notes.origins["psf"] == done.notes.origins["noise"] == "file"
    np.testing.assert_array_equal(done.sci, physics(low.sci, variance=low.var).sci)


def test_what_was_degraded_is_an_observation() -> None:
    low = sciresdiff.degrade(scene(), 2, kernel=KERNEL, gain=2.0, read_noise=3.0, quantity="sum")
    done = sciresdiff.restore(low.observation, model="physics", samples=2)
    wanted = sciresdiff.restore(low, model="physics", samples=2)
    for name in ("sci", "err", "support", "dq"):
        np.testing.assert_array_equal(getattr(done, name), getattr(wanted, name))
    with pytest.raises(InputError, match="variance: no noise was added"):
        sciresdiff.degrade(scene(), 2, kernel=KERNEL, quantity="sum").observation  # noqa: B018


def test_a_pixel_size_is_a_text_and_follows_the_grid() -> None:
    low = sciresdiff.degrade(scene(), 2, kernel=KERNEL, pixel_size="0.1um", kind="micro", quantity="sum")
    assert low.frame.pixel_size == sciresdiff.PixelSize(0.2, 0.2, "um")


def test_degrade_refuses_what_has_no_meaning() -> None:
    with pytest.raises(InputError, match="none.fits: no such file"):
        sciresdiff.degrade(scene(), 2, kernel=Path("none.fits"))
    with pytest.raises(UsageError, match="--sky: is in electrons and needs --gain"):
        sciresdiff.degrade(scene(), 2, sky=10.0)
    with pytest.raises(UsageError, match="--pairs: a training set is a file"):
        sciresdiff.degrade(scene(), 2, pairs="set.h5")


# -- evaluate ---------------------------------------------------------------------------------------------------------


def test_images_in_memory_are_judged_like_their_files(tmp_path: Path) -> None:
    low = sciresdiff.degrade(scene(), 2, kernel=KERNEL, gain=2.0, read_noise=3.0, quantity="sum")
    low.write(tmp_path / "low.fits")
    fits.PrimaryHDU(scene()).writeto(tmp_path / "truth.fits")
    words = ["--model", "physics", "--samples", "2", "-q"]
    assert run("upscale", str(tmp_path / "low.fits"), "-o", str(tmp_path / "high.fits"), *words) == 0
    restored = sciresdiff.restore(tmp_path / "low.fits", model="physics", samples=2)
    of_files = sciresdiff.evaluate(tmp_path / "high.fits", tmp_path / "low.fits", tmp_path / "truth.fits")
    in_memory = sciresdiff.evaluate(restored, truth=scene())
    assert in_memory.verdict == of_files.verdict
    for one, two in zip(in_memory.results, of_files.results, strict=True):
        assert (one["name"], one["region"], one["passed"]) == (two["name"], two["region"], two["passed"])
        assert one["value"] == (None if two["value"] is None else pytest.approx(two["value"], rel=1e-6)), one["name"]
    assert set(in_memory.baselines) == set(of_files.baselines) >= {"bicubic", "richardson-lucy-best"}
    assert in_memory.value("psnr") > max(r["value"] for r in in_memory.baselines["bicubic"] if r["name"] == "psnr")


def test_arrays_are_judged_with_their_data_and_without() -> None:
    low = sciresdiff.degrade(scene(), 2, kernel=KERNEL, gain=2.0, read_noise=3.0, quantity="sum")
    done = sciresdiff.restore(low, model="physics", samples=2)
    with_data = sciresdiff.evaluate(
        done.sci, low.sci, variance=low.var, kernel=KERNEL, quantity="sum", baselines="none"
    )
    assert with_data.value("chi2") == pytest.approx(sciresdiff.evaluate(done, baselines="none").value("chi2"), rel=1e-6)
    alone = sciresdiff.evaluate(done.sci, truth=scene(), quantity="sum")
    assert alone.value("psnr") > 30 and alone.value("chi2") is None
    with pytest.raises(KeyError, match="no such figure"):
        alone.value("psnrr")


def test_a_report_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    low = sciresdiff.degrade(scene(), 2, kernel=KERNEL, gain=2.0, read_noise=3.0, quantity="sum")
    done = sciresdiff.restore(low, model="physics", samples=2)
    sciresdiff.evaluate(done, truth=scene(), baselines="bicubic", report=tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    with pytest.raises(UsageError, match="--report"):
        sciresdiff.evaluate(done, report=tmp_path / "page.txt")


def test_evaluate_refuses_images_that_do_not_fit() -> None:
    low, variance = field()
    done = physics(low, variance=variance)
    with pytest.raises(InputError, match="low: what restore returned knows its data"):
        sciresdiff.evaluate(done, low)
    with pytest.raises(InputError, match="no whole multiple"):
        sciresdiff.evaluate(done.sci[:77], low)
    with pytest.raises(InputError, match="truth: all pixels are NaN or infinite"):
        sciresdiff.evaluate(done, truth=np.full(done.sci.shape, np.nan))
    with pytest.raises(InputError, match="low: an array of shape"):
        sciresdiff.evaluate(done.sci, low + 0j)
    with pytest.raises(UsageError, match="variance: what restore returned knows that of its data"):
        sciresdiff.evaluate(done, variance=variance)
    with pytest.raises(UsageError, match="psf: is of the data, which are not given; give low too"):
        sciresdiff.evaluate(done.sci, psf="none")
    with pytest.raises(UsageError, match="--report: 5 is given, but the name of a file is needed"):
        sciresdiff.evaluate(done, report=5)
    with pytest.raises(UsageError, match="--probe: .*give files"):
        sciresdiff.evaluate(done, probe=True)
