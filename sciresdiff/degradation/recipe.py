"""Recipes: chains of degradation of which every number has a range, read from TOML and drawn at random."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from sciresdiff.degradation import eightbit
from sciresdiff.degradation.chain import Step
from sciresdiff.degradation.kernels import FAMILIES, airy_from_first_ring
from sciresdiff.degradation.recipe_file import Range, read_stages
from sciresdiff.errors import UsageError
from sciresdiff.parse import parse_toml, read_toml
from sciresdiff.physics.psf.shapes import SHAPES
from sciresdiff.physics.psf.spec import PSFSpec

RECIPES = ("astro", "micro", "first-order", "second-order", "real-esrgan", "bicubic", "star")
"""Recipes that come with the package."""

Rng = np.random.Generator
Table = Mapping[str, Any]


@dataclass(frozen=True)
class Stage:
    """Steps that belong together, each a table of ranges."""

    tables: Mapping[str, Table]
    """``blur``, ``resize``, ``detector``, ``noise``, ``jpeg``."""
    orders: Sequence[Sequence[str]]
    """In which order they come; of several one is picked at random."""
    probability: float = 1.0
    """With which the stage happens at all."""


@dataclass(frozen=True)
class Recipe:
    """A chain with ranges instead of numbers."""

    name: str
    stages: Sequence[Stage]
    percentiles: tuple[float, float] = eightbit.PERCENTILES
    """Of the fine image, which 8-bit noise and coding take for 0 and 255."""
    about: str = ""

    @property
    def unknown(self) -> str:
        """Why the noise or the blur of what comes out may not be known; empty where both always are."""
        for stage in self.stages:
            resize = stage.tables.get("resize", {})
            if "jpeg" in stage.tables:
                return "JPEG"
            if "ratios" in resize or set(resize.get("filters", {})) - {"area"} and not resize.get("antialias"):
                return "resizing to a grid that is no whole number of times coarser, or without antialiasing"
        return ""

    @property
    def physical(self) -> bool:
        """Whether the last stage is an instrument's: a blur of the fine grid, pixel integration, perhaps a detector."""
        stage = self.stages[-1]
        return not self.unknown and len(stage.orders) == 1 and list(stage.orders[0][:2]) == ["blur", "resize"]


@dataclass(frozen=True)
class Draw:
    """What was drawn from a recipe for one frame or patch."""

    steps: Sequence[Step]
    recipe: Recipe = field(repr=False)

    def record(self) -> list[dict[str, Any]]:
        """JSON-able, step by step."""
        return [step.record() for step in self.steps]


