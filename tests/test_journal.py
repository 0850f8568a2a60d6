"""A run that was stopped goes on: what a journal believes, whom it keeps out, what it leaves behind."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sciresdiff.errors import UsageError
from sciresdiff.io.sink import Sink
from sciresdiff.jobs.identity import identify
from sciresdiff.region import Region
from sciresdiff.run import journal, locks, signals
from sciresdiff.run.checksums import checksums
from sciresdiff.run.engines import get_engine, run_serially, write_behind
from sciresdiff.run.entries import read_journal
from sciresdiff.run.executor import process_blocks
from sciresdiff.run.shards import Shard, parse_shard

BLOCKS, SIDE = 6, 8
KEY = {"version": "1", "input": "abc", "blocks": "6"}


def values(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=(SIDE, SIDE)).astype(np.float32)


@contextmanager
def raw_sink(target: Path, part: Path | None, room: int = 1 << 30) -> Iterator[Sink]:
    """Blocks one after the other in a plain file; ``room`` is how many bytes can be written."""
    place = part or target.with_name("temporary")
    size, left = SIDE * SIDE * 4, [room]
    descriptor = os.open(place, os.O_RDWR | os.O_CREAT)
    os.ftruncate(descriptor, BLOCKS * size)

    def put(name: str, plane: int, y0: int, x0: int, array: np.ndarray) -> int:
        left[0] -= array.nbytes
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))
        os.pwrite(descriptor, array.tobytes(), y0 // SIDE * size)
        return 1

    def get(name: str, plane: int, region: Region) -> np.ndarray:
        return np.frombuffer(os.pread(descriptor, size, region.y0 // SIDE * size), np.float32)

    def finish(cards: Mapping[str, object]) -> dict[str, Any]:
        os.replace(place, target)
        return {"clipped": 0, "files": [str(target)]}

    try:
        yield Sink(put, finish, get, lambda: os.fdatasync(descriptor))
    finally:
        os.close(descriptor)
        if part is None:
            place.unlink(missing_ok=True)


def run(
    target: Path,
    worked: list[int] | None = None,
    *,
    key: Mapping[str, str] = KEY,
    before: Callable[[int], None] = lambda number: None,
    room: int = 1 << 30,
    after: Callable[[], None] = lambda: None,
    last: Callable[[journal.Journal], None] = lambda opened: None,
    count: int = BLOCKS,
    **options: Any,
) -> tuple[list[Mapping[str, Any]] | None, tuple[str, ...]]:
    """A job of six blocks; ``before`` is called in front of each, ``last`` behind all, ``after`` when it is named."""

    def work(number: int, read: int) -> np.ndarray:
        before(number)
        if worked is not None:
            worked.append(number)
        return values(number)

    with journal.open_journal(target, lambda part: raw_sink(target, part, room), count, key, **options) as opened:
        sums = process_blocks(
            opened,
            lambda todo: run_serially(work, todo, lambda number: number),
            lambda array: ([("SCI", 0, SIDE * number_of(array), 0, array)], sums_of(array)),
        )
        if sums is not None:
            last(opened)
            opened.sink.finish({})
            after()
        return sums, opened.notes.lines


def sums_of(array: np.ndarray) -> dict[str, Any]:
    return {"total": float(array.sum()), "seen": str(number_of(array))}


def number_of(array: np.ndarray) -> int:
    return next(number for number in range(BLOCKS) if np.array_equal(values(number), array))


def stopping(at: int, problem: BaseException) -> Callable[[int], None]:
    def before(number: int) -> None:
        if number == at:
            raise problem

    return before


def stopped(target: Path, at: int, problem: BaseException | None = None, **options: Any) -> None:
    """A run that dies at a block, with its journal and part file left as a kill leaves them."""
    problem = problem or KeyboardInterrupt()
    with pytest.raises(type(problem)):
        run(target, before=stopping(at, problem), **options)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.raw"


@pytest.fixture
def whole() -> bytes:
    return b"".join(values(number).tobytes() for number in range(BLOCKS))


def test_a_run_leaves_nothing_beside_its_output(target: Path, whole: bytes) -> None:
    sums, said = run(target)
    assert target.read_bytes() == whole
    assert os.listdir(target.parent) == [target.name]
    assert said == ()
    assert sums is not None
    assert [s["total"] for s in sums] == [float(values(n).sum()) for n in range(BLOCKS)]
    assert [s["clipped"] for s in sums] == [1] * BLOCKS


@pytest.mark.parametrize("at", range(1, BLOCKS))
def test_what_is_done_is_not_done_again(target: Path, whole: bytes, at: int) -> None:
    uninterrupted, _ = run(target)
    target.unlink()
    stopped(target, at)
    assert not target.exists()
    worked: list[int] = []
    sums, said = run(target, worked)
    assert worked == list(range(at, BLOCKS))
    assert target.read_bytes() == whole
    assert sums == uninterrupted
    assert said == (f"resumed: {at} of {BLOCKS} blocks were done before",)


def test_a_problem_says_that_the_same_command_goes_on(target: Path) -> None:
    with pytest.raises(OSError, match="damaged") as found:
        run(target, before=stopping(2, OSError("damaged tile")))
    assert found.value.__notes__ == ["2 of 6 blocks of out.raw are kept; the same command goes on from there"]


def test_of_a_run_without_a_finished_block_nothing_is_left(target: Path) -> None:
    stopped(target, 0)
    assert os.listdir(target.parent) == []


def test_of_a_single_block_nothing_is_kept(target: Path) -> None:
    stopped(target, 0, count=1)
    assert os.listdir(target.parent) == []


@pytest.mark.parametrize("cut", [1, 5, 60, 10_000], ids=lambda cut: f"{cut} bytes lost")
def test_torn_lines_are_not_believed(target: Path, whole: bytes, cut: int) -> None:
    stopped(target, 4)
    path = locks.journal_path(target)
    size = path.stat().st_size
    os.truncate(path, max(size - cut, 0))
    worked: list[int] = []
    stopped(target, 5, worked=worked)
    stopped(target, 5, worked=worked)
    run(target, worked)
    assert worked[-1] == 5
    assert set(worked) >= {3, 4, 5}
    assert target.read_bytes() == whole


@pytest.mark.parametrize("line", [b"\0" * 40, b"{}", b'{"block": 3, "windows": [[1]], "sums": {}, "checksum": ""}'])
def test_nothing_behind_a_line_that_is_not_ours_is_believed(target: Path, line: bytes) -> None:
    stopped(target, 4)
    path = locks.journal_path(target)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:3], line, *lines[3:]]))
    assert sorted(read_journal(path).entries) == [0, 1]
    assert read_journal(path).size == len(b"\n".join(lines[:3])) + 1


def test_blocks_whose_bytes_are_not_there_are_done_again(target: Path, whole: bytes) -> None:
    stopped(target, 4)
    with locks.part_path(target).open("r+b") as part:
        part.seek(2 * SIDE * SIDE * 4 + 17)
        part.write(b"\xff")
    worked: list[int] = []
    run(target, worked)
    assert worked == [2, 4, 5]
    assert target.read_bytes() == whole


def test_sums_that_do_not_belong_to_their_block_are_not_believed(target: Path) -> None:
    stopped(target, 4)
    path = locks.journal_path(target)
    path.write_text(path.read_text().replace('"clipped": 1', '"clipped": 2', 1))
    worked: list[int] = []
    run(target, worked)
    assert worked == [0, 4, 5]


@pytest.mark.parametrize("gone", ["part", "journal"])
def test_one_file_without_the_other_begins_anew(target: Path, whole: bytes, gone: str) -> None:
    stopped(target, 4)
    (locks.part_path(target) if gone == "part" else locks.journal_path(target)).unlink()
    worked: list[int] = []
    run(target, worked)
    assert worked == list(range(BLOCKS))
    assert target.read_bytes() == whole


def test_a_run_stopped_between_the_file_and_its_record_goes_on(target: Path, whole: bytes) -> None:
    def no_record() -> None:
        raise OSError(errno.ENOSPC, "no room for the record")

    with pytest.raises(OSError, match="no room"):
        run(target, after=no_record)
    assert not target.exists(), "an image without its record is half an output"
    worked: list[int] = []
    run(target, worked)
    assert worked == []
    assert target.read_bytes() == whole


def test_a_kill_between_the_file_and_its_record_is_gone_on_with(target: Path, whole: bytes) -> None:
    stopped(target, 5)
    kept = locks.journal_path(target).read_bytes()
    last: list[bytes] = []
    run(target, after=lambda: last.append(locks.journal_path(target).read_bytes()))
    locks.journal_path(target).write_bytes(last[0])
    assert len(last[0]) > len(kept)
    worked: list[int] = []
    run(target, worked)
    assert worked == []
    assert target.read_bytes() == whole
    assert os.listdir(target.parent) == [target.name]


def test_another_jobs_journal_is_refused_and_replaced_on_demand(target: Path, whole: bytes) -> None:
    stopped(target, 3)
    other = {**KEY, "--samples": "4"}
    with pytest.raises(UsageError, match=r"^--output: .*begun by another job \(not the same: --samples\).*--overwrite"):
        run(target, key=other)
    assert len(read_journal(locks.journal_path(target)).entries) == 3, "a refusal changes nothing"
    worked: list[int] = []
    run(target, worked, key=other, overwrite=True)
    assert worked == list(range(BLOCKS))
    assert target.read_bytes() == whole


def test_a_mended_input_is_gone_on_with_where_it_is_the_same(target: Path, whole: bytes) -> None:
    stopped(target, 4)
    path = locks.journal_path(target)
    path.write_text(path.read_text().replace('"abc"', '"damaged"'))
    with pytest.raises(UsageError, match="not the same: input"):
        run(target)
    with pytest.raises(UsageError, match="not the same: --samples, input"):
        run(target, key={**KEY, "--samples": "4"}, digest=str)
    worked: list[int] = []
    stopped(target, 4, worked=worked, digest=lambda number: "another" if number == 1 else str(number))
    run(target, worked)
    assert worked == [1, 4, 5], "the journal is now that of the mended input"
    assert target.read_bytes() == whole


def test_of_several_inputs_a_mended_one_is_gone_on_with(target: Path, whole: bytes) -> None:
    key = {"version": "1", "input 0": "abc", "input 1": "def", "blocks": "6"}
    stopped(target, 4, key=key)
    path = locks.journal_path(target)
    path.write_text(path.read_text().replace('"def"', '"damaged"'))
    journal.refuse_other_jobs(target, {name: key[name] for name in ("version", "input 0", "input 1")})
    with pytest.raises(UsageError, match="not the same: --samples, input 1"):
        journal.refuse_other_jobs(target, {**key, "--samples": "4"})
    with pytest.raises(UsageError, match="not the same: input 1"):
        run(target, key=key)
    worked: list[int] = []
    run(target, worked, key=key, digest=lambda number: "another" if number == 1 else str(number))
    assert worked == [1, 4, 5]
    assert target.read_bytes() == whole


def test_another_versions_journal_is_refused(target: Path) -> None:
    stopped(target, 3)
    path = locks.journal_path(target)
    path.write_text(path.read_text().replace('"journal": 1', '"journal": 99', 1))
    with pytest.raises(UsageError, match="begun by another version of sciresdiff"):
        run(target)


def test_the_same_command_with_overwrite_goes_on(target: Path, whole: bytes) -> None:
    target.write_text("old")
    stopped(target, 3, overwrite=True)
    assert target.read_text() == "old"
    with pytest.raises(UsageError, match="exists"):
        run(target)
    worked: list[int] = []
    run(target, worked, overwrite=True)
    assert worked == [3, 4, 5]
    assert target.read_bytes() == whole


def test_another_machine_goes_on_and_says_so(target: Path) -> None:
    stopped(target, 3, here={"torch": "2.0", "threads": "1"})
    _, said = run(target, here={"torch": "2.1", "threads": "1"})
    assert said[1].startswith("WARNING resumed: blocks were done with torch 2.0;")


def test_a_second_process_is_kept_out(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LOOK_S", 0)
    monkeypatch.setattr(locks.lock_file, "__defaults__", (0.0, False))

    def before(number: int) -> None:
        if number == 2:
            with pytest.raises(UsageError, match="is being written by another process"):
                run(target)
            with pytest.raises(UsageError, match="is being written by another process"):
                run(target, shard=Shard(1, 2))

    run(target, before=before)


def test_a_full_disk_leaves_what_is_done(target: Path, whole: bytes) -> None:
    block = SIDE * SIDE * 4
    for full in range(1, BLOCKS):
        with pytest.raises(OSError, match="No space left"):
            run(target, room=block + 5)
        assert not target.exists()
        assert sorted(read_journal(locks.journal_path(target)).entries) == list(range(full))
    run(target)
    assert target.read_bytes() == whole


def test_a_journal_that_cannot_be_written_is_gone_on_with(
    target: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = [700]
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        if len(data) > room[0]:
            if not room[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            data = data[: room[0]]
        room[0] -= len(data)
        return real(descriptor, data)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(locks.os, "write", write)
        run(target)
    assert 0 < len(read_journal(locks.journal_path(target)).entries) < BLOCKS
    run(target)
    assert target.read_bytes() == whole


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"^--output: .* cannot be written"):
        run(tmp_path / "file" / "out.raw")


def test_a_read_only_place_is_one_clear_line(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(path: Any, flags: int, *mode: int) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(locks.os, "open", opened)
    with pytest.raises(UsageError, match=r"^--output: .* cannot be written \(Read-only file system\)"):
        run(target)


# Shards


def test_shards_cover_every_block_once_and_the_last_finishes(target: Path, whole: bytes) -> None:
    worked: dict[int, list[int]] = {number: [] for number in (1, 2, 3)}
    for number in (2, 3):
        sums, said = run(target, worked[number], shard=Shard(number, 3))
        assert sums is None
        assert said == (f"shard {number}/3: its blocks are done; the shard that comes last finishes the file",)
        assert not target.exists()
    sums, _ = run(target, worked[1], shard=Shard(1, 3))
    assert worked == {1: [0, 3], 2: [1, 4], 3: [2, 5]}
    assert sums is not None
    assert len(sums) == BLOCKS
    assert target.read_bytes() == whole
    assert os.listdir(target.parent) == [target.name]


def test_a_shard_that_died_is_started_again(target: Path, whole: bytes) -> None:
    stopped(target, 2, shard=Shard(1, 2))
    run(target, shard=Shard(2, 2))
    worked: list[int] = []
    run(target, worked, shard=Shard(1, 2))
    assert worked == [2, 4]
    assert target.read_bytes() == whole


def test_a_run_without_shards_takes_up_what_they_did(target: Path, whole: bytes) -> None:
    run(target, shard=Shard(2, 2))
    worked: list[int] = []
    run(target, worked)
    assert worked == [0, 2, 4]
    assert target.read_bytes() == whole


def test_the_last_shard_does_again_what_another_ones_disk_lost(target: Path, whole: bytes) -> None:
    run(target, shard=Shard(2, 2))
    with locks.part_path(target).open("r+b") as part:
        part.seek(SIDE * SIDE * 4)
        part.write(b"\xff")
    worked: list[int] = []
    run(target, worked, shard=Shard(1, 2))
    assert worked == [0, 2, 4, 1]
    assert target.read_bytes() == whole


def test_shards_at_work_let_each_other_be(target: Path, whole: bytes) -> None:
    finished: list[bool] = []

    def before(number: int) -> None:
        if number == 2:
            finished.append(run(target, shard=Shard(2, 2))[0] is not None)

    sums, _ = run(target, before=before, shard=Shard(1, 2))
    assert finished == [False]
    assert sums is not None
    assert target.read_bytes() == whole


def test_a_shard_that_fails_at_once_takes_nothing_from_the_others(target: Path, whole: bytes) -> None:
    run(target, shard=Shard(1, 2))
    stopped(target, 1, shard=Shard(2, 2))
    worked: list[int] = []
    run(target, worked, shard=Shard(2, 2))
    assert worked == [1, 3, 5]
    assert target.read_bytes() == whole


def test_the_last_shard_believes_its_own_blocks_no_more_than_those_of_others(target: Path, whole: bytes) -> None:
    run(target, shard=Shard(2, 2))
    worked: list[int] = []

    def before(number: int) -> None:
        if worked == [0, 2]:
            with locks.part_path(target).open("r+b") as part:
                part.write(b"\xff")  # in block 0

    run(target, worked, before=before, shard=Shard(1, 2))
    assert worked == [0, 2, 4, 0]
    assert target.read_bytes() == whole


def test_a_shard_that_fails_while_another_begins_or_ends_touches_nothing(target: Path) -> None:
    run(target, shard=Shard(1, 2))
    turns: list[int] = []

    def before(number: int) -> None:
        if number == 3:
            turns.append(locks.lock_file(locks.turn_path(target)))
            raise OSError(errno.EIO, "bad disk")

    with pytest.raises(OSError, match="bad disk") as caught:
        run(target, before=before, shard=Shard(2, 2))
    assert "is left to the other shards" in caught.value.__notes__[0]
    assert locks.part_path(target).exists()
    assert len(locks.find_journals(target)) == 2
    os.close(turns[0])


def test_what_is_changed_at_the_end_is_believed_again(target: Path) -> None:
    def change(opened: journal.Journal) -> None:
        opened.sink.put("SCI", 0, SIDE, 0, np.zeros((SIDE, SIDE), np.float32))
        opened.update_checksums([1])

    worked: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        run(target, last=change, after=stopping_at_once)
    run(target, worked)
    assert worked == []


def stopping_at_once() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/4", "1.5/4", ""])
def test_shards_outside_1_to_n(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--shard: .* is given, but i/n with i from 1 to n"):
        parse_shard(text)


def test_every_item_is_in_one_shard() -> None:
    for of in (1, 2, 3, 7, 20):
        shares = [Shard(number, of).share(range(10)) for number in range(1, of + 1)]
        assert sorted(item for share in shares for item in share) == list(range(10))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


# What a job is


@dataclass(frozen=True)
class Options:
    samples: int = 8
    psf: str | None = None
    threads: int | None = None
    overwrite: bool = False


def test_a_job_is_its_content_and_its_options(tmp_path: Path) -> None:
    low, psf = tmp_path / "low.fits", tmp_path / "psf.fits"
    low.write_bytes(b"one")
    psf.write_bytes(b"psf")
    first = identify(low, Options())
    assert first == identify(low, Options(threads=4, overwrite=True)), "what does not change the bytes"
    assert first != identify(low, Options(samples=4))
    given = identify(low, Options(psf=str(psf)))
    psf.write_bytes(b"another")
    assert given != identify(low, Options(psf=str(psf))), "a file that an option names"
    low.write_bytes(b"other")
    assert first != identify(low, Options())
    assert set(identify(low, Options(psf="gaussian:fwhm=2px"), [psf])) == {"version", "input", "model", "--psf"}
    assert list(checksums([low])) == ["low.fits"]


# Stopping, and what is done behind the work


def test_a_stop_waits_for_the_block_in_hand_and_a_second_one_does_not(target: Path) -> None:
    asked: list[bool] = []

    def before(number: int) -> None:
        if number == 2:
            asked.append(signals.request_stop(KeyboardInterrupt()))

    with pytest.raises(KeyboardInterrupt):
        run(target, before=before)
    assert asked == [True]
    assert sorted(read_journal(locks.journal_path(target)).entries) == [0, 1, 2]

    def twice(number: int) -> None:
        signals.request_stop(KeyboardInterrupt())
        signals.request_stop(InterruptedError())

    with pytest.raises(InterruptedError):
        run(target, before=twice)
    assert sorted(read_journal(locks.journal_path(target)).entries) == [0, 1, 2]
    run(target)


def test_a_stop_waits_until_the_file_is_finished(target: Path, whole: bytes) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(target, after=lambda: signals.request_stop(KeyboardInterrupt()) and None)
    assert target.read_bytes() == whole
    assert os.listdir(target.parent) == [target.name]


def test_a_stop_outside_of_blocks_is_at_once() -> None:
    with pytest.raises(KeyboardInterrupt):
        signals.request_stop(KeyboardInterrupt())
    signals.raise_if_stopped()


def test_what_is_done_behind_is_in_order_and_its_failure_is_told() -> None:
    seen: list[int] = []
    with write_behind() as later:
        for number in range(5):
            later(seen.append, number)
    assert seen == list(range(5))
    with pytest.raises(ZeroDivisionError), write_behind() as later:
        later(lambda: 1 / 0)
    assert [item for item, _ in run_serially(lambda item, read: item, [], lambda item: item)] == []


def test_an_engine_that_is_not_there() -> None:
    assert get_engine("serial") is run_serially
    with pytest.raises(UsageError, match="--scheduler: loom is given"):
        get_engine("loom")


def test_a_journals_lines_are_json(target: Path) -> None:
    stopped(target, 2)
    lines = [json.loads(line) for line in locks.journal_path(target).read_text().splitlines()]
    assert lines[0]["key"] == KEY
    assert [line["block"] for line in lines[1:]] == [0, 1]
    assert lines[1]["windows"] == [["SCI", 0, 0, SIDE, 0, SIDE]]
