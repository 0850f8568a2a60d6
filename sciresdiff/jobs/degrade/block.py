"""Degrading a frame block by block: which chains allow it, what they read around a block, and one block degraded.

Blur, resizing by the whole scale and read-out look no further than their kernels. Blocks that are read with that much
around them equal the whole frame to the rounding of float64. What depends on all of a frame (the light that sets a
gain, the levels of 8-bit noise) is measured before, on windows spread over it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
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
from sciresdiff.io import Source, open_files
from sciresdiff.io.quality_bits import ABSURD, PADDING, SENTINEL
from sciresdiff.jobs import blocks as plans
from sciresdiff.jobs.blocks import Block
from sciresdiff.jobs.degrade.steps import Plan, degrade_plane
from sciresdiff.observation.defects import Defects, masked_source
from sciresdiff.region import Region
from sciresdiff.tiling import Tile

WHOLE = 4096
"""Largest side of a frame that a chain which needs all of it is applied to, fine px."""
AROUND_HOLES = 2.5
"""What is read around a block, in units of the kernel's reach r: a hole within r of a good pixel has its nearest good
pixel within sqrt(2) r of itself, so within 2.42 r of that pixel."""
SAMPLE, SAMPLES = 512, 4
"""Side of the windows that a frame's light is measured on, fine px, and their number along an axis."""
SATURATED_BIT = 256
"""Data-quality bit of a pixel that the simulated detector saturated."""

Planes = dict[str, NDArray[Any] | None]


@dataclass(frozen=True)
class FramePlan:
    """What is done to every block of a frame; it pickles."""

    path: str
    reading: Mapping[str, Any]
    """Options that the file is opened with."""
    plans: Sequence[Plan]
    """One for each plane of the frame."""
    seed: tuple[int, int]
    """The user's seed, and the number that follows from the frame's values."""
    split: bool
    """Whether a plane has more than one block."""
    defects: Defects
    """What is no data in the file."""
    colours: bool = False
    """Whether the planes are colours, which share their grey noise."""

    def generator(self, block: Block) -> np.random.Generator:
        """The generator of a block's noise, which depends on seed and place alone."""
        place = (3, block.number) if self.split else (0, block.plane)
        return np.random.default_rng([*self.seed, *place])

    def shared_seed(self, block: Block) -> tuple[int, ...] | None:
        """The seed of the noise that all colours share at this place; None where there are none."""
        if not self.colours:
            return None
        return (*self.seed, 2, block.tile.core.y0, block.tile.core.x0) if self.split else (*self.seed, 2)


@dataclass(frozen=True)
class Degraded:
    """A degraded block, cut to its core."""

    block: Block
    low: chain.DegradedPlane
    quality: NDArray[np.int32]
    """Data-quality bits, (h, w)."""

    @property
    def sums(self) -> dict[str, int]:
        """What it adds to the record: masked and saturated pixels."""
        return {"masked": int(self.low.mask.sum()), "saturated": int(self.low.saturated.sum())}

    def arrays(self) -> list[tuple[str, int, int, int, NDArray[Any]]]:
        """Its planes as (name, plane, y0, x0, values)."""
        core = self.block.tile.core
        found: dict[str, NDArray[Any]] = {"SCI": self.low.pixels.astype(np.float32), "DQ": self.quality}
        if self.low.variance is not None:
            found["VAR"] = self.low.variance
        return [(name, self.block.plane, core.y0, core.x0, values) for name, values in found.items()]


