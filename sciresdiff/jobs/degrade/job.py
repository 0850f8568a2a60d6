"""Degrading files: blur, bin and read out every plane, write the coarse image with its variance and kernel."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sciresdiff
from sciresdiff import io
from sciresdiff.degradation.chain import DegradedPlane
from sciresdiff.errors import UsageError
from sciresdiff.frame import Frame, Quantity
from sciresdiff.io import open_files
from sciresdiff.io.sink import Plane, Sink
from sciresdiff.io.source import Source, placeholder
from sciresdiff.jobs.blocks import Block
from sciresdiff.jobs.degrade import pairs
from sciresdiff.jobs.degrade.block import (
    Degraded,
    FramePlan,
    degrade_blocks,
    fits_one_block,
    measure_plane,
    plan_blocks,
    read_blocks,
    without_no_data,
)
from sciresdiff.jobs.degrade.options import DegradeOptions
from sciresdiff.jobs.degrade.steps import Plan, make_plan
from sciresdiff.jobs.identity import describe_machine, identify_with_models
from sciresdiff.notes import Notes
from sciresdiff.observation.defects import Defects, find_defects, masked_source
from sciresdiff.observation.options import Stated
from sciresdiff.observation.sample import samples_of_source
from sciresdiff.observation.screening import describe_defects
from sciresdiff.physics.detector import Detector
from sciresdiff.region import Region
from sciresdiff.run import executor
from sciresdiff.run.executor import Sums
from sciresdiff.run.journal import Journal
from sciresdiff.run.locks import find_journals
from sciresdiff.run.progress import Progress, no_progress
from sciresdiff.run.shards import Shard
from sciresdiff.run.sink import Arrays

__all__ = ["DegradeOptions", "plan", "run"]

STRIP = 2**22
"""Pixels that are read at a time for the seed."""
MARGIN = 1e-6
"""Smallest variance that is expected in a frame, in units of that of its first block."""

NOISY = ("detector", "gaussian", "poisson")
"""Steps that add noise of a known variance."""

NEEDS_GAIN = ("sky", "dark", "full_well")
"""Options in electrons, which mean nothing without a gain."""


@dataclass(frozen=True)
class Task:
    """A frame that is being degraded."""

    output: Path
    options: DegradeOptions
    source: Source
    plan: Plan
    blocks: Sequence[Block]
    work: FramePlan
    key: int
    """The number that follows from the frame's values, part of every seed."""
    notes: Notes

    @property
    def pieces(self) -> list[list[Block]]:
        """What is read, degraded and written at a time: a block, or all planes of a small frame."""
        if fits_one_block(self.source.frame, self.blocks):
            return [list(self.blocks)]
        return [[block] for block in self.blocks]


def run(
    path: str | Path,
    output: str | Path,
    options: DegradeOptions,
    progress: Progress = no_progress,
    shard: Shard | None = None,
    scheduler: str | None = None,
) -> dict[str, Any]:
    """Degrade one file, block by block where a plane is larger than 1.5 times 2048 fine px a side.

    Every random number follows from the seed, the frame's own values and the number of the plane and block, or of the
    patch. Besides the image there are VAR, the variance of the noise that was added (where none was, what the input's
    own noise becomes), KERNEL and DQ; where a recipe's noise or blur is not known any more (JPEG, resizing between
    grids) there is no VAR or KERNEL, and ``unknown`` in the record says why. The mean of the result is the blurred and
    binned input: sky, dark current and offset are subtracted after readout. Values are float32, so that nothing is
    rounded or clipped, **but by a recipe with JPEG**. An interrupted run of many blocks is resumed with those that
    remain.

    Parameters
    ----------
    path : str or Path
        The fine image, ``FILE`` or ``FILE[EXT]``.
    output : str or Path
        The file to write.
    options : DegradeOptions
        What is done to it.
    progress : Progress
        Told how far the work is.
    shard : Shard, optional
        The share of the blocks that this run does.
    scheduler : str, optional
        What computes the blocks if not this process: a name that `sciresdiff.run.engines.get_engine` takes.

    Returns
    -------
    dict
        The record of what was done, with ``said`` for the user. A shard that leaves the file to others returns one
        with ``status`` ``waiting``.

    Raises
    ------
    UsageError
        Options that do not fit each other, an output that exists, a recipe that takes a frame as a whole and a frame
        that is too large for that.
    InputError
        An input that cannot be read, or is smaller than the kernel.
    """
    target = Path(output)
    if target.exists() and not options.overwrite and not find_journals(target):
        raise UsageError(f"--output: {output} exists; give --overwrite or another name")
    io.check_output(output)
    refuse_options(options)
    identity = identify_with_models(path, options)
    with open_frame(path, options) as (source, defects, quantity, notes, key):
        task = plan_task(path, target, options, source, defects, quantity, notes, key)
        job = executor.Job(
            source=str(path),
            target=target,
            pieces=task.pieces,
            read=partial(read_blocks, task.work),
            do=partial(degrade_blocks, task.work),
            output=partial(DegradedFile, task),
            needs_first=True,  # whether noise and kernel are known, and in which type the variance fits
            identity=identity,
            identify=partial(identify_with_models, path, options),
            plan={"blocks": str(len(task.blocks))},
            machine=describe_machine("cpu"),
            overwrite=options.overwrite,
            label="degrade",
        )
        return executor.execute(job, progress, shard, scheduler)


