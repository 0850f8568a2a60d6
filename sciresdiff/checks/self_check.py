"""The checks that `upscale` makes of every output: those that need neither a truth nor a search for sources.

They are made of sums (`sums`), so that a plane that is restored in blocks is checked block by block.
"""

from __future__ import annotations

from collections.abc import Iterable

from sciresdiff.checks.limits import judge
from sciresdiff.checks.result import Result, not_computed
from sciresdiff.checks.sums import Sums, add_sums, data_results
from sciresdiff.frame import Kind

SELF_CHECKS = ("total_flux_ratio", "block_flux_rms_sigma", "chi2", "chi2_sources", "chi2_sky")
"""Checks that run on every output; ``evaluate`` has the others."""


def self_check(parts: Iterable[Sums], kind: Kind) -> list[Result]:
    """Make the self-checks of a plane, judged; one that cannot be computed has no value and says why.

    Parameters
    ----------
    parts : `sums.data_sums` of every block.
    kind : whose limits hold.
    """
    found = data_results(add_sums(parts), kind)
    results = [found.get(name) or not_computed(name, "nothing here that it could measure") for name in SELF_CHECKS]
    return [judge(result, {}, kind) for result in results]
