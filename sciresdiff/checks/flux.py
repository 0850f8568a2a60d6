"""Whether light was kept: in all, region by region, and source by source."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sciresdiff.checks.check import Check
from sciresdiff.checks.evidence import Array, Evidence, Result, blocks
from sciresdiff.checks.sources import APERTURE_PX, magnitudes

TOTAL = 1e-3
"""Relative error of the total flux that is accepted whatever the noise."""
SIGMAS = 3.0
"""Error of the total flux that is accepted, in sigmas of the data's total, where that is more."""
REGION_PX = 8
"""Side of the regions that flux is compared in where a kernel moves light between coarse pixels, coarse px."""


def _block_flux(evidence: Evidence) -> Array:
    """The judged image brought to the coarse grid without blur: sums, or means for quantity ``mean``, (h, w)."""
    cells = blocks(evidence.whole, evidence.scale)
    return np.asarray(cells.sum((2, 3)) if evidence.quantity == "sum" else cells.mean((2, 3)))


def total_flux_ratio(evidence: Evidence) -> Result | None:
    """sum(x) / sum(y) over the judged pixels (means for quantity ``mean``); 1 is best.

    Accepted within 1e-3, or within 3 sqrt(sum of variance) of the data's total where that is larger. **Passed by every
    method that keeps totals, bicubic included; it finds a wrong unit or a missing 1 / scale^2, not a lost star.**
    """
    if evidence.low is None or evidence.good_low is None or not evidence.good_low.any():
        return None
    data, image = evidence.low[evidence.good_low], _block_flux(evidence)[evidence.good_low]
    total = float(data.sum())
    if total == 0:
        return None
    if evidence.redegraded is not None and not evidence.good_low.all():
        image = evidence.redegraded[evidence.good_low]  # light crosses the masked pixels' edges
    ratio, width, meaning = float(image.sum()) / total, TOTAL, "total of the image over the data's"
    if evidence.variance is not None:
        noise = float(np.sqrt(evidence.variance[evidence.good_low].sum()))
        width = max(TOTAL, SIGMAS * noise / abs(total))
        meaning += f"; {(image.sum() - total) / noise:+.3g} sigma of the data's total"
    return Result("total_flux_ratio", ratio, "", "all", (1 - width, 1 + width), abs(ratio - 1) <= width, meaning)


def block_flux_rms_sigma(evidence: Evidence) -> Result | None:
    """Root mean square of (flux of the image - flux of the data) / sigma over regions of the coarse grid.

    Without a kernel the regions are the coarse pixels; with one they are 8 x 8 coarse pixels of the re-degraded image,
    because a kernel moves light between pixels. 0 where flux is an exact constraint, 1 where the image were the truth.
    **Correlated noise makes regions scatter by more than their variance says.** None without a variance.
    """
    if evidence.low is None or evidence.variance is None or evidence.good_low is None:
        return None
    pure = evidence.operator is None or evidence.operator.pure
    image = _block_flux(evidence) if evidence.redegraded is None or pure else evidence.redegraded
    side = 1 if pure else min(REGION_PX, *evidence.low.shape)
    good = evidence.good_low
    off = _regions(np.where(good, image - evidence.low, 0), side)
    noise = _regions(np.where(good, evidence.variance, 0), side)
    if not (noise > 0).any():
        return None
    value = float(np.sqrt(np.mean(off[noise > 0] ** 2 / noise[noise > 0])))
    return Result("block_flux_rms_sigma", value, "sigma", "all", meaning=f"regions of {side} x {side} coarse px")


def _regions(plane: Array, side: int) -> Array:
    """Sums over squares; what is left at the far borders is not counted."""
    h, w = (n // side * side for n in plane.shape)
    return np.asarray(blocks(plane[:h, :w], side).sum((2, 3)))


def source_flux_bias_mag(evidence: Evidence) -> list[Result] | None:
    """Median of -2.5 log10(F / F_true), mag, in circles of 4 px at the truth's sources, above the background.

    For the brightest fifth (``bright``) and for the others (``faint``); 0 is best, above 0 means that light was lost.
    **An image with broader wings than the truth loses light from the aperture without having lost it.**
    """
    return _of_magnitudes(evidence, "source_flux_bias_mag", lambda delta: float(np.median(delta)), "median offset")


def source_flux_scatter_mag(evidence: Evidence) -> list[Result] | None:
    """1.4826 times the median absolute deviation of the magnitudes of `source_flux_bias_mag`, mag; 0 is best.

    **The truth's own noise is in it.**
    """
    return _of_magnitudes(
        evidence,
        "source_flux_scatter_mag",
        lambda delta: float(1.4826 * np.median(np.abs(delta - np.median(delta)))),
        "scatter",
    )


def _of_magnitudes(evidence: Evidence, name: str, figure: Callable[[Array], float], what: str) -> list[Result] | None:
    """A figure of the magnitude differences, bright and faint."""
    if (found := magnitudes(evidence)) is None:
        return None
    delta, bright = found
    return [
        Result(name, figure(delta[part]), "mag", region,
               meaning=f"{what} of {int(part.sum())} sources in circles of {APERTURE_PX:g} px")
        for region, part in (("bright", bright), ("faint", ~bright)) if part.any()
    ]  # fmt: skip


CHECKS = {
    "total_flux_ratio": Check(
        total_flux_ratio,
        "All the light of the image over all the light of the data; 1 is best.",
        "A lost star: bicubic passes it, too. It finds a wrong unit.",
        ("low",),
    ),
    "block_flux_rms_sigma": Check(
        block_flux_rms_sigma,
        "By how many sigma the light of small regions differs from the data's; the truth itself has 1.",
        "Errors inside a region, and correlated noise.",
        ("low", "variance"),
    ),
    "source_flux_bias_mag": Check(
        source_flux_bias_mag,
        "By how much sources are too faint (above 0) or too bright, in magnitudes.",
        "Light outside the aperture: an image with broader wings loses it without having lost it.",
        ("truth",),
    ),
    "source_flux_scatter_mag": Check(
        source_flux_scatter_mag,
        "How much the brightness of single sources varies about the truth's, in magnitudes.",
        "The truth's own noise is in it.",
        ("truth",),
    ),
}
