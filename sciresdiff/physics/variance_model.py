"""The variance of a pixel as a function of its expected value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Values = TypeVar("Values", NDArray[np.floating[Any]], Tensor)
Number = Any
"""A float, or a plane of them: an array or a tensor like the values."""


@dataclass(frozen=True)
class VarianceModel:
    """N(e) = floor + slope max(e - zero, 0), for the expected value e of a pixel.

    Every number may be a plane.
    """

    floor: Number
    """Variance of a pixel without light, or that which a plane states, unit squared."""
    slope: Number = 0.0
    """Growth of the variance with the light: 1 / gain of photons, times the excess of an electron multiplier."""
    zero: Number = 0.0
    """Value of a pixel without light."""

    @property
    def depends_on_signal(self) -> bool:
        """Whether N is not the same for every e."""
        slope = self.slope
        return bool((slope != 0).any()) if isinstance(slope, np.ndarray | Tensor) else bool(slope)

    def at(self, expected: Values) -> Values:
        """N(e), unit squared.

        Parameters
        ----------
        expected : (..., h, w) array or tensor, e.
        """
        light = (expected - self.zero).clip(min=0)
        return light * self.slope + self.floor

    def in_units(self, sky: float, sigma: float) -> VarianceModel:
        """The model for values (e - sky) / sigma.

        Parameters
        ----------
        sky, sigma : zero and size of the other unit, in this one.
        """
        return replace(
            self,
            floor=self.floor / sigma**2,
            slope=self.slope / sigma,
            zero=(self.zero - sky) / sigma,
        )
