"""Robust scatter, and the room that chance needs: of medians and of counts.

`mad_std` is the one place of the median absolute deviation in the checks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation, 1 / Phi^-1(3/4).

Five digits: `astropy.stats.mad_std` has them all, and would change every scatter in the results by 1.5e-6 of itself.
"""
MEDIAN_TO_MEAN = 1.2533
"""Standard error of the median of normal values over that of their mean, sqrt(pi / 2)."""


def mad_std(values: NDArray[Any]) -> float:
    """Estimate the standard deviation of normal values (n,) with outliers, in their unit.

    1.4826 median |x - median x| (Rousseeuw and Croux 1993, J. Am. Stat. Assoc. 88, 1273).
    """
    return float(MAD_TO_SIGMA * np.median(np.abs(values - np.median(values))))


def median_error(scatter: float, count: int) -> float:
    """Standard error of the median of ``count`` normal values, sqrt(pi / 2) scatter / sqrt(count)."""
    return MEDIAN_TO_MEAN * scatter / float(np.sqrt(count))


def median_margin(values: NDArray[Any]) -> float:
    """Three standard errors of the median of values (n,) that scatter like these, n of 1 or more; in their unit."""
    return 3 * median_error(mad_std(values), len(values))


def count_margin(count: float) -> float:
    """Largest count that is accepted where ``count`` is expected: N + 2 sqrt(N + 1), about 2 sigma of Poisson noise."""
    return count + 2 * float(np.sqrt(count + 1))
