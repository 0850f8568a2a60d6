"""Conditioning augmentation: coarse images as the stage before gives them, for the second stage of a cascade.

Ho et al. 2022 (arXiv:2106.15282, section 4.2) train a stage on true coarse images with a Gaussian noise of a level that
is drawn anew for every image and told to the network, so that it does not rely on details that the stage before may
have got wrong.  Here a pair's own noise N stands for that stage's error: y becomes A x + sigma (y - A x), its variance
sigma^2 N, and all is divided by sigma, because a frame's noise is the unit in use, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sciresdiff.diffusion.share import draw_samples
from sciresdiff.training.batch import Batch


def augment(batch: Batch, numbers: Mapping[str, Any], generator: torch.Generator) -> tuple[Batch, Tensor | float]:
    """A batch with noise of drawn levels, and the levels, (B,); as it is, and 1, where ``numbers`` is empty.

    Parameters
    ----------
    numbers : [augment] of a method; ``sigma`` is the range from which the levels are drawn, uniformly.
    """
    if not numbers:
        return batch, 1.0
    low, high = numbers["sigma"]
    size, device = len(batch.truth), batch.truth.device
    level = low + (high - low) * draw_samples(
        lambda n: torch.rand(n, generator=generator, device=device), size, generator
    )
    more = (1 / level - 1).view(-1, 1, 1, 1)
    y = batch.data.y + more * batch.data.operator.apply(batch.truth) * batch.data.valid
    return replace(batch, data=replace(batch.data, y=y), truth=(1 + more) * batch.truth), level
