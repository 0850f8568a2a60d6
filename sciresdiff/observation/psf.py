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
from sciresdiff.observation.options import Stated
from sciresdiff.observation.sample import Samples, first_with_data
from sciresdiff.physics import psf
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.psf.measure import psf_from_sources
from sciresdiff.physics.psf.spec import PSFSpec

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
) -> tuple[PSF | None, float | None, Notes]:
    """The blur on the output grid, the FWHM of the wanted image's PSF, and where they come from.

    Parameters
    ----------
    path : the file, for messages.
    frame : what it says; its values are not used.
    samples : what the PSF is measured on where nobody states it.
    stated : ``kernel`` wins over ``psf``.
    scale : output pixels per pixel of the frame.
    image : (Y, X), an image of the whole PSF on the frame's grid; as ``--psf``.
    kernel : the blur itself, on the output grid; as ``--kernel``.

    Returns
    -------
    A PSF on the output grid, or None for integration over the pixel alone; output px, or None where only the kernel is
    known; and the notes, with the origin ``psf``.

    Raises
    ------
    UsageError : a SPEC that cannot be read.
    InputError : no source to measure a PSF from, or a PSF that is narrower than the target.
    """
    fine = frame.pixel_size.refine(scale) if frame.pixel_size else None
    if kernel is not None:
        blur = kernel if isinstance(kernel, PSF) else PSF.constant(kernel)
        refuse_field(blur, tuple(scale * side for side in frame.pixels.shape[1:]))
        return blur, stated.target_fwhm, Notes(psf="--kernel")
    if stated.kernel:
        return field_of(render_kernel(stated.kernel, fine)), stated.target_fwhm, Notes(psf="--kernel")
    target = stated.target_fwhm or TARGET_FWHM

    def between(whole: PSFSpec | Kernel | str) -> PSF | None:
        return field_of(psf.kernel_from_psf(whole, pixel=frame.pixel_size, scale=scale, target_fwhm_px_fine=target))

    if image is not None:
        return between(np.asarray(image, np.float64)), target, Notes(psf="--psf")
    if stated.psf and stated.psf != "measure":
        return between(stated.psf), target, Notes(psf="--psf")
    if stated.psf is None and frame.kernel is not None and frame.kernel_scale == scale:
        written = render_kernel(frame.kernel, fine) if isinstance(frame.kernel, str) else frame.kernel
        return field_of(written), stated.target_fwhm, Notes(psf="file")
    if stated.psf is None and (spec := psf_of_header(frame)):
        return between(spec), target, Notes(f"psf: {Path(spec).name}, from the file", psf="header")
    whole, used, notes = measure_psf(samples(first_with_data(samples, frame.planes)).frame)
    return between(whole), target, notes + Notes(f"psf: measured from {used} sources of {path}", psf="measured")


def measure_psf(frame: Frame, plane: int = 0) -> tuple[PSFSpec, int, Notes]:
    """The PSF that the point sources of one plane of a frame show; see `physics.psf.measure.psf_from_sources`.

    Returns
    -------
    psf : PSFSpec
        In px of the frame, not integrated over the pixel.
    used : int
        Sources.
    notes : Notes

    Raises
    ------
    InputError
        A microscope image, or fewer than 5 sources.
    """
    variance = None if frame.variance is None else frame.variance[plane]
    return psf_from_sources(frame.pixels[plane], frame.mask[plane], variance, frame.kind)


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


def psf_of_header(frame: Frame) -> str | None:
    """The SPEC of the PSF that the file's header or metadata states, if any."""
    facts = frame.facts
    if frame.psf:
        return frame.psf
    if "fwhm" in facts:
        return f"gaussian:fwhm={facts['fwhm']}px"
    if "na" in facts and "wavelength" in facts:
        return f"airy:na={facts['na']},wavelength={facts['wavelength']}nm"
    return None


def render_kernel(spec: str, fine: PixelSize | None) -> Kernel | None:
    """The kernel of ``--kernel``: sampled at the centres of output pixels, or an image as it is; None for ``none``.

    Parameters
    ----------
    spec : a SPEC in output px, arcsec, um or nm, or a file.
    fine : size of an output pixel; None where it is not known.
    """
    parsed = psf.parse(spec)
    return None if parsed.shape == "none" else psf.render(parsed, fine, integrate=False)
