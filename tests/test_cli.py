"""The door, through its public commands: help, options, batches, errors, exit codes, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

import sciresdiff.jobs
from sciresdiff.cli.app import COMMANDS, app
from sciresdiff.errors import CheckFailed, InputError, ResourceError, UsageError

Run = Callable[..., Result]


@pytest.fixture
def srd() -> Run:
    """Run a command line in this process."""
    return lambda *words, **more: CliRunner().invoke(app, [str(word) for word in words], **more)


@dataclass(frozen=True)
class StandInOptions:
    """What the stand-in job takes."""

    scale: int
    gain: float | None = None
    quantity: str | None = None
    seed: int = 0


@pytest.fixture
def copier(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Instead of ``jobs.degrade``: copies bytes, and fails as the file's text says."""
    problems = {"bad": InputError, "strict": CheckFailed, "full": ResourceError, "usage": UsageError}

    def run(path_in: Path, path_out: Path, options: StandInOptions, *more: object) -> dict[str, Any]:
        text = Path(path_in).read_text()
        if text in problems:
            raise problems[text](f"{path_in}: is {text}")
        if text == "bug":
            raise ZeroDivisionError("one\ntwo")
        if text == "memory":
            raise MemoryError
        if text == "disk":
            raise OSError(28, "No space left on device", str(path_out))
        Path(path_out).write_text(text)
        return {"scale": options.scale, "gain": options.gain, "nothing": float("nan")}

    module = ModuleType("sciresdiff.jobs.degrade")
    vars(module).update(run=run, plan=lambda path, options: vars(options), DegradeOptions=StandInOptions)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(sciresdiff.jobs, "degrade", module, raising=False)
    return module