def plan_blocks(frame: Frame, plan: Plan) -> list[Block]:
    """The blocks of a frame, plane by plane.

    Raises
    ------
    InputError
        The frame is smaller than a coarse pixel.
    UsageError
        The chain needs all of a frame, and this one is too large for that.
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
    return plans.plan((frame.planes, h // plan.scale, w // plan.scale), plan.scale, bool(why), halo)


def fits_one_block(frame: Frame, parts: Sequence[Block]) -> bool:
    """Whether all planes together are no larger than one block."""
    return len(parts) == 1 or (frame.pixels.size <= plans.CORE**2 and all(part.whole for part in parts))


def needs_whole(steps: Sequence[Step]) -> str:
    """Why a chain needs all of a frame, in words; empty where it can be applied block by block."""
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
    """How far a coarse pixel of a chain that works by blocks looks to every side, fine px."""
    total, factor = 0, 1
    for step in plan.steps:
        if step.name == "blur" and (kernel := kernel_from_numbers(step.numbers)) is not None:
            total += factor * (max(kernel.shape) // 2)
        if step.name == "resize" and factor == 1:
            found = FILTERS[str(step.numbers["filter"])]
            total += 0 if found is None else int(found.radius * plan.scale)
            factor = plan.scale
    return total


def measure_plane(source: Source, plan: Plan, plane: int) -> Plan:
    """The plan of a plane that is degraded block by block, with numbers in place of what depends on all of a frame.

    The light that sets the gain of ``bright``, and the levels of 8-bit noise, are those of 16 windows of 512 px, spread
    evenly over the plane.

    Parameters
    ----------
    source : Source
        The open file.
    plan : Plan
        As it is drawn for the file.
    plane : int
        Number of the plane.
    """
    steps, levels = list(plan.steps), None
    if any(step.name in eightbit.USED_BY for step in steps):
        percentiles = plan.recipe.percentiles if plan.recipe else eightbit.PERCENTILES
        levels = eightbit.percentile_levels(
            _sample(source, plan, plane, lambda window, tile: _finite_values(window)), percentiles
        )
    for place, step in enumerate(steps):
        if step.name == "detector" and "bright" in step.numbers:
            before = replace(plan, steps=steps[:place], levels=levels)
            light = chain.light_above_median(_sample(source, plan, plane, _make_expectation(before)))
            numbers = {key: x for key, x in step.numbers.items() if key != "bright"}
            steps[place] = Step("detector", {**numbers, "gain": step.numbers["bright"] / light})
    return replace(plan, steps=steps, levels=levels)


def _finite_values(window: Frame) -> NDArray[np.float64]:
    values = window.pixels[0]
    return np.asarray(values[np.isfinite(values)], np.float64)


def _make_expectation(plan: Plan) -> Callable[[Frame, Tile], NDArray[np.float64]]:
    """A function that computes what the detector sees of a window's core, without noise."""

    def of(window: Frame, tile: Tile) -> NDArray[np.float64]:
        if not np.isfinite(window.pixels).any():
            return np.empty(0)
        pixels = degrade_plane(np.asarray(window.pixels[0], np.float64), plan, None, {}).pixels[tile.inside()]
        return np.asarray(pixels[np.isfinite(pixels)])

    return of


