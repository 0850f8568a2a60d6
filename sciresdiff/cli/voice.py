"""What the program says: words on stderr, data on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from sciresdiff.run.progress import Progress

INTERVAL_S = 10.0
"""Time between two lines of progress where there is no terminal."""


@dataclass
class Voice:
    """How much is said, and where."""

    quiet: bool = False
    verbose: bool = False
    json: bool = False
    console: Console = field(default_factory=lambda: Console(stderr=True, soft_wrap=True, highlight=False, emoji=False))

    def say(self, line: str) -> None:
        """One line for the user, unless ``-q``."""
        if not self.quiet:
            self.console.print(line, markup=False)

    def complain(self, line: str) -> None:
        """One line about what went wrong, always."""
        self.console.print(f"sciresdiff: {' '.join(line.split())}", markup=False)

    def record(self, value: Any) -> None:
        """One JSON record, alone on its line of stdout."""
        from sciresdiff.io.jsonable import dumps

        print(dumps(value), flush=True)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """A bar on a terminal, else one plain line at intervals; nothing with ``-q``."""
        if self.quiet:
            yield _silent
        elif self.console.is_terminal:
            with _bar(self.console) as progress:
                yield progress
        else:
            yield Ticker()


def _silent(done: int, total: int, label: str) -> None:
    """Progress that nobody sees."""


@contextmanager
def _bar(console: Console) -> Iterator[Progress]:
    """A bar that follows the last label."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=None)
        yield lambda done, total, label: bars.update(task, completed=done, total=total, description=label)


@dataclass
class Ticker:
    """One plain line on stderr at most every ``INTERVAL_S`` seconds."""

    last: float = field(default_factory=time.monotonic)

    def __call__(self, done: int, total: int, label: str) -> None:
        """Say how far the job is, if the last line is long enough ago."""
        now = time.monotonic()
        if now - self.last >= INTERVAL_S:
            self.last = now
            print(f"{label}: {done} of {total}", file=sys.stderr, flush=True)
