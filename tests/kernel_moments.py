"""Adaptive moments of one kernel, by the estimator of the checks."""

from typing import NamedTuple

import numpy as np

from sciresdiff.checks.adaptive_moments import adaptive_moments


class KernelMoments(NamedTuple):
    """Width in px, distortion, and centre from the middle pixel."""

    fwhm: float
    e1: float
    e2: float
    y: float
    x: float


def kernel_moments(kernel: np.ndarray) -> KernelMoments:
    """Of a kernel (K, L) with odd sides, its centre within a pixel of the middle one."""
    side = max(kernel.shape) + 40  # the estimator wants a stamp that is wide against the source
    square = np.pad(kernel, [((side - n) // 2,) * 2 for n in kernel.shape])
    half = (min(square.shape) - 1) // 2
    middle = np.array([[square.shape[1] // 2, square.shape[0] // 2]], float)
    found = adaptive_moments(square, middle, half)
    assert found.ok.all()
    x, y = (found.xy - middle)[0]
    fwhm = np.sqrt(8 * np.log(2)) * found.sigma[0]
    return KernelMoments(float(fwhm), float(found.e1[0]), float(found.e2[0]), float(y), float(x))
