"""One self-contained page about one image: verdict, pictures, checks and charts.

What the page shows is put together here, as plain values; the markup is in ``page.html.j2``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sciresdiff.checks import CHECKS, LIMITS, Range
from sciresdiff.checks.evidence import Evidence
from sciresdiff.frame import Kind
from sciresdiff.io.atomic import write_atomic
from sciresdiff.report import presentation, viewer
from sciresdiff.report.charts import draw_charts
from sciresdiff.report.overview import Overview, overview_section
from sciresdiff.report.presentation import Entry, Group, Line, display_name, format_with_unit
from sciresdiff.report.record import Record, format_value
from sciresdiff.report.svg import gauge
from sciresdiff.report.templates import render_document

WORDS = {"pass": "Pass", "warn": "Pass with warnings", "fail": "Fail"}
BRIEF = {"richardson-lucy": "R-L", "richardson-lucy-best": "R-L best"}
"""Baselines' names that are too long for a column."""
MOST_WARNINGS = 5
"""Warnings that are listed at the top; the others are marked in their row."""
MANY = 6
"""Regions of a check beyond which those without a limit are folded."""
FIELDS = {"astro": "sky", "micro": "microscope"}
"""Kind of image -> its name on the page."""


@dataclass(frozen=True)
class Miss:
    """A check outside its limits, all its regions together."""

    word: str
    anchor: str
    title: str
    region: str
    figures: str
    accepted: str
    tells: str


@dataclass(frozen=True)
class Key:
    """A figure at the top of the page."""

    title: str
    anchor: str
    value: str
    unit: str
    mark: str
    beside: str
    """The bicubic image's value, else the accepted range."""


@dataclass(frozen=True)
class Row:
    """A figure with its limit, its mark and the baselines' figures."""

    name: str
    region: str
    label: str
    value: str
    unit: str
    accepted: str | None
    gauge: Markup
    mark: str
    missed: bool
    others: Sequence[tuple[str, str]]
    """Head of the column and value, of every baseline."""


@dataclass(frozen=True)
class CheckRows:
    """A check: its name, what it tells, its rows, and what is folded away."""

    anchor: str
    title: str
    tells: str
    blind: str
    reasons: Sequence[str]
    meanings: Sequence[tuple[str, str]]
    names: Sequence[str]
    rows: Sequence[Row]
    folded: Sequence[Row]
    folded_range: str


@dataclass(frozen=True)
class Section:
    """A heading with its checks and charts."""

    title: str
    passed: str
    baselines: Sequence[tuple[str, str]]
    """Full name and head of the column."""
    entries: Sequence[CheckRows]
    plots: Sequence[Markup]


@dataclass(frozen=True)
class Judging:
    """What the rows of a record are judged by, and compared with."""

    kind: Kind
    own: Mapping[str, Range]
    """Limits of the user, by the result's name."""
    baselines: Mapping[str, Mapping[tuple[str, str], float | None]]
    """Baseline -> (name, region) -> value."""

    def mark(self, line: Line) -> str:
        """``pass``, ``warn``, ``fail``, or nothing where there is no limit."""
        if line["passed"] is None:
            return ""
        grave = presentation.fails_image(line, self.own, self.kind)
        return "pass" if line["passed"] else "fail" if grave else "warn"

    def reason(self, line: Line) -> str:
        """Where the limit comes from."""
        if line["name"] in self.own:
            return "your own, by --limits"
        limit = LIMITS[self.kind].get(line["name"])
        return limit.reason if limit else ""


def write_page(
    record: Record,
    evidence: Evidence,
    path: str | Path,
    unit: str | None = None,
    own: Mapping[str, Range] | None = None,
    overwrite: bool = False,
    view: Overview | None = None,
) -> None:
    """Write the page of an image.

    Parameters
    ----------
    record : as ``evaluate`` makes it; it stands in the page as JSON, too (``script#record``).
    evidence : of its first plane, for the pictures and charts.
    path : file to write.
    unit : of the pixels' values; None where it is not known.
    own : limits of the user, by the result's name.
    overwrite : whether a file may be replaced.
    view : the whole frame, where the evidence is a piece of it.

    Raises
    ------
    UsageError : the file exists and ``overwrite`` is off, or cannot be written.
    """
    text = page(record, evidence, unit, own or {}, view)
    write_atomic({Path(path): lambda target: target.write_text(text, "utf-8", "backslashreplace")}, overwrite=overwrite)


def page(
    record: Record, evidence: Evidence, unit: str | None, own: Mapping[str, Range], view: Overview | None = None
) -> str:
    """Make the page's text; it needs no network, carries no clock, and can be read without scripts.

    Parameters
    ----------
    record, evidence, unit, own, view : as for `write_page`.
    """
    judging = Judging(evidence.kind, own, presentation.baseline_values(record))
    plots = draw_charts(evidence)
    groups, name, verdict = presentation.groups(record), Path(record["high"]).name, record["verdict"]
    bad, mild = presentation.missed_limits(record, own, evidence.kind)
    absent = presentation.absent_by_reason(record)
    return render_document(
        "page.html.j2",
        record,
        title=f"{name}: {WORDS[verdict].lower()}",
        icon=viewer.icon(evidence),
        name=name,
        facts=_facts(record, evidence),
        verdict=verdict,
        verdict_words=WORDS[verdict],
        sentence=presentation.sentence(record, own, evidence.kind),
        failed=_misses(bad, "Failed"),
        warned=_misses(mild, "Warning"),
        most_warnings=MOST_WARNINGS,
        keys=[_key(line, judging) for line in presentation.key_figures(record)],
        overview=overview_section(view, evidence) if view else "",
        pictures=viewer.pictures(evidence, unit or "unit of the file"),
        groups=[_section(group, plots.get(group.title, []), judging) for group in groups],
        spare=[(title, drawn) for title, drawn in plots.items() if title not in {group.title for group in groups}],
        absent=absent,
        absent_count=sum(map(len, absent.values())),
        notes=record.get("said", ()),
    )


