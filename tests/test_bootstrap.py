"""Errors of the physics alone: what a bootstrap of the restoration says of them, and whether it holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, uniform_filter

from sciresdiff.observation.observation import Observation
from sciresdiff.physics.consistency import Data
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.psf.field import PSF, SmoothMaps
from sciresdiff.physics.psf.shapes import FWHM_PER_SIGMA
from sciresdiff.restoration.bootstrap import Bootstrap, student_factor, undone, with_opposites
from sciresdiff.restoration.fallback import physics_estimate
from sciresdiff.restoration.restore import restore
from sciresdiff.restoration.settings import Settings

Array = NDArray[np.float64]

SIDE = 64
"""Of the frames, px; x2."""
SCENES = ("stars", "crowd", "galaxies")


def white(seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(1, 1, 64, 64)))


@pytest.mark.parametrize("s", [0.2, 0.5, 0.9])
def test_what_a_shrinking_restoration_leaves_undone_is_found_from_its_own_estimate(s: float) -> None:
    t = white(0)
    found = undone((1 - s) * s * t, (1 - s) * s**2 * t, torch.zeros_like(t))
    torch.testing.assert_close(found, (1 - s) * t)


def test_of_several_shrinkages_no_more_is_found_than_there_is() -> None:
    parts = [(0.2, white(1)), (0.6, white(2)), (0.95, white(3))]
    loss = [sum((1 - s) * s**k * t for s, t in parts) for k in range(3)]
    power = [float(v.square().mean()) for v in loss]  # type: ignore[union-attr]
    found = undone(loss[1], loss[2], torch.zeros_like(white(1)))  # type: ignore[arg-type]
    # between what R takes off its estimate and all that is missing; the powers around a pixel scatter by sqrt(2 / 49)
    assert power[1] < float(found.square().mean()) < 1.2 * power[0]


def test_what_noise_alone_explains_is_no_structure() -> None:
    one, other = white(4), white(5)
    # a share max(0, 1 - N / P) of two scattering powers of the same size is 0.1 in the mean, and 1 without the noise
    assert float(undone(one, 0.3 * one, other).square().mean()) < 0.2 / 0.3**2
    assert float(undone(one, 0.3 * one, 0 * other).square().mean()) == pytest.approx(1 / 0.3**2, rel=0.1)


def test_a_bootstrap_of_a_linear_restoration_has_its_noise() -> None:
    data = Data(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 8, 8), torch.ones(1, 1, 8, 8), Operator((8, 8), 1))
    bootstrap = Bootstrap(data, 0.5 * data.y, lambda made: 0.5 * made.y)
    noise = torch.randn(1, 1, 8, 8)
    torch.testing.assert_close(bootstrap.noise_error(noise), 0.5 * noise)


def test_deviations_come_with_their_opposites() -> None:
    ones = [torch.ones(1), 2 * torch.ones(1)]
    assert [float(v) for v in with_opposites(ones, 3)] == [1, -1, 2]
    assert list(with_opposites(ones, 0)) == []
    assert student_factor(2) == 1 and student_factor(8) == pytest.approx(1.1416, abs=1e-3)


def scene(kind: str, rng: np.random.Generator) -> Array:
    n = 2 * SIDE
    t = np.zeros((n, n))
    if kind == "galaxies":
        for _ in range(6):
            y, x = rng.integers(16, n - 16, 2)
            t[y, x] = 10 ** rng.uniform(3.5, 4.5)
        return gaussian_filter(gaussian_filter(t, 3) + gaussian_filter(t, 6), 1)
    for _ in range(20 if kind == "stars" else 120):
        y, x = rng.integers(8, n - 8, 2)
        t[y, x] += 10 ** (rng.uniform(2.5, 4) if kind == "stars" else 2 + rng.exponential(0.5))
    return gaussian_filter(t, 2 / FWHM_PER_SIGMA)


def frame(kind: str, seed: int, sigmas: tuple[float, ...] = (1.0, 2.0)) -> tuple[Observation, Array]:
    """A scene with photon noise and a sky of 50, under a PSF that is as wide as the second on the right."""
    rng, n = np.random.default_rng(seed), 2 * SIDE
    truth = scene(kind, rng)
    point = np.zeros((21, 21))
    point[10, 10] = 1
    kernels = np.stack([gaussian_filter(point, sigma) for sigma in sigmas])
    weights = SmoothMaps.of_function(lambda y, x: np.stack([1 - x / n, x / n]), (n, n), 8)
    psf = PSF(kernels, weights) if len(sigmas) > 1 else PSF.constant(kernels[0])
    seen = Operator((SIDE, SIDE), 2, psf, dtype=torch.float64).apply(torch.from_numpy(truth)).numpy()
    variance = np.clip(seen, 0, None) + 50
    pixels = seen + np.sqrt(variance) * rng.normal(size=seen.shape)
    observation = Observation.of_arrays(pixels.astype(np.float32), variance.astype(np.float32), scale=2, psf=psf)
    return observation, truth


@pytest.mark.parametrize("sigmas", [(1.0, 2.0), (0.0,), (1.2,)])
@pytest.mark.parametrize("kind", SCENES)
def test_errors_hold_in_pixels_and_in_sums(kind: str, sigmas: tuple[float, ...]) -> None:
    inner, cases = (slice(8, -8), slice(8, -8)), {1: [], 3: [], 7: []}  # type: ignore[var-annotated]
    for seed in range(2):
        observation, truth = frame(kind, seed, sigmas)
        found = restore(observation, None, Settings(keep_draws=True))
        assert found.draws is not None
        off, draws = found.mean - truth, found.draws - found.mean
        np.testing.assert_allclose(np.sqrt((draws**2).mean(0)), found.err, rtol=0.05, atol=1e-3 * found.err.max())
        for side, held in cases.items():
            scatter = np.sqrt(np.mean([uniform_filter(d, side) ** 2 for d in draws], 0))
            held.append((np.abs(uniform_filter(off, side)) <= scatter)[inner])
    # 0.683 is right. Two frames have about 1000 independent pixels, 1.5 %, and 500 sums of 7 x 7, 2 %;
    # the rest is what sizes of structure that are not known take away or give: smooth galaxies have less than is
    # allowed for, and where there is no blur of a crowd's light within a pixel nothing is known
    for held in cases.values():
        assert (0.55 if sigmas == (0.0,) else 0.6) < np.mean(held) < 0.82


def test_the_image_is_the_estimate_whatever_is_drawn() -> None:
    observation, _ = frame("stars", 3)
    drawn, none = restore(observation, None, Settings(samples=4)), restore(observation, None, Settings(samples=0))
    # its flux is closed once more where samples are drawn
    assert (np.abs(drawn.mean - none.mean) < 0.05 * drawn.err + 1e-3).mean() > 0.999


def test_what_no_pixel_sees_has_the_scatter_of_what_is_known_without_data() -> None:
    whole, _ = frame("stars", 4)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[16:40, 30:54] = True
    one = whole.exposure
    holed = Observation.of_arrays(one.pixels, one.pixel_variance, scale=2, psf=one.psf, mask=mask)
    w = holed.units.spread(physics_estimate(holed.data()).w)
    middle = (slice(50, 62), slice(78, 90))  # beyond the reach of the PSF
    err = restore(holed, None, Settings(samples=8)).err[middle]
    assert np.mean(err**2) > 0.8 * np.mean(w[middle] ** 2)  # 144 px of four draws: 6 %
