"""The place of an exposure on another one comes back as it was planted, with its error, or is refused."""

from __future__ import annotations

import numpy as np
import pytest
from dithers import Sky, Taken, expose, make_sky
from numpy.typing import NDArray

from sciresdiff.errors import UnmeasuredError
from sciresdiff.observation.alignment import Alignment, hold_wcs, measure_alignment, middle_on_middle, refuse_alignment
from sciresdiff.physics.affine import Affine, fit_map
from sciresdiff.physics.psf.point_sources import prepare_field
from sciresdiff.physics.registration import find_whole_shift

SIDE = 128
PLACES = np.array([(y, x) for y in (0, 63.5, 127) for x in (0, 63.5, 127)], float)


def align(one: Taken, other: Taken, scale: float = 1.0) -> Alignment:
    fields = [prepare_field(taken.pixels, None, taken.variance) for taken in (one, other)]
    widths = tuple(2.4 * taken.sigma for taken in (one, other))
    maps = middle_on_middle(one.pixels.shape, other.pixels.shape, scale)
    return measure_alignment(fields[0], fields[1], (widths[0], widths[1]), *maps)


def off(found: Alignment, other: Taken, scale: float = 1.0) -> NDArray[np.float64]:
    """Distances of the measured places from the true ones, in stated errors."""
    to_reference, _ = middle_on_middle((SIDE, SIDE), other.pixels.shape, scale)
    said = to_reference(PLACES)
    return np.hypot(*(found.map(said) - other.to_reference(PLACES)).T) / found.map.error(said)


@pytest.mark.parametrize(("shift", "degrees"), [((0.3, -0.4), 0.0), ((-2.7, 4.2), 0.5), ((11.4, -7.3), 3.0)])
@pytest.mark.parametrize("sigma", [0.6, 1.3])
def test_shift_and_rotation_come_back_within_their_errors(
    shift: tuple[float, float], degrees: float, sigma: float
) -> None:
    rng = np.random.default_rng(5)
    sky = make_sky(rng, SIDE, stars=80)
    one = expose(sky, rng, SIDE, sigma=sigma, hits=0.0008)
    other = expose(sky, rng, SIDE, sigma=1.2 * sigma, shift=shift, degrees=degrees, time=0.6, hits=0.0008)
    found = align(one, other)
    assert found.method == "sources"
    assert found.move_error < 0.03  # px: 30 or more sources of S/N above 12
    assert off(found, other).max() < 4  # of nine places, in two axes; chance has 3.3 in one of a hundred


def test_pixels_of_another_size_are_matched() -> None:
    rng = np.random.default_rng(7)
    sky = make_sky(rng, SIDE, stars=80)
    one = expose(sky, rng, SIDE, sigma=1.0)
    other = expose(sky, rng, SIDE, sigma=0.8, scale=1.25, shift=(1.3, 0.2), degrees=0.4)
    assert off(align(one, other, 1.25), other, 1.25).max() < 4  # as above


def test_extended_scenes_without_stars_are_correlated() -> None:
    rng = np.random.default_rng(11)
    sky = make_sky(rng, SIDE, stars=0, galaxies=30)
    sky = Sky(sky.places, 5 * sky.flux, sky.size + 2)
    one, other = expose(sky, rng, SIDE), expose(sky, rng, SIDE, shift=(3.4, -2.1), degrees=0.2, time=1.4)
    found = align(one, other)
    assert found.method == "image"
    assert found.move_error < 0.1  # px
    assert off(found, other).max() < 5  # the jackknife's own error is a quarter


def test_errors_are_what_places_scatter_by() -> None:
    pulls = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        sky = make_sky(rng, SIDE, stars=50)
        one, other = (
            expose(sky, rng, SIDE, sigma=1.0),
            expose(sky, rng, SIDE, sigma=0.9, shift=tuple(rng.uniform(-2, 2, 2))),
        )
        found = align(one, other)
        pulls.append((found.move - other.shift) / found.move_error)
    assert 0.4 < np.sqrt(np.mean(np.square(pulls))) < 1.7  # 16 values: 1 +- 0.18, and the error rounds up


