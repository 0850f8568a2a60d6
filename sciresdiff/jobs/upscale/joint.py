"""Restoring several exposures of one field as one image: resolve all, restore the output block by block, write it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import fields, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from sciresdiff import io
from sciresdiff.errors import UsageError
from sciresdiff.frame import Frame
from sciresdiff.io import open_files
from sciresdiff.jobs.blocks import Block
from sciresdiff.jobs.identity import describe_machine, identify
from sciresdiff.jobs.upscale.joint_block import JointJob, digest, read_window, restore_window
from sciresdiff.jobs.upscale.joint_file import JointFile, JointTask
from sciresdiff.jobs.upscale.joint_output import grid_of, output_frame
from sciresdiff.jobs.upscale.options import UpscaleOptions, of_exposures
from sciresdiff.notes import Notes
from sciresdiff.observation.joint import Joint
from sciresdiff.observation.resolve_band import resolve_band
from sciresdiff.observation.resolve_joint import Given, without_outliers
from sciresdiff.observation.screening import reading_options
from sciresdiff.observation.sharper_target import resolve_sharper
from sciresdiff.region import Region
from sciresdiff.restoration.cosmic_rays import without_cosmic_rays
from sciresdiff.restoration.joint import measure_joint
from sciresdiff.run import executor
from sciresdiff.run.findings import Findings, keep_findings
from sciresdiff.run.journal import refuse_other_jobs
from sciresdiff.run.locks import find_journals
from sciresdiff.run.progress import Progress, no_progress
from sciresdiff.run.shards import Shard

CORE = 512
"""Side of a block, output px: the matrices of six exposures take 0.6 GB then."""
HALO = 64
"""What is restored around a block, output px."""
LARGEST_SCALE = 8
"""Output pixels along the side of an exposure's pixel."""


def run_joint(
    paths: Sequence[str | Path],
    output: str | Path,
    options: UpscaleOptions,
    progress: Progress = no_progress,
    shard: Shard | None = None,
    scheduler: str | None = None,
) -> dict[str, Any]:
    """Restore one image of several exposures and write it, its planes and its sidecar.

    Parameters
    ----------
    paths : of the exposures; the first one's unit and sky are the output's.
    output, options, progress, shard, scheduler : as of `sciresdiff.jobs.upscale.job.run`.

    Raises
    ------
    UsageError, InputError : as `resolve_joint`; an output that exists, or was begun by another job.
    """
    import torch

    target = Path(output)
    if target.exists() and not options.overwrite and not find_journals(target):
        raise UsageError(f"--output: {output} exists; give --overwrite or another name")
    io.check_output(output, options.dtype, options.pyramid)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        task = task_of([str(path) for path in paths], target, options, shard)
        return executor.execute(job_of(task), progress, shard, scheduler)
    finally:
        open_files.close()


def plan_joint(paths: Sequence[str | Path], options: UpscaleOptions) -> dict[str, Any]:
    """What would be done with exposures, as data; nothing is written."""
    try:
        joint, _ = resolve_files([str(path) for path in paths], options)
        if options.cosmic:
            joint = without_outliers(joint)
    finally:
        open_files.close()
    return {
        "input": [str(path) for path in paths],
        "shape": list(joint.grid.shape),
        "blocks": len(blocks_of(joint)),
        "scale": joint.scale,
        "model": "physics",
        "quantity": joint.quantity,
        "target_fwhm_px": joint.target_fwhm,
        "said": list(joint.notes),
        "options": {f.name: getattr(options, f.name) for f in fields(options)},
    }


def refuse_networks(options: UpscaleOptions) -> Notes:
    """Refuse what needs a network, which sees one exposure on a regular grid.

    Raises
    ------
    UsageError
    """
    for name in ("then", "method", "steps", "realism"):
        if getattr(options, name) is not None:
            raise UsageError(f"--{name}: belongs to networks, which see one exposure; leave it out")
    if options.model not in (None, "physics"):
        raise UsageError(f"--model {options.model}: networks see one exposure on its own grid; give --model physics")
    if options.consistency != "noise":
        raise UsageError(f"--consistency {options.consistency}: exposures are restored with noise; leave it out")
    if options.model is None:
        return Notes("model: physics; networks see one exposure, and several on one grid are restored without")
    return Notes()


def resolve_files(paths: Sequence[str], options: UpscaleOptions) -> tuple[Joint, Frame]:
    """The measurement that files are, and the frame of the first one."""
    notes = refuse_networks(options)
    if options.scale is not None and options.scale > LARGEST_SCALE:
        raise UsageError(
            f"--scale {options.scale:g}: at most {LARGEST_SCALE} output pixels along a pixel's side are made of "
            "exposures; their PSF and noise tell no more"
        )
    each = of_exposures(options, len(paths))
    if options.leave_out is not None and not (0 <= options.leave_out < len(paths) and len(paths) > 1):
        raise UsageError(f"--leave-out {options.leave_out}: {len(paths)} exposures are given, counted from 0")
    with ExitStack() as stack:
        given = [open_exposure(stack, path, stated) for path, stated in zip(paths, each, strict=True)]
        grid = grid_of(options)
        if options.match_psf:
            assert options.target_fwhm is not None
            joint = resolve_band(given[0], grid, options.target_fwhm)
        else:
            joint = resolve_sharper(given, float(options.scale or 2), grid, options.align)
        frame = given[0].source.frame
    return replace(joint, notes=notes + joint.notes), frame


