"""Paths as users write them, and files that appear only when they are whole."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError, ResourceError, SciresdiffError, UsageError
from sciresdiff.files import remove

TYPES = ("uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")
"""Types of pixels that can be asked for."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def split_spec(path: str | Path) -> tuple[Path, str | None]:
    """``file.fits[SCI]`` -> the file and what stands in brackets; a file that is really called so wins."""
    text = str(path)
    match = re.fullmatch(r"(.+?)\[([^\[\]]+)\]", text)
    if match is None or Path(text).exists():
        return Path(text), None
    return Path(match[1]), match[2].strip()


def existing(path: Path) -> Path:
    """The path, where a file is there.

    Raises
    ------
    InputError
        Missing, a folder, empty, or not readable by this user.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: a folder, not a file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: may not be read by this user")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: empty file")
    return path


def first_line(error: BaseException) -> str:
    """An exception's first line, short enough for one line of output."""
    text = str(error).strip().splitlines() or [type(error).__name__]
    return text[0][:160]


def write_whole(writers: Mapping[Path, Callable[[Path], object]], *, overwrite: bool = False) -> list[str]:
    """Write one or more files that belong together: each under a temporary name beside it, then renamed.

    Parameters
    ----------
    writers : mapping
        Final path -> function that writes the file at the path it is given.
    overwrite : bool
        Whether files that exist may be replaced.

    Returns
    -------
    list of str
        The final paths.

    Raises
    ------
    UsageError
        A file exists and ``overwrite`` is off, or the place cannot be written to.
    ResourceError
        The disk is full.
    """
    with in_parts(list(writers), overwrite=overwrite) as (names, appear):
        for path, write in writers.items():
            write(names[path])
        return appear()


@contextmanager
def in_parts(
    paths: Sequence[Path], *, overwrite: bool = False, part: Path | None = None
) -> Iterator[tuple[dict[Path, Path], Callable[[], list[str]]]]:
    """Files that belong together and appear at once; the first is the one the others belong to, and appears last.

    Parameters
    ----------
    paths : sequence of Path
        Final names.
    overwrite : bool
        Whether files that exist may be replaced.
    part : Path, optional
        Where the first one is written, the others at ``{part}.{number}``; they stay there if the work stops. Without
        it they lie beside their final places, and vanish.

    Yields
    ------
    names, appear
        Final path -> where to write it; and a function that gives all of them their names and returns the final
        paths. Leaving without having called it leaves only what ``part`` keeps.

    Raises
    ------
    UsageError, ResourceError
        As `write_whole`, also for any OSError inside the block.
    """
    names = _names(paths, part)
    made: list[Path] = []

    def appear() -> list[str]:
        _refuse_files(paths, overwrite)  # what came meanwhile is not ours to replace
        for path in reversed(paths):
            os.replace(names[path], path)
        made.clear()
        return [str(path) for path in paths]

    _refuse_files(paths, overwrite)
    try:
        for folder in {path.parent: None for path in (*paths, *names.values())}:
            made += _folders(folder)
        yield names, appear
    except OSError as error:
        raise _explained(paths[0], error) from error
    finally:
        if part is None:
            _tidy([*names.values(), *reversed(made)])


@contextmanager
def folder_in_parts(
    path: Path, *, overwrite: bool = False, part: Path | None = None
) -> Iterator[tuple[Path, Callable[[], list[str]]]]:
    """A folder that appears at once; parameters, yields and errors as `in_parts`, for one output that is a folder.

    An output that is replaced is there until the new one has its name.
    """
    _refuse(path, overwrite)
    place = part or path.with_name(f".{os.getpid()}.part.{path.name}")
    made: list[Path] = []

    def appear() -> list[str]:
        old = path.with_name(f".{os.getpid()}.old.{path.name}")
        _refuse(path, overwrite)
        if path.exists():
            os.replace(path, old)
        os.replace(place, path)
        remove(old)
        made.clear()
        return [str(path)]

    try:
        for folder in dict.fromkeys((path.parent, place.parent)):
            made += _folders(folder)
        place.mkdir(exist_ok=True)
        yield place, appear
    except OSError as error:
        raise _explained(path, error) from error
    finally:
        if part is None:
            remove(place)
            _tidy(list(reversed(made)))


def _refuse(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: exists; give --overwrite to replace it, or another name")


def _refuse_files(paths: Sequence[Path], overwrite: bool) -> None:
    for path in paths:
        if path.is_dir():
            raise UsageError(f"{path}: a folder is there; give another name")
        _refuse(path, overwrite)


def _names(paths: Sequence[Path], part: Path | None) -> dict[Path, Path]:
    """Where each file is written; those of a run that was stopped while it renamed them are taken back."""
    if part is None:
        return {path: path.with_name(f".{os.getpid()}.part.{path.name}") for path in paths}
    names = {path: part.with_name(f"{part.name}.{i}") if i else part for i, path in enumerate(paths)}
    for path, unfinished in names.items():
        if part.exists() and path.exists() and not unfinished.exists():
            os.replace(path, unfinished)
    return names


def _folders(folder: Path) -> list[Path]:
    """Make a folder and its parents; return those that were not there."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


def _tidy(paths: list[Path]) -> None:
    for path in paths:
        try:
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
        except OSError:
            continue


def _explained(path: Path, error: OSError) -> SciresdiffError:
    if error.errno in _FULL or "requested and" in str(error):  # numpy's word for a write that was cut short
        return ResourceError(f"{path}: no room on the disk; free some, or write elsewhere")
    return UsageError(f"{path}: cannot be written ({error.strerror or first_line(error)}); give another place")


def checked_type(dtype: str | np.dtype[Any]) -> np.dtype[Any]:
    """A type that every format can hold.

    Raises
    ------
    UsageError
        Any other.
    """
    try:
        wanted = np.dtype(dtype)
    except TypeError:
        wanted = np.dtype(object)
    if wanted.name not in TYPES:
        raise UsageError(f"--dtype: {dtype} is not written here; give one of {', '.join(TYPES)}")
    return wanted


def typed(data: NDArray[Any], dtype: str | np.dtype[Any] | None) -> tuple[NDArray[Any], int]:
    """Pixels in a file's type: an integer type rounds half to even and clips; also how many pixels were clipped."""
    wanted = np.dtype(dtype or "f4")
    if wanted.kind == "f":
        return data.astype(wanted), 0
    limits = np.iinfo(wanted)
    whole = np.rint(np.nan_to_num(data.astype(np.float64), nan=0.0))
    clipped = int(((whole < limits.min) | (whole > limits.max)).sum())
    return np.clip(whole, limits.min, limits.max).astype(wanted), clipped
