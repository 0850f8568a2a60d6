"""``sciresdiff evaluate``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from sciresdiff.cli.console import Console, in_cell, print_lines, print_tables
from sciresdiff.cli.messages import report_failure
from sciresdiff.cli.parameters import command
from sciresdiff.cli.run import finish, set_threads
from sciresdiff.errors import CheckFailed, UsageError
from sciresdiff.jobs.evaluate.options import EvaluateFiles, EvaluateOptions
from sciresdiff.jobs.inputs import check_target, find_inputs
from sciresdiff.run import batch, workers
from sciresdiff.run.options import BatchOptions
from sciresdiff.run.shards import parse_shard

Partners = Mapping[Path, Mapping[str, Path | None]]
"""Image -> its ``low`` frame, its ``truth`` and its ``report``."""


@command()
def evaluate(options: EvaluateOptions, beside: EvaluateFiles, files: BatchOptions) -> None:
    """Measure restored images: fluxes, sources, agreement with the data, calibration, beside the classical methods.

    Example: sciresdiff evaluate high.fits --low low.fits --truth truth.fits --report high.html

    Without a truth every check that needs none is run. Several images are matched with theirs by stem, else by order.

    Images of more than 4096 px a side are judged in pieces, whose results are pooled (docs/reference/checks.md).
    """
    console = Console.of(files)
    stdin = sys.stdin if "-" in files.inputs else ()
    tasks = [batch.Task(item.path) for item in find_inputs(files.inputs, files.recursive, stdin)]
    partners, index = find_partners(tasks, beside)
    shard, several = parse_shard(files.shard), len(tasks) > 1
    if shard and several:  # every shard writes the pages of its own images, and none over all
        tasks, index = list(shard.share(tasks)), None
        partners = {task.source: partners[task.source] for task in tasks}
    if files.dry_run:
        for path, known in partners.items():
            console.record({"high": path, **known}) if console.json else print_lines([f"{path}: {_in_words(known)}"])
        return
    for option, target in (("--csv", beside.csv), ("--csv-long", beside.csv_long), ("--report", index)):
        if target:
            check_target(Path(target), files.overwrite, option)
    set_threads(files.threads)
    records: dict[str, Mapping[str, Any]] = {}
    with console.progress() as progress:
        each: batch.Each = batch.run_in_turn
        work = partial(judge, partners=partners, options=options)
        if files.scheduler and several:
            each = workers.distribute(files.scheduler, files.threads, progress)
        else:
            part = None if several else shard
            work = partial(work, progress=progress, shard=part, scheduler=files.scheduler)
        report = _report(console, records, beside.strict)
        code = batch.run(tasks, work, report, report_failure(console, len(tasks)), each=each)
    done = [records[str(path)] for path in partners if str(path) in records]
    _write_tables(done, beside, files.overwrite)
    if index and tasks:
        _write_index(done, {str(path): known["report"] for path, known in partners.items()}, index, files.overwrite)
    finish(code)


def judge(task: batch.Task, partners: Partners, options: EvaluateOptions, **run: Any) -> Mapping[str, Any]:
    """Evaluate one image, with ``run`` for `sciresdiff.jobs.evaluate.run`; it pickles."""
    from sciresdiff.jobs import evaluate as job

    record: Mapping[str, Any] = job.run(task.source, **partners[task.source], options=options, **run)
    return record


def find_partners(tasks: Sequence[batch.Task], beside: EvaluateFiles) -> tuple[Partners, Path | None]:
    """The low frame, the truth and the page of every image, and the page over all.

    Raises
    ------
    UsageError : files that cannot be matched with the images, or one page for several.
    """
    from sciresdiff.jobs import evaluate as job

    highs = [task.source for task in tasks]

    def match(option: str, specs: Sequence[str]) -> list[Path | None]:
        found: list[Path | None] = job.pairs(highs, [i.path for i in find_inputs(specs)] if specs else [], option)
        return found

    pages, index = _pages(beside.report, highs)
    matched = zip(highs, match("--low", beside.low), match("--truth", beside.truth), pages, strict=True)
    return {high: {"low": low, "truth": truth, "report": page} for high, low, truth, page in matched}, index


def _write_tables(records: Sequence[Mapping[str, Any]], beside: EvaluateFiles, overwrite: bool) -> None:
    """The tables that were asked for; none where nothing was evaluated."""
    from sciresdiff.report.record import write_csv, write_long_csv

    if beside.csv and records:
        write_csv(records, beside.csv, overwrite)
    if beside.csv_long and records:
        write_long_csv(records, beside.csv_long, overwrite)


def _write_index(
    records: Sequence[Mapping[str, Any]], pages: Mapping[str, Path | None], index: Path, overwrite: bool
) -> None:
    """The page over all images; those without a record are listed as not evaluated."""
    from sciresdiff.report.summary import write_summary

    done = {record["high"] for record in records}
    known = {high: page for high, page in pages.items() if page and high in done}
    write_summary(records, known, index, [high for high in pages if high not in done], overwrite)


def _pages(report: str | None, highs: Sequence[Path]) -> tuple[list[Path | None], Path | None]:
    """Where the page of every image goes, and that over all: one file, or a folder of pages with ``index.html``."""
    if report is None:
        return [None] * len(highs), None
    from sciresdiff.io import stem
    from sciresdiff.jobs.evaluate.job import REPORTS

    path = Path(report)
    if path.suffix.lower() in REPORTS and not path.is_dir():
        if len(highs) > 1:
            raise UsageError(f"--report: {report} is one file, but there are {len(highs)} images; give a folder")
        return [path], None
    if len(highs) == 1 and path.suffix and not path.is_dir() and not report.endswith("/"):
        return [path], None  # refused by the job, which knows the endings
    names = make_unique([stem(high) for high in highs], {"index"})
    return [path / f"{name}.html" for name in names], path / "index.html"


def make_unique(names: Sequence[str], taken: set[str]) -> list[str]:
    """The names, with ``-2``, ``-3`` ... behind those that are taken."""
    found: list[str] = []
    for name in names:
        tries = (name if n == 1 else f"{name}-{n}" for n in range(1, len(names) + len(taken) + 2))
        found.append(next(one for one in tries if one not in taken))
        taken = taken | {found[-1]}
    return found


def _in_words(partners: Mapping[str, Path | None]) -> str:
    """What belongs to an image, in a few words."""
    return ", ".join(f"{name} {path}" for name, path in partners.items() if path) or "alone"


def _report(
    console: Console, records: dict[str, Mapping[str, Any]], strict: bool
) -> Callable[[batch.Task, Mapping[str, Any]], int]:
    """Make a function that collects and prints a record, and returns the exit code that it deserves."""

    def report(task: batch.Task, record: Mapping[str, Any]) -> int:
        for line in record.get("said", ()):
            console.info(f"{task.source.name}: {line}")
        waits = record.get("status") == "waiting"  # another shard has the record
        if console.json:
            console.record(record)
        if waits:
            return 0
        records[str(task.source)] = record
        if not console.json:
            print_results(record, console.verbose)
        if not (strict and record["verdict"] == "fail"):
            return 0
        missed = ", ".join(f"{r['name']} ({r['region']})" for r in record["results"] if r["passed"] is False)
        console.error(f"{task.source}: --strict: outside their limits: {missed}")
        return CheckFailed.exit_code

    return report


def print_results(record: Mapping[str, Any], verbose: bool = False) -> None:
    """Print verdict and results on stdout; checks that were not computed are counted, or listed with their reasons."""
    from sciresdiff.report.record import header, is_not_computed, table

    shown = Table(box=None, pad_edge=False, header_style="bold")
    numbers = {"value", *record["baselines"]}
    for head in header(record):
        shown.add_column(head, justify="right" if head in numbers else "left", no_wrap=True)
    for row in table(record):
        shown.add_row(*map(in_cell, row), style="red" if "MISSED" in row else None)
    absent = [result for result in record["results"] if is_not_computed(result)]
    rest = [f"{result['name']}: {result['meaning']}" for result in absent]
    if absent and not verbose:
        rest = [f"{len(absent)} more not computed; -v tells which, and why"]
    print_tables("", in_cell(f"{record['high']}: {record['verdict']}"), shown, *map(in_cell, rest))
