"""How well the width of a PSF is known: stated, measured, or usual for where the PSF comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sciresdiff.notes import Notes
from sciresdiff.observation.noise import Noise
from sciresdiff.observation.options import Stated
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.psf.shapes import FWHM_PER_SIGMA
from sciresdiff.physics.psf.width import sigma_of_square
from sciresdiff.physics.psf.width_error import WidthError

USUAL = {"--psf": 0.01, "header": 0.05, "measured": 0.02, "blind": 0.15}
"""Error of the width by the origin of a PSF; a kernel that is stated, or that ``degrade`` wrote, is exact."""
LARGEST = 0.5
"""Error of a kernel's width beyond which it is no width any more."""


def share_of(psf: PSF | None, stated: Stated, origin: str) -> float:
    """The error of the width, as a share: stated, else that of the measurement, else the usual one of its origin."""
    if stated.psf_error is not None:
        return stated.psf_error
    if psf is not None and psf.width_error is not None:
        return psf.width_error
    return USUAL.get(origin, 0.0)


def resolve_psf_error(
    psfs: tuple[PSF | None, ...], noise: Noise, stated: Stated, scale: int, target: float | None, origin: str
) -> tuple[tuple[PSF | None, ...], Noise, Notes]:
    """The PSFs of the planes, and the noise, with the error of the width.

    Parameters
    ----------
    psfs : on the output grid, one or one of each plane; None for integration over the pixel alone, which has no width.
    noise : of the frame, so far.
    stated : ``psf_error`` wins over what is usual.
    scale : output pixels per pixel of the frame.
    target : FWHM of the wanted image's PSF, output px; None where only the kernel is known.
    origin : where the PSF comes from.

    Returns
    -------
    The PSFs, whose ``width_error`` is that of the kernel; the noise; and what is assumed.
    """
    shares = [share_of(psf, stated, origin) if psf and max(psf.mean.shape) >= 3 else 0.0 for psf in psfs]
    if not any(shares):
        return tuple(psf and replace(psf, width_error=None) for psf in psfs), noise, Notes()
    own = 0.0 if origin == "--kernel" or target is None else (target / FWHM_PER_SIGMA) ** 2
    errors = [error_of_kernel(psf, share, own) for psf, share in zip(psfs, shares, strict=True)]
    line = f"psf: its width is taken as known to {100 * max(shares):.2g} %, which noise and samples hold"
    return *with_width_errors(psfs, noise, scale, errors), Notes(line)


def error_of_kernel(psf: PSF | None, share: float, own: float) -> float:
    """The error of a kernel's width, as a share of it.

    Parameters
    ----------
    share : the error of the width of kernel and wanted image together.
    own : variance of the wanted image's PSF, output px^2, which is exact, so that all of the error is the kernel's.
    """
    if psf is None or not share:
        return 0.0
    kernel = sigma_of_square(psf.mean) ** 2
    return min(share * (kernel + own) / kernel, LARGEST)


def with_width_errors(
    psfs: tuple[PSF | None, ...], noise: Noise, scale: int, errors: Sequence[float]
) -> tuple[tuple[PSF | None, ...], Noise]:
    """PSFs and a noise that hold errors of the kernels' widths.

    Parameters
    ----------
    scale : output pixels per pixel of the frame.
    errors : of every PSF, a share of its kernel's width.
    """
    pairs = list(zip(psfs, errors, strict=True))
    nothing = PSF.constant(np.ones((1, 1)))
    widths = tuple(WidthError.of_psf(nothing if psf is None else psf, scale, e) for psf, e in pairs)
    return tuple(psf and replace(psf, width_error=e) for psf, e in pairs), replace(noise, width_errors=widths)
