"""Making an image again, of other data: what the probes of ``evaluate`` ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.probes import photon_gain
from sciresdiff.errors import UsageError
from sciresdiff.io import open_files
from sciresdiff.jobs.blocks import of_plane
from sciresdiff.jobs.upscale.block import read_block, restore_window
from sciresdiff.jobs.upscale.inputs import Inputs
from sciresdiff.jobs.upscale.job import Task, task_of
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.notes import Notes
from sciresdiff.observation.exposure import Exposure

Rerun = Callable[[int, NDArray[np.float64]], NDArray[np.float64]]
"""(plane, data (h, w)) -> image (Y, X)."""

DRAWS = 2
"""Draws of every probe: an antithetic pair, whose mean is near that of many."""
CHANGED = 5.0
"""Data that differ from the frame's by more than this are other light, with another photon noise; sigma."""


def make_rerun(
    high: str | Path, low: str | Path | None, sidecar: Mapping[str, Any], scale: int, device: str
) -> tuple[Rerun, Notes]:
    """How the image was made, out of the sidecar that ``upscale`` wrote, for other data on the same pixels.

    Model, options, PSF, mask and variance are those of the image; two draws are taken, whatever it had. Where the
    data have other light than the frame, the variance follows by its slope with the light.

    Parameters
    ----------
    high, low : the image and the frame that it was restored from.
    sidecar : what ``upscale`` wrote beside the image; empty where there is none.
    scale : of the image.
    device : where the probes are restored.

    Raises
    ------
    UsageError : no ``low``, no sidecar of this image, or one of another scale.
    InputError : the frame or the model cannot be read any more.
    """
    if low is None:
        raise UsageError("--probe: needs the frame that was restored; give --low")
    if not sidecar:
        raise UsageError(f"--probe: no {Path(high).name}.json of {low} beside the image; make the image with upscale")
    known = {f.name for f in fields(UpscaleOptions)} - {"device", "threads", "overwrite", "save_samples"}
    options = UpscaleOptions(**{name: value for name, value in sidecar["options"].items() if name in known})
    fewer = replace(options, samples=min(options.samples, DRAWS), device=device)
    task = task_of(low, Path(high), fewer)
    open_files.close()
    inputs = task.inputs
    if inputs.scale != scale:
        raise UsageError(f"--probe: {Path(high).name}.json speaks of scale {inputs.scale}, the image has {scale}")
    notes = Notes(describe(inputs, fewer))
    if (was := sidecar.get("provenance", {}).get("SRDHASH")) and inputs.model and inputs.model.hash != was:
        notes += Notes(f"WARNING probe: model {inputs.name} is {inputs.model.hash}, the image was made with {was}")
    return lambda plane, data: restore_other(task, plane, data), notes


def describe(inputs: Inputs, options: UpscaleOptions) -> str:
    """What the user is told of the probes."""
    draws = "without draws" if options.samples == 0 else f"with {options.samples} draws"
    return f"probe: blank sky and injected sources restored by {inputs.name}, {draws} instead of all"


def restore_other(task: Task, plane: int, data: NDArray[np.float64]) -> NDArray[np.float64]:
    """One plane restored with other pixels: data (h, w) in, image (Y, X) out."""
    job, s = task.job, task.inputs.scale
    image = np.empty([s * n for n in data.shape])
    for block in of_plane(task.blocks, plane):
        tile, window = block.tile, read_block(job, block)
        other = data[tile.window.slices]
        seen = window.with_pixels(other, variance_of_other(window.exposure, other))
        restored, _ = restore_window(job, seen)
        image[tile.core.scaled(s).slices] = restored.mean[tile.inside(s)]
    open_files.close()
    return image


def variance_of_other(exposure: Exposure, data: NDArray[np.float64]) -> NDArray[np.floating[Any]]:
    """The variance of other data (h, w): the exposure's, and by its slope with the light where the light differs.

    Not below that of the sky; in the square of the exposure's unit.
    """
    pixels, variance, good = exposure.pixels, exposure.variance, exposure.valid
    gain = photon_gain(pixels.astype(np.float64), variance, good)
    if not gain:
        return variance
    more = np.where(good, data - pixels, 0.0)
    far = np.abs(more) > CHANGED * np.sqrt(np.where(good, variance, 1))
    return np.where(far, np.maximum(variance + gain * more, np.percentile(variance[good], 10)), variance)
