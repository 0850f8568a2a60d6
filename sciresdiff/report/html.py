"""One self-contained page about one image: verdict, pictures, checks and charts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from sciresdiff import __version__
from sciresdiff.checks import CHECKS, LIMITS, Range
from sciresdiff.checks.evidence import Evidence
from sciresdiff.frame import Kind
from sciresdiff.io.atomic import write_atomic
from sciresdiff.report import reading, viewer
from sciresdiff.report.charts import charts_of
from sciresdiff.report.overview import Overview, section
from sciresdiff.report.reading import Entry, Group, Line, spelled, with_unit
from sciresdiff.report.record import Record, shown
from sciresdiff.report.svg import gauge

WORDS = {"pass": "Pass", "warn": "Pass with warnings", "fail": "Fail"}
SIGNS = {"pass": "✓", "warn": "!", "fail": "✗"}
BRIEF = {"richardson-lucy": "R-L", "richardson-lucy-best": "R-L best"}
"""Baselines' names that are too long for a column."""
MOST_WARNINGS = 5
"""Warnings that are told on top; the others are marked where they stand."""
MANY = 6
"""Regions of a check beyond which those without a limit are folded."""
RULES = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""What the page lets itself do: nothing is fetched, whatever stands in it."""


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
    unit : of the pixels' values; None where it is not known.
    own : limits that the user gave.
    view : the whole frame, where the evidence is a piece of it.

    Raises
    ------
    UsageError : the file exists and ``overwrite`` is off, or cannot be written.
    """
    text = page(record, evidence, unit, own or {}, view)
    write_atomic({Path(path): lambda target: target.write_text(text, encoding="utf-8")}, overwrite=overwrite)


def page(
    record: Record, evidence: Evidence, unit: str | None, own: Mapping[str, Range], view: Overview | None = None
) -> str:
    """The page's text.  It needs no network, carries no clock, and can be read without scripts."""
    plots = charts_of(evidence)
    groups = reading.groups(record)
    spare = [title for title in plots if title not in {group.title for group in groups}]
    body = [
        _head(record, evidence, own),
        _keys(record, evidence.kind, own),
        section(view, evidence) if view else "",
        viewer.pictures(evidence, unit or "unit of the file"),
        *(_group(group, record, plots.get(group.title, []), evidence.kind, own) for group in groups),
        *(
            f'<section><h2>{escape(title)}</h2><div class="charts">{"".join(plots[title])}</div></section>'
            for title in spare
        ),
        _absent(record),
        _notes(record),
    ]
    title = f"{Path(record['high']).name}: {WORDS[record['verdict']].lower()}"
    return document(title, "".join(body), record, viewer.icon(evidence))


def document(title: str, body: str, record: Any, icon: str = "") -> str:
    """A whole HTML document around a body; ``record`` goes into it as JSON, ``icon`` is a ``data:`` address."""
    parts = files("sciresdiff.report")
    style, script = (parts.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    shown_icon = f'<link rel="icon" href="{icon}">' if icon else ""
    data = json.dumps(record, ensure_ascii=False).replace("</", "<\\/")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="generator" '
        f'content="sciresdiff {__version__}">'
        f'<meta http-equiv="Content-Security-Policy" content="{RULES}">'
        f"{shown_icon}<style>{style}</style></head>"
        f'<body><main>{body}</main><script type="application/json" id="record">{data}</script>'
        f"<script>{script}</script></body></html>\n"
    )


def badge(verdict: str) -> str:
    """The verdict in a coloured word."""
    return f'<span class="badge {verdict}">{SIGNS[verdict]} {verdict}</span>'


def _head(record: Record, evidence: Evidence, own: Mapping[str, Range]) -> str:
    """Name, verdict, what failed, and what the image was judged by."""
    verdict = record["verdict"]
    bad, mild = reading.missed(record, own, evidence.kind)
    each = _misses(bad, "Failed") + _misses(mild, "Warning", MOST_WARNINGS)
    return (
        f"<header><h1>{escape(Path(record['high']).name)}</h1>{_facts(record, evidence)}"
        f'<div class="verdict {verdict}" role="status"><strong>{SIGNS[verdict]} {WORDS[verdict]}</strong>'
        f"<p>{escape(reading.sentence(record, own, evidence.kind))}</p>{f'<ul>{each}</ul>' if each else ''}</div>"
        f"</header>"
    )


def _misses(lines: Sequence[Line], word: str, most: int | None = None) -> str:
    """The limits that were missed, a line to a name: figures, what is accepted, and the sense of it."""
    by_name: dict[str, list[Line]] = {}
    for line in lines:
        by_name.setdefault(line["name"], []).append(line)
    shown_ones = list(by_name.items())[:most]
    left = len(by_name) - len(shown_ones)
    more = f"<li>{left} more, marked below</li>" if left else ""
    return "".join(_miss(name, same, word) for name, same in shown_ones) + more


