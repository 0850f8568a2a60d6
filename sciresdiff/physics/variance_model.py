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
    """N(e) = floor + slope max(e - zero, 0) + (f (e - sky))^2, for the expected value e of a pixel.

    Every number may be a plane.
    """

    floor: Number
    """Variance of a pixel without light, or that which a plane states, unit squared."""
    slope: Number = 0.0
    """Growth of the variance with the light: 1 / gain of photons, times the excess of an electron multiplier."""
    zero: Number = 0.0
    """Value of a pixel without light."""
    psf_error: float = 0.0
    """f, the share of the light by which the PSF may be wrong."""
    sky: float = 0.0
    """Level above which that light is counted."""

    @property
    def depends_on_signal(self) -> bool:
        """Whether N is not the same for every e."""
        return bool(np.any(self.slope) or self.psf_error)

    def at(self, expected: Values) -> Values:
        """N(e), unit squared.

        Parameters
        ----------
        expected : (..., h, w) array or tensor, e.
        """
        light = (expected - self.zero).clip(min=0)
        variance = light * self.slope + self.floor
        return variance + psf_error_variance(expected - self.sky, self.psf_error) if self.psf_error else variance

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
            sky=(self.sky - sky) / sigma,
        )


def psf_error_variance(light: Values, share: float) -> Values:
    """(f (e - sky))^2: what a PSF that is known to a share f of the light may get wrong, unit squared.

    Without this term bright cores, whose noise is small beside it, force rings on their surroundings.

    Parameters
    ----------
    light : (..., h, w) array or tensor, e - sky.
    share : f.
    """
    return (share * light) ** 2
