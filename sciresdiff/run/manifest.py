"""What a batch did, a JSON line a file, written when the file is done."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sciresdiff.errors import UsageError
from sciresdiff.io.jsonable import dumps
from sciresdiff.run.batch import Task, as_error, exit_code, reason
from sciresdiff.run.identity import checksums, known_by, stands
from sciresdiff.run.locks import beside, busy, clear


def read(path: Path | None) -> list[dict[str, Any]]:
    """The records of a manifest; lines that are torn are left out.

    Raises
    ------
    UsageError
        It cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines() if path and path.exists() else []
    except OSError as problem:
        raise UsageError(f"--manifest: {path}: {problem.strerror}; give another name") from problem
    return [record for line in lines if (record := _record(line))]


def _record(line: bytes | str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def standing(options: Any, manifest: Path | None) -> Callable[[Task], bool]:
    """A function that tells whether a task's output is whole and what the task would write.

    The record beside the output says so, or a line of the manifest.
    """
    listed = {record.get("output"): record for record in read(manifest) if record.get("checksums")}

    def check(task: Task) -> bool:
        assert task.target
        known = known_by(task.source, options)
        sidecar = task.target.with_name(task.target.name + ".json")
        records = [_record(sidecar.read_text(errors="replace")) if sidecar.is_file() else {}]
        if found := any(stands(r, task.target, known) for r in [*records, listed.get(str(task.target), {})]):
            leftover(task.target)
        return found

    return check


def leftover(target: Path) -> None:
    """Take away the journal of a run that was killed when its output was complete."""
    if not any(map(busy, beside(target))):
        clear(target)


@dataclass
class Manifest:
    """A manifest that is being written; without a path nothing is."""

    descriptor: int | None
    path: Path | None
    options: Any
    began: float = 0.0

    def start(self) -> None:
        """A task begins."""
        self.began = time.monotonic()

    def done(self, task: Task, record: Mapping[str, Any]) -> None:
        """A task is done."""
        if self.descriptor is None or task.target is None:
            return
        if record.get("status") == "waiting":  # for other shards; what lies there may be an older output
            self._add(task, "waiting", seconds=round(time.monotonic() - self.began, 3))
            return
        cards = record.get("provenance", {})
        sums = record.get("checksums") or checksums([task.target] if task.target.exists() else [])
        known = record.get("identity") or known_by(task.source, self.options)
        facts = {"model": record.get("model"), "hash": cards.get("SRDHASH"), "checksums": sums, "identity": known}
        seconds = record.get("seconds", round(time.monotonic() - self.began, 3))  # those of the worker that did it
        self._add(task, "done", seconds=seconds, **facts)

    def failed(self, task: Task, problem: Exception) -> None:
        """A task failed."""
        self._add(task, "failed", error=reason(as_error(problem) or problem), exit_code=exit_code(problem))

    def skipped(self, task: Task) -> None:
        """A task's output was there."""
        self._add(task, "skipped")

    def _add(self, task: Task, status: str, **facts: Any) -> None:
        """One write, so that lines of several processes do not mix."""
        if self.descriptor is None:
            return
        record = {"input": str(task.source), "output": str(task.target), "status": status, "exit_code": 0, **facts}
        line = dumps(record).encode() + b"\n"
        if os.write(self.descriptor, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))


@contextmanager
def opened(path: Path | None, options: Any) -> Iterator[Manifest]:
    """A manifest to add to; several processes may do so at once.

    Raises
    ------
    UsageError
        It cannot be written where it is wanted.
    """
    if path is None:
        yield Manifest(None, None, options)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as problem:
        raise UsageError(f"--manifest: {path} cannot be written ({problem.strerror}); give another name") from problem
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":  # the line that a killed run tore
            os.write(descriptor, b"\n")
        yield Manifest(descriptor, path, options)
    finally:
        os.close(descriptor)
