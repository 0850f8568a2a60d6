"""``docs/cli.md`` from the commands' own help: ``python -m sciresdiff.cli.reference docs/cli.md``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from sciresdiff.cli.app import app

HEAD = """# The command line

Made from the commands' own help by `make docs`; a test compares them. The rules that hold for every command stand in
[conventions.md](conventions.md).
"""


def page() -> str:
    """The whole page, as Markdown."""
    group: Any = typer.main.get_command(app)
    return "\n".join([HEAD, *(section(name, command) for name, command in group.commands.items())])


def section(name: str, command: Any) -> str:
    """One command: its help text, then a table for every panel of its options."""
    said = command.help.strip().split("\n\n")
    text = [_example(part) if part.strip().startswith("Example:") else " ".join(part.split()) for part in said]
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


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
