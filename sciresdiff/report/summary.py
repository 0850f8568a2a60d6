"""One page over many images: a table of them, and how every figure is distributed.

What the page shows is put together here, as plain values; the markup is in ``summary.html.j2``.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import quote

from sciresdiff.io.atomic import write_atomic
from sciresdiff.report import presentation
from sciresdiff.report.presentation import Line, display_name, format_with_unit
from sciresdiff.report.record import Record
from sciresdiff.report.svg import Axis
from sciresdiff.report.templates import render_document

STRIP = (300, 26)
"""Width and height of the strip that a distribution is drawn on."""
MARGIN = 6
"""Room at its ends."""
ORDER = ("fail", "warn", "pass")
"""Verdicts, the worst first."""
HEAD = 100_000
"""Letters at the start of a page that its small picture is searched in."""

Limit = tuple[float | None, float | None]


@dataclass(frozen=True)
class Figure:
    """A key figure of an image."""

    value: str
    missed: bool


@dataclass(frozen=True)
class Image:
    """A row of the table."""

    high: str
    name: str
    verdict: str
    link: str
    """Address of its own page; empty without one."""
    picture: str | None
    figures: Sequence[Figure | None]
    missed: str


@dataclass(frozen=True)
class Dot:
    """An image on a strip."""

    x: str
    title: str
    missed: bool


@dataclass(frozen=True)
class Strip:
    """The values of a figure along a line, and its accepted range: start and width."""

    label: str
    dots: Sequence[Dot]
    accepted: tuple[str, str] | None
    width: int = STRIP[0]
    height: int = STRIP[1]


@dataclass(frozen=True)
class Distribution:
    """A figure over all images."""

    title: str
    unit: str
    accepted: str
    lowest: str
    median: str
    highest: str
    missed: str
    strip: Strip


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
    path : file to write.
    failed : images that could not be evaluated.
    overwrite : whether a file may be replaced.

    Raises
    ------
    UsageError : the file exists and ``overwrite`` is off, or cannot be written.
    """
    text = summary(records, pages, Path(path).parent, failed)
    write_atomic({Path(path): lambda target: target.write_text(text, "utf-8", "backslashreplace")}, overwrite=overwrite)


def summary(records: Sequence[Record], pages: Mapping[str, Path], folder: Path, failed: Sequence[str] = ()) -> str:
    """Make the page's text.

    Parameters
    ----------
    records, pages, failed : as for `write_summary`.
    folder : links are relative to it.
    """
    ordered = sorted(records, key=lambda record: ORDER.index(record["verdict"]))
    lines = [line for record in ordered for line in presentation.key_figures(record)]
    names = [name for name in presentation.KEY if any(name == line["name"] for line in lines)]
    heading, counts = f"{len(records)} image{'' if len(records) == 1 else 's'}", _counts(records)
    return render_document(
        "summary.html.j2",
        list(records),
        title=f"{heading}: {counts}",
        icon="",
        heading=heading,
        counts=counts,
        worst=ordered[0]["verdict"] if ordered else "fail",
        often=_often_missed(records),
        failed=failed,
        columns=[display_name(name) for name in names],
        images=[_image(record, names, pages.get(record["high"]), folder) for record in ordered],
        distributions=_distributions(records) if len(records) > 1 else {},
    )


def _counts(records: Sequence[Record]) -> str:
    """``1 fail, 2 warn, 5 pass``."""
    found = Counter(record["verdict"] for record in records)
    return ", ".join(f"{found[v]} {v}" for v in ORDER if found[v]) or "nothing was evaluated"


def _often_missed(records: Sequence[Record]) -> str:
    """The limits that were missed most often, in a sentence."""
    missed = Counter(
        name for record in records for name in {r["name"] for r in record["results"] if r["passed"] is False}
    )
    named = [f"{display_name(name)} ({n})" for name, n in missed.most_common(4)]
    return f"Outside what is accepted most often: {', '.join(named)}." if named else "No limit was missed."


