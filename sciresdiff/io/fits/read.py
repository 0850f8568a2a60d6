"""FITS in: an image with its noise and data-quality planes, and the facts of its header."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sciresdiff.frame import Frame, PixelSize, Quantity
from sciresdiff.io.files import split_spec
from sciresdiff.io.fits import wcs
from sciresdiff.io.fits.axes import axis_letters
from sciresdiff.io.fits.beam import with_beam
from sciresdiff.io.fits.components import Components, assemble_frame
from sciresdiff.io.fits.extensions import Extension, describe_extensions, other_extensions
from sciresdiff.io.fits.header import card_number, valid_header
from sciresdiff.io.fits.image_reader import ImageReader, open_image
from sciresdiff.io.fits.keywords import READ_KEYS, read_facts, read_unit
from sciresdiff.io.fits.open import ImageChoice, choose_image, open_fits, report_damage, suppress_warnings
from sciresdiff.io.fits.planes import find_planes
from sciresdiff.io.source import Source, placeholder
from sciresdiff.notes import Notes
from sciresdiff.region import Region
from sciresdiff.units import quantity_of_unit

Array = NDArray[Any]


@dataclass(frozen=True)
class FitsHeader:
    """What the writer needs of the input."""

    primary: fits.Header
    image: fits.Header
    rest: tuple[Extension, ...] = ()
    """Extensions to copy."""
    version: int = 1
    """EXTVER of the image."""
    plain: bool = False
    """Whether the image is the primary HDU."""
    checksum: bool = False
    """Whether it has CHECKSUM, so that the output gets one."""
    quantity: str | None = None
    axes: str = ""
    """A letter for each axis of the image; empty for Y and X at the end."""

    @property
    def plane_axes(self) -> tuple[int, int] | None:
        """Numbers of the FITS axes X and Y of the image plane; None where they are not known."""
        count = len(self.axes)
        return (count - self.axes.index("X"), count - self.axes.index("Y")) if self.axes else None

    def describe_output(self, scale: float) -> Notes:
        """What an output of ``scale`` pixels per input pixel does not have as the input has it."""
        return describe_extensions(self.rest, scale)


def read(path: str | Path, **options: Any) -> Frame:
    """Read one FITS image with all that belongs to it; `sciresdiff.io.read` describes the options.

    Raises
    ------
    InputError
        Missing, truncated or foreign file, no image in it, no such extension, NaN only, wrong axes.
    """
    with source(path, **options) as opened_source:
        return opened_source.whole()


@contextmanager
def source(
    path: str | Path,
    *,
    ext: str | None = None,
    variance: str | None = None,
    mask: str | None = None,
    axes: str | None = None,
    quantity: Quantity | None = None,
    pixel_size: float | PixelSize | None = None,
    saturated: bool = True,
) -> Iterator[Source]:
    """Open one FITS image, to be read region by region.

    What depends on its values is measured on `sampling.sample_regions`.

    Raises
    ------
    InputError
        As `read`; but NaN only is found when all is read, and damaged tiles when they are read.
    """
    file, inside = split_spec(path)
    with ExitStack() as stack:
        here = stack.enter_context(open_fits(file))
        with suppress_warnings(), report_damage(file):
            index, notes = choose_image(file, here.hdus, ext or inside)
            hdu = here.hdus[index]
            letters, of_axes = axis_letters(file, hdu.header, hdu.shape, axes)
            chosen = ImageChoice(here, index, letters)
            notes += of_axes + wcs.warn_repeated(hdu.header, (*READ_KEYS, "BSCALE", "BZERO", "BLANK"))
            frame = _empty_frame(chosen, open_image(here, index, letters), pixel_size).with_notes(notes)
            frame, parts, used = find_planes(frame, chosen, variance, mask, stack, saturated)
            frame = _with_header(_with_placeholders(frame, parts), chosen, used, quantity)

        def cut(plane: int, region: Region) -> Frame:
            return assemble_frame(frame, parts, plane, region)

        yield Source(frame, cut, str(file))


def read_image(path: str | Path) -> NDArray[np.float64]:
    """Read one image (..., Y, X) as it is, without planes and facts.

    Raises
    ------
    InputError
        Missing, truncated or foreign file, no image in it, no such extension.
    """
    file, inside = split_spec(path)
    with open_fits(file) as here, suppress_warnings(), report_damage(file):
        index, _ = choose_image(file, here.hdus, inside)
        return open_image(here, index).whole().astype(np.float64)


def _empty_frame(chosen: ImageChoice, image: ImageReader, size: float | PixelSize | None) -> Frame:
    """Frame without values and planes."""
    headers = chosen.headers
    if not isinstance(size, PixelSize | None):
        size = PixelSize(float(size), float(size), "arcsec")
    size = size or next((found for h in headers if (found := wcs.pixel_size(h))), None)
    unit = read_unit(headers)
    facts, notes = read_facts(headers, unit, size)
    stack = (image.planes, *image.plane_shape)
    return Frame(
        pixels=placeholder(stack, np.float32),
        mask=placeholder(stack, bool),
        kind="astro",
        unit=unit,
        pixel_size=size,
        facts={**facts, **_provenance_facts(headers)},
        axes=chosen.axes,
        shape=image.shape,
        dtype=image.dtype,
        notes=notes,
    )


def _with_placeholders(frame: Frame, parts: Components) -> Frame:
    """Add arrays without values for the planes that exist."""
    shape, bits = frame.pixels.shape, parts.flags is not None and parts.flags.bits
    return frame.with_(
        variance=placeholder(shape, np.float64) if parts.noise else None,
        saturated=placeholder(shape, bool) if bits or parts.level is not None else None,
        dq=placeholder(shape, np.int32) if bits else None,
    )


def _provenance_facts(headers: tuple[fits.Header, ...]) -> dict[str, float]:
    """Facts that this program wrote into its own files."""
    found = {name: next((x for h in headers if (x := card_number(h, key))), None) for name, key in
             (("scale", "SRDSCALE"), ("psf_known", "SRDTFWHM"))}  # fmt: skip
    return {name: x for name, x in found.items() if x is not None}


def _with_header(frame: Frame, chosen: ImageChoice, used: set[int], quantity: Quantity | None) -> Frame:
    """Add quantity, PSF, and what the writer needs."""
    stated = quantity_of_unit(frame.unit)
    if quantity is None and stated is None:
        what = f"BUNIT {frame.unit!r} does not" if frame.unit else "there is no BUNIT to"
        frame = frame.with_notes(Notes(f"quantity: {what} say whether blocks of pixels add up or average"))
    final = quantity or stated
    header = FitsHeader(
        primary=valid_header(chosen.hdus[0].header),
        image=valid_header(chosen.image.header),
        rest=other_extensions(chosen, used),
        version=int(chosen.image.ver),
        plain=chosen.index == 0,
        checksum="CHECKSUM" in chosen.image.header,
        quantity=final,
        axes=chosen.axes,
    )
    wide = frame.facts.get("psf_known")
    if wide:
        return frame.with_(quantity=final, header=header, psf=f"gaussian:fwhm={wide:g}px")
    return with_beam(frame.with_(quantity=final, header=header), chosen.image.header, chosen.hdus)
