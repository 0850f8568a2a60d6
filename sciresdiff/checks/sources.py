"""Sources: which are found, which are missed, which are invented, and whether they kept their flux and place."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.check import Check
from sciresdiff.checks.evidence import Array, Evidence, Mask, Result

BOX = 64
"""Side of the squares that the background is measured in, px."""
THRESHOLD = 5.0
"""Sigmas above the background that every pixel of a source stands, after smoothing by `KERNEL`."""
MIN_PIXELS = 5
KERNEL = np.outer((1, 2, 1), (1, 2, 1)) / 16
"""SExtractor's default filter."""
MATCH_PX = 2.0
"""Farthest that a detection may be from the source that it is a detection of."""
BORDER_PX = 20
"""Sources nearer to the border are not counted; a fifth of the side in frames below 100 px."""
APERTURE_PX = 4.0
"""Radius of the apertures, fine px: about two FWHM of a well-sampled star."""
FORCED_SIGMAS = 2.0
"""Significance in the data below which a detection counts as invented."""
ENOUGH = {"astro": 1, "micro": 20}
"""Fewest sources that scores are given for; a microscope frame with few blobs is not a field of sources."""


@dataclass(frozen=True, eq=False)
class Sources:
    """Detections on one image; positions in px, (0, 0) the centre of the first pixel."""

    xy: Array
    """(n, 2), centroids as x, y."""
    peaks: Array
    """(n, 2), brightest pixels; the centroid of a bent object may lie beside it."""
    flat: Array
    """(Y, X), the image less its background."""
    level: Array
    """(Y, X), the background."""
    rms: float
    """Noise of a pixel, as measured on this image."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self.xy)

    @cached_property
    def inner(self) -> Array:
        """(n, 2), those away from the border."""
        return np.asarray(self.xy[self._inside])

    @cached_property
    def inner_peaks(self) -> Array:
        """(n, 2), brightest pixels of the same sources."""
        return np.asarray(self.peaks[self._inside])

    @cached_property
    def _inside(self) -> Mask:
        h, w = self.flat.shape
        edge = [min(BORDER_PX, side // 5) for side in (w, h)]
        return np.asarray(((self.xy > edge) & (self.xy < np.array([w, h]) - edge)).all(1))

    @cached_property
    def fluxes(self) -> Array:
        """Aperture sums at the inner positions."""
        return aperture_sums(self.flat, self.inner)


def background(plane: Array, mask: Mask | None = None) -> tuple[Array, float]:
    """Background and noise, after SExtractor: clipped mode of squares (64 px), median-filtered 3 x 3, interpolated.

    Returns
    -------
    (Y, X) level, and the median of the squares' scatter; both in the image's unit. **In a crowded field both are
    too high.**
    """
    from astropy.stats import SigmaClip
    from photutils.background import Background2D, SExtractorBackground

    bad = ~np.isfinite(plane) if mask is None else mask | ~np.isfinite(plane)
    if bad.all():
        return np.zeros(plane.shape), 0.0
    box = tuple(min(BOX, side) for side in plane.shape)
    clip = SigmaClip(3.0, maxiters=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about bad pixels, which are masked
        try:
            found = Background2D(
                plane, box, mask=bad, sigma_clip=clip, bkg_estimator=SExtractorBackground(), exclude_percentile=90
            )
            return np.asarray(found.background, np.float64), float(found.background_rms_median)
        except ValueError:  # no square has enough good pixels
            values = plane[~bad]
            return np.full(plane.shape, np.median(values)), float(1.4826 * np.median(abs(values - np.median(values))))


def noise_of(plane: Array, mask: Mask | None = None) -> float:
    """Noise of a pixel, as `background` measures it."""
    return background(plane, mask)[1]


def detect(plane: NDArray[np.floating], noise: float | None = None, mask: Mask | None = None) -> Sources:
    """Find sources: 5 sigma above the background over 5 connected pixels, smoothed by 3 x 3, deblended.

    Parameters
    ----------
    plane : (Y, X).
    noise : sigma of a pixel; the image's own by default. An image compared with a truth is searched with the truth's.
    mask : True where nothing is looked for.

    Returns
    -------
    Positions are centroids of the smoothed light in the source's pixels. Agrees with SExtractor's own code (sep) to
    0.02 in completeness and purity on a crowded star field. **Sources that touch and have no saddle are one.**
    """
    from scipy.ndimage import center_of_mass, convolve, maximum_position

    from sciresdiff.checks.deblend import deblend

    image: Array = np.asarray(plane, np.float64)
    bad = ~np.isfinite(image) if mask is None else mask | ~np.isfinite(image)
    level, rms = background(image, bad)
    flat = np.where(bad, 0.0, image - level)
    smooth = convolve(flat, KERNEL, mode="constant")
    threshold = THRESHOLD * max(noise or rms, 1e-6 * float(np.ptp(flat)), np.finfo(float).tiny)
    objects = _segments(smooth, threshold, bad)
    if objects is None:
        return Sources(np.empty((0, 2)), np.empty((0, 2)), flat, level, rms)
    labels = deblend(smooth, objects, threshold, min_pixels=MIN_PIXELS)
    each = np.arange(1, labels.max() + 1)
    yx, peaks = (np.array(place(smooth, labels, each), float) for place in (center_of_mass, maximum_position))
    return Sources(yx[:, ::-1], peaks[:, ::-1], flat, level, rms)


def _segments(smooth: Array, threshold: float, bad: Mask) -> NDArray[np.int64] | None:
    """Labels of connected pixels above the threshold; None where there are none."""
    if bad.all():
        return None
    from photutils.segmentation import detect_sources

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing was found is an answer
        found = detect_sources(smooth, threshold, MIN_PIXELS, mask=bad)
    return None if found is None else np.asarray(found.data, np.int64)


def aperture_sums(flat: Array, xy: Array) -> Array:
    """Sums over circles of radius 4 px around positions (n, 2), with the exact share of every pixel."""
    from photutils.aperture import CircularAperture

    if not len(xy):
        return np.empty(0)
    return np.asarray(CircularAperture(xy, APERTURE_PX).do_photometry(flat)[0], np.float64)


def _matched(a: Array, b: Array) -> tuple[Mask, NDArray[np.int64]]:
    """Which of ``a`` have a neighbour in ``b``, and which one is nearest."""
    from scipy.spatial import cKDTree

    if not len(b) or not len(a):
        return np.zeros(len(a), bool), np.zeros(len(a), np.int64)
    distance, nearest = cKDTree(b).query(a)
    return np.asarray(distance < MATCH_PX), np.asarray(nearest, np.int64)


def _enough(evidence: Evidence) -> bool:
    """Whether there is a truth with sources enough."""
    return evidence.truth is not None and len(evidence.reference.inner) >= ENOUGH[evidence.kind]


def completeness(evidence: Evidence) -> Result | None:
    """Share of the truth's sources with a detection within 2 px; 1 is best.

    Detections at 5 sigma of the truth's noise, 5 px, away from the border (Serra et al. 2012, PASA 29, 296). **Says
    nothing of false detections, and counts one detection for two merged sources that are near each other twice.**
    """
    if not _enough(evidence):
        return None
    found, _ = _matched(evidence.reference.inner, evidence.detected.inner)
    meaning = f"{int(found.sum())} of the truth's {len(found)} sources are found within {MATCH_PX:g} px"
    return Result("completeness", float(found.mean()), "", "sources", meaning=meaning)


def purity(evidence: Evidence) -> Result | None:
    """Share of the detections with a source of the truth within 2 px; 1 is best.

    **A detection of something real that the truth's own noise hides counts as false**; compare with bicubic's.
    """
    if not _enough(evidence) or not len(evidence.detected.inner):
        return None
    true, _ = _matched(evidence.detected.inner, evidence.reference.inner)
    meaning = f"{int(true.sum())} of {len(true)} detections are sources of the truth"
    return Result("purity", float(true.mean()), "", "sources", meaning=meaning)


def _spurious(evidence: Evidence, found: Sources) -> int | None:
    """Detections without a source in the truth; without a truth, those that the data do not support."""
    if evidence.truth is not None:
        return int((~_matched(found.inner, evidence.reference.inner)[0]).sum())
    from sciresdiff.checks.forced import significance

    snr = significance(evidence, found)
    return None if snr is None else int((snr < FORCED_SIGMAS).sum())


def spurious_per_mpix(evidence: Evidence) -> Result | None:
    """Detections per 10^6 fine pixels that are no source of the truth, or, without one, below 2 sigma in the data.

    Accepted up to N + 2 sqrt(N + 1), N being those of the same detector, at the same threshold, in the bicubic image.
    **Needs either a truth, or data with their variance and blur.**
    """
    if evidence.kind == "micro" and len(evidence.detected.inner) < ENOUGH["micro"]:
        return None
    count = _spurious(evidence, evidence.detected)
    if count is None:
        return None
    mpix = evidence.high.size / 1e6
    by = "no source of the truth" if evidence.truth is not None else f"below {FORCED_SIGMAS:g} sigma in the data"
    meaning, limit = f"{count} of {len(evidence.detected.inner)} detections are {by}", None
    if evidence.low is not None and (plain := _spurious(evidence, evidence.detected_bicubic)) is not None:
        limit = (None, (plain + 2 * np.sqrt(plain + 1)) / mpix)
        meaning += f"; {plain} of {len(evidence.detected_bicubic.inner)} in the bicubic image"
    return Result("spurious_per_mpix", count / mpix, "1/Mpix", "sources", limit, meaning=meaning)


def astrometric_offset_px(evidence: Evidence) -> Result | None:
    """Length of the median offset between detections and the truth's sources they match, fine px; 0 is best.

    Accepted up to 0.05 coarse px. A half-pixel registration error shows as (scale - 1) / 2 on both axes. **Blind to
    distortion, whose offsets cancel in the median.**
    """
    if not _enough(evidence):
        return None
    found, nearest = _matched(evidence.reference.inner, evidence.detected.inner)
    if not found.any():
        return None
    dx, dy = np.median(evidence.detected.inner[nearest[found]] - evidence.reference.inner[found], axis=0)
    meaning = f"median offset x {dx:+.4f} px, y {dy:+.4f} px of {int(found.sum())} sources"
    limit = (None, 0.05 * evidence.scale)
    return Result("astrometric_offset_px", float(np.hypot(dx, dy)), "px", "sources", limit, meaning=meaning)


def magnitudes(evidence: Evidence) -> tuple[Array, Mask] | None:
    """-2.5 log10(flux / true flux) of the truth's sources, and which are in the brightest fifth."""
    if not _enough(evidence):
        return None
    true = evidence.reference.fluxes
    flat = np.where(evidence.good_high, evidence.high - background(evidence.high, ~evidence.good_high)[0], 0.0)
    flux = aperture_sums(flat, evidence.reference.inner)
    both = (true > 0) & (flux > 0)
    if not both.any():
        return None
    delta = -2.5 * np.log10(flux[both] / true[both])
    return delta, true[both] > np.percentile(true[both], 80)


