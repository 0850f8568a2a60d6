"""Training sets from frames: every patch is degraded by itself, with noise and draws of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame, Quantity
from sciresdiff.io import Source
from sciresdiff.io.hdf5.read import Pairs, read_pairs, write_pairs
from sciresdiff.jobs.degrade.options import DegradeOptions
from sciresdiff.jobs.degrade.steps import degrade_plane, make_plan
from sciresdiff.region import Region

Pair = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]
"""(h, w) low, (Y, X) high, (h, w) variance (0: no noise was added; NaN: unknown), (k, k) kernel (NaN: unknown)."""


def refuse(options: DegradeOptions) -> None:
    """Refuse a patch or a set that does not fit.

    Raises
    ------
    UsageError
        A patch that is no multiple of the scale, a detector map, or a set of another scale or patch.
    """
    if isinstance(options.gain, str) or isinstance(options.read_noise, str):
        raise UsageError("--pairs: patches have no place in a map; give --gain and --read-noise as numbers")
    if options.patch % options.scale:
        raise UsageError(f"--patch: {options.patch} is no multiple of --scale {options.scale}; give one that is")
    if options.pairs and Path(options.pairs).exists():
        _refuse_other_kind(options.pairs, read_pairs(options.pairs), options)


def add(source: Source, options: DegradeOptions, quantity: Quantity, key: int) -> dict[str, Any]:
    """Degrade every patch of the frame by itself and add it to the training set.

    A patch is blurred as if its border reflected, which is what training assumes. Unknown noise and kernels are NaN,
    and absent where they are unknown for every pair. Patches with a bad pixel are left out, and those that the set has
    already are not added again, so that a command run twice leaves the same set. **The set is held in memory**, the
    frame is not.

    Parameters
    ----------
    source : Source
        The open frame.
    options : DegradeOptions
        What is done to it; ``pairs`` names the set.
    quantity : "sum" or "mean"
        Whether pixels add up or average.
    key : int
        The number that follows from the frame's values, part of every patch's seed.

    Returns
    -------
    dict
        ``file``, and the numbers of pairs ``added`` and in ``total``, for the record.

    Raises
    ------
    UsageError
        The set holds pairs of another kind.
    InputError
        There is no patch without a bad pixel.
    """
    path, frame = str(options.pairs), source.frame
    old = _read_set(path, options, quantity, frame.kind)
    seen = {pair[0].tobytes() for pair in old}
    fresh = [pair for pair in _make_pairs(source, options, quantity, key) if pair[0].tobytes() not in seen]
    every = old + fresh
    if not every:
        raise InputError(f"--pairs: no patch of {options.patch} px is without bad pixels; try a smaller --patch")
    write_pairs(
        path,
        np.stack([pair[0] for pair in every]),
        np.stack([pair[1] for pair in every]),
        scale=options.scale,
        variance=_drop_unknown(np.stack([pair[2] for pair in every])),
        kernel=_drop_unknown(_pad_to_largest([pair[3] for pair in every])),
        quantity=quantity,
        kind=frame.kind,
        seed=options.seed,
        overwrite=True,
    )
    return {"file": path, "added": len(fresh), "total": len(every)}


def _read_set(path: str, options: DegradeOptions, quantity: Quantity, kind: str) -> list[Pair]:
    """The pairs that a set holds; none where there is no file."""
    if not Path(path).exists():
        return []
    found = read_pairs(path)
    _refuse_other_kind(path, found, options, quantity, kind)
    kernels = found.kernel if found.kernel is not None else np.full((len(found), 1, 1), np.nan)
    noise = found.variance if found.variance is not None else np.full_like(found.low, np.nan)
    return list(zip(found.low, found.high, noise, kernels, strict=True))


def _make_pairs(source: Source, options: DegradeOptions, quantity: Quantity, key: int) -> Iterator[Pair]:
    """The pair of every patch without a bad pixel; the seed of a patch is its number in the frame."""
    side, number = options.patch, 0
    planes, h, w = source.frame.pixels.shape
    for plane in range(planes):
        for y in range(0, h - side + 1, side):
            row = source.window(plane, Region(y, y + side, 0, w))
            for x in range(0, w - side + 1, side):
                number += 1
                window = np.s_[:, :, x : x + side]
                if not row.mask[window].any():
                    rng = np.random.default_rng([options.seed, key, 1, number])
                    yield _make_pair(row.pixels[window], row, options, quantity, rng)


def _make_pair(
    high: NDArray[np.float32], plane: Frame, options: DegradeOptions, quantity: Quantity, rng: np.random.Generator
) -> Pair:
    """Degrade one patch, (1, Y, X) of ``plane``."""
    none = np.zeros(high.shape, bool)
    patch = plane.with_(pixels=high, mask=none, variance=None, saturated=None, dq=None)
    plan = make_plan(patch, options, quantity, rng)
    low = degrade_plane(high[0].astype(np.float64), plan, rng, {})
    nothing = np.nan if "variance" in low.unknown else 0.0
    noise = np.full(low.pixels.shape, nothing) if low.variance is None else low.variance
    kernel = np.full((1, 1), np.nan if "kernel" in low.unknown else 1.0) if low.kernel is None else low.kernel
    return low.pixels.astype(np.float32), high[0], noise.astype(np.float32), kernel


def _drop_unknown(array: NDArray[Any]) -> NDArray[Any] | None:
    """The array, or None where all of it is NaN."""
    return None if np.isnan(array).all() else array


def _pad_to_largest(kernels: list[NDArray[Any]]) -> NDArray[np.float64]:
    """Kernels padded to the size of the largest, (n, k, k): with zeros, unknown ones with NaN."""
    side = max(n for k in kernels for n in k.shape)
    return np.stack(
        [
            np.pad(
                k, [((side - n) // 2,) * 2 for n in k.shape], constant_values=0.0 if np.isfinite(k).all() else np.nan
            )
            for k in kernels
        ]
    )


def _refuse_other_kind(
    path: str, found: Pairs, options: DegradeOptions, quantity: str | None = None, kind: str | None = None
) -> None:
    """Refuse to add to a set of another scale, patch, quantity or kind."""
    there = (found.scale, found.high.shape[-1], quantity and found.quantity, kind and found.kind)
    wanted = (options.scale, options.patch, quantity, kind)
    if there != wanted:
        names = ("scale", "patch", "quantity", "kind")
        differ = [f"{n} {a} there, {b} here" for n, a, b in zip(names, there, wanted, strict=True) if a != b]
        raise UsageError(f"--pairs: {path} exists and holds other pairs ({'; '.join(differ)}); give another name")
