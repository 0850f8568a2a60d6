"""TOML and JSON from anywhere: what is too large or too deep is refused as what is wrong, by a ValueError.

The libraries raise RecursionError where tables or lists stand in each other by the thousand, and so would everything
that walks through the result.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

DEEPEST = 64
"""Levels of tables and lists in each other; those of this program have a handful."""
LARGEST = 2**20
"""Bytes of a TOML file; settings have some thousand."""


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file, in UTF-8.

    Raises
    ------
    OSError : it cannot be read.
    ValueError : not TOML, not UTF-8, larger than `LARGEST` or deeper than `DEEPEST`.
    """
    with path.open("rb") as stream:
        content = stream.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"larger than {LARGEST} bytes")
    return parse_toml(content.decode("utf-8-sig"))


def parse_toml(text: str) -> dict[str, Any]:
    """The content of a TOML text.

    Raises
    ------
    ValueError : not TOML, or deeper than `DEEPEST`.
    """
    try:
        return checked_depth(tomllib.loads(text))
    except RecursionError:
        raise ValueError(f"tables in each other, more than {DEEPEST} deep") from None


def parse_json(text: str | bytes) -> Any:
    """The content of a JSON text.

    Raises
    ------
    ValueError : not JSON, not UTF-8, or deeper than `DEEPEST`.
    """
    try:
        return checked_depth(json.loads(text))
    except RecursionError:
        raise ValueError(f"lists in each other, more than {DEEPEST} deep") from None


def checked_depth(value: Any) -> Any:
    """A value of lists and mappings that is no deeper than `DEEPEST`.

    Raises
    ------
    ValueError : it is.
    """
    level = [value]
    for _ in range(DEEPEST):
        level = [
            item
            for one in level
            if isinstance(one, dict | list)
            for item in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return value
    raise ValueError(f"more than {DEEPEST} levels deep")
