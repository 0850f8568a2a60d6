"""Ratio of the fluxes of two exposures: as their headers have it, and as what both show has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize_scalar

from sciresdiff.errors import InputError, UnmeasuredError
from sciresdiff.notes import Notes
from sciresdiff.physics.psf.shapes import FWHM_PER_SIGMA
from sciresdiff.units import astropy_text, is_count, is_electron, is_rate

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

BLOCKS = 4
"""Parts per side that the error of a measured ratio is made of."""
BRIGHT = 5.0
"""Standard deviations above the sky, of a blurred image, from which a pixel tells the ratio."""
LIGHT = 5.0
"""Standard deviations by which pixels with light have to vary more than noise makes them."""
LEAST_PIXELS = 30
"""Pixels that are needed."""
MATCHED = 0.05
"""Error of the images beyond noise, as a share of the light: PSFs that are matched by Gaussians only."""
SYSTEMATIC = 0.01
"""Error of the ratio that parts of a frame share, by the sampling of sharp stars: 1.0 % at FWHM 1.6 px."""
PLAUSIBLE = (1e-4, 1e4)
"""Ratios that are looked for, as factors on the ratio of the images' scatters."""
CLIP = 4.0
"""Residuals in robust standard deviations beyond which a pixel is left out."""
AGREE = 0.05
"""Difference of a stated ratio and a measured one that calibrations have."""
SURE = 3.0
"""Standard errors by which they must differ, too."""
SHARP = 0.1
"""Error of a measured ratio, as a share, above which it says nothing against a header."""


@dataclass(frozen=True)
class StatedScale:
    """What an exposure's header says of its flux: value of a pixel per light, up to a factor that all share."""

    factors: tuple[float, ...]
    """As each reading of the header has it; a zero point may or may not hold the exposure time. Empty: nothing said."""
    kind: str
    """What it rests on; exposures are compared by one kind: ``unit``, ``zero point`` or ``exposure time``."""
    words: str


@dataclass(frozen=True)
class MeasuredScale:
    """Ratio of the fluxes of two exposures, over a sky that each has for itself."""

    factor: float
    """Flux in the exposure over flux in the reference."""
    error: float
    """Standard error, as a share of the factor."""
    pixels: int
    """That it rests on."""


def stated_scales(unit: str | None, facts: Mapping[str, float]) -> list[StatedScale]:
    """What a header says of the flux, best first.

    A unit of flux needs no more. A zero point m of ``-2.5 lg(value) + m`` is that of a pixel's value or of its value
    per second, which headers do not tell apart: both are readings. Else the exposure time counts, and the gain where
    values are no electrons.

    Parameters
    ----------
    unit : BUNIT.
    facts : `Frame.facts`: exposure (s), gain, zero_point (mag), flux_density (of one unit: PHOTFLAM, PHOTMJSR).
    """
    found, time = [], facts.get("exposure")
    rate = is_rate(unit)
    if unit and not is_count(unit) and (physical := _flux_of_unit(unit)):
        return [StatedScale((1 / physical,), "unit", f"unit {unit}")]
    if density := facts.get("flux_density"):
        per_second = 1.0 if rate or not time else time
        found.append(StatedScale((per_second / density,), "flux density", f"{density:.4g} per unit of light"))
    if (magnitude := facts.get("zero_point")) is not None:
        base = 10 ** (0.4 * (magnitude - 25))
        readings = (base,) if rate or not time else (base, base * time)
        found.append(StatedScale(readings, "zero point", f"zero point {magnitude:.3f} mag"))
    if rate:
        found.append(StatedScale((1.0,), "exposure time", f"unit {unit}"))
    elif time:
        # values of ADU are electrons over the gain; without a unit nobody knows, and one camera has one gain
        gain = facts.get("gain", 1.0) if unit and is_count(unit) and not is_electron(unit) else 1.0
        found.append(StatedScale((time / gain,), "exposure time", f"exposure time {time:g} s"))
    return found


def _flux_of_unit(unit: str) -> float | None:
    """What a unit of flux or surface brightness is in units of its kind; None for one that astropy does not know."""
    from astropy import units

    try:
        found = units.Unit(astropy_text(unit))
        return float(found.decompose().scale)
    except ValueError:
        return None


