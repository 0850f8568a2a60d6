"""The lines of a journal: how they are written and read, and which of them can be trusted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from sciresdiff.files import read_plain
from sciresdiff.parse import parse_json
from sciresdiff.region import Region
from sciresdiff.run.sink import Sink

FORMAT = 1
"""Version of the format, which stands in a journal's first line."""


@dataclass(frozen=True)
class Window:
    """Rows ``y0 ... y1 - 1`` and columns ``x0 ... x1 - 1`` of a plane, written by one block."""

    name: str
    plane: int
    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def region(self) -> Region:
        """The same rows and columns."""
        return Region(self.y0, self.y1, self.x0, self.x1)


@dataclass(frozen=True)
class Entry:
    """A finished block."""

    number: int
    windows: tuple[Window, ...]
    sums: Mapping[str, Any]
    """What the block adds to the record, in JSON's own types."""
    checksum: str
    """blake2b of what the file holds in the windows, and of ``sums``."""

    def to_line(self) -> str:
        """The entry as a line of the journal."""
        windows = [list(vars(w).values()) for w in self.windows]
        return json.dumps({"block": self.number, "windows": windows, "sums": self.sums, "checksum": self.checksum})


@dataclass(frozen=True)
class Found:
    """A journal as it is on the disk."""

    path: Path
    head: Mapping[str, Any]
    """Its first line; empty where there is none."""
    entries: Mapping[int, Entry]
    size: int
    """Bytes up to the end of the last line that can be read."""


def read_journal(path: Path) -> Found:
    """Read a journal up to the first line that is torn or of another form; nothing behind it is trusted.

    Raises
    ------
    OSError
        It cannot be read, or is no plain file (`sciresdiff.files.open_plain`).
    """
    lines = read_plain(path).split(b"\n")[:-1]
    head: dict[str, Any] = {}
    entries: dict[int, Entry] = {}
    size = 0
    for line in lines:
        try:
            value = parse_json(line)
            if head:
                entries[int(value["block"])] = _parse_entry(value)
            else:
                head = {**value, "key": dict(value["key"]), "journal": int(value["journal"])}
        except (ValueError, KeyError, TypeError):
            break
        size += len(line) + 1
    return Found(path, head, entries, size)


def _parse_entry(value: Mapping[str, Any]) -> Entry:
    windows = tuple(Window(*w) for w in value["windows"])
    return Entry(int(value["block"]), windows, dict(value["sums"]), str(value["checksum"]))


def checksum(sink: Sink | None, windows: Iterable[Window], sums: Mapping[str, Any]) -> str:
    """blake2b of a block's sums, and of what the unfinished output holds in its windows.

    Parameters
    ----------
    sink : Sink or None
        The output, which can be read back (``get``); None where blocks write nothing but sums.
    windows : iterable of Window
        Where the block wrote.
    sums : mapping
        What it adds to the record.
    """
    digest = blake2b(json.dumps(sums, sort_keys=True).encode(), digest_size=16)
    for w in windows:
        assert sink is not None and sink.get is not None
        digest.update(np.ascontiguousarray(sink.get(w.name, w.plane, w.region)).data)
    return digest.hexdigest()


def is_intact(sink: Sink | None, entry: Entry) -> bool:
    """Whether the unfinished output still holds what the block wrote."""
    try:
        return checksum(sink, entry.windows, entry.sums) == entry.checksum
    except MemoryError:
        raise
    except Exception:  # too short, no such plane, or what a format's library says of a damaged part
        return False


def merge(found: Iterable[Found]) -> dict[int, Entry]:
    """The blocks of several journals by their numbers; where two have the same one, that of the later journal."""
    return {number: entry for journal in found for number, entry in journal.entries.items()}
