"""Forced photometry on the data: how significant is a source of the image at its place in the data?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sciresdiff.checks.evidence import Array, Evidence, filled

if TYPE_CHECKING:
    from sciresdiff.checks.sources import Sources


SURROUNDINGS = 3.0
"""Width of the Gaussian that surroundings are averaged over, sigma, coarse px."""


def significance(evidence: Evidence, found: Sources) -> Array | None:
    """Signal to noise in the data of point sources at the inner peaks of ``found``.

    With a the coarse image of a point at the place, r = data - A (background of the image that the sources were found
    on) and v the variance: S/N = sum(a r / v) / sqrt(sum(a^2 / v)), the matched filter (for instance Zackay and Ofek
    2017, ApJ 836, 187). The numerator is A^T (r / v); in the root v is taken as locally constant. The S/N above the
    mean of its surroundings (Gaussian, sigma 3 coarse px) counts where it is more: the top of a ripple in bright tissue
    may lie below the background. **The image's own PSF is not in a: a source broader than a fine pixel is a little more
    significant than this.**

    Returns
    -------
    (n,) or None where data, variance or blur are not known.
    """
    from scipy.ndimage import gaussian_filter

    if evidence.low is None or evidence.variance is None or evidence.operator is None:
        return None
    if not len(found.inner):
        return np.empty(0)
    weight, noise = evidence.once("forced", lambda: _weights(evidence))
    residual = filled(evidence.low, weight > 0) - evidence.degraded(found.level)
    signal = _back(evidence, weight * residual) / noise
    signal = np.maximum(signal, signal - gaussian_filter(signal, SURROUNDINGS * evidence.scale))
    h, w = signal.shape
    column, row = (np.clip(np.rint(v).astype(int), 0, n - 1) for v, n in zip(found.inner_peaks.T, (w, h), strict=True))
    return np.asarray(signal[row, column])


def _weights(evidence: Evidence) -> tuple[Array, Array]:
    """1 / v of every coarse pixel, 0 where it is not valid, and the root for a point at every fine pixel."""
    y, variance = evidence.low, evidence.variance
    assert y is not None and variance is not None
    valid = np.isfinite(y) & np.isfinite(variance) & (variance > 0)
    if evidence.mask_low is not None:
        valid &= ~evidence.mask_low
    weight: Array = np.where(valid, 1 / np.where(valid, variance, 1), 0.0)
    mean_weight = _back(evidence, weight) / np.maximum(_back(evidence, np.ones_like(weight)), 1e-12)
    return weight, np.tile(_norms(evidence), y.shape) * np.sqrt(np.maximum(mean_weight, 1e-300))


def _back(evidence: Evidence, coarse: Array) -> Array:
    """A^T of a coarse plane."""
    import torch

    assert evidence.operator is not None
    return np.asarray(evidence.operator.adjoint(torch.from_numpy(coarse)[None, None])[0, 0].numpy())


def _norms(evidence: Evidence) -> Array:
    """sqrt(sum a^2) of a point at every fine pixel of one coarse pixel in the middle of the frame: (s, s)."""
    s, (h, w) = evidence.scale, evidence.high.shape
    top, left = h // (2 * s) * s, w // (2 * s) * s
    norms = np.empty((s, s))
    for i in range(s):
        for j in range(s):
            point = np.zeros((h, w))
            point[top + i, left + j] = 1
            norms[i, j] = np.sqrt((evidence.degraded(point) ** 2).sum())
    return norms
