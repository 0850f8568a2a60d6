"""Fidelity to the truth, pixel by pixel: PSNR, SSIM, NRMSE. Every check needs a truth; without one it gives None."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sciresdiff.checks.arrays import Array, Mask
from sciresdiff.checks.check import Check
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.result import Result

WINDOW = 7
"""Side of SSIM's uniform window, px."""


def _pair(evidence: Evidence, part: Mask | None = None) -> tuple[Array, Array, float] | None:
    """Judged pixels of image and truth, and the truth's range; None where there is nothing to compare."""
    part = evidence.good_high if part is None else part
    if evidence.truth is None or not part.any():
        return None
    truth = evidence.truth[part]
    span = evidence.span or float(np.ptp(truth))
    return (evidence.high[part], truth, span) if span > 0 else None


def _span_words(span: float) -> str:
    return f"data range {span:.6g}, the truth's maximum less its minimum"


def psnr(evidence: Evidence) -> list[Result] | None:
    """20 log10(R / rms(x - t)), dB, with R = max(t) - min(t) over the judged pixels; infinite for the truth itself.

    Where pixels are masked, also for those that are 6 px clear of them (region ``clear``): saturated stars have most of
    the squared error in their surroundings. **One bright, badly restored star outweighs all the sky; against a noisy
    truth there is a ceiling.**
    """
    regions = {"all": evidence.good_high} | ({} if evidence.valid_high.all() else {"clear": evidence.clear_of_mask})
    pairs = {region: _pair(evidence, part) for region, part in regions.items()}
    return [_psnr(region, *pair) for region, pair in pairs.items() if pair is not None] or None


def _psnr(region: str, image: Array, truth: Array, span: float) -> Result:
    """PSNR of the pixels (n,) of a region."""
    return Result("psnr", _decibel(span, np.mean((image - truth) ** 2)), "dB", region, meaning=_span_words(span))


def _decibel(span: float, mean_square: float | np.floating) -> float:
    """10 log10(R^2 / mean square), dB."""
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(span**2 / np.float64(mean_square)))


def ssim(evidence: Evidence) -> Result | None:
    """Mean structural similarity (Wang et al. 2004, IEEE TIP 13, 600; scikit-image, uniform 7 x 7 windows); 1 is best.

    Range as in `psnr`. Masked pixels are replaced by the truth's, and their windows' centres left out of the mean, like
    the 3 px at the border. **Its constants grow with the range: high in dark frames with one bright star, whatever the
    sky looks like; near 0 against a truth with noise.**
    """
    from skimage.metrics import structural_similarity

    pair, edge = _pair(evidence), WINDOW // 2
    if pair is None or evidence.truth is None or min(evidence.high.shape) <= WINDOW:
        return None
    truth = np.where(np.isfinite(evidence.truth), evidence.truth, np.median(pair[1]))
    image = np.where(evidence.valid_high, evidence.high, truth)
    _, every = structural_similarity(truth, image, data_range=pair[2], win_size=WINDOW, full=True)
    inner = slice(edge, -edge), slice(edge, -edge)
    # windows at the border hold reflected pixels
    values = every[inner][evidence.good_high[inner]]
    if not values.size:
        return None
    return Result("ssim", float(values.mean()), "", "all", meaning=_span_words(pair[2]), weight=values.size)


def si_psnr(evidence: Evidence) -> list[Result] | None:
    """PSNR after the best gain and offset, and these two.

    a = <t - mean t, x - mean x> / <x - mean x, x - mean x>, b = mean t - a mean x; the PSNR is that of a x + b, dB
    (Weigert et al. 2018, Nature Methods 15, 1090). **The first figure is blind to photometric error; a should be 1 and
    b should be 0.** b is in the image's unit.
    """
    if (pair := _pair(evidence)) is None:
        return None
    image, truth, span = pair
    power = float(np.mean((image - image.mean()) ** 2))
    if power == 0:
        return None
    gain = float(np.mean((image - image.mean()) * (truth - truth.mean())) / power)
    offset = float(truth.mean() - gain * image.mean())
    return _si_results(_decibel(span, np.mean((gain * image + offset - truth) ** 2)), gain, offset, span)


def _si_results(value: float, gain: float, offset: float, span: float) -> list[Result]:
    """The three results of `si_psnr`."""
    return [
        Result("si_psnr", value, "dB", "all", meaning=f"after the best gain and offset; {_span_words(span)}"),
        Result("si_gain", gain, "", "all", meaning="what the image has to be multiplied by; 1 is photometric"),
        Result("si_offset", offset, "image unit", "all", meaning="what has to be added after that; 0 is photometric"),
    ]


