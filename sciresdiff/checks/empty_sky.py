"""Tests on empty sky: detections in the negative image, and the scatter of empty apertures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.adaptive_moments import stamps
from sciresdiff.checks.arrays import Array, pixels_per_value
from sciresdiff.checks.check import Check, UnmeasuredError
from sciresdiff.checks.detection import APERTURE_PX, Sources, detect_again
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.foreground import foreground_mask
from sciresdiff.checks.result import Range, Result
from sciresdiff.checks.scatter import count_margin, mad_std
from sciresdiff.checks.source_lists import bicubic_sources, detection_noise, image_sources, truth_sources
from sciresdiff.observation.grid import upsample_nearest

MOST = 3000
"""Apertures that are placed at most."""
FEWEST = 30
"""Fewest apertures that a scatter is given for."""
LOWEST, HIGHEST = 0.5, 2.0
"""Accepted scatter over what the draws predict: errors of fluxes wrong by a factor of two."""
FLAT = 1.3
"""Scatter of the data on the sky, in sigmas of their noise, up to which the sky counts as empty."""
SHIFT = 0.2
"""Accepted mean difference from the data, sigmas of one aperture in the data."""


@dataclass(frozen=True, eq=False)
class EmptyApertures:
    """Sums over circles of 4 px on empty sky."""

    xy: NDArray[np.int64]
    """(n, 2), centres, px."""
    sums: Array
    """(n,), sums of the image above its background, unit of the image."""
    data: Array
    """(n,), sums of the data above the same background, divided among their fine pixels."""
    offset: Array | None
    """(n,), sums of A x less those of the data; None where the blur is not known."""
    sigma: float
    """Standard deviation of such a sum by the noise of the data."""
    predicted: float | None
    """Standard deviation by the draws; None without them."""
    quadrature: float | None
    """Standard deviation by ERR, were pixels independent; None without it."""


def negative_per_mpix(evidence: Evidence) -> Result:
    """Detections per 10^6 fine pixels in the negative image, -(x - background), at the same threshold.

    Noise and ripples are as often dark as bright; light is never dark: the count estimates how many of the detections
    are false (Serra et al. 2012, PASA 29, 296). Accepted up to N + 2 sqrt(N + 1), N being the larger of those of the
    bicubic image and, where it is known, the truth. **A method that keeps images positive, or a prior that knows of
    nothing dark, breaks the symmetry: then 0 says nothing. Real dark structure counts.**
    """
    if evidence.kind == "micro":
        raise UnmeasuredError("dark structure is real in a microscope image")
    if not evidence.good_high.any():
        raise UnmeasuredError("every pixel is masked")
    count, bright = _count_dark(evidence, image_sources(evidence)), len(image_sources(evidence).inner)
    limit: Range | None = None
    mpix = evidence.mpix
    meaning = f"{count} dark and {bright} bright detections at the same threshold"
    if evidence.low is not None:
        name = f"dark_bicubic_{detection_noise(evidence):.9g}"
        plain, real = evidence.share(name, lambda: _count_dark(evidence, bicubic_sources(evidence))), 0
        if evidence.truth is not None:
            real = evidence.share("dark_truth", lambda: _count_dark(evidence, truth_sources(evidence)))
        limit = (None, count_margin(max(plain, real)) / mpix)
        meaning += f"; {plain} dark in the bicubic image" + ("" if evidence.truth is None else f", {real} in the truth")
    return Result("negative_per_mpix", count / mpix, "1/Mpix", "sources", limit, meaning=meaning, weight=mpix)


def _count_dark(evidence: Evidence, found: Sources) -> int:
    """Count detections on the negative of an image."""
    return len(detect_again(found, detection_noise(evidence), ~evidence.valid_high, sign=-1).inner)


def _circle() -> Array:
    """(k, k), share of every pixel that lies in a circle of 4 px about the middle one."""
    from photutils.aperture import CircularAperture

    half = int(np.ceil(APERTURE_PX))
    return np.asarray(CircularAperture((half, half), APERTURE_PX).to_mask(method="exact").to_image((2 * half + 1,) * 2))


def empty_positions(evidence: Evidence) -> NDArray[np.int64]:
    """Find centres (n, 2) of at most 3000 circles that do not overlap and hold no light, masked pixel or border."""
    from scipy.ndimage import maximum_filter

    reach = int(np.ceil(APERTURE_PX)) + 1
    taken = foreground_mask(evidence) | ~evidence.good_high
    if evidence.valid_low is not None and evidence.variance is not None:
        taken = taken | ~upsample_nearest(evidence.valid_low, evidence.scale)
    # a circle that touches a taken pixel has its centre within reach of it
    taken = np.asarray(maximum_filter(taken, 2 * reach + 1))
    taken[:reach], taken[-reach:], taken[:, :reach], taken[:, -reach:] = (True,) * 4
    rows, columns = np.meshgrid(*(np.arange(reach, side, 2 * reach) for side in taken.shape), indexing="ij")
    free = ~taken[rows, columns]
    found = np.stack([columns[free], rows[free]], 1)
    return np.asarray(found[:: max(1, -(-len(found) // MOST))])


def empty_apertures(evidence: Evidence) -> EmptyApertures:
    """Sum image and data over circles on empty sky; needs ``low`` and ``variance``.

    Raises
    ------
    UnmeasuredError : fewer than 30 places are empty.
    """
    assert evidence.low is not None and evidence.variance is not None
    xy, circle, s = empty_positions(evidence), _circle(), evidence.scale
    if len(xy) < FEWEST:
        raise UnmeasuredError(f"{len(xy)} empty places for an aperture, {FEWEST} are needed")
    share = 1 / pixels_per_value(evidence)
    sigma = aperture_noise(evidence, float(evidence.variance[xy[:, 1] // s, xy[:, 0] // s].mean()))
    data = share * _sums(upsample_nearest(evidence.low, s), xy, circle)
    predicted = evidence.predicted_low
    offset = None if predicted is None else share * _sums(upsample_nearest(predicted, s), xy, circle) - data
    sums, level = (_sums(plane, xy, circle) for plane in (image_sources(evidence).flat, image_sources(evidence).level))
    return EmptyApertures(
        xy, sums, data - level, offset, sigma, _draw_scatter(evidence, xy, circle), _quadrature(evidence, xy, circle)
    )


def aperture_noise(evidence: Evidence, variance: float) -> float:
    """Standard deviation of a sum over a circle of 4 px on the fine grid, from the variance v of a coarse pixel.

    scale sqrt(pi v) 4 px, over scale^2 for quantity ``sum``: the circle covers pi 4^2 / scale^2 coarse pixels, each of
    which stands for scale^2 fine ones. **Coarse pixels on the edge of the circle are taken for whole ones.**
    """
    return evidence.scale * float(np.sqrt(np.pi * variance)) * APERTURE_PX / pixels_per_value(evidence)


def _sums(plane: Array, xy: NDArray[np.int64], circle: Array) -> Array:
    """Sums of a plane (Y, X) over circles: (n,)."""
    return np.asarray((stamps(plane, xy, len(circle) // 2)[0] * circle).sum((1, 2)))


def _draw_scatter(evidence: Evidence, xy: NDArray[np.int64], circle: Array) -> float | None:
    """Standard deviation of the sums over the draws, times sqrt(1 + 1 / K) for the error of their mean."""
    draws = evidence.draws
    if draws is None or len(draws) < 2:
        return None
    each = np.stack([_sums(draw, xy, circle) for draw in draws])
    # the image is the mean of K draws: its error has the variance of one draw and 1 / K of it
    usual = float(np.sqrt(np.mean(each.var(axis=0, ddof=1)) * (1 + 1 / len(draws))))
    return usual if usual > 0 else None


def _quadrature(evidence: Evidence, xy: NDArray[np.int64], circle: Array) -> float | None:
    """ERR of the circles' pixels, added in quadrature; the median of the circles."""
    if evidence.err is None:
        return None
    return float(np.sqrt(np.median(_sums(evidence.err**2, xy, circle**2))))


