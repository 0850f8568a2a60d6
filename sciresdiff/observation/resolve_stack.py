"""From a file of stacks and what the user states to an observation whose planes are restored as volumes."""

from __future__ import annotations

from pathlib import Path

from sciresdiff.frame import Quantity
from sciresdiff.notes import Notes
from sciresdiff.observation.depth import resolve_depth
from sciresdiff.observation.exposure import Exposure
from sciresdiff.observation.grid import Grid
from sciresdiff.observation.observation import Observation
from sciresdiff.observation.options import Stated
from sciresdiff.observation.screening import Screened, observed_source, screen_with_psf
from sciresdiff.observation.stack import resolve_stack_noise
from sciresdiff.physics.psf import difference_kernel, target_psf
from sciresdiff.physics.psf.field import PSF


def observe_stacks(
    path: str | Path | None, found: Screened, stated: Stated, scale: int, quantity: Quantity, notes: Notes
) -> Observation:
    """The observation that a file of stacks is, on a grid ``scale`` times finer.

    Parameters
    ----------
    path : of the file, which windows are read from; None for an image in memory.
    found : the same image, open, and the samples of its planes.
    stated : what the user states.
    scale : output pixels per pixel of the file and axis.
    quantity : of the file.
    notes : so far.

    Raises
    ------
    UsageError, InputError : what cannot be settled, and what to give.
    """
    frame, samples = found.source.frame, found.samples
    depth, more = resolve_depth(path or "the image", frame, stated, scale)
    notes += more
    noise, more = resolve_stack_noise(frame, samples, stated, depth)
    # peaks sharper than a point in focus are no light
    lateral = depth.target[1]
    sharpest = {id(one): PSF.constant(difference_kernel(one.focus, target_psf(lateral))) for one in depth.psfs}
    of_plane = {
        plane: sharpest[id(one)] for one, planes in zip(depth.psfs, depth.stacks, strict=True) for plane in planes
    }
    psfs = tuple(of_plane[plane] for plane in range(frame.planes))
    found, masked = screen_with_psf(found, stated, psfs, scale, noise)
    image = observed_source(None if path is None else str(path), found, stated)
    grid = Grid((frame.pixels.shape[1], frame.pixels.shape[2]), frame.pixel_size)
    exposure = Exposure(image, grid, noise, psfs[0], quantity, psfs=psfs if len(sharpest) > 1 else ())
    return Observation([exposure], grid.refine(scale), lateral, notes + more + masked, depth=depth)
