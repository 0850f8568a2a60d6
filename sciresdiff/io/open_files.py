"""Files that stay open between the windows that are read of them, one for every job that is under way in a process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sciresdiff import io
from sciresdiff.frame import Frame
from sciresdiff.io.files import split_spec
from sciresdiff.io.source import Source
from sciresdiff.region import Region


@dataclass
class Held:
    """An open file, and how many use it now."""

    source: Source
    stack: ExitStack
    users: int = 0
    turn: threading.Lock = field(default_factory=threading.Lock)
    """Windows are read one at a time."""


_open: dict[tuple[Any, ...], Held] = {}
_lock = threading.Lock()


@contextmanager
def held(path: str | Path, **options: Any) -> Iterator[Held]:
    """A file that is open as long as this context, and until another one is opened or `close` is called.

    Parameters
    ----------
    options : of `sciresdiff.io.opened`.

    Raises
    ------
    InputError : as `sciresdiff.io.opened`.
    """
    file = split_spec(path)[0]
    stat = file.stat() if file.is_file() else None
    key = (str(path), repr(sorted(options.items())), stat and (stat.st_size, stat.st_mtime_ns, stat.st_ino))
    with _lock:
        if key not in _open:
            _closed()
            with ExitStack() as stack:
                source = stack.enter_context(io.opened(path, **options))
                _open[key] = Held(source, stack.pop_all())
        one = _open[key]
        one.users += 1
    try:
        yield one
    finally:
        with _lock:
            one.users -= 1


def window(path: str | Path, plane: int, region: Region, **options: Any) -> Frame:
    """A region of one plane of a file, as `Source.window` gives it."""
    with held(path, **options) as one, one.turn:
        return one.source.window(plane, region)


def close() -> None:
    """Close the files that nobody uses."""
    with _lock:
        _closed()


def _closed() -> None:
    for key in [key for key, one in _open.items() if not one.users]:
        _open.pop(key).stack.close()
