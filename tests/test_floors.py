"""Imports run downhill only, and rooms on one floor are strangers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import sciresdiff

PACKAGE = Path(sciresdiff.__file__).parent
FLOORS = (
    ("errors", "files", "malloc", "notes", "region"),
    ("frame", "run"),
    ("io", "normalize"),
    ("physics", "nets"),
    ("diffusion", "tiling", "degradation", "scenes"),
    ("checks",),
    ("restoration",),
    ("observation",),
    ("report",),
    ("training",),
    ("jobs",),
    ("cli",),
)
"""Rooms, the lowest first; `__init__` and `__main__` stand outside."""
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or not path.stem.startswith("__"))


def room_of(module: str) -> str:
    """``sciresdiff.physics.psf`` -> ``physics``."""
    return module.split(".")[1] if "." in module else ""


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and room of every import of our own package in a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):  # ``import sciresdiff`` alone is its version, and no room
            yield from ((node.lineno, room_of(name.name)) for name in node.names if name.name.startswith("sciresdiff."))
        if isinstance(node, ast.ImportFrom) and node.level > 1:  # ..frame, or ..physics.psf
            yield node.lineno, (node.module or node.names[0].name).split(".")[0]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sciresdiff"):
            rooms = [room_of(node.module or "")]
            if rooms == [""]:
                rooms = [name.name for name in node.names if name.name in FLOOR]
            yield from ((node.lineno, room) for room in rooms)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_from_the_floors_below_it(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert room in FLOOR, f"{room}: give this room a floor"
    uphill = [(line, other) for line, other in imported(path) if other != room and FLOOR[other] >= FLOOR[room]]
    assert not uphill, f"{path}: {room} is on floor {FLOOR[room]} and imports {uphill} (line, room)"
