"""What ``degrade`` does to one frame: the chain of steps that options and recipes make, applied to a plane."""

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
from sciresdiff.observation.camera import read_detector_map
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
    """Values that 8-bit noise takes for 0 and 255; None: those of the plane it is applied to."""

    @property
    def spec(self) -> str:
        """The blurs in words, the first first."""
        return ", then ".join(chain.blur_names(self.steps)) or "none"


def make_plan(frame: Frame, options: DegradeOptions, quantity: Quantity, rng: np.random.Generator) -> Plan:
    """Make the chain of steps for a frame.

    Parameters
    ----------
    frame : Frame
        Its shape and pixel size count, its values do not.
    options : DegradeOptions
        What the user asks for.
    quantity : "sum" or "mean"
        Whether pixels add up or average.
    rng : numpy.random.Generator
        Where a recipe's draws come from.

    Raises
    ------
    UsageError
        Numbers that no detector has, or an option that the recipe has no place for.
    """
    given = _read_detector(frame, options)
    Detector(**given)
    if options.recipe is None:
        kernel, spec = _render_kernel(frame, options.kernel or "none")
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
    """Put ``--kernel`` in the place of the last blur that was drawn."""
    places = [i for i, step in enumerate(steps) if step.name == "blur"]
    if not places or not loaded.physical:
        raise UsageError(f"--kernel: recipe {loaded.name} has a blur of its own; leave one of the two out")
    kernel, parsed = _render_kernel(frame, spec)
    steps[places[-1]] = instrument_chain(kernel, None, parsed)[0]


def _replace_detector(steps: list[Step], loaded: recipes.Recipe, given: dict[str, Any]) -> None:
    """Put fields of the detector that options state in the place of those that were drawn."""
    places = [i for i, step in enumerate(steps) if step.name == "detector"]
    if not places:
        name = next(iter(given)).replace("_", "-")
        raise UsageError(f"--{name}: recipe {loaded.name} has no detector to set it in; leave one of the two out")
    numbers = {**steps[places[-1]].numbers, **given}
    if "gain" in given:
        numbers.pop("bright", None)
    steps[places[-1]] = Step("detector", numbers)


def _render_kernel(frame: Frame, spec: str) -> tuple[NDArray[np.float64] | None, str]:
    """The kernel of a SPEC on the fine grid, (k, k), None for no blur; and the SPEC as it was understood."""
    parsed = psf.parse(spec)
    if parsed.shape == "none":
        return None, "none"
    return psf.render(parsed, frame.pixel_size, integrate=False), str(parsed)


def _read_detector(frame: Frame, options: DegradeOptions) -> dict[str, Any]:
    """Fields of the detector that options state; maps, (h, w) of the coarse grid, are read."""
    given: dict[str, Any] = {}
    coarse = tuple(n // options.scale for n in frame.pixels.shape[1:])
    for name in ("gain", "read_noise"):
        stated = getattr(options, name)
        if stated is not None:
            given[name] = read_detector_map(name, stated, coarse) if isinstance(stated, str) else float(stated)
    for name in ("sky", "dark", "full_well", "bits"):
        if getattr(options, name):
            given[name] = getattr(options, name)
    return given


def degrade_plane(
    high: NDArray[np.float64],
    plan: Plan,
    rng: np.random.Generator | None,
    planes: dict[str, NDArray[Any] | None],
    shared_seed: tuple[int, ...] | None = None,
) -> chain.DegradedPlane:
    """Apply a plan to a plane of the fine image.

    Parameters
    ----------
    high : (Y, X) float array
        The plane, in the file's unit.
    plan : Plan
        The steps.
    rng : numpy.random.Generator, optional
        Where all noise comes from; None for the linear part alone.
    planes : dict
        ``mask``, ``variance`` and ``saturated`` of the plane, (Y, X) or None each.
    shared_seed : tuple of int, optional
        Seed of the noise that the planes of a colour image share.

    Returns
    -------
    DegradedPlane
        The coarse plane, (h, w), with its variance and flags.
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
        shared_seed=shared_seed,
        **planes,  # type: ignore[arg-type]
    )
