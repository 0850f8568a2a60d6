"""MicroSSIM against a scan of all gains; LPIPS and FID with stand-ins for their libraries, and what is said without."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter

from sciresdiff import checks, io
from sciresdiff.checks import perceptual
from sciresdiff.checks.evidence import Evidence

Array = NDArray[np.float64]


def noise(*shape: int, seed: int = 0) -> Array:
    """White, of variance 1."""
    return np.asarray(np.random.default_rng(seed).normal(size=shape))


def cells(height: int = 96, width: int = 120) -> Array:
    """Blobs on a dark offset, like a camera's."""
    return np.asarray(100 + 40 * gaussian_filter(np.random.default_rng(1).exponential(size=(height, width)) ** 4, 2))


def result(evidence: Evidence, name: str) -> checks.Result:
    """The one result of a check."""
    (found,) = checks.check(evidence, names=[name])
    return found


def similarity(x: Array, y: Array, gain: float, weights: Array, span: float) -> float:
    """The mean of the published formula over all windows with these weights (n, n), every window by itself."""
    side, flat = weights.shape[0], weights.ravel() / weights.sum()
    one, other = (np.lib.stride_tricks.sliding_window_view(p, (side, side)).reshape(-1, side**2) for p in (x, y))
    mx, my = one @ flat, other @ flat
    off, out, free = one - mx[:, None], other - my[:, None], side**2 / (side**2 - 1)
    vx, vy, cxy = ((p * q) @ flat * free for p, q in ((off, off), (out, out), (off, out)))
    c1, c2, a = (0.01 * span) ** 2, (0.03 * span) ** 2, gain
    return float(np.mean((2 * a * mx * my + c1) * (2 * a * cxy + c2)
                         / ((mx**2 + a**2 * my**2 + c1) * (vx + a**2 * vy + c2))))  # fmt: skip


def scanned(truth: Array, image: Array) -> tuple[float, float]:
    """MicroSSIM and its gain, the best of 400."""
    dark, ours = np.percentile(truth, 3), np.percentile(image, 3)
    top = truth.max() - dark
    x, y = (truth - dark) / top, (image - ours) / top
    span, ramp = float(np.ptp(x)), np.exp(-(np.arange(-5, 6) ** 2) / 4.5)
    middle = x.std() / y.std()
    gains = middle * np.geomspace(0.5, 2, 400)
    best = max(gains, key=lambda a: similarity(x, y, a, np.ones((7, 7)), span))
    return similarity(x, y, best, np.outer(ramp, ramp), span), float(best)


@pytest.mark.parametrize(("gain", "offset", "blur"), [(1.0, 0.0, 0.0), (0.1, 400.0, 0.5), (6.0, -50.0, 1.5)])
def test_microssim_is_the_best_of_a_scan_over_gains(gain: float, offset: float, blur: float) -> None:
    truth = cells(48, 64)
    image = gain * gaussian_filter(truth + 3 * noise(*truth.shape), blur) + offset
    value, best = scanned(truth, image)
    found = result(Evidence(image, 2, truth=truth), "microssim")
    assert found.value == pytest.approx(value, abs=1e-4)  # the scan's step of 0.35 % near a maximum
    told = float(found.meaning.split("gain, ")[1].split(",")[0])
    assert told == pytest.approx(best, rel=0.005)  # as above


def test_microssim_is_that_of_its_own_library() -> None:
    library = pytest.importorskip("microssim", reason="the package microssim is not installed")
    truth = cells()
    image = 0.3 * gaussian_filter(truth + 5 * noise(*truth.shape), 1) + 20
    expected = library.micro_structural_similarity(truth, image)
    assert result(Evidence(image, 2, truth=truth), "microssim").value == pytest.approx(expected, abs=1e-4)  # optimisers


def test_microssim_is_one_for_the_truth_and_blind_to_gain_and_offset() -> None:
    truth = cells()
    assert result(Evidence(0.01 * truth - 3, 2, truth=truth), "microssim").value == pytest.approx(
        1, abs=1e-6
    )  # rounding
    worse = result(Evidence(truth + truth.std() * noise(*truth.shape), 2, truth=truth), "microssim").value
    assert worse is not None and worse < 0.9


