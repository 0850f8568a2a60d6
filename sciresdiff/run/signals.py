"""Stopping between two pieces of work: the first signal lets the current one finish, a second one does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_deferring = 0
"""How many contexts of `defer_stops` are open."""
_requested: list[BaseException] = []


@contextmanager
def defer_stops() -> Iterator[None]:
    """Defer stops inside this context: a first one is raised by `raise_if_stopped`, or when the context ends.

    For work that can be resumed. A second request is raised at once, in the middle of a piece.
    """
    global _deferring
    _deferring += 1
    try:
        yield
        raise_if_stopped()
    finally:
        _deferring -= 1
        if not _deferring:
            _requested.clear()


def request_stop(problem: BaseException) -> bool:
    """Request that the current work ends with this exception; for the handler of a signal.

    Returns
    -------
    bool
        True where the piece of work in hand is finished first; in all other cases ``problem`` is raised here.
    """
    if not _deferring or _requested:
        raise problem
    _requested.append(problem)
    return True


def raise_if_stopped() -> None:
    """Raise what `request_stop` was given, if anything; called between two pieces of work."""
    if _requested:
        raise _requested[0]
