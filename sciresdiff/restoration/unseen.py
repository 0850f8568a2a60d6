"""Light that falls on masked pixels alone: where only the wings of a source were measured, and what is done there.

The core of a saturated star is masked, and its wings alone say what it is. A linear step then pays for every error of
the PSF with a dark ring as deep as the core is high, at a chi2 that looks well. Richardson-Lucy stays above the sky by
its nature; so it stands where the core's light is felt, and the difference between the two goes into the error.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sciresdiff.physics.consistency import Data
from sciresdiff.physics.richardson_lucy import pedestal, richardson_lucy, settle
from sciresdiff.restoration.prior import Estimate

LEAST_UNSEEN, MOSTLY_UNSEEN = 0.3, 0.5
"""Share of a fine pixel's light that falls on masked pixels: below the first it is known, from the second on it is not.
A single bad pixel takes less than the first under a PSF that the pixels resolve."""
JOINT = 4
"""Coarse pixels around a positive part in which the fit to the data is mended."""
JOINT_CHI2 = 3.0
"""chi2 over 5 x 5 pixels there above which the fit is mended; chance exceeds it once in a million."""
WING_ERROR = 0.05
"""Share of a core's light in its wings that is in doubt: what a PSF of 1 to 2 % wrong width moves there."""


def unseen_weight(data: Data, x: Tensor) -> Tensor | None:
    """0..1, how much the light of unseen cores outweighs the noise: what `WING_ERROR` of it makes in noise units.

    Parameters
    ----------
    data : noise units, (1, 1, h, w).
    x : (1, 1, s*h, s*w), an estimate; what is below the sky counts as no light.

    Returns
    -------
    (1, 1, s*h, s*w): 0 below half the noise, 1 above it, or None where it is 0 everywhere. It depends on a
    neighbourhood of two PSFs alone, so that tiles agree.
    """
    masked = 1 - data.valid
    if not bool(masked.any()):
        return None
    operator = data.operator
    share = operator.adjoint(masked) / operator.adjoint(torch.ones_like(masked))
    unseen = ((share - LEAST_UNSEEN) / (MOSTLY_UNSEEN - LEAST_UNSEEN)).clamp(0, 1)
    halo = operator.apply(unseen * x.clamp_min(0))
    weight = (2 * WING_ERROR * halo / data.noise.sqrt() - 1).clamp(0, 1)
    if not bool(weight.any()):
        return None
    # a pixel whose neighbour is in doubt is, too: the fall to 0 is that of the interpolation
    weight = F.max_pool2d(weight, 3, stride=1, padding=1)
    return operator.spread(weight)


def hold_positive(best: Estimate, positive: Tensor, weight: Tensor) -> Estimate:
    """An estimate with a positive one in its place where cores are unseen, and with what parts them in its scale.

    Parameters
    ----------
    best, positive : the estimate, and an image (1, 1, s*h, s*w) that stays above the sky.
    weight : (1, 1, s*h, s*w), of `unseen_weight`.
    """
    apart = weight * (best.x - positive).abs()
    return replace(
        best,
        x=torch.lerp(best.x, positive, weight),
        guess=torch.lerp(best.guess, positive, weight),
        w=torch.hypot(best.w, apart),
        unseen=weight,
    )


def fit_joint(data: Data, best: Estimate, weight: Tensor) -> Estimate:
    """An estimate of `hold_positive` that fits the data where its two parts meet, by more of Richardson-Lucy.

    Each part fits by itself, but where they are joined the one's detail lacks its other half.

    Parameters
    ----------
    weight : (1, 1, s*h, s*w), of the positive part.
    """
    where = (data.planar.gather(weight) > 0).to(weight.dtype)
    where = F.max_pool2d(where, 2 * JOINT + 1, stride=1, padding=JOINT)
    x = settle(data, best.x, richardson_lucy(data, pedestal(data), start=best.x), JOINT_CHI2, where)
    return replace(best, x=x, guess=torch.where(x == best.x, best.guess, x))
