"""Who writes an output: names of the files beside it, and locks that end with the process that holds them."""

from __future__ import annotations

import errno
import glob
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sciresdiff.errors import UsageError
from sciresdiff.run import signals
from sciresdiff.run.shards import Shard

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

LOOK_S, LOOKS = 0.05, 10
"""Seconds between two looks at a lock that another run may hold for a moment, and how many there are."""

_PART = re.compile(r"(\.\d+)?")
_NO_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR)
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_sync = getattr(os, "fdatasync", os.fsync)


def part_of(target: Path) -> Path:
    """Where the unfinished file lies."""
    return target.with_name(f".{target.name}.part")


def parts_of(target: Path) -> list[Path]:
    """The unfinished files that are there: of the target, and with numbers of those that belong to it."""
    start = part_of(target)
    return [
        path for path in start.parent.glob(glob.escape(start.name) + "*") if _PART.fullmatch(path.name, len(start.name))
    ]


def journal_of(target: Path, shard: Shard | None = None) -> Path:
    """The journal of a run, or of a shard."""
    middle = f".{shard.number}-of-{shard.of}" if shard else ""
    return target.with_name(f".{target.name}{middle}.journal")


def beside(target: Path) -> list[Path]:
    """All journals of a target that are there, the unsharded run's first."""
    names = re.compile(re.escape(f".{target.name}") + r"(\.\d+-of-\d+)?\.journal")
    found = target.parent.glob(f".{glob.escape(target.name)}.*journal")
    return sorted((path for path in found if names.fullmatch(path.name)), key=lambda path: (len(path.name), path.name))


def turn_of(target: Path) -> Path:
    """The file that a shard locks while it begins or ends, so that one does at a time."""
    return target.with_name(f".{target.name}.lock")


@dataclass
class Locks:
    """The lock that a run holds on its journal, and the turn that shards take."""

    target: Path
    path: Path
    """The run's own journal."""
    own: int
    """The same, open and locked."""
    turn: int | None = None

    def take_turn(self, wait: float = float("inf")) -> None:
        """Wait until no other shard begins or ends, and keep it so.

        Raises
        ------
        BlockingIOError
            Another one does for longer than ``wait`` seconds.
        """
        if self.turn is None:
            self.turn = locked(turn_of(self.target), wait, needed=True)

    def pass_turn(self) -> None:
        """Let other shards begin and end."""
        if self.turn is not None:
            os.close(self.turn)
            self.turn = None

    def alive(self) -> list[Path]:
        """Journals of the other shards that are at work."""
        return [path for path in beside(self.target) if path != self.path and busy(path)]

    def linked(self) -> bool:
        """Whether the journal is still there, and not taken away by the shard that finished the file."""
        return linked(self.own, self.path)

    def append(self, line: str) -> None:
        """A line at the end of the journal, on the disk when this returns."""
        data = line.encode() + b"\n"
        while data:
            data = data[os.write(self.own, data) :]
        _sync(self.own)

    def cut(self, size: int) -> None:
        """Forget all of the journal behind its first ``size`` bytes."""
        os.ftruncate(self.own, size)
        os.lseek(self.own, 0, os.SEEK_END)

    def clear(self) -> None:
        """Take away what is beside the target: its journals, and what is unfinished."""
        clear(self.target)

    def close(self) -> None:
        """Give the locks back."""
        self.pass_turn()
        os.close(self.own)


def clear(target: Path) -> None:
    """Take away all journals of a target, and what is unfinished of it and of the files that belong to it."""
    from sciresdiff.io.files import remove

    for path in (*parts_of(target), *beside(target), turn_of(target)):
        remove(path)


def linked(descriptor: int, path: Path) -> bool:
    """Whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(descriptor: int) -> None:
    """Lock an open file, or say at once that another process has."""
    if fcntl is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def locked(path: Path, wait: float = LOOKS * LOOK_S, needed: bool = False) -> int:
    """Open a file, make it if it is not there, and lock it; the lock ends with the process.

    **On a file system without locks nothing is locked**, unless that is ``needed``.

    Raises
    ------
    BlockingIOError
        Another process holds it for longer than ``wait`` seconds.
    UsageError
        There are no locks, and one is needed.
    """
    end = time.monotonic() + wait
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(descriptor)
            if linked(descriptor, path):  # else it was taken away meanwhile
                os.lseek(descriptor, 0, os.SEEK_END)
                return descriptor
            os.close(descriptor)
        except OSError as problem:
            if problem.errno in _NO_LOCKS and not needed:
                return descriptor
            os.close(descriptor)
            if problem.errno in _NO_LOCKS:
                raise UsageError(f"--shard: {path.parent} is on a file system without locks; write elsewhere") from None
            if not isinstance(problem, BlockingIOError) or time.monotonic() > end:
                raise
            signals.heed()
            time.sleep(LOOK_S)


def busy(path: Path) -> bool:
    """Whether another process holds this journal."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        _lock(descriptor)
    except OSError as problem:
        return problem.errno not in _NO_LOCKS
    finally:
        os.close(descriptor)
    return False


@contextmanager
def held(target: Path, shard: Shard | None = None) -> Iterator[Locks]:
    """The locks of a run; a shard's has the turn.

    Raises
    ------
    UsageError
        Another process writes this output, or nothing can be written where it is wanted.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        own = locked(journal_of(target, shard))
    except BlockingIOError:
        raise UsageError(f"--output: {target} is being written by another process; wait until it has ended") from None
    except OSError as problem:
        if problem.errno in _NO_PLACE:
            raise UsageError(f"--output: {target} cannot be written ({problem.strerror}); give another place") from None
        raise
    locks = Locks(target, journal_of(target, shard), own)
    try:
        if strangers := [path for path in locks.alive() if not shard or of_shards(path) != shard.of]:
            told = strangers[0].name.removeprefix(f".{target.name}").removesuffix(".journal").lstrip(".")
            what = f"shard {told.replace('-of-', '/')}" if told else "another process"
            raise UsageError(f"--output: {target} is being written by {what}; wait until it has ended")
        if shard:
            locks.take_turn()
        yield locks
    finally:
        locks.close()


def of_shards(path: Path) -> int:
    """How many shards a journal's name speaks of; 0 for a run without."""
    match = re.search(r"\.\d+-of-(\d+)\.journal$", path.name)
    return int(match[1]) if match else 0
