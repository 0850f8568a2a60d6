"""Recipes: ranges from which the blur and the noise of a degraded frame are drawn."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError, UsageError

from .detector import Detector
from .psf_shapes import SHAPES
from .psf_spec import Psf

Range = tuple[float, float, bool]
"""Lowest, highest, and whether the logarithm is uniform."""

RECIPES = ("astro", "micro", "second-order")
"""Recipes that come with the package."""

KERNEL = ("fwhm", "beta", "ratio", "theta")
NOISE = ("gain", "bright", "sky", "dark", "read_noise", "full_well", "offset", "excess")
POSITIVE = ("fwhm", "gain", "bright", "full_well")
BRIGHT_PERCENTILE = 99.9


@dataclass(frozen=True)
class Recipe:
    """Ranges, read from TOML."""

    name: str
    shapes: Mapping[str, float]
    """Weight of each PSF shape, ``none`` among them."""
    kernel: Mapping[str, Range]
    """``fwhm`` in coarse px, ``beta``, ``ratio``, ``theta``."""
    noise: Mapping[str, Range]
    """Fields of the detector, in electrons per coarse pixel; ``bright``: electrons that the brightest parts get."""
    stages: int = 1
    """2: blur and noise on the fine grid come first."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """``bits`` and ``photons`` of the detector."""


@dataclass(frozen=True)
class Draw:
    """What was drawn from a recipe for one frame or patch."""

    psf: Psf
    """Kernel, its width in fine pixels."""
    detector: Mapping[str, float]
    """Fields of the detector."""
    bright: float | None = None
    """Electrons in the 99.9th percentile above the median, which sets the gain; None: ``gain`` is drawn."""

    def told(self) -> dict[str, Any]:
        """For the record."""
        bright = {} if self.bright is None else {"bright": self.bright}
        return {"kernel": str(self.psf), **dict(self.detector), **bright}


def load(name: str) -> Recipe:
    """A recipe of the package by name, or a TOML file.

    Raises
    ------
    UsageError : no such recipe, or a file that cannot be read or says what is not known.
    """
    try:
        if name in RECIPES:
            text = resources.files("sciresdiff.physics").joinpath("recipes", f"{name}.toml").read_text()
        elif name.endswith(".toml"):
            text = Path(name).read_text()
        else:
            raise UsageError(f"--recipe: {name!r} is not known; give {', '.join(RECIPES)}, or a FILE.toml")
        return _recipe(name, tomllib.loads(text))
    except OSError as error:
        raise UsageError(f"--recipe: {name}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--recipe: {name}: not a TOML file ({error})") from error


def _recipe(name: str, told: dict[str, Any]) -> Recipe:
    _known(name, told, ("kernel", "noise", "stages", "kind"))
    kernel, noise = dict(told.get("kernel", {})), dict(told.get("noise", {}))
    shapes = kernel.pop("shapes", {"none": 1})
    _known(name, shapes, (*SHAPES, "none"))
    _known(name, kernel, KERNEL)
    _known(name, noise, (*NOISE, "bits", "photons"))
    if set(shapes) != {"none"} and "fwhm" not in kernel:
        raise UsageError(f"--recipe: {name}: kernel.fwhm is missing; give a range in coarse px")
    if "moffat" in shapes and "beta" not in kernel:
        raise UsageError(f"--recipe: {name}: kernel.beta is missing; a moffat needs a range of it")
    if told.get("stages", 1) not in (1, 2):
        raise UsageError(f"--recipe: {name}: stages = {told['stages']}; give 1 or 2")
    fixed = {key: noise.pop(key) for key in ("bits", "photons") if key in noise}
    ranges = [{key: _range(name, key, x) for key, x in table.items()} for table in (kernel, noise)]
    return Recipe(name, shapes, ranges[0], ranges[1], told.get("stages", 1), fixed)


def _known(name: str, table: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    for key in table:
        if key not in allowed:
            raise UsageError(f"--recipe: {name}: unknown key {key!r}; allowed are {', '.join(allowed)}")


def _range(name: str, key: str, told: Any) -> Range:
    """A number, ``[low, high]`` or ``[low, high, "log"]``."""
    items = list(told) if isinstance(told, list) else [told, told]
    log = items[2:] == ["log"]
    numbers = [x for x in items[:2] if isinstance(x, int | float) and not isinstance(x, bool) and np.isfinite(x)]
    if len(numbers) != 2 or len(items) != 2 + log or numbers[0] > numbers[1]:
        raise UsageError(f'--recipe: {name}: {key} = {told}; give a number, [low, high] or [low, high, "log"]')
    lowest_allowed = 0.0 if key != "offset" else -np.inf
    if numbers[0] < lowest_allowed or ((log or key in POSITIVE) and numbers[0] <= 0):
        raise UsageError(f"--recipe: {name}: {key} = {told} reaches below what it may be; raise its lower end")
    return float(numbers[0]), float(numbers[1]), log


def _draw(rng: np.random.Generator, span: Range) -> float:
    low, high, log = span
    return float(np.exp(rng.uniform(np.log(low), np.log(high)))) if log else float(rng.uniform(low, high))


def draw(recipe: Recipe, rng: np.random.Generator, scale: int) -> Draw:
    """Draw a blur and a noise; the same generator state gives the same draw.

    Parameters
    ----------
    scale : fine pixels per coarse pixel, which turns the recipe's coarse px into the kernel's fine px.
    """
    names = list(recipe.shapes)
    weights = np.array([recipe.shapes[name] for name in names], float)
    shape = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    numbers = {key: _draw(rng, span) for key, span in recipe.kernel.items()}
    noise = {key: _draw(rng, span) for key, span in recipe.noise.items()}
    bright = noise.pop("bright", None)
    return Draw(_psf(shape, numbers, scale), noise, None if "gain" in noise else bright)


def _psf(shape: str, numbers: Mapping[str, float], scale: int) -> Psf:
    if shape == "none":
        return Psf("none")
    takes = SHAPES[shape].takes
    units = {"fwhm": "px", "theta": "deg"}
    params = {key: (x, units.get(key, "")) for key, x in numbers.items() if key in takes}
    params["fwhm"] = (numbers["fwhm"] * scale, "px")
    return Psf(shape, params)


def detector_of(recipe: Recipe, drawn: Draw, expected: NDArray[Any], **given: Any) -> Detector:
    """The detector of a draw, for a frame of these expected coarse pixels; ``given`` wins over what was drawn."""
    told = {**recipe.fixed, **drawn.detector}
    if drawn.bright is not None:
        told["gain"] = drawn.bright / _brightness(expected)
    return replace(Detector(**told), **given)


def _brightness(expected: NDArray[Any]) -> float:
    """99.9th percentile above the median; of a flat frame its level, of an empty one 1."""
    values = expected[np.isfinite(expected)]
    if not values.size:
        raise InputError("image: no pixel has a finite value; nothing to degrade")
    middle, top = np.percentile(values, [50, BRIGHT_PERCENTILE])
    return float(next((x for x in (top - middle, abs(middle)) if x > 0), 1.0))
