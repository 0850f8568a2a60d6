"""Restoring files: settle what is needed, restore block by block, write the image and its record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from sciresdiff import __version__, io
from sciresdiff.checks.self_check import self_check
from sciresdiff.errors import UsageError
from sciresdiff.io import open_files
from sciresdiff.io.files import remove
from sciresdiff.io.jsonable import write_json
from sciresdiff.io.sink import Plane, Sink
from sciresdiff.io.source import empty
from sciresdiff.jobs import blocks as plans
from sciresdiff.jobs.blocks import Block
from sciresdiff.jobs.upscale import trust
from sciresdiff.jobs.upscale.block import Done, Job, count_draws, digest, read_block, restore_block
from sciresdiff.jobs.upscale.header import figures, history, pooled, provenance
from sciresdiff.jobs.upscale.inputs import Inputs, resolve_inputs, resolve_source
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.notes import Notes
from sciresdiff.observation.resolve import reading_options
from sciresdiff.observation.sample import Samples, samples_of_source
from sciresdiff.observation.statistics import measure_statistics
from sciresdiff.report.record import as_data
from sciresdiff.run import journal
from sciresdiff.run.batch import Progress, no_progress
from sciresdiff.run.engines import engine
from sciresdiff.run.identity import checksums, known_by, machine, unchanged
from sciresdiff.run.journal import Journal
from sciresdiff.run.locks import beside
from sciresdiff.run.shards import Shard

__all__ = ["UpscaleOptions", "plan", "resolve_inputs", "run"]

Sums = Sequence[Mapping[str, Any]]
"""What the blocks add to the record, in their order."""
ROOM = "-" * 130
"""Stands in a header for a text that is known at the end."""


@dataclass(frozen=True)
class Task:
    """A file that is being restored."""

    target: Path
    inputs: Inputs
    job: Job
    blocks: list[Block]
    known: Mapping[str, str]
    """`known_by` before anything was read."""

    def by_plane(self, sums: Sums) -> list[Sums]:
        """The sums of every plane's blocks."""
        planes = range(self.inputs.frame.planes)
        return [[sums[b.number] for b in plans.of_plane(self.blocks, plane)] for plane in planes]


def plan(path: str | Path, options: UpscaleOptions) -> dict[str, Any]:
    """What ``upscale`` would do with a file, as data."""
    with open_files.held(path, **reading_options(options)) as held:
        inputs = resolve_source(path, held.source, options)
        job = Job(str(path), options, inputs.without_arrays(), trust.Marker(None))
        blocks = blocks_of(inputs)
        masked = sum(int(read_block(job, b).exposure.mask[b.tile.inside()].sum()) for b in blocks)
    open_files.close()
    frame = inputs.frame
    return {
        "input": str(path),
        "kind": frame.kind,
        "planes": frame.planes,
        "shape": list(frame.pixels.shape[1:]),
        "blocks": len(blocks),
        "scale": inputs.scale,
        "model": inputs.name,
        "quantity": inputs.quantity,
        "kernel_px": list(psf.mean.shape) if (psf := inputs.observation.exposure.psf) else None,
        "target_fwhm_px": inputs.observation.target_fwhm,
        "masked": masked,
        "sources": dict(inputs.notes.origins),
        "said": list(inputs.notes),
        "options": {f.name: getattr(options, f.name) for f in fields(options)},
    }


def run(
    path: str | Path,
    output: str | Path,
    options: UpscaleOptions,
    progress: Progress = no_progress,
    shard: Shard | None = None,
    scheduler: str | None = None,
) -> dict[str, Any]:
    """Restore one file and write it, its planes and its sidecar.

    A plane of more than 1.5 times 2048 fine pixels a side is restored in blocks, each read, restored and written by
    itself (`sciresdiff.jobs.blocks`); a run that was stopped goes on with those that are left.

    Parameters
    ----------
    shard : the part of the blocks that this run does.
    scheduler : what works on the blocks, if not this process: a name that `sciresdiff.run.engines.engine` takes.

    Returns
    -------
    The record that stands in ``{output}.json``, with ``said`` for the user. A shard that leaves the file to others
    returns one with ``status`` ``waiting``, which is not written.

    Raises
    ------
    UsageError, InputError : as in `resolve`; an output that exists, or was begun by another job.
    """
    import torch

    target = Path(output)
    if target.exists() and not options.overwrite and not beside(target):
        raise UsageError(f"--output: {output} exists; give --overwrite or another name")
    io.checked_output(output, options.dtype, options.pyramid)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        with open_files.held(path, **reading_options(options)):
            return filled(task_of(path, target, options), progress, shard, scheduler)
    finally:
        open_files.close()


