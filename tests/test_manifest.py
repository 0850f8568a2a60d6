"""Batches that are run again: what is skipped, what is refused, and what the manifest tells."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from typer.testing import CliRunner, Result

import sciresdiff.jobs
from sciresdiff.cli.app import app
from sciresdiff.errors import InputError
from sciresdiff.jobs.identity import identify_with_models
from sciresdiff.run import locks, manifest
from sciresdiff.run.batch import Task
from sciresdiff.run.checksums import checksums

Run = Callable[..., Result]


@dataclass(frozen=True)
class Options:
    """What the stand-in job is told."""

    scale: int
    seed: int = 0
    overwrite: bool = False


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Instead of ``jobs.degrade``: copies text and writes a record as ``upscale`` does; the names that it did."""
    names: list[str] = []

    def run(path_in: Path, path_out: Path, options: Options, *more: Any) -> dict[str, Any]:
        if path_in.read_text() == "bad":
            raise InputError(f"{path_in}: is bad")
        names.append(path_in.name)
        path_out.write_text(path_in.read_text() * options.scale)
        record = {
            "identity": identify_with_models(path_in, options),
            "checksums": checksums([path_out]),
            "model": "none",
        }
        path_out.with_name(path_out.name + ".json").write_text(json.dumps(record))
        return record

    module = ModuleType("sciresdiff.jobs.degrade")
    vars(module).update(run=run, plan=lambda path, options: vars(options), DegradeOptions=Options)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(sciresdiff.jobs, "degrade", module, raising=False)
    return names


