"""The lines of a journal: what is read of them, and what of that is believed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from sciresdiff.io.sink import Sink
from sciresdiff.region import Region

FORMAT = 1


@dataclass(frozen=True)
class Window:
    """A part of a plane that a block wrote."""

    name: str
    plane: int
    y0: int
    y1: int
    x0: int
    x1: int


@dataclass(frozen=True)
class Entry:
    """A finished block."""

    number: int
    windows: tuple[Window, ...]
    sums: Mapping[str, Any]
    """What the block adds to the record; JSON's own types."""
    checksum: str
    """Of what the file holds in the windows, and of ``sums``."""

    def line(self) -> str:
        """As it stands in the journal."""
        windows = [list(vars(w).values()) for w in self.windows]
        return json.dumps({"block": self.number, "windows": windows, "sums": self.sums, "checksum": self.checksum})


@dataclass(frozen=True)
class Found:
    """A journal as it is on the disk."""

    path: Path
    head: Mapping[str, Any]
    """Its first line; empty where there is none."""
    entries: Mapping[int, Entry]
    whole: int
    """Bytes of it that are to be believed."""


def read(path: Path) -> Found:
    """A journal; from the first line on that is torn or not one of ours, nothing is believed."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    head: dict[str, Any] = {}
    entries: dict[int, Entry] = {}
    whole = 0
    for line in lines:
        try:
            value = json.loads(line)
            if head:
                entries[int(value["block"])] = entry_of(value)
            else:
                head = {**value, "key": dict(value["key"]), "journal": int(value["journal"])}
        except (ValueError, KeyError, TypeError):
            break
        whole += len(line) + 1
    return Found(path, head, entries, whole)


def entry_of(value: Mapping[str, Any]) -> Entry:
    """A finished block out of a line."""
    windows = tuple(Window(*w) for w in value["windows"])
    return Entry(int(value["block"]), windows, dict(value["sums"]), str(value["checksum"]))


def checksum(sink: Sink, windows: Iterable[Window], sums: Mapping[str, Any]) -> str:
    """blake2b of what an unfinished file holds in these windows, and of the sums that belong to it."""
    assert sink.get is not None
    digest = blake2b(json.dumps(sums, sort_keys=True).encode(), digest_size=16)
    for w in windows:
        digest.update(np.ascontiguousarray(sink.get(w.name, w.plane, Region(w.y0, w.y1, w.x0, w.x1))).data)
    return digest.hexdigest()


def holds(sink: Sink, entry: Entry) -> bool:
    """Whether the unfinished file still has what the block wrote."""
    try:
        return checksum(sink, entry.windows, entry.sums) == entry.checksum
    except MemoryError:
        raise
    except Exception:  # too short, no such plane, or what a format's library says of a damaged piece
        return False


def union(found: Iterable[Found]) -> dict[int, Entry]:
    """The blocks of several journals."""
    return {number: entry for journal in found for number, entry in journal.entries.items()}
