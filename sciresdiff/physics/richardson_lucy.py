"""Richardson-Lucy, where it starts from and where it stops: the first estimate, which needs no network."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from sciresdiff.physics.consistency import Data

MOST_ITERATIONS = 30
"""Accelerated iterations of the physics-only estimate at most; it stops sooner where chi2 reaches 1."""
FEWEST_ITERATIONS = 4
"""Of the same at least: where a frame is mostly empty sky its chi2 is 1 before the sources in it are sharp, so that
fewer would tell how much empty sky there is."""
DARKEST = 0.001
"""Share of the valid pixels that may lie further below the pedestal than the noise explains."""


def richardson_lucy(data: Data, pedestal: Tensor, floor: float = 1e-2) -> Iterator[Tensor]:
    """Accelerated Richardson-Lucy estimates of x, one after the other.

    Each estimate is multiplied by A^T(y / A x) / A^T 1 (Richardson 1972; Lucy 1974) after an extrapolation in its
    logarithm with the fixed momentum (k - 1) / (k + 2): about k^2 / 4 plain iterations for k of these.  The fixed
    momentum keeps it local, where the usual one (Biggs & Andrews 1997) is an inner product over the frame.

    Parameters
    ----------
    data : Data
        Quantity ``sum``; no gradients are kept.
    pedestal : (..., 1, 1) tensor
        Added to y for the duration, so that a sky around zero stays positive; in units of y.
    floor : float
        Smallest value of y + pedestal that is used, same units.

    Yields
    ------
    (..., s*h, s*w) tensor
        Estimates with the pedestal taken off again.  **Pixels of y below floor - pedestal gain flux.**
    """
    operator, scale = data.operator, data.operator.scale
    y = torch.where(data.valid > 0, (data.y + pedestal).clamp_min(floor), pedestal)
    weight = operator.adjoint(torch.ones_like(y)).reciprocal_()  # 1 / A^T 1
    x = (operator.adjoint(y) * weight / scale**2).clamp_min(floor / scale**2 * 1e-3)
    before, k, tiny = x, 0, floor / scale**2 * 1e-6
    while True:
        k += 1
        momentum = (k - 1) / (k + 2)
        # x (x / x_before)^momentum; the limits keep single pixels from running away before the others move
        guess = (x / before).clamp_(1e-2, 1e2).pow_(momentum).mul_(x) if momentum else x
        ratio = torch.where(data.valid > 0, y / operator.apply(guess).clamp_min(1e-3 * floor), torch.ones_like(y))
        before, x = x, operator.adjoint(ratio).mul_(guess).mul_(weight).clamp_min_(tiny)
        yield x - pedestal / scale**2


def low_quantile(values: Tensor, share: float) -> Tensor:
    """`torch.quantile` of a vector (n,) for a small share, without sorting all of it."""
    at = share * (len(values) - 1)
    below = values.topk(min(int(at) + 2, len(values)), largest=False).values[-2:]
    return torch.lerp(below[0], below[-1], at - int(at))


def pedestal(data: Data) -> Tensor:
    """What to add to y so that Richardson-Lucy finds it positive: 4 sigma below all but 0.1 % of the valid pixels.

    Parameters
    ----------
    data : Data
        In noise units, (..., h, w).

    Returns
    -------
    (..., 1, 1) tensor
        Noise units; at least 4.
    """
    if data.statistics is not None:
        return data.y.new_tensor(4 - np.quantile(data.statistics.y, DARKEST)).clamp_min(4).view(1, 1, 1, 1)
    low = [
        low_quantile(plane[ok > 0][:: 1 + ok.numel() // 1_000_000], DARKEST) if bool(ok.any()) else plane.new_zeros(())
        for plane, ok in zip(data.y.flatten(0, -3), data.valid.flatten(0, -3), strict=True)
    ]
    return (4 - torch.stack(low)).clamp_min(4).view(*data.y.shape[:-2], 1, 1)


def explains(chi2: Tensor | float, iterations: int) -> bool:
    """Whether a chi2 after so many iterations is the end of them."""
    return iterations >= MOST_ITERATIONS or (iterations >= FEWEST_ITERATIONS and float(chi2) <= 1)


def richardson_lucy_until_chi2_one(data: Data) -> tuple[Tensor, int]:
    """Richardson-Lucy stopped where the data are explained (chi2 = 1), and the iterations that this took.

    A part of a plane takes as many as the whole plane would (`PlaneStatistics.iterations`), so that parts agree.

    Parameters
    ----------
    data : Data
        In noise units, (..., h, w).

    Returns
    -------
    x : (..., s*h, s*w) tensor
        In noise units.
    iterations : int
        `FEWEST_ITERATIONS` to `MOST_ITERATIONS`.
    """
    x, k = data.y, 0
    for k, x in enumerate(richardson_lucy(data, pedestal(data)), start=1):
        if data.statistics is None and explains(data.chi2(x).max(), k):
            break
        if k >= MOST_ITERATIONS:
            break
        if data.statistics is not None and k >= data.statistics.iterations:
            break
    return x, k
