"""Imports run downhill only, rooms on one floor are strangers, and no modules import each other in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import sciresdiff

PACKAGE = Path(sciresdiff.__file__).parent
FLOORS = (
    ("errors", "files", "malloc", "notes", "parse", "plugins", "region", "text", "units"),
    ("frame", "options"),
    ("io", "run"),
    ("physics", "nets"),
    ("diffusion", "tiling", "degradation", "scenes"),
    ("observation",),
    ("checks",),
    ("restoration",),
    ("report",),
    ("training",),
    ("lab",),
    ("jobs",),
    ("api",),
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
    if room != "lab":
        assert "lab" not in {other for _, other in imported(path)}, f"{path}: lab is loaded by name, see plugins.py"
    uphill = [(line, other) for line, other in imported(path) if other != room and FLOOR[other] >= FLOOR[room]]
    assert not uphill, f"{path}: {room} is on floor {FLOOR[room]} and imports {uphill} (line, room)"


@cache
def import_graph() -> Mapping[str, set[str]]:
    """Module -> the modules of our own package that it imports, inside functions and for type checkers too."""
    paths = {".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts): p for p in PACKAGE.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text())):
            found: list[str] = []
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                assert not node.level, f"{path}:{node.lineno}: a relative import"
                inside = [f"{node.module}.{alias.name}" for alias in node.names]
                found = [one if one in modules else node.module for one in inside]
            graph[name] |= {other for other in found if other in modules and other != name}
    return graph


def reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """Every module that a module imports, directly or through others."""
    seen: set[str] = set()
    left = set(graph[start])
    while left:
        name = left.pop()
        seen.add(name)
        left |= graph[name] - seen
    return seen


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = import_graph()
    far = {name: reachable(graph, name) for name in graph}
    circles = {tuple(sorted(other for other in far[name] if name in far[other])) for name in graph if name in far[name]}
    assert not circles
