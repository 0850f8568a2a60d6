"""SQUIRREL: the image, degraded to the resolution of the data, against the data; and where it differs most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.arrays import Array, Mask, blocks, fill_with_median
from sciresdiff.checks.check import Check, UnmeasuredError
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.result import Range, Result
from sciresdiff.checks.scatter import MAD_TO_SIGMA
from sciresdiff.checks.spectrum import smooth_bicubic_image
from sciresdiff.observation.grid import upsample_nearest

Map = NDArray[np.float32]

WIDEST = 8.0
"""Largest FWHM of the blur between image and data, coarse px."""
FWHM = 2 * np.sqrt(2 * np.log(2))
"""FWHM of a Gaussian over its sigma."""
SIGMAS = 6.0
"""Threshold of an outlier; white noise passes it in one coarse pixel of 5e8."""
SMOOTH_PX = 1.0
"""Sigma by which the local map is smoothed, coarse px."""
SMOOTHED_SIGMA = 1 / (2 * np.sqrt(np.pi) * SMOOTH_PX)
"""Standard deviation of white noise of 1 after this smoothing."""
NOTHING = 1e-6
"""Share of the data's scatter below which a scatter is rounding."""
ROUNDING = 1e-12
"""Relative scatter that a constant may have by rounding."""
REACH_PX = 3
"""Distance from a masked coarse pixel within which the bicubic image is left out, coarse px."""
CLEAN = 0.99
"""Least weight of judged pixels in a smoothed pixel that is judged."""
SQUARE = 1024
"""Side of the part in which the blur is looked for, fine px."""
BOX_PX = 16
"""Side of the boxes that the local map's median and scatter are taken in, coarse px."""
NAMED = 5
"""Outliers that are named, the largest."""


@dataclass(frozen=True, eq=False)
class ErrorMap:
    """Excess (above 0) or lack of light of the degraded image, on the grid on which it is compared with the data."""

    residual: Map
    """(h, w), or (Y, X) without an operator: gain * B + offset - R, unit of R; 0 where not judged."""
    sigmas: Map
    """The residual, over the noise where it is known, smoothed, less its local median, over its scatter."""
    good: Mask
    gain: float
    offset: float
    correlation: float
    """Pearson's, of gain * B + offset and R."""
    step: int
    """Fine px per pixel of the maps: the scale, or 1 without an operator."""
    blur_px: float | None = None
    """Sigma of the Gaussian, fine px; None where the operator was used."""
    at_bound: bool = False
    """Whether that sigma is the largest that was tried."""

    @property
    def rms(self) -> float:
        """Root mean square of the residual over the judged pixels."""
        return float(np.sqrt(np.mean(self.residual[self.good] ** 2, dtype=np.float64)))


def error_map(evidence: Evidence) -> ErrorMap:
    """Compute the local error map of SQUIRREL (Culley et al. 2018, Nature Methods 15, 263); needs ``low``.

    With an operator the re-degraded image B is compared with the data R on their grid. Without one B is the image
    smoothed by the Gaussian that makes it most like the bicubic image R, on the fine grid (the resolution scaling
    function). Gain and offset are those of the linear regression of R on B.

    Raises
    ------
    UnmeasuredError : all masked, or image or data constant.
    """
    if evidence.low is None or evidence.good_low is None or evidence.good_low.sum() < 3:
        raise UnmeasuredError("every pixel is masked")
    if evidence.predicted_low is not None:
        data = fill_with_median(evidence.low, np.isfinite(evidence.low))
        return _compare(evidence.predicted_low, data, evidence.good_low, evidence.variance, evidence.scale)
    good = evidence.good_high & _clear_of_bad(evidence.good_low, evidence.scale)
    data = smooth_bicubic_image(evidence)
    image = evidence.high if evidence.valid_high.all() else np.where(evidence.valid_high, evidence.high, data)
    largest = WIDEST * evidence.scale / FWHM
    sigma = _blur(image, data, good, largest)
    if not good.all():
        good = good & (_smooth(good, sigma) > CLEAN)
    return _compare(_smooth(image, sigma), data, good, None, 1, evidence.scale, sigma, sigma > 0.99 * largest)


def _clear_of_bad(good_low: Mask, scale: int) -> Mask:
    """(Y, X), fine pixels that a masked coarse pixel hardly reaches, by its light or by the spline through it."""
    from scipy.ndimage import minimum_filter

    clear = good_low if good_low.all() else minimum_filter(good_low, 2 * REACH_PX + 1, mode="nearest")
    return np.asarray(upsample_nearest(clear, scale))


