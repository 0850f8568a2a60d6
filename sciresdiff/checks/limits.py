"""What is accepted, and why; one table."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from sciresdiff.checks.evidence import Range, Result
from sciresdiff.errors import UsageError
from sciresdiff.frame import Kind

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


def _table() -> dict[Kind, dict[str, Limit]]:
    """``limits.toml``: the limits of every kind, and of its own."""
    text = files("sciresdiff.checks").joinpath("limits.toml").read_text(encoding="utf-8")
    tables = tomllib.loads(text)
    return {kind: {n: _limit(v) for n, v in {**tables["any"], **tables.get(kind, {})}.items()} for kind in KINDS}


def _limit(line: Mapping[str, Any]) -> Limit:
    low, high = (None if end == "none" else float(end) for end in line["range"])
    return Limit(low, high, line["severity"], line["reason"], line.get("mild_below", False))


KINDS: tuple[Kind, ...] = ("astro", "micro")
LIMITS = _table()
"""Kind -> result's name -> limit; a range that a check states itself (chance, scale, bicubic) holds instead."""

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


def judged(result: Result, own: Mapping[str, Range], kind: Kind = "astro") -> Result:
    """The result with its limit and whether it is kept: the user's, else the check's own, else the table's."""
    limit = own.get(result.name) or result.limit or _of_table(result, kind)
    if limit is None or limit == (None, None):
        return replace(result, limit=None, passed=None)
    low, high = (None if end is None else float(end) for end in limit)
    value = result.value
    kept = None if value is None or value != value else _inside(value, low, high)
    return replace(result, limit=(low, high), passed=kept)


def _inside(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _of_table(result: Result, kind: Kind) -> Range | None:
    limit = LIMITS[kind].get(result.name)
    if limit is None or (result.name in BRIGHT_ONLY and result.region != "bright"):
        return None
    return limit.low, limit.high


def verdict(results: Iterable[Result], own: Mapping[str, Range], kind: Kind = "astro") -> Verdict:
    """``fail`` where a limit that is no mere warning is missed (the user's own are none), else ``warn`` or ``pass``.

    Where nothing could be judged the verdict is ``warn``: silence is no pass.
    """
    judged_ones = [r for r in results if r.passed is not None]
    missed = [r for r in judged_ones if not r.passed]
    if any(grave(r, own, kind) for r in missed):
        return "fail"
    return "warn" if missed or not judged_ones else "pass"


def grave(missed: Result, own: Mapping[str, Range], kind: Kind = "astro") -> bool:
    """Whether a missed limit is more than a warning; the user's own always are."""
    if missed.name in own:
        return True
    limit = LIMITS[kind][missed.name]
    low = missed.limit[0] if missed.limit else None
    below = low is not None and missed.value is not None and missed.value < low
    return limit.severity == "fail" and not (limit.mild_below and below)
