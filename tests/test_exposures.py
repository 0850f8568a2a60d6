"""Fluxes of exposures, what contradicts the others in one of them, and what changed between them."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
from dithers import Sky, Taken, dither, expose, make_sky
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from sciresdiff.errors import InputError, UnmeasuredError
from sciresdiff.frame import Frame
from sciresdiff.io.quality_bits import OUTLIER
from sciresdiff.io.source import Source, in_memory
from sciresdiff.observation.exposure import Exposure
from sciresdiff.observation.exposure_outliers import Shown, describe_outliers, find_outliers
from sciresdiff.observation.field_change import describe_changes, find_changes, warn_contradiction
from sciresdiff.observation.flux_scale import (
    MeasuredScale,
    choose_scale,
    measure_scale,
    refuse_units,
    stated_ratio,
    stated_scales,
)
from sciresdiff.observation.outlier_mask import Calibration, mask_pixels, show_exposure, survey_outliers
from sciresdiff.physics.interpolation import resample_cubic
from sciresdiff.physics.sky import estimate_sky
from sciresdiff.region import Region

SIDE = 96
ALL = Region(0, SIDE, 0, SIDE)


def shown(taken: Sequence[Taken]) -> list[Shown]:
    """Exposures as they are held to each other: sky and time are known."""
    return [
        Shown.of_arrays(
            one.pixels, one.variance, np.zeros(one.pixels.shape, bool), (one.to_reference, one.from_reference),
            float(np.hypot(2.3548 * one.sigma, 0.8)), 15 * one.time, one.time,
        )
        for one in taken
    ]  # fmt: skip


@pytest.mark.parametrize("count", [3, 5])
def test_cosmic_rays_are_found_and_stars_are_kept(count: int) -> None:
    hit = missed = every = taken_wrongly = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        taken = dither(make_sky(rng, SIDE), rng, SIDE, count, hits=0.0008)
        exposures = shown(taken)
        for k, one in enumerate(taken):
            found = find_outliers(exposures, k, ALL)[4:-4, 4:-4]  # at the border there may be no other exposure
            rays = one.cosmic[4:-4, 4:-4]
            # not on or beside a star of S/N 10 and more: there a hit may be less than what the PSFs allow
            plain = rays & (maximum_filter(one.clean, 5)[4:-4, 4:-4] < 60)
            hit, missed = hit + plain.sum(), missed + (plain & ~found).sum()
            every, taken_wrongly = every + rays.sum(), taken_wrongly + (found & ~rays).sum()
    assert hit > 50
    assert missed == 0
    assert taken_wrongly < 0.05 * every  # what lies beside a hit


@pytest.mark.parametrize("count", [3, 4])
def test_clean_exposures_are_left_alone(count: int) -> None:
    wrong = looked = 0
    for seed in range(4):
        rng = np.random.default_rng(100 + seed)
        exposures = shown(dither(make_sky(rng, SIDE, stars=150), rng, SIDE, count))
        for k in range(count):
            wrong, looked = wrong + int(find_outliers(exposures, k, ALL).sum()), looked + SIDE * SIDE
    assert wrong < 1e-4 * looked + 3  # of a Poisson count


@pytest.mark.parametrize("value", [0.0, 5e4])
def test_bad_columns_and_pixels_are_found(value: float) -> None:
    rng = np.random.default_rng(8)
    taken = dither(replace(make_sky(rng, SIDE, stars=20), level=100.0), rng, SIDE, 4)
    taken[1].pixels[:, 40] = value
    taken[2].pixels[10::20, 10::20] = value
    exposures = [replace_sky(one, 100 * one.time) for one in taken]
    column = find_outliers(exposures, 1, ALL)[5:-5, 40]
    assert column.mean() > 0.95  # dark pixels on the flank of a star may be left
    assert find_outliers(exposures, 2, ALL)[10:-5:20, 10:-5:20].mean() > 0.9  # likewise


def replace_sky(one: Taken, sky: float) -> Shown:
    bad = np.zeros(one.pixels.shape, bool)
    maps = one.to_reference, one.from_reference
    return Shown.of_arrays(one.pixels, one.variance, bad, maps, 2.3548 * one.sigma + 0.3, sky, one.time)


def test_windows_find_what_the_whole_frame_does() -> None:
    rng = np.random.default_rng(4)
    exposures = shown(dither(make_sky(rng, SIDE), rng, SIDE, 4, hits=0.002))
    for k in range(4):
        parts = [[find_outliers(exposures, k, Region(a, b, c, d)) for c, d in ((0, 37), (37, 96))]
                 for a, b in ((0, 29), (29, 60), (60, 96))]  # fmt: skip
        assert np.array_equal(np.block(parts), find_outliers(exposures, k, ALL))


def test_a_sharp_exposure_keeps_its_stars_beside_blurred_ones() -> None:
    rng = np.random.default_rng(6)
    sky = make_sky(rng, SIDE)
    taken = [
        expose(sky, rng, SIDE, sigma=0.7),
        *(expose(sky, rng, SIDE, sigma=1.6, shift=(0.3 * k, 0.2)) for k in range(3)),
    ]
    assert find_outliers(shown(taken), 0, ALL).sum() <= 3  # of 9,216 pixels


def test_one_line_tells_what_was_masked() -> None:
    assert not describe_outliers("a.fits", 0, 0, OUTLIER.bit, 3)
    (line,) = describe_outliers("a.fits", 1, 1, OUTLIER.bit, 3)
    assert line.startswith(
        "cosmic rays: a.fits: 1 pixel in 1 place that contradicts 3 other exposures masked (DQ 16777216)"
    )
    (line,) = describe_outliers("a.fits", 7, 3, OUTLIER.bit, 1)
    assert "7 pixels in 3 places that contradict the other exposure masked" in line
    assert line.endswith("--no-cosmic keeps them")


@pytest.mark.parametrize("what", ["variable", "moving"])
def test_sources_that_changed_are_told_with_their_places(what: str) -> None:
    rng = np.random.default_rng(9)
    sky = make_sky(rng, SIDE, stars=15, galaxies=0)
    star = np.array([[40.3, 52.8]])
    before = Sky(np.r_[sky.places, star], np.r_[sky.flux, 2e4], np.r_[sky.size, 0.0])
    fainter = replace(before, flux=np.r_[sky.flux, 8e3])
    moved = replace(before, places=np.r_[sky.places, star + 6])
    taken = dither(before, rng, SIDE, 3)
    taken.append(expose(fainter if what == "variable" else moved, rng, SIDE, shift=(0.3, -0.2)))
    exposures = shown(taken)
    found = find_changes(exposures, 3, ALL)
    nearest = min(np.hypot(one.y - 40.3, one.x - 52.8) for one in found)
    assert nearest < 0.8  # px: the place is that of a pixel
    assert len(found) == (1 if what == "variable" else 2)
    (line,) = describe_changes("d.fits", found).warnings
    assert "moving or variable" in line
    assert not find_changes(exposures, 0, ALL)


def test_cosmic_rays_are_no_changes_of_the_field() -> None:
    count = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        exposures = shown(dither(make_sky(rng, SIDE), rng, SIDE, 4, hits=0.0008))
        count += sum(len(find_changes(exposures, k, ALL)) for k in range(4))
    assert count <= 6  # of about 84 hits; two pixels side by side may look like a star of FWHM 1.6 px


def test_an_exposure_of_another_field_is_warned_of() -> None:
    assert not warn_contradiction("a.fits", 100, SIDE * SIDE)
    assert "--align measure" in warn_contradiction("a.fits", 1000, SIDE * SIDE).warnings[0]


@pytest.mark.parametrize("sigma", [0.6, 1.2])
def test_the_ratio_of_fluxes_comes_back(sigma: float) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        sky = make_sky(rng, SIDE)
        one = expose(sky, rng, SIDE, sigma=sigma, hits=0.0008)
        other = expose(sky, rng, SIDE, sigma=1.2 * sigma, shift=(0.4, -0.3), degrees=0.3, time=0.63, hits=0.0008)
        found = measure(one, other)
        # errors beyond the stated one are those of interpolating stars of FWHM 1.6 px
        assert abs(np.log(found.factor / 0.63)) < 3 * found.error
        assert found.error < 0.03


def measure(one: Taken, other: Taken) -> MeasuredScale:
    grid = other.from_reference(np.moveaxis(np.indices((SIDE, SIDE)).astype(float), 0, -1))
    bad = np.zeros((SIDE, SIDE), bool)
    skies = [estimate_sky(taken.pixels)[0] for taken in (one, other)]
    laid = resample_cubic(other.pixels - skies[1], other.variance, bad, np.moveaxis(grid, -1, 0))
    widths = [float(np.hypot(2.3548 * taken.sigma, 0.8)) for taken in (one, other)]
    return measure_scale(
        (one.pixels - skies[0], one.variance, ~bad), (laid.values, laid.variance, laid.valid), (widths[0], widths[1])
    )


def test_empty_exposures_tell_no_ratio() -> None:
    rng = np.random.default_rng(1)
    empty = Sky(np.zeros((0, 2)), np.zeros(0), np.zeros(0))
    with pytest.raises(UnmeasuredError, match="show light"):
        measure(expose(empty, rng, SIDE), expose(empty, rng, SIDE))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (("electron", {"exposure": 100.0}), ("electron", {"exposure": 150.0}), (1.5,)),
        ((None, {"exposure": 100.0}), (None, {"exposure": 50.0}), (0.5,)),
        (("adu", {"exposure": 100.0, "gain": 2.0}), ("adu", {"exposure": 100.0, "gain": 4.0}), (0.5,)),
        (("electron/s", {"exposure": 100.0}), ("electron/s", {"exposure": 900.0}), (1.0,)),
        (("MJy/sr", {}), ("kJy/sr", {}), (1000.0,)),
        (
            ("adu", {"exposure": 10.0, "zero_point": 25.0}),
            ("adu", {"exposure": 20.0, "zero_point": 27.5}),
            (10.0, 20.0),
        ),
        (("electron/s", {"flux_density": 1e-19}), ("electron/s", {"flux_density": 2e-19}), (0.5,)),
        (("DN/s", {"flux_density": 0.2}), ("DN", {"flux_density": 0.2, "exposure": 30.0}), (30.0,)),
    ],
)
def test_headers_state_the_ratio(
    one: tuple[str | None, dict[str, float]], other: tuple[str | None, dict[str, float]], expected: tuple[float, ...]
) -> None:
    found = stated_ratio(stated_scales(*one), stated_scales(*other))
    assert found is not None
    assert found[0] == pytest.approx(expected)


def test_counts_and_intensities_are_not_mixed() -> None:
    with pytest.raises(InputError, match=r"b\.fits: BUNIT is MJy/sr, and that of a\.fits is adu"):
        refuse_units(("a.fits", "b.fits"), ("adu", "MJy/sr"))
    refuse_units(("a.fits", "b.fits"), ("adu", "electron"))
    refuse_units(("a.fits", "b.fits"), (None, "MJy/sr"))


def test_headers_and_what_is_measured_are_held_to_each_other() -> None:
    both = ((1.5,), "exposure time 150 s against exposure time 100 s")
    assert choose_scale("b.fits", both, None)[0] == 1.5
    assert choose_scale("b.fits", both, MeasuredScale(1.52, 0.01, 900))[0] == 1.5
    factor, notes = choose_scale("b.fits", both, MeasuredScale(1.1, 0.01, 900))
    assert factor == 1.1
    assert notes.warnings
    assert choose_scale("b.fits", both, MeasuredScale(1.1, 0.3, 900))[0] == 1.5  # too uncertain to contradict
    # a zero point may hold the exposure time: what is measured tells
    readings = ((10.0, 20.0), "zero points")
    assert choose_scale("b.fits", readings, MeasuredScale(19.8, 0.01, 900))[0] == 20.0
    with pytest.raises(InputError, match="add EXPTIME"):
        choose_scale("b.fits", None, None, "only 3 pixels show light in both exposures")


@dataclass(frozen=True)
class There:
    """A shift that pickles."""

    shift: tuple[float, float]

    def __call__(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        return places + self.shift


def cut(frame: Frame, plane: int, region: Region) -> Frame:
    return in_memory(frame).window(plane, region)


def stored(exposure: Exposure) -> Exposure:
    """As of a file: it pickles."""
    return replace(exposure, image=Source(exposure.image.frame, partial(cut, exposure.plane)))


def test_exposures_are_masked_by_windows_counted_and_pickled() -> None:
    rng = np.random.default_rng(12)
    sky = make_sky(rng, SIDE, stars=20)
    shifts = [(0.0, 0.0), (0.4, -1.3), (-2.2, 0.6)]
    taken = [expose(sky, rng, SIDE, shift=shift, hits=0.0008, time=1 + k / 2) for k, shift in enumerate(shifts)]
    exposures = [stored(Exposure.of_arrays(one.pixels, one.variance)) for one in taken]
    shown = [
        show_exposure(one, Calibration(15 * t.time, t.time, 1.7), (There(t.shift), There(-t.shift)))
        for one, t in zip(exposures, taken, strict=True)
    ]
    found, lines = survey_outliers(["a", "b", "c"], shown, tile=40)
    masked = [mask_pixels(one, pixels) for one, pixels in zip(exposures, found, strict=True)]
    whole, part = masked[1].window(0, ALL), masked[1].window(0, Region(20, 61, 33, 90))
    assert np.array_equal(whole.mask[20:61, 33:90], part.mask)
    assert np.array_equal(whole.mask, find_outliers(shown, 1, ALL))
    assert whole.plane.flags is not None
    assert np.array_equal((whole.plane.flags[0] & OUTLIER.bit) != 0, whole.mask)
    assert whole.mask.sum() > 5
    for k, pixels in enumerate(found):  # what is stored is what a window decides by itself
        assert np.array_equal(pixels.window(ALL), find_outliers(shown, k, ALL))
    assert [line for line in lines if line.startswith(f"cosmic rays: b: {whole.mask.sum()} pixels")]
    again, more = survey_outliers(["a", "b", "c"], pickle.loads(pickle.dumps(shown)))
    assert list(more) == list(lines)
    assert all(np.array_equal(a.index, b.index) for a, b in zip(again, found, strict=True))
    other = pickle.loads(pickle.dumps(masked[1]))
    assert np.array_equal(other.window(0, Region(20, 61, 33, 90)).mask, part.mask)
    assert len(pickle.dumps(found)) < 20 * sum(map(len, found)) + 1000


@pytest.mark.parametrize(("own", "error", "masked"), [(4.05, 0.0, False), (3.7, 0.0, True), (3.7, 0.05, False)])
def test_a_sharper_exposure_keeps_the_cores_of_its_stars(own, error, masked):
    """A star whose header says 4.05 px, beside wider exposures; where that is wrong by more than it may be, it goes."""
    side, rng, y = 41, np.random.default_rng(2), np.arange(41) - 20.0
    shown = []
    for true, said in ((5.2, 5.2), (5.3, 5.3), (5.4, 5.4), (own, 4.05)):
        sigma = true / 2.3548
        star = 4e4 * np.exp(-0.5 * (y[:, None] ** 2 + y**2) / sigma**2) / (2 * np.pi * sigma**2)
        pixels = star + rng.normal(0, 3, (side, side))
        one = Shown.of_arrays(pixels, np.full((side, side), 9.0), np.zeros((side, side), bool), (same, same), said)
        shown.append(replace(one, width_error=error))
    found = find_outliers(shown, 3, Region.of_shape((side, side)))
    assert found[18:23, 18:23].any() == masked


def same(places):
    """Exposures that lie alike."""
    return places
