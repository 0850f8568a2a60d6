"""Stopping where it suits: a first signal waits for the block in hand, a second one does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_patient = 0
_asked: list[BaseException] = []


@contextmanager
def patient() -> Iterator[None]:
    """Work that can be gone on with: what `ask` is told inside is raised by `heed`, or at the end.

    What is asked a second time is raised at once, in the middle of a block.
    """
    global _patient
    _patient += 1
    try:
        yield
        heed()
    finally:
        _patient -= 1
        if not _patient:
            _asked.clear()


def ask(problem: BaseException) -> bool:
    """Raise this when it suits; for the handler of a signal.

    Returns
    -------
    bool
        True where the work goes on to the end of its block; otherwise the problem is raised here.
    """
    if not _patient or _asked:
        raise problem
    _asked.append(problem)
    return True


def heed() -> None:
    """Raise what was asked for, if anything was; between two blocks."""
    if _asked:
        raise _asked[0]