def files(folder: Path, **texts: str) -> list[Path]:
    """Write ``name=text`` as ``name.fits``."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.fits" for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text)
    return paths


def one_line(result: Result) -> str:
    """The single line on stderr."""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.output
    return lines[0]


# Help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(srd: Run, name: str) -> None:
    for flag in ("-h", "--help"):
        result = srd(name, flag)
        assert result.exit_code == 0
        assert f"Example: sciresdiff {name}" in " ".join(result.stdout.split())


def test_no_words_at_all_show_the_help(srd: Run) -> None:
    result = srd()
    assert result.exit_code == 0
    assert all(name in result.stdout for name in COMMANDS)


def test_help_names_every_option(srd: Run) -> None:
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        shown = srd(name, "--help").stdout
        assert [o for p in command.params for o in p.opts if o.startswith("--") and o not in shown] == []


def test_version(srd: Run) -> None:
    assert srd("--version").stdout == f"sciresdiff {sciresdiff.__version__}\n"


DRAWN_WITH = {"sciresdiff", "typer", "rich", "markdown_it", "mdurl", "pygments", "shellingham", "annotated_doc"} | {
    "_distutils_hack"  # comes with every start of Python
}
"""The libraries that a help page needs."""
PARSED_WITH = {"pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}
"""What typer takes where it finds it."""


@pytest.mark.parametrize(
    "words", [["--help"], ["upscale", "--help"], ["--version"], ["upscale", "x", "-o", "y", "--no"]]
)
def test_words_alone_load_no_library_but_those_that_draw_them(words: list[str]) -> None:
    code = f"import sys; from sciresdiff.cli.app import app; app({words!r}, standalone_mode=False); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    libraries = {name.split(".")[0] for name in loaded} & set(packages_distributions())
    assert {"typer", "rich"} <= libraries <= DRAWN_WITH | (PARSED_WITH if "--help" not in words else set())


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
    ids=["usual", "number", "policy"],
)
def test_threads_sleep_soon_unless_told_otherwise(given: dict[str, str], found: str | None) -> None:
    code = "import os, sys; sys.argv = ['x', '--version']; from sciresdiff.cli.app import main\ntry: main()\n"
    code += "finally: print(os.environ.get('GOMP_SPINCOUNT'))"
    kept = {name: x for name, x in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=kept | given)
    assert told.stdout.splitlines()[-1] == str(found)


# Options


@pytest.mark.parametrize(
    ("module", "kind", "command"),
    [
        ("sciresdiff.jobs.degrade", "DegradeOptions", "degrade"),
        ("sciresdiff.jobs.upscale", "UpscaleOptions", "upscale"),
        ("sciresdiff.jobs.evaluate", "EvaluateOptions", "evaluate"),
        ("sciresdiff.training.options", "TrainOptions", "train-prior train-refiner"),
    ],
)
def test_options_and_commands_agree(module: str, kind: str, command: str) -> None:
    options = getattr(pytest.importorskip(module), kind)
    group: Any = typer.main.get_command(app)
    known = {p.name: p.default for name in command.split() for p in group.commands[name].params}
    for field in fields(options):
        assert field.name in known, f"{kind}.{field.name} has no option in {command}"
        if known[field.name] not in (None, []) and isinstance(field.default, str | int | float | bool):
            assert known[field.name] == field.default, f"{command}: default of {field.name}"


def test_config_gives_defaults_and_an_option_wins(srd: Run, copier: ModuleType, tmp_path: Path) -> None:
    (low,) = files(tmp_path, a="fine")
    config = tmp_path / "c.toml"
    config.write_text('scale = 4\ngain = "2.5"\nquiet = true\n')
    words = ["degrade", low, "-o", tmp_path / "o.fits", "--config", config, "--json"]
    assert json.loads(srd(*words).stdout)["gain"] == 2.5
    record = json.loads(srd(*words, "--scale", 2, "--overwrite").stdout)
    assert (record["scale"], record["gain"]) == (2, 2.5)


def test_config_may_switch_off_what_is_on(srd: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    jobs = pytest.importorskip("sciresdiff.jobs.upscale")
    monkeypatch.setattr(jobs, "run", lambda i, o, options, *_: seen.append(options) or {})
    config = tmp_path / "c.toml"
    (low,) = files(tmp_path, a="")
    for text in ("no-refine = true", "refine = false", "read_noise = 3\nno_refine = true"):
        config.write_text(text)
        assert srd("upscale", low, "-o", tmp_path / "o.fits", "--config", config).exit_code == 0
    assert [options.refine for options in seen] == [False] * 3
    assert seen[-1].read_noise == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [("scael = 4", "unknown key 'scael'"), ("scale = ", "not a TOML file"), (None, "No such file")],
)
def test_a_config_that_cannot_be_used_is_a_usage_error(
    srd: Run, tmp_path: Path, text: str | None, message: str
) -> None:
    config = tmp_path / "c.toml"
    if text is not None:
        config.write_text(text)
    result = srd("degrade", "a.fits", "-o", "b.fits", "--scale", 2, "--config", config)
    assert result.exit_code == 2
    assert one_line(result).startswith(f"sciresdiff: --config: {config}")
    assert message in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("bogus", "No such command"),
        ("upscale", "Missing argument"),
        ("upscale a.fits", "--output"),
        ("upscale a.fits -o b.fits --scael 2", "--scael"),
        ("upscale a.fits -o b.fits --scale 0", "--scale: 0.0 is given"),
        ("upscale a.fits -o b.fits --scale two", "--scale"),
        ("upscale a.fits -o b.fits --gain -1", "--gain: -1 is given"),
        ("upscale a.fits -o b.fits --read-noise nan", "--read-noise: nan is given"),
        ("upscale a.fits -o b.fits --quantity total", "--quantity"),
        ("upscale a.fits -o b.fits --consistency loose", "--consistency"),
        ("upscale a.fits -o b.fits --samples 0", "--samples: 0 is given"),
        ("upscale a.fits -o b.fits --target-fwhm 0", "--target-fwhm: 0.0 is given"),
        ("degrade a.fits -o b.fits --scale 2 --sky -1", "--sky: -1.0 is given"),
        ("train-prior -o m --minutes 0", "--minutes: 0.0 is given"),
    ],
)
def test_options_that_cannot_be_used_say_so_in_one_line(
    srd: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = srd(*words.split())
    assert result.exit_code == 2
    assert message in one_line(result)
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


# Many inputs


def test_one_input_goes_to_the_output_itself(srd: Run, copier: ModuleType, tmp_path: Path) -> None:
    (low,) = files(tmp_path, a="fine")
    assert srd("degrade", low, "-o", tmp_path / "new" / "o.fits", "--scale", 2).exit_code == 0
    assert (tmp_path / "new" / "o.fits").read_text() == "fine"


@pytest.mark.parametrize("how", ["files", "folder", "glob", "list", "stdin"])
def test_several_inputs_go_into_a_folder(srd: Run, copier: ModuleType, tmp_path: Path, how: str) -> None:
    paths = files(tmp_path / "in", a="1", b="2")
    listed = "# both\n\n" + "\n".join(map(str, paths))
    (tmp_path / "list.txt").write_text(listed)
    ways: dict[str, list[Any]] = {
        "files": paths,
        "folder": [tmp_path / "in"],
        "glob": [tmp_path / "in" / "*.fits"],
        "list": [f"@{tmp_path / 'list.txt'}"],
        "stdin": ["-"],
    }
    out = tmp_path / "out"
    result = srd("degrade", *ways[how], "-o", out, "--scale", 4, input=listed)
    assert result.exit_code == 0, result.output
    assert {p.name: p.read_text() for p in out.iterdir()} == {"a_x4.fits": "1", "b_x4.fits": "2"}


def test_recursive_mirrors_the_tree_and_leaves_its_own_output_alone(
    srd: Run, copier: ModuleType, tmp_path: Path
) -> None:
    files(tmp_path, a="1")
    files(tmp_path / "deep" / "er", a="2")
    (tmp_path / "deep" / "c_err.tif").write_text("a plane beside an image")
    out = tmp_path / "out"
    words = ["degrade", tmp_path, "-o", out, "--scale", 2, "--recursive", "--overwrite"]
    for _ in range(2):
        assert srd(*words).exit_code == 0
        assert sorted(str(p.relative_to(out)) for p in out.rglob("*.*")) == ["a_x2.fits", "deep/er/a_x2.fits"]


def test_compressed_and_double_endings(srd: Run, copier: ModuleType, tmp_path: Path) -> None:
    for name in ("a.fits.fz", "b.ome.tif", "c.fits.gz"):
        (tmp_path / name).write_text("fine")
    assert srd("degrade", tmp_path, "-o", tmp_path / "out", "--scale", 2).exit_code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a_x2.fits", "b_x2.ome.tif", "c_x2.fits"]


def test_the_good_ones_are_done_and_the_worst_code_returned(srd: Run, copier: ModuleType, tmp_path: Path) -> None:
    files(tmp_path, a="fine", b="bad", c="full", d="fine")
    result = srd("degrade", tmp_path, "-o", tmp_path / "out", "--scale", 2, "-q")
    assert result.exit_code == 5
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a_x2.fits", "d_x2.fits"]
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == [f"{tmp_path}/b.fits", f"{tmp_path}/c.fits"]


def test_json_has_one_record_per_input_and_nothing_else(srd: Run, copier: ModuleType, tmp_path: Path) -> None:
    files(tmp_path, a="fine", b="bad")
    result = srd("degrade", tmp_path, "-o", tmp_path / "out", "--scale", 2, "--json")
    good, bad = map(json.loads, result.stdout.splitlines())
    assert good == {
        "input": f"{tmp_path}/a.fits", "output": f"{tmp_path}/out/a_x2.fits", "scale": 2, "gain": None, "nothing": None
    }  # fmt: skip
    assert (bad["exit_code"], bad["error"]) == (3, f"{tmp_path}/b.fits: is bad")


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("bad", 3, "is bad"),
        ("strict", 4, "is strict"),
        ("full", 5, "is full"),
        ("memory", 5, "memory ran out"),
        ("disk", 5, "the disk is full"),
        ("bug", 1, "ZeroDivisionError: one two"),
    ],
)
def test_every_problem_is_one_line_with_its_exit_code(
    srd: Run, copier: ModuleType, tmp_path: Path, text: str, code: int, message: str
) -> None:
    (low,) = files(tmp_path / "in", a=text)
    result = srd("degrade", low, "-o", tmp_path / "new" / "o.fits", "--scale", 2)
    assert result.exit_code == code
    assert message in one_line(result)
    assert not (tmp_path / "new").exists(), "nothing is left behind after a failure"


def test_a_traceback_is_shown_only_on_request(srd: Run, copier: ModuleType, tmp_path: Path) -> None:
    (low,) = files(tmp_path, a="bug")
    result = srd("degrade", low, "-o", tmp_path / "o.fits", "--scale", 2, "-v")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr


def test_an_output_that_exists_is_kept_unless_overwritten(srd: Run, copier: ModuleType, tmp_path: Path) -> None:
    low, old = files(tmp_path, a="new", o="old")
    words = ["degrade", low, "-o", old, "--scale", 2]
    result = srd(*words)
    assert result.exit_code == 2
    assert f"--output: {old} exists" in one_line(result)
    assert old.read_text() == "old"
    assert srd(*words, "--overwrite").exit_code == 0
    assert old.read_text() == "new"


def test_outputs_that_cannot_be_made(srd: Run, copier: ModuleType, tmp_path: Path) -> None:
    low, other = files(tmp_path / "in", a="fine", b="fine")
    (twin,) = files(tmp_path / "in2", a="fine")
    for words, message in (
        ([low, "-o", low], "is the input itself"),
        ([low, "-o", other / "x.fits"], "is a file"),
        ([low, other, "-o", twin], "need a folder"),
        ([low, twin, "-o", tmp_path / "out"], "would both become"),
    ):
        result = srd("degrade", *words, "--scale", 2)
        assert result.exit_code == 2
        assert message in one_line(result)


@pytest.mark.parametrize(
    ("spec", "message"),
    [("none.fits", "no such file"), ("*.fits", "no file matches"), ("@none.txt", "list of inputs"), (".", "no FITS")],
)
def test_inputs_that_are_not_there(
    srd: Run, copier: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = srd("degrade", spec, "-o", "o.fits", "--scale", 2)
    assert result.exit_code == 3
    assert message in one_line(result)
    assert list(tmp_path.iterdir()) == []


def test_dry_run_prints_the_plan_and_writes_nothing(srd: Run, copier: ModuleType, tmp_path: Path) -> None:
    (low,) = files(tmp_path, a="fine")
    result = srd("degrade", low, "-o", tmp_path / "new" / "o.fits", "--scale", 2, "--gain", 3, "--dry-run")
    assert result.exit_code == 0
    assert "gain: 3.0" in result.stdout
    assert not (tmp_path / "new").exists()


def test_quiet_says_nothing(srd: Run, copier: ModuleType, tmp_path: Path) -> None:
    (low,) = files(tmp_path, a="fine")
    assert srd("degrade", low, "-o", tmp_path / "o.fits", "--scale", 2, "-q").output == ""


def test_a_reader_that_goes_away_is_no_fault() -> None:
    words = [sys.executable, "-m", "sciresdiff", "methods", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_models_are_listed_one_to_a_line_of_a_terminal(srd: Run) -> None:
    cards = [json.loads(line) for line in srd("models", "--json").stdout.splitlines()]
    if not cards:
        pytest.skip("the default models are not in this checkout")
    lines = [line.rstrip() for line in srd("models").stdout.splitlines()]
    assert [line.split()[0] for line in lines] == ["name", *(card["name"] for card in cards)]
    assert max(map(len, lines)) <= 80


def test_evaluate_does_its_share_of_the_images(srd: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sciresdiff.jobs import evaluate

    def run(high: Path, low: Path, **more: Any) -> dict[str, Any]:
        return {"high": str(high), "low": low.name, "verdict": "pass", "results": [], "baselines": {}}

    monkeypatch.setattr(evaluate, "run", run)
    files(tmp_path / "low", a="", b="", c="")
    files(tmp_path / "high", a_x2="", b_x2="", c_x2="")
    words = ["evaluate", tmp_path / "high", "--low", tmp_path / "low", "--json", "-q"]

    def done(*more: str) -> list[tuple[str, str]]:
        records = [json.loads(line) for line in srd(*words, *more).stdout.splitlines()]
        return [(Path(record["high"]).name, record["low"]) for record in records]

    whole = done()
    assert whole == [(f"{name}_x2.fits", f"{name}.fits") for name in "abc"]
    shares = [done("--shard", f"{number}/2") for number in (1, 2)]
    assert sorted(shares[0] + shares[1]) == whole
    assert [len(share) for share in shares] == [2, 1]


def test_a_model_is_shown_in_detail_on_request(srd: Run) -> None:
    cards = [json.loads(line) for line in srd("models", "--json").stdout.splitlines()]
    for card in cards:
        assert json.loads(srd("models", card["name"], "--json").stdout) == card
        shown = srd("models", card["name"]).stdout.splitlines()
        assert f"name: {card['name']}" in shown
        assert "calibration:" in shown
    assert srd("models", "nothing").exit_code == 3


# Signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_after_cleaning_up(tmp_path: Path, number: signal.Signals, code: int) -> None:
    program = f"""
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_cli import ModuleType, StandInOptions
import sciresdiff.jobs
from sciresdiff.cli.app import app

def run(path_in, path_out, options, *more):
    part = Path(str(path_out) + ".part")
    try:
        part.write_text("half")
        print("started", flush=True)
        time.sleep(60)
    finally:
        part.unlink()

job = ModuleType("sciresdiff.jobs.degrade")
vars(job).update(run=run, DegradeOptions=StandInOptions)
sys.modules[job.__name__] = sciresdiff.jobs.degrade = job
app()
"""
    (low,) = files(tmp_path / "in", a="fine")
    words = ["degrade", str(low), "-o", str(tmp_path / "out" / "o.fits"), "--scale", "2"]
    with subprocess.Popen([sys.executable, "-c", program, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        os.kill(process.pid, number)
        assert process.wait(timeout=20) == code
    assert not (tmp_path / "out").exists()
