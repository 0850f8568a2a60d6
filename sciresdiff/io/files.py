"""Paths as users write them (``FILE[EXT]``), and whether a file can be read."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sciresdiff.errors import InputError


def split_spec(path: str | Path) -> tuple[Path, str | None]:
    """Split ``file.fits[SCI]`` into the file and the text in brackets.

    A file whose own name has the brackets wins.

    Returns
    -------
    path : Path
    inside : str or None
        None without brackets.
    """
    text = str(path)
    match = re.fullmatch(r"(.+?)\[([^\[\]]+)\]", text)
    if match is None or Path(text).exists():
        return Path(text), None
    return Path(match[1]), match[2].strip()


def require_file(path: Path) -> Path:
    """Return the path of a file that exists and can be read.

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
    """First line of an exception's text, at most 160 characters."""
    text = str(error).strip().splitlines() or [type(error).__name__]
    return text[0][:160]
