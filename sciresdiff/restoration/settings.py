"""How a frame is restored, whatever it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Consistency = Literal["noise", "exact", "off"]


@dataclass(frozen=True)
class Settings:
    """The settings of a restoration."""

    samples: int = 8
    """Posterior samples that are drawn."""
    steps: int | None = None
    """Steps of the refiner; None: its own number."""
    refine: bool = True
    """Draw with the refiner, or stop at the prior."""
    consistency: Consistency = "noise"
    """``noise``: the data are met within their noise; ``exact``: every coarse pixel is; ``off``: as it comes."""
    tile: int = 256
    """Coarse pixels of a network's tile; 0 for all that is restored together."""
    seed: int = 0
    keep_draws: bool = False
    """Whether the samples themselves are returned."""
    realism: float | None = None
    """0 (a mean) to 1 (a likely image) of a one-step student that was taught both; None: 1."""