def _image(record: Record, names: Sequence[str], page: Path | None, folder: Path) -> Image:
    """The row of an image."""
    lines = {line["name"]: line for line in presentation.key_figures(record)}
    missed = dict.fromkeys(display_name(r["name"]) for r in record["results"] if r["passed"] is False)
    return Image(
        record["high"],
        Path(record["high"]).name,
        record["verdict"],
        "" if page is None else quote(os.fsencode(page.relative_to(folder).as_posix())),
        None if page is None else small_picture(page),
        [_figure(lines.get(name)) for name in names],
        ", ".join(missed),
    )


def _figure(line: Line | None) -> Figure | None:
    """A cell of the table."""
    return None if line is None else Figure(format_with_unit(line["value"], ""), line["passed"] is False)


def small_picture(page: Path) -> str | None:
    """Read the picture that a page carries as its icon, as a ``data:`` address; None where it has none."""
    try:
        with page.open(encoding="utf-8") as stream:
            found = re.search(r'<link rel="icon" href="(data:[^"]+)">', stream.read(HEAD))
    except (OSError, UnicodeDecodeError):
        return None
    return found[1] if found else None


def _distributions(records: Sequence[Record]) -> dict[str, list[Distribution]]:
    """Heading -> the distributions of its figures."""
    found: dict[str, dict[tuple[str, str], list[tuple[str, Line]]]] = {}
    for record in records:
        for group in presentation.groups(record):
            for line in (line for entry in group.entries for line in entry.results if line["value"] is not None):
                places = found.setdefault(group.title, {})
                places.setdefault((line["name"], line["region"]), []).append((record["high"], line))
    return {title: [_distribution(name, lines) for (name, _), lines in places.items()]
            for title, places in found.items()}  # fmt: skip


def _distribution(name: str, lines: Sequence[tuple[str, Line]]) -> Distribution:
    """A figure's median, range, misses and strip."""
    values = [line["value"] for _, line in lines]
    judged = [line["passed"] for _, line in lines if line["passed"] is not None]
    limits = list(dict.fromkeys(tuple(line["limit"]) for _, line in lines if line["limit"]))
    limit = limits[0] if len(limits) == 1 else None
    accepted = "limits differ from image to image" if limits else ""
    return Distribution(
        display_name(name) + presentation.region_words(lines[0][1]),
        lines[0][1]["unit"],
        f"accepted {presentation.limit_words(limit)}" if limit else accepted,
        format_with_unit(min(values), ""),
        format_with_unit(median(values), ""),
        format_with_unit(max(values), ""),
        f"{judged.count(False)} of {len(judged)}" if judged else "",
        _strip(lines, limit),
    )


def _strip(lines: Sequence[tuple[str, Line]], limit: Limit | None) -> Strip:
    """A dot for every image along the figure's values; the accepted range is shaded, what misses it is red."""
    values = [line["value"] for _, line in lines]
    known = [*values, *(end for end in limit or () if end is not None)]
    low, high = min(known), max(known)
    room = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    axis = Axis(low - room, high + room, MARGIN, STRIP[0] - MARGIN)
    shade = None
    if limit:
        start = 0.0 if limit[0] is None else float(axis.place(limit[0]))
        end = float(STRIP[0]) if limit[1] is None else float(axis.place(limit[1]))
        shade = f"{start:.1f}", f"{max(end - start, 1.5):.1f}"
    dots = [
        Dot(f"{float(axis.place(line['value'])):.1f}",
            f"{Path(image).name}: {format_with_unit(line['value'], line['unit'])}", line["passed"] is False)
        for image, line in lines
    ]  # fmt: skip
    label = f"{display_name(lines[0][1]['name'])}: {len(lines)} images from {min(values):.4g} to {max(values):.4g}"
    return Strip(label, dots, shade)
