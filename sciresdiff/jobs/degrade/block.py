"""Degrading a frame in blocks: which chains allow it, how far they reach, and one block carried through.

Blur, resizing by the whole scale and read-out look no further than their kernels, so that blocks read with that much
around them are the whole frame to the rounding of float64. What looks at a whole frame (the light that sets a gain,
the levels of 8-bit noise) is measured beforehand, on windows spread over it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.degradation import chain, eightbit, grids
from sciresdiff.degradation.chain import Step
from sciresdiff.degradation.kernels import kernel_from_numbers
from sciresdiff.degradation.resize import FILTERS
from sciresdiff.errors import UsageError
from sciresdiff.frame import Frame
from sciresdiff.io import Source
from sciresdiff.jobs import blocks
from sciresdiff.jobs.blocks import Block
from sciresdiff.jobs.degrade.steps import Plan, degraded
from sciresdiff.region import Region
from sciresdiff.tiling import Tile

WHOLE = 4096
"""Largest side of a frame that a chain which needs all of it is carried over, fine px."""
AROUND_HOLES = 2.5
"""Reaches to read about a block: a hole within the kernel's reach r of a good pixel has its nearest good one within
sqrt(2) r of itself, 2.42 r from that pixel."""
SAMPLE, SAMPLES = 512, 4
"""Side of a window that a frame's light is measured on, fine px, and their number along an axis."""
SATURATED_BIT = 256
"""Data-quality bit of a pixel that the simulated detector saturated."""

Planes = dict[str, NDArray[Any] | None]


@dataclass(frozen=True)
class Job:
    """What is done to every block of a frame; it pickles."""

    plans: Sequence[Plan]
    """One for each plane of the frame."""
    seed: tuple[int, int]
    """The user's, and the number that the frame's values give."""
    split: bool
    """Whether a plane has more than one block."""
    together: bool = False
    """Whether the planes are colours, which share their grey noise."""

    def generator(self, block: Block) -> np.random.Generator:
        """The source of a block's noise: a function of seed and place alone."""
        place = (3, block.number) if self.split else (0, block.plane)
        return np.random.default_rng([*self.seed, *place])

    def shared(self, block: Block) -> tuple[int, ...] | None:
        """The seed of what a block has in common with those of the other planes at its place."""
        if not self.together:
            return None
        return (*self.seed, 2, block.tile.core.y0, block.tile.core.x0) if self.split else (*self.seed, 2)


@dataclass(frozen=True)
class Done:
    """A degraded block, cut to its core."""

    block: Block
    low: chain.DegradedPlane
    quality: NDArray[np.int32]
    """Data-quality bits, (h, w)."""

    @property
    def sums(self) -> dict[str, int]:
        """What it adds to the record."""
        return {"masked": int(self.low.mask.sum()), "saturated": int(self.low.saturated.sum())}

    def arrays(self) -> list[tuple[str, int, int, int, NDArray[Any]]]:
        """Its planes, as a journal takes them."""
        tile = self.block.tile
        found: dict[str, NDArray[Any]] = {"SCI": self.low.pixels.astype(np.float32), "DQ": self.quality}
        if self.low.variance is not None:
            found["VAR"] = self.low.variance
        return [(name, self.block.plane, tile.core.y0, tile.core.x0, values) for name, values in found.items()]


