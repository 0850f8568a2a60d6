"""Pages made from the package itself: ``python -m sciresdiff.cli.reference docs/reference`` writes them."""

from __future__ import annotations

import ast
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import typer

from sciresdiff.checks.check import NEEDS
from sciresdiff.cli.app import app

HEAD = """# The command line

Made from the commands' own help by `make docs`; a test compares them. The rules that hold for every command stand in
[conventions.md](conventions.md).
"""


CHECKS_HEAD = """# The checks of `evaluate`

Made from the registry by `make docs`; a test compares them. A check that cannot be computed says why and never passes.
Where a truth is given, image and truth are compared; all others need none. The formula and the source of each stand in
its docstring, in the file named; ranges of your own come with `--limits FILE.toml` (`name = [low, high]`, with `"none"`
for an open end), and `--strict` ends with 4 where a limit of severity *fail*, or one of your own, is missed.

An image of more than 4096 px a side is judged in pieces of up to 2048 px, each with what surrounds it, and memory does
not grow with it. *In pieces* says how the results of the pieces become one; `meaning` says it, too, with the lowest and
the highest piece. Sky, noise and thresholds are those of every piece. `fid`, and fluxes by magnitude, are left out, and
`--probe` is refused.

LPIPS and FID need `pip install sciresdiff[perceptual]` and weights on the disk, which are never fetched:
`SCIRESDIFF_LPIPS` names a folder with `alexnet-owt-7be5be79.pth`, `SCIRESDIFF_FID` one with
`weights-inception-2015-12-05-6726825d.pth`.
"""


MODULES_HEAD = """# The files of the package

Made from the first line of every file by `make docs`; a test compares them. What stands above what, and why, is in
[architecture.md](../architecture.md).
"""


def page() -> str:
    """The page of the command line, as Markdown."""
    group: Any = typer.main.get_command(app)
    return "\n".join([HEAD, *(section(name, command) for name, command in group.commands.items())])


def section(name: str, command: Any) -> str:
    """One command: its help text, then a table for every panel of its options."""
    paragraphs = command.help.strip().split("\n\n")
    text = [_example(part) if part.strip().startswith("Example:") else " ".join(part.split()) for part in paragraphs]
    panels: dict[str, list[str]] = {}
    for parameter in command.params:
        if parameter.name != "help":
            panels.setdefault(_panel(parameter), []).append(_row(parameter))
    tables = [f"**{panel}**\n\n| | | default |\n|---|---|---|\n" + "\n".join(rows) for panel, rows in panels.items()]
    return "\n\n".join([f"## {name}", *text, *tables]) + "\n"


def _example(text: str) -> str:
    """The example, in a block that can be copied."""
    return f"```sh\n{' '.join(text.split()).removeprefix('Example: ')}\n```"


def _panel(parameter: Any) -> str:
    """The title that the help shows this parameter under."""
    return getattr(parameter, "rich_help_panel", None) or ("Arguments" if _is_argument(parameter) else "Options")


def _is_argument(parameter: Any) -> bool:
    """Whether it stands without a dash."""
    return parameter.param_type_name == "argument"


def _row(parameter: Any) -> str:
    """One parameter: how it is written, what it does, its default."""
    flags = [parameter.metavar] if _is_argument(parameter) else sorted(parameter.opts, key=len)
    shown = ", ".join(f"`{flag}`" for flag in [*flags, *parameter.secondary_opts])
    if parameter.metavar and not _is_argument(parameter):
        shown += f" {_cell(parameter.metavar)}"
    return f"| {shown} | {_cell(parameter.help or '')} | {_default(parameter)} |"


def _default(parameter: Any) -> str:
    """The default, as it would be written."""
    if parameter.required:
        return "required"
    if parameter.default is None or parameter.default is False or parameter.default == []:
        return ""
    if parameter.default is True:
        return f"`{parameter.opts[0]}`"
    return f"`{parameter.default}`"


def _cell(text: str) -> str:
    """Text that may stand in a table."""
    return " ".join(text.split()).replace("|", "\\|")


def checks_page() -> str:
    """The page of the checks, as Markdown."""
    from sciresdiff.checks import CHECKS

    rooms: dict[str, list[str]] = {}
    for name, line in CHECKS.items():
        rooms.setdefault(line.make.__module__.rpartition(".")[2], []).append(_check(name, line))
    parts = [
        f"## {room.replace('_', ' ')}\n\n`sciresdiff/checks/{room}.py`\n\n" + "\n".join(r) for room, r in rooms.items()
    ]
    return "\n".join([CHECKS_HEAD, *parts])


def _check(name: str, line: Any) -> str:
    """One check: what it measures, needs and cannot see, and the limits of its results."""
    others = [f"`{other}`" for other in line.names if other != name]
    head = f"**`{name}`**" + (f" with {', '.join(others)}" if others else "")
    needs = f" *Needs* {', '.join(NEEDS[need] for need in line.needs)}." if line.needs else ""
    limits = [words for result in line.names or (name,) if (words := _limit(result))]
    pooled = "" if "again" in line.needs else _pooling(line.names or (name,))  # a frame in pieces has no probes
    text = f"{head}. {line.tells}{needs} *Blind to:* {line.blind}{pooled}\n"
    return text + "".join(f"\n- {words}" for words in limits) + "\n"


def _pooling(names: tuple[str, ...]) -> str:
    """How the results of a check are pooled over the pieces of a large frame."""
    from sciresdiff.checks.pooling import pool_of

    ways: dict[str, list[str]] = {}
    for name in names:
        ways.setdefault(pool_of(name).words, []).append(f"`{name}` ")
    several = len(ways) > 1
    text = "; ".join(f"{', '.join(map(str.strip, who)) + ' ' if several else ''}{words}" for words, who in ways.items())
    return f" *In pieces:* {text}." if text else ""


def _limit(name: str) -> str:
    """The accepted range of a result, with its reason; empty where it has none."""
    from sciresdiff.checks import LIMITS
    from sciresdiff.report.record import format_limit

    found = {kind: limits[name] for kind, limits in LIMITS.items() if name in limits}
    if not found:
        return ""
    same = len(set(found.values())) == 1
    ranges = [(f"{'' if same else kind + ': '}{format_limit((limit.low, limit.high)) or 'set by the data'}", limit)
              for kind, limit in list(found.items())[: 1 if same else None]]  # fmt: skip
    return "; ".join(f"`{name}` {words} ({limit.severity}): {limit.reason}" for words, limit in ranges)


def modules_page() -> str:
    """The page of the package's files, folder by folder, as Markdown."""
    package = Path(__file__).parents[1]
    files = sorted(package.rglob("*.py"), key=lambda path: (path.parent, path.name))
    parts = [MODULES_HEAD]
    for folder, inside in groupby(files, key=lambda path: path.parent.relative_to(package)):
        summaries = {path.name: _summary(path) for path in inside}
        about = summaries.pop("__init__.py", "")
        title = "sciresdiff" if folder == Path() else folder.as_posix()
        rows = "".join(f"| `{name}` | {_cell(words)} |\n" for name, words in summaries.items())
        parts.append(f"## {title}\n\n{about}\n" + (f"\n| | |\n|---|---|\n{rows}" if rows else ""))
    return "\n".join(parts)


def _summary(path: Path) -> str:
    """The first sentence of a file's docstring, which may take more than one line."""
    paragraph = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0]
    return " ".join(paragraph.split()).replace("``", "`")


if __name__ == "__main__":
    for name, text in (("cli.md", page), ("checks.md", checks_page), ("modules.md", modules_page)):
        Path(sys.argv[1], name).write_text(text())
