"""Degrading files: read, blur and bin and read out every plane, write the coarse image with its noise and kernel."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sciresdiff
from sciresdiff import io
from sciresdiff.degradation import chain
from sciresdiff.errors import UsageError
from sciresdiff.frame import Frame, Quantity
from sciresdiff.io.source import Source, empty
from sciresdiff.jobs.blocks import Block
from sciresdiff.jobs.degrade import pairs
from sciresdiff.jobs.degrade.block import Done, Job, blocks_of, measured, small, windowed, work
from sciresdiff.jobs.degrade.options import DegradeOptions
from sciresdiff.jobs.degrade.steps import Plan, plan_of
from sciresdiff.physics.detector import Detector
from sciresdiff.region import Region
from sciresdiff.run import engines, journal
from sciresdiff.run.batch import Progress, no_progress
from sciresdiff.run.identity import known_by, machine, unchanged
from sciresdiff.run.locks import beside

__all__ = ["DegradeOptions", "plan", "run"]

STRIP = 2**22
"""Pixels that are read at a time for the seed."""
MARGIN = 1e-6
"""How far below that of its first block a frame's variances are expected."""
Put = tuple[Sequence[Mapping[str, int]], Sequence[str], Callable[[], dict[str, Any]]]
"""What the blocks add to the record, what is said of them, and what finishes the file."""

NOISY = ("detector", "gaussian", "poisson")
"""Steps that add noise whose variance is known."""

NEEDS_GAIN = ("sky", "dark", "full_well")
"""Options in electrons, which mean nothing without a gain."""


@dataclass(frozen=True)
class Task:
    """A frame that is being degraded."""

    path: str
    output: Path
    options: DegradeOptions
    source: Source
    plan: Plan
    blocks: Sequence[Block]
    job: Job
    progress: Progress

    def degraded(self, numbers: Sequence[int]) -> Iterator[tuple[int, Done]]:
        """(number, result) of blocks; the next one is read meanwhile."""
        blocks, before = [self.blocks[number] for number in numbers], len(self.blocks) - len(numbers)
        found = engines.serial(partial(work, self.job), blocks, partial(windowed, self.source, self.plan.scale))
        for count, (number, (_, done)) in enumerate(zip(numbers, found, strict=True), 1):
            yield number, done
            self.progress(before + count, len(self.blocks), "degrade")


def run(
    path: str | Path, output: str | Path, options: DegradeOptions, progress: Progress = no_progress
) -> dict[str, Any]:
    """Degrade one file, block by block where a plane is larger than 1.5 times 2048 fine px a side.

    Every random number follows from the seed, the frame's own values and the number of the plane and block, or of the
    patch. Besides the image there are VAR, the variance of the noise that was added (where none was, what the input's
    own noise becomes), KERNEL and DQ; where a recipe's noise or blur is not known any more (JPEG, resizing between
    grids) there is no VAR or KERNEL, and ``unknown`` in the record says why. The mean of the result is the blurred and
    binned input: sky, dark current and offset are taken off after readout. Values are float32, so that nothing is
    rounded or clipped, **but by a recipe with JPEG**. A run of many blocks that was stopped goes on with those that
    are left.

    Returns
    -------
    The record of what was done, with ``said`` for the user.

    Raises
    ------
    UsageError : options that do not fit each other, an output that exists, a recipe that takes a frame as a whole and a
        frame that is too large for that.
    InputError : an input that cannot be read, or is smaller than the kernel.
    """
    if Path(output).exists() and not options.overwrite and not beside(Path(output)):
        raise UsageError(f"--output: {output} exists; give --overwrite or another name")
    io.checked_output(output)
    _refuse(options)
    if options.pairs:
        pairs.refuse(options)
    with _opened(path, options) as (source, quantity, said, key):
        settled = plan_of(source.frame, options, quantity, np.random.default_rng([options.seed, key]))
        blocks = blocks_of(source.frame, settled)
        job = _job(source, settled, options.seed, key, blocks, said)
        task = Task(str(path), Path(output), options, source, settled, blocks, job, progress)

        def finish(first: chain.DegradedPlane, sums: Mapping[str, int]) -> dict[str, Any]:
            said.extend(_told(source.frame, settled, first, sums))
            return _paired(source, options, quantity, key, said)  # before the image, so that a refusal leaves none

        record = _write(task, finish)
        said = [*source.frame.notes, *said, *record.pop("resumed")]
    return {"schema": 1, "input": str(path), "output": str(output), **record, "said": said}


