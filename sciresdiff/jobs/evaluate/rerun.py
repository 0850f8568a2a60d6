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
from sciresdiff.jobs.upscale.block import read, restored
from sciresdiff.jobs.upscale.inputs import Resolved
from sciresdiff.jobs.upscale.job import Task, task_of
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.run.progress import no_progress

Again = Callable[[int, NDArray[np.float64]], NDArray[np.float64]]
"""(plane, data (h, w)) -> image (Y, X)."""

DRAWS = 2
"""Draws of every probe: an antithetic pair, whose mean is near that of many."""
CHANGED = 5.0
"""Data that differ from the frame's by more than this are other light, with another photon noise; sigma."""


def again_of(
    high: str | Path, low: str | Path | None, note: Mapping[str, Any], scale: int, said: list[str], device: str
) -> Again:
    """How the image was made, out of the sidecar that ``upscale`` wrote, for other data on the same pixels.

    Model, options, kernel, mask and variance are those of the image; two draws are taken, whatever it had. Where the
    data have other light than the frame, the variance follows by its slope with the light.

    Raises
    ------
    UsageError : no ``low``, no sidecar of this image, or one of another scale.
    InputError : the frame or the model cannot be read any more.
    """
    if low is None:
        raise UsageError("--probe: needs the frame that was restored; give --low")
    if not note:
        raise UsageError(f"--probe: no {Path(high).name}.json of {low} beside the image; make the image with upscale")
    known = {f.name for f in fields(UpscaleOptions)} - {"device", "threads", "overwrite", "save_samples"}
    options = UpscaleOptions(**{name: value for name, value in note["options"].items() if name in known})
    fewer = replace(options, samples=min(options.samples, DRAWS), device=device)
    task = task_of(low, Path(high), fewer)
    open_files.close()
    resolved = task.resolved
    if resolved.scale != scale:
        raise UsageError(f"--probe: {Path(high).name}.json speaks of scale {resolved.scale}, the image has {scale}")
    said.append(_told(resolved, fewer))
    if (was := note.get("provenance", {}).get("SRDHASH")) and resolved.model and resolved.model.hash != was:
        said.append(f"WARNING probe: model {resolved.name} is {resolved.model.hash}, the image was made with {was}")
    return lambda plane, data: _made(task, plane, data)


def _told(resolved: Resolved, options: UpscaleOptions) -> str:
    """What the user is told of the probes."""
    draws = "without draws" if options.samples == 0 else f"with {options.samples} draws"
    return f"probe: blank sky and injected sources restored by {resolved.name}, {draws} instead of all"


def _made(task: Task, plane: int, data: NDArray[np.float64]) -> NDArray[np.float64]:
    """One plane, restored with other pixels."""
    job, s = task.job, task.resolved.scale
    image = np.empty([s * n for n in data.shape])
    for block in of_plane(task.blocks, plane):
        tile, window = block.tile, read(job, block)
        other = data[tile.window.slices]
        noise = job.resolved.noise.of(window, plane, tile.window.y0, tile.window.x0)
        variance = followed(window.pixels[0], noise, window.mask[0], other)
        seen = window.with_(pixels=other[None].astype(np.float32))
        image[tile.core.scaled(s).slices] = restored(job, block, seen, variance, [], no_progress).mean[tile.inside(s)]
    open_files.close()
    return image


def followed(
    pixels: NDArray[np.floating[Any]],
    variance: NDArray[np.float64],
    mask: NDArray[np.bool_],
    data: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The variance of other data: the frame's, and where the light differs, what its slope with the light makes of it.

    Not below that of the sky. All arrays (h, w), in the unit of the frame or its square.
    """
    good = ~mask & np.isfinite(pixels) & np.isfinite(variance) & (variance > 0)
    gain = photon_gain(pixels.astype(np.float64), variance, good)
    if not gain:
        return variance
    more = np.where(good, data - pixels, 0.0)
    far = np.abs(more) > CHANGED * np.sqrt(np.where(good, variance, 1))
    return np.where(far, np.maximum(variance + gain * more, np.percentile(variance[good], 10)), variance)