def nrmse(evidence: Evidence) -> Result | None:
    """rms(x - t) / rms(t - mean t): 0 is best, 1 is what a flat image has.

    **Dominated by the brightest sources, as `psnr` is.**
    """
    if (pair := _pair(evidence)) is None:
        return None
    image, truth, _ = pair
    return _nrmse(float(np.sqrt(np.mean((image - truth) ** 2))), float(truth.std()))


def _nrmse(error: float, scatter: float) -> Result:
    return Result("nrmse", error / scatter, "", "all", meaning="rms error over the truth's standard deviation")


def pair_sums(evidence: Evidence) -> dict[str, dict[str, float]]:
    """Measure counts, means, central moments and the truth's ends, by region: `psnr`, `si_psnr` and `nrmse` in sums.

    Parts of a frame add by `add_moments`.
    """
    if evidence.truth is None:
        return {}
    regions = {"all": evidence.good_high, "clear": evidence.clear_of_mask}
    return {name: _moments(evidence.high[part], evidence.truth[part]) for name, part in regions.items() if part.any()}


def _moments(image: Array, truth: Array) -> dict[str, float]:
    """Moments of pixels (n,) about their means, so that parts add without loss of digits."""
    dx, dt = image - image.mean(), truth - truth.mean()
    return {
        "n": float(image.size),
        "image": float(image.mean()),
        "truth": float(truth.mean()),
        "image2": float((dx**2).sum()),
        "truth2": float((dt**2).sum()),
        "both": float((dx * dt).sum()),
        "error2": float(((image - truth) ** 2).sum()),
        "low": float(truth.min()),
        "high": float(truth.max()),
    }


def add_moments(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    """Add the moments of two parts (Chan et al. 1979, Stanford STAN-CS-79-773, equation 2.1)."""
    n = a["n"] + b["n"]
    dx, dt, share = b["image"] - a["image"], b["truth"] - a["truth"], a["n"] * b["n"] / n
    return {
        "n": n,
        "image": a["image"] + dx * b["n"] / n,
        "truth": a["truth"] + dt * b["n"] / n,
        "image2": a["image2"] + b["image2"] + dx**2 * share,
        "truth2": a["truth2"] + b["truth2"] + dt**2 * share,
        "both": a["both"] + b["both"] + dx * dt * share,
        "error2": a["error2"] + b["error2"],
        "low": min(a["low"], b["low"]),
        "high": max(a["high"], b["high"]),
    }


def results_of_moments(region: str, m: Mapping[str, float]) -> list[Result]:
    """Make `psnr`, and for all pixels `si_psnr` and `nrmse`, out of moments."""
    span, n = m["high"] - m["low"], m["n"]
    if not span > 0:
        return []
    results = [Result("psnr", _decibel(span, m["error2"] / n), "dB", region, meaning=_span_words(span))]
    if region != "all":
        return results
    if m["image2"] > 0:
        gain = m["both"] / m["image2"]
        # sum (a x + b - t)^2 of the best a and b is the truth's variation less what the image explains
        rest = max(m["truth2"] - gain * m["both"], 0.0) / n
        results += _si_results(_decibel(span, rest), gain, m["truth"] - gain * m["image"], span)
    return [*results, _nrmse(float(np.sqrt(m["error2"] / n)), float(np.sqrt(m["truth2"] / n)))]


CHECKS = {
    "psnr": Check(
        psnr,
        "Range of the truth over the rms error, in dB; 3 dB more is half the squared error.",
        "Faint structure: one bright star restored badly outweighs all the sky.",
        ("truth",),
    ),
    "ssim": Check(
        ssim,
        "How alike image and truth look in small windows; 1 is identical.",
        "Photometric scale in dark frames, and anything against a truth with noise.",
        ("truth",),
    ),
    "si_psnr": Check(
        si_psnr,
        "PSNR after the best gain and offset; the gain should be 1 and the offset 0.",
        "The PSNR is blind to a wrong photometric scale; the gain and the offset beside it are not.",
        ("truth",),
        ("si_psnr", "si_gain", "si_offset"),
    ),
    "nrmse": Check(
        nrmse,
        "RMS error over the truth's standard deviation; 0 is best, a flat image has 1.",
        "Everything but the brightest sources.",
        ("truth",),
    ),
}
