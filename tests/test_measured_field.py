"""A PSF that changes over the field, measured on the frame's own stars, or not taken where they do not show one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from sciresdiff.frame import Frame
from sciresdiff.notes import Notes
from sciresdiff.observation.measured_psf import measure_blurs
from sciresdiff.observation.sample import samples_of_frame
from sciresdiff.observation.verify_psf import refute_field
from sciresdiff.physics import psf as shapes
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.psf.moffat_fit import moffat_pixels
from sciresdiff.restoration.ops import kernel_features, psf_features

Array = NDArray[np.float64]
SIDE = 240


def frame_of_stars(
    shape: Callable[[float, float], tuple[float, float, float]], count: int = 140, seed: int = 0
) -> Frame:
    """Stars on a jittered grid, on white noise of 3; ``shape`` gives FWHM, e1 and e2 at v, u in -1 ... 1."""
    rng = np.random.default_rng(seed)
    image = np.zeros((SIDE + 30, SIDE + 30))
    m = int(np.ceil(np.sqrt(count)))
    line = np.arange(-15.0, 16)
    grid = tuple(a.ravel() for a in np.meshgrid(line, line, indexing="ij"))
    for i in range(m):
        for j in range(m):
            y, x = ((k + 0.5 + rng.uniform(-0.2, 0.2)) * SIDE / m for k in (i, j))
            fwhm, e1, e2 = shape(2 * y / SIDE - 1, 2 * x / SIDE - 1)
            iy, ix = int(y), int(x)
            p = np.array([[np.exp(rng.uniform(6, 9)), y - iy, x - ix, np.log(fwhm), 0.3, e1, e2, 0]])
            stamp = moffat_pixels(p, grid, fwhm)[0].reshape(31, 31)
            image[iy : iy + 31, ix : ix + 31] += stamp
    image = image[15:-15, 15:-15] + 100 + rng.normal(0, 3, (SIDE, SIDE))
    return Frame(image[None].astype("f4"), np.zeros((1, SIDE, SIDE), bool), "astro")


def measured(frame: Frame) -> tuple[PSF, Notes]:
    (found,), notes = measure_blurs("a.fits", frame, samples_of_frame(frame), None, 2, 2.0)
    return found, notes


def curved(v: float, u: float) -> tuple[float, float, float]:
    return 2.6 * np.exp(0.25 * u + 0.15 * v * v), 0.25 * u, 0.2 * v


def test_width_and_ellipticity_are_followed_over_the_field() -> None:
    found, notes = measured(frame_of_stars(curved))
    assert found.varies
    assert "it changes over the field" in notes.lines[0] and "polynomial of degree" in notes.lines[0]
    for y, x in ((40, 40), (240, 240), (120, 420), (440, 60)):
        fwhm, e1, e2 = curved(y / SIDE - 1, x / SIDE - 1)
        e, angle = np.hypot(e1, e2), np.rad2deg(0.5 * np.arctan2(e2, e1))
        spec = f"moffat:fwhm={fwhm}px,beta={1 / 0.3},ratio={np.exp(-e)},theta={angle}deg"
        right = shapes.kernel_from_psf(spec, pixel=None, scale=2, target_fwhm_px_fine=2.0)
        assert right is not None
        got = found.at(y, x)
        n = max(*got.shape, *right.shape) // 2
        got, right = (np.pad(k, [(n - side // 2,) * 2 for side in k.shape]) for k in (got, right))
        target = shapes.target_psf(2.0)
        off = np.abs(fftconvolve(got, target) - fftconvolve(right, target)).sum()
        mean = np.pad(found.mean, [(n - side // 2,) * 2 for side in found.mean.shape])
        one = np.abs(fftconvolve(mean, target) - fftconvolve(right, target)).sum()
        assert off < 0.06  # from 15 stars a term; width and ellipticity are then known to 2 %
        assert off < 0.5 * one or (y, x) == (240, 240)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_stars_of_one_psf_make_one_psf(seed: int) -> None:
    found, _ = measured(frame_of_stars(lambda v, u: (2.6, 0.1, -0.05), seed=seed))
    assert not found.varies


def test_few_stars_make_one_psf_whose_error_holds_the_change() -> None:
    few, notes = measured(frame_of_stars(lambda v, u: (2.6 * np.exp(0.12 * u), 0.0, 0.0), count=36))
    steady, _ = measured(frame_of_stars(lambda v, u: (2.6, 0.0, 0.0), count=36))
    assert not few.varies and any("one PSF for all is taken" in line for line in notes)
    assert few.width_error is not None and steady.width_error is not None
    assert few.width_error > 2 * steady.width_error


def test_a_stated_field_is_held_against_the_stars_of_each_place() -> None:
    frame = frame_of_stars(curved)
    right, _ = measured(frame)
    sample = samples_of_frame(frame)(0)
    assert refute_field(sample, right, 2, 2.0) is None
    wide = refute_field(sample, right.rescale(1.4), 2, 2.0)
    assert wide is not None and "too wide" in wide.numbers


def test_networks_are_told_of_the_local_psf() -> None:
    from sciresdiff.region import Region

    found, _ = measured(frame_of_stars(curved))
    maps = psf_features(found, 2)
    assert maps.shape == (4, SIDE, SIDE)
    here = kernel_features(found.at(2 * 96 + 0.5, 2 * 160 + 0.5), 2)
    np.testing.assert_allclose(maps[:, 96, 160], here, atol=0.02)  # linear between places 64 px apart
    inside = Region(100, 300, 60, 480)
    np.testing.assert_array_equal(psf_features(found.window(inside), 2), maps[:, 50:150, 30:240])
    assert psf_features(PSF.constant(found.mean), 2).shape == (4,)
