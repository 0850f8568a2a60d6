"""Training pairs by number: simulated on the fly, or from the user's data.

Every pair is a pure function of (seed, number of the pair), so that a resumed run sees what the uninterrupted one
would have seen, and several processes share a batch without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from sciresdiff.notes import Notes
from sciresdiff.training.batch import Batch
from sciresdiff.training.degradation import degrade_patch, load_recipe
from sciresdiff.training.folders import FilePool, ReadOptions, UserData
from sciresdiff.training.image_pair import ImagePair, crop_pair
from sciresdiff.training.pair import CoarseImage, Pair
from sciresdiff.training.recipe import DataRecipe
from sciresdiff.training.simulate import ScenePool, crop, draw_pedestal, simulate_pair


class Pairs:
    """Pairs by number, for one recipe and seed."""

    def __init__(self, recipe: DataRecipe, seed: int, real: Sequence[NDArray[np.float32]] | UserData = ()) -> None:
        """Open what pairs are made of.

        Parameters
        ----------
        recipe : what is drawn.
        seed : of this stream of pairs; 0 is a seed like any other.
        real : what joins the simulated scenes with ``real_share``: the user's data, or images (H, W) whose noise is far
            below what will be added, which serve as scenes.

        Raises
        ------
        UsageError : keys of the recipe that do not fit.
        InputError : data that cannot be read or used.
        """
        self.recipe, self.seed, self.files = recipe, seed, FilePool([])
        self.notes = Notes()
        self.degradation = load_recipe(recipe.degradation) if recipe.degradation else None
        if isinstance(real, UserData):
            real, self.files, self.notes = real.open(
                ReadOptions(recipe.scale, recipe.patch, recipe.kernel, recipe.light)
            )
        self.real = list(real)
        self.scenes = ScenePool(recipe, seed)

    @property
    def real_share(self) -> float:
        """Share of pairs that come from the user's data."""
        return 0.5 if self.recipe.real_share is None else self.recipe.real_share

    def draw(self, number: int) -> Pair:
        """Make pair ``number``: simulated, or, with the chance ``real_share``, of the user's data.

        Of these, given pairs are cut; images are degraded by the recipe's ``degradation``, or serve as scenes.
        """
        recipe, rng = self.recipe, np.random.default_rng([self.seed, 2, number])
        count = len(self.real) + len(self.files)
        if not count or rng.random() >= self.real_share:
            return simulate_pair(self.scenes.draw(number, rng), recipe, rng)
        place = int(rng.integers(count))
        found = self.real[place] if place < len(self.real) else self.files.draw(number, recipe.reuse, rng)
        if isinstance(found, ImagePair):
            return self.add_pedestal(crop_pair(found, recipe.patch, rng), rng)
        if self.degradation is None:  # an image serves as a scene
            return simulate_pair(found, recipe, rng)
        truth = crop(found, recipe.patch * recipe.scale, rng)
        pair = degrade_patch(truth, self.degradation, recipe.scale, rng)
        return self.add_pedestal(crop_pair(pair, recipe.patch, rng), rng)

    def add_pedestal(self, pair: Pair, rng: np.random.Generator) -> Pair:
        """Add a random background to a given pair, as simulated ones have it."""
        background, coarse = np.float32(draw_pedestal(self.recipe, rng)), cast(CoarseImage, pair.coarse)
        y = (coarse.y + background * np.float32(self.recipe.scale**2)) * pair.valid
        return replace(pair, truth=pair.truth + background, coarse=replace(coarse, y=y))

    def batch(self, first: int, size: int, device: torch.device | str = "cpu") -> Batch:
        """Pairs ``first`` ... ``first + size - 1``, observed, on a device."""
        return Batch.of_pairs([self.draw(first + i) for i in range(size)], device)


class Prefetch:
    """Batches by the number of their first sample; the next one is made while this one is used."""

    def __init__(self, pairs: Pairs, share: tuple[int, int], device: torch.device | str) -> None:
        """Start a thread for the batches.

        Parameters
        ----------
        pairs : where the samples come from.
        share : first and number of the samples of a batch that this process works on.
        device : where a batch is to lie.
        """
        self.pairs, self.share, self.device = pairs, share, device
        self.pool = ThreadPoolExecutor(1)
        self.next: tuple[int, Future[Batch]] | None = None

    def __call__(self, first: int, step: int) -> Batch:
        """The batch of samples from ``first`` on; that from ``first + step`` on is begun."""
        batch = self.next[1].result() if self.next and self.next[0] == first else self.make(first)
        self.next = (first + step, self.pool.submit(self.make, first + step))
        return batch

    def make(self, first: int) -> Batch:
        """This process's share of a batch."""
        return self.pairs.batch(first + self.share[0], self.share[1], self.device)
