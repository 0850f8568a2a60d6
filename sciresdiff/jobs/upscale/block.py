"""One block of a file: read, restored, and cut to what is written of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.frame import Frame
from sciresdiff.io import open_files
from sciresdiff.io.sink import IMAGE
from sciresdiff.io.source import PLANES
from sciresdiff.jobs.blocks import Block
from sciresdiff.jobs.upscale import trust
from sciresdiff.jobs.upscale.inputs import Resolved, reading
from sciresdiff.jobs.upscale.models import models_of
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.jobs.upscale.trust import Marker
from sciresdiff.observation.sample import saturated
from sciresdiff.run.memory import retry_with_smaller_tiles
from sciresdiff.run.progress import Progress, no_progress

if TYPE_CHECKING:
    from sciresdiff.physics.statistics import Level
    from sciresdiff.restoration.restore import Part, Restored

Array = NDArray[Any]


@dataclass(frozen=True)
class Job:
    """What is done to every block of a file; it pickles."""

    path: str
    options: UpscaleOptions
    resolved: Resolved
    """Without models and arrays."""
    levels: Sequence[Level]
    """Of every plane; none where every block is a whole plane."""
    marker: Marker


@dataclass(frozen=True)
class Done:
    """A restored block; it pickles."""

    block: Block
    arrays: Mapping[str, Array]
    """Name of a plane -> its values in the core, on the fine grid: (Y, X), or (K, Y, X) of the draws."""
    sums: Mapping[str, Any]
    """What the block adds to the record; JSON's own types."""
    said: Sequence[str] = field(default_factory=tuple)

    def parts(self, scale: int) -> tuple[list[tuple[str, int, int, int, Array]], Mapping[str, Any]]:
        """Arrays and sums, as a journal takes them."""
        y, x = scale * self.block.tile.core.y0, scale * self.block.tile.core.x0
        sums = {**self.sums, "said": list(self.said)}
        return [(name, self.block.plane, y, x, values) for name, values in self.arrays.items()], sums


def without_arrays(resolved: Resolved) -> Resolved:
    """What is settled of a file without models, header and arrays, to be sent to where the work is done."""
    nothing = np.empty((resolved.frame.planes, 0, 0), np.float32)
    frame = resolved.frame.with_(
        pixels=nothing, mask=nothing.astype(bool), variance=None, saturated=None, dq=None, header=None
    )
    return replace(resolved, frame=frame, model=None, then=None)


def read(job: Job, block: Block) -> Frame:
    """A block's window, as a frame of one plane."""
    seen = block.tile.window
    place = (block.plane, seen.y0, seen.y1, seen.x0, seen.x1)
    return saturated(open_files.window(job.path, place, **reading(job.options)), job.options.saturation)


def digest(window: Frame) -> str:
    """Of all that a block reads."""
    found = blake2b(digest_size=16)
    for name in PLANES:
        if (array := getattr(window, name)) is not None:
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def restore_block(job: Job, block: Block, window: Frame, progress: Progress = no_progress) -> Done:
    """One block, restored; a function of its arguments and the model's file alone.

    A block without a valid pixel in its core comes out as it came in, with NaN for ERR and DRAWS, if there are others.
    """
    variance = job.resolved.noise.of(window, block.plane, block.tile.window.y0, block.tile.window.x0)
    good = ~window.mask[0] & np.isfinite(window.pixels[0]) & np.isfinite(variance) & (variance > 0)
    inside = block.tile.inside()
    said: list[str] = []
    if good[inside].any() or job.resolved.frame.planes == 1 and block.whole:
        done = restored(job, block, window, variance, said, progress)
    else:
        done = nothing_known(window, job)
    arrays = planes_of(job, block, window, done)
    sums = {
        "masked": int(window.mask[0][inside].sum()),
        "valid": int(good[inside].sum()),
        "chi2": done.chi2,
        "flux_ratio": done.flux_ratio,
        "total": done.total,
        "gate": float(arrays["GATE"].mean()),
        "pixels": int(arrays["GATE"].size),
        "seen": digest(window),
    }
    if job.marker.calibration is not None:
        whole = trust.seen(job.resolved, done, window, variance)
        arrays["TRUST"], sums["trust"] = trust.marked(
            job.marker.calibration, whole, block.tile.inside(job.resolved.scale)
        )
    if job.options.checks and good[inside].any():
        sums["checks"] = checked(job, block, window, variance, done)
    if done.draws is not None and job.options.save_samples:
        arrays["DRAWS"] = done.draws[(slice(None), *block.tile.inside(job.resolved.scale))]
    return Done(block, arrays, sums, said)