def plan_task(
    path: str | Path,
    target: Path,
    options: DegradeOptions,
    source: Source,
    defects: Defects,
    quantity: Quantity,
    notes: Notes,
    key: int,
) -> Task:
    """What has to be done for a frame; what depends on all of it is measured here.

    Parameters
    ----------
    path, target, options
        As of `run`.
    source, defects, quantity, notes, key
        As `open_frame` gives them.
    """
    frame = source.frame
    drawn = make_plan(frame, options, quantity, np.random.default_rng([options.seed, key]))
    blocks = plan_blocks(frame, drawn)
    split = not all(block.whole for block in blocks)
    if split:
        notes += Notes(f"blocks: {len(blocks)}, each with noise of its own generator")
    plans = [measure_plane(source, drawn, plane) if split else drawn for plane in range(frame.planes)]
    colours = frame.planes > 1 and bool(set(frame.axes) & set("SC"))
    work = FramePlan(str(path), reading(options), plans, (options.seed, key), split, defects, colours)
    return Task(target, options, source, drawn, blocks, work, key, notes)


def plan(path: str | Path, options: DegradeOptions) -> dict[str, Any]:
    """What `run` would do to one file: the options, and the steps that are drawn for it; nothing is written.

    Raises
    ------
    UsageError, InputError
        As `run`, as far as they come before the work.
    """
    refuse_options(options)
    with open_frame(path, options) as (source, _, quantity, notes, key):
        frame = source.frame
        drawn = make_plan(frame, options, quantity, np.random.default_rng([options.seed, key]))
        count = len(plan_blocks(frame, drawn))
    given = {name: value for name, value in vars(options).items() if value is not None}
    steps = [describe_step(step.record()) for step in drawn.steps]
    unknown = drawn.recipe.unknown if drawn.recipe else ""
    more = {"unknown": f"noise and blur, because of {unknown}"} if unknown else {}
    shape = [frame.planes, *(n // options.scale for n in frame.pixels.shape[1:])]
    said = [*frame.notes, *notes]
    return {**given, "quantity": quantity, "shape": shape, "blocks": count, "steps": steps, **more, "said": said}


def reading(options: DegradeOptions) -> dict[str, Any]:
    """The options that a file is opened with."""
    known = {"axes": options.axes, "quantity": options.quantity}
    return {**known, "outside": True} if options.allow_outside else known


@contextmanager
def open_frame(path: str | Path, options: DegradeOptions) -> Iterator[tuple[Source, Defects, Quantity, Notes, int]]:
    """Open a file inside this context.

    Yields
    ------
    source, defects, quantity, notes, key
        The file without what is no data, what that is, whether its pixels add up, what was assumed, and the number
        that its values add to the seed.
    """
    try:
        with open_files.use(path, **reading(options)) as held:
            quantity, notes = resolve_quantity(held.source.frame, options)
            notes += _describe_trimming(held.source.frame, options.scale)
            notes += io.describe_output(held.source.frame, 1 / options.scale)
            defects, more = find_no_data(held.source, options)
            source = without_no_data(held.source, defects)
            yield source, defects, quantity, notes + more, hash_values(held.source)
    finally:
        open_files.close()


def find_no_data(source: Source, options: DegradeOptions) -> tuple[Defects, Notes]:
    """What stands for no data in an image, and how many pixels; a sharp image keeps its peaks."""
    stated = Stated(
        sentinels=options.sentinels,
        padding=options.padding,
        absurd=options.absurd,
        saturated=False,
        hot_pixels=False,
        cosmic=False,
    )
    defects = find_defects(source, stated)
    return defects, describe_defects(defects, samples_of_source(masked_source(source, defects)))


def hash_values(source: Source) -> int:
    """The CRC-32 of all values of a file, which are read in strips."""
    planes, h, w = source.frame.pixels.shape
    rows, key = max(STRIP // w, 1), 0
    for plane in range(planes):
        for y in range(0, h, rows):
            values = source.window(plane, Region(y, min(y + rows, h), 0, w)).pixels
            key = zlib.crc32(np.ascontiguousarray(values).tobytes(), key)
    return key


def describe_step(step: Mapping[str, Any]) -> str:
    """A step in one line: ``blur kernel=airy:fwhm=2px``."""
    words = [f"{key}={x:.6g}" if isinstance(x, float) else f"{key}={x}" for key, x in step.items() if key != "step"]
    return " ".join([str(step["step"]), *words])


def refuse_options(options: DegradeOptions) -> None:
    """Refuse options that do not go together.

    Raises
    ------
    UsageError
        One that needs a gain without it, or what `pairs.refuse` does not take.
    """
    if options.gain is None and not options.recipe:
        for name in NEEDS_GAIN:
            if getattr(options, name):
                raise UsageError(f"--{name.replace('_', '-')}: is in electrons and needs --gain, electrons per unit")
    if options.pairs:
        pairs.refuse(options)


def resolve_quantity(frame: Frame, options: DegradeOptions) -> tuple[Quantity, Notes]:
    """Whether pixels add up or average: stated, else by the file, else assumed by the kind of image."""
    return frame.quantity_or_usual(options.quantity)


def _describe_trimming(frame: Frame, scale: int) -> Notes:
    """Which rows and columns are left out."""
    rest = [n % scale for n in frame.pixels.shape[1:]]
    if not any(rest):
        return Notes()
    return Notes(f"size: {rest[0]} rows and {rest[1]} columns at the end fill no coarse pixel and are left out")


@dataclass(frozen=True)
class DegradedFile:
    """The coarse image as it is written; an `executor.Output`."""

    task: Task
    first: Sequence[Degraded]
    """The first piece, which has in common with the others whether noise and kernel are known."""

    @property
    def low(self) -> DegradedPlane:
        """The first block."""
        return self.first[0].low

    @property
    def is_whole(self) -> bool:
        """Whether the first piece is all there is, and is written in one go."""
        return len(self.first) == len(self.task.blocks)

    @property
    def settings_used(self) -> dict[str, Any]:
        """Blurs, detector and steps as used, for the record."""
        found: dict[str, Any] = {"kernel": self.task.plan.spec}
        if (camera := self.low.detector) is not None:
            for item in fields(camera):
                value = getattr(camera, item.name)
                found[item.name] = "map" if isinstance(value, np.ndarray) else value
        found["steps"] = [step.record() for step in self.task.plan.steps]
        return {key: x for key, x in found.items() if x is not None}

    @property
    def frame(self) -> Frame:
        """The coarse frame without its values."""
        fine, plan, kernel = self.task.source.frame, self.task.plan, self.low.kernel
        known = "kernel" not in self.low.unknown
        shape = (fine.planes, *(n // plan.scale for n in fine.pixels.shape[1:]))
        return fine.with_(
            pixels=placeholder(shape, np.float32),
            mask=placeholder(shape, bool),
            variance=None,
            saturated=None,
            dq=None,
            quantity=plan.quantity,
            kernel=("none" if kernel is None else kernel) if known else None,
            kernel_scale=plan.scale if known else None,
            pixel_size=fine.pixel_size.refine(1 / plan.scale) if fine.pixel_size else None,
        )

    @property
    def writing(self) -> dict[str, Any]:
        """Options of `io.write` and `io.open_sink`."""
        options = self.task.options
        return {
            "provenance": {"SRDSEED": options.seed},
            "history": self.history(),
            "scale": 1 / self.task.plan.scale,
            "overwrite": options.overwrite,
            "dtype": "f4",
        }

    def history(self) -> list[str]:
        """HISTORY cards: what was done, without clock, host or path."""
        plan, drawn, name = self.task.plan, self.settings_used, f"sciresdiff {sciresdiff.__version__}"
        lines = [f"{name} degrade: scale {plan.scale}, {plan.quantity}, kernel {plan.spec}"]
        lines += [f"sciresdiff degrade: {key} {x}" for key, x in drawn.items() if key not in ("kernel", "steps")]
        if plan.recipe is not None:
            steps = enumerate(drawn["steps"], 1)
            lines += [f"sciresdiff degrade: step {n} {describe_step(step)}" for n, step in steps]
        return lines + [f"sciresdiff degrade: {key} unknown after {why}" for key, why in self.low.unknown.items()]

    def open(self, part: Path | None) -> AbstractContextManager[Sink]:
        """Open the output with its planes."""
        if self.is_whole:
            return nullcontext(Sink(lambda *block: 0, lambda cards: self.write_whole()))
        planes = {"DQ": Plane(np.int32)}
        if self.low.variance is not None:
            planes["VAR"] = Plane(slim(self.low.variance * MARGIN).dtype)
        return io.open_sink(self.task.output, self.frame, planes=planes, part=part, **self.writing)

    def write_whole(self) -> dict[str, Any]:
        """Write a small frame, all of which is in the first piece."""
        frame, found = self.frame, self.first
        planes: dict[str, NDArray[Any]] = {"DQ": np.stack([done.quality for done in found])}
        if isinstance(frame.kernel, np.ndarray):
            planes["KERNEL"] = frame.kernel
        noise = [done.low.variance for done in found if done.low.variance is not None]
        if noise:
            planes["VAR"] = slim(np.stack(noise))
        whole = frame.with_(
            pixels=np.stack([done.low.pixels for done in found]).astype(np.float32),
            mask=np.stack([done.low.mask for done in found]),
            kernel=None if "KERNEL" in planes else frame.kernel,
        )
        return io.write(self.task.output, whole, planes=planes, **self.writing)

    def split(self, piece: Sequence[Degraded]) -> tuple[Arrays, Sums]:
        """The planes of the blocks of a piece, and their masked and saturated pixels."""
        arrays = [] if self.is_whole else [array for done in piece for array in done.arrays()]
        return arrays, _add(done.sums for done in piece)

    def finish(self, journal: Journal, sums: Sequence[Sums]) -> dict[str, Any]:
        """Give the output its name, and return its record."""
        task, total = self.task, _add(sums)
        notes = task.notes + describe_result(task, self.low, total)
        more = add_pairs(task)  # before the image, so that a refusal leaves none
        if more:
            notes += Notes(f"pairs: {more['added']} patches added to {task.options.pairs}")
        assert journal.sink is not None
        wrote = journal.sink.finish({})
        return {
            "schema": 1,
            "input": task.work.path,
            "output": str(task.output),
            "scale": task.plan.scale,
            "quantity": task.plan.quantity,
            "shape": list(self.frame.pixels.shape),
            "blocks": len(task.blocks),
            "masked": total["masked"],
            "drawn": self.settings_used,
            "unknown": dict(self.low.unknown),
            "seed": task.options.seed,
            "version": sciresdiff.__version__,
            **wrote,
            **({"pairs": more} if more else {}),
            "said": [*task.source.frame.notes, *notes, *journal.notes],
        }


def _add(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The masked and saturated pixels of several parts."""
    listed = list(parts)
    return {name: sum(part[name] for part in listed) for name in ("masked", "saturated")}


def add_pairs(task: Task) -> dict[str, Any]:
    """Add the patches of the frame to the training set, where one is wanted; what the record says of it."""
    if not task.options.pairs:
        return {}
    return pairs.add(task.source, task.options, task.plan.quantity, task.key)


def describe_result(task: Task, first: DegradedPlane, sums: Mapping[str, int]) -> Notes:
    """What the user has to know of the coarse image.

    Parameters
    ----------
    task : Task
        The frame.
    first : DegradedPlane
        Its first block.
    sums : mapping
        Numbers of ``masked`` and ``saturated`` pixels.
    """
    frame, plan, camera = task.source.frame, task.plan, first.detector
    lines = [f"kernel: {plan.spec}"]
    if plan.recipe is not None:
        steps = ", ".join(step.name for step in plan.steps)
        lines.append(f"recipe: {_describe_detector(camera) if camera is not None else steps}")
    lines += [f"{name}: unknown after {why}; none is written" for name, why in first.unknown.items()]
    if "variance" in first.unknown:
        pass
    elif any(step.name in NOISY for step in plan.steps) and (camera is None or camera.noisy):
        lines.append("variance: of the noise that was added; the input's own noise counts as part of the truth")
    elif frame.variance is not None:
        lines.append("variance: of the input's own noise, blurred and binned; no noise was added")
    if frame.kind == "micro" and (masked := sums["masked"]):
        lines.append(f"mask: {masked} pixels, of which TIFF keeps only those that are NaN")
    if full := sums["saturated"]:
        lines.append(f"saturation: {full} pixels, masked")
    return Notes(*lines)


def _describe_detector(camera: Detector) -> str:
    """The numbers of a detector that are not zero."""
    numbers = {f.name: getattr(camera, f.name) for f in fields(camera)}
    return ", ".join(f"{k}={v:.4g}" for k, v in numbers.items() if isinstance(v, int | float) and k != "photons" and v)


def slim(variance: NDArray[np.float64]) -> NDArray[np.floating[Any]]:
    """A variance in single precision, unless that has no number so small."""
    small = bool((variance[variance > 0] < np.finfo(np.float32).tiny).any())
    return variance if small else variance.astype(np.float32)
