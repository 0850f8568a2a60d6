"""The flux error of the STAR benchmark, for comparison with what is published on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.arrays import Array, Mask
from sciresdiff.checks.background import background_map
from sciresdiff.checks.check import Check, UnmeasuredError
from sciresdiff.checks.deblend import deblend
from sciresdiff.checks.detection import KERNEL, MIN_PIXELS, in_core, segments, smooth_by_kernel
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.result import Result
from sciresdiff.checks.sources import require_true_sources

SIGMAS = 1.5
"""Detection threshold of the benchmark."""
AXES = 2.5
"""Semi-axes of the apertures, in those of the source."""
MOST = 5000
"""Sources that are measured; of more, evenly many are taken."""
THINNEST = 0.00694
"""det of the moments, px^4, below which a source is widened by 1/12 px^2, as SExtractor does."""


@dataclass(frozen=True, eq=False)
class Ellipses:
    """Positions and shapes of n sources; px, radians."""

    xy: Array
    """(n, 2), centroids as x, y."""
    a: Array
    """(n,), semi-major axis, rms along it."""
    b: Array
    """(n,), semi-minor axis."""
    theta: Array
    """(n,), angle of the major axis from x to y."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self.xy)

    def select(self, which: Mask | slice) -> Ellipses:
        """Keep some of them."""
        return Ellipses(self.xy[which], self.a[which], self.b[which], self.theta[which])


def ellipses(plane: Array, bad: Mask) -> Ellipses:
    """Find the sources of an image as the benchmark does, from the low threshold that it uses.

    sep.extract(x - background, 1.5, err=rms): the image filtered with SExtractor's 3 x 3 kernel stands 1.5 sigma of
    its own, filtered noise above the background, over 5 pixels; deblended. Semi-axes a, b and angle theta are those of
    the second moments of the filtered light (SExtractor's A_IMAGE, B_IMAGE, THETA_IMAGE). **Without its cleaning, as
    sep.extract(..., clean=False): noise beside bright sources stays, and lowers the mean.**

    Parameters
    ----------
    plane : (Y, X) float array.
    bad : (Y, X), True where nothing is looked for.
    """
    flat, rms = subtract_background(plane, bad)
    smooth = smooth_by_kernel(flat)
    threshold = SIGMAS * rms * float(np.sqrt((KERNEL**2).sum()))  # the kernel lowers white noise by this factor
    objects = segments(smooth, threshold, bad)
    if objects is None:
        return Ellipses(np.empty((0, 2)), np.empty(0), np.empty(0), np.empty(0))
    return _ellipses_of_labels(smooth, deblend(smooth, objects, float(np.median(threshold)), min_pixels=MIN_PIXELS))


def subtract_background(plane: Array, bad: Mask) -> tuple[Array, Array]:
    """Subtract the background from a plane (Y, X), 0 at bad pixels; also the noise of every pixel, (Y, X).

    Raises
    ------
    UnmeasuredError : no square of 64 px has enough good pixels.
    """
    found = background_map(plane, bad)
    if found is None:
        raise UnmeasuredError("too few pixels that are not masked for a background")
    rms = np.asarray(found.background_rms, np.float64)
    return np.where(bad, 0.0, plane - found.background), np.maximum(rms, np.finfo(float).tiny)


def _ellipses_of_labels(smooth: Array, labels: NDArray[np.int32]) -> Ellipses:
    """Ellipses of the first and second moments of the light in every label."""
    row, column = np.nonzero(labels)
    which, light = labels[row, column], smooth[row, column]
    total = np.bincount(which, light)[1:]
    x, y = (np.bincount(which, light * p)[1:] / total for p in (column, row))
    dx, dy = column - x[which - 1], row - y[which - 1]
    xx, yy, xy = (np.bincount(which, light * p)[1:] / total for p in (dx * dx, dy * dy, dx * dy))
    # one pixel has the moments of a uniform square, 1 / 12 px^2
    thin = xx * yy - xy**2 < THINNEST
    xx, yy = xx + thin / 12, yy + thin / 12
    # semi-axes are the roots of the eigenvalues of the moments
    middle, half = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    theta = np.arctan2(2 * xy, xx - yy) / 2
    return Ellipses(np.stack([x, y], 1), np.sqrt(middle + half), np.sqrt(np.maximum(middle - half, 0)), theta)


def ellipse_sums(flat: Array, found: Ellipses) -> Array:
    """Sum a plane (Y, X) over ellipses of 2.5 times the sources' semi-axes, with exact shares of the pixels: (n,)."""
    from photutils.aperture import EllipticalAperture

    shapes = zip(found.xy, found.a, found.b, found.theta, strict=True)
    sums = [
        EllipticalAperture(xy, AXES * a, AXES * b, theta=theta).do_photometry(flat)[0][0] for xy, a, b, theta in shapes
    ]
    return np.asarray(sums, np.float64)


def _true_fluxes(evidence: Evidence) -> tuple[Ellipses, Array]:
    """The truth's sources in the core, at most `MOST`, and their fluxes."""
    assert evidence.truth is not None
    bad = ~evidence.valid_high
    found = ellipses(evidence.truth, bad)
    found = found.select(in_core(found.xy, evidence.core))
    found = found.select(slice(None, None, max(1, -(-len(found) // MOST))))
    return found, ellipse_sums(subtract_background(evidence.truth, bad)[0], found)


def flux_error_star(evidence: Evidence) -> list[Result]:
    """Mean of |F - F_true| over the truth's sources, in the image's unit, and the median of |F - F_true| / |F_true|.

    FE of the STAR benchmark (Wu et al. 2025, NeurIPS, as its code computes it): sources at 1.5 sigma of the truth, sums
    over ellipses of 2.5 times their semi-axes, on image and truth at the truth's sources, each above its own
    background. The benchmark computes it on patches that were stretched to 0..1 one by one; **this is in the image's
    own unit, and not comparable in size with published ones. The brightest sources make the sum; most sources at 1.5
    sigma are noise, and since they are not cleaned as the benchmark's are, the mean may be several times smaller.**
    ``flux_error_rel`` is the relative median.
    """
    require_true_sources(evidence)
    found, true = evidence.share("flux_error", lambda: _true_fluxes(evidence))
    if not len(found):
        raise UnmeasuredError("no source in the truth at 1.5 sigma")
    flux = ellipse_sums(subtract_background(evidence.finite_high, ~evidence.valid_high)[0], found)
    error, lit = np.abs(flux - true), true != 0
    count = f"{len(found)} sources of the truth at {SIGMAS:g} sigma, ellipses of {AXES:g} semi-axes"
    meaning = f"in the image's unit; {count}"
    results = [Result("flux_error_star", float(error.mean()), "", "sources", meaning=meaning, weight=len(found))]
    if lit.any():
        relative, meaning = float(np.median(error[lit] / np.abs(true[lit]))), f"relative, median of {count}"
        results.append(Result("flux_error_rel", relative, "", "sources", meaning=meaning, weight=len(found)))
    return results


CHECKS = {
    "flux_error_star": Check(
        flux_error_star,
        "Mean absolute flux error of the sources, in the image's unit, as in the STAR benchmark.",
        "Faint sources: the brightest dominate the mean; and its unit is the image's, not the benchmark's.",
        ("truth",),
        ("flux_error_star", "flux_error_rel"),
    ),
}
