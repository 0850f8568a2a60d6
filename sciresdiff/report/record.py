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
from sciresdiff.text import cell

Record = Mapping[str, Any]

SCHEMA = 1
COLUMNS = ("high", "method", "name", "region", "value", "unit", "lowest", "highest", "passed")
"""Columns of the long table."""
FIRST = ("verdict", "high", "low", "truth", "scale", "missed")
"""First columns of the table of images; after them comes a column for every result."""
OURS = "image"
"""Name of the judged image in the long table's column ``method``."""
MARKS = {True: "ok", False: "MISSED", None: ""}


def as_data(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Turn results into JSON objects; ``limit`` is a pair with None for an open end, or None."""
    found = (asdict(result) for result in results)
    return [jsonable({key: value for key, value in one.items() if key != "weight"}) for one in found]


def header(record: Record) -> tuple[str, ...]:
    """Make the heads of the columns of `table`: the image's own, then one for every baseline."""
    return ("check", "region", "value", "unit", "accepted", "", *record["baselines"])


def table(record: Record) -> list[tuple[str, ...]]:
    """Make rows for a table on the screen: one for each computed result, with the baselines' values beside it."""
    others = [values_by_place(results) for results in record["baselines"].values()]
    return [
        (
            result["name"],
            result["region"],
            format_value(result["value"]),
            result["unit"],
            format_limit(result["limit"]),
            MARKS[result["passed"]],
            *(format_value(other.get((result["name"], result["region"]))) for other in others),
        )
        for result in record["results"]
        if not is_not_computed(result)
    ]


def is_not_computed(result: Mapping[str, Any]) -> bool:
    """Tell whether a result could not be measured.

    JSON has no infinity, so that a value of None alone does not say so; the meaning does.
    """
    return result["value"] is None and str(result["meaning"]).startswith("not computed")


def values_by_place(results: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], Any]:
    """Index the values of results by (name, region)."""
    return {(result["name"], result["region"]): result["value"] for result in results}


def format_value(value: float | None) -> str:
    """Format a value: four digits, six decimals next to 1, a dash for None.

    Flux ratios are within 1e-3 of 1 or wrong: four digits would hide which.
    """
    if value is None:
        return "-"
    return f"{value:.6f}" if 0 < abs(value - 1) < 0.01 else f"{value:.4g}"


def format_limit(limit: Sequence[float | None] | None) -> str:
    """Format accepted values: ``0.5 to 1.15``, ``>= 0.95``, ``<= 0.05`` or nothing."""
    low, high = limit or (None, None)
    if low is None or high is None:
        return f">= {low:.4g}" if low is not None else f"<= {high:.4g}" if high is not None else ""
    return f"{_strip_zeros(low)} to {_strip_zeros(high)}"


def _strip_zeros(value: float) -> str:
    """As `shown`, without zeros at the end."""
    text = format_value(value)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def rows(record: Record) -> list[tuple[Any, ...]]:
    """Make the rows of the long table: every result of the image and of the baselines."""
    methods = {OURS: record["results"], **record["baselines"]}
    return [
        (record["high"], method, *(r[key] for key in ("name", "region", "value", "unit")),
         *(r["limit"] or (None, None)), r["passed"])
        for method, results in methods.items() for r in results
    ]  # fmt: skip


def wide(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Make a row for every image: `FIRST`, then ``name[region]`` for every computed result.

    The units and the baselines' values stand in the long table only.
    """
    return [
        {name: record.get(name) for name in FIRST}
        | {"missed": " ".join(f"{r['name']}[{r['region']}]" for r in record["results"] if r["passed"] is False)}
        | {f"{r['name']}[{r['region']}]": r["value"] for r in record["results"] if not is_not_computed(r)}
        for record in records
    ]


def write_csv(records: Sequence[Record], path: str | Path, overwrite: bool = False) -> None:
    """Write the table of images, one row each; empty cells where there is no value.

    Parameters
    ----------
    records : as ``evaluate`` makes them.
    path : file to write.
    overwrite : whether a file may be replaced.

    Raises
    ------
    UsageError : the file exists and ``overwrite`` is off, or cannot be written.
    """
    found = wide(records)
    columns = dict.fromkeys([*FIRST, *(name for row in found for name in row)])
    _write([list(columns), *([row.get(name) for name in columns] for row in found)], path, overwrite)


def write_long_csv(records: Iterable[Record], path: str | Path, overwrite: bool = False) -> None:
    """Write the long table: a row for every result of every image and baseline, with unit and limit.

    Parameters
    ----------
    records, path, overwrite : as for `write_csv`.

    Raises
    ------
    UsageError : the file exists and ``overwrite`` is off, or cannot be written.
    """
    _write([COLUMNS, *(row for record in records for row in rows(record))], path, overwrite)


def _write(lines: Iterable[Sequence[Any]], path: str | Path, overwrite: bool) -> None:
    text = streams.StringIO()
    csv.writer(text, lineterminator="\n").writerows([cell(value) for value in line] for line in lines)
    write_atomic({Path(path): lambda target: target.write_text(text.getvalue(), encoding="utf-8")}, overwrite=overwrite)
