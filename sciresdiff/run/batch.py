"""Many tasks, one after the other or on workers: run them all, and collect what went wrong."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sciresdiff.errors import InputError, ResourceError, SciresdiffError, UsageError
from sciresdiff.run.memory import is_out_of_memory

BUG = 1
"""Exit code of a fault of the program."""


@dataclass(frozen=True)
class Task:
    """One input and the output that is made of it."""

    source: Path
    target: Path | None = None
    """None where a single input has no output."""


@contextmanager
def make_folder(target: Path) -> Iterator[None]:
    """Make the folders above ``target``; remove those that were made again where the work inside fails.

    Raises
    ------
    UsageError
        They cannot be made.
    """
    missing = [folder for folder in target.absolute().parents if not folder.exists()]
    try:
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise UsageError(f"--output: {target} cannot be written ({reason(problem)}); give another name") from problem
    try:
        yield
    except BaseException:
        for folder in missing:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise


def reason(problem: BaseException) -> str:
    """What went wrong, in a few words on one line."""
    words = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
    return " ".join(words.split()) or type(problem).__name__


def as_error(problem: BaseException) -> SciresdiffError | None:
    """The error that a user can do something about, or None for a fault of the program."""
    if isinstance(problem, SciresdiffError):
        return problem
    if is_out_of_memory(problem):
        return ResourceError(f"memory ran out ({reason(problem)}); try a smaller --tile, or a part of the frame")
    if isinstance(problem, OSError):
        where = problem.filename or "a file"
        if problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return ResourceError(f"{where}: the disk is full ({reason(problem)})")
        if problem.filename:
            return InputError(f"{where}: {reason(problem)}")
    return None


def exit_code(problem: BaseException) -> int:
    """The exit code of the program after this problem."""
    error = as_error(problem)
    return BUG if error is None else error.exit_code


def worst_code(codes: Iterable[int]) -> int:
    """The exit code of many tasks: that of a fault of the program, else the highest."""
    codes = list(codes)
    return BUG if BUG in codes else max(codes, default=0)


Outcome = Mapping[str, Any] | Exception
"""The record of a task, or why there is none."""
Each = Callable[[Callable[[Task], Outcome], Iterable[Task]], Iterable[tuple[Task, Outcome]]]
"""(function, tasks) -> every task with its outcome, in any order."""


def run_in_turn(run_one: Callable[[Task], Outcome], tasks: Iterable[Task]) -> Iterator[tuple[Task, Outcome]]:
    """Run one task after the other, in this process."""
    return ((task, run_one(task)) for task in tasks)


def run(
    tasks: Sequence[Task],
    work: Callable[[Task], Mapping[str, Any]],
    done: Callable[[Task, Mapping[str, Any]], int | None],
    failed: Callable[[Task, Exception], None],
    is_due: Callable[[Task], bool] = lambda task: True,
    skipped: Callable[[Task], None] = lambda task: None,
    each: Each = run_in_turn,
    writes: bool = True,
) -> int:
    """Run every task, also after one that failed.

    Parameters
    ----------
    tasks : sequence of Task
        What is to be done.
    work : callable
        Does one task and returns its record.
    done : callable
        Told each record; may return an exit code that the record deserves.
    failed : callable
        Told each failure.
    is_due : callable
        Whether a task has to be done; it may raise, and the task has then failed.
    skipped : callable
        Told each task that is not due.
    each : callable
        Where and in which order tasks are run.
    writes : bool
        Whether the work writes its target, whose folders are then made; off for a plan.

    Returns
    -------
    int
        The worst exit code.
    """
    codes: list[int] = []

    def fail(task: Task, problem: Exception) -> None:
        failed(task, problem)
        codes.append(exit_code(problem))

    def due() -> Iterator[Task]:
        for task in tasks:
            try:
                if is_due(task):
                    yield task
                else:
                    skipped(task)
            except Exception as problem:
                fail(task, problem)

    for task, outcome in each(partial(attempt, work, writes), due()):
        if isinstance(outcome, Exception):
            fail(task, outcome)
        else:
            codes.append(done(task, outcome) or 0)
    return worst_code(codes)


def attempt(work: Callable[[Task], Mapping[str, Any]], writes: bool, task: Task) -> Outcome:
    """Run one task; its record, or the exception that it raised.

    Parameters
    ----------
    work : callable
        Task -> record.
    writes : bool
        Whether the folders of its target are made.
    task : Task
        What is to be done.
    """
    try:
        with make_folder(task.target) if task.target and writes else nullcontext():
            return work(task)
    except Exception as problem:
        return problem
