"""A science frame: pixel values as the file has them, and the physics that belongs to them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.notes import Notes
from sciresdiff.units import astropy_text, find_nonlinear

if TYPE_CHECKING:
    from astropy.nddata import CCDData

Quantity = Literal["sum", "mean"]
Kind = Literal["astro", "micro"]
PLANES = ("pixels", "mask", "variance", "saturated", "dq", "flags")
"""The arrays of a frame, each of shape (planes, Y, X)."""

LOOKUP_CARDS = re.compile(r"CPDIS\d|CQDIS\d|D2IMDIS\d|D2IM\d|DP\d|DQ\d|AXISCORR")
"""Cards that point to distortion tables in other HDUs, without which astropy refuses the header."""


@dataclass(frozen=True)
class PixelSize:
    """Sides of a pixel along y and x."""

    y: float
    x: float
    unit: Literal["arcsec", "um"]

    def refine(self, scale: float) -> PixelSize:
        """Return the pixel size of another grid.

        Parameters
        ----------
        scale : float
            New pixels per old pixel along each axis; below 1 for binning.
        """
        return PixelSize(self.y / scale, self.x / scale, self.unit)


@dataclass(frozen=True)
class Frame:
    """One image, or a stack of planes that share a header.

    Nothing is normalised: pixels have the file's own values, in the file's own unit.
    """

    pixels: NDArray[np.float32]
    """(planes, Y, X), native byte order; NaN where the file has no value."""
    mask: NDArray[np.bool_]
    """(planes, Y, X), True where a pixel carries no information."""
    kind: Kind
    """``astro`` (FITS) or ``micro`` (TIFF), unless the file says otherwise."""
    variance: NDArray[np.floating[Any]] | None = None
    """(planes, Y, X) in unit**2, float64 from a file; None where the file has none."""
    saturated: NDArray[np.bool_] | None = None
    """(planes, Y, X), True where a pixel is at the detector's limit; these are part of ``mask`` too."""
    dq: NDArray[np.int32] | None = None
    """(planes, Y, X), data-quality bits as the file has them."""
    flags: NDArray[np.int32] | None = None
    """(planes, Y, X), bits of `io.quality_bits`: why a pixel is no data, as its values show; None: not looked for."""
    quantity: Quantity | None = None
    """``sum``: values of a block of pixels add up (counts); ``mean``: they average (surface brightness); None:
    unknown"""
    unit: str | None = None
    pixel_size: PixelSize | None = None
    psf: str | tuple[str, ...] | None = None
    """SPEC of the total PSF, where the file states one, an image of it as ``FILE[EXT]``; or one for each plane."""
    kernel: NDArray[np.float64] | str | None = None
    """(k, k) blur between the wanted image and this one on the fine grid, or its SPEC, as ``degrade`` writes it."""
    kernel_scale: int | None = None
    """The scale that ``kernel`` belongs to."""
    facts: Mapping[str, float] = field(default_factory=dict)
    """Detector and optics by the option's name: gain (electrons per unit), read_noise (electrons), offset, saturation,
    exposure (s), fwhm (px), softening (of an asinh scale), na,
    wavelength (nm), scale and psf_known (of a file that this program wrote) ...
    """
    axes: str = "YX"
    """Axis letters of the file's array, ``TCYX`` for instance."""
    shape: tuple[int, ...] = ()
    """Shape of the file's array, in the order of ``axes``."""
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype("f4"))
    """Type of the file's array after BZERO and BSCALE."""
    header: Any = None
    """Metadata that the writer copies to the output; only the format that read them knows their form."""
    notes: Notes = field(default_factory=Notes)
    """Assumptions made while reading."""

    def __post_init__(self) -> None:
        """Refuse arrays of different shapes."""
        for name in PLANES[1:]:
            value = getattr(self, name)
            if value is not None and value.shape != self.pixels.shape:
                raise InputError(f"{name}: shape {value.shape} does not fit the image's {self.pixels.shape}")

    @property
    def planes(self) -> int:
        """Number of YX planes."""
        return self.pixels.shape[0]

    def quantity_or_usual(self, stated: Quantity | None = None) -> tuple[Quantity, Notes]:
        """Return ``sum`` or ``mean``: ``stated``, else the file's own, else the usual one of the frame's kind.

        Returns
        -------
        quantity : {"sum", "mean"}
            Where nobody states it, ``sum`` for astronomy (counts) and ``mean`` for microscopy (camera intensity).
        notes : Notes
            Says so where it was assumed.

        Raises
        ------
        InputError
            As `refuse_nonlinear`.
        """
        self.refuse_nonlinear()
        if known := stated or self.quantity:
            return known, Notes()
        usual: Quantity = "sum" if self.kind == "astro" else "mean"
        does = "add up" if usual == "sum" else "average"
        return usual, Notes(f"quantity: assumed {usual} (pixels {does}); --quantity states it")

    def refuse_nonlinear(self) -> None:
        """Refuse values of which blocks neither add up nor average as light does.

        Raises
        ------
        InputError
            Magnitudes, logarithms, or values on an asinh scale.
        """
        if word := find_nonlinear(self.unit):
            raise InputError(
                f"unit: {self.unit!r} is not linear in light ({word}): blocks of such values neither add up nor "
                "average; convert them first, for instance to 10**(-0.4 mag), and their noise as well"
            )
        if softening := self.facts.get("softening"):
            raise InputError(
                f"unit: BSOFTEN={softening:g} says that values are on an asinh scale, not linear in light; convert "
                "them first to BOFFSET + 2 BSOFTEN sinh(value / 1.0857), or delete the card if that is done"
            )

    def with_(self, **changes: Any) -> Frame:
        """Return a copy with some fields changed."""
        return replace(self, **changes)

    def with_notes(self, notes: Notes) -> Frame:
        """Return a copy with more notes."""
        return replace(self, notes=self.notes + notes)

    def to_ccddata(self, plane: int | None = None) -> CCDData:
        """Return one plane as an astropy `CCDData`.

        Parameters
        ----------
        plane : int, optional
            Number of the plane, from 0; needed where the frame has several.

        Returns
        -------
        astropy.nddata.CCDData
            (h, w), with unit, mask, a `VarianceUncertainty` where the frame has a variance, the data-quality plane as
            ``flags``, and the header and celestial WCS of a frame that was read from FITS. Without a unit it is
            dimensionless. **Distortions in lookup tables (CPDIS, D2IM) are not in the WCS**: they are in other HDUs.

        Raises
        ------
        InputError
            Several planes and no number, no plane of that number, or a unit that astropy does not know.
        """
        from astropy.nddata import CCDData, VarianceUncertainty  # takes a second to import

        number, unit = self._plane_number(plane), self.astropy_unit
        arrays = {name: None if getattr(self, name) is None else getattr(self, name)[number] for name in PLANES}
        header, variance = getattr(self.header, "image", None), arrays["variance"]
        return CCDData(
            arrays["pixels"],
            unit=unit,
            mask=arrays["mask"],
            flags=arrays["dq"],
            uncertainty=None if variance is None else VarianceUncertainty(variance, unit=unit**2),
            wcs=None if header is None else _celestial_wcs(header),
            meta=None if header is None else header.copy(),
        )

    def _plane_number(self, plane: int | None) -> int:
        if plane is None and self.planes > 1:
            raise InputError(
                f"plane: the frame has {self.planes} (axes {self.axes}), and CCDData holds one; give to_ccddata a "
                f"number from 0 to {self.planes - 1}, or make a list: [one.to_ccddata() for one in frame]"
            )
        if not 0 <= (plane or 0) < self.planes:
            raise InputError(f"plane: {plane} is given, but the frame has {self.planes}, counted from 0")
        return plane or 0

    @property
    def astropy_unit(self) -> Any:
        """The unit as astropy's; dimensionless where the frame has none.

        Raises
        ------
        InputError
            A unit that astropy does not know.
        """
        from astropy import units

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # several slashes, which half of all headers have
                return units.Unit(astropy_text(self.unit or ""))
        except ValueError as error:
            raise InputError(
                f"unit: astropy does not know {self.unit!r}; give another, frame.with_(unit='adu').to_ccddata()"
            ) from error

    def __iter__(self) -> Iterator[Frame]:
        """Iterate over the planes, as frames of one plane each."""
        for i in range(self.planes):
            cut: dict[str, Any] = {
                name: None if getattr(self, name) is None else getattr(self, name)[i : i + 1] for name in PLANES
            }
            yield replace(self, **cut)


def _celestial_wcs(header: Any) -> Any:
    """WCS of the two sky axes; None where the header has none."""
    from astropy.io.fits import Header
    from astropy.wcs import WCS

    cards = [card for card in header.cards if not LOOKUP_CARDS.match(card.keyword)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy mends old headers, and says so
        wcs = WCS(Header(cards))
    return wcs.celestial if wcs.has_celestial else None
