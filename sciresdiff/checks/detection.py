"""Finding sources: background, noise, detection, apertures, and which source is which."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.evidence import Array, Mask

BOX = 64
"""Side of the squares that the background is measured in, px."""
THRESHOLD = 5.0
"""Sigmas above the background that every pixel of a source stands, after smoothing by `KERNEL`."""
MIN_PIXELS = 5
KERNEL = np.outer((1, 2, 1), (1, 2, 1)) / 16
"""SExtractor's default filter."""
MATCH_PX = 2.0
"""Farthest that a detection may be from the source that it is a detection of."""
BORDER_PX = 20
"""Sources nearer to the border are not counted; a fifth of the side in frames below 100 px."""
APERTURE_PX = 4.0
"""Radius of the apertures, fine px: about two FWHM of a well-sampled star."""


@dataclass(frozen=True, eq=False)
class Sources:
    """Detections on one image; positions in px, (0, 0) the centre of the first pixel."""

    xy: Array
    """(n, 2), centroids as x, y."""
    peaks: Array
    """(n, 2), brightest pixels; the centroid of a bent object may lie beside it."""
    flat: Array
    """(Y, X), the image less its background."""
    level: Array
    """(Y, X), the background."""
    rms: float
    """Noise of a pixel, as measured on this image."""
    core: tuple[slice, slice] | None = None
    """Where sources are counted, in a window of a larger image; None: everywhere."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self.xy)

    @cached_property
    def inner(self) -> Array:
        """(n, 2), those that count: away from the border, and in the core."""
        return np.asarray(self.xy[self._inside])

    @cached_property
    def inner_peaks(self) -> Array:
        """(n, 2), brightest pixels of the same sources."""
        return np.asarray(self.peaks[self._inside])

    @cached_property
    def around(self) -> Array:
        """(n, 2), those away from the border: what the ones that count may be matched with."""
        return np.asarray(self.xy[self._off_border])

    @cached_property
    def in_core(self) -> Mask:
        """(n,), which centroids lie in the core; a source on its border lies in one of two cores."""
        if self.core is None:
            return np.ones(len(self.xy), bool)
        rows, columns = self.core
        first, last = (np.array([columns.start, rows.start]), np.array([columns.stop, rows.stop]))
        return np.asarray(((self.xy >= first - 0.5) & (self.xy < last - 0.5)).all(1))

    @cached_property
    def _inside(self) -> Mask:
        return self._off_border & self.in_core

    @cached_property
    def _off_border(self) -> Mask:
        h, w = self.flat.shape
        edge = [min(BORDER_PX, side // 5) for side in (w, h)]
        return np.asarray(((self.xy > edge) & (self.xy < np.array([w, h]) - edge)).all(1))

    @cached_property
    def fluxes(self) -> Array:
        """Aperture sums at the inner positions."""
        return aperture_sums(self.flat, self.inner)


def background(plane: Array, mask: Mask | None = None) -> tuple[Array, float]:
    """Background and noise, after SExtractor: clipped mode of squares (64 px), median-filtered 3 x 3, interpolated.

    Returns
    -------
    (Y, X) level, and the median of the squares' scatter; both in the image's unit. **In a crowded field both are
    too high.**
    """
    bad = ~np.isfinite(plane) if mask is None else mask | ~np.isfinite(plane)
    if bad.all():
        return np.zeros(plane.shape, np.float32), 0.0
    found = fitted(plane, bad)
    if found is None:
        middle = np.median(plane[~bad])
        scatter = 1.4826 * np.median(abs(plane[~bad] - middle))
        return np.full(plane.shape, middle, np.float32), float(scatter)
    return np.asarray(found.background, np.float32), float(found.background_rms_median)


def fitted(plane: Array, bad: Mask) -> Any:
    """photutils' Background2D of `background`; None where no square has enough good pixels."""
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


def noise_of(plane: Array, mask: Mask | None = None) -> float:
    """Noise of a pixel, as `background` measures it."""
    return background(plane, mask)[1]


