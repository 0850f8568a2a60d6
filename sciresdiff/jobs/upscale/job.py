"""Restoring files: resolve what is needed, restore block by block, write the image and its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from sciresdiff.files import remove
from sciresdiff.io import open_files
from sciresdiff.io.jsonable import write_json
from sciresdiff.io.sink import Plane, Sink
from sciresdiff.io.source import placeholder
from sciresdiff.jobs import blocks as plans
from sciresdiff.jobs.blocks import Block
from sciresdiff.jobs.identity import describe_machine, identify_with_models
from sciresdiff.jobs.upscale import guard, trust
from sciresdiff.jobs.upscale.block import Done, Job, count_draws
from sciresdiff.jobs.upscale.header import figures, history, pool_figures, provenance
from sciresdiff.jobs.upscale.inputs import Inputs, resolve_inputs, resolve_source
from sciresdiff.jobs.upscale.integers import describe_integers
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.jobs.upscale.piece import count_masked, digest_piece, read_piece, restore_piece, sums_of_plane
from sciresdiff.jobs.upscale.stack import digest_depth, plan_stacks, with_stack_statistics
from sciresdiff.notes import Notes
from sciresdiff.observation.sample import Samples, samples_of_source
from sciresdiff.observation.screening import reading_options
from sciresdiff.observation.statistics import measure_statistics
from sciresdiff.physics.psf.field import PSF
from sciresdiff.report.record import as_data
from sciresdiff.run import executor
from sciresdiff.run.checksums import checksums
from sciresdiff.run.executor import Sums
from sciresdiff.run.journal import Journal
from sciresdiff.run.locks import find_journals
from sciresdiff.run.progress import Progress, no_progress
from sciresdiff.run.shards import Shard
from sciresdiff.run.sink import Arrays

__all__ = ["UpscaleOptions", "plan", "resolve_inputs", "run"]

ROOM = "-" * 130
"""Stands in a header for a text that is known only at the end."""


@dataclass(frozen=True)
class Task:
    """A file that is being restored."""

    target: Path
    inputs: Inputs
    job: Job
    blocks: list[Block]
    identity: Mapping[str, str]
    """Everything that the output depends on, before anything was read."""

    def by_plane(self, sums: Sequence[Sums]) -> list[list[Sums]]:
        """The sums of the blocks of every plane."""
        planes = range(self.inputs.frame.planes)
        return [
            [sums_of_plane(sums[b.number], b, plane) for b in plans.of_plane(self.blocks, plane)] for plane in planes
        ]

    def planes(self, sums: Sequence[Sums]) -> list[dict[str, Any]]:
        """chi2, flux ratio and gated share of every plane."""
        return [pool_figures(parts) for parts in self.by_plane(sums)]

    def verdict(self, sums: Sequence[Sums], written: bool) -> trust.Verdict:
        """What TRUST promises of every plane.

        Parameters
        ----------
        sums : of all blocks.
        written : whether the planes are in a file already, see `trust.verdict`.
        """
        counted = [trust.add_sums([s["trust"] for s in parts if "trust" in s]) for parts in self.by_plane(sums)]
        return trust.verdict(self.job.marker, counted, [plane["chi2"] for plane in self.planes(sums)], written)

    def guard(self, sums: Sequence[Sums]) -> guard.Guard:
        """What the last look at the output says of every plane."""
        measured = [[s["guard"] for s in parts if "guard" in s] for parts in self.by_plane(sums)]
        return guard.judge(measured, self.inputs.observation.exposure.noise.correlation)

    def outcome(self, sums: Sequence[Sums], verdict: trust.Verdict) -> dict[str, Any]:
        """The header cards that are known only at the end."""
        return {**figures(self.planes(sums)), "SRDGUARD": self.guard(sums).card, "SRDTRUST": verdict.card}


def plan(path: str | Path, options: UpscaleOptions) -> dict[str, Any]:
    """What ``upscale`` would do with a file, as data; nothing is written."""
    with open_files.use(path, **reading_options(options)) as held:
        inputs = resolve_source(path, held.source, options)
        job = Job(str(path), options, inputs.without_arrays(), trust.Marker(None))
        blocks = blocks_of(inputs)
        masked = sum(count_masked(job, block) for block in blocks)
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
        "kernel_px": kernel_sides(inputs.observation.exposure.distinct_psfs),
        "target_fwhm_px": inputs.observation.target_fwhm,
        "masked": masked,
        "sources": dict(inputs.notes.origins),
        "said": list(inputs.notes),
        "options": {f.name: getattr(options, f.name) for f in fields(options)},
    }


def kernel_sides(psfs: Sequence[PSF | None]) -> list[int] | None:
    """Sides of the largest kernel, output px; None where no plane has one."""
    shapes = [psf.mean.shape for psf in psfs if psf is not None]
    return [max(sides) for sides in zip(*shapes, strict=True)] or None


def run(
    path: str | Path,
    output: str | Path,
    options: UpscaleOptions,
    progress: Progress = no_progress,
    shard: Shard | None = None,
    scheduler: str | None = None,
) -> dict[str, Any]:
    """Restore one file and write it, its planes and its sidecar.

    A plane of more than 1.5 times 2048 fine px a side is restored in blocks, each read, restored and written by itself
    (`sciresdiff.jobs.blocks`); an interrupted run is resumed with those that remain.

    Parameters
    ----------
    path : str or Path
        The coarse image, ``FILE`` or ``FILE[EXT]``.
    output : str or Path
        The file to write.
    options : UpscaleOptions
        How it is restored.
    progress : Progress
        Told how far the work is.
    shard : Shard, optional
        The share of the blocks that this run does.
    scheduler : str, optional
        What computes the blocks if not this process: a name that `sciresdiff.run.engines.get_engine` takes.

    Returns
    -------
    dict
        The record that stands in ``{output}.json``, with ``said`` for the user. A shard that leaves the file to others
        returns one with ``status`` ``waiting``, which is not written.

    Raises
    ------
    UsageError, InputError
        As `resolve_inputs`; an output that exists, or was begun by another job.
    """
    import torch

    target = Path(output)
    if target.exists() and not options.overwrite and not find_journals(target):
        raise UsageError(f"--output: {output} exists; give --overwrite or another name")
    io.check_output(output, options.dtype, options.pyramid)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        with open_files.use(path, **reading_options(options)):
            return run_blocks(task_of(path, target, options), progress, shard, scheduler)
    finally:
        open_files.close()


def task_of(path: str | Path, target: Path, options: UpscaleOptions) -> Task:
    """What has to be done for a file; everything that is measured on the whole of it is measured here."""
    identity = identify_with_models(path, options)
    with open_files.use(path, **reading_options(options)) as held:
        inputs = resolve_source(path, held.source, options)
        inputs, blocks, marker = prepare(inputs, samples_of_source(inputs.observation.exposure.image), options)
        job = Job(str(path), options, inputs.without_arrays(), marker)
    return Task(target, inputs, job, blocks, identity)


def prepare(inputs: Inputs, samples: Samples, options: UpscaleOptions) -> tuple[Inputs, list[Block], trust.Marker]:
    """Blocks and TRUST marker of an image, and its inputs with what the blocks need of the whole.

    Parameters
    ----------
    inputs : of the image.
    samples : of its planes.
    options : of the restoration.
    """
    blocks = blocks_of(inputs)
    marker = trust.find_marker(options, inputs, samples)
    if inputs.observation.depth is not None:
        inputs = with_stack_statistics(inputs, samples, blocks)
    elif not blocks[0].whole:
        inputs = with_statistics(inputs, samples, len(blocks))
    return inputs, blocks, marker


def with_statistics(inputs: Inputs, samples: Samples, count: int) -> Inputs:
    """The inputs with the statistics of every plane as a whole, which each of its ``count`` blocks in all needs."""
    observation = inputs.observation
    statistics = measure_statistics(observation.exposure, observation.scale, samples, plans.CORE)
    exposure = replace(observation.exposure, statistics=statistics)
    each = count // inputs.frame.planes
    line = f"blocks: every plane is restored in {each} parts, each read with {plans.HALO} px around it"
    return replace(inputs, observation=replace(observation, exposures=[exposure]), notes=inputs.notes + Notes(line))


def blocks_of(inputs: Inputs) -> list[Block]:
    """The blocks of a file; whole planes for a model that looks at all of a plane."""
    shape = inputs.frame.pixels.shape
    if inputs.observation.depth is not None:
        return plan_stacks(inputs)
    return plans.plan(shape, inputs.scale, needs_full_plane(inputs))  # type: ignore[arg-type]


def needs_full_plane(inputs: Inputs) -> bool:
    """Whether a model's draws depend on all of a plane: by a vector that describes it, or its Fourier transform."""
    methods = [m.method for m in (inputs.model, inputs.then) if m and m.method]
    return any(method.space == "vector" or "guide-frequency" in method.hooks for method in methods)


