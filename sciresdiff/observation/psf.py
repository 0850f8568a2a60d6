"""The PSF of a frame: stated, of the file, of its header, else measured on its own sources.

The whole PSF (``--psf``) and the blur between the wanted image and the frame (``--kernel``) are two ways to say the
same: target * kernel = PSF.  What the operator blurs with is the kernel, on the output grid.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import Frame, PixelSize
from sciresdiff.notes import Notes
from sciresdiff.observation.measured_psf import asks_measurement, measure_blurs
from sciresdiff.observation.optics import optics_of
from sciresdiff.observation.options import Stated
from sciresdiff.observation.sample import Samples
from sciresdiff.observation.verify_psf import hold_blurs, refute_specs
from sciresdiff.observation.whole_psf import WholePSF, split_specs
from sciresdiff.physics import psf
from sciresdiff.physics.psf.field import PSF

Kernel = NDArray[np.float64]

TARGET_FWHM = 2.0
"""FWHM of the wanted image's PSF where none is asked for, output px: the least that is well sampled."""


def resolve_psf(
    path: str | Path,
    frame: Frame,
    samples: Samples,
    stated: Stated,
    scale: int,
    image: Kernel | None = None,
    kernel: PSF | Kernel | None = None,
) -> tuple[tuple[PSF | None, ...], float | None, Notes]:
    """The blur on the output grid, the FWHM of the wanted image's PSF, and where they come from.

    Parameters
    ----------
    path : the file, for messages.
    frame : what it says; its values are not used.
    samples : what the PSF is measured on where nobody states it.
    stated : ``kernel`` wins over ``psf``.
    scale : output pixels per pixel of the frame.
    image : (Y, X), an image of the whole PSF on the frame's grid, or (planes, Y, X); as ``--psf``.
    kernel : the blur itself, on the output grid; as ``--kernel``.

    Returns
    -------
    One PSF on the output grid, or one for each plane where they differ, None for integration over the pixel alone;
    output px, or None where only the kernel is known; and the notes, with the origin ``psf``.

    Raises
    ------
    UsageError : a SPEC that cannot be read.
    InputError : no source to measure a PSF from, or a PSF that is narrower than the target.
    """
    fine = frame.pixel_size.refine(scale) if frame.pixel_size else None
    target = stated.target_fwhm or TARGET_FWHM
    whole = WholePSF(frame, scale, target)
    if kernel is not None:
        blur = kernel if isinstance(kernel, PSF) else PSF.constant(kernel)
        refuse_field(blur, whole.size)
        return (blur,), stated.target_fwhm, Notes(psf="--kernel")
    if stated.kernel:
        blurs, notes = whole.fit([render_kernel(stated.kernel, fine)], "kernel")
        if stated.target_fwhm is not None:
            notes += hold_blurs(frame, samples, blurs, scale, target, "--kernel with --target-fwhm")
        return blurs, stated.target_fwhm, notes + Notes(psf="--kernel")
    if image is not None:
        blurs, notes = whole.of_images(np.asarray(image, np.float64))
        notes += hold_blurs(frame, samples, blurs, scale, target, "the PSF that is given")
        return blurs, target, notes + Notes(psf="--psf")
    if stated.psf and not asks_measurement(stated.psf):
        blurs, notes = whole.of_specs(split_specs(stated.psf, frame))
        notes += hold_blurs(frame, samples, blurs, scale, target, f"--psf {stated.psf}")
        return blurs, target, notes + Notes(psf="--psf")
    if stated.psf is None and frame.kernel is not None and frame.kernel_scale == scale:
        written = render_kernel(frame.kernel, fine) if isinstance(frame.kernel, str) else frame.kernel
        return (field_of(written),), stated.target_fwhm, Notes(psf="file")
    specs, notes = specs_of_frame(frame, stated) if stated.psf is None else (None, Notes())
    origin = "--psf" if stated.wavelength or stated.na else "header"
    # a width of the header is held against the stars before it is used, the image of a PSF afterwards
    image_of_file = any(psf.parse(spec).shape == "file" for spec in specs or ())
    exact = image_of_file or "psf_known" in frame.facts  # the latter by this program
    refuted = refute_specs(frame, samples, specs) if specs and origin == "header" and not exact else None
    if specs and refuted is None:
        blurs, more = whole.of_specs(specs)
        if origin == "--psf" or image_of_file:
            more += hold_blurs(frame, samples, blurs, scale, target, specs[0])
        return blurs, target, notes + describe_specs(specs, origin) + more + Notes(psf=origin)
    blurs, more = measure_blurs(path, frame, samples, stated.psf, scale, target)
    return blurs, target, notes + (refuted or Notes()) + more


