"""Hashes of files, and whether an output is still the one that a record describes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

CHUNK = 1 << 22
"""Bytes read at a time."""


def hash_path(path: Path) -> str:
    """blake2b of a file's content, or of all files in a folder with their names.

    A file is read once, and again when its size or time of change differ.
    """
    if path.is_dir():
        inside = sorted(other for other in path.rglob("*") if other.is_file())
        lines = "".join(f"{other.relative_to(path).as_posix()}:{hash_path(other)}\n" for other in inside)
        return blake2b(lines.encode(), digest_size=16).hexdigest()
    facts = path.stat()
    return _hash_file(str(path), facts.st_size, facts.st_mtime_ns, facts.st_ino)


@lru_cache(256)
def _hash_file(path: str, size: int, time: int, inode: int) -> str:
    digest = blake2b(digest_size=16)
    with open(path, "rb", buffering=0) as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def checksums(files: Iterable[str | Path]) -> dict[str, str]:
    """Name -> blake2b of each file, as the record of an output states them."""
    return {os.path.basename(file): hash_path(Path(file)) for file in files}


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Names under which two identities differ, sorted."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def is_current(record: Mapping[str, Any], target: Path, identity: Mapping[str, str]) -> bool:
    """Whether a record describes this very job, and its files are unchanged.

    Parameters
    ----------
    record : mapping
        With ``identity`` of the job that made the files, and their ``checksums`` by name.
    target : Path
        The output, beside which all of its files lie.
    identity : mapping
        What the output wanted depends on.
    """
    sums = record.get("checksums")
    if record.get("identity") != dict(identity) or not isinstance(sums, dict) or target.name not in sums:
        return False
    files = {target.with_name(name): value for name, value in sums.items()}
    return all(file.exists() for file in files) and all(hash_path(file) == value for file, value in files.items())