def blocks_of(frame: Frame, plan: Plan) -> list[Block]:
    """The blocks of a frame, plane by plane.

    Raises
    ------
    InputError : a frame that holds no coarse pixel.
    UsageError : a chain that needs the whole of a frame which is too large for that.
    """
    _, h, w = grids.crop_to_multiple(frame.pixels, plan.scale).shape
    why = needs_whole(plan.steps)
    if why and max(h, w) > WHOLE:
        name = plan.recipe.name if plan.recipe else "these options"
        raise UsageError(
            f"--recipe: {name} {why}, which takes a frame as a whole, up to {WHOLE} px a side; this one has {h} x {w}: "
            "cut it, or take another recipe"
        )
    halo = 0 if why else -(-int(np.ceil(AROUND_HOLES * reach(plan))) // plan.scale)
    return blocks.plan((frame.planes, h // plan.scale, w // plan.scale), plan.scale, bool(why), halo)


def small(frame: Frame, parts: Sequence[Block]) -> bool:
    """Whether all planes together are no more than one block."""
    return len(parts) == 1 or (frame.pixels.size <= blocks.CORE**2 and all(part.whole for part in parts))


def needs_whole(steps: Sequence[Step]) -> str:
    """Why a chain cannot be carried out block by block, in words; empty where it can."""
    noisy = False
    for step in steps:
        if step.name == "jpeg":
            return "codes JPEG"
        if step.name == "resize" and "ratio" in step.numbers:
            return "resizes to a grid between fine and coarse"
        if step.name == "poisson" and not step.numbers.get("electrons"):
            return "counts the 8-bit levels that occur"
        if noisy and step.name in ("blur", "resize"):
            return "blurs or bins noise of the fine grid"
        noisy = noisy or step.name in ("detector", "gaussian", "poisson")
    return ""


def reach(plan: Plan) -> int:
    """How far the pixels of a chain that works by blocks look to every side, fine px."""
    total, factor = 0, 1
    for step in plan.steps:
        if step.name == "blur" and (kernel := kernel_from_numbers(step.numbers)) is not None:
            total += factor * (max(kernel.shape) // 2)
        if step.name == "resize" and factor == 1:
            found = FILTERS[str(step.numbers["filter"])]
            total += 0 if found is None else int(found.radius * plan.scale)
            factor = plan.scale
    return total


def measured(source: Source, plan: Plan, plane: int) -> Plan:
    """The plan of a plane that is carried out block by block, with numbers where it asks for those of a frame.

    The light that ``bright`` speaks of and the levels of 8-bit noise are those of 16 windows of 512 px, spread evenly.
    """
    steps, levels = list(plan.steps), None
    if any(step.name in eightbit.USED_BY for step in steps):
        percentiles = plan.recipe.percentiles if plan.recipe else eightbit.PERCENTILES
        levels = eightbit.percentile_levels(
            _sample(source, plan, plane, lambda window, tile: _finite(window)), percentiles
        )
    for place, step in enumerate(steps):
        if step.name == "detector" and "bright" in step.numbers:
            before = replace(plan, steps=steps[:place], levels=levels)
            light = chain.light_above_median(_sample(source, plan, plane, _expected(before)))
            numbers = {key: x for key, x in step.numbers.items() if key != "bright"}
            steps[place] = Step("detector", {**numbers, "gain": step.numbers["bright"] / light})
    return replace(plan, steps=steps, levels=levels)


def _finite(window: Frame) -> NDArray[np.float64]:
    values = window.pixels[0]
    return np.asarray(values[np.isfinite(values)], np.float64)


def _expected(plan: Plan) -> Callable[[Frame, Tile], NDArray[np.float64]]:
    """What the detector is shown of a window; its noise-free core."""

    def of(window: Frame, tile: Tile) -> NDArray[np.float64]:
        if not np.isfinite(window.pixels).any():
            return np.empty(0)
        pixels = degraded(np.asarray(window.pixels[0], np.float64), plan, None, {}).pixels[tile.inside()]
        return np.asarray(pixels[np.isfinite(pixels)])

    return of


def _sample(
    source: Source, plan: Plan, plane: int, of: Callable[[Frame, Tile], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Values of windows that are spread evenly over a plane."""
    side, halo = max(SAMPLE // plan.scale, 1), -(-reach(plan) // plan.scale)
    h, w = (n // plan.scale for n in source.frame.pixels.shape[1:])
    found = [
        of(windowed(source, plan.scale, Block(0, plane, tile, whole=False)), tile)
        for y in _starts(h, side)
        for x in _starts(w, side)
        for tile in [_about(y, x, side, halo, (h, w))]
    ]
    return np.concatenate(found)


def _starts(length: int, side: int) -> list[int]:
    """First pixels of windows spread evenly from end to end."""
    return sorted({round(i * max(length - side, 0) / (SAMPLES - 1)) for i in range(SAMPLES)})


def _about(y: int, x: int, side: int, halo: int, shape: tuple[int, int]) -> Tile:
    core = Region(y, min(y + side, shape[0]), x, min(x + side, shape[1]))
    return Tile(core, core.grown(halo, shape))


def windowed(source: Source, scale: int, block: Block) -> Frame:
    """The fine pixels that a block is made of."""
    return source.window(block.plane, block.tile.window.scaled(scale))


def work(job: Job, block: Block, window: Frame) -> Done:
    """A block carried through its plan, a pure function of (job, block, window)."""
    plan, core = _here(job.plans[block.plane], block.tile), block.tile.inside()
    planes: Planes = {name: _first(getattr(window, name)) for name in ("mask", "variance", "saturated")}
    pixels = np.asarray(window.pixels[0], np.float64)
    empty = job.split and not np.isfinite(pixels).any()  # one such plane alone is refused
    low = degraded(np.zeros_like(pixels) if empty else pixels, plan, job.generator(block), planes, job.shared(block))
    if empty:
        low = replace(low, pixels=np.full_like(low.pixels, np.nan), mask=np.ones_like(low.mask))
    return Done(block, _cut(low, core), _quality(window, low, plan.scale)[core])


def _here(plan: Plan, tile: Tile) -> Plan:
    """The plan with those parts of its detector's maps that belong to a window."""
    here = tile.window.slices
    steps = [
        Step(step.name, {key: x[here] if isinstance(x, np.ndarray) else x for key, x in step.numbers.items()})
        if step.name == "detector"
        else step
        for step in plan.steps
    ]
    return replace(plan, steps=steps)


def _first(plane: NDArray[Any] | None) -> NDArray[Any] | None:
    return None if plane is None else plane[0]


def _cut(low: chain.DegradedPlane, core: tuple[slice, slice]) -> chain.DegradedPlane:
    """The core of a block, with nothing of what lies about it."""
    pixels = low.pixels[core].copy()
    noise = None if low.variance is None else low.variance[core].copy()
    return replace(
        low, pixels=pixels, expected=pixels, mask=low.mask[core].copy(), saturated=low.saturated[core].copy(),
        variance=noise,
    )  # fmt: skip


def _quality(window: Frame, low: chain.DegradedPlane, scale: int) -> NDArray[np.int32]:
    """Data-quality bits of the coarse pixels: all bits of their fine ones, 1 where only a mask says so."""
    if window.dq is None:
        bits = low.mask.astype(np.int32)
    elif _coded(window):  # codes do not combine: that of the worst bad pixel stands for all
        bits = grids.block_view(grids.crop_to_multiple(np.where(window.mask, window.dq, 0)[0], scale), scale).max(
            (-3, -1)
        )
    else:
        bits = grids.block_or(grids.crop_to_multiple(window.dq[0], scale), scale)
    new = low.saturated
    if window.saturated is not None:
        new = new & ~grids.block_any(grids.crop_to_multiple(window.saturated[0], scale), scale)
    return np.asarray(np.where(new, bits | SATURATED_BIT, bits), np.int32)


def _coded(frame: Frame) -> bool:
    """Whether DQ holds whole numbers instead of bits, as the Community Pipeline's does from 3.5 on."""
    header = getattr(frame.header, "primary", None)
    version = re.match(r"V?(\d+)\.(\d+)", str(header.get("PLVER", ""))) if header is not None else None
    return bool(version and (int(version[1]), int(version[2])) >= (3, 5))
