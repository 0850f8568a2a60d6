"""The engine of many machines: pieces of a job on the workers of a Dask scheduler, which reach the same files.

A piece is read, worked on and forgotten where a worker is free; a worker that is lost is replaced by the others, and
what it had in hand is done again.  As a piece depends on nothing but its number, the result is the serial one's, byte
for byte, where the workers have the same version of torch, the same kind of processor and the same ``--threads``.
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
"""How long a scheduler, or another worker, may take to answer."""
LOOK_S = 0.5
"""How often signals are looked for while the workers work."""
WORKERLESS_S = 60
"""After so long without a worker it is said that there is none."""
AHEAD = 2
"""Pieces that are sent for every worker: the one in hand, and the next."""
CORES = 4
"""Cores of a worker of ``local``, where that many are there."""
LOST = ("KilledWorker", "CommClosedError", "CancelledError", "FutureCancelledError", "FuturesCancelledError")
"""Names of what Dask raises when machines are gone."""


def is_address(where: str) -> bool:
    """Whether ``--scheduler`` names an engine of this kind: an address, ``local`` or ``local:N``."""
    return bool(re.fullmatch(r"(tcp|tls)://\S+:\d+|local(:\d+)?", where))


def distributed(
    where: str,
    work: Callable[[Any, Any], Any],
    items: Sequence[Any],
    read: Callable[[Any], Any],
    threads: int | None = None,
    **options: Any,
) -> Iterator[tuple[Any, Any]]:
    """(item, work(item, read(item))) of every item, as they are done by the workers of a scheduler.

    Parameters
    ----------
    where : address of a scheduler as ``tcp://HOST:PORT``, or ``local:N``, N processes of this machine.
    work, read, items : they pickle, and so do the results.
    threads : of every worker; its own number by default, for ``local`` the cores that are its share.

    Raises
    ------
    UsageError : Dask is not installed; workers of another version of sciresdiff.
    ResourceError : a scheduler that does not answer or is gone; a piece that brings every worker down.
    """
    threads = threads or (max((os.cpu_count() or 1) // local_size(where), 1) if where.startswith("local") else None)
    sent = pickle.dumps(Given(work, read, threads, os.getcwd(), __version__))
    with told(where):
        client = connected(where)
        given = client.submit(pickle.loads, sent, pure=False)
        left = iter(items)
        waiting: dict[Any, Any] = {}
        try:
            while True:
                room = AHEAD * max(len(client.scheduler_info(n_workers=-1)["workers"]), 1) - len(waiting)
                for item in islice(left, max(room, 0)):
                    waiting[client.submit(piece, given, item, pure=False)] = item
                if not waiting:
                    return
                for future in some(client, where, list(waiting)):
                    yield waiting.pop(future), future.result()
                    future.release()
        finally:
            client.cancel([*waiting, given])


@dataclass(frozen=True)
class Given:
    """What every piece needs."""

    work: Callable[[Any, Any], Any]
    read: Callable[[Any], Any]
    threads: int | None
    folder: str
    """Where names of files start from."""
    version: str


_one = threading.Lock()


def piece(given: Given, item: Any) -> Any:
    """One piece, on a worker, which does one at a time with all its cores."""
    import torch

    if given.version != __version__:
        line = f"a worker has sciresdiff {__version__}, and this is {given.version}; install the same"
        raise UsageError(f"--scheduler: {line}")
    with _one:
        try:
            os.chdir(given.folder)
        except OSError as problem:
            raise InputError(f"{given.folder}: a worker does not reach this folder ({problem.strerror})") from None
        if given.threads:
            torch.set_num_threads(given.threads)
        return given.work(item, given.read(item))


def some(client: Any, where: str, futures: list[Any]) -> list[Any]:
    """The futures that are done, once there are any; signals are heeded meanwhile."""
    from distributed import wait

    waited = 0.0
    while True:
        signals.heed()
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
def told(where: str) -> Iterator[None]:
    """What Dask raises when machines are gone, in our words."""
    try:
        yield
    except Exception as problem:
        if type(problem).__name__ not in LOST:
            raise
        raise ResourceError(
            f"--scheduler: {where} lost its workers ({reason(problem)}); the same command goes on; "
            "if memory ran out, give each worker more"
        ) from None


def local_size(where: str) -> int:
    """Processes of ``local`` or ``local:N``."""
    number = where.partition(":")[2]
    return max(int(number), 1) if number else max((os.cpu_count() or 1) // CORES, 1)


@cache
def connected(where: str) -> Any:
    """The client of a scheduler, which stays connected until this process ends.

    Raises
    ------
    UsageError : Dask is not installed. ResourceError : there is no answer.
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
            "distributed.admin.large-graph-warning-threshold": "1GB",  # what is measured on a frame is large
            "distributed.comm.timeouts.connect": f"{ANSWER_S}s",  # so long a lost worker is asked for what it had
        }
    )
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is raised
    if where.startswith("local"):
        size, quiet = local_size(where), {"dashboard_address": None, "silence_logs": logging.CRITICAL}
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
    """What went wrong, in Dask's first words or those of its cause."""
    cause = problem.__cause__ or problem
    words = re.sub(r"in <[^>]*>: ", "", " ".join(str(cause).split())).split(". ")[0]
    return words[:160] or type(cause).__name__