def stated_ratio(reference: list[StatedScale], other: list[StatedScale]) -> tuple[tuple[float, ...], str] | None:
    """Flux of an exposure over that of the reference, as their headers have it, in every reading; and in words.

    None where they have nothing of one kind.
    """
    for mine in other:
        for theirs in reference:
            if mine.kind == theirs.kind:
                pairs = zip(mine.factors, theirs.factors, strict=False)
                ratios = tuple(a / b for a, b in pairs)
                return ratios, f"{mine.words} against {theirs.words}"
    return None


def refuse_units(names: tuple[str, str], units: tuple[str | None, str | None]) -> None:
    """Refuse exposures whose units are of different kinds, such as counts and MJy/sr.

    Raises
    ------
    InputError : with both.
    """
    one, other = units
    if one and other and is_count(one) != is_count(other):
        raise InputError(
            f"{names[1]}: BUNIT is {other}, and that of {names[0]} is {one}; give exposures in units of one kind, "
            "or convert them"
        )


def measure_scale(
    reference: tuple[Array, Array, Mask], other: tuple[Array, Array, Mask], widths: tuple[float, float]
) -> MeasuredScale:
    """Measure the flux in an exposure over that in the reference, from the pixels of both that show light.

    Both are blurred to one width by Gaussians, which conserve flux; then other = factor reference + constant by total
    least squares with the errors of both (York 1966, Can. J. Phys. 44, 1079, for errors that are not correlated),
    without pixels that are off. The error is a jackknife over 4 x 4 parts of the frame, and `SYSTEMATIC`. **A source
    that varies counts as the others do, unless it stands out; wings of PSFs are not matched.**

    Parameters
    ----------
    reference, other : values without sky, variance and good pixels, (h, w), on one grid.
    widths : FWHM of their PSFs, px of the grid.

    Raises
    ------
    UnmeasuredError : too little light in both.
    """
    good = reference[2] & other[2]
    widest = max(widths) / FWHM_PER_SIGMA
    common = np.hypot(widest, max(widest, 1.0))
    planes = []
    for (values, variance, _), width in zip((reference, other), widths, strict=True):
        sigma = float(np.sqrt(max(common**2 - (width / FWHM_PER_SIGMA) ** 2, 0.25)))
        planes.append(_blur(values, variance, good, sigma))
    (x, vx), (y, vy) = planes
    weight = gaussian_filter(good.astype(float), common)
    light = good & (weight > 0.9) & ((x > BRIGHT * np.sqrt(vx)) | (y > BRIGHT * np.sqrt(vy)))
    if light.sum() < LEAST_PIXELS:
        raise UnmeasuredError(f"only {int(light.sum())} pixels show light in both exposures")
    h, w = light.shape
    rows, columns = np.indices(light.shape)
    part = (rows * BLOCKS // h * BLOCKS + columns * BLOCKS // w)[light]
    x, y, vx, vy = x[light], y[light], vx[light], vy[light]
    beside = 4 * np.pi * common**2  # pixels that share their noise after the blur
    if not all(shows_light(values, variance, beside) for values, variance in ((x, vx), (y, vy))):
        raise UnmeasuredError("what shows light in one exposure shows none in the other")
    factor, keep = _fit_line(x, y, vx, vy)
    x, y, vx, vy, part = x[keep], y[keep], vx[keep], vy[keep], part[keep]
    parts = [one for one in np.unique(part) if (part != one).sum() >= LEAST_PIXELS // 2]
    if len(parts) < 2:
        raise UnmeasuredError("what shows light in both exposures lies in one place")
    near = (0.7 * factor, 1.4 * factor)
    others = [part != one for one in parts]
    left = np.array([_ratio(x[some], y[some], vx[some], vy[some], near) for some in others])
    n = len(left)
    error = float(np.sqrt((n - 1) / n * ((np.log(left) - np.log(left).mean()) ** 2).sum()))
    return MeasuredScale(factor, float(np.hypot(error, SYSTEMATIC)), len(x))


def shows_light(values: Array, variance: Array, beside: float) -> bool:
    """Whether values (n,) vary by more than their variances (n,) tell; so many beside each other share noise."""
    excess = ((values - values.mean()) ** 2 - variance).sum()
    return bool(excess > LIGHT * np.sqrt(2 * beside * (variance**2).sum()))


def _blur(values: Array, variance: Array, good: Mask, sigma: float) -> tuple[Array, Array]:
    """An image and its variance after a Gaussian blur; bad pixels count as those around them."""
    weight = np.maximum(gaussian_filter(good.astype(float), sigma), 1e-3)
    blurred = gaussian_filter(np.where(good, values, 0), sigma) / weight
    # the square of a Gaussian is a Gaussian of sigma / sqrt(2), whose sum is 1 / (4 pi sigma^2)
    narrow = gaussian_filter(np.where(good, variance, 0), sigma / np.sqrt(2)) / max(4 * np.pi * sigma**2, 1.0)
    return blurred, narrow / weight**2


def _fit_line(x: Array, y: Array, vx: Array, vy: Array) -> tuple[float, Mask]:
    """The slope of y over x, and the pixels that do not stand out."""
    keep = np.ones(len(x), bool)
    guess = float(np.median(np.abs(y)) / max(np.median(np.abs(x)), 1e-300))
    bounds = (guess * PLAUSIBLE[0], guess * PLAUSIBLE[1])
    slope = _ratio(x, y, vx, vy, bounds)
    for _ in range(8):
        spread = np.sqrt(_spread(x, y, vx, vy, slope))
        residual = (y - slope * x) / spread
        residual = residual - np.median(residual[keep])
        scatter = max(1.4826 * float(np.median(np.abs(residual[keep]))), 1e-12)
        new = np.abs(residual) < CLIP * scatter
        if new.sum() < LEAST_PIXELS // 2 or (new == keep).all():
            break
        keep = new
        slope = _ratio(x[keep], y[keep], vx[keep], vy[keep], (slope / 3, slope * 3))
    return slope, keep


def _spread(x: Array, y: Array, vx: Array, vy: Array, slope: float) -> Array:
    """Variance of y - slope x; the light that PSFs mislay grows with it."""
    return np.asarray(vy + slope**2 * vx + (MATCHED * (np.abs(y) + slope * np.abs(x)) / 2) ** 2)


def _ratio(x: Array, y: Array, vx: Array, vy: Array, bounds: tuple[float, float]) -> float:
    """The slope of least chi2 with errors on both axes; the constant follows from it."""

    def chi2(logarithm: float) -> float:
        slope = float(np.exp(logarithm))
        spread = _spread(x, y, vx, vy, slope)
        residual = y - slope * x
        constant = float((residual / spread).sum() / (1 / spread).sum())
        return float(np.mean((residual - constant) ** 2 / spread))

    low, high = np.log(bounds[0]), np.log(bounds[1])
    if high - low > 3:  # the minimum of a wide range may be one of several
        tried = np.linspace(low, high, 60)
        best = int(np.argmin([chi2(t) for t in tried]))
        low, high = tried[max(best - 1, 0)], tried[min(best + 1, 59)]
    return float(np.exp(minimize_scalar(chi2, bounds=(low, high), method="bounded", options={"xatol": 1e-6}).x))


def choose_scale(
    name: str, stated: tuple[tuple[float, ...], str] | None, measured: MeasuredScale | None, reason: str = ""
) -> tuple[float, Notes]:
    """The ratio of fluxes that is used: the header's where what is measured does not contradict it.

    Parameters
    ----------
    name : of the exposure's file.
    stated : `stated_ratio`.
    measured : `measure_scale`; None where there was too little light.
    reason : why not, in words.

    Raises
    ------
    InputError : neither is known.
    """
    if stated is None and measured is None:
        raise InputError(
            f"{name}: no EXPTIME or zero point says how its flux compares with the first exposure's, and it cannot be"
            f" measured ({reason}); add EXPTIME to the headers"
        )
    if measured is None:
        assert stated is not None
        return stated[0][0], Notes(f"flux: {name}: {stated[0][0]:.5g} times the first exposure's ({stated[1]})")
    figures = f"{measured.factor:.5g} +- {measured.factor * measured.error:.2g} measured on {measured.pixels} pixels"
    if stated is None:
        return measured.factor, Notes(f"flux: {name}: {figures}; no header says", flux="measured")
    off = [abs(float(np.log(measured.factor / ratio))) for ratio in stated[0]]
    best = int(np.argmin(off))
    if off[best] <= max(AGREE, SURE * measured.error) or measured.error > SHARP:
        return stated[0][best], Notes(
            f"flux: {name}: {stated[0][best]:.5g} times the first exposure's ({stated[1]}); {figures}", flux="header"
        )
    return measured.factor, Notes(
        f"WARNING flux: {name}: {figures}, but {stated[0][best]:.5g} by the headers ({stated[1]}); the measured one is"
        " used (clouds, another zero point, or a source that varies)",
        flux="measured",
    )
