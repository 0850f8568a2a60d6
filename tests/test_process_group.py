"""Several processes train as one does: the same losses, a run that goes on with any number of them, one that ends."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sciresdiff.cli.app import main
from sciresdiff.diffusion.share import draw_samples, shared_generator
from sciresdiff.errors import UsageError
from sciresdiff.lab.distillation import train as distil
from sciresdiff.restoration import model as models
from sciresdiff.training import loop, prior, refiner, signals
from sciresdiff.training.options import TrainOptions
from sciresdiff.training.process_group import ProcessGroup, connect, first_node, rendezvous

RECIPE = """
[data]
patch = 12
scene_px = 64
pool = 2
sigma = [0.4, 0.7]
focus = [0.4, 0.7]
[loop]
batch = {batch}
warmup = 8
interval = 0.0
bf16 = false
"""

PRELOADED = ("sciresdiff.cli.app", "sciresdiff.lab.distillation.train")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def as_rank(rank: int, size: int, port: int, words: Path, act: Callable[..., None], given: tuple[Any, ...]) -> None:
    """What one process does: ``act(*given)`` in the environment that torchrun gives it, its words in a file."""
    for stream in (1, 2):
        os.dup2(os.open(words, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    bare()
    act(*given)


def bare() -> None:
    """Without what only the first process does, which is tested elsewhere."""
    prior.Validation = lambda pairs: lambda net: {}
    refiner.validation = distil.validation = lambda *_: lambda net: {}


def together(size: int, folder: Path, act: Callable[..., None], *given: Any) -> list[tuple[int, str]]:
    """Exit code and words of every one of several processes, which share one import of torch."""
    context, port = multiprocessing.get_context("forkserver"), free_port()
    context.set_forkserver_preload(list(PRELOADED))
    files = [folder / f"words{rank}" for rank in range(size)]
    running = [context.Process(target=as_rank, args=(r, size, port, files[r], act, given)) for r in range(size)]
    for process in running:
        process.start()
    for process in running:
        process.join(120)
    return [(process.exitcode, words.read_text()) for process, words in zip(running, files, strict=True)]


def recipe_at(folder: Path, batch: int = 4) -> str:
    """A recipe that logs after every batch."""
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(batch=batch))
    return str(path)


def options(recipe: str, output: Path, **changes: Any) -> TrainOptions:
    small = {"scale": 2, "recipe": recipe, "preset": "tiny", "images": 12, "device": "cpu", "calibrate": False}
    return TrainOptions(**{"output": str(output), **small, **changes})


def jobs(recipe: str, folder: Path) -> list[tuple[Callable[..., Path], TrainOptions]]:
    """All that is trained, into a folder: its function and options."""
    return [
        (prior.train, options(recipe, folder / "prior.safetensors")),
        (refiner.train, options(recipe, folder / "refiner.safetensors", prior="astro-x2")),
        (distil.train, options(recipe, folder / "student.safetensors", distil="astro-x2", method="sinsr")),
    ]


def train_all(recipe: str, folder: Path) -> None:
    """Everything, in the world of the environment."""
    group = ProcessGroup.from_environment()
    with connect(group):
        for train, asked in jobs(recipe, folder):
            train(asked, lambda line: None, group)


def command(words: list[str], troubled: Callable[[loop.Run], None]) -> None:
    """The command line, with something that happens to a process before its steps."""
    step = loop.Run.step

    def troubled_step(self: loop.Run, *given: Any) -> dict[str, float]:
        troubled(self)
        return step(self, *given)

    loop.Run.step = troubled_step
    sys.argv = ["sciresdiff", *words]
    main()


def signalled(run: loop.Run) -> None:
    """The last process gets SIGTERM in its second step."""
    if run.state.seen == 4 and run.group.rank == 1:
        signal.raise_signal(signal.SIGTERM)


def killed(run: loop.Run) -> None:
    """The last process is gone in its second step."""
    if run.state.seen == 4 and run.group.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def words_of(output: Path, recipe: str) -> list[str]:
    return f"train-prior -o {output} --recipe {recipe} --scale 2 --preset tiny --images 12 --device cpu".split()


def losses(output: Path) -> dict[int, float]:
    """The mean loss by the samples seen."""
    lines = (json.loads(line) for line in output.with_suffix(".jsonl").read_text().splitlines())
    return {int(line["samples"]): line["loss"] for line in lines}


def assert_alike(one: Path, two: Path) -> None:
    """Two runs had the same losses and have the same weights, but for the order of sums in float32."""
    there, here = losses(one), losses(two)
    assert len(here) > 1
    assert {n: here[n] for n in here} == pytest.approx({n: there[n] for n in here}, rel=1e-4)  # sums of some 1e4 terms
    a, b = (models.tensors(models.load(str(p))) for p in (one, two))
    for name in a:
        assert torch.allclose(a[name], b[name], rtol=1e-3, atol=1e-4), name  # Adam divides small numbers by small ones


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process without validation, too."""
    monkeypatch.setattr(prior, "Validation", lambda pairs: lambda net: {})
    monkeypatch.setattr(refiner, "validation", lambda *_: lambda net: {})
    monkeypatch.setattr(distil, "validation", lambda *_: lambda net: {})


