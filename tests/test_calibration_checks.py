"""Errors claimed and errors made: laws of normal errors, and what is too small, too large, or in the wrong place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.ndimage import gaussian_filter

from sciresdiff import checks
from sciresdiff.checks import calibration
from sciresdiff.checks.baselines import bicubic_image
from sciresdiff.checks.check import UnmeasuredError
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.foreground import foreground_mask
from sciresdiff.checks.result import Result

Array = NDArray[np.float64]
SHAPE = (240, 320)


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """Stars on a sky; errors are normal, larger where it is bright, and claimed as they are."""
    rng = np.random.default_rng(1)
    image = np.zeros(SHAPE)
    image[rng.integers(10, 230, 60), rng.integers(10, 310, 60)] = 10 ** rng.uniform(2, 4, 60)
    truth = gaussian_filter(image, 2.0) + 5 + 0.3 * gaussian_filter(rng.normal(size=SHAPE), 1.0)
    err = np.sqrt(0.2 + 0.1 * truth) * rng.uniform(0.5, 2, SHAPE)
    return Evidence(truth + rng.normal(size=SHAPE) * err, 2, truth=truth, err=err, support=np.full(SHAPE, 0.7))


def one(evidence: Evidence, name: str) -> Result:
    """The judged result of a check that has one."""
    (found,) = checks.check(evidence, names=[name])
    return found


def test_calibrated_errors_cover_every_decile(evidence: Evidence) -> None:
    found = checks.check(evidence, names=["coverage_snr"])
    assert [r.region for r in found] == [f"snr decile {i}" for i in range(1, 11)]
    curve = calibration.coverage_curve(evidence)
    assert (np.diff(curve.snr) > 0).all() and np.ptp(curve.pixels) <= 1
    chance = 4 * np.sqrt(0.25 / curve.pixels.min())  # 4 sigma of a share, at most
    assert np.abs(curve.share_68 - 0.6827).max() < chance
    assert np.abs(curve.share_90 - 0.9000).max() < chance
    assert all(r.passed for r in found)


def test_errors_that_are_right_on_average_alone_are_caught(evidence: Evidence) -> None:
    assert evidence.err is not None and evidence.truth is not None
    err = np.where(evidence.truth > np.percentile(evidence.truth, 88), evidence.err / 4, evidence.err)
    wrong = checks.check(replace(evidence, err=err), names=["coverage_snr"])
    assert [r.passed for r in wrong] == [True] * 9 + [False]
    assert one(replace(evidence, err=err), "ence").passed is not None
    whole = checks.check(replace(evidence, err=err), names=["coverage_68"])[0]
    assert whole.region == "all" and whole.passed


@pytest.mark.parametrize(("factor", "expected"), [(1.0, 0.0), (2.0, 0.5), (0.5, 1.0)])
def test_ence_is_the_relative_error_of_err(evidence: Evidence, factor: float, expected: float) -> None:
    assert evidence.err is not None
    found = one(replace(evidence, err=evidence.err * factor), "ence")
    assert found.value == pytest.approx(expected, abs=0.02 * max(1, 1 / factor))  # 3840 px a bin: 1.1 % each
    assert found.passed is (expected < 0.8)


def test_the_curve_has_bins_of_equal_count_on_the_diagonal(evidence: Evidence) -> None:
    curve = calibration.calibration_curve(evidence, bins=16)
    assert len(curve.rmv) == 16 and np.ptp(curve.pixels) == 0 and curve.pixels.sum() == np.prod(SHAPE)
    assert (np.diff(curve.rmv) > 0).all()
    assert np.allclose(curve.rmse / curve.rmv, 1, atol=5 / np.sqrt(2 * curve.pixels[0]))  # 5 sigma of a deviation


def test_the_rank_is_spearmans_and_as_expected_of_normal_errors(evidence: Evidence) -> None:
    assert evidence.err is not None and evidence.truth is not None
    found = one(evidence, "spread_error_rank")
    error = np.abs(evidence.high - evidence.truth)
    assert found.value == pytest.approx(stats.spearmanr(evidence.err.ravel(), error.ravel())[0], abs=1e-9)  # rounding
    assert found.passed and found.limit is not None and found.limit[0] is not None
    assert found.value == pytest.approx(5 * found.limit[0], abs=0.02)  # 4 sigma, 1 / sqrt(76800) of either
    scaled = one(replace(evidence, err=10 * evidence.err), "spread_error_rank")
    assert scaled.value == pytest.approx(found.value, abs=1e-9)  # blind to the scale, but for rounding


def test_err_in_the_wrong_places_is_caught(evidence: Evidence) -> None:
    assert evidence.err is not None
    shuffled = np.random.default_rng(0).permutation(evidence.err.ravel()).reshape(SHAPE)
    assert one(replace(evidence, err=shuffled), "spread_error_rank").passed is False
    flat = one(replace(evidence, err=np.ones(SHAPE)), "spread_error_rank")
    assert flat.value is None and "nothing to rank" in flat.meaning
    hardly = one(replace(evidence, err=1 + 1e-3 * shuffled / shuffled.max()), "spread_error_rank")
    assert hardly.passed is None  # what hardly varies is not judged


@pytest.mark.parametrize("name", ["coverage_snr", "ence", "spread_error_rank"])
def test_pixels_without_an_error_are_left_out(evidence: Evidence, name: str) -> None:
    assert evidence.err is not None
    mask = np.zeros(SHAPE, bool)
    mask[:40] = True
    err = np.where(mask, [[np.nan] * 160 + [0.0] * 160], evidence.err)
    left = [r.value for r in checks.check(replace(evidence, err=err), names=[name])]
    masked = [r.value for r in checks.check(replace(evidence, mask_high=mask), names=[name])]
    assert left == masked and None not in left


@pytest.mark.parametrize("name", ["coverage_snr", "ence", "spread_error_rank"])
def test_nothing_is_claimed_of_too_little(evidence: Evidence, name: str) -> None:
    for err in (np.full(SHAPE, np.nan), np.zeros(SHAPE)):
        found = checks.check(replace(evidence, err=err), names=[name])
        assert [r.value for r in found] == [None] and "pixels with an ERR above 0" in found[0].meaning
    hidden = checks.check(replace(evidence, mask_high=np.ones(SHAPE, bool)), names=[name])
    assert [r.value for r in hidden] == [None]


def test_a_perfect_image_with_constant_planes_is_finite(evidence: Evidence) -> None:
    perfect = replace(evidence, high=np.full(SHAPE, 3.0), truth=np.full(SHAPE, 3.0), err=np.ones(SHAPE), shared={})
    values = [r.value for name in ("coverage_snr", "ence", "spread_error_rank") for r in
              checks.check(perfect, names=[name])]  # fmt: skip
    assert values == [1.0] * 11 + [None]  # every error is 0: all covered, ENCE 1, nothing to rank


@pytest.mark.parametrize("support", [0.0, 0.3, 1.0])
def test_the_prior_supplies_what_the_data_do_not_fix(evidence: Evidence, support: float) -> None:
    low = evidence.high.reshape(120, 2, 160, 2).sum((1, 3))
    known = replace(evidence, low=low, support=np.full(SHAPE, support), shared={})
    assert one(known, "prior_share").value == pytest.approx(1 - support, abs=1e-12)  # a constant weight
    assert one(known, "support_fraction").value == pytest.approx(support, abs=1e-12)  # likewise


def test_the_prior_share_counts_detail_and_not_light(evidence: Evidence) -> None:
    low = evidence.high.reshape(120, 2, 160, 2).sum((1, 3))
    known = replace(evidence, low=low, shared={})
    detail = (known.high - bicubic_image(known)) ** 2
    support = np.where(detail > np.percentile(detail[foreground_mask(known)], 90), 0.0, 1.0)
    found = one(replace(known, support=support), "prior_share").value
    assert found is not None and found > 0.5  # a tenth of the pixels has most of the detail
    same = one(known.with_image(bicubic_image(known)), "prior_share")
    assert same.value is None  # without SUPPORT
    flat = one(replace(known, high=bicubic_image(known)), "prior_share")
    assert flat.value is None and "bicubic" in flat.meaning


def test_a_curve_of_too_few_pixels_is_refused() -> None:
    small = Evidence(np.zeros((8, 8)), 2, truth=np.zeros((8, 8)), err=np.ones((8, 8)))
    with pytest.raises(UnmeasuredError, match="64 pixels"):
        calibration.calibration_curve(small)
