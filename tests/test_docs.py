"""The docs say what the program does: generated pages, sections, links, and examples that run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from sciresdiff import __version__
from sciresdiff.cli import reference
from sciresdiff.cli.app import COMMANDS, app
from sciresdiff.restoration.model import shipped_cards

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("sample_data/*.md")])
BLOCK = re.compile(r"(?P<note><!-- not executed: .+? -->\n)?```sh\n(?P<code>.*?)```", re.DOTALL)
GROUP: Any = typer.main.get_command(app)


def commands_in(text: str) -> list[str]:
    """Lines of the executed blocks of a page; a backslash at the end of a line goes on with the next."""
    blocks = [match["code"].replace("\\\n", " ") for match in BLOCK.finditer(text) if not match["note"]]
    return [line for block in blocks for line in block.splitlines() if line.startswith("sciresdiff ")]


def test_the_reference_page_is_what_the_help_says() -> None:
    kept = (REPOSITORY / "docs" / "cli.md").read_text()
    assert kept == reference.page(), "docs/cli.md is not what the commands' help says; run 'make docs'"
    kept = (REPOSITORY / "docs" / "checks.md").read_text()
    assert kept == reference.checks_page(), "docs/checks.md is not what the registry says; run 'make docs'"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_section_with_an_example(name: str) -> None:
    section = (REPOSITORY / "docs" / "cli.md").read_text().split(f"\n## {name}\n")[1].split("\n## ")[0]
    assert f"```sh\nsciresdiff {name}" in section


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_is_one_imperative_sentence_and_an_example_that_parses(name: str) -> None:
    first, example, *_ = GROUP.commands[name].help.split("\n\n")
    assert first.endswith("."), first
    assert first[0].isupper(), first
    words = shlex.split(" ".join(example.split()).removeprefix("Example: "))
    assert words[:2] == ["sciresdiff", name]
    GROUP.commands[name].make_context(name, words[2:])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help(name: str) -> None:
    assert [p.name for p in GROUP.commands[name].params if not p.help] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_the_version_is_the_same_everywhere() -> None:
    assert f"version: {__version__}\n" in (REPOSITORY / "CITATION.cff").read_text()
    assert f"\n## {__version__}" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_the_readme_shows_every_command() -> None:
    text = (REPOSITORY / "README.md").read_text()
    assert [name for name in COMMANDS if f"sciresdiff {name}" not in text] == []


def test_the_readmes_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shipped_cards():
        pytest.skip("the default models are not in this checkout")
    (tmp_path / "sample_data").symlink_to(REPOSITORY / "sample_data")
    monkeypatch.chdir(tmp_path)
    lines = commands_in((REPOSITORY / "README.md").read_text())
    assert lines
    for line in lines:
        result = CliRunner().invoke(app, shlex.split(line)[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}"
