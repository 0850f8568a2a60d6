"""Signals to the program, from outside: kill -9 at any block, SIGTERM, SIGINT; the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import signal, sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
sys.path.insert(0, {tests!r})
import sciresdiff.jobs, test_journal
from sciresdiff.cli.app import app

@dataclass(frozen=True)
class Options:
    scale: int

def run(path_in, path_out, options, *more):
    def before(number):
        print(number, flush=True)
        sys.stdin.readline()
    test_journal.run(path_out, before=before)
    return {{}}

job = ModuleType("sciresdiff.jobs.degrade")
vars(job).update(run=run, DegradeOptions=Options)
sys.modules[job.__name__] = sciresdiff.jobs.degrade = job
app()
"""


def started(tmp_path: Path) -> subprocess.Popen[str]:
    """The command: it tells each block before it works on it, and waits for a line."""
    low = tmp_path / "low.fits"
    low.touch()
    words = ["degrade", str(low), "-o", str(tmp_path / "out.raw"), "--scale", "2", "-q"]
    program = PROGRAM.format(tests=str(Path(__file__).parent))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", program, *words], **pipes, text=True)  # type: ignore[call-overload,no-any-return]


def up_to(process: subprocess.Popen[str], block: int) -> list[int]:
    """Let it work until it is in front of this block; the blocks that it told."""
    assert process.stdin is not None
    assert process.stdout is not None
    told = [int(process.stdout.readline())]
    while told[-1] < block:
        process.stdin.write("\n")
        process.stdin.flush()
        told.append(int(process.stdout.readline()))
    return told


def test_killed_again_and_again_the_bytes_are_those_of_one_run(tmp_path: Path) -> None:
    from test_journal import BLOCKS, values

    before = 0
    for block in (1, 3, 3, 5):
        process = started(tmp_path)
        with process:
            told = up_to(process, block)
            assert told[0] >= before - 1, "but for the block that was not yet on the disk, what is done stays"
            before = block
            os.kill(process.pid, signal.SIGKILL)
        assert not (tmp_path / "out.raw").exists()
    with started(tmp_path) as process:
        process.communicate("\n" * BLOCKS)
    assert process.returncode == 0
    assert (tmp_path / "out.raw").read_bytes() == b"".join(values(n).tobytes() for n in range(BLOCKS))
    assert sorted(os.listdir(tmp_path)) == ["low.fits", "out.raw"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_block_and_says_what_is_kept(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with started(tmp_path) as process:
        up_to(process, 2)
        os.kill(process.pid, number)
        _, words = process.communicate("\n")
        assert process.returncode == code
    assert "3 of 6 blocks of out.raw are kept; the same command goes on from there" in words
    with started(tmp_path) as process:
        assert up_to(process, 3) == [3]
        process.communicate("\n" * 3)
    assert process.returncode == 0


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        up_to(process, 2)
        os.kill(process.pid, signal.SIGINT)
        os.kill(process.pid, signal.SIGTERM)
        _, words = process.communicate()
        assert process.returncode == 143
    assert "2 of 6 blocks of out.raw are kept" in words
