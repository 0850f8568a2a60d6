"""A science frame: raw pixel values and the physics that belongs to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.notes import Notes

Quantity = Literal["sum", "mean"]
Kind = Literal["astro", "micro"]


@dataclass(frozen=True)
class PixelSize:
    """The side of a pixel, along y and x."""

    y: float
    x: float
    unit: Literal["arcsec", "um"]

    def finer(self, scale: float) -> PixelSize:
        """The pixel size of a grid that is ``scale`` times finer."""
        return PixelSize(self.y / scale, self.x / scale, self.unit)


@dataclass(frozen=True)
class Frame:
    """One image, or a stack of planes that share a header.

    Nothing here is normalised: pixels are the file's own values, in the file's own unit.
    """

    pixels: NDArray[np.float32]
    """Values, shape (planes, Y, X), native byte order; NaN where the file has none."""
    mask: NDArray[np.bool_]
    """True where a pixel carries no information, same shape."""
    kind: Kind
    """``astro`` for FITS, ``micro`` for TIFF, unless the file says otherwise."""
    variance: NDArray[np.floating[Any]] | None = None
    """Variance of each pixel in unit**2, same shape, float64 from a file; None where the file does not say."""
    saturated: NDArray[np.bool_] | None = None
    """True where a pixel is at the detector's limit (always part of ``mask`` too)."""
    dq: NDArray[np.int32] | None = None
    """Data-quality bits as the file has them, same shape."""
    quantity: Quantity | None = None
    """``sum``: blocks of pixels add up; ``mean``: they average; None: not stated."""
    unit: str | None = None
    pixel_size: PixelSize | None = None
    psf: str | None = None
    """SPEC of the whole PSF, where the file states one."""
    kernel: NDArray[np.float64] | str | None = None
    """Blur between the wanted image and this one, on the fine grid (array or SPEC), as ``degrade`` writes it."""
    kernel_scale: int | None = None
    """The scale that ``kernel`` belongs to."""
    facts: Mapping[str, float] = field(default_factory=dict)
    """Detector facts read from the file, by the option's name: gain, read_noise, offset, saturation, exposure,
    fwhm (px), na, wavelength (nm), scale (of the output that the file is), psf_known ..."""
    axes: str = "YX"
    """Axis letters of the file's array, for instance ``TCYX``."""
    shape: tuple[int, ...] = ()
    """Shape of the file's array, in the order of ``axes``."""
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype("f4"))
    """Type that the file's array has on disk (after BZERO/BSCALE)."""
    header: Any = None
    """What the writer needs to carry the file's metadata over; opaque to everyone but its format."""
    notes: Notes = field(default_factory=Notes)
    """Assumptions made while reading, one line each, for the user."""

    def __post_init__(self) -> None:
        """Refuse planes that do not fit each other."""
        for name in ("mask", "variance", "saturated", "dq"):
            value = getattr(self, name)
            if value is not None and value.shape != self.pixels.shape:
                raise InputError(f"{name}: shape {value.shape} does not fit the image's {self.pixels.shape}")

    @property
    def planes(self) -> int:
        """How many YX planes there are."""
        return self.pixels.shape[0]

    def quantity_or_usual(self, stated: Quantity | None = None) -> tuple[Quantity, Notes]:
        """The quantity and a note where it was assumed: ``stated``, else the file's, else by the frame's kind.

        Without either it is ``sum`` for astronomy (counts) and ``mean`` for microscopy (camera intensity).
        """
        if known := stated or self.quantity:
            return known, Notes()
        usual: Quantity = "sum" if self.kind == "astro" else "mean"
        does = "add up" if usual == "sum" else "average"
        return usual, Notes(f"quantity: assumed {usual} (pixels {does}); --quantity states it")

    def with_(self, **changes: Any) -> Frame:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def with_notes(self, notes: Notes) -> Frame:
        """A copy with more assumptions noted."""
        return replace(self, notes=self.notes + notes)

    def __iter__(self) -> Iterator[Frame]:
        """The planes, one by one, as frames of one plane each."""
        for i in range(self.planes):
            cut: dict[str, Any] = {
                name: None if getattr(self, name) is None else getattr(self, name)[i : i + 1]
                for name in ("pixels", "mask", "variance", "saturated", "dq")
            }
            yield replace(self, **cut)
