"""Training pairs that a recipe of ``degrade`` makes of the user's frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.degradation import chain
from sciresdiff.degradation import recipe as recipes
from sciresdiff.errors import UsageError
from sciresdiff.training.image_pair import ImagePair, normalize_pair


def load_recipe(name: str) -> recipes.Recipe:
    """Load a recipe after which the noise and the PSF of the coarse image are known.

    Raises
    ------
    UsageError : no such recipe, or one after which they are not.
    """
    recipe = recipes.load(name)
    noisy = any({"noise", "detector"} & set(stage.tables) for stage in recipe.stages)
    if recipe.unknown or not noisy:
        why = f"after {recipe.unknown} noise and blur are not known" if recipe.unknown else "it adds no noise"
        raise UsageError(
            f"--recipe: [data] degradation = {name!r}: {why}, and training goes through them; give astro, micro, "
            "first-order, second-order or star"
        )
    return recipe


def degrade_patch(truth: NDArray[Any], recipe: recipes.Recipe, scale: int, rng: np.random.Generator) -> ImagePair:
    """Degrade a fine patch by a recipe.

    Parameters
    ----------
    truth : (s*p, s*p), quantity ``sum``.
    recipe : as `load_recipe` returns it.
    scale : fine pixels per coarse pixel and axis.
    rng : draws the recipe's values and its noise.

    Raises
    ------
    UsageError : the draw left the noise or the PSF unknown.
    """
    steps = recipes.draw(recipe, rng, scale).steps
    low = chain.run_chain(truth, steps, scale=scale, quantity="sum", rng=rng, percentiles=recipe.percentiles)
    if low.unknown:
        name, why = next(iter(low.unknown.items()))
        raise UsageError(f"--recipe: [data] degradation = {recipe.name!r}: the {name} is not known after {why}")
    return normalize_pair(
        recipe.name, low.pixels, truth, kernel=low.kernel, quantity="sum", variance=low.variance, mask=low.mask
    )  # fmt: skip