def field_of(kernel: Kernel | None) -> PSF | None:
    """The PSF that is one kernel (K, L) all over the field; None for none."""
    return None if kernel is None else PSF.constant(kernel)


def refuse_field(psf: PSF, shape: tuple[int, ...]) -> None:
    """Refuse a blur that takes all light away, or that belongs to another grid.

    Parameters
    ----------
    shape : (Y, X) of the output grid.

    Raises
    ------
    InputError
    """
    if psf.weights is not None and psf.weights.shape[1:] != shape:
        raise InputError(
            f"kernel: weight maps of {psf.weights.shape[1:]} px, but the output has {shape}; give its size"
        )
    if not psf.mean.sum() > 0:
        raise InputError(f"kernel: its sum is {psf.mean.sum():g}, which keeps no light; give one whose sum is 1")


def specs_of_frame(frame: Frame, stated: Stated) -> tuple[list[str] | None, Notes]:
    """The PSF that the file states, and the options of a microscope with it: one SPEC, or one for each plane.

    Returns
    -------
    specs : list of str, or None
        None where nothing states it.
    notes : Notes
    """
    optics, notes = optics_of(frame, stated)
    if stated.na or stated.wavelength:
        return optics, notes
    if frame.psf:
        return [frame.psf] if isinstance(frame.psf, str) else list(frame.psf), Notes()
    if (width := width_of_facts(frame)) is not None:
        return [width], Notes()
    return optics, notes


def width_of_facts(frame: Frame) -> str | None:
    """The SPEC of a Gaussian of the header's FWHM, elongated where the header says so; None without one."""
    facts = frame.facts
    if "fwhm" not in facts:
        return None
    shape = f",ratio={facts['ratio']:.6g},theta={facts['theta']:.6g}deg" if "ratio" in facts else ""
    return f"gaussian:fwhm={facts['fwhm']}px{shape}"


def describe_specs(specs: list[str], origin: str) -> Notes:
    """A line for every PSF that is used, with the planes that it belongs to."""
    where = "from the options and the file" if origin == "--psf" else "from the file"
    if len(set(specs)) == 1:
        return Notes(f"psf: {Path(specs[0]).name}, {where}")  # a header names no folder
    planes = {spec: [i for i, one in enumerate(specs) if one == spec] for spec in specs}
    lines = [f"psf: {spec}, {where}, plane {describe_numbers(of)}" for spec, of in planes.items()]
    most = 8
    rest = [f"psf: {len(lines) - most} more of such"] if len(lines) > most else []
    return Notes(*lines[:most], *rest)


def describe_numbers(numbers: list[int]) -> str:
    """A few numbers as text: ``0, 2, 4``, with dots from the fifth on."""
    return ", ".join(map(str, numbers[:4])) + (" ..." if len(numbers) > 4 else "")


def psf_of_header(frame: Frame, plane: int = 0) -> str | None:
    """The SPEC of the PSF of a plane that the file's header or metadata states, if any."""
    specs, _ = specs_of_frame(frame, Stated())
    return None if not specs else specs[plane if len(specs) > 1 else 0]


def render_kernel(spec: str, fine: PixelSize | None) -> Kernel | None:
    """The kernel of ``--kernel``: sampled at the centres of output pixels, or an image as it is; None for ``none``.

    Parameters
    ----------
    spec : a SPEC in output px, arcsec, um or nm, or a file.
    fine : size of an output pixel; None where it is not known.
    """
    parsed = psf.parse(spec)
    return None if parsed.shape == "none" else psf.render(parsed, fine, integrate=False)
