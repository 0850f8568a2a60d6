"""Which structure is to be trusted: what counts as a claim, when it is wrong, and how often a mask keeps wrong ones.

`upscale` and the calibration of its mask count by the same functions as the check.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.check import Check, UnmeasuredError
from sciresdiff.checks.evidence import Evidence, Mask, Result, filled
from sciresdiff.frame import Quantity

NEAR_PX = 5
"""Side of the square that the local background is the mean of, coarse px."""
HALF = 0.5
"""Share of the claimed contrast by which the truth may differ before the claim is wrong."""


Plane = NDArray[np.floating[Any]]


def contrast(image: Plane, scale: int) -> Plane:
    """c = x - b, what every pixel claims: the image less its mean over five coarse pixels, (Y, X)."""
    from scipy.ndimage import uniform_filter

    return np.asarray(image - uniform_filter(image, NEAR_PX * scale // 2 * 2 + 1, mode="reflect"))


def spread_noise(variance: Plane, scale: int, quantity: Quantity) -> NDArray[np.float32]:
    """Noise of the data in the unit of a fine pixel, (Y, X): sigma / s^2 for ``sum``, sigma for ``mean``."""
    sigma = np.sqrt(np.maximum(variance, 0)) / (scale**2 if quantity == "sum" else 1)
    return np.asarray(sigma, np.float32).repeat(scale, 0).repeat(scale, 1)


def claims(contrast: Plane, noise: Plane) -> Mask:
    """Pixels that claim structure: their contrast is above the noise of the data, spread over the fine pixels."""
    return np.asarray(np.abs(contrast) > noise)


def wrong(image: Plane, truth: Plane, contrast: Plane) -> Mask:
    """Claims that the truth does not bear out: |x - t| > |x - b| / 2.

    The true structure has less than half of the claimed contrast, more than one and a half times it, or the other sign.
    """
    return np.asarray(np.abs(image - truth) > HALF * np.abs(contrast))


def risk(kept: Mask, bad: Mask) -> float:
    """Share of wrong claims among the kept ones; 0 where nothing is kept."""
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
    kept, truth = _kept(evidence), evidence.truth
    assert truth is not None
    if not kept.any():
        raise UnmeasuredError("no pixel is trusted")
    bad = wrong(evidence.whole, filled(truth, np.isfinite(truth)), contrast(evidence.whole, evidence.scale))
    meaning = f"{int((kept & bad).sum())} of {int(kept.sum())} trusted px are off by more than half of what they claim"
    return Result("trust_risk", risk(kept, bad), "", "all", meaning=meaning, weight=int(kept.sum()))


def trusted_share(evidence: Evidence) -> Result:
    """Share of the pixels that claim structure whose TRUST is 1, 0..1.

    A pixel claims structure where |x - b| is above the noise of the data spread over the fine pixels (`claims`).
    **The word of the method that made the image: it says how much is trusted, not whether rightly so.**

    Raises
    ------
    UnmeasuredError : no pixel claims structure.
    """
    variance = evidence.variance
    assert variance is not None
    noise = spread_noise(np.where(np.isfinite(variance), variance, 0), evidence.scale, evidence.quantity)
    claimed = claims(contrast(evidence.whole, evidence.scale), noise) & evidence.good_high
    if not claimed.any():
        raise UnmeasuredError("no pixel stands out of its surroundings by more than the noise")
    kept = int((_kept(evidence) & claimed).sum())
    meaning = f"{kept} of {int(claimed.sum())} px that claim structure are trusted"
    share = kept / int(claimed.sum())
    return Result("trusted_share", share, "", "all", meaning=meaning, weight=int(claimed.sum()))


def _kept(evidence: Evidence) -> Mask:
    """Judged pixels that are trusted."""
    assert evidence.trust is not None
    return np.asarray((evidence.trust > HALF) & evidence.good_high)


CHECKS = {
    "trust_risk": Check(
        trust_risk,
        "Share of the trusted pixels whose structure the truth does not bear out to within half of what they claim.",
        "What the image lacks; and the guarantee is of the mean over frames like the simulated ones, not of every one.",
        ("trust", "truth"),
        rivals=False,
    ),
    "trusted_share": Check(
        trusted_share,
        "How much of the structure that the image shows the calibrated mask lets you trust; the rest may be invented.",
        "Whether the mask is right: that takes a truth.",
        ("trust", "low", "variance"),
        rivals=False,
    ),
}
