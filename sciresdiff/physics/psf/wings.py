"""Whether the point sources of a frame have wings that a Gaussian lacks.

A seeing that a header states is a width alone. Turbulence makes wings about the core (Racine 1996, PASP 108, 699), and
a Moffat of beta 2.5 to 5 describes both. The Gaussian that fits such stars best is wider than the Moffat that does (by
11 to 16 % on five exposures of DECam, whose headers state it), so that a Moffat of the Gaussian's width is too wide.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sciresdiff.physics.psf.moffat_fit import LOW, MoffatFits, Prior, Stamps, fit_moffats, moffat_pixels
from sciresdiff.physics.psf.residual_table import OUTLIER, STAR_ERROR, WINGS, parameters_of, votes_of

Array = NDArray[np.float64]

MOST_STARS = 60
"""Sources that are asked, the brightest first."""

LEAST_VOTE, LEAST_WINGS = 2.0, 0.1
"""Mean difference of chi2 of a source, and 1 / beta, from which there are wings. The former is at most 0.1 for Gaussian
stars, crowded or not, bright or faint; 3.7 and more for Moffats of beta 5 and less; 5.6 to 7.9 on DECam."""


def has_wings(fits: MoffatFits, stamps: Stamps, wings: float) -> bool:
    """Whether a Moffat fits point sources better than a Gaussian, by a vote of all of them.

    Both are fitted to every source, with its own flux, centre, width, ellipticity and sky.

    Parameters
    ----------
    fits : MoffatFits
        Of the point sources.
    stamps : Stamps
        Of the same.
    wings : float
        1 / beta of the Moffat, as the sources show it.
    """
    if wings < LEAST_WINGS or not len(fits):
        return False
    brightest = np.argsort(-fits.snr, kind="stable")[:MOST_STARS]
    stamps, fwhm = stamps[brightest], float(np.median(fits.fwhm))
    gaussian, moffat = (
        profile_chi2(fit_moffats(stamps, fwhm, Prior(one, 1e-3)), stamps, fwhm) for one in (LOW[WINGS], wings)
    )
    return bool(votes_of(gaussian, moffat, np.isfinite(stamps.noise)).mean() > LEAST_VOTE)


def profile_chi2(fits: MoffatFits, stamps: Stamps, fwhm: float) -> Array:
    """What fits leave of their sources: sum of the squares in standard errors, of a pixel at most 25: (n,).

    Parameters
    ----------
    fits : MoffatFits
    stamps : Stamps
        Of the same sources.
    fwhm : float
        About the width, px.
    """
    shapes = np.stack([np.log(fits.fwhm), fits.wings, fits.e1, fits.e2], 1)
    model, _ = moffat_pixels(parameters_of(fits, stamps, shapes), stamps.grid, fwhm)
    variance = stamps.noise + (STAR_ERROR * (model - fits.sky[:, None])) ** 2
    left = np.where(np.isfinite(variance), stamps.data - model, 0.0)
    return np.asarray(np.minimum(left**2 / variance, OUTLIER**2).sum(1))
