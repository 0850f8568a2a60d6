"""Background and noise of a plane, after SExtractor (photutils; see `detection` for why not sep)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from sciresdiff.checks.arrays import Array, Mask
from sciresdiff.checks.scatter import mad_std

if TYPE_CHECKING:
    from photutils.background import Background2D

BOX = 64
"""Side of the squares that the background is measured in, px."""


def background(plane: Array, mask: Mask | None = None) -> tuple[Array, float]:
    """Measure background and noise: the mode of clipped squares, median-filtered 3 x 3 and interpolated.

    The squares have 64 px; the mode is 2.5 median - 1.5 mean of the values within 3 sigma, or the median where the two
    differ by more than 0.3 sigma (Bertin and Arnouts 1996, A&AS 117, 393, section 3). **In a crowded field background
    and noise are both too high.**

    Parameters
    ----------
    plane : (Y, X) float array.
    mask : (Y, X), True where a pixel is left out; pixels that are not finite always are.

    Returns
    -------
    level : (Y, X) background, unit of the plane.
    rms : median standard deviation of a pixel over the squares, unit of the plane; 0 where every pixel is masked.
    """
    bad = ~np.isfinite(plane) if mask is None else mask | ~np.isfinite(plane)
    if bad.all():
        return np.zeros(plane.shape, np.float32), 0.0
    found = background_map(plane, bad)
    if found is None:
        return np.full(plane.shape, np.median(plane[~bad]), np.float32), mad_std(plane[~bad])
    return np.asarray(found.background, np.float32), float(found.background_rms_median)


def background_map(plane: Array, bad: Mask) -> Background2D | None:
    """Fit photutils' ``Background2D`` to a plane (Y, X) with bad pixels; None where no square has enough good ones."""
    from astropy.stats import SigmaClip
    from photutils.background import Background2D, SExtractorBackground

    box, clip = tuple(min(BOX, side) for side in plane.shape), SigmaClip(3.0, maxiters=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about bad pixels, which are masked
        try:
            return Background2D(
                plane, box, mask=bad, sigma_clip=clip, bkg_estimator=SExtractorBackground(), exclude_percentile=90
            )
        except ValueError:
            return None


def background_noise(plane: Array, mask: Mask | None = None) -> float:
    """Measure the noise of a pixel of a plane (Y, X) as `background` does, unit of the plane."""
    return background(plane, mask)[1]
