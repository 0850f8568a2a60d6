"""The docs say what the program does: generated pages, sections, links, and examples that run."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
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
DOCS = REPOSITORY / "docs"
REFERENCE = DOCS / "reference"
PAGES = sorted([*REPOSITORY.glob("*.md"), *DOCS.glob("**/*.md"), *REPOSITORY.glob("sample_data/*.md")])
LESSONS = [REPOSITORY / "README.md", REFERENCE / "api.md", *sorted(DOCS.glob("tutorials/*.md")),
           *sorted(DOCS.glob("how-to/*.md"))]  # fmt: skip
"""Pages whose examples are executed."""
NOTEBOOKS = sorted(DOCS.glob("tutorials/*.ipynb"))
BLOCK = re.compile(r"(?P<note><!-- not executed: .+? -->\n)?```(?P<language>sh|python)\n(?P<code>.*?)```", re.DOTALL)
GROUP: Any = typer.main.get_command(app)


def blocks_in(text: str) -> list[tuple[str, str]]:
    """The blocks of a page that are executed, in order: language and code."""
    return [(match["language"], match["code"]) for match in BLOCK.finditer(text) if not match["note"]]


def commands_in(code: str) -> list[str]:
    """The commands of a shell block; a backslash at the end of a line goes on with the next."""
    return [line for line in code.replace("\\\n", " ").splitlines() if line.startswith("sciresdiff ")]


def test_the_reference_page_is_what_the_help_says() -> None:
    kept = (REFERENCE / "cli.md").read_text()
    assert kept == reference.page(), "docs/reference/cli.md is not what the commands' help says; run 'make docs'"
    kept = (REFERENCE / "checks.md").read_text()
    assert kept == reference.checks_page(), "docs/reference/checks.md is not what the registry says; run 'make docs'"
    kept = (REFERENCE / "modules.md").read_text()
    assert kept == reference.modules_page(), "docs/reference/modules.md is not what the files say; run 'make docs'"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_section_with_an_example(name: str) -> None:
    section = (REFERENCE / "cli.md").read_text().split(f"\n## {name}\n")[1].split("\n## ")[0]
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
    prose = re.sub(r"(?s)```.*?```|`[^`]*`", "", page.read_text())  # an expression in code may look like a link
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose)
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_the_version_is_the_same_everywhere() -> None:
    assert f"version: {__version__}\n" in (REPOSITORY / "CITATION.cff").read_text()
    assert f"\n## {__version__}" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_the_readme_shows_every_command() -> None:
    text = (REPOSITORY / "README.md").read_text()
    assert [name for name in COMMANDS if f"sciresdiff {name}" not in text] == []


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with sample_data in it, as the working directory."""
    if not shipped_cards():
        pytest.skip("the default models are not in this checkout")
    (tmp_path / "sample_data").symlink_to(REPOSITORY / "sample_data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", LESSONS, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run_in_order(page: Path, shelf: Path) -> None:
    names: dict[str, Any] = {}
    for language, code in blocks_in(page.read_text()):
        if language == "python":
            exec(compile(code, str(page), "exec"), names)
            continue
        for line in commands_in(code):
            result = CliRunner().invoke(app, shlex.split(line)[1:])
            assert result.exit_code == 0, f"{line}\n{result.output}"


def test_every_tutorial_has_an_example_that_runs() -> None:
    lessons = [page for page in DOCS.glob("tutorials/*.md") if page.stem != "index"]
    assert [page.name for page in lessons if not blocks_in(page.read_text())] == []


@pytest.fixture
def executor() -> Iterator[Any]:
    """docs/benchmarks/notebooks.py."""
    sys.path.insert(0, str(DOCS / "benchmarks"))
    try:
        import notebooks

        yield notebooks.execute
    finally:
        sys.path.remove(str(DOCS / "benchmarks"))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cells_of_a_notebook_run(path: Path, executor: Any) -> None:
    if not shipped_cards():
        pytest.skip("the default models are not in this checkout")
    notebook = json.loads(path.read_text())
    made = [kind["output_type"] for _, outputs in executor(notebook, path.parent) for kind in outputs]
    assert "display_data" in made
    assert "stream" in made


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small(path: Path) -> None:
    assert path.stat().st_size < 200_000


def test_pictures_are_small_and_made_by_a_script() -> None:
    script = (DOCS / "benchmarks" / "pictures.py").read_text()
    pictures = sorted((DOCS / "img").glob("*"))
    assert pictures
    assert [p.name for p in pictures if p.stat().st_size >= 300_000] == []
    assert [p.name for p in pictures if p.stem not in script] == []


def test_the_readmes_table_has_the_strongest_rival_and_the_command_that_measures_it() -> None:
    text = (REPOSITORY / "README.md").read_text()
    table = text.split("<!-- sample: begin -->")[1].split("<!-- sample: end -->")[0]
    rows = [line.split("|")[1].strip() for line in table.strip().splitlines()[2:]]
    assert "accelerated Richardson-Lucy, best stop" in rows
    assert {"bicubic", "`--model physics`", "default model"} <= set(rows)
    assert "python docs/benchmarks/sample.py" in text


def test_the_site_builds_from_the_disk_alone(tmp_path: Path) -> None:
    pytest.importorskip("mkdocstrings_handlers.python", reason="the extra 'docs' is not installed")
    import subprocess

    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = [page.read_text() for page in tmp_path.rglob("*.html")]
    assert len(pages) > 20
    fetched = re.compile(r"<(?:script|link|img)[^>]+(?:src|href)=\"(https?:[^\"]+)")
    assert [url for page in pages for url in fetched.findall(page)] == []


def test_every_page_is_in_the_navigation() -> None:
    navigation = (REPOSITORY / "mkdocs.yml").read_text()
    pages = [str(page.relative_to(DOCS)) for page in [*DOCS.glob("**/*.md"), *NOTEBOOKS]]
    assert [page for page in pages if page.replace(".ipynb", ".md") not in navigation] == []
