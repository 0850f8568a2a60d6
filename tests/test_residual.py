"""What is left of the data: white and normal for the truth, and what each fault leaves in it; the laws of draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from scipy.ndimage import gaussian_filter, shift

from sciresdiff import checks
from sciresdiff.checks import consistency, residual
from sciresdiff.checks.baselines import richardson_lucy
from sciresdiff.checks.check import UnmeasuredError, run_check
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.result import Result
from sciresdiff.physics import psf
from sciresdiff.physics.operators import Operator

Array = NDArray[np.float64]
SCALE, LOW = 2, (96, 112)


def data_of(truth: Array, kernel: Array | None, noise: float, seed: int = 1) -> Evidence:
    """The truth as the image that is judged, on data made from it."""
    h, w = (side // SCALE for side in truth.shape)
    operator = Operator((h, w), SCALE, kernel, dtype=torch.float64)
    clean = operator.apply(torch.from_numpy(truth)[None, None])[0, 0].numpy()
    low = clean + np.random.default_rng(seed).normal(size=clean.shape) * noise
    return Evidence(truth, SCALE, low=low, variance=np.full(low.shape, noise**2), operator=operator)


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """Thirty bright stars on a flat sky, not square."""
    rng = np.random.default_rng(3)
    image = np.zeros(tuple(SCALE * side for side in LOW))
    image[rng.integers(12, 180, 30), rng.integers(12, 210, 30)] = 10 ** rng.uniform(3, 4.5, 30)
    return data_of(gaussian_filter(image, 1.0) + 10, psf.render("gaussian:sigma=1.2px", None, integrate=False), 4.0)


def judged(evidence: Evidence, name: str) -> dict[str, Result]:
    """Results of a check by region."""
    return {r.region: r for r in checks.check(evidence, names=[name])}


def test_the_map_is_the_formula_and_says_nothing_where_nothing_is_judged(evidence: Evidence) -> None:
    mask = np.zeros(LOW, bool)
    mask[5:9, 7] = True
    found = residual.residual_map(replace(evidence, mask_low=mask))
    assert found is not None and evidence.low is not None
    expected = (evidence.low - evidence.degrade(evidence.high)) / 4
    assert np.isnan(found[mask]).all()
    assert np.allclose(found[~mask], expected[~mask], atol=1e-12)  # the same float64 sums
    assert residual.residual_map(Evidence(evidence.high, SCALE)) is None


@pytest.mark.parametrize("name", residual.CHECKS)
def test_the_truth_passes(evidence: Evidence, name: str) -> None:
    assert all(r.passed for r in judged(evidence, name).values())


FAULTS = {
    "half a pixel": (lambda e: shift(e.high, (0.5, 0.5), mode="nearest"), {"residual_lag1", "residual_blobs"}),
    "too smooth": (lambda e: gaussian_filter(e.high, 1.5), {"residual_lag1", "residual_blobs"}),
    "noise fitted": (lambda e: richardson_lucy(e, 60), {"residual_lag1"}),
    "noise smoothed": (lambda e: e.high + _ripples(e), {"residual_lag1"}),
    "a star erased": (lambda e: np.minimum(e.high, 300), {"residual_blobs"}),
    "over-sharp": (lambda e: 2 * e.high - gaussian_filter(e.high, 1.0), {"residual_blobs"}),
}


def _ripples(evidence: Evidence) -> Array:
    """White noise smoothed into blobs, 2 sigma of a coarse pixel."""
    noise = gaussian_filter(np.random.default_rng(6).normal(size=evidence.high.shape), 2.0)
    return np.asarray(noise / noise.std() * 2 * 4 / SCALE**2)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_caught(evidence: Evidence, fault: str) -> None:
    make, caught = FAULTS[fault]
    spoilt = evidence.with_image(make(evidence))
    missed = {name for name in residual.CHECKS for r in judged(spoilt, name).values() if r.passed is False}
    assert caught <= missed


def test_white_noise_gives_no_false_alarm() -> None:
    rng = np.random.default_rng(0)
    flat = Evidence(np.zeros((128, 192)), 2, operator=Operator((64, 96), 2, dtype=torch.float64))
    alarms = 0
    for _ in range(100):
        seen = replace(flat, low=rng.normal(size=(64, 96)), variance=np.ones((64, 96)))
        alarms += any(r.passed is False for name in residual.CHECKS for r in judged(seen, name).values())
    assert alarms <= 2  # 3 sigma on one side of two lags and 1e-3 of the shape: 0.4 expected


def test_lag_of_a_moving_average_is_one_half() -> None:
    white = np.random.default_rng(2).normal(size=(301, 400))
    moving = white[1:] + white[:-1]
    along_y, along_x = (residual.lag1(moving / np.sqrt(2), axis)[0] for axis in (0, 1))
    n = moving.size
    assert along_y == pytest.approx(0.5, abs=5 / np.sqrt(n))  # 5 sigma of the estimate, at most
    assert along_x == pytest.approx(0, abs=5 / np.sqrt(n))  # likewise
    moving[40:60, 30:90] = np.nan
    assert residual.lag1(moving / np.sqrt(2), 0)[0] == pytest.approx(0.5, abs=0.02)  # as before on fewer pairs


def test_blobs_are_what_scikit_image_labels() -> None:
    from skimage.measure import label, regionprops

    noise = gaussian_filter(np.random.default_rng(4).normal(size=(200, 150)), 1.2) * 12
    regions = [r for r in regionprops(label(np.abs(noise) > 4, connectivity=2)) if r.area >= 2]
    found = residual.find_blobs(noise)
    assert len(found) == len(regions) > 20
    largest = max(regions, key=lambda r: r.area)
    assert found[0].pixels == largest.area
    assert (found[0].y, found[0].x) == pytest.approx(largest.centroid)  # both are means of whole numbers


def test_a_blob_is_told_with_its_place_and_a_single_pixel_is_none(evidence: Evidence) -> None:
    assert evidence.low is not None
    low = evidence.low.copy()
    low[10, 20] += 100
    assert judged(replace(evidence, low=low), "residual_blobs")["all"].value == 0
    low[40:42, 60:63] += 40
    found = judged(replace(evidence, low=low), "residual_blobs")["all"]
    assert found.value == 1 and not found.passed
    assert "6 coarse px about x 122, y 82 of the image" in found.meaning  # 2 (61 + 0.5) - 0.5, 2 (40.5 + 0.5) - 0.5
    assert "light is missing" in found.meaning


@pytest.mark.parametrize("freedom", [5, 9, 30])
def test_the_shape_is_that_of_scipy_and_does_not_grow_with_n(freedom: int) -> None:
    values = stats.t.rvs(freedom, size=40_000, random_state=1)
    skew, kurtosis = residual.skew_and_kurtosis(values)
    assert skew == pytest.approx(stats.skew(values), abs=1e-9)  # the same moments
    assert kurtosis == pytest.approx(stats.kurtosis(values), abs=1e-9)  # likewise
    effect = skew**2 / 6 + kurtosis**2 / 24
    assert effect == pytest.approx(stats.jarque_bera(values).statistic / values.size, rel=1e-6)  # JB is n times it


def test_tails_on_the_sky_are_seen(evidence: Evidence) -> None:
    assert evidence.low is not None
    noise = stats.t.rvs(3, size=LOW, random_state=2) * 4 / np.sqrt(3)
    heavy = replace(evidence, low=evidence.degrade(evidence.high) + noise)
    found = judged(heavy, "residual_normality")[evidence.dark_name]
    assert found.passed is False and "excess kurtosis +" in found.meaning


@pytest.mark.parametrize("name", residual.CHECKS)
def test_nothing_is_claimed_of_nothing(evidence: Evidence, name: str) -> None:
    hidden = replace(evidence, mask_low=np.ones(LOW, bool))
    tiny = Evidence(np.ones((8, 8)), 2, low=np.ones((4, 4)), variance=np.ones((4, 4)),
                    operator=Operator((4, 4), 2, dtype=torch.float64))  # fmt: skip
    nothing = replace(evidence, low=np.full(LOW, np.nan))
    for one in (hidden, nothing, *([] if name == "residual_blobs" else [tiny])):
        for result in run_check(name, checks.CHECKS[name], one):
            assert result.value is None and result.meaning.startswith("not computed: ")


def test_constant_images_pass_nothing_that_is_not_noise() -> None:
    exact = Evidence(np.ones((64, 64)), 2, low=np.full((32, 32), 4.0), variance=np.ones((32, 32)),
                     operator=Operator((32, 32), 2, dtype=torch.float64))  # fmt: skip
    for name in ("residual_lag1", "residual_normality"):
        assert all(r.value is None for r in run_check(name, checks.CHECKS[name], exact))


def test_masked_pixels_do_not_change_what_is_left(evidence: Evidence) -> None:
    assert evidence.low is not None
    mask = np.zeros(LOW, bool)
    mask[30:40, 50:60] = True
    spoilt = np.where(mask, np.where(np.arange(LOW[1]) % 2, 1e9, np.nan), evidence.low)
    for name in residual.CHECKS:
        plain = judged(replace(evidence, mask_low=mask), name)
        dirty = judged(replace(evidence, low=spoilt, mask_low=mask), name)
        assert {k: r.value for k, r in plain.items()} == {k: r.value for k, r in dirty.items()}


@pytest.fixture(scope="module")
def posterior() -> Evidence:
    """A scene of white pixels, the exact mean of its posterior, and exact draws; block sums without a kernel."""
    rng = np.random.default_rng(5)
    side, w2, n2 = 128, 1.5, 3.0
    truth = rng.normal(size=(side, side)) * np.sqrt(w2)
    base = replace(data_of(truth, None, np.sqrt(n2)), truth=truth)
    assert base.low is not None

    def estimate(y: Array) -> Array:
        """Sigma A^T (A Sigma A^T + N)^-1 y."""
        return np.kron(y, np.ones((2, 2))) * w2 / (4 * w2 + n2)

    def draw() -> Array:
        e, n = rng.normal(size=truth.shape) * np.sqrt(w2), rng.normal(size=base.low.shape) * np.sqrt(n2)
        return e + estimate(base.low - base.degrade(e) - n)

    return replace(base, high=estimate(base.low), draws=np.stack([draw() for _ in range(8)]))


def test_draws_of_an_exact_posterior_have_chi2_one_and_its_mean_what_they_let_expect(posterior: Evidence) -> None:
    found = checks.check(posterior, names=["chi2_draw"])
    n = 64 * 64
    for result in found:
        chance = 5 * np.sqrt(2 / (n if result.region == "all" else n / 2))  # 5 sigma of a chi-square
        assert result.value == pytest.approx(1 if result.name == "chi2_draw" else 0, abs=chance)
        assert result.passed
    mean = consistency.chi2(posterior)
    assert mean is not None
    assert mean.value == pytest.approx(3 / (4 * 1.5 + 3), abs=5 * np.sqrt(2 / n) / 3)  # tr[N (S + N)^-1] / n


@pytest.mark.parametrize(("factor", "sign"), [(2.0, 1), (0.3, -1)])
def test_draws_of_the_wrong_width_are_caught(posterior: Evidence, factor: float, sign: int) -> None:
    assert posterior.draws is not None
    wrong = replace(posterior, draws=posterior.high + factor * (posterior.draws - posterior.high))
    found = {r.name: r for r in checks.check(wrong, names=["chi2_draw"]) if r.region == "all"}
    assert found["chi2_draw"].passed is False and found["chi2_excess"].passed is False
    assert np.sign(found["chi2_excess"].value or 0) == sign


def test_draws_with_masked_pixels_or_none_at_all(posterior: Evidence) -> None:
    assert posterior.draws is not None
    mask = np.zeros((128, 128), bool)
    mask[:16] = True
    draws = np.where(mask, np.nan, posterior.draws)
    found = checks.check(replace(posterior, draws=draws, mask_high=mask), names=["chi2_draw"])
    assert all(r.passed for r in found)
    with pytest.raises(UnmeasuredError):
        consistency.chi2_draw(replace(posterior, draws=posterior.draws[:0]))
    told = checks.check(replace(posterior, draws=None), names=["chi2_draw"])
    assert told[0].value is None and "--save-samples" in told[0].meaning
