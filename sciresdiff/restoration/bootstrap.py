"""What an estimate may be wrong by: it is restored again from its own data, with other noise and with none.

The estimates of the physics are no means of a posterior whose prior stood before the data came: Richardson-Lucy takes
its image, and the scale of its error, from the data and their noise.  So the noise of an estimate is what the whole
procedure R makes of the noise of data that are simulated (parametric bootstrap, Efron & Tibshirani 1993, An
Introduction to the Bootstrap, 6.5), and from what R takes off its own estimate follows what it leaves undone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice

import torch
from scipy.stats import t as student
from torch import Tensor

from sciresdiff.physics.consistency import Data
from sciresdiff.physics.local import box_mean

RADIUS = 3
"""Output px around one over which powers are averaged: as far as a star of FWHM 2 px reaches that is left too wide."""
BACKGROUND = 8
"""Output px around one over which an image is averaged for its background."""
LARGEST = 100.0
"""Ratio of two powers at the most: where the second is rounding, there is no structure to speak of."""


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """An estimate, and the procedure that it comes from."""

    data: Data
    """With the noise that the estimate gives them."""
    x: Tensor
    """R(y)."""
    restore: Callable[[Data], Tensor]
    """R."""

    def again(self, signal: Tensor) -> Tensor:
        """R of other data on the same pixels."""
        return self.restore(replace(self.data, y=signal * self.data.valid))

    @cached_property
    def seen(self) -> Tensor:
        """A x."""
        return self.data.operator.apply(self.x)

    @cached_property
    def once(self) -> Tensor:
        """R(A x)."""
        return self.again(self.seen)

    def noise_error(self, noise: Tensor) -> Tensor:
        """R(A x + n) - R(A x): what R makes of noise n of the data, of the shape of x."""
        return self.again(self.seen + noise) - self.once

    def structure_share(self, noise_error: Tensor) -> Tensor:
        """Share of the power of x around a pixel, about its background, that is no noise, 0 to 1; of the shape of x.

        Parameters
        ----------
        noise_error : of one draw.
        """
        about = self.x - box_mean(self.x, BACKGROUND)
        power, noise = (box_mean(v.square(), RADIUS) for v in (about, noise_error))
        return (1 - noise / power.clamp_min(torch.finfo(power.dtype).tiny)).clamp(0, 1)

    def undone(self, noise_error: Tensor) -> Tensor:
        """What R leaves undone, up to its sign, see `undone`; of the shape of x.

        Parameters
        ----------
        noise_error : of one draw; what R takes off it is no structure.
        """
        see = self.data.operator.apply
        second, noisy = self.once - self.again(see(self.once)), self.once + noise_error
        return undone(self.x - self.once, second, noisy - self.again(see(noisy)) - second)


def undone(lost: Tensor, second: Tensor, noise: Tensor) -> Tensor:
    """What an estimate x leaves undone of the truth t, from what R takes off x and off R(A x).

    As far as R A is linear, with the eigenvalues s, x - t = (s - 1) t, and R takes (1 - s) s t off x, (1 - s) s^2 t off
    R(A x).  Their mean squares are moments of one distribution over s, P_k = <(1 - s)^2 s^2k t^2>, and moments are
    convex in the logarithm, P_0 >= P_1^2 / P_2 (Cauchy-Schwarz): so much is missing at the least, and the data say
    it themselves.  What R takes off the noise in x is no structure, and its mean square is taken off P_1 first.

    Parameters
    ----------
    lost, second : R's losses of x and of R(A x).
    noise : R's loss of the noise of one draw.

    Returns
    -------
    ``lost``, enlarged to the mean square that is missing around every pixel.  **Structure that no data hold, as beyond
    the PSF's cutoff, is not in it.**
    """
    power = partial(box_mean, radius=RADIUS)
    first, next_ = power(lost.square()), power(second.square())
    tiny = torch.finfo(lost.dtype).tiny
    share = (1 - power(noise.square()) / first.clamp_min(tiny)).clamp(0, 1)
    ratio = (first / next_.clamp_min(tiny)).clamp(1, LARGEST)
    return lost * (share * ratio).sqrt()


def excess(more: Tensor, known: Tensor) -> Tensor:
    """A deviation with as much power around a pixel as it has more than another, so that the larger of the two counts.

    Parameters
    ----------
    more, known : of one shape.
    """
    power, there = (box_mean(v.square(), RADIUS) for v in (more, known))
    return more * (1 - there / power.clamp_min(torch.finfo(power.dtype).tiny)).clamp(0, 1).sqrt()


def student_factor(count: int) -> float:
    """By how much a scatter of so many pairs of draws is enlarged to hold 68.3 % of the cases (Student's t)."""
    pairs = -(-count // 2)
    return float(student.ppf(0.841345, pairs)) if pairs > 1 else 1.0


def with_opposites(deviations: Iterable[Tensor], count: int) -> Iterator[Tensor]:
    """Every deviation and its opposite, ``count`` in all."""
    return islice((sign * one for one in deviations for sign in (1, -1)), count)
