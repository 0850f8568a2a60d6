"""The engine of many machines does what the serial one does, and survives the loss of a worker."""

from __future__ import annotations

import json
import os
import signal
import socket
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from sciresdiff.cli.app import app
from sciresdiff.errors import InputError, ResourceError, UsageError
from sciresdiff.jobs import blocks, degrade, evaluate
from sciresdiff.jobs.evaluate import pieces
from sciresdiff.run import dask, journal, signals
from sciresdiff.run.engines import get_engine

pytest.importorskip("distributed", reason="needs Dask: pip install 'sciresdiff[dask]'")
LOCAL = "local:2"


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Two workers for all tests, and nothing left of them."""
    yield
    client = dask.connect(LOCAL)
    cluster = client.cluster
    client.close()
    cluster.close()
    dask.connect.cache_clear()


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
    found = list(get_engine(LOCAL)(square, range(20), double))
    assert sorted((item, value) for item, (value, _) in found) == [(n, 2 * n * n) for n in range(20)]
    assert {pid for _, (_, pid) in found} != {os.getpid()}


def test_what_a_lost_worker_had_in_hand_is_done_again(tmp_path: Path) -> None:
    found = list(get_engine(LOCAL)(partial(falls, tmp_path), range(12), double))
    assert sorted((item, value) for item, (value, _) in found) == [(n, 2 * n * n) for n in range(12)]
    assert int((tmp_path / "killed").read_text()) not in {pid for item, (_, pid) in found if item == 5}


def test_a_problem_of_a_piece_comes_out_as_it_is() -> None:
    with pytest.raises(InputError, match=r"file\d.fits: is damaged"):
        list(get_engine(LOCAL)(refuses, range(4), double))


def test_workers_take_the_threads_and_the_folder_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [found for _, found in get_engine(LOCAL)(threads, range(1), double, threads=3)] == [(3, str(tmp_path))]


def test_a_folder_that_workers_do_not_reach_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getcwd", lambda: str(tmp_path / "elsewhere"))
    with pytest.raises(InputError, match="elsewhere: a worker does not reach this folder"):
        list(get_engine(LOCAL)(square, range(1), double))


def test_workers_of_another_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask, "__version__", "0.0")
    with pytest.raises(UsageError, match="a worker has sciresdiff .*, and this is 0.0; install the same"):
        list(get_engine(LOCAL)(square, range(1), double))


def test_a_signal_is_heeded_while_workers_work() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), signals.defer_stops():
        for item, _ in get_engine(LOCAL)(square, range(100), double):
            done.append(item)
            if len(done) == 3:
                signals.request_stop(KeyboardInterrupt())
    assert len(done) < 100


def test_a_scheduler_that_is_not_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask, "ANSWER_S", 1)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        where = f"tcp://127.0.0.1:{s.getsockname()[1]}"
    with pytest.raises(ResourceError, match=f"--scheduler: {where} does not answer"):
        list(get_engine(where)(square, range(1), double))


@pytest.mark.parametrize("where", ["lokal", "local:", "local:x", "host", "8786", "tcp", "tcp://host", "foo://host:1"])
def test_what_is_no_scheduler_is_refused(where: str) -> None:
    with pytest.raises(UsageError, match=f"--scheduler: {where} is given"):
        get_engine(where)


def test_a_share_of_the_cores_is_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert [dask.local_workers(where) for where in ("local", "local:3", "local:0")] == [4, 3, 1]
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert dask.local_workers("local") == 1


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """A folder of three frames and a file that is none."""
    folder = tmp_path / "low"
    folder.mkdir()
    y, x = np.mgrid[:48, :48]
    for n in range(3):
        noise = np.random.default_rng(n).normal(size=(48, 48))
        star = 200 * np.exp(-((y - 20 - n) ** 2 + (x - 25) ** 2) / 4)
        fits.writeto(folder / f"frame{n}.fits", (star + noise).astype(np.float32))
    (folder / "none.fits").write_bytes(b"no frame")
    return folder


def upscale(inputs: Path, output: Path, *more: str) -> int:
    words = f"upscale {inputs} -o {output} --scale 2 --psf gaussian:fwhm=2px --samples 2 --threads 1 --device cpu -q"
    return app(words.split() + list(more), standalone_mode=False)


def test_workers_write_the_same_files_and_a_bad_one_does_not_stop_the_rest(frames: Path, tmp_path: Path) -> None:
    serial, spread, manifest = tmp_path / "serial", tmp_path / "spread", tmp_path / "list.jsonl"
    assert upscale(frames, serial) == 3
    assert upscale(frames, spread, "--scheduler", LOCAL, "--manifest", str(manifest)) == 3
    names = [f"frame{n}_x2.fits" for n in range(3)]
    assert sorted(p.name for p in spread.glob("*.fits")) == names
    assert all((spread / name).read_bytes() == (serial / name).read_bytes() for name in names)
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert sorted((line["status"], line["exit_code"]) for line in lines) == [("done", 0)] * 3 + [("failed", 3)]
    assert all(line["seconds"] > 0 for line in lines if line["status"] == "done")


def test_blocks_of_one_frame_are_the_serial_ones_though_a_worker_is_killed(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "CORE", 32)  # in this process, which makes the plan
    serial, spread, shards = (tmp_path / f"{name}.fits" for name in ("serial", "spread", "shards"))
    low, physics = frames / "frame0.fits", ("--model", "physics")
    assert upscale(low, serial, *physics) == 0
    put, wrote = journal.Journal.put, []

    def then_kill(*given: object) -> None:
        put(*given)
        wrote.append(given)
        if len(wrote) == 2:
            os.kill(next(pid for pid in dask.connect(LOCAL).run(os.getpid).values()), signal.SIGKILL)

    monkeypatch.setattr(journal.Journal, "put", then_kill)
    assert upscale(low, spread, *physics, "--scheduler", LOCAL) == 0
    assert len(wrote) == 9  # 48 / 16 a side
    assert spread.read_bytes() == serial.read_bytes()
    assert [upscale(low, shards, *physics, "--scheduler", LOCAL, "--shard", f"{i}/2") for i in (1, 2)] == [0, 0]
    assert shards.read_bytes() == serial.read_bytes()


def star_field(path: Path, seed: int) -> Path:
    """Stars of 192 x 192 px, with noise of their own."""
    y, x = np.mgrid[:192, :192]
    noise, places = np.random.default_rng(seed).normal(size=(192, 192)), range(20, 190, 30)
    stars = sum(500 * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 6) for a in places for b in places)
    fits.writeto(path, (stars + 10 + noise).astype(np.float32))
    return path


def test_blocks_of_a_frame_that_is_degraded_are_the_serial_ones(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "CORE", 96)  # in this process, which makes the plan
    high, words = star_field(tmp_path / "high.fits", 0), "--scale 2 --recipe astro --seed 3 -q --scheduler"
    serial, spread = tmp_path / "serial.fits", tmp_path / "spread.fits"
    record = degrade.run(high, serial, degrade.DegradeOptions(2, recipe="astro", seed=3))
    assert record["blocks"] == 4  # 192 / 96 a side
    assert app(["degrade", str(high), "-o", str(spread), *words.split(), LOCAL], standalone_mode=False) == 0
    assert spread.read_bytes() == serial.read_bytes()
    words = "--scale 2 --gain 2 --threads 1 -q"
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder, more in zip(folders, ([], ["--scheduler", LOCAL]), strict=True):
        assert app(["degrade", str(frames), "-o", str(folder), *words.split(), *more], standalone_mode=False) == 3
    for n in range(3):
        assert len({(folder / f"frame{n}_x2.fits").read_bytes() for folder in folders}) == 1


def test_an_evaluation_on_workers_is_the_serial_one(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WHOLE", 40), ("SIDE", 64)):
        monkeypatch.setattr(pieces, name, value)  # in this process, which makes the plan
    for name in ("high", "truth"):
        star_field(tmp_path / f"{name}.fits", len(name))
    serial = evaluate.run(tmp_path / "high.fits", truth=tmp_path / "truth.fits")
    assert serial["pieces"]["count"] == 9
    assert evaluate.run(tmp_path / "high.fits", truth=tmp_path / "truth.fits", scheduler=LOCAL) == serial
    several = [str(frames / f"frame{n}.fits") for n in range(3)]
    csv = [tmp_path / "one.csv", tmp_path / "other.csv"]
    for path, more in zip(csv, ([], ["--scheduler", LOCAL]), strict=True):
        assert app(["evaluate", *several, "--csv", str(path), "-q", *more], standalone_mode=False) == 0
    assert csv[0].read_text() == csv[1].read_text()


def test_a_scheduler_that_does_not_answer_is_one_line_and_code_5(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dask, "ANSWER_S", 1)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        where = f"tcp://127.0.0.1:{s.getsockname()[1]}"
    assert upscale(frames, tmp_path / "out", "--scheduler", where) == 5
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith(f"sciresdiff: --scheduler: {where} does not answer")
    assert upscale(frames, tmp_path / "out", "--scheduler", "lokal") == 2