def hallucination_fraction(evidence: Evidence) -> Result | None:
    """Share of the detections whose forced flux in the data is below 2 sigma; 0 is best.

    The flux is that of a point at the detection's peak, weighted by the blur and the variance, above the image's
    background as the data would show it (`forced.significance`). Needs no truth. **Blind to invented structure in the
    wings of a bright source, and to a real source that was split in two; a source that is real but faint in the data
    counts as invented.**
    """
    from sciresdiff.checks.forced import significance

    if evidence.low is None or evidence.operator is None or len(evidence.detected.inner) < ENOUGH[evidence.kind]:
        return None
    snr = significance(evidence, evidence.detected)
    if snr is None:
        return None
    faint = snr < FORCED_SIGMAS
    meaning = f"{int(faint.sum())} of {len(faint)} detections are below {FORCED_SIGMAS:g} sigma in the data"
    return Result("hallucination_fraction", float(faint.mean()), "", "sources", meaning=meaning)


CHECKS = {
    "completeness": Check(
        completeness,
        "Share of the true sources that the image shows.",
        "Sources that were invented.",
        ("truth",),
    ),
    "purity": Check(
        purity,
        "Share of the sources in the image that are true.",
        "Sources that were lost; a real one that the truth's noise hides counts as false.",
        ("truth",),
    ),
    "spurious_per_mpix": Check(
        spurious_per_mpix,
        "False sources in a million pixels, beside those in the bicubic image.",
        "False structure that is no compact source.",
    ),
    "astrometric_offset_px": Check(
        astrometric_offset_px,
        "By how much sources are displaced as a whole; a half-pixel mistake shows as (scale - 1) / 2.",
        "Distortion, whose offsets cancel.",
        ("truth",),
    ),
    "hallucination_fraction": Check(
        hallucination_fraction,
        "Share of the sources in the image that the data do not show at 2 sigma.",
        "Structure invented in the wings of a bright source, and a real source split in two.",
        ("low", "variance", "operator"),
    ),
}
