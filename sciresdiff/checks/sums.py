"""Results that are made of sums, so that those of the parts of a plane add up to those of the whole plane.

Exact to rounding, but for ``chi2_sky`` and ``chi2_sources``: the darker half is that of every part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce

from sciresdiff.checks.check import UnmeasuredError
from sciresdiff.checks.consistency import chi2_of, chi2_sums
from sciresdiff.checks.evidence import NAMES, Evidence
from sciresdiff.checks.fidelity import add_moments
from sciresdiff.checks.flux import block_flux_of, block_flux_sums, total_flux_of, total_flux_sums
from sciresdiff.checks.result import Result, drop_nan, not_computed
from sciresdiff.frame import Kind

Sums = Mapping[str, Mapping[str, float]]
"""Check -> the sums that it is made of; JSON's own types."""

FLUX = {"total_flux_ratio": (total_flux_sums, total_flux_of), "block_flux_rms_sigma": (block_flux_sums, block_flux_of)}
MOMENTS = "pair "
"""Names that begin so hold central moments of image and truth (`fidelity.pair_sums`)."""


def data_sums(evidence: Evidence) -> dict[str, dict[str, float]]:
    """Add up the flux and chi2 checks over the judged pixels of one part; those that lack an input are left out."""
    found = {}
    for name, (make, _) in FLUX.items():
        try:
            found[name] = make(evidence)
        except UnmeasuredError:
            continue
    return {**found, **chi2_sums(evidence)}


def data_results(total: Sums, kind: Kind) -> dict[str, Result]:
    """Make the flux and chi2 results of a plane out of its sums.

    Parameters
    ----------
    total : `data_sums` of one part, or of all by `add_sums`.
    kind : whose limits hold.

    Returns
    -------
    Name -> result; those without a pixel are left out.
    """
    bright, dark = NAMES[kind]
    found: dict[str, Result | None] = {}
    for name, (_, make) in FLUX.items():
        try:
            found[name] = make(total[name]) if name in total else None
        except UnmeasuredError as why:
            found[name] = not_computed(name, str(why))
    for name, region in (("chi2", "all"), ("chi2_sources", bright), ("chi2_sky", dark)):
        found[name] = chi2_of(total[name], name, region, kind) if name in total else None
    return {name: drop_nan(result) for name, result in found.items() if result is not None}


def add_sums(parts: Iterable[Sums]) -> dict[str, Mapping[str, float]]:
    """Add the sums of all parts; the side of the flux regions is the same in all."""
    by_name: dict[str, list[Mapping[str, float]]] = {}
    for part in parts:
        for name, sums in part.items():
            by_name.setdefault(name, []).append(sums)
    return {name: reduce(add_moments if name.startswith(MOMENTS) else _add, sums) for name, sums in by_name.items()}


def _add(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    return {name: a[name] if name == "side" else a[name] + b[name] for name in a}
