"""A PSF that nobody states: measured on stars or beads of the frame or of another file, or estimated blindly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame, PixelSize
from sciresdiff.notes import Notes
from sciresdiff.observation.optics import channel_of_planes
from sciresdiff.observation.sample import Sample, Samples, first_with_data
from sciresdiff.physics import psf
from sciresdiff.physics.psf.blind import estimate_width
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.psf.measure import find_population, measure_psf
from sciresdiff.physics.psf.measured import MeasuredPSF
from sciresdiff.physics.psf.measured_field import MeasuredField, measure_field
from sciresdiff.physics.psf.point_sources import Population, prepare_field
from sciresdiff.physics.psf.spec import MEASURED

BEADS_OF = "beads:"

MOST_CHANNELS = 8
"""Channels that are measured one by one; more of them are a spectrum."""


def asks_measurement(spec: str | None) -> bool:
    """Whether a SPEC asks for a measurement instead of stating a PSF."""
    return spec is not None and (spec.strip() in MEASURED or spec.strip().startswith(BEADS_OF))


def measure_blurs(
    path: str | Path, frame: Frame, samples: Samples, spec: str | None, scale: int, target_fwhm: float
) -> tuple[tuple[PSF, ...], Notes]:
    """The blur on the output grid from a measurement, on each channel its own; ``width_error`` is that of it.

    Parameters
    ----------
    path : the file, for messages.
    frame : what it says; its values are not used.
    samples : of its planes, on which is measured.
    spec : ``measure``, ``beads``, ``beads:FILE`` or ``blind``; None where nobody asked, and nobody states a PSF.
    scale : output pixels per pixel of the frame.
    target_fwhm : of the wanted image, output px.

    Returns
    -------
    blurs : tuple of PSF
        One, or one for each plane where there are channels.
    notes : Notes

    Raises
    ------
    UsageError : a file of beads that is not named.
    InputError : no source to measure on, or a PSF that is narrower than the target.
    """
    of_plane = channel_of_planes(frame)
    channels = max(of_plane) + 1
    if channels == 1 or channels > MOST_CHANNELS or (spec or "").startswith(BEADS_OF):
        plane = first_with_data(samples, frame.planes)
        blur, notes = _measure_blur(path, frame, samples, plane, spec, scale, target_fwhm)
        return (blur,), notes
    found: dict[int, PSF] = {}
    notes, refusal = Notes(), None
    for channel in range(channels):
        planes = [i for i, of in enumerate(of_plane) if of == channel]
        plane = next((i for i in planes if not samples(i).mask.all()), planes[0])
        try:
            found[channel], more = _measure_blur(path, frame, samples, plane, spec, scale, target_fwhm)
            notes += Notes(*(f"channel {channel}: {line}" for line in more if line.startswith("psf")), **more.origins)
            notes += Notes(*(line for line in more if not line.startswith("psf")))
        except InputError as problem:
            refusal = problem
    if not found:
        assert refusal is not None
        raise refusal
    for channel in set(range(channels)) - set(found):
        other = min(found)
        line = f"WARNING psf: channel {channel} shows no source to measure on; that of channel {other} is taken"
        found[channel], notes = found[other], notes + Notes(line)
    return tuple(found[channel] for channel in of_plane), notes.unique()


def _measure_blur(
    path: str | Path, frame: Frame, samples: Samples, plane: int, spec: str | None, scale: int, target_fwhm: float
) -> tuple[PSF, Notes]:
    """The blur that one plane shows, or a file of beads."""
    word = (spec or "measure").strip()
    if word == "blind":
        blind = estimate_width(samples(plane).pixels, samples(plane).mask)
        kernel = psf.kernel_from_psf(blind.spec, pixel=None, scale=scale, target_fwhm_px_fine=target_fwhm)
        assert kernel is not None
        return PSF(kernel[None], width_error=blind.fwhm_error), blind.notes + Notes(psf="blind")
    if word.startswith(BEADS_OF):
        found = _measure_beads(word.removeprefix(BEADS_OF), frame.pixel_size)
    else:
        population = None
        if frame.kind == "astro" and word == "measure":
            population = population_of(samples(plane))
            if field := measure_field_of(samples(plane), population, frame):
                return field.blur(scale, target_fwhm), field.notes + Notes(psf="measured")
        found = measure_plane(samples(plane).frame, beads=word == "beads", population=population)
        found = replace(found, notes=found.notes + Notes(f"psf: measured from {found.used} sources of {path}"))
    notes = found.notes + _assume_beads(frame, spec, found) + Notes(psf="measured")
    return PSF(found.kernel(scale, target_fwhm)[None], width_error=found.fwhm_error), notes


def population_of(sample: Sample) -> Population:
    """The sources of a sample."""
    frame = sample.frame
    return find_population(
        prepare_field(frame.pixels[0], frame.mask[0], None if frame.variance is None else frame.variance[0])
    )


def measure_field_of(sample: Sample, population: Population, frame: Frame) -> MeasuredField | None:
    """The PSF field that the stars of a sample show; None where they show none.

    Parameters
    ----------
    sample : of a plane.
    population : its sources.
    frame : what the file says.
    """
    y, x = sample.places_of(population.fits.y, population.fits.x)
    return measure_field(population, y, x, (frame.pixels.shape[1], frame.pixels.shape[2]))


def measure_plane(
    frame: Frame, plane: int = 0, *, beads: bool = False, table: bool = True, population: Population | None = None
) -> MeasuredPSF:
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
    population : Population, optional
        The sources of the plane, where they are known.

    Raises
    ------
    InputError
        No source, or a microscope image in which sources of one width do not dominate.
    """
    variance = None if frame.variance is None else frame.variance[plane]
    return measure_psf(
        frame.pixels[plane], frame.mask[plane], variance, frame.kind, beads=beads, table=table, population=population
    )


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