def task_of(path: str | Path, target: Path, options: UpscaleOptions) -> Task:
    """What has to be done for a file: all that is measured on it is measured here."""
    known = known_by(path, options)
    with open_files.held(path, **reading_options(options)) as held:
        inputs = resolve_source(path, held.source, options)
        blocks, samples = blocks_of(inputs), samples_of_source(held.source, options.saturation)
        marker = trust.find_marker(options, inputs, samples)
        if not blocks[0].whole:
            inputs = with_statistics(inputs, samples, len(blocks))
        job = Job(str(path), options, inputs.without_arrays(), marker)
    return Task(target, inputs, job, blocks, known)


def with_statistics(inputs: Inputs, samples: Samples, count: int) -> Inputs:
    """The inputs with what every plane is like as a whole, which its ``count`` blocks in all have to know."""
    observation = inputs.observation
    statistics = measure_statistics(observation.exposure, observation.scale, samples, plans.CORE)
    exposure = replace(observation.exposure, statistics=statistics)
    each = count // inputs.frame.planes
    line = f"blocks: every plane is restored in {each} parts, each read with {plans.HALO} px around it"
    return replace(inputs, observation=replace(observation, exposures=[exposure]), notes=inputs.notes + Notes(line))


def blocks_of(inputs: Inputs) -> list[Block]:
    """The blocks of a file; a model that looks at a whole plane at once is given whole planes."""
    shape = inputs.frame.pixels.shape
    return plans.plan(shape, inputs.scale, sees_all(inputs))  # type: ignore[arg-type]


def sees_all(inputs: Inputs) -> bool:
    """Whether a model's draws depend on the plane as a whole: by a vector that speaks of it, or its Fourier image."""
    methods = [m.method for m in (inputs.model, inputs.then) if m and m.method]
    return any(method.space == "vector" or "guide-frequency" in method.hooks for method in methods)


def filled(task: Task, progress: Progress, shard: Shard | None, scheduler: str | None = None) -> dict[str, Any]:
    """Every block restored and written, and the record."""
    job, inputs, blocks = task.job, task.inputs, task.blocks
    if shard and not shard.share(blocks):
        return waiting(task, [f"shard {shard}: no block is left for it (of {len(blocks)} in all)"])
    results = partial(restored, task, progress, scheduler if len(blocks) > 1 else None)
    alone = next(results([0]))[1] if len(blocks) == 1 else None  # what came of it says whether there is a TRUST plane
    marks = job.marker.calibration is not None and (alone is None or not _verdict(task, [alone.sums]).silent)
    cards = provenance(job.options, inputs, count_draws(job))
    cards |= {"SRDCHI2": 0.0, "SRDFLUX": 0.0, "SRDTRUST": ROOM} if alone is None else came_of(task, [alone.sums])
    key = {**task.known, "measured": measured(task)}
    with journal.opened(
        task.target,
        partial(sink, task, cards, marks),
        len(blocks),
        key,
        machine(job.options.device),
        overwrite=job.options.overwrite,
        shard=shard,
        seen=lambda number: digest(read_block(job, blocks[number])),
    ) as book:
        does = results if alone is None else lambda todo: iter([(0, without(alone, marks))])
        sums = journal.filled(book, does, lambda done: done.parts(inputs.scale))
        if sums is None:
            return waiting(task, book.said)
        return finished(task, book, cards, marks, sums)


def waiting(task: Task, said: Sequence[str]) -> dict[str, Any]:
    """What is told by a shard that leaves the file to others."""
    return {"input": task.job.path, "output": str(task.target), "status": "waiting", "said": list(said)}


def restored(
    task: Task, progress: Progress, scheduler: str | None, numbers: Sequence[int]
) -> Iterator[tuple[int, Done]]:
    """(number, result) of blocks; progress counts blocks and, in this process, the steps in each."""
    job, steps, before = task.job, 1 + task.job.options.samples, len(task.blocks) - len(numbers)

    def tell(done: int, total: int, label: str) -> None:
        progress(before * total + done, len(task.blocks) * total, label)

    blocks = [task.blocks[number] for number in numbers]
    does = partial(restore_block, job) if scheduler else partial(restore_block, job, progress=tell)
    found = engine(scheduler or "serial")(does, blocks, partial(read_block, job), threads=job.options.threads)
    for block, done in found:
        before += 1
        yield block.number, done
        progress(before * steps, len(task.blocks) * steps, "blocks")


def without(done: Done, marks: bool) -> Done:
    """A result whose TRUST is left out where nothing is promised of it."""
    return done if marks else replace(done, arrays={n: v for n, v in done.arrays.items() if n != "TRUST"})


def measured(task: Task) -> str:
    """Digest of what was measured on the file, on which every block depends."""
    job, found = task.job, blake2b(digest_size=16)
    exposure = job.inputs.observation.exposure
    found.update(exposure.psf.digest.encode() if exposure.psf else b"none")
    for array in (a for one in exposure.statistics for a in (one.y, one.noise)):
        found.update(np.ascontiguousarray(array).data)
    known, noise = [(one.sky, one.sigma, one.iterations) for one in exposure.statistics], exposure.noise
    numbers = known, noise.sky_variance, noise.correlation, noise.psf_error, noise.sky, len(task.blocks)
    words = [repr(one) for one in numbers]
    found.update("|".join(words).encode())
    return found.hexdigest()


