"""How commands report: what was done, skipped, planned, and what failed."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any

from sciresdiff.cli.console import Console, print_lines, tell
from sciresdiff.errors import CheckFailed
from sciresdiff.run import batch


def name_files(task: batch.Task) -> dict[str, str]:
    """Input and output, as every record begins."""
    return {"input": str(task.source)} | ({"output": str(task.target)} if task.target else {})


def report_done(console: Console, strict: bool = False) -> Callable[[batch.Task, Mapping[str, Any]], int]:
    """Make a function that reports a finished job: its record, its notes, and where the output is.

    It returns the exit code that the record deserves: under ``strict`` another than 0 where it holds ``doubts``.
    """

    def report(task: batch.Task, record: Mapping[str, Any]) -> int:
        if console.json:
            console.record({**name_files(task), **record})
        more = len(record.get("inputs", ())) - 1
        # of several inputs each line names its own
        name = task.target.name if task.target and more > 0 else task.source.name
        for line in record.get("said", ()):
            console.info(f"{name}: {line}")
        if record.get("status") != "waiting":  # for other shards
            console.info(f"{task.source}{f' and {more} more' if more > 0 else ''} -> {task.target}")
        if not (strict and record.get("doubts")):
            return 0
        console.error(f"{task.source}: --strict: outside its limits: {', '.join(record['doubts'])}")
        return CheckFailed.exit_code

    return report


def report_skipped(console: Console) -> Callable[[batch.Task], None]:
    """Make a function that reports an output that is complete already, made by this very job."""

    def report(task: batch.Task) -> None:
        if console.json:
            console.record({**name_files(task), "status": "skipped"})
        console.info(f"{task.source} -> {task.target}: done before, and as it was left; skipped")

    return report


def report_plan(console: Console) -> Callable[[batch.Task, Mapping[str, Any]], None]:
    """Make a function that prints a plan: as JSON, or one setting to a line."""

    def report(task: batch.Task, plan: Mapping[str, Any]) -> None:
        if console.json:
            console.record({**name_files(task), **plan})
        else:
            print_lines([f"{task.source} -> {task.target}", *format_record(plan, "  ")])

    return report


def report_failure(console: Console, count: int) -> Callable[[batch.Task, Exception], None]:
    """Make a function that reports a failed job; of several (``count``) each line begins with its input."""

    def report(task: batch.Task, problem: Exception) -> None:
        message = describe(problem, console.verbose)
        if console.json:
            console.record({**name_files(task), "error": message, "exit_code": batch.exit_code(problem)})
        named = count == 1 or message.startswith(str(task.source))
        console.error(message if named else f"{task.source}: {message}")

    return report


def describe(problem: BaseException, verbose: bool) -> str:
    """One line for a problem; of an internal error ``verbose`` prints the traceback before it."""
    error = batch.as_error(problem)
    if error is not None:
        return "; ".join([batch.reason(error), *getattr(problem, "__notes__", ())])
    if verbose:
        for line in "".join(traceback.format_exception(problem)).splitlines():
            tell(line)
    hint = "" if verbose else "; -v shows where"
    return f"a fault of the program, please report it: {type(problem).__name__}: {batch.reason(problem)}{hint}"


def format_record(record: Any, indent: str = "") -> list[str]:
    """``name: value``, one to a line, tables indented; what is not known is a dash."""
    from sciresdiff.io.jsonable import jsonable

    found = []
    for name, value in jsonable(record).items():
        if isinstance(value, dict) and value:
            found += [f"{indent}{name}:", *format_record(value, indent + "  ")]
        elif isinstance(value, list) and any(isinstance(item, str) and " " in item for item in value):
            found += [f"{indent}{name}:", *(f"{indent}  - {item}" for item in value)]
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            found.append(f"{indent}{name}: {'-' if shown in (None, '', {}) else shown}")
    return found
