"""TRUST: what counts as a claim of structure, when a claim is wrong, and how often a mask keeps wrong ones.

`upscale` and the calibration of its mask use the same functions as the check.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.arrays import Mask, Sampling, fill_with_median, pixels_per_value
from sciresdiff.checks.check import Check, UnmeasuredError
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.result import Result
from sciresdiff.observation.grid import upsample_nearest

NEAR_PX = 5
"""Side of the square whose mean is the local background, coarse px."""
HALF = 0.5
"""Share of the claimed contrast by which the truth may differ before the claim is wrong."""


Plane = NDArray[np.floating[Any]]


def contrast(image: Plane, scale: int) -> Plane:
    """Compute c = x - b, the contrast claimed by every pixel: an image (Y, X) less its mean over five coarse pixels."""
    from scipy.ndimage import uniform_filter

    return np.asarray(image - uniform_filter(image, NEAR_PX * scale // 2 * 2 + 1, mode="reflect"))


def noise_per_fine_pixel(variance: Plane, sampling: Sampling) -> NDArray[np.float32]:
    """Bring the noise of the data to the fine grid: sigma / scale^2 for quantity ``sum``, sigma for ``mean``.

    **Not the noise of an image: every fine pixel has an equal share of its coarse pixel's noise.**

    Parameters
    ----------
    variance : (h, w), unit^2; below 0 it counts as 0.
    sampling : an `Evidence`, ``Operator`` or anything with their ``scale`` and ``quantity``.

    Returns
    -------
    (Y, X), in the unit of a fine pixel.
    """
    sigma = np.sqrt(np.maximum(variance, 0)) / pixels_per_value(sampling)
    return upsample_nearest(np.asarray(sigma, np.float32), sampling.scale)


def claims(contrast: Plane, noise: Plane) -> Mask:
    """Find pixels that claim structure: |c| above the noise of the data per fine pixel, (Y, X) both."""
    return np.asarray(np.abs(contrast) > noise)


def wrong(image: Plane, truth: Plane, contrast: Plane) -> Mask:
    """Find claims that the truth does not confirm: |x - t| > |x - b| / 2.

    The true structure has less than half of the claimed contrast, more than one and a half times it, or the other sign.

    Parameters
    ----------
    image, truth : x and t, (Y, X).
    contrast : x - b, (Y, X).
    """
    return np.asarray(np.abs(image - truth) > HALF * np.abs(contrast))


def risk(kept: Mask, bad: Mask) -> float:
    """Share of wrong claims among the kept ones, (Y, X) both; 0 where nothing is kept."""
    count = int(kept.sum())
    return float((kept & bad).sum()) / count if count else 0.0


def trust_risk(evidence: Evidence) -> Result:
    """Share of wrong claims among the trusted pixels, sum_T [|x - t| > |x - b| / 2] / |T|, 0..1.

    x image, t truth, b mean of x over five coarse pixels, T pixels with TRUST 1 (of the calibrated claims; see
    `claims`). It is the loss whose mean over frames the calibration of TRUST holds below alpha with confidence
    1 - delta (Angelopoulos et al. 2021, arXiv 2110.01052, section 3). **Bounded in the mean over frames like those of
    the calibration, not for every frame; it does not see what the image lacks, and a truth with noise of its own
    raises it.**

    Raises
    ------
    UnmeasuredError : no pixel is trusted.
    """
    kept, truth = _trusted_pixels(evidence), evidence.truth
    assert truth is not None
    if not kept.any():
        raise UnmeasuredError("no pixel is trusted")
    bad = wrong(
        evidence.finite_high,
        fill_with_median(truth, np.isfinite(truth)),
        contrast(evidence.finite_high, evidence.scale),
    )
    meaning = f"{int((kept & bad).sum())} of {int(kept.sum())} trusted px are off by more than half of what they claim"
    return Result("trust_risk", risk(kept, bad), "", "all", meaning=meaning, weight=int(kept.sum()))


def trusted_share(evidence: Evidence) -> Result:
    """Share of the pixels that claim structure whose TRUST is 1, 0..1.

    A pixel claims structure where |x - b| is above the noise of the data per fine pixel (`claims`).
    **TRUST is the claim of the method that made the image: this says how much is trusted, not whether rightly.**

    Raises
    ------
    UnmeasuredError : no pixel claims structure.
    """
    variance = evidence.variance
    assert variance is not None
    noise = noise_per_fine_pixel(np.where(np.isfinite(variance), variance, 0), evidence)
    claimed = claims(contrast(evidence.finite_high, evidence.scale), noise) & evidence.good_high
    if not claimed.any():
        raise UnmeasuredError("no pixel stands out of its surroundings by more than the noise")
    kept = int((_trusted_pixels(evidence) & claimed).sum())
    meaning = f"{kept} of {int(claimed.sum())} px that claim structure are trusted"
    share = kept / int(claimed.sum())
    return Result("trusted_share", share, "", "all", meaning=meaning, weight=int(claimed.sum()))


def _trusted_pixels(evidence: Evidence) -> Mask:
    """Judged pixels that are trusted."""
    assert evidence.trust is not None
    return np.asarray((evidence.trust > HALF) & evidence.good_high)


CHECKS = {
    "trust_risk": Check(
        trust_risk,
        "Fraction of the trusted pixels whose structure differs from the truth by more than half of what they claim.",
        "What the image lacks; and the guarantee is for the mean over frames like the simulated ones, not for each.",
        ("trust", "truth"),
        rivals=False,
    ),
    "trusted_share": Check(
        trusted_share,
        "Fraction of the pixels with structure that the calibrated mask trusts; the rest may be invented.",
        "Whether the mask is right: that needs a truth.",
        ("trust", "low", "variance"),
        rivals=False,
    ),
}
