"""One training pair: a true image on the fine grid, and how it was observed on the coarse one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class NoiseDraw:
    """Noise that a simulated coarse image gets: y = A x + z sqrt(N), of variance N = sky + slope (A x)+."""

    sky: np.float32
    """Variance of an empty pixel, in noise units: about 1."""
    slope: np.float32
    """Growth of the variance with the signal, in noise units: 1 / (gain sigma) of photons over a sky noise sigma."""
    normal: Array
    """(p, p), z: standard normal numbers."""

    @classmethod
    def none(cls, side: int) -> NoiseDraw:
        """No noise, with a variance of 1, for a patch of (side, side) px."""
        return cls(np.float32(1), np.float32(0), np.zeros((side, side), np.float32))


@dataclass(frozen=True)
class CoarseImage:
    """The coarse image of a pair that was given, in units of its median noise, its sky taken off."""

    y: Array
    """(p, p), 0 where not valid."""
    variance: Array
    """(p, p), above 0."""


@dataclass(frozen=True)
class Pair:
    """A patch of p x p coarse pixels and its truth at scale s.

    Everything is in noise units (an empty coarse pixel has a noise of about 1) and of quantity ``sum`` (the s^2 fine
    pixels of a coarse one add up to it).
    """

    truth: Array
    """(s*p, s*p), x."""
    terms: NDArray[np.floating]
    """(rank, 2, K), separable terms u, v of the PSF sum_r u_r[y] v_r[x] on the fine grid."""
    features: Array
    """(4,), what a network sees of the PSF: `restoration.ops.psf_features`."""
    valid: Array
    """(p, p), 1 where the coarse pixel counts, else 0."""
    coarse: NoiseDraw | CoarseImage
    """The coarse image where it is given; else the noise that it is simulated with."""
