"""Values in small files, and how near to them others have to be."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
SIDE = 16
"""Pixels are kept on a grid of at most so many rows and columns, of at most `LAYERS` along every other axis."""
LAYERS = 2
NEAR = 1e-4
"""Largest difference of an image's pixels, in units of the standard deviation of their plane.

Two runs with the same libraries and one thread agree in every bit. With AVX2 in place of AVX-512, sums are taken in
another order: images then differ by up to 2e-5, and by 7e-5 where the model was trained a moment ago.
"""
DERIVED = {"ERR": 1e-3, "SUPPORT": 1e-3, "GATE": 1e-3, "TRUST": 1e-3}
"""The same of planes that are ratios and thresholds of small differences; between the processors 3e-4 was seen."""
WEIGHTS = 0.05
"""The same of weights trained from nothing, whose first steps divide gradients by their own size; 0.02 was seen."""
SMALL = 1e-6
"""Difference of such weights that is always allowed, for those that have hardly moved from zero."""
ROUNDING = 1e-6
"""Largest difference in units of the pixel itself: a few times the spacing of float32."""
FIGURES = 1e-4
"""Largest relative difference of a number in a record or a card, most of which are rounded to six digits."""
ZERO = 1e-5
"""Difference of numbers in records that is always allowed, for results that are zero but for rounding."""


def keep(folder: Path, name: str, outputs: dict[str, dict[str, Any]]) -> None:
    """Store the values of a case's outputs as NAME.json and NAME.npz."""
    folder.mkdir(exist_ok=True)
    facts: dict[str, dict[str, Any]] = {}
    pixels: dict[str, Array] = {}
    for path, found in outputs.items():
        facts[path] = {}
        for label, value in found.items():
            if isinstance(value, np.ndarray):
                facts[path][label], pixels[f"{path}|{label}".replace("/", ":")] = summary(value), sample(value)
            else:
                facts[path][label] = value
    (folder / f"{name}.json").write_text(json.dumps(facts, indent=0, separators=(",", ":")) + "\n")
    (folder / f"{name}.npz").unlink(missing_ok=True)
    if pixels:
        np.savez_compressed(folder / f"{name}.npz", **pixels)


def stored(folder: Path, name: str) -> dict[str, dict[str, Any]]:
    """What `keep` stored: a value, or of an array (summary, sample)."""
    facts = json.loads((folder / f"{name}.json").read_text())
    if (folder / f"{name}.npz").exists():
        with np.load(folder / f"{name}.npz") as pixels:
            for key in pixels.files:
                path, label = key.replace(":", "/").split("|")
                facts[path][label] = (facts[path][label], pixels[key])
    return facts


def sample(array: Array) -> Array:
    """Pixels of an array on a coarse grid."""
    most = [LAYERS] * (array.ndim - 2) + [SIDE] * min(array.ndim, 2)
    for axis, (length, count) in enumerate(zip(array.shape, most, strict=True)):
        array = array.take(np.linspace(0, length - 1, min(length, count)).round().astype(int), axis)
    return array


def summary(array: Array) -> dict[str, Any]:
    """Shape, type and moments of an array; of few whole numbers, such as flags, a checksum of all."""
    if array.dtype.kind not in "fiub":
        return {"shape": list(array.shape), "dtype": array.dtype.str, "crc": zlib.crc32(array.tobytes())}
    good = array[np.isfinite(array)].astype(np.float64) if array.dtype.kind == "f" else array.astype(np.float64)
    told: dict[str, Any] = {"shape": list(array.shape), "dtype": array.dtype.str, "missing": array.size - good.size}
    if good.size:
        told |= {"mean": good.mean(), "size": np.abs(good).mean(), "scatter": good.std(), "low": good.min(),
                 "high": good.max()}  # fmt: skip
    if array.dtype.kind != "f" and len(np.unique(array)) <= SIDE:
        told["crc"] = zlib.crc32(array.tobytes())
    return told


def differences(old: dict[str, dict[str, Any]], new: dict[str, dict[str, Any]]) -> list[str]:
    """A line for everything in which outputs differ from those stored."""
    said = [f"{path}: is not there" for path in old.keys() - new.keys()]
    said += [f"{path}: was not there" for path in new.keys() - old.keys()]
    for path in sorted(old.keys() & new.keys()):
        for label in old[path].keys() | new[path].keys():
            where = f"{path}: {label}:"
            if label not in new[path] or label not in old[path]:
                said.append(f"{where} {'is' if label in old[path] else 'was'} not there")
            elif isinstance(new[path][label], np.ndarray):
                said += [f"{where} {text}" for text in apart(old[path][label], new[path][label], *allowed(path, label))]
            elif not same(old[path][label], new[path][label], ZERO if is_record(path) else 0.0):
                said.append(f"{where} {new[path][label]!r}, stored is {old[path][label]!r}")
    return sorted(said)


def is_record(path: str) -> bool:
    """Whether an output is a record or a table, and no image."""
    return path.endswith((".json", ".jsonl", ".csv"))


def allowed(path: str, label: str) -> tuple[float, float]:
    """Largest difference of an array's values: in units of their scatter, and in their own unit."""
    if path.endswith(".safetensors"):
        return WEIGHTS, SMALL
    stem = path.rsplit("/", 1)[-1].split(".")[0]
    for name, near in DERIVED.items():
        if name in label.upper().replace("/", " ").split() or stem.endswith(f"_{name.lower()}"):
            return near, 0.0
    return NEAR, 0.0


def same(old: Any, new: Any, zero: float) -> bool:
    """Whether two words or numbers agree; ``zero`` is a difference that is always allowed."""
    if isinstance(old, bool) or isinstance(new, bool) or not all(isinstance(v, int | float) for v in (old, new)):
        return bool(old == new)
    if isinstance(old, int) and isinstance(new, int):
        return old == new
    return math.isclose(old, new, rel_tol=FIGURES, abs_tol=zero) or (math.isnan(old) and math.isnan(new))


def apart(old: Any, new: Array, scale: float, floor: float) -> Iterator[str]:
    """In what an array differs from the one stored, by more than ``scale`` times its scatter and ``floor``."""
    if not isinstance(old, tuple):
        yield "was no array"
        return
    (before, kept), now = old, summary(new)
    for name in ("shape", "dtype", "missing", "crc"):
        if before.get(name) != now.get(name):
            yield f"{name} {now.get(name)}, stored is {before.get(name)}"
            return
    if "mean" not in before or "crc" in before:
        return
    step = 1.0 if new.dtype.kind in "iu" else 0.0  # values are rounded to whole numbers, at the edge to another one
    near = scale * before["scatter"] + floor + step
    for name in ("mean", "size", "scatter", "low", "high"):
        if abs(now[name] - before[name]) > near + ROUNDING * abs(before[name]):
            yield f"{name} {now[name]:.9g}, stored is {before[name]:.9g}; scatter {before['scatter']:.3g}"
    shown = sample(new).astype(np.float64)
    kept = kept.astype(np.float64)
    with np.errstate(invalid="ignore"):
        far = ~((np.abs(shown - kept) <= near + ROUNDING * np.abs(kept)) | (shown == kept))
    far &= ~(np.isnan(shown) & np.isnan(kept))
    if far.any():
        worst = np.nanmax(np.abs(shown - kept)) / (before["scatter"] or 1)
        yield f"{far.sum()} of {far.size} pixels differ, by up to {worst:.2g} of the scatter"