@pytest.fixture
def again(tmp_path: Path, worked: list[str]) -> Run:
    """Do the same batch of three files, of which one is bad, with more words."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, text in (("a", "one"), ("b", "bad"), ("c", "three")):
        (folder / f"{name}.fits").write_text(text)
    words = ["degrade", str(folder), "-o", str(tmp_path / "out"), "--scale", "2"]
    return lambda *more: CliRunner().invoke(app, [*words, *map(str, more)])


def test_what_is_complete_is_skipped_and_what_failed_is_done(again: Run, worked: list[str], tmp_path: Path) -> None:
    assert again().exit_code == 3
    assert worked == ["a.fits", "c.fits"]
    (tmp_path / "in" / "b.fits").write_text("good")
    result = again()
    assert result.exit_code == 0
    assert worked == ["a.fits", "c.fits", "b.fits"]
    assert result.stderr.count("skipped") == 2
    again("--overwrite")
    assert sorted(worked[3:]) == ["a.fits", "b.fits", "c.fits"]


@pytest.mark.parametrize("change", ["output", "input", "option", "record"])
def test_an_output_that_this_job_did_not_make_is_an_error(
    again: Run, worked: list[str], tmp_path: Path, change: str
) -> None:
    (tmp_path / "in" / "b.fits").unlink()
    again()
    if change == "output":
        (tmp_path / "out" / "a_x2.fits").write_text("mine")
    elif change == "input":
        (tmp_path / "in" / "a.fits").write_text("another")
    elif change == "record":
        (tmp_path / "out" / "a_x2.fits.json").write_text("{")
    result = again(*(["--seed", 1] if change == "option" else []))
    assert result.exit_code == 2
    assert "exists; use --overwrite" in result.stderr
    assert worked == ["a.fits", "c.fits"]


def test_the_manifest_tells_what_was_done(again: Run, tmp_path: Path) -> None:
    path = tmp_path / "new" / "batch.jsonl"
    again("--manifest", path)
    again("--manifest", path)
    records = manifest.read_manifest(path)
    assert [record["status"] for record in records] == ["done", "failed", "done", "skipped", "failed", "skipped"]
    done, bad, *_ = records
    assert done["input"] == str(tmp_path / "in" / "a.fits")
    assert done["output"] == str(tmp_path / "out" / "a_x2.fits")
    assert done["checksums"] == checksums([tmp_path / "out" / "a_x2.fits"])
    assert done["model"] == "none"
    assert done["seconds"] >= 0
    assert (bad["exit_code"], bad["error"]) == (3, f"{tmp_path / 'in' / 'b.fits'}: is bad")


def test_the_manifest_stands_in_for_records(again: Run, worked: list[str], tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    again("--manifest", path)
    for record in (tmp_path / "out").glob("*.json"):
        record.unlink()
    again("--manifest", path)
    assert worked == ["a.fits", "c.fits"]


def test_a_torn_line_costs_that_line_alone(again: Run, tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    again("--manifest", path)
    path.write_bytes(path.read_bytes()[:-20])
    again("--manifest", path)
    assert [r["status"] for r in manifest.read_manifest(path)] == ["done", "failed", "skipped", "failed", "skipped"]


def test_a_manifest_that_cannot_be_written(again: Run, worked: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = again("--manifest", tmp_path / "file" / "batch.jsonl")
    assert result.exit_code == 2
    assert result.stderr.startswith("sciresdiff: --manifest:")
    assert worked == []


def test_shards_share_the_files(again: Run, worked: list[str], tmp_path: Path) -> None:
    (tmp_path / "in" / "b.fits").write_text("two")
    again("--shard", "2/2")
    assert worked == ["b.fits"]
    again("--shard", "1/2")
    assert sorted(worked) == ["a.fits", "b.fits", "c.fits"]
    again("--shard", "5/7")
    assert len(worked) == 3
    result = again("--shard", "8/7")
    assert result.exit_code == 2
    assert result.stderr.startswith("sciresdiff: --shard: 8/7 is given")


def test_a_single_file_that_cannot_be_shared_is_the_first_shards(tmp_path: Path) -> None:
    fits.writeto(tmp_path / "a.fits", np.ones((16, 16), np.float32))
    words = ["degrade", str(tmp_path / "a.fits"), "-o", str(tmp_path / "o.fits"), "--scale", "2", "--shard"]
    result = CliRunner().invoke(app, [*words, "2/2"])
    assert result.exit_code == 0
    assert "shard 2/2: no block is left for it (of 1 in all)" in result.stderr
    assert sorted(os.listdir(tmp_path)) == ["a.fits"]
    assert CliRunner().invoke(app, [*words, "1/2"]).exit_code == 0
    assert sorted(os.listdir(tmp_path)) == ["a.fits", "o.fits"]


def test_the_journal_of_a_run_killed_when_its_output_was_whole_goes(again: Run, tmp_path: Path) -> None:
    (tmp_path / "in" / "b.fits").unlink()
    again()
    left = locks.journal_path(tmp_path / "out" / "a_x2.fits")
    left.touch()
    assert again().exit_code == 0
    assert not left.exists()


def test_a_line_without_checksums_hides_none_that_has_them(again: Run, worked: list[str], tmp_path: Path) -> None:
    (tmp_path / "in" / "b.fits").unlink()
    path = tmp_path / "batch.jsonl"
    again("--manifest", path)
    for record in (tmp_path / "out").glob("*.json"):
        record.unlink()
    assert [again("--manifest", path).exit_code for _ in range(3)] == [0, 0, 0]
    assert worked == ["a.fits", "c.fits"]


def test_what_waits_for_other_shards_is_not_done(tmp_path: Path) -> None:
    source, target, path = tmp_path / "in.fits", tmp_path / "out.fits", tmp_path / "batch.jsonl"
    source.write_text("new")
    target.write_text("an older output, which --overwrite will replace")
    task = Task(source, target)
    identify = partial(identify_with_models, options=Options(2))
    with manifest.open_manifest(path, identify) as book:
        book.add_done(task, {"status": "waiting"})
    assert [record["status"] for record in manifest.read_manifest(path)] == ["waiting"]
    assert not manifest.completion_check(identify, path)(task)
