"""Engines: many pieces of one job in, their results out; what they do never depends on the engine."""

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
    """Does ``work(item, read(item))`` for every item."""

    def __call__(
        self, work: Callable[[Any, Any], Any], items: Sequence[Any], read: Callable[[Any], Any], **options: Any
    ) -> Iterator[tuple[Any, Any]]:
        """(item, result) of every item, **in any order**; what a piece raises is raised here.

        ``work`` and ``read`` are pure functions that pickle, and so are the items and the results. Between two results
        an engine heeds `stop`.
        """


def serial(
    work: Callable[[Any, Any], Any], items: Sequence[Any], read: Callable[[Any], Any], **options: Any
) -> Iterator[tuple[Any, Any]]:
    """One item after the other, in this process; the next one is read meanwhile."""
    with ThreadPoolExecutor(1, "read") as pool:
        ahead = pool.submit(read, items[0]) if items else None
        for number, item in enumerate(items):
            assert ahead is not None
            signals.heed()
            seen = ahead.result()
            ahead = pool.submit(read, items[number + 1]) if number + 1 < len(items) else None
            yield item, work(item, seen)
            del seen
        signals.heed()


ENGINES: dict[str, Engine] = {"serial": serial}
"""Name -> engine."""


def engine(name: str) -> Engine:
    """The engine of this name: one of ENGINES, or the address of a Dask scheduler, ``local`` or ``local:N``.

    Raises
    ------
    UsageError
        There is none.
    """
    if dask.is_address(name):
        return partial(dask.distributed, name)
    if name not in ENGINES:
        raise UsageError(
            f"--scheduler: {name} is given, but an address as tcp://HOST:PORT, local, or local:N is needed"
        )
    return ENGINES[name]


@contextmanager
def behind(depth: int = 1) -> Iterator[Callable[..., None]]:
    """Calls that are done in order by one thread, while the caller goes on; at most ``depth`` of them are open.

    Yields a function (call, *arguments) -> None. What a call raises is raised by the next one, or at the end; all
    calls have ended when the context does.
    """
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1, "write") as pool:

        def later(call: Callable[..., None], *arguments: Any) -> None:
            while len(waiting) >= depth:
                waiting.popleft().result()
            waiting.append(pool.submit(call, *arguments))

        yield later
        while waiting:
            waiting.popleft().result()
