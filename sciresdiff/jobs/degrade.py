"""Degrading files: read, blur and bin and read out every plane, write the coarse image with its noise and kernel."""

from __future__ import annotations

import re
import zlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sciresdiff
from sciresdiff import io
from sciresdiff.errors import UsageError
from sciresdiff.frame import Frame, Quantity
from sciresdiff.jobs import pairs
from sciresdiff.jobs.degrade_plan import DegradeOptions, Plan, degraded, plan_of
from sciresdiff.physics import degrade as physics
from sciresdiff.physics.detector import Detector

__all__ = ["DegradeOptions", "plan", "run"]

SATURATED_BIT = 256
"""Data-quality bit of a pixel that the simulated detector saturated."""

NOISY = ("detector", "gaussian", "poisson")
"""Steps that add noise whose variance is known."""

NEEDS_GAIN = ("sky", "dark", "full_well")
"""Options in electrons, which mean nothing without a gain."""


def run(path: str | Path, output: str | Path, options: DegradeOptions) -> dict[str, Any]:
    """Degrade one file.

    Every random number follows from the seed, the frame's own values and the plane's or patch's number. Besides the
    image there are VAR, the variance of the noise that was added (where none was, what the input's own noise becomes),
    KERNEL and DQ; where a recipe's noise or blur is not known any more (JPEG, resizing between grids) there is no VAR
    or KERNEL, and ``unknown`` in the record says why. The mean of the result is the blurred and binned input: sky, dark
    current and offset are taken off after readout. Values are float32, so that nothing is rounded or clipped, **but by
    a recipe with JPEG**.

    Returns
    -------
    The record of what was done, with ``said`` for the user.

    Raises
    ------
    UsageError : options that do not fit each other, an output that exists.
    InputError : an input that cannot be read, or is smaller than the kernel.
    """
    if Path(output).exists() and not options.overwrite:
        raise UsageError(f"--output: {output} exists; give --overwrite or another name")
    io.checked_output(output)
    _refuse(options)
    if options.pairs:
        pairs.refuse(options)
    frame, quantity, said, key = _opened(path, options)
    settled = plan_of(frame, options, quantity, np.random.default_rng([options.seed, key]))
    together = (options.seed, key, 2) if frame.planes > 1 and set(frame.axes) & set("SC") else None
    done = [
        _plane(plane, settled, np.random.default_rng([options.seed, key, 0, i]), together)
        for i, plane in enumerate(frame)
    ]
    said += _told(frame, settled, done)
    told: dict[str, Any] = {}
    if options.pairs:  # before the image, so that patches that cannot be had leave no image behind
        told["pairs"] = pairs.add(frame, options, quantity, key)
        said.append(f"pairs: {told['pairs']['added']} patches added to {options.pairs}")
    record = {**_write(frame, Path(output), options, settled, done), **told}
    return {"schema": 1, "input": str(path), "output": str(output), **record, "said": [*frame.said, *said]}


