"""From parsed options to many jobs: expand, plan or run, tell, and end with the worst code."""

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
from sciresdiff.run import batch, workers
from sciresdiff.run.shards import Shard, shard_of

Work = Callable[[Path, Path, batch.Progress, Shard | None], Mapping[str, Any]]
Plan = Callable[[Path], Mapping[str, Any]]


def over_files(
    inputs: list[str],
    shared: Shared,
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
    found = batch.find_inputs(inputs, shared.recursive, sys.stdin if "-" in inputs else (), skip)
    shard = shard_of(shared.shard)
    part = shard if blocks and len(found) == 1 else None
    tasks = batch.place(found, shared.output, inputs, scale_of, shard if part is None else None)
    voice, listed = shared.voice, Path(shared.manifest) if shared.manifest else None
    stands, right, wrong, skip_it = (
        manifest.standing(options, listed),
        told(voice),
        failed(voice, len(found)),
        skipped(voice),
    )
    if shared.dry_run:
        finish(
            batch.run(tasks, lambda t: plan(t.source), planned(voice), wrong, shared.overwrite, False, stands, skip_it)
        )
    with voice.progress() as progress, manifest.opened(listed, options) as notes:

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


def named(task: batch.Task) -> dict[str, str]:
    """Input and output, as every record begins."""
    return {"input": str(task.source)} | ({"output": str(task.target)} if task.target else {})


def finish(code: int) -> None:
    """End the program with this code."""
    raise typer.Exit(code)


def told(voice: Voice) -> Callable[[batch.Task, Mapping[str, Any]], None]:
    """How a finished job is told: its record, or what was assumed and where the output is."""

    def tell(task: batch.Task, record: Mapping[str, Any]) -> None:
        if voice.json:
            voice.record({**named(task), **record})
        for line in record.get("said", ()):
            voice.say(f"{task.source.name}: {line}")
        if record.get("status") != "waiting":  # for other shards
            voice.say(f"{task.source} -> {task.target}")

    return tell


def skipped(voice: Voice) -> Callable[[batch.Task], None]:
    """How an output is told that is there already, whole and of this very job."""

    def tell(task: batch.Task) -> None:
        if voice.json:
            voice.record({**named(task), "status": "skipped"})
        voice.say(f"{task.source} -> {task.target}: done before, and as it was left; skipped")

    return tell


def planned(voice: Voice) -> Callable[[batch.Task, Mapping[str, Any]], None]:
    """How a plan is told: as JSON, or one setting to a line."""

    def tell(task: batch.Task, plan: Mapping[str, Any]) -> None:
        if voice.json:
            voice.record({**named(task), **plan})
            return
        print("\n".join([f"{task.source} -> {task.target}", *lines(plan, "  ")]))

    return tell


def lines(record: Mapping[str, Any], indent: str = "") -> list[str]:
    """``name: value``, one to a line, tables indented; what is not known is said to be."""
    from sciresdiff.io.jsonable import jsonable

    found = []
    for name, value in jsonable(record).items():
        if isinstance(value, dict) and value:
            found += [f"{indent}{name}:", *lines(value, indent + "  ")]
        elif isinstance(value, list) and any(isinstance(item, str) and " " in item for item in value):
            found += [f"{indent}{name}:", *(f"{indent}  - {item}" for item in value)]
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            found.append(f"{indent}{name}: {'-' if shown in (None, '', {}) else shown}")
    return found


def failed(voice: Voice, count: int) -> Callable[[batch.Task, Exception], None]:
    """How a failure is told; ``count`` inputs there are, and with several each line begins with its input."""

    def tell(task: batch.Task, problem: Exception) -> None:
        message = describe(problem, voice.verbose)
        if voice.json:
            voice.record({**named(task), "error": message, "exit_code": batch.exit_code(problem)})
        alone = count == 1 or message.startswith(str(task.source))
        voice.complain(message if alone else f"{task.source}: {message}")

    return tell


def describe(problem: BaseException, verbose: bool) -> str:
    """One line for a problem; where the fault is ours, ``-v`` prints the traceback before it."""
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