def open_exposure(stack: ExitStack, path: str, stated: UpscaleOptions) -> Given:
    """An exposure, open until the stack is closed."""
    held = stack.enter_context(open_files.use(path, **reading_options(stated)))
    return Given(path, held.source, stated, Path(path).name)


def task_of(paths: list[str], target: Path, options: UpscaleOptions, shard: Shard | None = None) -> JointTask:
    """What has to be done; everything that is measured on the whole of it is measured here."""
    identity = identify_joint(paths, options)
    if not options.overwrite:
        refuse_other_jobs(target, identity)
    joint, frame = resolve_files(paths, options)
    blocks = blocks_of(joint)
    with keep_findings(target, identity, shard) if len(blocks) > 1 else nullcontext(Findings()) as findings:
        joint, used, left_out = look_at_all(joint, options, findings)
    times = [f for part in used.parts if (f := part.exposure.image.frame.facts.get("exposure")) is not None]
    total = float(sum(times)) if len(times) == len(used.parts) else None
    notes = joint.notes
    if len(blocks) > 1:
        notes += Notes(f"blocks: the image is restored in {len(blocks)} parts, each with {HALO} px around it")
    high = output_frame(frame, joint, grid_of(options))
    job = JointJob(tuple(paths), options, light(used), None if left_out is None else light(left_out))
    return JointTask(target, job, blocks, identity, high, notes.unique(), total)


def look_at_all(joint: Joint, options: UpscaleOptions, findings: Findings) -> tuple[Joint, Joint, Joint | None]:
    """What all of the exposures tell before an image is made of parts of them.

    Parameters
    ----------
    joint : of files.
    options : the job's.
    findings : keeps what is found.

    Returns
    -------
    The measurement by all, by those that are restored, and by the one that is predicted.
    """
    if options.cosmic:
        joint = without_cosmic_rays(without_outliers(joint, findings), findings)
    left_out = None if options.leave_out is None else joint.only(options.leave_out)
    used = measure_joint(joint if options.leave_out is None else joint.without(options.leave_out), findings)
    return joint, used, None if left_out is None else replace(left_out, known=used.known)


def light(joint: Joint) -> Joint:
    """The same without headers, which no block needs."""
    parts = []
    for part in joint.parts:
        frame = part.exposure.image.frame.with_(header=None)
        parts.append(replace(part, exposure=replace(part.exposure, image=replace(part.exposure.image, frame=frame))))
    return replace(joint, parts=parts, notes=Notes())


def identify_joint(paths: Sequence[str], options: UpscaleOptions) -> dict[str, str]:
    """Everything that the output depends on, by name."""
    found: dict[str, str] = {}
    for number, path in enumerate(paths):
        one = identify(path, options)
        found |= {f"{name} {number}" if name.startswith(("input", "beside")) else name: v for name, v in one.items()}
    return found


def blocks_of(joint: Joint) -> list[Block]:
    """The blocks of the output: all of it up to 1.5 `CORE` px a side, else nearly equal parts."""
    h, w = joint.grid.shape
    found: list[Block] = []
    edges = [lines(n) for n in (h, w)]
    whole = len(edges[0]) == len(edges[1]) == 2
    for y0, y1 in zip(edges[0], edges[0][1:], strict=False):
        for x0, x1 in zip(edges[1], edges[1][1:], strict=False):
            found.append(Block(len(found), 0, joint.tile(Region(y0, y1, x0, x1), HALO), whole))
    return found


def lines(length: int) -> list[int]:
    """Where blocks begin along a side, and its end."""
    if length <= 1.5 * CORE:
        return [0, length]
    size = -(-length // -(-length // CORE))
    return [*range(0, length, size), length]


def job_of(task: JointTask) -> executor.Job:
    """The task as the executor takes it."""
    job, options = task.job, task.job.options
    return executor.Job(
        source=job.paths[0],
        target=task.target,
        pieces=task.blocks,
        read=partial(read_window, job),
        do=partial(restore_window, job),
        output=partial(JointFile, task),
        identity=task.identity,
        identify=partial(identify_joint, job.paths, options),
        plan={"measured": digest_joint(job)},
        machine=describe_machine(options.device),
        digest=lambda number: digest(read_window(job, task.blocks[number])[0]),
        overwrite=options.overwrite,
        threads=options.threads,
        steps=1 + options.samples,
    )


def digest_joint(job: JointJob) -> str:
    """Digest of what was measured on the exposures as a whole."""
    found = blake2b(digest_size=16)
    for part in job.joint.parts:
        words = part.factor, part.sky, part.sigma, part.name, part.exposure.psf and part.exposure.psf.digest
        found.update(repr(words).encode())
        found.update(np.ascontiguousarray(part.place.rest).data)
        found.update(repr((part.place.affine.matrix.tolist(), part.place.affine.shift.tolist())).encode())
    found.update(repr((job.joint.known, job.joint.grid.shape, job.joint.scale, job.joint.margin)).encode())
    return found.hexdigest()