def plan(path: str | Path, options: DegradeOptions) -> dict[str, Any]:
    """What `run` would do to one file: the options, and the steps that are drawn for it; nothing is written.

    Raises
    ------
    UsageError, InputError : as `run`, as far as they come before the work.
    """
    _refuse(options)
    if options.pairs:
        pairs.refuse(options)
    frame, quantity, said, key = _opened(path, options)
    settled = plan_of(frame, options, quantity, np.random.default_rng([options.seed, key]))
    told = {name: value for name, value in vars(options).items() if value is not None}
    steps = [_in_words(step.told()) for step in settled.steps]
    unknown = settled.recipe.unknown if settled.recipe else ""
    more = {"unknown": f"noise and blur, because of {unknown}"} if unknown else {}
    shape = [frame.planes, *(n // options.scale for n in frame.pixels.shape[1:])]
    return {**told, "quantity": quantity, "shape": shape, "steps": steps, **more, "said": [*frame.said, *said]}


def _opened(path: str | Path, options: DegradeOptions) -> tuple[Frame, Quantity, list[str], int]:
    """The frame, its quantity, what was assumed, and the number that its values give the seed."""
    frame = io.read(path, axes=options.axes, quantity=options.quantity)
    quantity, said = _quantity(frame, options)
    said += _trimming(frame, options.scale)
    return frame, quantity, said, zlib.crc32(np.ascontiguousarray(frame.pixels).tobytes())


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
    said: list[str] = []
    return frame.quantity_or_usual(options.quantity, said), said


def _trimming(frame: Frame, scale: int) -> list[str]:
    rest = [n % scale for n in frame.pixels.shape[1:]]
    if not any(rest):
        return []
    return [f"size: {rest[0]} rows and {rest[1]} columns at the end fill no coarse pixel and are left out"]


def _plane(plane: Frame, plan: Plan, rng: np.random.Generator, together: tuple[int, ...] | None) -> physics.Low:
    """Degrade a frame of one plane."""
    planes = {
        name: None if getattr(plane, name) is None else getattr(plane, name)[0]
        for name in ("mask", "variance", "saturated")
    }
    return degraded(np.asarray(plane.pixels[0], np.float64), plan, rng, planes, together)


def _told(frame: Frame, plan: Plan, done: list[physics.Low]) -> list[str]:
    said = [f"kernel: {plan.spec}"]
    camera = done[0].detector
    if plan.recipe is not None:
        said.append(f"recipe: {_numbers(camera) if camera is not None else ', '.join(s.name for s in plan.steps)}")
    said += [f"{name}: unknown after {why}; none is written" for name, why in done[0].unknown.items()]
    if "variance" in done[0].unknown:
        pass
    elif any(step.name in NOISY for step in plan.steps) and (camera is None or camera.noisy):
        said.append("variance: of the noise that was added; the input's own noise counts as part of the truth")
    elif frame.variance is not None:
        said.append("variance: of the input's own noise, blurred and binned; no noise was added")
    if frame.kind == "micro" and (masked := sum(int(low.mask.sum()) for low in done)):
        said.append(f"mask: {masked} pixels, of which TIFF keeps only those that are NaN")
    if full := sum(int(low.saturated.sum()) for low in done):
        said.append(f"saturation: {full} pixels, masked")
    return said


def _numbers(camera: Detector) -> str:
    told = {f.name: getattr(camera, f.name) for f in fields(camera)}
    return ", ".join(f"{k}={v:.4g}" for k, v in told.items() if isinstance(v, int | float) and k != "photons" and v)


def _write(frame: Frame, output: Path, options: DegradeOptions, plan: Plan, done: list[physics.Low]) -> dict[str, Any]:
    """The image, its planes and the record."""
    kernel, known = done[0].kernel, "kernel" not in done[0].unknown
    low = frame.with_(
        pixels=np.stack([d.pixels for d in done]).astype(np.float32),
        mask=np.stack([d.mask for d in done]),
        variance=None,
        saturated=None,
        dq=None,
        quantity=plan.quantity,
        kernel="none" if known and kernel is None else None,
        kernel_scale=plan.scale if known else None,
        pixel_size=frame.pixel_size.finer(1 / plan.scale) if frame.pixel_size else None,
    )
    planes: dict[str, NDArray[Any]] = {"DQ": _quality(frame, done, plan.scale)}
    if kernel is not None:
        planes["KERNEL"] = kernel
    if all(d.variance is not None for d in done):
        planes["VAR"] = _slim(np.stack([d.variance for d in done if d.variance is not None]))
    drawn = _drawn(plan, done)
    history = [f"sciresdiff {sciresdiff.__version__} degrade: scale {plan.scale}, {plan.quantity}, kernel {plan.spec}"]
    history += [f"sciresdiff degrade: {key} {x}" for key, x in drawn.items() if key not in ("kernel", "steps")]
    if plan.recipe is not None:
        history += [f"sciresdiff degrade: step {n} {_in_words(step)}" for n, step in enumerate(drawn["steps"], 1)]
    history += [f"sciresdiff degrade: {key} unknown after {why}" for key, why in done[0].unknown.items()]
    wrote = io.write(
        output,
        low,
        planes=planes,
        provenance={"SRDSEED": options.seed},
        history=history,
        scale=1 / plan.scale,
        overwrite=options.overwrite,
        dtype="f4",
    )
    told = {"scale": plan.scale, "quantity": plan.quantity, "shape": list(low.pixels.shape)}
    return {
        **told,
        "masked": int(low.mask.sum()),
        "drawn": drawn,
        "unknown": dict(done[0].unknown),
        "seed": options.seed,
        "version": sciresdiff.__version__,
        **wrote,
    }


def _slim(variance: NDArray[np.float64]) -> NDArray[np.floating[Any]]:
    """In single precision, unless that has no number so small."""
    small = bool((variance[variance > 0] < np.finfo(np.float32).tiny).any())
    return variance if small else variance.astype(np.float32)


def _drawn(plan: Plan, done: list[physics.Low]) -> dict[str, Any]:
    """Blurs, detector and steps as used, JSON-able."""
    told: dict[str, Any] = {"kernel": plan.spec}
    if (camera := done[0].detector) is not None:
        for item in fields(camera):
            value = getattr(camera, item.name)
            told[item.name] = "map" if isinstance(value, np.ndarray) else value
    told["steps"] = [step.told() for step in plan.steps]
    return {key: x for key, x in told.items() if x is not None}


def _quality(frame: Frame, done: list[physics.Low], scale: int) -> NDArray[np.int32]:
    """Data-quality bits of the coarse pixels: all bits of their fine ones, 1 where only a mask says so."""
    saturated = np.stack([d.saturated for d in done])
    if frame.dq is None:
        bits = np.stack([d.mask for d in done]).astype(np.int32)
    elif _coded(frame):  # codes do not combine: that of the worst bad pixel stands for all
        bits = physics.blocks(physics.trimmed(np.where(frame.mask, frame.dq, 0), scale), scale).max((-3, -1))
    else:
        bits = physics.or_of(physics.trimmed(frame.dq, scale), scale)
    new = (
        saturated
        if frame.saturated is None
        else saturated & ~physics.any_of(physics.trimmed(frame.saturated, scale), scale)
    )
    return np.asarray(np.where(new, bits | SATURATED_BIT, bits), np.int32)


def _coded(frame: Frame) -> bool:
    """Whether DQ holds whole numbers instead of bits, as the Community Pipeline's does from 3.5 on."""
    header = getattr(frame.header, "primary", None)
    version = re.match(r"V?(\d+)\.(\d+)", str(header.get("PLVER", ""))) if header is not None else None
    return bool(version and (int(version[1]), int(version[2])) >= (3, 5))
