"""Calibration of the claimed errors, and how much of the image is constrained by the data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sciresdiff.checks.arrays import Array, Mask
from sciresdiff.checks.baselines import bicubic_image
from sciresdiff.checks.check import Check, UnmeasuredError
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.foreground import foreground_mask
from sciresdiff.checks.result import Result

WIDTH_90 = 1.645
"""Half width of the central 90 % of a normal distribution, sigma."""
DECILES = 10
BINS = 20
"""Bins of the calibration curve, each with as many pixels as the others."""
FEWEST_PX = 50
"""Fewest pixels of a bin."""
MOST_PX = 2_000_000
"""Most pixels that curves and ranks are made of; of more, every n-th is taken."""
RANKED = 0.1
"""Rank correlation expected of true errors below which ERR varies too little to be ranked."""


@dataclass(frozen=True, eq=False)
class CoverageCurve:
    """Coverage by signal to noise; every array has one entry per decile, the faintest first."""

    snr: Array
    """Median of |truth - background| / ERR."""
    share_68: Array
    """Share of pixels whose truth is within 1 ERR; 0.683 is right."""
    share_90: Array
    """Share of pixels whose truth is within 1.645 ERR; 0.90 is right."""
    pixels: Array
    """Pixels of the bin."""


@dataclass(frozen=True, eq=False)
class CalibrationCurve:
    """Claimed and actual errors in bins of equal count, (n,) each, the smallest ERR first; equal where calibrated."""

    rmv: Array
    """Root of the mean ERR^2, unit of the image."""
    rmse: Array
    """Root of the mean squared error, unit of the image."""
    pixels: Array
    """Pixels of the bin."""


def coverage_68(evidence: Evidence) -> list[Result] | None:
    """Share of pixels whose truth is within 1 ERR of the image; 0.683 for normal errors that are calibrated.

    For all pixels, on sources and on sky (`foreground_mask`). **ERR is the error of a noiseless truth: against a truth
    with noise of its own the share is too low.** None without ERR or truth.
    """
    return _coverage(evidence, "coverage_68", 1.0)


def coverage_90(evidence: Evidence) -> list[Result] | None:
    """Share of pixels whose truth is within 1.645 ERR of the image; 0.90 for normal errors that are calibrated.

    Together with `coverage_68` it shows heavy tails. As there, **a noisy truth lowers it.**
    """
    return _coverage(evidence, "coverage_90", WIDTH_90)


def _coverage(evidence: Evidence, name: str, width: float) -> list[Result] | None:
    """Share of pixels whose truth is within ``width`` ERR, in every region."""
    if evidence.err is None or evidence.truth is None:
        return None
    good = _pixels_with_err(evidence)
    with np.errstate(invalid="ignore"):
        inside = np.abs(evidence.high - evidence.truth) <= width * evidence.err
    regions: dict[str, Mask] = {
        "all": good,
        evidence.bright_name: good & foreground_mask(evidence),
        evidence.dark_name: good & ~foreground_mask(evidence),
    }
    counts = {region: int(part.sum()) for region, part in regions.items()}
    return [
        Result(name, float(inside[part].mean()), "", region, weight=counts[region],
               meaning=f"truth within {width:g} ERR, {counts[region]} px")
        for region, part in regions.items() if part.any()
    ]  # fmt: skip


def _pixels_with_err(evidence: Evidence) -> Mask:
    """Judged pixels with a finite ERR."""
    assert evidence.err is not None
    return evidence.good_high & np.isfinite(evidence.err)


def _errors(evidence: Evidence) -> tuple[Array, Array, Array]:
    """ERR, |error| and |truth - background| / ERR of judged pixels with an ERR above 0; every n-th of very many."""
    assert evidence.err is not None and evidence.truth is not None
    # where ERR is 0, signal to noise and the ratio RMSE / RMV have no value
    at = np.flatnonzero(_pixels_with_err(evidence) & (evidence.err > 0))
    at = at[:: max(1, -(-at.size // MOST_PX))]
    if at.size < DECILES * FEWEST_PX:
        raise UnmeasuredError(f"{at.size} pixels with an ERR above 0, {DECILES * FEWEST_PX} are needed")
    err, true = evidence.err.ravel()[at], evidence.truth.ravel()[at]
    dark = ~foreground_mask(evidence).ravel()[at]
    sky = float(np.median(true[dark] if dark.any() else true))
    return err, np.abs(evidence.high.ravel()[at] - true), np.abs(true - sky) / err


def _sky(evidence: Evidence) -> float:
    """Median of the image's dark part, unit of the image."""
    sky = evidence.finite_high[~foreground_mask(evidence)]
    return float(np.median(sky)) if sky.size else 0.0


