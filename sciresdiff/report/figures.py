"""One picture of a restoration: input, output, truth, error, ERR and SUPPORT."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.evidence import Array, Evidence, Mask
from sciresdiff.io.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

SIDE = 1024
"""Largest side of an image in the picture; larger ones are thinned out to it."""


@dataclass(frozen=True)
class Plate:
    """One image of the panel."""

    title: str
    image: NDArray[Any] | None
    unit: str
    stretch: str = "asinh"
    """``asinh``, ``signed`` (asinh about 0), ``error`` (asinh from 0) or ``share`` (0 to 1)."""


def panel(evidence: Evidence, path: str | Path, unit: str | None, title: str, overwrite: bool = False) -> None:
    """Write the picture as PNG.

    Intensities are stretched by asinh, linear below 3 sigma of the sky, so that sky and bright cores both show; input,
    output and truth share one stretch per unit of area. Masked pixels are grey.

    Parameters
    ----------
    unit : of the pixels' values; None where it is not known.
    title : stands above the picture.

    Raises
    ------
    UsageError : the file exists and ``overwrite`` is off, or cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 9.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    reference = evidence.truth if evidence.truth is not None else evidence.high
    low, high = _ends(reference, evidence.good_high)
    width = max(3 * _scatter(reference, evidence.good_high), (high - low) * 1e-6)
    for axes, plate in zip(figure.subplots(2, 3).flat, plates(evidence, unit or "unit of the file"), strict=True):
        area = evidence.scale**2 if plate.title == "input" and evidence.quantity == "sum" else 1
        _draw(figure, axes, plate, (low * area, high * area, width * area))
    write_whole({Path(path): lambda target: _save(figure, target)}, overwrite=overwrite)


def _save(figure: Figure, target: Path) -> None:
    figure.savefig(target, format="png", dpi=100, metadata={"Software": None})


def plates(evidence: Evidence, unit: str) -> list[Plate]:
    """The six images; None for what there is not."""
    shown = np.where(evidence.good_high, evidence.high, np.nan)
    return [
        Plate("input", evidence.low, f"{unit} / input px"),
        Plate("output", shown, f"{unit} / px"),
        Plate("truth", evidence.truth, f"{unit} / px"),
        _error(evidence, shown, unit),
        Plate("ERR", evidence.err, f"{unit} / px", "error"),
        Plate("SUPPORT", evidence.support, "share that the data fix", "share"),
    ]


def _error(evidence: Evidence, shown: Array, unit: str) -> Plate:
    """Output less truth; without a truth what the data have beyond the re-degraded output, in sigma."""
    if evidence.truth is not None:
        return Plate("error: output - truth", shown - evidence.truth, f"{unit} / px", "signed")
    if evidence.low is None or evidence.redegraded is None or evidence.variance is None:
        return Plate("error", None, "")
    residual = (evidence.low - evidence.redegraded) / np.sqrt(
        np.where(evidence.variance > 0, evidence.variance, np.nan)
    )
    return Plate("residual: input - re-degraded output", residual, "sigma", "signed")


def _draw(figure: Figure, axes: Axes, plate: Plate, intensity: tuple[float, float, float]) -> None:
    axes.set_title(plate.title)
    axes.set_xticks([])
    axes.set_yticks([])
    if plate.image is None or not np.isfinite(plate.image).any():
        axes.text(0.5, 0.5, "not given", ha="center", va="center", transform=axes.transAxes)
        return
    image = thinned(np.asarray(plate.image, float))
    cmap = {"signed": "RdBu_r", "share": "viridis", "error": "magma"}.get(plate.stretch, "gray")
    axes.set_facecolor("0.5")
    drawn = axes.imshow(
        np.ma.masked_invalid(image), norm=_norm(plate.stretch, image, intensity), cmap=cmap, origin="lower"
    )
    figure.colorbar(drawn, ax=axes, label=plate.unit, shrink=0.8)


def thinned(image: Array) -> Array:
    """Every n-th pixel of an image that is larger than the picture."""
    step = max(1, -(-max(image.shape) // SIDE))
    return image[::step, ::step]


def _norm(stretch: str, image: Array, intensity: tuple[float, float, float]) -> Normalize:
    from matplotlib.colors import AsinhNorm, Normalize

    if stretch == "share":
        return Normalize(0, 1)
    if stretch == "asinh":
        low, high, width = intensity
        return AsinhNorm(width, low, high)
    top = float(np.nanpercentile(np.abs(image), 99.9)) or 1.0
    middle = float(np.nanmedian(np.abs(image))) or top
    return AsinhNorm(3 * middle, -top if stretch == "signed" else 0.0, top)


def _ends(image: Array, good: Mask) -> tuple[float, float]:
    """What is drawn black and white."""
    values = image[good & np.isfinite(image)]
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, (0.5, 99.95))
    return float(low), float(high if high > low else low + 1)


def _scatter(image: Array, good: Mask) -> float:
    """Scatter of the darker half about the median."""
    values = image[good & np.isfinite(image)]
    dark = values[values <= np.median(values)] if values.size else values
    return float(np.sqrt(np.mean((dark - dark.max()) ** 2))) if dark.size else 0.0
