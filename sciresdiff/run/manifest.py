"""The manifest of a batch: a JSON line for each file, written when the file is done."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sciresdiff.errors import UsageError
from sciresdiff.files import open_plain, read_plain
from sciresdiff.parse import parse_json
from sciresdiff.run.batch import Task, as_error, exit_code, reason
from sciresdiff.run.checksums import checksums, is_current
from sciresdiff.run.locks import find_journals, is_locked, remove_leftovers
from sciresdiff.text import json_line

Identify = Callable[[Path], Mapping[str, str]]
"""Input -> everything that its output depends on."""


def read_manifest(path: Path | None) -> list[dict[str, Any]]:
    """The records of a manifest, without lines that are torn; none where there is no file.

    Raises
    ------
    UsageError
        It cannot be read.
    """
    try:
        lines = read_plain(path).splitlines() if path else []
    except OSError as problem:
        raise UsageError(f"--manifest: {path}: {problem.strerror}; give another name") from problem
    return [record for line in lines if (record := _parse(line))]


def _parse(line: bytes | str) -> dict[str, Any]:
    """A record; empty where the line holds none."""
    try:
        record = parse_json(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def completion_check(identify: Identify, manifest: Path | None) -> Callable[[Task], bool]:
    """A function that tells whether a task's output is complete, and the one that the task would write.

    The record beside the output says so, or a line of the manifest.

    Parameters
    ----------
    identify : callable
        Input -> everything that its output depends on.
    manifest : Path or None
        The manifest of earlier runs.
    """
    listed = {record.get("output"): record for record in read_manifest(manifest) if record.get("checksums")}

    def is_done(task: Task) -> bool:
        assert task.target
        identity = identify(task.source)
        sidecar = task.target.with_name(task.target.name + ".json")
        beside = _parse(sidecar.read_text(errors="replace")) if sidecar.is_file() else {}
        found = any(is_current(r, task.target, identity) for r in (beside, listed.get(str(task.target), {})))
        if found:
            remove_stale_journal(task.target)
        return found

    return is_done


def remove_stale_journal(target: Path) -> None:
    """Remove the journal of a run that was killed when its output was complete."""
    if not any(map(is_locked, find_journals(target))):
        remove_leftovers(target)


@dataclass
class Manifest:
    """A manifest that is being written; without a path nothing is."""

    descriptor: int | None
    path: Path | None
    identify: Identify
    began: float = 0.0
    """When the current task began, seconds of `time.monotonic`."""

    def start_task(self) -> None:
        """Note the time at which a task begins."""
        self.began = time.monotonic()

    def add_done(self, task: Task, record: Mapping[str, Any]) -> None:
        """Add the line of a task that is done, or of a shard that waits for others.

        Parameters
        ----------
        task : Task
            The task.
        record : mapping
            Its record; ``checksums``, ``identity`` and ``seconds`` are determined here where it has none.
        """
        if self.descriptor is None or task.target is None:
            return
        if record.get("status") == "waiting":  # a file of the output's name may be an older output: not described
            self._add(task, "waiting", seconds=round(time.monotonic() - self.began, 3))
            return
        cards = record.get("provenance", {})
        sums = record.get("checksums") or checksums([task.target] if task.target.exists() else [])
        identity = record.get("identity") or self.identify(task.source)
        facts = {"model": record.get("model"), "hash": cards.get("SRDHASH"), "checksums": sums, "identity": identity}
        seconds = record.get("seconds", round(time.monotonic() - self.began, 3))  # a worker measures its own
        self._add(task, "done", seconds=seconds, **facts)

    def add_failed(self, task: Task, problem: Exception) -> None:
        """Add the line of a task that failed."""
        self._add(task, "failed", error=reason(as_error(problem) or problem), exit_code=exit_code(problem))

    def add_skipped(self, task: Task) -> None:
        """Add the line of a task whose output was complete before."""
        self._add(task, "skipped")

    def _add(self, task: Task, status: str, **facts: Any) -> None:
        """Add a line in one write, so that lines of several processes do not mix."""
        if self.descriptor is None:
            return
        record = {"input": str(task.source), "output": str(task.target), "status": status, "exit_code": 0, **facts}
        line = json_line(record).encode() + b"\n"
        if os.write(self.descriptor, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))


@contextmanager
def open_manifest(path: Path | None, identify: Identify) -> Iterator[Manifest]:
    """Open a manifest to add lines; several processes may do so at once.

    Parameters
    ----------
    path : Path or None
        The file; without one nothing is written.
    identify : callable
        Input -> everything that its output depends on.

    Raises
    ------
    UsageError
        It cannot be written.
    """
    if path is None:
        yield Manifest(None, None, identify)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = open_plain(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    except OSError as problem:
        raise UsageError(f"--manifest: {path} cannot be written ({problem.strerror}); give another name") from problem
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":  # the line that a killed run tore
            os.write(descriptor, b"\n")
        yield Manifest(descriptor, path, identify)
    finally:
        os.close(descriptor)
