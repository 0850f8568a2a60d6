"""The Dask engine: pieces of a job on the workers of a scheduler, which reach the same files.

A piece is read, worked on and forgotten wherever a worker is free. What a lost worker had in hand is done again by
another one. A piece depends on nothing but its number, so the result has the bytes of the serial one where the workers
have the same version of torch, the same kind of processor and the same ``--threads``.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

from sciresdiff import __version__
from sciresdiff.errors import InputError, ResourceError, UsageError
from sciresdiff.run import signals

ANSWER_S = 5
"""Longest time that a scheduler, or another worker, may take to answer, seconds."""
LOOK_S = 0.5
"""Interval at which signals are looked for while the workers compute, seconds."""
WORKERLESS_S = 60
"""Time without a worker after which a warning is given, seconds."""
AHEAD = 2
"""Pieces sent per worker: the one in hand, and the next one."""
CORES = 4
"""Cores of one worker of ``local``, where the machine has that many."""
LOST = ("KilledWorker", "CommClosedError", "CancelledError", "FutureCancelledError", "FuturesCancelledError")
"""Names of the exceptions that Dask raises when workers or the scheduler are lost."""


def is_address(where: str) -> bool:
    """Whether ``--scheduler`` names this engine: an address (tcp://HOST:PORT), ``local`` or ``local:N``."""
    return bool(re.fullmatch(r"(tcp|tls)://\S+:\d+|local(:\d+)?", where))


def run_distributed(
    where: str,
    work: Callable[[Any, Any], Any],
    items: Sequence[Any],
    read: Callable[[Any], Any],
    threads: int | None = None,
    **options: Any,
) -> Iterator[tuple[Any, Any]]:
    """Yield (item, work(item, read(item))) of every item, in the order in which workers finish them.

    Parameters
    ----------
    where : str
        Address of a scheduler as ``tcp://HOST:PORT``, or ``local:N`` for N processes of this machine.
    work, read : callable
        They pickle, and so do items and results.
    items : sequence
        What is worked on.
    threads : int, optional
        Threads of every worker; by default its own number, for ``local`` its share of the cores.

    Raises
    ------
    UsageError
        Dask is not installed, or workers have another version of sciresdiff.
    ResourceError
        The scheduler does not answer or is lost, or a piece brings down every worker.
    """
    threads = threads or (max((os.cpu_count() or 1) // local_workers(where), 1) if where.startswith("local") else None)
    sent = pickle.dumps(Payload(work, read, threads, os.getcwd(), __version__))
    with explain_losses(where):
        client = connect(where)
        payload = client.submit(pickle.loads, sent, pure=False)  # once for all pieces, not once for each
        left = iter(items)
        waiting: dict[Any, Any] = {}
        try:
            while True:
                room = AHEAD * max(len(client.scheduler_info(n_workers=-1)["workers"]), 1) - len(waiting)
                for item in islice(left, max(room, 0)):
                    waiting[client.submit(run_piece, payload, item, pure=False)] = item
                if not waiting:
                    return
                for future in wait_for_some(client, where, list(waiting)):
                    yield waiting.pop(future), future.result()
                    future.release()
        finally:
            client.cancel([*waiting, payload])


@dataclass(frozen=True)
class Payload:
    """What every piece needs; sent to each worker once."""

    work: Callable[[Any, Any], Any]
    read: Callable[[Any], Any]
    threads: int | None
    folder: str
    """Folder that relative paths start from."""
    version: str


_one_at_a_time = threading.Lock()


def run_piece(payload: Payload, item: Any) -> Any:
    """Work on one piece, on a worker; a worker does one at a time with all its cores.

    Raises
    ------
    UsageError
        The worker has another version of sciresdiff.
    InputError
        The worker does not reach the folder of the run.
    """
    import torch

    if payload.version != __version__:
        line = f"a worker has sciresdiff {__version__}, and this is {payload.version}; install the same"
        raise UsageError(f"--scheduler: {line}")
    with _one_at_a_time:
        try:
            os.chdir(payload.folder)
        except OSError as problem:
            raise InputError(f"{payload.folder}: a worker does not reach this folder ({problem.strerror})") from None
        if payload.threads:
            torch.set_num_threads(payload.threads)
        return payload.work(item, payload.read(item))


def wait_for_some(client: Any, where: str, futures: list[Any]) -> list[Any]:
    """Wait until at least one future is done and return those that are; a requested stop is raised meanwhile.

    Raises
    ------
    ResourceError
        The scheduler is lost.
    """
    from distributed import wait

    waited = 0.0
    while True:
        signals.raise_if_stopped()
        try:
            with client.as_current():
                return list(wait(futures, timeout=LOOK_S, return_when="FIRST_COMPLETED").done)
        except TimeoutError:
            waited += LOOK_S
        if client.status != "running":
            raise ResourceError(f"--scheduler: {where} is gone; the same command goes on when there is one again")
        if waited == WORKERLESS_S and not client.scheduler_info(n_workers=-1)["workers"]:
            warnings.warn(f"--scheduler: {where} has no worker yet; waiting for one", stacklevel=2)


@contextmanager
def explain_losses(where: str) -> Iterator[None]:
    """Turn what Dask raises when workers are lost into one line that says what to do.

    Raises
    ------
    ResourceError
        In place of any exception named in `LOST`.
    """
    try:
        yield
    except Exception as problem:
        if type(problem).__name__ not in LOST:
            raise
        raise ResourceError(
            f"--scheduler: {where} lost its workers ({reason(problem)}); the same command goes on; "
            "if memory ran out, give each worker more"
        ) from None


def local_workers(where: str) -> int:
    """Number of processes of ``local`` or ``local:N``."""
    number = where.partition(":")[2]
    return max(int(number), 1) if number else max((os.cpu_count() or 1) // CORES, 1)


@cache
def connect(where: str) -> Any:
    """Connect to a scheduler; the client stays connected until this process ends.

    Raises
    ------
    UsageError
        Dask is not installed.
    ResourceError
        The scheduler does not answer.
    """
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError:
        raise UsageError(
            f"--scheduler: {where} needs Dask, which is not installed; pip install 'sciresdiff[dask]'"
        ) from None
    dask.config.set(
        {
            "distributed.admin.large-graph-warning-threshold": "1GB",  # measurements of a frame are large
            "distributed.comm.timeouts.connect": f"{ANSWER_S}s",  # how long a lost worker is asked for its results
        }
    )
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # every failure that matters is raised as well
    if where.startswith("local"):
        # a port of its own, because a second cluster on the usual one warns
        web = {"dashboard_address": "localhost:0", "scheduler_kwargs": {"dashboard": False}}
        quiet = {**web, "silence_logs": logging.CRITICAL}
        size = local_workers(where)
        cluster = LocalCluster(size, threads_per_worker=1, processes=True, memory_limit=0, **quiet)
        return Client(cluster, set_as_default=False)
    try:
        return Client(where, timeout=ANSWER_S, set_as_default=False)
    except OSError as problem:
        raise ResourceError(
            f"--scheduler: {where} does not answer ({reason(problem)}); start it with 'dask scheduler', "
            "or give --scheduler local"
        ) from None


def reason(problem: BaseException) -> str:
    """The first sentence of what Dask says, or of its cause."""
    cause = problem.__cause__ or problem
    words = re.sub(r"in <[^>]*>: ", "", " ".join(str(cause).split())).split(". ")[0]
    return words[:160] or type(cause).__name__
