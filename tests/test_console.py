"""What the program says: JSON that is JSON, progress that does not flood a log."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from sciresdiff.cli import console
from sciresdiff.cli.console import Console, ProgressLines
from sciresdiff.io.jsonable import jsonable


@dataclass(frozen=True)
class Record:
    """Something with all kinds of values."""

    path: Path
    array: np.ndarray
    number: float


def test_records_are_plain_json_without_nan(capsys: pytest.CaptureFixture[str]) -> None:
    Console(json=True).record(Record(Path("a.fits"), np.array([[1, 2]], "i4"), float("inf")))
    said = capsys.readouterr()
    assert json.loads(said.out) == {"path": "a.fits", "array": [[1, 2]], "number": None}
    assert said.err == ""


def test_numpy_numbers_become_numbers() -> None:
    assert jsonable({"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True), "d": np.float64("nan")}) == {
        "a": 0.5,
        "b": 3,
        "c": True,
        "d": None,
    }


def test_progress_off_a_terminal_is_one_line_at_intervals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    tick = ProgressLines(last=0.0)
    for second in range(35):
        clock[0] = float(second)
        tick(second, 35, "draws")
    assert capsys.readouterr().err.splitlines() == [f"draws: {n} of 35" for n in (10, 20, 30)]


def test_lines_keep_brackets_colons_and_length(capsys: pytest.CaptureFixture[str]) -> None:
    line = "psf: [EXT] of a.fits :star: " + "x" * 300
    Console().info(line)
    Console(quiet=True).info("not this")
    Console(quiet=True).error("two\nlines")
    assert capsys.readouterr().err == f"{line}\nsciresdiff: two lines\n"
