"""Figures of the house, read from the source as text: how physics travels, how things are called and described.

    python docs/benchmarks/house_metrics.py [PACKAGE_FOLDER] [--where]

A mirror and not a law: no test holds these figures. `docs/architecture.md` says what each of them counts.
"""

from __future__ import annotations

import argparse
import ast
import re
import statistics
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

LOOSE = {"kernel", "scale", "variance", "mask", "quantity"}
PHYSICAL = {"observation", "physics", "degradation", "scenes", "lab", "nets", "io"}
"""Rooms in which such arguments are at home."""
OUT = {"said", "sources", "notes", "out"}
PARTICIPLE = re.compile(
    r"_?(told|cut|begun|filled|settled|measured|given|kept|said|seen|found|taken|made|drawn|left|done|gone|known|held|"
    r"put|read_in|bare|finer|coarser|[a-z]+ed)_?"
)
VERBS = {"feed", "need", "seed", "speed", "embed", "shed", "read", "put", "cut"}
"""Names that look like participles and are none."""
ARRAY = re.compile(r"Tensor|NDArray|ndarray|Array")
SHAPE = re.compile(r"\(\s*(?:\.\.\.|[A-Za-z0-9_*+ ]+)\s*,[^)]*\)")


@dataclass
class Counts:
    """What was counted, and where."""

    where: dict[str, list[str]] = field(
        default_factory=lambda: {"loose physics": [], "out-parameters": [], "participles": []}
    )
    functions: int = 0
    bodies: list[int] = field(default_factory=list)
    one_line: list[bool] = field(default_factory=list)
    shapes: list[bool] = field(default_factory=list)
    sections: list[bool] = field(default_factory=list)


def main() -> None:
    """Print the figures, and on request the places."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, nargs="?", default=Path("sciresdiff"))
    parser.add_argument("--where", action="store_true", help="list the places, too")
    told = parser.parse_args()
    trees = {path: ast.parse(path.read_text()) for path in sorted(told.package.rglob("*.py"))}
    counts = Counts()
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                count(counts, node, path, path.relative_to(told.package).parts[0])
    lines = sum(len(path.read_text().splitlines()) for path in trees)
    found = {name: f"{len(places)}" for name, places in counts.where.items()}
    found["participles"] = f"{100 * len(counts.where['participles']) / counts.functions:.1f} %"
    found["import cycles"] = f"{len(cycles(told.package, trees))}"
    found["one-line docstrings"] = share(counts.one_line)
    found["shapes stated"] = share(counts.shapes)
    found["Parameters sections"] = share(counts.sections)
    found["longest body, lines"] = f"{max(counts.bodies)}"
    found["median body, lines"] = f"{statistics.median(counts.bodies):g}"
    found["comments per 100 lines"] = f"{100 * sum(map(comments, trees)) / lines:.2f}"
    found |= {
        "files": f"{len(trees)}",
        "lines": f"{lines}",
        "of these docstrings": f"{sum(map(docstring_lines, trees.values()))}",
    }
    for name, value in found.items():
        print(f"{name:24}{value}")
    for name, places in counts.where.items() if told.where else ():
        print(f"\n{name}", *places, sep="\n")


def share(answers: list[bool]) -> str:
    """How many are true, in per cent."""
    return f"{100 * sum(answers) / max(len(answers), 1):.0f} %"


def count(counts: Counts, function: ast.FunctionDef | ast.AsyncFunctionDef, path: Path, room: str) -> None:
    """Add a function to the counts."""
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    kinds = {argument.arg: ast.unparse(argument.annotation) for argument in arguments if argument.annotation}
    place, text = f"{path}: {function.name}", ast.get_docstring(function)
    counts.functions += 1
    counts.bodies.append(body_lines(function))
    if PARTICIPLE.fullmatch(function.name) and function.name.strip("_") not in VERBS:
        counts.where["participles"].append(place)
    if room not in PHYSICAL and len(LOOSE & {argument.arg for argument in arguments}) >= 2:
        counts.where["loose physics"].append(place)
    if any(re.match("list|dict|MutableMapping", kinds.get(name, "")) for name in OUT):
        counts.where["out-parameters"].append(place)
    if text and not function.name.startswith("_"):
        counts.one_line.append("\n" not in text.strip())
        if any(map(ARRAY.search, kinds.values())):
            counts.shapes.append(bool(SHAPE.search(text)))
            if len(arguments) >= 3:
                counts.sections.append("Parameters" in text)


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function below its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def docstring_lines(tree: ast.Module) -> int:
    """Lines of all docstrings of a file."""
    owners = (node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef))
    return sum(text.count("\n") + 1 for node in owners if (text := ast.get_docstring(node, clean=False)))


def comments(path: Path) -> int:
    """Comments of a file."""
    with path.open("rb") as file:
        return sum(token.type == tokenize.COMMENT for token in tokenize.tokenize(file.readline))


def cycles(package: Path, trees: dict[Path, ast.Module]) -> list[list[str]]:
    """Modules that import each other, imports inside functions and for type checkers counted."""
    names = {
        ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in trees
    }
    edges = {name: set(imports(trees[path], set(names))) - {name} for name, path in names.items()}
    far = {name: reached(edges, name) for name in edges}
    circles = {tuple(sorted(other for other in far[name] if name in far[other])) for name in far if name in far[name]}
    return [list(circle) for circle in circles]


def imports(tree: ast.Module, names: set[str]) -> Iterator[str]:
    """The modules of the package that a file imports."""
    for node in ast.walk(tree):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = (f"{node.module}.{alias.name}" for alias in node.names)
            found = [name if name in names else node.module for name in inside]
        yield from (name for name in found if name in names)


def reached(edges: dict[str, set[str]], start: str) -> set[str]:
    """Every module that a module leads to."""
    seen: set[str] = set()
    left = set(edges[start])
    while left:
        name = left.pop()
        seen.add(name)
        left |= edges[name] - seen
    return seen


if __name__ == "__main__":
    main()
