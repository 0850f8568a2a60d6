"""Signals that wait for the step in hand."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

HEEDED = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def noted() -> Iterator[Callable[[], int]]:
    """SIGTERM and SIGINT are noted; a second one acts as it would have outside.

    Yields a function () -> number of the signal that came, 0 if none did. Ignored signals stay so, and outside the
    main thread none arrives.
    """
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in HEEDED}

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    heeded = [n for n in HEEDED if callable(before[n]) or before[n] is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        heeded = []
    for number in heeded:
        signal.signal(number, note)
    try:
        yield lambda: came[0] if came else 0
    finally:
        for number in heeded:
            signal.signal(number, before[number])


def end(number: int) -> NoReturn:
    """Let a signal act that was noted, here or by another process."""
    signal.raise_signal(number)
    raise SystemExit(128 + number)  # ignored here
