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


def read_stages(name: str, told: Table) -> tuple[list[Stage], tuple[float, float] | None]:
    """The stages of a recipe, and its percentiles if it has any.

    A recipe is a list of ``[[stage]]``, or the short form of one instrument: ``[kernel]``, ``[noise]`` and ``stages``
    (2: the same blur and noise come once on the fine grid before).

    Raises
    ------
    UsageError : unknown keys, missing or wrong values, or a chain that does not end on the coarse grid.
    """
    if "stage" not in told:
        return _short(name, told), None
    check_keys(name, told, ("about", "percentiles", "stage"))
    items = told["stage"]
    if not isinstance(items, list) or not items:
        raise UsageError(f"--recipe: {name}: stage is no list; begin every stage with [[stage]]")
    stages = [_stage(name, item) for item in items]
    last = [table for tables, _, share in stages if share == 1 for key, table in tables.items() if key == "resize"]
    if not last or "ratios" in last[-1]:
        raise UsageError(
            f'--recipe: {name}: the chain does not end on the coarse grid; give resize = {{ to = "coarse" }}'
        )
    return stages, _percentiles(name, told.get("percentiles"))


def _short(name: str, told: Table) -> list[Stage]:
    check_keys(name, told, ("about", "kernel", "noise", "stages", "kind"))
    if told.get("stages", 1) not in (1, 2):
        raise UsageError(f"--recipe: {name}: stages = {told['stages']}; give 1 or 2")
    blur = dict(told.get("kernel", {}))
    read_out = {"detector": dict(told.get("noise", {}))}
    last = _stage(name, {"blur": blur, "resize": {"to": "coarse"}, **read_out})
    return [last] if told.get("stages", 1) == 1 else [_stage(name, {"blur": {**blur, "px": "grid"}, **read_out}), last]


def _stage(name: str, told: Table) -> Stage:
    check_keys(name, told, (*ORDER, "order", "probability"))
    tables = {key: TABLES[key](name, dict(told[key])) for key in ORDER if key in told}
    orders = told.get("order", [list(tables)])
    orders = [orders] if orders and isinstance(orders[0], str) else orders
    if any(sorted(order) != sorted(tables) for order in orders) or not tables:
        raise UsageError(
            f"--recipe: {name}: order = {told.get('order')}; each has to name {', '.join(tables) or 'steps'}"
        )
    probability = told.get("probability", 1.0)
    if not _is_number(probability) or not 0 <= probability <= 1:
        raise UsageError(f"--recipe: {name}: probability = {probability}; give a number from 0 to 1")
    return tables, [list(order) for order in orders], float(probability)


def _blur(name: str, told: dict[str, Any]) -> Table:
    shapes = read_weights(name, "shapes", told.pop("shapes", {"none": 1}), (*SHAPES, *FAMILIES, "none"))
    px = told.pop("px", "coarse")
    if px not in ("coarse", "grid"):
        raise UsageError(f"--recipe: {name}: px = {px!r}; give coarse, or grid for the pixels of the blurred image")
    reach = {"reach": int(told.pop("reach"))} if _is_number(told.get("reach")) else {}
    check_keys(name, told, BLUR)
    for shape in shapes:
        if missing := [keys for keys in _needs(shape) if not set(keys) & set(told)]:
            unit = "" if missing[0][0].startswith("beta") else " in px"
            raise UsageError(f"--recipe: {name}: kernel.{missing[0][0]} is missing; {shape} needs a range of it{unit}")
    numbers = {key: read_range(name, key, x) for key, x in told.items()}
    if any(x % 2 != 1 for x in numbers.get("side", ())[:2]):
        raise UsageError(f"--recipe: {name}: side = {told['side']}; a kernel has an odd side")
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


