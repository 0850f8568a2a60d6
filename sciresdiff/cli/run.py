"""From parsed options to many jobs: expand, plan or run, report, and end with the worst code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import typer

from sciresdiff.cli.console import Console
from sciresdiff.cli.messages import report_done, report_failure, report_plan, report_skipped
from sciresdiff.run import batch, workers
from sciresdiff.run.options import FileOptions
from sciresdiff.run.shards import Shard, shard_of

Work = Callable[[Path, Path, batch.Progress, Shard | None], Mapping[str, Any]]
Plan = Callable[[Path], Mapping[str, Any]]


def over_files(
    shared: FileOptions,
    options: Any,
    scale_of: Callable[[Path], int | None],
    work: Work,
    plan: Plan,
    blocks: bool = False,
    far: workers.Far | None = None,
) -> None:
    """Do one job for every input, or say with ``--dry-run`` what would be done.

    ``options`` are what an output depends on. ``blocks``: of a single input a shard does its share of the blocks,
    which ``work`` is then told; otherwise shards share files. ``far``: the job as workers of ``--scheduler`` do it,
    where there are several inputs.
    """
    from sciresdiff.run import manifest

    skip = Path(shared.output) if Path(shared.output).is_dir() else None
    found = batch.find_inputs(shared.inputs, shared.recursive, sys.stdin if "-" in shared.inputs else (), skip)
    shard = shard_of(shared.shard)
    part = shard if blocks and len(found) == 1 else None
    tasks = batch.place(found, shared.output, shared.inputs, scale_of, shard if part is None else None)
    console, listed = Console.of(shared), Path(shared.manifest) if shared.manifest else None
    stands, right, wrong, skip_it = (
        manifest.standing(options, listed),
        report_done(console),
        report_failure(console, len(found)),
        report_skipped(console),
    )
    if shared.dry_run:
        finish(
            batch.run(
                tasks, lambda t: plan(t.source), report_plan(console), wrong, shared.overwrite, False, stands, skip_it
            )
        )
    with console.progress() as progress, manifest.opened(listed, options) as notes:

        def one(task: batch.Task) -> Mapping[str, Any]:
            assert task.target, "place() names an output for every input"
            notes.start()
            return work(task.source, task.target, progress, part)

        def done(task: batch.Task, record: Mapping[str, Any]) -> None:
            notes.done(task, record)
            right(task, record)

        def bad(task: batch.Task, problem: Exception) -> None:
            notes.failed(task, problem)
            wrong(task, problem)

        def there(task: batch.Task) -> None:
            notes.skipped(task)
            skip_it(task)

        does: Callable[[batch.Task], Mapping[str, Any]] = one
        each: batch.Each = batch.in_turn
        if shared.scheduler and far and len(found) > 1:
            does, each = partial(workers.timed, far), workers.spread(shared.scheduler, shared.threads, progress)
        code = batch.run(tasks, does, done, bad, shared.overwrite, True, stands, there, each)
    finish(code)


def finish(code: int) -> None:
    """End the program with this code."""
    raise typer.Exit(code)


def set_threads(threads: int | None) -> None:
    """Limit torch to ``--threads``."""
    if threads:
        import torch

        torch.set_num_threads(threads)
