"""What is found on all of an input before the blocks of its output are made, kept beside the output until that is done.

Beside ``out.fits`` lies ``.out.fits.findings``: JSON lines, first the key of the job, then a line for each finding as
soon as it is made.  A run that was killed while it looked goes on there.  Every shard has a file of its own,
``.out.fits.2-of-4.findings``, and takes what the others have found: each looks at its own share first, then at what is
left of the others' shares from their ends, so that shards that run at once share the work, and none waits.  What
another job found, and what is torn or damaged, is looked for again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from sciresdiff.errors import InputError, UsageError
from sciresdiff.files import read_plain
from sciresdiff.parse import parse_json
from sciresdiff.run import locks, signals
from sciresdiff.run.shards import Shard

FORMAT = 1
"""Version of the format, which stands in the first line."""

Look = Callable[[], Any]
"""Finds something; a function of the job alone."""


class Findings:
    """Findings by their names, in JSON's own types; this one keeps nothing."""

    def all(self, looks: Mapping[str, Look]) -> dict[str, Any]:
        """What is found under several names, in their order."""
        return {name: plain(look()) for name, look in looks.items()}

    def one(self, name: str, look: Look) -> Any:
        """What is found under one name."""
        return self.all({name: look})[name]


@dataclass
class KeptFindings(Findings):
    """Findings that are kept in a file, together with those that other shards keep in theirs."""

    target: Path
    """The output."""
    key: Mapping[str, str]
    """Everything that the findings depend on."""
    shard: Shard | None
    own: int
    """Descriptor of the own file, open and locked."""
    found: dict[str, Any] = field(default_factory=dict)
    read: dict[Path, int] = field(default_factory=dict)
    """Bytes of every file that were read and can be trusted; 0 where its first line cannot."""

    def refresh(self) -> None:
        """Read what was added to any file."""
        for path in locks.find_findings(self.target):
            more, self.read[path] = read_findings(path, self.key, self.read.get(path, 0))
            self.found |= more

    def begin(self, path: Path) -> None:
        """Read all files, and cut off what cannot be trusted at the end of the own one."""
        self.refresh()
        size = self.read.get(path, 0)
        os.ftruncate(self.own, size)
        os.lseek(self.own, 0, os.SEEK_END)
        if not size:
            locks.append_line(self.own, json.dumps({"findings": FORMAT, "key": dict(self.key)}))

    def all(self, looks: Mapping[str, Look]) -> dict[str, Any]:
        """What is found under several names: what is kept already is not looked for again."""
        for name in in_turn(list(looks), self.shard):
            if name not in self.found:
                self.refresh()
            if name not in self.found:
                found = self.found[name] = plain(looks[name]())
                locks.append_line(self.own, json.dumps({"name": name, "found": found, "checksum": checksum(found)}))
                signals.raise_if_stopped()
        return {name: self.found[name] for name in looks}


def in_turn(names: Sequence[str], shard: Shard | None) -> Iterator[str]:
    """The names in the order of a shard: its own, then those of the shards after it, each from its end."""
    if shard is None:
        yield from names
        return
    yield from shard.share(names)
    for step in range(1, shard.of):
        other = Shard((shard.number - 1 + step) % shard.of + 1, shard.of)
        yield from reversed(other.share(names))


@contextmanager
def keep_findings(target: Path, key: Mapping[str, str], shard: Shard | None = None) -> Iterator[Findings]:
    """Keep findings beside an output. A signal is heeded when the finding in hand is on the disk.

    Parameters
    ----------
    target : Path
        The output.
    key : mapping
        Everything that the findings depend on. Those that were made with another one are dropped.
    shard : Shard, optional
        The shard that this run is.

    Raises
    ------
    UsageError
        Nothing can be written in the folder of the output, or another process makes it.
    """
    path = locks.findings_path(target, shard)
    try:
        with locks.refuse_folder(target):
            own = locks.lock_file(path)
    except BlockingIOError:
        raise UsageError(f"--output: {target} is being written by another process; wait until it has ended") from None
    try:
        kept = KeptFindings(target, key, shard, own)
        kept.begin(path)
        with signals.defer_stops():
            yield kept
    except (UsageError, InputError):  # nothing is left behind that the same command cannot use
        path.unlink(missing_ok=True)
        raise
    except BaseException as problem:
        problem.add_note(f"what was found for {target.name} is kept; the same command goes on from there")
        raise
    finally:
        os.close(own)


def read_findings(path: Path, key: Mapping[str, str], start: int = 0) -> tuple[dict[str, Any], int]:
    """The findings of a job by their names, and the bytes of a file up to the last that can be trusted.

    Parameters
    ----------
    path : Path
        The file, which may be gone, empty or that of another job.
    key : mapping
        Of the job.
    start : int
        Bytes that were read before.
    """
    found: dict[str, Any] = {}
    for line in read_plain(path)[start:].split(b"\n")[:-1]:
        try:
            value = parse_json(line)
            if start:
                if checksum(value["found"]) != value["checksum"]:
                    break
                found[str(value["name"])] = value["found"]
            elif value["findings"] != FORMAT or value["key"] != dict(key):
                break
        except (ValueError, KeyError, TypeError):
            break
        start += len(line) + 1
    return found, start


def plain(found: Any) -> Any:
    """A finding as JSON gives it back, so that it is the same whether it was kept or not."""
    return json.loads(json.dumps(found))


def checksum(found: Any) -> str:
    """blake2b of a finding."""
    return blake2b(json.dumps(found, sort_keys=True).encode(), digest_size=16).hexdigest()