def _facts(record: Record, evidence: Evidence) -> dict[str, Any]:
    """What the image was judged by."""
    height, width = record["pieces"]["shape"] if record.get("pieces") else evidence.high.shape
    low, truth = (Path(record[key]).name if record[key] else "" for key in ("low", "truth"))
    return {
        "height": height, "width": width, "scale": record["scale"], "low": low, "truth": truth,
        "field": FIELDS[evidence.kind], "quantity": record.get("quantity"),
    }  # fmt: skip


def _misses(lines: Sequence[Line], word: str) -> list[Miss]:
    """Limits that were missed, an entry a name."""
    by_name: dict[str, list[Line]] = {}
    for line in lines:
        by_name.setdefault(line["name"], []).append(line)
    return [_miss(name, same, word) for name, same in by_name.items()]


def _miss(name: str, lines: Sequence[Line], word: str) -> Miss:
    """One name; several regions are named with their figures."""
    check, several = CHECKS.get(presentation.OWNER.get(name, "")), len(lines) > 1
    figures = ", ".join(
        f"{line['region'] + ' ' if several else ''}{format_with_unit(line['value'], line['unit'])}" for line in lines
    )
    return Miss(
        word, _anchor(name), display_name(name), "" if several else presentation.region_words(lines[0]), figures,
        presentation.limit_words(lines[0]["limit"]), check.tells if check else "",
    )  # fmt: skip


def _anchor(name: str) -> str:
    """The id of the rows of a result's check."""
    return f"check-{presentation.OWNER.get(name, name)}"


def _key(line: Line, judging: Judging) -> Key:
    """One of the figures that are looked at first."""
    plain = judging.baselines.get("bicubic", {}).get((line["name"], line["region"]))
    limit = presentation.limit_words(line["limit"])
    beside = f"bicubic {format_with_unit(plain, '')}" if plain is not None else limit and f"accepted {limit}"
    title = display_name(line["name"]) + presentation.region_words(line)
    value = format_with_unit(line["value"], "")
    return Key(title, _anchor(line["name"]), value, line["unit"], judging.mark(line), beside)


def _section(group: Group, plots: Sequence[Markup], judging: Judging) -> Section:
    """One heading; columns only for the baselines that have one of its results."""
    passed = f"{sum(group.marks)} of {len(group.marks)} within their limits"
    places = {(line["name"], line["region"]) for entry in group.entries for line in entry.results}
    names = [name for name, found in judging.baselines.items() if places & set(found)]
    return Section(
        group.title,
        passed if group.marks else "for information, without limits",
        [(name, BRIEF.get(name, name)) for name in names],
        [_check_rows(entry, names, judging) for entry in group.entries],
        plots,
    )


def _check_rows(entry: Entry, names: Sequence[str], judging: Judging) -> CheckRows:
    """The rows of a check; of many regions those without a limit are folded."""
    top = [line for line in entry.results if line["limit"] or len(entry.results) <= MANY]
    folded = [line for line in entry.results if line not in top]
    facts = dict.fromkeys((line["name"], line["region"], line["meaning"]) for line in entry.results if line["meaning"])
    reasons = dict.fromkeys(judging.reason(line) for line in entry.results if line["passed"] is not None)
    return CheckRows(
        f"check-{entry.name}",
        display_name(entry.name),
        entry.check.tells,
        entry.check.blind,
        [reason for reason in reasons if reason],
        [(_label(name, region, entry), meaning) for name, region, meaning in facts],
        list(dict.fromkeys(line["name"] for line in entry.results)),
        [_row(line, entry, names, judging) for line in top],
        [_row(line, entry, names, judging) for line in folded],
        _value_range(folded),
    )


def _value_range(lines: Sequence[Line]) -> str:
    """``0.1 to 0.4``."""
    values = [line["value"] for line in lines if line["value"] is not None]
    return f"{format_with_unit(min(values), '')} to {format_with_unit(max(values), '')}" if values else "infinite"


def _label(name: str, region: str, entry: Entry) -> str:
    """Region, with the result's name where the check has several."""
    several = len({line["name"] for line in entry.results}) > 1
    return f"{display_name(name)}, {region}" if several else region


def _row(line: Line, entry: Entry, names: Sequence[str], judging: Judging) -> Row:
    """One figure, with the baselines' beside it."""
    place = (line["name"], line["region"])
    others = {name: judging.baselines[name].get(place) for name in names}
    strip = ""
    if line["limit"] and line["value"] is not None:
        strip = gauge(line["value"], tuple(line["limit"]), [v for v in others.values() if v is not None])
    return Row(
        *place,
        _label(*place, entry),
        format_with_unit(line["value"], ""),
        line["unit"],
        presentation.limit_words(line["limit"]) if line["limit"] else None,
        Markup(strip),
        judging.mark(line),
        line["passed"] is False,
        [(BRIEF.get(name, name), "" if v is None else format_value(v).replace("-", "−")) for name, v in others.items()],
    )
