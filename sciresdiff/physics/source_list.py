"""Point-like sources of a frame with the errors of their places, as frames of one field are compared by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciresdiff.physics.psf.moffat_fit import Stamps, cut_stamps
from sciresdiff.physics.psf.point_sources import Field, find_peaks
from sciresdiff.physics.psf.shapes import FWHM_PER_SIGMA

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

ROUNDS = 20
"""Of the centroid; it moves by less than 1e-4 px after ten."""
PIXEL_ERROR = 0.02
"""Error of a centroid of a single bright source by the sampling of its PSF, px; frames of FWHM 1.5 px have this."""
LEAST_FWHM = 1.2
"""Width of the centroid's weight at the least, px: a narrower one would rest on a single pixel."""
SHARPEST = 0.75
"""Share of the light in the 3 x 3 pixels about a peak that one pixel may have, for the peak to be a source and no
cosmic ray or hot pixel; a Gaussian of FWHM 1.3 px, centred on its pixel, has 0.65."""


@dataclass(frozen=True)
class Sources:
    """n sources; every field is an (n,) array, or (n, 2) of y and x."""

    places: Array
    """(n, 2), px."""
    errors: Array
    """(n,) per axis, px."""
    light: Array
    """(n,) sum under the centroid's weight, unit; brightest first."""

    def __len__(self) -> int:
        """Number of sources."""
        return len(self.light)

    def __getitem__(self, chosen: Mask | NDArray[np.int64] | slice) -> Sources:
        """Some of them."""
        return Sources(self.places[chosen], self.errors[chosen], self.light[chosen])


def find_sources(field: Field, fwhm: float, most: int = 400) -> Sources:
    """Find the brightest sources, and their centroids under a Gaussian weight as wide as the PSF.

    The centroid is where the weighted first moment vanishes; of a source as wide as the weight it has nearly the error
    of a fit of the PSF (King 1983, PASP 95, 163). **Neighbours within the PSF pull it.** Peaks with bad pixels in their
    core, and those of a single pixel, are left out.

    Parameters
    ----------
    field : Field
    fwhm : float
        About that of the PSF, px.
    most : int
        Sources at most.
    """
    fwhm = max(fwhm, LEAST_FWHM)
    places, _ = find_peaks(field, fwhm)
    radius = max(2, int(np.ceil(1.3 * fwhm)))
    h, w = field.flat.shape
    inside = (places.min(1, initial=radius) >= radius) & (places[:, 0] < h - radius) & (places[:, 1] < w - radius)
    places = places[inside][: 4 * most]
    stamps = cut_stamps(field.flat, field.noise, places, radius)
    y, x = stamps.grid
    near = (abs(y) <= 1) & (abs(x) <= 1)
    box = np.maximum(stamps.data[:, near].sum(1), 1e-300)
    blunt = stamps.data[:, (y == 0) & (x == 0)][:, 0] < SHARPEST * box
    whole = np.isfinite(stamps.noise[:, np.hypot(y, x) <= 0.6 * fwhm + 1]).all(1)
    stamps = stamps[blunt & whole]
    return _centroids(stamps, fwhm / FWHM_PER_SIGMA, most)


def _centroids(stamps: Stamps, sigma: float, most: int) -> Sources:
    """Centroids of sources under a Gaussian weight of standard deviation ``sigma`` px, those that converge."""
    y, x = stamps.grid
    good = np.isfinite(stamps.noise)
    data, noise = np.where(good, stamps.data, 0), np.where(good, stamps.noise, 0)
    c = np.zeros((len(stamps), 2))
    weight = total = np.ones((len(stamps), 1))
    for _ in range(ROUNDS):
        away = y - c[:, :1], x - c[:, 1:]
        weight = np.exp(-0.5 * (away[0] ** 2 + away[1] ** 2) / sigma**2)
        total = np.maximum((weight * data).sum(1, keepdims=True), 1e-300)
        # where source and weight have one width, the weighted moment is half of the displacement
        step = 2 * np.concatenate([(weight * data * a).sum(1, keepdims=True) for a in away], 1) / total
        c = np.clip(c + np.clip(step, -0.5, 0.5), -1.5, 1.5)
    light = (weight * data).sum(1)
    away_ = np.stack([y - c[:, :1], x - c[:, 1:]])
    errors = 2 * np.sqrt((weight**2 * noise * away_**2).sum(2).mean(0)) / np.maximum(light, 1e-300)
    sound = (np.abs(c).max(1, initial=0) < 1.4) & (light > 0) & (errors < 0.3)
    found = Sources(stamps.places + c, np.hypot(errors, PIXEL_ERROR), light)[sound]
    return found[np.argsort(-found.light, kind="stable")[:most]]
