"""The options of ``upscale``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sciresdiff.observation.options import Stated


@dataclass(frozen=True)
class UpscaleOptions(Stated):
    """What is stated of the frame, and how it is restored."""

    model: str | None = None
    """A shipped model, a model's file, or ``physics``; None: by kind and scale."""
    then: str | None = None
    """A second model, which goes on with the first one's draws."""
    method: str | None = None
    """A method, or its file, to run the refiner by instead of its own."""
    scale: int | None = None
    samples: int = 8
    save_samples: bool = False
    steps: int | None = None
    realism: float | None = None
    """0 (a mean) to 1 (a likely image), for models that have the knob."""
    refine: bool = True
    consistency: Literal["noise", "exact", "off"] = "noise"
    tile: int = 256
    checks: bool = True
    dtype: str | None = None
    pyramid: bool = False
    """Smaller copies of the image in its file, to look at."""
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    overwrite: bool = False
