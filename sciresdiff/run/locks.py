"""Which process writes an output: the names of the files beside it, and locks that end with their process.

Not filelock: it locks a file of its own.  Here the locked file is the journal itself, which is read, repaired and
appended to through the locked descriptor; a lock beside it could outlive it, or guard another file of its name.
"""

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
from sciresdiff.files import open_plain, refuse_planted, remove
from sciresdiff.run import signals
from sciresdiff.run.shards import Shard

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

LOOK_S, LOOKS = 0.05, 10
"""Seconds between two tries for a lock that another run may hold for a moment, and the number of tries."""

_PART = re.compile(r"(\.\d+)?")
_NO_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR)
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_sync = getattr(os, "fdatasync", os.fsync)


def part_path(target: Path) -> Path:
    """Path of the unfinished file, ``.NAME.part`` beside the target."""
    return target.with_name(f".{target.name}.part")


def find_parts(target: Path) -> list[Path]:
    """The unfinished files that exist: that of the target, and numbered ones of files that belong to it."""
    start = part_path(target)
    return [
        path for path in start.parent.glob(glob.escape(start.name) + "*") if _PART.fullmatch(path.name, len(start.name))
    ]


def journal_path(target: Path, shard: Shard | None = None) -> Path:
    """Path of the journal of a run, ``.NAME.journal``, or of a shard, ``.NAME.2-of-4.journal``."""
    middle = f".{shard.number}-of-{shard.of}" if shard else ""
    return target.with_name(f".{target.name}{middle}.journal")


def find_journals(target: Path) -> list[Path]:
    """All journals of a target that exist, that of a run without shards first."""
    return _find_numbered(target, "journal")


def _find_numbered(target: Path, ending: str) -> list[Path]:
    """``.NAME.ENDING`` and those of shards, ``.NAME.2-of-4.ENDING``."""
    names = re.compile(re.escape(f".{target.name}") + r"(\.\d+-of-\d+)?\." + ending)
    found = target.parent.glob(f".{glob.escape(target.name)}.*{ending}")
    return sorted((path for path in found if names.fullmatch(path.name)), key=lambda path: (len(path.name), path.name))


def turn_path(target: Path) -> Path:
    """Path of the file that a shard locks while it begins or ends, so that only one does at a time."""
    return target.with_name(f".{target.name}.lock")


def findings_path(target: Path, shard: Shard | None = None) -> Path:
    """Path of what a run, or a shard, found on the whole input before the first block (`sciresdiff.run.findings`)."""
    return journal_path(target, shard).with_suffix(".findings")


def find_findings(target: Path) -> list[Path]:
    """All such files of a target that exist, that of a run without shards first."""
    return _find_numbered(target, "findings")


@dataclass
class Locks:
    """The lock that a run holds on its journal, and the turn that shards take to begin and to end."""

    target: Path
    path: Path
    """The run's own journal."""
    own: int
    """Descriptor of that journal, open and locked."""
    turn: int | None = None
    """Descriptor of the locked turn file, while this shard has the turn."""

    def take_turn(self, wait: float = float("inf")) -> None:
        """Wait until no other shard begins or ends, and keep others from it until `pass_turn`.

        Raises
        ------
        BlockingIOError
            Another shard has the turn for longer than ``wait`` seconds.
        """
        if self.turn is None:
            self.turn = lock_file(turn_path(self.target), wait, needed=True)

    def pass_turn(self) -> None:
        """Let other shards begin and end."""
        if self.turn is not None:
            os.close(self.turn)
            self.turn = None

    def find_active(self) -> list[Path]:
        """Journals that other running processes hold."""
        return [path for path in find_journals(self.target) if path != self.path and is_locked(path)]

    def is_linked(self) -> bool:
        """Whether the journal still has its name; the shard that finishes the output removes all journals."""
        return _is_linked(self.own, self.path)

    def append(self, line: str) -> None:
        """Add a line to the journal; it is on the disk when this returns."""
        append_line(self.own, line)

    def truncate(self, size: int) -> None:
        """Drop everything behind the first ``size`` bytes of the journal."""
        os.ftruncate(self.own, size)
        os.lseek(self.own, 0, os.SEEK_END)

    def close(self) -> None:
        """Release the locks."""
        self.pass_turn()
        os.close(self.own)


