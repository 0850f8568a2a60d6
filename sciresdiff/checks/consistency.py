"""Chi-square of the data given the image: whether the image, degraded again, gives the data within their noise."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sciresdiff.checks.arrays import Array, Mask
from sciresdiff.checks.check import Check, UnmeasuredError
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.residual import residual_map, squares_in, widen_limit
from sciresdiff.checks.result import Range, Result
from sciresdiff.frame import Kind


def _chi2(evidence: Evidence, name: str, region: str, part: Mask | None) -> Result | None:
    """chi2 over a region (h, w), with limits that leave room for chance."""
    sums = _sums(evidence, part)
    return None if sums is None else chi2_of(sums, name, region, evidence.kind)


def _sums(evidence: Evidence, part: Mask | None) -> dict[str, float] | None:
    """Sum of r^2 over a region, and its number of pixels; None where the residual is not known."""
    if (residual := residual_map(evidence)) is None:
        return None
    squares = squares_in(residual, part)
    return {"squares": float(squares.sum()), "pixels": float(squares.size)}


def chi2_sums(evidence: Evidence) -> dict[str, dict[str, float]]:
    """Add up `chi2`, `chi2_sources` and `chi2_sky`, by their names; empty where the residual is not known."""
    dark = evidence.sky_low
    parts = {"chi2": None} if dark is None else {"chi2": None, "chi2_sources": ~dark, "chi2_sky": dark}
    found = {name: _sums(evidence, part) for name, part in parts.items()}
    return {name: sums for name, sums in found.items() if sums is not None}


def chi2_of(sums: Mapping[str, float], name: str, region: str, kind: Kind) -> Result | None:
    """Make a chi2 out of sums: those of a frame, or of all its parts together.

    Parameters
    ----------
    sums : ``squares``, the sum of r^2, and ``pixels``, as `chi2_sums` makes them.
    name, region : of the result.
    kind : whose limits hold.
    """
    n = int(sums["pixels"])
    if n == 0:
        return None
    meaning = f"mean of ((data - re-degraded image) / sigma)^2 over {n} coarse px; below 1 the noise is fitted"
    return Result(name, sums["squares"] / n, "", region, _room(kind, name, n), meaning=meaning)


def _room(kind: Kind, name: str, n: int) -> Range | None:
    """The table's limits moved apart by 3 sqrt(2 / n): 3 standard deviations of chi2 of n pixels."""
    low, high = widen_limit(kind, name, 3 * float(np.sqrt(2 / n)))
    return None if low is None else max(0.0, low), high


def chi2(evidence: Evidence) -> Result | None:
    """Mean of (y - A x)^2 / v over all judged coarse pixels, the reduced chi-square.

    1 for a draw from the posterior and for the truth, less for its mean. **A wrong kernel, gain or variance moves it
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


def chi2_draw(evidence: Evidence) -> list[Result]:
    """The draws against the data: `chi2` of the worst draw, and the chi2 of the image less what the draws let expect.

    ``chi2_draw`` is mean((y - A x_k)^2 / v) of the draw that is farthest from 1, which is what every draw has, because
    given the data a draw cannot be told from the truth. ``chi2_excess`` is chi2 of the image minus
    1 - mean((A (x_k - x))^2 / v): with a posterior covariance Sigma_p of the draws,
    tr[(N - A Sigma_p A^T) N^-1] / n = tr[N (A Sigma A^T + N)^-1] / n, the law of the mean; 0 is best, above 0 the draws
    are wider than the data allow or the image is wrong, below 0 it fits more of the noise than they admit. **The draws
    are held to the image, not to the truth: a bias that they share is seen only where it leaves the noise.**
    """
    residual, draws = residual_map(evidence), evidence.draws
    assert residual is not None and draws is not None
    if not len(draws) or not np.isfinite(residual).any():
        raise UnmeasuredError("no draw, or no coarse pixel that is valid and judged")
    shifts = np.stack([_shift(evidence, draw) for draw in draws])
    regions: dict[str, Mask | None] = {"all": None}
    if (dark := evidence.sky_low) is not None:
        regions |= {evidence.bright_name: ~dark, evidence.dark_name: dark}
    return [r for region, part in regions.items() for r in _draw_results(evidence, residual, shifts, region, part)]


def _shift(evidence: Evidence, draw: Array) -> Array:
    """A (x_k - x) / sigma of a draw x_k (Y, X): (h, w), float32."""
    assert evidence.variance is not None and evidence.good_low is not None
    sigma = np.sqrt(np.where(evidence.good_low, evidence.variance, 1))
    away = np.where(np.isfinite(draw), draw - evidence.finite_high, 0.0)
    return np.asarray(evidence.degrade(away) / sigma, np.float32)


def _draw_results(evidence: Evidence, residual: Array, shifts: Array, region: str, part: Mask | None) -> list[Result]:
    """``chi2_draw`` and ``chi2_excess`` of one region."""
    mean = squares_in(residual, part)
    if not mean.size:
        return []
    # (y - A x_k) / sigma = (y - A x) / sigma - A (x_k - x) / sigma
    each = np.array([squares_in(residual - one, part).mean() for one in shifts])
    spread = float(np.mean([squares_in(np.where(np.isfinite(residual), one, np.nan), part).mean() for one in shifts]))
    worst = float(each[np.argmax(np.abs(each - 1))])
    meaning = (
        f"of {len(each)} draws, {each.min():.3f} to {each.max():.3f}, over {mean.size} coarse px; each should have 1"
    )
    found, expected = float(mean.mean()), 1 - spread
    excess = f"{found:.3f} of the image, {expected:.3f} expected of the mean of draws that scatter like these"
    return [
        Result("chi2_draw", worst, "", region, _room(evidence.kind, "chi2_draw", mean.size), meaning=meaning,
               weight=mean.size),
        Result("chi2_excess", found - expected, "", region,
               widen_limit(evidence.kind, "chi2_excess", 3 * float(np.sqrt(2 / mean.size))), meaning=excess,
               weight=mean.size),
    ]  # fmt: skip


CHECKS = {
    "chi2": Check(
        chi2,
        "Whether the image, degraded again, agrees with the data within their noise: 1 for a draw, less for a mean.",
        "What the blur removes; and a wrong kernel or variance changes it as much as a wrong image.",
        ("low", "variance", "operator"),
    ),
    "chi2_sources": Check(
        chi2_sources,
        "The same, for the brighter half of the data.",
        "Bright cores magnify every error of the kernel.",
        ("low", "variance", "operator"),
    ),
    "chi2_sky": Check(
        chi2_sky,
        "The same, for the darker half of the data: far below 1 noise was fitted.",
        "Structure below the noise.",
        ("low", "variance", "operator"),
    ),
    "chi2_draw": Check(
        chi2_draw,
        "Whether every draw, degraded again, agrees with the data within their noise, and the image with its draws.",
        "A bias that all draws share and that stays within the noise.",
        ("low", "variance", "operator", "draws"),
        names=("chi2_draw", "chi2_excess"),
        rivals=False,
    ),
}
