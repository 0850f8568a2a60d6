"""Checks of fluxes by magnitude, of sources at equal density of false ones, and of empty sky."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sciresdiff import checks
from sciresdiff.checks import empty_sky, flux, flux_error, forced, sources
from sciresdiff.checks.background import background
from sciresdiff.checks.check import UnmeasuredError
from sciresdiff.checks.detection import detect, detect_again
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.psf_matching import gaussian_blur
from sciresdiff.checks.result import Result
from sciresdiff.checks.source_lists import truth_sources
from sciresdiff.physics import psf
from sciresdiff.physics.operators import Operator

Array = NDArray[np.float64]
ROWS, COLUMNS, SCALE, SKY, NOISE = 300, 240, 2, 10.0, 4.0
NEW = (
    "source_flux_bias_mag", "source_flux_scatter_mag", "flux_error_star", "completeness_equal_spurious",
    "negative_per_mpix", "empty_aperture_sigma", "fwhm_px", "ellipticity_bias", "size_bias",
)  # fmt: skip


def star(x: float, y: float, total: float, sigma: float = 1.3) -> Array:
    """A Gaussian star, sampled, on the whole frame."""
    yy, xx = np.indices((ROWS, COLUMNS))
    return np.asarray(total * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2))


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """70 stars of 4 magnitudes on a sky with a little grain, as their own image, with data made of them."""
    rng = np.random.default_rng(2)
    grid = [(x, y) for y in np.linspace(26, ROWS - 27, 10) for x in np.linspace(26, COLUMNS - 27, 7)]
    truth = np.full((ROWS, COLUMNS), SKY) + rng.normal(size=(ROWS, COLUMNS))
    for k, (x, y) in enumerate(grid):
        truth += star(x + rng.uniform(-3, 3), y + rng.uniform(-3, 3), 10 ** (3 + 1.6 * k / len(grid)))
    kernel = psf.render("gaussian:sigma=1.2px", None, integrate=False)
    operator = Operator((ROWS // SCALE, COLUMNS // SCALE), SCALE, kernel, dtype=torch.float64)
    clean = operator.apply(torch.from_numpy(truth)[None, None])[0, 0].numpy()
    low = clean + np.random.default_rng(3).normal(size=clean.shape) * NOISE
    return Evidence(truth, SCALE, low=low, variance=np.full(low.shape, NOISE**2), truth=truth, operator=operator)


def of(results: Result | list[Result], name: str, region: str | None = None) -> Result:
    """A result by name and region."""
    found = results if isinstance(results, list) else [results]
    return next(r for r in found if r.name == name and region in (None, r.region))


def number(result: Result) -> float:
    """Its value."""
    assert result.value is not None
    return result.value


def test_flux_by_magnitude_is_that_of_every_bin(evidence: Evidence) -> None:
    dim = evidence.with_image((evidence.high - SKY) * 0.8 + SKY)
    found = flux.flux_by_magnitude(dim)
    assert found.magnitude.min() == 0 and len(found.delta) == len(found.xy) == 70
    assert sum(one.count for one in found.bins) == len(found.magnitude)
    lost = -2.5 * np.log10(0.8)
    for one in found.bins:
        inside = (found.magnitude >= one.low) & (found.magnitude < one.high)
        assert one.count == inside.sum() >= flux.ENOUGH_IN_BIN
        assert one.median == pytest.approx(lost, abs=0.005)  # the sky is measured, not known
    bias = flux.source_flux_bias_mag(dim)
    assert [r.region for r in bias] == ["bright", "faint", "mag 0-1", "mag 1-2", "mag 2-3", "mag 3-4"]
    assert number(of(bias, "source_flux_bias_mag", "mag 1-2")) == found.bins[1].median


def test_a_blur_that_keeps_the_light_is_no_flux_bias_and_is_said(evidence: Evidence) -> None:
    wide = evidence.with_image(gaussian_blur(evidence.high, 2.5))
    found = flux.flux_by_magnitude(wide)
    assert "the truth blurred" in found.matching and "3.06 px in the truth" in found.matching
    assert abs(np.median(found.delta)) < 0.005  # bisection on the sampled median star
    lossy = evidence.with_image(gaussian_blur((evidence.high - SKY) * 0.9 + SKY, 2.5))
    assert np.median(flux.flux_by_magnitude(lossy).delta) == pytest.approx(-2.5 * np.log10(0.9), abs=0.01)  # likewise
    few = evidence.with_image(gaussian_blur(evidence.high, 2.5))
    assert of(checks.check(few, names=["source_flux_bias_mag"]), "source_flux_bias_mag", "bright").passed


def test_the_limit_of_the_bias_leaves_room_for_chance(evidence: Evidence) -> None:
    noisy = evidence.with_image(evidence.high + np.random.default_rng(0).normal(size=evidence.high.shape) * 30)
    bright = of(flux.source_flux_bias_mag(noisy), "source_flux_bias_mag", "bright")
    assert bright.limit is not None and bright.limit[1] is not None and bright.limit[1] > 0.015
    lone = evidence.truth[:150, :120] if evidence.truth is not None else evidence.high
    few = of(checks.check(Evidence(lone, 1, truth=lone), names=["source_flux_bias_mag"]), "source_flux_bias_mag")
    assert few.value == 0 and few.passed is None  # too few to know what chance does


def test_flux_error_star_is_the_formula(evidence: Evidence) -> None:
    image = evidence.with_image((evidence.high - SKY) * 1.1 + SKY)
    found = flux_error.flux_error_star(image)
    assert evidence.truth is not None
    bad = np.zeros(evidence.truth.shape, bool)
    shapes = flux_error.ellipses(evidence.truth, bad)
    fluxes = [flux_error.ellipse_sums(plane - background(plane)[0], shapes) for plane in (image.high, evidence.truth)]
    off = np.abs(fluxes[0] - fluxes[1])
    assert number(found[0]) == pytest.approx(off.mean(), rel=1e-6)  # the same sums, of a plane kept in float32
    assert number(found[1]) == pytest.approx(np.median(off / np.abs(fluxes[1])), rel=1e-6)  # as above
    assert number(found[1]) == pytest.approx(0.1, abs=0.02)  # noise sources are scaled, too, but for the sky's error
    yy, xx = np.indices((41, 41))
    one = flux_error.Ellipses(np.array([[20.0, 20.0]]), np.array([3.0]), np.array([1.5]), np.array([0.4]))
    assert flux_error.ellipse_sums(np.ones(yy.shape), one)[0] == pytest.approx(np.pi * 3 * 1.5 * 2.5**2)  # exact shares


def test_flux_error_star_agrees_with_sep(evidence: Evidence) -> None:
    sep = pytest.importorskip("sep", reason="the oracle of the STAR benchmark's flux error is sep; pip install sep")
    truth = evidence.high
    for image in (gaussian_blur(truth, 0.8), truth * 1.1 + 3):
        level, their_level = sep.Background(truth), sep.Background(image)
        found = sep.extract(truth - level.back(), 1.5, err=level.rms(), clean=False)
        places = [found[name] for name in ("x", "y", "a", "b", "theta")]
        theirs = [
            sep.sum_ellipse(plane - back.back(), *places, 2.5)[0]
            for plane, back in ((truth, level), (image, their_level))
        ]
        results = flux_error.flux_error_star(evidence.with_image(image))
        expected = np.abs(theirs[1] - theirs[0])
        # of 500 sources a few per cent are noise that only one of the two takes for a source
        assert number(results[0]) == pytest.approx(expected.mean(), rel=0.06)
        assert number(results[1]) == pytest.approx(np.median(expected / np.abs(theirs[0])), rel=0.06)


def test_completeness_at_equal_density_does_not_reward_more_of_everything(evidence: Evidence) -> None:
    names = ["completeness_equal_spurious"]
    assert checks.check(evidence, names=names)[0].value == 1
    rng = np.random.default_rng(7)
    spots = sum((star(*rng.uniform(25, 215, 2), 2500) for _ in range(60)), np.zeros(evidence.high.shape))
    crowd = checks.check(evidence.with_image(evidence.high + spots), names=names)[0]
    assert number(sources.completeness(evidence.with_image(evidence.high + spots))) > 0.95
    assert number(crowd) < 0.85  # what is fainter than the spots is beyond the threshold that lets three of them in
    # not the image's own noise: a flat sky finds no more than a grainy one
    calm = evidence.with_image(np.where(evidence.high < SKY + 4, SKY, evidence.high))
    assert checks.check(calm, names=names)[0].value == 1


def test_detection_below_is_detection_again(evidence: Evidence) -> None:
    mask = np.zeros(evidence.high.shape, bool)
    mask[:, :60] = True
    found = detect(evidence.high, noise=2.0, mask=mask)
    again = detect_again(found, 2.0, mask)
    assert np.array_equal(found.xy, again.xy) and np.array_equal(found.peaks, again.peaks)
    assert len(detect_again(found, 2.0, mask, sigmas=50)) < len(found)


def test_negative_image_shows_ripples_and_holes(evidence: Evidence) -> None:
    names = ["negative_per_mpix"]
    clean = checks.check(evidence, names=names)[0]
    assert clean.value == 0 and clean.passed
    holes = star(120, 150, 900) + star(60, 60, 900)
    bad = checks.check(evidence.with_image(evidence.high - holes), names=names)[0]
    assert number(bad) == pytest.approx(2 / evidence.high.size * 1e6)
    sharp = evidence.high + 6 * (evidence.high - gaussian_blur(evidence.high, 2.0))
    rings = checks.check(evidence.with_image(sharp), names=names)[0]
    assert number(rings) * evidence.high.size / 1e6 > 20 and rings.passed is False
    positive = evidence.with_image(np.maximum(sharp, SKY))
    assert checks.check(positive, names=names)[0].value == 0  # as the docstring warns
    real = replace(evidence, truth=evidence.high - holes, shared={}).with_image(evidence.high - holes)
    assert checks.check(real, names=names)[0].passed  # dark in the truth, too


def test_empty_apertures_scatter_as_the_draws_say(evidence: Evidence) -> None:
    rng, width = np.random.default_rng(11), 1.5
    flat = gaussian_blur(np.full(evidence.high.shape, SKY), 0.0)

    def error() -> Array:
        return gaussian_blur(rng.normal(size=flat.shape), 2.0) * width

    bright = evidence.high - evidence.high + sum((star(x, 150, 3000) for x in (60, 120, 180)), flat)
    low = evidence.degrade(bright) + rng.normal(size=(ROWS // SCALE, COLUMNS // SCALE)) * NOISE
    sky = replace(evidence, truth=None, low=low, shared={}, draws=np.stack([bright + error() for _ in range(16)]))
    good = replace(sky, high=bright + error())
    found = checks.check(replace(good, err=np.full(flat.shape, 0.2)), names=["empty_aperture_sigma"])
    sigma = of(found, "empty_aperture_sigma")
    assert number(sigma) == pytest.approx(1 / np.sqrt(1 + 1 / 16), abs=0.15)  # 500 circles, 16 draws
    assert sigma.passed and "quadrature" in sigma.meaning
    assert of(found, "empty_aperture_mean").passed
    wild = replace(sky, high=bright + 4 * error())
    assert of(checks.check(wild, names=["empty_aperture_sigma"]), "empty_aperture_sigma").passed is False
    raised = replace(sky, high=bright + 1.0)
    mean = of(checks.check(raised, names=["empty_aperture_sigma"]), "empty_aperture_mean")
    assert number(mean) > 3 and mean.passed is False
    without = of(empty_sky.empty_aperture_sigma(replace(good, draws=None)), "empty_aperture_sigma")
    assert without.limit is None and number(without) < 1


def test_sky_that_is_not_empty_has_no_scatter(evidence: Evidence) -> None:
    assert evidence.low is not None
    yy, xx = np.indices(evidence.low.shape)
    rough = replace(evidence, low=evidence.low + 15 * np.sin(xx / 3) * np.sin(yy / 3), truth=None, shared={})
    found = of(checks.check(rough, names=["empty_aperture_sigma"]), "empty_aperture_sigma")
    assert found.value is None and "not empty" in found.meaning and found.passed is None


def test_empty_aperture_noise_is_that_of_white_data() -> None:
    for quantity in ("sum", "mean"):
        low = np.random.default_rng(1).normal(size=(150, 130)) + 100
        image = np.kron(low, np.ones((2, 2))) / (4 if quantity == "sum" else 1)
        plain = Evidence(image, 2, low=low, variance=np.ones_like(low), quantity=quantity)  # type: ignore[arg-type]
        found = of(empty_sky.empty_aperture_sigma(plain), "empty_aperture_sigma")
        assert number(found) == pytest.approx(1, abs=0.1)  # 500 circles; the sky is clipped where noise looks bright


def test_overlay_says_what_became_of_every_source(evidence: Evidence) -> None:
    image = evidence.with_image(evidence.high + star(45, 45, 3000))
    seen = sources.classify_sources(image)
    assert (len(seen.matched), len(seen.missed), len(seen.spurious)) == (70, 0, 1)
    assert np.allclose(seen.spurious[0], (45, 45), atol=0.1)  # px
    assert seen.snr is not None and len(seen.snr) == len(seen.found) == 71
    blind = sources.classify_sources(replace(image, truth=None, shared={}))
    assert len(blind.missed) == 0 and len(blind.matched) + len(blind.spurious) == len(blind.found)
    assert np.allclose(blind.spurious[0], (45, 45), atol=0.1)  # px; the data have no star there
    with pytest.raises(UnmeasuredError, match="needs a truth"):
        sources.classify_sources(Evidence(evidence.high, SCALE))


def test_forced_photometry_measures_stars_in_the_data(evidence: Evidence) -> None:
    found = forced.forced_photometry(evidence)
    assert len(found.xy) == len(found.flux) == 70
    # a point of one fine pixel is what is fitted: a star of FWHM 3 px is broader than that
    ratio = found.flux / truth_sources(evidence).fluxes
    assert np.median(ratio) == pytest.approx(np.median(ratio[-20:]), rel=0.1)  # the same for bright and faint
    assert 0.4 < np.median(ratio) < 1
    assert np.all(found.snr >= 0.99 * found.flux / found.sigma)
    nothing = forced.forced_photometry(evidence.with_image(np.full(evidence.high.shape, SKY)))
    assert len(nothing.xy) == 0
    with pytest.raises(UnmeasuredError, match="data with their noise and blur"):
        forced.forced_photometry(Evidence(evidence.high, SCALE))


def degenerate(words: str) -> Evidence:
    """Input that has nothing to measure, or only one source."""
    rng = np.random.default_rng(1)
    high, low = rng.normal(size=(96, 80)), rng.normal(size=(48, 40))
    plain = Evidence(high, 2, low=low, variance=np.ones_like(low), truth=high.copy())
    yy, xx = np.indices(high.shape)
    spot = 500 * np.exp(-((xx - 40) ** 2 + (yy - 48) ** 2) / 4)
    return {
        "constant truth": replace(plain, truth=np.full(high.shape, 7.0)),
        "constant everything": Evidence(
            np.ones_like(high), 2, low=4 * np.ones_like(low), variance=np.ones_like(low), truth=np.ones_like(high)
        ),
        "negative mean": replace(plain, truth=high - 50, high=high - 50, low=low - 200),
        "all masked": replace(plain, mask_high=np.ones(high.shape, bool)),
        "all NaN": replace(plain, high=np.full(high.shape, np.nan)),
        "no source": plain,
        "one source": replace(plain, high=high + spot, truth=high + spot),
        "tiny": Evidence(high[:8, :6], 2, low=low[:4, :3], variance=np.ones((4, 3)), truth=high[:8, :6]),
    }[words]


CASES = ("constant truth", "constant everything", "negative mean", "all masked", "all NaN", "no source", "tiny")


@pytest.mark.parametrize("case", CASES)
def test_degenerate_input_says_why_and_claims_nothing_about_sources(case: str) -> None:
    named = [*NEW, "completeness", "purity", "astrometric_offset_px", "total_flux_ratio", "block_flux_rms_sigma"]
    found = checks.check(degenerate(case), names=[*named, "spurious_per_mpix", "hallucination_fraction"])
    about_truth = {"source_flux_bias_mag", "completeness", "purity", "size_bias", "flux_error_star", "fwhm_px"}
    for result in found:
        assert result.value is None or np.isfinite(result.value)
        if result.value is None:
            assert result.meaning.startswith("not computed: ") and result.passed is None
        if result.name in about_truth:
            assert result.value is None
    reasons = {"constant truth": "constant", "all masked": "masked", "no source": "no source", "all NaN": "masked"}
    if case in reasons:
        assert reasons[case] in next(r.meaning for r in found if r.name == "completeness")


def test_one_source_is_measured_and_not_judged_by_chance() -> None:
    found = checks.check(degenerate("one source"), names=[*NEW, "completeness"])
    assert of(found, "completeness").value == 1
    assert of(found, "source_flux_bias_mag").value == 0
    assert "are needed" in of(found, "size_bias").meaning


def test_micro_images_have_no_stars_and_no_holes(evidence: Evidence) -> None:
    found = checks.check(replace(evidence, kind="micro", shared={}), names=list(NEW))
    assert "microscope" in of(found, "fwhm_px").meaning and "microscope" in of(found, "negative_per_mpix").meaning
    bias = of(found, "source_flux_bias_mag", "bright")
    assert bias.value == 0 and "not matched" in bias.meaning
