"""The last look at an output: sound frames pass it, wrong statements are told with their cause, NaN is an error."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from astropy.io import fits
from scipy import ndimage
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

import sciresdiff
from sciresdiff.cli.app import app
from sciresdiff.errors import CheckFailed, InputError
from sciresdiff.jobs.upscale import guard
from sciresdiff.observation.noise import WidthError
from sciresdiff.observation.observation import Observation
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.psf.kernel import render
from sciresdiff.restoration.restore import restore
from sciresdiff.restoration.settings import Settings

NOISE, SIDE = 6.0, 64


def kernel_of(fwhm: float) -> np.ndarray:
    """The blur, in output pixels."""
    return render(f"gaussian:fwhm={fwhm:g}px", None, integrate=False)


def stars(fwhm: float, peak: float, seed: int = 1) -> np.ndarray:
    """Twelve stars of up to ``peak`` sigma on a sky of 100, as the operator measures them, with white noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: 2 * SIDE, : 2 * SIDE]
    high = np.zeros((2 * SIDE, 2 * SIDE))
    for k in range(12):
        cy, cx = 20 + 36 * (k // 4) + rng.uniform(-3, 3), 16 + 30 * (k % 4) + rng.uniform(-3, 3)
        high += rng.uniform(0.3, 1) * np.exp(-4 * np.log(2) * ((y - cy) ** 2 + (x - cx) ** 2) / 4)
    op = Operator((SIDE, SIDE), 2, kernel_of(fwhm), dtype=torch.float64)
    low = op.apply(torch.from_numpy(high)[None, None])[0, 0].numpy()
    low = 100 + low * peak * NOISE / low.max() + rng.normal(0, NOISE, low.shape)
    return low.astype(np.float32)


def verdict(pixels: np.ndarray, fwhm: float, sigma: float = NOISE, mask: np.ndarray | None = None) -> guard.Guard:
    """Of the physics' restoration, scale 2, of a frame whose kernel and noise are stated so."""
    variance = np.full(pixels.shape, sigma**2, np.float32)
    window = Observation.of_arrays(
        pixels, variance, mask=mask, psf=PSF.constant(kernel_of(fwhm)), quantity="sum", scale=2
    )
    restored = restore(window, None, Settings(refine=False))
    again = guard.remeasure(window, restored)
    flagged = guard.flag_beside_masks(window, restored, again)
    sums = guard.measure(window, flagged, again, (slice(0, SIDE), slice(0, SIDE)))
    return guard.judge([[sums]])


@pytest.mark.parametrize("peak", [1, 10, 100, 1000])
@pytest.mark.parametrize("fwhm", [3.0, 5.0, 7.0])
def test_a_sound_frame_passes(fwhm, peak):
    """Whatever its brightness and width: a warning of what is right teaches to ignore warnings."""
    assert verdict(stars(fwhm, peak), fwhm).card == "passed"


def test_a_width_that_is_hardly_known_is_no_noise_of_the_sky():
    """The error of the width is in the variance around bright sources, where a frame may be full of them."""
    pixels = gaussian_filter(stars(5.0, 3000, seed=3) - 100, 2) + stars(5.0, 0)
    window = Observation.of_arrays(pixels, np.full(pixels.shape, NOISE**2), 2, PSF.constant(kernel_of(7.0)))
    noise = replace(window.exposure.noise, width_errors=(WidthError(0.2, (1.8, 1.8, 0.0)),))
    window = replace(window, exposures=[replace(window.exposure, noise=noise)])
    assert np.median(window.exposure.variance) > 2 * NOISE**2
    restored = restore(window, None, Settings(refine=False))
    sums = guard.measure(window, restored, guard.remeasure(window, restored), (slice(0, SIDE), slice(0, SIDE)))
    assert sums["scatter"] > 0.95  # wings of sources count as sky where the width is in doubt, and add to it


def test_a_psf_that_is_stated_too_wide():
    found = verdict(stars(5.0, 1000), 6.2)
    assert "chi2" in found.names
    assert any(line.startswith("WARNING chi2: ") and "too wide" in line for line in found.notes)


@pytest.mark.parametrize(
    ("factor", "name", "words"),
    [
        (0.25, "chi2", "too small"),
        (0.5, "chi2", "too small"),
        (2, "noise", "too large"),
        (4, "noise", "too large"),
    ],
)
def test_a_noise_that_is_stated_wrongly(factor, name, words):
    found = verdict(stars(5.0, 100), 5.0, NOISE * factor)
    assert name in found.names and any(words in line for line in found.notes.warnings)


def test_masked_cores_leave_no_ring():
    """Flagged where their wings alone say what there is, and nowhere a hole."""
    pixels = stars(5.0, 20000)
    mask = pixels > 0.3 * pixels.max()
    found = verdict(np.where(mask, 0, pixels).astype(np.float32), 5.4, mask=mask)
    assert found.flagged > mask.sum() and not any("lie 10 ERR" in line for line in found.notes)


def test_strict_and_the_card(tmp_path):
    """The file is written, its header says why, and the exit code is 4; without --strict it is 0."""
    header = fits.Header({"BUNIT": "electron"})
    error = fits.ImageHDU(np.full((SIDE, SIDE), NOISE / 4, np.float32), name="ERR")
    science = fits.ImageHDU(stars(5.0, 300), header, name="SCI")
    fits.HDUList([fits.PrimaryHDU(), science, error]).writeto(tmp_path / "low.fits")
    common = ["upscale", str(tmp_path / "low.fits"), "--scale", "2", "--kernel", "gaussian:fwhm=5px", "--model",
              "physics", "--no-refine", "--no-checks"]  # fmt: skip
    for more, code in (["--strict", "-o", str(tmp_path / "a.fits")], 4), (["-o", str(tmp_path / "b.fits")], 0):
        end = CliRunner().invoke(app, [*common, *more])
        assert end.exit_code == code and "WARNING chi2" in end.stderr
    for name in "ab":
        assert fits.getheader(tmp_path / f"{name}.fits")["SRDGUARD"].startswith("chi2")
    with pytest.raises(CheckFailed, match="chi2"):
        sciresdiff.restore(tmp_path / "low.fits", scale=2, kernel="gaussian:fwhm=5px", model="physics", strict=True)


def test_values_that_are_not_finite_are_an_error():
    """A kernel of a corner and its undoing: Richardson-Lucy runs away, and nothing is made of it."""
    kernel = np.zeros((41, 41))
    kernel[20, 20], kernel[2, 2], kernel[2, 38] = 3, -1.6, -0.4
    variance = np.ones((SIDE, SIDE), np.float32)
    window = Observation.of_arrays(stars(3.0, 1000), variance, psf=PSF.constant(kernel), quantity="sum", scale=2)
    try:
        restored = restore(window, None, Settings(refine=False))
    except InputError as why:
        assert "solver" in str(why) or "not finite" in str(why)
    else:
        assert np.isfinite(restored.mean).all() and np.isfinite(restored.err).all()


def crowded(seed: int = 3) -> np.ndarray:
    """So many stars that no blurred pixel is as dark as the scene between them."""
    rng = np.random.default_rng(seed)
    high = np.full((2 * SIDE, 2 * SIDE), 5.0)
    for peak in 10 ** rng.uniform(2, 4.5, 900):
        high[tuple(rng.integers(0, 2 * SIDE, 2))] += peak
    op = Operator((SIDE, SIDE), 2, kernel_of(5.0), dtype=torch.float64)
    low = op.apply(torch.from_numpy(gaussian_filter(high, 0.85))[None, None])[0, 0].numpy()
    return (low + rng.normal(0, NOISE, low.shape)).astype(np.float32)


def test_the_dark_between_crowded_stars_is_no_ring():
    assert verdict(crowded(), 5.0).card == "passed"


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_masked_cores_are_explained_by_their_wings(share):
    """All is stated exactly: there is no warning, whatever was flagged, and the wings fit."""
    pixels = stars(5.0, 3000)
    mask = pixels > share * pixels.max()
    found = verdict(np.where(mask, 0, pixels).astype(np.float32), 5.0, mask=mask)
    assert found.card == "passed" and found.flagged


def test_a_misfit_beside_masked_cores_is_told():
    """Light spills over along a column beside masked cores: the flag must not hide what no image explains."""
    pixels = stars(5.0, 3000)
    mask = pixels > 0.3 * pixels.max()
    spilt = np.where(mask.any(0)[None] & (np.indices(pixels.shape)[0] % 2 == 0), 3000, 0)
    wrong = np.where(ndimage.binary_dilation(mask, iterations=4), pixels + spilt, pixels)
    found = verdict(np.where(mask, 0, wrong).astype(np.float32), 5.0, mask=mask)
    assert "chi2" in found.names and any("masked or saturated stars" in line for line in found.notes.warnings)
