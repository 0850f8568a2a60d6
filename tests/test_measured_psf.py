"""A PSF that is measured: on whatever sources there are, on beads, and blindly; and how sure it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from sciresdiff import io
from sciresdiff.errors import InputError
from sciresdiff.jobs.upscale.inputs import resolve_inputs
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.observation.measured_psf import measure_plane
from sciresdiff.physics import psf
from sciresdiff.physics.psf.blind import estimate_width
from sciresdiff.physics.psf.measure import measure_psf
from sciresdiff.physics.psf.moffat_fit import NAMES, moffat_pixels

Array = NDArray[np.float64]
OVER = 5


def stars(spec: str, places: Array, flux: Array, side: int) -> Array:
    """Stars through an optical PSF, integrated over the pixel; places in px."""
    fine = psf.render(spec, None, integrate=False, oversample_of=OVER)
    half = fine.shape[0] // 2
    room = np.zeros((side * OVER + 2 * half, side * OVER + 2 * half))
    for (y, x), f in zip(places, flux, strict=True):
        i, j = (round((v + 0.5) * OVER - 0.5) for v in (y, x))
        room[i : i + 2 * half + 1, j : j + 2 * half + 1] += f * fine
    return room[half:-half, half:-half].reshape(side, OVER, side, OVER).sum((1, 3))


def star_field(spec: str, count: int, side: int = 160, seed: int = 0, flux: tuple[float, float] = (3e3, 6e4)) -> Array:
    """Stars of many fluxes on white noise of 5."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(12, side - 13, (count, 2))
    fluxes = np.exp(rng.uniform(*np.log(flux), count))
    return stars(spec, places, fluxes, side) + 100 + rng.normal(0, 5, (side, side))


@pytest.mark.parametrize("name", NAMES)
def test_the_derivatives_of_the_profile(name: str) -> None:
    line = np.arange(-6.0, 7.0)
    grid = tuple(a.ravel() for a in np.meshgrid(line, line, indexing="ij"))
    p, k = np.array([[1.2, 0.2, -0.3, 0.9, 0.33, 0.2, -0.1, 0.01]]), NAMES.index(name)
    step = 1e-6 * np.eye(8)[k]
    slope = (moffat_pixels(p + step, grid, 2.5)[0] - moffat_pixels(p - step, grid, 2.5)[0]) / 2e-6
    assert moffat_pixels(p, grid, 2.5)[1][:, :, k] == pytest.approx(slope, abs=1e-7)


@pytest.mark.parametrize("fwhm", [0.9, 1.4, 2.5, 6.0])
@pytest.mark.parametrize("shape", ["gaussian:fwhm={}px", "moffat:fwhm={}px,beta=2.5"])
def test_widths_from_undersampled_to_broad(shape: str, fwhm: float) -> None:
    found = measure_psf(star_field(shape.format(fwhm), 30), None, None)
    assert found.fwhm == pytest.approx(fwhm, rel=3 * found.fwhm_error) and found.fwhm_error < 0.04


@pytest.mark.parametrize("count", [1, 2, 4, 400])
def test_any_number_of_stars_will_do(count: int) -> None:
    found = measure_psf(star_field("moffat:fwhm=2.6px,beta=3", count, seed=count), None, None)
    assert found.fwhm == pytest.approx(2.6, rel=0.06)
    assert found.fwhm_error > (0.1 if count == 1 else 0.009)
    assert bool(found.notes.warnings) == (count <= 2)
    assert "+-" in found.notes.lines[0] and f"{found.used} of {found.found} source" in found.notes.lines[0]


def test_the_error_is_honest() -> None:
    off = []
    for seed in range(12):
        found = measure_psf(star_field("gaussian:fwhm=2.4px", 8, seed=seed, flux=(600, 3000)), None, None)
        off.append(np.log(found.fwhm / 2.4) / found.fwhm_error)
    assert np.abs(off).max() < 3.5 and np.mean(np.abs(off) < 1) > 0.5  # of 12


