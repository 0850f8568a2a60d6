"""Options: fields that carry help and limits, and the commands that are made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest
import typer
from typer.testing import CliRunner, Result

import sciresdiff
from sciresdiff.cli.parameters import command
from sciresdiff.errors import UsageError
from sciresdiff.jobs.degrade.options import DegradeOptions
from sciresdiff.jobs.evaluate.options import EvaluateFiles, EvaluateOptions
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.observation.options import Stated
from sciresdiff.options import Option, option, options_of, same_as
from sciresdiff.run.options import ComputeOptions, FileOptions
from sciresdiff.training.options import TrainOptions

ALL = (
    Stated,
    UpscaleOptions,
    DegradeOptions,
    EvaluateOptions,
    EvaluateFiles,
    TrainOptions,
    ComputeOptions,
    FileOptions,
)


@dataclass(frozen=True)
class Cooking:
    """A job's options."""

    minutes: int = option("How long.", metavar="N", at_least=1, at_most=90)
    heat: float | str | None = option("Power: a number or a file.", None, at_least=0)
    lid: bool = option("With the lid on.", True)
    stir: bool = option("Stir.", False, names=("--stir", "-s"))
    style: Literal["soft", "hard"] = option("How firm.", "soft")
    spices: tuple[str, ...] = option("Spices.", ())


@dataclass(frozen=True, kw_only=True)
class Kitchen:
    """Options of the run, one of them the job's as well."""

    eggs: tuple[str, ...] = option("Eggs.", metavar="EGG...", argument=True)
    minutes: int = same_as(Cooking, "minutes")
    config: str | None = option("Settings.", None)


def run(*words: str, without: tuple[str, ...] = ()) -> tuple[Result, list[Any]]:
    """Run a command made of the two; its result, and what it was called with."""
    seen: list[Any] = []

    @command(*without)
    def cook(cooking: Cooking, kitchen: Kitchen) -> None:
        """Cook eggs."""
        seen.extend([cooking, kitchen])

    app = typer.Typer()
    app.command()(cook)
    return CliRunner().invoke(app, words), seen


def test_a_command_gets_filled_dataclasses() -> None:
    _, (cooking, kitchen) = run("a", "b", "--minutes", "3", "--no-lid", "-s", "--spices", "salt", "--heat", "2.5")
    assert cooking == Cooking(3, 2.5, lid=False, stir=True, spices=("salt",))
    assert kitchen == Kitchen(eggs=("a", "b"), minutes=3)


def test_an_option_that_is_left_out_keeps_its_default() -> None:
    result, seen = run("a", "--minutes", "3", "--stir", without=("stir",))
    assert (result.exit_code, seen) == (2, [])
    _, (cooking, _) = run("a", "--minutes", "3", without=("stir",))
    assert cooking == Cooking(3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--minutes 0", "--minutes: 0 is given, but 1 to 90 are allowed"),
        ("--minutes 91", "--minutes: 91 is given, but 1 to 90 are allowed"),
        ("--minutes 3 --heat -1", "--heat: -1 is given, but a finite number of 0 or more is needed"),
        ("--minutes 3 --heat nan", "--heat: nan is given, but a finite number of 0 or more is needed"),
    ],
)
def test_values_outside_the_limits_are_refused(words: str, message: str) -> None:
    result, seen = run("a", *words.split())
    assert isinstance(result.exception, UsageError)
    assert str(result.exception) == message
    assert seen == []


def test_text_that_is_no_number_names_a_file() -> None:
    assert Option("", at_least=0).checked("--heat", "map.fits") == "map.fits"
    assert Option("", finite=True).checked("--heat", "-3") == -3.0
    assert Option("").checked("--axes", "3") == "3"  # no limits: text stays text
    assert Option("").checked("--heat", float("inf")) == float("inf")
    with pytest.raises(UsageError, match=r"--heat: inf is given, but a finite number is needed"):
        Option("", finite=True).checked("--heat", "inf")
    with pytest.raises(UsageError, match=r"--heat: 0.0 is given, but a finite number above 0 is needed"):
        Option("", above=0).checked("--heat", 0.0)


def test_help_shows_names_choices_and_defaults() -> None:
    shown = run("--help")[0].stdout
    for words in ("--lid", "--no-lid", "-s", "soft|hard", "EGG...", "How firm.", "[default: soft]"):
        assert words in shown
    assert "--no-stir" not in shown


def test_a_field_like_another_has_its_default_and_help() -> None:
    for kind, name in ((UpscaleOptions, "seed"), (DegradeOptions, "seed"), (TrainOptions, "seed")):
        assert Option.of(kind, name) == Option.of(ComputeOptions, name)
    assert UpscaleOptions().threads == ComputeOptions().threads
    assert Option.of(TrainOptions, "output").names == Option.of(FileOptions, "output").names


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_field_is_an_option_with_help_and_a_known_panel(kind: type[Any]) -> None:
    assert [name for name in kind.__dataclass_fields__ if name not in {f.name for f, _ in options_of(kind)}] == []
    assert all(one.help.endswith(".") for _, one in options_of(kind))


def test_public_names_are_found_when_they_are_used() -> None:
    from sciresdiff.api.restored import restore

    assert sciresdiff.restore is restore
    assert set(sciresdiff.PUBLIC) <= set(dir(sciresdiff))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        sciresdiff.nothing  # noqa: B018
