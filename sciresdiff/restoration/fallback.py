"""The estimate that needs no network, and where it takes over from the model's.

A model may explain the data worse than the physics alone does, in scenes that it was not trained on.  There its
estimate is replaced, smoothly, by that of the physics; the weight is the output's GATE.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from sciresdiff.physics.consistency import Data, consistency_step
from sciresdiff.physics.held_out import local_windows, predicting_iterations, unit_noise
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.richardson_lucy import pedestal, richardson_lucy, richardson_lucy_until_chi2_one, settle
from sciresdiff.restoration.ops import box_mean
from sciresdiff.restoration.prior import Estimate, bound_below

CHI2_LIMIT = 2.1
"""Local chi2 over 5 x 5 pixels that chance exceeds once in a thousand (chi-square of 25 degrees of freedom)."""
MODEL_ERROR = 0.002
"""Share of the signal by which the stated kernel may be wrong, as the fallback and the model see it."""
FINAL_ITERATIONS = 40
"""Chebyshev iterations of the last consistency step of an estimate."""
PATIENCE = 120
"""More of them where bright cores are not yet within their noise."""


def physics_estimate(data: Data, iterations: int | None = None) -> Estimate:
    """Richardson-Lucy until the data are explained (chi2 = 1), then one consistency step.

    Where the PSF changes over the field it starts from `predicting_estimate`.  The scale of its error is 1/e of the
    local contrast: what an untrained prior would say.

    Parameters
    ----------
    iterations : of Richardson-Lucy, where they are known; else they are found, and the estimate has them.
    """
    start_of = predicting_estimate if varies(data) else richardson_lucy_until_chi2_one
    x, iterations = start_of(data, iterations)
    amplitude = data.planar.contrast(x, data.noise)
    start = bound_below(data, Estimate(x, amplitude * float(np.exp(-1)), x))
    held = consistency_step(data, start.x, start.w.square(), FINAL_ITERATIONS, PATIENCE)
    return replace(start, x=held, iterations=iterations)


def varies(data: Data) -> bool:
    """Whether the PSF changes over the field."""
    return isinstance(data.operator, Operator) and data.operator.blur is not None


def count_predicting(data: Data) -> int:
    """Iterations of Richardson-Lucy that predict held-out pixels best: the plane's, or of a whole its own."""
    known = data.statistics.predicting if data.statistics else None
    return known or predicting_iterations([(part, unit_noise(part)) for part in local_windows(data)])


def predicting_estimate(data: Data, iterations: int | None = None) -> tuple[Tensor, int]:
    """Richardson-Lucy as far as pixels held out are predicted better, (1, 1, s*h, s*w), and the iterations of that.

    Bright sources get more, until they are explained.

    chi2 = 1 over a field ends it where the sharp parts are explained, with the wide ones half undone; an error of the
    width, which chi2 counts as noise of single pixels, ends it earlier still.
    """
    count = iterations or count_predicting(data)
    estimates = richardson_lucy(data, pedestal(data))
    return settle(data, next(islice(estimates, count - 1, None)), estimates), count


def with_model_error(data: Data) -> Data:
    """The data with the noise that an imperfectly known kernel adds: N + (f y)^2."""
    return replace(data, noise=data.noise + (MODEL_ERROR * data.y).square())


def local_chi2(data: Data, x: Tensor) -> Tensor:
    """chi2 of an image (1, 1, s*h, s*w) over 5 x 5 coarse pixels, (1, 1, h, w)."""
    return box_mean(data.residual(x).square() / data.noise, 2)


def fallback_weight(data: Data, model: Tensor, physics: Callable[[], Tensor]) -> Tensor | None:
    """Weight of the physics' estimate, 0..1: 0 unless the model explains the data badly and the physics does better.

    Rises smoothly from 0 to 1 (3 t^2 - 2 t^3) while the local chi2 goes from twice the limit, `CHI2_LIMIT` or the
    physics' own where that is higher, to four times.

    Parameters
    ----------
    model : (1, 1, s*h, s*w), the model's estimate, noise units.
    physics : gives that of the physics; asked only where the model's own chi2 leaves the weight open.

    Returns
    -------
    (1, 1, s*h, s*w), or None where it is 0 everywhere.
    """
    data = with_model_error(data)
    found = local_chi2(data, model)
    if float(found.max()) <= 2 * CHI2_LIMIT:
        return None
    limit = local_chi2(data, physics()).clamp_min(CHI2_LIMIT)
    t = (found / (2 * limit) - 1).clamp(0, 1)
    smooth = t * t * (3 - 2 * t)
    return data.operator.spread(smooth)


def blend(model: Estimate, physics: Estimate, weight: Tensor) -> Estimate:
    """The model's estimate, and the physics' by its weight.

    Parameters
    ----------
    model, physics : estimates of one plane.
    weight : (1, 1, s*h, s*w), 0..1; 1 gives the physics'.
    """
    pairs = ((model.x, physics.x), (model.w, physics.w), (model.guess, physics.guess))
    x, w, guess = (torch.lerp(one, other, weight) for one, other in pairs)
    return Estimate(x, w, guess)
