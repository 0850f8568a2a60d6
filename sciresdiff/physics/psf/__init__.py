"""Point spread functions: a SPEC or an image in, arrays and the operator's kernel out."""

from sciresdiff.physics.psf.centre import centre_psf
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.psf.image import difference_kernel, fwhm
from sciresdiff.physics.psf.kernel import airy, gaussian, kernel_from_psf, moffat, optical, render, target_psf
from sciresdiff.physics.psf.shapes import SHAPES
from sciresdiff.physics.psf.spec import PSFSpec, parse

__all__ = [
    "PSF", "SHAPES", "PSFSpec", "airy", "centre_psf", "difference_kernel", "fwhm", "gaussian", "kernel_from_psf",
    "moffat", "optical", "parse", "render", "target_psf",
]  # fmt: skip
