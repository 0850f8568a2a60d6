"""Where there is nothing: detections in the negative image, and apertures on empty sky."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.check import Check, UnmeasuredError
from sciresdiff.checks.detection import APERTURE_PX, Sources, detect_below
from sciresdiff.checks.evidence import Array, Evidence, Range, Result
from sciresdiff.checks.moments import stamps

MOST = 3000
"""Apertures that are placed."""
FEWEST = 30
"""Fewest that a scatter is given for."""
LOWEST, HIGHEST = 0.5, 2.0
"""Scatter over what the draws predict that is accepted: errors of fluxes wrong by a factor of two."""
FLAT = 1.3
"""Scatter of the data on the sky, in sigmas of their noise, up to which the sky counts as empty."""
SHIFT = 0.2
"""Mean difference from the data that is accepted, sigmas of one aperture in the data."""


@dataclass(frozen=True, eq=False)
class Empty:
    """Circles of 4 px on empty sky."""

    xy: NDArray[np.int64]
    """(n, 2), centres, px."""
    sums: Array
    """(n,), of the image above its background, unit of the image."""
    data: Array
    """(n,), of the data above the same background, spread over the fine grid."""
    off: Array | None
    """(n,), of the image as the data would show it, less the data; None where the blur is not known."""
    sigma: float
    """Standard deviation that the noise of the data gives such a circle."""
    predicted: float | None
    """What the draws predict; None without them."""
    quadrature: float | None
    """What ERR would give were pixels independent; None without it."""


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
    count, bright = _dark(evidence, evidence.detected), len(evidence.detected.inner)
    limit: Range | None = None
    mpix = evidence.mpix
    meaning = f"{count} dark and {bright} bright detections at the same threshold"
    if evidence.low is not None:
        noise = f"{evidence.noise:.9g}"
        plain = int(evidence.once(f"holes_{noise}", lambda: _dark(evidence, evidence.detected_bicubic)))
        real = 0 if evidence.truth is None else int(evidence.once("holes", lambda: _dark(evidence, evidence.reference)))
        limit = (None, (max(plain, real) + 2 * float(np.sqrt(max(plain, real) + 1))) / mpix)
        meaning += f"; {plain} dark in the bicubic image" + ("" if evidence.truth is None else f", {real} in the truth")
    return Result("negative_per_mpix", count / mpix, "1/Mpix", "sources", limit, meaning=meaning, weight=mpix)


def _dark(evidence: Evidence, found: Sources) -> int:
    """Detections on the negative of an image."""
    return len(detect_below(found, evidence.noise, ~evidence.known, sign=-1).inner)


def _circle() -> Array:
    """Share of every pixel that lies in a circle of 4 px about the middle one."""
    from photutils.aperture import CircularAperture

    half = int(np.ceil(APERTURE_PX))
    return np.asarray(CircularAperture((half, half), APERTURE_PX).to_mask(method="exact").to_image((2 * half + 1,) * 2))


def empty_places(evidence: Evidence) -> NDArray[np.int64]:
    """Centres (n, 2) of circles that do not overlap, with no light, masked pixel or border on them; at most 3000."""
    from scipy.ndimage import maximum_filter

    reach = int(np.ceil(APERTURE_PX)) + 1
    taken = evidence.bright | ~evidence.good_high
    if evidence.low is not None and evidence.variance is not None:
        valid = np.isfinite(evidence.low) & np.isfinite(evidence.variance) & (evidence.variance > 0)
        if evidence.mask_low is not None:
            valid &= ~evidence.mask_low
        taken = taken | ~_spread(valid, evidence.scale)
    taken = np.asarray(maximum_filter(taken, 2 * reach + 1))
    taken[:reach], taken[-reach:], taken[:, :reach], taken[:, -reach:] = (True,) * 4
    rows, columns = np.meshgrid(*(np.arange(reach, side, 2 * reach) for side in taken.shape), indexing="ij")
    free = ~taken[rows, columns]
    found = np.stack([columns[free], rows[free]], 1)
    return np.asarray(found[:: max(1, -(-len(found) // MOST))])


def empty_apertures(evidence: Evidence) -> Empty:
    """Circles on empty sky, on the image and on the data; needs ``low`` and ``variance``.

    Raises
    ------
    UnmeasuredError : fewer than 30 places are empty.
    """
    assert evidence.low is not None and evidence.variance is not None
    xy, circle, s = empty_places(evidence), _circle(), evidence.scale
    if len(xy) < FEWEST:
        raise UnmeasuredError(f"{len(xy)} empty places for an aperture, {FEWEST} are needed")
    share = 1 / s**2 if evidence.quantity == "sum" else 1.0
    sigma = aperture_noise(evidence, float(evidence.variance[xy[:, 1] // s, xy[:, 0] // s].mean()))
    data = share * _sums(_spread(evidence.low, s), xy, circle)
    again = evidence.redegraded
    off = None if again is None else share * _sums(_spread(again, s), xy, circle) - data
    sums, level = (_sums(plane, xy, circle) for plane in (evidence.detected.flat, evidence.detected.level))
    return Empty(xy, sums, data - level, off, sigma, _drawn(evidence, xy, circle), _added(evidence, xy, circle))


def aperture_noise(evidence: Evidence, variance: float) -> float:
    """Standard deviation of a sum over a circle of 4 px on the fine grid, from the variance of a coarse pixel."""
    share = 1 / evidence.scale**2 if evidence.quantity == "sum" else 1.0
    # area / scale^2 coarse pixels, each of which stands for scale^2 fine ones
    return share * evidence.scale * float(np.sqrt(np.pi * variance)) * APERTURE_PX


def _spread(coarse: NDArray[Any], scale: int) -> NDArray[Any]:
    """Every coarse value on its fine pixels."""
    return coarse.repeat(scale, 0).repeat(scale, 1)


def _sums(plane: Array, xy: NDArray[np.int64], circle: Array) -> Array:
    return np.asarray((stamps(plane, xy, len(circle) // 2)[0] * circle).sum((1, 2)))


def _drawn(evidence: Evidence, xy: NDArray[np.int64], circle: Array) -> float | None:
    """Standard deviation of the sums over the draws, times sqrt(1 + 1 / K) for the error of their mean."""
    draws = evidence.draws
    if draws is None or len(draws) < 2:
        return None
    each = np.stack([_sums(draw, xy, circle) for draw in draws])
    usual = float(np.sqrt(np.mean(each.var(axis=0, ddof=1)) * (1 + 1 / len(draws))))
    return usual if usual > 0 else None


def _added(evidence: Evidence, xy: NDArray[np.int64], circle: Array) -> float | None:
    """The errors of the pixels, added in quadrature."""
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
    results = [_scattered(evidence, found)]
    if found.off is not None:
        n = len(found.off)
        side = SHIFT + 3 / float(np.sqrt(n))
        meaning = f"image as the data would show it less data in {n} circles of {APERTURE_PX:g} px, in sigmas of one"
        value = float(found.off.mean()) / found.sigma
        results.append(
            Result("empty_aperture_mean", value, "sigma", evidence.dark_name, (-side, side), meaning=meaning, weight=n)
        )
    return results


def _scattered(evidence: Evidence, found: Empty) -> Result:
    """``empty_aperture_sigma``, or why there is none."""
    own, scatter = _scatter(found.data) / found.sigma, _scatter(found.sums)
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


def _scatter(values: Array) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


CHECKS = {
    "negative_per_mpix": Check(
        negative_per_mpix,
        "Dark sources in a million pixels: noise and ripples are as often dark as bright, light never is.",
        "Everything, where a method keeps images positive: then there are none, whatever was invented.",
    ),
    "empty_aperture_sigma": Check(
        empty_aperture_sigma,
        "Whether the flux measured on empty sky is right on average, and scatters as much as is claimed.",
        "Errors at sources, and structure of the sky that is larger than 64 px.",
        ("low", "variance"),
        ("empty_aperture_sigma", "empty_aperture_mean"),
    ),
}
