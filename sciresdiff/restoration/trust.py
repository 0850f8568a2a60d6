"""TRUST: which structure of a restored image is kept by the mask that was calibrated for its model.

The calibration (`training.trust`) has found the largest threshold at which, among kept pixels, the share of wrong
claims (`checks.trust.wrong`) is below alpha in the mean over frames, with confidence 1 - delta.  That holds for frames
like the calibration's; of any other the mask says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.trust import claims, contrast, noise_per_fine_pixel
from sciresdiff.observation.grid import upsample_nearest
from sciresdiff.observation.observation import Observation
from sciresdiff.restoration.restored import RestoredPlane

Plane = NDArray[Any]

SCORE = "max(err / |x - b|, (1 - support) / 2, gate)"
"""Name of the score, as the card has it; a card with another is not used."""
FEWEST = 20
"""Kept pixels below which an image keeps none: a share of fewer is chance."""
SNR_PERCENTILE = 99.0
SNR_EDGES = (10.0, 100.0, 1000.0)
"""Between these chi2 has ranges of its own: what it is of a good restoration depends on the light there is."""
LEEWAY = 0.1
"""Share by which a kernel's width may leave the calibration's range."""
BLOCK = 8
"""Side of the squares in which the noise is measured, coarse px."""
NOISE_GAP = (1.4, 2.5)
"""Noise of the quietest squares over the stated one at which nothing is said: noise that is understated, or structure
everywhere.  Above it structure outweighs the noise, whatever that is."""


def score(restored: RestoredPlane, observation: Observation) -> Plane:
    """How doubtful the structure at every pixel is, (Y, X); infinite where none is claimed, or masked.

    The largest of ERR / |x - b|, half of what SUPPORT leaves to the model, and GATE, with b the mean of the image over
    five coarse pixels.

    Parameters
    ----------
    restored : one plane, (Y, X).
    observation : what it was restored from, in memory.
    """
    exposure, scale = observation.exposure, observation.scale
    usable = ~exposure.mask & np.isfinite(exposure.variance)
    fine = upsample_nearest(usable, scale) & np.isfinite(restored.mean) & np.isfinite(restored.err)
    c = np.abs(contrast(whole(restored.mean), scale))
    claimed = fine & claims(c, noise_per_fine_pixel(np.where(usable, exposure.variance, 0), observation))
    c[~claimed] = 1
    worst = np.maximum(restored.err / c, (1 - restored.support) / 2)
    np.maximum(worst, restored.gate, out=worst)
    worst[~claimed] = np.inf
    return worst


def whole(mean: Plane) -> Plane:
    """An image with pixels that have no value replaced by the median of the others."""
    known = np.isfinite(mean)
    return (
        mean if known.all() else np.where(known, mean, np.median(mean[known]) if known.any() else 0).astype(mean.dtype)
    )


def trusted_pixels(scores: Plane, threshold: float) -> NDArray[np.bool_]:
    """Pixels whose score is at most the threshold; none where they are fewer than 20."""
    found = scores <= threshold
    return found if int(found.sum()) >= FEWEST else np.zeros_like(found)


def facts(observation: Observation, chi2: float = float("nan")) -> dict[str, float]:
    """What decides whether a frame is like the calibration's: width of its PSF, signal to noise, noise, chi2.

    Parameters
    ----------
    observation : of one plane in memory.
    chi2 : of the restored image; NaN where nothing is restored yet.
    """
    exposure = observation.exposure
    good = exposure.valid
    if not good.any():
        return dict.fromkeys(("sigma_low_px", "snr", "noise", "chi2"), float("nan"))
    low, variance = np.asarray(exposure.pixels, np.float64), exposure.variance
    above = (low[good] - np.median(low[good])) / np.sqrt(variance[good])
    snr = float(np.percentile(above, SNR_PERCENTILE))
    psf = exposure.psf
    sigma = 0.0 if psf is None else psf.width / observation.scale
    noise = quiet_noise(low, variance, good)
    return {"sigma_low_px": sigma, "snr": snr, "noise": noise, "chi2": float(chi2)}


def quiet_noise(low: Plane, variance: Plane, good: NDArray[np.bool_]) -> float:
    """Noise of the quietest tenth of the frame over the stated noise, from differences across diagonals.

    With d = (y[i, j] - y[i + 1, j] - y[i, j + 1] + y[i + 1, j + 1]) / 2, which takes no plane for noise: the root of
    the 10th percentile, over squares of 8 x 8, of mean(d^2) / mean(v).  About 0.85 for white noise that is as stated;
    NaN where no square is valid.
    """

    def four(p: Plane) -> list[Plane]:
        return [p[:-1, :-1], p[1:, :-1], p[:-1, 1:], p[1:, 1:]]

    def means(p: Plane) -> Plane:
        h, w = (n // BLOCK * BLOCK for n in p.shape)
        return p[:h, :w].reshape(h // BLOCK, BLOCK, w // BLOCK, BLOCK).mean((1, 3))

    if min(low.shape) <= BLOCK:
        return float("nan")
    a, b, c, d = four(np.where(good, low, 0))
    usable = np.all(four(good), axis=0)
    v = np.mean(four(np.where(good, variance, 0)), axis=0)
    squares, noise = means(np.where(usable, (a - b - c + d) ** 2 / 4, 0)), means(np.where(usable, v, 0))
    enough = means(usable.astype(float)) > 0.5
    return float(np.sqrt(np.percentile(squares[enough] / noise[enough], 10))) if enough.any() else float("nan")


def fineness(mean: Plane, scale: int) -> tuple[Plane, Plane]:
    """Squared Laplacian and squared contrast of an image, (Y, X): their sums over kept pixels make the sharpness.

    Sharpness, the root of the ratio of the two sums, says how fine the kept structure is.  A PSF that is wider than
    stated leaves every source broad, and chi2 does not see it; this does.
    """
    from scipy.ndimage import laplace

    plane = whole(mean)
    return laplace(plane, mode="nearest") ** 2, contrast(plane, scale) ** 2


def refusal(calibration: Mapping[str, Any] | None, found: Mapping[str, float]) -> str | None:
    """Why the mask says nothing of a frame with these `facts`; None where it speaks."""
    if not calibration:
        return "the model has no calibrated mask"
    if calibration.get("score") != SCORE:
        return "the model's mask was calibrated for another score"
    if calibration.get("threshold") is None:
        return f"no threshold kept the risk below {calibration.get('alpha')} on the calibration frames"
    domain = calibration["domain"]
    widths, at = domain["sigma_low_px"], int(np.searchsorted(SNR_EDGES, found["snr"]))
    ranges = {
        "the kernel's width (sigma, input px)": (found["sigma_low_px"], widths[0], widths[1] * (1 + LEEWAY)),
        "the signal to noise of the brightest percent": (found["snr"], *domain["snr"]),
        "chi2, of an image of this brightness,": (found["chi2"], *domain["chi2"][at]),
    }
    for words, (value, low, high) in ranges.items():
        if not low <= value <= high:
            return f"{words} is {value:.3g}, outside the calibration's {low:.3g} to {high:.3g}"
    noise, least = found["noise"], domain["noise"]
    if not (least <= noise <= NOISE_GAP[0] or noise > NOISE_GAP[1]):
        return f"where the frame is quiet its noise is {noise:.2g} times the stated one"
    return None


def mask(
    calibration: Mapping[str, Any] | None, restored: RestoredPlane, observation: Observation
) -> tuple[NDArray[np.uint8] | None, str | None]:
    """TRUST of one plane, (Y, X), 1 trusted and 0 not; or None and the reason.

    Parameters
    ----------
    calibration : the entry ``trust`` of the model's card.
    restored : one plane, (Y, X).
    observation : what it was restored from, in memory.
    """
    why = refusal(calibration, facts(observation, restored.chi2))
    if why is not None or calibration is None:
        return None, why
    found = trusted_pixels(score(restored, observation), float(calibration["threshold"]))
    laplace, above = (float(p[found].sum(dtype=float)) for p in fineness(restored.mean, observation.scale))
    if why := blunt(calibration, {"laplace": laplace, "contrast": above, "kept": float(found.sum())}):
        return None, why
    return found.astype(np.uint8), None


def blunt(calibration: Mapping[str, Any], sums: Mapping[str, float]) -> str | None:
    """Why the kept structure is not as fine as would vouch for the stated PSF; None where it is, or is too little.

    Parameters
    ----------
    sums : ``trusted_pixels`` pixels, and the sums over them of both of `fineness`, ``laplace`` and ``contrast``.
    """
    least = float(calibration["domain"]["sharpness"])
    if sums["kept"] < FEWEST or not sums["contrast"] > 0:
        return None
    sharp = float(np.sqrt(sums["laplace"] / sums["contrast"]))
    if sharp >= least:
        return None
    return f"no structure is as fine (sharpness {sharp:.2g} < {least:.2g}) as would vouch for the stated PSF"


def promise(calibration: Mapping[str, Any]) -> str:
    """What the mask guarantees, in a sentence."""
    percent, sure = 100 * calibration["alpha"], 100 * (1 - calibration["delta"])
    return (
        f"trust: at most {percent:g} % of the trusted structure is off by more than half, in the mean over frames, "
        f"with confidence {sure:g} %; calibrated on {calibration['images']} simulated frames ({calibration['field']})"
    )
