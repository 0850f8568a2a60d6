"""Resolution: Fourier ring correlation with the truth, and decorrelation analysis of the image alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.arrays import Array
from sciresdiff.checks.check import Check, UnmeasuredError
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.result import Result, not_computed
from sciresdiff.checks.spectrum import (
    cross,
    fill_locally,
    first_below,
    power,
    require_size,
    ring_sums,
    smooth_bicubic_image,
    transform,
    truth_and_image,
)

TAPER = 0.25
"""Share of a side over which the window fades, both ends together."""
SEVENTH = 1 / 7
"""The fixed threshold of the ring correlation."""
HIGH_PASSES = 50
"""High-passed copies of the image in which the peak is looked for."""
SHARPEST_PX = 0.14
"""Sigma of the smoothing that the strongest high-pass subtracts, px."""
DROP = 1e-3
"""By how much the correlation must fall after its peak for the peak to count."""


@dataclass(frozen=True, eq=False)
class RingCorrelation:
    """The Fourier ring correlation of image and truth, (n,) each."""

    frequency: Array
    """Cycles per fine px."""
    count: Array
    """Pixels of the ring."""
    correlation: Array
    """-1..1; NaN where one of them has no power."""
    half_bit: Array
    """Threshold at which a pixel of the ring holds half a bit about the truth."""


@dataclass(frozen=True, eq=False)
class Decorrelation:
    """Correlation of an image with its own phases, as a function of the radius that is let in."""

    frequency: Array
    """(n,), cycles per fine px."""
    curves: Array
    """(1 + high-passes, n): the image itself, then high-passed copies, the strongest first."""
    peaks: Array
    """(1 + high-passes,), where each curve has its peak, cycles per fine px; 0 where it has none."""

    @property
    def support_px(self) -> float | None:
        """The finest period, px; None where no curve has a peak."""
        return 1 / float(self.peaks.max()) if self.peaks.any() else None


def tukey(side: int) -> Array:
    """The Tukey window of 0.25: 1, falling as a cosine over an eighth of the side at each end; (side,)."""
    depth = (np.arange(side) + 0.5) / side
    depth = np.minimum(depth, 1 - depth) / (TAPER / 2)
    return np.where(depth < 1, 0.5 - 0.5 * np.cos(np.pi * np.minimum(depth, 1)), 1.0)


def half_bit(count: Array) -> Array:
    """Half-bit threshold (n,) for rings of ``count`` pixels N: (0.2071 + 1.9102 / sqrt N) / (1.2071 + 0.9102 / sqrt N).

    van Heel and Schatz 2005, J. Struct. Biol. 151, 250: half a bit of information in each pixel about the truth.
    """
    root = 1 / np.sqrt(np.maximum(count, 1))
    return np.asarray((0.2071 + 1.9102 * root) / (1.2071 + 0.9102 * root))


def frc_curve(evidence: Evidence) -> RingCorrelation:
    """Compute the Fourier ring correlation of image and truth; needs ``truth``.

    Re sum X T* / sqrt(sum |X|^2 sum |T|^2) over rings 1 / min(shape) cycles/px wide (Saxton and Baumeister 1982, J.
    Microsc. 127, 127), Tukey window (0.25), mean subtracted, pixels that are not valid replaced by the truth's.

    Raises
    ------
    UnmeasuredError : too small, all masked, or constant.
    """
    require_size(evidence)
    truth, image = (transform(plane, tukey) for plane in truth_and_image(evidence))
    size = (evidence.high.shape[0], evidence.high.shape[1])
    count, frequency, ours, theirs, common = ring_sums(
        size, lambda rows: (power(image[rows]), power(truth[rows]), cross(image[rows], truth[rows]))
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = common / np.sqrt(ours * theirs)
    return RingCorrelation(frequency / count, count, correlation, half_bit(count))


def frc_resolution_px(evidence: Evidence) -> list[Result]:
    """1 / k, fine px, for the least k at which the Fourier ring correlation with the truth falls below its threshold.

    `frc_curve`; thresholds 1/7 (region ``1/7``) and half a bit a pixel (region ``half-bit``; van Heel and Schatz 2005,
    J. Struct. Biol. 151, 250). Smaller is finer; 2 px is the grid. Rings of fewer than 24 px are left out. **The
    brightest sources decide; against a noisy truth it tells the truth's resolution as much as the image's. Between two
    outputs of one network it would be repeatability, not truth: what they both invent raises it.**
    """
    curve = frc_curve(evidence)
    return [_crossing(curve, "1/7", SEVENTH), _crossing(curve, "half-bit", curve.half_bit)]


def _crossing(curve: RingCorrelation, name: str, threshold: Array | float) -> Result:
    """The period at which the curve falls below a threshold, as a result."""
    try:
        at = first_below(curve.frequency, curve.count, curve.correlation, threshold)
    except UnmeasuredError as why:
        return not_computed("frc_resolution_px", f"threshold {name}: {why}")
    meaning = f"threshold {name}, at {at:.3g} cycles per fine px; 2 px is the finest"
    return Result("frc_resolution_px", 1 / at, "px", name, meaning=meaning)


def decorrelation(plane: Array) -> Decorrelation:
    """Analyse the decorrelation of a plane (Y, X), finite (Descloux et al. 2019, Nature Methods 16, 918).

    d(r) = sum_{|k| <= r} |F| / sqrt(sum |F|^2 * N(r)), the correlation of the transform F with its own phases within r,
    N(r) pixels, of the plane and of 50 copies less their Gaussian smoothing, sigma log-spaced from 0.14 px to 2 / r_0
    with r_0 the peak of the first over 0.5. Everything within |k| <= 0.5. One transform serves all: the high-pass is
    the same all around a ring, so that sums over rings are enough.
    """
    spectrum = transform(plane, tukey)
    size = (plane.shape[0], plane.shape[1])

    def parts(rows: slice) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        squared = power(spectrum[rows])
        return np.sqrt(squared), squared

    count, radius, size_sum, power_sum = (s[1:] for s in ring_sums(size, parts))  # the mean, ring 0, is no structure
    frequency, inside = radius / count, np.cumsum(count)
    first = _self_correlation(size_sum, power_sum, inside)
    # Descloux et al. 2019, methods: the strongest smoothing is set by the peak without a high-pass
    start = max(_peak(first), 0)
    widest = 2 / (frequency[start] / 0.5)
    sigmas = np.geomspace(SHARPEST_PX, max(widest, 2 * SHARPEST_PX), HIGH_PASSES)
    # transfer function of the high-pass, one less that of a Gaussian of sigma px
    passed = (1 - np.exp(-2 * (np.pi * sigma * frequency) ** 2) for sigma in sigmas)
    curves = np.array([first, *(_self_correlation(size_sum * h, power_sum * h**2, inside) for h in passed)])
    found = [_peak(curve) for curve in curves]
    return Decorrelation(frequency, curves, np.array([frequency[i] if i >= 0 else 0.0 for i in found]))


def _self_correlation(size_sum: Array, power_sum: Array, inside: Array) -> Array:
    """d(r) out of sums of |F| and |F|^2 over rings, and the pixels within them, (n,) each."""
    return np.asarray(np.cumsum(size_sum) / np.sqrt(max(float(power_sum.sum()), 1e-300) * inside))


def _peak(curve: Array) -> int:
    """Index of the highest value after which the curve falls by 0.001 and more; -1 where there is none."""
    # a maximum at the last radius is no peak: the curve has to fall after it
    least_after = np.minimum.accumulate(curve[::-1])[::-1]
    highest_so_far = np.maximum.accumulate(curve)
    peaks = np.flatnonzero((curve >= highest_so_far) & (curve - least_after >= DROP))
    return int(peaks[-1]) if peaks.size and peaks[-1] > 0 else -1


def decorrelation_px(evidence: Evidence) -> Result:
    """Spectral support: the finest period at which the image has structure that stands out, fine px.

    `decorrelation`: 1 / max k_c over the image and its high-passed copies (Descloux et al. 2019, Nature Methods 16,
    918). Needs no truth. Pixels that are not judged are the mean of those around them. **Structure that a network
    invents counts as resolution, and so does noise that it has sharpened: this is what the image claims, not what is
    true. Compare it with the bicubic image's, which is given beside it.**
    """
    require_size(evidence)
    good = evidence.valid_high
    if not good.any():
        raise UnmeasuredError("every pixel is masked")
    if np.ptp(evidence.high[good]) == 0:
        raise UnmeasuredError("the image is constant")
    found = decorrelation(fill_locally(evidence.high, good)).support_px
    if found is None:
        raise UnmeasuredError("no frequency stands out: the image is as rough as noise")
    meaning = f"spectral support, 2 px is the finest{_bicubic_words(evidence)}"
    return Result("decorrelation_px", found, "px", "all", meaning=meaning)


def _bicubic_words(evidence: Evidence) -> str:
    """The bicubic image's spectral support, in words."""
    if evidence.low is None:
        return ""
    beside = evidence.share("decorrelation_bicubic", lambda: decorrelation(smooth_bicubic_image(evidence)).support_px)
    return "; the bicubic image has none" if beside is None else f"; the bicubic image has {beside:.3g} px"


CHECKS = {
    "frc_resolution_px": Check(
        frc_resolution_px,
        "Finest period, in pixels of the image, down to which it agrees with the truth.",
        "Amplitude: an image may agree and be too faint. Bright sources dominate, and the truth's noise limits it.",
        ("truth",),
    ),
    "decorrelation_px": Check(
        decorrelation_px,
        "Finest period, in pixels, at which the image has structure.",
        "Whether that structure is real: invented structure counts.",
    ),
}