def _sample(
    source: Source, plan: Plan, plane: int, of: Callable[[Frame, Tile], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Values ``of`` windows that are spread evenly over a plane, (n,)."""
    side, halo = max(SAMPLE // plan.scale, 1), -(-reach(plan) // plan.scale)
    h, w = (n // plan.scale for n in source.frame.pixels.shape[1:])
    found = [
        of(read_window(source, plan.scale, Block(0, plane, tile, whole=False)), tile)
        for y in _starts(h, side)
        for x in _starts(w, side)
        for tile in [_tile_at(y, x, side, halo, (h, w))]
    ]
    return np.concatenate(found)


def _starts(length: int, side: int) -> list[int]:
    """First pixels of windows spread evenly from end to end."""
    return sorted({round(i * max(length - side, 0) / (SAMPLES - 1)) for i in range(SAMPLES)})


def _tile_at(y: int, x: int, side: int, halo: int, shape: tuple[int, int]) -> Tile:
    core = Region(y, min(y + side, shape[0]), x, min(x + side, shape[1]))
    return Tile(core, core.grown(halo, shape))


def read_window(source: Source, scale: int, block: Block) -> Frame:
    """The fine pixels that a block is made of, with what lies around it: a frame of (1, Y, X)."""
    return source.window(block.plane, block.tile.window.scaled(scale))


def read_blocks(plan: FramePlan, blocks: Sequence[Block]) -> list[Frame]:
    """The windows of blocks, read from the plan's file."""
    with open_files.use(plan.path, **plan.reading) as held, held.turn:
        source = without_no_data(held.source, plan.defects)
        return [read_window(source, plan.plans[block.plane].scale, block) for block in blocks]


NO_DATA = SENTINEL.bit | PADDING.bit | ABSURD.bit
"""Bits of values that no detector gave. A saturated star is one, however wrong."""


def without_no_data(source: Source, defects: Defects) -> Source:
    """The image with what stands for no data masked, which would be blurred into its surroundings."""
    found = masked_source(source, defects)

    def cut(plane: int, region: Region) -> Frame:
        frame = source.window(plane, region)
        flags = found.window(plane, region).flags
        assert flags is not None
        none = (flags & NO_DATA) != 0
        if not none.any():
            return frame
        return frame.with_(pixels=np.where(none, np.float32(np.nan), frame.pixels), mask=frame.mask | none)

    return Source(source.frame, cut, source.path)


def degrade_blocks(plan: FramePlan, blocks: Sequence[Block], windows: Sequence[Frame]) -> list[Degraded]:
    """Degrade several blocks; a pure function of its arguments.

    Parameters
    ----------
    plan : FramePlan
        What is done to every block.
    blocks : sequence of Block
        The blocks.
    windows : sequence of Frame
        Their fine pixels, (1, Y, X) each.
    """
    return [degrade_block(plan, block, window) for block, window in zip(blocks, windows, strict=True)]


def degrade_block(plan: FramePlan, block: Block, window: Frame) -> Degraded:
    """Degrade one block; a pure function of its arguments.

    Parameters
    ----------
    plan : FramePlan
        What is done to every block.
    block : Block
        The block.
    window : Frame
        Its fine pixels, (1, Y, X), as `read_window` gives them.
    """
    mine, core = _crop_maps(plan.plans[block.plane], block.tile), block.tile.inside()
    planes: Planes = {name: _first(getattr(window, name)) for name in ("mask", "variance", "saturated")}
    pixels = np.asarray(window.pixels[0], np.float64)
    empty = plan.split and not np.isfinite(pixels).any()  # a plane without a value is refused, a part of one is not
    rng, shared = plan.generator(block), plan.shared_seed(block)
    low = degrade_plane(np.zeros_like(pixels) if empty else pixels, mine, rng, planes, shared)
    if empty:
        low = replace(low, pixels=np.full_like(low.pixels, np.nan), mask=np.ones_like(low.mask))
    return Degraded(block, _crop(low, core), combine_quality(window, low, mine.scale)[core])


def _crop_maps(plan: Plan, tile: Tile) -> Plan:
    """The plan with the detector's maps cropped to a window."""
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


def _crop(low: chain.DegradedPlane, core: tuple[slice, slice]) -> chain.DegradedPlane:
    """The core of a block; copies, so that the window can be freed."""
    pixels = low.pixels[core].copy()
    noise = None if low.variance is None else low.variance[core].copy()
    return replace(
        low, pixels=pixels, expected=pixels, mask=low.mask[core].copy(), saturated=low.saturated[core].copy(),
        variance=noise,
    )  # fmt: skip


def combine_quality(window: Frame, low: chain.DegradedPlane, scale: int) -> NDArray[np.int32]:
    """Data-quality bits of the coarse pixels, (h, w): all bits of their fine ones, 1 where only a mask says so.

    Parameters
    ----------
    window : Frame
        The fine pixels, (1, Y, X).
    low : DegradedPlane
        The coarse pixels that were made of them, (h, w).
    scale : int
        Fine pixels per coarse pixel and axis.
    """
    if window.dq is None:
        bits = low.mask.astype(np.int32)
    elif _has_codes(window):  # codes cannot be combined: that of the worst bad pixel stands for all
        bits = grids.block_view(grids.crop_to_multiple(np.where(window.mask, window.dq, 0)[0], scale), scale).max(
            (-3, -1)
        )
    else:
        bits = grids.block_or(grids.crop_to_multiple(window.dq[0], scale), scale)
    new = low.saturated
    if window.saturated is not None:
        new = new & ~grids.block_any(grids.crop_to_multiple(window.saturated[0], scale), scale)
    return np.asarray(np.where(new, bits | SATURATED_BIT, bits), np.int32)


def _has_codes(frame: Frame) -> bool:
    """Whether DQ holds codes instead of bits, as that of the DECam Community Pipeline does from 3.5 on."""
    header = getattr(frame.header, "primary", None)
    version = re.match(r"V?(\d+)\.(\d+)", str(header.get("PLVER", ""))) if header is not None else None
    return bool(version and (int(version[1]), int(version[2])) >= (3, 5))
