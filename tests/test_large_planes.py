"""What is no data in a plane that is measured on windows is decided on all of its pixels, as in a small plane."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from scipy import ndimage

from sciresdiff import io
from sciresdiff.frame import Frame, Kind
from sciresdiff.io import quality_bits as bits
from sciresdiff.io.source import Source, in_memory
from sciresdiff.jobs.upscale import job as upscale
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.observation import bands, padding, sample
from sciresdiff.observation.options import Stated
from sciresdiff.observation.plane_defects import LEVELS, PlaneDefects
from sciresdiff.observation.screening import screen, screen_with_psf
from sciresdiff.physics.psf import kernel_from_psf
from sciresdiff.physics.psf.field import PSF
from sciresdiff.region import Region

Array = np.ndarray[Any, Any]
SIDES = (560, 640)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planes of `SIDES` are measured on 16 windows of 64 px, and read in ten bands."""
    monkeypatch.setattr(sample, "WHOLE", 2**16)
    monkeypatch.setattr(sample, "SIDE", 64)
    monkeypatch.setattr(bands, "BAND", 56 * SIDES[1])


def a_field(sky: float = 300.0, top: float = 3e5, seed: int = 2) -> Array:
    """Gaussian stars of FWHM 3 px and their photon noise on a sky with its own."""
    rng = np.random.default_rng(seed)
    clean = np.zeros(SIDES)
    points = rng.integers(8, np.array(SIDES) - 8, (600, 2))
    np.add.at(clean, tuple(points.T), top ** rng.uniform(0.5, 1, 600))
    clean = ndimage.gaussian_filter(clean, 3 / 2.3548, truncate=6)
    return np.asarray(clean + sky + rng.normal(0, 1, SIDES) * np.sqrt(25 + clean))


def source_of(pixels: Array, kind: Kind = "astro") -> Source:
    stack = np.asarray(pixels, np.float32).reshape(-1, *np.shape(pixels)[-2:])
    return in_memory(Frame(stack, ~np.isfinite(stack), kind, dtype=pixels.dtype, shape=pixels.shape))


def decided(pixels: Array, **stated: Any) -> tuple[list[PlaneDefects], Array]:
    """What is decided of the planes, noise aside, and the bits (planes, h, w) of all pixels."""
    source = source_of(pixels)
    found = screen(source, Stated(**stated)).defects
    everything = Region.of_shape(pixels.shape)
    flags = [found.flags(source.window(i, everything), i) for i in range(len(found.planes))]
    return [replace(one, noise=None) for one in found.planes], np.stack(flags)


def windows_of(pixels: Array) -> Array:
    """(h, w), True in the windows on which a plane is measured."""
    inside = np.zeros(SIDES, bool)
    for window in sample.samples_of_source(source_of(pixels))(0).windows:
        inside[window.region.slices] = True
    return inside


def planted(at: Callable[[Array, Array], Array], value: float) -> Callable[[Array], Array]:
    """What puts a value where ``at(y, x)``."""
    return lambda pixels: np.where(at(*np.indices(SIDES)), value, pixels)