def run_blocks(task: Task, progress: Progress, shard: Shard | None, scheduler: str | None = None) -> dict[str, Any]:
    """Restore and write every block, and the record.

    Parameters
    ----------
    task : Task
        The file.
    progress : Progress
        Told the steps inside a block in this process, blocks on a scheduler.
    shard, scheduler
        As of `run`.
    """
    job, options = task.job, task.job.options
    return executor.execute(
        executor.Job(
            source=job.path,
            target=task.target,
            pieces=task.blocks,
            read=partial(read_piece, job),
            do=partial(restore_piece, job),
            output=partial(RestoredFile, task),
            needs_first=len(task.blocks) == 1,  # whether TRUST promises anything depends on the whole plane
            identity=task.identity,
            identify=partial(identify_with_models, job.path, options),
            plan={"measured": digest_measured(task)},
            machine=describe_machine(options.device),
            digest=lambda number: digest_piece(read_piece(job, task.blocks[number])),
            overwrite=options.overwrite,
            threads=options.threads,
            steps=1 + options.samples,
        ),
        progress,
        shard,
        scheduler,
    )


def digest_measured(task: Task) -> str:
    """Digest of what was measured on the whole file, on which every block depends."""
    job, found = task.job, blake2b(digest_size=16)
    exposure = job.inputs.observation.exposure
    for psf in exposure.psfs or (exposure.psf,):
        found.update(psf.digest.encode() if psf else b"none")
    maps = [np.asarray(x) for one in exposure.noise.detectors for x in (one.gain, one.read_noise, one.offset)]
    for array in (*(a for one in exposure.statistics for a in (one.y, one.noise)), *maps):
        found.update(np.ascontiguousarray(array).data)
    known, noise = [(one.sky, one.sigma, one.iterations) for one in exposure.statistics], exposure.noise
    numbers = known, noise.correlation, noise.width_errors, len(task.blocks)
    words = [repr(one) for one in numbers]
    found.update("|".join(words).encode())
    found.update(digest_depth(job.inputs.observation.depth))
    return found.hexdigest()


