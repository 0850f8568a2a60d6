"""One block of a file: read, restored, and cut to what is written of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff import plugins
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.sums import data_sums
from sciresdiff.frame import PLANES, Frame
from sciresdiff.io.quality_bits import RING, SATURATED
from sciresdiff.io.sink import IMAGE
from sciresdiff.jobs.blocks import Block
from sciresdiff.jobs.upscale import guard, trust
from sciresdiff.jobs.upscale.inputs import Inputs
from sciresdiff.jobs.upscale.integers import count_small_errors
from sciresdiff.jobs.upscale.models import models_of
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.jobs.upscale.trust import Marker
from sciresdiff.notes import Notes
from sciresdiff.observation.grid import upsample_nearest
from sciresdiff.observation.observation import Observation
from sciresdiff.restoration.model import device_of
from sciresdiff.restoration.restore import restore
from sciresdiff.restoration.restored import RestoredPlane
from sciresdiff.restoration.settings import Settings
from sciresdiff.run.memory import retry_with_smaller_tiles
from sciresdiff.run.progress import Progress, no_progress

Array = NDArray[Any]


@dataclass(frozen=True)
class Job:
    """What is done to every block of a file; it pickles."""

    path: str
    options: UpscaleOptions
    inputs: Inputs
    """Without models and arrays."""
    marker: Marker


@dataclass(frozen=True)
class Done:
    """A restored block; it pickles."""

    block: Block
    arrays: Mapping[str, Array]
    """Name of a plane -> its values in the core, on the fine grid: (Y, X), or (K, Y, X) of the draws; of a stack one of
    these for each of its planes."""
    sums: Mapping[str, Any]
    """What the block adds to the record; JSON's own types."""
    notes: Notes = field(default_factory=Notes)

    def parts(self, scale: int) -> tuple[list[tuple[str, int, int, int, Array]], Mapping[str, Any]]:
        """Arrays and sums, as a journal takes them."""
        fine = self.block.tile.core.scaled(scale)
        sums = {**self.sums, "said": list(self.notes), **count_small_errors(self.arrays["ERR"])}
        if not self.block.planes:
            return [(name, self.block.plane, fine.y0, fine.x0, values) for name, values in self.arrays.items()], sums
        each = [
            (name, i, values)
            for name, of in self.arrays.items()
            for i, values in zip(self.block.planes, of, strict=True)
        ]
        return [(name, plane, fine.y0, fine.x0, values) for name, plane, values in each], sums


def read_block(job: Job, block: Block) -> Observation:
    """What a block is restored from: its core and what surrounds it, in memory."""
    return job.inputs.observation.window(block.plane, block.tile)


def digest(window: Observation) -> str:
    """Hash of all that a block reads."""
    found, frame = blake2b(digest_size=16), window.exposure.plane
    for name in PLANES:
        if (array := getattr(frame, name)) is not None:
            found.update(np.ascontiguousarray(array).data)
    if window.exposure.noise.expected is not None:
        found.update(np.ascontiguousarray(window.exposure.noise.expected).data)
    return found.hexdigest()


def restore_block(job: Job, block: Block, window: Observation, progress: Progress = no_progress) -> Done:
    """One block, restored; a function of its arguments and the model's file alone.

    A block without a valid pixel in its core comes out as it came in, with NaN for ERR and DRAWS, if there are others.

    Parameters
    ----------
    window : `read_block`.
    """
    exposure, inside = window.exposure, block.tile.inside()
    valid = exposure.valid[inside]
    notes = Notes()
    if valid.any() or job.inputs.frame.planes == 1 and block.whole:
        restored, notes = restore_window(job, window, progress)
    else:
        restored = restore_nothing(job, window)
    again = guard.remeasure(window, restored) if valid.any() else None
    if again is not None:
        restored = guard.flag_beside_masks(window, restored, again)
    arrays = planes_of(block, window, restored)
    sums = {
        "masked": int(exposure.mask[inside].sum()),
        "valid": int(valid.sum()),
        "chi2": restored.chi2,
        "flux_ratio": restored.flux_ratio,
        "total": restored.total,
        "gate": float(arrays["GATE"].mean()),
        "pixels": int(arrays["GATE"].size),
        "seen": digest(window),
    }
    fine = block.tile.inside(window.scale)
    if job.marker.calibration is not None:
        arrays["TRUST"], sums["trust"] = trust.mark(job.marker.calibration, restored, window, fine)
    if again is not None:
        sums["guard"] = guard.measure(window, restored, again, inside)
    if job.options.checks and valid.any():
        sums["checks"] = sum_checks(job, block, window, restored)
    if restored.draws is not None and job.options.save_samples:
        arrays["DRAWS"] = restored.draws[(slice(None), *fine)]
    return Done(block, arrays, sums, notes)


