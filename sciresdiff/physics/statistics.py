"""What a plane is like as a whole: what a part of it needs, so that parts of one plane agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PlaneStatistics:
    """What is measured once on a plane that is restored in parts."""

    sky: float
    """In the plane's unit, like ``sigma``, which is the noise of its median pixel."""
    sigma: float
    y: NDArray[np.float32]
    """(n,) valid pixels from all over the plane, above the sky and in units of sigma."""
    noise: NDArray[np.float32]
    """(n,) their variances, in units of sigma^2."""
    iterations: int
    """Of Richardson-Lucy, until chi2 of the plane is 1."""
    predicting: int | None = None
    """Of Richardson-Lucy, until pixels held out are predicted best; of a PSF that varies over the field only."""
