"""The recipe file of a training: what to train on, how long, and by which losses."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from sciresdiff.diffusion.losses import LOSSES
from sciresdiff.diffusion.method_file import nearest
from sciresdiff.errors import UsageError
from sciresdiff.training.data import DataRecipe
from sciresdiff.training.loop import LoopOptions
from sciresdiff.training.options import TrainOptions

TERMS = {"huber": 1.0, "scale": 0.1, "flux": 0.02}
"""What a prior is trained with unless a recipe names other losses: losses of a stage's image by their weights, and
``scale``, the likelihood of its predicted scale, which is part of every combination."""


def tables_of(recipe: str | None) -> dict[str, Any]:
    """The tables of a recipe file; none without one.

    Raises
    ------
    UsageError : a file that cannot be read.
    """
    if not recipe:
        return {}
    try:
        return tomllib.loads(Path(recipe).read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--recipe: {recipe} cannot be read ({error})") from None


def recipe_of(options: TrainOptions) -> tuple[DataRecipe, LoopOptions]:
    """The data recipe and the loop's options: defaults, then the TOML file, then the command's options.

    Raises
    ------
    UsageError : a file that cannot be read, or an unknown key.
    """
    tables = tables_of(options.recipe)
    data = DataRecipe(**table_of(tables, "data", DataRecipe))
    loop = LoopOptions(**table_of(tables, "loop", LoopOptions))
    data = replace(data, kind=options.kind or data.kind, scale=options.scale)
    loop = replace(loop, seed=options.seed)
    if options.minutes or options.images:
        loop = replace(loop, minutes=options.minutes, images=options.images)
    return data, loop


def losses_of(recipe: str | None) -> dict[str, float]:
    """The losses that a recipe asks for and their weights, `TERMS` where it names none; the scale's goes with them.

    Raises
    ------
    UsageError : a file that cannot be read, an unknown loss, a weight below zero, or nothing that looks at pixels.
    """
    given = tables_of(recipe).get("loss")
    if given is None:
        return dict(TERMS)
    given = {given: 1.0} if isinstance(given, str) else given
    allowed = [*LOSSES, "scale"]
    if not isinstance(given, Mapping):
        raise UsageError(f"--recipe: loss = {given!r}; allowed is a name or a table, as loss = {{huber = 1.0}}")
    for name, weight in given.items():
        if name not in allowed:
            some = f"{', '.join(allowed)}{nearest(name, allowed)}"
            raise UsageError(f"--recipe: [loss] has no loss {name!r}; allowed are {some}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise UsageError(f"--recipe: [loss] {name} = {weight!r}; allowed is a finite weight of 0 or more")
    if not any(weight > 0 for name, weight in given.items() if name not in ("scale", "flux")):
        raise UsageError("--recipe: [loss] says nothing of single pixels; add for instance huber = 1.0")
    weights = {name: float(weight) for name, weight in given.items()}
    first = next(iter(weights))
    return {first: weights[first], "scale": TERMS["scale"], **weights}


def table_of(tables: dict[str, Any], name: str, cls: type[DataRecipe | LoopOptions]) -> dict[str, Any]:
    """A table of a recipe as arguments of its class.

    Raises
    ------
    UsageError : a key that the class does not have.
    """
    known = {f.name for f in fields(cls)}
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in tables.get(name, {}).items()}
    if unknown := sorted(set(given) - known):
        some = f"{', '.join(sorted(known))}{nearest(unknown[0], known)}"
        raise UsageError(f"--recipe: [{name}] has no key {unknown[0]!r}; allowed are {some}")
    return given
