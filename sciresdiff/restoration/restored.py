"""One plane, restored: the image, its error, and how far the data carry it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RestoredPlane:
    """One plane on the output grid, in the frame's own unit; all arrays (s*h, s*w).

    Masked pixels hold what the model fills them with; a file, and `sciresdiff.Restored`, have the input's values there.
    """

    mean: NDArray[np.float32]
    """Mean of the posterior samples."""
    err: NDArray[np.float32]
    """Standard deviation of the posterior, per pixel; **errors of neighbouring pixels are correlated**."""
    support: NDArray[np.float32]
    """0..1, fraction of the structure that is constrained by the data."""
    gate: NDArray[np.float32]
    """0..1, weight of the physics-only estimate."""
    draws: NDArray[np.float32] | None
    """(K, s*h, s*w), the samples, if they were kept."""
    chi2: float
    """Of the mean, re-degraded, over the valid pixels (of a part: in its core)."""
    flux_ratio: float
    """Total of the mean over total of the data, of the same pixels."""
    draws_used: int
    """Samples that mean and error are made of."""
    total: float = float("nan")
    """That of the data, in units of sigma."""
    unseen: NDArray[np.bool_] | None = None
    """True beside masked pixels where the data do not hold the image: the wings of a core alone say what there is, or
    it does not fit them; None where that is nowhere."""
    seen: NDArray[np.float32] | None = None
    """(h, w), the data that a restored volume predicts for this plane; None for a plane that was restored by itself."""
