"""One page over many images: a table of them, and how every figure is distributed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import median
from urllib.parse import quote

from sciresdiff.io.atomic import write_atomic
from sciresdiff.report import reading
from sciresdiff.report.html import badge, document
from sciresdiff.report.reading import Line, spelled, with_unit
from sciresdiff.report.record import Record
from sciresdiff.report.svg import Axis

STRIP = (300, 26)
"""Width and height of the strip that a distribution is drawn on."""
ORDER = ("fail", "warn", "pass")
"""Verdicts, the worst first."""
HEAD = 100_000
"""Letters at the start of a page in which its small picture stands."""


def write_summary(
    records: Sequence[Record],
    pages: Mapping[str, Path],
    path: str | Path,
    failed: Sequence[str] = (),
    overwrite: bool = False,
) -> None:
    """Write the page over many images.

    Parameters
    ----------
    records : as ``evaluate`` makes them.
    pages : name of the image (``high``) -> its own page, from which the small picture is taken.
    failed : images that could not be evaluated.

    Raises
    ------
    UsageError : the file exists and ``overwrite`` is off, or cannot be written.
    """
    text = summary(records, pages, Path(path).parent, failed)
    write_atomic({Path(path): lambda target: target.write_text(text, encoding="utf-8")}, overwrite=overwrite)


def summary(records: Sequence[Record], pages: Mapping[str, Path], folder: Path, failed: Sequence[str] = ()) -> str:
    """The page's text; links are relative to ``folder``."""
    ordered = sorted(records, key=lambda record: ORDER.index(record["verdict"]))
    worst = ordered[0]["verdict"] if ordered else "fail"
    lost = "".join(f"<li>{escape(name)}</li>" for name in failed)
    body = (
        f"<header><h1>{_number(len(records))} evaluated</h1>"
        f'<div class="verdict {worst}" role="status"><strong>{escape(_counts(records))}</strong>'
        f"<p>{escape(_often(records))}</p></div></header>"
        f"{f'<p>Not evaluated:</p><ul>{lost}</ul>' if lost else ''}"
        f"<section><h2>Images</h2>{_table(ordered, pages, folder)}</section>{_distributions(records)}"
    )
    return document(f"{_number(len(records))}: {_counts(records)}", body, list(records))


def _number(n: int) -> str:
    return f"{n} image{'' if n == 1 else 's'}"


def _counts(records: Sequence[Record]) -> str:
    """``1 fail, 2 warn, 5 pass``."""
    found = Counter(record["verdict"] for record in records)
    return ", ".join(f"{found[v]} {v}" for v in ORDER if found[v]) or "nothing was evaluated"


def _often(records: Sequence[Record]) -> str:
    """What was missed most often."""
    missed = Counter(
        name for record in records for name in {r["name"] for r in record["results"] if r["passed"] is False}
    )
    told = [f"{spelled(name)} ({n})" for name, n in missed.most_common(4)]
    return f"Outside what is accepted most often: {', '.join(told)}." if told else "No limit was missed."


