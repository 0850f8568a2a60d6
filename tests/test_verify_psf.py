"""A stated PSF held against the point sources of the frame: headers, options, kernels; and when nothing is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from astropy.io import fits
from test_measured_psf import star_field, stars

from sciresdiff.jobs.upscale.inputs import Inputs, resolve_inputs
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.observation.verify_psf import psf_on_frame
from sciresdiff.physics import psf
from sciresdiff.physics.psf.measure import find_population, summarise
from sciresdiff.physics.psf.point_sources import prepare_field
from sciresdiff.physics.psf.wings import has_wings


def write(path: Path, pixels: np.ndarray, **cards: Any) -> Path:
    """A FITS frame of 0.2 arcsec pixels."""
    header = fits.Header({"BUNIT": "adu", "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0})
    header.update({"CD1_1": -0.2 / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.2 / 3600, "CRPIX1": 1, "CRPIX2": 1})
    for name, value in cards.items():
        header[name] = value
    fits.PrimaryHDU(pixels.astype("f4"), header).writeto(path, overwrite=True)
    return path


def resolve(path: Path, **options: Any) -> Inputs:
    return resolve_inputs(path, UpscaleOptions(**{"scale": 2, "model": "physics", **options}))


def is_that_of(inputs: Inputs, spec: str) -> bool:
    """Whether the kernel is as wide as that of a SPEC, to 6 %."""
    wanted = psf.kernel_from_psf(spec, pixel=inputs.frame.pixel_size, scale=2)
    blur = inputs.observation.exposure.psf
    assert wanted is not None and blur is not None
    return bool(abs(blur.width / psf.PSF.constant(wanted).width - 1) < 0.06)


def misplaced_by(inputs: Inputs, spec: str) -> float:
    """Share of the light of the kernel that lies elsewhere than that of a SPEC."""
    wanted, blur = psf.kernel_from_psf(spec, pixel=inputs.frame.pixel_size, scale=2), inputs.observation.exposure.psf
    assert wanted is not None and blur is not None
    side = max(*wanted.shape, *blur.mean.shape)
    both = [np.pad(one, [((side - n) // 2,) * 2 for n in one.shape]) for one in (wanted, blur.mean)]
    return float(np.abs(both[1] - both[0]).sum() / 2)


@pytest.mark.parametrize(
    "cards",
    [
        {"SEEING": (2.4, "DIMM seeing")},
        {"SEEING": 0.25},
        {"SEEING": 99.0},
        {"FWHM": 1.6},
        {"FWHM": 12.0},
        {"FWHM": (1.8, "[arcsec] median")},
        {"PSF_FWHM": 5.0},
        {"BMAJ": 2.0 / 3600, "BMIN": 2.0 / 3600, "BPA": 0.0},
    ],
)
def test_a_header_that_the_stars_contradict_is_not_believed(tmp_path: Path, cards: dict[str, Any]) -> None:
    frame = star_field("gaussian:fwhm=3px", 30, 128)
    inputs = resolve(write(tmp_path / "a.fits", frame, **cards))
    assert is_that_of(inputs, "gaussian:fwhm=3px") and inputs.notes.origins["psf"] == "measured"
    told = [line for line in inputs.notes if "not believed" in line]
    assert len(told) == 1 and ("too wide" in told[0] or "too narrow" in told[0]) and "+-" in told[0]


@pytest.mark.parametrize("cards", [{"SEEING": 0.0}, {"SEEING": -1.0}, {"FWHM": 0}, {"SEEING": "n/a"}])
def test_a_header_that_says_nothing(tmp_path: Path, cards: dict[str, Any]) -> None:
    inputs = resolve(write(tmp_path / "a.fits", star_field("gaussian:fwhm=3px", 30, 128), **cards))
    assert is_that_of(inputs, "gaussian:fwhm=3px")


@pytest.mark.parametrize("cards", [{"SEEING": 0.6}, {"FWHM": 3.1}, {"PSF_FWHM": 2.8}])
def test_a_header_that_is_right_is_believed(tmp_path: Path, cards: dict[str, Any]) -> None:
    inputs = resolve(write(tmp_path / "a.fits", star_field("gaussian:fwhm=3px", 30, 128), **cards))
    assert inputs.notes.origins["psf"] == "header" and not any("not believed" in line for line in inputs.notes)


@pytest.mark.parametrize("beta", [2.5, 3.5, 5])
@pytest.mark.parametrize("share", [1.0, 1.08])  # of the Moffat's width: what is written, and what a Gaussian fits
def test_a_width_alone_says_nothing_of_the_wings(tmp_path: Path, beta: float, share: float) -> None:
    spec = f"moffat:fwhm=3px,beta={beta}"
    inputs = resolve(write(tmp_path / "a.fits", star_field(spec, 30, 128), FWHM=3 * share))
    told = [line for line in inputs.notes if "not believed" in line]
    assert inputs.notes.origins["psf"] == "measured" and len(told) == 1 and "wings" in told[0]
    assert misplaced_by(inputs, spec) < 0.4 * misplaced_by(inputs, f"gaussian:fwhm={3 * share}px")


@pytest.mark.parametrize("count", [2, 5])
def test_few_stars_do_not_tell_the_wings(tmp_path: Path, count: int) -> None:
    frame = star_field("moffat:fwhm=3px,beta=3", count, 128)
    assert resolve(write(tmp_path / "a.fits", frame, FWHM=3.0)).notes.origins["psf"] == "header"


def test_a_beam_is_a_gaussian_whatever_the_stars(tmp_path: Path) -> None:
    """Maps are convolved with it when they are made; what lies about their sources is not its wings."""
    beam = {"BMAJ": 0.6 / 3600, "BMIN": 0.6 / 3600, "BPA": 0.0}
    frame = star_field("moffat:fwhm=3px,beta=4", 30, 128)
    assert resolve(write(tmp_path / "a.fits", frame, **beam)).notes.origins["psf"] == "header"


@pytest.mark.parametrize("spec", ["gaussian:fwhm=1.3px", "gaussian:fwhm=3px", "moffat:fwhm=3px,beta=3"])
# at the noise, a thousand times brighter, and crowded
@pytest.mark.parametrize(("count", "flux"), [(12, (600, 3e3)), (12, (3e4, 3e6)), (150, (3e3, 6e4))])
def test_wings_are_seen_where_they_are(spec: str, count: int, flux: tuple[float, float]) -> None:
    found = find_population(prepare_field(star_field(spec, count, seed=count, flux=flux), None, None))
    wings = summarise(found, table=False).shape.wings
    # a Gaussian asked with the wings of beta 5 has to deny them; its own are below what counts
    seen = has_wings(found.points, found.stamps[found.point], max(wings, 0.2))
    assert seen == spec.startswith("moffat")


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ("gaussian:fwhm=4px", "too wide"),
        ("gaussian:fwhm=2.2px", "too narrow"),
        ("moffat:fwhm=4px,beta=3", "too wide"),
        ("gaussian:fwhm=3px,ratio=0.7,theta=40deg", "axis ratio 0.7"),
        ("gaussian:fwhm=3px", ""),
        ("gaussian:fwhm=3.2px", ""),
        ("gaussian:fwhm=2.85px", ""),
        ("none", ""),
    ],
)
def test_an_option_is_believed_and_warned_about(tmp_path: Path, spec: str, what: str) -> None:
    path = write(tmp_path / "a.fits", star_field("gaussian:fwhm=3px", 30, 128))
    inputs = resolve(path, psf=spec)
    assert inputs.notes.origins["psf"] == "--psf" and (spec == "none" or is_that_of(inputs, spec))
    told = [line for line in inputs.notes.warnings if line.startswith("WARNING psf: ")]
    assert len(told) == bool(what)
    assert not told or (
        what in told[0] and ("fwhm 3.0" in told[0] or "axis" in what)
    )  # what the stars show, with the pixel


def test_a_file_and_a_kernel_are_held_against_the_stars_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a.fits", star_field("gaussian:fwhm=3px", 30, 128))
    for fwhm in (3.0, 4.5):
        fits.PrimaryHDU(psf.gaussian(fwhm)).writeto(tmp_path / "p.fits", overwrite=True)
        kernel = psf.kernel_from_psf(f"gaussian:fwhm={fwhm}px", pixel=None, scale=2)
        fits.PrimaryHDU(kernel).writeto(tmp_path / "k.fits", overwrite=True)
        for options in ({"psf": str(tmp_path / "p.fits")}, {"kernel": str(tmp_path / "k.fits"), "target_fwhm": 2.0}):
            told = [line for line in resolve(path, **options).notes.warnings if "WARNING psf: " in line]
            assert len(told) == (fwhm == 4.5)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_the_whole_psf_of_a_kernel(scale: int) -> None:
    kernel = psf.kernel_from_psf("gaussian:fwhm=3.5px", pixel=None, scale=scale)
    assert kernel is not None
    whole = psf_on_frame(kernel, 2.0, scale)
    assert whole.sum() == pytest.approx(1)
    assert psf.fwhm(whole) == pytest.approx(psf.fwhm(psf.gaussian(3.5)), rel=0.02)
    assert np.unravel_index(whole.argmax(), whole.shape) == tuple(n // 2 for n in whole.shape)


def test_galaxies_do_not_say_that_a_psf_is_too_narrow(tmp_path: Path) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        frame = star_field("gaussian:fwhm=2.5px", 2, 160, seed + 50)
        for y, x in rng.uniform(12, 148, (35, 2)):
            wide = np.hypot(2.5, rng.lognormal(1.0, 0.4))
            frame += stars(
                f"moffat:fwhm={wide:.2f}px,beta=3", np.array([[y, x]]), np.array([rng.uniform(2e3, 2e4)]), 160
            )
        for options in ({}, {"psf": "gaussian:fwhm=2.5px"}):
            cards = {} if options else {"FWHM": 2.5}
            notes = resolve(write(tmp_path / "a.fits", frame, **cards), **options).notes
            assert not any("WARNING psf" in line or "not believed" in line for line in notes)


def test_cells_do_not_warn(tmp_path: Path) -> None:
    """Round nuclei and threads through the stated PSF."""
    rng = np.random.default_rng(3)
    yy, xx = np.indices((160, 160))
    light = np.zeros((160, 160))
    for y, x in rng.uniform(15, 145, (14, 2)):
        light += 400.0 * (np.hypot(yy - y, xx - x) < rng.uniform(4, 9))
    for _ in range(30):
        y, x, a = rng.uniform(20, 140), rng.uniform(20, 140), rng.uniform(0, np.pi)
        t = np.arange(-15, 15, 0.5)
        np.add.at(light, ((y + t * np.sin(a)).astype(int) % 160, (x + t * np.cos(a)).astype(int) % 160), 300.0)
    image = psf.render("gaussian:fwhm=3px", None, integrate=True)
    from scipy.signal import fftconvolve

    frame = rng.poisson(np.clip(fftconvolve(light, image, mode="same"), 0, None) + 20) + 100.0
    tifffile.imwrite(tmp_path / "a.tif", frame.astype("u2"))
    notes = resolve(tmp_path / "a.tif", psf="gaussian:fwhm=3px").notes
    assert not any(line.startswith("WARNING psf") for line in notes)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_psf_on_the_frame_is_as_wide_as_its_parts(scale: int) -> None:
    """Variances add up: that of the kernel, of the target, and (s^2 - 1) / 12 of the sum over s x s pixels."""
    kernel = psf.render(f"gaussian:fwhm={2.2 * scale}px", None, integrate=False)
    image = psf_on_frame(kernel, 2.0, scale)
    parts = variance_of(kernel) + variance_of(psf.target_psf(2.0)) + (scale**2 - 1) / 12
    assert variance_of(image) * scale**2 == pytest.approx(parts, rel=2e-3)  # the wings that are cut


def variance_of(image: np.ndarray) -> float:
    """Along y, px^2."""
    line = image.sum(1) / image.sum()
    at = np.arange(len(line)) - len(line) // 2
    return float((line * at**2).sum() - (line * at).sum() ** 2)
