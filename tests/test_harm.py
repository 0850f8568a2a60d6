"""Files and names that mean harm: nothing outside is written or read, no code runs, and every refusal is one line."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import torch
from astropy.io import fits
from typer.testing import CliRunner, Result

import sciresdiff
from sciresdiff.cli.app import app
from sciresdiff.errors import InputError, SciresdiffError
from sciresdiff.io.atomic import write_atomic
from sciresdiff.parse import parse_json, parse_toml
from sciresdiff.report.record import write_long_csv
from sciresdiff.report.templates import environment
from sciresdiff.restoration import model as models
from sciresdiff.restoration.model import Model
from sciresdiff.restoration.model_file import checksum, describe_damage
from sciresdiff.restoration.prior import Prior, PriorConfig
from sciresdiff.run.journal import open_journal
from sciresdiff.text import cell, json_line, visible
from sciresdiff.training.loop import MAGIC, LoopOptions, Run

PHYSICS = ("--model", "physics", "--scale", "2", "--psf", "gaussian:fwhm=3px")
PRECIOUS = b"precious\n" * 10


def sky(side: int = 32) -> np.ndarray:
    """A noisy sky with a source."""
    image = np.random.default_rng(3).normal(100, 3, (side, side)).astype("f4")
    image[side // 2, side // 2] += 300
    return image


def run(*words: object) -> Result:
    """A command in this process; no fault of the program, whatever it was given."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert "Traceback" not in result.output and "fault of the program" not in result.output, result.output
    return result


def refused(code: int, *words: object) -> str:
    """The one line with which a command ends."""
    result = run(*words)
    lines = result.stderr.splitlines()
    assert result.exit_code == code, result.output
    assert len(lines) == 1, lines
    return lines[0]


# ---------------------------------------------------------------- planted names


def symbolic(place: Path, victim: Path) -> None:
    place.symlink_to(victim)


def hard(place: Path, victim: Path) -> None:
    place.hardlink_to(victim)


def dangling(place: Path, victim: Path) -> None:
    victim.rename(victim.with_name("kept"))
    place.symlink_to(victim)


def pipe(place: Path, victim: Path) -> None:
    os.mkfifo(place)


PLANTS = (symbolic, hard, dangling, pipe)
Plant = Callable[[Path, Path], None]


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file that nobody named."""
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "elsewhere" / "victim.txt"
    path.write_bytes(PRECIOUS)
    return path


def is_whole(victim: Path) -> bool:
    """Whether the victim, which `dangling` moves, was left as it was."""
    kept = victim.with_name("kept")
    return (kept if kept.exists() else victim).read_bytes() == PRECIOUS and not (kept.exists() and victim.exists())


@pytest.mark.parametrize("name", [".out.fits.journal", ".out.fits.part", ".out.fits.lock", ".out.fits.1-of-2.journal"])
@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_name_beside_an_output_is_not_written_to(
    tmp_path: Path, victim: Path, plant: Plant, name: str
) -> None:
    fits.writeto(tmp_path / "cube.fits", np.stack([sky(48)] * 5))
    plant(tmp_path / name, victim)
    line = refused(2, "upscale", tmp_path / "cube.fits", "-o", tmp_path / "out.fits", *PHYSICS, "-q")
    assert name in line and "remove it" in line
    assert is_whole(victim) and not (tmp_path / "out.fits").exists()


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_manifest_is_not_written_to(tmp_path: Path, victim: Path, plant: Plant) -> None:
    fits.writeto(tmp_path / "a.fits", sky())
    plant(tmp_path / "m.jsonl", victim)
    words = "upscale", tmp_path / "a.fits", "-o", tmp_path / "out.fits", *PHYSICS, "-q", "--manifest"
    assert "m.jsonl" in refused(2, *words, tmp_path / "m.jsonl") and is_whole(victim)


@pytest.mark.parametrize("plant", PLANTS)
def test_planted_names_of_temporary_files_are_replaced_and_not_followed(
    tmp_path: Path, victim: Path, plant: Plant
) -> None:
    place = tmp_path / "page.html"
    plant(tmp_path / f".{os.getpid()}.part.page.html", victim)
    write_atomic({place: lambda part: part.write_text("page")})
    assert place.read_text() == "page" and is_whole(victim) and not place.is_symlink()
    assert stat.S_IMODE(place.stat().st_mode) == 0o666 & ~umask()


@pytest.mark.parametrize("name", ["out.fits", "out.fits.json", "out.tif", "out_err.tif"])
def test_an_output_that_is_a_link_is_replaced_and_what_it_leads_to_is_not(
    tmp_path: Path, victim: Path, name: str
) -> None:
    source, output = ("a.fits", "out.fits") if "fits" in name else ("a.tif", "out.tif")
    fits.writeto(tmp_path / "a.fits", sky())
    tifffile.imwrite(tmp_path / "a.tif", sky())
    (tmp_path / name).symlink_to(victim)
    words = "upscale", tmp_path / source, "-o", tmp_path / output, *PHYSICS, "--gain", 1, "--read-noise", 3, "-q"
    assert run(*words, "--overwrite").exit_code == 0
    assert is_whole(victim) and not (tmp_path / name).is_symlink() and (tmp_path / output).is_file()


def test_a_dangling_link_is_an_output_that_exists(tmp_path: Path) -> None:
    (tmp_path / "out.csv").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SciresdiffError, match="exists"):
        write_long_csv([], tmp_path / "out.csv")
    assert not (tmp_path / "nowhere").exists()


def test_a_journal_that_becomes_a_link_between_two_runs_is_refused(tmp_path: Path, victim: Path) -> None:
    target = tmp_path / "record"
    with pytest.raises(ValueError, match="stop"), open_journal(target, None, 3, {"a": "b"}) as journal:
        journal.put(0, (), {})
        raise ValueError("stop")
    (tmp_path / ".record.journal").unlink()
    (tmp_path / ".record.journal").symlink_to(victim)
    with pytest.raises(OSError, match="link"), open_journal(target, None, 3, {"a": "b"}):
        pass
    assert is_whole(victim)


@pytest.mark.parametrize("plant", PLANTS)
def test_planted_names_beside_a_model_are_not_written_to(tmp_path: Path, victim: Path, plant: Plant) -> None:
    run = started(tmp_path)
    run.file.unlink()
    plant(run.file, victim)
    if plant is not pipe:
        run.save()
        assert is_whole(victim) and not run.file.is_symlink()
    else:
        with pytest.raises(InputError, match=r"m\.state: .* \(no file"):
            started(tmp_path)


def umask() -> int:
    """The process's own."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


