"""What is left of the data when the image, measured again, is taken off: white, normal noise without structure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sciresdiff.checks.check import Check, UnmeasuredError
from sciresdiff.checks.evidence import Array, Evidence, Mask, Range, Result
from sciresdiff.checks.limits import LIMITS
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
"""p: probability that a normal deviate is beyond 4 sigma."""
CHANCE_OF_SHAPE = 13.8
"""What n JB of normal noise exceeds once in a thousand (chi-square of two degrees of freedom)."""


@dataclass(frozen=True)
class Blob:
    """A connected region of the residual beyond 4 sigma; positions on the coarse grid, (0, 0) the first centre."""

    x: float
    y: float
    pixels: int
    mean: float
    """Sigma; above 0 the image lacks light there, below 0 it has too much."""


def residual_map(evidence: Evidence) -> Array | None:
    """r = (y - A x) / sigma, (h, w); NaN where nothing is judged, None where data, variance or blur are not known.

    For the truth it is white noise of variance 1. For the mean of a posterior of prior covariance S it is
    N (S + N)^-1 (y - A mu): smaller, and with neighbours of opposite sign, because the structure that is broad was
    fitted (Gaussian conditioning, for instance Rasmussen and Williams 2006, equations 2.22 to 2.24).
    """
    if evidence.low is None or evidence.variance is None or evidence.redegraded is None:
        return None
    good = evidence.good_low
    assert good is not None
    sigma = np.sqrt(np.where(good, evidence.variance, 1))
    return np.asarray(np.where(good, (evidence.low - evidence.redegraded) / sigma, np.nan))


def _known(evidence: Evidence) -> Array:
    """The map; refused where no pixel is judged."""
    found = residual_map(evidence)
    if found is None or not np.isfinite(found).any():
        raise UnmeasuredError("no coarse pixel is valid and judged")
    return found


def lag1(residual: Array, axis: int) -> tuple[float, int]:
    """Correlation of neighbours along an axis and the number of pairs; residuals are cut at 5 sigma, NaN are left out.

    rho = mean(r_i r_(i+1)) / mean(r^2), without a mean taken off: an offset is structure, too.
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

    0 within 3 / sqrt(n) for the truth, for a draw, and for the mean where the data say little; -0.02 to -0.25 for good
    means of simulated frames, -0.35 for Richardson-Lucy stopped at chi2 = 1 and -0.45 to -0.7 after 30 iterations. A
    shift by half a pixel, a blur or a wrong kernel leaves +0.5 where there are bright sources (Box and Jenkins 1970,
    chapter 2, for the estimate and its scatter). **Blind where the light is faint; correlated noise of the frame itself
    raises it.**
    """
    found = _known(evidence)
    results = []
    for axis, name in enumerate("yx"):
        value, n = lag1(found, axis)
        if n < FEWEST:
            raise UnmeasuredError(f"{n} pairs of coarse pixels with something left over, {FEWEST} are needed")
        chance = f"{n} pairs of neighbours, chance {3 / np.sqrt(n):.3f}"
        meaning = f"{chance}; above 0 structure is left, far below 0 noise is fitted"
        limit = widened(evidence.kind, "residual_lag1", 3 / np.sqrt(n))
        results.append(Result("residual_lag1", value, "", f"along {name}", limit, meaning=meaning, weight=n))
    return results


def widened(kind: Kind, name: str, chance: float) -> Range:
    """The limits of a result, further apart by what chance does to it."""
    low, high = LIMITS[kind][name].low, LIMITS[kind][name].high
    return None if low is None else low - chance, None if high is None else high + chance


def blobs_of(residual: Array) -> list[Blob]:
    """Regions of two or more touching pixels (corners count) beyond 4 sigma, the largest first."""
    from scipy import ndimage

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
    found = _known(evidence)
    blobs = blobs_of(found)
    n = int(np.isfinite(found).sum())
    expected = 4 * n * CHANCE_OF_BLOB**2
    meaning = f"regions of {BLOB_PX} or more coarse px beyond {BLOB:g} sigma, {expected:.2g} expected by chance"
    if blobs:
        meaning += f"; the largest: {_told(blobs[0], evidence.scale)}"
    return Result("residual_blobs", float(len(blobs)), "", "all", most_blobs(n), meaning=meaning, weight=n)


def most_blobs(n: float) -> Range:
    """What is accepted among n coarse pixels: chance plus 3 of its standard deviations."""
    expected = 4 * n * CHANCE_OF_BLOB**2
    return None, float(np.floor(expected + 3 * np.sqrt(expected)))


def _told(blob: Blob, scale: int) -> str:
    """Where a blob is and what is wrong there."""
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
    found = _known(evidence)
    dark = evidence.sky_low
    assert dark is not None
    values = found[dark & np.isfinite(found)]
    if values.size < FEWEST or not values.std() > 0:
        raise UnmeasuredError(f"{values.size} coarse pixels of {evidence.dark_name}, {FEWEST} that differ are needed")
    skew, kurtosis = shape(values)
    limit = widened(evidence.kind, "residual_normality", CHANCE_OF_SHAPE / values.size)
    meaning = f"skew {skew:+.2f}, excess kurtosis {kurtosis:+.2f} of {values.size} coarse px; both 0 for normal noise"
    value = skew**2 / 6 + kurtosis**2 / 24
    return Result("residual_normality", value, "", evidence.dark_name, limit, meaning=meaning, weight=values.size)


def shape(values: Array) -> tuple[float, float]:
    """Skew and excess kurtosis, m3 / m2^1.5 and m4 / m2^2 - 3 of central moments."""
    away = values - values.mean()
    square = away**2
    m2 = float(square.mean())
    return float((square * away).mean()) / m2**1.5, float((square**2).mean()) / m2**2 - 3


def squares_in(residual: Array, part: Mask | None) -> Array:
    """r^2 of the judged pixels, of a part of the coarse grid or of all of it."""
    chosen = np.isfinite(residual) if part is None else np.isfinite(residual) & part
    return np.asarray(residual[chosen] ** 2)


CHECKS = {
    "residual_lag1": Check(
        residual_lag1,
        "Whether what is left of the data is white: above 0 structure is left, far below 0 the noise was fitted.",
        "Faint structure; noise that is correlated in the frame itself raises it.",
        ("low", "variance", "operator"),
    ),
    "residual_blobs": Check(
        residual_blobs,
        "How many patches of the data the image does not explain, at 4 sigma; it says where the largest is.",
        "What is fainter than 4 sigma in a pixel of the data; a wrong kernel shows at every bright star.",
        ("low", "variance", "operator"),
    ),
    "residual_normality": Check(
        residual_normality,
        "Whether what is left on the darker half has the shape of noise; 0 for a normal distribution.",
        "Noise of the wrong size; few photons to a pixel are not normal either.",
        ("low", "variance", "operator"),
    ),
}