def _resize(name: str, told: dict[str, Any]) -> Table:
    check_keys(name, told, ("to", "range", "of", *WAYS, "filters", "antialias"))
    filters = read_weights(name, "filters", told.get("filters", {"area": 1}), tuple(FILTERS))
    table = {"filters": filters, "antialias": bool(told.get("antialias", False))}
    if "to" in told:
        if told["to"] != "coarse" or "range" in told:
            raise UsageError(f"--recipe: {name}: resize.to = {told['to']!r}; give coarse, or a range without it")
        return table
    if told.get("of", "fine") not in ("fine", "coarse"):
        raise UsageError(f"--recipe: {name}: resize.of = {told['of']!r}; give fine or coarse")
    ways = read_weights(name, "resize", {key: told[key] for key in WAYS if key in told}, WAYS)
    ratios = read_range(name, "range", told.get("range"))
    if not 0 < ratios[0] <= 1 <= ratios[1]:
        raise UsageError(f"--recipe: {name}: range = {told['range']}; ratios of a grid lie about 1 and above 0")
    return {**table, "ways": ways, "ratios": ratios, "of": told.get("of", "fine")}


def _detector(name: str, told: dict[str, Any]) -> Table:
    check_keys(name, told, (*CAMERA, *FIXED))
    fixed = {key: told.pop(key) for key in FIXED if key in told}
    return {"fixed": fixed, "numbers": {key: read_range(name, key, x) for key, x in told.items()}}


def _noise(name: str, told: dict[str, Any]) -> Table:
    kinds = read_weights(name, "kinds", told.pop("kinds", {}), ("gaussian", "poisson", "none"))
    grey = told.pop("grey", 0.0)
    check_keys(name, told, ("sigma", "strength", "electrons"))
    for kind, key in (("gaussian", "sigma"), ("poisson", "strength")):
        if kind in kinds and key not in told:
            raise UsageError(f"--recipe: {name}: noise.{key} is missing; {kind} noise needs a range of it")
    if not _is_number(grey) or not 0 <= grey <= 1:
        raise UsageError(f"--recipe: {name}: grey = {grey}; give a probability from 0 to 1")
    return {"kinds": kinds, "grey": grey, "numbers": {key: read_range(name, key, x) for key, x in told.items()}}


def _jpeg(name: str, told: dict[str, Any]) -> Table:
    check_keys(name, told, ("quality",))
    quality = read_range(name, "quality", told.get("quality"))
    if not 1 <= quality[0] <= quality[1] <= 100:
        raise UsageError(f"--recipe: {name}: quality = {told['quality']}; JPEG has 1 to 100")
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


def read_weights(name: str, key: str, told: Any, allowed: tuple[str, ...]) -> dict[str, float]:
    """Names and their weights, which need not sum to 1."""
    if not isinstance(told, dict):
        raise UsageError(f"--recipe: {name}: {key} = {told}; give weights, as {{ {allowed[0]} = 1 }}")
    check_keys(name, told, allowed)
    if not all(_is_number(x) and x >= 0 for x in told.values()) or not sum(told.values()) > 0:
        raise UsageError(f"--recipe: {name}: {key} = {told}; weights are numbers of 0 or more, not all 0")
    return {key: float(x) for key, x in told.items()}


def read_range(name: str, key: str, told: Any) -> Range:
    """A number, ``[low, high]`` or ``[low, high, "log"]``."""
    items = list(told) if isinstance(told, list) else [told, told]
    log = items[2:] == ["log"]
    numbers = [x for x in items[:2] if _is_number(x)]
    if len(numbers) != 2 or len(items) != 2 + log or numbers[0] > numbers[1]:
        raise UsageError(f'--recipe: {name}: {key} = {told}; give a number, [low, high] or [low, high, "log"]')
    lowest_allowed = -np.inf if key in SIGNED else 0.0
    if numbers[0] < lowest_allowed or ((log or key in POSITIVE) and numbers[0] <= 0):
        raise UsageError(f"--recipe: {name}: {key} = {told} reaches below what it may be; raise its lower end")
    return float(numbers[0]), float(numbers[1]), log


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and bool(np.isfinite(x))


def _percentiles(name: str, told: Any) -> tuple[float, float] | None:
    if told is None:
        return None
    low, high, log = read_range(name, "percentiles", told)
    if log or not 0 <= low < high <= 100:
        raise UsageError(f"--recipe: {name}: percentiles = {told}; give two of 0 to 100, the lower first")
    return low, high
