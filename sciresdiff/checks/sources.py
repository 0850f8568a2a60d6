"""Completeness, purity and astrometry of the sources, and whether the data support them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sciresdiff.checks.adaptive_moments import stamps
from sciresdiff.checks.arrays import Array, Mask
from sciresdiff.checks.check import Check, UnmeasuredError
from sciresdiff.checks.detection import KERNEL, MATCH_PX, Sources, cross_match, detect_again
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.forced import significance
from sciresdiff.checks.result import Range, Result
from sciresdiff.checks.scatter import count_margin, mad_std, median_error
from sciresdiff.checks.source_lists import bicubic_sources, detection_noise, image_sources, truth_sources

FORCED_SIGMAS = 2.0
"""Significance in the data below which a detection counts as invented."""
FALSE_SHARE = 0.05
"""Share of the detections that may be no sources of the truth."""
TRUE_PER_FALSE = 20
"""Sources of the truth per false detection at which completeness is compared."""
DEEP_SIGMAS = 3.0
"""Threshold down to which it is searched, sigma."""
FEWEST_PLACES = 5
"""Matched sources below which their median offset says nothing of the registration."""
ENOUGH = {"astro": 1, "micro": 20}
"""Fewest sources that scores are given for; a microscope frame with few blobs is not a field of sources."""


def require_true_sources(evidence: Evidence) -> None:
    """Refuse evidence without a truth, or with too few sources in it.

    Raises
    ------
    UnmeasuredError : with the reason.
    """
    if evidence.truth is None:
        raise UnmeasuredError("needs a truth (--truth)")
    if not evidence.good_high.any():
        raise UnmeasuredError("every pixel is masked")
    if not np.ptp(evidence.truth[evidence.good_high]) > 0:
        raise UnmeasuredError("the truth is constant")
    count, least = len(truth_sources(evidence).inner), ENOUGH[evidence.kind]
    if count < least:
        raise UnmeasuredError("no source in the truth" if least == 1 else f"fewer than {least} sources in the truth")


def completeness(evidence: Evidence) -> Result:
    """Share of the truth's sources with a detection within 2 px; 1 is best.

    Detections at 5 sigma of the truth's noise, 5 px, away from the border (Serra et al. 2012, PASA 29, 296). **Says
    nothing of false detections, and counts one detection for two merged sources that are near each other twice.**
    """
    require_true_sources(evidence)
    found, _ = cross_match(truth_sources(evidence).inner, image_sources(evidence).around)
    meaning = f"{int(found.sum())} of the truth's {len(found)} sources are found within {MATCH_PX:g} px"
    return Result("completeness", float(found.mean()), "", "sources", meaning=meaning, weight=len(found))


def completeness_equal_spurious(evidence: Evidence) -> Result:
    """Share of the truth's sources found where one false detection is let in for every 20 of them; 1 is best.

    Detections down to 3 sigma of the truth's noise are ordered by the height of their smoothed peak, a flux for sources
    of one PSF; the threshold is lowered to the last detection before there are more than N / 20 that match no source of
    the truth. Every image of a frame is thus compared at the same density of false sources, whatever its own noise:
    `completeness` alone rewards an image that shows more of everything. **What the truth's own noise hides counts as
    false.**
    """
    require_true_sources(evidence)
    deep = detect_again(image_sources(evidence), detection_noise(evidence), ~evidence.valid_high, DEEP_SIGMAS)
    found, true = deep.inner, truth_sources(evidence).inner
    allowed = len(true) // TRUE_PER_FALSE
    if not len(found):
        why = "no detection at 3 sigma"
        return Result("completeness_equal_spurious", 0.0, "", "sources", meaning=why, weight=len(true))
    heights = _heights(deep.flat, deep.inner_peaks)
    order = np.argsort(-heights, kind="stable")
    # from the highest peak down, how many false ones are in the list at every threshold
    false = np.cumsum(~cross_match(found[order], truth_sources(evidence).around)[0])
    kept = order[: int(np.searchsorted(false, allowed, "right"))]
    seen, _ = cross_match(true, found[kept])
    cut = f"above {heights[kept[-1]]:.3g} per pixel" if len(kept) else "above the brightest detection, which is false"
    meaning = (
        f"{int(seen.sum())} of {len(true)} sources {cut}, with at most {allowed} false among {len(kept)} detections"
    )
    value = float(seen.mean())
    return Result("completeness_equal_spurious", value, "", "sources", meaning=meaning, weight=len(true))


def _heights(flat: Array, peaks: Array) -> Array:
    """The image smoothed by `KERNEL` at pixels (n, 2); a bent source may have its peak at the border."""
    peaks = np.clip(peaks, 1, np.array(flat.shape)[::-1] - 2)
    return np.asarray((stamps(flat, peaks, 1)[0] * KERNEL).sum((1, 2)))


def purity(evidence: Evidence) -> Result:
    """Share of the detections with a source of the truth within 2 px; 1 is best.

    Of n detections N = n / 20 may be false, and by chance N + 2 sqrt(N + 1). **A detection of something real that the
    truth's own noise hides counts as false**; compare with bicubic's.
    """
    require_true_sources(evidence)
    if not len(image_sources(evidence).inner):
        raise UnmeasuredError("no source in the image")
    true, _ = cross_match(image_sources(evidence).inner, truth_sources(evidence).around)
    meaning = f"{int(true.sum())} of {len(true)} detections are sources of the truth"
    limit = purity_limit(len(true))
    return Result("purity", float(true.mean()), "", "sources", limit, meaning=meaning, weight=len(true))


def purity_limit(n: float) -> Range:
    """Accepted purity of n detections."""
    return max(0.0, 1 - count_margin(FALSE_SHARE * n) / n), None


def _spurious(evidence: Evidence, found: Sources) -> Mask | None:
    """Detections without a source in the truth; without a truth, those that the data do not support."""
    if evidence.truth is not None:
        return ~cross_match(found.inner, truth_sources(evidence).around)[0]
    snr = significance(evidence, found)
    return None if snr is None else np.asarray(snr < FORCED_SIGMAS)


def spurious_per_mpix(evidence: Evidence) -> Result:
    """Detections per 10^6 fine pixels that are no source of the truth, or, without one, below 2 sigma in the data.

    Accepted up to N + 2 sqrt(N + 1), N being those of the same detector, at the same threshold, in the bicubic image.
    **Needs either a truth, or data with their variance and blur.**
    """
    if not evidence.good_high.any():
        raise UnmeasuredError("every pixel is masked")
    if evidence.kind == "micro" and len(image_sources(evidence).inner) < ENOUGH["micro"]:
        raise UnmeasuredError(f"fewer than {ENOUGH['micro']} sources in the image")
    wrong = _spurious(evidence, image_sources(evidence))
    if wrong is None:
        raise UnmeasuredError("needs a truth (--truth), or the data with their noise and blur")
    mpix, count = evidence.mpix, int(wrong.sum())
    by = "no source of the truth" if evidence.truth is not None else f"below {FORCED_SIGMAS:g} sigma in the data"
    meaning, limit = f"{count} of {len(wrong)} detections are {by}", None
    if evidence.low is not None and (other := _spurious(evidence, bicubic_sources(evidence))) is not None:
        plain = int(other.sum())
        limit = (None, count_margin(plain) / mpix)
        meaning += f"; {plain} of {len(other)} in the bicubic image"
    return Result("spurious_per_mpix", count / mpix, "1/Mpix", "sources", limit, meaning=meaning, weight=mpix)


def astrometric_offset_px(evidence: Evidence) -> Result:
    """Length of the median offset between detections and the truth's sources they match, fine px; 0 is best.

    Accepted up to 0.05 coarse px and 3 standard errors of the median. A half-pixel registration error shows as
    (scale - 1) / 2 on both axes. **Blind to distortion, whose offsets cancel in the median.**
    """
    require_true_sources(evidence)
    found, nearest = cross_match(truth_sources(evidence).inner, image_sources(evidence).around)
    if (n := int(found.sum())) < FEWEST_PLACES:
        raise UnmeasuredError(f"{n} sources of the truth are found in the image, {FEWEST_PLACES} are needed")
    apart = image_sources(evidence).around[nearest[found]] - truth_sources(evidence).inner[found]
    dx, dy = np.median(apart, axis=0)
    error = median_error(float(np.hypot(mad_std(apart[:, 0]), mad_std(apart[:, 1]))), n)
    meaning = f"median offset x {dx:+.4f} px, y {dy:+.4f} px of {n} sources, uncertain by {error:.2g}"
    limit = (None, 0.05 * evidence.scale + 3 * error)
    return Result("astrometric_offset_px", float(np.hypot(dx, dy)), "px", "sources", limit, meaning=meaning, weight=n)


def hallucination_fraction(evidence: Evidence) -> Result:
    """Share of the detections whose forced flux in the data is below 2 sigma; 0 is best.

    The flux is that of a point source at the detection's peak, by the matched filter (`forced.significance`: blur and
    variance as weights), above the image's background as the data would show it. Needs no truth. **Blind to invented
    structure in the wings of a bright source, and to a real source that was split in two; a source that is real but
    faint in the data counts as invented.**
    """
    count, least = len(image_sources(evidence).inner), ENOUGH[evidence.kind]
    if count < least:
        raise UnmeasuredError("no source in the image" if least == 1 else f"fewer than {least} sources in the image")
    snr = significance(evidence, image_sources(evidence))
    if snr is None:
        raise UnmeasuredError("needs the data with their noise and blur")
    faint = snr < FORCED_SIGMAS
    meaning = f"{int(faint.sum())} of {len(faint)} detections are below {FORCED_SIGMAS:g} sigma in the data"
    return Result("hallucination_fraction", float(faint.mean()), "", "sources", meaning=meaning, weight=len(faint))


@dataclass(frozen=True, eq=False)
class Overlay:
    """Sources by class, for a picture; positions (n, 2) as x, y in fine px."""

    matched: Array
    """Sources of the truth that are found; without a truth, detections that the data support."""
    missed: Array
    """Sources of the truth that are not found; empty without a truth."""
    spurious: Array
    """Detections that are no source of the truth; without one, those below 2 sigma in the data."""
    found: Array
    """All detections."""
    snr: Array | None
    """(n,), signal to noise in the data of every one of ``found``; None where noise or blur are not known."""


def classify_sources(evidence: Evidence) -> Overlay:
    """Tell which sources are found, missed and false, with the signal to noise of every detection in the data.

    Raises
    ------
    UnmeasuredError : too few sources in the truth; or no truth, and no data with their noise and blur.
    """
    found, snr = image_sources(evidence).inner, significance(evidence, image_sources(evidence))
    if evidence.truth is not None:
        require_true_sources(evidence)
        true = truth_sources(evidence).inner
        seen = cross_match(true, image_sources(evidence).around)[0]
        real = cross_match(found, truth_sources(evidence).around)[0]
        return Overlay(true[seen], true[~seen], found[~real], found, snr)
    if snr is None:
        raise UnmeasuredError("needs a truth (--truth), or the data with their noise and blur")
    real = snr >= FORCED_SIGMAS
    return Overlay(found[real], np.empty((0, 2)), found[~real], found, snr)


CHECKS = {
    "completeness": Check(
        completeness,
        "Fraction of the true sources that are detected in the image.",
        "Invented sources.",
        ("truth",),
    ),
    "completeness_equal_spurious": Check(
        completeness_equal_spurious,
        "Fraction of the true sources detected at the threshold with one false detection for 20 of them.",
        "False detections at the image's own threshold: see purity.",
        ("truth",),
    ),
    "purity": Check(
        purity,
        "Fraction of the detections that are true sources.",
        "Lost sources; and a real source that is hidden by the truth's noise counts as false.",
        ("truth",),
    ),
    "spurious_per_mpix": Check(
        spurious_per_mpix,
        "False detections per million pixels, compared with the bicubic image.",
        "Invented structure that is not a compact source.",
    ),
    "astrometric_offset_px": Check(
        astrometric_offset_px,
        "Median displacement of the sources; a half-pixel registration error shows as (scale - 1) / 2.",
        "Distortion, which cancels in the median.",
        ("truth",),
    ),
    "hallucination_fraction": Check(
        hallucination_fraction,
        "Fraction of the detections that are below 2 sigma in the data.",
        "Structure invented in the wings of a bright source, and a real source split in two.",
        ("low", "variance", "operator"),
    ),
}
