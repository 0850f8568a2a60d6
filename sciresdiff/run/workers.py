"""Files of a batch on the workers of a scheduler, which write them themselves."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sciresdiff.run.batch import Each, Outcome, Progress, Task, as_error, no_progress
from sciresdiff.run.engines import engine

Far = Callable[[Path, Path], Mapping[str, Any]]
"""(input, output) -> record; it pickles."""


def timed(far: Far, task: Task) -> Mapping[str, Any]:
    """The record of a task, with the ``seconds`` that it took."""
    assert task.target, "place() names an output for every input"
    began = time.monotonic()
    return {**far(task.source, task.target), "seconds": round(time.monotonic() - began, 3)}


def spread(where: str, threads: int | None = None, progress: Progress = no_progress) -> Each:
    """How a batch is done by the workers of ``--scheduler``, a file at a time each."""

    def each(attempt: Callable[[Task], Outcome], tasks: Iterable[Task]) -> Iterator[tuple[Task, Outcome]]:
        listed = list(tasks)
        found = engine(where)(partial(portable, attempt), listed, nothing, threads=threads)
        for number, outcome in enumerate(found, 1):
            yield outcome
            progress(number, len(listed), "files")

    return each


def nothing(task: Task) -> None:
    """What is read of a file before its job begins."""


def portable(attempt: Callable[[Task], Outcome], task: Task, seen: None) -> Outcome:
    """What came of a task, in a form that travels."""
    outcome = attempt(task)
    if not isinstance(outcome, Exception):
        return outcome
    problem = as_error(outcome) or outcome
    try:
        pickle.loads(pickle.dumps(problem))
    except Exception:
        return RuntimeError(f"{type(problem).__name__}: {problem}")
    return problem