def detect(
    plane: NDArray[np.floating], noise: float | None = None, mask: Mask | None = None,
    sky: tuple[Array, float] | None = None, core: tuple[slice, slice] | None = None,
) -> Sources:  # fmt: skip
    """Find sources: 5 sigma above the background over 5 connected pixels, smoothed by 3 x 3, deblended.

    Parameters
    ----------
    plane : (Y, X).
    noise : sigma of a pixel; the image's own by default. An image compared with a truth is searched with the truth's.
    mask : True where nothing is looked for.
    sky : the plane's `background` with that mask, where it is known already.
    core : where sources are counted.

    Returns
    -------
    Positions are centroids of the smoothed light in the source's pixels. Agrees with SExtractor's own code (sep) to
    0.02 in completeness and purity on a crowded star field. **Sources that touch and have no saddle are one.**
    """
    bad = ~np.isfinite(plane) if mask is None else mask | ~np.isfinite(plane)
    level, rms = sky or background(plane, bad)
    flat = np.where(bad, np.float32(0), (plane - level).astype(np.float32))
    return replace(_found(flat, level, rms, THRESHOLD * (noise or rms), bad), core=core)


def detect_below(found: Sources, noise: float, mask: Mask, sigmas: float = THRESHOLD, sign: int = 1) -> Sources:
    """`detect` again on the same image, above its own background, at another threshold or of what is dark.

    Parameters
    ----------
    found : what `detect` made of the image.
    noise, sigmas : the threshold is ``sigmas`` times ``noise``, or times the image's own where that is 0.
    mask : True where nothing is looked for.
    sign : -1 to look for holes.
    """
    below = _found(sign * found.flat, found.level, found.rms, sigmas * (noise or found.rms), mask)
    return replace(below, core=found.core)


def _found(flat: Array, level: Array, rms: float, threshold: float, bad: Mask) -> Sources:
    """Sources above a threshold."""
    from scipy.ndimage import center_of_mass, convolve

    from sciresdiff.checks.deblend import deblend

    smooth = convolve(flat, KERNEL, mode="constant")
    threshold = max(threshold, THRESHOLD * max(1e-6 * float(np.ptp(flat)), np.finfo(float).tiny))
    objects = segments(smooth, threshold, bad)
    if objects is None:
        return Sources(np.empty((0, 2)), np.empty((0, 2)), flat, level, rms)
    labels = deblend(smooth, objects, threshold, min_pixels=MIN_PIXELS)
    yx = np.array(center_of_mass(smooth, labels, np.arange(1, labels.max() + 1)), float)
    return Sources(yx[:, ::-1], _peaks(smooth, labels), flat, level, rms)


def _peaks(smooth: Array, labels: NDArray[np.int32]) -> Array:
    """(n, 2), brightest pixel of every label as x, y."""
    row, column = np.nonzero(labels)
    order = np.lexsort((smooth[row, column], labels[row, column]))
    last = np.flatnonzero(np.diff(labels[row, column][order], append=-1))
    return np.stack([column[order][last], row[order][last]], 1).astype(float)


def segments(smooth: Array, threshold: float | Array, bad: Mask) -> NDArray[np.int32] | None:
    """Labels of connected pixels above the threshold; None where there are none."""
    if bad.all():
        return None
    from photutils.segmentation import detect_sources

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing was found is an answer
        found = detect_sources(smooth, threshold, MIN_PIXELS, mask=bad)
    return None if found is None else np.asarray(found.data, np.int32)


def aperture_sums(flat: Array, xy: Array) -> Array:
    """Sums over circles of radius 4 px around positions (n, 2), with the exact share of every pixel."""
    from photutils.aperture import CircularAperture

    if not len(xy):
        return np.empty(0)
    return np.asarray(CircularAperture(xy, APERTURE_PX).do_photometry(flat)[0], np.float64)


def matched(a: Array, b: Array) -> tuple[Mask, NDArray[np.int64]]:
    """Which of ``a`` have a neighbour in ``b``, and which one is nearest."""
    from scipy.spatial import cKDTree

    if not len(b) or not len(a):
        return np.zeros(len(a), bool), np.zeros(len(a), np.int64)
    distance, nearest = cKDTree(b).query(a)
    return np.asarray(distance < MATCH_PX), np.asarray(nearest, np.int64)
