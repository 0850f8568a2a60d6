"""From parsed options to many jobs: find the inputs, plan or run, report, and end with the worst exit code."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import typer

from sciresdiff.cli.options import Shared
from sciresdiff.cli.voice import Voice
from sciresdiff.jobs.inputs import find_inputs, is_due, name_outputs
from sciresdiff.run import batch, workers
from sciresdiff.run.progress import Progress
from sciresdiff.run.shards import Shard, parse_shard

Work = Callable[[Path, Path, Progress, Shard | None], Mapping[str, Any]]
Plan = Callable[[Path], Mapping[str, Any]]
Remote = Callable[[Path, Path], Mapping[str, Any]]
"""(input, output) -> record; it pickles."""


def over_files(
    inputs: list[str],
    shared: Shared,
    options: Any,
    scale_of: Callable[[Path], int | None],
    work: Work,
    plan: Plan,
    remote: Remote,
) -> None:
    """Run one job for every input, or report with ``--dry-run`` what it would do; end with the worst exit code.

    Shards share the files of several inputs, and the blocks of a single one; so do the workers of ``--scheduler``.

    Parameters
    ----------
    inputs : list of str
        What the user named.
    shared : Shared
        Options that all commands have.
    options : dataclass
        Options that an output depends on.
    scale_of : callable
        Input -> scale in its output's name, or None.
    work : callable
        (input, output, progress, shard) -> record.
    plan : callable
        Input -> what would be done.
    remote : callable
        The job as a worker does it, with files of its own.
    """
    from sciresdiff.jobs.identity import identify_with_models
    from sciresdiff.run import manifest

    skip = Path(shared.output) if Path(shared.output).is_dir() else None
    found = find_inputs(inputs, shared.recursive, sys.stdin if "-" in inputs else (), skip)
    shard = parse_shard(shared.shard)
    part = shard if len(found) == 1 else None
    tasks = name_outputs(found, shared.output, inputs, scale_of, shard if part is None else None)
    voice, listed = shared.voice, Path(shared.manifest) if shared.manifest else None
    identify = partial(identify_with_models, options=options)
    due = partial(is_due, overwrite=shared.overwrite, is_done=manifest.completion_check(identify, listed))
    tell_done, tell_failed, tell_skipped = report_record(voice), report_failure(voice, len(found)), report_skip(voice)
    if shared.dry_run:
        tell = report_plan(voice)
        finish(batch.run(tasks, lambda task: plan(task.source), tell, tell_failed, due, tell_skipped, writes=False))
    with voice.progress() as progress, manifest.open_manifest(listed, identify) as lines:

        def run_here(task: batch.Task) -> Mapping[str, Any]:
            assert task.target, "name_outputs() names one for every input"
            lines.start_task()
            return work(task.source, task.target, progress, part)

        def done(task: batch.Task, record: Mapping[str, Any]) -> None:
            lines.add_done(task, record)
            tell_done(task, record)

        def failed(task: batch.Task, problem: Exception) -> None:
            lines.add_failed(task, problem)
            tell_failed(task, problem)

        def skipped(task: batch.Task) -> None:
            lines.add_skipped(task)
            tell_skipped(task)

        does: Callable[[batch.Task], Mapping[str, Any]] = run_here
        each: batch.Each = batch.run_in_turn
        if shared.scheduler and len(found) > 1:
            does = partial(workers.run_timed, partial(_run_remotely, remote))
            each = workers.distribute(shared.scheduler, shared.threads, progress)
        code = batch.run(tasks, does, done, failed, due, skipped, each)
    finish(code)


def _run_remotely(remote: Remote, task: batch.Task) -> Mapping[str, Any]:
    """The record of a task that a worker does."""
    assert task.target, "name_outputs() names one for every input"
    return remote(task.source, task.target)


def names_of(task: batch.Task) -> dict[str, str]:
    """Input and output, as every record begins."""
    return {"input": str(task.source)} | ({"output": str(task.target)} if task.target else {})


def finish(code: int) -> None:
    """End the program with this code."""
    raise typer.Exit(code)


def report_record(voice: Voice) -> Callable[[batch.Task, Mapping[str, Any]], None]:
    """A function that reports a finished job: its record, or what was assumed and where the output is."""

    def report(task: batch.Task, record: Mapping[str, Any]) -> None:
        if voice.json:
            voice.record({**names_of(task), **record})
        for line in record.get("said", ()):
            voice.say(f"{task.source.name}: {line}")
        if record.get("status") != "waiting":  # for other shards
            voice.say(f"{task.source} -> {task.target}")

    return report


def report_skip(voice: Voice) -> Callable[[batch.Task], None]:
    """A function that reports an output that is complete already, and made by this very job."""

    def report(task: batch.Task) -> None:
        if voice.json:
            voice.record({**names_of(task), "status": "skipped"})
        voice.say(f"{task.source} -> {task.target}: done before, and as it was left; skipped")

    return report


def report_plan(voice: Voice) -> Callable[[batch.Task, Mapping[str, Any]], None]:
    """A function that reports a plan: as JSON, or one setting to a line."""

    def report(task: batch.Task, plan: Mapping[str, Any]) -> None:
        if voice.json:
            voice.record({**names_of(task), **plan})
            return
        print("\n".join([f"{task.source} -> {task.target}", *format_record(plan, "  ")]))

    return report


def format_record(record: Mapping[str, Any], indent: str = "") -> list[str]:
    """``name: value``, one to a line, tables indented; ``-`` for a value that is not known."""
    from sciresdiff.io.jsonable import plain

    found = []
    for name, value in plain(record).items():
        if isinstance(value, dict) and value:
            found += [f"{indent}{name}:", *format_record(value, indent + "  ")]
        elif isinstance(value, list) and any(isinstance(item, str) and " " in item for item in value):
            found += [f"{indent}{name}:", *(f"{indent}  - {item}" for item in value)]
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            found.append(f"{indent}{name}: {'-' if shown in (None, '', {}) else shown}")
    return found


def report_failure(voice: Voice, count: int) -> Callable[[batch.Task, Exception], None]:
    """A function that reports a failure in one line; with several inputs (``count``) it begins with its input."""

    def report(task: batch.Task, problem: Exception) -> None:
        message = describe(problem, voice.verbose)
        if voice.json:
            voice.record({**names_of(task), "error": message, "exit_code": batch.exit_code(problem)})
        alone = count == 1 or message.startswith(str(task.source))
        voice.complain(message if alone else f"{task.source}: {message}")

    return report


def describe(problem: BaseException, verbose: bool) -> str:
    """A problem in one line; for a fault of the program, ``verbose`` prints the traceback before it."""
    error = batch.as_error(problem)
    if error is not None:
        return "; ".join([batch.reason(error), *getattr(problem, "__notes__", ())])
    if verbose:
        traceback.print_exception(problem, file=sys.stderr)
    hint = "" if verbose else "; -v shows where"
    return f"a fault of the program, please report it: {type(problem).__name__}: {batch.reason(problem)}{hint}"


def set_threads(threads: int | None) -> None:
    """Limit torch to ``--threads``."""
    if threads:
        import torch

        torch.set_num_threads(threads)
