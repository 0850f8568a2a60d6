"""Flux conservation: in total, region by region, and source by source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from sciresdiff.checks.arrays import Array, Mask, blocks
from sciresdiff.checks.check import Check, UnmeasuredError
from sciresdiff.checks.detection import APERTURE_PX, aperture_sums
from sciresdiff.checks.empty_sky import aperture_noise
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.psf_matching import match_psfs
from sciresdiff.checks.residual import widen_limit
from sciresdiff.checks.result import Range, Result
from sciresdiff.checks.scatter import mad_std, median_margin
from sciresdiff.checks.source_lists import truth_sources
from sciresdiff.checks.sources import require_true_sources

TOTAL = 1e-3
"""Accepted relative error of the total flux, whatever the noise."""
SIGMAS = 3.0
"""Accepted error of the total flux, in sigmas of the data's total, where that is more."""
REGION_PX = 8
"""Side of the regions that flux is compared in where a kernel moves light between coarse pixels, coarse px."""
BRIGHT_SIGMAS = 20.0
"""Least significance in the data of a source that counts as bright; below, noise and prior decide its flux."""
FEWEST = 5
"""Fewest bright sources whose bias is judged."""
ENOUGH_IN_BIN = 10
"""Fewest sources of a magnitude that figures are given for."""


def _rebin(evidence: Evidence) -> Array:
    """Rebin the judged image to the coarse grid without blur: sums, or means for quantity ``mean``, (h, w)."""
    cells = blocks(evidence.finite_high, evidence.scale)
    return np.asarray(cells.sum((2, 3)) if evidence.quantity == "sum" else cells.mean((2, 3)))


def total_flux_ratio(evidence: Evidence) -> Result:
    """sum(x) / sum(y) over the judged pixels (means for quantity ``mean``); 1 is best.

    Accepted within 1e-3, or within 3 sqrt(sum of variance) of the data's total where that is larger. **Passed by every
    method that keeps totals, bicubic included; it finds a wrong unit or a missing 1 / scale^2, not a lost star.**
    """
    return total_flux_of(total_flux_sums(evidence))


def total_flux_sums(evidence: Evidence) -> dict[str, float]:
    """Add up image, data and variance over the judged pixels, and count these.

    Raises
    ------
    UnmeasuredError : no data.
    """
    if evidence.low is None or evidence.good_low is None:
        raise UnmeasuredError("needs the frame that was restored (--low)")
    good = evidence.good_low
    data, image = evidence.low[good], _rebin(evidence)[good]
    if evidence.predicted_low is not None and not good.all():
        image = evidence.predicted_low[good]  # light crosses the edge of a mask, so blur before leaving pixels out
    noise = float("nan") if evidence.variance is None else float(evidence.variance[good].sum())
    return {"image": float(image.sum()), "data": float(data.sum()), "noise": noise, "pixels": float(good.sum())}


def total_flux_of(sums: Mapping[str, float]) -> Result:
    """Make `total_flux_ratio` out of sums: those of a frame, or of all its parts together."""
    if not sums["pixels"]:
        raise UnmeasuredError("no coarse pixel is valid and judged")
    image, total, noise = sums["image"], sums["data"], float(np.sqrt(sums["noise"]))
    if total == 0:
        raise UnmeasuredError("the data have no flux in all")
    ratio, width, meaning = image / total, TOTAL, "total of the image over the data's"
    if np.isfinite(noise):
        width = max(TOTAL, SIGMAS * noise / abs(total))
        meaning += f"; {(image - total) / noise:+.3g} sigma of the data's total"
    return Result("total_flux_ratio", ratio, "", "all", (1 - width, 1 + width), abs(ratio - 1) <= width, meaning)


def block_flux_rms_sigma(evidence: Evidence) -> Result:
    """Root mean square of (flux of the image - flux of the data) / sigma over regions of the coarse grid.

    Without a kernel the regions are the coarse pixels; with one they are 8 x 8 coarse pixels of the re-degraded image,
    because a kernel moves light between pixels. 0 where flux is an exact constraint, 1 where the image were the truth.
    **Correlated noise makes regions scatter by more than their variance says.**
    """
    return block_flux_of(block_flux_sums(evidence))


