"""SQUIRREL: the image, made as coarse as the data again, against the data; and where it differs most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.check import Check, UnmeasuredError
from sciresdiff.checks.evidence import Array, Evidence, Mask, Range, Result, blocks, filled
from sciresdiff.checks.spectrum import interpolated

Map = NDArray[np.float32]

WIDEST = 8.0
"""FWHM up to which the blur between image and data is looked for, coarse px."""
FWHM = 2 * np.sqrt(2 * np.log(2))
"""FWHM of a Gaussian over its sigma."""
SIGMAS = 6.0
"""What counts as an outlier; of white noise one coarse pixel in 5e8 does."""
SMOOTH_PX = 1.0
"""Sigma by which the local map is smoothed, coarse px."""
LEFT = 1 / (2 * np.sqrt(np.pi) * SMOOTH_PX)
"""Standard deviation that this smoothing leaves of white noise of 1."""
NOTHING = 1e-6
"""Scatter below this share of the data's own is rounding."""
ROUNDING = 1e-12
"""Relative scatter that a constant may have by rounding."""
REACH_PX = 3
"""How far from a masked coarse pixel the bicubic image is left out, coarse px."""
CLEAN = 0.99
"""Weight of judged pixels in a smoothed one that is judged."""
SQUARE = 1024
"""Side of the part in which the blur is looked for, fine px."""
BOX_PX = 16
"""Side of the boxes that the local map's median and scatter are taken in, coarse px."""
TOLD = 5
"""Outliers that are named."""


@dataclass(frozen=True, eq=False)
class ErrorMap:
    """What the image, made coarse again, has too much (above 0) or too little, on the grid that it is compared on."""

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
    """The local error map of SQUIRREL (Culley et al. 2018, Nature Methods 15, 263); needs ``low``.

    With an operator the re-degraded image B is compared with the data R on their grid. Without one B is the image
    smoothed by the Gaussian that makes it most like the bicubic image R, on the fine grid (the resolution scaling
    function). Gain and offset are those of the linear regression of R on B.

    Raises
    ------
    UnmeasuredError : all masked, or image or data constant.
    """
    if evidence.low is None or evidence.good_low is None or evidence.good_low.sum() < 3:
        raise UnmeasuredError("every pixel is masked")
    if evidence.redegraded is not None:
        data = filled(evidence.low, np.isfinite(evidence.low))
        return _compared(evidence.redegraded, data, evidence.good_low, evidence.variance, evidence.scale)
    good = evidence.good_high & _clear_of_bad(evidence.good_low, evidence.scale)
    data = interpolated(evidence)
    image = evidence.high if evidence.known.all() else np.where(evidence.known, evidence.high, data)
    largest = WIDEST * evidence.scale / FWHM
    sigma = _blur(image, data, good, largest)
    if not good.all():
        good = good & (_smoothed(good, sigma) > CLEAN)
    return _compared(_smoothed(image, sigma), data, good, None, 1, evidence.scale, sigma, sigma > 0.99 * largest)


def _clear_of_bad(good_low: Mask, scale: int) -> Mask:
    """Fine pixels that neither the spline through a masked coarse pixel nor its light reaches but little, (Y, X)."""
    from scipy.ndimage import minimum_filter

    clear = good_low if good_low.all() else minimum_filter(good_low, 2 * REACH_PX + 1, mode="nearest")
    return np.kron(clear, np.ones((scale, scale), bool))


def _smoothed(plane: NDArray[Any], sigma: float) -> NDArray[np.float32]:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(np.asarray(plane, np.float32), sigma, mode="reflect"))


def _blur(image: Array, data: Array, good: Mask, largest: float) -> float:
    """Sigma of the Gaussian that correlates the image most with the data, fine px.

    For the best gain and offset the residual is least where the correlation is greatest. Looked for in the square of
    1024 px whose data vary most.
    """
    from scipy.optimize import minimize_scalar

    at = _liveliest(data, good)
    ours, chosen = np.asarray(image[at], np.float32), good[at]
    theirs = data[at][chosen]

    def unlike(sigma: float) -> float:
        return -float(np.corrcoef(_smoothed(ours, sigma)[chosen], theirs)[0, 1])

    if chosen.sum() < 3 or np.ptp(ours[chosen]) == 0 or np.ptp(theirs) == 0:
        return 0.0
    return float(minimize_scalar(unlike, bounds=(0, largest), method="bounded", options={"xatol": 1e-2}).x)


