"""What is found on all of an input before its blocks are made is kept beside the output, and looked for once."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from test_joint import write_exposures

from sciresdiff.errors import InputError, UsageError
from sciresdiff.jobs.upscale import joint as job
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.observation import outlier_mask
from sciresdiff.observation.pixel_set import PixelSet, of_text, to_text
from sciresdiff.region import Region
from sciresdiff.restoration import cosmic_rays
from sciresdiff.run.findings import in_turn, keep_findings
from sciresdiff.run.locks import findings_path
from sciresdiff.run.shards import Shard

OPTIONS = UpscaleOptions(joint=True, scale=2, refine=False)


class Looks:
    """Finds numbers, and knows which it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.seconds = 0.0

    def __call__(self, target: Path, names: str, key: str = "a", shard: Shard | None = None) -> list[float]:
        with keep_findings(target, {"input": key}, shard) as findings:
            found = findings.all({name: partial(self.look, name) for name in names})
        assert "".join(found) == names
        return [one["found"] for one in found.values()]

    def look(self, name: str) -> dict[str, float]:
        self.asked.append(name)
        time.sleep(self.seconds)
        return {"found": ord(name) / 3}


def test_findings_are_looked_for_once_and_for_one_job(tmp_path):
    target, looks = tmp_path / "deep" / "out.fits", Looks()
    first = looks(target, "xyz")
    assert looks(target, "xyzw")[:3] == first
    assert looks.asked == list("xyzw")
    looks(target, "x", key="b")  # of other inputs or options
    assert looks.asked == list("xyzwx")


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-5], lambda b: b.replace(b'"found": 40', b'"found": 41'), lambda b: b""]
)
def test_what_is_torn_or_damaged_is_looked_for_again(tmp_path, damage):
    target, looks = tmp_path / "out.fits", Looks()
    right = looks(target, "wxyz")
    path = findings_path(target)
    path.write_bytes(damage(path.read_bytes()))
    looks.asked.clear()
    assert looks(target, "wxyz") == right
    assert looks.asked and looks.asked[-1] == "z"
    assert looks(target, "wxyz") == right and looks.asked[-1] == "z"


@pytest.mark.parametrize(
    "problem, kept", [(KeyboardInterrupt(), True), (OSError("disk"), True), (InputError("a"), False)]
)
def test_what_is_found_before_an_interruption_is_kept(tmp_path, problem, kept):
    target = tmp_path / "out.fits"
    with pytest.raises(type(problem)) as raised, keep_findings(target, {}) as findings:
        findings.one("one", lambda: 1)
        raise problem
    assert findings_path(target).exists() == kept
    assert any("goes on from there" in note for note in getattr(raised.value, "__notes__", [])) == kept


def test_shards_take_what_others_found_and_share_what_is_left(tmp_path):
    target, looks, names = tmp_path / "out.fits", Looks(), "abcdefghijklmnopqrstuvwxyz"
    right = [ord(name) / 3 for name in names]
    looks(target, names[:5], shard=Shard(1, 3))
    assert looks(target, names[:5], shard=Shard(2, 3)) == right[:5] == looks(target, names[:5])
    assert looks.asked == list("adebc")
    looks.asked.clear()
    looks.seconds, found = 0.02, {}

    def run(number: int) -> None:
        found[number] = looks(target, names, shard=Shard(number, 3))

    runs = [threading.Thread(target=run, args=(number,)) for number in (1, 2, 3)]
    for one in runs:
        one.start()
    for one in runs:
        one.join(30)
    assert all(found[number] == right for number in (1, 2, 3))
    assert (
        set(looks.asked) == set(names[5:]) and len(looks.asked) <= len(names[5:]) + 4
    )  # what two have in hand at once


@pytest.mark.parametrize("shard", [None, Shard(1, 1), Shard(2, 4), Shard(4, 4), Shard(5, 7)])
def test_every_shard_comes_to_all(shard):
    names = [str(k) for k in range(11)]
    turn = list(in_turn(names, shard))
    assert sorted(turn) == sorted(names)
    mine = names if shard is None else list(shard.share(names))
    assert turn[: len(mine)] == mine


def test_two_processes_that_are_not_shards_do_not_look_at_once(tmp_path):
    target = tmp_path / "out.fits"
    refused = pytest.raises(UsageError, match="written by another process")
    with keep_findings(target, {}), refused, keep_findings(target, {}):
        pass


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"), keep_findings(tmp_path / "file" / "out.fits", {}):
        pass


def test_pixels_are_held_by_their_places():
    rng = np.random.default_rng(3)
    mask = rng.random((60, 90)) < 0.03
    places = np.argwhere(mask)
    pixels = PixelSet.of_places(mask.shape, [of_text(to_text(places[20:])), places[:30]])
    assert len(pixels) == mask.sum()
    for region in (Region(0, 60, 0, 90), Region(7, 31, 40, 90), Region(59, 60, 0, 1)):
        assert np.array_equal(pixels.window(region), mask[region.slices])
    assert not len(PixelSet.of_places((4, 5), []))