def append_line(descriptor: int, line: str) -> None:
    """Add a line to an open file; it is on the disk when this returns."""
    data = line.encode() + b"\n"
    while data:
        data = data[os.write(descriptor, data) :]
    _sync(descriptor)


def remove_leftovers(target: Path, findings: bool = True) -> None:
    """Remove everything beside a target: its journals, its lock, unfinished files, and ``findings``."""
    found = find_findings(target) if findings else []
    for path in (*find_parts(target), *find_journals(target), turn_path(target), *found):
        remove(path)


def _is_linked(descriptor: int, path: Path) -> bool:
    """Whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(descriptor: int) -> None:
    """Lock an open file; BlockingIOError at once where another process has it."""
    if fcntl is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def lock_file(path: Path, wait: float = LOOKS * LOOK_S, needed: bool = False) -> int:
    """Open a file, create it where it is missing, and lock it; the lock ends with the process.

    **On a file system without locks nothing is locked**, unless ``needed``.

    Parameters
    ----------
    path : Path
        The file.
    wait : float
        Longest wait for another process, seconds.
    needed : bool
        Whether a file system without locks is an error.

    Returns
    -------
    int
        The descriptor, at the end of the file.

    Raises
    ------
    BlockingIOError
        Another process holds it for longer than ``wait`` seconds.
    UsageError
        The file system has no locks, and one is ``needed``.
    """
    end = time.monotonic() + wait
    while True:
        descriptor = open_plain(path, os.O_RDWR | os.O_CREAT)
        try:
            _lock(descriptor)
            if _is_linked(descriptor, path):  # else it was removed between the two calls
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
            signals.raise_if_stopped()
            time.sleep(LOOK_S)


def is_locked(path: Path) -> bool:
    """Whether another process holds this journal."""
    try:
        descriptor = open_plain(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        _lock(descriptor)
    except OSError as problem:
        return problem.errno not in _NO_LOCKS
    finally:
        os.close(descriptor)
    return False


def can_begin(target: Path) -> bool:
    """Whether a journal can be written beside a target, and no other process writes one."""
    for path in find_journals(target):
        refuse_planted(path)
    free = (os.access(path, os.W_OK) and not is_locked(path) for path in find_journals(target))
    return os.access(target.parent, os.W_OK) and all(free)


@contextmanager
def hold_locks(target: Path, shard: Shard | None = None, subject: str | None = None) -> Iterator[Locks]:
    """Hold the locks of a run inside this context; a shard begins with the turn.

    Parameters
    ----------
    target : Path
        The output, beside which the locked files lie.
    shard : Shard, optional
        The shard that this run is.
    subject : str, optional
        How messages call the output; ``--output: TARGET`` by default.

    Raises
    ------
    UsageError
        Another process writes this output, or nothing can be written in its folder.
    """
    subject = subject or f"--output: {target}"
    try:
        with refuse_folder(target, subject):
            own = lock_file(journal_path(target, shard))
    except BlockingIOError:
        raise UsageError(f"{subject} is being written by another process; wait until it has ended") from None
    locks = Locks(target, journal_path(target, shard), own)
    try:
        if strangers := [path for path in locks.find_active() if not shard or _shard_count(path) != shard.of]:
            number = strangers[0].name.removeprefix(f".{target.name}").removesuffix(".journal").lstrip(".")
            other = f"shard {number.replace('-of-', '/')}" if number else "another process"
            raise UsageError(f"{subject} is being written by {other}; wait until it has ended")
        if shard:
            locks.take_turn()
        yield locks
    finally:
        locks.close()


@contextmanager
def refuse_folder(target: Path, subject: str | None = None) -> Iterator[None]:
    """Make the folder of a target, and tell in the user's words where nothing can be written beside it.

    Raises
    ------
    UsageError
        It cannot be made or written, or something else has the name of a file that is written there.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for path in (*find_parts(target), *find_journals(target), turn_path(target), *find_findings(target)):
            refuse_planted(path, folder=path == part_path(target))
        yield
    except OSError as problem:
        if problem.errno in _NO_PLACE:
            subject = subject or f"--output: {target}"
            raise UsageError(f"{subject} cannot be written ({problem.strerror}); give another place") from None
        raise


def _shard_count(path: Path) -> int:
    """The number of shards that the name of a journal states; 0 for a run without shards."""
    match = re.search(r"\.\d+-of-(\d+)\.journal$", path.name)
    return int(match[1]) if match else 0
