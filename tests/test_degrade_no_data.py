"""What stands for no data in a sharp image is not blurred into its surroundings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

import sciresdiff
from sciresdiff.jobs.degrade import job as degrade
from sciresdiff.jobs.degrade.options import DegradeOptions

SIDE = 96


def sky() -> np.ndarray:
    """Stars of up to 10^5 and one of a single pixel, on a sky of 50."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:SIDE, :SIDE]
    pixels = 50 + rng.normal(0, 2, (SIDE, SIDE))
    for cy, cx, peak in [*zip(*rng.uniform(20, SIDE - 9, (2, 9)), 10 ** rng.uniform(2, 5, 9), strict=True)]:
        pixels += peak * np.exp(-0.5 * ((y - cy) ** 2 + (x - cx) ** 2))
    pixels[80, 30] += 500
    return pixels.astype(np.float32)


@pytest.mark.parametrize(
    ("value", "where", "name"),
    [
        (-9999, (slice(40, 41), slice(50, 53)), "sentinels"),
        (0, (slice(None), slice(0, 5)), "padding"),
        (1e30, (slice(40, 41), slice(50, 52)), "absurd"),
    ],
)
def test_values_that_stand_for_no_data(tmp_path: Path, value: float, where: tuple[slice, slice], name: str) -> None:
    pixels = sky()
    pixels[where] = value
    fits.writeto(tmp_path / "sharp.fits", pixels)
    options = {"scale": 2, "kernel": "gaussian:sigma=1px", "gain": 1.0, "read_noise": 2.0}
    record = degrade.run(tmp_path / "sharp.fits", tmp_path / "low.fits", DegradeOptions(**options))
    low = sciresdiff.read(tmp_path / "low.fits")
    bad = np.zeros(pixels.shape, bool)
    bad[where] = True
    bad = bad.reshape(SIDE // 2, 2, SIDE // 2, 2).any((1, 3))
    assert (low.mask[0] == bad).all()
    assert 100 < low.pixels[0][~bad].min() < 300, "the sky is 200"
    assert any(line.startswith(f"{name}: ") for line in record["said"])
    kept = degrade.run(tmp_path / "sharp.fits", tmp_path / "k.fits", DegradeOptions(**options, **{name: False}))
    assert not any(line.startswith(f"{name}: ") for line in kept["said"])


def test_a_sharp_image_keeps_its_peaks(tmp_path: Path) -> None:
    fits.writeto(tmp_path / "sharp.fits", sky())
    degrade.run(tmp_path / "sharp.fits", tmp_path / "low.fits", DegradeOptions(scale=2, gain=1.0, read_noise=2.0))
    assert not sciresdiff.read(tmp_path / "low.fits").mask.any()
