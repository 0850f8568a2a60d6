"""What a journal promises holds for every format that is written window by window."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sciresdiff import io
from sciresdiff.errors import UsageError
from sciresdiff.frame import Frame
from sciresdiff.io.source import without_arrays
from sciresdiff.run import journal, locks
from sciresdiff.run.entries import read_journal
from sciresdiff.run.executor import process_blocks
from sciresdiff.run.shards import Shard

ENDS = ("fits", "fits.gz", "tif", "ome.tif")
HIGH, WIDE, SIDE = 64, 96, 32
PLACES = [(plane, y, x) for plane in (0, 1) for y in range(0, HIGH, SIDE) for x in range(0, WIDE, SIDE)]


def image(name: str) -> np.ndarray:
    rng = np.random.default_rng(len(name))
    return rng.normal(40000, 15000, (2, HIGH, WIDE)).astype(np.float32)


def a_frame() -> Frame:
    pixels = image("SCI")
    return Frame(pixels, np.zeros(pixels.shape, bool), "astro", shape=pixels.shape, axes="ZYX", unit="adu")


def run(target: Path, stop_at: int | None = None, shard: Shard | None = None, dtype: str = "f4") -> dict[str, Any]:
    """Write a frame in twelve blocks, with an error plane and draws."""
    frame, draws = a_frame(), np.stack([image("SCI")] * 3, 1)

    def make(part: Path | None) -> Any:
        planes = {"ERR": io.Plane(), "DRAWS": io.Plane(layers=3)}
        cards = {"SRDSCALE": 2, "SRDFLUX": 1.0}
        return io.open_sink(target, without_arrays(frame), planes=planes, provenance=cards, dtype=dtype, part=part)

    def results(numbers: Sequence[int]) -> Iterator[tuple[int, tuple[int, int, int]]]:
        for number in numbers:
            if number == stop_at:
                raise KeyboardInterrupt
            yield number, PLACES[number]

    def parts(place: tuple[int, int, int]) -> tuple[Any, dict[str, Any]]:
        plane, y, x = place
        window = (plane, ..., slice(y, y + SIDE), slice(x, x + SIDE))
        arrays = {"SCI": frame.pixels, "ERR": image("ERR"), "DRAWS": draws}
        return [(name, plane, y, x, array[window]) for name, array in arrays.items()], {}

    with journal.open_journal(target, make, len(PLACES), {"input": "one"}, shard=shard) as opened:
        sums = process_blocks(opened, results, parts)
        if sums is None:
            return {}
        report = opened.sink.finish({"SRDFLUX": 0.5})
        return {**report, "clipped": sum(s["clipped"] for s in sums) if opened.is_resumable else report["clipped"]}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("dtype", ["f4", "uint16"])
def test_a_run_that_was_stopped_twice_has_the_bytes_of_one_that_was_not(tmp_path: Path, end: str, dtype: str) -> None:
    told = run(tmp_path / "one" / f"x.{end}", dtype=dtype)
    target = tmp_path / "two" / f"x.{end}"
    for at in (4, 7):
        with pytest.raises(KeyboardInterrupt):
            run(target, at, dtype=dtype)
        assert not target.exists()
        kept = len(read_journal(locks.journal_path(target)).entries)
        if not kept:
            pytest.skip(f".{end} is written in one go, so that a run begins anew")
        assert kept == at
    again = run(target, dtype=dtype)
    assert contents(target.parent) == contents(tmp_path / "one")
    assert again["clipped"] == told["clipped"]
    assert (again["clipped"] > 0) == (dtype == "uint16")


@pytest.mark.parametrize("end", ENDS)
def test_shards_give_the_bytes_of_one_run(tmp_path: Path, end: str) -> None:
    run(tmp_path / "one" / f"x.{end}")
    target = tmp_path / "two" / f"x.{end}"
    try:
        assert [bool(run(target, shard=Shard(n, 3))) for n in (3, 1, 2)] == [False, False, True]
    except UsageError as problem:
        assert "is of a format that is written in one go" in str(problem)
        assert os.listdir(target.parent) == []
    else:
        assert contents(target.parent) == contents(tmp_path / "one")


@pytest.mark.parametrize("end", ["fits", "tif"])
def test_a_part_file_that_is_cut_or_of_another_header_is_begun_anew(tmp_path: Path, end: str) -> None:
    run(tmp_path / "one" / f"x.{end}")
    for size in (0, 1000, 30000):
        target = tmp_path / str(size) / f"x.{end}"
        with pytest.raises(KeyboardInterrupt):
            run(target, 6)
        if not locks.part_path(target).exists():
            pytest.skip(f".{end} is written in one go, so that a run begins anew")
        os.truncate(locks.part_path(target), size)
        run(target)
        assert contents(target.parent) == contents(tmp_path / "one")