@pytest.mark.usefixtures("plain")
def test_two_processes_train_everything_as_one_does(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    recipe = recipe_at(tmp_path, batch=5)  # which two do not divide
    for train, asked in jobs(recipe, one):
        train(asked, lambda line: None)
    assert together(2, tmp_path, train_all, recipe, two) == [(0, ""), (0, "")]
    for _, asked in jobs(recipe, one):
        assert_alike(Path(asked.output), two / Path(asked.output).name)


@pytest.mark.usefixtures("plain")
def test_a_signal_to_one_of_two_ends_both_and_one_goes_on(tmp_path: Path) -> None:
    recipe = recipe_at(tmp_path)
    whole, mixed = tmp_path / "whole.safetensors", tmp_path / "mixed.safetensors"
    prior.train(options(recipe, whole), lambda line: None)
    first, second = together(2, tmp_path, command, words_of(mixed, recipe), signalled)
    assert (first[0], second) == (143, (143, ""))  # only the first one speaks
    assert "stopped after 8 samples; the same command goes on from there" in first[1]
    prior.train(options(recipe, mixed), lambda line: None)
    assert_alike(whole, mixed)


def test_where_one_process_is_gone_the_others_end_with_a_line(tmp_path: Path) -> None:
    output = tmp_path / "m.safetensors"
    first, second = together(2, tmp_path, command, words_of(output, recipe_at(tmp_path)), killed)
    assert (first[0], second[0]) == (5, -signal.SIGKILL)
    said = " ".join(first[1].split())
    assert re.search("process 0: one of the 2 processes is gone .*the same command goes on", said)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shares_cut_a_batch_without_gap_or_overlap(size: int) -> None:
    cuts = [ProcessGroup(r, size).share(16) for r in range(size)]
    assert [n for first, count in cuts for n in range(first, first + count)] == list(range(16))
    assert max(c for _, c in cuts) - min(c for _, c in cuts) <= 1


def test_more_processes_than_samples_are_refused() -> None:
    with pytest.raises(UsageError, match="batch = 4, but 5 processes need a sample each"):
        ProcessGroup(0, 5).share(4)


def test_a_samples_random_numbers_do_not_depend_on_who_works_on_it() -> None:
    def numbers(first: int, size: int, generator: torch.Generator) -> torch.Tensor:
        return draw_samples(lambda n: torch.randn((n, 1, 5, 5), generator=generator), size, generator)

    whole = numbers(0, 8, torch.Generator().manual_seed(3))
    parts = [numbers(first, size, shared_generator(3, first, 8)) for first, size in ((0, 3), (3, 3), (6, 2))]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, ProcessGroup()),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, ProcessGroup(3, 8, 1)),
        (
            {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "6", "SLURM_LOCALID": "2", "SLURM_NTASKS": "6"},
            ProcessGroup(5, 6, 2),
        ),
        (
            {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"},
            ProcessGroup(),
        ),  # a batch script, not a step
        (
            {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
            ProcessGroup(1, 2, 1),  # torchrun started by srun
        ),
    ],
)
def test_the_world_is_read_from_the_environment(environment: dict[str, str], found: ProcessGroup) -> None:
    assert ProcessGroup.from_environment(environment) == found


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WORLD_SIZE": "2"}, "RANK: '' is given"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE: 'two' is given"),
        ({"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0"}, "RANK: 2 is given, but there are 2 processes"),
    ],
)
def test_an_environment_that_is_half_there_is_refused(environment: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ProcessGroup.from_environment(environment)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("gpu01", "gpu01"), ("gpu[01-04,7]", "gpu01"), ("a3,b[1-2]", "a3"), ("n[12]-ib,m", "n12-ib"), ("", "")],
)
def test_processes_of_slurm_meet_at_the_first_node(nodes: str, first: str) -> None:
    assert first_node(nodes) == first
    if nodes:
        found = rendezvous({"SLURM_STEP_NODELIST": nodes, "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "2"})
        assert found == {"MASTER_ADDR": first, "MASTER_PORT": str(20_000 + (4711 * 16 + 2) % 12_000)}


def test_where_to_meet_has_to_be_known_and_what_is_given_wins() -> None:
    with pytest.raises(UsageError, match="MASTER_ADDR, MASTER_PORT: not given"):
        rendezvous({})
    given = {"MASTER_ADDR": "here", "MASTER_PORT": "1234"}
    assert rendezvous({**given, "SLURM_STEP_NODELIST": "n[1-2]"}) == given


def test_one_gpu_is_not_given_to_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(UsageError, match="--device: cuda:1 is one GPU for 8 processes"):
        ProcessGroup(0, 8).device("cuda:1")
    with pytest.raises(UsageError, match="process 4 of this machine has no GPU, there are 4"):
        ProcessGroup(4, 8, 4).device("cuda")
    assert ProcessGroup(7, 8, 3).device("cuda") == torch.device("cuda:3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # SLURM shows every process its own
    assert ProcessGroup(7, 8, 3).device("cuda") == torch.device("cuda:0")


def test_a_signal_is_noted_and_a_second_one_acts() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with signals.defer_signals() as came:
            assert came() == 0
            signal.raise_signal(signal.SIGTERM)
            assert (came(), seen) == (signal.SIGTERM, [])
            signal.raise_signal(signal.SIGTERM)
            assert seen == [signal.SIGTERM]
        with pytest.raises(SystemExit) as end:  # what handles it lets it pass
            signals.raise_deferred(signal.SIGTERM)
        assert end.value.code == 143
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with signals.defer_signals() as came:
            signal.raise_signal(signal.SIGTERM)
            assert came() == 0
    finally:
        signal.signal(signal.SIGTERM, before)


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    found: list[int] = []

    def other() -> None:
        with signals.defer_signals() as came:
            found.append(came())

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found == [0]
