"""The console: messages and progress on stderr, data on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import rich.console

from sciresdiff.run.options import RunOptions
from sciresdiff.run.progress import Progress, no_progress

INTERVAL_S = 10.0
"""Time between two lines of progress where there is no terminal."""

WIDE = 160
"""Columns of a table that goes into a file or a pipe."""


def table_console() -> rich.console.Console:
    """Stdout for tables: as wide as the terminal, else `WIDE`."""
    console = rich.console.Console(highlight=False, emoji=False)
    return console if console.is_terminal else rich.console.Console(highlight=False, emoji=False, width=WIDE)


def _stderr() -> rich.console.Console:
    """Lines as they are: no wrapping, no colours for numbers, no emoji for ``:word:``."""
    return rich.console.Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)


@dataclass
class Console:
    """Where a command prints, and how much."""

    quiet: bool = False
    verbose: bool = False
    json: bool = False
    stderr: rich.console.Console = field(default_factory=_stderr)

    @classmethod
    def of(cls, options: RunOptions) -> Console:
        """The console of a run."""
        return cls(options.quiet, options.verbose, options.json)

    def info(self, line: str) -> None:
        """Print one line on stderr, unless ``-q``."""
        if not self.quiet:
            self.stderr.print(line, markup=False)

    def error(self, line: str) -> None:
        """Print what went wrong on stderr, in one line, always."""
        self.stderr.print(f"sciresdiff: {' '.join(line.split())}", markup=False)

    def record(self, value: Any) -> None:
        """Print one JSON record, alone on its line of stdout."""
        from sciresdiff.io.jsonable import dumps

        print(dumps(value), flush=True)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """A bar on a terminal, else one plain line at intervals; nothing with ``-q``."""
        if self.quiet:
            yield no_progress
        elif self.stderr.is_terminal:
            with _bar(self.stderr) as progress:
                yield progress
        else:
            yield ProgressLines()


@contextmanager
def _bar(console: rich.console.Console) -> Iterator[Progress]:
    """A progress bar, labelled by the step in hand."""
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
class ProgressLines:
    """Progress as plain lines on stderr, at most one every ``INTERVAL_S`` seconds."""

    last: float = field(default_factory=time.monotonic)

    def __call__(self, done: int, total: int, label: str) -> None:
        """Print how far the job is, if the last line is old enough."""
        now = time.monotonic()
        if now - self.last >= INTERVAL_S:
            self.last = now
            print(f"{label}: {done} of {total}", file=sys.stderr, flush=True)
