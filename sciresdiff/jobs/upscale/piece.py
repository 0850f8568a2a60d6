"""A piece of the work on a file: a block of one plane, or of all planes of a stack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sciresdiff.jobs.blocks import Block
from sciresdiff.jobs.upscale.block import Done, Job, digest, read_block, restore_block
from sciresdiff.jobs.upscale.stack import digest_stack, restore_stack
from sciresdiff.observation.observation import Observation
from sciresdiff.observation.stack import Stack
from sciresdiff.run.progress import Progress, no_progress


def read_piece(job: Job, block: Block) -> Observation | Stack:
    """What a block is restored from: its core and what surrounds it, in memory."""
    if block.planes:
        return Stack.of_window(job.inputs.observation, block.stack, block.tile)
    return read_block(job, block)


def restore_piece(job: Job, block: Block, window: Observation | Stack, progress: Progress = no_progress) -> Done:
    """One block, restored; a function of its arguments and the model's file alone."""
    if isinstance(window, Stack):
        return restore_stack(job, block, window, progress)
    return restore_block(job, block, window, progress)


def digest_piece(window: Observation | Stack) -> str:
    """Hash of all that a block reads."""
    return digest_stack(window) if isinstance(window, Stack) else digest(window)


def count_masked(job: Job, block: Block) -> int:
    """Masked pixels of a block's core."""
    window, inside = read_piece(job, block), block.tile.inside()
    planes = window.planes if isinstance(window, Stack) else [window]
    return sum(int(plane.exposure.mask[inside].sum()) for plane in planes)


def sums_of_plane(sums: Mapping[str, Any], block: Block, plane: int) -> Mapping[str, Any]:
    """What a block adds to the record of one of its planes."""
    return sums["planes"][block.planes.index(plane)] if block.planes else sums
