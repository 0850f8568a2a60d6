"""Planes of the coarse grid on the fine one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def upsample_nearest(coarse: NDArray[Any], scale: int) -> NDArray[Any]:
    """Repeat every coarse pixel over its area of the fine grid.

    **Sums are not conserved**: values that add up are to be divided by scale^2.

    Parameters
    ----------
    coarse : (..., h, w) array
        Values, masks or flags.
    scale : int
        Fine pixels per coarse pixel and axis.

    Returns
    -------
    (..., scale * h, scale * w) array
        Of the same type.
    """
    return np.asarray(coarse.repeat(scale, axis=-2).repeat(scale, axis=-1))
