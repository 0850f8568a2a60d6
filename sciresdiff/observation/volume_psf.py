"""The PSF of a stack in three dimensions: from the optics, from a file, or from a stack of beads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sciresdiff import io
from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame, PixelSize
from sciresdiff.notes import Notes
from sciresdiff.observation.measured_psf import BEADS_OF
from sciresdiff.observation.optics import optics_of
from sciresdiff.observation.options import Stated
from sciresdiff.observation.pixel_size import parse_pixel_size
from sciresdiff.observation.whole_psf import split_specs
from sciresdiff.physics import psf as psfs_of
from sciresdiff.physics.psf.microscope import Microscope
from sciresdiff.physics.psf.spec import MEASURED, METRES, PSFSpec
from sciresdiff.physics.psf.volume import VolumePSF
from sciresdiff.physics.psf.volume_image import Sampling, average_beads, kernel_of_image

GIVE = (
    "give the optics (--na, --ri, --wavelength, --z-step, --pixel-size), --psf FILE or beads:FILE in three dimensions, "
    "or --depth plane to restore every plane by itself"
)
BEYOND = 8
"""Planes beyond a stack, at most, that are restored too."""
SAME = 0.01
"""Share by which two distances differ that are taken for one."""
TOLD = 0.01
"""Share of the light of the outermost plane beyond the kernel from which on it is told."""


def volume_psfs(
    path: str | Path, frame: Frame, stated: Stated, scale: int, planes: Sequence[int]
) -> tuple[tuple[VolumePSF, ...], Notes]:
    """The PSF of every stack, on its planes and the output's pixels.

    Parameters
    ----------
    path : the file, for messages.
    frame : what it says; its values are not used.
    stated : what the user states.
    scale : output pixels per pixel of the file and axis.
    planes : one of every stack.

    Raises
    ------
    UsageError, InputError : no PSF in three dimensions is known, and what to give.
    """
    specs, notes = _specs(path, frame, stated)
    made: dict[str, VolumePSF] = {}
    for spec in (specs[plane if len(specs) > 1 else 0] for plane in planes):
        if spec not in made:
            made[spec], more = _of_spec(path, spec, frame, stated, scale)
            notes += more
    return tuple(made[specs[plane if len(specs) > 1 else 0]] for plane in planes), notes.unique()


def _specs(path: str | Path, frame: Frame, stated: Stated) -> tuple[list[str], Notes]:
    """The SPEC of every plane, or of all."""
    if stated.kernel:
        raise InputError(f"--kernel {stated.kernel}: is the blur of one plane; {GIVE}")
    if stated.psf:
        return split_specs(stated.psf, frame), Notes(psf="--psf")
    specs, notes = optics_of(frame, stated)
    if specs is None:
        raise InputError(f"{path}: a z-stack whose PSF in depth is not known; {GIVE}")
    return specs, notes + Notes(psf="--psf" if stated.na or stated.wavelength else "header")


def _of_spec(path: str | Path, spec: str, frame: Frame, stated: Stated, scale: int) -> tuple[VolumePSF, Notes]:
    """The PSF of one SPEC."""
    if spec.startswith(BEADS_OF):
        return _of_file(path, spec.removeprefix(BEADS_OF), True, frame, stated, scale)
    if spec.strip() in MEASURED:
        raise InputError(f"--psf {spec}: is measured on one plane, and tells nothing of depth; {GIVE}")
    parsed = psfs_of.parse(spec)
    if parsed.shape == "file":
        return _of_file(path, str(parsed.path), False, frame, stated, scale)
    if parsed.shape not in ("airy", "vectorial") or "na" not in parsed.params:
        raise InputError(f"--psf {spec}: is the PSF of one plane; {GIVE}")
    return _of_optics(path, parsed, frame, stated, scale)


def plane_step(path: str | Path, frame: Frame, stated: Stated) -> float:
    """Distance between the planes of a stack, um.

    Raises
    ------
    UsageError, InputError : no size, or none is known.
    """
    if stated.z_step is not None:
        size = parse_pixel_size(stated.z_step, "--z-step")
        if size is None or size.unit != "um":
            raise UsageError(f"--z-step: {stated.z_step!r} is no distance; give a number with um or nm, as 0.25um")
        return size.x
    if not (step := frame.facts.get("z_step")):
        raise InputError(f"{path}: the distance between its planes is not known; give --z-step, for example 0.25um")
    return step


def pixel_of(path: str | Path, frame: Frame, scale: int) -> PixelSize:
    """Pixel of the output, um.

    Raises
    ------
    InputError : it is not known.
    """
    if frame.pixel_size is None or frame.pixel_size.unit != "um":
        raise InputError(f"{path}: the size of its pixels is not known; give --pixel-size, for example 0.065um")
    return frame.pixel_size.refine(scale)


def _of_optics(path: str | Path, spec: PSFSpec, frame: Frame, stated: Stated, scale: int) -> tuple[VolumePSF, Notes]:
    """The PSF of an objective."""
    step, pixel = plane_step(path, frame, stated), pixel_of(path, frame, scale)
    microscope, notes = microscope_of(spec, frame, stated)
    planes = frame.shape[frame.axes.index("Z")]
    psf, lost = microscope.kernel(pixel, step, planes - 1 + BEYOND)
    one = microscope
    line = f"psf: {one.kind}, NA {one.na:g}, index {one.ri:g}, {1000 * one.wavelength:g} nm ({one.model})"
    line += f", planes {step:.4g} um apart, pixels of {pixel.x:.4g} um"
    if lost > TOLD:
        line += f"; {100 * lost:.0f} % of the light of the farthest plane lies beyond {psf.kernel.shape[2] // 2} px"
    return psf, notes + Notes(line)


def _of_file(
    path: str | Path, name: str, beads: bool, frame: Frame, stated: Stated, scale: int
) -> tuple[VolumePSF, Notes]:
    """The PSF of a file that shows it, or beads; a sampling that it does not state is that of the stack.

    Parameters
    ----------
    path, frame, stated, scale : as for `volume_psfs`.
    name : of the file.
    beads : whether it shows beads.
    """
    if not name:
        raise UsageError("--psf: beads: needs a file, for instance beads:beads.tif; beads alone sees no depth")
    found, said = io.read(name), f"psf {Path(name).name}"
    image = found.pixels.astype(np.float64)
    sampling, notes = _sampling(path, said, found, frame, stated, scale)
    if beads:
        image, count = average_beads(image, said)
        line = f"{said}: mean of {count} beads that stand alone, without background; their own size is in it"
        notes += Notes(line)
    psf, more = kernel_of_image(image, sampling, said)
    h, w = frame.pixels.shape[1:]
    reach = max(psf.kernel.shape[1:]) // 2
    if reach > scale * max(h, w):
        more += Notes(f"{said}: reaches {reach} output px, farther than the stack is wide; what lies beyond is cut")
    return psf, notes + more


def _sampling(
    path: str | Path, said: str, found: Frame, frame: Frame, stated: Stated, scale: int
) -> tuple[Sampling, Notes]:
    """Voxels of the file of a PSF and of the kernel, um, or px and planes of the stack where sizes are not known."""
    notes, ours, theirs = Notes(), frame.pixel_size, found.pixel_size
    if ours is None or theirs is None or ours.unit != theirs.unit:
        notes += Notes(f"{said}: its pixels are taken to be as large as the stack's; a size is not known")
        ours = theirs = PixelSize(1.0, 1.0, "um")
    their_step = found.facts.get("z_step")
    known = stated.z_step is not None or "z_step" in frame.facts
    if their_step is None or not known:
        notes += Notes(f"{said}: its planes are taken to be as far apart as the stack's; a distance is not known")
        step = their_step = 1.0
    else:
        step = plane_step(path, frame, stated)
    if abs(their_step / step - 1) > SAME:
        notes += Notes(f"{said}: its planes are {their_step:.4g} um apart, those of the stack {step:.4g}; interpolated")
    fine = ours.refine(scale)
    return Sampling((their_step, theirs.y, theirs.x), (step, fine.y, fine.x)), notes


def microscope_of(spec: PSFSpec, frame: Frame, stated: Stated) -> tuple[Microscope, Notes]:
    """The optics of a SPEC, with what options and file say of the rest.

    Raises
    ------
    UsageError : options that contradict each other, or an index that is not known.
    """
    numbers = {name: value for name, (value, _) in spec.params.items()}
    lengths = {name: 1e6 * value * METRES[unit] for name, (value, unit) in spec.params.items() if unit in METRES}
    ri = numbers.get("ri") or stated.ri or frame.facts.get("refractive_index")
    if ri is None:
        raise InputError("--ri: the refractive index of the immersion is not known; give it (oil 1.515, water 1.333)")
    if (stated.sample_ri is None) != (stated.sample_depth is None):
        missing = "--sample-depth" if stated.sample_depth is None else "--sample-ri"
        raise UsageError(f"{missing}: index and depth of the specimen say nothing without each other; give both")
    if stated.sheet is not None and stated.pinhole is not None:
        raise UsageError("--sheet: a light sheet has no pinhole; give --sheet or --pinhole")
    microscope = Microscope(
        na=numbers["na"],
        ri=ri,
        wavelength=lengths["wavelength"],
        excitation=lengths.get("excitation"),
        pinhole=numbers.get("pinhole") or stated.pinhole,
        sheet=stated.sheet,
        sample_ri=stated.sample_ri,
        sample_depth=stated.sample_depth or 0.0,
        vectorial=bool(stated.psf) and spec.shape == "vectorial",
    )
    return _with_pinhole_of_file(microscope, frame)


def _with_pinhole_of_file(microscope: Microscope, frame: Frame) -> tuple[Microscope, Notes]:
    """The same with the pinhole that the file states, if the user states none."""
    if not frame.facts.get("confocal") or microscope.pinhole or microscope.sheet:
        return microscope, Notes()
    size = frame.facts.get("pinhole_um")
    if size is None:
        line = "WARNING psf: confocal by its metadata, which state no pinhole; 1 Airy unit is taken, give --pinhole"
        return replace(microscope, pinhole=1.0), Notes(line)
    units = size * microscope.na / (1.22 * microscope.wavelength)
    return replace(microscope, pinhole=units), Notes(f"psf: a pinhole of {units:.2g} Airy units, from the file")
