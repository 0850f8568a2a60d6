"""An array that lies in a file without compression, read and written window by window."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.region import Region

Array = NDArray[Any]
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What a file system without locks says."""


@dataclass(frozen=True)
class Flat:
    """The planes of an array in an open file.

    Nothing is mapped into memory: a full disk or a file that was cut raises OSError, and never ends the process.
    """

    fd: int
    offset: int
    """Where the array begins, in bytes."""
    dtype: np.dtype[Any]
    """Type in the file, byte order included."""
    shape: tuple[int, ...]
    axes: str
    """A letter for each axis, Y and X among them; the others count the planes, the last of them fastest."""

    def get(self, plane: int, region: Region) -> Array:
        """Values (h, w) of a region of a plane, in native byte order.

        Raises
        ------
        OSError
            The file ends before.
        """
        rows = [np.frombuffer(_read(self.fd, n, start), self.dtype)[::step]
                for start, n, step in self._runs(plane, region)]  # fmt: skip
        there = rows[0].reshape(-1, region.shape[1]) if len(rows) == 1 and not self._turned else np.stack(rows)
        return (there.T if self._turned else there).astype(self.dtype.newbyteorder("="), copy=False)

    def put(self, plane: int, y0: int, x0: int, values: Array) -> None:
        """Write values (h, w) at ``[y0:y0+h, x0:x0+w]`` of a plane.

        Raises
        ------
        OSError
            The disk is full.
        """
        h, w = values.shape
        runs = list(self._runs(plane, Region(y0, y0 + h, x0, x0 + w)))
        data = np.ascontiguousarray(values.T if self._turned else values, self.dtype).reshape(len(runs), -1)
        for (start, n, step), row in zip(runs, data, strict=True):
            if step == 1:
                write_all(self.fd, row.data.cast("B"), start)
            else:
                self._weave(row, start, n, step)

    def _weave(self, row: Array, start: int, n: int, step: int) -> None:
        """Replace every ``step``-th number; no other process writes there meanwhile, for planes share these bytes."""
        with alone(self.fd, n, start):
            there = np.frombuffer(_read(self.fd, n, start), self.dtype).copy()
            there[::step] = row
            write_all(self.fd, there.data.cast("B"), start)

    @property
    def _turned(self) -> bool:
        """Whether neighbours along y lie closer in the file than those along x."""
        return self.axes.index("Y") > self.axes.index("X")

    def _runs(self, plane: int, region: Region) -> Iterator[tuple[int, int, int]]:
        """Pieces of the file that a region lies in: start and length in bytes, and the step between its numbers."""
        size = self.dtype.itemsize
        strides = [size * int(np.prod(self.shape[i + 1 :], initial=1)) for i in range(len(self.shape))]
        others = [i for i, a in enumerate(self.axes) if a not in "YX"]
        where = np.unravel_index(plane, [self.shape[i] for i in others]) if others else ()
        start = self.offset + sum(int(k) * strides[i] for k, i in zip(where, others, strict=True))
        y, x = (strides[self.axes.index(a)] for a in "YX")
        rows, columns = (y, region.y0, region.y1), (x, region.x0, region.x1)
        (slow, s0, s1), (fast, f0, f1) = (columns, rows) if self._turned else (rows, columns)
        length = (f1 - f0 - 1) * fast + size
        start += s0 * slow + f0 * fast
        if fast == size and length == slow and not self._turned:
            yield start, length * (s1 - s0), 1
        else:
            yield from ((start + k * slow, length, fast // size) for k in range(s1 - s0))


@contextmanager
def unbuffered(path: Path, *, anew: bool) -> Iterator[int]:
    """The descriptor of a file to be written in any order; ``anew`` empties it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | (os.O_TRUNC if anew else 0) | getattr(os, "O_BINARY", 0), 0o666)
    try:
        yield fd
    finally:
        os.close(fd)


def reserve(fd: int, size: int) -> None:
    """Take the room that a file will need, so that a disk that is too small is known at once.

    Raises
    ------
    OSError
        The disk is full.
    """
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTSUP):
            raise
    os.ftruncate(fd, max(size, os.fstat(fd).st_size))


def _read(fd: int, n: int, start: int) -> bytes:
    parts = []
    while n > 0:
        part = os.pread(fd, min(n, 2**30), start)
        if not part:
            raise OSError(errno.EIO, "the file ends before its pixels do")
        parts.append(part)
        n, start = n - len(part), start + len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


@contextmanager
def alone(fd: int, n: int, start: int) -> Iterator[None]:
    """No other process has these bytes of the file, where the file system has locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX, n, start)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        yield
        return
    try:
        yield
    finally:
        fcntl.lockf(fd, fcntl.LOCK_UN, n, start)


def write_all(fd: int, data: bytes | memoryview, start: int) -> None:
    """Write bytes at a place of a file.

    Raises
    ------
    OSError
        The disk is full.
    """
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view[: 2**30], start)
        view, start = view[done:], start + done
