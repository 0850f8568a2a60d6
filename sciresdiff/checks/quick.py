"""The quick checks of a plane that is restored in parts: every part's sums, and the results of all of them.

Totals, squares and counts add up, so that the checks of a plane in parts are those of the whole, but for ``chi2_sky``
and ``chi2_sources``: the darker half is that of every part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from sciresdiff.checks.check import UnmeasuredError, absent, finite
from sciresdiff.checks.consistency import chi2_of, chi2_sums
from sciresdiff.checks.evidence import NAMES, Evidence, Result
from sciresdiff.checks.flux import block_flux_of, block_flux_sums, total_flux_of, total_flux_sums
from sciresdiff.checks.limits import judged
from sciresdiff.frame import Kind

QUICK = ("total_flux_ratio", "block_flux_rms_sigma", "chi2", "chi2_sources", "chi2_sky")
"""Checks that run on every output; ``evaluate`` has the others."""

Sums = Mapping[str, Mapping[str, float]]
"""Check -> the sums that it is made of; JSON's own types."""


def sums_of(evidence: Evidence) -> dict[str, dict[str, float]]:
    """What one part adds, over the pixels of it that are judged."""
    return {
        "total_flux_ratio": total_flux_sums(evidence),
        "block_flux_rms_sigma": block_flux_sums(evidence),
        **chi2_sums(evidence),
    }


def results_of(parts: Iterable[Sums], kind: Kind) -> list[Result]:
    """The quick checks of a plane, judged; one that cannot be computed has no value and says why."""
    total = added(parts)
    bright, dark = NAMES[kind]
    make: dict[str, Callable[[Mapping[str, float]], Result | None]] = {
        "total_flux_ratio": total_flux_of,
        "block_flux_rms_sigma": block_flux_of,
        "chi2": lambda sums: chi2_of(sums, "chi2", "all", kind),
        "chi2_sources": lambda sums: chi2_of(sums, "chi2_sources", bright, kind),
        "chi2_sky": lambda sums: chi2_of(sums, "chi2_sky", dark, kind),
    }
    return [judged(_measured(name, make[name], total), {}, kind) for name in QUICK]


def added(parts: Iterable[Sums]) -> dict[str, dict[str, float]]:
    """Sums of all parts; the side of the regions is the same in all."""
    total: dict[str, dict[str, float]] = {}
    for part in parts:
        for check, sums in part.items():
            known = total.setdefault(check, {})
            for name, value in sums.items():
                known[name] = value if name == "side" or name not in known else known[name] + value
    return total


def _measured(name: str, make: Callable[[Mapping[str, float]], Result | None], total: Sums) -> Result:
    try:
        found = make(total[name]) if name in total else None
    except UnmeasuredError as why:
        return absent(name, str(why))
    return absent(name, "nothing here that it could measure") if found is None else finite(found)
