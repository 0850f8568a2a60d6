"""The noise of a frame: at the expected signal, of every plane, and held against the frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from astropy.io import fits
from scipy.ndimage import gaussian_filter, uniform_filter

from sciresdiff import io
from sciresdiff.errors import UsageError
from sciresdiff.frame import Frame
from sciresdiff.io.source import in_memory
from sciresdiff.notes import Notes
from sciresdiff.observation import camera
from sciresdiff.observation.exposure import Exposure
from sciresdiff.observation.grid import Grid
from sciresdiff.observation.noise import Noise
from sciresdiff.observation.observation import Observation
from sciresdiff.observation.options import Stated
from sciresdiff.observation.resolve_noise import resolve_noise
from sciresdiff.observation.sample import samples_of_frame
from sciresdiff.physics.detector import Detector, excess_of_multiplication
from sciresdiff.physics.expectation import REACH, expected_signal
from sciresdiff.physics.photon_transfer import detector_from_photon_transfer
from sciresdiff.physics.psf.width_error import WidthError
from sciresdiff.physics.sky import noise_scatter
from sciresdiff.region import Region
from sciresdiff.tiling import Tile


def stars(side: int = 128, count: int = 30, seed: int = 0, sigma: float = 1.3, brightest: float = 3e4) -> np.ndarray:
    """Point sources under a PSF, without sky."""
    rng = np.random.default_rng(seed)
    light = np.zeros((side, side))
    light[tuple(rng.integers(6, side - 6, (2, count)))] = brightest ** rng.uniform(0.5, 1, count)
    return gaussian_filter(light, sigma)


def threads(side: int = 128, seed: int = 0, top: float = 800.0) -> np.ndarray:
    """Curved lines under a PSF of 2.4 px FWHM, as of a cytoskeleton."""
    rng = np.random.default_rng(seed)
    light = np.zeros((side, side))
    for _ in range(side // 6):
        y, x, angle, bend = *rng.uniform(0, side, 2), rng.uniform(0, np.pi), rng.uniform(-0.03, 0.03)
        t = np.linspace(-40, 40, 400)
        at = [(y + t * np.sin(angle + bend * t)).astype(int), (x + t * np.cos(angle + bend * t)).astype(int)]
        inside = (at[0] >= 0) & (at[0] < side) & (at[1] >= 0) & (at[1] < side)
        np.add.at(light, (at[0][inside], at[1][inside]), 1.0)
    light = gaussian_filter(light, 1.02)
    return light * top / np.quantile(light, 0.999)


def frame_of(pixels: np.ndarray, kind: str = "astro", **known: object) -> Frame:
    stack = np.asarray(pixels, np.float32).reshape(-1, *pixels.shape[-2:])
    axes = "YX" if pixels.ndim == 2 else "CYX"
    return Frame(stack, ~np.isfinite(stack), kind, axes=axes, shape=pixels.shape, **known)  # type: ignore[arg-type]


def resolved(frame: Frame, **stated: object) -> tuple[Noise, Notes]:
    return resolve_noise(frame, samples_of_frame(frame), Stated(**stated))  # type: ignore[arg-type]


def sky_of(noise: Noise, frame: Frame, plane: int = 0) -> float:
    """Noise of a typical pixel."""
    return float(np.sqrt(np.median(noise.variance_of_sample(samples_of_frame(frame)(plane), plane))))


# ---------------------------------------------------------------- at the expected signal


@pytest.mark.parametrize("electrons", [1.0, 5.0, 100.0])
@pytest.mark.parametrize("scene", [stars, threads])
def test_the_variance_does_not_know_the_noise_of_its_pixel(scene, electrons: float) -> None:  # type: ignore[no-untyped-def]
    mean = scene() / 100 * electrons + electrons
    detector = Detector(gain=1.0, read_noise=0.5)
    error = detector.sample(mean, np.random.default_rng(1)) - mean
    true = detector.variance(mean)
    for at, most in (
        (mean + error, None),
        (expected_signal(mean + error, np.zeros(mean.shape, bool), detector.variance), 0.12),
    ):
        found = detector.variance(at)
        # a sum of error / variance that is not 0 is a bias of every weighted estimate (Neyman's)
        bias = float((error / found).mean() * np.sqrt((true).mean()))
        assert most is None or abs(bias) < most
        assert most is not None or electrons > 5 or bias < -0.2 or bias > 0.2


def test_bright_wings_keep_their_own_variance() -> None:
    mean = stars(brightest=1e6) + 10
    detector = Detector(gain=1.0, read_noise=1.0)
    y = detector.sample(mean, np.random.default_rng(2))
    found = detector.variance(expected_signal(y, np.zeros(y.shape, bool), detector.variance))
    off = np.abs(np.log(found / detector.variance(mean)))
    assert np.percentile(off, 95) < 0.5  # a plain mean over 5 px of FWHM gives 2.5


def test_windows_have_the_expectation_of_the_frame() -> None:
    rng = np.random.default_rng(3)
    pixels = rng.poisson(stars(160) + 4).astype("f4")
    pixels[30:34, 50:60] = np.nan
    frame = frame_of(pixels)
    maps = Detector(gain=rng.uniform(0.5, 2, pixels.shape), read_noise=2.0, offset=1.0)
    noise = Noise((maps,), correlation=(1.5,), width_errors=(WidthError(0.02, (1.5, 1.2, 0.3)),))
    exposure = Exposure(in_memory(frame), Grid(pixels.shape), noise)
    whole = exposure.window(0, Region(0, 160, 0, 160)).variance
    for region in (Region(0, 50, 0, 40), Region(37, 99, 21, 90), Region(120, 160, 100, 160), Region(60, 61, 60, 61)):
        part = exposure.window(0, region)
        np.testing.assert_array_equal(part.variance, whole[region.slices])
        inner = Region(0, min(9, part.grid.shape[0]), 0, 1)
        np.testing.assert_array_equal(part.window(0, inner).variance, part.variance[inner.slices])
    assert REACH == 14


def test_masked_pixels_do_not_reach_the_expectation() -> None:
    pixels = np.full((40, 40), 7.0)
    bad = np.zeros(pixels.shape, bool)
    bad[10:14, 5:30] = True
    pixels[bad] = 1e30
    pixels[20, 20] = np.nan
    np.testing.assert_allclose(expected_signal(pixels, bad, lambda e: np.ones(e.shape)), 7.0, rtol=1e-12)


def test_the_estimate_renews_the_noise() -> None:
    y = np.random.default_rng(4).poisson(stars(48) + 3).astype("f4")
    detector = Detector(gain=2.0, read_noise=3.0, offset=-5.0)
    exposure = Exposure(in_memory(frame_of(y)), Grid((48, 48)), Noise((detector,)))
    observation = Observation([exposure], exposure.grid.refine(2)).window(
        0, Tile(Region(0, 48, 0, 48), Region(0, 48, 0, 48))
    )
    data, units = observation.data(), observation.units
    x = torch.rand(1, 1, 96, 96)
    expected = data.operator.apply(x)[0, 0].numpy() * units.sigma + units.sky
    renewed = data.renew_noise(x).noise[0, 0].numpy() * units.sigma**2
    np.testing.assert_allclose(renewed, detector.variance(expected), rtol=1e-4)  # float32
    assert replace(data, model=None).renew_noise(x).noise is data.noise


# ---------------------------------------------------------------- photon transfer


@pytest.mark.parametrize("dtype", ["u2", "i2", "f4", "f8", "u4"])
@pytest.mark.parametrize("side", [64, 128])
@pytest.mark.parametrize(("gain", "read_noise", "top"), [(1.0, 2.0, 800.0), (0.05, 1.5, 6000.0)])
def test_a_camera_is_measured_whatever_its_type(
    dtype: str, side: int, gain: float, read_noise: float, top: float
) -> None:
    mean = threads(side, top=top)
    pixels = np.rint(Detector(gain, read_noise, offset=400.0).sample(mean * gain, np.random.default_rng(5)))
    found, notes = detector_from_photon_transfer(pixels.astype(dtype))
    assert found is not None and "+-" in notes.lines[1]
    assert found.gain == pytest.approx(gain, rel=0.25)  # stated errors of 5 to 10 %
    lowered, _ = detector_from_photon_transfer(pixels - 900.0)
    assert lowered is not None and lowered.gain == pytest.approx(found.gain)
    assert lowered.offset == pytest.approx(found.offset - 900)


@pytest.mark.parametrize("seed", range(3))
def test_no_camera_where_noise_does_not_grow_with_the_light(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for mean in (np.full((96, 96), 50.0), stars(96, seed=seed), threads(96, seed, 6000.0)):
        assert detector_from_photon_transfer(mean + rng.normal(0, 20, mean.shape))[0] is None
    smooth = gaussian_filter(rng.poisson(threads(128, seed)).astype(float), 1.0)
    assert detector_from_photon_transfer(smooth)[0] is None


@pytest.mark.parametrize("order", ["AB", "BA"])
def test_every_channel_has_its_own_noise(order: str) -> None:
    cameras = {"A": Detector(1.0, 2.0, offset=100.0), "B": Detector(0.05, 1.5, offset=400.0)}
    light = {"A": threads(seed=1), "B": threads(seed=2, top=6000.0)}
    rng = np.random.default_rng(6)
    stack = np.stack([cameras[c].sample(light[c] * cameras[c].gain, rng) for c in order])
    frame = frame_of(stack, "micro")
    noise, notes = resolved(frame)
    for plane, c in enumerate(order):
        assert float(noise.window(plane, Region(0, 9, 0, 9)).detectors[0].gain) == pytest.approx(
            cameras[c].gain, rel=0.2
        )
        alone, _ = resolved(frame_of(stack[plane], "micro"))
        assert noise.detectors[plane] == alone.detectors[0]
    assert not notes.warnings and any("channel 1" in line for line in notes)


def test_a_long_series_is_measured_on_a_few_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Detector(1.0, 2.0, offset=100.0)
    stack = np.stack([one.sample(threads(64, seed=9) + 1, np.random.default_rng(i)) for i in range(40)])
    frame = replace(frame_of(stack, "micro"), axes="TYX")
    seen: list[int] = []
    monkeypatch.setattr(
        camera, "detector_from_photon_transfer", lambda *a: seen.append(1) or detector_from_photon_transfer(*a)
    )
    noise, _ = resolved(frame)
    assert len(seen) == camera.SPREAD or len(seen) == camera.SPREAD + 40  # all of them only where some disagree
    assert len(noise.detectors) == 40


# ---------------------------------------------------------------- held against the frame


def exposed(sky: float = 1000.0, gain: float = 1.0, read_noise: float = 5.0, seed: int = 0) -> np.ndarray:
    return Detector(gain, read_noise).sample((stars(seed=seed) + sky) * gain, np.random.default_rng(seed + 50))


@pytest.mark.parametrize(("gain", "read_noise", "sky"), [(1.0, 5.0, 1000.0), (4.0, 12.0, 30.0), (0.3, 3.0, 5000.0)])
def test_a_true_header_is_believed(gain: float, read_noise: float, sky: float) -> None:
    frame = frame_of(exposed(sky, gain, read_noise), facts={"gain": gain, "read_noise": read_noise})
    noise, notes = resolved(frame)
    assert notes.origins["noise"] == "header" and not notes.warnings
    assert noise.detectors == (Detector(gain, read_noise),)


@pytest.mark.parametrize("sky", [300.0, 1000.0, 5000.0])
def test_a_sky_that_was_taken_off_is_seen(sky: float) -> None:
    frame = frame_of(exposed(sky) - sky, facts={"gain": 1.0, "read_noise": 5.0})
    noise, notes = resolved(frame)
    assert notes.origins["noise"] == "sky scatter" and any("GAIN" in line for line in notes)
    assert sky_of(noise, frame) == pytest.approx(np.sqrt(sky + 25), rel=0.12)  # the scatter of a crowded sky
    assert float(noise.detectors[0].gain) == pytest.approx(1.0)  # of the light above it


def test_averaged_frames_are_seen() -> None:
    frame = frame_of(np.mean([exposed(seed=0) for _ in range(1)] + [
        Detector(1.0, 5.0).sample(stars() + 1000, np.random.default_rng(i)) for i in range(8)], axis=0),
        facts={"gain": 1.0, "read_noise": 5.0})  # fmt: skip
    noise, notes = resolved(frame)
    assert any("averaged" in line for line in notes) and not notes.warnings
    assert sky_of(noise, frame) == pytest.approx(np.sqrt(1025 / 9), rel=0.12)


@pytest.mark.parametrize(("factor", "word"), [(100.0, "too small"), (1e-4, "too large")])
def test_stated_noise_that_the_frame_contradicts_is_warned_of(factor: float, word: str) -> None:
    pixels = exposed()
    noise, notes = resolved(frame_of(pixels), gain=1.0 * factor, read_noise=5.0)
    assert noise.detectors == (Detector(factor, 5.0),)  # believed all the same
    assert len(notes.warnings) == 1 and word in notes.warnings[0] and "--gain" in notes.warnings[0]
    plane = frame_of(pixels, variance=np.full((1, 128, 128), 1025.0 / factor))
    assert word in resolved(plane)[1].warnings[0]


def test_sound_noise_is_not_warned_of() -> None:
    for seed in range(3):
        pixels = exposed(seed=seed)
        assert not resolved(frame_of(pixels), gain=1.0, read_noise=5.0)[1].warnings
        known = (stars(seed=seed) + 1025)[None]
        assert not resolved(frame_of(pixels, variance=known))[1].warnings
        cells = threads(seed=seed)
        y = Detector(1.0, 2.0).sample(cells, np.random.default_rng(seed))
        assert not resolved(frame_of(y, "micro", variance=(cells + 4)[None]))[1].warnings


@pytest.mark.parametrize("unit", ["MJy/sr", "nanomaggy", "Jy/pixel", "Jy/beam", "erg/s/cm2/A"])
def test_a_gain_says_nothing_of_flux(tmp_path: Path, unit: str) -> None:
    header = fits.Header({"GAIN": 3.7, "RDNOISE": 9.4, "BUNIT": unit, "BMAJ": 1e-4, "BMIN": 1e-4, "EXPTIME": 9.0})
    fits.PrimaryHDU(exposed().astype("f4"), header).writeto(tmp_path / "a.fits")
    frame = io.read(tmp_path / "a.fits")
    assert "gain" not in frame.facts and any(unit in line for line in frame.notes if line.startswith("gain"))


@pytest.mark.parametrize(
    ("cards", "gain", "read_noise"),
    [
        ({"GAIN": 139, "EGAIN": 0.8, "RDNOISE": 2.5}, 0.8, 2.5),
        ({"GAIN": 1.6, "BUNIT": "adu/s", "EXPTIME": 10.0, "RON": 4.0}, 16.0, 4.0),
        ({"BUNIT": "electron/s", "EXPTIME": 10.0, "READNOISE": 4.0}, 10.0, 4.0),
        ({"GAIN": 1.6, "BUNIT": "DN", "READNOIS": 4.0}, 1.6, 4.0),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_cards_of_a_detector(tmp_path: Path, cards: dict[str, object], gain: float, read_noise: float) -> None:
    fits.PrimaryHDU(np.ones((8, 8), "f4"), fits.Header(cards)).writeto(tmp_path / "a.fits")
    facts = io.read(tmp_path / "a.fits").facts
    assert (facts["gain"], facts["read_noise"]) == (gain, read_noise)


@pytest.mark.parametrize("fill", [0.0, np.nan, np.inf, -1.0])
@pytest.mark.parametrize("name", ["ERR", "VAR", "WHT"])
def test_an_empty_plane_of_noise_is_left_out(tmp_path: Path, fill: float, name: str) -> None:
    planes = [fits.PrimaryHDU(), fits.ImageHDU(exposed().astype("f4"), name="SCI")]
    planes.append(fits.ImageHDU(np.full((128, 128), fill, "f4"), name=name))
    fits.HDUList(planes).writeto(tmp_path / "a.fits")
    frame = io.read(tmp_path / "a.fits")
    assert frame.variance is None and any(name in line for line in frame.notes) and not frame.mask.any()
    assert resolved(frame, gain=1.0, read_noise=5.0)[1].origins["noise"] == "--gain"
    assert resolved(frame)[1].origins["noise"] == "sky scatter"


def test_an_empty_dataset_of_variances_is_left_out(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"], file["variance"] = exposed(), np.zeros((128, 128))
    frame = io.read(tmp_path / "a.h5")
    assert frame.variance is None and any("not used" in line for line in frame.notes)


# ---------------------------------------------------------------- correlation


def crowded(seed: int, side: int = 64) -> np.ndarray:
    """Galaxies and stars that fill a frame, without sky."""
    rng = np.random.default_rng(seed)
    light = np.zeros((side, side))
    light[tuple(rng.integers(4, side - 4, (2, side // 3)))] = 10 ** rng.uniform(2.5, 4, side // 3)
    return gaussian_filter(light, 1.2) + gaussian_filter(light, 3.0)


@pytest.mark.parametrize("seed", range(8))
def test_sources_do_not_make_white_noise_correlated(seed: int) -> None:
    mean = crowded(seed) + 100
    pixels = np.random.default_rng(seed + 9).poisson(mean) - 100.0
    noise, notes = resolved(frame_of(pixels, variance=mean[None]))
    assert noise.correlation == () and not notes.warnings


@pytest.mark.parametrize("kernel", ["box", "gauss"])
@pytest.mark.parametrize("sky", [0.0, 50.0])
def test_correlated_noise_is_found(kernel: str, sky: float) -> None:
    white = np.random.default_rng(11).standard_normal((160, 160))
    dragged = uniform_filter(white, 3) if kernel == "box" else gaussian_filter(white, 0.6)
    pixels = stars(160, 15) + sky + 10 * dragged / dragged.std()
    boxes = dragged.reshape(40, 4, 40, 4).sum((1, 3)).std() / (4 * dragged.std())
    for known in ({"variance": np.full((1, 160, 160), 100.0)}, {}):
        noise, _ = resolved(frame_of(pixels, **known))
        # 1,600 boxes: 2 %; stars cover a part of the sky
        assert noise.correlation[0] == pytest.approx(boxes, rel=0.15)
        assert resolved(frame_of(pixels, **known), noise="white")[0].correlation == ()
        assert resolved(frame_of(pixels, **known), noise="2.5")[0].correlation == (2.5,)


def test_an_error_plane_that_holds_the_correlation_is_not_inflated() -> None:
    dragged = gaussian_filter(np.random.default_rng(13).standard_normal((160, 160)), 0.6)
    pixels = 10 * dragged / dragged.std()
    boxes = pixels.reshape(40, 4, 40, 4).sum((1, 3)).std() / 4
    noise, notes = resolved(frame_of(pixels, variance=np.full((1, 160, 160), boxes**2)))
    assert noise.correlation == () and not notes.warnings


def test_the_two_scatters_bracket_the_noise() -> None:
    white = np.random.default_rng(12).standard_normal((128, 128))
    found = noise_scatter(white)
    assert found.sky == pytest.approx(1, abs=0.05) and found.neighbours == pytest.approx(1, abs=0.05)
    full = noise_scatter(white + threads(top=400.0))
    assert full.least == pytest.approx(1, abs=0.15) and full.most >= full.least
    assert not noise_scatter(np.full((128, 128), np.nan)).least


@pytest.mark.parametrize("given", ["pink", "0", "-1", "nan", "inf"])
def test_noise_that_is_no_word_is_refused(given: str) -> None:
    from sciresdiff.observation.options import check_noise

    with pytest.raises(UsageError, match=r"^--noise: "):
        check_noise(given)


# ---------------------------------------------------------------- electron multipliers


def test_a_multiplier_adds_its_excess() -> None:
    assert excess_of_multiplication(1.0) == 1 and excess_of_multiplication(300.0) == pytest.approx(2, abs=0.01)
    frame = frame_of(exposed())
    noise, notes = resolved(frame, gain=10.0, read_noise=50.0, em_gain=100.0)
    one = noise.detectors[0]
    assert (float(one.gain), float(one.read_noise), float(one.excess)) == pytest.approx((0.1, 0.5, 1.99))
    assert any("multiplier" in line for line in notes)
