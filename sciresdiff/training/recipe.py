"""The recipe of a training: what to train on, how long, and by which losses; defaults, a TOML file, options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from sciresdiff.diffusion.losses import LOSSES
from sciresdiff.diffusion.method_file import nearest
from sciresdiff.errors import UsageError
from sciresdiff.parse import read_toml
from sciresdiff.scenes import SCENES
from sciresdiff.training.loop import LoopOptions
from sciresdiff.training.options import TrainOptions

TERMS = {"huber": 1.0, "scale": 0.1, "flux": 0.02}
"""What a prior is trained with unless a recipe names other losses: losses of a stage's image by their weights, and
``scale``, the likelihood of its predicted scale, which is part of every combination."""


@dataclass(frozen=True)
class DataRecipe:
    """What pairs are drawn, in units of the coarse pixel and of the sky noise.

    Ranges (low, high) are log-uniform.
    """

    kind: str = "astro"
    """Simulated scenes: astro or micro."""
    scale: int = 4
    """Fine pixels per coarse pixel and axis."""
    patch: int = 40
    """Side of a patch, coarse px."""
    sigma: tuple[float, float] = (0.3, 1.3)
    """Width of the PSF (standard deviation of its Gaussian equivalent), coarse px."""
    focus: tuple[float, float] = (0.5, 0.75)
    """Narrower range from which half of the widths are drawn."""
    noise: tuple[float, float] = (0.3, 6.0)
    """Sky noise of a coarse pixel divided by the scale, in units of the scene."""
    photon: tuple[float, float] = (3e-4, 1.0)
    """Slope of the variance with the signal, both in noise units."""
    pedestal: tuple[float, float] = (1.0, 300.0)
    """Largest background left under the scene, in noise units."""
    shapes: tuple[str, ...] = ("gaussian", "gaussian", "elliptical", "moffat", "airy", "none")
    """Shapes of the PSF, each as likely as it is often listed."""
    scene_px: int = 384
    """Side of a simulated scene, px."""
    pool: int = 128
    """Scenes kept at a time."""
    reuse: int = 16
    """Pairs drawn for every new scene."""
    grain_share: float = 0.3
    """Share of pairs whose truth carries noise of its own, as every real truth does."""
    grain: tuple[float, float] = (0.3, 5.0)
    """Standard deviation of that noise, in units of the coarse noise spread over its fine pixels."""
    real_share: float | None = None
    """Share of pairs that come from the user's data, where there are any; half by default."""
    degradation: str = ""
    """Recipe of ``degrade`` that the user's frames go through; without one they serve as scenes like the simulated."""
    kernel: str = ""
    """Blur of given pairs that do not state theirs: a SPEC in fine px, or area, bilinear, bicubic."""
    light: str = "auto"
    """How the codes of pictures are read: auto (8-bit colour as sRGB), linear or srgb."""

    def to_dict(self) -> dict[str, Any]:
        """For the model card."""
        return asdict(self)


def read_recipe(options: TrainOptions) -> tuple[DataRecipe, LoopOptions]:
    """The data recipe and the loop's options: defaults, then the TOML file, then the command's options.

    Raises
    ------
    UsageError : a file that cannot be read, an unknown key, or a value that nothing can be drawn with.
    """
    tables = read_tables(options.recipe)
    data = DataRecipe(**table_arguments(tables, "data", DataRecipe))
    loop = LoopOptions(**table_arguments(tables, "loop", LoopOptions))
    data = replace(data, kind=options.kind or data.kind, scale=options.scale)
    loop = replace(loop, seed=options.seed)
    if options.minutes or options.images:
        loop = replace(loop, minutes=options.minutes, images=options.images)
    _check_scenes(data)
    return data, loop


def read_losses(recipe: str | None) -> dict[str, float]:
    """The losses that a recipe file asks for and their weights, that of ``scale`` included; without any, `TERMS`.

    Raises
    ------
    UsageError : a file that cannot be read, an unknown loss, a weight below zero, or nothing that looks at pixels.
    """
    given = read_tables(recipe).get("loss")
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


def read_tables(recipe: str | None) -> dict[str, Any]:
    """The tables of a recipe file; none without one.

    Raises
    ------
    UsageError : a file that cannot be read.
    """
    if not recipe:
        return {}
    try:
        return read_toml(Path(recipe))
    except (OSError, ValueError) as error:
        raise UsageError(f"--recipe: {recipe} cannot be read ({error})") from None