def load(name: str) -> Recipe:
    """A recipe of the package by name (`RECIPES`), or a TOML file.

    Raises
    ------
    UsageError
        No such recipe, or a file that cannot be read or says what is not known.
    """
    try:
        if name in RECIPES:
            file = resources.files("sciresdiff.degradation").joinpath("recipes", f"{name}.toml")
            tables = parse_toml(file.read_text())
        elif name.endswith(".toml"):
            tables = read_toml(Path(name))
        else:
            near = difflib.get_close_matches(name, RECIPES, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UsageError(f"--recipe: {name!r} is not known{hint}; give {', '.join(RECIPES)}, or a FILE.toml")
    except OSError as error:
        raise UsageError(f"--recipe: {name}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"--recipe: {name}: not a TOML file ({error})") from error
    return recipe_from_toml(name, tables)


def recipe_from_toml(name: str, tables: Table) -> Recipe:
    """The recipe that a TOML file's tables describe.

    Raises
    ------
    UsageError
        What `recipe_file` refuses.
    """
    stages, percentiles = read_stages(name, tables)
    made = [Stage(*stage) for stage in stages]
    return Recipe(name, made, percentiles or eightbit.PERCENTILES, str(tables.get("about", "")))


def draw(recipe: Recipe, rng: Rng, scale: int) -> Draw:
    """Draw a chain; the same generator state gives the same draw.

    Parameters
    ----------
    recipe : Recipe
    rng : numpy.random.Generator
    scale : int
        Fine pixels per coarse pixel, which turns widths in coarse px into those of the fine grid.
    """
    steps: list[Step] = []
    for stage in recipe.stages:
        if stage.probability < 1 and rng.random() >= stage.probability:
            continue
        # no random number where there is no choice, so that a recipe draws the same with and without "order"
        order = stage.orders[0 if len(stage.orders) == 1 else int(rng.integers(len(stage.orders)))]
        for name in order:
            steps += DRAWS[name](stage.tables[name], rng, scale)
    # grey noise has a generator of its own, seeded by the step's place
    placed = [
        Step(step.name, {**step.numbers, "place": i}) if step.numbers.get("grey") else step
        for i, step in enumerate(steps)
    ]
    return Draw(placed, recipe)


def draw_name(weights: Mapping[str, float], rng: Rng) -> str:
    """A name, with the probabilities that the weights have."""
    names = list(weights)
    shares = np.array([weights[name] for name in names], float)
    return names[int(rng.choice(len(names), p=shares / shares.sum()))]


def draw_number(rng: Rng, span: Range) -> float:
    """A number from a range (lowest, highest, whether the logarithm is uniform)."""
    low, high, log = span
    return float(np.exp(rng.uniform(np.log(low), np.log(high)))) if log else float(rng.uniform(low, high))


def draw_blur(table: Table, rng: Rng, scale: int) -> list[Step]:
    """A kernel: the shape first, then every number in the order of the table, whether the shape takes it or not."""
    shape = draw_name(table["shapes"], rng)
    numbers: dict[str, float] = {}
    for key, span in table["numbers"].items():
        numbers |= NUMBERS[key](rng, span) if key in NUMBERS else {key: draw_number(rng, span)}
    if shape in FAMILIES:
        return [Step("blur", {"kernel": shape, **_family_numbers(shape, numbers)})]
    kernel = {"kernel": str(_psf(shape, numbers, scale if table["px"] == "coarse" else 1))}
    return [Step("blur", kernel | ({"reach": table["reach"]} if "reach" in table and shape != "none" else {}))]


def _family_numbers(shape: str, numbers: Mapping[str, float]) -> dict[str, float]:
    """The numbers that a family takes, px of its grid."""
    kind = "beta_generalised" if shape.startswith("generalised") else "beta_plateau"
    side = round(numbers["side"])
    wide = {"beta": numbers.get(kind, 1.0), "cutoff": _cutoff(numbers.get("cutoff", 0.0), side), "theta": 0.0}
    every = {**wide, **{key: x for key, x in numbers.items() if key not in wide}, "side": side}
    every["theta"] = numbers.get("theta", 0.0)
    return {key: every[key] for key in FAMILIES[shape].takes}


def _cutoff(share: float, side: int) -> float:
    """A cutoff from pi / 3 to pi for kernels below 13 px, else from pi / 5: narrow kernels hold no wide ripples."""
    lowest = np.pi / 3 if side < 13 else np.pi / 5
    return float(lowest + share * (np.pi - lowest))


def _draw_both_axes(rng: Rng, span: Range) -> dict[str, float]:
    """The widths along the two axes, independent of each other."""
    return {"sigma_x": draw_number(rng, span), "sigma_y": draw_number(rng, span)}


def _draw_odd(rng: Rng, span: Range) -> dict[str, float]:
    """An odd side; both ends are possible."""
    return {"side": 2 * int(rng.integers(int(span[0]) // 2, int(span[1]) // 2 + 1)) + 1}


def _draw_about_one(name: str) -> Callable[[Rng, Range], dict[str, float]]:
    """A shape exponent: below 1 as often as above, as in the released code."""

    def draw_exponent(rng: Rng, span: Range) -> dict[str, float]:
        low, high, _ = span
        ends = (min(low, 1.0), 1.0) if rng.random() < 0.5 else (1.0, max(high, 1.0))
        return {name: float(rng.uniform(*ends))}

    return draw_exponent


NUMBERS: dict[str, Callable[[Rng, Range], dict[str, float]]] = {
    "sigma": _draw_both_axes,
    "side": _draw_odd,
    "beta_generalised": _draw_about_one("beta_generalised"),
    "beta_plateau": _draw_about_one("beta_plateau"),
}
"""Ranges that are drawn in a way of their own."""


def _psf(shape: str, numbers: Mapping[str, float], factor: int) -> PSFSpec:
    """A PSF, its width brought to px of the grid that it blurs."""
    if shape == "none":
        return PSFSpec("none")
    if "fwhm" not in numbers and shape == "airy":
        return airy_from_first_ring(numbers["radius"] * factor)
    units = {"fwhm": "px", "theta": "deg"}
    takes = SHAPES[shape].takes
    params = {key: (x, units.get(key, "")) for key, x in numbers.items() if key in takes}
    width = "fwhm" if "fwhm" in numbers else "sigma"
    params[width] = (numbers["fwhm" if width == "fwhm" else "sigma_x"] * factor, "px")
    return PSFSpec(shape, params)


def draw_resize(table: Table, rng: Rng, scale: int) -> list[Step]:
    """To the coarse grid, or by a ratio: larger, smaller, or not at all."""
    numbers: dict[str, Any] = {"to": "coarse"}
    if "ratios" in table:
        way = draw_name(table["ways"], rng)
        low, high, _ = table["ratios"]
        ratio = {"up": lambda: rng.uniform(1, high), "down": lambda: rng.uniform(low, 1), "keep": lambda: 1.0}[way]()
        numbers = {"ratio": float(ratio), "of": table["of"]}
    filters = table["filters"]
    numbers["filter"] = next(iter(filters)) if len(filters) == 1 else draw_name(filters, rng)
    return [Step("resize", numbers | ({"antialias": True} if table["antialias"] else {}))]


def draw_detector(table: Table, rng: Rng, scale: int) -> list[Step]:
    """A detector; where a gain is drawn, ``bright`` sets none."""
    noise = {key: draw_number(rng, span) for key, span in table["numbers"].items()}
    if "gain" in noise:
        noise.pop("bright", None)
    return [Step("detector", {**table["fixed"], **noise})]


def draw_noise(table: Table, rng: Rng, scale: int) -> list[Step]:
    """Noise in 8-bit levels: Gaussian, Poisson or none."""
    kind = draw_name(table["kinds"], rng)
    numbers = {key: draw_number(rng, span) for key, span in table["numbers"].items()}
    grey = bool(rng.random() < table["grey"])
    takes = {"gaussian": ("sigma",), "poisson": ("strength", "electrons"), "none": ()}[kind]
    taken: dict[str, Any] = {key: numbers[key] for key in takes if key in numbers}
    return [] if kind == "none" else [Step(kind, taken | {"grey": grey})]


def draw_jpeg(table: Table, rng: Rng, scale: int) -> list[Step]:
    """A JPEG quality, 1 ... 100."""
    return [Step("jpeg", {"quality": round(draw_number(rng, table["quality"]))})]


DRAWS: dict[str, Callable[[Table, Rng, int], list[Step]]] = {
    "blur": draw_blur,
    "resize": draw_resize,
    "detector": draw_detector,
    "noise": draw_noise,
    "jpeg": draw_jpeg,
}
"""Table of a stage -> steps drawn from it."""
