"""The record of an evaluation as JSON, as a table and as CSV."""

from __future__ import annotations

import csv
import io as streams
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sciresdiff.checks import Result
from sciresdiff.io.atomic import write_atomic
from sciresdiff.io.jsonable import jsonable

Record = Mapping[str, Any]

SCHEMA = 1
COLUMNS = ("high", "method", "name", "region", "value", "unit", "lowest", "highest", "passed")
"""Columns of the long table."""
FIRST = ("verdict", "high", "low", "truth", "scale", "missed")
"""First columns of the table of images; after them comes a column for every result."""
OURS = "image"
"""What the judged image is called in the long table's column ``method``."""
MARKS = {True: "ok", False: "MISSED", None: ""}


def as_data(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Results as JSON objects; ``limit`` is a pair with None for an open end, or None."""
    found = (asdict(result) for result in results)
    return [jsonable({key: value for key, value in one.items() if key != "weight"}) for one in found]


def header(record: Record) -> tuple[str, ...]:
    """Heads of the columns of `table`: the image's own, then one for every baseline."""
    return ("check", "region", "value", "unit", "accepted", "", *record["baselines"])


def table(record: Record) -> list[tuple[str, ...]]:
    """Rows for a table on the screen: a result each that was computed, with the baselines' values beside it."""
    others = [_by_place(results) for results in record["baselines"].values()]
    return [
        (
            result["name"],
            result["region"],
            shown(result["value"]),
            result["unit"],
            accepted(result["limit"]),
            MARKS[result["passed"]],
            *(shown(other.get((result["name"], result["region"]))) for other in others),
        )
        for result in record["results"]
        if not uncomputed(result)
    ]


def uncomputed(result: Mapping[str, Any]) -> bool:
    """Whether there is no value because it could not be measured; an infinite one, that JSON cannot hold, was."""
    return result["value"] is None and str(result["meaning"]).startswith("not computed")


def _by_place(results: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], Any]:
    return {(result["name"], result["region"]): result["value"] for result in results}


def shown(value: float | None) -> str:
    """Four digits, or six decimals next to 1, where ratios live; a dash for what has no value."""
    if value is None:
        return "-"
    return f"{value:.6f}" if 0 < abs(value - 1) < 0.01 else f"{value:.4g}"


def accepted(limit: Sequence[float | None] | None) -> str:
    """``0.5 to 1.15``, ``>= 0.95``, ``<= 0.05`` or nothing."""
    low, high = limit or (None, None)
    if low is None or high is None:
        return f">= {low:.4g}" if low is not None else f"<= {high:.4g}" if high is not None else ""
    return f"{_plain(low)} to {_plain(high)}"


def _plain(value: float) -> str:
    """As `shown`, without zeros at the end."""
    text = shown(value)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def rows(record: Record) -> list[tuple[Any, ...]]:
    """Rows of the long table: every result of the image and of the baselines."""
    methods = {OURS: record["results"], **record["baselines"]}
    return [
        (
            record["high"],
            method,
            r["name"],
            r["region"],
            r["value"],
            r["unit"],
            *(r["limit"] or (None, None)),
            r["passed"],
        )
        for method, results in methods.items()
        for r in results
    ]


def wide(records: Sequence[Record]) -> list[dict[str, Any]]:
    """A row for every image: `FIRST`, then ``name[region]`` for every result that any of them has a value of.

    The units and the baselines' values stand in the long table only.
    """
    return [
        {name: record.get(name) for name in FIRST}
        | {"missed": " ".join(f"{r['name']}[{r['region']}]" for r in record["results"] if r["passed"] is False)}
        | {f"{r['name']}[{r['region']}]": r["value"] for r in record["results"] if not uncomputed(r)}
        for record in records
    ]


def write_csv(records: Sequence[Record], path: str | Path, overwrite: bool = False) -> None:
    """The table of images, one row each; empty cells where there is no value.

    Raises
    ------
    UsageError : the file exists and ``overwrite`` is off, or cannot be written.
    """
    found = wide(records)
    columns = dict.fromkeys([*FIRST, *(name for row in found for name in row)])
    _write([list(columns), *([row.get(name) for name in columns] for row in found)], path, overwrite)


def write_long_csv(records: Iterable[Record], path: str | Path, overwrite: bool = False) -> None:
    """The long table: a row for every result of every image and baseline, with unit and limit.

    Raises
    ------
    UsageError : the file exists and ``overwrite`` is off, or cannot be written.
    """
    _write([COLUMNS, *(row for record in records for row in rows(record))], path, overwrite)


def _write(lines: Iterable[Sequence[Any]], path: str | Path, overwrite: bool) -> None:
    text = streams.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    write_atomic({Path(path): lambda target: target.write_text(text.getvalue(), encoding="utf-8")}, overwrite=overwrite)
