"""The charts of a report, from the curves of the checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from markupsafe import Markup

from sciresdiff.checks import UnmeasuredError
from sciresdiff.checks.baselines import bicubic_image
from sciresdiff.checks.calibration import calibration_curve, coverage_curve
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.flux import Bin, flux_by_magnitude
from sciresdiff.checks.residual import residual_map
from sciresdiff.checks.resolution import SEVENTH, frc_curve
from sciresdiff.checks.spectrum import HALF, spectra
from sciresdiff.report.svg import Chart, Guide, Series, draw

Maker = Callable[[Evidence], Chart | list[Chart] | None]

CYCLES = "cycles per output pixel"
BAND = (0.0, 0.5)
"""Frequencies from the mean to the finest period, 2 px."""
REACH = 6.0
"""Farthest residual that the histogram shows, sigma."""


def draw_charts(evidence: Evidence) -> dict[str, list[Markup]]:
    """Draw the charts of an image.

    Returns
    -------
    Heading of the report -> charts as HTML; those that cannot be measured on this evidence are left out.
    """
    found: dict[str, list[Markup]] = {}
    for name, (heading, make) in CHARTS.items():
        try:
            made = make(evidence)
        except UnmeasuredError:
            continue
        for chart in made if isinstance(made, list) else [made] if made else []:
            if (drawn := draw(chart)) is not None:
                found.setdefault(heading, []).append(
                    Markup(drawn.replace("<figure ", f'<figure data-chart="{name}" ', 1))
                )
    return found


def residual_histogram(evidence: Evidence) -> Chart | None:
    """Histogram of the residuals (y - A x) / sigma, beside the normal law of noise.

    On a logarithmic scale down to half a pixel per bin, so that wings show; beyond 6 sigma they are counted in words.
    """
    found = residual_map(evidence)
    values = np.empty(0) if found is None else found[np.isfinite(found)]
    if not values.size:
        return None
    edges = np.linspace(-REACH, REACH, 49)
    middle, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    share = np.histogram(values, edges)[0] / (values.size * width)
    normal = np.exp(-(middle**2) / 2) / np.sqrt(2 * np.pi)
    least = 0.5 / (values.size * width)
    beyond = int((np.abs(values) > REACH).sum())
    words = (
        f"{values.size} coarse pixels, {beyond} beyond {REACH:g} sigma. "
        "Narrower than the law: noise was fitted; wider: light is missing."
    )
    series = [
        Series("residual", middle, np.maximum(share, 0.1 * least), "steps", 1),
        Series("normal law", middle, normal, "dashed", 0),
    ]
    return Chart(
        "Residuals against the normal law", "(data − image measured again) / sigma", "share per sigma", series, words,
        y_log=True, y_range=(max(least, 1e-6), 2.0), x_range=(-REACH, REACH),
    )  # fmt: skip


def _images(evidence: Evidence) -> dict[str, tuple[Evidence, int]]:
    """The images that have curves, with their colours: the image, bicubic, and Richardson-Lucy where it was made."""
    found = {"image": (evidence, 1)}
    if evidence.low is not None:
        found["bicubic"] = (evidence.with_image(bicubic_image(evidence)), 2)
    sharp = evidence.shared.get("richardson-lucy")
    if sharp is not None:
        found["Richardson-Lucy"] = (evidence.with_image(sharp), 3)
    return found


def _nyquist(evidence: Evidence) -> tuple[Guide, ...]:
    """Where the grid of the data ends."""
    return (Guide("grid of the data", 0.5 / evidence.scale, "x"),) if evidence.low is not None else ()


def spectral(evidence: Evidence) -> list[Chart]:
    """Power spectra of image, truth and baselines, and their coherence with the truth.

    A vertical line marks the Nyquist frequency of the data, 0.5 / scale cycles per output pixel: power beyond it was
    supplied by the method.
    """
    found = [(name, spectra(one), colour) for name, (one, colour) in _images(evidence).items()]
    series = [Series(name, curve.frequency[1:], curve.image[1:], "line", colour) for name, curve, colour in found]
    true = found[0][1].truth
    if true is not None:
        series.append(Series("truth", found[0][1].frequency[1:], true[1:], "dashed", 0))
    words = "Below the truth: too smooth. Above it, or rising at the right: supplied, or noise."
    power = Chart(
        "Power spectra", CYCLES, "mean power", series, words, y_log=True, guides=_nyquist(evidence), x_range=BAND
    )
    if true is None:
        return [power]
    coherence = [Series(n, c.frequency[1:], c.coherence[1:], "line", k) for n, c, k in found if c.coherence is not None]
    words = "1: the structure is where the truth has it; 0: it has nothing to do with the truth."
    guides = (Guide("a half", HALF), *_nyquist(evidence))
    return [power, Chart("Coherence with the truth", CYCLES, "coherence", coherence, words, guides=guides, x_range=BAND,
                         y_range=(0.0, 1.05))]  # fmt: skip


def ring_correlation(evidence: Evidence) -> Chart | None:
    """Fourier ring correlation with the truth, with its thresholds 1/7 and half a bit; None without a truth.

    Resolution is where the curve first falls below a threshold (`frc_resolution_px`).
    """
    if evidence.truth is None:
        return None
    found = {name: (frc_curve(one), colour) for name, (one, colour) in _images(evidence).items()}
    series = [Series(name, c.frequency[1:], c.correlation[1:], "line", colour) for name, (c, colour) in found.items()]
    own = found["image"][0]
    series.append(Series("half-bit threshold", own.frequency[1:], own.half_bit[1:], "dashed", 0))
    words = "Where a curve falls below a threshold, agreement with the truth ends."
    guides = (Guide("1/7", SEVENTH), *_nyquist(evidence))
    return Chart("Fourier ring correlation", CYCLES, "correlation", series, words, guides=guides, x_range=BAND,
                 y_range=(-0.1, 1.05))  # fmt: skip


def flux_bias(evidence: Evidence) -> Chart | None:
    """Flux errors of the sources against their true magnitude: single sources, and medians by magnitude.

    In magnitudes, above 0 too faint; the axis covers 98 % of the errors. None without a truth.
    """
    if evidence.truth is None:
        return None
    found = [(name, flux_by_magnitude(one), colour) for name, (one, colour) in _images(evidence).items()]
    own = found[0][1]
    series = [_medians(name, one.bins, colour) for name, one, colour in found]
    series.append(Series("single sources", own.magnitude, own.delta, "dots", 6))
    top = float(np.clip(1.3 * np.percentile(np.abs(own.delta), 98), 0.05, 1.5))
    words = f"Above 0: light was lost. Medians and scatter by magnitude, bright sources on the left; {own.matching}."
    names = "magnitudes below the brightest source", "too faint by, mag"
    guides = (Guide("right", 0.0),)
    return Chart("Flux error against magnitude", *names, series, words, guides=guides, y_range=(-top, top))


def _medians(name: str, bins: Sequence[Bin], colour: int) -> Series:
    """Medians at the centres of their bins; the scatter is drawn for the image only."""
    middle = [(one.low + one.high) / 2 for one in bins]
    spread = [one.scatter for one in bins] if name == "image" else None
    return Series(name, middle, [one.median for one in bins], "line", colour, spread)


def claimed_errors(evidence: Evidence) -> Chart | None:
    """Actual errors (RMSE) against claimed errors (RMV), in bins of ERR; None without ERR or truth.

    The calibration curve of Levi et al. 2022 (Sensors 22, 5540): on the diagonal where errors are calibrated.
    """
    if evidence.err is None or evidence.truth is None:
        return None
    curve = calibration_curve(evidence)
    both = np.concatenate([curve.rmv, curve.rmse])
    ends = np.array([both[both > 0].min(), both.max()]) if (both > 0).any() else np.array([1.0, 1.0])
    series = [Series("pixels of like ERR", curve.rmv, curve.rmse, "dots", 1), Series("right", ends, ends, "dashed", 0)]
    words = "Above the line: the errors are larger than ERR says. Each dot has as many pixels as the others."
    names = "claimed: root mean ERR²", "made: root mean square error"
    return Chart("Errors made against errors claimed", *names, series, words, x_log=True, y_log=True)


def coverage(evidence: Evidence) -> Chart | None:
    """Coverage by signal to noise: the share of pixels whose truth is within 1 and 1.645 ERR; None without either.

    Calibrated normal errors have 0.68 and 0.90 everywhere; ERR that is right on average may be too large on sky and too
    small on sources.
    """
    if evidence.err is None or evidence.truth is None:
        return None
    curve = coverage_curve(evidence)
    series = [
        Series("within 1 ERR", curve.snr, curve.share_68, "line", 1),
        Series("within 1.645 ERR", curve.snr, curve.share_90, "line", 2),
    ]
    words = "On the dashed lines the errors are right; below them they are too small."
    guides = (Guide("68 %", 0.683), Guide("90 %", 0.9))
    return Chart("Coverage by signal to noise", "|image − background| / ERR", "share of pixels with the truth inside",
                 series, words, x_log=True, guides=guides, y_range=(0.0, 1.05))  # fmt: skip


CHARTS: dict[str, tuple[str, Maker]] = {
    "flux_bias": ("Flux", flux_bias),
    "residual_histogram": ("Agreement with the data", residual_histogram),
    "spectral": ("Resolution", spectral),
    "ring_correlation": ("Resolution", ring_correlation),
    "claimed_errors": ("Uncertainty", claimed_errors),
    "coverage": ("Uncertainty", coverage),
}
"""Name -> heading of the report, and the function that makes the charts; None where there is none to draw."""
