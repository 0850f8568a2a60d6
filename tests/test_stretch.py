"""Stretches come back exactly, and do not care about the unit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciresdiff.errors import InputError, UsageError
from sciresdiff.physics import stretch as stretches
from sciresdiff.physics.sky import estimate_sky
from sciresdiff.physics.stretch import STRETCHES, Stretch, fit_stretch


def star_field(seed=0, n=120, sky=50.0, sigma=4.0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:n, :n]
    frame = rng.normal(sky, sigma, (n, n))
    for _ in range(25):
        cy, cx = rng.uniform(0, n, 2)
        frame += 10 ** rng.uniform(1, 5) * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 6)
    return frame


@pytest.mark.parametrize("name", STRETCHES)
def test_inverse_undoes_forward(name):
    """Over 12 decades on both sides of the sky."""
    frame = star_field()
    stretch = fit_stretch(name, frame, variance=np.abs(frame) / 2 + 9)
    x = np.concatenate([-np.logspace(-6, 6, 200), [0.0], np.logspace(-6, 6, 200), frame.ravel()])
    back = stretch.inverse(stretch.forward(x))
    scale = np.abs(x) + abs(stretch.parameters.get("sky", 0)) + stretch.scale + 10
    assert np.max(np.abs(back - x) / scale) < 1e-13  # some tens of roundings of 1e-16 each


@settings(max_examples=25, deadline=None)
@given(a=st.floats(1e-3, 1e3), b=st.floats(-1e4, 1e4), seed=st.integers(0, 50))
@pytest.mark.parametrize("name", ["noise", "asinh", "percentile"])
def test_units_do_not_matter(name, a, b, seed):
    frame = star_field(seed)
    mine = fit_stretch(name, frame).forward(frame)
    other = fit_stretch(name, a * frame + b).forward(a * frame + b)
    rounding = 1e-15 * (abs(b) / a + 1e5)  # of a y + b itself, in units of the noise, times some tens
    np.testing.assert_allclose(other, mine, rtol=1e-9, atol=30 * rounding)


def test_units_do_not_matter_with_a_variance():
    frame = star_field()
    var = frame.clip(0) * 0.1 + 16
    mine = fit_stretch("noise", frame, variance=var).forward(frame)
    other = fit_stretch("noise", 3 * frame - 7, variance=9 * var).forward(3 * frame - 7)
    np.testing.assert_allclose(other, mine, rtol=1e-11, atol=1e-11)  # roundings of 1e5 sigma


def test_noise_units_are_noise_units():
    frame = np.random.default_rng(1).normal(30, 5, (400, 400))
    u = fit_stretch("noise", frame).forward(frame)
    assert u.mean() == pytest.approx(0, abs=0.02)  # 400 samples' worth of sigma / 400, five times
    assert u.std() == pytest.approx(1, abs=0.02)  # a MAD of 1.6e5 pixels scatters by 0.4 %


def test_anscombe_makes_noise_uniform():
    """Var[u] = 1 for Poisson plus Gaussian noise, to the order that the formula has."""
    rng = np.random.default_rng(2)
    for level in (20.0, 200.0, 5000.0):
        electrons = rng.poisson(level, 40_000) + rng.normal(0, 3, 40_000)
        counts = electrons / 2.5 + 100
        u = fit_stretch("anscombe", counts, gain=2.5, read_noise=3.0, offset=100.0).forward(counts)
        assert u.std() == pytest.approx(1, abs=0.025)  # 2 % from the formula at 20 e-, 0.4 % from the sample


def test_anscombe_finds_gain_in_the_variance():
    frame = star_field(sky=200.0)
    found = fit_stretch("anscombe", frame, variance=frame.clip(0) / 2.5 + (3 / 2.5) ** 2).parameters
    assert found["gain"] == pytest.approx(2.5, rel=1e-3)  # a straight line, but for the pixels clipped at 0
    assert found["read_noise"] == pytest.approx(3.0, rel=0.05)


@pytest.mark.parametrize("name", STRETCHES)
def test_stored_and_found_again(name):
    stretch = fit_stretch(name, star_field())
    assert Stretch.from_dict(stretch.to_dict()) == stretch


def test_settings_are_checked():
    frame = star_field()
    with pytest.raises(UsageError, match="not known"):
        fit_stretch("sqrt", frame)
    with pytest.raises(UsageError, match="pmin, pmax can be set"):
        fit_stretch("percentile", frame, top=99.0)
    with pytest.raises(UsageError, match="softening -1"):
        fit_stretch("asinh", frame, softening=-1.0)
    with pytest.raises(UsageError, match="pmin 60"):
        fit_stretch("percentile", frame, pmin=60.0, pmax=40.0)
    with pytest.raises(UsageError, match="gain 0"):
        fit_stretch("anscombe", frame, gain=0.0)


def test_background_of_known_frames():
    rng = np.random.default_rng(3)
    noise = rng.normal(10, 2, (300, 300))
    for frame in (noise, np.pad(noise, 80), np.where(rng.random(noise.shape) < 0.1, noise + 1e4, noise)):
        sky, sigma = estimate_sky(frame)
        assert sky == pytest.approx(10, abs=0.08)  # a mode of 9e4 pixels scatters by some hundredths of sigma
        assert sigma == pytest.approx(2, rel=0.04)


def test_background_of_odd_frames():
    assert estimate_sky(np.full((9, 9), 4.0)) == (4.0, 0.0)
    counts = np.random.default_rng(4).poisson(0.05, (300, 300))
    sky, sigma = estimate_sky(counts)
    assert sky == 0
    assert sigma == pytest.approx(0.05**0.5, rel=0.1)  # the clip takes the rare high counts
    assert estimate_sky(np.where(np.arange(10_000) % 50 == 0, 100.0, 0.0))[0] == 0
    with pytest.raises(InputError, match="no valid pixel"):
        estimate_sky(np.full((3, 3), np.nan))


def test_background_ignores_masked_pixels():
    frame = star_field(5)
    mask = np.zeros(frame.shape, bool)
    mask[:70] = True
    assert estimate_sky(np.where(mask, 1e9, frame), mask) == estimate_sky(np.where(mask, np.nan, frame))


def test_constant_frame_can_be_stretched():
    for name in STRETCHES:
        stretch = fit_stretch(name, np.full((8, 8), 7.0))
        assert np.all(np.isfinite(stretch.forward(np.full(3, 7.0))))


def test_background_of_real_frames(shared_data):
    """Close to the densest brightness, which is the sky wherever there is any."""
    import tifffile
    from astropy.io import fits

    cluster = fits.getdata(shared_data / "astro/hst_47tuc/j8bt06nyq_flt.fits", 1)[256:768, 256:768]
    cells = tifffile.imread(shared_data / "micro/bioimage_notebooks/BPAE_actin.tif")
    for frame, low, high in ((cluster, 130, 160), (cells, 200, 226)):  # bounds read off the histograms
        assert low < estimate_sky(frame)[0] < high


def test_torch_tensors_go_through():
    torch = pytest.importorskip("torch")
    frame = star_field().astype(np.float32)
    for name in STRETCHES:
        stretch = fit_stretch(name, frame)
        u = stretch.forward(torch.from_numpy(frame))
        assert u.dtype == torch.float32
        np.testing.assert_allclose(u.numpy(), stretch.forward(frame), rtol=2e-5, atol=2e-5)  # float32


def test_every_family_names_its_settings():
    assert [stretches._settings_of(f) for f in STRETCHES.values()][1:4] == ["nothing", "softening", "pmin, pmax"]
