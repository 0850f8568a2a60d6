"""``sciresdiff evaluate``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sciresdiff.cli import options as o
from sciresdiff.cli.run import failed, finish, set_threads
from sciresdiff.cli.voice import Voice
from sciresdiff.errors import CheckFailed, UsageError
from sciresdiff.run import batch

WIDE = 160
"""Columns of a table that goes into a file or a pipe."""

Low = Annotated[
    list[str] | None,
    typer.Option(metavar="LOW", rich_help_panel=o.INPUT, help="The frame that was restored; again for several."),
]
Truth = Annotated[
    list[str] | None,
    typer.Option(metavar="TRUTH", rich_help_panel=o.INPUT, help="The true image, where it is known."),
]
Report = Annotated[
    str | None,
    typer.Option(
        metavar="PAGE.html",
        rich_help_panel=o.OUTPUT,
        help="Write a page to read; NAME.png for a picture, a folder for a page of each image and one over all.",
    ),
]
Csv = Annotated[
    str | None, typer.Option(metavar="FILE", rich_help_panel=o.OUTPUT, help="Write a table with one row an image.")
]
CsvLong = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", rich_help_panel=o.OUTPUT, help="Write a table with one row a result, the baselines' too."
    ),
]
Baselines = Annotated[
    str,
    typer.Option(
        metavar="LIST",
        rich_help_panel=o.CHECKS,
        help="Classical methods to stand beside: bicubic, lanczos, wiener, richardson-lucy (also -10, -60, "
        "-accelerated, -accelerated-best), or none.",
    ),
]
Probe = Annotated[
    bool,
    typer.Option(
        "--probe",
        rich_help_panel=o.CHECKS,
        help="Restore blank sky and injected sources, too, with the settings in the image's sidecar.",
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", rich_help_panel=o.CHECKS, help="Exit with 4 where the verdict is fail.")
]
Limits = Annotated[
    str | None,
    typer.Option(metavar="FILE.toml", rich_help_panel=o.CHECKS, help="Limits of your own, by the check's name."),
]


def evaluate(
    inputs: o.Inputs,
    low: Low = None,
    truth: Truth = None,
    psf: o.Psf = None,
    kernel: o.Kernel = None,
    target_fwhm: o.TargetFwhm = None,
    variance: o.Variance = None,
    quantity: o.Quantity = None,
    report: Report = None,
    csv: Csv = None,
    csv_long: CsvLong = None,
    baselines: Baselines = "bicubic,lanczos,richardson-lucy",
    probe: Probe = False,
    strict: Strict = False,
    limits: Limits = None,
    recursive: o.Recursive = False,
    overwrite: o.Overwrite = False,
    dry_run: o.DryRun = False,
    device: o.Device = "auto",
    threads: o.Threads = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    json: o.Json = False,
    config: o.Config = None,
) -> None:
    """Measure restored images: fluxes, sources, agreement with the data, calibration, beside the classical methods.

    Example: sciresdiff evaluate high.fits --low low.fits --truth truth.fits --report high.html

    Without a truth every check that needs none is run. Several images are matched with theirs by stem, else by order.

    Images of more than 4096 px a side are judged in pieces, whose results are pooled (docs/reference/checks.md says how).
    """
    from sciresdiff.jobs import evaluate as job

    voice = Voice(quiet, verbose, json)
    tasks = [batch.Task(item.path) for item in batch.find_inputs(inputs, recursive, sys.stdin if "-" in inputs else ())]
    pages, index = _pages(report, tasks)
    given = {
        task.source: {"low": one, "truth": true, "report": picture}
        for task, one, true, picture in zip(tasks, *_partners(job.pairs, tasks, low, truth), pages, strict=True)
    }
    if dry_run:
        for path, files in given.items():
            voice.record({"high": path, **files}) if json else print(f"{path}: {_plan(files)}")
        return
    for option, target in (("--csv", csv), ("--csv-long", csv_long), ("--report", index)):
        if target:
            batch.check_target(Path(target), overwrite, option)
    set_threads(threads)
    records: list[Mapping[str, Any]] = []
    shared = {"psf": psf, "kernel": kernel, "target_fwhm": target_fwhm, "variance": variance, "quantity": quantity}
    rules = {"baselines": baselines, "probe": probe, "limits": limits, "overwrite": overwrite, "device": device}
    with voice.progress() as progress:
        code = batch.run(
            tasks,
            lambda task: job.run(task.source, **given[task.source], **shared, **rules, progress=progress),  # type: ignore[arg-type]
            _told(voice, records, strict, verbose),
            failed(voice, len(tasks)),
        )
    _write_tables(records, csv, csv_long, overwrite)
    if index:
        _write_index(records, {str(path): files["report"] for path, files in given.items()}, index, overwrite)
    finish(code)


def _write_tables(records: list[Mapping[str, Any]], csv: str | None, csv_long: str | None, overwrite: bool) -> None:
    """The tables that were asked for; none where nothing was evaluated."""
    from sciresdiff.report.record import write_csv, write_long_csv

    if csv and records:
        write_csv(records, csv, overwrite)
    if csv_long and records:
        write_long_csv(records, csv_long, overwrite)


def _write_index(
    records: list[Mapping[str, Any]], pages: Mapping[str, Path | None], index: Path, overwrite: bool
) -> None:
    """The page over all images; those without a record are listed as not evaluated."""
    from sciresdiff.report.summary import write_summary

    done = {record["high"] for record in records}
    known = {high: page for high, page in pages.items() if page and high in done}
    write_summary(records, known, index, [high for high in pages if high not in done], overwrite)


def _partners(
    pairs: Callable[..., list[Path | None]],
    tasks: list[batch.Task],
    low: list[str] | None,
    truth: list[str] | None,
) -> tuple[list[Path | None], list[Path | None]]:
    """The low frame and the truth of every image."""
    highs = [task.source for task in tasks]

    def of(option: str, specs: list[str] | None) -> list[Path | None]:
        return pairs(highs, [item.path for item in batch.find_inputs(specs)] if specs else [], option)

    return of("--low", low), of("--truth", truth)


def _pages(report: str | None, tasks: list[batch.Task]) -> tuple[list[Path | None], Path | None]:
    """Where the page of every image goes, and that over all: one file, or a folder of pages with ``index.html``."""
    if report is None:
        return [None] * len(tasks), None
    from sciresdiff.io import stem
    from sciresdiff.jobs.evaluate.job import REPORTS

    path = Path(report)
    if path.suffix.lower() in REPORTS and not path.is_dir():
        if len(tasks) > 1:
            raise UsageError(f"--report: {report} is one file, but there are {len(tasks)} images; give a folder")
        return [path], None
    if len(tasks) == 1 and path.suffix and not path.is_dir() and not report.endswith("/"):
        return [path], None  # refused by the job, which knows the endings
    names = unique([stem(task.source) for task in tasks], {"index"})
    return [path / f"{name}.html" for name in names], path / "index.html"


def unique(names: list[str], taken: set[str]) -> list[str]:
    """The names, with ``-2``, ``-3`` ... behind those that are taken."""
    found: list[str] = []
    for name in names:
        tries = (name if n == 1 else f"{name}-{n}" for n in range(1, len(names) + len(taken) + 2))
        found.append(next(one for one in tries if one not in taken))
        taken = taken | {found[-1]}
    return found


def _plan(files: Mapping[str, Path | None]) -> str:
    """What belongs to an image, in a few words."""
    return ", ".join(f"{name} {path}" for name, path in files.items() if path) or "alone"


def _told(
    voice: Voice, records: list[Mapping[str, Any]], strict: bool, verbose: bool
) -> Callable[[batch.Task, Mapping[str, Any]], int]:
    """How a record is told; returns the code that it deserves."""

    def tell(task: batch.Task, record: Mapping[str, Any]) -> int:
        records.append(record)
        for line in record.get("said", ()):
            voice.say(f"{task.source.name}: {line}")
        if voice.json:
            voice.record(record)
        else:
            show(record, verbose)
        if not (strict and record["verdict"] == "fail"):
            return 0
        missed = ", ".join(f"{r['name']} ({r['region']})" for r in record["results"] if r["passed"] is False)
        voice.complain(f"{task.source}: --strict: outside their limits: {missed}")
        return CheckFailed.exit_code

    return tell


def show(record: Mapping[str, Any], verbose: bool = False) -> None:
    """Print verdict and table of results on stdout; those not computed are counted, or told with their reasons."""
    from sciresdiff.report.record import header, table, uncomputed

    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, width=WIDE)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    numbers = {"value", *record["baselines"]}
    for head in header(record):
        shown.add_column(head, justify="right" if head in numbers else "left", no_wrap=True)
    for row in table(record):
        shown.add_row(*row, style="red" if "MISSED" in row else None)
    console.print(f"\n{record['high']}: {record['verdict']}", markup=False)
    console.print(shown)
    absent = [result for result in record["results"] if uncomputed(result)]
    if absent and not verbose:
        console.print(f"{len(absent)} more not computed; -v tells which, and why", markup=False)
    for result in absent if verbose else ():
        console.print(f"{result['name']}: {result['meaning']}", markup=False)
