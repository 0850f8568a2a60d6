"""Docstrings of this package for mkdocstrings: ``name : what it is`` on one line is a description, not a type.

numpydoc takes the text behind the colon for the type. Here types stand in the signature, and the line has shape, unit
and range; so it becomes the description before Griffe reads it. What a function returns is prose, too.
"""

from __future__ import annotations

import re
from textwrap import indent
from typing import Any

from griffe import Extension, Object

SECTION = re.compile(r"^(\w+)\n-{3,}\n", re.MULTILINE)
LISTS = ("Parameters", "Attributes", "Raises", "Warns")
RESULTS = ("Returns", "Yields")


class HouseStyle(Extension):
    """Rewrite every docstring that is loaded."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = rewrite(obj.docstring.value)


def rewrite(text: str) -> str:
    """A docstring in the form that Griffe expects."""
    head, *rest = SECTION.split(text)
    parts = [head]
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        if title in LISTS:
            body = f"{describe(body)}\n\n"
        elif title in RESULTS and not body.strip().isidentifier():
            body = f":\n{indent(body.strip(), '    ')}\n\n"  # without a type: that of the signature
        parts.append(f"{title}\n{'-' * len(title)}\n{body}")
    return "".join(parts).rstrip()


def describe(body: str) -> str:
    """The entries of a section: the text behind each colon goes onto lines of its own."""
    lines: list[str] = []
    for line in body.strip().splitlines():
        name, colon, text = line.partition(" : ")
        entry = colon and not line.startswith(" ")
        lines += [name, f"    {text}"] if entry else [line]
    return "\n".join(lines)