def _equal_count_bins(key: Array, bins: int) -> list[np.ndarray]:
    """Indices of a key (n,) in bins of equal count, in rising order of the key."""
    return np.array_split(np.argsort(key, kind="stable"), bins)


def coverage_curve(evidence: Evidence) -> CoverageCurve:
    """Measure coverage in ten bins of equal count of |truth - background| / ERR; needs ERR and truth.

    The bins are of the truth, not of the image: where a scene is empty, |image - background| is the error itself, and
    bins of it would be bins of the error.

    Raises
    ------
    UnmeasuredError : too few pixels.
    """
    err, error, snr = _errors(evidence)
    parts = _equal_count_bins(snr, DECILES)
    return CoverageCurve(
        np.array([np.median(snr[part]) for part in parts]),
        np.array([np.mean(error[part] <= err[part]) for part in parts]),
        np.array([np.mean(error[part] <= WIDTH_90 * err[part]) for part in parts]),
        np.array([part.size for part in parts], float),
    )


def coverage_snr(evidence: Evidence) -> list[Result]:
    """`coverage_68` in deciles of |truth - background| / ERR, from the faintest (1) to the brightest (10).

    Errors that are right on average may be too large on sky and too small on sources. **A noisy truth lowers it, in
    faint deciles most.**
    """
    curve = coverage_curve(evidence)
    return [
        Result("coverage_snr", float(share), "", f"snr decile {i}", weight=float(n),
               meaning=f"truth within 1 ERR, {int(n)} px with signal to noise about {snr:.2g}")
        for i, (snr, share, n) in enumerate(zip(curve.snr, curve.share_68, curve.pixels, strict=True), start=1)
    ]  # fmt: skip


