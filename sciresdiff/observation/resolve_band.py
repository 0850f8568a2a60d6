"""One of several bands of a field, on the grid and with the PSF that all of them get.

No image is asked to be sharper than `RESOLVED` of its PSF: what is beyond that stays unresolved in part, the more the
fainter a source, and a colour in a small aperture would tell of it.  Bands with a narrower PSF are restored to that
share of it (or less, where its core or rings are finer than a Gaussian's) and then widened to the PSF of all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from sciresdiff.notes import Notes
from sciresdiff.observation.joint import Joint
from sciresdiff.observation.resolve_joint import Given
from sciresdiff.observation.sharper_target import resolve_restorable, resolve_target
from sciresdiff.physics.psf.image import fwhm
from sciresdiff.physics.psf.kernel import target_psf
from sciresdiff.physics.psf.shapes import FWHM_PER_SIGMA

Array = NDArray[np.float64]

RESOLVED = 0.8
"""FWHM of an image over that of its PSF, at the least. On simulated stars and galaxies at signal to noise of 30 to 100,
in apertures of half the FWHM as radius, colours are right to 0.7 % at 0.8 and to 1.1 % at 0.7."""
LEAST = 3.0
"""Output px in the FWHM of a PSF that are needed. There colours are right to 0.6 % with 4.4 px in the narrowest, 1.0 %
with 3.3, 1.4 % with 3.0 and 1.9 % with 2.75; with 2.2 they are off by 6 %."""
SHARES = (RESOLVED, 0.7, 0.6, 0.5, 0.4, 0.3)
"""FWHM of the image that is restored over that of its PSF: the first one that the PSF's core and rings allow."""
POINT = 0.5
"""FWHM, output px, of an image whose blur is the PSF itself."""
PIXEL_FWHM = FWHM_PER_SIGMA / np.sqrt(12)
"""FWHM of a Gaussian with the second moment of a pixel, px."""


def measure_width(given: Given, grid: Any) -> tuple[float, float]:
    """FWHM of a band's PSF on a grid without and with the band's pixel, output px.

    Parameters
    ----------
    given : the band, open.
    grid : astropy.io.fits.Header of the output's grid.

    Raises
    ------
    InputError : as `resolve_joint`; a PSF narrower than 0.5 output px.
    """
    joint = resolve_target([given], POINT, 1.0, grid)
    width = fwhm(whole_psf(joint, POINT))
    return width, float(np.hypot(width, PIXEL_FWHM * joint.parts[0].place.scale))


def whole_psf(joint: Joint, target: float) -> Array:
    """The PSF that a measurement by one band has, on the output's grid: its blur and that of the wanted image."""
    psf = joint.parts[0].exposure.psf
    assert psf is not None
    return np.asarray(fftconvolve(psf.mean, target_psf(target)))


def sharpest_supported(given: Given, grid: Any, most: float) -> tuple[Joint, float, float]:
    """The measurement of a band whose blur has few negative lobes, the FWHM of its image, and that of the PSF.

    Parameters
    ----------
    most : FWHM that the image may have, output px.
    """
    pointlike = resolve_target([given], POINT, 1.0, grid)
    width = fwhm(whole_psf(pointlike, POINT))
    found = resolve_restorable([given], [min(most, share * width) for share in SHARES], 1.0, grid)
    return *(found or (pointlike, POINT)), width


def resolve_band(given: Given, grid: Any, target: float) -> Joint:
    """The measurement of one band, whose image is to have a PSF that others have too.

    Parameters
    ----------
    given : the band, open.
    grid : astropy.io.fits.Header of the output's grid.
    target : FWHM of the Gaussian that is wanted, output px.

    Raises
    ------
    InputError : as `measure_width`.
    """
    joint, own, width = sharpest_supported(given, grid, target)
    with_pixel = float(np.hypot(width, PIXEL_FWHM * joint.parts[0].place.scale))
    widened = float(np.sqrt(max(target**2 - own**2, 0.0)))
    size = joint.grid.pixel_size
    wanted = "" if size is None else f" ({target * size.y:.3g} {size.unit})"
    line = f"match-psf: FWHM {target:.3g} output px{wanted}; restored to {own:.3g} of the {width:.3g} px of its PSF"
    notes = Notes(f"{line}, then widened" if widened > 0 else line)
    if width < LEAST:
        notes += Notes(
            f"WARNING match-psf: {given.name}: its PSF has a FWHM of {width:.3g} output px, and {LEAST:g} are needed"
            " for colours that are right; give a larger --scale"
        )
    if target < 0.99 * RESOLVED * with_pixel:
        notes += Notes(
            f"WARNING match-psf: {given.name}: FWHM {target:.3g} px is less than {RESOLVED} of its PSF with the pixel, "
            f"{with_pixel:.3g} px; colours in small apertures are off; give --target-fwhm {RESOLVED * with_pixel:.3g}"
        )
    return replace(joint, target_fwhm=target, widened=widened, notes=notes + joint.notes)
