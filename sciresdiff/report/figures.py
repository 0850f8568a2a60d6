"""One picture of a restoration as PNG: input, output, truth, error, ERR and SUPPORT."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sciresdiff.checks.evidence import Evidence
from sciresdiff.io.atomic import write_atomic
from sciresdiff.report.images import MAPS, Norm, Plate, norm_of, plates, shared_norm, shrink

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = 1024
"""Largest side of an image in the picture, px; larger ones are rebinned."""
SIX = ("input", "output", "truth", "output - truth", "ERR", "SUPPORT")
"""Titles of the plates; without a truth the residual takes the place of the difference."""


def write_panel(evidence: Evidence, path: str | Path, unit: str | None, title: str, overwrite: bool = False) -> None:
    """Write the picture as PNG.

    Intensities are stretched by asinh, linear below 3 sigma of the sky, so that sky and bright cores both show; input,
    output and truth share one stretch per unit of area. Masked pixels are grey. The first row is at the bottom in
    frames of the sky, at the top in those of a microscope.

    Parameters
    ----------
    evidence : one plane.
    path : file to write.
    unit : of the pixels' values; None where it is not known.
    title : above the picture.
    overwrite : whether a file may be replaced.

    Raises
    ------
    UsageError : the file exists and ``overwrite`` is off, or cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 9.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    shared = shared_norm(evidence)
    for axes, plate in zip(figure.subplots(2, 3).flat, _six(evidence, unit or "unit of the file"), strict=True):
        _draw(figure, axes, plate, shared, evidence)
    write_atomic({Path(path): lambda target: _save(figure, target)}, overwrite=overwrite)


def _six(evidence: Evidence, unit: str) -> list[Plate]:
    """The six plates; those that are not known have no ``image``."""
    found = {plate.title: plate for plate in plates(evidence, unit)}
    return [found.get(title, found["residual"]) for title in SIX]


def _save(figure: Figure, target: Path) -> None:
    """Write the PNG, without the library's version in it: the same picture has the same bytes."""
    figure.savefig(target, format="png", dpi=100, metadata={"Software": None})


def _draw(figure: Figure, axes: Axes, plate: Plate, shared: Norm, evidence: Evidence) -> None:
    """Draw one plate with its colour bar."""
    from matplotlib.colors import FuncNorm

    axes.set_title(plate.title)
    axes.set_xticks([])
    axes.set_yticks([])
    if plate.image is None or not np.isfinite(plate.image).any():
        axes.text(0.5, 0.5, "not given", ha="center", va="center", transform=axes.transAxes)
        return
    norm = norm_of(plate, shared, evidence)
    axes.set_facecolor("0.5")
    drawn = axes.imshow(
        np.ma.masked_invalid(shrink(plate.image, SIDE)[0]),
        norm=FuncNorm((norm.forward, norm.inverse), norm.low, norm.high),
        cmap=MAPS[plate.stretch],
        origin="lower" if evidence.kind == "astro" else "upper",
    )
    figure.colorbar(drawn, ax=axes, label=plate.unit, shrink=0.8)
