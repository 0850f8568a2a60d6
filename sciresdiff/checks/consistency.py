"""Whether the image, put through the telescope or microscope again, gives the data."""

from __future__ import annotations

import numpy as np

from sciresdiff.checks.check import Check
from sciresdiff.checks.evidence import Array, Evidence, Mask, Range, Result
from sciresdiff.checks.limits import LIMITS
from sciresdiff.frame import Kind


def _residual(evidence: Evidence) -> Array | None:
    """((y - A x)^2 / v), (h, w); None where data, variance or blur are not known."""
    if evidence.low is None or evidence.variance is None or evidence.redegraded is None:
        return None
    good = evidence.good_low
    assert good is not None
    safe = np.where(good, evidence.variance, 1)
    return np.asarray(np.where(good, (evidence.low - evidence.redegraded) ** 2, 0) / safe)


def _chi2(evidence: Evidence, name: str, region: str, part: Mask | None) -> Result | None:
    """The mean over a region, with limits that leave room for chance."""
    if (squares := _residual(evidence)) is None or evidence.good_low is None:
        return None
    chosen = evidence.good_low if part is None else evidence.good_low & part
    n = int(chosen.sum())
    if n == 0:
        return None
    meaning = f"mean of ((data - re-degraded image) / sigma)^2 over {n} coarse px; below 1 the noise is fitted"
    return Result(name, float(squares[chosen].mean()), "", region, _widened(evidence.kind, name, n), meaning=meaning)


def _widened(kind: Kind, name: str, n: int) -> Range | None:
    """The limits of a chi-square of n degrees of freedom, further apart by 3 of its standard deviations."""
    low, high = LIMITS[kind][name].low, LIMITS[kind][name].high
    chance = 3 * np.sqrt(2 / n)
    return None if low is None else max(0.0, low - chance), None if high is None else high + chance


def chi2(evidence: Evidence) -> Result | None:
    """Mean of (y - A x)^2 / v over all judged coarse pixels.

    1 for a draw from the posterior (and for the truth), less for its mean. **A wrong kernel, gain or variance moves it
    as much as a wrong image does, and an image that fits the noise makes it small.**
    """
    return _chi2(evidence, "chi2", "all", None)


def chi2_sources(evidence: Evidence) -> Result | None:
    """`chi2` over the brighter half of the coarse pixels, by the re-degraded truth (else image)."""
    part = evidence.sky_low
    return None if part is None else _chi2(evidence, "chi2_sources", evidence.bright_name, ~part)


def chi2_sky(evidence: Evidence) -> Result | None:
    """`chi2` over the darker half of the coarse pixels, by the re-degraded truth (else image)."""
    part = evidence.sky_low
    return None if part is None else _chi2(evidence, "chi2_sky", evidence.dark_name, part)


CHECKS = {
    "chi2": Check(
        chi2,
        "Whether the image, measured again, gives the data within their noise: 1 for a draw, below 1 for a mean.",
        "What the blur hides; and a wrong kernel or variance moves it as much as a wrong image.",
        ("low", "variance", "operator"),
    ),
    "chi2_sources": Check(
        chi2_sources,
        "The same, where the light is.",
        "Bright cores magnify every error of the kernel.",
        ("low", "variance", "operator"),
    ),
    "chi2_sky": Check(
        chi2_sky,
        "The same, on the darker half: far below 1 the noise was drawn into the image.",
        "Structure below the noise.",
        ("low", "variance", "operator"),
    ),
}
