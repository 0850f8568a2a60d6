"""Point spread functions: a SPEC or an image in, arrays and the operator's kernel out."""

from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.psf.image import centred, difference_kernel, fwhm, moments
from sciresdiff.physics.psf.kernel import airy, gaussian, kernel_from_psf, moffat, optical, render, target_of
from sciresdiff.physics.psf.shapes import SHAPES
from sciresdiff.physics.psf.spec import PSFSpec, parse

__all__ = [
    "PSF", "SHAPES", "PSFSpec", "airy", "centred", "difference_kernel", "fwhm", "gaussian", "kernel_from_psf",
    "moffat", "moments", "optical", "parse", "render", "target_of",
]  # fmt: skip
