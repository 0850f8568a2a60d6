"""One block of the image that several exposures show: read, and restored as a function of its arguments alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.frame import PLANES
from sciresdiff.io.sink import IMAGE
from sciresdiff.jobs.blocks import Block
from sciresdiff.jobs.upscale.block import quality, settings_of
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.observation.joint import Joint, JointWindow
from sciresdiff.region import Region
from sciresdiff.restoration.joint import residual_of, restore_joint
from sciresdiff.restoration.model import device_of
from sciresdiff.run.progress import Progress, no_progress

NOTHING = 1
"""Bit of DQ where no exposure has a pixel."""
NOTHING_SEEN = 1 << 30
"""Mark, taken off again, of pixels of the output that no exposure covers."""


@dataclass(frozen=True)
class JointJob:
    """What is done to every block; it pickles."""

    paths: tuple[str, ...]
    options: UpscaleOptions
    joint: Joint
    """Of the exposures that are restored."""
    left_out: Joint | None
    """The exposure that is predicted, alone."""


@dataclass(frozen=True)
class Done:
    """A restored block; it pickles."""

    block: Block
    arrays: Mapping[str, NDArray[Any]]
    sums: Mapping[str, Any]


def read_window(job: JointJob, block: Block) -> tuple[JointWindow, JointWindow | None]:
    """What a block is restored from, and the exposure that is predicted."""
    left_out = None if job.left_out is None else job.left_out.window(block.tile)
    return job.joint.window(block.tile), left_out


def digest(window: JointWindow) -> str:
    """Hash of all that a block reads."""
    found = blake2b(digest_size=16)
    for number, part in window.members:
        found.update(str(number).encode())
        for name in PLANES:
            if (array := getattr(part.exposure.plane, name)) is not None:
                found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def restore_window(
    job: JointJob, block: Block, read: tuple[JointWindow, JointWindow | None], progress: Progress = no_progress
) -> Done:
    """One block, restored; a function of its arguments alone. Where no exposure has a pixel there is NaN."""
    window, left_out = read
    settings, core = settings_of(job.options), block.tile.core.within(block.tile.window)
    dq = quality_of(window, core)
    sums: dict[str, Any] = {"seen": digest(window), "said": [], "pixels": int(dq.size), "bad": int((dq != 0).sum())}
    if not any(valid.any() for valid in window.valid):
        unknown = np.full(core.shape, np.nan, np.float32)
        ones = np.ones_like(unknown)
        arrays: dict[str, NDArray[Any]] = {IMAGE: unknown, "ERR": unknown, "SUPPORT": 0 * ones, "GATE": ones}
        arrays["DQ"] = np.where(dq == 0, NOTHING, dq)
        if job.options.save_samples and settings.refine:
            arrays["DRAWS"] = np.full((settings.samples, *core.shape), np.nan, np.float32)
        return Done(block, arrays, {**sums, "chi2": {}, "flux_ratio": float("nan"), "total": 0.0, "masked": 0})
    restored = restore_joint(window, settings, device_of(job.options.device), progress)
    plane, cut = restored.plane, core.slices
    blank = dq != 0
    arrays = {
        IMAGE: np.where(dq & NOTHING_SEEN != 0, np.nan, plane.mean[cut]).astype(np.float32),
        "ERR": np.where(blank, np.nan, plane.err[cut]).astype(np.float32),
        "SUPPORT": np.where(blank, 0, plane.support[cut]).astype(np.float32),
        "GATE": plane.gate[cut],
        "DQ": dq & ~NOTHING_SEEN,
    }
    if plane.draws is not None and job.options.save_samples:
        arrays["DRAWS"] = plane.draws[(slice(None), *cut)]
    masked = sum(int((~valid).sum()) for valid in window.valid)
    chi2 = {str(number): list(value) for number, value in restored.chi2.items()}
    sums |= {"chi2": chi2, "flux_ratio": plane.flux_ratio, "total": plane.total, "masked": masked}
    if left_out is not None and left_out.members and any(valid.any() for valid in left_out.valid):
        sums["left_out"] = [[total, n] for _, total, n in residual_of(left_out, restored.sharp)]
    return Done(block, arrays, sums)


def quality_of(window: JointWindow, core: Region) -> NDArray[np.int32]:
    """DQ of the output, (Y, X) of a core: 0 where one exposure has valid pixels, else the bits of all."""
    origin = np.array([window.tile.window.y0, window.tile.window.x0])
    # where an exposure has a valid pixel the others need not be asked
    left = np.argwhere(np.ones(core.shape, bool)) + np.array([core.y0, core.x0])
    bits, covered = np.zeros(len(left), np.int32), np.zeros(len(left), bool)
    for (_, part), valid in zip(window.members, window.valid, strict=True):
        region = part.exposure.region
        assert region is not None
        at = np.rint(part.place.inverse(left + origin)).astype(int) - [region.y0, region.x0]
        inside = ((at >= 0) & (at < np.array(valid.shape))).all(-1)
        j, i = (np.clip(at[..., a], 0, valid.shape[a] - 1) for a in (0, 1))
        everything = (slice(0, valid.shape[0]), slice(0, valid.shape[1]))
        flags = quality(part.exposure.plane, everything, 1)
        unseen = ~(inside & valid[j, i])
        bits = (bits | np.where(inside, flags[j, i], 0).astype(np.int32))[unseen]
        covered, left = (covered | inside)[unseen], left[unseen]
    found = np.zeros(core.shape, np.int32)
    bad = np.where(bits == 0, NOTHING, bits) | np.where(covered, 0, NOTHING_SEEN)
    found[tuple((left - [core.y0, core.x0]).T)] = bad
    return found
