"""Restoring several exposures of one field as one image: resolve all, restore the output block by block, write it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, fields, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff import __version__, io
from sciresdiff.errors import UsageError
from sciresdiff.files import remove
from sciresdiff.frame import PLANES, Frame
from sciresdiff.io import open_files
from sciresdiff.io.jsonable import write_json
from sciresdiff.io.sink import IMAGE, Plane, Sink
from sciresdiff.io.source import placeholder
from sciresdiff.jobs.blocks import Block
from sciresdiff.jobs.identity import describe_machine, identify
from sciresdiff.jobs.upscale.block import quality, settings_of
from sciresdiff.jobs.upscale.guard import CHANCE, HIGHEST_CHI2
from sciresdiff.jobs.upscale.header import PATHS, mean
from sciresdiff.jobs.upscale.joint_output import on_grid, output_frame
from sciresdiff.jobs.upscale.options import UpscaleOptions, of_exposures
from sciresdiff.notes import Notes
from sciresdiff.observation.joint import Joint, JointWindow
from sciresdiff.observation.resolve_joint import Given, resolve_joint, without_outliers
from sciresdiff.observation.screening import reading_options
from sciresdiff.region import Region
from sciresdiff.restoration.cosmic_rays import without_cosmic_rays
from sciresdiff.restoration.joint import measure_joint, residual_of, restore_joint
from sciresdiff.restoration.model import device_of
from sciresdiff.run import executor
from sciresdiff.run.checksums import checksums
from sciresdiff.run.executor import Sums
from sciresdiff.run.journal import Journal
from sciresdiff.run.locks import find_journals
from sciresdiff.run.progress import Progress, no_progress
from sciresdiff.run.shards import Shard
from sciresdiff.run.sink import Arrays
from sciresdiff.tiling import Tile

CORE = 512
"""Side of a block, output px: the matrices of six exposures take 0.6 GB then."""
HALO = 64
"""What is restored around a block, output px."""
NOTHING = 1
"""Bit of DQ where no exposure has a pixel."""
SEEN = 0.5
"""Share of a pixel of the output that valid pixels of one exposure have to cover."""


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


@dataclass(frozen=True)
class JointTask:
    """Exposures that are being restored."""

    target: Path
    job: JointJob
    blocks: list[Block]
    identity: Mapping[str, str]
    frame: Frame
    """Of the output, without values."""
    notes: Notes
    exposure: float | None
    """Total exposure time, s."""


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
        task = task_of([str(path) for path in paths], target, options)
        return executor.execute(job_of(task), progress, shard, scheduler)
    finally:
        open_files.close()


def plan_joint(paths: Sequence[str | Path], options: UpscaleOptions) -> dict[str, Any]:
    """What would be done with exposures, as data; nothing is written."""
    try:
        joint, _ = resolve_files([str(path) for path in paths], options)
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
    each = of_exposures(options, len(paths))
    if options.leave_out is not None and not (0 <= options.leave_out < len(paths) and len(paths) > 1):
        raise UsageError(f"--leave-out {options.leave_out}: {len(paths)} exposures are given, counted from 0")
    with ExitStack() as stack:
        given = [
            Given(path, stack.enter_context(open_files.use(path, **reading_options(stated))).source, stated,
                  Path(path).name)
            for path, stated in zip(paths, each, strict=True)
        ]  # fmt: skip
        grid = None if options.grid is None else on_grid(options.grid)
        joint = resolve_joint(given, float(options.scale or 2), grid, options.align)
        if options.cosmic:
            joint = without_outliers(joint)
        frame = given[0].source.frame
    return replace(joint, notes=notes + joint.notes), frame


def task_of(paths: list[str], target: Path, options: UpscaleOptions) -> JointTask:
    """What has to be done; everything that is measured on the whole of it is measured here."""
    identity = identify_joint(paths, options)
    joint, frame = resolve_files(paths, options)
    if options.cosmic:
        joint = without_cosmic_rays(joint)
    left_out = None
    used = joint
    if options.leave_out is not None:
        used, left_out = joint.without(options.leave_out), joint.only(options.leave_out)
    used = measure_joint(used)
    if left_out is not None:
        left_out = replace(left_out, known=used.known)
    times = [f for part in used.parts if (f := part.exposure.image.frame.facts.get("exposure")) is not None]
    total = float(sum(times)) if len(times) == len(used.parts) else None
    blocks = blocks_of(joint)
    notes = joint.notes
    if len(blocks) > 1:
        notes += Notes(f"blocks: the image is restored in {len(blocks)} parts, each with {HALO} px around it")
    grid = None if options.grid is None else on_grid(options.grid)
    high = output_frame(frame, joint, grid)
    job = JointJob(tuple(paths), options, light(used), None if left_out is None else light(left_out))
    return JointTask(target, job, blocks, identity, high, notes.unique(), total)


def light(joint: Joint) -> Joint:
    """The same without headers, which no block needs."""
    parts = []
    for part in joint.parts:
        frame = part.exposure.image.frame.with_(header=None)
        parts.append(replace(part, exposure=replace(part.exposure, image=replace(part.exposure.image, frame=frame))))
    lead = next((one for one in parts if one.number == joint.first.number), joint.first)
    return replace(joint, parts=parts, first=lead, notes=Notes())


def identify_joint(paths: Sequence[str], options: UpscaleOptions) -> dict[str, str]:
    """Everything that the output depends on, by name."""
    found: dict[str, str] = {}
    for number, path in enumerate(paths):
        one = identify(path, options)
        found |= {f"{name} {number}" if name.startswith(("input", "beside")) else name: v for name, v in one.items()}
    return found


def blocks_of(joint: Joint) -> list[Block]:
    """The blocks of the output: all of it up to 1.5 `CORE` px a side, else nearly equal parts."""
    (h, w), canvas = joint.grid.shape, joint.canvas
    found: list[Block] = []
    edges = [lines(n) for n in (h, w)]
    whole = len(edges[0]) == len(edges[1]) == 2
    for y0, y1 in zip(edges[0], edges[0][1:], strict=False):
        for x0, x1 in zip(edges[1], edges[1][1:], strict=False):
            window = Region(
                max(y0 - HALO, canvas.y0), min(y1 + HALO, canvas.y1),
                max(x0 - HALO, canvas.x0), min(x1 + HALO, canvas.x1),
            )  # fmt: skip
            found.append(Block(len(found), 0, Tile(Region(y0, y1, x0, x1), window), whole))
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
        sums["left_out"] = [[total, n] for _, total, n in residual_of(left_out, plane.mean)]
    return Done(block, arrays, sums)


NOTHING_SEEN = 1 << 30
"""Mark, taken off again, of pixels of the output that no exposure covers."""


def quality_of(window: JointWindow, core: Region) -> NDArray[np.int32]:
    """DQ of the output, (Y, X) of a core: 0 where one exposure has valid pixels, else the bits of all."""
    good, covered = np.zeros(window.shape, bool), np.zeros(window.shape, bool)
    bits = np.zeros(window.shape, np.int32)
    h, w = window.shape
    first = window.tile.window
    y, x = np.mgrid[first.y0 : first.y0 + h, first.x0 : first.x0 + w]
    for (_, part), valid in zip(window.members, window.valid, strict=True):
        affine, region = part.place.affine, part.exposure.region
        assert region is not None
        back = np.linalg.inv(affine.matrix)
        here = (np.stack([y, x], -1) - affine.middle - affine.shift) @ back.T + affine.middle
        if part.place.knots is not None:  # one step of Newton's method: distortions change slowly
            here = here - (part.place(here) - np.stack([y, x], -1)) @ back.T
        at = np.rint(here).astype(int) - [region.y0, region.x0]
        inside = ((at >= 0) & (at < np.array(valid.shape))).all(-1)
        j, i = (np.clip(at[..., a], 0, valid.shape[a] - 1) for a in (0, 1))
        good |= inside & valid[j, i]
        covered |= inside
        everything = (slice(0, valid.shape[0]), slice(0, valid.shape[1]))
        flags = quality(part.exposure.plane, everything, 1)
        bits |= np.where(inside, flags[j, i], 0).astype(np.int32)
    bad = np.where(bits == 0, NOTHING, bits) | np.where(covered, 0, NOTHING_SEEN)
    return np.where(good, 0, bad)[core.slices].astype(np.int32)


@dataclass(frozen=True)
class JointFile:
    """The restored image as it is written; an `executor.Output`."""

    task: JointTask
    only: Done | None

    @property
    def cards(self) -> dict[str, Any]:
        """The header cards; those of figures hold their places."""
        job, joint = self.task.job, self.task.job.joint
        names = {f"SRDEXP{part.number:d}": Path(part.name).name[:60] for part in joint.parts[:99]}
        left = {} if job.left_out is None else {"SRDLEFT": job.left_out.parts[0].name[:60], "SRDLCHI2": 0.0}
        options = job.options
        return {
            "SRDSCALE": round(joint.scale, 6),
            "SRDMODEL": "physics",
            "SRDSEED": options.seed,
            "SRDDRAWS": options.samples if options.refine else 0,
            "SRDCONS": options.consistency,
            "SRDTFWHM": joint.target_fwhm if joint.target_fwhm is not None else "UNKNOWN",
            "SRDNEXP": len(joint.parts),
            **names,
            "SRDTEXP": self.task.exposure,
            **left,
            "SRDCHI2": 0.0,
            "SRDFLUX": 0.0,
        }

    def open(self, part: Path | None) -> AbstractContextManager[Sink]:
        """Open the output with its planes."""
        options, joint = self.task.job.options, self.task.job.joint
        planes = {"ERR": Plane(), "SUPPORT": Plane(), "GATE": Plane(), "DQ": Plane(np.int32)}
        if options.save_samples and options.refine:
            planes["DRAWS"] = Plane(np.float32, options.samples)
        h, w = joint.grid.shape
        high = self.task.frame.with_(
            pixels=placeholder((1, h, w), np.float32),
            mask=placeholder((1, h, w), bool),
            variance=None, dq=None, saturated=None, flags=None,
            quantity=joint.quantity, kernel=None, kernel_scale=None,
        )  # fmt: skip
        return io.open_sink(
            self.task.target,
            high,
            planes=planes,
            provenance=self.cards,
            history=history(options, self.task),
            scale=1.0 if options.grid else joint.scale,
            overwrite=options.overwrite,
            dtype=options.dtype,
            pyramid=options.pyramid,
            part=part,
        )

    def split(self, done: Done) -> tuple[Arrays, Sums]:
        """The planes of a block, and what it adds to the record."""
        core = done.block.tile.core
        return [(name, 0, core.y0, core.x0, values) for name, values in done.arrays.items()], done.sums

    def finish(self, journal: Journal, sums: Sequence[Sums]) -> dict[str, Any]:
        """Give the output its name, and write its record beside it."""
        task = self.task
        assert journal.sink is not None
        figures = pool(task, sums)
        cards = {**self.cards, "SRDCHI2": round(figures["chi2"], 6), "SRDFLUX": round(figures["flux_ratio"], 9)}
        if figures["left_out"] is not None:
            cards["SRDLCHI2"] = round(figures["left_out"]["chi2"], 6)
        wrote = journal.sink.finish(cards)
        try:
            doubts, lines = judge(figures)
            record = {
                **make_record(task, cards, figures),
                **wrote,
                "doubts": doubts,
                "said": [*task.notes, *journal.notes, *lines],
            }
            record["checksums"] = checksums(wrote["files"])
            write_json(task.target.with_name(task.target.name + ".json"), record)
        except BaseException:  # an image without its sidecar is half an output
            if len(task.blocks) == 1:
                for file in wrote["files"]:
                    remove(Path(file))
            raise
        return record


def history(options: UpscaleOptions, task: JointTask) -> list[str]:
    """HISTORY cards: version, options, exposures, what was assumed; no clock, host or path."""
    given = replace(options, device="auto", threads=None)
    words = {f.name: getattr(given, f.name) for f in fields(given) if getattr(given, f.name) != f.default}
    words.pop("overwrite", None)
    for name in (*PATHS, "grid"):
        if isinstance(words.get(name), str):
            words[name] = " | ".join(os.path.basename(one.strip()) for one in words[name].split("|"))
    text = " ".join(f"{k}={v}" for k, v in sorted(words.items()))
    names = " ".join(Path(path).name for path in task.job.paths)
    notes = [line for line in task.notes if os.sep not in line]
    return [f"sciresdiff {__version__} upscale {names} {text}".rstrip(), *notes]


def pool(task: JointTask, sums: Sequence[Sums]) -> dict[str, Any]:
    """chi2 of every exposure and of all, flux, and the prediction of the one that was left out."""
    each = []
    for part in task.job.joint.parts:
        found = [one["chi2"][str(part.number)] for one in sums if str(part.number) in one["chi2"]]
        n = sum(pixels for _, pixels in found)
        chi2 = sum(value * pixels for value, pixels in found) / n if n else float("nan")
        each.append({"input": part.name, "chi2": chi2, "pixels": n, "flux": part.factor, "sky": part.sky})
    known = [one for one in each if one["pixels"]]
    total = sum(one["pixels"] for one in known)
    left_out = None
    if task.job.left_out is not None:
        found = [pair for one in sums for pair in one.get("left_out", [])]
        pixels = sum(n for _, n in found)
        chi2 = sum(value for value, _ in found) / pixels if pixels else float("nan")
        left_out = {"input": task.job.left_out.parts[0].name, "chi2": chi2, "pixels": pixels}
    return {
        "exposures": each,
        "chi2": sum(one["chi2"] * one["pixels"] for one in known) / total if total else float("nan"),
        "flux_ratio": mean([one["flux_ratio"] for one in sums], [one["total"] for one in sums]),
        "left_out": left_out,
        "masked": sum(one["masked"] for one in sums),
        "empty": sum(one["bad"] for one in sums),
    }


def judge(figures: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What contradicts the data, by name and in words."""
    doubts, lines = [], []
    for one in figures["exposures"]:
        n = one["pixels"]
        if n and one["chi2"] > HIGHEST_CHI2 + CHANCE * (2 / n) ** 0.5:
            doubts.append("chi2")
            lines.append(
                f"WARNING chi2: {one['chi2']:.3g} of the image against {one['input']}, where 1 is right; look at its "
                "WCS (--align measure), noise and PSF"
            )
    if (left := figures["left_out"]) is not None:
        lines.append(f"left out: {left['input']}, predicted from the others with chi2 {left['chi2']:.3g}")
    return list(dict.fromkeys(doubts)), lines


def make_record(task: JointTask, cards: Mapping[str, Any], figures: Mapping[str, Any]) -> dict[str, Any]:
    """What the sidecar says of the image."""
    job = task.job
    return {
        "schema": 1,
        "input": job.paths[0],
        "inputs": list(job.paths),
        "output": str(task.target),
        "scale": job.joint.scale,
        "model": "physics",
        "quantity": job.joint.quantity,
        "target_fwhm_px": job.joint.target_fwhm,
        "sources": dict(task.notes.origins),
        "blocks": len(task.blocks),
        "chi2": [figures["chi2"]],
        "flux_ratio": [figures["flux_ratio"]],
        "exposures": figures["exposures"],
        "left_out": figures["left_out"],
        "exposure_time": task.exposure,
        "masked": figures["masked"],
        "empty": figures["empty"],
        "provenance": cards,
        "options": {f.name: getattr(job.options, f.name) for f in fields(job.options)},
        "version": __version__,
        "identity": dict(task.identity),
    }
