"""Random numbers of a part of a batch: those that its samples have in the whole batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class SharedGenerator(torch.Generator):
    """The generator of a process that works on samples ``first`` ... of a batch of ``whole``."""

    first: int
    whole: int


def shared_generator(seed: int, first: int, whole: int, device: torch.device | str = "cpu") -> SharedGenerator:
    """A generator with this seed for a process whose first sample is number ``first`` out of ``whole``."""
    generator = SharedGenerator(device)
    generator.manual_seed(seed)
    generator.first, generator.whole = first, whole
    return generator


def draw_samples(draw: Callable[[int], Tensor], size: int, generator: torch.Generator) -> Tensor:
    """Random numbers of ``size`` samples.

    Parameters
    ----------
    draw : number of samples -> their numbers, (samples, ...), by ``generator``.
    generator : of a `SharedGenerator` everything is drawn and its part kept, so that a sample's numbers do not depend
        on who works on it.

    Returns
    -------
    (size, ...)
    """
    if not isinstance(generator, SharedGenerator):
        return draw(size)
    return draw(generator.whole)[generator.first : generator.first + size]