def test_masked_pixels_count_for_nothing() -> None:
    truth = cells()
    image = truth + 3 * noise(*truth.shape)
    mask = np.zeros(truth.shape, bool)
    mask[20:30, 40:60] = True
    clean = result(Evidence(np.where(mask, truth, image), 2, truth=truth, mask_high=mask), "microssim")
    spoilt = result(Evidence(np.where(mask, np.nan, image), 2, truth=truth, mask_high=mask), "microssim")
    assert spoilt == clean


@pytest.mark.parametrize(
    ("high", "truth", "words"),
    [
        (np.full((40, 40), 1.0), cells(40, 40), "the image is constant"),
        (cells(40, 40), np.full((40, 40), 1.0), "the truth is constant"),
        (cells(5, 40), cells(5, 40), "11 px"),
        (np.full((40, 40), np.nan), cells(40, 40), "masked"),
    ],
)
def test_what_cannot_be_measured_says_why(high: Array, truth: Array, words: str) -> None:
    found = result(Evidence(high, 2, truth=truth), "microssim")
    assert found.value is None and words in found.meaning


def test_on_a_real_frame_a_smoother_image_is_less_alike(sample_data: Path) -> None:
    truth = np.asarray(io.read(sample_data / "celegans.tif").pixels[0], np.float64)
    values = [result(Evidence(gaussian_filter(truth, s), 2, truth=truth), "microssim").value or 0 for s in (0, 1, 3)]
    assert values[0] == pytest.approx(1, abs=1e-9) and values[0] > values[1] > values[2]  # rounding


class Lpips(torch.nn.Module):
    """Stands in for lpips.LPIPS: one convolution for a trunk, and the mean squared difference behind it."""

    def __init__(self, net: str, pnet_rand: bool, verbose: bool) -> None:
        super().__init__()
        assert net == "alex" and pnet_rand and not verbose  # anything else fetches weights, or prints
        self.net = torch.nn.Module()
        self.net.slice1 = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        assert one.shape[:2] == (1, 3) and float(one.abs().max()) <= 1
        return (self.net.slice1(one) - self.net.slice1(other)).square().mean().reshape(1, 1, 1, 1)


class Inception(torch.nn.Module):
    """Stands in for torch-fidelity's extractor: random projections of a patch."""

    def __init__(self, name: str, features_list: list[str], feature_extractor_weights_path: str) -> None:
        super().__init__()
        assert features_list == [str(perceptual.FEATURES)] and Path(feature_extractor_weights_path).is_file()

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor]:
        assert batch.dtype == torch.uint8 and batch.shape[1:] == (3, 64, 64)
        flat = batch[:, 0, ::4, ::4].reshape(len(batch), -1).float() / 255
        generator = torch.Generator().manual_seed(0)
        return (torch.tanh(flat @ torch.randn(flat.shape[1], perceptual.FEATURES, generator=generator) / 16),)


