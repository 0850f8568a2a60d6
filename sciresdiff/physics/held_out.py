"""How far to go with Richardson-Lucy: as many iterations as predict pixels best that it was not given.

chi2 = 1 ends it long before the data are used up, for the image follows their noise as well.  Pixels that are held out
tell the one from the other, whatever the noise is taken for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sciresdiff.physics.consistency import Data
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.richardson_lucy import MOST_ITERATIONS, pedestal, richardson_lucy
from sciresdiff.region import Region

HELD_OUT = 1.28155
"""Unit noise above which a pixel is held out, and below minus which in a second run: 10 % of the pixels each."""
HELD_SQUARES = 2.2
"""The same where squares are held out: 1.4 % of the pixels are the middle of one, and 30 % lie in one."""
SHARED = 2
"""Pixels around one that is held out that are left out with it where neighbours share noise. On five exposures that
were resampled single pixels ask for 52 iterations and a sky of worms, and squares for 7."""
FAR = 16.0
"""(y - A x)^2 / N at the most that a pixel held out counts: where it alone shows a source, none can be predicted."""
PATIENT = 8
"""Iterations without a better prediction of the pixels held out after which the search ends."""
WHOLE = 1024
"""Largest side of an image that is looked at as a whole, output px; of a larger one `WINDOWS` by `WINDOWS` windows."""
WINDOWS, SIDE = 2, 384


def predicting_iterations(
    cases: Sequence[tuple[Data, Tensor]], level: Tensor | None = None, shared: bool = False
) -> int:
    """Iterations of Richardson-Lucy that predict pixels best which it was not given, over all cases together.

    Parameters
    ----------
    cases : data in noise units, and unit noise of their shape that tells which pixels are held out.
    level : (1, 1, 1, 1), what is added to y; by default each case's own `pedestal`.
    shared : whether neighbouring pixels share noise, so that squares are held out.

    Returns
    -------
    1 to `MOST_ITERATIONS`; 1 where there is no case.
    """
    runs, (around, limit) = [], (SHARED, HELD_SQUARES) if shared else (0, HELD_OUT)
    for data, chance in cases:
        base = pedestal(data) if level is None else level
        for sign in (1, -1):
            hold = (sign * chance > limit).to(data.y) * data.valid
            out = F.max_pool2d(hold, 2 * around + 1, stride=1, padding=around)
            runs.append((data, hold, richardson_lucy(replace(data, valid=data.valid * (1 - out)), base)))
    best, at = float("inf"), 1
    for k in range(1, MOST_ITERATIONS + 1 if runs else 1):
        total = sum(
            float((((data.y - data.operator.apply(next(images))).square() / data.noise).clamp_max(FAR) * hold).sum())
            for data, hold, images in runs
        )
        if total < best:
            best, at = total, k
        elif k >= at + PATIENT:
            break
    return at


def unit_noise(data: Data, seed: int = 0) -> Tensor:
    """Unit noise of the shape of the data, the same whenever it is asked for."""
    values = np.random.default_rng(seed).standard_normal(tuple(data.y.shape), np.float32)
    return torch.from_numpy(values).to(data.y)


def local_windows(data: Data) -> list[Data]:
    """The data, or where they are large parts in the middle of their shares, each with the PSF of its own place."""
    operator = data.operator
    assert isinstance(operator, Operator)
    return [
        data_window(data, region)
        for region in regions_of_windows(operator.shape, operator.scale)
        if data.valid[..., *region.slices].any()
    ]


def data_window(data: Data, region: Region) -> Data:
    """A part of the data, by an operator of its own; **light from beyond its border is missing in it**."""
    operator = data.operator
    assert isinstance(operator, Operator)
    if region.shape == operator.shape:
        return data
    assert operator.blur is not None
    psf = operator.blur.psf.window(region.scaled(operator.scale))
    part = Operator(region.shape, operator.scale, psf, operator.quantity, operator.dtype, operator.device)
    y, noise, valid = (v[..., *region.slices] for v in (data.y, data.noise, data.valid))
    return replace(data, y=y, noise=noise, valid=valid, operator=part, model=None)


def regions_of_windows(shape: tuple[int, int], scale: int) -> list[Region]:
    """The windows that are looked at of a frame (h, w), px of it: all of a small one."""
    if max(shape) * scale <= WHOLE:
        return [Region.of_shape(shape)]
    spans = []
    for length in shape:
        side, count = min(SIDE // scale, length), min(WINDOWS, max(length * scale // SIDE, 1))
        spans.append([round((i + 0.5) * length / count - side / 2) for i in range(count)])
    h, w = (min(SIDE // scale, length) for length in shape)
    return [Region(y, y + h, x, x + w) for y in spans[0] for x in spans[1]]
