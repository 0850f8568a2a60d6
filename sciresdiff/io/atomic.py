"""Outputs that appear under their names only when they are complete.

A file is written under a temporary name in the same folder and renamed at the end, so that a reader never sees half of
it. Kept here instead of a library: the packages for this write one file at a time, while an image and the planes beside
it have to appear together, and an interrupted output has to stay under a known name to be resumed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sciresdiff.errors import ResourceError, SciresdiffError, UsageError
from sciresdiff.files import open_new, refuse_planted, remove
from sciresdiff.io.files import first_line

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomic(writers: Mapping[Path, Callable[[Path], object]], *, overwrite: bool = False) -> list[str]:
    """Write one or more files that belong together: each under a temporary name beside it, then renamed.

    Parameters
    ----------
    writers : mapping
        Final path -> function that writes the file at the path it is given.
    overwrite : bool
        Whether existing files may be replaced.

    Returns
    -------
    list of str
        The final paths.

    Raises
    ------
    UsageError
        A file exists and ``overwrite`` is off, or the folder cannot be written to.
    ResourceError
        The disk is full.
    """
    with atomic_files(list(writers), overwrite=overwrite) as (names, publish):
        for path, write in writers.items():
            write(names[path])
        return publish()


@contextmanager
def atomic_files(
    paths: Sequence[Path], *, overwrite: bool = False, part: Path | None = None
) -> Iterator[tuple[dict[Path, Path], Callable[[], list[str]]]]:
    """Write files that belong together and get their names at the same time.

    Parameters
    ----------
    paths : sequence of Path
        Final names. The first is the main file; it is renamed last, so that it never exists without the others.
    overwrite : bool
        Whether existing files may be replaced.
    part : Path, optional
        Where the main file is written, the others at ``{part}.{number}``. They are kept if the block is left early.
        Without it they lie beside their final places, and are deleted.

    Yields
    ------
    names, publish
        Final path -> path to write to; and a function that renames all of them and returns the final paths.

    Raises
    ------
    UsageError, ResourceError
        As `write_atomic`, also for any OSError inside the block.
    """
    names = _temporary_names(paths, part)
    created: list[Path] = []

    def publish() -> list[str]:
        _refuse_files(paths, overwrite)  # another process may have written one meanwhile
        for path in reversed(paths):
            os.replace(names[path], path)
        created.clear()
        return [str(path) for path in paths]

    _refuse_files(paths, overwrite)
    try:
        for folder in {path.parent: None for path in (*paths, *names.values())}:
            created += _make_folders(folder)
        for place in names.values():
            if part is None:
                os.close(open_new(place))
            else:
                refuse_planted(place)
        yield names, publish
    except OSError as error:
        raise _translate_error(paths[0], error) from error
    finally:
        if part is None:
            _remove_quietly([*names.values(), *reversed(created)])


@contextmanager
def atomic_folder(
    path: Path, *, overwrite: bool = False, part: Path | None = None
) -> Iterator[tuple[Path, Callable[[], list[str]]]]:
    """Write a folder that gets its name when it is complete; a folder that it replaces exists until then.

    Parameters
    ----------
    path : Path
        Final name.
    overwrite : bool
        Whether an existing output may be replaced.
    part : Path, optional
        Where the folder is written; kept if the block is left early.

    Yields
    ------
    folder, publish
        Folder to write to; and a function that renames it and returns the final path in a list.

    Raises
    ------
    UsageError, ResourceError
        As `atomic_files`.
    """
    _refuse_existing(path, overwrite)
    place = part or path.with_name(f".{os.getpid()}.part.{path.name}")
    created: list[Path] = []

    def publish() -> list[str]:
        old = path.with_name(f".{os.getpid()}.old.{path.name}")
        _refuse_existing(path, overwrite)
        remove(old)
        if os.path.lexists(path):
            os.replace(path, old)  # a folder cannot be renamed onto one that is not empty
        os.replace(place, path)
        remove(old)
        created.clear()
        return [str(path)]

    try:
        for folder in dict.fromkeys((path.parent, place.parent)):
            created += _make_folders(folder)
        if part is None:
            remove(place)
        refuse_planted(place, folder=True)
        place.mkdir(exist_ok=True)
        yield place, publish
    except OSError as error:
        raise _translate_error(path, error) from error
    finally:
        if part is None:
            remove(place)
            _remove_quietly(list(reversed(created)))


def _refuse_existing(path: Path, overwrite: bool) -> None:
    if os.path.lexists(path) and not overwrite:  # a link that leads nowhere is one that somebody made
        raise UsageError(f"{path}: exists; give --overwrite to replace it, or another name")


def _refuse_files(paths: Sequence[Path], overwrite: bool) -> None:
    for path in paths:
        if path.is_dir():
            raise UsageError(f"{path}: a folder is there; give another name")
        _refuse_existing(path, overwrite)


def _temporary_names(paths: Sequence[Path], part: Path | None) -> dict[Path, Path]:
    """Final path -> path to write to.

    A run that was killed between two renames left some files under their final names: they are renamed back.
    """
    if part is None:
        return {path: path.with_name(f".{os.getpid()}.part.{path.name}") for path in paths}
    names = {path: part.with_name(f"{part.name}.{i}") if i else part for i, path in enumerate(paths)}
    for path, unfinished in names.items():
        if part.exists() and path.exists() and not unfinished.exists():
            os.replace(path, unfinished)
    return names


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and its parents; return the new ones."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


def _remove_quietly(paths: list[Path]) -> None:
    for path in paths:
        try:
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
        except OSError:
            continue


def _translate_error(path: Path, error: OSError) -> SciresdiffError:
    if error.errno in _FULL or "requested and" in str(error):  # numpy's message for a short write
        return ResourceError(f"{path}: no room on the disk; free some, or write elsewhere")
    return UsageError(f"{path}: cannot be written ({error.strerror or first_line(error)}); give another place")
