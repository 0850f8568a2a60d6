"""A frame whose PSF changes over the field, restored by the physics: its stop, what it leaves, parts as the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sciresdiff.observation.observation import Observation
from sciresdiff.observation.sample import Sample, Window, samples_of_source
from sciresdiff.observation.statistics import measure_statistics, windows_with_places
from sciresdiff.physics.field_blur import ERROR
from sciresdiff.physics.held_out import SIDE, local_windows, predicting_iterations, regions_of_windows, unit_noise
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.psf.field import PSF, SmoothMaps
from sciresdiff.physics.psf.shapes import FWHM_PER_SIGMA
from sciresdiff.physics.richardson_lucy import richardson_lucy_until_chi2_one
from sciresdiff.region import Region
from sciresdiff.restoration import fallback
from sciresdiff.restoration.fallback import CHI2_LIMIT, local_chi2, physics_estimate, predicting_estimate
from sciresdiff.restoration.restore import restore
from sciresdiff.restoration.settings import Settings
from sciresdiff.tiling import Tile

Array = NDArray[np.float64]

SIGMAS = 1.0, 2.0
"""Of the kernel on the left and on the right, output px."""


def field(size: tuple[int, int]) -> PSF:
    """A Gaussian on the left that becomes a wider one to the right."""
    point = np.zeros((21, 21))
    point[10, 10] = 1
    kernels = np.stack([gaussian_filter(point, sigma) for sigma in SIGMAS])
    return PSF(kernels, SmoothMaps.of_function(lambda y, x: np.stack([1 - x / size[1], x / size[1]]), size, 8))


def stars(side: int, flux: float, seed: int = 0) -> tuple[Observation, Array]:
    """Stars of FWHM 2 px on a grid, and what is seen of them with a noise of 1."""
    rng, n = np.random.default_rng(seed), 2 * side
    truth = np.zeros((n, n))
    at = np.arange(12, n - 8, 24)
    for y in at:
        for x in at:
            truth[y + rng.integers(-3, 4), x + rng.integers(-3, 4)] = flux
    truth = gaussian_filter(truth, 2 / FWHM_PER_SIGMA)
    psf = field((n, n))
    seen = Operator((side, side), 2, psf, dtype=torch.float64).apply(torch.from_numpy(truth))
    pixels = (seen.numpy() + rng.normal(size=(side, side))).astype(np.float32)
    return Observation.of_arrays(pixels, np.ones((side, side), np.float32), scale=2, psf=psf), truth


@pytest.mark.parametrize("flux", [300.0, 3000.0])
def test_the_data_are_reproduced_within_their_noise(flux: float) -> None:
    data = stars(64, flux)[0].data()
    found = physics_estimate(data).x
    assert float(data.chi2(found)) < 1.1
    assert float(local_chi2(data, found).max()) < 2 * CHI2_LIMIT  # every star is, too


def test_an_uncertain_width_ends_it_less_early_than_chi2_would() -> None:
    observation, truth = stars(64, 3000.0)
    data, units = observation.data(), observation.units
    doubtful = replace(data, noise=data.noise + (0.03 * data.y).square())
    bright = truth > truth.max() / 50
    starts = predicting_estimate(doubtful)[0], richardson_lucy_until_chi2_one(doubtful)[0]
    off, early = (float(np.std((units.image(x) - truth)[bright])) for x in starts)
    assert off < 0.9 * early


def test_a_plane_in_parts_takes_the_iterations_of_the_whole() -> None:
    observation, _ = stars(96, 3000.0)
    data = observation.data()
    whole = predicting_iterations([(part, unit_noise(part)) for part in local_windows(data)])
    exposure = observation.exposure
    (found,) = measure_statistics(exposure, 2, samples_of_source(exposure.image), 2048)
    assert found.predicting == whole
    assert 1 < found.iterations < whole


def test_parts_agree_with_the_whole() -> None:
    observation, _ = stars(128, 3000.0)
    exposure = observation.exposure
    statistics = measure_statistics(exposure, 2, samples_of_source(exposure.image), 2048)
    known = replace(observation, exposures=[replace(exposure, statistics=statistics)])
    every, core = Region(0, 128, 0, 128), Region(0, 128, 0, 48)
    whole, part = (
        physics_estimate(known.window(0, tile).data()).x[0, 0, :, :96]
        for tile in (Tile(every, every), Tile(core, Region(0, 128, 0, 112)))
    )
    assert float((whole - part).abs().max()) < 2 * ERROR * float(
        whole.max()
    )  # each has principal components of its own


def test_large_frames_are_looked_at_in_windows_with_the_psf_of_their_place() -> None:
    assert regions_of_windows((512, 512), 2) == [Region(0, 512, 0, 512)]
    regions = regions_of_windows((1500, 3000), 2)
    assert len(regions) == 4
    assert all(region.shape == (SIDE // 2, SIDE // 2) for region in regions)
    assert all(r.y0 >= 0 and r.y1 <= 1500 and r.x0 >= 0 and r.x1 <= 3000 for r in regions)
    frame = stars(64, 300.0)[0].exposure.image.frame
    places = [(y, x) for y in (100, 900) for x in (200, 4000)]
    at = [(slice(r, r + 512), slice(c, c + 512)) for r in (0, 512) for c in (0, 512)]
    windows = [Window(Region(y, y + 512, x, x + 512), one) for (y, x), one in zip(places, at, strict=True)]
    mosaic = Sample(frame, tuple(windows))
    for (here, place), (y, x), i in zip(windows_with_places(mosaic, 2), places, range(4), strict=True):
        assert (place.y0 - y, place.x0 - x) == (here.y0 - 512 * (i // 2), here.x0 - 512 * (i % 2))
        assert place.shape == here.shape == (SIDE // 2, SIDE // 2)


@pytest.mark.parametrize("varies", [True, False])
def test_the_iterations_of_a_whole_frame_are_found_once(monkeypatch: pytest.MonkeyPatch, varies: bool) -> None:
    """Its samples take as many as its estimate did."""
    observation, _ = stars(40, 3000.0)
    if not varies:
        one = replace(observation.exposure, psf=PSF.constant(field((80, 80)).kernels[0]))
        observation = replace(observation, exposures=[one])
    searched: list[str] = []

    def watch(name: str, asks: Callable[..., bool]) -> None:
        real = getattr(fallback, name)

        def watched(*args: Any) -> Any:
            if asks(*args):
                searched.append(name)
            return real(*args)

        monkeypatch.setattr(fallback, name, watched)

    watch("predicting_iterations", lambda *args: True)
    watch("richardson_lucy_until_chi2_one", lambda data, iterations=None: iterations is None)
    restore(observation, None, Settings(samples=2))
    assert searched == ["predicting_iterations" if varies else "richardson_lucy_until_chi2_one"]
