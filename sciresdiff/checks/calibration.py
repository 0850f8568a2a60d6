"""Whether the errors that are claimed are the errors that are made, and how much of the image the data fix."""

from __future__ import annotations

import numpy as np

from sciresdiff.checks.check import Check
from sciresdiff.checks.evidence import Evidence, Mask, Result

WIDTH_90 = 1.645
"""Half width of the central 90 % of a normal distribution, sigma."""


def coverage_68(evidence: Evidence) -> list[Result] | None:
    """Share of pixels whose truth is within 1 ERR of the image; 0.683 for normal errors that are calibrated.

    For all pixels, on sources and on sky (`Evidence.bright`). **ERR is the error of a noiseless truth: against a truth
    with noise of its own the share is too low.** None without ERR or truth.
    """
    return _coverage(evidence, "coverage_68", 1.0)


def coverage_90(evidence: Evidence) -> list[Result] | None:
    """Share of pixels whose truth is within 1.645 ERR of the image; 0.90 for normal errors that are calibrated.

    Together with `coverage_68` it shows heavy tails. As there, **a noisy truth lowers it.**
    """
    return _coverage(evidence, "coverage_90", WIDTH_90)


def _coverage(evidence: Evidence, name: str, width: float) -> list[Result] | None:
    """The share in every region."""
    if evidence.err is None or evidence.truth is None:
        return None
    good = evidence.good_high & np.isfinite(evidence.err)
    with np.errstate(invalid="ignore"):
        inside = np.abs(evidence.high - evidence.truth) <= width * evidence.err
    regions: dict[str, Mask] = {
        "all": good,
        evidence.bright_name: good & evidence.bright,
        evidence.dark_name: good & ~evidence.bright,
    }
    return [
        Result(
            name, float(inside[part].mean()), "", region, meaning=f"truth within {width:g} ERR, {int(part.sum())} px"
        )
        for region, part in regions.items()
        if part.any()
    ]


def support_fraction(evidence: Evidence) -> Result | None:
    """Mean of SUPPORT on sources, weighted by |image - background|: how much of the structure the data fix; 0..1.

    **Only as good as the SUPPORT plane, which the method that made the image has written itself.** None without it.
    """
    if evidence.support is None:
        return None
    part = evidence.good_high & evidence.bright & np.isfinite(evidence.support)
    sky = evidence.whole[~evidence.bright]
    weight = np.abs(evidence.whole - (np.median(sky) if sky.size else 0.0))[part]
    if not weight.sum() > 0:
        return None
    value = float((evidence.support[part] * weight).sum() / weight.sum())
    return Result("support_fraction", value, "", evidence.bright_name, meaning="structure that the data fix")


CHECKS = {
    "coverage_68": Check(
        coverage_68,
        "Share of the pixels whose truth lies within one ERR; 0.68 where the claimed errors are the real ones.",
        "A truth with noise of its own lowers it.",
        ("err", "truth"),
    ),
    "coverage_90": Check(
        coverage_90,
        "Share of the pixels whose truth lies within 1.645 ERR; 0.90 where the claimed errors are the real ones.",
        "A truth with noise of its own lowers it.",
        ("err", "truth"),
    ),
    "support_fraction": Check(
        support_fraction,
        "How much of the structure the data fix by themselves; the rest is supplied by the model.",
        "It is the word of the method that made the image.",
        ("support",),
    ),
}
