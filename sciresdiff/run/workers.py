"""Whole files of a batch on the workers of a scheduler, which write the outputs themselves."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from sciresdiff.run.batch import Each, Outcome, Task, as_error
from sciresdiff.run.engines import get_engine
from sciresdiff.run.progress import Progress, no_progress

RemoteJob = Callable[[Task], Mapping[str, Any]]
"""Task -> record; it pickles."""


def run_timed(job: RemoteJob, task: Task) -> Mapping[str, Any]:
    """The record of a task, with the ``seconds`` that it took."""
    began = time.monotonic()
    return {**job(task), "seconds": round(time.monotonic() - began, 3)}


def distribute(where: str, threads: int | None = None, progress: Progress = no_progress) -> Each:
    """How a batch is run by the workers of ``--scheduler``, each with one file at a time.

    Parameters
    ----------
    where : str
        Name of an engine, as `sciresdiff.run.engines.get_engine` takes it.
    threads : int, optional
        Threads of every worker.
    progress : Progress
        Told after each file.
    """

    def each(run: Callable[[Task], Outcome], tasks: Iterable[Task]) -> Iterator[tuple[Task, Outcome]]:
        listed = list(tasks)
        found = get_engine(where)(partial(_run_portably, run), listed, _read_nothing, threads=threads)
        for number, outcome in enumerate(found, 1):
            yield outcome
            progress(number, len(listed), "files")

    return each


def _read_nothing(task: Task) -> None:
    """A file is read by its job, not ahead of it."""


def _run_portably(run: Callable[[Task], Outcome], task: Task, seen: None) -> Outcome:
    """The outcome of a task, in a form that can be sent: exceptions of libraries may not pickle."""
    outcome = run(task)
    if not isinstance(outcome, Exception):
        return outcome
    problem = as_error(outcome) or outcome
    try:
        pickle.loads(pickle.dumps(problem))
    except Exception:
        return RuntimeError(f"{type(problem).__name__}: {problem}")
    return problem
