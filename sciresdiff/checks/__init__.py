"""Checks: functions from evidence to figures, and the classical methods that stand beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sciresdiff.checks import calibration, consistency, fidelity, flux, sources
from sciresdiff.checks.evidence import Evidence, Range, Result
from sciresdiff.checks.limits import LIMITS, Limit, Verdict, judged, read_limits, verdict

__all__ = [
    "CHECKS", "LIMITS", "RESULTS", "Check", "Evidence", "Limit", "Range", "Result", "Verdict", "check", "judged",
    "read_limits", "verdict",
]  # fmt: skip

Check = Callable[[Evidence], Result | list[Result] | None]

CHECKS: dict[str, Check] = {
    "psnr": fidelity.psnr,
    "ssim": fidelity.ssim,
    "si_psnr": fidelity.si_psnr,
    "nrmse": fidelity.nrmse,
    "total_flux_ratio": flux.total_flux_ratio,
    "block_flux_rms_sigma": flux.block_flux_rms_sigma,
    "source_flux_bias_mag": flux.source_flux_bias_mag,
    "source_flux_scatter_mag": flux.source_flux_scatter_mag,
    "chi2": consistency.chi2,
    "chi2_sources": consistency.chi2_sources,
    "chi2_sky": consistency.chi2_sky,
    "completeness": sources.completeness,
    "purity": sources.purity,
    "spurious_per_mpix": sources.spurious_per_mpix,
    "astrometric_offset_px": sources.astrometric_offset_px,
    "coverage_68": calibration.coverage_68,
    "coverage_90": calibration.coverage_90,
    "support_fraction": calibration.support_fraction,
    "hallucination_fraction": sources.hallucination_fraction,
}
"""Name -> check, in the order of the report. A check that cannot be computed on the evidence gives None."""

RESULTS = (*CHECKS, "si_gain", "si_offset")
"""All names that a result can have."""


def check(evidence: Evidence, own: Mapping[str, Range] | None = None) -> list[Result]:
    """Every check that the evidence allows, judged.

    Parameters
    ----------
    own : limits that replace the table's, by the result's name.
    """
    found: list[Result] = []
    for one in CHECKS.values():
        results = one(evidence)
        found += [] if results is None else results if isinstance(results, list) else [results]
    return [judged(result, own or {}) for result in found]