def empty_aperture_sigma(evidence: Evidence) -> list[Result]:
    """Scatter of aperture sums on empty sky over the predicted one, and their mean offset from the data, in sigmas.

    ``empty_aperture_sigma`` is 1.4826 times the median absolute deviation of the sums in circles of 4 px, divided by
    their standard deviation among the draws (1 is best, accepted 0.5 to 2 for ``astro``), or, without draws, by that
    which the noise of the data gives (no limit: a good mean scatters less). Not computed where the data scatter there
    by more than 1.3 times their noise: then the sky is not empty, or its noise is correlated.
    ``empty_aperture_mean`` is mean(sum of A x - sum of the data) over the data's standard deviation; 0 is best,
    accepted within 0.2 and 3 standard errors. **Errors at sources are not seen, nor is what is larger than 64 px.**
    """
    found = empty_apertures(evidence)
    results = [_scatter_result(evidence, found)]
    if found.offset is not None:
        n = len(found.offset)
        side = SHIFT + 3 / float(np.sqrt(n))
        meaning = f"image as the data would show it less data in {n} circles of {APERTURE_PX:g} px, in sigmas of one"
        value = float(found.offset.mean()) / found.sigma
        results.append(
            Result("empty_aperture_mean", value, "sigma", evidence.dark_name, (-side, side), meaning=meaning, weight=n)
        )
    return results


def _scatter_result(evidence: Evidence, found: EmptyApertures) -> Result:
    """``empty_aperture_sigma``, or why there is none."""
    own, scatter = mad_std(found.data) / found.sigma, mad_std(found.sums)
    if not own < FLAT:
        why = f"not computed: the data scatter by {own:.3g} times their noise on the sky, which is not empty"
        return Result("empty_aperture_sigma", None, "", evidence.dark_name, meaning=why)
    expected, by = found.predicted or found.sigma, "the draws predict" if found.predicted else "the data's noise gives"
    said = f"{len(found.sums)} circles of {APERTURE_PX:g} px scatter by {scatter:.3g}; {by} {expected:.3g}"
    if found.quadrature:
        said += f", ERR added in quadrature {found.quadrature:.3g} (pixels are correlated: that is not their error)"
    limit: Range | None = (LOWEST, HIGHEST) if found.predicted and evidence.kind == "astro" else None
    n = len(found.sums)
    return Result("empty_aperture_sigma", scatter / expected, "", evidence.dark_name, limit, meaning=said, weight=n)


CHECKS = {
    "negative_per_mpix": Check(
        negative_per_mpix,
        "Dark detections per million pixels: noise and ripples are as often dark as bright, light never is.",
        "Everything, where a method keeps images positive: it has none, whatever it invents.",
    ),
    "empty_aperture_sigma": Check(
        empty_aperture_sigma,
        "Whether the flux measured on empty sky is unbiased, and scatters as much as is claimed.",
        "Errors at sources, and structure of the sky that is larger than 64 px.",
        ("low", "variance"),
        ("empty_aperture_sigma", "empty_aperture_mean"),
    ),
}
