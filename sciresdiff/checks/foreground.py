"""Which pixels of a frame belong to sources (astronomy) or to the foreground (microscopy)."""

from __future__ import annotations

import numpy as np

from sciresdiff.checks.arrays import Array, Mask, fill_with_median
from sciresdiff.checks.background import background
from sciresdiff.checks.baselines import bicubic_image
from sciresdiff.checks.evidence import Evidence, evidence_cache
from sciresdiff.frame import Kind

SMOOTH_PX = 1.0
"""Sigma of the Gaussian before the cut, px."""
SIGMAS = 3.0
"""Height of the cut above the sky, in the scatter of the darker half."""


@evidence_cache
def foreground_mask(evidence: Evidence) -> Mask:
    """Find the fine pixels (Y, X) on sources: of the truth, else of the bicubic image, else of the image itself.

    The judged image is the last choice, because sources that it invents would decide where it is judged.
    """
    if evidence.truth is None and evidence.low is None:
        return foreground(evidence.finite_high, evidence.kind)
    return evidence.share("foreground", lambda: foreground(_best_reference(evidence), evidence.kind))


def _best_reference(evidence: Evidence) -> Array:
    """(Y, X), the truth, else the bicubic image."""
    if evidence.truth is None:
        return bicubic_image(evidence)
    return fill_with_median(evidence.truth, np.isfinite(evidence.truth))


def foreground(plane: Array, kind: Kind) -> Mask:
    """Cut a smoothed plane (Y, X): for ``astro`` at the sky + 3 sigma, for ``micro`` at Otsu's threshold.

    Sigma is the root mean square of what lies below the median, where no source is; the threshold for ``micro`` is the
    one that separates the two classes best (Otsu 1979, IEEE Trans. SMC 9, 62).

    Returns
    -------
    (Y, X), True on sources; all False for a constant ``micro`` plane.
    """
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(plane, SMOOTH_PX, mode="reflect")
    if kind == "micro":
        from skimage.filters import threshold_otsu

        return np.asarray(smooth > threshold_otsu(smooth)) if np.ptp(smooth) > 0 else np.zeros(plane.shape, bool)
    sky, _ = background(plane)
    flat = smooth - sky
    dark = flat[flat < np.median(flat)] - np.median(flat)
    sigma = float(np.sqrt(np.mean(dark**2))) if dark.size else 0.0
    return np.asarray(flat > np.median(flat) + SIGMAS * sigma)
