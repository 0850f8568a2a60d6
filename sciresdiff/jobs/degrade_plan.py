"""What ``degrade`` does to one frame: options and recipes settled into kernels and detectors, and carried out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.frame import Frame, Quantity
from sciresdiff.jobs.variance import detector_map
from sciresdiff.physics import degrade as physics
from sciresdiff.physics import psf
from sciresdiff.physics import recipe as recipes
from sciresdiff.physics.detector import Detector


@dataclass(frozen=True)
class DegradeOptions:
    """The options of ``degrade``; noise is per coarse pixel."""

    scale: int
    """Fine pixels per coarse pixel and axis."""
    kernel: str | None = None
    """SPEC of the blur, ``px`` being fine pixels; none without it, or what the recipe draws."""
    quantity: Quantity | None = None
    gain: float | str | None = None
    """Electrons per unit of the file, a number or a map of the coarse grid; switches photon noise on."""
    read_noise: float | str | None = None
    """Electrons, a number or a map."""
    sky: float = 0.0
    """Electrons that the sky adds to the noise; their mean is taken off again."""
    dark: float = 0.0
    """Electrons of dark current, likewise."""
    full_well: float | None = None
    """Electrons."""
    bits: int | None = None
    recipe: str | None = None
    """astro, micro, second-order, or a TOML file; options given win over it."""
    pairs: str | None = None
    """HDF5 training set that the patches of this frame are added to."""
    patch: int = 256
    """Side of a patch, fine px."""
    axes: str | None = None
    seed: int = 0
    overwrite: bool = False


@dataclass(frozen=True)
class Plan:
    """What happens to one frame, or to one patch of it."""

    scale: int
    quantity: Quantity
    kernel: NDArray[np.float64] | None
    """On the fine grid."""
    spec: str
    detector: Detector | None = None
    """None: no noise, or the recipe's."""
    recipe: recipes.Recipe | None = None
    drawn: recipes.Draw | None = None
    given: dict[str, Any] | None = None
    """Fields of the detector that options state."""
    first: Plan | None = None
    """What happens on the fine grid before."""


def plan_of(frame: Frame, options: DegradeOptions, quantity: Quantity, rng: np.random.Generator) -> Plan:
    """Settle kernel and detector; a recipe's draws come from ``rng``."""
    given = _given(frame, options)
    if options.recipe is None:
        kernel, spec = _kernel(frame, options.kernel or "none")
        return Plan(options.scale, quantity, kernel, spec, _detector(given))
    loaded = recipes.load(options.recipe)
    first = _stage(frame, loaded, quantity, 1, rng, None, {}) if loaded.stages == 2 else None
    plan = _stage(frame, loaded, quantity, options.scale, rng, options.kernel, given)
    if first is None:
        return plan
    return replace(plan, first=first)


def _stage(
    frame: Frame,
    loaded: recipes.Recipe,
    quantity: Quantity,
    scale: int,
    rng: np.random.Generator,
    spec: str | None,
    given: dict[str, Any],
) -> Plan:
    drawn = recipes.draw(loaded, rng, scale)
    kernel, told = _kernel(frame, spec or str(drawn.psf))
    if kernel is not None and spec is None:
        kernel = physics.cut(kernel, (min(frame.pixels.shape[1:]) - 1) // 2)
    return Plan(scale, quantity, kernel, told, None, loaded, drawn, given)


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
            given[name] = detector_map(name, told, coarse) if isinstance(told, str) else float(told)
    for name in ("sky", "dark", "full_well", "bits"):
        if getattr(options, name):
            given[name] = getattr(options, name)
    return given


def _detector(given: dict[str, Any]) -> Detector | None:
    """The detector of the options alone; photon noise needs a gain."""
    return Detector(**{"photons": "gain" in given, **given}) if given else None


def degraded(
    high: NDArray[np.float64], plan: Plan, rng: np.random.Generator, planes: dict[str, NDArray[Any] | None]
) -> physics.Low:
    """A plane of the fine image, carried through a plan; ``planes`` has its mask, variance and saturated pixels."""
    if plan.first is None:
        return _once(high, plan, rng, planes)
    before = _once(high, plan.first, rng, planes)
    after = _once(before.pixels, plan, rng, {"mask": before.mask, "saturated": before.saturated})
    if before.variance is None:
        return after
    early = physics.inherited(physics.trimmed(before.variance, plan.scale), plan.scale, plan.kernel, plan.quantity)
    late = 0.0 if after.variance is None else after.variance
    return replace(after, variance=early + late)


def _once(
    high: NDArray[np.float64], plan: Plan, rng: np.random.Generator, planes: dict[str, NDArray[Any] | None]
) -> physics.Low:
    loaded, drawn, given = plan.recipe, plan.drawn, plan.given or {}
    camera: Any = plan.detector
    if loaded is not None and drawn is not None:
        camera = lambda expected: recipes.detector_of(loaded, drawn, expected, **given)  # noqa: E731
    return physics.degrade(
        high, scale=plan.scale, kernel=plan.kernel, quantity=plan.quantity, detector=camera, rng=rng, **planes
    )


def whole_kernel(plan: Plan) -> NDArray[np.float64] | None:
    """The blur of all stages together, on the fine grid; None without any."""
    return plan.kernel if plan.first is None else physics.compose(plan.first.kernel, plan.kernel)