def calibration_curve(evidence: Evidence, bins: int = BINS) -> CalibrationCurve:
    """Measure the claimed (RMV) and the actual error (RMSE) in bins of ERR; needs ERR and truth.

    RMV = sqrt(mean ERR^2) and RMSE = sqrt(mean (x - t)^2) (Levi et al. 2022, Sensors 22, 5540).

    Parameters
    ----------
    bins : how many, each with as many pixels as the others; fewer where that leaves below 50 px.

    Raises
    ------
    UnmeasuredError : too few pixels.
    """
    err, error, _ = _errors(evidence)
    parts = _equal_count_bins(err, min(bins, err.size // FEWEST_PX))
    return CalibrationCurve(
        np.array([np.sqrt(np.mean(err[part] ** 2)) for part in parts]),
        np.array([np.sqrt(np.mean(error[part] ** 2)) for part in parts]),
        np.array([part.size for part in parts], float),
    )


def ence(evidence: Evidence) -> Result:
    """Expected normalised calibration error, mean over bins of |RMV - RMSE| / RMV; 0 is best.

    Levi et al. 2022 (Sensors 22, 5540), with 20 bins of equal count. **Root mean squares follow the largest
    errors: one lost star raises its bin; and the sign is lost, see the curve. A truth's own noise is in the RMSE.**
    """
    curve = calibration_curve(evidence)
    ratio = curve.rmse / curve.rmv
    meaning = f"error made over error claimed {ratio.min():.2f} to {ratio.max():.2f} in {len(ratio)} bins of ERR"
    return Result("ence", float(np.mean(np.abs(1 - ratio))), "", "all", meaning=meaning, weight=curve.pixels.sum())


def spread_error_rank(evidence: Evidence) -> Result:
    """Spearman's rank correlation of ERR and |image - truth|; accepted from a fifth of what normal errors would have.

    That is measured on random errors, ERR times a unit normal (fixed seed), because even perfect errors rank
    imperfectly: 0.4 to 0.7 on most frames. Not judged below 0.1, where ERR hardly varies. **Blind to the scale of ERR;
    on a frame that is nearly empty it ranks the ripples of ERR.**
    """
    err, error, _ = _errors(evidence)
    ranks = _ranks(err)
    if not np.ptp(err) > 0:
        raise UnmeasuredError("ERR is the same everywhere, there is nothing to rank")
    if not np.ptp(error) > 0:
        raise UnmeasuredError("the error is the same everywhere, there is nothing to rank")
    # errors that are right in scale rank like this: a normal deviate is often small where ERR is large
    drawn = np.abs(np.random.default_rng(0).standard_normal(err.size)) * err
    expected = _correlation(ranks, _ranks(drawn))
    limit = (expected / 5, None) if expected > RANKED else (None, None)
    meaning = f"large errors where large ones are claimed; {expected:.2f} would be perfect here, over {err.size} px"
    value = _correlation(ranks, _ranks(error))
    return Result("spread_error_rank", value, "", "all", limit, meaning=meaning, weight=err.size)


def _ranks(values: Array) -> Array:
    """Ranks (n,), equal values sharing the mean of theirs."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(values), np.float64)


def _correlation(a: Array, b: Array) -> float:
    """Pearson's correlation of (n,) and (n,)."""
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def support_fraction(evidence: Evidence) -> Result | None:
    """Mean of SUPPORT on sources, weighted by |image - background|: structure constrained by the data, as a share.

    **Only as good as the SUPPORT plane, which the method that made the image has written itself.** None without it.
    """
    if evidence.support is None:
        return None
    part = evidence.good_high & foreground_mask(evidence) & np.isfinite(evidence.support)
    weight = np.abs(evidence.finite_high - _sky(evidence))[part]
    if not weight.sum() > 0:
        return None
    value = float((evidence.support[part] * weight).sum() / weight.sum())
    meaning = "structure that the data fix"
    return Result("support_fraction", value, "", evidence.bright_name, meaning=meaning, weight=float(weight.sum()))


def prior_share(evidence: Evidence) -> Result:
    """Share of the detail on sources that the model supplied, sum((1 - SUPPORT) d^2) / sum(d^2); 0..1.

    d is the image less the bicubic image of the data, so that the sum is the energy that was gained by restoring at
    all; the light itself, which the data constrain anyway, is in `support_fraction`. **SUPPORT is the claim of the
    method; detail that the model supplied may well be true.**
    """
    assert evidence.support is not None
    part = evidence.good_high & foreground_mask(evidence) & np.isfinite(evidence.support)
    energy = (evidence.finite_high - bicubic_image(evidence))[part] ** 2
    if not energy.sum() > 0:
        raise UnmeasuredError(f"no {evidence.bright_name}, or nothing that bicubic has not")
    value = float(((1 - evidence.support[part]) * energy).sum() / energy.sum())
    meaning = f"energy of the detail beyond bicubic that is not fixed by the data, {int(part.sum())} px"
    return Result("prior_share", value, "", evidence.bright_name, meaning=meaning, weight=float(energy.sum()))


CHECKS = {
    "coverage_68": Check(
        coverage_68,
        "Fraction of the pixels whose truth lies within one ERR; 0.68 where errors are calibrated.",
        "A truth with noise of its own lowers it.",
        ("err", "truth"),
    ),
    "coverage_90": Check(
        coverage_90,
        "Fraction of the pixels whose truth lies within 1.645 ERR; 0.90 where errors are calibrated.",
        "A truth with noise of its own lowers it.",
        ("err", "truth"),
    ),
    "coverage_snr": Check(
        coverage_snr,
        "The same in tenths of the pixels, from the faintest to the brightest; 0.68 in each is right.",
        "A truth with noise of its own lowers it, among faint pixels most.",
        ("err", "truth"),
        rivals=False,
    ),
    "ence": Check(
        ence,
        "Mean relative difference of actual and claimed errors, over bins of ERR; 0 is best.",
        "Whether ERR is too large or too small; and one lost star dominates its bin.",
        ("err", "truth"),
        rivals=False,
    ),
    "spread_error_rank": Check(
        spread_error_rank,
        "Whether ERR is large where the errors are large.",
        "The scale of ERR: ten times too large ranks as well.",
        ("err", "truth"),
        rivals=False,
    ),
    "support_fraction": Check(
        support_fraction,
        "Fraction of the structure that the data constrain; the rest is supplied by the model.",
        "Whether SUPPORT is right: it is the method's own claim.",
        ("support",),
    ),
    "prior_share": Check(
        prior_share,
        "Fraction of the detail beyond plain interpolation that the model supplied.",
        "Whether SUPPORT is right: it is the method's own claim; and what the model supplied may be true.",
        ("support", "low"),
        rivals=False,
    ),
}