def test_an_airy_pattern_is_followed_beyond_a_moffat() -> None:
    """Rings and a core that no Moffat has: the table takes them."""
    rng = np.random.default_rng(1)
    places = rng.uniform(14, 226, (70, 2))
    light = stars("airy:fwhm=2.2px", places, np.exp(rng.uniform(np.log(1e4), np.log(3e5), 70)), 240)
    frame = light + rng.normal(0, 1, light.shape) * np.sqrt(light + 25)
    found = measure_psf(frame, None, light + 25)
    assert found.table is not None
    wanted = psf.render("airy:fwhm=2.2px", None, integrate=True)
    bare = measure_psf(frame, None, light + 25, table=False)
    assert psf.fwhm(found.render()) == pytest.approx(psf.fwhm(wanted), rel=0.015)
    assert psf.fwhm(bare.render()) < 0.97 * psf.fwhm(wanted)  # what a Moffat makes of it
    line = found.render()[len(found.render()) // 2]
    middle = len(line) // 2
    assert line[middle + 4] > line[middle + 3]  # the first ring


def test_bright_stars_with_rings_do_not_decide() -> None:
    rng = np.random.default_rng(3)
    y, x = (v.ravel() for v in np.meshgrid(np.arange(14, 242, 23.0), np.arange(14, 242, 23.0)))
    places = np.stack([y, x], 1) + rng.uniform(-1, 1, (len(y), 2))
    flux = np.r_[np.geomspace(4e6, 4e5, 18), rng.uniform(4000, 12000, len(y) - 18)]
    light = stars("gaussian:fwhm=2.2px", places, flux, 256)
    yy, xx = np.indices(light.shape)
    for (a, b), f in zip(places[:18], flux, strict=False):
        r = np.hypot(yy - a, xx - b)
        light += f * 0.004 * np.exp(-(((r - 4) / 0.7) ** 2)) * (r > 1.5)
    found = measure_psf(light + 100 + rng.normal(0, 1, light.shape) * np.sqrt(light + 100), None, light + 100)
    assert psf.fwhm(found.render()) == pytest.approx(psf.fwhm(psf.gaussian(2.2)), rel=0.04)


def test_hot_pixels_and_tracks_are_no_stars() -> None:
    rng = np.random.default_rng(5)
    frame = star_field("moffat:fwhm=3px,beta=3", 15, 200)
    frame[rng.integers(0, 200, 150), rng.integers(0, 200, 150)] += 4000
    for y, x in rng.integers(10, 180, (30, 2)):
        frame[y + np.arange(8), x + np.arange(8) * 2] += 2000
    assert measure_psf(frame, None, None).fwhm == pytest.approx(3, rel=0.05)


def test_stars_among_galaxies_are_the_narrow_ones() -> None:
    rng = np.random.default_rng(7)
    frame = star_field("gaussian:fwhm=2.5px", 6, 256, seed=8, flux=(2e4, 6e4))
    for y, x in rng.uniform(12, 244, (45, 2)):
        frame += stars(f"gaussian:fwhm={rng.uniform(3.5, 8):.2f}px", np.array([[y, x]]), np.array([3e4]), 256)
    found = measure_psf(frame, None, None)
    assert found.fwhm == pytest.approx(2.5, rel=0.1) and found.fwhm_error > 0.05  # said to be a minority


def test_a_width_that_changes_over_the_field_is_said() -> None:
    rng, frame = np.random.default_rng(2), np.zeros((300, 300))
    for y, x in rng.uniform(12, 288, (60, 2)):
        frame += stars(f"gaussian:fwhm={2.2 + 0.9 * x / 300:.3f}px", np.array([[y, x]]), np.array([3e4]), 300)
    found = measure_psf(frame + rng.normal(0, 5, frame.shape), None, None)
    assert any("changes over the field" in line for line in found.notes)


def test_beads_of_a_microscope(tmp_path: Path) -> None:
    frame = star_field("gaussian:fwhm=2.8px", 25)
    tifffile.imwrite(tmp_path / "beads.tif", frame.clip(0, 65535).astype("u2"))
    for word in ("measure", "beads", f"beads:{tmp_path / 'beads.tif'}"):
        inputs = resolve_inputs(tmp_path / "beads.tif", UpscaleOptions(scale=2, psf=word, model="physics"))
        blur = inputs.observation.exposure.psf
        assert blur is not None and 0.005 < (blur.width_error or 0) < 0.05
        wanted = psf.kernel_from_psf("gaussian:fwhm=2.8px", pixel=None, scale=2)
        assert wanted is not None and blur.width == pytest.approx(psf.PSF.constant(wanted).width, rel=0.04)
        assert any("taken for beads" in line for line in inputs.notes) == (word == "measure")


def test_puncta_are_not_taken_for_beads_in_silence() -> None:
    rng, frame = np.random.default_rng(4), np.zeros((200, 200))
    for y, x in rng.uniform(12, 188, (40, 2)):
        frame += stars(f"gaussian:fwhm={rng.uniform(2.5, 6):.2f}px", np.array([[y, x]]), np.array([2e4]), 200)
    with pytest.raises(InputError, match="puncta of a microscope image.*--psf beads.*blind"):
        measure_psf(frame + rng.normal(0, 5, frame.shape), None, None, "micro")


def test_beads_in_another_file_of_other_pixels(tmp_path: Path) -> None:
    """A stack: the plane in focus; its pixels half as large as those of the frame."""
    planes = [star_field(f"gaussian:fwhm={w}px", 25) for w in (9.0, 5.0, 9.0)]
    options = dict(imagej=True, resolution=(20, 20), metadata={"axes": "ZYX", "unit": "um"})
    tifffile.imwrite(tmp_path / "beads.tif", np.clip(planes, 0, 65535).astype("u2"), **options)
    tifffile.imwrite(
        tmp_path / "cell.tif", planes[1].astype("u2"), imagej=True, resolution=(10, 10), metadata={"unit": "um"}
    )
    inputs = resolve_inputs(
        tmp_path / "cell.tif", UpscaleOptions(scale=2, psf=f"beads:{tmp_path / 'beads.tif'}", model="physics")
    )
    wanted = psf.kernel_from_psf("gaussian:fwhm=2.5px", pixel=None, scale=2)
    assert wanted is not None and inputs.observation.exposure.psf is not None
    assert inputs.observation.exposure.psf.width == pytest.approx(psf.PSF.constant(wanted).width, rel=0.06)
    assert any("plane 1 of" in line for line in inputs.notes)


@pytest.mark.parametrize("word", ["beads:", "beads:none.tif"])
def test_a_file_of_beads_that_is_not_there(tmp_path: Path, word: str) -> None:
    tifffile.imwrite(tmp_path / "cell.tif", star_field("gaussian:fwhm=3px", 5).astype("u2"))
    with pytest.raises(Exception, match="beads:|none.tif"):
        resolve_inputs(tmp_path / "cell.tif", UpscaleOptions(scale=2, psf=word, model="physics"))


@pytest.mark.parametrize("fwhm", [2.0, 4.0])
@pytest.mark.parametrize("shape", ["gaussian:fwhm={}px", "moffat:fwhm={}px,beta=3", "airy:fwhm={}px"])
@pytest.mark.parametrize("scene", ["points", "lines", "clouds"])
def test_a_blind_width_is_within_its_error(scene: str, shape: str, fwhm: float) -> None:
    rng, side = np.random.default_rng(11), 192
    if scene == "points":
        light = star_field(shape.format(fwhm), 200, side) - 100
    else:
        # a power law of the amplitude: 1 of threads, 1.5 of clouds
        k = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
        k[0, 0] = 1
        noise = np.fft.rfft2(rng.normal(size=(side, side))) * k ** -(1.0 if scene == "lines" else 1.5)
        image = psf.render(shape.format(fwhm), None, integrate=True)
        pad = np.zeros((side, side))
        pad[: image.shape[0], : image.shape[1]] = image[:side, :side]
        pad = np.roll(pad, [-(n // 2) for n in image.shape], (0, 1))
        light = np.fft.irfft2(noise * np.fft.rfft2(pad), (side, side))
        light *= 300 / light.std()
    found = estimate_width(light + rng.normal(0, 3, light.shape))
    assert 0.1 < found.fwhm_error < 0.5
    assert abs(np.log(found.fwhm / fwhm)) < 2.5 * found.fwhm_error


def test_nothing_to_estimate_blindly() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="blind finds no structure"):
        estimate_width(rng.normal(size=(128, 128)))
    with pytest.raises(InputError, match="blind needs a frame of 32"):
        estimate_width(rng.normal(size=(20, 128)))


def test_a_spectrum_without_a_bend_tells_no_width() -> None:
    """Noise that neighbours share, as in a resampled frame, falls like a scene; a narrow PSF is not in it."""
    rng = np.random.default_rng(4)
    noise = ndimage.gaussian_filter(rng.normal(size=(192, 192)), 0.5)
    cloud = ndimage.gaussian_filter(rng.normal(size=(192, 192)), 24)
    with pytest.raises(InputError, match="no bend"):
        estimate_width(noise / noise.std() + 20 * cloud / cloud.std())


def test_47_tuc_agrees_with_the_model_of_the_camera(shared_data: Path) -> None:
    frame = io.read(shared_data / "astro" / "hst_47tuc" / "j8bt06nyq_flt.fits")
    found = measure_plane(frame)
    model = io.read_image(str(shared_data / "astro" / "psf_formats" / "acs_hrc_f606w.fits"))
    assert psf.fwhm(found.render()) == pytest.approx(psf.fwhm(np.squeeze(model)), rel=0.05)


def test_a_source_without_an_end_is_a_galaxy() -> None:
    """A single source whose light falls off more slowly than that of any PSF (de Vaucouleurs' law, r_e 9 px)."""
    rng = np.random.default_rng(6)
    y, x = np.mgrid[:161, :161] - 80.3
    light = np.exp(-7.67 * ((np.hypot(y, x / 0.8) + 0.5) / 9) ** 0.25)
    frame = 3e4 * ndimage.gaussian_filter(light, 1.2) / light.max() + rng.normal(0, 3, light.shape)
    with pytest.raises(InputError, match="no source to measure a PSF from"):
        measure_psf(frame, None, None)
