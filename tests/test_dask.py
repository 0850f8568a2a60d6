"""The engine of many machines does what the serial one does, and survives the loss of a worker."""

from __future__ import annotations

import os
import signal
import socket
from functools import partial
from pathlib import Path

import pytest

from sciresdiff.errors import InputError, ResourceError, UsageError
from sciresdiff.jobs import dask, stop
from sciresdiff.jobs.engine import engine

pytest.importorskip("distributed", reason="needs Dask: pip install 'sciresdiff[dask]'")
LOCAL = "local:2"


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Two workers for all tests, and nothing left of them."""
    yield
    client = dask.connected(LOCAL)
    cluster = client.cluster
    client.close()
    cluster.close()
    dask.connected.cache_clear()


def square(item: int, seen: int) -> tuple[int, int]:
    return item * seen, os.getpid()


def double(item: int) -> int:
    return 2 * item


def falls(folder: Path, item: int, seen: int) -> tuple[int, int]:
    """As `square`; the first that does number 5 is killed."""
    mark = folder / "killed"
    if item == 5 and not mark.exists():
        mark.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    return square(item, seen)


def refuses(item: int, seen: int) -> None:
    raise InputError(f"file{item}.fits: is damaged")


def threads(item: int, seen: int) -> tuple[int, str]:
    import torch

    return torch.get_num_threads(), os.getcwd()


def test_every_item_is_done_once_by_several_workers() -> None:
    found = list(engine(LOCAL)(square, range(20), double))
    assert sorted((item, value) for item, (value, _) in found) == [(n, 2 * n * n) for n in range(20)]
    assert {pid for _, (_, pid) in found} != {os.getpid()}


def test_what_a_lost_worker_had_in_hand_is_done_again(tmp_path: Path) -> None:
    found = list(engine(LOCAL)(partial(falls, tmp_path), range(12), double))
    assert sorted((item, value) for item, (value, _) in found) == [(n, 2 * n * n) for n in range(12)]
    assert int((tmp_path / "killed").read_text()) not in {pid for item, (_, pid) in found if item == 5}


def test_a_problem_of_a_piece_comes_out_as_it_is() -> None:
    with pytest.raises(InputError, match=r"file\d.fits: is damaged"):
        list(engine(LOCAL)(refuses, range(4), double))


def test_workers_take_the_threads_and_the_folder_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [found for _, found in engine(LOCAL)(threads, range(1), double, threads=3)] == [(3, str(tmp_path))]


def test_a_folder_that_workers_do_not_reach_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getcwd", lambda: str(tmp_path / "elsewhere"))
    with pytest.raises(InputError, match="elsewhere: a worker does not reach this folder"):
        list(engine(LOCAL)(square, range(1), double))


def test_workers_of_another_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask, "__version__", "0.0")
    with pytest.raises(UsageError, match="a worker has sciresdiff .*, and this is 0.0; install the same"):
        list(engine(LOCAL)(square, range(1), double))


def test_a_signal_is_heeded_while_workers_work() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), stop.patient():
        for item, _ in engine(LOCAL)(square, range(100), double):
            done.append(item)
            if len(done) == 3:
                stop.ask(KeyboardInterrupt())
    assert len(done) < 100


def test_a_scheduler_that_is_not_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask, "ANSWER_S", 1)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        where = f"tcp://127.0.0.1:{s.getsockname()[1]}"
    with pytest.raises(ResourceError, match=f"--scheduler: {where} does not answer"):
        list(engine(where)(square, range(1), double))


@pytest.mark.parametrize("where", ["lokal", "local:", "local:x", "host", "8786", "tcp"])
def test_what_is_no_scheduler_is_refused(where: str) -> None:
    with pytest.raises(UsageError, match=f"--scheduler: {where} is given"):
        engine(where)


def test_a_share_of_the_cores_is_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert [dask.local_size(where) for where in ("local", "local:3", "local:0")] == [4, 3, 1]
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert dask.local_size("local") == 1