@pytest.fixture
def survey(monkeypatch):
    """How often exposures are looked at, in all passes; images of several blocks and parts."""
    calls: dict[str, int] = {"first": 0, "second": 0, "room": 0, "cosmic": 0, "levels": 0}

    def count(module, name, label):
        real = getattr(module, name)

        def counted(*args, **more):
            calls[label] += 1
            return real(*args, **more)

        monkeypatch.setattr(module, name, counted)

    monkeypatch.setattr(job, "CORE", 48)
    monkeypatch.setattr(cosmic_rays, "SIDE", 40)
    for module, name, label in (
        (outlier_mask, "_find_first", "first"),
        (outlier_mask, "_find_second", "second"),
        (cosmic_rays, "measure_room", "room"),
        (cosmic_rays, "find_cosmic_rays", "cosmic"),
    ):
        count(module, name, label)
    from sciresdiff.restoration import joint

    count(joint, "measure_levels", "levels")
    return calls


def beside(output: Path) -> list[str]:
    """Hidden files beside an output."""
    return [path.name for path in output.parent.iterdir() if path.name.startswith(f".{output.name}")]


def stop(monkeypatch, module, name, at):
    """Let a function be interrupted at its n-th call; returns what takes that back."""
    real, calls = getattr(module, name), []

    def stops(*args, **more):
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt
        return real(*args, **more)

    monkeypatch.setattr(module, name, stops)
    return lambda: monkeypatch.setattr(module, name, real)


@pytest.mark.parametrize("at", ["second", "cosmic"])
def test_a_run_that_is_stopped_in_the_survey_goes_on_there(tmp_path, monkeypatch, survey, at):
    names, _ = write_exposures(tmp_path, side=60)
    job.run_joint(names, tmp_path / "a.fits", OPTIONS)
    whole = dict(survey)
    assert whole["cosmic"] > 4 and whole["levels"] == whole["room"] == 1
    module, name = (outlier_mask, "_find_second") if at == "second" else (cosmic_rays, "find_cosmic_rays")
    again = stop(monkeypatch, module, name, 3)
    out = tmp_path / "b.fits"
    with pytest.raises(KeyboardInterrupt):
        job.run_joint(names, out, OPTIONS)
    assert beside(out) == [findings_path(out).name]
    again()
    survey.update(dict.fromkeys(survey, 0))
    job.run_joint(names, out, OPTIONS)
    assert survey[at] == whole[at] - 2 and survey["first"] == 0
    assert out.read_bytes() == (tmp_path / "a.fits").read_bytes()
    assert not beside(out)


def test_shards_and_resumed_runs_do_not_survey_again(tmp_path, monkeypatch, survey):
    names, _ = write_exposures(tmp_path, side=60)
    job.run_joint(names, tmp_path / "a.fits", OPTIONS)
    whole, out = dict(survey), tmp_path / "b.fits"
    job.run_joint(names, out, OPTIONS, shard=Shard(1, 2))
    assert beside(out)
    assert survey == {name: 2 * count for name, count in whole.items()}
    again = stop(monkeypatch, job, "restore_window", 2)
    with pytest.raises(KeyboardInterrupt):
        job.run_joint(names, out, OPTIONS, shard=Shard(2, 2))
    again()
    job.run_joint(names, out, OPTIONS, shard=Shard(2, 2))
    assert survey == {name: 2 * count for name, count in whole.items()}
    assert out.read_bytes() == (tmp_path / "a.fits").read_bytes()
    assert not beside(out)


@pytest.mark.parametrize("change", ["options", "input"])
def test_what_another_job_found_is_not_taken(tmp_path, monkeypatch, survey, change):
    names, _ = write_exposures(tmp_path, side=60)
    (tmp_path / "other").mkdir()
    others, _ = write_exposures(tmp_path / "other", side=60, seed=9) if change == "input" else (names, None)
    options = OPTIONS if change == "input" else UpscaleOptions(joint=True, scale=2, refine=False, target_fwhm=2.2)
    out = tmp_path / "b.fits"
    again = stop(monkeypatch, cosmic_rays, "find_cosmic_rays", 3)
    with pytest.raises(KeyboardInterrupt):
        job.run_joint(names, out, OPTIONS)
    again()
    survey.update(dict.fromkeys(survey, 0))
    job.run_joint(others, out, options)
    found = out.read_bytes()
    done = dict(survey)
    assert min(done.values()) > 0
    out.unlink()
    survey.update(dict.fromkeys(survey, 0))
    job.run_joint(others, out, options)
    assert done == survey and out.read_bytes() == found


def test_an_output_of_another_job_is_refused_before_the_survey(tmp_path, monkeypatch, survey):
    names, _ = write_exposures(tmp_path, side=60)
    out = tmp_path / "b.fits"
    again = stop(monkeypatch, job, "restore_window", 2)
    with pytest.raises(KeyboardInterrupt):
        job.run_joint(names, out, OPTIONS)
    again()
    survey.update(dict.fromkeys(survey, 0))
    with pytest.raises(UsageError, match="begun by another job"):
        job.run_joint(names, out, UpscaleOptions(joint=True, scale=2, refine=False, target_fwhm=2.2))
    assert not any(survey.values())
    job.run_joint(names, out, OPTIONS)
    assert not any(survey.values()) and not beside(out)
