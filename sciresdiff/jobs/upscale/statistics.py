"""What a plane that is restored in blocks is like, measured once on its sample."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.jobs.blocks import CORE
from sciresdiff.jobs.upscale.inputs import Resolved
from sciresdiff.observation.sample import Sample, Samples
from sciresdiff.physics.sky import estimate_sky

if TYPE_CHECKING:
    from sciresdiff.physics.statistics import PlaneStatistics

VALUES = 2**17
"""Pixels that a level keeps; the darkest thousandth is then known from a hundred of them."""
WINDOWS = 4
"""Along an axis: what Richardson-Lucy needs is measured on so many windows, which have the pixels of one core."""


def levels_of(resolved: Resolved, samples: Samples) -> list[PlaneStatistics]:
    """The level of every plane; one of a stack that has no valid pixel gets any.

    Raises
    ------
    InputError : a frame without a valid pixel.
    """
    return [level_of(resolved, samples(plane), plane) for plane in range(resolved.frame.planes)]


def level_of(resolved: Resolved, sample: Sample, plane: int) -> PlaneStatistics:
    """Sky, noise, a share of the pixels and the iterations of Richardson-Lucy."""
    from sciresdiff.physics.statistics import PlaneStatistics
    from sciresdiff.restoration.restore import PHYSICS_ITERATIONS

    variance = resolved.noise.over(sample, plane)
    good = ~sample.mask & np.isfinite(sample.pixels) & np.isfinite(variance) & (variance > 0)
    if not good.any() and resolved.frame.planes > 1:
        return PlaneStatistics(0.0, 1.0, np.zeros(1, np.float32), np.ones(1, np.float32), 1)
    if not good.any():
        raise InputError("variance: no pixel is valid and has a variance above zero; give --variance or --mask")
    sky, _ = estimate_sky(sample.pixels, ~good)
    sigma = float(np.sqrt(np.median(variance[good])))
    every = -(-int(good.sum()) // VALUES)
    y = ((sample.pixels[good][::every] - sky) / sigma).astype(np.float32)
    noise = (variance[good][::every] / sigma**2).astype(np.float32)
    level = PlaneStatistics(float(sky), sigma, y, noise, PHYSICS_ITERATIONS)
    return replace(level, iterations=iterations(resolved, level, sample.pixels, variance, good))


def iterations(
    resolved: Resolved, level: PlaneStatistics, pixels: NDArray[Any], variance: NDArray[Any], good: NDArray[np.bool_]
) -> int:
    """Of Richardson-Lucy until chi2 over windows of the sample is 1: what the whole plane would take."""
    import torch

    from sciresdiff.physics.consistency import Data, richardson_lucy
    from sciresdiff.physics.operators import Operator
    from sciresdiff.restoration.prior import pedestal
    from sciresdiff.restoration.restore import PHYSICS_ITERATIONS

    scale, side = resolved.scale, _side(resolved)
    places = [(y, x) for y in _middles(pixels.shape[0], side) for x in _middles(pixels.shape[1], side)]
    if side > min(pixels.shape) or not places:
        return PHYSICS_ITERATIONS

    def stacked(plane: NDArray[Any]) -> Any:
        parts = np.stack([plane[y : y + side, x : x + side] for y, x in places])[:, None]
        return torch.from_numpy(parts.astype(np.float32))

    y = stacked(np.where(good, (pixels - level.sky) / level.sigma, 0))
    noise = stacked(np.where(good, variance / level.sigma**2, 1))
    data = Data(y, noise, stacked(good), Operator((side, side), scale, resolved.kernel), level)
    pixels_of = data.valid.sum((-2, -1))
    with torch.inference_mode():
        for k, x in enumerate(richardson_lucy(data, pedestal(data)), start=1):
            chi2 = float((data.chi2(x) * pixels_of).sum() / pixels_of.sum().clamp_min(1))
            if k >= PHYSICS_ITERATIONS or chi2 <= 1:
                return k
    raise AssertionError("Richardson-Lucy has no end of its own")


def _side(resolved: Resolved) -> int:
    """Of a window, coarse px: a kernel has to fit into it."""
    widest = 0 if resolved.kernel is None else max(resolved.kernel.shape)
    return -(-max(CORE // WINDOWS, widest) // resolved.scale)


def _middles(length: int, side: int) -> list[int]:
    """First pixels of windows in the middle of their shares."""
    count = min(WINDOWS, length // side)
    return [round((i + 0.5) * length / count - side / 2) for i in range(count)]
