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
from sciresdiff.cli.run import failed, finish
from sciresdiff.cli.voice import Voice
from sciresdiff.errors import CheckFailed
from sciresdiff.jobs import batch

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
    typer.Option(metavar="PICTURE.png", rich_help_panel=o.OUTPUT, help="Draw a picture; a folder for several images."),
]
Csv = Annotated[
    str | None, typer.Option(metavar="FILE", rich_help_panel=o.OUTPUT, help="Write all results into one table.")
]
Baselines = Annotated[
    str,
    typer.Option(
        metavar="LIST",
        rich_help_panel=o.CHECKS,
        help="Classical methods to stand beside: bicubic, lanczos, richardson-lucy, or none.",
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
    baselines: Baselines = "bicubic,lanczos,richardson-lucy",
    strict: Strict = False,
    limits: Limits = None,
    recursive: o.Recursive = False,
    overwrite: o.Overwrite = False,
    dry_run: o.DryRun = False,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    threads: o.Threads = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    json: o.Json = False,
    config: o.Config = None,
) -> None:
    """Measure restored images: fluxes, sources, agreement with the data, calibration, beside the classical methods.

    Example: sciresdiff evaluate high.fits --low low.fits --truth truth.fits --report high.png

    Without a truth every check that needs none is run. Several images are matched with theirs by stem, else by order.
    """
    from sciresdiff.jobs import evaluate as job

    voice = Voice(quiet, verbose, json)
    tasks = [batch.Task(item.path) for item in batch.find_inputs(inputs, recursive, sys.stdin if "-" in inputs else ())]
    given = {
        task.source: {"low": one, "truth": true, "report": picture}
        for task, one, true, picture in zip(
            tasks, *_partners(job.pairs, tasks, low, truth), _pictures(report, tasks), strict=True
        )
    }
    if dry_run:
        for path, files in given.items():
            voice.record({"high": path, **files}) if json else print(f"{path}: {_plan(files)}")
        return
    if csv:
        batch.check_target(Path(csv), overwrite, "--csv")
    _set_threads(threads)
    records: list[Mapping[str, Any]] = []
    shared = {"psf": psf, "kernel": kernel, "target_fwhm": target_fwhm, "variance": variance, "quantity": quantity}
    rules = {"baselines": baselines, "limits": limits, "overwrite": overwrite}
    with voice.progress() as progress:
        code = batch.run(
            tasks,
            lambda task: job.run(task.source, **given[task.source], **shared, **rules, progress=progress),  # type: ignore[arg-type]
            _told(voice, records, strict),
            failed(voice, len(tasks)),
        )
    if csv and records:
        from sciresdiff.report.record import write_csv

        write_csv(records, csv, overwrite)
    finish(code)


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


def _pictures(report: str | None, tasks: list[batch.Task]) -> list[Path | None]:
    """Where the picture of every image goes: the file itself, or a folder for several."""
    if report is None:
        return [None] * len(tasks)
    if len(tasks) == 1:
        return [Path(report)]
    from sciresdiff.io import stem

    return [Path(report) / f"{stem(task.source)}.png" for task in tasks]


def _plan(files: Mapping[str, Path | None]) -> str:
    """What belongs to an image, in a few words."""
    return ", ".join(f"{name} {path}" for name, path in files.items() if path) or "alone"


def _set_threads(threads: int | None) -> None:
    """Limit torch to ``--threads``."""
    if threads:
        import torch

        torch.set_num_threads(threads)


def _told(
    voice: Voice, records: list[Mapping[str, Any]], strict: bool
) -> Callable[[batch.Task, Mapping[str, Any]], int]:
    """How a record is told; returns the code that it deserves."""

    def tell(task: batch.Task, record: Mapping[str, Any]) -> int:
        records.append(record)
        for line in record.get("said", ()):
            voice.say(f"{task.source.name}: {line}")
        if voice.json:
            voice.record(record)
        else:
            show(record)
        if not (strict and record["verdict"] == "fail"):
            return 0
        missed = ", ".join(f"{r['name']} ({r['region']})" for r in record["results"] if r["passed"] is False)
        voice.complain(f"{task.source}: --strict: outside their limits: {missed}")
        return CheckFailed.exit_code

    return tell


def show(record: Mapping[str, Any]) -> None:
    """Print the verdict and the table of results on stdout."""
    from sciresdiff.report.record import header, table

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
