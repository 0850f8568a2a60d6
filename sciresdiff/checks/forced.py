"""Forced photometry on the data: how significant is a source of the image at its position in the data?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.arrays import Array, fill_with_median
from sciresdiff.checks.check import UnmeasuredError
from sciresdiff.checks.detection import Sources
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.source_lists import image_sources

Index = NDArray[np.int64]

SURROUNDINGS = 3.0
"""Width of the Gaussian that surroundings are averaged over, sigma, coarse px."""


@dataclass(frozen=True, eq=False)
class ForcedPhotometry:
    """Point sources at the positions of detections, measured in the data."""

    xy: Array
    """(n, 2), brightest pixels of the detections, fine px."""
    flux: Array
    """(n,), in the image's unit, above the image's background."""
    sigma: Array
    """(n,), its standard deviation, neighbours left out of account."""
    snr: Array
    """(n,), as `significance` counts it; flux / sigma, or more on bright surroundings."""


def forced_photometry(evidence: Evidence, found: Sources | None = None) -> ForcedPhotometry:
    """Measure every detection away from the border in the data, by the matched filter of `significance`.

    flux = sum(a r / v) / sum(a^2 / v), sigma = 1 / sqrt(sum(a^2 / v)). **Every source is measured as if it were alone:
    light of neighbours within the blur is in its flux.**

    Parameters
    ----------
    evidence : with data, variance and operator.
    found : detections; those of the image by default.

    Raises
    ------
    UnmeasuredError : data, variance or blur are not known.
    """
    found = image_sources(evidence) if found is None else found
    snr = significance(evidence, found)
    if snr is None:
        raise UnmeasuredError("needs the data with their noise and blur")
    if not len(snr):
        return ForcedPhotometry(np.empty((0, 2)), snr, snr, snr)
    signal, noise = _signal(evidence, found)
    row, column = _pixels(found, noise.shape)
    sigma = 1 / np.maximum(noise[row, column], np.finfo(float).tiny)
    return ForcedPhotometry(found.inner_peaks, signal[row, column] * sigma, sigma, snr)


def significance(evidence: Evidence, found: Sources) -> Array | None:
    """Compute the signal to noise in the data of point sources at the inner peaks of ``found``.

    With a the coarse image of a point at the position, r = data - A (background of the image that the sources were
    found on) and v the variance: S/N = sum(a r / v) / sqrt(sum(a^2 / v)), the matched filter (for instance Zackay and
    Ofek 2017, ApJ 836, 187). The numerator is A^T (r / v); in the root v is taken as locally constant. The S/N above
    the mean of its surroundings (Gaussian, sigma 3 coarse px) is taken where it is more: the top of a ripple in bright
    tissue may lie below the background. **The image's own PSF is not in a: a source broader than a fine pixel is a
    little more significant than this.**

    Returns
    -------
    (n,) or None where data, variance or blur are not known.
    """
    from scipy.ndimage import gaussian_filter

    if evidence.low is None or evidence.variance is None or evidence.operator is None:
        return None
    if not len(found.inner):
        return np.empty(0)
    signal, _ = _signal(evidence, found)
    signal = np.maximum(signal, signal - gaussian_filter(signal, SURROUNDINGS * evidence.scale))
    return np.asarray(signal[_pixels(found, signal.shape)])


def _signal(evidence: Evidence, found: Sources) -> tuple[Array, Array]:
    """Signal to noise of a point at every fine pixel, and sqrt(sum(a^2 / v)): (Y, X) each."""
    assert evidence.low is not None
    weight, noise = evidence.share("forced", lambda: _weights(evidence))
    residual = fill_with_median(evidence.low, weight > 0) - evidence.degrade(found.level)
    return _adjoint(evidence, weight * residual) / noise, noise


def _pixels(found: Sources, shape: tuple[int, ...]) -> tuple[Index, Index]:
    """Rows and columns of the inner peaks."""
    h, w = shape
    column, row = (np.clip(np.rint(v).astype(int), 0, n - 1) for v, n in zip(found.inner_peaks.T, (w, h), strict=True))
    return row, column


def _weights(evidence: Evidence) -> tuple[Array, Array]:
    """1 / v of every coarse pixel, 0 where it is not valid: (h, w); and sqrt(sum(a^2 / v)): (Y, X)."""
    valid, variance = evidence.valid_low, evidence.variance
    assert valid is not None and variance is not None
    weight: Array = np.where(valid, 1 / np.where(valid, variance, 1), 0.0)
    # v taken as locally constant: sqrt(sum(a^2 / v)) = sqrt(sum a^2) sqrt(mean of 1 / v under the blur)
    mean_weight = _adjoint(evidence, weight) / np.maximum(_adjoint(evidence, np.ones_like(weight)), 1e-12)
    return weight, np.tile(_norms(evidence), valid.shape) * np.sqrt(np.maximum(mean_weight, 1e-300))


def _adjoint(evidence: Evidence, coarse: Array) -> Array:
    """A^T of a coarse plane (h, w): (Y, X)."""
    import torch

    assert evidence.operator is not None
    return np.asarray(evidence.operator.adjoint(torch.from_numpy(coarse)[None, None])[0, 0].numpy())


def _norms(evidence: Evidence) -> Array:
    """sqrt(sum a^2) of a point at every fine pixel of one coarse pixel, in the middle of the frame: (s, s)."""
    s, (h, w) = evidence.scale, evidence.high.shape
    top, left = h // (2 * s) * s, w // (2 * s) * s
    norms = np.empty((s, s))
    for i in range(s):
        for j in range(s):
            point = np.zeros((h, w))
            point[top + i, left + j] = 1
            norms[i, j] = np.sqrt((evidence.degrade(point) ** 2).sum())
    return norms