@pytest.fixture
def brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with weights, and stand-ins for both libraries."""
    torch.save({"features.0.weight": torch.randn(4, 3, 3, 3), "features.0.bias": torch.zeros(4)},
               tmp_path / perceptual.LPIPS_FILE)  # fmt: skip
    torch.save({}, tmp_path / perceptual.FID_FILE)
    monkeypatch.setenv(perceptual.LPIPS_FOLDER, str(tmp_path))
    monkeypatch.setenv(perceptual.FID_FOLDER, str(tmp_path))
    for name, inside in (
        ("lpips", {"LPIPS": Lpips}),
        ("torch_fidelity", {}),
        ("torch_fidelity.feature_extractor_inceptionv3", {"FeatureExtractorInceptionV3": Inception}),
    ):
        module: Any = types.ModuleType(name)
        vars(module).update(inside)
        monkeypatch.setitem(sys.modules, name, module)
    yield tmp_path
    perceptual._lpips_of.cache_clear()
    perceptual._inception_of.cache_clear()


@pytest.mark.parametrize("name", ["lpips", "fid"])
def test_without_weights_it_is_said_what_is_missing(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    variable = {"lpips": perceptual.LPIPS_FOLDER, "fid": perceptual.FID_FOLDER}[name]
    evidence = Evidence(cells(), 2, truth=cells())
    monkeypatch.delenv(variable, raising=False)
    unset = result(evidence, name)
    assert unset.value is None and f"set {variable}" in unset.meaning and ".pth" in unset.meaning
    monkeypatch.setenv(variable, str(tmp_path))
    absent = result(evidence, name)
    assert absent.value is None and str(tmp_path) in absent.meaning and "holds no" in absent.meaning


def test_without_the_library_it_is_said_which(brought: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    found = result(Evidence(cells(), 2, truth=cells()), "lpips")
    assert found.value is None and "package lpips" in found.meaning and "sciresdiff[perceptual]" in found.meaning


def test_weights_of_another_network_are_refused(brought: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, brought / perceptual.LPIPS_FILE)
    found = result(Evidence(cells(), 2, truth=cells()), "lpips")
    assert found.value is None and "lpips cannot be used" in found.meaning
    (brought / perceptual.LPIPS_FILE).write_bytes(b"no weights")
    perceptual._lpips_of.cache_clear()
    assert result(Evidence(cells(), 2, truth=cells()), "lpips").value is None


def test_lpips_is_zero_for_the_truth_and_the_mean_over_tiles(brought: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = cells(130, 200)
    image = truth + 5 * noise(*truth.shape)
    assert result(Evidence(truth, 2, truth=truth), "lpips").value == 0
    whole = result(Evidence(image, 2, truth=truth), "lpips")
    monkeypatch.setattr(perceptual, "TILE", 80)
    tiled = result(Evidence(image, 2, truth=truth), "lpips")
    assert "1 tiles" in whole.meaning and "6 tiles" in tiled.meaning
    assert tiled.value == pytest.approx(whole.value or 0, rel=0.05)  # the borders of a 3 px convolution


def test_tiles_cover_a_plane_once() -> None:
    seen = np.zeros((1300, 513), int)
    for tile in perceptual.split_tiles(*seen.shape):
        seen[tile.slices] += 1
        assert max(tile.shape) <= perceptual.TILE
    assert (seen == 1).all()


def test_frechet_distance_is_the_formula_with_a_matrix_root() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + 1, rng.normal(size=(400, 6)) * 2
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    apart = one.mean(0) - other.mean(0)
    expected = apart @ apart + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert perceptual.frechet(one, other) == pytest.approx(expected, rel=1e-9)  # float64 twice
    assert perceptual.frechet(one, one) == pytest.approx(0, abs=1e-9)  # rounding
    assert perceptual.frechet(one, one + 3) == pytest.approx(6 * 9, rel=1e-9)  # only the means differ


def test_fid_of_one_small_frame_is_not_computed(brought: Path) -> None:
    found = result(Evidence(cells(200, 200), 2, truth=cells(200, 200)), "fid")
    assert found.value is None and "needs 2049 patches" in found.meaning and "has 9" in found.meaning


def test_fid_leaves_masked_patches_out_and_is_zero_for_the_truth(
    brought: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perceptual, "FEWEST", 10)
    monkeypatch.setattr(perceptual, "FEATURES", 64)
    truth = cells(300, 270)
    mask = np.zeros(truth.shape, bool)
    mask[70, 70] = True
    exact = result(Evidence(truth, 2, truth=truth, mask_high=mask), "fid")
    assert exact.value == pytest.approx(0, abs=1e-2)  # roots of rounding errors
    assert "15 patches" in exact.meaning
    worse = result(Evidence(truth + truth.std() * noise(*truth.shape), 2, truth=truth), "fid")
    assert (worse.value or 0) > 0.1  # ten times what rounding leaves
