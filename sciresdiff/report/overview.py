"""The whole of a large frame, small, with the pieces that it was judged in."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from sciresdiff.checks.arrays import Array
from sciresdiff.checks.evidence import Evidence
from sciresdiff.region import Region
from sciresdiff.report.images import data_uri, shared_norm
from sciresdiff.report.templates import render

SIDE = 768
"""Longer side of the picture, at most."""


@dataclass(frozen=True, eq=False)
class Overview:
    """A frame, rebinned, and its pieces."""

    image: Array
    """Means of n x n pixels; NaN where nothing is judged."""
    n: int
    shape: tuple[int, int]
    """(Y, X) of the frame."""
    cores: tuple[Region, ...]
    """Every piece, fine px."""
    shown: int
    """Index of the piece that pictures and charts show."""
    place: str
    """Its position, in words."""


def overview_section(view: Overview, evidence: Evidence) -> Markup:
    """Make the section with the picture; ``evidence`` is that of the piece shown, whose stretch it has."""
    height, width = view.shape
    flip = evidence.kind == "astro"  # the first row at the bottom, as in FITS viewers
    boxes = [Region(height - box.y1, height - box.y0, box.x0, box.x1) if flip else box for box in view.cores]
    rows, columns = view.image.shape
    return render(
        "overview.html.j2",
        view=view,
        boxes=boxes,
        width=width,
        height=height,
        side=SIDE,
        picture=data_uri(view.image, shared_norm(evidence), "asinh", flip),
        top=height - rows * view.n if flip else 0,  # the last rebinned row may reach beyond the frame
        rows=rows * view.n,
        columns=columns * view.n,
        stroke=f"{max(height, width) / 300:.4g}",
    )
