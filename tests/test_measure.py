"""What is measured on a frame: its noise, how that is correlated, its camera and its PSF."""

from pathlib import Path

import numpy as np
import pytest
from kernel_moments import kernel_moments
from scipy.ndimage import gaussian_filter, shift

from sciresdiff import io
from sciresdiff.degradation import chain, degrade
from sciresdiff.errors import InputError
from sciresdiff.physics import psf
from sciresdiff.physics.detector import Detector
from sciresdiff.physics.photon_transfer import detector_from_photon_transfer
from sciresdiff.physics.psf.measure import measure_psf
from sciresdiff.physics.sky import noise_correlation, sky_noise


def white(seed: int = 0, side: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((side, side))


def star_field(spec: str, *, stars: int = 50, side: int = 240, seed: int = 0) -> chain.DegradedPlane:
    rng, over = np.random.default_rng(seed), 5
    fine = np.zeros((side * over, side * over))
    y, x = rng.integers(80, side * over - 80, (2, stars))
    fine[y, x] = 10 ** rng.uniform(3.3, 5, stars)
    kernel = psf.render(spec, None, integrate=False, oversample_of=over)
    camera = Detector(gain=1.0, read_noise=5.0, sky=100.0)
    return degrade.degrade(fine, scale=over, kernel=kernel, quantity="sum", detector=camera, rng=rng)


@pytest.mark.parametrize("scale", [1e-12, 3.0, 1e5])
def test_sky_noise_of_noise(scale: float) -> None:
    assert sky_noise(white() * scale + 7 * scale) == pytest.approx(scale, rel=0.04)  # quartile of 60,000 px


def test_sky_noise_under_stars_a_gradient_and_bad_pixels() -> None:
    low = star_field("moffat:fwhm=3px,beta=3")
    tilted = low.pixels + np.linspace(0, 300, 240)[:, None]
    bad = np.zeros(tilted.shape, bool)
    bad[100:110] = True
    tilted[100:105] = np.nan
    tilted[105:110] = 1e6
    assert sky_noise(tilted, bad) == pytest.approx(np.sqrt(125), rel=0.08)  # wings of the stars
    assert sky_noise(np.full((64, 64), 3.0)) == 0
    assert sky_noise(np.full((64, 64), np.nan)) == 0


def test_correlation_of_white_and_of_smoothed_noise() -> None:
    assert noise_correlation(white()) == pytest.approx(1, abs=0.03)  # 60,000 px
    smooth = gaussian_filter(white(), 0.7)
    boxes = smooth.reshape(64, 4, 64, 4).sum((1, 3)).std() / (4 * smooth.std())
    assert noise_correlation(smooth) == pytest.approx(boxes, rel=0.05)  # 4,096 boxes: 2 %
    halves = shift(white(), (0.5, 0.5), order=1, mode="wrap")
    assert noise_correlation(halves, variance=np.full(halves.shape, 0.25)) == pytest.approx(1.75, rel=0.05)


def test_structure_is_not_taken_for_noise() -> None:
    texture = gaussian_filter(white(3), 6)
    frame = white() + 3 * texture / texture.std()
    assert noise_correlation(frame, variance=np.ones(frame.shape)) == 1
    fine_texture = gaussian_filter(white(3), 1.0)
    frame = white() + fine_texture / fine_texture.std()
    assert noise_correlation(frame, variance=np.ones(frame.shape)) == 1  # only the variance can tell
    assert noise_correlation(white(side=40)) == 1  # too few squares to say


@pytest.mark.parametrize(
    "spec", ["moffat:fwhm=3px,beta=3", "gaussian:fwhm=2.2px", "moffat:fwhm=4px,beta=2.8,ratio=0.8,theta=30deg"]
)
def test_the_psf_of_stars_comes_back(spec: str) -> None:
    low = star_field(spec)
    found = measure_psf(low.pixels, low.mask, low.variance, "astro")
    assert found.used >= 10 and found.notes
    wanted, given = psf.render(spec, None, integrate=True), found.render()
    assert psf.fwhm(given) == pytest.approx(psf.fwhm(wanted), rel=0.02)
    a, b = kernel_moments(given), kernel_moments(wanted)
    assert (a.e1, a.e2) == (pytest.approx(b.e1, abs=0.02), pytest.approx(b.e2, abs=0.02))
    kernel = found.kernel(2, 2.0)
    again = psf.kernel_from_psf(spec, pixel=None, scale=2)
    assert kernel_moments(kernel).fwhm == pytest.approx(kernel_moments(again).fwhm, rel=0.03)


def test_no_source_no_psf() -> None:
    noise = white()
    with pytest.raises(
        InputError, match=r"no source to measure a PSF from \(0 usable of 0 seen\); give --psf .*--psf blind"
    ):
        measure_psf(noise, np.zeros(noise.shape, bool), None, "astro")
    with pytest.raises(InputError, match="puncta of a microscope image"):
        measure_psf(noise, None, None, "micro")
    with pytest.raises(InputError, match="no source"):
        measure_psf(np.ones((64, 64)), None, None, "astro")


def test_beads_are_measured_when_asked_for() -> None:
    low = star_field("gaussian:fwhm=3px")
    found = measure_psf(low.pixels, low.mask, None, "micro", beads=True)
    assert found.fwhm == pytest.approx(3, rel=0.03)


def test_a_camera_from_its_photon_transfer() -> None:
    scene = gaussian_filter(white(2, 512), 6)
    scene = np.clip(scene / scene.std(), 0, None) * 400
    camera = Detector(gain=2.0, read_noise=6.0, offset=100.0, bits=16)
    found, notes = detector_from_photon_transfer(camera.sample(scene * 2, np.random.default_rng(0)))
    assert found is not None and len(notes.lines) == 3
    assert found.gain == pytest.approx(2.0, rel=0.1)
    assert found.offset == pytest.approx(100, abs=4)  # the darkest of 64 pixels' means, noise 3
    assert found.read_noise == pytest.approx(6, abs=2)


def test_no_slope_no_camera() -> None:
    found, notes = detector_from_photon_transfer(100 + 3 * white())
    assert found is None and "give --gain" in notes.lines[0]
    assert detector_from_photon_transfer(np.full((64, 64), 5.0))[0] is None


def test_a_real_survey_frame(shared_data: Path) -> None:
    frame = io.read(shared_data / "astro" / "kids_viking" / "r.fits")
    plane, mask = frame.pixels[0, :1200, :1200].astype(float), frame.mask[0, :1200, :1200]
    found = measure_psf(plane, mask, None, "astro")
    assert found.used >= 5 and 1.8 < found.fwhm < 3.5  # about 0.7 arcsec at 0.2 to 0.34 arcsec per pixel
    assert 1.0 <= noise_correlation(plane, mask) < 1.5