def restored(job: Job, block: Block, window: Frame, variance: Array, said: list[str], progress: Progress) -> Restored:
    """A window, restored with what surrounds the core."""
    from sciresdiff.restoration.cascade import cascade
    from sciresdiff.restoration.model import device_of
    from sciresdiff.restoration.restore import restore

    device, told = device_of(job.options.device), job.resolved
    model, then = models_of(told.frame, job.options, [], {})[2]
    for one in (model, then):
        if one:
            one.to(device)
    seen = window.pixels[0], variance, window.mask[0], told.kernel

    def attempt(settings: Any) -> Restored:
        if model and then:
            return cascade(*seen, told.quantity, (model, then), settings, device, progress, part_of(job, block))
        return restore(*seen, told.scale, told.quantity, model, settings, device, progress, part_of(job, block))

    exact = all(getattr(net, "tile_exact", True) for net in networks(model, then))
    done, notes = retry_with_smaller_tiles(attempt, settings_of(job.options), max(window.pixels.shape), exact)
    said.extend(notes)
    return done


def networks(*models: Any) -> list[Any]:
    """All networks of the models that are there."""
    found = [m for m in models if m]
    return [net for m in found for net in (*m.prior.stages, *([m.refiner] if m.refiner else []))]


def settings_of(options: UpscaleOptions) -> Any:
    """The recipe's settings."""
    from sciresdiff.restoration.restore import Settings

    names = {f.name for f in fields(Settings)} & {f.name for f in fields(options)}
    return Settings(**{name: getattr(options, name) for name in names}, keep_draws=options.save_samples)


def part_of(job: Job, block: Block) -> Part | None:
    """Where a block lies in its plane; None where it is the plane."""
    from sciresdiff.restoration.restore import Part

    if block.whole:
        return None
    return Part(job.levels[block.plane], (block.tile.window.y0, block.tile.window.x0), block.tile.inside())


def nothing_known(window: Frame, job: Job) -> Restored:
    """What is said of a window without a valid pixel."""
    from sciresdiff.restoration.restore import Restored

    s, options = job.resolved.scale, job.options
    shape = tuple(s * n for n in window.pixels.shape[1:])
    nothing, unknown = np.zeros(shape, np.float32), np.full(shape, np.nan, np.float32)
    mean = finer(window.pixels[0] / np.float32(share(job.resolved)), s)
    draws = np.broadcast_to(unknown, (options.samples, *shape)) if options.save_samples and draws_used(job) else None
    return Restored(mean, unknown, nothing, nothing, draws, 0.0, float("nan"), draws_used(job), 0.0)


def draws_used(job: Job) -> int:
    """Draws that are made of every block."""
    model, then = models_of(job.resolved.frame, job.options, [], {})[2]
    drawn = job.options.refine and (model is None or then is not None or model.refiner is not None)
    return job.options.samples if drawn else 0


def share(resolved: Resolved) -> int:
    """Fine pixels among which a coarse value is shared out."""
    return resolved.scale**2 if resolved.quantity == "sum" else 1


def planes_of(job: Job, block: Block, window: Frame, done: Restored) -> dict[str, Array]:
    """Image, error, support, gate and quality of a core; masked pixels as they came in, NaN where they were NaN."""
    s, inside, fine = job.resolved.scale, block.tile.inside(), block.tile.inside(job.resolved.scale)
    bad = finer(window.mask[0][inside], s)
    came = finer(window.pixels[0][inside] / np.float32(share(job.resolved)), s)
    return {
        IMAGE: np.where(bad, came, done.mean[fine]).astype(np.float32),
        "ERR": np.where(bad, np.nan, done.err[fine]).astype(np.float32),
        "SUPPORT": done.support[fine],
        "GATE": done.gate[fine],
        "DQ": quality(window, inside, s),
    }


def finer(plane: Array, scale: int) -> Array:
    """Every pixel repeated over its area on the fine grid."""
    return plane.repeat(scale, axis=-2).repeat(scale, axis=-1)


def quality(window: Frame, inside: tuple[slice, slice], scale: int) -> NDArray[np.int32]:
    """Data-quality bits on the fine grid: the file's own, else 1 for masked; 256 for saturated."""
    bits = (window.mask[0].astype(np.int32) if window.dq is None else window.dq[0])[inside]
    if window.saturated is not None:
        bits = np.where(window.saturated[0][inside], bits | 256, bits)
    return np.asarray(finer(bits, scale), dtype=np.int32)


def checked(job: Job, block: Block, window: Frame, variance: Array, done: Restored) -> dict[str, dict[str, float]]:
    """What the checks that need no truth and no search for sources add up over a core."""
    import torch

    from sciresdiff.checks.evidence import Evidence
    from sciresdiff.checks.quick import sums_of
    from sciresdiff.physics.operators import Operator

    told, low = job.resolved, window.pixels[0].astype(np.float64)
    outside = np.ones(low.shape, bool)
    outside[block.tile.inside()] = False
    evidence = Evidence(
        done.mean.astype(np.float64),
        told.scale,
        low=low,
        variance=variance.astype(np.float64),
        mask_high=None,
        mask_low=window.mask[0] | outside,
        operator=Operator(low.shape, told.scale, told.kernel, told.quantity, torch.float64),  # type: ignore[arg-type]
        kind=told.frame.kind,
        quantity=told.quantity,
    )
    return sums_of(evidence)
