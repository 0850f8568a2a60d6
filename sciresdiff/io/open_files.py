"""Cache of open image files, so that the regions of one file do not open it again and again.

At most the files in use stay open, and the one used last.
"""

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
class OpenFile:
    """An open file and the number of its users."""

    source: Source
    stack: ExitStack
    users: int = 0
    turn: threading.Lock = field(default_factory=threading.Lock)
    """Held while a region is read: the libraries below seek in the file."""


_open: dict[tuple[Any, ...], OpenFile] = {}
_lock = threading.Lock()


@contextmanager
def use(path: str | Path, **options: Any) -> Iterator[OpenFile]:
    """Keep a file open as long as this context, and afterwards until another one is opened or `close` is called.

    Parameters
    ----------
    path : str or Path
        The file. A file that changed since it was opened (size, time or inode) is opened again.
    **options
        Of `sciresdiff.io.open_source`.

    Raises
    ------
    InputError
        As `sciresdiff.io.open_source`.
    """
    file = split_spec(path)[0]
    stat = file.stat() if file.is_file() else None
    key = (str(path), repr(sorted(options.items())), stat and (stat.st_size, stat.st_mtime_ns, stat.st_ino))
    with _lock:
        if key not in _open:
            _close_unused()  # keeps the number of descriptors small
            with ExitStack() as stack:
                source = stack.enter_context(io.open_source(path, **options))
                _open[key] = OpenFile(source, stack.pop_all())
        one = _open[key]
        one.users += 1
    try:
        yield one
    finally:
        with _lock:
            one.users -= 1


def window(path: str | Path, plane: int, region: Region, **options: Any) -> Frame:
    """Read a region of one plane of a file, as `Source.window`.

    Parameters
    ----------
    path : str or Path
        The file.
    plane : int
        Number of the plane.
    region : Region
        Rows and columns.
    **options
        Of `sciresdiff.io.open_source`.
    """
    with use(path, **options) as one, one.turn:
        return one.source.window(plane, region)


def close() -> None:
    """Close the files that nobody uses."""
    with _lock:
        _close_unused()


def _close_unused() -> None:
    for key in [key for key, one in _open.items() if not one.users]:
        _open.pop(key).stack.close()
