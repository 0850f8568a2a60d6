"""What is settled before a frame is restored, and what the user is told of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from sciresdiff.frame import Frame
from sciresdiff.jobs.upscale.inputs import photon_slope, resolve_inputs
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.observation.sample import samples_of_frame


@pytest.fixture
def frame(tmp_path: Path) -> Path:
    """Bright blobs on a sky, with a variance plane whose growth with the light a test sets."""
    yy, xx = np.indices((64, 64))
    light = sum(3000 * np.exp(-((yy - y) ** 2 + (xx - x) ** 2) / 8) for y, x in ((20, 20), (40, 44), (50, 12)))
    noise = np.random.default_rng(0).normal(size=light.shape) * 3
    fits.PrimaryHDU((light + noise).astype("f4")).writeto(tmp_path / "a.fits")
    return tmp_path / "a.fits"


def with_variance(path: Path, slope: float) -> str:
    """A file with the variance 9 (1 + slope * light / 3)."""
    light = np.clip(fits.getdata(path).astype(float), 0, None)
    fits.PrimaryHDU((9 * (1 + slope * light / 3)).astype("f4")).writeto(path.with_name("v.fits"), overwrite=True)
    return str(path.with_name("v.fits"))


@pytest.mark.parametrize("slope", [0.01, 0.1, 0.5])
def test_the_slope_of_the_noise_is_found(frame: Path, slope: float) -> None:
    pixels = fits.getdata(frame).astype("f4")
    variance = fits.getdata(with_variance(frame, slope)).astype(float)
    found = photon_slope(samples_of_frame(Frame(pixels[None], np.zeros((1, 64, 64), bool), "astro"))(0), variance)
    # the median variance is not quite that of the sky, where the light reaches far
    assert found == pytest.approx(slope, rel=0.25)


@pytest.mark.parametrize(("slope", "warned"), [(0.1, False), (20.0, True), (0.0, True)])
def test_noise_outside_the_training_is_said(frame: Path, slope: float, warned: bool) -> None:
    options = UpscaleOptions(scale=2, kernel="gaussian:sigma=1.2px", variance=with_variance(frame, slope))
    assert any(line.startswith("WARNING noise: ") for line in resolve_inputs(frame, options).notes) == warned


@pytest.mark.parametrize(("sigma", "warned"), [(1.2, False), (5.0, True), (0.3, True)])
def test_a_kernel_outside_the_training_is_said(frame: Path, sigma: float, warned: bool) -> None:
    options = UpscaleOptions(scale=2, kernel=f"gaussian:sigma={sigma}px", variance=with_variance(frame, 0.1))
    assert any(line.startswith("WARNING kernel: ") for line in resolve_inputs(frame, options).notes) == warned
