"""A batch of training pairs on the device: what a loss is given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciresdiff.physics.consistency import Data
from sciresdiff.physics.operators import Operator
from sciresdiff.training.kernel_terms import stack_terms
from sciresdiff.training.pair import CoarseImage, NoiseDraw, Pair


@dataclass(frozen=True)
class Batch:
    """B pairs of p x p coarse pixels at scale s, in noise units, quantity ``sum``."""

    data: Data
    """The observation: y, N and the valid pixels, (B, 1, p, p) each, and the operator A."""
    truth: Tensor
    """(B, 1, s*p, s*p)"""
    kernel: Tensor
    """(B, 4), `psf_features`"""

    @classmethod
    def of_pairs(cls, pairs: Sequence[Pair], device: torch.device | str = "cpu") -> Batch:
        """Observe the simulated pairs, and put them beside the given ones.

        Parameters
        ----------
        pairs : B pairs of one size and scale.
        device : where the tensors are to lie, and where A x is computed.
        """
        count, side = len(pairs), pairs[0].valid.shape[-1]
        scale = pairs[0].truth.shape[-1] // side

        def stack(arrays: Iterable[NDArray[np.float32] | np.float32], *shape: int) -> Tensor:
            return torch.from_numpy(np.stack(list(arrays))).to(device).view(count, *shape)

        terms = torch.from_numpy(stack_terms([pair.terms for pair in pairs])).to(device)
        operator = Operator.batch((side, side), scale, terms)
        truth = stack((pair.truth for pair in pairs), 1, side * scale, side * scale)
        valid = stack((pair.valid for pair in pairs), 1, side, side)
        # y = A x + z sqrt(N) for all at once; a given pair gets its own y and N afterwards.
        none = NoiseDraw.none(side)
        draws = [pair.coarse if isinstance(pair.coarse, NoiseDraw) else none for pair in pairs]
        clean = operator.apply(truth)
        sky, slope = stack((d.sky for d in draws), 1, 1, 1), stack((d.slope for d in draws), 1, 1, 1)
        variance = sky + slope * clean.clamp_min(0)
        y = (clean + stack((d.normal for d in draws), 1, side, side) * variance.sqrt()) * valid
        for i, pair in enumerate(pairs):
            if isinstance(pair.coarse, CoarseImage):
                y[i, 0] = torch.from_numpy(pair.coarse.y).to(device)
                variance[i, 0] = torch.from_numpy(pair.coarse.variance).to(device)
        return cls(Data(y, variance, valid, operator), truth, stack((pair.features for pair in pairs), 4))
