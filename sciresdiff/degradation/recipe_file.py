"""The grammar of a recipe's TOML: what a table may say, and what is missing in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from sciresdiff.degradation.kernels import FAMILIES
from sciresdiff.degradation.resize import FILTERS
from sciresdiff.errors import UsageError
from sciresdiff.physics.psf.shapes import SHAPES

Range = tuple[float, float, bool]
"""Lowest, highest, and whether the logarithm is uniform."""

Table = Mapping[str, Any]
Stage = tuple[dict[str, Table], list[list[str]], float]
"""Tables, orders, probability."""

BLUR = ("fwhm", "sigma", "radius", "beta", "ratio", "theta", "side", "cutoff", "beta_generalised", "beta_plateau")
CAMERA = ("gain", "bright", "sky", "dark", "read_noise", "full_well", "offset", "excess")
FIXED = ("bits", "photons")
POSITIVE = ("fwhm", "sigma", "radius", "gain", "bright", "full_well", "electrons", "side", "quality")
SIGNED = ("offset", "theta")
WAYS = ("up", "down", "keep")
ORDER = ("blur", "resize", "detector", "noise", "jpeg")
"""In which order a stage's steps come where it does not say."""


def read_stages(name: str, given: Table) -> tuple[list[Stage], tuple[float, float] | None]:
    """The stages of a recipe, and its percentiles if it has any.

    A recipe is a list of ``[[stage]]``, or the short form of one instrument: ``[kernel]``, ``[noise]`` and ``stages``
    (2: the same blur and noise come once on the fine grid before).

    Parameters
    ----------
    name : str
        Of the recipe, for messages.
    given : mapping
        The tables of its TOML file.

    Raises
    ------
    UsageError
        Unknown keys, missing or wrong values, or a chain that does not end on the coarse grid.
    """
    if "stage" not in given:
        return _short(name, given), None
    check_keys(name, given, ("about", "percentiles", "stage"))
    items = given["stage"]
    if not isinstance(items, list) or not items:
        raise UsageError(f"--recipe: {name}: stage is no list; begin every stage with [[stage]]")
    stages = [_stage(name, item) for item in items]
    last = [table for tables, _, share in stages if share == 1 for key, table in tables.items() if key == "resize"]
    if not last or "ratios" in last[-1]:
        raise UsageError(
            f'--recipe: {name}: the chain does not end on the coarse grid; give resize = {{ to = "coarse" }}'
        )
    return stages, _percentiles(name, given.get("percentiles"))


def _short(name: str, given: Table) -> list[Stage]:
    check_keys(name, given, ("about", "kernel", "noise", "stages", "kind"))
    if given.get("stages", 1) not in (1, 2):
        raise UsageError(f"--recipe: {name}: stages = {given['stages']}; give 1 or 2")
    blur = dict(given.get("kernel", {}))
    read_out = {"detector": dict(given.get("noise", {}))}
    last = _stage(name, {"blur": blur, "resize": {"to": "coarse"}, **read_out})
    return [last] if given.get("stages", 1) == 1 else [_stage(name, {"blur": {**blur, "px": "grid"}, **read_out}), last]


def _stage(name: str, given: Table) -> Stage:
    check_keys(name, given, (*ORDER, "order", "probability"))
    tables = {key: TABLES[key](name, dict(given[key])) for key in ORDER if key in given}
    orders = given.get("order", [list(tables)])
    orders = [orders] if orders and isinstance(orders[0], str) else orders
    if any(sorted(order) != sorted(tables) for order in orders) or not tables:
        raise UsageError(
            f"--recipe: {name}: order = {given.get('order')}; each has to name {', '.join(tables) or 'steps'}"
        )
    probability = given.get("probability", 1.0)
    if not _is_number(probability) or not 0 <= probability <= 1:
        raise UsageError(f"--recipe: {name}: probability = {probability}; give a number from 0 to 1")
    return tables, [list(order) for order in orders], float(probability)


def _blur(name: str, given: dict[str, Any]) -> Table:
    shapes = read_weights(name, "shapes", given.pop("shapes", {"none": 1}), (*SHAPES, *FAMILIES, "none"))
    px = given.pop("px", "coarse")
    if px not in ("coarse", "grid"):
        raise UsageError(f"--recipe: {name}: px = {px!r}; give coarse, or grid for the pixels of the blurred image")
    reach = {"reach": int(given.pop("reach"))} if _is_number(given.get("reach")) else {}
    check_keys(name, given, BLUR)
    for shape in shapes:
        if missing := [keys for keys in _needs(shape) if not set(keys) & set(given)]:
            unit = "" if missing[0][0].startswith("beta") else " in px"
            raise UsageError(f"--recipe: {name}: kernel.{missing[0][0]} is missing; {shape} needs a range of it{unit}")
    numbers = {key: read_range(name, key, x) for key, x in given.items()}
    if any(x % 2 != 1 for x in numbers.get("side", ())[:2]):
        raise UsageError(f"--recipe: {name}: side = {given['side']}; a kernel has an odd side")
    return {"shapes": shapes, "px": px, "numbers": numbers, **reach}


