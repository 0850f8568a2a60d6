"""Simulated frames whose truth is known: what calibration is measured on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from sciresdiff.observation.observation import Observation
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.psf.field import PSF
from sciresdiff.training.data import Pairs
from sciresdiff.training.pair import NoiseDraw
from sciresdiff.training.recipe import DataRecipe


@dataclass(frozen=True)
class SimulatedFrame:
    """A simulated frame with its truth, in noise units."""

    truth: NDArray[np.float32]
    """(s*h, s*w)."""
    observation: Observation
    """The frame (h, w), of sky noise about 1, quantity ``sum``."""

    def chi2(self, images: NDArray[np.float32]) -> float:
        """Mean of (y - A x)^2 / N over images x, (K, s*h, s*w), and pixels."""
        exposure = self.observation.exposure
        low = self.observation.operator(torch.float32).apply(torch.from_numpy(images)[:, None])[:, 0].numpy()
        return float(((exposure.pixels - low) ** 2 / exposure.variance).mean())


def simulate_frames(recipe: DataRecipe, seed: int, count: int) -> Iterator[SimulatedFrame]:
    """Simulate frames as training draws them, without masks.

    Parameters
    ----------
    recipe : what is drawn; a frame is as large as a patch.
    seed : of the stream of frames.
    count : how many.
    """
    pairs = Pairs(recipe, seed)
    for n in range(count):
        pair = pairs.draw(n)
        noise = cast(NoiseDraw, pair.coarse)
        kernel = np.einsum("ry,rx->yx", pair.terms[:, 0].astype(float), pair.terms[:, 1].astype(float))
        operator = Operator(noise.normal.shape, recipe.scale, kernel)
        clean = operator.apply(torch.from_numpy(pair.truth)[None, None])[0, 0].numpy()
        variance = noise.sky + noise.slope * np.clip(clean, 0, None)
        y = clean + noise.normal * np.sqrt(variance)
        psf = PSF.constant(kernel)  # of separable terms, which keep the flux of most kernels only nearly
        yield SimulatedFrame(pair.truth, Observation.of_arrays(y, variance, recipe.scale, psf))
