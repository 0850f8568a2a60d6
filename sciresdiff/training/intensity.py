"""The relation of brightness between the two images of a pair: another exposure, gain or offset; clipping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sciresdiff.physics.sky import MAD_TO_SIGMA

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SMOOTH = (2.0, 8.0, 1 / 16)
"""Least and largest standard deviation of the smoothing, px, and its share of the shorter side."""
ROUNDS = 8
"""Rounds of reweighting."""
HUBER = 1.345
"""Residual in scatters from which on a pixel weighs less: 95 % efficiency for normal noise (Huber 1981)."""
BLOCKS = 4
"""Blocks per side for the jackknife."""
PILED = 4
"""Pixels at exactly the least or the largest value that look like a cut."""
LEFT = 0.25
"""Least share of the pixels that must be left when those about a cut are left out."""
BEYOND = 4.0
"""Noise by which the other image passes a cut where it was one."""
CONTRAST = 5.0
"""Least contrast of both images, in units of what their smoothed noise alone would show."""
LOOSE = 0.05
"""Relative error of a gain, and error of an offset in contrasts, from which on they are not known."""
LEAST_GAIN = 0.02
"""Difference of a gain from 1 that counts."""
LEAST_OFFSET = 0.3
"""Difference of the mean brightness, in noises of a pixel, that counts: it would add a tenth to chi2."""
LEAST_SHARE = 0.02
"""The same as a share of the contrast."""
SURE = 5.0
"""Standard errors by which a difference is believed."""


@dataclass(frozen=True)
class Intensity:
    """low = gain * seen + offset, with ``seen`` the fine image as the coarse grid sees it."""

    gain: float
    offset: float
    """Unit of ``low``."""
    gain_error: float
    mean_difference: float
    """Mean of low - seen, unit of ``low``."""
    mean_error: float
    contrast: float
    """Standard deviation of ``low`` after smoothing."""
    correlation: float
    """Of both after smoothing."""
    noise: float
    """Of a pixel of ``low``."""
    clipped: Mask
    """(h, w), True where ``low`` is cut at its least or largest value and ``seen`` is beyond it."""

    @property
    def differs(self) -> bool:
        """Whether gain or mean brightness differ by more than their errors and by enough to matter."""
        gain = abs(self.gain - 1) > max(LEAST_GAIN, SURE * self.gain_error)
        least = max(LEAST_OFFSET * self.noise, LEAST_SHARE * self.contrast, SURE * self.mean_error)
        return gain or abs(self.mean_difference) > least

    @property
    def is_known(self) -> bool:
        """Whether the gain is known to within LOOSE."""
        return self.gain_error < LOOSE * abs(self.gain)


def fit_intensity(low: NDArray[Any], seen: NDArray[Any], bad: Mask, noise: float) -> Intensity | None:
    """Fit a straight line to the brightness of a coarse image against that of the fine image on its grid.

    Both are smoothed alike first, by a Gaussian of a 16th of the shorter side (2 to 8 px), so that noise and small
    displacements hardly count. What a blur of width b that is not stated would add, to first order b^2 / 2 times the
    Laplacian of ``seen``, is fitted along, so that it is not taken for a gain. The line is an M-estimate (Huber 1981),
    its error a jackknife over 4 x 4 blocks. Pixels about a value where ``low`` is cut off are left out.

    Parameters
    ----------
    low, seen : (h, w), the coarse image, and the fine one blurred and reduced to its grid.
    bad : (h, w), True where one of them is not valid.
    noise : standard deviation of a pixel of ``low``.

    Returns
    -------
    The relation, or None where an image has too little contrast to tell.
    """
    least, most, share = SMOOTH
    sigma = float(np.clip(share * min(low.shape), least, most))
    cut = _piled(low, bad)
    kept = ~bad & ~_is_cut_there(low, seen, cut)
    y, x, good = _smooth(low, seen, kept if kept.sum() >= LEFT * (~bad).sum() else ~bad, sigma)
    smooth_noise = noise / (2 * np.sqrt(np.pi) * sigma)
    if good.sum() < 64 or not _has_contrast(y[good], smooth_noise) or not _has_contrast(x[good], 0.0):
        return None
    x0, y0 = float(np.mean(x[good])), float(np.mean(y[good]))
    dx, dy, weight = x - x0, y - y0, good.astype(np.float64)
    ripple = sigma**2 * ndimage.laplace(dx)  # of the order of dx
    columns = np.stack([dx, np.ones_like(dx), ripple, dy])
    for _ in range(ROUNDS):
        found = _solve(_sums(columns, weight).sum(0))
        left = np.abs(dy - np.tensordot(found, columns[:3], 1))
        scatter = max(MAD_TO_SIGMA * float(np.median(left[good])), 1e-12 * float(np.std(y[good])))
        weight = np.where(good, np.minimum(1, HUBER * scatter / np.maximum(left, 1e-300)), 0.0)
    gain, at_zero = float(found[0]), float(found[1])
    gain_error, mean_error = _jackknife(_sums(columns, weight))
    mean = y0 + at_zero
    offset = mean - gain * x0
    return Intensity(
        gain, offset, gain_error, mean - x0, mean_error, float(np.std(y[good])),
        float(np.corrcoef(x[good], y[good])[0, 1]), noise, find_clipped(low, gain * seen + offset, bad, noise),
    )  # fmt: skip


def find_clipped(low: NDArray[Any], expected: NDArray[Any], bad: Mask, noise: float) -> Mask:
    """Find pixels cut at the least or largest value of an image, of which less or more was expected, (h, w).

    Parameters
    ----------
    low, expected : (h, w), the image, and what it would be without a cut.
    bad : (h, w), pixels that do not count.
    noise : standard deviation of a pixel of ``low``.
    """
    found = np.zeros(low.shape, bool)
    for end, side in _piled(np.asarray(low), bad):
        found |= (low == end) & (side * (expected - end) > BEYOND * noise)
    return found & ~bad


def _piled(low: NDArray[Any], bad: Mask) -> list[tuple[float, int]]:
    """Values at which the image may be cut, with +1 for the largest and -1 for the least."""
    values = low[~bad]
    ends = ((float(values.min()), -1), (float(values.max()), 1))
    return [(end, side) for end, side in ends if int((values == end).sum()) >= PILED]


def _is_cut_there(low: NDArray[Any], seen: NDArray[Any], cut: list[tuple[float, int]]) -> Mask:
    """Where the fine image is as bright, or as dark, as it is where the coarse one is cut.

    It is asked of ``seen``: to leave pixels out by their own noise would bend the line.
    """
    found = np.zeros(low.shape, bool)
    for end, side in cut:
        found |= side * seen >= np.percentile(side * seen[low == end], 5)
    return found


def _smooth(low: NDArray[Any], seen: NDArray[Any], good: Mask, sigma: float) -> tuple[Array, Array, Mask]:
    """Both images smoothed over the good pixels alone, and where most of the weight is good."""
    weight = ndimage.gaussian_filter(good.astype(np.float64), sigma)
    y, x = (ndimage.gaussian_filter(np.where(good, image, 0.0).astype(np.float64), sigma) for image in (low, seen))
    there = good & (weight > 0.5)
    least = np.maximum(weight, 1e-6)
    return y / least, x / least, there


def _has_contrast(values: Array, noise: float) -> bool:
    """Whether values scatter by much more than their noise."""
    return bool(float(np.std(values)) > max(CONTRAST * noise, 1e-9 * float(np.abs(values).max())))


def _sums(columns: Array, weight: Array) -> Array:
    """Normal equations of gain, mean and ripple for every block, (blocks, 3, 4); columns (4, h, w), y the last."""
    rows, cols = (np.linspace(0, n, BLOCKS + 1).astype(int) for n in weight.shape)
    cells = [np.s_[rows[i] : rows[i + 1], cols[j] : cols[j + 1]] for i in range(BLOCKS) for j in range(BLOCKS)]
    parts = [(columns[:, *cell].reshape(4, -1), weight[cell].ravel()) for cell in cells if weight[cell].any()]
    return np.stack([(part[:3] * w) @ part.T for part, w in parts])


def _solve(sums: Array) -> Array:
    """Gain, mean and ripple, (3,)."""
    return np.asarray(np.linalg.lstsq(sums[:, :3], sums[:, 3], rcond=1e-12)[0])


def _jackknife(sums: Array) -> tuple[float, float]:
    """Standard errors of gain and mean, leaving out one block at a time (Efron 1982, chapter 3)."""
    n = len(sums)
    if n < 4:
        return np.inf, np.inf
    found = np.array([_solve(sums.sum(0) - part) for part in sums])
    errors = np.sqrt((n - 1) / n * ((found - found.mean(0)) ** 2).sum(0))
    return float(errors[0]), float(errors[1])
