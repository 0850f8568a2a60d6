"""Richardson-Lucy, where it starts from and where it stops: the first estimate, which needs no network."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sciresdiff.physics.consistency import Data
from sciresdiff.physics.exposures import ExposuresOperator

MOST_ITERATIONS = 120
"""Accelerated iterations of the physics-only estimate at most; it stops sooner where chi2 reaches 1. Wide PSFs (FWHM 14
output px) at S/N 1000 take 60; 30 left chi2 19 on 47 Tuc."""
STRUCTURE = 5.0
"""Mean of 5 x 5 pixels above the sky, in its own noise, from which on there is something to explain."""
AROUND = 8
"""Pixels around these whose noise counts, too: it is what limits how sharp the sources may become."""
OUTLIER = 4.0
"""Sigma of a residual above which a pixel counts no more where Richardson-Lucy stops."""
CHECK_EVERY, CHECKS = 15, 12
"""More iterations where bright sources are not explained, and how often at most. A plane that is empty but for some
stars has a chi2 of 1 long before these are fitted."""
UNEXPLAINED = 6.0
"""chi2 over 5 x 5 pixels above which a source is not explained. The consistency step that follows takes up less."""
UNKNOWN = 1e-3
"""Weight of a masked pixel, whose y is taken for A x: what no valid pixel sees keeps its value."""
UNSEEN = 1e-4
"""A^T m of a fine pixel of a volume whose light does not reach the data."""
HARDLY_SEEN = 1e-2
"""A^T m of a pixel of an image of several exposures, in units of what the lightest of them sees, up to which it hardly
changes: it lies beyond their borders."""
TINY = 1e-9
"""The same at the least, for exposures next to which another one says nothing."""
MOST_RATIO = 100.0
"""y / A x at the most where A has negative values: between the lobes of bright stars A x may be next to nothing."""
DARKEST = 0.001
"""Share of the valid pixels that may lie further below the pedestal than the noise explains."""


def richardson_lucy(
    data: Data, pedestal: Tensor, floor: float = 1e-2, start: Tensor | None = None, *, emits: bool = True
) -> Iterator[Tensor]:
    """Accelerated Richardson-Lucy estimates of x, one after the other.

    Each estimate is multiplied by A^T(m y / A x) / A^T m, with m = 0 where y is masked (Richardson 1972; Lucy 1974),
    after an extrapolation in its logarithm with the fixed momentum (k - 1) / (k + 2): about k^2 / 4 plain iterations
    for k of these.  The fixed momentum keeps it local, where the usual one (Biggs & Andrews 1997) is an inner product
    over the frame.

    Parameters
    ----------
    data : Data
        Quantity ``sum``; no gradients are kept.
    pedestal : (..., 1, 1) tensor
        Added to y for the duration, so that a sky around zero stays positive; in units of y.
    floor : float
        Smallest value of y + pedestal that is used, same units.
    start : (..., s*h, s*w) tensor
        The image to start from; by default A^T m y / A^T m, which lets the light of a masked core begin inside it.
    emits : bool
        Whether the image emits the pedestal.  Where light is lost or comes from many planes, no image does: it is a
        level that is added to A x.

    Yields
    ------
    (..., s*h, s*w) tensor
        Estimates with the pedestal taken off again.  **Pixels of y below floor - pedestal gain flux.**
    """
    operator, scale = data.operator, data.operator.scale
    lift, level = (pedestal / scale**2, 0.0) if emits else (0.0, pedestal)
    base = pedestal * operator.relative_area
    y = torch.where(data.valid > 0, (data.y + base).clamp_min(floor), base)
    known = data.valid.to(y.dtype).clamp_min(UNKNOWN)
    known = known if data.weight is None else known * data.weight
    weight, rest = update_weight(data, known)
    if start is None:
        start = operator.adjoint(y * known / operator.relative_area) * weight / scale**2
        start = start if rest is None else start + rest * weight * lift
    else:
        start = start + lift
    x = start.clamp_min(floor / scale**2 * 1e-3)
    least = 1e-3 * floor if rest is None else (y / MOST_RATIO).clamp_min(1e-3 * floor)
    before, k, tiny = x, 0, floor / scale**2 * 1e-6
    while True:
        k += 1
        momentum = (k - 1) / (k + 2)
        # x (x / x_before)^momentum; the limits keep single pixels from running away before the others move
        guess = (x / before).clamp_(1e-2, 1e2).pow_(momentum).mul_(x) if momentum else x
        seen = (operator.apply(guess) + level).clamp_min(least)
        ratio = torch.where(data.valid > 0, y / seen, torch.ones_like(y)).mul_(known)
        back = operator.adjoint(ratio) if rest is None else operator.adjoint(ratio).add_(rest)
        before, x = x, back.mul_(guess).mul_(weight).clamp_min_(tiny)
        yield x - lift


def update_weight(data: Data, known: Tensor) -> tuple[Tensor, Tensor | None]:
    """1 / D of an estimate's update x (A^T(m y / A x) + D - A^T m) / D, and D - A^T m; None where that is 0.

    D is A^T m, as Richardson and Lucy have it, where kernels are positive.  Where they have lobes A^T m may be near 0,
    beyond the borders of exposures above all, and D is at least half of what it were with absolute values: then no
    pixel of y changes x by more than twice its own ratio.

    Parameters
    ----------
    data : Data
    known : (..., h, w) tensor
        m.
    """
    operator = data.operator
    total = operator.adjoint(known)
    if not isinstance(operator, ExposuresOperator):
        return total.clamp_min_(UNSEEN).reciprocal_(), None
    least = HARDLY_SEEN if data.weight is None else HARDLY_SEEN * float(data.weight.min())
    bound = torch.maximum(total, total / 2 + operator.adjoint_of_lobes(known)).clamp_min_(max(least, TINY))
    return bound.reciprocal(), bound - total


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
    each = (4 - torch.stack(low)).clamp_min(4).view(*data.y.shape[:-2], 1, 1)
    return each if data.weight is None else each.amax(1, keepdim=True)  # several exposures see one image


def structure(data: Data) -> Tensor:
    """1 where there is something to explain, else 0, (..., 1, h, w): pixels near those that stand above the sky.

    Empty sky is explained by any smooth image, so that a chi2 over it tells how much of it there is, and not whether
    the sources are sharp.  Where nothing stands above the sky, all valid pixels.

    Parameters
    ----------
    data : Data
        In noise units, (..., 1, h, w).
    """
    light = F.avg_pool2d(data.y * data.valid, 5, stride=1, padding=2)
    noise = F.avg_pool2d(data.noise * data.valid, 5, stride=1, padding=2) / 25
    stands = data.valid * (light > STRUCTURE * noise.sqrt())
    there = data.valid * F.max_pool2d(stands, 2 * AROUND + 1, stride=1, padding=AROUND)
    return there if bool(there.any()) else data.valid


def explained_sums(data: Data, x: Tensor, where: Tensor) -> tuple[float, float]:
    """Sum of chi2 over the pixels ``where``, those beyond `OUTLIER` sigma counted as that, and their number.

    The bright sources that these are would else decide for all others; they are left to `settle`.

    Parameters
    ----------
    data : Data
        In noise units, (..., 1, h, w).
    x : (..., 1, s*h, s*w) tensor
    where : (..., 1, h, w) tensor
        Of `structure`.
    """
    left = (data.residual(x).square() / data.noise).clamp_max(OUTLIER**2)
    return float((left * where).sum()), float(where.sum())


def is_explained(data: Data, x: Tensor, where: Tensor) -> bool:
    """Whether chi2 over the pixels ``where`` is 1 or less, see `explained_sums`."""
    left, pixels = explained_sums(data, x, where)
    return left <= pixels


def richardson_lucy_until_chi2_one(data: Data) -> tuple[Tensor, int]:
    """Richardson-Lucy stopped where the data are explained (chi2 = 1), and the iterations that this took.

    A part of a plane takes as many as the whole plane would (`PlaneStatistics.iterations`), so that parts agree.  Where
    these do not explain bright sources yet, they are taken from later iterations, see `settle`.

    Parameters
    ----------
    data : Data
        In noise units, (..., 1, h, w).

    Returns
    -------
    x : (..., 1, s*h, s*w) tensor
        In noise units.
    iterations : int
        1 to `MOST_ITERATIONS`; those that bright sources take besides are not counted.
    """
    x, k, estimates = data.y, 0, richardson_lucy(data, pedestal(data))
    most = MOST_ITERATIONS if data.statistics is None else data.statistics.iterations
    where = None if data.statistics is not None else structure(data)
    for k, x in enumerate(estimates, start=1):
        if k >= most or (where is not None and is_explained(data, x, where)):
            break
    return settle(data, x, estimates), k


def settle(
    data: Data, x: Tensor, later: Iterator[Tensor], limit: float = UNEXPLAINED, where: Tensor | None = None
) -> Tensor:
    """An estimate that is replaced by later ones as long and as far as it leaves bright sources unexplained.

    Every pixel stays with the first estimate whose chi2 over 5 x 5 pixels around it is low enough, so that the noise of
    the rest is not fitted, and parts of a plane agree.

    Parameters
    ----------
    data : Data
        In noise units, (..., 1, h, w).
    x : (..., 1, s*h, s*w) tensor
    later : what follows it.
    limit : chi2 over 5 x 5 pixels that is low enough.
    where : (..., 1, h, w) tensor
        1 where it may be replaced, else 0; everywhere by default.

    Returns
    -------
    (..., 1, s*h, s*w) tensor
    """
    left = torch.ones_like(data.y) if where is None else where
    for _ in range(CHECKS):
        left = left * unexplained_weight(data, x, limit)
        if not bool(left.any()):
            break
        follows = next(islice(later, CHECK_EVERY - 1, None))
        x = torch.lerp(x, follows, data.operator.spread(left))
    return x


def unexplained_weight(data: Data, x: Tensor, limit: float) -> Tensor:
    """(..., 1, h, w), 0 where chi2 over the 5 x 5 pixels around is below a limit, 1 within 2 px of twice that."""
    pixels = F.avg_pool2d(data.valid, 5, stride=1, padding=2).clamp_min(0.04)
    chi2 = F.avg_pool2d(data.residual(x).square() / data.noise, 5, stride=1, padding=2) / pixels
    return F.max_pool2d((chi2 / limit - 1).clamp(0, 1), 5, stride=1, padding=2)
