"""The judges are judged: each of nine planted defects is caught at the strength that is stated, a good image is not."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from sciresdiff import checks
from sciresdiff.checks.evidence import Evidence

DOCS = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"
SIDE = 64
NAMES = (
    "fake stars", "erased stars", "invented filaments", "shifted sources", "flux drift", "half-pixel shift",
    "forgotten 1/s^2", "smoothed noise", "over-sharpening",
)  # fmt: skip


@pytest.fixture(scope="module")
def judges() -> ModuleType:
    """The script, as a module."""
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module("judges")
    finally:
        sys.path.remove(str(DOCS))


@pytest.fixture(scope="module")
def clean(judges: ModuleType) -> Evidence:
    """One simulated field of stars and galaxies, restored by the shipped model."""
    found: Evidence = judges.clean("astro", 0, side=SIDE)
    return found


@pytest.fixture(scope="module")
def before(judges: ModuleType, clean: Evidence) -> dict[str, set[str]]:
    """Limits that the clean image misses."""
    found: dict[str, set[str]] = judges.missed(clean)
    return found


def test_a_good_image_is_not_failed_without_a_truth(judges: ModuleType, clean: Evidence) -> None:
    blind = judges.replace(clean, truth=None, shared={})
    assert checks.verdict(checks.check(blind), {}) != "fail"


def test_the_nine_defects_of_the_table_are_planted(judges: ModuleType) -> None:
    assert tuple(judges.DEFECTS) == NAMES
    assert all(plan.must in plan.strengths for plan in judges.DEFECTS.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_defect_is_caught_without_a_truth_at_its_stated_strength(
    judges: ModuleType, clean: Evidence, before: dict[str, set[str]], name: str
) -> None:
    spoilt = judges.planted(clean, name, judges.DEFECTS[name].must)
    assert not np.array_equal(spoilt.high, clean.high)
    assert judges.caught(before, judges.missed(spoilt))["blind"]


@pytest.mark.parametrize("name", NAMES)
def test_a_defect_changes_nothing_at_no_strength(judges: ModuleType, clean: Evidence, name: str) -> None:
    nothing = 1.0 if name == "forgotten 1/s^2" else 0.0
    assert np.allclose(judges.planted(clean, name, nothing).high, clean.high, atol=1e-9)  # float64, values below 1e4


def test_a_planted_star_has_the_significance_that_is_stated(judges: ModuleType, clean: Evidence) -> None:
    assert clean.variance is not None
    defects = sys.modules["judges_defects"]
    star = 10 * defects.unit_flux(clean) * defects.gaussian(clean.high.shape, SIDE, SIDE)
    seen = clean.degrade(star)
    significance = float(np.sqrt((seen**2).sum() / np.median(clean.variance)))
    assert significance == pytest.approx(10, rel=1e-6)  # the same sums; the matched filter of white noise
