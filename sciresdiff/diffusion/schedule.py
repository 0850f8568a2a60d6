"""Schedules: the numbers that the papers publish -> a path.

The default method's is here, those of the others in `sciresdiff.lab.schedules`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sciresdiff.diffusion.path import Array, Carry, Path
from sciresdiff.plugins import Registry


def path_from_noisy(a: Array, b: Array, s: Array, carry: Carry = "markov", span: float = 1.0, sd: float = 1.0) -> Path:
    """A path from its noisy indices 1..T, with the clean image (1, 0, 0) put before them.

    Parameters
    ----------
    a, b, s : (T,), weights of image and anchor, standard deviation of the noise.
    carry, span, sd : as in `Path`.
    """
    a, b, s = (np.concatenate([[first], v]) for first, v in ((1.0, a), (0.0, b), (0.0, s)))
    return Path(a, b, s, carry, span, sd)


def resshift(
    T: int = 15, power: float = 0.3, kappa: float = 2.0, min_noise: float = 0.04, end: float = 0.99, sd: float = 1.0
) -> Path:
    """a = 1 - eta, b = eta, s = kappa sqrt(eta); sqrt(eta_t) = e0 (end / e0)^(((t-1)/(T-1))^power) (Yue et al. 2023).

    Parameters
    ----------
    T : steps, 1 or more. power : above 1 the shift is late, below 1 early. kappa : noise at the end, in units of w.
    min_noise : noise of the first index; e0 = min(min_noise / kappa, min_noise). end : square root of the last eta.
    sd : standard deviation of the images about their anchor, in units of w.
    """
    first = min(min_noise / kappa, min_noise)
    root = first * (end / first) ** (np.linspace(0, 1, T) ** power) if T > 1 else np.array([end])
    return path_from_noisy(1 - root**2, root**2, kappa * root, "shift", sd=sd)


SCHEDULES: Registry[Callable[..., Path]] = Registry(
    {
        "resshift": "sciresdiff.diffusion.schedule:resshift",
        "vp-linear": "sciresdiff.lab.schedules:vp_linear",
        "vp-cosine": "sciresdiff.lab.schedules:vp_cosine",
        "scaled-linear": "sciresdiff.lab.schedules:scaled_linear",
        "vp-zero-snr": "sciresdiff.lab.schedules:vp_zero_snr",
        "vp": "sciresdiff.lab.schedules:vp",
        "sub-vp": "sciresdiff.lab.schedules:sub_vp",
        "ve": "sciresdiff.lab.schedules:ve",
        "mean-reverting": "sciresdiff.lab.schedules:mean_reverting",
        "bridge": "sciresdiff.lab.schedules:bridge",
        "interpolant": "sciresdiff.lab.schedules:interpolant",
        "linear-flow": "sciresdiff.lab.schedules:linear_flow",
        "edm": "sciresdiff.lab.schedules:edm",
    }
)
"""Schedules by the name that a method file gives them."""
