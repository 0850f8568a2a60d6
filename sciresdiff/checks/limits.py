"""Accepted ranges of the results with their reasons, and the verdict that follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from sciresdiff.checks.result import Range, Result
from sciresdiff.errors import UsageError
from sciresdiff.frame import Kind
from sciresdiff.parse import parse_toml, read_toml

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


def _read_table() -> dict[Kind, dict[str, Limit]]:
    """``limits.toml``: the limits of all kinds, replaced by those of one kind where it has its own."""
    text = files("sciresdiff.checks").joinpath("limits.toml").read_text(encoding="utf-8")
    tables = parse_toml(text)
    return {kind: {n: _limit(v) for n, v in {**tables["any"], **tables.get(kind, {})}.items()} for kind in KINDS}


def _limit(line: Mapping[str, Any]) -> Limit:
    low, high = (None if end == "none" else float(end) for end in line["range"])
    return Limit(low, high, line["severity"], line["reason"], line.get("mild_below", False))


KINDS: tuple[Kind, ...] = ("astro", "micro")
LIMITS = _read_table()
"""Kind -> result's name -> limit; a range that a check states itself (chance, scale, bicubic) holds instead."""

BRIGHT_ONLY = frozenset({"source_flux_bias_mag"})
"""Judged in the region ``bright`` only: among the faint the noise decides."""


def read_limits(path: str | Path, known: Iterable[str]) -> dict[str, Range]:
    """Read the user's limits: a TOML file with ``name = [low, high]``, and ``"none"`` for an open end.

    Raises
    ------
    UsageError : unreadable, no TOML, an unknown name, or no pair of numbers.
    """
    try:
        table = read_toml(Path(path))
    except (OSError, ValueError) as problem:
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


def judge(result: Result, own: Mapping[str, Range], kind: Kind = "astro") -> Result:
    """Give a result its limit and whether it lies within: the user's limit, else the check's own, else the table's.

    Parameters
    ----------
    result : of a check, with or without a limit.
    own : limits of the user, by the result's name.
    kind : which limits of the table hold.
    """
    limit = own.get(result.name) or result.limit or _table_limit(result, kind)
    if limit is None or limit == (None, None):
        return replace(result, limit=None, passed=None)
    low, high = (None if end is None else float(end) for end in limit)
    value = result.value
    passed = None if value is None or value != value else _inside(value, low, high)
    return replace(result, limit=(low, high), passed=passed)


def _inside(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _table_limit(result: Result, kind: Kind) -> Range | None:
    limit = LIMITS[kind].get(result.name)
    if limit is None or (result.name in BRIGHT_ONLY and result.region != "bright"):
        return None
    return limit.low, limit.high


def verdict(results: Iterable[Result], own: Mapping[str, Range], kind: Kind = "astro") -> Verdict:
    """Sum the results up: ``fail`` where `is_failure` holds of a missed limit, else ``warn`` or ``pass``.

    Where no result has a limit the verdict is ``warn``: nothing was shown to be right.

    Parameters
    ----------
    results : with their limits, see `judge`.
    own : limits of the user, by the result's name.
    kind : which limits of the table hold.
    """
    limited = [r for r in results if r.passed is not None]
    missed = [r for r in limited if not r.passed]
    if any(is_failure(r, own, kind) for r in missed):
        return "fail"
    return "warn" if missed or not limited else "pass"


def is_failure(missed: Result, own: Mapping[str, Range], kind: Kind = "astro") -> bool:
    """Tell whether a missed limit is more than a warning; the user's own always are.

    Parameters
    ----------
    missed : a result outside its limit.
    own : limits of the user, by the result's name.
    kind : which limits of the table hold.
    """
    if missed.name in own:
        return True
    limit = LIMITS[kind][missed.name]
    low = missed.limit[0] if missed.limit else None
    below = low is not None and missed.value is not None and missed.value < low
    return limit.severity == "fail" and not (limit.mild_below and below)
