"""The source lists that checks compare: those of the image, of the truth, and of the bicubic image.

All of one frame are detected at one threshold, 5 sigma of `detection_noise`.
"""

from __future__ import annotations

import numpy as np

from sciresdiff.checks.arrays import Array, pixels_per_value
from sciresdiff.checks.background import background, background_noise
from sciresdiff.checks.baselines import bicubic_image
from sciresdiff.checks.detection import Sources, detect
from sciresdiff.checks.evidence import Evidence, evidence_cache

FLOOR = 0.25
"""Share of the data's noise per fine pixel that the truth's noise is taken for at least; restored skies have that."""


@evidence_cache
def data_noise(evidence: Evidence) -> float:
    """Noise of the data per fine pixel, median sqrt(v) / scale^2 for ``sum``, in the image's unit; 0 without data."""
    if evidence.variance is None or evidence.good_low is None or not evidence.good_low.any():
        return 0.0
    return float(np.median(np.sqrt(evidence.variance[evidence.good_low])) / pixels_per_value(evidence))


@evidence_cache
def detection_noise(evidence: Evidence) -> float:
    """Noise of a fine pixel that thresholds are counted in, in the image's unit.

    With a truth: the truth's, at least a quarter of `data_noise`, because what the data hide under their noise is no
    source that could be found. Without one: the larger of the image's and the bicubic image's, because an image without
    any noise would turn every ripple into a source.
    """
    if evidence.truth is not None:
        return max(truth_sources(evidence).rms, FLOOR * data_noise(evidence))
    own = image_background(evidence)[1]
    if evidence.low is None:
        return own
    return max(
        own, evidence.share("bicubic_noise", lambda: background_noise(bicubic_image(evidence), ~evidence.valid_high))
    )


@evidence_cache
def image_background(evidence: Evidence) -> tuple[Array, float]:
    """Background (Y, X) and noise of the judged image, as measured on itself."""
    return background(evidence.high, ~evidence.valid_high)


@evidence_cache
def truth_sources(evidence: Evidence) -> Sources:
    """Sources of the truth, at 5 sigma of its own noise, or of a quarter of `data_noise` where that is more.

    Needs ``truth``.
    """
    assert evidence.truth is not None
    truth, mask, floor = evidence.truth, ~evidence.valid_high, FLOOR * data_noise(evidence)

    def make() -> Sources:
        own = detect(truth, mask=mask, core=evidence.core)
        return own if own.rms >= floor else detect(truth, noise=floor, mask=mask, core=evidence.core)

    return evidence.share("truth_sources", make)


@evidence_cache
def image_sources(evidence: Evidence) -> Sources:
    """Sources of the judged image, at 5 sigma of `detection_noise`."""
    return detect(
        evidence.high, noise=detection_noise(evidence), mask=~evidence.valid_high, sky=image_background(evidence),
        core=evidence.core,
    )  # fmt: skip


@evidence_cache
def bicubic_sources(evidence: Evidence) -> Sources:
    """Sources that the same detector finds in the bicubic image at the same threshold; needs ``low``.

    The threshold is part of the shared name: without a truth it depends on the image that is judged.
    """
    noise = detection_noise(evidence)
    return evidence.share(
        f"bicubic_sources_{noise:.9g}",
        lambda: detect(bicubic_image(evidence), noise=noise, mask=~evidence.valid_high, core=evidence.core),
    )
