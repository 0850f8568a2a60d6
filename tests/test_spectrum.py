"""Power spectra and cross-coherence: white noise, known cut-offs, and a transform done the plain way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.signal.windows import hann

from sciresdiff import checks, io
from sciresdiff.checks import spectrum
from sciresdiff.checks.check import UnmeasuredError
from sciresdiff.checks.evidence import Evidence

Array = NDArray[np.float64]
NAMES = ("power_ratio_high", "coherence_half_px")


def noise(*shape: int, seed: int = 0) -> Array:
    """White, of variance 1."""
    return np.asarray(np.random.default_rng(seed).normal(size=shape))


def limited(plane: Array, cut: float) -> Array:
    """Nothing left above ``cut`` cycles/px."""
    radius = np.hypot(np.fft.fftfreq(plane.shape[0])[:, None], np.fft.fftfreq(plane.shape[1]))
    return np.asarray(np.fft.ifft2(np.fft.fft2(plane) * (radius <= cut)).real)


def found(evidence: Evidence) -> dict[str, checks.Result]:
    """Both results by name."""
    return {r.name: r for r in checks.check(evidence, names=["power_ratio_high"])}


@pytest.mark.parametrize("shape", [(128, 128), (97, 131), (64, 200)])
def test_rings_are_those_of_the_whole_transform(shape: tuple[int, int]) -> None:
    plane = noise(*shape) + 50
    wy, wx = (hann(2 * n + 1)[1::2] for n in shape)
    window = wy[:, None] * wx
    flat = (plane - (plane * window).sum() / window.sum()) * window / np.sqrt((window**2).sum())
    full = np.abs(np.fft.fft2(flat)) ** 2
    radius = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1]))
    curves = spectrum.spectra(Evidence(plane, 2))
    for i in range(min(shape) // 2 + 1):
        ring = (np.rint(radius * min(shape)) == i) & (radius <= 0.5)
        assert curves.count[i] == ring.sum()
        assert curves.frequency[i] == pytest.approx(radius[ring].mean(), abs=1e-12)  # the same float64 mean
        assert curves.image[i] == pytest.approx(full[ring].mean(), rel=1e-4, abs=1e-6)  # float32 transform, offset 50


@pytest.mark.parametrize("shape", [(256, 256), (180, 331)])
def test_white_noise_has_its_variance_at_every_frequency(shape: tuple[int, int]) -> None:
    curves = spectrum.spectra(Evidence(3 * noise(*shape), 2))
    outer = curves.frequency > 0.1
    assert curves.image[outer].mean() == pytest.approx(9, rel=0.05)  # 4 sigma of some 2e4 modes under a Hann window


def test_the_ratio_of_white_noise_is_that_of_the_variances() -> None:
    truth, image = 2 * noise(256, 256), 3 * noise(256, 256, seed=1)
    result = found(Evidence(image, 2, truth=truth))
    assert result["power_ratio_high"].value == pytest.approx(9 / 4, rel=0.05)  # 4 sigma, as above
    assert result["power_ratio_high"].passed is False
    assert "cross-coherence with the truth there 0.0" in result["power_ratio_high"].meaning
    assert result["coherence_half_px"].value is None and "every period" in result["coherence_half_px"].meaning


@pytest.mark.parametrize(("scale", "shape"), [(2, (256, 256)), (4, (200, 312))])
def test_the_band_is_that_above_the_datas_nyquist(scale: int, shape: tuple[int, int]) -> None:
    truth = noise(*shape)
    below = limited(truth, 0.48 / scale)
    assert (found(Evidence(below, scale, truth=truth))["power_ratio_high"].value or 0) < 1e-3  # a Hann window's leak
    above = truth + below  # doubled where the data reach only
    value = found(Evidence(above, scale, truth=truth))["power_ratio_high"].value
    assert value == pytest.approx(1, abs=0.02)  # 0.48 to 0.5 is left as it was, the window leaks a little


@pytest.mark.parametrize("cut", [0.1, 0.2, 0.35])
@pytest.mark.parametrize("shape", [(256, 256), (180, 331)])
def test_coherence_ends_where_the_common_structure_ends(cut: float, shape: tuple[int, int]) -> None:
    truth = noise(*shape)
    image = limited(truth, cut) + 0.3 * noise(*shape, seed=7)
    value = found(Evidence(image, 2, truth=truth))["coherence_half_px"].value
    assert value == pytest.approx(1 / cut, rel=0.05)  # two rings of a window's width at most


def test_a_perfect_image_has_one_and_says_that_it_never_differs() -> None:
    truth = noise(128, 128)
    result = found(Evidence(truth, 2, truth=truth))
    assert result["power_ratio_high"].value == pytest.approx(1, abs=1e-6)  # float32
    assert result["coherence_half_px"].value is None and "2 px" in result["coherence_half_px"].meaning


def test_masked_pixels_and_nan_count_for_nothing() -> None:
    truth = gaussian_filter(noise(128, 160), 1)
    image = truth + 0.1 * noise(128, 160, seed=3)
    mask = np.zeros(truth.shape, bool)
    mask[40:60, 30:70] = True
    clean = found(Evidence(np.where(mask, truth, image), 2, truth=truth))
    spoilt = np.where(mask, 1e9, image)
    spoilt[50, 50] = np.nan
    assert found(Evidence(spoilt, 2, truth=truth, mask_high=mask)) == clean
    holed = np.where(mask, np.nan, truth)
    assert found(Evidence(image, 2, truth=holed))["power_ratio_high"].value == pytest.approx(
        clean["power_ratio_high"].value or 0, rel=0.1
    )  # a flat patch in 4 % of both, with an edge in both


def test_masked_pixels_without_a_truth_are_mended() -> None:
    image = gaussian_filter(noise(256, 256), 3)
    mask = np.zeros(image.shape, bool)
    mask[100:104, 100:104] = True
    plain = spectrum.spectra(Evidence(image, 2)).image
    mended = spectrum.spectra(Evidence(np.where(mask, 1e6, image), 2, mask_high=mask)).image
    assert np.allclose(mended[5:40], plain[5:40], rtol=0.1)  # 16 of 65536 px are as smooth as their surroundings


def test_curves_hold_what_there_is() -> None:
    low = noise(40, 60)
    curves = spectrum.spectra(Evidence(noise(80, 120), 2, low=low))
    assert curves.truth is None and curves.coherence is None and curves.bicubic is not None
    top = curves.frequency > 0.35
    assert curves.bicubic[top].mean() < 0.02 * curves.bicubic[~top].mean()  # a spline passes little above its Nyquist
    full = spectrum.spectra(Evidence(noise(80, 120), 2, low=low, truth=noise(80, 120)))
    assert full.truth is not None and full.coherence is not None
    assert np.allclose(full.bicubic, curves.bicubic)


@pytest.mark.parametrize(
    ("high", "truth", "scale", "words"),
    [
        (np.full((64, 64), 3.0), noise(64, 64), 2, "the image is constant"),
        (noise(64, 64), np.full((64, 64), 3.0), 2, "the truth is constant"),
        (noise(8, 64), noise(8, 64), 2, "32 px"),
        (np.full((64, 64), np.nan), noise(64, 64), 2, "every pixel is masked"),
        (noise(64, 64), gaussian_filter(noise(64, 64), 8), 2, "no power above"),
        (noise(64, 64), noise(64, 64), 1, "own grid"),
    ],
)
def test_what_cannot_be_measured_says_why(high: Array, truth: Array, scale: int, words: str) -> None:
    result = checks.check(Evidence(high, scale, truth=truth), names=["power_ratio_high"])[0]
    assert result.value is None and words in result.meaning and result.passed is None


def test_an_all_masked_plane_raises_without_a_truth_too() -> None:
    with pytest.raises(UnmeasuredError, match="masked"):
        spectrum.spectra(Evidence(np.full((64, 64), np.nan), 2))


def test_on_a_real_field_smoothing_and_sharpening_are_told_apart(sample_data: Path) -> None:
    truth = np.asarray(io.read(sample_data / "47tuc.fits").pixels[0], np.float64)
    plain = Evidence(truth, 2, truth=truth)
    smooth = found(plain.with_image(gaussian_filter(truth, 1)))
    sharp = found(plain.with_image(2 * truth - gaussian_filter(truth, 1)))
    assert (smooth["power_ratio_high"].value or 9) < 0.5 < 1.5 < (sharp["power_ratio_high"].value or 0)
    assert smooth["power_ratio_high"].passed and sharp["power_ratio_high"].passed is False