def restore_window(job: Job, window: Observation, progress: Progress = no_progress) -> tuple[RestoredPlane, Notes]:
    """A window restored by the models of the job, with smaller tiles where memory runs out, which is noted."""
    device = device_of(job.options.device)
    model, then = models_of(job.inputs.frame, job.options)[2]
    for one in (model, then):
        if one:
            one.to(device)

    def attempt(settings: Settings) -> RestoredPlane:
        if model and then:
            cascade = plugins.load("sciresdiff.lab.cascade.restore:cascade")
            return cascade(window, (model, then), settings, device, progress)
        return restore(window, model, settings, device, progress)

    exact = all(getattr(net, "tile_exact", True) for net in networks(model, then))
    side = max(window.exposure.grid.shape)
    return retry_with_smaller_tiles(attempt, settings_of(job.options), side, exact)


def networks(*models: Any) -> list[Any]:
    """All networks of the models that are there."""
    found = [m for m in models if m]
    return [net for m in found for net in (*m.prior.stages, *([m.refiner] if m.refiner else []))]


def settings_of(options: UpscaleOptions) -> Settings:
    """The recipe's settings."""
    names = {f.name for f in fields(Settings)} & {f.name for f in fields(options)}
    return Settings(**{name: getattr(options, name) for name in names}, keep_draws=options.save_samples)


def restore_nothing(job: Job, window: Observation) -> RestoredPlane:
    """What is written of a window without a valid pixel: the input's values, and no error."""
    options, count = job.options, count_draws(job)
    mean = upsample_nearest(window.exposure.pixels / np.float32(window.per_fine), window.scale)
    nothing, unknown = np.zeros(window.grid.shape, np.float32), np.full(window.grid.shape, np.nan, np.float32)
    draws = None
    if options.save_samples and count:
        draws = np.broadcast_to(unknown, (options.samples, *window.grid.shape))
    return RestoredPlane(mean, unknown, nothing, nothing, draws, 0.0, float("nan"), count, 0.0)


def count_draws(job: Job) -> int:
    """Draws that are made of every block."""
    model, then = models_of(job.inputs.frame, job.options)[2]
    drawn = job.options.refine and (model is None or then is not None or model.refiner is not None)
    return job.options.samples if drawn else 0


def planes_of(block: Block, window: Observation, restored: RestoredPlane) -> dict[str, Array]:
    """Image, error, support, gate and quality of a core; masked pixels as they came in, NaN where they were NaN."""
    scale, exposure = window.scale, window.exposure
    inside, fine = block.tile.inside(), block.tile.inside(scale)
    bad = upsample_nearest(exposure.mask[inside], scale)
    came = upsample_nearest(exposure.pixels[inside] / np.float32(window.per_fine), scale)
    return {
        IMAGE: np.where(bad, came, restored.mean[fine]).astype(np.float32),
        "ERR": np.where(bad, np.nan, restored.err[fine]).astype(np.float32),
        "SUPPORT": restored.support[fine],
        "GATE": restored.gate[fine],
        "DQ": quality(exposure.plane, inside, scale) | ring_bits(restored, fine),
    }


def ring_bits(restored: RestoredPlane, fine: tuple[slice, slice]) -> NDArray[np.int32]:
    """`RING.bit` around masked cores, as far as their wings alone say what there is."""
    seen = np.zeros(restored.mean[fine].shape, np.int32)
    return seen if restored.unseen is None else np.where(restored.unseen[fine], np.int32(RING.bit), seen)


def quality(frame: Frame, inside: tuple[slice, slice], scale: int) -> NDArray[np.int32]:
    """Data-quality bits on the fine grid: the file's own, else 1 for masked and 256 for saturated; and those of
    `io.quality_bits`."""
    bits = (frame.mask[0].astype(np.int32) if frame.dq is None else frame.dq[0])[inside]
    if frame.saturated is not None:
        own = SATURATED.bit | (256 if frame.dq is None else 0)  # another observatory's 256 may mean something else
        bits = np.where(frame.saturated[0][inside], bits | own, bits)
    if frame.flags is not None:
        bits = bits | frame.flags[0][inside]
    return np.asarray(upsample_nearest(bits, scale), dtype=np.int32)


def sum_checks(job: Job, block: Block, window: Observation, restored: RestoredPlane) -> dict[str, dict[str, float]]:
    """What the checks that need no truth and no search for sources add up over a core."""
    exposure = window.exposure
    outside = np.ones(exposure.grid.shape, bool)
    outside[block.tile.inside()] = False
    evidence = Evidence(
        restored.mean.astype(np.float64),
        window.scale,
        low=exposure.pixels.astype(np.float64),
        variance=exposure.variance.astype(np.float64),
        mask_high=None,
        mask_low=exposure.mask | outside,
        operator=window.operator(),
        kind=job.inputs.frame.kind,
        quantity=window.quantity,
    )
    return data_sums(evidence)
