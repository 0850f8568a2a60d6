"""Where Richardson-Lucy starts from, and where it stops: the first estimate that needs no network."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sciresdiff.physics.consistency import Data, richardson_lucy

MOST_ITERATIONS = 30
"""Accelerated iterations of the physics-only estimate at most; it stops sooner where chi2 reaches 1."""
DARKEST = 0.001
"""Share of the valid pixels that may lie further below the pedestal than the noise explains."""


def low_quantile(values: Tensor, share: float) -> Tensor:
    """`torch.quantile` of a vector for a small share, without sorting all of it."""
    at = share * (len(values) - 1)
    below = values.topk(min(int(at) + 2, len(values)), largest=False).values[-2:]
    return torch.lerp(below[0], below[-1], at - int(at))


def pedestal(data: Data) -> Tensor:
    """What to add to y so that Richardson-Lucy finds it positive: 4 sigma below all but 0.1 % of the valid pixels.

    Returns
    -------
    (..., 1, 1), noise units; at least 4.
    """
    if data.statistics is not None:
        return data.y.new_tensor(4 - np.quantile(data.statistics.y, DARKEST)).clamp_min(4).view(1, 1, 1, 1)
    low = [
        low_quantile(plane[ok > 0][:: 1 + ok.numel() // 1_000_000], DARKEST) if bool(ok.any()) else plane.new_zeros(())
        for plane, ok in zip(data.y.flatten(0, -3), data.valid.flatten(0, -3), strict=True)
    ]
    return (4 - torch.stack(low)).clamp_min(4).view(*data.y.shape[:-2], 1, 1)


def richardson_lucy_until_chi2_one(data: Data) -> tuple[Tensor, int]:
    """Richardson-Lucy stopped where the data are explained (chi2 = 1), and the iterations that this took.

    A part of a plane takes as many as the whole plane would (`PlaneStatistics.iterations`), so that parts agree.

    Returns
    -------
    (..., s*h, s*w) in noise units, and k, 1 to 30.
    """
    x, k = data.y, 0
    for k, x in enumerate(richardson_lucy(data, pedestal(data)), start=1):
        if k >= MOST_ITERATIONS or (data.statistics is None and float(data.chi2(x).max()) <= 1):
            break
        if data.statistics is not None and k >= data.statistics.iterations:
            break
    return x, k
