"""What ``degrade`` does to one frame: options and recipes settled into a chain of steps, and carried out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.degradation import chain, eightbit
from sciresdiff.degradation import recipe as recipes
from sciresdiff.degradation.chain import Step
from sciresdiff.degradation.degrade import instrument_chain
from sciresdiff.errors import UsageError
from sciresdiff.frame import Frame, Quantity
from sciresdiff.jobs.degrade.options import DegradeOptions
from sciresdiff.observation.noise import read_detector_map
from sciresdiff.physics import psf
from sciresdiff.physics.detector import Detector


@dataclass(frozen=True)
class Plan:
    """What happens to one frame, or to one patch of it."""

    scale: int
    quantity: Quantity
    steps: Sequence[Step]
    recipe: recipes.Recipe | None = None
    """None: the options alone."""
    levels: tuple[float, float] | None = None
    """Values that 8-bit noise takes for 0 and 255; None: those of the plane it is carried out on."""

    @property
    def spec(self) -> str:
        """The blurs in words, the first first."""
        return ", then ".join(chain.blur_names(self.steps)) or "none"


def plan_of(frame: Frame, options: DegradeOptions, quantity: Quantity, rng: np.random.Generator) -> Plan:
    """Settle the chain; a recipe's draws come from ``rng``.

    Raises
    ------
    UsageError : numbers that no detector has, or an option that the recipe has no place for.
    """
    given = _given(frame, options)
    Detector(**given)
    if options.recipe is None:
        kernel, spec = _kernel(frame, options.kernel or "none")
        detector = Detector(**{"photons": "gain" in given, **given}) if given else None
        return Plan(options.scale, quantity, instrument_chain(kernel, detector, spec))
    loaded = recipes.load(options.recipe)
    steps = list(recipes.draw(loaded, rng, options.scale).steps)
    if options.kernel:
        _replace_blur(steps, frame, loaded, options.kernel)
    if given:
        _replace_detector(steps, loaded, given)
    return Plan(options.scale, quantity, steps, loaded)


def _replace_blur(steps: list[Step], frame: Frame, loaded: recipes.Recipe, spec: str) -> None:
    """``--kernel`` in the place of the last blur that was drawn."""
    places = [i for i, step in enumerate(steps) if step.name == "blur"]
    if not places or not loaded.physical:
        raise UsageError(f"--kernel: recipe {loaded.name} has a blur of its own; leave one of the two out")
    kernel, told = _kernel(frame, spec)
    steps[places[-1]] = instrument_chain(kernel, None, told)[0]


def _replace_detector(steps: list[Step], loaded: recipes.Recipe, given: dict[str, Any]) -> None:
    """Fields of the detector that options state, in the place of those that were drawn."""
    places = [i for i, step in enumerate(steps) if step.name == "detector"]
    if not places:
        name = next(iter(given)).replace("_", "-")
        raise UsageError(f"--{name}: recipe {loaded.name} has no detector to set it in; leave one of the two out")
    numbers = {**steps[places[-1]].numbers, **given}
    if "gain" in given:
        numbers.pop("bright", None)
    steps[places[-1]] = Step("detector", numbers)


def _kernel(frame: Frame, spec: str) -> tuple[NDArray[np.float64] | None, str]:
    parsed = psf.parse(spec)
    if parsed.shape == "none":
        return None, "none"
    return psf.render(parsed, frame.pixel_size, integrate=False), str(parsed)


def _given(frame: Frame, options: DegradeOptions) -> dict[str, Any]:
    """Fields of the detector that are stated, maps read."""
    given: dict[str, Any] = {}
    coarse = tuple(n // options.scale for n in frame.pixels.shape[1:])
    for name in ("gain", "read_noise"):
        told = getattr(options, name)
        if told is not None:
            given[name] = read_detector_map(name, told, coarse) if isinstance(told, str) else float(told)
    for name in ("sky", "dark", "full_well", "bits"):
        if getattr(options, name):
            given[name] = getattr(options, name)
    return given


def degraded(
    high: NDArray[np.float64],
    plan: Plan,
    rng: np.random.Generator | None,
    planes: dict[str, NDArray[Any] | None],
    together: tuple[int, ...] | None = None,
) -> chain.DegradedPlane:
    """A plane of the fine image, carried through a plan.

    Parameters
    ----------
    rng : source of all noise; None for the linear part alone.
    planes : its mask, variance and saturated pixels.
    together : seed of what the planes of a colour image share.
    """
    percentiles = plan.recipe.percentiles if plan.recipe else eightbit.PERCENTILES
    return chain.run_chain(
        high,
        plan.steps,
        scale=plan.scale,
        quantity=plan.quantity,
        rng=rng,
        percentiles=percentiles,
        levels=plan.levels,
        shared_seed=together,
        **planes,  # type: ignore[arg-type]
    )