@pytest.mark.parametrize("kind", ["grid", "noise", "other field"])
def test_what_is_ambiguous_or_has_nothing_in_common_is_refused(kind: str) -> None:
    rng = np.random.default_rng(3)
    sky = make_sky(rng, SIDE, stars=60)
    one = two = sky
    if kind == "grid":
        y, x = np.mgrid[-6:140:11, -6:140:11]
        one = two = Sky(np.c_[y.ravel(), x.ravel()].astype(float), np.full(y.size, 3e3), np.zeros(y.size))
    elif kind == "noise":
        one = two = Sky(np.zeros((0, 2)), np.zeros(0), np.zeros(0))
    else:
        two = make_sky(np.random.default_rng(99), SIDE, stars=60)
    with pytest.raises(UnmeasuredError) as error:
        align(expose(one, rng, SIDE), expose(two, rng, SIDE, shift=(2.0, 1.0)))
    line = str(refuse_alignment("b.fits", error.value))
    assert line.startswith("--align measure: b.fits: ")
    assert "\n" not in line


def test_a_periodic_image_has_no_single_shift() -> None:
    y, x = np.indices((96, 96))
    image = np.sin(2 * np.pi * y / 8) * np.sin(2 * np.pi * x / 8)
    good = np.ones(image.shape, bool)
    with pytest.raises(UnmeasuredError, match="repeats itself"):
        find_whole_shift(image, np.roll(image, 2, 0), good, good)


def test_whole_shifts_are_found_behind_a_mask() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(80, 90))
    good = rng.random(one.shape) > 0.3
    other = np.where(good[7:70, 3:80], one[7:70, 3:80], 1e6)
    found = find_whole_shift(one, other, np.ones(one.shape, bool), good[7:70, 3:80])
    assert (found.y, found.x) == (-7, -3)
    assert found.correlation == pytest.approx(1, abs=1e-6)  # rounding of the Fourier transforms


@pytest.mark.parametrize(("shift", "warned"), [((0.0, 0.0), False), ((0.02, -0.03), False), ((0.5, -0.3), True)])
def test_a_wcs_that_is_off_is_warned_of(shift: tuple[float, float], warned: bool) -> None:
    rng = np.random.default_rng(2)
    sky = make_sky(rng, SIDE, stars=80)
    found = align(expose(sky, rng, SIDE, sigma=1.0), expose(sky, rng, SIDE, sigma=1.0, shift=shift))
    lines = hold_wcs("b.fits", found).warnings
    assert bool(lines) == warned
    if warned:
        assert "--align measure" in lines[0]
        assert "0.5" in lines[0]


@pytest.mark.parametrize("kind", ["shift", "similarity", "affine"])
def test_the_covariance_of_a_fitted_map_is_that_of_its_numbers(kind: str) -> None:
    rng = np.random.default_rng(4)
    here, errors, middle = rng.uniform(0, 100, (30, 2)), rng.uniform(0.01, 0.05, 30), np.array([50.0, 50.0])
    places = np.array([(0.0, 0.0), (80.0, 20.0)])
    moved = []
    for _ in range(300):
        there = here + errors[:, None] * rng.normal(size=here.shape)
        found, _ = fit_map(here, there, errors, kind, middle)
        moved.append(found(places) - places)
    scatter = np.std(moved, axis=0).max(1)
    assert found.error(places) == pytest.approx(scatter, rel=0.2)  # 300 draws of two axes, and the larger counts


def test_the_inverse_of_a_map_takes_places_back() -> None:
    one = Affine(np.array([[1.01, 0.2], [-0.1, 0.97]]), np.array([3.0, -2.0]), np.array([40.0, 30.0]))
    assert one.inverse(one(PLACES)) == pytest.approx(PLACES, abs=1e-12)  # rounding