def table_arguments(tables: dict[str, Any], name: str, cls: type[DataRecipe | LoopOptions]) -> dict[str, Any]:
    """A table of a recipe as arguments of its class; lists become tuples.

    Raises
    ------
    UsageError : a key that the class does not have, or a value of another type.
    """
    known = {f.name for f in fields(cls)}
    table = tables.get(name, {})
    if not isinstance(table, Mapping):
        raise UsageError(f"--recipe: {name} = {table!r}; allowed is a table, [{name}]")
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    if unknown := sorted(set(given) - known):
        some = f"{', '.join(sorted(known))}{nearest(unknown[0], known)}"
        raise UsageError(f"--recipe: [{name}] has no key {unknown[0]!r}; allowed are {some}")
    types = get_type_hints(cls)
    for key, value in given.items():
        if not _fits(value, types[key]):
            shown = list(value) if isinstance(value, tuple) else value
            raise UsageError(f"--recipe: [{name}] {key} = {shown!r}; allowed is {_in_words(types[key])}")
    _check_numbers(name, given)
    return given


SHAPES = ("gaussian", "elliptical", "moffat", "airy", "none")
"""Shapes of simulated PSFs."""
WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    tuple[float, float]: "two numbers above 0, as [0.5, 2.0]",
    tuple[str, ...]: "a list of texts",
}
"""Types of a recipe's keys, in words."""
LEAST = {"interval": 0, "patch": 8, "scene_px": 16, "pool": 1, "reuse": 1, "batch": 1}
"""Least values of whole numbers."""
ABOVE_ZERO = ("rate", "minutes", "images", "clip", "average")
"""Numbers that are above 0."""


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a value of a TOML file is of the type of a field."""
    if get_origin(wanted) is tuple:
        inner = get_args(wanted)
        long = isinstance(value, tuple) and (len(value) > 0 if inner[-1] is Ellipsis else len(value) == len(inner))
        return long and all(_fits(v, inner[0]) and (inner[0] is str or v > 0) for v in value)
    if get_args(wanted):  # a type, or None
        return any(_fits(value, one) for one in get_args(wanted))
    if isinstance(value, bool) or wanted is bool:
        return isinstance(value, bool) and wanted is bool
    if wanted is float:
        return isinstance(value, int | float) and abs(value) < float("inf")
    return isinstance(value, wanted)


def _in_words(wanted: Any) -> str:
    """The type of a field, in words."""
    return WORDS.get(wanted) or WORDS[next(t for t in get_args(wanted) if t in WORDS)]


def _check_scenes(data: DataRecipe) -> None:
    """Refuse scenes and PSFs that cannot be drawn.

    Raises
    ------
    UsageError : an unknown kind or shape, or a scene smaller than a patch.
    """
    for key, names, allowed in (("kind", (data.kind,), tuple(SCENES)), ("shapes", data.shapes, SHAPES)):
        for name in set(names) - set(allowed):
            raise UsageError(
                f"--recipe: [data] {key} = {name!r}; allowed are {', '.join(allowed)}{nearest(name, allowed)}"
            )
    if data.patch * data.scale > data.scene_px:
        raise UsageError(
            f"--recipe: [data] patch = {data.patch} at --scale {data.scale} needs scenes of"
            f" {data.patch * data.scale} px, but scene_px = {data.scene_px}; give a smaller patch, or larger scenes"
        )


def _check_numbers(table: str, given: Mapping[str, Any]) -> None:
    """Refuse numbers of a table that nothing can be drawn or trained with.

    Raises
    ------
    UsageError : a number out of bounds, or a range that begins above its end.
    """
    for key, value in given.items():
        if key in LEAST and value < LEAST[key]:
            raise UsageError(f"--recipe: [{table}] {key} = {value}; allowed is {LEAST[key]} or more")
        if key in ABOVE_ZERO and value <= 0:
            raise UsageError(f"--recipe: [{table}] {key} = {value}; allowed is a number above 0")
        if isinstance(value, tuple) and not isinstance(value[0], str) and value[0] > value[1]:
            raise UsageError(f"--recipe: [{table}] {key} = {list(value)}; the first number is the lower one")
        if key.endswith("_share") and not 0 <= value <= 1:
            raise UsageError(f"--recipe: [{table}] {key} = {value}; allowed is a share of 0 ... 1")