def _liveliest(data: Array, good: Mask) -> tuple[slice, slice]:
    """The square of at most 1024 px whose judged pixels vary most."""
    tops, lefts = (range(0, max(1, side - SQUARE // 2), SQUARE) for side in data.shape)
    squares = [(slice(top, top + SQUARE), slice(left, left + SQUARE)) for top in tops for left in lefts]
    return max(squares, key=lambda at: float(data[at][good[at]].std()) if good[at].any() else -1.0)


def _compared(
    image: NDArray[np.floating],
    data: Array,
    good: Mask,
    variance: Array | None,
    step: int,
    smooth: int = 1,
    blur: float | None = None,
    at_bound: bool = False,
) -> ErrorMap:
    """The map of two planes on one grid; ``smooth`` pixels of it are a coarse one."""
    (ours, middle), (theirs, level) = (_centred(plane, good) for plane in (image, data))
    spread, wanted = (float(np.sqrt(np.einsum("i,i", p, p, dtype=float) / p.size)) for p in (ours, theirs))
    for name, scatter, mean in (("image is", spread, middle), ("data are", wanted, level)):
        if scatter <= ROUNDING * abs(mean):
            raise UnmeasuredError(f"the {name} constant")
    shared = float(np.einsum("i,i", ours, theirs, dtype=float)) / ours.size
    gain = shared / spread**2
    residual = np.zeros(good.shape, np.float32)
    residual[good] = gain * ours - theirs
    noise = None if variance is None else np.sqrt(np.where(good, variance, 1))
    sigmas = _significance(residual, good, noise, wanted, smooth)
    correlation = shared / (spread * wanted)
    return ErrorMap(residual, sigmas, good, gain, level - gain * middle, correlation, step, blur, at_bound)


def _centred(plane: NDArray[np.floating], good: Mask) -> tuple[NDArray[np.float32], float]:
    """The judged pixels less their mean, and the mean."""
    mean = float(plane.mean(where=good, dtype=np.float64))
    return np.asarray((plane - mean)[good], np.float32), mean


def _significance(residual: Map, good: Mask, noise: Array | None, spread: float, smooth: int) -> Map:
    """The smoothed residual less its local median, over the largest of its global and local scatter and the noise's."""
    plane = _smoothed(residual if noise is None else residual / noise, SMOOTH_PX * smooth)
    if not good.all():  # a mean over the judged pixels alone
        plane /= np.maximum(_smoothed(good, SMOOTH_PX * smooth), 0.1)
    least = NOTHING * spread if noise is None else LEFT
    middle, scatter = _local(np.where(good, plane, np.nan)[::smooth, ::smooth], least)
    plane -= _enlarged(middle, smooth, plane.shape)
    plane /= _enlarged(scatter, smooth, plane.shape)
    plane[~good] = 0
    return plane


def _local(plane: Map, least: float) -> tuple[Map, Map]:
    """Median and scatter (1.4826 MAD, at least that of the whole plane) in boxes of 16 coarse px; NaN counts not."""
    padded = np.pad(plane, [(0, -side % BOX_PX) for side in plane.shape], constant_values=np.nan)
    boxes = blocks(padded, BOX_PX)
    values = boxes.reshape(*boxes.shape[:2], -1)
    whole = _median(plane.ravel())
    middle = np.where(np.isnan(found := _median(values)), whole, found)
    scatter = 1.4826 * _median(np.abs(values - middle[..., None]))
    common = max(1.4826 * float(_median(np.abs(plane - whole).ravel())), least)
    return middle, np.fmax(scatter, common).astype(np.float32)


def _median(values: Map) -> Map:
    """Medians over the last axis of what is no NaN; NaN where there is nothing."""
    ordered = np.sort(values, axis=-1)  # NaN come last
    count = np.isfinite(ordered).sum(-1, keepdims=True)
    below = np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, -1)
    above = np.take_along_axis(ordered, np.minimum(count // 2, ordered.shape[-1] - 1), -1)
    return np.asarray((below + above)[..., 0] / 2)


def _enlarged(boxes: Map, smooth: int, shape: tuple[int, ...]) -> Map:
    """A value for every box as a plane (Y, X), linear between the centres of boxes."""
    from scipy.ndimage import zoom

    fine = zoom(boxes, BOX_PX * smooth, order=1, mode="nearest", grid_mode=True)
    return np.asarray(fine[: shape[0], : shape[1]])


def outliers(found: ErrorMap) -> list[tuple[float, float, float]]:
    """Places where the local map is beyond 6 sigma: (sigmas, x, y), fine px, the largest first; one a connected patch.

    Above 0 the image has light that the data do not have.
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
    et al. 2018, Nature Methods 15, 263; B and R as in `error_map`). squirrel_outliers = patches
    beyond 6 sigma of the map smoothed by 1 coarse px, less its median in boxes of 16, over the largest of its scatter
    in the box, in the frame, and the noise's. **RSE and RSP cannot see small inventions: dozens of false stars move
    them by a per cent. The outliers can, but not what the blur hides, what is below the noise, or what is wider than a
    box. The free gain and offset hide a wrong photometric scale. Where the blur is guessed, bright sources stand out,
    because a Gaussian is not quite the blur, and there is no limit.**
    """
    found = error_map(evidence)
    places, n = outliers(found), int(found.good.sum())
    return [
        Result("rse", found.rms, "unit of the data", "all", meaning=_how(evidence, found), weight=n),
        Result("rsp", found.correlation, "", "all", meaning="1 is best; noise of the data lowers it", weight=n),
        Result("squirrel_outliers", float(len(places)), "", "all", _judged(found), meaning=_named(places)),
    ]


def _judged(found: ErrorMap) -> Range | None:
    """No limit where the blur was guessed: bright sources stand out of any that is not quite right."""
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


def _named(places: list[tuple[float, float, float]]) -> str:
    if not places:
        return f"none beyond {SIGMAS:g} sigma of the residual"
    named = ", ".join(f"{sigmas:+.1f} at ({x:.0f}, {y:.0f})" for sigmas, x, y in places[:TOLD])
    return f"beyond {SIGMAS:g} sigma, + where the image has too much light: {named}"


CHECKS = {
    "rse": Check(
        rse,
        "How far the image, made coarse again, is from the data: rms, correlation, and the places where it is far off.",
        "The first two: small inventions. All: what the blur hides, and a wrong photometric scale.",
        ("low",),
        ("rse", "rsp", "squirrel_outliers"),
    ),
}
