"""The recipe of a training: what to train on, how long, and by which losses; defaults, a TOML file, options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from sciresdiff.diffusion.losses import LOSSES
from sciresdiff.diffusion.method_file import nearest
from sciresdiff.errors import UsageError
from sciresdiff.parse import read_toml
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
    UsageError : a file that cannot be read, or an unknown key.
    """
    tables = read_tables(options.recipe)
    data = DataRecipe(**table_arguments(tables, "data", DataRecipe))
    loop = LoopOptions(**table_arguments(tables, "loop", LoopOptions))
    data = replace(data, kind=options.kind or data.kind, scale=options.scale)
    loop = replace(loop, seed=options.seed)
    if options.minutes or options.images:
        loop = replace(loop, minutes=options.minutes, images=options.images)
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
    UsageError : a key that the class does not have.
    """
    known = {f.name for f in fields(cls)}
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in tables.get(name, {}).items()}
    if unknown := sorted(set(given) - known):
        some = f"{', '.join(sorted(known))}{nearest(unknown[0], known)}"
        raise UsageError(f"--recipe: [{name}] has no key {unknown[0]!r}; allowed are {some}")
    return given
