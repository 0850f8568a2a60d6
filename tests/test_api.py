"""The front door in Python: arrays and files give what the command line gives, and nothing is written unasked."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy import units
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from scipy.ndimage import gaussian_filter

import sciresdiff
from sciresdiff.cli.app import main
from sciresdiff.errors import InputError, SciresdiffWarning, UsageError
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
    one, two = physics(low, variance=variance), physics(np.stack([low, 2 * low]), variance=np.stack([variance] * 2))
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
    assert (done.dq[10:12, 12:14] == 1).all() and (done.dq[40:42, 42:44] == 1).all() and (done.dq > 0).sum() == 8
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
    whole = psf.render("gaussian:fwhm=2.5px", None, integrate=True)
    done = physics(low, variance=variance, kernel=None, psf=whole)
    assert done.notes.origins["psf"] == "--psf" and done.observation.target_fwhm == 2.0


def test_a_psf_that_varies_reaches_the_image_with_its_weights() -> None:
    low, variance = field()
    narrow, wide = (psf.render(f"gaussian:sigma={s}px", None, integrate=False) for s in (0.9, 1.8))
    side = max(len(narrow), len(wide))
    kernels = np.stack([np.pad(k, (side - len(k)) // 2) for k in (narrow, wide)])
    right = np.broadcast_to(np.linspace(0, 1, SCALE * SIDE), (SCALE * SIDE, SCALE * SIDE))
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
    with pytest.warns(SciresdiffWarning, match="kernel: width .* is outside"):
        wide = sciresdiff.restore(low, 2, kernel="gaussian:sigma=5px", variance=variance, refine=False, quantity="sum")
    assert any(line.startswith("WARNING kernel: ") for line in wide.notes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        physics(low, variance=variance)


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
    ],
)
def test_bad_arguments_are_the_command_lines_sentences(change: dict, problem: type[Exception], words: str) -> None:
    low, variance = field()
    with pytest.raises(problem) as caught:
        physics(low, **{"variance": variance, **change})
    assert words in str(caught.value)


@pytest.mark.parametrize("image", [np.ones(5), np.ones((2, 3, 4, 5)), np.ones((4, 4), complex), np.ones((0, 4))])
def test_what_is_no_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"image: an array of shape .* give numbers of shape \(h, w\)"):
        physics(image)


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


def test_degrade_refuses_what_has_no_meaning() -> None:
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
    with pytest.raises(UsageError, match="--probe: .*give files"):
        sciresdiff.evaluate(done, probe=True)
