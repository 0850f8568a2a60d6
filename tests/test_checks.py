"""The checks: what a perfect image scores, what each known fault does, and what cannot be seen is not claimed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sciresdiff import checks
from sciresdiff.checks import baselines, calibration, consistency, fidelity, flux, forced, sources
from sciresdiff.checks.deblend import deblend
from sciresdiff.checks.detection import Sources, detect
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.result import Result
from sciresdiff.checks.source_lists import truth_sources
from sciresdiff.errors import UsageError
from sciresdiff.physics import psf
from sciresdiff.physics.operators import Operator

SIDE, SCALE, SKY, NOISE = 256, 2, 10.0, 4.0
Array = NDArray[np.float64]


def star(side: int, x: float, y: float, flux: float, sigma: float = 1.3) -> Array:
    """A Gaussian star, sampled."""
    yy, xx = np.indices((side, side))
    return np.asarray(flux * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2))


@pytest.fixture(scope="module")
def field() -> Array:
    """49 stars, well apart, on a flat sky with a little grain."""
    rng = np.random.default_rng(5)
    grid = np.linspace(30, SIDE - 31, 7)
    places = [(x + rng.uniform(-4, 4), y + rng.uniform(-4, 4)) for x in grid for y in grid]
    image = sum((star(SIDE, x, y, 10 ** rng.uniform(3, 4.5)) for x, y in places), np.full((SIDE, SIDE), SKY))
    return np.asarray(image + rng.normal(size=image.shape))


@pytest.fixture(scope="module")
def evidence(field: Array) -> Evidence:
    """The truth itself, judged on data made from it."""
    kernel = psf.render("gaussian:sigma=1.2px", None, integrate=False)
    operator = Operator((SIDE // SCALE,) * 2, SCALE, kernel, dtype=torch.float64)
    clean = operator.apply(torch.from_numpy(field)[None, None])[0, 0].numpy()
    variance = np.full(clean.shape, NOISE**2)
    low = clean + np.random.default_rng(1).normal(size=clean.shape) * NOISE
    return Evidence(field, SCALE, low=low, variance=variance, truth=field, operator=operator)


def value(result: Result | list[Result] | None, region: str | None = None) -> float:
    """The figure, of the first result or of a region."""
    assert result is not None
    found = result if isinstance(result, list) else [result]
    one = next(r for r in found if region in (None, r.region))
    assert one.value is not None
    return one.value


def test_the_truth_passes_every_check(evidence: Evidence) -> None:
    perfect = replace(evidence, err=np.ones_like(evidence.high), support=np.ones_like(evidence.high))
    found = checks.check(perfect)
    assert set(checks.CHECKS) <= {r.name for r in found} <= set(checks.RESULTS)
    missed = {r.name for r in found if r.passed is False}
    assert missed == {"coverage_68", "coverage_90", "coverage_snr", "ence"}  # no error is made, every ERR is too large
    assert checks.verdict(found, {}) == "warn"


def test_every_check_says_where_and_has_a_limit_with_a_reason(evidence: Evidence) -> None:
    assert all(r.region for r in checks.check(evidence))
    for limits in checks.LIMITS.values():
        assert set(limits) <= set(checks.RESULTS)
        assert all(limit.reason for limit in limits.values())
    assert all(one.make.__doc__ and one.tells and one.blind for one in checks.CHECKS.values())


def test_what_cannot_be_computed_says_why_and_never_passes(evidence: Evidence) -> None:
    found = checks.check(Evidence(evidence.high, SCALE))
    silent = [r for r in found if r.value is None]
    assert {"psnr", "chi2", "coverage_68"} <= {r.name for r in silent}
    assert all(r.meaning.startswith("not computed: ") and r.passed is None for r in silent)
    assert "--truth" in next(r.meaning for r in silent if r.name == "psnr")
    assert checks.verdict(found, {}) == "warn"


@pytest.mark.parametrize("name", checks.CHECKS)
def test_without_low_and_truth_no_check_claims_anything(evidence: Evidence, name: str) -> None:
    line = checks.CHECKS[name]
    if set(line.needs) & {"low", "truth"}:
        assert all(r.value is None for r in checks.check(Evidence(evidence.high, SCALE), names=[name]))


def test_psnr_is_the_formula_and_leaves_masked_pixels_out(evidence: Evidence, field: Array) -> None:
    image = field + np.random.default_rng(0).normal(size=field.shape)
    expected = 10 * np.log10(np.ptp(field) ** 2 / np.mean((image - field) ** 2))
    assert value(fidelity.psnr(evidence.with_image(image))) == pytest.approx(expected, abs=1e-9)  # same float64 sums
    spoilt, mask = image.copy(), np.zeros(field.shape, bool)
    spoilt[:4], mask[:4] = 1e9, True
    spoilt[10, 10] = np.nan
    masked = replace(evidence, mask_high=mask).with_image(spoilt)
    assert value(fidelity.psnr(masked)) == pytest.approx(expected, abs=0.1)  # 4 of 256 rows of the same noise are gone
    assert value(fidelity.ssim(masked)) == pytest.approx(
        value(fidelity.ssim(evidence.with_image(image))), abs=0.02
    )  # as above


@pytest.mark.parametrize(("gain", "offset"), [(0.5, 20.0), (3.0, -7.0)])
def test_si_psnr_is_blind_to_gain_and_offset_and_reports_both(
    evidence: Evidence, field: Array, gain: float, offset: float
) -> None:
    found = fidelity.si_psnr(evidence.with_image((field - offset) / gain))
    assert found is not None
    values = {r.name: r.value or 0.0 for r in found}
    assert values["si_psnr"] > 200  # dB; only rounding is left
    assert values["si_gain"] == pytest.approx(gain, rel=1e-9)  # exact but for rounding
    assert values["si_offset"] == pytest.approx(offset, rel=1e-6)  # likewise, times the range over the offset


@pytest.mark.parametrize("factor", [4.0, 1.003])
def test_total_flux_finds_a_wrong_unit(evidence: Evidence, field: Array, factor: float) -> None:
    good = flux.total_flux_ratio(evidence)
    bad = checks.judge(flux.total_flux_ratio(evidence.with_image(field * factor)), {})  # type: ignore[arg-type]
    assert good is not None and abs((good.value or 0) - 1) < 1e-3  # the noise of 16384 px of sigma 4 over 8e5
    assert bad.value == pytest.approx(factor, rel=1e-3)  # as above
    assert bad.passed is False


def test_total_flux_is_judged_by_the_noise_where_that_dominates() -> None:
    low = np.random.default_rng(0).normal(size=(64, 64))
    faint = Evidence(np.zeros((128, 128)), 2, low=low, variance=np.ones_like(low))
    found = flux.total_flux_ratio(faint)
    assert found is not None and found.value == 0 and found.passed


def test_block_flux_is_zero_for_an_exact_image_and_one_for_the_truth(evidence: Evidence) -> None:
    pure = Operator((SIDE // SCALE,) * 2, SCALE, None, dtype=torch.float64)
    exact = np.kron(evidence.low, np.ones((SCALE, SCALE))) / SCALE**2  # type: ignore[arg-type]
    plain = replace(evidence, operator=pure).with_image(exact)
    assert value(flux.block_flux_rms_sigma(plain)) < 1e-9  # rounding
    assert value(flux.block_flux_rms_sigma(evidence)) == pytest.approx(1, abs=0.15)  # 3 sigma of 256 regions


def test_bicubic_block_flux_on_white_noise_is_what_was_measured() -> None:
    low = np.random.default_rng(3).normal(size=(256, 256))
    image = baselines.bicubic(low, Operator(low.shape, 2))
    found = value(flux.block_flux_rms_sigma(Evidence(image, 2, low=low, variance=np.ones_like(low))))
    assert found == pytest.approx(0.26, abs=0.02)  # the value known from the same experiment, two digits


def test_chi2_is_one_for_the_truth_and_finds_a_lost_star(evidence: Evidence, field: Array) -> None:
    n = evidence.low.size if evidence.low is not None else 1
    for check in (consistency.chi2, consistency.chi2_sky, consistency.chi2_sources):
        assert value(check(evidence)) == pytest.approx(1, abs=5 * np.sqrt(4 / n))  # 5 sigma of n / 2 degrees of freedom
    lost = np.minimum(field, 200)
    assert value(consistency.chi2_sources(evidence.with_image(lost))) > 5
    assert value(consistency.chi2_sky(evidence.with_image(lost))) == pytest.approx(
        1, abs=0.2
    )  # stars leak little into it


def test_masked_pixels_do_not_leak_into_chi2(evidence: Evidence, field: Array) -> None:
    mask = np.zeros(field.shape, bool)
    mask[100:104, 100:110] = True
    spoilt = np.where(mask, 1e8, field)
    masked = replace(evidence, mask_high=mask, shared={}).with_image(spoilt)
    assert value(consistency.chi2(masked)) == pytest.approx(1, abs=0.2)  # what the LEAK of 5 % of sky and grain allows
    assert value(flux.total_flux_ratio(masked)) == pytest.approx(1, abs=2e-3)  # as above


def test_source_checks_find_a_shift_a_dimming_and_an_invention(evidence: Evidence, field: Array) -> None:
    shifted = evidence.with_image(np.roll(field, 1, axis=1))
    assert value(sources.astrometric_offset_px(shifted)) == pytest.approx(1, abs=0.02)  # centroids over other pixels
    assert value(sources.completeness(shifted)) == 1
    dimmed = evidence.with_image((field - SKY) * 0.9 + SKY)
    for region in ("bright", "faint"):
        bias = value(flux.source_flux_bias_mag(dimmed), region)
        assert bias == pytest.approx(-2.5 * np.log10(0.9), abs=0.01)  # the sky is measured, not known
    assert value(flux.source_flux_scatter_mag(dimmed), "bright") < 0.01
    invented = evidence.with_image(field + star(SIDE, 50, 50, 3000) + star(SIDE, 200, 87, 3000))
    count = len(truth_sources(evidence).inner)
    assert value(sources.purity(invented)) == pytest.approx(count / (count + 2))
    assert value(sources.hallucination_fraction(invented)) == pytest.approx(2 / (count + 2))
    assert value(sources.spurious_per_mpix(invented)) == pytest.approx(2 / field.size * 1e6)
    blind = replace(invented, truth=None, shared={})
    assert value(sources.spurious_per_mpix(blind)) == pytest.approx(2 / field.size * 1e6)
    missing = evidence.with_image(np.minimum(field, SKY + 3))
    assert value(sources.completeness(missing)) == 0


def test_forced_significance_of_noise_is_normal(evidence: Evidence) -> None:
    low = np.random.default_rng(8).normal(size=(SIDE // SCALE,) * 2) * NOISE
    noise = replace(evidence, low=low, shared={})
    places = np.random.default_rng(9).uniform(21, SIDE - 22, (2000, 2))
    flat = np.zeros((SIDE, SIDE))
    snr = forced.significance(noise, Sources(places, places, flat, flat, 1.0))
    assert snr is not None
    assert float(np.std(snr)) == pytest.approx(1, abs=0.1)  # 2000 places on 16384 px are correlated
    assert -0.1 < float(np.mean(snr)) < 0.3  # the larger of two nearly equal figures: 0.1 on average


def test_pure_noise_is_no_field_of_sources() -> None:
    found = detect(np.random.default_rng(0).normal(size=(256, 256)))
    assert len(found) == 0  # 5 pixels at 5 sigma each
    assert len(detect(np.full((40, 40), 7.0))) == 0
    assert len(detect(np.full((40, 40), np.nan))) == 0


def test_deblending_splits_at_a_saddle_and_not_on_a_shoulder() -> None:
    pair = star(64, 27, 30, 1000, 2.0) + star(64, 35, 30, 500, 2.0)
    one = star(64, 27, 30, 1000, 2.0) + star(64, 29, 30, 300, 2.0)
    for image, count in ((pair, 2), (one, 1)):
        labels = deblend(image, (image > 1).astype(int), 1.0)
        assert labels.max() == count
        assert np.array_equal(labels > 0, image > 1)
    faint = star(64, 27, 30, 1000, 2.0) + star(64, 38, 30, 4, 1.0)
    assert deblend(faint, (faint > 0.001).astype(int), 0.001).max() == 1  # 0.4 % of the flux, below the contrast


def test_detection_does_not_depend_on_units(field: Array) -> None:
    first, second = detect(field), detect(field * 1e-9 + 3e-9)
    assert len(first) == len(second) > 40
    assert np.allclose(first.xy, second.xy, atol=1e-4)  # px; rounding moves a pixel at the threshold at most


@pytest.mark.parametrize(("width", "share"), [(1.0, 0.683), (0.5, 0.383)])
def test_coverage_is_the_normal_law(evidence: Evidence, field: Array, width: float, share: float) -> None:
    error = np.random.default_rng(4).normal(size=field.shape)
    image = replace(evidence.with_image(field + error), err=np.full(field.shape, width))
    for region, tolerance in (("all", 0.01), ("sky", 0.01), ("sources", 0.04)):  # 3 sigma of the pixels there are
        assert value(calibration.coverage_68(image), region) == pytest.approx(share, abs=tolerance)


def test_support_fraction_is_weighted_by_structure(evidence: Evidence) -> None:
    support = np.where(evidence.high > 500, 1.0, 0.0)
    found = value(calibration.support_fraction(replace(evidence, support=support)))
    assert 0.5 < found < 1  # most light of a star lies in its core


def test_micro_names_its_regions_and_scores_no_sources_in_a_texture(evidence: Evidence) -> None:
    texture = gaussian_filter(np.random.default_rng(2).normal(size=(SIDE, SIDE)), 12) * 1000
    other = replace(evidence, kind="micro", truth=texture, shared={}).with_image(texture + 1)
    found = [r for r in checks.check(other) if r.value is not None]
    assert {"foreground", "background"} <= {r.region for r in found}
    assert not {"completeness", "purity", "hallucination_fraction"} & {r.name for r in found}


def test_own_limits_win_and_are_read_from_toml(tmp_path: Path, evidence: Evidence) -> None:
    file = tmp_path / "limits.toml"
    file.write_text('completeness = [1.5, "none"]\nchi2 = [0, 2]\n')
    own = checks.read_limits(file, checks.RESULTS)
    found = {r.name: r for r in checks.check(evidence, own)}
    assert found["completeness"].limit == (1.5, None) and found["completeness"].passed is False
    assert found["chi2"].limit == (0.0, 2.0)
    assert checks.verdict(found.values(), own) == "fail"


@pytest.mark.parametrize(
    ("text", "words"),
    [("nothing = [0, 1]", "unknown result"), ("chi2 = 3", "give \\[low, high\\]"), ("chi2 = [", "cannot be read")],
)
def test_bad_limits_are_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "limits.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=f"--limits: .*{words}"):
        checks.read_limits(file, checks.RESULTS)


def test_a_warning_is_no_failure() -> None:
    def judge(name: str, figure: float) -> Result:
        return checks.judge(Result(name, figure, "", "all"), {})

    assert checks.verdict([judge("purity", 0.5)], {}) == "warn"
    assert checks.verdict([judge("hallucination_fraction", 0.5)], {}) == "fail"
    assert checks.verdict([judge("chi2_sky", 0.1)], {}) == "warn"
    assert checks.verdict([judge("chi2_sky", 2.0)], {}) == "fail"
    assert checks.verdict([judge("chi2", 1.0), judge("chi2", float("nan"))], {}) == "pass"


def test_psnr_is_given_clear_of_masked_pixels_too(evidence: Evidence, field: Array) -> None:
    mask = np.zeros(field.shape, bool)
    mask[128, 128] = True
    image = field + np.random.default_rng(0).normal(size=field.shape)
    expected = value(fidelity.psnr(evidence.with_image(image)))
    image[126:131, 126:131] += 1000  # a ring around the mask, all of it within 6 px
    spoilt = replace(evidence, mask_high=mask, shared={}).with_image(image)
    assert value(fidelity.psnr(spoilt), "all") < expected - 20
    assert value(fidelity.psnr(spoilt), "clear") == pytest.approx(expected, abs=0.05)  # 113 of 65536 px are gone
