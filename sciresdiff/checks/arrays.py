"""Array types of the checks, and how coarse and fine pixels belong together."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sciresdiff.frame import Quantity

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]


class Sampling(Protocol):
    """Anything that knows how the data sample the fine grid: an `Evidence`, an ``Operator``."""

    @property
    def scale(self) -> int:
        """Fine pixels per coarse pixel and axis."""

    @property
    def quantity(self) -> Quantity:
        """``sum`` where a coarse pixel holds the sum of its fine pixels, ``mean`` where it holds their mean."""


def pixels_per_value(sampling: Sampling) -> int:
    """Fine pixels that one coarse value is divided among: scale^2 for quantity ``sum``, 1 for ``mean``."""
    return sampling.scale**2 if sampling.quantity == "sum" else 1


def blocks(fine: NDArray[Any], scale: int) -> NDArray[Any]:
    """View a fine plane (scale*h, scale*w) as blocks of one coarse pixel each: (h, w, scale, scale)."""
    h, w = fine.shape[0] // scale, fine.shape[1] // scale
    return fine.reshape(h, scale, w, scale).swapaxes(1, 2)


def fill_with_median(plane: Array, good: Mask) -> Array:
    """Replace the bad pixels of a plane (h, w) by the median of the good ones, or by 0 where there is none."""
    if good.all():
        return plane
    return np.where(good, plane, np.median(plane[good]) if good.any() else 0.0)
