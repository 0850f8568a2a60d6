"""One figure of a check, with its accepted range and its meaning."""

from __future__ import annotations

from dataclasses import dataclass, replace

Range = tuple[float | None, float | None]
"""Lowest and highest accepted value; None where there is no bound."""


@dataclass(frozen=True)
class Result:
    """One figure, where it was measured, what is accepted and what it means."""

    name: str
    value: float | None
    """None where it was not computed."""
    unit: str
    region: str
    limit: Range | None = None
    passed: bool | None = None
    """None where there is no limit."""
    meaning: str = ""
    weight: float = 1.0
    """Number of pixels, sources ... behind the value; used only where values of several pieces are pooled."""


def not_computed(name: str, why: str) -> Result:
    """Make a result without a value that says why there is none."""
    return Result(name, None, "", "all", meaning=f"not computed: {why}")


def drop_nan(result: Result) -> Result:
    """Turn a value of NaN into no value and say so; an infinite value stays, a perfect image has one."""
    if result.value is None or result.value == result.value:
        return result
    return replace(result, value=None, meaning=f"not computed: no finite value; {result.meaning}")
