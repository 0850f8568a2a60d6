"""Simulated scenes to train and to demonstrate on, reproducible from a random generator alone.

Values are expected fluxes per fine pixel above a zero background in arbitrary units, made for a sky noise of the
order of 1 per pixel: peaks run from about 0.1 (lost in the noise) to 1e5, and up to 1e6 in star fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sciresdiff.errors import UsageError
from sciresdiff.scenes.cells import CELL_SHARES, CELLS
from sciresdiff.scenes.draw import Rng, Scene
from sciresdiff.scenes.sky import SKY, SKY_SHARES

__all__ = ["SCENES", "Scene", "scene"]

Draw = Callable[[Rng, int], Scene]


def _mixture(kinds: Mapping[str, Draw], shares: Mapping[str, float]) -> Draw:
    """A kind that draws another kind at random."""
    names, total = list(shares), sum(shares.values())

    def draw(rng: Rng, size: int) -> Scene:
        name = str(rng.choice(names, p=[shares[k] / total for k in names]))
        return kinds[name](rng, size)

    return draw


SCENES: dict[str, Draw] = {
    **SKY,
    **CELLS,
    "astro": _mixture(SKY, SKY_SHARES),
    "micro": _mixture(CELLS, CELL_SHARES),
}


def scene(kind: str, rng: Rng, size: int) -> Scene:
    """Draw one scene.

    Parameters
    ----------
    kind : str
        A key of `SCENES`; "astro" and "micro" are mixtures.
    rng : numpy.random.Generator
        The only source of randomness: the same state gives the same scene.
    size : int
        Side of the frame in fine pixels, at least 16.

    Returns
    -------
    Scene

    Raises
    ------
    UsageError
        For an unknown kind or a size below 16.
    """
    if kind not in SCENES:
        raise UsageError(f"kind: '{kind}' is not a scene; known are {', '.join(SCENES)}")
    if size < 16:
        raise UsageError(f"size: {size} is too small for a scene; use at least 16 pixels")
    return SCENES[kind](rng, size)
