"""The images of a report: which there are, their stretch, and their pixels as PNG."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks import UnmeasuredError, squirrel
from sciresdiff.checks.arrays import Array, Mask
from sciresdiff.checks.baselines import bicubic_image
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.residual import residual_map
from sciresdiff.region import Region

Stretch = Literal["asinh", "signed", "error", "share"]
Colours = NDArray[np.uint8]

LEVELS = 64
"""Shades of a picture; more cannot be told apart in noise, which takes most of a page's bytes."""
GREY = (128, 128, 128)
"""Colour of masked pixels."""
MAPS: dict[Stretch, str] = {"asinh": "gray", "signed": "RdBu_r", "error": "magma", "share": "viridis"}
"""Stretch -> matplotlib's name of its colours."""


@dataclass(frozen=True)
class Plate:
    """One image of a report, with its unit and stretch."""

    title: str
    image: NDArray[Any] | None
    """(Y, X) or (h, w), NaN where nothing is judged; None where it is not known."""
    unit: str
    stretch: Stretch = "asinh"
    """``asinh``, ``signed`` (asinh about 0), ``error`` (asinh from 0) or ``share`` (0 to 1)."""
    words: str = ""
    """What it shows, one sentence."""


@dataclass(frozen=True)
class Norm:
    """Map values to shades: asinh((v - zero) / width) between two ends, linear where ``width`` is None.

    The asinh stretch of Lupton et al. 1999, AJ 118, 1406: linear near zero, logarithmic far from it.
    """

    low: float
    high: float
    zero: float = 0.0
    width: float | None = None

    def forward(self, values: Any) -> Any:
        """Stretch values."""
        return values if self.width is None else np.arcsinh((values - self.zero) / self.width)

    def inverse(self, stretched: Any) -> Any:
        """Undo the stretch."""
        return stretched if self.width is None else self.zero + self.width * np.sinh(stretched)

    def to_unit(self, values: Array) -> Array:
        """Map values (h, w) to 0 at the low end and 1 at the high end, **clipped there**; NaN stays."""
        low, high = self.forward(self.low), self.forward(self.high)
        return np.asarray(np.clip((self.forward(values) - low) / (high - low), 0, 1))

    @property
    def middle(self) -> float:
        """Value halfway between the shades of the ends."""
        return float(self.inverse((self.forward(self.low) + self.forward(self.high)) / 2))


def plates(evidence: Evidence, unit: str) -> list[Plate]:
    """List the images of a report in their order; those that are not known have no ``image``."""
    shown = np.where(evidence.good_high, evidence.high, np.nan)
    per_px = f"{unit} / px"
    sharp = evidence.shared.get("richardson-lucy")
    return [
        Plate("input", _mask(evidence.low, evidence.mask_low), f"{unit} / input px", words="The data, pixel by pixel."),
        Plate("output", shown, per_px, words="The image that is judged."),
        Plate(
            "bicubic",
            None if evidence.low is None else bicubic_image(evidence),
            per_px,
            words="The data, interpolated.",
        ),
        Plate("Richardson-Lucy", sharp, per_px, words="The classical deconvolution with the same kernel."),
        Plate("truth", evidence.truth, per_px, words="What the image should be."),
        difference(evidence, shown, unit),
        Plate(
            "residual",
            residual_map(evidence),
            "sigma; red: light is missing",
            "signed",
            "Data less the image, measured again.",
        ),
        Plate(
            "error map",
            error_map(evidence),
            "sigma, smoothed; red: too much light",
            "signed",
            "Where the image differs most from the data.",
        ),
        Plate("ERR", evidence.err, per_px, "error", "The error that is claimed."),
        Plate("SUPPORT", evidence.support, "share that the data fix", "share", "Bright: measured. Dark: supplied."),
        Plate("TRUST", evidence.trust, "1 is trusted", "share", "Where the image is to be trusted."),
    ]


def _mask(plane: Array | None, mask: Mask | None) -> Array | None:
    """NaN in masked pixels."""
    return plane if plane is None or mask is None else np.where(mask, np.nan, plane)


