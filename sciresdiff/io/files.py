"""Paths as users write them, and files that appear only when they are whole."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError, ResourceError, SciresdiffError, UsageError

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
    for path in writers:
        if path.is_dir():
            raise UsageError(f"{path}: a folder is there; give another name")
        if path.exists() and not overwrite:
            raise UsageError(f"{path}: exists; give --overwrite to replace it, or another name")
    names = {path: path.with_name(f".{os.getpid()}.part.{path.name}") for path in writers}
    made: list[Path] = []
    try:
        for path, write in writers.items():
            made += _folders(path.parent)
            write(names[path])
        for path, temporary in names.items():
            os.replace(temporary, path)
    except BaseException as error:
        _tidy([*names.values(), *reversed(made)])
        if isinstance(error, OSError) and not isinstance(error, SciresdiffError):
            raise _explained(next(iter(writers)), error) from error
        raise
    return [str(path) for path in writers]


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
