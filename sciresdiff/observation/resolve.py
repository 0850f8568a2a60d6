"""From a file and what the user states to an observation: every setting stated, read, measured, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import Frame, Quantity
from sciresdiff.notes import Notes
from sciresdiff.observation.depth import is_deep
from sciresdiff.observation.exposure import Exposure
from sciresdiff.observation.grid import Grid
from sciresdiff.observation.observation import Observation
from sciresdiff.observation.options import Stated
from sciresdiff.observation.psf import resolve_psf
from sciresdiff.observation.psf_error import resolve_psf_error
from sciresdiff.observation.resolve_noise import resolve_noise
from sciresdiff.observation.resolve_stack import observe_stacks
from sciresdiff.observation.sample import Samples, refuse_empty, refuse_saturation
from sciresdiff.observation.screening import Screened, observed_source, screen_with_psf
from sciresdiff.physics.psf.field import PSF


def resolve_quantity(frame: Frame, stated: Stated) -> tuple[Quantity, Notes]:
    """``sum`` or ``mean``: stated, by the file's unit, else by kind.

    Raises
    ------
    InputError : a unit that is not linear in light; a unit per beam, and no beam in the header to say what it means.
    """
    frame.refuse_nonlinear()
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


def refuse_unusable(path: str | Path, frame: Frame, samples: Samples, stated: Stated) -> None:
    """Refuse a file that holds no number, or that is saturated all over.

    Raises
    ------
    InputError, UsageError
    """
    refuse_empty(samples, frame.planes, str(path))
    refuse_saturation(samples, frame.planes, stated.saturation)


def observe(
    path: str | Path | None,
    found: Screened,
    stated: Stated,
    scale: int,
    psf: NDArray[np.float64] | None = None,
    kernel: PSF | NDArray[np.float64] | None = None,
) -> Observation:
    """The observation that a file is, on a grid ``scale`` times finer.

    Parameters
    ----------
    path : of the file, which windows are read from; None for an image in memory.
    found : the same image, open, and the samples of its planes, on which is measured what nobody states.
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
    frame, samples = found.source.frame, found.samples
    quantity, notes = resolve_quantity(frame, stated)
    if is_deep(frame, stated) and psf is None and kernel is None:
        return observe_stacks(path, found, stated, scale, quantity, notes)
    noise, more = resolve_noise(frame, samples, stated)
    notes += more
    psfs, target, more = resolve_psf(path or "the image", frame, samples, stated, scale, psf, kernel)
    notes += more
    psfs, noise, more = resolve_psf_error(psfs, noise, stated, scale, target, notes.origins["psf"])
    grid = Grid((frame.pixels.shape[1], frame.pixels.shape[2]), frame.pixel_size)
    found, masked = screen_with_psf(found, stated, psfs, scale, noise)
    image = observed_source(None if path is None else str(path), found, stated)
    exposure = Exposure(image, grid, noise, psfs[0], quantity, psfs=psfs if len(psfs) > 1 else ())
    return Observation([exposure], grid.refine(scale), target, notes + more + masked)
