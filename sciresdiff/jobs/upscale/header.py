"""What a header says of a restored image: how it came to be, and what came of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from sciresdiff import __version__
from sciresdiff.jobs.upscale.inputs import Inputs
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.jobs.upscale.sampling import count_steps

PATHS = ("variance", "mask", "model", "then", "method", "psf", "kernel")
"""Options that may name a file, of which a header has the name alone."""


def provenance(options: UpscaleOptions, inputs: Inputs, draws: int) -> dict[str, Any]:
    """The header cards that say how the image came to be."""
    model, then = inputs.model, inputs.then
    steps = count_steps(model.method, options.steps) if model and model.method else None
    drawn = [m.method.name for m in (model, then) if m and m.method] if draws else []
    return {
        "SRDSCALE": inputs.scale,
        "SRDMODEL": inputs.name,
        "SRDHASH": model.hash if model else None,
        "SRDTHEN": f"{then.card.get('name')} {then.hash}" if then else None,
        "SRDMETH": ", then ".join(drawn) or None,
        "SRDSEED": options.seed,
        "SRDDRAWS": draws,
        "SRDSTEPS": steps if draws and model else None,
        "SRDCONS": options.consistency,
        **({"SRDDEPTH": "3d"} if inputs.observation.depth is not None else {}),
        "SRDTFWHM": inputs.observation.target_fwhm if inputs.observation.target_fwhm is not None else "UNKNOWN",
    }


def figures(planes: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The cards that say what came of it; ``planes`` are `pool_figures`."""
    return {
        "SRDCHI2": round(float(np.mean([p["chi2"] for p in planes])), 6),
        "SRDFLUX": round(float(np.mean([p["flux_ratio"] for p in planes])), 9),
    }


def pool_figures(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """chi2, flux ratio and gated share of a plane, out of the sums of its blocks."""
    return {
        "chi2": mean([p["chi2"] for p in parts], [p["valid"] for p in parts]),
        "flux_ratio": mean([p["flux_ratio"] for p in parts], [p["total"] for p in parts]),
        "gated_share": mean([p["gate"] for p in parts], [p["pixels"] for p in parts]),
        "masked": sum(p["masked"] for p in parts),
    }


def mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """The weighted mean of the values that have a weight; of a single one, that one to the last digit."""
    kept = [(v, w) for v, w in zip(values, weights, strict=True) if w != 0]
    if len(values) == 1 or not kept:
        return float(values[0])
    total = sum(w for _, w in kept)
    return float(sum(v * w for v, w in kept) / total) if total else float("nan")


def history(options: UpscaleOptions, inputs: Inputs) -> list[str]:
    """HISTORY cards: version, model, what was assumed; no clock, host or path."""
    given = replace(options, device="auto", threads=None)
    words = {f.name: getattr(given, f.name) for f in fields(given) if getattr(given, f.name) != f.default}
    for name in PATHS:
        if isinstance(words.get(name), str) and os.sep in words[name]:
            words[name] = ";".join(os.path.basename(part) for part in words[name].split(";"))
    words.pop("overwrite", None)
    text = " ".join(f"{k}={v}" for k, v in sorted(words.items()))
    lines = [f"sciresdiff {__version__} upscale {text}".rstrip()]
    notes = [line for line in inputs.notes if os.sep not in line]
    return lines + notes
