"""TRUST: what is counted, the test that fixes the threshold, and where the mask must say nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from scipy.stats import binom

from sciresdiff import checks
from sciresdiff.checks import trust as judge
from sciresdiff.checks.evidence import Evidence
from sciresdiff.errors import UsageError
from sciresdiff.jobs.upscale import job as upscale
from sciresdiff.jobs.upscale import models as chosen
from sciresdiff.observation.observation import Observation
from sciresdiff.physics.operators import Operator
from sciresdiff.restoration import model as models
from sciresdiff.restoration import trust
from sciresdiff.restoration.prior import Prior, PriorConfig
from sciresdiff.restoration.restored import RestoredPlane
from sciresdiff.training import trust as calibration
from sciresdiff.training.recipe import DataRecipe
from sciresdiff.training.simulated_frame import simulate_frames

SIDE, SCALE = 32, 2
RECIPE = DataRecipe(scale=2, patch=32, scene_px=128, pool=4)


def star(**changes: object) -> tuple[RestoredPlane, Observation]:
    """A star on an empty sky, restored: 32 x 32 coarse px of unit noise, seen without blur; ``changes`` of either."""
    yy, xx = np.indices((SIDE * SCALE,) * 2)
    image = 100 * np.exp(-((xx - 30) ** 2 + (yy - 33) ** 2) / 4.0)
    flat = np.ones_like(image)
    low = image.reshape(SIDE, SCALE, SIDE, SCALE).sum((1, 3)) + np.random.default_rng(0).normal(size=(SIDE, SIDE))
    restored = RestoredPlane(image, 0.1 * flat, flat, 0 * flat, None, 0.9, 1.0, 8)
    frame = {"pixels": low, "variance": np.ones((SIDE, SIDE)), "mask": None, "psf": None}
    ours = {name: value for name, value in changes.items() if name not in frame}
    observed = frame | {name: value for name, value in changes.items() if name in frame}
    return replace(restored, **ours), Observation.of_arrays(**observed, scale=SCALE)  # type: ignore[arg-type]


CARD = {
    "alpha": 0.1, "delta": 0.1, "threshold": 0.3, "images": 100, "score": trust.SCORE, "field": "astro",
    "domain": {"sigma_low_px": [0.0, 1.3], "snr": [1.0, 1e4], "noise": 0.7, "chi2": [[0.5, 1.1]] * 4, "sharpness": 0.3},
}  # fmt: skip


def test_a_claim_is_wrong_where_the_truth_has_less_than_half_of_it_or_the_other_sign() -> None:
    contrast = np.array([4.0, 4.0, 4.0, -4.0, -4.0, 4.0])
    image = contrast + 10  # background 10
    truth = np.array([14.0, 12.1, 11.9, 6.1, 14.0, 16.1])  # of the claims 1, 0.52, 0.48, 0.98, -1 and 1.52
    assert judge.wrong(image, truth, contrast).tolist() == [False, False, True, False, True, True]
    assert judge.risk(np.array([True, False]), np.array([False, True])) == 0
    assert judge.risk(np.zeros(3, bool), np.ones(3, bool)) == 0  # nothing kept: no risk, and the image counts


def test_contrast_and_noise_do_not_depend_on_unit_or_quantity() -> None:
    image = np.random.default_rng(1).normal(size=(40, 40))
    assert np.allclose(judge.contrast(3 * image + 50, 2), 3 * judge.contrast(image, 2), atol=1e-12)  # float64 rounding
    variance = np.full((20, 20), 4.0)
    total, mean = (Operator((20, 20), 2, quantity=quantity) for quantity in ("sum", "mean"))
    assert judge.noise_per_fine_pixel(variance, total).max() == 0.5
    assert judge.noise_per_fine_pixel(variance, mean).shape == (40, 40)
    assert judge.noise_per_fine_pixel(variance, mean).max() == 2


def test_the_score_is_infinite_where_nothing_is_claimed_or_masked() -> None:
    scores = trust.score(*star())
    assert np.isfinite(scores[33, 30]) and scores[33, 30] < 0.01  # ERR is a thousandth of the star's peak
    assert np.isinf(scores[2, 2])  # empty sky
    masked = np.zeros((SIDE, SIDE), bool)
    masked[16, 15] = True
    dirty = star(mask=masked, variance=np.where(masked, np.nan, 1.0))
    assert np.isinf(trust.score(*dirty)[32:34, 30:32]).all()
    assert not np.isnan(trust.score(*dirty)).any()
    assert np.isinf(trust.score(*star(gate=np.ones((64, 64))))).sum() == np.isinf(scores).sum()
    assert trust.score(*star(gate=np.ones((64, 64))))[33, 30] == 1  # the physics alone is not what was calibrated
    assert trust.score(*star(support=np.zeros((64, 64))))[33, 30] == 0.5


def test_few_pixels_are_none() -> None:
    scores = np.full((10, 10), np.inf)
    scores[0, :9] = scores[1, :9] = 0.1
    assert not trust.trusted_pixels(scores, 0.2).any()  # 18 of them
    scores[2, :9] = 0.1
    assert trust.trusted_pixels(scores, 0.2).sum() == 27


def test_the_mask_is_one_or_zero_and_never_nan() -> None:
    plane, why = trust.mask(CARD, *star())
    assert why is None and plane is not None
    assert set(np.unique(plane)) == {0, 1} and plane.dtype == np.uint8
    nan = star()[0].mean.copy()
    nan[:4] = np.nan
    plane, _ = trust.mask(CARD, *star(mean=nan))
    assert plane is not None and not plane[:4].any()


@pytest.mark.parametrize(
    ("card", "changes", "words"),
    [
        (None, {}, "no calibrated mask"),
        (CARD | {"score": "another"}, {}, "another score"),
        (CARD | {"threshold": None}, {}, "no threshold"),
        (CARD, {"chi2": 1.3}, "chi2"),
        (CARD, {"chi2": float("nan")}, "chi2"),
        (CARD, {"psf": np.outer(np.hanning(31), np.hanning(31)) / 225}, "kernel's width"),
        (CARD, {"variance": np.full((SIDE, SIDE), 0.25)}, "times the stated one"),
        (CARD, {"pixels": np.zeros((SIDE, SIDE))}, "signal to noise"),
        (CARD, {"pixels": np.full((SIDE, SIDE), np.nan)}, "nan"),
        (CARD, {"mask": np.ones((SIDE, SIDE), bool)}, "nan"),
        (CARD | {"domain": {**CARD["domain"], "sharpness": 5.0}}, {}, "stated PSF"),  # type: ignore[dict-item]
    ],
)  # fmt: skip
def test_it_says_nothing_outside_its_domain(
    card: dict[str, object] | None, changes: dict[str, object], words: str
) -> None:
    plane, why = trust.mask(card, *star(**changes))
    assert plane is None and why is not None and words in why


def test_the_p_value_is_valid_and_that_of_hoeffding_and_bentkus() -> None:
    rng = np.random.default_rng(0)
    drawn = (rng.random((4000, 60)) < 0.1).mean(1)  # the risk is alpha itself, of the widest losses there are
    p = np.array([calibration.p_value(float(r), 60, 0.1) for r in drawn])
    for level in (0.05, 0.1, 0.3):
        assert (p <= level).mean() <= level + 0.01  # valid; 0.01 is two sigma of 4000 draws
    r, n = 0.03, 100
    hoeffding = np.exp(-n * (r * np.log(r / 0.1) + (1 - r) * np.log((1 - r) / 0.9)))
    assert calibration.p_value(r, n, 0.1) == pytest.approx(min(hoeffding, np.e * binom.cdf(3, n, 0.1)), rel=1e-9)
    assert calibration.p_value(0.0301, n, 0.1) > calibration.p_value(r, n, 0.1)  # ceil, not floor
    assert calibration.p_value(0.5, n, 0.1) == 1


def test_the_sequence_stops_at_the_first_threshold_that_is_not_rejected() -> None:
    count = len(calibration.THRESHOLDS)
    risks = np.zeros((100, count))
    assert calibration.choose_threshold(risks) == calibration.THRESHOLDS[-1]
    risks[:, 20] = 0.3  # not monotone: beyond it the risk is 0 again
    assert calibration.choose_threshold(risks) == calibration.THRESHOLDS[19]
    assert calibration.choose_threshold(np.full((100, count), 0.3)) is None
    with pytest.raises(UsageError, match="--count: 49"):
        calibration.choose_threshold(risks[:49])


def test_the_realised_risk_is_below_alpha_in_nine_repetitions_of_ten() -> None:
    """Losses that grow with the threshold and scatter much from image to image, as the real ones do."""
    rng = np.random.default_rng(3)
    mean = np.clip(np.linspace(0, 0.3, len(calibration.THRESHOLDS)), 1e-6, 1)
    below = []
    for _ in range(50):
        risks = rng.beta(0.3 * mean, 0.3 * (1 - mean), (80, len(mean)))
        chosen = calibration.choose_threshold(risks)
        below.append(chosen is None or mean[np.searchsorted(calibration.THRESHOLDS, chosen)] <= 0.1)
    assert np.mean(below) >= 0.9  # 1 - delta


def test_the_counts_are_those_of_the_mask_at_every_threshold() -> None:
    one, frame = star(err=np.random.default_rng(2).uniform(0.1, 3, (64, 64)))
    truth = one.mean + np.random.default_rng(4).normal(size=(64, 64)) * 2
    found = calibration.count_claims(one, frame, truth)
    bad = judge.wrong(one.mean, truth, judge.contrast(one.mean, SCALE))
    for at in (20, 40, 55):
        kept = trust.trusted_pixels(trust.score(one, frame), calibration.THRESHOLDS[at])
        assert found.risks[at] == pytest.approx(judge.risk(kept, bad), abs=1e-12)  # the same integers
        assert found.kept[at] >= kept.sum()
    assert np.all(np.diff(found.true) >= 0) and 0 < found.true[-1] <= 1
    assert found.claimed == np.isfinite(trust.score(one, frame)).sum()


def test_every_calibration_frame_has_a_scene_of_its_own() -> None:
    recipe = calibration.exchangeable(replace(RECIPE, real_share=0.5))
    drawn = list(simulate_frames(recipe, 5, 6))
    assert (recipe.pool, recipe.reuse, recipe.grain_share, recipe.real_share) == (1, 1, 0.0, 0.0)
    assert len({float(k.truth.sum()) for k in drawn}) == 6


def test_a_card_says_all_that_the_mask_needs() -> None:
    prior = Prior(PriorConfig(2, stages=1, width=8, depth=1))  # untrained: the physics alone, and fast
    recipe = replace(RECIPE, patch=16, scene_px=64, noise=(0.05, 1.0))
    model = calibration.calibrate_trust(models.Model(prior), recipe, 11, calibration.LEAST_IMAGES)
    card = model.card["trust"]
    assert (card["images"], card["field"], card["from"], card["seed"]) == (50, "astro", "simulation", 11)
    assert {"alpha", "delta", "threshold", "score", "domain", "recipe"} <= set(card)
    assert json.loads(json.dumps(card)) == card
    assert "simulated frames (astro)" in trust.promise(card)
    with pytest.raises(UsageError, match="--count: 10"):
        calibration.calibrate_trust(model, RECIPE, 0, 10)


def test_upscale_writes_the_plane_or_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    low = star()[1].exposure.pixels.astype(np.float32)
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(low, name="SCI"), fits.ImageHDU(np.ones_like(low), name="VAR")]
    fits.HDUList(hdus).writeto(tmp_path / "low.fits")
    wide = CARD | {"domain": {**CARD["domain"], "chi2": [[0.0, 99.0]] * 4, "sharpness": 0.0}}  # type: ignore[dict-item]
    plain = models.load("astro-x2")
    monkeypatch.setattr(chosen, "load_cached", lambda name: plain.with_card(trust=wide))
    options = upscale.UpscaleOptions(model="astro-x2", kernel="none", quantity="sum")
    record = upscale.run(tmp_path / "low.fits", tmp_path / "a.fits", options)
    with fits.open(tmp_path / "a.fits") as found:
        assert set(np.unique(found["TRUST"].data)) == {0, 1}
        assert found["SCI"].header["SRDTRUST"] == "alpha 0.1 delta 0.1, 100 simulated frames (astro)"
    assert any(line.startswith("trust: at most 10 %") for line in record["said"])
    fewer = replace(options, samples=2)
    record = upscale.run(tmp_path / "low.fits", tmp_path / "b.fits", fewer)
    with fits.open(tmp_path / "b.fits") as found:
        assert "TRUST" not in found
        assert found["SCI"].header["SRDTRUST"] == "it was calibrated with 8 draws, not 2"
    assert "trust: no TRUST plane: it was calibrated with 8 draws, not 2" in record["said"]


def evidence(**changes: object) -> Evidence:
    """The star of `star`, judged, all of it trusted where it is bright."""
    one, frame = star()
    low, variance = frame.exposure.pixels, frame.exposure.variance
    made = Evidence(one.mean, SCALE, low=low, variance=variance, truth=one.mean, trust=1.0 * (one.mean > 5))
    return replace(made, **changes)  # type: ignore[arg-type]


def test_the_checks_measure_the_realised_risk_and_the_trusted_share() -> None:
    def of(given: Evidence, name: str) -> checks.Result:
        (found,) = checks.check(given, names=[name])
        return found

    assert of(evidence(), "trust_risk").value == 0
    invented = evidence(truth=np.zeros((64, 64)))
    assert of(invented, "trust_risk").value == 1 and of(invented, "trust_risk").passed is False
    assert 0 < (of(evidence(), "trusted_share").value or 0) < 1  # the star's dark ring claims structure, too
    masked = evidence(truth=np.zeros((64, 64)), mask_high=star()[0].mean > 5)
    assert of(masked, "trust_risk").value is None and "no pixel is trusted" in of(masked, "trust_risk").meaning
    flat = evidence(high=np.full((64, 64), 3.0), trust=np.zeros((64, 64)))
    assert of(flat, "trusted_share").value is None
    assert "TRUST plane" in of(evidence(trust=None), "trust_risk").meaning
