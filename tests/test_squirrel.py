"""SQUIRREL: the blur is found, global figures miss what the local map finds, and masks are kept out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize_scalar

from sciresdiff import checks, io
from sciresdiff.checks import squirrel
from sciresdiff.checks.baselines import bicubic_image
from sciresdiff.checks.evidence import Evidence
from sciresdiff.physics import psf
from sciresdiff.physics.operators import Operator

Array = NDArray[np.float64]
SIDE, SCALE, COUNT = 256, 2, 30


def scene(height: int = SIDE, width: int = SIDE) -> Array:
    """A smooth texture with sharper grains in it, about 0 to 255."""
    rng = np.random.default_rng(3)
    grains = gaussian_filter(rng.exponential(size=(height, width)) ** 3, 1.5)
    cloud = gaussian_filter(rng.normal(size=(height, width)), 10)
    plane = grains / grains.std() + 3 * cloud / cloud.std()
    return np.asarray(255 * (plane - plane.min()) / np.ptp(plane))


def spots(height: int = SIDE, width: int = SIDE, peak: float = 200.0) -> tuple[Array, Array]:
    """30 Gaussian spots, sigma 1.5 px, well apart, and their places (30, 2) as (x, y)."""
    rng = np.random.default_rng(8)
    grid = [(x, y) for x in np.linspace(20, width - 21, 6) for y in np.linspace(20, height - 21, 5)]
    places = np.array(grid) + rng.uniform(-6, 6, (COUNT, 2))
    yy, xx = np.indices((height, width))
    return sum((peak * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / 4.5) for x, y in places), np.zeros(xx.shape)), places


def coarse(truth: Array, noise: float, kernel: str = "gaussian:sigma=1.5px") -> Evidence:
    """Data of a scene with a known blur and noise; judged is the truth itself."""
    shape = (truth.shape[0] // SCALE, truth.shape[1] // SCALE)
    operator = Operator(shape, SCALE, psf.render(kernel, None, integrate=False), "mean", dtype=torch.float64)
    clean = operator.apply(torch.from_numpy(truth)[None, None])[0, 0].numpy()
    low = clean + np.random.default_rng(1).normal(size=clean.shape) * noise
    variance = np.full(shape, max(noise, 1e-3) ** 2)
    return Evidence(truth, SCALE, low=low, variance=variance, operator=operator, kind="micro", quantity="mean")


def values(evidence: Evidence) -> dict[str, float]:
    """The three figures."""
    found = {r.name: r.value for r in checks.check(evidence, names=["rse"])}
    assert None not in found.values() and set(found) == {"rse", "rsp", "squirrel_outliers"}
    return {name: value for name, value in found.items() if value is not None}


@pytest.fixture(scope="module", params=[(SIDE, SIDE), (200, 312)])
def evidence(request: pytest.FixtureRequest) -> Evidence:
    """A truth with its data."""
    return coarse(scene(*request.param), 2.0)


def test_with_the_operator_the_truth_leaves_the_noise(evidence: Evidence) -> None:
    found = values(evidence)
    assert found["rse"] == pytest.approx(2, rel=0.02)  # 3 sigma of 15600 px
    assert found["rsp"] > 0.99
    assert found["squirrel_outliers"] == 0


def test_gain_and_offset_are_taken_out(evidence: Evidence) -> None:
    plain, scaled = (squirrel.error_map(e) for e in (evidence, evidence.with_image(3 * evidence.high + 40)))
    assert scaled.gain == pytest.approx(plain.gain / 3, rel=1e-5)  # float32 planes
    assert scaled.offset == pytest.approx(plain.offset - 40 * plain.gain / 3, abs=1e-3)  # as above, times 40
    assert scaled.rms == pytest.approx(plain.rms, rel=1e-5)  # as above


@pytest.mark.parametrize("known", [True, False])
def test_thirty_strong_inventions_hide_from_the_global_figures_and_not_from_the_map(
    evidence: Evidence, known: bool
) -> None:
    truth = replace(evidence, operator=evidence.operator if known else None, shared={})
    if known:  # a blur that is only nearly known, as in practice
        wrong = psf.render("gaussian:sigma=1.2px", None, integrate=False)
        truth = replace(truth, operator=Operator(
            (truth.high.shape[0] // SCALE, truth.high.shape[1] // SCALE), SCALE, wrong, "mean", dtype=torch.float64
        ))  # fmt: skip
    extra, places = spots(*truth.high.shape)
    before, after = values(truth), values(truth.with_image(truth.high + 0.4 * extra))
    assert after["rsp"] > 0.97  # nobody would look twice
    assert before["squirrel_outliers"] <= 3  # the blur is not quite right at the sharpest grains
    named = squirrel.outliers(squirrel.error_map(truth.with_image(truth.high + 0.4 * extra)))
    seen = [any(np.hypot(x - p, y - q) < 4 and s > 0 for s, x, y in named) for p, q in places]
    assert np.mean(seen) > 0.9  # 27 of 30


def test_the_lesson_rse_of_a_mismatched_pair_hardly_moves() -> None:
    # two modalities differ by more than their blur: here the data hold out-of-focus light that the image has not
    truth = scene()
    blurred = coarse(truth, 2.0)
    assert blurred.low is not None
    haze = gaussian_filter(np.random.default_rng(6).normal(size=blurred.low.shape), 10)
    pair = replace(blurred, low=blurred.low + 20 * haze / haze.std(), operator=None, variance=None)
    extra, places = spots(peak=100.0)
    before, after = values(pair), values(pair.with_image(truth + extra))
    assert after["rse"] < 1.05 * before["rse"]  # 30 false spots of 40 % of the range
    assert before["rsp"] - after["rsp"] < 0.02
    local = squirrel.error_map(pair.with_image(truth + extra)).sigmas
    at = np.round(places).astype(int)
    ranks = np.array([np.mean(local < local[y, x]) for x, y in at])
    assert ranks.mean() > 0.9  # the area under the curve: spots are above 9 of 10 pixels of the map


def test_a_lost_grain_is_negative_and_named_in_fine_pixels(evidence: Evidence) -> None:
    yy, xx = np.indices(evidence.high.shape)
    hole = 150 * np.exp(-((xx - 101) ** 2 + (yy - 80) ** 2) / 4.5)
    places = squirrel.outliers(squirrel.error_map(evidence.with_image(evidence.high - hole)))
    assert len(places) == 1
    sigmas, x, y = places[0]
    assert sigmas < -6 and np.hypot(x - 101, y - 80) < 2  # a coarse pixel
    named = next(
        r for r in checks.check(evidence.with_image(evidence.high - hole), names=["rse"]) if "outliers" in r.name
    )
    assert f"at ({x:.0f}, {y:.0f})" in named.meaning and named.passed is False


@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.5])
def test_the_blur_is_the_one_that_a_search_on_pixels_finds(sigma: float) -> None:
    truth = scene(128, 160)
    noise = np.random.default_rng(1).normal(size=(64, 80))
    low = gaussian_filter(truth, sigma).reshape(64, 2, 80, 2).mean((1, 3)) + noise
    evidence = Evidence(truth, SCALE, low=low, quantity="mean")

    def left(s: float) -> float:
        blurred = gaussian_filter(truth, s, mode="reflect").ravel()
        gain, offset = np.polyfit(blurred, bicubic_image(evidence).ravel(), 1)
        return float(np.sqrt(np.mean((gain * blurred + offset - bicubic_image(evidence).ravel()) ** 2)))

    best = minimize_scalar(left, bounds=(0.1, 6), method="bounded", options={"xatol": 1e-2})
    found = squirrel.error_map(evidence)
    assert found.blur_px == pytest.approx(best.x, rel=0.03)  # the window leaves the borders out
    assert found.rms == pytest.approx(best.fun, rel=0.05)  # as above
    assert found.residual.shape == truth.shape and found.step == 1


def test_a_blur_beyond_the_range_is_said() -> None:
    truth = scene()
    low = gaussian_filter(truth, 14).reshape(128, 2, 128, 2).mean((1, 3))
    told = checks.check(Evidence(truth, SCALE, low=low, quantity="mean"), names=["rse"])[0]
    assert "more might fit better" in told.meaning


@pytest.mark.parametrize("known", [True, False])
def test_masked_pixels_are_not_told_as_outliers(evidence: Evidence, known: bool) -> None:
    mask = np.zeros(evidence.high.shape, bool)
    mask[60:80, 100:120] = True
    low_mask = np.zeros((mask.shape[0] // SCALE, mask.shape[1] // SCALE), bool)
    low_mask[10:12, 10:12] = True
    assert evidence.low is not None
    spoilt = replace(
        evidence, high=np.where(mask, 5e4, evidence.high), low=np.where(low_mask, 6e4, evidence.low), mask_high=mask,
        mask_low=low_mask, operator=evidence.operator if known else None, shared={},
    )  # fmt: skip
    found = values(spoilt)
    clean = values(replace(evidence, operator=spoilt.operator, shared={}))
    assert found["squirrel_outliers"] <= clean["squirrel_outliers"]
    assert found["rse"] == pytest.approx(clean["rse"], rel=0.1)  # what a spline carries beyond two masked coarse px


def test_an_exact_fit_has_no_outliers() -> None:
    exact = coarse(scene(), 0.0)
    assert values(exact)["squirrel_outliers"] == 0
    own = replace(exact, operator=None, variance=None)
    found = values(own.with_image(bicubic_image(own)))
    assert found["rsp"] == pytest.approx(1, abs=1e-5)  # float32
    assert found["squirrel_outliers"] == 0


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [("constant image", "the image is constant"), ("constant data", "the data are constant"), ("masked", "masked")],
)
def test_what_cannot_be_compared_says_why(known: bool, spoil: str, words: str) -> None:
    plain = coarse(scene(64, 80), 1.0)
    assert plain.low is not None
    bad = replace(
        plain,
        high=np.full(plain.high.shape, 0.1) if spoil == "constant image" else plain.high,
        low=np.full(plain.low.shape, 0.3) if spoil == "constant data" else plain.low,
        mask_high=np.full(plain.high.shape, spoil == "masked"),
        operator=plain.operator if known else None,
        shared={},
    )
    result = checks.check(bad, names=["rse"])[0]
    assert result.value is None and words in result.meaning


def test_on_a_real_field_a_planted_star_is_found(sample_data: Path) -> None:
    truth = np.asarray(io.read(sample_data / "47tuc.fits").pixels[0], np.float64)
    plain = coarse(truth, 3.0, "gaussian:sigma=1px")
    assert values(plain)["squirrel_outliers"] == 0
    yy, xx = np.indices(truth.shape)
    star = 200 * np.exp(-((xx - 150) ** 2 + (yy - 97) ** 2) / 3)
    places = squirrel.outliers(squirrel.error_map(plain.with_image(truth + star)))
    assert [np.hypot(x - 150, y - 97) < 2 for _, x, y in places] == [True]