def _needs(shape: str) -> list[tuple[str, ...]]:
    """Sets of keys, of each of which a shape needs one."""
    if shape == "none":
        return []
    if shape in FAMILIES:
        more = {"generalised": "beta_generalised", "plateau": "beta_plateau"}.get(shape.split("-")[0])
        return [("side",), ("cutoff",) if shape == "sinc" else ("sigma",), *([(more,)] if more else [])]
    width = {"gaussian": ("fwhm", "sigma"), "airy": ("fwhm", "radius")}.get(shape, ("fwhm",))
    return [width, *([("beta",)] if shape == "moffat" else [])]


def _resize(name: str, given: dict[str, Any]) -> Table:
    check_keys(name, given, ("to", "range", "of", *WAYS, "filters", "antialias"))
    filters = read_weights(name, "filters", given.get("filters", {"area": 1}), tuple(FILTERS))
    table = {"filters": filters, "antialias": bool(given.get("antialias", False))}
    if "to" in given:
        if given["to"] != "coarse" or "range" in given:
            raise UsageError(f"--recipe: {name}: resize.to = {given['to']!r}; give coarse, or a range without it")
        return table
    if given.get("of", "fine") not in ("fine", "coarse"):
        raise UsageError(f"--recipe: {name}: resize.of = {given['of']!r}; give fine or coarse")
    ways = read_weights(name, "resize", {key: given[key] for key in WAYS if key in given}, WAYS)
    ratios = read_range(name, "range", given.get("range"))
    if not 0 < ratios[0] <= 1 <= ratios[1]:
        raise UsageError(f"--recipe: {name}: range = {given['range']}; ratios of a grid lie about 1 and above 0")
    return {**table, "ways": ways, "ratios": ratios, "of": given.get("of", "fine")}


def _detector(name: str, given: dict[str, Any]) -> Table:
    check_keys(name, given, (*CAMERA, *FIXED))
    fixed = {key: given.pop(key) for key in FIXED if key in given}
    return {"fixed": fixed, "numbers": {key: read_range(name, key, x) for key, x in given.items()}}


def _noise(name: str, given: dict[str, Any]) -> Table:
    kinds = read_weights(name, "kinds", given.pop("kinds", {}), ("gaussian", "poisson", "none"))
    grey = given.pop("grey", 0.0)
    check_keys(name, given, ("sigma", "strength", "electrons"))
    for kind, key in (("gaussian", "sigma"), ("poisson", "strength")):
        if kind in kinds and key not in given:
            raise UsageError(f"--recipe: {name}: noise.{key} is missing; {kind} noise needs a range of it")
    if not _is_number(grey) or not 0 <= grey <= 1:
        raise UsageError(f"--recipe: {name}: grey = {grey}; give a probability from 0 to 1")
    return {"kinds": kinds, "grey": grey, "numbers": {key: read_range(name, key, x) for key, x in given.items()}}


def _jpeg(name: str, given: dict[str, Any]) -> Table:
    check_keys(name, given, ("quality",))
    quality = read_range(name, "quality", given.get("quality"))
    if not 1 <= quality[0] <= quality[1] <= 100:
        raise UsageError(f"--recipe: {name}: quality = {given['quality']}; JPEG has 1 to 100")
    return {"quality": quality}


TABLES: dict[str, Callable[[str, dict[str, Any]], Table]] = {
    "blur": _blur,
    "resize": _resize,
    "detector": _detector,
    "noise": _noise,
    "jpeg": _jpeg,
}
"""Table of a stage -> how it is read."""


def check_keys(name: str, table: Table, allowed: Iterable[str]) -> None:
    """Refuse keys that a table does not have."""
    for key in table:
        if key not in allowed:
            raise UsageError(f"--recipe: {name}: unknown key {key!r}; allowed are {', '.join(allowed)}")


def read_weights(name: str, key: str, given: Any, allowed: tuple[str, ...]) -> dict[str, float]:
    """Names and their weights, which need not sum to 1."""
    if not isinstance(given, dict):
        raise UsageError(f"--recipe: {name}: {key} = {given}; give weights, as {{ {allowed[0]} = 1 }}")
    check_keys(name, given, allowed)
    if not all(_is_number(x) and x >= 0 for x in given.values()) or not sum(given.values()) > 0:
        raise UsageError(f"--recipe: {name}: {key} = {given}; weights are numbers of 0 or more, not all 0")
    return {key: float(x) for key, x in given.items()}


def read_range(name: str, key: str, given: Any) -> Range:
    """A number, ``[low, high]`` or ``[low, high, "log"]``."""
    items = list(given) if isinstance(given, list) else [given, given]
    log = items[2:] == ["log"]
    numbers = [x for x in items[:2] if _is_number(x)]
    if len(numbers) != 2 or len(items) != 2 + log or numbers[0] > numbers[1]:
        raise UsageError(f'--recipe: {name}: {key} = {given}; give a number, [low, high] or [low, high, "log"]')
    lowest_allowed = -np.inf if key in SIGNED else 0.0
    if numbers[0] < lowest_allowed or ((log or key in POSITIVE) and numbers[0] <= 0):
        raise UsageError(f"--recipe: {name}: {key} = {given} reaches below what it may be; raise its lower end")
    return float(numbers[0]), float(numbers[1]), log


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and bool(np.isfinite(x))


def _percentiles(name: str, given: Any) -> tuple[float, float] | None:
    if given is None:
        return None
    low, high, log = read_range(name, "percentiles", given)
    if log or not 0 <= low < high <= 100:
        raise UsageError(f"--recipe: {name}: percentiles = {given}; give two of 0 to 100, the lower first")
    return low, high
