"""The flux error of the STAR benchmark, for comparison with what is published on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.check import Check, UnmeasuredError
from sciresdiff.checks.deblend import deblend
from sciresdiff.checks.detection import KERNEL, MIN_PIXELS, fitted, segments
from sciresdiff.checks.evidence import Array, Evidence, Mask, Result
from sciresdiff.checks.sources import enough

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
    """Places and shapes of n sources; px, radians."""

    xy: Array
    """(n, 2)."""
    a: Array
    b: Array
    theta: Array

    def __len__(self) -> int:
        """How many there are."""
        return len(self.xy)


def ellipses(plane: Array, bad: Mask) -> Ellipses:
    """Sources of an image as the benchmark finds them, from the low threshold that it uses.

    sep.extract(x - background, 1.5, err=rms): the image filtered with SExtractor's 3 x 3 kernel stands 1.5 sigma of
    its own, filtered noise above the background, over 5 pixels; deblended. Semi-axes a, b and angle theta are those of
    the second moments of the filtered light (SExtractor's A_IMAGE, B_IMAGE, THETA_IMAGE). **Without its cleaning, as
    sep.extract(..., clean=False): noise beside bright sources stays, and lowers the mean.**
    """
    flat, rms = leveled(plane, bad)
    smooth = _filtered(flat)
    threshold = SIGMAS * rms * float(np.sqrt((KERNEL**2).sum()))
    objects = segments(smooth, threshold, bad)
    if objects is None:
        return Ellipses(np.empty((0, 2)), np.empty(0), np.empty(0), np.empty(0))
    return _of_labels(smooth, deblend(smooth, objects, float(np.median(threshold)), min_pixels=MIN_PIXELS))


def leveled(plane: Array, bad: Mask) -> tuple[Array, Array]:
    """The image less its background, 0 at bad pixels, and the noise of every pixel, (Y, X) each.

    Raises
    ------
    UnmeasuredError : no square of 64 px has enough good pixels.
    """
    found = fitted(plane, bad)
    if found is None:
        raise UnmeasuredError("too few pixels that are not masked for a background")
    rms = np.asarray(found.background_rms, np.float64)
    return np.where(bad, 0.0, plane - found.background), np.maximum(rms, np.finfo(float).tiny)


def _filtered(flat: Array) -> Array:
    from scipy.ndimage import convolve

    return np.asarray(convolve(flat, KERNEL, mode="constant"))


def _of_labels(smooth: Array, labels: NDArray[np.int32]) -> Ellipses:
    """First and second moments of the light in every label."""
    row, column = np.nonzero(labels)
    which, light = labels[row, column], smooth[row, column]
    total = np.bincount(which, light)[1:]
    x, y = (np.bincount(which, light * p)[1:] / total for p in (column, row))
    dx, dy = column - x[which - 1], row - y[which - 1]
    xx, yy, xy = (np.bincount(which, light * p)[1:] / total for p in (dx * dx, dy * dy, dx * dy))
    thin = xx * yy - xy**2 < THINNEST
    xx, yy = xx + thin / 12, yy + thin / 12
    middle, half = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    theta = np.arctan2(2 * xy, xx - yy) / 2
    return Ellipses(np.stack([x, y], 1), np.sqrt(middle + half), np.sqrt(np.maximum(middle - half, 0)), theta)


def ellipse_sums(flat: Array, found: Ellipses) -> Array:
    """Sums over ellipses of 2.5 times the sources' semi-axes, with the exact share of every pixel: (n,)."""
    from photutils.aperture import EllipticalAperture

    shapes = zip(found.xy, found.a, found.b, found.theta, strict=True)
    sums = [
        EllipticalAperture(xy, AXES * a, AXES * b, theta=theta).do_photometry(flat)[0][0] for xy, a, b, theta in shapes
    ]
    return np.asarray(sums, np.float64)


def counted(found: Ellipses, evidence: Evidence) -> Ellipses:
    """Those in the core, where there is one."""
    if evidence.core is None:
        return found
    rows, columns = evidence.core
    x, y = found.xy.T
    here = (x >= columns.start - 0.5) & (x < columns.stop - 0.5) & (y >= rows.start - 0.5) & (y < rows.stop - 0.5)
    return Ellipses(found.xy[here], found.a[here], found.b[here], found.theta[here])


def _some(found: Ellipses) -> Ellipses:
    """At most `MOST`, evenly taken."""
    step = max(1, -(-len(found) // MOST))
    return Ellipses(found.xy[::step], found.a[::step], found.b[::step], found.theta[::step])


def _true(evidence: Evidence) -> tuple[Ellipses, Array]:
    """The truth's sources and their fluxes."""
    assert evidence.truth is not None
    bad = ~evidence.known
    found = _some(counted(ellipses(evidence.truth, bad), evidence))
    return found, ellipse_sums(leveled(evidence.truth, bad)[0], found)


def flux_error_star(evidence: Evidence) -> list[Result]:
    """Mean of |F - F_true| over the truth's sources, in the image's unit, and the median of |F - F_true| / |F_true|.

    FE of the STAR benchmark (Wu et al. 2025, NeurIPS, as its code computes it): sources at 1.5 sigma of the truth, sums
    over ellipses of 2.5 times their semi-axes, on image and truth at the truth's sources, each above its own
    background. The benchmark computes it on patches that were stretched to 0..1 one by one; **this is in the image's
    own unit, and not comparable in size with published ones. The brightest sources make the sum; most sources at 1.5
    sigma are noise, and since they are not cleaned as the benchmark's are, the mean may be several times smaller.**
    ``flux_error_rel`` is the relative median.
    """
    enough(evidence)
    found, true = evidence.once("flux_error", lambda: _true(evidence))
    if not len(found):
        raise UnmeasuredError("no source in the truth at 1.5 sigma")
    flux = ellipse_sums(leveled(evidence.whole, ~evidence.known)[0], found)
    off, lit = np.abs(flux - true), true != 0
    count = f"{len(found)} sources of the truth at {SIGMAS:g} sigma, ellipses of {AXES:g} semi-axes"
    results = [
        Result(
            "flux_error_star",
            float(off.mean()),
            "",
            "sources",
            meaning=f"in the image's unit; {count}",
            weight=len(found),
        )
    ]
    if lit.any():
        relative = float(np.median(off[lit] / np.abs(true[lit])))
        results.append(
            Result("flux_error_rel", relative, "", "sources", meaning=f"relative, median of {count}", weight=len(found))
        )
    return results


CHECKS = {
    "flux_error_star": Check(
        flux_error_star,
        "By how much the flux of a source is off on average, in the image's unit, as the STAR benchmark counts it.",
        "Faint sources: the brightest decide the mean; and its unit is the image's, not the benchmark's.",
        ("truth",),
        ("flux_error_star", "flux_error_rel"),
    ),
}
