"""What is accepted, and why; one table."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sciresdiff.checks.evidence import Range, Result
from sciresdiff.errors import UsageError

Verdict = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Limit:
    """Accepted range of a result, what it means to miss it, and where the numbers come from."""

    low: float | None
    high: float | None
    severity: Literal["warn", "fail"]
    reason: str
    mild_below: bool = False
    """Whether falling below ``low`` is a warning, whatever the severity."""


LIMITS: dict[str, Limit] = {
    "psnr": Limit(None, None, "warn", "at least bicubic's, where there is one"),
    "si_gain": Limit(0.95, 1.05, "warn", "a photometric image needs no gain; 5 % is what a small aperture loses"),
    "total_flux_ratio": Limit(0.999, 1.001, "fail", "or 3 sigma of the data's total, where that is more"),
    "block_flux_rms_sigma": Limit(None, 1.5, "warn", "the truth itself has 1 in every region"),
    "source_flux_bias_mag": Limit(-0.01, 0.01, "warn", "1 %, the usual systematic floor of aperture photometry"),
    "chi2": Limit(0.2, 1.3, "warn", "1 for a draw; the mean of an exact posterior at x4 has 0.4 on sources"),
    "chi2_sources": Limit(0.1, 1.5, "warn", "bright cores magnify every error of the kernel"),
    "chi2_sky": Limit(0.5, 1.15, "fail", "nothing but noise to explain; below 0.5 most of it is fitted", True),
    "astrometric_offset_px": Limit(None, 0.1, "fail", "0.05 coarse px; a registration error is (scale - 1) / 2"),
    "purity": Limit(0.95, None, "warn", "one false source in twenty; bicubic stands beside it"),
    "spurious_per_mpix": Limit(None, None, "warn", "the same detector's in bicubic, N + 2 sqrt(N + 1)"),
    "coverage_68": Limit(0.60, 0.76, "warn", "0.683 for calibrated normal errors"),
    "coverage_90": Limit(0.84, 0.95, "warn", "0.90 for calibrated normal errors"),
    "hallucination_fraction": Limit(None, 0.05, "fail", "of real sources at 5 sigma all but few have 2 in the data"),
}
"""Result's name -> limit; where a check states a range of its own (chance, scale, the bicubic image) that one holds."""

BRIGHT_ONLY = frozenset({"source_flux_bias_mag"})
"""Judged in the region ``bright`` only: among the faint the noise decides."""


def read_limits(path: str | Path, known: Iterable[str]) -> dict[str, Range]:
    """Limits of one's own: a TOML file with ``name = [low, high]``, and ``"none"`` for an open end.

    Raises
    ------
    UsageError : unreadable, no TOML, an unknown name, or no pair of numbers.
    """
    try:
        table = tomllib.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise UsageError(f"--limits: {path} cannot be read as TOML ({' '.join(str(problem).split())})") from problem
    names = set(known)
    return {name: _range(path, name, value, names) for name, value in table.items()}


def _range(path: str | Path, name: str, value: object, known: set[str]) -> Range:
    if name not in known:
        raise UsageError(f"--limits: {path}: unknown result {name!r}; allowed are {', '.join(sorted(known))}")
    ends = value if isinstance(value, list) and len(value) == 2 else [True]
    if any(isinstance(end, bool) or not (isinstance(end, int | float) or end == "none") for end in ends):
        raise UsageError(f'--limits: {path}: {name} = {value!r}; give [low, high], with "none" for an open end')
    low, high = (None if end == "none" else float(end) for end in ends)
    return low, high


def judged(result: Result, own: Mapping[str, Range]) -> Result:
    """The result with its limit and whether it is kept: the user's, else the check's own, else the table's."""
    limit = own.get(result.name) or result.limit or _of_table(result)
    if limit is None or limit == (None, None):
        return replace(result, limit=None, passed=None)
    low, high = (None if end is None else float(end) for end in limit)
    value = result.value
    kept = None if value is None or value != value else _inside(value, low, high)
    return replace(result, limit=(low, high), passed=kept)


def _inside(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _of_table(result: Result) -> Range | None:
    if result.name not in LIMITS or (result.name in BRIGHT_ONLY and result.region != "bright"):
        return None
    return LIMITS[result.name].low, LIMITS[result.name].high


def verdict(results: Iterable[Result], own: Mapping[str, Range]) -> Verdict:
    """``fail`` where a limit that is no mere warning is missed (the user's own are none), else ``warn`` or ``pass``."""
    missed = [r for r in results if r.passed is False]
    if any(r.name in own or _grave(r) for r in missed):
        return "fail"
    return "warn" if missed else "pass"


def _grave(missed: Result) -> bool:
    """Whether a missed limit of the table is more than a warning."""
    limit = LIMITS[missed.name]
    low = missed.limit[0] if missed.limit else None
    below = low is not None and missed.value is not None and missed.value < low
    return limit.severity == "fail" and not (limit.mild_below and below)