def block_flux_sums(evidence: Evidence) -> dict[str, float]:
    """Add up the squares (S_image - S_data)^2 / S_variance of regions, count these, and give their side in coarse px.

    Raises
    ------
    UnmeasuredError : no data, or no variance.
    """
    if evidence.low is None or evidence.variance is None or evidence.good_low is None:
        raise UnmeasuredError("needs the frame that was restored and its noise (--low, --variance)")
    # without blur every coarse pixel keeps its own light; with it only regions much larger than the kernel do
    pure = evidence.operator is None or evidence.operator.pure
    image = _rebin(evidence) if evidence.predicted_low is None or pure else evidence.predicted_low
    side = 1 if pure else min(REGION_PX, *evidence.low.shape)
    good = evidence.good_low
    excess = _regions(np.where(good, image - evidence.low, 0), side)
    noise = _regions(np.where(good, evidence.variance, 0), side)
    squares = excess[noise > 0] ** 2 / noise[noise > 0]
    return {"squares": float(squares.sum()), "regions": float(squares.size), "side": float(side)}


def block_flux_of(sums: Mapping[str, float]) -> Result:
    """Make `block_flux_rms_sigma` out of sums: those of a frame, or of all its parts together."""
    if not sums["regions"]:
        raise UnmeasuredError("no coarse pixel is valid and judged")
    value, side = float(np.sqrt(sums["squares"] / sums["regions"])), int(sums["side"])
    return Result("block_flux_rms_sigma", value, "sigma", "all", meaning=f"regions of {side} x {side} coarse px")


