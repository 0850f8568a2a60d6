"""Checks: functions from evidence to figures, and the classical methods that stand beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sciresdiff.checks import (
    calibration,
    consistency,
    empty_sky,
    fidelity,
    flux,
    flux_error,
    perceptual,
    probes,
    residual,
    resolution,
    shape,
    sources,
    spectrum,
    squirrel,
    trust,
)
from sciresdiff.checks.check import Check, UnmeasuredError, run_check
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.limits import LIMITS, Limit, Verdict, judge, read_limits, verdict
from sciresdiff.checks.result import Range, Result

__all__ = [
    "CHECKS", "LIMITS", "RESULTS", "Check", "Evidence", "Limit", "Range", "Result", "UnmeasuredError", "Verdict",
    "check", "check_rival", "judge", "read_limits", "verdict",
]  # fmt: skip

CHECKS: dict[str, Check] = {
    **fidelity.CHECKS,
    **perceptual.CHECKS,
    **flux.CHECKS,
    **flux_error.CHECKS,
    **consistency.CHECKS,
    **residual.CHECKS,
    **sources.CHECKS,
    **empty_sky.CHECKS,
    **shape.CHECKS,
    **probes.CHECKS,
    **squirrel.CHECKS,
    **resolution.CHECKS,
    **spectrum.CHECKS,
    **calibration.CHECKS,
    **trust.CHECKS,
}
"""Name -> check, in the order of the report; every file of checks registers its own."""

RESULTS = tuple(name for check, line in CHECKS.items() for name in line.names or (check,))
"""All names that a result can have."""


def check(
    evidence: Evidence, own: Mapping[str, Range] | None = None, names: Iterable[str] | None = None
) -> list[Result]:
    """Run checks and judge their results; one that cannot be computed has no value and says why.

    Parameters
    ----------
    evidence : one plane.
    own : limits that replace the table's, by the result's name.
    names : which checks; all by default.
    """
    found = [r for name in (CHECKS if names is None else names) for r in run_check(name, CHECKS[name], evidence)]
    return [judge(result, own or {}, evidence.kind) for result in found]


def check_rival(evidence: Evidence, own: Mapping[str, Range], but: Iterable[str] = ()) -> list[Result]:
    """Run the checks that are made for a baseline and judge their results; those without a value are left out.

    Parameters
    ----------
    evidence : one plane, with the baseline's image (`Evidence.with_image`).
    own : limits that replace the table's, by the result's name.
    but : checks that are not run.
    """
    names = [name for name, line in CHECKS.items() if line.rivals and name not in set(but)]
    return [result for result in check(evidence, own, names) if result.value is not None]
