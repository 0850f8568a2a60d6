"""Restoring an image again from other data, for the probes of ``evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.probes import photon_gain
from sciresdiff.errors import UsageError
from sciresdiff.io import open_files
from sciresdiff.jobs.blocks import of_plane
from sciresdiff.jobs.evaluate.sidecar import recorded_options
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
"""Difference from the frame's own data above which it is other light, with another photon noise; sigma."""


def make_rerun(
    high: str | Path, low: str | Path | None, sidecar: Mapping[str, Any], scale: int, device: str
) -> tuple[Rerun, Notes]:
    """Prepare to restore other data on the same pixels, with the settings in the image's sidecar.

    Model, options, PSF, mask and variance are those of the image; two draws are taken, whatever it had. Where the
    data have other light than the frame, the variance follows; see `variance_of_other`.

    Parameters
    ----------
    high : str or Path
        The image.
    low : str, Path or None
        The frame that it was restored from.
    sidecar : mapping
        What ``upscale`` wrote beside the image; empty where there is none.
    scale : int
        Of the image.
    device : str
        Where the probes are restored.

    Returns
    -------
    rerun : Rerun
    notes : Notes
        The model and the number of draws, and a warning where the model is not the image's.

    Raises
    ------
    UsageError
        No ``low``, no sidecar of this image, or one of another scale.
    InputError
        The frame or the model cannot be read any more.
    """
    if low is None:
        raise UsageError("--probe: needs the frame that was restored; give --low")
    if not sidecar:
        raise UsageError(f"--probe: no {Path(high).name}.json of {low} beside the image; make the image with upscale")
    options = recorded_options(sidecar)
    fewer = replace(options, samples=min(options.samples, DRAWS), save_samples=False, device=device)
    task = task_of(low, Path(high), fewer)
    open_files.close()
    inputs = task.inputs
    if inputs.scale != scale:
        raise UsageError(f"--probe: {Path(high).name}.json speaks of scale {inputs.scale}, the image has {scale}")
    notes = Notes(describe_probe(inputs, fewer))
    if (was := sidecar.get("provenance", {}).get("SRDHASH")) and inputs.model and inputs.model.hash != was:
        notes += Notes(f"WARNING probe: model {inputs.name} is {inputs.model.hash}, the image was made with {was}")
    return lambda plane, data: restore_other(task, plane, data), notes


def describe_probe(inputs: Inputs, options: UpscaleOptions) -> str:
    """The line that says how the probes are restored."""
    draws = "without draws" if options.samples == 0 else f"with {options.samples} draws"
    return f"probe: blank sky and injected sources restored by {inputs.name}, {draws} instead of all"


def restore_other(task: Task, plane: int, data: NDArray[np.float64]) -> NDArray[np.float64]:
    """Restore one plane with other pixels.

    Parameters
    ----------
    task : Task
        How the image was made.
    plane : int
        Number of the plane.
    data : (h, w) array
        In the frame's unit.

    Returns
    -------
    (Y, X) array
        The mean of the draws.
    """
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
    """The variance of other data: the exposure's, with other photon noise where the light differs by more than 5 sigma.

    There it is V + g (d - y), with the slope g of the exposure's variance V with its pixels y, and not below the tenth
    percentile of V, which is that of the sky.

    Parameters
    ----------
    exposure : Exposure
        One plane, in memory.
    data : (h, w) array
        In the exposure's unit.

    Returns
    -------
    (h, w) array
        Unit squared.
    """
    pixels, variance, good = exposure.pixels, exposure.variance, exposure.valid
    gain = photon_gain(pixels.astype(np.float64), variance, good)
    if not gain:
        return variance
    more = np.where(good, data - pixels, 0.0)
    far = np.abs(more) > CHANGED * np.sqrt(np.where(good, variance, 1))
    return np.where(far, np.maximum(variance + gain * more, np.percentile(variance[good], 10)), variance)
