"""How the stacks of a file are seen in depth: which planes belong together, and their PSF in three dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sciresdiff.errors import UsageError
from sciresdiff.frame import Frame
from sciresdiff.notes import Notes
from sciresdiff.observation.measured_psf import BEADS_OF
from sciresdiff.observation.options import Stated
from sciresdiff.observation.psf_error import share_of
from sciresdiff.observation.volume_psf import BEYOND, volume_psfs
from sciresdiff.physics.psf.image import fwhm, too_narrow
from sciresdiff.physics.psf.volume import VolumePSF

TARGET_PLANES = 2.0
"""FWHM along z of the wanted volume's PSF, planes: the least that is well sampled, as laterally."""
SHARPEST = 0.8
"""The same as a share of that of the measured PSF at most: planes that lie far apart are not blurred further."""
EXTENT = 1.5
"""Planes above and below the measured ones that are restored too, in FWHM of the PSF along z."""
FINE = 20
"""Points between two planes at which a width is measured."""
MARGIN = 12
"""Input px around the measured ones that are restored too."""


@dataclass(frozen=True)
class StackStatistics:
    """What a stack is like as a whole: measured once, so that all of its blocks agree."""

    sky: float
    """Level of its planes without light, in the frame's unit."""
    sigma: float
    """Noise of a typical pixel, in the frame's unit."""
    pedestal: float = 4.0
    """What Richardson-Lucy adds to the data, in units of sigma."""
    iterations: int | None = None
    """That it takes; None where the stack is restored at once."""
    level_error: float | None = None
    """Standard error of the level, in units of sigma; None where the stack is restored at once."""


@dataclass(frozen=True)
class Depth:
    """The stacks of a file."""

    stacks: tuple[tuple[int, ...], ...]
    """Numbers of the planes of every stack, from the first in z on."""
    psfs: tuple[VolumePSF, ...]
    """Of every stack: the whole PSF on its planes and the output's pixels."""
    target: tuple[float, float]
    """FWHM of the wanted volume's PSF: planes along z, and output px."""
    margin: tuple[int, int]
    """Planes above and below, and input px around the measured ones, that are restored too."""
    statistics: tuple[StackStatistics, ...] = ()
    """Of every stack."""
    width_error: float = 0.0
    """Standard error of the PSFs' widths along all axes, as a share of them."""


def stacks_of(frame: Frame) -> tuple[tuple[int, ...], ...]:
    """The planes of every stack of a file: those that differ in Z alone."""
    lead = [(axis, n) for axis, n in zip(frame.axes, frame.shape, strict=True) if axis not in "YX"]
    numbers = np.arange(frame.planes).reshape([n for _, n in lead])
    along = np.moveaxis(numbers, [axis for axis, _ in lead].index("Z"), -1)
    return tuple(tuple(int(i) for i in row) for row in along.reshape(-1, along.shape[-1]))


def is_stack(frame: Frame) -> bool:
    """Whether a file is a z-stack of a microscope."""
    fits = len(frame.axes) == len(frame.shape)
    return frame.kind == "micro" and fits and "Z" in frame.axes and frame.shape[frame.axes.index("Z")] > 1


def is_deep(frame: Frame, stated: Stated) -> bool:
    """Whether a file is a stack that is restored in three dimensions.

    Raises
    ------
    UsageError : ``--depth 3d`` of a file that is no stack.
    """
    plane = stated.assume_2d or stated.depth == "plane"
    if stated.depth == "3d" and not is_stack(frame):
        raise UsageError(f"--depth 3d: the file is no z-stack (axes {frame.axes}); --axes says which axis is Z")
    return is_stack(frame) and not plane


def resolve_depth(path: str | Path, frame: Frame, stated: Stated, scale: int) -> tuple[Depth, Notes]:
    """The stacks of a file and their PSFs.

    Parameters
    ----------
    path : the file, for messages.
    frame : what it says; its values are not used.
    stated : what the user states.
    scale : output pixels per pixel of the file and axis.

    Raises
    ------
    UsageError, InputError : no PSF in three dimensions is known, and what to give.
    """
    stacks = stacks_of(frame)
    psfs, notes = volume_psfs(path, frame, stated, scale, [stack[0] for stack in stacks])
    lateral = stated.target_fwhm or TARGET_PLANES
    widths = [(axial_fwhm(psf), fwhm(psf.focus)) for psf in psfs]
    narrowest = min(width for _, width in widths)
    if narrowest < lateral:
        raise too_narrow(narrowest, lateral)
    axial = min(TARGET_PLANES, SHARPEST * min(width for width, _ in widths))
    beyond = min(int(np.ceil(EXTENT * max(width for width, _ in widths))), BEYOND, len(stacks[0]))
    reach = min(min(psf.kernel.shape[1:]) // 2 for psf in psfs)
    beyond = min(beyond, min(len(psf.kernel) // 2 for psf in psfs))
    line = (
        f"depth: {len(stacks[0])} planes are restored as one volume, with {beyond} more above and below whose light "
        f"reaches them and which are cut off; the volume's PSF has FWHM {axial:.3g} planes along z"
    )
    error = share_of(None, stated, "measured" if (stated.psf or "").startswith(BEADS_OF) else notes.origins["psf"])
    lines = [line, f"psf: its width is taken as known to {100 * error:.2g} %, which samples hold"][: 2 if error else 1]
    margin = beyond, min(MARGIN, reach // scale)
    return Depth(stacks, psfs, (axial, lateral), margin, width_error=error), notes + Notes(*lines)


def axial_fwhm(psf: VolumePSF) -> float:
    """FWHM of a PSF along z, planes."""
    line = psf.axial
    at = np.linspace(0, len(line) - 1, FINE * (len(line) - 1) + 1)
    return float((np.interp(at, np.arange(len(line)), line) > line.max() / 2).sum() / FINE)