def difference(evidence: Evidence, shown: Array, unit: str) -> Plate:
    """Make the plate of output less truth; without a truth, of output less bicubic.

    Parameters
    ----------
    evidence : one plane.
    shown : (Y, X), the image, NaN where nothing is judged.
    unit : of the pixels' values.
    """
    if evidence.truth is not None:
        return Plate(
            "output - truth", shown - evidence.truth, f"{unit} / px", "signed", "Red: too bright. Blue: too faint."
        )
    other = None if evidence.low is None else shown - bicubic_image(evidence)
    return Plate("output - bicubic", other, f"{unit} / px", "signed", "What was added to interpolation.")


def error_map(evidence: Evidence) -> Array | None:
    """Compute SQUIRREL's map of excess (above 0) and lack of light, smoothed, in sigmas (`squirrel.error_map`).

    Returns
    -------
    (h, w), or (Y, X) without an operator; NaN where nothing is judged, None where it cannot be computed.
    """
    if evidence.low is None:
        return None
    try:
        found = squirrel.error_map(evidence)
    except UnmeasuredError:
        return None
    return np.where(found.good, found.sigmas, np.nan)


def shared_norm(evidence: Evidence) -> Norm:
    """Make the norm of input, output, truth and baselines, per fine pixel.

    From the 0.5th to the 99.95th percentile of the truth (else the image), so that one hot pixel does not darken all
    others; linear below 3 sigma of the sky, which is the scatter below the median.
    """
    reference = evidence.truth if evidence.truth is not None else evidence.high
    values = reference[evidence.good_high & np.isfinite(reference)]
    if not values.size:
        return Norm(0.0, 1.0)
    low, high = (float(end) for end in np.percentile(values, (0.5, 99.95)))
    high = high if high > low else low + 1
    dark = values[values <= np.median(values)]
    scatter = float(np.sqrt(np.mean((dark - dark.max()) ** 2)))
    return Norm(low, high, low, max(3 * scatter, (high - low) * 1e-6))


def norm_of(plate: Plate, shared: Norm, evidence: Evidence) -> Norm:
    """Choose the norm of a plate: errors and differences have one of their own.

    Parameters
    ----------
    plate : with an image.
    shared : `shared_norm`, per fine pixel.
    evidence : for the area of a coarse pixel.
    """
    if plate.stretch == "share":
        return Norm(0.0, 1.0)
    if plate.stretch == "asinh":
        area = evidence.scale**2 if plate.title == "input" and evidence.quantity == "sum" else 1
        width = None if shared.width is None else shared.width * area
        return Norm(shared.low * area, shared.high * area, shared.zero * area, width)
    size = np.abs(np.asarray(plate.image, float))
    size = size[np.isfinite(size)]
    top = float(np.percentile(size, 99.9)) or 1.0
    width = 3 * (float(np.median(size)) or top)
    return Norm(-top if plate.stretch == "signed" else 0.0, top, 0.0, width)


