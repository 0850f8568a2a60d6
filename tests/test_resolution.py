"""Ring correlation and decorrelation, against the same written with a mask for every ring and radius."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.signal.windows import tukey

from sciresdiff import checks, io
from sciresdiff.checks import resolution
from sciresdiff.checks.baselines import bicubic
from sciresdiff.checks.evidence import Evidence
from sciresdiff.physics.operators import Operator

Array = NDArray[np.float64]


def noise(*shape: int, seed: int = 0) -> Array:
    """White, of variance 1."""
    return np.asarray(np.random.default_rng(seed).normal(size=shape))


def radii(shape: tuple[int, int]) -> Array:
    """Frequency of every mode of the whole transform, cycles/px."""
    return np.asarray(np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])))


def limited(plane: Array, cut: float) -> Array:
    """Nothing left above ``cut`` cycles/px."""
    return np.asarray(np.fft.ifft2(np.fft.fft2(plane) * (radii(plane.shape) <= cut)).real)  # type: ignore[arg-type]


def windowed(plane: Array) -> NDArray[np.complex128]:
    """The whole transform under a Tukey window."""
    wy, wx = (tukey(2 * n + 1, 0.25)[1::2] for n in plane.shape)
    window = wy[:, None] * wx
    return np.asarray(np.fft.fft2((plane - (plane * window).sum() / window.sum()) * window))


def found(evidence: Evidence, name: str) -> dict[str, checks.Result]:
    """Results by region, or by their place where they have no value."""
    return {r.region if r.value is not None else str(i): r
            for i, r in enumerate(checks.check(evidence, names=[name]))}  # fmt: skip


@pytest.mark.parametrize("shape", [(96, 96), (75, 131)])
def test_frc_is_the_plain_loop_over_rings(shape: tuple[int, int]) -> None:
    truth = gaussian_filter(noise(*shape), 1) + 30
    image = truth + 0.2 * noise(*shape, seed=1)
    one, other, radius = windowed(image), windowed(truth), radii(shape)
    curve = resolution.frc_curve(Evidence(image, 2, truth=truth))
    for i in range(1, min(shape) // 2 + 1):
        ring = (np.rint(radius * min(shape)) == i) & (radius <= 0.5)
        top = np.sum(one[ring] * other[ring].conj()).real
        expected = top / np.sqrt(np.sum(np.abs(one[ring]) ** 2) * np.sum(np.abs(other[ring]) ** 2))
        assert curve.correlation[i] == pytest.approx(expected, abs=1e-4)  # float32 transforms
        assert curve.count[i] == ring.sum()


def test_half_bit_is_the_published_curve() -> None:
    # SNR 0.2071 per pixel of one half set: half a bit when the two are averaged; 1 for n = 1, 0.17 for many pixels
    assert resolution.half_bit(np.array([1.0, 1e12])) == pytest.approx([1.0, 0.2071 / 1.2071], rel=1e-3)  # four digits


@pytest.mark.parametrize("cut", [0.1, 0.2, 0.35])
@pytest.mark.parametrize("shape", [(512, 512), (400, 523)])
def test_frc_finds_the_cut_off(cut: float, shape: tuple[int, int]) -> None:
    truth = noise(*shape)
    image = limited(truth, cut) + 0.1 * noise(*shape, seed=5)
    values = found(Evidence(image, 2, truth=truth), "frc_resolution_px")
    assert set(values) == {"1/7", "half-bit"}
    for result in values.values():
        assert result.value == pytest.approx(1 / cut, rel=0.05)  # two of some 45 rings; of fewer pixels 1/7 is chance


def test_frc_is_blind_to_gain_and_offset_and_sees_noise() -> None:
    truth = gaussian_filter(noise(256, 256), 1.5)
    image = truth + 0.02 * noise(256, 256, seed=2)
    worse = truth + 0.06 * noise(256, 256, seed=2)
    plain, scaled, noisy = (
        found(Evidence(p, 2, truth=truth), "frc_resolution_px")["1/7"].value or 0 for p in (image, 3 * image + 7, worse)
    )
    assert scaled == pytest.approx(plain, rel=1e-3)  # float32
    assert noisy > 1.1 * plain


def test_frc_says_where_it_does_not_cross() -> None:
    truth = noise(64, 64)
    for image, words in ((truth, "alike down to"), (-truth, "differ at every period"), (noise(64, 64, seed=9), "diff")):
        results = checks.check(Evidence(image, 2, truth=truth), names=["frc_resolution_px"])
        assert len(results) == 2 and all(r.value is None and words in r.meaning for r in results)
    small = checks.check(Evidence(noise(16, 64), 2, truth=noise(16, 64)), names=["frc_resolution_px"])
    assert [r.value for r in small] == [None] and "32 px" in small[0].meaning


def literal(plane: Array) -> float:
    """The finest peak of the decorrelation curves, cycles/px, with 50 masks for each of 20 high-passed copies."""
    transform, radius = windowed(plane), radii(plane.shape)  # type: ignore[arg-type]
    transform[radius > 0.5] = 0
    transform[0, 0] = 0
    grid = np.linspace(0, 0.5, 51)[1:]
    phases = np.where(np.abs(transform) > 0, transform / np.maximum(np.abs(transform), 1e-300), 0)

    def peak(passed: NDArray[np.complex128]) -> float:
        curve = []
        for r in grid:
            inside = np.where(radius <= r, phases, 0)
            top = np.sum(passed * inside.conj()).real
            curve.append(top / np.sqrt(np.sum(np.abs(passed) ** 2) * np.sum(np.abs(inside) ** 2)))
        while len(curve) > 1:
            at = int(np.argmax(curve))
            if at == 0:
                return 0.0
            if curve[at] - min(curve[at:]) >= 1e-3:
                return float(grid[at])
            curve.pop()
        return 0.0

    first = peak(transform)
    sigmas = np.geomspace(0.14, 2 / (2 * first), 20)
    return max(first, *(peak(transform * (1 - np.exp(-2 * (np.pi * s * radius) ** 2))) for s in sigmas))


@pytest.mark.parametrize("cut", [0.12, 0.25, 0.4])
def test_decorrelation_is_the_literal_one(cut: float) -> None:
    shape = (128, 150)
    steep = gaussian_filter(noise(*shape), 0.8)
    plane = limited(steep, cut) + 0.01 * noise(*shape, seed=4)
    ours = resolution.decorrelation(plane).support_px
    assert ours is not None
    assert 1 / ours == pytest.approx(literal(plane), abs=0.011)  # its radii are 0.01 cycles/px apart


@pytest.mark.parametrize("cut", [0.1, 0.2, 0.35])
@pytest.mark.parametrize("shape", [(256, 256), (180, 331)])
def test_decorrelation_finds_the_cut_off(cut: float, shape: tuple[int, int]) -> None:
    plane = limited(noise(*shape), cut) + 0.05 * noise(*shape, seed=5)
    result = found(Evidence(plane * 1e4 + 7, 2), "decorrelation_px")["all"]
    assert result.value == pytest.approx(1 / cut, rel=0.05)  # the window's width


def test_decorrelation_counts_what_was_invented_and_says_what_bicubic_has() -> None:
    low = limited(noise(128, 128), 0.4)
    smooth = bicubic(low, Operator(low.shape, 2, quantity="mean"))
    invented = smooth + 0.3 * limited(noise(256, 256, seed=1), 0.4)
    evidence = Evidence(invented, 2, low=low, quantity="mean")
    ours = found(evidence, "decorrelation_px")["all"]
    theirs = found(evidence.with_image(smooth), "decorrelation_px")["all"]
    assert ours.value == pytest.approx(2.5, rel=0.05)  # the cut-off of what was added
    assert theirs.value == pytest.approx(5, rel=0.05)  # the cut-off of the data, in fine px
    assert f"bicubic image has {theirs.value:.3g} px" in ours.meaning


def test_decorrelation_is_not_moved_by_masked_pixels() -> None:
    plane = limited(noise(200, 160), 0.2) + 0.05 * noise(200, 160, seed=5)
    mask = np.zeros(plane.shape, bool)
    mask[50:60, 70:75] = True
    clean = found(Evidence(plane, 2), "decorrelation_px")["all"].value or 0
    spoilt = Evidence(np.where(mask, np.nan, plane), 2, mask_high=mask)
    assert found(spoilt, "decorrelation_px")["all"].value == pytest.approx(clean, rel=0.02)  # 50 of 32000 px


@pytest.mark.parametrize(
    ("plane", "words"),
    [
        (noise(128, 128), "as rough as noise"),
        (np.full((64, 64), 5.0), "constant"),
        (np.full((64, 64), np.nan), "masked"),
        (noise(20, 64), "32 px"),
    ],
)
def test_decorrelation_says_what_it_cannot_measure(plane: Array, words: str) -> None:
    result = checks.check(Evidence(plane, 2), names=["decorrelation_px"])[0]
    assert result.value is None and words in result.meaning


@pytest.mark.parametrize("name", ["47tuc.fits", "celegans.tif"])
def test_real_frames_have_less_support_once_they_are_smoothed(sample_data: Path, name: str) -> None:
    plane = np.asarray(io.read(sample_data / name).pixels[0], np.float64)
    sharp = found(Evidence(plane, 2), "decorrelation_px")["all"].value or 0
    blurred = found(Evidence(gaussian_filter(plane, 2.5), 2), "decorrelation_px")["all"].value or 0
    assert 2 <= sharp < blurred
