"""Scenes: the drawing's laws (flux, centroid, width, saturation) and every registered kind."""

from __future__ import annotations

import numpy as np
import pytest

from sciresdiff.errors import UsageError
from sciresdiff.scenes import SCENES, draw, scene
from sciresdiff.scenes.cells import CELL_SHARES, lens_psf
from sciresdiff.scenes.detector import saturate
from sciresdiff.scenes.psf import gaussian_psf, halo_psf, moffat_psf, pupil_psf
from sciresdiff.scenes.sky import SKY_SHARES, star_peaks, telescope_psf

SIZE = 64


def _profiles() -> dict[str, draw.ScenePSF]:
    rng = np.random.default_rng(5)
    return {
        "gaussian": gaussian_psf(1.75),
        "elongated": gaussian_psf(2.6, 0.12, 0.7),
        "moffat": moffat_psf(2.4, 2.5),
        "halo": halo_psf(2.0, 6.0, 0.3),
        "telescope": pupil_psf(rng, 1.7, 0.3, 0.03, 0.0),
        "confocal": pupil_psf(rng, 2.5, 0.0, 0.0, 0.0, power=2),
    }


PROFILES = _profiles()


def _stars(psf: draw.ScenePSF, x: list[float], y: list[float], flux: list[float]) -> np.ndarray:
    sub = draw.empty_canvas(SIZE)
    draw.add_points(sub, np.array(x), np.array(y), np.array(flux))
    return draw.crop(draw.render(sub, psf)).astype(np.float64)


def _width(image: np.ndarray) -> float:
    """Mean full width at half maximum along row and column through the peak, linear between pixels."""
    widths = []
    for line in (image[SIZE // 2], image[:, SIZE // 2]):
        half, i = line.max() / 2, np.arange(len(line))
        right = np.interp(-half, -line[SIZE // 2 :], i[SIZE // 2 :])
        left = np.interp(half, line[: SIZE // 2 + 1], i[: SIZE // 2 + 1])
        widths.append(right - left)
    return float(np.mean(widths))


@pytest.mark.parametrize("name", ["gaussian", "moffat", "halo", "telescope", "confocal"])
def test_a_lone_star_keeps_its_flux_and_place(name: str) -> None:
    rng = np.random.default_rng(1)
    for x, y in rng.uniform(30, 34, (5, 2)):
        image = _stars(PROFILES[name], [x], [y], [1000.0])
        yy, xx = np.indices(image.shape)
        near = np.hypot(xx - x, yy - y) < 8  # beyond, a wing times its lever weighs more than the core
        core = np.where(near, image, 0)
        centre = np.array([(core * xx).sum(), (core * yy).sum()]) / core.sum()
        assert np.allclose(centre, [x, y], atol=0.02)  # the promise of the module, in pixels
    wide = draw.empty_canvas(SIZE)
    draw.add_points(wide, np.array([x]), np.array([y]), np.array([1000.0]))
    total = draw.render(wide, PROFILES[name]).sum(dtype=np.float64)
    assert total == pytest.approx(1000, rel=1e-4)  # float32 FFT


def test_a_field_of_stars_has_the_flux_that_was_drawn() -> None:
    rng = np.random.default_rng(2)
    x, y, flux = rng.uniform(16, 48, 50), rng.uniform(16, 48, 50), rng.pareto(1.0, 50) + 1
    image = _stars(PROFILES["gaussian"], list(x), list(y), list(flux))
    assert image.sum() == pytest.approx(flux.sum(), rel=1e-3)  # nothing within 16 pixels of the border


@pytest.mark.parametrize("name", list(PROFILES))
def test_the_declared_width_and_peak_are_those_of_a_lone_star(name: str) -> None:
    psf = PROFILES[name]
    image = _stars(psf, [SIZE // 2], [SIZE // 2], [1.0])
    assert _width(image) == pytest.approx(psf.fwhm_px, rel=0.08)  # straight lines between pixels 2 per FWHM apart
    assert image.max() == pytest.approx(psf.peak, rel=1e-4)  # float32 FFT


@pytest.mark.parametrize("name", ["gaussian", "elongated", "moffat"])
def test_a_profile_has_the_width_that_was_asked_for(name: str) -> None:
    asked = {"gaussian": 1.75, "elongated": 2.6, "moffat": 2.4}[name]
    assert PROFILES[name].fwhm_px == pytest.approx(asked, rel=0.08)  # widths add in squares only for Gaussians


def test_random_profiles_stay_in_the_stated_range() -> None:
    rng = np.random.default_rng(3)
    widths = [maker(rng).fwhm_px for maker in (telescope_psf, lens_psf) for _ in range(25)]
    assert min(widths) > 1.55 and max(widths) < 4.6  # 1.7 to 4.2, aberrations and profile mixing aside


def test_saturation_keeps_the_flux_and_flattens_the_top() -> None:
    rng = np.random.default_rng(4)
    frame = rng.uniform(0, 10, (200, 30))
    frame[100, 10:14] = [500, 4000, 900, 300]
    out = saturate(frame, 100.0, 0.4)
    assert out.sum() == pytest.approx(frame.sum(), rel=1e-12)  # float64 sums
    assert out.max() <= 100 + 1e-9  # one rounding
    assert np.array_equal(out[:, :10], frame[:, :10])
    assert (out[:, 11] >= 100 - 1e-9).sum() == pytest.approx(4000 / 95, abs=2)  # each takes what it has room for


def test_unsaturated_frames_pass_unchanged() -> None:
    frame = np.random.default_rng(4).uniform(0, 10, (40, 30))
    assert np.array_equal(saturate(frame, 11.0), frame)


@pytest.mark.parametrize("size", [64, 192])
@pytest.mark.parametrize("kind", list(SCENES))
def test_every_kind_is_finite_and_not_negative(kind: str, size: int) -> None:
    made = scene(kind, np.random.default_rng(size), size)
    assert made.pixels.shape == (size, size) and made.pixels.dtype == np.float32
    assert np.isfinite(made.pixels).all() and made.pixels.min() >= 0
    assert 1.5 < made.fwhm_px < 4.6
    assert made.label in SCENES


@pytest.mark.parametrize("kind", ["astro", "micro"])
def test_the_generator_alone_decides(kind: str) -> None:
    first, again, other = (scene(kind, np.random.default_rng(seed), SIZE) for seed in (7, 7, 8))
    assert np.array_equal(first.pixels, again.pixels)
    assert first.label == again.label and first.fwhm_px == again.fwhm_px
    assert not np.array_equal(first.pixels, other.pixels)


def test_mixtures_name_only_kinds_that_exist() -> None:
    assert set(SKY_SHARES) | set(CELL_SHARES) <= set(SCENES)
    assert sum(SKY_SHARES.values()) == pytest.approx(1)  # written by hand with two digits
    assert sum(CELL_SHARES.values()) == pytest.approx(1)  # the same


def test_star_peaks_span_decades_below_the_brightest() -> None:
    peaks = np.concatenate([star_peaks(np.random.default_rng(i), 2000, 1e5) for i in range(20)])
    assert peaks.max() <= 1e5 * (1 + 1e-9)  # one rounding of the power of ten
    assert np.percentile(peaks, 99.5) / np.percentile(peaks, 1) > 1e4  # six decades at most, four at least


@pytest.mark.parametrize(("kind", "size", "match"), [("stars!", 64, "kind: 'stars!'"), ("astro", 8, "size: 8")])
def test_what_cannot_be_drawn_is_said(kind: str, size: int, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        scene(kind, np.random.default_rng(0), size)
