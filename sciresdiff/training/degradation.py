"""Training pairs that a recipe of ``degrade`` makes of the user's frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.degradation import chain
from sciresdiff.degradation import recipe as recipes
from sciresdiff.errors import UsageError
from sciresdiff.training.given import Given, given


def stated_recipe(name: str) -> recipes.Recipe | None:
    """A recipe by name whose noise and kernel training can be told; None without a name.

    Raises
    ------
    UsageError : no such recipe, or one that cannot state them.
    """
    if not name:
        return None
    loaded = recipes.load(name)
    noisy = any({"noise", "detector"} & set(stage.tables) for stage in loaded.stages)
    if loaded.unknown or not noisy:
        why = f"after {loaded.unknown} noise and blur are not known" if loaded.unknown else "it adds no noise"
        raise UsageError(
            f"--recipe: [data] degradation = {name!r}: {why}, and training goes through them; give astro, micro, "
            "first-order, second-order or star"
        )
    return loaded


def degraded_pair(truth: NDArray[Any], recipe: recipes.Recipe, scale: int, rng: np.random.Generator) -> Given:
    """A fine patch carried through a recipe: the draw and its noise come from ``rng``.

    Raises
    ------
    UsageError : the draw left the noise unknown.
    """
    steps = recipes.draw(recipe, rng, scale).steps
    low = chain.run_chain(truth, steps, scale=scale, quantity="sum", rng=rng, percentiles=recipe.percentiles)
    if low.unknown:
        name, why = next(iter(low.unknown.items()))
        raise UsageError(f"--recipe: [data] degradation = {recipe.name!r}: the {name} is not known after {why}")
    return given(
        recipe.name, low.pixels, truth, kernel=low.kernel, quantity="sum", variance=low.variance, mask=low.mask
    )  # fmt: skip
