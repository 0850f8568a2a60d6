"""Stacks that are restored as volumes: their blocks, what these need of the whole, and what is written of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b

import numpy as np

from sciresdiff.jobs import blocks as plans
from sciresdiff.jobs.blocks import Block
from sciresdiff.jobs.upscale import guard
from sciresdiff.jobs.upscale.block import Done, Job, count_draws, digest, planes_of, restore_nothing, settings_of
from sciresdiff.jobs.upscale.inputs import Inputs
from sciresdiff.notes import Notes
from sciresdiff.observation.depth import Depth
from sciresdiff.observation.observation import Observation
from sciresdiff.observation.sample import Samples
from sciresdiff.observation.stack import Stack, measure_stacks
from sciresdiff.region import Region
from sciresdiff.restoration.model import device_of
from sciresdiff.restoration.restored import RestoredPlane
from sciresdiff.restoration.volume import explain_stack, level_error, measure_pedestal, restore_volume
from sciresdiff.run.progress import Progress, no_progress
from sciresdiff.tiling import Tile

HALO = 32
"""What is read around the core of a block of a stack, input px; around that, unknown light is restored too."""
VOXELS = 3 * 2**23
"""Of the transforms of a block, at most; 2**25 take 2.08 GB for 40 planes of a large stack at x2."""
SAMPLE = 96
"""Side of the window in the middle of a stack on which is measured how many iterations it takes, input px."""


def plan_stacks(inputs: Inputs) -> list[Block]:
    """The blocks of a file of stacks: as large as `VOXELS` allow."""
    depth, (h, w) = inputs.observation.depth, inputs.frame.pixels.shape[1:]
    assert depth is not None
    s, planes = inputs.scale, len(depth.stacks[0])
    reach = max(max(psf.kernel.shape[1:]) for psf in depth.psfs) // 2
    beyond, margin = depth.margin
    side = int((VOXELS / (2 * (planes + beyond))) ** 0.5)
    window = (side - reach) // s - margin
    largest = max((window - 2 * HALO) // plans.CELL, 2) * plans.CELL
    return plans.plan_stacks(depth.stacks, (h, w), largest, HALO)


def with_stack_statistics(inputs: Inputs, samples: Samples, blocks: Sequence[Block]) -> Inputs:
    """The inputs with what is measured on every stack as a whole."""
    observation = measure_stacks(inputs.observation, samples)
    depth = observation.depth
    assert depth is not None
    known, whole = [], blocks[0].whole
    for number, one in enumerate(depth.statistics):
        stack = middle_of(observation, number)
        one = replace(one, pedestal=measure_pedestal(stack))
        if not whole:
            stack = replace(stack, depth=replace(depth, statistics=(one,) * len(depth.statistics)))
            data = stack.data()
            u, iterations = explain_stack(data, stack)
            one = replace(one, iterations=iterations, level_error=level_error(data.renew_noise(u), u))
        known.append(one)
    notes = inputs.notes
    if not whole:
        each = len(blocks) // len(depth.stacks)
        notes += Notes(f"blocks: every stack is restored in {each} parts, each read with {HALO} px around it")
    observation = replace(observation, depth=replace(depth, statistics=tuple(known)))
    return replace(inputs, observation=observation, notes=notes)


def middle_of(observation: Observation, number: int) -> Stack:
    """The window in the middle of a stack."""
    h, w = observation.exposure.grid.shape
    y, x = max((h - SAMPLE) // 2, 0), max((w - SAMPLE) // 2, 0)
    window = Region(y, min(y + SAMPLE, h), x, min(x + SAMPLE, w))
    return Stack.of_window(observation, number, Tile(window, window))


def restore_stack(job: Job, block: Block, stack: Stack, progress: Progress = no_progress) -> Done:
    """One block of a stack, restored: arrays with a plane for each of the stack's.

    A block without a valid pixel comes out as it came in, with NaN for ERR and DRAWS.
    """
    inside = block.tile.inside()
    if any(one.exposure.valid[inside].any() for one in stack.planes):
        restored = restore_volume(stack, settings_of(job.options), device_of(job.options.device), progress)
    else:
        restored = [restore_nothing(job, one) for one in stack.planes]
    each = [planes_of(block, window, one) for window, one in zip(stack.planes, restored, strict=True)]
    arrays = {name: np.stack([one[name] for one in each]) for name in each[0]}
    if job.options.save_samples and count_draws(job):
        fine = block.tile.inside(stack.scale)
        arrays["DRAWS"] = np.stack([one.draws[(slice(None), *fine)] for one in restored if one.draws is not None])
    sums = [
        {
            "masked": int(window.exposure.mask[inside].sum()),
            "valid": int(window.exposure.valid[inside].sum()),
            "chi2": one.chi2,
            "flux_ratio": one.flux_ratio,
            "total": one.total,
            "gate": float(one.gate.mean()),
            "pixels": int(arrays["GATE"][i].size),
            **judge_plane(stack, window, one, inside),
        }
        for i, (window, one) in enumerate(zip(stack.planes, restored, strict=True))
    ]
    return Done(block, arrays, {"planes": sums, "seen": digest_stack(stack)})


def judge_plane(
    stack: Stack, window: Observation, restored: RestoredPlane, inside: tuple[slice, slice]
) -> dict[str, dict[str, float]]:
    """What a plane of a block adds to the guard's verdict; nothing without a valid pixel."""
    if restored.seen is None or not window.exposure.valid[inside].any():
        return {}
    again = guard.remeasured_plane(window, restored, stack.known.sky)
    return {"guard": guard.measure(window, restored, again, inside)}


def digest_stack(stack: Stack) -> str:
    """Hash of all that a block of a stack reads."""
    return blake2b("".join(digest(one) for one in stack.planes).encode(), digest_size=16).hexdigest()


def digest_depth(depth: Depth | None) -> bytes:
    """Of what was measured on whole stacks, and of their PSFs; empty without any."""
    if depth is None:
        return b""
    each = [one.digest for one in depth.psfs]
    return repr((depth.target, depth.margin, depth.statistics, depth.width_error, each)).encode()
