"""The console: messages and progress on stderr, data on stdout."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import rich.console
from rich.text import Text

from sciresdiff.errors import ResourceError
from sciresdiff.run.options import RunOptions
from sciresdiff.run.progress import Progress, no_progress
from sciresdiff.text import visible

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


def print_lines(lines: Iterable[str]) -> None:
    """Print lines on stdout; what a terminal would obey in a name or a header is shown instead (`text.visible`).

    Raises
    ------
    ResourceError
        Stdout cannot take them.
    """
    _print("\n".join(map(visible, lines)) + "\n")


def print_tables(*shown: Any) -> None:
    """Print tables and lines of `rich` on stdout.

    Raises
    ------
    ResourceError
        Stdout cannot take them.
    """
    console = table_console()
    with guard_stdout():
        for one in shown:
            console.print(one)
        if sys.stdout is not None:
            sys.stdout.flush()


def in_cell(value: Any) -> Text:
    """A value as it stands in a table: nothing in it is markup, and what a terminal would obey is shown instead."""
    return Text(visible(str(value)))


def _print(text: str) -> None:
    """Print on stdout."""
    with guard_stdout():
        print(text, end="", flush=True)


@contextmanager
def guard_stdout() -> Iterator[None]:
    """Print inside this context: where the reader has gone away the work goes on, as its files are wanted all the same.

    Raises
    ------
    ResourceError
        Stdout cannot take what is printed.
    """
    try:
        yield
    except (BrokenPipeError, SystemExit):  # rich makes the second one of the first
        discard_stdout()
    except OSError as problem:
        discard_stdout()
        raise ResourceError(f"stdout: {problem.strerror or problem}; what was to be printed is lost") from problem


def tell(line: str) -> None:
    """Print a line on stderr, which may be full or closed: what is computed does not depend on who reads about it."""
    if sys.stderr is not None:  # print takes stdout for None
        with contextlib.suppress(OSError):
            print(visible(line), file=sys.stderr, flush=True)


def discard_stdout() -> None:
    """Send all further output to nowhere, what is still in the buffer included."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no descriptor: nothing that could fail later
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


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
            self._tell(line)

    def error(self, line: str) -> None:
        """Print what went wrong on stderr, in one line, always."""
        self._tell(f"sciresdiff: {' '.join(line.split())}")

    def _tell(self, line: str) -> None:
        """Print a line above the progress bar, if there is one; see `tell`."""
        if not self.stderr.is_terminal:
            return tell(line)
        with contextlib.suppress(OSError):
            self.stderr.print(visible(line), markup=False)

    def record(self, value: Any) -> None:
        """Print one JSON record, alone on its line of stdout.

        Raises
        ------
        ResourceError
            Stdout cannot take it.
        """
        from sciresdiff.io.jsonable import dumps

        line = dumps(value)
        if "utf" not in (getattr(sys.stdout, "encoding", None) or "utf-8").lower():
            line = json.dumps(json.loads(line))
        _print(line + "\n")

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
        yield lambda done, total, label: bars.update(task, completed=done, total=total, description=visible(label))


@dataclass
class ProgressLines:
    """Progress as plain lines on stderr, at most one every ``INTERVAL_S`` seconds."""

    last: float = field(default_factory=time.monotonic)

    def __call__(self, done: int, total: int, label: str) -> None:
        """Print how far the job is, if the last line is old enough."""
        now = time.monotonic()
        if now - self.last >= INTERVAL_S:
            self.last = now
            tell(f"{label}: {done} of {total}")