def _table(records: Sequence[Record], pages: Mapping[str, Path], folder: Path) -> str:
    """A row for every image, the worst first."""
    names = [n for n in reading.KEY if any(n == line["name"] for r in records for line in reading.key_figures(r))]
    heads = "".join(f'<th scope="col" class="number wide">{escape(spelled(name))}</th>' for name in names)
    rows = "".join(_row(record, names, pages.get(record["high"]), folder) for record in records)
    return (
        '<div class="scroll"><table class="frames"><thead><tr><th scope="col">picture</th><th scope="col">image</th>'
        f'<th scope="col">verdict</th>{heads}<th scope="col" class="wide">outside what is accepted</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(record: Record, names: Sequence[str], page: Path | None, folder: Path) -> str:
    title = escape(Path(record["high"]).name)
    figures = {line["name"]: line for line in reading.key_figures(record)}
    cells = "".join(f'<td class="number wide">{_figure(figures.get(name))}</td>' for name in names)
    missed = dict.fromkeys(spelled(r["name"]) for r in record["results"] if r["passed"] is False)
    link, picture = title, None if page is None else small_picture(page)
    if page is not None:
        link = f'<a href="{escape(quote(page.relative_to(folder).as_posix()))}">{title}</a>'
    shown = f'<img class="small" src="{picture}" alt="{title}, small">' if picture else ""
    return (
        f'<tr data-high="{escape(record["high"])}"><td>{shown}</td><th scope="row">{link}{_small(missed)}</th>'
        f'<td>{badge(record["verdict"])}</td>{cells}<td class="wide">{escape(", ".join(missed))}</td></tr>'
    )


def _small(missed: Mapping[str, None]) -> str:
    """What was missed, where there is no room for a column of it."""
    return f'<br><span class="soft narrow">{escape(", ".join(missed))}</span>' if missed else ""


def _figure(line: Line | None) -> str:
    if line is None:
        return ""
    colour = ' class="fail"' if line["passed"] is False else ""
    return f"<span{colour}>{escape(with_unit(line['value'], ''))}</span>"


def small_picture(page: Path) -> str | None:
    """The picture that a page carries as its icon, as a ``data:`` address; None where it has none."""
    try:
        with page.open(encoding="utf-8") as stream:
            found = re.search(r'<link rel="icon" href="(data:[^"]+)">', stream.read(HEAD))
    except (OSError, UnicodeDecodeError):
        return None
    return found[1] if found else None


def _distributions(records: Sequence[Record]) -> str:
    """How every figure is distributed over the images, by heading."""
    found: dict[str, dict[tuple[str, str], list[tuple[str, Line]]]] = {}
    for record in records:
        for group in reading.groups(record):
            for entry in group.entries:
                for line in entry.results:
                    if line["value"] is not None:
                        places = found.setdefault(group.title, {})
                        places.setdefault((line["name"], line["region"]), []).append((record["high"], line))
    sections = "".join(_distribution(title, places) for title, places in found.items() if places)
    return sections if len(records) > 1 else ""


def _distribution(title: str, places: Mapping[tuple[str, str], list[tuple[str, Line]]]) -> str:
    rows = "".join(_spread(name, region, lines) for (name, region), lines in places.items())
    return (
        f'<section><h2>{escape(title)}</h2><div class="scroll"><table class="spreads"><thead><tr><th scope="col">'
        f"figure</th>"
        '<th scope="col" class="number">median</th><th scope="col" class="number wide">lowest</th>'
        '<th scope="col" class="number wide">highest</th><th scope="col" class="number">missed</th>'
        f'<th scope="col">a dot for every image</th></tr></thead><tbody>{rows}</tbody></table></div></section>'
    )


def _spread(name: str, region: str, lines: Sequence[tuple[str, Line]]) -> str:
    """A figure's median, range, misses and strip."""
    values = [line["value"] for _, line in lines]
    judged = [line["passed"] for _, line in lines if line["passed"] is not None]
    limits = list(dict.fromkeys(tuple(line["limit"]) for _, line in lines if line["limit"]))
    limit = limits[0] if len(limits) == 1 else None
    where = escape(reading.where(lines[0][1]))
    words = f"accepted {reading.ends(limit)}" if limit else "limits differ from image to image" if limits else ""
    told = f'<br><span class="soft">{escape(words)}</span>' if words else ""
    missed = f"{judged.count(False)} of {len(judged)}" if judged else ""
    low, middle, high = (escape(with_unit(v, "")) for v in (min(values), median(values), max(values)))
    return (
        f'<tr><th scope="row">{escape(spelled(name))}{where}{told}</th><td class="number">{middle} '
        f'<span class="unit">{escape(lines[0][1]["unit"])}</span></td><td class="number wide">{low}</td>'
        f'<td class="number wide">{high}</td><td class="number">{missed}</td><td>{strip(lines, limit)}</td></tr>'
    )


def strip(lines: Sequence[tuple[str, Line]], limit: tuple[float | None, float | None] | None) -> str:
    """A dot for every image along the figure's values; the accepted range is shaded, what misses it is red."""
    values = [line["value"] for _, line in lines]
    known = [*values, *(end for end in limit or () if end is not None)]
    low, high = min(known), max(known)
    room = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    axis = Axis(low - room, high + room, 6, STRIP[0] - 6)
    shade = ""
    if limit:
        start = 0.0 if limit[0] is None else float(axis.place(limit[0]))
        end = float(STRIP[0]) if limit[1] is None else float(axis.place(limit[1]))
        shade = f'<rect class="accepted" x="{start:.1f}" y="2" width="{max(end - start, 1.5):.1f}" height="22"/>'
    dots = "".join(
        f'<circle class="{"off" if line["passed"] is False else "on"}" cx="{float(axis.place(line["value"])):.1f}" '
        f'cy="{9 + 8 * (i % 2)}" r="4"><title>{escape(Path(high).name)}: '
        f"{escape(with_unit(line['value'], line['unit']))}"
        "</title></circle>"
        for i, (high, line) in enumerate(lines)
    )
    label = escape(f"{spelled(lines[0][1]['name'])}: {len(lines)} images from {min(values):.4g} to {max(values):.4g}")
    return (
        f'<svg class="strip" viewBox="0 0 {STRIP[0]} {STRIP[1]}" role="img" aria-label="{label}">'
        f'<path class="grid" d="M0 13H{STRIP[0]}"/>{shade}{dots}</svg>'
    )
