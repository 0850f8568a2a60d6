"""What is found on all of an input before the blocks of its output are made, kept beside the output until that is done.

Beside ``out.fits`` lies ``.out.fits.findings``: JSON lines, first the key of the job, then a line for each finding as
soon as it is made.  A run that was killed while it looked goes on there, and of several shards one looks while the
others wait for what it finds.  What another job found, and what is torn or damaged, is looked for again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

from sciresdiff.errors import InputError, UsageError
from sciresdiff.files import read_plain
from sciresdiff.parse import parse_json
from sciresdiff.run import locks, signals

FORMAT = 1
"""Version of the format, which stands in the first line."""

Look = Callable[[], Any]
Remember = Callable[[str, Look], Any]
"""(name, how it is found) -> what was found under that name, in JSON's own types: before, or now."""


def look_anew(name: str, look: Look) -> Any:
    """Find it, and keep nothing: a `Remember` for work that leaves nothing beside its output."""
    return json.loads(json.dumps(look()))


@contextmanager
def keep_findings(target: Path, key: Mapping[str, str]) -> Iterator[Remember]:
    """Keep findings beside an output, and wait as long as another process looks for those of the same output.

    A signal is heeded when the finding in hand is on the disk.

    Parameters
    ----------
    target : Path
        The output.
    key : mapping
        Everything that the findings depend on. Those that were made with another one are dropped.

    Raises
    ------
    UsageError
        Nothing can be written in the folder of the output.
    """
    path = locks.findings_path(target)
    with locks.refuse_folder(target):
        own = locks.lock_file(path, wait=float("inf"))
    try:
        found, size = read_findings(path, key)
        os.ftruncate(own, size)
        os.lseek(own, 0, os.SEEK_END)
        if not size:
            locks.append_line(own, json.dumps({"findings": FORMAT, "key": dict(key)}))

        def remember(name: str, look: Look) -> Any:
            if name not in found:
                found[name] = look_anew(name, look)
                locks.append_line(
                    own, json.dumps({"name": name, "found": found[name], "checksum": checksum(found[name])})
                )
                signals.raise_if_stopped()
            return found[name]

        with signals.defer_stops():
            yield remember
    except (UsageError, InputError):  # nothing is left behind that the same command cannot use
        path.unlink(missing_ok=True)
        raise
    except BaseException as problem:
        problem.add_note(f"what was found for {target.name} is kept; the same command goes on from there")
        raise
    finally:
        os.close(own)


def read_findings(path: Path, key: Mapping[str, str]) -> tuple[dict[str, Any], int]:
    """The findings of a job by their names, and the bytes of the file up to the last that can be trusted.

    Parameters
    ----------
    path : Path
        The file, which may be empty or that of another job.
    key : mapping
        Of the job.
    """
    found: dict[str, Any] = {}
    size = 0
    for line in read_plain(path).split(b"\n")[:-1]:
        try:
            value = parse_json(line)
            if size:
                if checksum(value["found"]) != value["checksum"]:
                    break
                found[str(value["name"])] = value["found"]
            elif value["findings"] != FORMAT or value["key"] != dict(key):
                break
        except (ValueError, KeyError, TypeError):
            break
        size += len(line) + 1
    return found, size


def checksum(found: Any) -> str:
    """blake2b of a finding."""
    return blake2b(json.dumps(found, sort_keys=True).encode(), digest_size=16).hexdigest()
