"""Engines: where the pieces of a job are worked on. The results never depend on the engine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from sciresdiff.errors import UsageError
from sciresdiff.run import dask, signals


class Engine(Protocol):
    """Computes ``work(item, read(item))`` for every item."""

    def __call__(
        self, work: Callable[[Any, Any], Any], items: Sequence[Any], read: Callable[[Any], Any], **options: Any
    ) -> Iterator[tuple[Any, Any]]:
        """Yield (item, result) for every item, **in any order**; exceptions of a piece are raised here.

        ``work`` and ``read`` are pure functions that pickle, and so are items and results. Between two results an
        engine calls `signals.raise_if_stopped`.
        """


def run_serially(
    work: Callable[[Any, Any], Any], items: Sequence[Any], read: Callable[[Any], Any], **options: Any
) -> Iterator[tuple[Any, Any]]:
    """Work on one item after the other, in this process, while a thread reads the next one.

    Parameters
    ----------
    work : callable
        (item, what was read) -> result.
    items : sequence
        What is worked on, in this order.
    read : callable
        Item -> what it needs. **Two results of it are in memory at once.**
    **options
        Of other engines; ignored.
    """
    with ThreadPoolExecutor(1, "read") as pool:
        ahead = pool.submit(read, items[0]) if items else None
        for number, item in enumerate(items):
            assert ahead is not None
            signals.raise_if_stopped()
            seen = ahead.result()
            ahead = pool.submit(read, items[number + 1]) if number + 1 < len(items) else None
            yield item, work(item, seen)
            del seen  # before the next one is waited for, so that two are in memory at most
        signals.raise_if_stopped()


ENGINES: dict[str, Engine] = {"serial": run_serially}
"""Name -> engine."""


def get_engine(name: str) -> Engine:
    """The engine of this name: one of `ENGINES`, or the address of a Dask scheduler, ``local`` or ``local:N``.

    Raises
    ------
    UsageError
        There is none of this name.
    """
    if dask.is_address(name):
        return partial(dask.run_distributed, name)
    if name not in ENGINES:
        raise UsageError(
            f"--scheduler: {name} is given, but an address as tcp://HOST:PORT, local, or local:N is needed"
        )
    return ENGINES[name]


@contextmanager
def write_behind(depth: int = 1) -> Iterator[Callable[..., None]]:
    """Run calls in order in one other thread, while the caller continues; at most ``depth`` are waiting.

    Yields
    ------
    callable
        (call, *arguments) -> None. What a call raises is raised by the next one, or at the end of the context, where
        all calls have ended.
    """
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1, "write") as pool:

        def submit(call: Callable[..., None], *arguments: Any) -> None:
            while len(waiting) >= depth:
                waiting.popleft().result()
            waiting.append(pool.submit(call, *arguments))

        yield submit
        while waiting:
            waiting.popleft().result()
