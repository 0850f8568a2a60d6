"""Files and folders, whatever is in them, and whatever somebody else put in their place.

In a folder that others may write to (a shared scratch disk, /tmp) a link can wait under the name of a file that the
program is about to write, and what is written then lands in the file that the link points to. What the program writes
beside an output is therefore opened here.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

_FLAGS = ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY")
"""Of every file that is opened here, where the system knows them; a pipe shall not wait for its other end."""


def remove(path: Path) -> None:
    """Remove a file or a link, or a folder with all its contents; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def open_plain(path: Path, flags: int) -> int:
    """Open, or create with the umask's mode, a file that the program itself writes; links are not followed.

    Parameters
    ----------
    path : Path
        The file.
    flags : int
        As of `os.open`. With ``O_TRUNC`` the file is emptied when it is known to be a plain one.

    Returns
    -------
    int
        The descriptor.

    Raises
    ------
    FileExistsError
        A link, a folder, a pipe or a device has this name, or the file has a second name (a hard link).
    OSError
        It cannot be opened.
    """
    for name in _FLAGS:
        flags |= getattr(os, name, 0)
    refuse_planted(path)  # for its message; what is opened is looked at again
    descriptor = os.open(path, flags & ~os.O_TRUNC, 0o666)
    try:
        _refuse(path, os.fstat(descriptor))
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_new(path: Path) -> int:
    """Create a file that did not exist, to be read and written; what has its name is removed, and not what it links to.

    Raises
    ------
    OSError
        A folder has this name, another user's link may not be removed, or the folder cannot be written.
    """
    path.unlink(missing_ok=True)
    return open_plain(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)


def read_plain(path: Path) -> bytes:
    """Read a file that the program wrote itself; nothing where there is none.

    Raises
    ------
    OSError
        As `open_plain`.
    """
    try:
        descriptor = open_plain(path, os.O_RDONLY)
    except FileNotFoundError:
        return b""
    with open(descriptor, "rb") as stream:
        return stream.read()


def write_synced(path: Path, content: bytes) -> None:
    """Write a file, and return when it is on the disk, so that a power cut after its renaming leaves it whole."""
    with open(path, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def refuse_planted(path: Path, *, folder: bool = False) -> None:
    """Refuse a name under which something else waits than a plain file, or a folder where ``folder`` is asked for.

    Raises
    ------
    FileExistsError
        As `open_plain`; also for a link inside the folder.
    """
    try:
        found = os.lstat(path)
    except OSError:  # nothing there, or no way to it
        return
    if folder and stat.S_ISDIR(found.st_mode):
        if links := [inside for inside in path.rglob("*") if inside.is_symlink()]:
            raise _planted(links[0], "a link")
        return
    _refuse(path, found)


def _refuse(path: Path, found: os.stat_result) -> None:
    """Refuse what is no plain file with one name."""
    if stat.S_ISLNK(found.st_mode):
        raise _planted(path, "a link")
    if not stat.S_ISREG(found.st_mode):
        raise _planted(path, "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device")
    if found.st_nlink > 1:
        raise _planted(path, "a hard link: the file has a second name")


def _planted(path: Path, what: str) -> FileExistsError:
    """The error that names what waits under a name."""
    return FileExistsError(errno.EEXIST, f"{path.name} is {what}, and not written to; remove it", str(path))
