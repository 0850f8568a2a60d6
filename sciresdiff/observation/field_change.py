"""What changed in the field between exposures: moving objects, variable stars, epochs that show different things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter

from sciresdiff.notes import Notes
from sciresdiff.observation.exposure_outliers import Cut, FirstRound, Shown, others_of, predict, take_first
from sciresdiff.physics.psf.shapes import FWHM_PER_SIGMA
from sciresdiff.region import Region

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SURE = 8.0
"""Standard deviations, of noise and of what PSFs and places mislay, of a change."""
MISLAID = 0.2
"""Part of what PSFs and places may differ by at a pixel that is left in the sum over the PSF."""
LEAST_SHARE = 0.2
"""Share of the brighter light at the place that a change is; PSFs and calibrations that differ make less."""
PSF_LIKE = 0.93
"""Least correlation of what differs with the PSF. A cosmic ray of one pixel has 0.7 to 0.85, a track less."""
EDGE = 2
"""Pixels at the border of what both show, where nothing is judged."""
FEW = 5
"""Places that a line names."""
CONTRADICTION = 0.02
"""Share of an exposure's pixels that contradict the others above which it is another field, and no cosmic rays."""


@dataclass(frozen=True)
class Change:
    """A source that one exposure shows brighter or fainter than the others do."""

    y: float
    """Px of the reference."""
    x: float
    light: float
    """What is more in the exposure than in the others, flux of the reference."""
    share: float
    """Of the brighter one's light."""
    sigmas: float


def find_changes(
    exposures: Sequence[Shown], number: int, region: Region, first_round: FirstRound | None = None
) -> list[Change]:
    """Find sources that an exposure shows otherwise than the others do, as wide as its PSF.

    **What is sharper than the PSF is a cosmic ray, and a source fainter than the noise of a single exposure is not
    seen.** The two places of a source that moved are two changes.

    Parameters
    ----------
    exposures : all of the field.
    number : of the exposure in question.
    region : its window, px of its own.
    first_round : as of `find_outliers`.
    """
    one, first_round = exposures[number], first_round or partial(take_first, exposures)
    margin = int(np.ceil(3 * one.fwhm)) + EDGE
    wide = region.grown(margin, one.shape)
    cut = one.read(wide)
    difference, spread, light, good = _difference(one, cut, others_of(exposures, number, wide, first_round))
    if not good.any():
        return []
    sigma = max(one.fwhm, 1.0) / FWHM_PER_SIGMA
    # the optimal sum of a source of this PSF: sum P d / v over sqrt(sum P^2 / v)
    weight = np.where(good, 1 / np.where(good, spread, 1), 0)
    top = gaussian_filter(np.where(good, difference, 0) * weight, sigma)
    norm = gaussian_filter(weight, sigma / np.sqrt(2)) / (4 * np.pi * sigma**2)
    detection = np.where(norm > 0, top / np.sqrt(np.maximum(norm, 1e-300)), 0)
    size = 2 * int(np.ceil(one.fwhm)) + 1
    peaks = (np.abs(detection) == maximum_filter(np.abs(detection), size)) & (np.abs(detection) > SURE) & good
    found = []
    for y, x in np.argwhere(peaks):
        change = _judge(difference, light, good, (int(y), int(x)), one.fwhm)
        at = y + wide.y0, x + wide.x0
        if change is not None and region.y0 <= at[0] < region.y1 and region.x0 <= at[1] < region.x1:
            place = one.to_reference(np.array([at], float))[0]
            found.append(Change(float(place[0]), float(place[1]), *change, float(detection[y, x])))
    return sorted(found, key=lambda change: -abs(change.sigmas))


