"""One executor for every job: what it computes depends neither on the engine, nor on shards and interruptions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sciresdiff.errors import InputError, UsageError
from sciresdiff.io.sink import Sink
from sciresdiff.region import Region
from sciresdiff.run import dask, executor, locks, signals
from sciresdiff.run.journal import Journal
from sciresdiff.run.shards import Shard

PIECES = 7
LOCAL = "local:1"


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Nothing is left of the workers."""
    yield
    if dask.connect.cache_info().currsize:
        client = dask.connect(LOCAL)
        cluster = client.cluster
        client.close()
        cluster.close()
        dask.connect.cache_clear()


def read(piece: int) -> np.ndarray:
    return np.arange(piece, piece + 8, dtype=np.float64)


def square(piece: int, seen: np.ndarray) -> np.ndarray:
    return seen**2 + 1 / (piece + 3)


def counted(worked: list[int], piece: int, seen: np.ndarray) -> np.ndarray:
    worked.append(piece)
    return square(piece, seen)


def failing(at: int, problem: BaseException, piece: int, seen: np.ndarray) -> np.ndarray:
    if piece == at:
        raise problem
    return square(piece, seen)


@dataclass
class Output:
    """Rows of a plain file, or a record alone."""

    target: Path
    first: np.ndarray | None = None
    finished: list[Any] = field(default_factory=list)

    @contextmanager
    def open(self, part: Path | None) -> Iterator[Sink]:
        place = part or self.target.with_name("temporary")
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT)
        os.ftruncate(descriptor, PIECES * 64)

        def put(name: str, plane: int, y0: int, x0: int, row: np.ndarray) -> int:
            os.pwrite(descriptor, row.tobytes(), 64 * y0)
            return 0

        def get(name: str, plane: int, region: Region) -> np.ndarray:
            return np.frombuffer(os.pread(descriptor, 64, 64 * region.y0))

        try:
            yield Sink(put, lambda cards: {"file": str(os.replace(place, self.target))}, get)
        finally:
            os.close(descriptor)
            if part is None:
                place.unlink(missing_ok=True)

    def split(self, row: np.ndarray) -> tuple[list[Any], Mapping[str, Any]]:
        number = next(n for n in range(PIECES) if np.array_equal(square(n, read(n)), row))
        return [("row", 0, number, 0, row[None])], {"mean": row.mean(), "nothing": float("nan")}

    def finish(self, journal: Journal, sums: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        if journal.sink is not None:
            journal.sink.finish({})
        return {"means": [one["mean"] for one in sums], "said": list(journal.notes)}


class RecordOnly(Output):
    """The same without a file."""

    def split(self, row: np.ndarray) -> tuple[list[Any], Mapping[str, Any]]:
        return [], super().split(row)[1]


@pytest.fixture(params=[True, False], ids=["a file", "a record alone"])
def job(tmp_path: Path, request: pytest.FixtureRequest) -> executor.Job:
    """A job of seven pieces."""
    target = tmp_path / ("out.raw" if request.param else "in.raw.evaluate")
    return executor.Job(
        source=str(tmp_path / "in.raw"),
        target=target,
        pieces=range(PIECES),
        read=read,
        do=square,
        output=partial(Output if request.param else RecordOnly, target),
        writes=request.param,
        identity={"input": "one"},
        identify=lambda: {"input": "one"},
        plan={"pieces": str(PIECES)},
    )


def whole(job: executor.Job) -> bytes:
    """The file that is wanted; none of a record alone."""
    return b"".join(square(n, read(n)).tobytes() for n in range(PIECES)) if job.writes else b""


def written(job: executor.Job) -> bytes:
    """The file that is there, and nothing beside it."""
    assert sorted(os.listdir(job.target.parent)) == ([job.target.name] if job.writes else [])
    return job.target.read_bytes() if job.writes else b""


MEANS = [float(square(n, read(n)).mean()) for n in range(PIECES)]


def stopped(job: executor.Job, at: int, **more: Any) -> list[str]:
    """Run until a piece fails; what the problem says is kept."""
    with pytest.raises(OSError, match="bad disk") as found:
        executor.execute(replace(job, do=partial(failing, at, OSError("bad disk"))), **more)
    return getattr(found.value, "__notes__", [])


def test_all_pieces_are_done(job: executor.Job) -> None:
    told: list[tuple[int, int, str]] = []
    record = executor.execute(job, lambda *step: told.append(step))
    assert record == {"means": MEANS, "said": []}
    assert written(job) == whole(job)
    assert told == [(n, PIECES, "blocks") for n in range(1, PIECES + 1)]


@pytest.mark.parametrize("at", [1, 4, 6])
def test_a_run_that_was_stopped_is_resumed(job: executor.Job, at: int) -> None:
    name = job.target.name if job.writes else "in.raw"
    assert stopped(job, at) == [f"{at} of 7 blocks of {name} are kept; the same command goes on from there"]
    worked: list[int] = []
    record = executor.execute(replace(job, do=partial(counted, worked)))
    assert worked == list(range(at, PIECES))
    assert record == {"means": MEANS, "said": [f"resumed: {at} of 7 blocks were done before"]}
    assert written(job) == whole(job)


def test_shards_share_the_pieces_and_the_last_has_the_record(job: executor.Job) -> None:
    worked: list[int] = []
    found = [executor.execute(replace(job, do=partial(counted, worked)), shard=Shard(n, 3)) for n in (3, 1, 2)]
    assert [one.get("status") for one in found] == ["waiting", "waiting", None]
    then = "finishes the file" if job.writes else "has the record"
    assert found[0]["said"] == [f"shard 3/3: its blocks are done; the shard that comes last {then}"]
    assert found[2]["means"] == MEANS
    assert sorted(worked) == list(range(PIECES))
    assert written(job) == whole(job)


def test_a_shard_without_pieces_waits(job: executor.Job) -> None:
    record = executor.execute(replace(job, pieces=[0]), shard=Shard(2, 2))
    assert (record["status"], record["said"]) == ("waiting", ["shard 2/2: no block is left for it (of 1 in all)"])
    assert os.listdir(job.target.parent) == []


def test_a_run_without_shards_takes_up_what_a_shard_did(job: executor.Job) -> None:
    executor.execute(job, shard=Shard(2, 2))
    worked: list[int] = []
    assert executor.execute(replace(job, do=partial(counted, worked)))["means"] == MEANS
    assert worked == [0, 2, 4, 6]
    assert written(job) == whole(job)


def test_another_engine_gives_the_same(job: executor.Job) -> None:
    pytest.importorskip("distributed", reason="needs Dask: pip install 'sciresdiff[dask]'")
    stopped(job, 2)  # a serial run begins, and workers go on
    assert executor.execute(job, scheduler=LOCAL)["means"] == MEANS
    assert written(job) == whole(job)


def test_an_input_that_changed_is_refused(job: executor.Job) -> None:
    with pytest.raises(InputError, match=r"in\.raw: changed while it was read \(input\); give the same command again"):
        executor.execute(replace(job, identify=lambda: {"input": "another"}))
    assert not job.target.exists()


def test_another_job_is_refused_or_replaced(job: executor.Job) -> None:
    stopped(job, 3)
    other = replace(job, plan={"pieces": "others"})
    with pytest.raises(UsageError, match=r"was begun by another job \(not the same: pieces\)"):
        executor.execute(other)
    worked: list[int] = []
    executor.execute(replace(other, overwrite=True, do=partial(counted, worked)))
    assert worked == list(range(PIECES))
    assert written(job) == whole(job)


def test_the_first_piece_is_done_once_where_the_output_needs_it(job: executor.Job) -> None:
    firsts: list[Any] = []
    worked: list[int] = []

    def output(first: Any) -> Output:
        firsts.append(first)
        return job.output(first)

    record = executor.execute(replace(job, needs_first=True, output=output, do=partial(counted, worked)))
    assert np.array_equal(firsts[0], square(0, read(0)))
    assert worked == list(range(PIECES))
    assert record["means"] == MEANS


def test_a_stop_waits_for_the_piece_in_hand(job: executor.Job) -> None:
    worked: list[int] = []

    def stopping(piece: int, seen: np.ndarray) -> np.ndarray:
        if piece == 2:
            signals.request_stop(KeyboardInterrupt())
        return counted(worked, piece, seen)

    with pytest.raises(KeyboardInterrupt):
        executor.execute(replace(job, do=stopping))
    assert executor.execute(replace(job, do=partial(counted, worked)))["means"] == MEANS
    assert worked == list(range(PIECES))


def test_progress_goes_on_from_what_was_done(job: executor.Job) -> None:
    stopped(job, 5)
    told: list[int] = []
    executor.execute(job, lambda done, total, label: told.append(done))
    assert told == [6, 7]


# A record alone


@pytest.fixture
def record_job(tmp_path: Path) -> executor.Job:
    """A job that writes nothing but its journal."""
    target = tmp_path / "in.raw.evaluate"
    return executor.Job(
        str(tmp_path / "in.raw"), target, range(PIECES), read, square, partial(RecordOnly, target), writes=False
    )


def test_a_file_that_is_called_as_the_journal_is_left_alone(record_job: executor.Job) -> None:
    record_job.target.write_text("mine")
    with pytest.raises(OSError, match="bad disk"):
        executor.execute(replace(record_job, do=partial(failing, 6, OSError("bad disk"))))
    executor.execute(record_job)
    assert record_job.target.read_text() == "mine"
    assert os.listdir(record_job.target.parent) == [record_job.target.name]


def test_where_no_journal_can_be_kept_the_work_is_done_without(
    record_job: executor.Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks.os, "access", lambda path, mode: False)
    record = executor.execute(record_job)
    assert record["means"] == MEANS
    assert record["said"][0].startswith("journal: none is kept;")


def test_a_second_process_works_without_a_journal(record_job: executor.Job, monkeypatch: pytest.MonkeyPatch) -> None:
    inner: list[dict[str, Any]] = []

    def nested(piece: int, seen: np.ndarray) -> np.ndarray:
        if piece == 3:
            inner.append(executor.execute(record_job))
        return square(piece, seen)

    assert executor.execute(replace(record_job, do=nested))["means"] == MEANS
    assert inner[0]["means"] == MEANS and "journal: none is kept" in inner[0]["said"][0]
