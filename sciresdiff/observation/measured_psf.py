"""A PSF that nobody states: measured on stars or beads of the frame or of another file, or estimated blindly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame, PixelSize
from sciresdiff.notes import Notes
from sciresdiff.observation.sample import Samples
from sciresdiff.physics import psf
from sciresdiff.physics.psf.blind import estimate_width
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.psf.measure import measure_psf
from sciresdiff.physics.psf.measured import MeasuredPSF
from sciresdiff.physics.psf.spec import MEASURED

BEADS_OF = "beads:"


def asks_measurement(spec: str | None) -> bool:
    """Whether a SPEC asks for a measurement instead of stating a PSF."""
    return spec is not None and (spec.strip() in MEASURED or spec.strip().startswith(BEADS_OF))


def measure_blur(
    path: str | Path, frame: Frame, samples: Samples, spec: str | None, scale: int, target_fwhm: float
) -> tuple[PSF, Notes]:
    """The blur on the output grid from a measurement; its ``width_error`` is that of the measurement.

    Parameters
    ----------
    path : the file, for messages.
    frame : what it says; its values are not used.
    samples : of its planes, on which is measured.
    spec : ``measure``, ``beads``, ``beads:FILE`` or ``blind``; None where nobody asked, and nobody states a PSF.
    scale : output pixels per pixel of the frame.
    target_fwhm : of the wanted image, output px.

    Raises
    ------
    UsageError : a file of beads whose pixel size is not known.
    InputError : no source to measure on, or a PSF that is narrower than the target.
    """
    word = (spec or "measure").strip()
    if word == "blind":
        sample = samples(first_plane(samples, frame.planes))
        blind = estimate_width(sample.pixels, sample.mask)
        kernel = psf.kernel_from_psf(blind.spec, pixel=None, scale=scale, target_fwhm_px_fine=target_fwhm)
        assert kernel is not None
        return PSF(kernel[None], width_error=blind.fwhm_error), blind.notes + Notes(psf="blind")
    if word.startswith(BEADS_OF):
        found = _measure_beads(word.removeprefix(BEADS_OF), frame.pixel_size)
    else:
        found = measure_plane(samples(first_plane(samples, frame.planes)).frame, beads=word == "beads")
        found = replace(found, notes=found.notes + Notes(f"psf: measured from {found.used} sources of {path}"))
    notes = found.notes + _assume_beads(frame, spec, found) + Notes(psf="measured")
    return PSF(found.kernel(scale, target_fwhm)[None], width_error=found.fwhm_error), notes


def measure_plane(frame: Frame, plane: int = 0, *, beads: bool = False, table: bool = True) -> MeasuredPSF:
    """The PSF that the point sources of one plane of a frame show; see `physics.psf.measure.measure_psf`.

    Parameters
    ----------
    frame : Frame
    plane : int
        Number of the plane.
    beads : bool
        The frame is said to show beads.
    table : bool
        Whether what the sources have beside a Moffat is measured, too.

    Raises
    ------
    InputError
        No source, or a microscope image in which sources of one width do not dominate.
    """
    variance = None if frame.variance is None else frame.variance[plane]
    return measure_psf(frame.pixels[plane], frame.mask[plane], variance, frame.kind, beads=beads, table=table)


def first_plane(samples: Samples, planes: int) -> int:
    """The first plane with a valid pixel; 0 where there is none."""
    valid = (i for i in range(planes) if (~samples(i).mask & np.isfinite(samples(i).pixels)).any())
    return next(valid, 0)


def _assume_beads(frame: Frame, spec: str | None, found: MeasuredPSF) -> Notes:
    """What is assumed where sources of a microscope image are taken for beads."""
    if frame.kind != "micro" or (spec or "").startswith("beads"):
        return Notes()
    alike = (
        f"{found.used} sources of one width, {100 * found.share:.0f} % of those that can be used, are taken for beads"
    )
    if spec is None:
        return Notes(f"WARNING psf: none is stated; {alike}. Puncta of structure would make it too wide; give --psf")
    return Notes(f"psf: {alike}; puncta of structure would make it too wide")


def _measure_beads(name: str, pixel: PixelSize | None) -> MeasuredPSF:
    """The PSF of a file of beads, in px of the frame: its only plane, or the one in focus.

    Raises
    ------
    InputError : no such file, or no beads in it.
    UsageError : nothing named, or a pixel size that is known of one of the two only.
    """
    from sciresdiff import io

    if not name:
        raise UsageError("--psf: beads: needs a file, for instance beads:beads.tif; beads alone measures on the frame")
    frame = io.read(name)
    plane = sharpest_plane(frame)
    found = measure_plane(frame.with_(kind="micro"), plane, beads=True)
    which = f"plane {plane} of {name}, which is in focus" if frame.planes > 1 else name
    notes = found.notes + Notes(f"psf: measured from {found.used} beads of {which}")
    theirs = frame.pixel_size
    if theirs is None or pixel is None or theirs.unit != pixel.unit:
        same = Notes(f"psf: the pixels of {name} are taken to be as large as those of the frame; a size is not known")
        return replace(found, notes=notes + same)
    factor = float(np.sqrt(theirs.y * theirs.x / (pixel.y * pixel.x)))
    if abs(factor - 1) > 1e-3:
        notes += Notes(f"psf: a pixel of {name} is {factor:.4g} pixels of the frame, to which the width is brought")
    return replace(found.rescale(factor), notes=notes)


def sharpest_plane(frame: Frame) -> int:
    """The plane in focus: the one with the largest difference between neighbouring pixels, in the mean square.

    Noise adds the same to every plane of a stack, so that the largest is where points are the sharpest.

    Raises
    ------
    InputError : no valid pixel.
    """
    sharp = np.full(frame.planes, -np.inf)
    for i in range(frame.planes):
        pixels = np.where(frame.mask[i], np.nan, frame.pixels[i].astype(np.float64))
        if np.isfinite(pixels).any():
            sharp[i] = np.nanmean(np.diff(pixels, axis=0) ** 2) + np.nanmean(np.diff(pixels, axis=1) ** 2)
    if not np.isfinite(sharp).any():
        raise InputError("psf: the file of beads has no valid pixel; give another one")
    return int(np.argmax(sharp))
