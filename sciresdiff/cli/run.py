"""From parsed options to many jobs: expand, plan or run, tell, and end with the worst code."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer

from sciresdiff.cli.options import Shared
from sciresdiff.cli.voice import Voice
from sciresdiff.jobs import batch

Work = Callable[[Path, Path, batch.Progress], Mapping[str, Any]]
Plan = Callable[[Path], Mapping[str, Any]]


def over_files(
    inputs: list[str], shared: Shared, scale_of: Callable[[Path], int | None], work: Work, plan: Plan
) -> None:
    """Do one job for every input, or say with ``--dry-run`` what would be done."""
    skip = Path(shared.output) if Path(shared.output).is_dir() else None
    found = batch.find_inputs(inputs, shared.recursive, sys.stdin if "-" in inputs else (), skip)
    tasks = batch.place(found, shared.output, inputs, scale_of)
    voice = shared.voice
    if shared.dry_run:
        wrong = failed(voice, len(tasks))
        finish(batch.run(tasks, lambda t: plan(t.source), planned(voice), wrong, shared.overwrite, writes=False))
    with voice.progress() as progress:

        def one(task: batch.Task) -> Mapping[str, Any]:
            assert task.target, "place() names an output for every input"
            return work(task.source, task.target, progress)

        code = batch.run(tasks, one, told(voice), failed(voice, len(tasks)), shared.overwrite)
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
        voice.say(f"{task.source} -> {task.target}")

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
    from sciresdiff.io.jsonable import plain

    found = []
    for name, value in plain(record).items():
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
        return batch.reason(error)
    if verbose:
        traceback.print_exception(problem, file=sys.stderr)
    hint = "" if verbose else "; -v shows where"
    return f"a fault of the program, please report it: {type(problem).__name__}: {batch.reason(problem)}{hint}"
