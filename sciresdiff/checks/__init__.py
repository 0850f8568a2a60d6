"""Checks: functions from evidence to figures, and the classical methods that stand beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sciresdiff.checks import (
    calibration,
    consistency,
    empty,
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
from sciresdiff.checks.check import Check, UnmeasuredError, measured
from sciresdiff.checks.evidence import Evidence, Range, Result
from sciresdiff.checks.limits import LIMITS, Limit, Verdict, judged, read_limits, verdict

__all__ = [
    "CHECKS", "LIMITS", "RESULTS", "Check", "Evidence", "Limit", "Range", "Result", "UnmeasuredError", "Verdict",
    "check", "check_rival", "judged", "read_limits", "verdict",
]  # fmt: skip

CHECKS: dict[str, Check] = {
    **fidelity.CHECKS,
    **perceptual.CHECKS,
    **flux.CHECKS,
    **flux_error.CHECKS,
    **consistency.CHECKS,
    **residual.CHECKS,
    **sources.CHECKS,
    **empty.CHECKS,
    **shape.CHECKS,
    **probes.CHECKS,
    **squirrel.CHECKS,
    **resolution.CHECKS,
    **spectrum.CHECKS,
    **calibration.CHECKS,
    **trust.CHECKS,
}
"""Name -> check, in the order of the report; every file of checks has its own."""

RESULTS = tuple(name for check, line in CHECKS.items() for name in line.names or (check,))
"""All names that a result can have."""


def check(
    evidence: Evidence, own: Mapping[str, Range] | None = None, names: Iterable[str] | None = None
) -> list[Result]:
    """Checks, judged; one that cannot be computed has no value and says why.

    Parameters
    ----------
    own : limits that replace the table's, by the result's name.
    names : which checks; all by default.
    """
    found = [r for name in (CHECKS if names is None else names) for r in measured(name, CHECKS[name], evidence)]
    return [judged(result, own or {}, evidence.kind) for result in found]


def check_rival(evidence: Evidence, own: Mapping[str, Range], but: Iterable[str] = ()) -> list[Result]:
    """The checks that are made for a baseline, ``but`` some, judged; those that cannot be computed are left out."""
    names = [name for name, line in CHECKS.items() if line.rivals and name not in set(but)]
    return [result for result in check(evidence, own, names) if result.value is not None]
