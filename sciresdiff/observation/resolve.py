"""From a file and what the user states to an observation: every setting stated, read, measured, or refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import Frame, Quantity
from sciresdiff.io import open_files
from sciresdiff.io.source import Source
from sciresdiff.notes import Notes
from sciresdiff.observation.exposure import Exposure
from sciresdiff.observation.grid import Grid
from sciresdiff.observation.noise import resolve_noise, with_psf_error
from sciresdiff.observation.observation import Observation
from sciresdiff.observation.options import Stated
from sciresdiff.observation.pixel_size import parse_pixel_size
from sciresdiff.observation.psf import resolve_psf
from sciresdiff.observation.sample import Samples, mask_saturated, refuse_empty, refuse_saturation
from sciresdiff.physics.psf.field import PSF
from sciresdiff.region import Region


def reading_options(stated: Stated) -> dict[str, Any]:
    """The keywords of `sciresdiff.io.open_source` that follow from what is stated."""
    names = ("variance", "mask", "axes", "quantity")
    known = {**{name: getattr(stated, name) for name in names}, "pixel_size": parse_pixel_size(stated.pixel_size)}
    return {**known, "outside": True} if stated.allow_outside else known


def read_window(path: str, stated: Stated, plane: int, region: Region) -> Frame:
    """A window of a file, with what is stated of it; saturated pixels masked.

    A function of its arguments, so that an observation of a file pickles and any process reads the same.

    Parameters
    ----------
    path : of the file.
    stated : which planes are its noise and mask, and from which value a pixel is saturated.
    plane, region : what is read.
    """
    return mask_saturated(open_files.window(path, plane, region, **reading_options(stated)), stated.saturation)


def resolve_quantity(frame: Frame, stated: Stated) -> tuple[Quantity, Notes]:
    """``sum`` or ``mean``: stated, by the file's unit, else by kind.

    Raises
    ------
    InputError : a unit per beam, and no beam in the header to say what it means.
    """
    notes = Notes()
    if frame.unit and "beam" in frame.unit.lower():
        if "bmaj" not in frame.facts:
            raise InputError(f"unit: {frame.unit} has no meaning without a beam; add BMAJ and BMIN (degrees)")
        notes += Notes(f"unit: {frame.unit} stays per beam of the input; BMAJ and BMIN are kept as its definition")
    if stated.quantity:
        return stated.quantity, notes + Notes(quantity="--quantity")
    if frame.quantity:
        return frame.quantity, notes + Notes(quantity=f"unit {frame.unit}")
    assumed, more = frame.quantity_or_usual()
    return assumed, notes + more + Notes(quantity="assumed")


def refuse_stack(path: str | Path, frame: Frame, stated: Stated) -> None:
    """Refuse a widefield z-stack, whose planes are no independent images.

    Raises
    ------
    InputError : unless ``assume_2d`` is stated.
    """
    if frame.kind == "micro" and "Z" in frame.axes and frame.shape[frame.axes.index("Z")] > 1 and not stated.assume_2d:
        raise InputError(
            f"{path}: a z-stack ({frame.shape[frame.axes.index('Z')]} planes); light from other planes is not "
            "modelled, give --assume-2d to restore it plane by plane all the same"
        )


def refuse_unusable(path: str | Path, frame: Frame, samples: Samples, stated: Stated) -> None:
    """Refuse a file that holds no number, that is saturated all over, or that is a z-stack.

    Raises
    ------
    InputError, UsageError
    """
    refuse_empty(samples, frame.planes, str(path))
    refuse_saturation(samples, frame.planes, stated.saturation)
    refuse_stack(path, frame, stated)


def observe(
    path: str | Path | None,
    source: Source,
    samples: Samples,
    stated: Stated,
    scale: int,
    psf: NDArray[np.float64] | None = None,
    kernel: PSF | NDArray[np.float64] | None = None,
) -> Observation:
    """The observation that a file is, on a grid ``scale`` times finer.

    Parameters
    ----------
    path : of the file, which windows are read from; None for an image in memory.
    source : the same image, open.
    samples : of its planes, on which is measured what nobody states.
    stated : what the user states.
    scale : output pixels per pixel of the file and axis.
    psf, kernel : arrays that win over what is stated, as for `resolve_psf`.

    Returns
    -------
    The observation with its notes; ``notes.origins`` says where quantity, noise and PSF come from.  Of a file it
    pickles.

    Raises
    ------
    UsageError, InputError : what cannot be settled, and what to give.
    """
    frame = source.frame
    quantity, notes = resolve_quantity(frame, stated)
    noise, more = resolve_noise(frame, samples, stated)
    notes += more
    blur, target, more = resolve_psf(path or "the image", frame, samples, stated, scale, psf, kernel)
    notes += more
    noise, more = with_psf_error(noise, frame, samples, notes.origins["psf"])
    grid = Grid((frame.pixels.shape[1], frame.pixels.shape[2]), frame.pixel_size)
    if path is None:
        image = Source(frame, lambda plane, region: mask_saturated(source.window(plane, region), stated.saturation))
    else:
        image = Source(frame, partial(read_window, str(path), stated), str(path))
    return Observation([Exposure(image, grid, noise, blur, quantity)], grid.refine(scale), target, notes + more)