def _difference(one: Shown, cut: Cut, others: Sequence[tuple[Shown, Cut]]) -> tuple[Array, Array, Array, Mask]:
    """Data less the median of the others, its variance, the brighter of both, and where they are known."""
    shape = cut.values.shape
    nothing = np.zeros(shape)
    if not others:
        return nothing, nothing, nothing, np.zeros(shape, bool)
    places = np.argwhere(np.ones(shape, bool)) + [cut.region.y0, cut.region.x0]
    found = predict(one, others, places)
    count = found.valid.sum(0)
    rank = np.argsort(np.where(found.valid, found.values, np.inf), axis=0, kind="stable")
    which = rank[np.maximum((count - 1) // 2, 0), np.arange(len(places))], np.arange(len(places))
    p, room, variance = (plane[which].reshape(shape) for plane in (found.values, found.room, found.variance))
    good = (count >= 1).reshape(shape) & ~cut.bad
    spread = cut.variance + variance + (MISLAID * room) ** 2
    return np.where(good, cut.values - p, 0), spread, np.maximum(cut.values, p), good


def _judge(
    difference: Array, light: Array, good: Mask, place: tuple[int, int], fwhm: float
) -> tuple[float, float] | None:
    """Light of a change and its share; None where what differs is not as wide as the PSF, or too little of it."""
    radius = max(2, int(np.ceil(1.2 * fwhm)))
    y, x = place
    h, w = difference.shape
    if min(y, x) < radius or y >= h - radius or x >= w - radius:
        return None
    cut = np.s_[y - radius : y + radius + 1, x - radius : x + radius + 1]
    d, usable = difference[cut], good[cut]
    if usable.mean() < 0.9:
        return None
    grid = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(float)
    sigma, middle = max(fwhm, 1.0) / FWHM_PER_SIGMA, np.zeros(2)
    profile = np.zeros(d.shape)
    for _ in range(10):
        profile = np.exp(-0.5 * ((grid - middle[:, None, None]) ** 2).sum(0) / sigma**2)
        total = (profile * d).sum()
        if total == 0:
            return None
        middle = np.clip(middle + 2 * (profile * d * (grid - middle[:, None, None])).sum((1, 2)) / total, -1, 1)
    alike = float((profile * d).sum() / np.sqrt((profile**2).sum() * (d**2).sum()))
    inside = (grid**2).sum(0) <= radius**2
    changed, all_light = float(d[inside].sum()), float(np.maximum(light[cut], 0)[inside].sum())
    share = abs(changed) / max(all_light, abs(changed), 1e-300)
    return (changed, share) if abs(alike) > PSF_LIKE and share > LEAST_SHARE else None


def describe_changes(name: str, changes: Sequence[Change]) -> Notes:
    """The line about sources that changed; none where nothing did.

    Parameters
    ----------
    name : of the exposure's file.
    changes : `find_changes`.
    """
    if not changes:
        return Notes()
    places = "; ".join(
        f"y {one.y:.1f}, x {one.x:.1f} ({'brighter' if one.light > 0 else 'fainter'} by {100 * one.share:.0f} %,"
        f" {abs(one.sigmas):.0f} sigma)" for one in changes[:FEW]
    )  # fmt: skip
    more = f" and {len(changes) - FEW} more" if len(changes) > FEW else ""
    sources = "source differs" if len(changes) == 1 else "sources differ"
    return Notes(
        f"WARNING field: {name}: {len(changes)} {sources} from the other exposures, moving or variable; px of the"
        f" first: {places}{more}; the image there is no single sky's"
    )


def warn_contradiction(name: str, pixels: int, size: int) -> Notes:
    """The line about an exposure that contradicts the others in too many pixels for cosmic rays.

    Parameters
    ----------
    name : of its file.
    pixels : that contradict.
    size : that were looked at.
    """
    if pixels <= CONTRADICTION * max(size, 1):
        return Notes()
    return Notes(
        f"WARNING field: {name}: {100 * pixels / size:.1f} % of its pixels contradict the other exposures beyond an"
        " offset and a factor: another epoch, place, PSF or noise than stated; leave it out, or try --align measure"
    )