@dataclass(frozen=True)
class RestoredFile:
    """The restored image as it is written; an `executor.Output`."""

    task: Task
    only: Done | None
    """The result of the only block; None where there are several."""

    @property
    def has_trust(self) -> bool:
        """Whether there is a TRUST plane; a plane that promises nothing is left out where that is known before."""
        silent = self.only is not None and self.task.verdict([self.only.sums], written=False).silent
        return self.task.job.marker.calibration is not None and not silent

    @property
    def cards(self) -> dict[str, Any]:
        """The header cards; where there are several blocks, some hold the place of a value that follows."""
        task = self.task
        cards = provenance(task.job.options, task.inputs, count_draws(task.job))
        if self.only is not None:
            return {**cards, **task.outcome([self.only.sums], task.verdict([self.only.sums], written=False))}
        return {**cards, "SRDCHI2": 0.0, "SRDFLUX": 0.0, "SRDGUARD": ROOM[:40], "SRDTRUST": ROOM}

    def open(self, part: Path | None) -> AbstractContextManager[Sink]:
        """Open the output with its planes."""
        inputs, job = self.task.inputs, self.task.job
        frame, s, options = inputs.frame, inputs.scale, job.options
        planes = {"ERR": Plane(), "SUPPORT": Plane(), "GATE": Plane(), "DQ": Plane(np.int32)}
        if self.has_trust:
            planes["TRUST"] = Plane(np.uint8)
        if options.save_samples and (draws := count_draws(job)):
            planes["DRAWS"] = Plane(np.float32, draws)
        n, h, w = frame.pixels.shape
        high = frame.with_(
            pixels=placeholder((n, s * h, s * w), np.float32),
            mask=placeholder((n, s * h, s * w), bool),
            variance=None,
            dq=None,
            saturated=None,
            quantity=inputs.quantity,
            kernel=None,
            kernel_scale=None,
        )
        return io.open_sink(
            self.task.target,
            high,
            planes=planes,
            provenance=self.cards,
            history=history(options, inputs),
            scale=s,
            overwrite=options.overwrite,
            dtype=options.dtype,
            pyramid=options.pyramid,
            part=part,
        )

    def split(self, done: Done) -> tuple[Arrays, Sums]:
        """The planes of a block, and what it adds to the record."""
        if not self.has_trust:
            done = replace(done, arrays={name: a for name, a in done.arrays.items() if name != "TRUST"})
        return done.parts(self.task.inputs.scale)

    def finish(self, journal: Journal, sums: Sequence[Sums]) -> dict[str, Any]:
        """Give the output its name, and write its record beside it."""
        task, verdict = self.task, self.task.verdict(sums, written=len(self.task.blocks) > 1)
        assert journal.sink is not None
        if self.has_trust:
            clear_trust(task, journal, verdict.empty)
        known = {**self.cards, **task.outcome(sums, verdict)}
        wrote = journal.sink.finish(known)
        try:
            clipped = max(wrote["clipped"], sum(one["clipped"] for one in sums))
            notes = dict.fromkeys(line for one in sums for line in one["said"])
            last = task.guard(sums)
            lines = [*task.inputs.notes, *journal.notes, *notes, *verdict.notes, *last.notes]
            lines += describe_integers(journal.sink.dtype, clipped, sums)
            record = {
                **make_record(task, known, sums),
                **wrote,
                "clipped": clipped,
                "doubts": last.names,
                "said": lines,
            }
            record["checksums"] = checksums(wrote["files"])
            write_json(task.target.with_name(task.target.name + ".json"), record)
        except BaseException:  # an image without its sidecar is half an output
            if len(task.blocks) == 1:  # those of several blocks are kept by the journal
                for file in wrote["files"]:
                    remove(Path(file))
            raise
        return record


def clear_trust(task: Task, journal: Journal, planes: Sequence[int]) -> None:
    """Set TRUST to 0 in the planes of which nothing is promised.

    Parameters
    ----------
    task : Task
        The file.
    journal : Journal
        With the open output; it notes the new checksums, so that an interruption from here on is resumed.
    planes : sequence of int
        Numbers of the planes.
    """
    assert journal.sink is not None
    s, blocks = task.inputs.scale, [block for block in task.blocks if block.plane in planes]
    for fine, plane in ((block.tile.core.scaled(s), block.plane) for block in blocks):
        journal.sink.put("TRUST", plane, fine.y0, fine.x0, np.zeros(fine.shape, np.uint8))
    journal.update_checksums(block.number for block in blocks)


def make_record(task: Task, cards: Mapping[str, Any], sums: Sequence[Sums]) -> dict[str, Any]:
    """What the sidecar says of the image.

    Parameters
    ----------
    task : Task
        The file.
    cards : mapping
        Its header cards.
    sums : sequence of mapping
        What its blocks add, in their order.
    """
    inputs, job = task.inputs, task.job
    planes = task.planes(sums)
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
        "identity": dict(task.identity),
    }
