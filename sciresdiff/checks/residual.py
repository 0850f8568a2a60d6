"""The residual of the data, (y - A x) / sigma: white, normal noise without structure where the image is right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sciresdiff.checks.arrays import Array, Mask
from sciresdiff.checks.check import Check, UnmeasuredError
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.limits import LIMITS
from sciresdiff.checks.result import Range, Result
from sciresdiff.frame import Kind

FEWEST = 100
"""Fewest coarse pixels, or pairs of them, that a shape or a correlation is measured on."""
CLIP = 5.0
"""Residuals are cut here before they are correlated, sigma: one bad core is a blob, and no correlation."""
BLOB = 4.0
"""Residual beyond which a coarse pixel may belong to a blob, sigma; chance does it once in 15,800 pixels."""
BLOB_PX = 2
"""Fewest touching pixels of a blob; chance makes 4 n p^2 of them, one in 15 frames of 2048 x 2048 pixels."""
CHANCE_OF_BLOB = 6.334e-5
"""p: probability that a normal deviate is beyond 4 sigma, on either side."""
CHANCE_OF_SHAPE = 13.8
"""Value that n JB of normal noise exceeds once in a thousand (chi-square of two degrees of freedom)."""


@dataclass(frozen=True)
class Blob:
    """A connected region of the residual beyond 4 sigma; positions on the coarse grid, (0, 0) the first centre."""

    x: float
    y: float
    pixels: int
    mean: float
    """Sigma; above 0 the image lacks light there, below 0 it has too much."""


def residual_map(evidence: Evidence) -> Array | None:
    """Compute r = (y - A x) / sigma, (h, w); NaN where nothing is judged, None without data, variance or operator.

    For the truth it is white noise of variance 1. For the mean of a posterior of prior covariance S it is N (S + N)^-1
    (y - A mu): smaller, and with neighbours of opposite sign, because broad structure was fitted (Gaussian
    conditioning, for instance Rasmussen and Williams 2006, equations 2.22 to 2.24).
    """
    if evidence.low is None or evidence.variance is None or evidence.predicted_low is None:
        return None
    good = evidence.good_low
    assert good is not None
    sigma = np.sqrt(np.where(good, evidence.variance, 1))
    return np.asarray(np.where(good, (evidence.low - evidence.predicted_low) / sigma, np.nan))


def _require_residual(evidence: Evidence) -> Array:
    """The residual map; refused where no pixel is judged."""
    found = residual_map(evidence)
    if found is None or not np.isfinite(found).any():
        raise UnmeasuredError("no coarse pixel is valid and judged")
    return found


def lag1(residual: Array, axis: int) -> tuple[float, int]:
    """Correlate neighbours along an axis; residuals are clipped at 5 sigma, NaN are left out.

    rho = mean(r_i r_(i+1)) / mean(r^2), without subtracting a mean: an offset is structure, too.

    Parameters
    ----------
    residual : (h, w), sigma.
    axis : 0 along y, 1 along x.

    Returns
    -------
    rho, and the number of pairs; NaN and 0 where there is none.
    """
    cut = np.clip(residual, -CLIP, CLIP)
    first, second = (cut[1:], cut[:-1]) if axis == 0 else (cut[:, 1:], cut[:, :-1])
    products = first * second
    pairs = np.isfinite(products)
    power = float(np.nanmean(cut**2)) if np.isfinite(cut).any() else 0.0
    if not pairs.any() or not power > 0:
        return float("nan"), 0
    return float(products[pairs].mean()) / power, int(pairs.sum())


def residual_lag1(evidence: Evidence) -> list[Result]:
    """Lag-1 autocorrelation of (y - A x) / sigma along y and along x; -1..1.

    0 within 3 / sqrt(n) for the truth, for a draw, and for the mean where the data constrain little; -0.02 to -0.25 for
    good means of simulated frames, -0.35 for Richardson-Lucy stopped at chi2 = 1 and -0.45 to -0.7 after 30 iterations.
    A shift by half a pixel, a blur or a wrong kernel leaves +0.5 where there are bright sources (Box and Jenkins 1970,
    chapter 2, for the estimate and its scatter). **Blind where the light is faint; correlated noise of the frame itself
    raises it.**
    """
    found = _require_residual(evidence)
    results = []
    for axis, name in enumerate("yx"):
        value, n = lag1(found, axis)
        if n < FEWEST:
            raise UnmeasuredError(f"{n} pairs of coarse pixels with something left over, {FEWEST} are needed")
        chance = f"{n} pairs of neighbours, chance {3 / np.sqrt(n):.3f}"
        meaning = f"{chance}; above 0 structure is left, far below 0 noise is fitted"
        limit = widen_limit(evidence.kind, "residual_lag1", 3 / np.sqrt(n))
        results.append(Result("residual_lag1", value, "", f"along {name}", limit, meaning=meaning, weight=n))
    return results


def widen_limit(kind: Kind, name: str, chance: float) -> Range:
    """Move the table's limits of a result apart.

    Parameters
    ----------
    kind, name : of the limits in the table.
    chance : how far chance moves the result, in its unit.
    """
    low, high = LIMITS[kind][name].low, LIMITS[kind][name].high
    return None if low is None else low - chance, None if high is None else high + chance


def find_blobs(residual: Array) -> list[Blob]:
    """Find regions of two or more touching pixels (corners count) beyond 4 sigma in a residual (h, w), large first."""
    from scipy import ndimage

    # corners count as touching: a wrong core of a star is often a diagonal pair
    far = np.abs(np.nan_to_num(residual, nan=0.0, posinf=0.0, neginf=0.0)) > BLOB
    labels, count = ndimage.label(far, np.ones((3, 3)))
    if not count:
        return []
    pixels = np.bincount(labels.ravel(), minlength=count + 1)
    wanted = np.flatnonzero(pixels >= BLOB_PX)
    wanted = wanted[wanted > 0]
    centres = ndimage.center_of_mass(far, labels, wanted)
    means = np.atleast_1d(ndimage.mean(residual, labels, wanted))
    found = [
        Blob(float(x), float(y), int(pixels[label]), float(mean))
        for label, (y, x), mean in zip(wanted, centres, means, strict=True)
    ]
    return sorted(found, key=lambda blob: (-blob.pixels, -abs(blob.mean), blob.y, blob.x))


def residual_blobs(evidence: Evidence) -> Result:
    """How many connected regions of at least two coarse pixels have |y - A x| > 4 sigma; 0 is best.

    Among n normal deviates 4 n p^2 such pairs are expected, with p = 6.3e-5: none in practice. Accepted up to chance
    plus 3 of its standard deviations. **A wrong kernel makes one of every bright star; what is fainter than 4 sigma a
    pixel is not seen.**
    """
    found = _require_residual(evidence)
    blobs = find_blobs(found)
    n = int(np.isfinite(found).sum())
    expected = 4 * n * CHANCE_OF_BLOB**2
    meaning = f"regions of {BLOB_PX} or more coarse px beyond {BLOB:g} sigma, {expected:.2g} expected by chance"
    if blobs:
        meaning += f"; the largest: {_describe(blobs[0], evidence.scale)}"
    return Result("residual_blobs", float(len(blobs)), "", "all", blob_limit(n), meaning=meaning, weight=n)


def blob_limit(n: float) -> Range:
    """Accepted number of blobs among n coarse pixels: chance plus 3 of its standard deviations."""
    expected = 4 * n * CHANCE_OF_BLOB**2
    return None, float(np.floor(expected + 3 * np.sqrt(expected)))


def _describe(blob: Blob, scale: int) -> str:
    """Position of a blob on the fine grid, and what is wrong there."""
    x, y = ((scale * (at + 0.5) - 0.5) for at in (blob.x, blob.y))
    what = "light is missing from the image" if blob.mean > 0 else "the image has light that the data have not"
    return f"{blob.pixels} coarse px about x {x:.0f}, y {y:.0f} of the image, {blob.mean:+.1f} sigma on average, {what}"


def residual_normality(evidence: Evidence) -> Result:
    """JB / n = skew^2 / 6 + excess kurtosis^2 / 24 of (y - A x) / sigma on sky: 0 for normal noise.

    The statistic of Jarque and Bera (1980, Economics Letters 6, 255) without its n, so that it measures how far from
    normal the residual is, and not how many pixels there are: 0.04 is an excess kurtosis of 1, or a skew of 0.5.
    Accepted beyond the limit by what chance does once in a thousand, 13.8 / n. **Noise of the wrong size is normal; few
    photons to a pixel are not (skew of 1 / sqrt(photons)); one hot pixel is enough.**
    """
    found = _require_residual(evidence)
    dark = evidence.sky_low
    assert dark is not None
    values = found[dark & np.isfinite(found)]
    if values.size < FEWEST or not values.std() > 0:
        raise UnmeasuredError(f"{values.size} coarse pixels of {evidence.dark_name}, {FEWEST} that differ are needed")
    skew, kurtosis = skew_and_kurtosis(values)
    limit = widen_limit(evidence.kind, "residual_normality", CHANCE_OF_SHAPE / values.size)
    meaning = f"skew {skew:+.2f}, excess kurtosis {kurtosis:+.2f} of {values.size} coarse px; both 0 for normal noise"
    value = skew**2 / 6 + kurtosis**2 / 24
    return Result("residual_normality", value, "", evidence.dark_name, limit, meaning=meaning, weight=values.size)


def skew_and_kurtosis(values: Array) -> tuple[float, float]:
    """Skew m3 / m2^1.5 and excess kurtosis m4 / m2^2 - 3 of values (n,), by their central moments."""
    away = values - values.mean()
    square = away**2
    m2 = float(square.mean())
    return float((square * away).mean()) / m2**1.5, float((square**2).mean()) / m2**2 - 3


def squares_in(residual: Array, part: Mask | None) -> Array:
    """Square the judged pixels of a residual: (n,).

    Parameters
    ----------
    residual : (h, w), NaN where nothing is judged.
    part : (h, w), where; None for everywhere.
    """
    chosen = np.isfinite(residual) if part is None else np.isfinite(residual) & part
    return np.asarray(residual[chosen] ** 2)


CHECKS = {
    "residual_lag1": Check(
        residual_lag1,
        "Whether the residual is white: above 0 structure is left in it, far below 0 noise was fitted.",
        "Faint structure; and correlated noise of the frame raises it.",
        ("low", "variance", "operator"),
    ),
    "residual_blobs": Check(
        residual_blobs,
        "Number of connected regions that the image does not explain at 4 sigma, and where the largest is.",
        "What is fainter than 4 sigma in a pixel of the data; a wrong kernel leaves one at every bright star.",
        ("low", "variance", "operator"),
    ),
    "residual_normality": Check(
        residual_normality,
        "Whether the residual of the darker half is normally distributed; 0 if it is.",
        "Noise of the wrong size; noise of few photons per pixel is not normal either.",
        ("low", "variance", "operator"),
    ),
}