SPOILED: dict[str, tuple[Kind | Any, Callable[[Array], Array]]] = {
    "border of zeros": (bits.PADDING, planted(lambda y, x: (y < 9) | (y > 550) | (x < 9) | (x > 630), 0.0)),
    "border of -32768": (bits.PADDING, planted(lambda y, x: y < 20, -32768.0)),
    "last column": (bits.PADDING, planted(lambda y, x: (x == SIDES[1] - 1) & (y > 0), 0.0)),
    "block": (bits.PADDING, planted(lambda y, x: (abs(y - 140) < 25) & (abs(x - 160) < 20), -32768.0)),
    "block over a band": (bits.PADDING, planted(lambda y, x: (abs(y - 280) < 3) & (abs(x - 160) < 3), 0.0)),
    "part of a line": (bits.PADDING, planted(lambda y, x: (y == 280) & (x > 130) & (x < 190), 0.0)),
    "one code in a corner": (bits.SENTINEL, planted(lambda y, x: (y == 2) & (x == 3), -9999.0)),
    "a value three times": (bits.SENTINEL, planted(lambda y, x: (x == 4) & (y % 200 == 3), -40000.0)),
    "two codes": (bits.SENTINEL, lambda p: planted(lambda y, x: (y == 2) & (x < 2), -999.0)(
        planted(lambda y, x: (y == 557) & (x == 9), -9999.0)(p))),
    "one of 1e30": (bits.ABSURD, planted(lambda y, x: (y == 555) & (x == 635), 1e30)),
    "a star cut flat": (bits.SATURATED, lambda p: np.minimum(
        p + 4e5 * np.exp(-0.5 * sum((a - b) ** 2 for a, b in zip(np.indices(SIDES), (141, 161), strict=True)) / 9),
        2e5)),
    "stars of a flat field": (bits.SATURATED, lambda p: p + (1 + 0.01 * np.sin(np.indices(SIDES)[0])) * 3e5
        * np.isin(np.indices(SIDES)[1] // 3, [53, 106]) * np.isin(np.indices(SIDES)[0] // 3, [46, 93, 140])),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["f4", "i4"])
@pytest.mark.parametrize("name", SPOILED)
def test_what_lies_outside_of_all_windows_is_found(name: str, dtype: str, request: pytest.FixtureRequest) -> None:
    kind, spoil = SPOILED[name]
    pixels = spoil(a_field()) if dtype == "f4" else np.rint(spoil(np.rint(a_field())))
    pixels = pixels.astype("f4")
    at_once, expected = decided(pixels)
    request.getfixturevalue("large")
    spoils = bits.where(expected[0], kind)
    assert spoils.any() and not (spoils & windows_of(pixels)).any(), "the case is what its name says"
    by_bands, flags = decided(pixels)
    # a level that a flat field has spread lies as far below the top as the sky tells, which is measured on the windows
    assert by_bands[0].saturation == pytest.approx(at_once[0].saturation, rel=1e-4)
    assert [replace(one, saturation=at_once[0].saturation) for one in by_bands] == at_once
    np.testing.assert_array_equal(bits.where(flags[0], kind), spoils)
    count = dict(zip(LEVELS, by_bands[0].counts, strict=True))
    assert count == {each: int(bits.where(expected, each).sum()) for each in LEVELS}, "all of the plane is counted"


def test_everything_at_once_and_in_each_of_several_planes(request: pytest.FixtureRequest) -> None:
    stack = []
    for seed, names in enumerate((["border of zeros", "one code in a corner", "one of 1e30"],
                                  ["a star cut flat", "border of -32768", "block over a band"], [])):  # fmt: skip
        pixels = a_field(seed=seed)
        for name in names:
            pixels = SPOILED[name][1](pixels)
        pixels[100:104, 300] = np.nan
        stack.append(pixels)
    at_once, expected = decided(np.array([*stack, np.zeros(SIDES)], "f4"))
    request.getfixturevalue("large")
    by_bands, flags = decided(np.array([*stack, np.zeros(SIDES)], "f4"))
    assert by_bands == at_once
    for kind in LEVELS:
        np.testing.assert_array_equal(bits.where(flags, kind), bits.where(expected, kind))
    assert [one.constant for one in by_bands] == [False, False, False, True]


RNG = np.random.default_rng(3)
LIGHT = ndimage.gaussian_filter(RNG.random(SIDES) ** 8, 3)
LIGHT = (LIGHT - LIGHT.min()) / np.ptp(LIGHT)
SOUND = {
    "stars": a_field(),
    "subtracted sky": np.rint(a_field(sky=0)),
    "a photon in twenty pixels": RNG.poisson(0.05, SIDES),
    "a photon a pixel": RNG.poisson(1.0, SIDES),
    "cells of few photons": RNG.poisson(5 * LIGHT),
    "cells on a dark ground": RNG.poisson(np.maximum(40 * LIGHT - 15, 0)),
    "no noise": 1000 * LIGHT,
    "clipped at 0": np.maximum(RNG.normal(0, 5, SIDES), 0),
    "labels": ndimage.label(LIGHT > 0.5)[0],
    "magnified": np.kron(RNG.normal(100, 5, (140, 160)), np.ones((4, 4))),
    "single events": np.where(RNG.random(SIDES) < 0.02, RNG.exponential(100, SIDES), 0),
}


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("name", SOUND)
def test_a_sound_large_plane_keeps_every_pixel(name: str) -> None:
    found, flags = decided(SOUND[name].astype("f4"), cosmic=False, hot_pixels=False)
    assert not flags.any()
    assert found == [PlaneDefects()]


@pytest.mark.usefixtures("large")
def test_a_mosaic_that_is_mostly_empty_is_measured_where_it_is_not() -> None:
    pixels = np.zeros(SIDES)
    pixels[400:520, 20:250] = a_field()[400:520, 20:250]
    pixels[500, 240] = -9999
    (found,), flags = decided(pixels.astype("f4"))
    assert np.array_equal(bits.where(flags[0], bits.PADDING), pixels == 0)
    assert found.sentinels == (-9999.0,)
    source = source_of(pixels)
    picture = screen(source, Stated()).samples(0)
    assert (~picture.mask).sum() > 0.5 * (pixels > 0).sum()


@pytest.mark.usefixtures("large")
def test_planes_whose_windows_alone_are_constant_are_no_empty_planes() -> None:
    pixels = np.zeros((2, *SIDES))
    pixels[1] = a_field()
    inside = windows_of(pixels[1])
    pixels[0] = np.where(inside, 0, a_field())
    found, _ = decided(pixels.astype("f4"))
    assert not found[0].constant


@pytest.mark.usefixtures("large")
def test_counts_are_those_of_all_of_the_plane() -> None:
    pixels = a_field()
    pixels[:, :9] = 0
    pixels[3, 200:203] = -9999
    pixels[20:560:20, 100] += 3000  # hits
    source = source_of(pixels.astype("f4"))
    kernel = kernel_from_psf("gaussian:fwhm=3px", pixel=None, scale=2, target_fwhm_px_fine=2.0)
    _, notes = screen_with_psf(screen(source, Stated()), Stated(), (PSF.constant(kernel),), 2)
    said = dict(line.split(": ", 1) for line in notes)
    assert said["padding"].startswith(f"{9 * SIDES[0]} pixels of 0 in borders")
    assert said["sentinels"].startswith("3 pixels of -9999")
    assert "of 65536 that were looked at" in said["cosmic rays"], "peaks are counted on the windows"


@pytest.mark.parametrize("shape", [(40, 60), (3, 80), (80, 2), (16, 16), (1, 1)])
@pytest.mark.parametrize("share", [0.5, 0.95, 1.0])
def test_blocks_are_a_morphological_opening(shape: tuple[int, int], share: float) -> None:
    mask = np.random.default_rng(1).random(shape) < share
    for box in padding.BOXES:
        shapes = ((box, box), (1, padding.RUN), (padding.RUN, 1))
        expected = np.logical_or.reduce([ndimage.binary_opening(mask, np.ones(one, bool)) for one in shapes])
        np.testing.assert_array_equal(padding._blocks(mask, box), expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_constant_values_are_counted_once(axis: int, request: pytest.FixtureRequest) -> None:
    pixels = np.arange(np.prod(SIDES), dtype="f4").reshape(SIDES)
    for place in range(40, 112, 3):  # runs begin on both sides of where bands meet, and across it
        pixels[(slice(place, place + 16), place) if axis == 0 else (place, slice(place, place + 16))] = 5
    pixels[54:58, 300:304] = -7
    bad = np.zeros(SIDES, bool)
    at_once = padding.count_constant(bands.Band(pixels, bad, slice(0, SIDES[0])))
    request.getfixturevalue("large")
    source = source_of(pixels)
    read = bands.bands_of_plane(source, 0, sample.samples_of_source(source)(0), None)
    level, count = padding.add_counts([padding.count_constant(band) for band in read()])
    assert level.tolist() == at_once[0].tolist() == [-7, 5]
    assert count.tolist() == at_once[1].tolist() == [4, 24]


@pytest.mark.usefixtures("large")
def test_a_large_file_with_everything(tmp_path: Path) -> None:
    pixels = a_field()
    for name in ("border of zeros", "block", "a value three times", "one of 1e30"):
        pixels = SPOILED[name][1](pixels)
    fits.PrimaryHDU(pixels.astype("f4")).writeto(tmp_path / "a.fits")
    options = UpscaleOptions(model="physics", refine=False, checks=False, scale=2, psf="gaussian:fwhm=3px")
    record = upscale.run(tmp_path / "a.fits", tmp_path / "b.fits", options)
    dq = fits.getdata(tmp_path / "b.fits", "DQ")[::2, ::2] & ~bits.RING.bit
    for kind, there in ((bits.PADDING, (pixels == 0) | (pixels == -32768)), (bits.SENTINEL, pixels == -40000),
                        (bits.ABSURD, pixels > 1e20)):  # fmt: skip
        np.testing.assert_array_equal(bits.where(dq, kind), there)
        (line,) = [line for line in record["said"] if line.startswith(f"{kind.name}: ")]
        assert f" {int(there.sum())} pixel" in line
    assert np.abs(io.read(tmp_path / "b.fits").pixels[0][dq.repeat(2, 0).repeat(2, 1) == 0]).max() < 2e5
