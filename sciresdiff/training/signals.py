"""SIGTERM and SIGINT in a training: they wait for the step in hand, and end all processes of the run.

Unlike `sciresdiff.run.signals`, which raises one process's exception between two blocks, the number of the signal is
asked for after every step, because the other processes have to hear of it first.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

DEFERRED = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def defer_signals() -> Iterator[Callable[[], int]]:
    """Note SIGTERM and SIGINT in place of acting on them; a second one acts as it would have outside.

    Ignored signals stay so, and outside the main thread none arrives.

    Yields
    ------
    A function () -> number of the signal that came, 0 if none did.
    """
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in DEFERRED}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    deferred = [n for n in DEFERRED if callable(before[n]) or before[n] is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        deferred = []
    for number in deferred:
        signal.signal(number, note)
    try:
        yield lambda: received[0] if received else 0
    finally:
        for number in deferred:
            signal.signal(number, before[number])


def raise_deferred(number: int) -> NoReturn:
    """Let a signal act that was noted, here or by another process.

    Raises
    ------
    SystemExit : the signal is ignored here.
    """
    signal.raise_signal(number)
    raise SystemExit(128 + number)
