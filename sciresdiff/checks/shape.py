"""Size and shape of sources: the FWHM of the PSF, and whether sources keep their size and their ellipticity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sciresdiff.checks.adaptive_moments import Moments, adaptive_moments, stamps
from sciresdiff.checks.arrays import Array, Mask
from sciresdiff.checks.check import Check, UnmeasuredError
from sciresdiff.checks.detection import Sources
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.result import Range, Result
from sciresdiff.checks.scatter import mad_std, median_margin
from sciresdiff.checks.source_lists import bicubic_sources, detection_noise, image_sources, truth_sources
from sciresdiff.checks.sources import require_true_sources

HALF = 15
"""Half side of the stamps that moments are measured on, px."""
CLEAN_HALF = 6
"""Half side of the square about a source that holds no masked pixel, px."""
APART_PX = 12.0
"""Least distance to the next detection."""
PEAK_SIGMAS = 30.0
"""Least height of a bright source, in sigmas of a pixel; about 50 sigma in an aperture."""
MOST = 500
"""Sources that are measured, the brightest first."""
FLAT_TOP = 0.95
"""A source whose five brightest pixels are within 5 % of each other is saturated."""
FEWEST_STARS = 5
CLUMP = 1.15
"""Ratio of the widest to the narrowest star; most that stars scatter at 30 sigma."""
NARROW = 10
"""One bright isolated source in this many may be narrower than the stars."""
CLUMP_SHARE = 0.4
"""Least share of the bright isolated sources that stars make up; with fewer they are not told from the others."""
FEWEST = 5
"""Fewest sources that a median shape is given for."""
NARROWER, WIDER = 0.15, 0.25
"""Accepted relative errors of FWHM and size: a mean is broader than the truth where noise hides cores."""
ROUNDER, TURNED = 0.03, 0.02
"""Accepted biases of the length of the ellipticity and of its components, before what chance allows."""
FWHM_PER_SIGMA = float(np.sqrt(8 * np.log(2)))
"""Of a Gaussian."""


@dataclass(frozen=True, eq=False)
class Shapes:
    """Bright, isolated, unsaturated sources of one image; those that did not converge have NaN."""

    moments: Moments
    fwhm: Array
    """(n,), of a Gaussian fitted to the core, px."""

    @property
    def ok(self) -> Mask:
        """(n,), which ones are measured."""
        return np.asarray(self.moments.ok & np.isfinite(self.fwhm))


@dataclass(frozen=True, eq=False)
class StarWidths:
    """FWHM of the stars, fine px."""

    xy: Array
    """(n, 2), the stars."""
    image: float
    """Median in the image."""
    scatter: float
    """1.4826 times the median absolute deviation in the image."""
    truth: float | None
    """Median of the same stars in the truth; None without one."""
    candidates: int
    """Bright isolated sources that the stars were chosen from."""


def bright_isolated(found: Sources, noise: float, good: Mask) -> Array:
    """Select bright sources with no other near them, no masked pixel on them and no flat top.

    Bright is 30 sigma at the peak; isolated is 12 px from the next detection; at most 500, the brightest first.

    Parameters
    ----------
    found : detections of an image.
    noise : sigma of a pixel, unit of the image.
    good : (Y, X), False where a pixel is masked.

    Returns
    -------
    (n, 2), positions as x, y.
    """
    from scipy.spatial import cKDTree

    h, w = found.flat.shape
    if min(h, w) <= 2 * HALF or len(found) == 0:
        return np.empty((0, 2))
    column, row = found.peaks.T.astype(int)
    height = found.flat[row, column]
    near = cKDTree(found.xy).query(found.xy, 2)[0][:, 1] if len(found) > 1 else np.full(1, np.inf)
    # room for the centre to move by a pixel
    inside = ((found.xy > HALF + 1) & (found.xy < np.array([w, h]) - HALF - 2)).all(1)
    which = np.flatnonzero((height > PEAK_SIGMAS * noise) & (near > APART_PX) & inside & found.in_core)
    # twice as many as are wanted: some will have a masked pixel or a flat top
    which = which[np.argsort(-height[which], kind="stable")][: 2 * MOST]
    xy = found.xy[which]
    clean = stamps(good, xy, CLEAN_HALF)[0].all((1, 2))
    pixels = stamps(found.flat, xy, CLEAN_HALF)[0].reshape(len(xy), (2 * CLEAN_HALF + 1) ** 2)
    brightest = np.sort(pixels, axis=1)[:, -5:]
    return np.asarray(xy[clean & (brightest[:, 0] < FLAT_TOP * brightest[:, -1])][:MOST])


def measure_shapes(flat: Array, xy: Array) -> Shapes:
    """Measure adaptive moments and FWHM at positions (n, 2) on an image (Y, X) above its background."""
    moments = adaptive_moments(flat, xy, HALF)
    fwhm = np.full(len(xy), np.nan)
    fwhm[moments.ok] = _core_fwhm(flat, moments.xy[moments.ok], moments.sigma[moments.ok])
    return Shapes(moments, fwhm)


def _core_fwhm(flat: Array, xy: Array, sigma: Array) -> Array:
    """FWHM (n,) of the Gaussian through the core: log(value) = a - 4 ln2 r^2 / FWHM^2, least squares, weights value^2.

    The core reaches to 0.8 FWHM of the moments, 1.5 px at least. The weights make errors of the values, not of their
    logarithms, count alike (Guo 2011, IEEE Signal Process. Mag. 28, 134).
    """
    half = int(min(HALF, np.ceil(0.8 * FWHM_PER_SIGMA * sigma.max(initial=1)) + 1))
    image, middle = stamps(flat, xy, half)
    span = np.arange(-half, half + 1.0)
    offset = xy - middle
    r2 = (span[None, None, :] - offset[:, 0, None, None]) ** 2 + (span[None, :, None] - offset[:, 1, None, None]) ** 2
    reach = np.maximum(0.8 * FWHM_PER_SIGMA * sigma, 1.5) ** 2
    weight = np.where((image > 0) & (r2 < reach[:, None, None]), image, 0.0) ** 2
    log = np.log(np.where(weight > 0, image, 1.0))
    total = weight.sum((1, 2))
    with np.errstate(all="ignore"):  # a core without light has no width: NaN
        mean_r2, mean_log = (weight * r2).sum((1, 2)) / total, (weight * log).sum((1, 2)) / total
        # weighted linear regression of log(value) on r^2
        away = r2 - mean_r2[:, None, None]
        slope = (weight * away * (log - mean_log[:, None, None])).sum((1, 2)) / (weight * away**2).sum((1, 2))
        return np.asarray(np.sqrt(np.where(slope < 0, -4 * np.log(2) / slope, np.nan)))


def select_stars(fwhm: Array) -> Mask:
    """Select the widths (n,) of the densest window of 15 % that starts among the narrowest tenth; NaN are not selected.

    Stars are equally wide, and nothing but noise and cosmic rays is narrower; galaxies and blends are wider and differ.
    """
    order = np.sort(fwhm[np.isfinite(fwhm)])
    if not order.size:
        return np.zeros(fwhm.shape, bool)
    # widths in the window that begins at each of them
    count = np.searchsorted(order, CLUMP * order, "right") - np.arange(order.size)
    count = count[: 1 + max(1, order.size // NARROW)]
    low = order[int(np.argmax(count))]
    return np.asarray((fwhm >= low) & (fwhm <= CLUMP * low))


def shape_positions(evidence: Evidence) -> Array:
    """Bright isolated sources (n, 2) as x, y: of the truth where it is known, else of the image."""
    if evidence.truth is None:
        return bright_isolated(image_sources(evidence), detection_noise(evidence), evidence.valid_high)
    good, noise = evidence.valid_high, detection_noise(evidence)
    if evidence.low is not None:  # what is bright for a deep truth may be lost in the data
        noise = max(noise, bicubic_sources(evidence).rms)
    return evidence.share("bright_isolated", lambda: bright_isolated(truth_sources(evidence), noise, good))


def _both(evidence: Evidence) -> tuple[Shapes, Shapes | None]:
    """The sources on the image, and on the truth where it is known."""
    xy = shape_positions(evidence)
    truth: Shapes | None = None
    if evidence.truth is not None:
        truth = evidence.share("shapes", lambda: measure_shapes(truth_sources(evidence).flat, xy))
    return measure_shapes(image_sources(evidence).flat, xy), truth


def star_widths(evidence: Evidence) -> StarWidths:
    """Measure the FWHM of the stars in the image and, where it is known, of the same ones in the truth.

    Raises
    ------
    UnmeasuredError : a microscope image, or fewer than 5 stars.
    """
    if evidence.kind == "micro":
        raise UnmeasuredError("spots of a microscope image need not be points")
    image, truth = _both(evidence)
    ok = image.ok if truth is None else image.ok & truth.ok
    fwhm = np.where(ok, image.fwhm if truth is None else truth.fwhm, np.nan)
    stars, candidates = select_stars(fwhm), int(ok.sum())
    count = int(stars.sum())
    if count < FEWEST_STARS:
        raise UnmeasuredError(f"{count} bright isolated stars of equal width, {FEWEST_STARS} are needed")
    if count < CLUMP_SHARE * candidates:
        raise UnmeasuredError(f"{count} of {candidates} bright isolated sources are equally wide: no telling the stars")
    own = image.fwhm[stars]
    true = None if truth is None else float(np.median(truth.fwhm[stars]))
    return StarWidths(image.moments.xy[stars], float(np.median(own)), mad_std(own), true, candidates)


def fwhm_px(evidence: Evidence) -> list[Result]:
    """Median FWHM of bright isolated stars, fine px, and its scatter over the frame (``fwhm_scatter_px``).

    A circular Gaussian through the core, log(value) = a - 4 ln2 r^2 / FWHM^2, the pixel included, of the sources whose
    widths agree within 15 %. Accepted from 15 % below to 25 % above the FWHM that the image is meant to have, where
    that is stated. **Wings are not in it, nor is a width that depends on brightness; where all bright sources are alike
    and none is a star, it is theirs.**
    """
    found = star_widths(evidence)
    said = f"median of {len(found.xy)} stars among {found.candidates} bright isolated sources"
    if found.truth is not None:
        said += f"; {found.truth:.3g} px in the truth"
    limit: Range | None = None
    if evidence.target_fwhm_px is not None:
        target = evidence.target_fwhm_px
        limit, said = ((1 - NARROWER) * target, (1 + WIDER) * target), f"{said}; meant to be {target:.3g} px"
    return [
        Result("fwhm_px", found.image, "px", "sources", limit, meaning=said, weight=len(found.xy)),
        Result("fwhm_scatter_px", found.scatter, "px", "sources", weight=len(found.xy),
               meaning=f"of {len(found.xy)} stars over the frame, noise and neighbours included"),
    ]  # fmt: skip


def _moments_of_both(evidence: Evidence) -> tuple[Moments, Moments, Mask]:
    """Moments of the image's sources and of the truth's, and which have both."""
    require_true_sources(evidence)
    image, truth = _both(evidence)
    assert truth is not None
    both = image.moments.ok & truth.moments.ok
    if both.sum() < FEWEST:
        raise UnmeasuredError(f"{int(both.sum())} bright isolated sources, {FEWEST} are needed")
    return image.moments, truth.moments, both


def ellipticity_bias(evidence: Evidence) -> list[Result]:
    """Median of |e| - |e_true| (``ellipticity_bias``), and length of the median of e - e_true (``ellipticity_offset``).

    e1 = (Mxx - Myy) / (Mxx + Myy) and e2 = 2 Mxy / (Mxx + Myy) of the adaptive moments (Hirata and Seljak 2003, MNRAS
    343, 459): the distortion, (1 - q^2) / (1 + q^2) for an axis ratio q, not the shear (1 - q) / (1 + q). The first is
    below 0 where an image makes things round; the second finds a PSF that is not. Accepted within 0.03 and 0.02 and 3
    standard errors. **PSFs are not matched: a broader one makes sources rounder. Noise makes |e| larger.**
    """
    image, truth, both = _moments_of_both(evidence)
    longer = (image.e - truth.e)[both]
    d1, d2 = (np.asarray(a - b)[both] for a, b in ((image.e1, truth.e1), (image.e2, truth.e2)))
    turned = float(np.hypot(np.median(d1), np.median(d2)))
    room = float(np.hypot(median_margin(d1), median_margin(d2)))
    side = ROUNDER + median_margin(longer)
    n = int(both.sum())
    count = f"{n} bright isolated sources, distortion (1 - q^2) / (1 + q^2)"
    said = f"{count}; median |e| {np.median(truth.e[both]):.3f} in the truth"
    return [
        Result("ellipticity_bias", float(np.median(longer)), "", "sources", (-side, side), meaning=said, weight=n),
        Result("ellipticity_offset", turned, "", "sources", (None, TURNED + room), weight=n,
               meaning=f"{count}; e1 {np.median(d1):+.4f}, e2 {np.median(d2):+.4f}"),
    ]  # fmt: skip


def size_bias(evidence: Evidence) -> Result:
    """Median of sigma / sigma_true - 1, with sigma = (det M)^(1/4) of the adaptive moments; 0 is best.

    Accepted from -0.15 to 0.25, and 3 standard errors (Hirata and Seljak 2003, MNRAS 343, 459, for M). **The PSF is in
    both: it tells of blur or sharpening as a whole, not of one kind of source.**
    """
    image, truth, both = _moments_of_both(evidence)
    ratio = np.asarray(image.sigma / truth.sigma)[both] - 1
    room = median_margin(ratio)
    sizes = " and ".join(
        f"{np.median(m.sigma[both]):.3g} px {where}" for m, where in ((image, "here"), (truth, "true"))
    )
    meaning, limit = (
        f"{int(both.sum())} bright isolated sources; median sigma {sizes}",
        (-NARROWER - room, WIDER + room),
    )
    return Result("size_bias", float(np.median(ratio)), "", "sources", limit, meaning=meaning, weight=len(ratio))


CHECKS = {
    "fwhm_px": Check(
        fwhm_px,
        "Width of the stars, and how much it varies over the frame.",
        "Wings of the PSF; and sources of equal width that are no stars are taken for stars.",
        names=("fwhm_px", "fwhm_scatter_px"),
    ),
    "ellipticity_bias": Check(
        ellipticity_bias,
        "Whether sources are rounder or more elongated than in the truth, or all stretched in one direction.",
        "Faint sources; and the blur of the image itself makes sources rounder.",
        ("truth",),
        ("ellipticity_bias", "ellipticity_offset"),
    ),
    "size_bias": Check(
        size_bias,
        "Relative error of the sources' size; above 0 they are too large.",
        "Differences between kinds of sources; and the blur of the image itself is included.",
        ("truth",),
    ),
}