def _miss(name: str, lines: Sequence[Line], word: str) -> str:
    check = CHECKS.get(reading.OWNER.get(name, ""))
    several = len(lines) > 1
    figures = ", ".join(
        f"{line['region'] + ' ' if several else ''}{with_unit(line['value'], line['unit'])}" for line in lines
    )
    region = "" if several else reading.where(lines[0])
    return (
        f'<li><b>{word}: <a href="#{_place(name)}">{escape(spelled(name))}</a></b>{escape(region)} '
        f"{escape(figures)}; accepted {escape(reading.ends(lines[0]['limit']))}. <span class=soft>"
        f"{escape(check.tells if check else '')}</span></li>"
    )


def _reason(line: Line, kind: Kind, own: Mapping[str, Range]) -> str:
    """Why the limit is what it is."""
    if line["name"] in own:
        return "your own, by --limits"
    limit = LIMITS[kind].get(line["name"])
    return limit.reason if limit else ""


def _place(name: str) -> str:
    """The id of a check's rows."""
    return f"check-{reading.OWNER.get(name, name)}"


def _facts(record: Record, evidence: Evidence) -> str:
    """What the image was judged by, in one line."""
    height, width = record["pieces"]["shape"] if record.get("pieces") else evidence.high.shape
    name = {key: escape(Path(record[key]).name) for key in ("low", "truth") if record[key]}
    told = [
        f"{width} × {height} px",
        f"×{record['scale']} from <b>{name['low']}</b>" if "low" in name else "without the data that it was made from",
        f"against the truth <b>{name['truth']}</b>" if "truth" in name else "no truth is known",
        {"astro": "sky", "micro": "microscope"}[evidence.kind],
        f"pixels hold {record['quantity']}s" if record.get("quantity") else "",
    ]
    return f'<p class="facts">{" · ".join(part for part in told if part)}</p>'


def _keys(record: Record, kind: Kind, own: Mapping[str, Range]) -> str:
    """The few figures that are looked at first."""
    least = reading.beside(record).get("bicubic", {})
    tiles = []
    for line in reading.key_figures(record):
        other, limit = least.get((line["name"], line["region"])), reading.ends(line["limit"])
        said = f"bicubic {with_unit(other, '')}" if other is not None else escape(limit and f"accepted {limit}")
        tiles.append(
            f'<li><span class="name">{escape(spelled(line["name"]) + reading.where(line))}</span><b><a '
            f'href="#{_place(line["name"])}">'
            f"{with_unit(line['value'], '')} <small>{escape(line['unit'])}</small></a></b> "
            f"{_mark(line, reading.is_grave(line, own, kind))}"
            f'<span class="said">{said or "&nbsp;"}</span></li>'
        )
    return f'<ul class="keys" aria-label="key figures">{"".join(tiles)}</ul>' if tiles else ""


def _mark(line: Line, grave: bool) -> str:
    if line["passed"] is None:
        return ""
    return badge("pass" if line["passed"] else "fail" if grave else "warn")


def _group(group: Group, record: Record, plots: Sequence[str], kind: Kind, own: Mapping[str, Range]) -> str:
    """One heading: the table of its checks, and its charts beside it."""
    good = sum(group.marks)
    told = f"{good} of {len(group.marks)} within their limits" if group.marks else "for information, without limits"
    names = [name for name, values in reading.beside(record).items() if _shares(values, group)]
    heads = "".join(
        f'<th scope="col" class="number"><abbr title="{escape(name)}">{escape(BRIEF.get(name, name))}</abbr></th>'
        for name in names
    )
    drawn = f'<div class="charts">{"".join(plots)}</div>' if plots else ""
    bodies = "".join(_entry(entry, record, names, kind, own) for entry in group.entries)
    return (
        f"<section><h2>{escape(group.title)} <small>{told}</small></h2>"
        f'<div class="group{" plotted" if plots and not names else ""}"><div class="scroll"><table '
        f'class="results{"" if names else " bare"}"><thead><tr>'
        f'<th scope="col">region</th><th scope="col" class="number">value</th><th scope="col">accepted</th>'
        f'<th scope="col"><span class="hint">range</span></th><th scope="col">mark</th>{heads}</tr></thead>'
        f"{bodies}</table></div>{drawn}</div></section>"
    )


def _shares(values: Mapping[tuple[str, str], Any], group: Group) -> bool:
    return any((line["name"], line["region"]) in values for entry in group.entries for line in entry.results)