def _regions(plane: Array, side: int) -> Array:
    """Sums of a plane (h, w) over squares; an incomplete square at the far borders is left out."""
    h, w = (n // side * side for n in plane.shape)
    return np.asarray(blocks(plane[:h, :w], side).sum((2, 3)))


@dataclass(frozen=True)
class Bin:
    """Sources of like brightness."""

    low: float
    """Magnitudes below the brightest source of the truth, the brighter end."""
    high: float
    count: int
    median: float
    """Of -2.5 log10(F / F_true), mag."""
    scatter: float
    """1.4826 times the median absolute deviation, mag."""


@dataclass(frozen=True, eq=False)
class FluxBias:
    """Fluxes of the truth's sources in the image against the true ones."""

    xy: Array
    """(n, 2), px."""
    magnitude: Array
    """(n,), true magnitude below the brightest source, 0 or more; no zero point is known."""
    delta: Array
    """(n,), -2.5 log10(F / F_true), mag; above 0 light was lost."""
    bright: Mask
    """(n,), the brightest fifth, if 20 sigma in the data."""
    bins: tuple[Bin, ...]
    """Of one magnitude each, the brightest first; those with 10 sources or more."""
    matching: str
    """Whether the PSFs were matched before, in words."""


def flux_by_magnitude(evidence: Evidence) -> FluxBias:
    """Compare sums over circles of 4 px at the truth's sources, of the image and of the truth, PSFs matched.

    `match_psfs` blurs the sharper of the two, where there are 5 stars to measure.

    Raises
    ------
    UnmeasuredError : no truth, too few sources in it, or none with light in both.
    """
    require_true_sources(evidence)
    flat, true, how = match_psfs(evidence)
    xy = truth_sources(evidence).inner
    known = truth_sources(evidence).fluxes if true is truth_sources(evidence).flat else aperture_sums(true, xy)
    flux = aperture_sums(flat, xy)
    both = (known > 0) & (flux > 0)
    if not both.any():
        raise UnmeasuredError("no source has light above the background in both image and truth")
    delta, magnitude = -2.5 * np.log10(flux[both] / known[both]), -2.5 * np.log10(known[both] / known[both].max())
    bright = known[both] > max(float(np.percentile(known[both], 80)), _measurable(evidence))
    return FluxBias(xy[both], magnitude, delta, bright, _bins(magnitude, delta), how)


def _measurable(evidence: Evidence) -> float:
    """Flux at `BRIGHT_SIGMAS` of the data's typical noise, unit of the image; 0 where that is not known."""
    if evidence.variance is None or evidence.good_low is None or not evidence.good_low.any():
        return 0.0
    return BRIGHT_SIGMAS * aperture_noise(evidence, float(np.median(evidence.variance[evidence.good_low])))


def _bins(magnitude: Array, delta: Array) -> tuple[Bin, ...]:
    """Median and scatter by whole magnitudes."""
    found = []
    for low in range(int(magnitude.max()) + 1):
        part = delta[(magnitude >= low) & (magnitude < low + 1)]
        if part.size >= ENOUGH_IN_BIN:
            found.append(Bin(low, low + 1, part.size, float(np.median(part)), mad_std(part)))
    return tuple(found)


def source_flux_bias_mag(evidence: Evidence) -> list[Result]:
    """Median of -2.5 log10(F / F_true), mag, in circles of 4 px at the truth's sources, above the background.

    For the brightest fifth, as far as they have 20 sigma in the data (``bright``), for the others (``faint``), and for
    each magnitude below the brightest source that holds 10 of them (``mag 2-3``); 0 is best, above 0 means that light
    was lost. The sharper of image and truth is blurred before, until stars have the same share of their light in the
    aperture, where there are 5 to tell (`match_psfs`); ``meaning`` says so. Accepted within 0.01 and 3
    standard errors of 5 bright ones or more. **A blur that keeps the light is not seen then (`fwhm_px` sees it); where
    PSFs could not be matched, an image with broader wings loses light from the aperture without having lost it. In a
    crowded field the background of a blurred image is too high, and its sources too faint.**
    """
    found = flux_by_magnitude(evidence)
    results = _by_magnitude(found, "source_flux_bias_mag", lambda delta: float(np.median(delta)), "median offset")
    if not found.bright.any():
        return results
    limit: Range = (None, None)  # the scatter of a handful cannot be known
    if found.bright.sum() >= FEWEST:
        limit = widen_limit(evidence.kind, "source_flux_bias_mag", median_margin(found.delta[found.bright]))
    return [replace(one, limit=limit) if one.region == "bright" else one for one in results]


def source_flux_scatter_mag(evidence: Evidence) -> list[Result]:
    """1.4826 times the median absolute deviation of the magnitudes of `source_flux_bias_mag`, mag; 0 is best.

    **The truth's own noise is in it.**
    """
    return _by_magnitude(flux_by_magnitude(evidence), "source_flux_scatter_mag", mad_std, "scatter")


def _by_magnitude(found: FluxBias, name: str, figure: Callable[[Array], float], what: str) -> list[Result]:
    """A figure of the magnitude differences: bright, faint, and by magnitude."""
    parts = {"bright": found.bright, "faint": ~found.bright}
    for one in found.bins:
        parts[f"mag {one.low:g}-{one.high:g}"] = (found.magnitude >= one.low) & (found.magnitude < one.high)
    return [
        Result(name, figure(found.delta[part]), "mag", region, weight=int(part.sum()),
               meaning=f"{what} of {int(part.sum())} sources in circles of {APERTURE_PX:g} px; {found.matching}")
        for region, part in parts.items() if part.any()
    ]  # fmt: skip


CHECKS = {
    "total_flux_ratio": Check(
        total_flux_ratio,
        "Total flux of the image over that of the data; 1 is best.",
        "Lost sources: bicubic passes, too. It detects a wrong unit.",
        ("low",),
    ),
    "block_flux_rms_sigma": Check(
        block_flux_rms_sigma,
        "RMS difference of the flux in small regions from the data's, in sigma; the truth itself has 1.",
        "Errors inside a region, and correlated noise.",
        ("low", "variance"),
    ),
    "source_flux_bias_mag": Check(
        source_flux_bias_mag,
        "Median magnitude error of the sources, above 0 too faint, after PSF matching where there are stars.",
        "Blur that conserves flux; and, where PSFs were not matched, light outside the aperture counts as lost.",
        ("truth",),
    ),
    "source_flux_scatter_mag": Check(
        source_flux_scatter_mag,
        "Scatter of the magnitudes of single sources about the truth's.",
        "Which part of it is the truth's own noise.",
        ("truth",),
    ),
}