def sink(task: Task, cards: Mapping[str, Any], marks: bool, part: Path | None) -> AbstractContextManager[Sink]:
    """The output, open."""
    inputs, job = task.inputs, task.job
    frame, s, options = inputs.frame, inputs.scale, job.options
    planes = {"ERR": Plane(), "SUPPORT": Plane(), "GATE": Plane(), "DQ": Plane(np.int32)}
    if marks:
        planes["TRUST"] = Plane(np.uint8)
    if options.save_samples and (draws := count_draws(job)):
        planes["DRAWS"] = Plane(np.float32, draws)
    n, h, w = frame.pixels.shape
    high = frame.with_(
        pixels=empty((n, s * h, s * w), np.float32),
        mask=empty((n, s * h, s * w), bool),
        variance=None,
        dq=None,
        saturated=None,
        quantity=inputs.quantity,
        kernel=None,
        kernel_scale=None,
    )
    return io.writing(
        task.target,
        high,
        planes=planes,
        provenance=cards,
        history=history(options, inputs),
        scale=s,
        overwrite=options.overwrite,
        dtype=options.dtype,
        pyramid=options.pyramid,
        part=part,
    )


def finished(task: Task, book: Journal, cards: Mapping[str, Any], marks: bool, sums: Sums) -> dict[str, Any]:
    """The output under its name, and its record beside it."""
    unchanged(task.job.path, task.job.options, task.known)
    verdict = _verdict(task, sums)
    if marks:
        unmark(task, book, verdict.empty)
    known = {**cards, **came_of(task, sums)}
    wrote = book.sink.finish(known)
    try:
        clipped = max(wrote["clipped"], sum(one["clipped"] for one in sums))
        notes = dict.fromkeys(line for one in sums for line in one["said"])
        lines = [*task.inputs.notes, *book.said, *notes, *verdict.notes, *clipping(clipped)]
        record = {**recorded(task, known, sums), **wrote, "clipped": clipped, "said": lines}
        record["checksums"] = checksums(wrote["files"])
        write_json(task.target.with_name(task.target.name + ".json"), record)
    except BaseException:  # an image without its sidecar is half an output
        if len(task.blocks) == 1:  # of more the journal keeps them
            for file in wrote["files"]:
                remove(Path(file))
        raise
    return record


def came_of(task: Task, sums: Sums) -> dict[str, Any]:
    """The cards that are known at the end."""
    planes = [pooled(parts) for parts in task.by_plane(sums)]
    return {**figures(planes), "SRDTRUST": _verdict(task, sums).card}


def recorded(task: Task, cards: Mapping[str, Any], sums: Sums) -> dict[str, Any]:
    """What the sidecar says of the image."""
    inputs, job = task.inputs, task.job
    planes = [pooled(parts) for parts in task.by_plane(sums)]
    kind = inputs.frame.kind
    checks = [self_check([s.get("checks", {}) for s in parts], kind) for parts in task.by_plane(sums)]
    return {
        "schema": 1,
        "input": job.path,
        "output": str(task.target),
        "scale": inputs.scale,
        "model": inputs.name,
        "quantity": inputs.quantity,
        "target_fwhm_px": inputs.observation.target_fwhm,
        "sources": dict(inputs.notes.origins),
        "blocks": len(task.blocks),
        "chi2": [p["chi2"] for p in planes],
        "flux_ratio": [p["flux_ratio"] for p in planes],
        "gated_share": [p["gated_share"] for p in planes],
        "masked": sum(p["masked"] for p in planes),
        "provenance": cards,
        "checks": [as_data(each) for each in checks] if job.options.checks else [],
        "options": {f.name: getattr(job.options, f.name) for f in fields(job.options)},
        "version": __version__,
        "identity": dict(task.known),
    }


def _verdict(task: Task, sums: Sums) -> trust.Verdict:
    by_plane = task.by_plane(sums)
    counted = [trust.add_sums([s["trust"] for s in parts if "trust" in s]) for parts in by_plane]
    return trust.verdict(task.job.marker, counted, [pooled(parts)["chi2"] for parts in by_plane], len(task.blocks) > 1)


def unmark(task: Task, book: Journal, planes: Sequence[int]) -> None:
    """TRUST 0 all over the planes of which nothing is promised."""
    s, blocks = task.inputs.scale, [block for block in task.blocks if block.plane in planes]
    for fine, plane in ((block.tile.core.scaled(s), block.plane) for block in blocks):
        book.sink.put("TRUST", plane, fine.y0, fine.x0, np.zeros(fine.shape, np.uint8))
    book.restate(block.number for block in blocks)


def clipping(pixels: int) -> list[str]:
    """What the user is told of pixels that an integer type could not hold."""
    return (
        [f"dtype: {pixels} pixels are beyond the integer type and clipped; --dtype float32 keeps them"]
        if pixels
        else []
    )