def _smooth(plane: NDArray[Any], sigma: float) -> NDArray[np.float32]:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(np.asarray(plane, np.float32), sigma, mode="reflect"))


def _blur(image: Array, data: Array, good: Mask, largest: float) -> float:
    """Find the sigma of the Gaussian that correlates the image most with the data, fine px.

    For the best gain and offset the residual is least where the correlation is greatest. Searched in the square of
    1024 px whose data vary most.
    """
    from scipy.optimize import minimize_scalar

    at = _most_varied(data, good)
    ours, chosen = np.asarray(image[at], np.float32), good[at]
    theirs = data[at][chosen]

    def unlike(sigma: float) -> float:
        return -float(np.corrcoef(_smooth(ours, sigma)[chosen], theirs)[0, 1])

    if chosen.sum() < 3 or np.ptp(ours[chosen]) == 0 or np.ptp(theirs) == 0:
        return 0.0
    return float(minimize_scalar(unlike, bounds=(0, largest), method="bounded", options={"xatol": 1e-2}).x)


def _most_varied(data: Array, good: Mask) -> tuple[slice, slice]:
    """The square of at most 1024 px whose judged pixels vary most."""
    tops, lefts = (range(0, max(1, side - SQUARE // 2), SQUARE) for side in data.shape)
    squares = [(slice(top, top + SQUARE), slice(left, left + SQUARE)) for top in tops for left in lefts]
    return max(squares, key=lambda at: float(data[at][good[at]].std()) if good[at].any() else -1.0)


def _compare(
    image: NDArray[np.floating],
    data: Array,
    good: Mask,
    variance: Array | None,
    step: int,
    smooth: int = 1,
    blur: float | None = None,
    at_bound: bool = False,
) -> ErrorMap:
    """The map of two planes on one grid, on which ``smooth`` pixels are a coarse one."""
    (ours, middle), (theirs, level) = (_subtract_mean(plane, good) for plane in (image, data))
    spread, wanted = (float(np.sqrt(np.einsum("i,i", p, p, dtype=float) / p.size)) for p in (ours, theirs))
    for name, scatter, mean in (("image is", spread, middle), ("data are", wanted, level)):
        if scatter <= ROUNDING * abs(mean):
            raise UnmeasuredError(f"the {name} constant")
    shared = float(np.einsum("i,i", ours, theirs, dtype=float)) / ours.size
    gain = shared / spread**2  # linear regression of the data on the image
    residual = np.zeros(good.shape, np.float32)
    residual[good] = gain * ours - theirs
    noise = None if variance is None else np.sqrt(np.where(good, variance, 1))
    sigmas = _significance(residual, good, noise, wanted, smooth)
    correlation = shared / (spread * wanted)
    return ErrorMap(residual, sigmas, good, gain, level - gain * middle, correlation, step, blur, at_bound)


def _subtract_mean(plane: NDArray[np.floating], good: Mask) -> tuple[NDArray[np.float32], float]:
    """The judged pixels less their mean, and the mean."""
    mean = float(plane.mean(where=good, dtype=np.float64))
    return np.asarray((plane - mean)[good], np.float32), mean


def _significance(residual: Map, good: Mask, noise: Array | None, spread: float, smooth: int) -> Map:
    """The smoothed residual less its local median, over the largest of its global and local scatter and the noise's."""
    # smoothing by one coarse pixel adds up what a point of light leaves in its neighbours
    plane = _smooth(residual if noise is None else residual / noise, SMOOTH_PX * smooth)
    if not good.all():  # a mean over the judged pixels alone
        plane /= np.maximum(_smooth(good, SMOOTH_PX * smooth), 0.1)
    least = NOTHING * spread if noise is None else SMOOTHED_SIGMA
    middle, scatter = _local(np.where(good, plane, np.nan)[::smooth, ::smooth], least)
    plane -= _interpolate_boxes(middle, smooth, plane.shape)
    plane /= _interpolate_boxes(scatter, smooth, plane.shape)
    plane[~good] = 0
    return plane


def _local(plane: Map, least: float) -> tuple[Map, Map]:
    """Median and scatter (1.4826 MAD, at least that of the whole plane) in boxes of 16 coarse px, NaN left out."""
    padded = np.pad(plane, [(0, -side % BOX_PX) for side in plane.shape], constant_values=np.nan)
    boxes = blocks(padded, BOX_PX)
    values = boxes.reshape(*boxes.shape[:2], -1)
    whole = _median(plane.ravel())
    middle = np.where(np.isnan(found := _median(values)), whole, found)
    scatter = MAD_TO_SIGMA * _median(np.abs(values - middle[..., None]))
    common = max(MAD_TO_SIGMA * float(_median(np.abs(plane - whole).ravel())), least)
    return middle, np.fmax(scatter, common).astype(np.float32)


def _median(values: Map) -> Map:
    """Medians over the last axis, NaN left out; NaN where all are.  ``np.nanmedian`` is ten times slower."""
    ordered = np.sort(values, axis=-1)  # NaN come last
    count = np.isfinite(ordered).sum(-1, keepdims=True)
    below = np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, -1)
    above = np.take_along_axis(ordered, np.minimum(count // 2, ordered.shape[-1] - 1), -1)
    return np.asarray((below + above)[..., 0] / 2)


def _interpolate_boxes(boxes: Map, smooth: int, shape: tuple[int, ...]) -> Map:
    """Values of boxes as a plane (Y, X), linear between the centres of the boxes."""
    from scipy.ndimage import zoom

    fine = zoom(boxes, BOX_PX * smooth, order=1, mode="nearest", grid_mode=True)
    return np.asarray(fine[: shape[0], : shape[1]])


def outliers(found: ErrorMap) -> list[tuple[float, float, float]]:
    """List where the local map is beyond 6 sigma, one place for a connected patch, the largest first.

    Returns
    -------
    (sigmas, x, y) of each, fine px; above 0 the image has light that the data do not have.
    """
    from scipy.ndimage import label, maximum_position

    places = []
    for sign in (1, -1):
        patches, count = label(sign * found.sigmas > SIGMAS)
        for y, x in maximum_position(sign * found.sigmas, patches, range(1, count + 1)) if count else []:
            centre = ((x + 0.5) * found.step - 0.5, (y + 0.5) * found.step - 0.5)
            places.append((float(found.sigmas[y, x]), *centre))
    return sorted(places, key=lambda place: -abs(place[0]))


def rse(evidence: Evidence) -> list[Result]:
    """Resolution-scaled error, resolution-scaled Pearson coefficient, and outliers of the local map.

    RSE = rms(gain * B + offset - R), unit of the data; RSP = Pearson's correlation of gain * B + offset and R (Culley
    et al. 2018, Nature Methods 15, 263; B and R as in `error_map`). squirrel_outliers = patches beyond 6 sigma of the
    map smoothed by 1 coarse px, less its median in boxes of 16, over the largest of its scatter in the box, in the
    frame, and that of the noise. **RSE and RSP cannot see small inventions: dozens of false stars move them by a per
    cent. The outliers can, but not what the blur hides, what is below the noise, or what is wider than a box. The free
    gain and offset hide a wrong photometric scale. Where the blur is fitted, bright sources stand out, because a
    Gaussian is not quite the blur, and there is no limit.**
    """
    found = error_map(evidence)
    places, n = outliers(found), int(found.good.sum())
    return [
        Result("rse", found.rms, "unit of the data", "all", meaning=_how(evidence, found), weight=n),
        Result("rsp", found.correlation, "", "all", meaning="1 is best; noise of the data lowers it", weight=n),
        Result(
            "squirrel_outliers", float(len(places)), "", "all", _outlier_limit(found), meaning=_name_outliers(places)
        ),
    ]


def _outlier_limit(found: ErrorMap) -> Range | None:
    """No limit where the blur was fitted: bright sources stand out of any Gaussian that is not quite right."""
    return None if found.blur_px is None else (None, None)


def _how(evidence: Evidence, found: ErrorMap) -> str:
    how = "image re-degraded, against the data"
    if found.blur_px is not None:
        how = f"image smoothed by {found.blur_px:.3g} px (sigma), against the bicubic image"
        how += "; more might fit better" if found.at_bound else ""
    how += f"; gain {found.gain:.4g}, offset {found.offset:.3g}"
    if found.blur_px is not None or evidence.variance is None:
        return how
    return how + f"; the noise's rms is {np.sqrt(np.mean(evidence.variance[found.good])):.3g}"


def _name_outliers(places: list[tuple[float, float, float]]) -> str:
    if not places:
        return f"none beyond {SIGMAS:g} sigma of the residual"
    named = ", ".join(f"{sigmas:+.1f} at ({x:.0f}, {y:.0f})" for sigmas, x, y in places[:NAMED])
    return f"beyond {SIGMAS:g} sigma, + where the image has too much light: {named}"


CHECKS = {
    "rse": Check(
        rse,
        "Difference of the image, degraded again, from the data: rms, correlation, and the places with the largest.",
        "The first two: small inventions. All: what the blur removes, and a wrong photometric scale.",
        ("low",),
        ("rse", "rsp", "squirrel_outliers"),
    ),
}
