"""What is done to every estimate of the clean image on its way: the data's own word, guidance, limits.

A hook is a function (image, `Args`) -> image, in noise units of the coarse pixel, both (B, 1, s*h, s*w).  Methods name
theirs, in order.  The default method has one, `consistency`; the others are in `sciresdiff.lab.hooks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sciresdiff.diffusion.method import Method
from sciresdiff.diffusion.path import NoiseLevel
from sciresdiff.physics.consistency import Data, consistency_step
from sciresdiff.plugins import Registry
from sciresdiff.restoration.prior import Estimate
from sciresdiff.restoration.residual_space import ResidualSpace

ITERATIONS = 4
"""Chebyshev iterations of the noise-aware step inside every estimate."""


@dataclass(frozen=True)
class Args:
    """What a hook may know beside the estimate."""

    data: Data
    prior: Estimate
    space: ResidualSpace
    p: NoiseLevel
    """The level of the state that the estimate was made from."""
    q: NoiseLevel
    """The level that the step goes to."""
    numbers: Mapping[str, Any]
    """The method's [hook] table."""


def apply_hooks(method: Method, x: Tensor, args: Args) -> Tensor:
    """An estimate after all hooks of a method, in order.

    Parameters
    ----------
    method : its ``hooks`` are names of `HOOKS`. x : (B, 1, s*h, s*w), noise units. args : what hooks may know.
    """
    for name in method.hooks:
        x = HOOKS[name](x, args)
    return x


def hold_to_data(data: Data, x: Tensor, scale: Tensor, p: NoiseLevel) -> Tensor:
    """The noise-aware step x + Sigma A^T (A Sigma A^T + N)^-1 (y - A x) inside an estimate.

    Sigma = scale^2 s^2 / (a^2 + s^2) is what a state at the level (a, s) leaves open of an image whose prior has the
    standard deviation ``scale``: the variance of x_0 given a x_0 + s eps, both Gaussian.

    Parameters
    ----------
    x, scale : (B, 1, s*h, s*w), estimate and scale of the prior, noise units.
    p : level of the state, one or of shape (B, 1, 1, 1).

    Returns
    -------
    (B, 1, s*h, s*w)
    """
    return consistency_step(data, x, scale.square() * (p.s**2 / (p.a**2 + p.s**2)), ITERATIONS)


def apply_training_hooks(method: Method, data: Data, x: Tensor, scale: Tensor, p: NoiseLevel) -> Tensor:
    """An estimate after the hook that is part of training, too: `consistency`, if the method has it.

    Parameters
    ----------
    x, scale : (B, 1, s*h, s*w), estimate and scale of the prior. p : level of the state, one for each image or for all.
    """
    return hold_to_data(data, x, scale, p) if "consistency" in method.hooks else x


def consistency(x: Tensor, args: Args) -> Tensor:
    """`hold_to_data`, (B, 1, s*h, s*w)."""
    return hold_to_data(args.data, x, args.prior.w, args.p)


HOOKS: Registry[Callable[[Tensor, Args], Tensor]] = Registry(
    {
        "consistency": "sciresdiff.restoration.hooks:consistency",
        "clip": "sciresdiff.lab.hooks:clip",
        "project": "sciresdiff.lab.hooks:project",
        "project-noise": "sciresdiff.lab.hooks:project_noise",
        "guide-prior": "sciresdiff.lab.hooks:guide_prior",
        "guide-frequency": "sciresdiff.lab.hooks:guide_frequency",
        "low-frequency": "sciresdiff.lab.hooks:low_frequency",
    }
)
"""Hooks by the name that a method file gives them."""
