"""From parsed options to many jobs: find the inputs, plan or run, report, and end with the worst exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import typer

from sciresdiff.cli.console import Console
from sciresdiff.cli.messages import report_done, report_failure, report_plan, report_skipped
from sciresdiff.jobs.inputs import Found, find_inputs, is_due, name_outputs
from sciresdiff.run import batch, workers
from sciresdiff.run.options import FileOptions
from sciresdiff.run.progress import Progress
from sciresdiff.run.shards import Shard, parse_shard

Work = Callable[[Path, Path, Progress, Shard | None], Mapping[str, Any]]
Plan = Callable[[Path], Mapping[str, Any]]


@dataclass(frozen=True)
class Together:
    """A job that makes one output of several inputs."""

    work: Callable[[Sequence[Path], Path, Path, Progress, Shard | None], Mapping[str, Any]]
    """(inputs, the first of them, output, progress, shard) -> record."""
    plan: Callable[[Sequence[Path]], Mapping[str, Any]]
    """Inputs -> what would be done."""
    identify: Callable[[Sequence[Path]], Mapping[str, str]]
    """Inputs -> everything that the output depends on."""


Remote = Callable[[Path, Path], Mapping[str, Any]]
"""(input, output) -> record; it pickles."""


def over_files(
    shared: FileOptions,
    options: Any,
    scale_of: Callable[[Path], int | None],
    work: Work,
    plan: Plan,
    remote: Remote,
    together: Together | None = None,
    identify: Callable[[Path], Mapping[str, str]] | None = None,
) -> None:
    """Run one job for every input, or report with ``--dry-run`` what it would do; end with the worst exit code.

    Shards share the files of several inputs, and the blocks of a single one; so do the workers of ``--scheduler``.

    Parameters
    ----------
    shared : FileOptions
        Options of all commands that write files.
    options : dataclass
        Options that an output depends on.
    scale_of : callable
        Input -> scale in its output's name, or None.
    work : callable
        (input, output, progress, shard) -> record.
    plan : callable
        Input -> what would be done.
    remote : callable
        The job as a worker does it, where there are several inputs.
    together : Together, optional
        What makes one output of all inputs; the first one names it.
    identify : callable, optional
        Input -> everything that its output depends on; by default its bytes, the options and the models.
    """
    from sciresdiff.jobs.identity import identify_with_models
    from sciresdiff.run import manifest

    found = inputs_of(shared)
    shard = parse_shard(shared.shard)
    if together is not None:
        paths, found = [one.path for one in found], found[:1]
        work, plan = partial(together.work, paths), lambda _path: together.plan(paths)
    part = shard if len(found) == 1 else None
    tasks = name_outputs(found, shared.output, shared.inputs, scale_of, shard if part is None else None)
    console, listed = Console.of(shared), Path(shared.manifest) if shared.manifest else None
    identify = identify or partial(identify_with_models, options=options)
    if together is not None:
        identify = lambda _path: together.identify(paths)  # noqa: E731
    due = partial(is_due, overwrite=shared.overwrite, is_done=manifest.completion_check(identify, listed))
    tell_failed, tell_skipped = report_failure(console, len(found)), report_skipped(console)
    if shared.dry_run:
        tell = report_plan(console)
        finish(batch.run(tasks, lambda task: plan(task.source), tell, tell_failed, due, tell_skipped, writes=False))
    with console.progress() as progress, manifest.open_manifest(listed, identify) as lines:

        def run_here(task: batch.Task) -> Mapping[str, Any]:
            assert task.target, "name_outputs() names one for every input"
            lines.start_task()
            return work(task.source, task.target, progress, part)

        does: Callable[[batch.Task], Mapping[str, Any]] = run_here
        each: batch.Each = batch.run_in_turn
        if shared.scheduler and len(found) > 1:
            does = partial(workers.run_timed, partial(_run_remotely, remote))
            each = workers.distribute(shared.scheduler, shared.threads, progress)
        code = batch.run(
            tasks,
            does,
            call_all(lines.add_done, report_done(console, getattr(options, "strict", False))),
            call_all(lines.add_failed, tell_failed),
            due,
            call_all(lines.add_skipped, tell_skipped),
            each,
        )
    finish(code)


def inputs_of(shared: FileOptions) -> list[Found]:
    """The inputs that a command line names; files of its output folder are none."""
    skip = Path(shared.output) if Path(shared.output).is_dir() else None
    return find_inputs(shared.inputs, shared.recursive, sys.stdin if "-" in shared.inputs else (), skip)


def call_all(*calls: Callable[..., int | None]) -> Callable[..., Any]:
    """A function that calls several, in order, with the same arguments, and returns the highest exit code of theirs."""

    def call(*arguments: Any) -> int:
        return max([one(*arguments) or 0 for one in calls])

    return call


def _run_remotely(remote: Remote, task: batch.Task) -> Mapping[str, Any]:
    """The record of a task that a worker does."""
    assert task.target, "name_outputs() names one for every input"
    return remote(task.source, task.target)


def finish(code: int) -> None:
    """End the program with this code."""
    raise typer.Exit(code)


def set_threads(threads: int | None) -> None:
    """Limit torch to ``--threads``."""
    if threads:
        import torch

        torch.set_num_threads(threads)
