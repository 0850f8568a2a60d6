"""The detector: mean, variance, converter and saturation."""

import numpy as np
import pytest

from sciresdiff.errors import UsageError
from sciresdiff.physics.detector import Detector

N = 200_000
CAMERAS = {
    "ccd": Detector(gain=2.0, read_noise=5.0, dark=3.0, sky=100.0, offset=100.0),
    "converter": Detector(gain=1.5, read_noise=8.0, offset=300.0, bits=16),
    "emccd": Detector(gain=2.0, read_noise=1.0, excess=2.0, sky=5.0),
    "no photons": Detector(gain=3.0, read_noise=6.0, photons=False),
}


@pytest.mark.parametrize("rate", [-20.0, 0.0, 3.0, 50.0, 2000.0, 3e4])
@pytest.mark.parametrize("name", CAMERAS)
def test_samples_have_the_stated_mean_and_variance(name: str, rate: float) -> None:
    camera = CAMERAS[name]
    adu = camera.sample(np.full(N, rate), np.random.default_rng(0))
    mean = rate / camera.gain + camera.pedestal
    variance = float(camera.variance(np.array(mean)))
    assert adu.mean() == pytest.approx(mean, abs=5 * np.sqrt(variance / N) + 1e-9)  # 5 standard errors
    assert adu.var() == pytest.approx(variance, rel=5 * np.sqrt(2 / N) * 1.5 + 0.01, abs=1e-12)  # Poisson has kurtosis


def test_photon_transfer_gives_gain_and_read_noise_back() -> None:
    camera = Detector(gain=2.5, read_noise=7.0, offset=50.0)
    rates = np.array([10.0, 100.0, 500.0, 2000.0, 8000.0])
    frames = [camera.sample(np.full(N, r), np.random.default_rng(i)) for i, r in enumerate(rates)]
    slope, dark = np.polyfit([f.mean() - 50 for f in frames], [f.var() for f in frames], 1)
    assert 1 / slope == pytest.approx(2.5, rel=0.02)  # five levels of 0.3 % each
    assert dark == pytest.approx((7 / 2.5) ** 2, abs=6)  # the line's error at its lower end


def test_the_converter_counts_in_whole_numbers_and_saturates() -> None:
    camera = Detector(gain=1.0, read_noise=2.0, bits=8, offset=10.0)
    shot = camera.expose(np.array([0.0, 50.0, 1e4]), np.random.default_rng(0))
    assert (shot.pixels == np.rint(shot.pixels)).all()
    assert shot.saturated.tolist() == [False, False, True]
    assert shot.pixels[2] == camera.limit == 255


def test_a_full_well_is_flagged_whatever_the_read_noise() -> None:
    camera = Detector(gain=2.0, read_noise=20.0, full_well=1000.0)
    shot = camera.expose(np.full(1000, 5000.0), np.random.default_rng(0))
    assert shot.saturated.all()
    assert shot.pixels.mean() == pytest.approx(500, abs=5 * 10 / np.sqrt(1000))  # 5 standard errors
    assert not camera.expose(np.full(1000, 500.0), np.random.default_rng(0)).saturated.any()


def test_maps_act_pixel_by_pixel() -> None:
    gain = np.array([[1.0, 4.0]])
    camera = Detector(gain=gain, read_noise=np.array([[0.0, 8.0]]))
    np.testing.assert_allclose(camera.variance(np.array([[100.0, 100.0]])), [[100.0, 29.0]])
    assert camera.sample(np.full((1, 2), 400.0), np.random.default_rng(0)).shape == (1, 2)


def test_very_many_photons_do_not_overflow() -> None:
    assert np.isfinite(Detector().sample(np.array([1e20]), np.random.default_rng(0))).all()


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"gain": 0.0}, "--gain: 0.0 is given, but has to be above 0"),
        ({"gain": -1.0}, "--gain: -1.0 is no number of 0 or more"),
        ({"read_noise": -1.0}, "--read-noise: -1.0"),
        ({"sky": np.inf}, "--sky: inf"),
        ({"bits": 40}, "--bits: 40 is given; give 1 to 32"),
        ({"excess": 0.5}, "below 1"),
    ],
)
def test_what_no_detector_has_is_refused(told: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Detector(**told)
