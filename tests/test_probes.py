"""Probes: blank sky and sources put into the data, restored by methods that are honest and by methods that are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sciresdiff import checks
from sciresdiff.checks import probes
from sciresdiff.checks.baselines import bicubic, bicubic_image, wiener
from sciresdiff.checks.check import UnmeasuredError
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.result import Result
from sciresdiff.physics import psf
from sciresdiff.physics.operators import Operator

Array = NDArray[np.float64]
SCALE, LOW, SKY, READ, GAIN = 2, (120, 144), 50.0, 4.0, 0.3


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """Ten stars on a sky, with photon noise, and the Wiener filter as the method that made the image."""
    rng = np.random.default_rng(2)
    image = np.zeros(tuple(SCALE * side for side in LOW))
    image[rng.integers(20, 220, 10), rng.integers(20, 260, 10)] = 10 ** rng.uniform(3.5, 4.5, 10)
    kernel = psf.render("gaussian:sigma=1.0px", None, integrate=False)
    operator = Operator(LOW, SCALE, kernel, dtype=torch.float64)
    clean = operator.apply(torch.from_numpy(gaussian_filter(image, 0.85) + SKY / SCALE**2)[None, None])[0, 0].numpy()
    variance = READ**2 + GAIN * (clean - SKY)
    low = clean + rng.normal(size=LOW) * np.sqrt(variance)
    bare = Evidence(image, SCALE, low=low, variance=variance, operator=operator, target_fwhm_px=2.0)
    return replace(bare, high=wiener(bare), again=restoring(bare))


def restoring(evidence: Evidence) -> Callable[[Array], Array]:
    """The Wiener filter of other data."""
    return lambda low: wiener(replace(evidence, low=low, shared={}))


def spoilt(evidence: Evidence, spoil: Callable[[Array], Array]) -> Evidence:
    """The same frame, restored by a method that does something to its result."""
    honest = evidence.again
    assert honest is not None
    return replace(evidence, again=lambda low: spoil(honest(low)))


def judged(evidence: Evidence, name: str) -> dict[tuple[str, str], Result]:
    """Results of a check by name and region."""
    return {(r.name, r.region): r for r in checks.check(evidence, names=[name])}


def test_the_gain_is_that_of_the_frame(evidence: Evidence) -> None:
    assert evidence.low is not None and evidence.variance is not None
    good = np.ones(LOW, bool)
    found = probes.photon_gain(evidence.low, evidence.variance, good)
    assert found == pytest.approx(GAIN, rel=0.05)  # the data's own noise at 10 sigma and more, and the sky's median
    assert probes.photon_gain(np.full(LOW, SKY), evidence.variance, good) is None
    assert probes.photon_gain(evidence.low, evidence.variance, ~good) is None
    assert probes.photon_gain(evidence.low, np.full(LOW, READ**2), good) == 0


def test_a_blank_field_is_the_sky_and_its_noise(evidence: Evidence) -> None:
    blank = probes.blank_field(evidence)
    n = blank.size
    assert np.array_equal(blank, probes.blank_field(evidence))
    assert blank.mean() == pytest.approx(SKY, abs=5 * READ / np.sqrt(n) + 0.3)  # 5 sigma and the sky level's own error
    assert blank.std() == pytest.approx(READ, rel=0.05)  # faint wings count as sky, and have a little more noise
    assert blank.max() < SKY + 6 * READ  # no star is left


def test_a_blank_field_has_values_where_the_frame_has_none(evidence: Evidence) -> None:
    assert evidence.low is not None and evidence.variance is not None
    mask = np.zeros(LOW, bool)
    mask[40:60] = True
    holed = replace(
        evidence,
        low=np.where(mask, np.nan, evidence.low),
        variance=np.where(mask, np.nan, evidence.variance),
        mask_low=mask,
    )
    blank = probes.blank_field(holed)
    assert np.isfinite(blank).all() and blank.std() == pytest.approx(READ, rel=0.05)  # as above


def test_an_honest_method_makes_nothing_of_noise(evidence: Evidence) -> None:
    (found,) = judged(evidence, "blank_spurious_per_mpix").values()
    assert found.value == 0 and found.passed and "0 in the bicubic image" in found.meaning


def test_a_method_that_invents_stars_fails_on_blank_sky(evidence: Evidence) -> None:
    rng = np.random.default_rng(9)
    xy = rng.uniform(30, 200, (8, 2))
    fakes = probes.draw_gaussians(evidence.high.shape, xy, np.full(8, 2000.0), 2.0)
    (found,) = judged(spoilt(evidence, lambda image: image + fakes), "blank_spurious_per_mpix").values()
    assert found.passed is False
    assert (found.value or 0) * evidence.high.size / 1e6 >= 7  # two of the eight may touch
    assert checks.verdict([found], {}) == "fail"


def test_an_honest_method_recovers_what_was_put_in(evidence: Evidence) -> None:
    found = judged(evidence, "injection_completeness")
    assert {region for _, region in found} == {"snr 5", "snr 10", "snr 20", "snr 50"}
    completeness = [found["injection_completeness", f"snr {snr:g}"].value for snr in probes.SNRS]
    assert completeness == sorted(completeness, key=float) and completeness[-1] == 1
    assert all(found[name, "snr 50"].passed for name in checks.CHECKS["injection_completeness"].names)
    assert not any(r.passed is False for r in found.values())
    assert all(r.passed is None for (_, region), r in found.items() if region in ("snr 5", "snr 10"))
    assert found == judged(evidence, "injection_completeness")  # the seed is fixed


def test_faults_in_the_recovery_are_caught(evidence: Evidence) -> None:
    dimmed = judged(spoilt(evidence, lambda x: 0.8 * (x - np.median(x)) + np.median(x)), "injection_completeness")
    bias = dimmed["injection_bias_mag", "snr 50"]
    assert bias.passed is False
    plain = judged(evidence, "injection_completeness")["injection_bias_mag", "snr 50"].value
    assert (bias.value or 0) - (plain or 0) == pytest.approx(-2.5 * np.log10(0.8), abs=0.01)  # the same noise in both
    moved = judged(spoilt(evidence, lambda x: np.roll(x, 1, axis=1)), "injection_completeness")
    assert moved["injection_offset_px", "snr 50"].passed is False
    assert moved["injection_offset_px", "snr 50"].value == pytest.approx(1, abs=0.15)  # less the noise of places
    erased = judged(replace(evidence, again=lambda low: evidence.high), "injection_completeness")
    assert erased["injection_completeness", "snr 50"].value == 0
    assert erased["injection_completeness", "snr 50"].passed is False
    assert ("injection_offset_px", "snr 50") not in erased


def test_sources_have_the_signal_to_noise_that_they_are_said_to_have(evidence: Evidence) -> None:
    sky, snr = probes.measure_sky(evidence), 20.0
    flux = probes._flux_at(snr, evidence, sky, 2.0, GAIN)
    a = evidence.degrade(probes.draw_gaussians(evidence.high.shape, np.array([[90.0, 77.3]]), np.ones(1), 2.0))
    v = np.median(sky.variance) + GAIN * flux * a
    assert flux * np.sqrt((a**2 / v).sum()) == pytest.approx(snr, rel=0.02)  # the place in its coarse pixel


def test_places_are_empty_apart_and_inside(evidence: Evidence) -> None:
    mask = np.zeros(evidence.high.shape, bool)
    mask[:, :100] = True
    xy = probes.empty_positions(replace(evidence, mask_high=mask), np.random.default_rng(0))
    assert len(xy) > 10
    apart = np.hypot(*(xy[:, None] - xy[None]).T)[~np.eye(len(xy), dtype=bool)]
    assert apart.min() > probes.CELL_PX / 2 - 1  # half a cell, less the half pixels that they are moved by
    assert xy[:, 0].min() > 107  # 8 px from the mask
    column, row = np.rint(xy.T).astype(int)
    near = gaussian_filter(bicubic_image(evidence), 2)[row, column]
    assert near.max() < SKY / SCALE**2 + 3 * READ / SCALE**2


def test_points_keep_their_flux_and_place() -> None:
    image = probes.draw_gaussians((60, 80), np.array([[40.3, 20.7], [1.0, 58.0]]), np.array([100.0, 7.0]), 2.0)
    assert image.sum() == pytest.approx(107, abs=1e-9)  # also at the border, where the stamp is cut and normalised
    yy, xx = np.indices(image.shape)
    star = np.where((yy < 40), image, 0)
    assert (star * xx).sum() / 100 == pytest.approx(40.3, abs=1e-3)  # a sampled Gaussian of 0.85 px
    assert (star * yy).sum() / 100 == pytest.approx(20.7, abs=1e-3)  # likewise


def test_what_the_detector_could_not_see_anyway_is_not_judged(evidence: Evidence) -> None:
    loud = replace(evidence, high=evidence.high + np.random.default_rng(3).normal(size=evidence.high.shape) * 40)
    found = judged(loud, "injection_completeness")
    assert found["injection_completeness", "snr 20"].passed is None
    assert "threshold is too high" in found["injection_completeness", "snr 20"].meaning
    assert found["injection_bias_mag", "snr 20"].passed  # forced, without the detector


def test_a_truth_does_not_change_the_probes(evidence: Evidence) -> None:
    known = replace(evidence, truth=np.zeros(evidence.high.shape), shared={})
    for name in probes.CHECKS:
        assert judged(known, name) == judged(evidence, name)


def test_a_frame_without_room_is_not_tried(evidence: Evidence) -> None:
    crowded = np.indices(LOW).sum(0) % 6 < 2
    full = replace(evidence, low=np.where(crowded, 5000.0, SKY), shared={})
    (found,) = judged(full, "injection_completeness").values()
    assert found.value is None and "empty places" in found.meaning
    with pytest.raises(UnmeasuredError):
        probes.inject_sources(full)


@pytest.mark.parametrize("name", probes.CHECKS)
def test_what_cannot_be_probed_says_why(evidence: Evidence, name: str) -> None:
    hidden = replace(evidence, mask_low=np.ones(LOW, bool), mask_high=np.ones(evidence.high.shape, bool), shared={})
    for one, words in ((hidden, "not computed"), (replace(evidence, again=None), "--probe")):
        (found,) = judged(one, name).values()
        assert found.value is None and found.passed is None and words in found.meaning
    alone = evidence.with_image(evidence.high)
    assert all(r.value is None for r in judged(alone, name).values())


def test_a_constant_frame_makes_no_sources(evidence: Evidence) -> None:
    flat = replace(
        evidence,
        low=np.full(LOW, SKY),
        high=np.full(evidence.high.shape, SKY / SCALE**2),
        variance=np.full(LOW, READ**2),
        again=lambda low: bicubic(low, evidence),
        shared={},
    )
    (found,) = judged(flat, "blank_spurious_per_mpix").values()
    assert found.value is None or found.passed  # bicubic is as good as bicubic, whatever the threshold