# ---------------------------------------------------------------- models


def tiny() -> Model:
    """An untrained model."""
    torch.manual_seed(0)
    prior = Prior(PriorConfig(2, width=8, depth=1, stages=1))
    with torch.no_grad():
        for values in prior.parameters():
            values.add_(0.01)
    return Model(prior, card={"name": "tiny", "kind": "astro", "scale": 2, "target_fwhm_px": 2.0, "range": {}})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Its file."""
    models.save(tiny(), tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def parts(path: Path) -> tuple[dict, bytearray]:
    """Header and tensors of a safetensors file."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), bytearray(content[end:])


def write_parts(path: Path, header: dict, body: bytes) -> None:
    """Write a safetensors file as it comes."""
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def with_value(value: float) -> Callable[[dict, bytearray], None]:
    def spoil(header: dict, body: bytearray) -> None:
        np.frombuffer(body, "<f4")[len(body) // 8] = value

    return spoil


def one_bit(header: dict, body: bytearray) -> None:
    body[len(body) // 2] ^= 0x10


def random_weights(header: dict, body: bytearray) -> None:
    weights = np.frombuffer(body, "<f4")
    weights[:] = np.random.default_rng(0).normal(0, 0.1, weights.size)


def of_card(**changes: object) -> Callable[[dict, bytearray], None]:
    def spoil(header: dict, body: bytearray) -> None:
        card = json.loads(header["__metadata__"]["sciresdiff"])
        header["__metadata__"]["sciresdiff"] = json.dumps({**card, **changes})

    return spoil


def without_checksum(then: Callable[[dict, bytearray], None]) -> Callable[[dict, bytearray], None]:
    def spoil(header: dict, body: bytearray) -> None:
        card = json.loads(header["__metadata__"]["sciresdiff"])
        card.pop("checksum")
        header["__metadata__"]["sciresdiff"] = json.dumps(card)
        then(header, body)

    return spoil


def of_header(change: Callable[[dict], object]) -> Callable[[dict, bytearray], None]:
    def spoil(header: dict, body: bytearray) -> None:
        change(header[next(key for key in header if key != "__metadata__")])

    return spoil


HUGE = {"scale": 2, "width": 10**9, "depth": 1, "stages": 1}
SPOILS: dict[str, tuple[Callable[[dict, bytearray], None], str]] = {
    "nan": (with_value(np.nan), "not finite"),
    "inf": (with_value(-np.inf), "not finite"),
    "1e30": (with_value(1e30), "no weight"),
    "one bit": (one_bit, "checksum"),
    "random": (random_weights, "checksum"),
    "another range": (of_card(prior={"scale": 2, "width": 8, "depth": 1, "stages": 1, "bound": 30.0}), "checksum"),
    "nan, no checksum": (without_checksum(with_value(np.nan)), "not finite"),
    "card of a giant": (without_checksum(of_card(prior=HUGE)), "states 1000000000"),
    "card without end": (without_checksum(of_card(prior={"scale": 2, "late": 10**8})), "states 100000000"),
    "card of another": (without_checksum(of_card(prior={"scale": 2})), "do not fit"),
    "unknown network": (without_checksum(of_card(prior={"scale": 2, "backbone": "os.system"})), "do not fit"),
    "unknown kind": (without_checksum(of_card(prior={"kind": "os:system"})), "do not fit"),
    "card without a prior": (without_checksum(of_card(prior=None)), "do not fit"),
    "card of numbers": (without_checksum(of_card(prior=3, refiner=[4])), "do not fit"),
    "another format": (of_card(format=9), "format 9"),
    "deep card": (lambda h, b: h["__metadata__"].update(sciresdiff="[" * 90_000), "card"),
    "card is a list": (lambda h, b: h["__metadata__"].update(sciresdiff="[]"), "card"),
    "no card": (lambda h, b: h.pop("__metadata__"), "no sciresdiff card"),
    "overlap": (of_header(lambda t: t.update(data_offsets=[0, 8])), "cannot be read"),
    "beyond the end": (of_header(lambda t: t.update(data_offsets=[0, 2**60])), "cannot be read"),
    "another type": (of_header(lambda t: t.update(dtype="I32")), ""),
    "no such type": (of_header(lambda t: t.update(dtype="X9")), "cannot be read"),
    "another shape": (of_header(lambda t: t.update(shape=[2**40, 2**40])), "cannot be read"),
    "cut": (lambda h, b: b.__delitem__(slice(len(b) // 2, None)), "cannot be read"),
}


@pytest.mark.parametrize("what", SPOILS)
def test_a_damaged_model_is_refused(tmp_path: Path, model: Path, what: str) -> None:
    spoil, word = SPOILS[what]
    header, body = parts(model)
    spoil(header, body)
    write_parts(tmp_path / "bad.safetensors", header, body)
    fits.writeto(tmp_path / "a.fits", sky())
    words = "upscale", tmp_path / "a.fits", "-o", tmp_path / "o.fits", "--psf", "gaussian:fwhm=3px", "--no-refine", "-q"
    line = refused(3, *words, "--model", tmp_path / "bad.safetensors")
    assert "bad.safetensors" in line and word in line and not (tmp_path / "o.fits").exists()


STARTS = {
    "header of 2^60 bytes": (2**60).to_bytes(8, "little") + b"{}",
    "header longer than the file": (99_999_999).to_bytes(8, "little") + b"{}",
    "nothing": b"",
    "eight bytes": bytes(8),
    "text": b"not a model\n" * 40,
    "deep header": (80_000).to_bytes(8, "little") + b'{"a":' + b"[" * 80_000,
    "random": np.random.default_rng(1).bytes(4000),
}


@pytest.mark.parametrize("what", STARTS)
@pytest.mark.parametrize("name", ["bad.safetensors", "bad"])
def test_what_is_no_model_is_refused(tmp_path: Path, what: str, name: str) -> None:
    (tmp_path / name).write_bytes(STARTS[what])
    assert name in refused(3, "models", tmp_path / name)
    words = "train-refiner", "--prior", tmp_path / name, "-o", tmp_path / "o", "--images", 8
    assert name in refused(3, *words) and not (tmp_path / "o").exists()


class Bomb:
    """What runs a command when it is unpickled."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.made),)


@pytest.mark.parametrize("name", ["bad.pth", "bad.safetensors", "bad"])
@pytest.mark.parametrize("by_torch", [True, False])
def test_a_model_runs_no_code(tmp_path: Path, name: str, by_torch: bool) -> None:
    bomb, made = {"weight": Bomb(tmp_path / "made")}, tmp_path / "made"
    if by_torch:
        torch.save(bomb, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(bomb))
    line = refused(3, "train-refiner", "--prior", tmp_path / name, "-o", tmp_path / "o", "--images", 8)
    assert name in line and not made.exists()


def test_a_model_without_a_suffix_is_taken_for_what_it_holds(tmp_path: Path, model: Path) -> None:
    for name in ("mine", "mine.v2", "mine.pth", os.fsdecode(b"min\xe9")):
        model.with_name(name).write_bytes(model.read_bytes())
        assert models.has_card(model.with_name(name)) and models.load(str(model.with_name(name))).is_checked


def test_a_model_without_a_checksum_is_used_and_that_is_said(tmp_path: Path, model: Path) -> None:
    header, body = parts(model)
    without_checksum(lambda h, b: None)(header, body)
    write_parts(tmp_path / "old.safetensors", header, body)
    fits.writeto(tmp_path / "a.fits", sky())
    words = "upscale", tmp_path / "a.fits", "--psf", "gaussian:fwhm=3px", "--no-refine", "--overwrite"
    old = run(*words, "-o", tmp_path / "o.fits", "--model", tmp_path / "old.safetensors")
    new = run(*words, "-o", tmp_path / "n.fits", "--model", model)
    assert old.exit_code == new.exit_code == 0
    assert "no checksum" in old.stderr and "checksum" not in new.stderr
    assert (fits.getdata(tmp_path / "o.fits", "SCI") == fits.getdata(tmp_path / "n.fits", "SCI")).all()
    assert models.load(str(tmp_path / "old.safetensors")).hash == models.load(str(model)).hash


def test_shipped_models_hold_their_checksum() -> None:
    for card in models.shipped_cards():
        found = models.load(card["name"])
        assert found.is_checked and card["checksum"].startswith(found.hash) and len(card["checksum"]) == 64


def test_the_checksum_is_of_what_an_image_depends_on() -> None:
    card = {"prior": {"scale": 2}, "calibration": {"a": 1.5}, "name": "x", "trained": {"minutes": 3}}
    weights = {"prior.a": torch.arange(6.0).reshape(2, 3), "prior.b": torch.zeros(0)}
    one = checksum(card, weights)
    assert checksum({**card, "name": "y", "trained": {}, "checksum": one}, weights) == one
    others = [
        checksum({**card, "calibration": {"a": 1.25}}, weights),
        checksum(card, {**weights, "prior.a": torch.arange(6.0).reshape(3, 2)}),
        checksum(card, {**weights, "prior.a": torch.arange(6.0).reshape(2, 3).double()}),
        checksum(card, {"prior.a": weights["prior.a"]}),
        checksum(card, {**weights, "prior.a": torch.nextafter(weights["prior.a"], torch.tensor(9.0))}),
    ]
    assert len({one, *others}) == 1 + len(others)


def test_sound_tensors_are_not_called_damaged() -> None:
    assert describe_damage(torch.tensor([2**40])) is None  # counts and places are integers
    assert describe_damage(torch.zeros(0)) is None and describe_damage(torch.tensor([5e3])) is None


def test_outputs_have_the_mode_that_the_user_wants(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        models.save(tiny(), tmp_path / "m.safetensors")
        started(tmp_path)
        fits.writeto(tmp_path / "a.fits", sky())
        run(
            "upscale",
            tmp_path / "a.fits",
            "-o",
            tmp_path / "o.fits",
            *PHYSICS,
            "-q",
            "--manifest",
            tmp_path / "m.jsonl",
        )
    finally:
        os.umask(before)
    for name in ("m.safetensors", "m.state", "o.fits", "o.fits.json", "m.jsonl"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o640, name


# ---------------------------------------------------------------- states of trainings


def started(folder: Path, width: int = 4) -> Run:
    """A run of one step, saved."""
    torch.manual_seed(0)
    net = torch.nn.Linear(width, 1)
    made = Run(net, folder / "m.state", LoopOptions(batch=2), torch.device("cpu"))
    made.step(torch.ones(2, width), lambda module, batch, _: (module(batch).square().mean(), {}))
    made.save()
    return made


STATES: dict[str, Callable[[bytes], bytes]] = {
    "half": lambda b: b[: len(b) // 2],
    "nothing": lambda b: b"",
    "start only": lambda b: b[: len(MAGIC) + 5],
    "zeros": lambda b: bytes(len(b)),
    "random": lambda b: np.random.default_rng(0).bytes(len(b)),
    "one bit": lambda b: b[: len(b) // 2] + bytes([b[len(b) // 2] ^ 1]) + b[len(b) // 2 + 1 :],
    "appended": lambda b: b + b"x",
    "older, half": lambda b: b[len(MAGIC) + 32 :][:300],
    "text": lambda b: b"hello\n",
    "a list": lambda b: packed([1, 2, 3]),
    "no network": lambda b: packed({"module": {}, "average": {}, "optimizer": {}, "state": {}}),
    "a tensor": lambda b: packed(torch.zeros(3)),
}


def packed(value: object) -> bytes:
    """What torch.save makes of it."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("what", STATES)
def test_a_damaged_state_is_refused(tmp_path: Path, what: str) -> None:
    file = started(tmp_path).file
    file.write_bytes(STATES[what](file.read_bytes()))
    before = file.read_bytes()
    with pytest.raises(InputError, match=r"m\.state: a training cannot be resumed .* --no-resume") as caught:
        started(tmp_path)
    assert "\n" not in str(caught.value) and file.read_bytes() == before


def test_a_state_of_another_network_is_refused(tmp_path: Path) -> None:
    started(tmp_path, width=4)
    with pytest.raises(InputError, match=r"m\.state"):
        started(tmp_path, width=5)


@pytest.mark.parametrize("by_torch", [True, False])
def test_a_state_runs_no_code(tmp_path: Path, by_torch: bool) -> None:
    bomb = {"module": Bomb(tmp_path / "made")}
    (tmp_path / "m.state").write_bytes(packed(bomb) if by_torch else pickle.dumps(bomb))
    with pytest.raises(InputError, match=r"m\.state"):
        started(tmp_path)
    assert not (tmp_path / "made").exists()


def test_a_whole_state_is_resumed(tmp_path: Path) -> None:
    assert started(tmp_path).state.seen == 2 and started(tmp_path).state.seen == 4


# ---------------------------------------------------------------- names

NAMES = {
    "no UTF-8": os.fsdecode(b"m\xe9ssier.fits"),
    "title of the terminal": "a\x1b]0;owned\x07\x1b[31mred.fits",
    "C1": "a\x9b31mred.fits",
    "direction": "a\u202estif.fits",
    "newline": "a\nWARNING forged.fits",
    "script": "x<!--<script>y.fits",
    "end of script": "x<\u2028script>.fits",
    "formula": "=HYPERLINK(1).fits",
    "attribute": "a\" onerror='b.fits",
    "markup of rich": "[red]a[bold].fits",
    "template": "{{ 7 * 7 }}{% raw %}.fits",
}
OBEYED = "\x1b\x07\x9b\u202e\u2028"


@pytest.mark.parametrize("what", NAMES)
def test_a_name_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.chdir(tmp_path)
    name = NAMES[what]
    fits.writeto("a.fits", sky(), fits.Header({"BUNIT": "electron"}))
    os.rename("a.fits", name)
    results = [
        run("info", name),
        run("info", name + ".gone.fits"),
        run("upscale", name, "-o", "o.fits", *PHYSICS, "--manifest", "m.jsonl", "--json"),
        run("evaluate", name, "--report", "r.html", "--csv", "c.csv", "--csv-long", "l.csv", "--baselines", "none"),
    ]
    assert [result.exit_code for result in results] == [0, 3, 0, 0]
    for result in results:
        assert not set(OBEYED) & set(result.output)
        assert not any(line.startswith("WARNING") for line in result.stderr.splitlines())
    # what is read by programs says the very name
    assert json.loads(results[2].stdout)["input"] == name
    assert json.loads((tmp_path / "m.jsonl").read_text("utf-8"))["input"] == name
    assert json.loads((tmp_path / "o.fits.json").read_text("utf-8"))["input"] == name
    # the page
    page = (tmp_path / "r.html").read_text("utf-8")
    inside = page.partition('id="record">')[2].partition("</script>")[0]
    assert json.loads(inside)["high"] == name and "<" not in inside
    assert "<!--<script" not in page and page.count("<script") == 2 and not set(OBEYED) & set(page)
    shown = page.replace(inside, "")
    assert "onerror='b" not in shown and "49" not in page.partition("<title>")[2].partition("</title>")[0]
    # the tables
    for table in ("c.csv", "l.csv"):
        text = (tmp_path / table).read_text("utf-8")
        assert not set(OBEYED) & set(text) and ",=" not in text and "\n=" not in text


def test_a_model_card_does_no_harm(tmp_path: Path) -> None:
    bad = "evil\x1b[31m[/b]\u202e<script>é"
    models.save(tiny().with_card(name=bad, kind="[/red]"), tmp_path / "m.safetensors")
    fits.writeto(tmp_path / "a.fits", sky())
    words = "upscale", tmp_path / "a.fits", "-o", tmp_path / "o.fits", "--psf", "gaussian:fwhm=3px", "--no-refine"
    results = [
        run("models", tmp_path / "m.safetensors"),
        run("models", tmp_path / "m.safetensors", "--json"),
        run(*words, "--model", tmp_path / "m.safetensors"),
    ]
    assert [result.exit_code for result in results] == [0, 0, 0]
    assert not set(OBEYED) & set("".join(result.output for result in results))
    assert json.loads(results[1].stdout)["name"] == bad


@pytest.mark.parametrize("card", ["OBJECT", "BUNIT", "INSTRUME", "FILTER"])
def test_a_header_does_no_harm(tmp_path: Path, card: str) -> None:
    fits.writeto(tmp_path / "a.fits", sky(), fits.Header({card: "=xx[31m<script>"}))
    path = tmp_path / "a.fits"
    path.write_bytes(path.read_bytes().replace(b"=xx[31m", b"=\x1b\x9b[31m"))
    results = [
        run("info", path),
        run("info", path, "--json"),
        run("upscale", path, "-o", tmp_path / "o.fits", *PHYSICS),
    ]
    assert not set("\x1b\x9b") & set("".join(result.output for result in results))
    assert all(result.exit_code in (0, 3) for result in results)


@pytest.mark.parametrize("unit", ["\\u00B5m\x1b[31m", "um\x07"])
def test_metadata_of_a_tiff_do_no_harm(tmp_path: Path, unit: str) -> None:
    meta = {"unit": unit, "Info": "x\x1b]0;a\x07"}
    tifffile.imwrite(tmp_path / "a.tif", sky(), imagej=True, metadata=meta, resolution=(4.0, 4.0))
    tifffile.imwrite(tmp_path / "b.tif", sky(), description="=HYPERLINK(\x1b[31m)", metadata=None)
    for name in ("a.tif", "b.tif"):
        results = [run("info", tmp_path / name), run("info", tmp_path / name, "--json")]
        assert not set(OBEYED) & set("".join(result.output for result in results))
        output = tmp_path / f"{name[0]}_high.ome.tif"
        assert run("upscale", tmp_path / name, "-o", output, *PHYSICS, "-q").exit_code == 0
        assert run("info", output).exit_code == 0  # its XML can be read


def test_text_is_seen_and_read_back() -> None:
    assert visible("a\x1b[31m\x9b\n\u202e" + os.fsdecode(b"\xe9")) == "a\\x1b[31m\\x9b\\n\\u202e\\xe9"
    assert visible("µm 星 é") == "µm 星 é"
    for text in (*NAMES.values(), "µm 星 é", "\ud800", "\x7f"):
        line = json_line({"a": text})
        assert json.loads(line.encode()) == {"a": text} and not set(OBEYED) & set(line)
    assert [cell(x) for x in ("=1", "+1", "-a", "@x", "\t=1", "a=1", -1.5, None)] == [
        "'=1", "'+1", "'-a", "'@x", "'\\t=1", "a=1", -1.5, None,
    ]  # fmt: skip


def test_a_value_of_a_template_is_no_template_and_no_markup() -> None:
    shown = environment().from_string("{{ x }}").render(x="{{ 7 * 7 }}<b>\x1b")
    assert shown == "{{ 7 * 7 }}&lt;b&gt;\\x1b"


# ---------------------------------------------------------------- files that name others

OME = (
    '<?xml version="1.0"?>{}<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:0">{}<Image '
    'ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="float" SizeX="32" SizeY="32" SizeZ="1" SizeC="1" '
    'SizeT="{}">{}</Pixels></Image></OME>'
)


def part_of(name: str, t: int = 0, uuid: int = 1) -> str:
    """A plane in another file."""
    return f'<TiffData FirstT="{t}" IFD="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{uuid}</UUID></TiffData>'


def ome_member(folder: Path, secret: Path) -> Path:
    xml = OME.format("", "", 2, part_of("in.ome.tif", 0, 0) + part_of(f"../{secret.name}", 1))
    tifffile.imwrite(folder / "in.ome.tif", sky(), description=xml, metadata=None)
    return folder / "in.ome.tif"


def ome_companion(folder: Path, secret: Path) -> Path:
    (folder / "in.companion.ome").write_text(OME.format("", "", 1, part_of(f"../{secret.name}")))
    return folder / "in.companion.ome"


def ome_absolute(folder: Path, secret: Path) -> Path:
    (folder / "in.companion.ome").write_text(OME.format("", "", 1, part_of(str(secret))))
    return folder / "in.companion.ome"


def ome_binary_only(folder: Path, secret: Path) -> Path:
    (folder.parent / "x.companion.ome").write_text(OME.format("", "", 1, part_of("in.ome.tif")))
    pointer = '<BinaryOnly MetadataFile="../x.companion.ome" UUID="urn:uuid:3"/>'
    xml = f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{pointer}</OME>'
    tifffile.imwrite(folder / "in.ome.tif", sky(), description=xml, metadata=None)
    return folder / "in.ome.tif"


def hdf5_storage(folder: Path, secret: Path) -> Path:
    with h5py.File(folder / "in.h5", "w") as file:
        file.create_dataset("image", (32, 32), "f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
    return folder / "in.h5"


def hdf5_storage_of_variance(folder: Path, secret: Path) -> Path:
    with h5py.File(folder / "in.h5", "w") as file:
        file["image"] = sky()
        file.create_dataset("variance", (32, 32), "f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
    return folder / "in.h5"


def hdf5_link(folder: Path, secret: Path) -> Path:
    with h5py.File(secret.with_suffix(".h5"), "w") as file:
        file["image"] = sky()
    with h5py.File(folder / "in.h5", "w") as file:
        file["image"] = h5py.ExternalLink(f"../{secret.stem}.h5", "/image")
    return folder / "in.h5"


def hdf5_soft_link(folder: Path, secret: Path) -> Path:
    with h5py.File(secret.with_suffix(".h5"), "w") as file:
        file["group/image"] = sky()
    with h5py.File(folder / "in.h5", "w") as file:
        file["other"] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "/group")
        file["image"] = h5py.SoftLink("/other/image")
    return folder / "in.h5"


def hdf5_virtual(folder: Path, secret: Path) -> Path:
    with h5py.File(secret.with_suffix(".h5"), "w") as file:
        file["image"] = sky()
    layout = h5py.VirtualLayout((32, 32), "f4")
    layout[:] = h5py.VirtualSource(f"../{secret.stem}.h5", "image", (32, 32))
    with h5py.File(folder / "in.h5", "w") as file:
        file.create_virtual_dataset("image", layout)
    return folder / "in.h5"


LEADING_OUT = (
    ome_member, ome_companion, ome_absolute, ome_binary_only, hdf5_storage, hdf5_storage_of_variance, hdf5_link,
    hdf5_soft_link, hdf5_virtual,
)  # fmt: skip


@pytest.mark.parametrize("make", LEADING_OUT)
def test_files_outside_the_folder_are_not_read_unasked(tmp_path: Path, make: Callable[[Path, Path], Path]) -> None:
    folder, secret = tmp_path / "in", tmp_path / "secret.tif"
    folder.mkdir()
    tifffile.imwrite(secret, sky() + 1000)
    path = make(folder, secret)
    for words in (("info", path), ("upscale", path, "-o", tmp_path / "o.tif", *PHYSICS, "-q"),
                  ("degrade", path, "-o", tmp_path / "d.tif", "--scale", 2, "--gain", 1, "-q")):  # fmt: skip
        line = refused(3, *words)
        assert path.name in line and "--allow-outside" in line
    assert run("info", path, "--allow-outside").exit_code == 0
    if make is not hdf5_storage:  # whose bytes are no pixels
        assert run("upscale", path, "-o", tmp_path / "o.fits", *PHYSICS, "-q", "--allow-outside").exit_code == 0


def test_files_of_a_set_in_its_folder_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "below").mkdir()
    xml = OME.format("", "", 2, part_of("in.ome.tif", 0, 0) + part_of("below/b.tif", 1))
    tifffile.imwrite(tmp_path / "in.ome.tif", sky(), description=xml, metadata=None)
    tifffile.imwrite(tmp_path / "below" / "b.tif", sky())
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["image"] = sky()
    layout = h5py.VirtualLayout((32, 32), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "image", (32, 32))
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_virtual_dataset("image", layout)
        file["linked"] = h5py.ExternalLink("other.h5", "/image")
        file["soft"] = h5py.SoftLink("/image")
    monkeypatch.chdir(tmp_path)
    for name in ("in.ome.tif", "in.h5", "in.h5[linked]", "in.h5[soft]"):
        assert run("info", name).exit_code == 0 and run("info", tmp_path / name).exit_code == 0, name


def test_a_file_that_names_itself_by_an_old_path_is_read(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    xml = OME.format("", "", 1, part_of(str(tmp_path / "old.ome.tif"), 0, 0))
    for place in (tmp_path / "old.ome.tif", tmp_path / "new" / "in.ome.tif"):
        tifffile.imwrite(place, sky(), description=xml, metadata=None)
    assert run("info", tmp_path / "new" / "in.ome.tif").exit_code == 0


def test_a_training_set_does_not_lead_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["low"] = np.zeros((2, 8, 8), "f4")
    with h5py.File(tmp_path / "in" / "set.h5", "w") as file:
        file["high"], file.attrs["scale"] = np.zeros((2, 16, 16), "f4"), 2
        file["low"] = h5py.ExternalLink("../secret.h5", "/low")
    line = refused(3, "train-prior", tmp_path / "in" / "set.h5", "-o", tmp_path / "m", "--scale", 2, "--images", 8)
    assert "set.h5" in line and "outside" in line


@pytest.mark.parametrize("inside", [True, False])
def test_links_in_a_zarr_store_that_lead_out_are_refused(tmp_path: Path, inside: bool) -> None:
    zarr = pytest.importorskip("zarr")
    store = tmp_path / "in.zarr"
    zarr.create_array(str(store), data=sky(), chunks=(16, 16))
    chunk = next(p for p in store.rglob("*") if p.is_file() and "json" not in p.name)
    place = (store if inside else tmp_path) / "moved"
    chunk.rename(place)
    chunk.symlink_to(place)
    if inside:
        assert run("info", store).exit_code == 0
    else:
        assert "--allow-outside" in refused(3, "info", store)
        assert run("info", store, "--allow-outside").exit_code == 0


# ---------------------------------------------------------------- bombs


def lol(levels: int = 9) -> str:
    """Entities that stand for ten of the next."""
    names = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(levels))
    return f'<!DOCTYPE l [<!ENTITY e0 "aaaaaaaaaa">{names}]>'


XML: dict[str, tuple[str, str, object, str]] = {
    "deep": ("", "<a>" * 50_000 + "</a>" * 50_000, 1, "<TiffData/>"),
    "entities": (lol(), "<Description>&e9;</Description>", 1, "<TiffData/>"),
    "one long entity": ('<!DOCTYPE l [<!ENTITY a "' + "a" * 50_000 + '">]>', "<Description>" + "&a;" * 50_000
                        + "</Description>", 1, "<TiffData/>"),  # fmt: skip
    "entity of a file": ('<!DOCTYPE l [<!ENTITY a SYSTEM "file:///etc/passwd">]>', "<Description>&a;</Description>", 1,
                         "<TiffData/>"),  # fmt: skip
    "planes": ("", "", 10**12, "<TiffData/>"),
    "count of planes": ("", "", 1, '<TiffData PlaneCount="1000000000"/>'),
    "BinData": ("", "", 1, '<BinData Length="99999999999" Compression="zlib">eJw=</BinData>'),
    "a URL": ("", "", 1, part_of("http://localhost:1/a.tif")),
}  # fmt: skip


@pytest.mark.parametrize("end", ["ome.tif", "companion.ome"])
@pytest.mark.parametrize("what", XML)
def test_xml_bombs_stay_small(tmp_path: Path, what: str, end: str) -> None:
    path, xml = tmp_path / f"a.{end}", OME.format(*XML[what])
    if end == "ome.tif":
        tifffile.imwrite(path, sky(), description=xml.encode(), metadata=None)
    else:
        path.write_text(xml)
    begun = time.monotonic()
    result = run("upscale", path, "-o", tmp_path / "o.ome.tif", *PHYSICS, "-q")
    assert result.exit_code in (0, 3) and len(result.stderr.splitlines()) == (result.exit_code == 3)
    assert time.monotonic() - begun < 20  # of some 0.5 s, on a machine that others use
    assert "root:" not in result.output


@pytest.mark.parametrize("tail", [True, False])
def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tail: bool) -> None:
    plain = io.BytesIO()
    fits.PrimaryHDU(sky()).writeto(plain)
    with gzip.open(tmp_path / "a.fits.gz", "wb", 1) as file:
        file.write(plain.getvalue() if tail else b"")
        for _ in range(64):
            file.write(bytes(1 << 20))
    written: list[int] = []

    class Counting(io.FileIO):
        def write(self, content: bytes) -> int:  # type: ignore[override]
            written.append(len(content))
            return super().write(content)

    monkeypatch.setattr("tempfile.TemporaryFile", lambda: Counting(tmp_path / "space", "wb+"))
    result = run("info", tmp_path / "a.fits.gz")
    assert result.exit_code == (0 if tail else 3)
    assert sum(written) < 1 << 20


SIZES = {
    "1e9 x 1e9": {"NAXIS1": 10**9, "NAXIS2": 10**9},
    "beyond 2^63": {"NAXIS1": 2**31, "NAXIS2": 2**33},
    "1e10 axes": {"NAXIS": 10**10},
    "negative": {"NAXIS1": -5},
    "huge heap": {"PCOUNT": 2**40},
}


@pytest.mark.parametrize("packed_too", [True, False])
@pytest.mark.parametrize("what", SIZES)
def test_absurd_sizes_of_fits_are_refused(tmp_path: Path, what: str, packed_too: bool) -> None:
    plain = io.BytesIO()
    fits.PrimaryHDU(sky()).writeto(plain)
    content = plain.getvalue()
    for key, number in SIZES[what].items():
        at = content.find(key.ljust(8).encode() + b"=")
        card = f"{key:8}= {number:>20}".ljust(80).encode()
        content = content[:at] + card + content[at + 80 :] if at >= 0 else content.replace(
            b"END".ljust(80), card + b"END".ljust(80), 1)[:2880] + content[2880:]  # fmt: skip
    path = tmp_path / ("a.fits.gz" if packed_too else "a.fits")
    path.write_bytes(gzip.compress(content) if packed_too else content)
    assert path.name in refused(3, "info", path)


def test_absurd_shapes_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("image", (2**40, 2**40), "f4", chunks=(16, 16))
    assert "a.h5" in refused(3, "info", tmp_path / "a.h5")
    tifffile.imwrite(tmp_path / "a.tif", sky())
    content = bytearray((tmp_path / "a.tif").read_bytes())
    for place in directory(content):
        if int.from_bytes(content[place : place + 2], "little") in (256, 257):
            content[place + 2 : place + 12] = bytes([4, 0, 1, 0, 0, 0, 255, 255, 255, 127])
    (tmp_path / "b.tif").write_bytes(content)
    assert "b.tif" in refused(3, "info", tmp_path / "b.tif")


def directory(content: bytes) -> range:
    """Places of the tags of a small TIFF."""
    at = int.from_bytes(content[4:8], "little")
    return range(at + 2, at + 2 + 12 * int.from_bytes(content[at : at + 2], "little"), 12)


def test_directories_in_a_circle_end(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", sky())
    content = bytearray((tmp_path / "a.tif").read_bytes())
    end = directory(content).stop
    content[end : end + 4] = content[4:8]
    (tmp_path / "a.tif").write_bytes(content)
    assert run("info", tmp_path / "a.tif").exit_code in (0, 3)


DEEP = {
    "arrays": "a = " + "[" * 20_000 + "]" * 20_000,
    "tables": "a = " + "{a=" * 20_000 + "1" + "}" * 20_000,
    "dotted": ".".join("a" * 20_000) + " = 1",
    "large": "a = 1\n" * 400_000,
    "long number": "a = " + "9" * 10_000,
    "no UTF-8": b"a = '\xe9'",
    "not TOML": "a = = 1",
}


@pytest.mark.parametrize("option", ["--config", "--recipe", "--method", "--limits"])
@pytest.mark.parametrize("what", DEEP)
def test_deep_or_large_toml_is_refused(tmp_path: Path, what: str, option: str) -> None:
    text = DEEP[what]
    (tmp_path / "x.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    fits.writeto(tmp_path / "a.fits", sky())
    words = {
        "--config": ("upscale", tmp_path / "a.fits", "-o", tmp_path / "o.fits", *PHYSICS),
        "--recipe": ("degrade", tmp_path / "a.fits", "-o", tmp_path / "o.fits", "--scale", 2),
        "--method": ("upscale", tmp_path / "a.fits", "-o", tmp_path / "o.fits", "--model", "astro-x2"),
        "--limits": ("evaluate", tmp_path / "a.fits", "--baselines", "none"),
    }[option]
    line = refused(2, *words, option, tmp_path / "x.toml")
    assert option in line and "x.toml" in line and len(line) < 1000


@pytest.mark.parametrize("what", DEEP)
def test_a_training_refuses_such_a_recipe_too(tmp_path: Path, what: str) -> None:
    text = DEEP[what]
    (tmp_path / "x.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert "--recipe" in refused(2, "train-prior", "-o", tmp_path / "m", "--scale", 2, "--recipe", tmp_path / "x.toml")


@pytest.mark.parametrize("text", ["[" * 90_000, '{"a":' * 90_000, "[" * 200 + "]" * 200, "9" * 10_000 + "x"])
def test_deep_json_is_a_value_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)
    fits.writeto(tmp_path / "a.fits", sky())
    for name in (".a.fits.journal", "m.jsonl", "a.fits.json"):  # none of them is trusted, or needed
        (tmp_path / name).write_text(text + "\n")
    words = "upscale", tmp_path / "a.fits", "-o", tmp_path / "o.fits", *PHYSICS, "--manifest", tmp_path / "m.jsonl"
    assert run(*words).exit_code == 0
    assert run("evaluate", tmp_path / "a.fits", "--baselines", "none").exit_code == 0


def test_sound_toml_and_json_are_read() -> None:
    assert parse_toml('a = [[1, 2], [3]]\n[b.c]\nd = "x"') == {"a": [[1, 2], [3]], "b": {"c": {"d": "x"}}}
    assert parse_json(b'{"a": [{"b": null}]}') == {"a": [{"b": None}]}


# ---------------------------------------------------------------- streams


def shell(folder: Path, line: str, *flags: str) -> tuple[int, str]:
    """Exit code and stderr of a shell line, in which $S is the program."""
    program = " ".join([sys.executable, *flags, "-m", "sciresdiff"])
    env = {**os.environ, "S": program, "U": " ".join(PHYSICS), "PYTHONPATH": str(Path(sciresdiff.__file__).parents[1])}
    done = subprocess.run(["bash", "-c", line], cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("$S upscale a.fits -o o.fits $U --json > /dev/full", 5),
        ("$S upscale a.fits -o o.fits $U 2> /dev/full", 0),
        ("$S upscale a.fits -o o.fits $U <&- >&- 2>&-", 0),
        ("$S upscale a.fits -o o.fits $U --json >&- 2>&-", 0),
        ("$S upscale a.fits -o o.fits $U --json 2>&1 | head -c 1 > /dev/null; exit ${PIPESTATUS[0]}", 0),
    ],
)
def test_a_full_or_closed_stream_leaves_the_output_whole(tmp_path: Path, line: str, code: int) -> None:
    fits.writeto(tmp_path / "a.fits", sky())
    found, told = shell(tmp_path, line)
    assert found == code, told
    with fits.open(tmp_path / "o.fits", checksum=True) as file:
        assert np.isfinite(file["SCI"].data).all()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("$S methods > /dev/full", 5),
        ("$S --help > /dev/full", 5),
        ("$S methods | head -c 1 > /dev/null; exit ${PIPESTATUS[0]}", 0),
        ("$S methods >&- 2>&-", 0),
        ("$S info nowhere.fits 2> /dev/full", 3),
        ("$S info nowhere.fits 2>&-", 3),
    ],
)
def test_a_full_or_closed_stream_has_its_exit_code(tmp_path: Path, line: str, code: int) -> None:
    assert shell(tmp_path, line)[0] == code


def test_nothing_rests_on_assertions(tmp_path: Path) -> None:
    """With -O the same bytes are written, and the same input is refused."""
    fits.writeto(tmp_path / "a.fits", sky())
    (tmp_path / "bad.fits").write_bytes(b"no image")
    line = "$S upscale a.fits bad.fits -o {} $U -q"
    assert shell(tmp_path, line.format("with"))[0] == shell(tmp_path, line.format("without"), "-O")[0] == 3
    made = [(tmp_path / folder / "a_x2.fits").read_bytes() for folder in ("with", "without")]
    assert made[0] == made[1]


def test_a_wrong_value_is_said(tmp_path: Path) -> None:
    line = refused(2, "upscale", "a.fits", "-o", "o.fits", "--scale", "two\x1b")
    assert line.startswith("sciresdiff: --scale: 'two\\x1b' is given, but should be a valid number")
