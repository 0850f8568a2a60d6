"""The charts of a report: curves of the checks, drawn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sciresdiff.checks import UnmeasuredError
from sciresdiff.checks.evidence import Evidence
from sciresdiff.report import images
from sciresdiff.report.svg import Chart, Series, draw

REACH = 6.0
"""Farthest residual that the histogram shows, sigma."""


def charts_of(evidence: Evidence) -> dict[str, list[str]]:
    """Heading of the report -> charts as HTML; those that cannot be measured on this evidence are left out."""
    found: dict[str, list[str]] = {}
    for name, (heading, make) in CHARTS.items():
        try:
            drawn = draw(chart) if (chart := make(evidence)) is not None else None
        except UnmeasuredError:
            continue
        if drawn is not None:
            found.setdefault(heading, []).append(drawn.replace("<figure ", f'<figure data-chart="{name}" ', 1))
    return found


def residual_histogram(evidence: Evidence) -> Chart | None:
    """How the residuals are distributed, beside the normal law that noise has."""
    found = images.residual(evidence)
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
        Series("residual", middle, np.where(share > 0, share, np.nan), "steps", 1),
        Series("normal law", middle, normal, "dashed", 0),
    ]
    return Chart(
        "Residuals against the normal law", "(data − image measured again) / sigma", "share per sigma", series, words,
        y_log=True, y_range=(max(least, 1e-6), 2.0), x_range=(-REACH, REACH),
    )  # fmt: skip


CHARTS: dict[str, tuple[str, Callable[[Evidence], Chart | None]]] = {
    "residual_histogram": ("Agreement with the data", residual_histogram),
}
"""Name -> heading that the chart stands under, and the function that makes it; None where there is nothing to draw."""
