"""The whole of a large frame, small, with the pieces that it was judged in."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from sciresdiff.checks.arrays import Array
from sciresdiff.checks.evidence import Evidence
from sciresdiff.report.images import data_uri, intensity

SIDE = 768
"""Longer side of the picture, at most."""


@dataclass(frozen=True, eq=False)
class Overview:
    """A frame, thinned, and where its pieces lie."""

    image: Array
    """Means of n x n pixels; NaN where nothing is judged."""
    n: int
    shape: tuple[int, int]
    """(Y, X) of the frame."""
    cores: tuple[tuple[int, int, int, int], ...]
    """y0, y1, x0, x1 of every piece, fine px."""
    shown: int
    """The piece that pictures and charts show."""
    place: str
    """Where that lies, in words."""


def section(view: Overview, evidence: Evidence) -> str:
    """The heading with the picture; ``evidence`` is that of the piece shown, whose stretch it has."""
    height, width = view.shape
    flip = evidence.kind == "astro"  # the first row at the bottom, as in FITS viewers
    boxes = "".join(
        f'<rect x="{x0}" y="{height - y1 if flip else y0}" width="{x1 - x0}" height="{y1 - y0}" fill="none" '
        f'stroke="{"#ff9500" if k == view.shown else "#8888"}" stroke-width="{max(height, width) / 300:.4g}"/>'
        for k, (y0, y1, x0, x1) in enumerate(view.cores)
    )
    rows, columns = view.image.shape
    top = height - rows * view.n if flip else 0  # the last thinned row may reach beyond the frame
    picture = data_uri(view.image, intensity(evidence), "asinh", flip)
    words = (
        f"Judged in {len(view.cores)} pieces; the figures are of all of them, and say how they are pooled. Pictures "
        f"and charts show the piece from {view.place}, the one farthest from the data, with its surroundings grey."
    )
    thin = f"each pixel is the mean of {view.n} × {view.n}"
    return (
        f'<section class="overview"><h2>The whole frame <small>{thin}</small></h2>'
        f"<p>{escape(words)}</p>"
        f'<svg viewBox="0 0 {width} {height}" style="max-width:{SIDE}px;width:100%" role="img" '
        f'aria-label="the whole frame with its pieces"><image href="{picture}" x="0" y="{top}" '
        f'width="{columns * view.n}" height="{rows * view.n}"/>{boxes}</svg></section>'
    )
