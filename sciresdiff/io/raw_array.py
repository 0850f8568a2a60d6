"""An uncompressed array in a file, read and written region by region with pread and pwrite.

Kept here instead of `numpy.memmap`: a memory map ends the process (SIGBUS) on a full disk or a truncated file and keeps
the pages that it read; here both are an OSError.
"""

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

from sciresdiff.files import open_plain
from sciresdiff.region import Region

Array = NDArray[Any]
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""Errors of file systems that have no locks."""


@dataclass(frozen=True)
class RawArray:
    """The planes of an array in an open file."""

    fd: int
    offset: int
    """First byte of the array."""
    dtype: np.dtype[Any]
    """Type in the file, byte order included."""
    shape: tuple[int, ...]
    axes: str
    """A letter for each axis, Y and X among them; the others count planes, the last of them fastest."""

    def get(self, plane: int, region: Region) -> Array:
        """Read a region (h, w) of a plane, in native byte order.

        Raises
        ------
        OSError
            The file ends before the region does.
        """
        rows = [np.frombuffer(_read_at(self.fd, n, start), self.dtype)[::step]
                for start, n, step in self._runs(plane, region)]  # fmt: skip
        there = rows[0].reshape(-1, region.shape[1]) if len(rows) == 1 and not self._transposed else np.stack(rows)
        return (there.T if self._transposed else there).astype(self.dtype.newbyteorder("="), copy=False)

    def put(self, plane: int, y0: int, x0: int, values: Array) -> None:
        """Write values into a plane.

        Parameters
        ----------
        plane : int
            Number of the plane.
        y0, x0 : int
            First row and column.
        values : (h, w) array
            Converted to the type of the file without rounding or clipping.

        Raises
        ------
        OSError
            The disk is full.
        """
        h, w = values.shape
        runs = list(self._runs(plane, Region(y0, y0 + h, x0, x0 + w)))
        data = np.ascontiguousarray(values.T if self._transposed else values, self.dtype).reshape(len(runs), -1)
        for (start, n, step), row in zip(runs, data, strict=True):
            if step == 1:
                write_at(self.fd, row.data.cast("B"), start)
            else:
                self._put_strided(row, start, n, step)

    def _put_strided(self, row: Array, start: int, n: int, step: int) -> None:
        """Replace every ``step``-th number of a run.

        The numbers between belong to other planes, so no other process may write here meanwhile.
        """
        with lock_bytes(self.fd, n, start):
            there = np.frombuffer(_read_at(self.fd, n, start), self.dtype).copy()
            there[::step] = row
            write_at(self.fd, there.data.cast("B"), start)

    @property
    def _transposed(self) -> bool:
        """Whether X varies more slowly in the file than Y."""
        return self.axes.index("Y") > self.axes.index("X")

    def _runs(self, plane: int, region: Region) -> Iterator[tuple[int, int, int]]:
        """Contiguous pieces of the file that hold a region: first byte, length in bytes, step between numbers."""
        size = self.dtype.itemsize
        strides = [size * int(np.prod(self.shape[i + 1 :], initial=1)) for i in range(len(self.shape))]
        others = [i for i, a in enumerate(self.axes) if a not in "YX"]
        where = np.unravel_index(plane, [self.shape[i] for i in others]) if others else ()
        start = self.offset + sum(int(k) * strides[i] for k, i in zip(where, others, strict=True))
        y, x = (strides[self.axes.index(a)] for a in "YX")
        rows, columns = (y, region.y0, region.y1), (x, region.x0, region.x1)
        (slow, s0, s1), (fast, f0, f1) = (columns, rows) if self._transposed else (rows, columns)
        length = (f1 - f0 - 1) * fast + size
        start += s0 * slow + f0 * fast
        if fast == size and length == slow and not self._transposed:  # full rows: one run
            yield start, length * (s1 - s0), 1
        else:
            yield from ((start + k * slow, length, fast // size) for k in range(s1 - s0))


@contextmanager
def open_unbuffered(path: Path, *, anew: bool) -> Iterator[int]:
    """Open a file to be written in any order; with ``anew`` it is emptied. Yields the descriptor."""
    fd = open_plain(path, os.O_RDWR | os.O_CREAT | (os.O_TRUNC if anew else 0))
    try:
        yield fd
    finally:
        os.close(fd)


def reserve_space(fd: int, size: int) -> None:
    """Allocate the bytes that a file will need, so that a disk that is too small is found before any work.

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
    # where fallocate is not supported the file gets its size as a hole
    os.ftruncate(fd, max(size, os.fstat(fd).st_size))


def _read_at(fd: int, n: int, start: int) -> bytes:
    parts = []
    while n > 0:
        part = os.pread(fd, min(n, 2**30), start)  # no system takes more than 2 GB at a time
        if not part:
            raise OSError(errno.EIO, "the file ends before its pixels do")
        parts.append(part)
        n, start = n - len(part), start + len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


@contextmanager
def lock_bytes(fd: int, n: int, start: int) -> Iterator[None]:
    """Lock a range of bytes of a file against other processes, where the file system has locks.

    A range, so that processes that write other parts do not wait; libraries for locks lock whole files.
    """
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


def write_at(fd: int, data: bytes | memoryview, start: int) -> None:
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