def shrink(image: NDArray[Any], side: int) -> tuple[Array, int]:
    """Rebin an image (h, w) so that its longer side has at most ``side`` pixels.

    Returns
    -------
    (ceil(h / n), ceil(w / n)) means of n x n pixels, NaN left out, and n.
    """
    n = max(1, -(-max(image.shape) // side))
    plane = np.asarray(image, float)
    return (plane, 1) if n == 1 else (block_means(plane, n), n)


def block_means(plane: NDArray[np.floating[Any]], n: int) -> Array:
    """Average a plane (h, w) over n x n pixels, NaN left out: (ceil(h / n), ceil(w / n)); NaN where nothing else is."""
    padded = np.pad(plane, [(0, -size % n) for size in plane.shape], constant_values=np.nan)
    cells = padded.reshape(padded.shape[0] // n, n, padded.shape[1] // n, n)
    count = np.isfinite(cells).sum((1, 3))
    total = np.where(np.isfinite(cells), cells, 0).sum((1, 3))
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def palette(stretch: Stretch) -> Colours:
    """Colours of a stretch, and last the grey of masked pixels: (LEVELS + 1, 3) bytes."""
    from matplotlib import colormaps

    colours = colormaps[MAPS[stretch]](np.linspace(0, 1, LEVELS))[:, :3]
    return np.vstack([np.rint(255 * colours), GREY]).astype(np.uint8)


def data_uri(image: Array, norm: Norm, stretch: Stretch, flip: bool) -> str:
    """Encode a plane as PNG in a ``data:`` address.

    Parameters
    ----------
    image : (h, w), NaN where masked.
    norm : values to shades.
    stretch : whose colours are taken.
    flip : the first row at the bottom, as in FITS viewers.
    """
    unit = norm.to_unit(image)
    index = np.where(np.isfinite(unit), np.rint(np.nan_to_num(unit) * (LEVELS - 1)), LEVELS).astype(np.uint8)
    code = png(index[::-1] if flip else index, palette(stretch))
    return "data:image/png;base64," + base64.b64encode(code).decode("ascii")


def png(index: NDArray[np.uint8], colours: Colours) -> bytes:
    """Encode indices (h, w) into a palette (n, 3) as a PNG file (ISO/IEC 15948: colour type 3, 8 bits, no filter)."""
    height, width = index.shape
    rows = np.zeros((height, width + 1), np.uint8)  # a filter byte 0 before every row
    rows[:, 1:] = index
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = (b"IHDR", head), (b"PLTE", colours.tobytes()), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def close_ups(evidence: Evidence, side: int) -> dict[str, Region]:
    """Choose squares to show at full resolution, fine px: about the largest residual and the brightest source.

    Empty where the frame is hardly larger than the square.
    """
    if max(evidence.high.shape) < 2.5 * side:
        return {}
    makers: dict[str, Callable[[Evidence], tuple[int, int] | None]] = {
        "worst residual": _worst_residual,
        "brightest": _brightest,
    }
    places = {name: make(evidence) for name, make in makers.items()}
    return {name: _square(place, evidence, side) for name, place in places.items() if place is not None}


def _worst_residual(evidence: Evidence) -> tuple[int, int] | None:
    """(y, x) of the largest residual, smoothed by 1 coarse px; fine px."""
    from scipy.ndimage import gaussian_filter

    found = residual_map(evidence)
    if found is None or not np.isfinite(found).any():
        return None
    y, x = np.unravel_index(np.argmax(np.abs(gaussian_filter(np.nan_to_num(found), 1.0))), found.shape)
    return int(y) * evidence.scale, int(x) * evidence.scale


def _brightest(evidence: Evidence) -> tuple[int, int] | None:
    """(y, x) of the brightest source, smoothed by 1.5 fine px; fine px."""
    from scipy.ndimage import gaussian_filter

    if not evidence.good_high.any():
        return None
    smooth = np.where(evidence.good_high, gaussian_filter(evidence.finite_high, 1.5), -np.inf)
    y, x = np.unravel_index(np.argmax(smooth), smooth.shape)
    return int(y), int(x)


def _square(place: tuple[int, int], evidence: Evidence, side: int) -> Region:
    """The square about a place (y, x), of whole coarse pixels, within the frame."""
    s = evidence.scale
    ends: list[int] = []
    for at, size in zip(place, evidence.high.shape, strict=True):
        length = min(side // s * s, size)
        start = min(max(at - length // 2, 0), size - length) // s * s
        ends += [start, start + length]
    return Region(*ends)


def crop(plate: Plate, region: Region | None, evidence: Evidence) -> Array | None:
    """Cut a region out of a plate.

    Parameters
    ----------
    plate : on the fine or the coarse grid.
    region : fine px; None for all of it.
    evidence : for the fine grid.

    Returns
    -------
    (h, w) of the plate's own pixels; None where it has no value in them.
    """
    if plate.image is None:
        return None
    image = np.asarray(plate.image, float)
    if region is not None:
        n = evidence.high.shape[0] // image.shape[0]
        image = image[Region(*(end // n for end in astuple(region))).slices]
    return image if np.isfinite(image).any() else None