def _job(source: Source, settled: Plan, seed: int, key: int, blocks: Sequence[Block], said: list[str]) -> Job:
    """What is done to every block, with what has to be measured on the frame before."""
    frame = source.frame
    split = not all(block.whole for block in blocks)
    if split:
        said.append(f"blocks: {len(blocks)}, each with noise of its own generator")
    plans = [measured(source, settled, plane) if split else settled for plane in range(frame.planes)]
    return Job(plans, (seed, key), split, frame.planes > 1 and bool(set(frame.axes) & set("SC")))


def _paired(source: Source, options: DegradeOptions, quantity: Quantity, key: int, said: list[str]) -> dict[str, Any]:
    """The training set, where one is wanted."""
    if not options.pairs:
        return {}
    told = pairs.add(source, options, quantity, key)
    said.append(f"pairs: {told['added']} patches added to {options.pairs}")
    return {"pairs": told}


def plan(path: str | Path, options: DegradeOptions) -> dict[str, Any]:
    """What `run` would do to one file: the options, and the steps that are drawn for it; nothing is written.

    Raises
    ------
    UsageError, InputError : as `run`, as far as they come before the work.
    """
    _refuse(options)
    if options.pairs:
        pairs.refuse(options)
    with _opened(path, options) as (source, quantity, said, key):
        frame = source.frame
        settled = plan_of(frame, options, quantity, np.random.default_rng([options.seed, key]))
        count = len(blocks_of(frame, settled))
    told = {name: value for name, value in vars(options).items() if value is not None}
    steps = [_in_words(step.record()) for step in settled.steps]
    unknown = settled.recipe.unknown if settled.recipe else ""
    more = {"unknown": f"noise and blur, because of {unknown}"} if unknown else {}
    shape = [frame.planes, *(n // options.scale for n in frame.pixels.shape[1:])]
    said = [*frame.notes, *said]
    return {**told, "quantity": quantity, "shape": shape, "blocks": count, "steps": steps, **more, "said": said}


@contextmanager
def _opened(path: str | Path, options: DegradeOptions) -> Iterator[tuple[Source, Quantity, list[str], int]]:
    """The open file, its quantity, what was assumed, and the number that its values give the seed."""
    with io.opened(path, axes=options.axes, quantity=options.quantity) as source:
        quantity, said = _quantity(source.frame, options)
        said += _trimming(source.frame, options.scale)
        yield source, quantity, said, _key(source)


def _key(source: Source) -> int:
    """The CRC-32 of all values, read in strips."""
    planes, h, w = source.frame.pixels.shape
    rows, key = max(STRIP // w, 1), 0
    for plane in range(planes):
        for y in range(0, h, rows):
            values = source.window(plane, Region(y, min(y + rows, h), 0, w)).pixels
            key = zlib.crc32(np.ascontiguousarray(values).tobytes(), key)
    return key


def _in_words(step: dict[str, Any]) -> str:
    """``blur kernel=airy:fwhm=2px``: a step in one line."""
    told = [f"{key}={x:.6g}" if isinstance(x, float) else f"{key}={x}" for key, x in step.items() if key != "step"]
    return " ".join([str(step["step"]), *told])


def _refuse(options: DegradeOptions) -> None:
    """Refuse options that do not go together."""
    if options.gain is None and not options.recipe:
        for name in NEEDS_GAIN:
            if getattr(options, name):
                raise UsageError(f"--{name.replace('_', '-')}: is in electrons and needs --gain, electrons per unit")


def _quantity(frame: Frame, options: DegradeOptions) -> tuple[Quantity, list[str]]:
    quantity, notes = frame.quantity_or_usual(options.quantity)
    return quantity, list(notes)


def _trimming(frame: Frame, scale: int) -> list[str]:
    rest = [n % scale for n in frame.pixels.shape[1:]]
    if not any(rest):
        return []
    return [f"size: {rest[0]} rows and {rest[1]} columns at the end fill no coarse pixel and are left out"]


def _told(frame: Frame, plan: Plan, first: chain.DegradedPlane, sums: Mapping[str, int]) -> list[str]:
    said = [f"kernel: {plan.spec}"]
    camera = first.detector
    if plan.recipe is not None:
        said.append(f"recipe: {_numbers(camera) if camera is not None else ', '.join(s.name for s in plan.steps)}")
    said += [f"{name}: unknown after {why}; none is written" for name, why in first.unknown.items()]
    if "variance" in first.unknown:
        pass
    elif any(step.name in NOISY for step in plan.steps) and (camera is None or camera.noisy):
        said.append("variance: of the noise that was added; the input's own noise counts as part of the truth")
    elif frame.variance is not None:
        said.append("variance: of the input's own noise, blurred and binned; no noise was added")
    if frame.kind == "micro" and (masked := sums["masked"]):
        said.append(f"mask: {masked} pixels, of which TIFF keeps only those that are NaN")
    if full := sums["saturated"]:
        said.append(f"saturation: {full} pixels, masked")
    return said


def _numbers(camera: Detector) -> str:
    told = {f.name: getattr(camera, f.name) for f in fields(camera)}
    return ", ".join(f"{k}={v:.4g}" for k, v in told.items() if isinstance(v, int | float) and k != "photons" and v)


def _write(task: Task, finish: Callable[[chain.DegradedPlane, Mapping[str, int]], dict[str, Any]]) -> dict[str, Any]:
    """The image, its planes and the record; ``finish`` gives what comes before the file has its name."""
    plan, options, block = task.plan, task.options, task.blocks[0]
    first = work(task.job, block, windowed(task.source, plan.scale, block))  # tells what all have in common
    low, drawn = _empty(task.source.frame, plan, first.low), _drawn(plan, first.low)
    common: dict[str, Any] = {
        "provenance": {"SRDSEED": options.seed},
        "history": _history(plan, first.low, drawn),
        "scale": 1 / plan.scale,
        "overwrite": options.overwrite,
        "dtype": "f4",
    }
    put = _at_once if small(task.source.frame, task.blocks) else _by_blocks
    with put(task, first, low, common) as (parts, said, written):
        sums = {name: sum(part[name] for part in parts) for name in ("masked", "saturated")}
        told = finish(first.low, sums)
        wrote = written()
    return {
        "scale": plan.scale,
        "quantity": plan.quantity,
        "shape": list(low.pixels.shape),
        "blocks": len(task.blocks),
        "masked": sums["masked"],
        "drawn": drawn,
        "unknown": dict(first.low.unknown),
        "seed": options.seed,
        "version": sciresdiff.__version__,
        "resumed": list(said),
        **wrote,
        **told,
    }


def _empty(frame: Frame, plan: Plan, first: chain.DegradedPlane) -> Frame:
    """The coarse frame without its values."""
    kernel, known = first.kernel, "kernel" not in first.unknown
    shape = (frame.planes, *(n // plan.scale for n in frame.pixels.shape[1:]))
    return frame.with_(
        pixels=empty(shape, np.float32),
        mask=empty(shape, bool),
        variance=None,
        saturated=None,
        dq=None,
        quantity=plan.quantity,
        kernel=("none" if kernel is None else kernel) if known else None,
        kernel_scale=plan.scale if known else None,
        pixel_size=frame.pixel_size.finer(1 / plan.scale) if frame.pixel_size else None,
    )


def _history(plan: Plan, first: chain.DegradedPlane, drawn: Mapping[str, Any]) -> list[str]:
    history = [f"sciresdiff {sciresdiff.__version__} degrade: scale {plan.scale}, {plan.quantity}, kernel {plan.spec}"]
    history += [f"sciresdiff degrade: {key} {x}" for key, x in drawn.items() if key not in ("kernel", "steps")]
    if plan.recipe is not None:
        history += [f"sciresdiff degrade: step {n} {_in_words(step)}" for n, step in enumerate(drawn["steps"], 1)]
    return history + [f"sciresdiff degrade: {key} unknown after {why}" for key, why in first.unknown.items()]


@contextmanager
def _at_once(task: Task, first: Done, low: Frame, common: Mapping[str, Any]) -> Iterator[Put]:
    """A small frame, written when all of it is there."""
    found = [first, *(done for _, done in task.degraded(range(1, len(task.blocks))))]

    def written() -> dict[str, Any]:
        planes: dict[str, NDArray[Any]] = {"DQ": np.stack([done.quality for done in found])}
        if isinstance(low.kernel, np.ndarray):
            planes["KERNEL"] = low.kernel
        noise = [done.low.variance for done in found if done.low.variance is not None]
        if noise:
            planes["VAR"] = _slim(np.stack(noise))
        whole = low.with_(
            pixels=np.stack([done.low.pixels for done in found]).astype(np.float32),
            mask=np.stack([done.low.mask for done in found]),
            kernel=None if "KERNEL" in planes else low.kernel,
        )
        return io.write(task.output, whole, planes=planes, **common)

    yield [done.sums for done in found], (), written


@contextmanager
def _by_blocks(task: Task, first: Done, low: Frame, common: Mapping[str, Any]) -> Iterator[Put]:
    """A large one, of which every block is written while the next is computed; a run that was stopped goes on."""
    planes = {"DQ": io.Plane(np.int32)}
    if first.low.variance is not None:
        planes["VAR"] = io.Plane(_slim(first.low.variance * MARGIN).dtype)

    def results(numbers: Sequence[int]) -> Iterator[tuple[int, Done]]:
        yield from [(0, first)] if 0 in numbers else []
        yield from task.degraded([number for number in numbers if number])

    known = known_by(task.path, task.options)

    def written() -> dict[str, Any]:
        unchanged(task.path, task.options, known)
        return book.sink.finish({})

    with journal.opened(
        task.output,
        lambda part: io.writing(task.output, low, planes=planes, part=part, **common),
        len(task.blocks),
        {**known, "blocks": str(len(task.blocks))},
        machine("cpu"),
        overwrite=task.options.overwrite,
    ) as book:
        parts = journal.filled(book, results, lambda done: (done.arrays(), done.sums))
        assert parts is not None, "no shard works on a frame that is degraded"
        yield parts, book.said, written


def _slim(variance: NDArray[np.float64]) -> NDArray[np.floating[Any]]:
    """In single precision, unless that has no number so small."""
    small = bool((variance[variance > 0] < np.finfo(np.float32).tiny).any())
    return variance if small else variance.astype(np.float32)


def _drawn(plan: Plan, first: chain.DegradedPlane) -> dict[str, Any]:
    """Blurs, detector and steps as used, JSON-able."""
    told: dict[str, Any] = {"kernel": plan.spec}
    if (camera := first.detector) is not None:
        for item in fields(camera):
            value = getattr(camera, item.name)
            told[item.name] = "map" if isinstance(value, np.ndarray) else value
    told["steps"] = [step.record() for step in plan.steps]
    return {key: x for key, x in told.items() if x is not None}