def _entry(entry: Entry, record: Record, names: Sequence[str], kind: Kind, own: Mapping[str, Range]) -> str:
    """A check: what it is called and tells, its figures, and folded away what is behind them."""
    shown_ones = [line for line in entry.results if line["limit"] or len(entry.results) <= MANY]
    folded = [line for line in entry.results if line not in shown_ones]
    rows, hidden = (
        "".join(_row(line, entry, record, names, kind, own) for line in lines) for lines in (shown_ones, folded)
    )
    inner = f'<table class="results bare"><tbody>{hidden}</tbody></table>' if folded else ""
    rows += _told(folded, len(names)) if folded else ""
    facts = list(
        dict.fromkeys((line["name"], line["region"], line["meaning"]) for line in entry.results if line["meaning"])
    )
    behind = "".join(f"<li>{_label(n, r, entry)}: {escape(m)}</li>" for n, r, m in facts)
    reasons = list(dict.fromkeys(_reason(line, kind, own) for line in entry.results if line["passed"] is not None))
    limits = "".join(f"<p><b>Limit:</b> {escape(reason)}</p>" for reason in reasons if reason)
    codes = ", ".join(f"<code>{escape(name)}</code>" for name in dict.fromkeys(line["name"] for line in entry.results))
    return (
        f'<tbody class="check" id="check-{escape(entry.name)}"><tr><th scope="rowgroup" colspan="{5 + len(names)}">'
        f'<details><summary><b>{escape(spelled(entry.name))}</b> <span class="tells">{escape(entry.check.tells)}</span>'
        f' <span class="more">more</span></summary><p><b>It cannot see:</b> '
        f"{escape(entry.check.blind)}</p>{limits}<ul>{behind}</ul><p>{codes}</p>{inner}</details></th></tr>{rows}</tbody>"
    )


def _told(folded: Sequence[Line], baselines: int) -> str:
    """One row for many."""
    values = [line["value"] for line in folded if line["value"] is not None]
    ends = f"{with_unit(min(values), '')} to {with_unit(max(values), '')}" if values else "infinite"
    return (
        f'<tr class="line"><th scope="row">{len(folded)} regions</th><td class="number value">{ends}</td>'
        f'<td colspan="{3 + baselines}" class="soft">each of them under “more”</td></tr>'
    )


def _label(name: str, region: str, entry: Entry) -> str:
    """Region, with the result's name where the check has several."""
    several = len({line["name"] for line in entry.results}) > 1
    return escape(f"{spelled(name)}, {region}" if several else region)


def _row(line: Line, entry: Entry, record: Record, names: Sequence[str], kind: Kind, own: Mapping[str, Range]) -> str:
    """A figure with its limit, its mark and the baselines' figures."""
    place = (line["name"], line["region"])
    others = {name: reading.beside(record)[name].get(place) for name in names}
    cells = "".join(
        f'<td class="number other" data-head="{escape(BRIEF.get(name, name))}">'
        f"{shown(v).replace('-', '−') if v is not None else ''}</td>"
        for name, v in others.items()
    )
    strip = ""
    if line["limit"] and line["value"] is not None:
        strip = gauge(line["value"], tuple(line["limit"]), [v for v in others.values() if v is not None])
    value = with_unit(line["value"], "")
    unit = f' <span class="unit">{escape(line["unit"])}</span>' if line["unit"] else ""
    limit = f'<td data-head="accepted">{escape(reading.ends(line["limit"]))}</td>' if line["limit"] else "<td></td>"
    return (
        f'<tr class="line{" missed-row" if line["passed"] is False else ""}" data-name="{escape(line["name"])}" '
        f'data-region="{escape(line["region"])}"><th scope="row">{_label(*place, entry)}</th>'
        f'<td class="number value">{value}{unit}</td>{limit}<td class="strip">{strip}</td>'
        f"<td>{_mark(line, reading.is_grave(line, own, kind))}</td>{cells}</tr>"
    )


def _absent(record: Record) -> str:
    """What was not computed, and why."""
    found = reading.absent(record)
    if not found:
        return ""
    by_reason: dict[str, list[str]] = {}
    for name, region, why in found:
        by_reason.setdefault(why, []).append(
            f'<span data-name="{escape(name)}" data-region="{escape(region)}">{escape(spelled(name))}</span>'
        )
    rows = "".join(f"<tr><td>{', '.join(who)}</td><td>{escape(why)}</td></tr>" for why, who in by_reason.items())
    return (
        f"<section><h2>Not computed</h2><details><summary>{len(found)} results could not be measured here; "
        f'none of them counts as passed</summary><table><thead><tr><th scope="col">check</th><th scope="col">why</th>'
        f"</tr>"
        f"</thead><tbody>{rows}</tbody></table></details></section>"
    )


def _notes(record: Record) -> str:
    """What was assumed, and how to read the page."""
    said = _items(record.get("said", ()))
    return (
        f"<footer>{f'<h2>What was assumed and noticed</h2><ul>{said}</ul>' if said else ''}<p>How to read it: <b>"
        f"fail</b> is a limit "
        "missed that says the image is wrong, <b>warn</b> one that says look closer; figures without a mark have no "
        "limit. "
        "Numbers beside a value are those of classical methods on the same data, judged in the same way. "
        f"Made by sciresdiff {__version__}; the whole record is in this file as JSON.</p></footer>"
    )


def _items(lines: Iterable[str]) -> str:
    return "".join(f"<li>{escape(line)}</li>" for line in lines)
