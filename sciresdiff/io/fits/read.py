"""FITS in: an image with its noise and quality planes, and what its header knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import Frame, PixelSize, Quantity
from sciresdiff.io.files import split_spec
from sciresdiff.io.fits import wcs
from sciresdiff.io.fits.carry import Carried, rest_of
from sciresdiff.io.fits.facts import facts_of, quantity_of, unit_of
from sciresdiff.io.fits.layer import Layer, layer
from sciresdiff.io.fits.open import Chosen, choose, opened, quiet, readable
from sciresdiff.io.fits.parts import Parts, framed
from sciresdiff.io.fits.planes import with_planes
from sciresdiff.io.source import Source, empty
from sciresdiff.notes import Notes
from sciresdiff.region import Region

Array = NDArray[Any]


@dataclass(frozen=True)
class FitsHeader:
    """What the writer needs of the input."""

    primary: fits.Header
    image: fits.Header
    rest: tuple[Carried, ...] = ()
    version: int = 1
    plain: bool = False
    checksum: bool = False
    quantity: str | None = None


def read(path: str | Path, **options: Any) -> Frame:
    """Read one FITS image with all that belongs to it; ``sciresdiff.io.read`` describes the options.

    Raises
    ------
    InputError
        Missing, truncated or foreign file, no image in it, an extension that it has not, NaN only, wrong axes.
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
) -> Iterator[Source]:
    """One FITS image, to be read window by window; what depends on its values is measured on `planes.patches`.

    Raises
    ------
    InputError
        As ``read``, but for NaN only, which is known when all is read; and damaged tiles when they are read.
    """
    file, inside = split_spec(path)
    with ExitStack() as stack:
        here = stack.enter_context(opened(file))
        with quiet(), readable(file):
            index, notes = choose(file, here.hdus, ext or inside)
            chosen = Chosen(here, index)
            frame = _hollow(chosen, layer(here, index), axes, pixel_size).with_notes(notes)
            frame, parts, used = with_planes(frame, chosen, variance, mask, stack)
            frame = _finished(_shaped(frame, parts), chosen, used, quantity)

        def cut(plane: int, region: Region) -> Frame:
            return framed(frame, parts, plane, region)

        yield Source(frame, cut, str(file))


def read_image(path: str | Path) -> NDArray[np.float64]:
    """One image, or stack of planes, as it is: no planes, no facts."""
    file, inside = split_spec(path)
    with opened(file) as here, quiet(), readable(file):
        index, _ = choose(file, here.hdus, inside)
        return layer(here, index).whole().astype(np.float64)


def _axes(path: Path, shape: tuple[int, ...], axes: str | None) -> str:
    letters = axes.upper() if axes else "TCZYX"[-len(shape) :] if len(shape) <= 5 else ""
    if len(letters) != len(shape) or not letters.endswith("YX") or len(set(letters)) != len(letters):
        raise InputError(f"{path}: axes {axes or '?'!r} do not fit shape {shape}; one letter per axis, YX last")
    return letters


def _hollow(chosen: Chosen, image: Layer, axes: str | None, size: float | PixelSize | None) -> Frame:
    """The frame without values and planes."""
    headers = chosen.headers
    if not isinstance(size, PixelSize | None):
        size = PixelSize(float(size), float(size), "arcsec")
    size = size or next((found for h in headers if (found := wcs.pixel_size(h))), None)
    unit = unit_of(headers)
    facts, notes = facts_of(headers, unit, size)
    stack = (image.planes, *image.shape[-2:])
    return Frame(
        pixels=empty(stack, np.float32),
        mask=empty(stack, bool),
        kind="astro",
        unit=unit,
        pixel_size=size,
        facts={**facts, **_our_facts(headers)},
        axes=_axes(chosen.path, image.shape, axes),
        shape=image.shape,
        dtype=image.dtype,
        notes=notes,
    )


def _shaped(frame: Frame, parts: Parts) -> Frame:
    """With arrays without values for the planes that there are."""
    shape, bits = frame.pixels.shape, parts.flags is not None and parts.flags.bits
    return frame.with_(
        variance=empty(shape, np.float64) if parts.noise else None,
        saturated=empty(shape, bool) if bits or parts.level is not None else None,
        dq=empty(shape, np.int32) if bits else None,
    )


def _our_facts(headers: tuple[fits.Header, ...]) -> dict[str, float]:
    found = {name: next((x for h in headers if (x := wcs.number(h, key))), None) for name, key in
             (("scale", "SRDSCALE"), ("psf_known", "SRDTFWHM"))}  # fmt: skip
    return {name: x for name, x in found.items() if x is not None}


def _finished(frame: Frame, chosen: Chosen, used: set[int], quantity: Quantity | None) -> Frame:
    stated = quantity_of(frame.unit)
    if quantity is None and stated is None:
        what = f"BUNIT {frame.unit!r} does not" if frame.unit else "there is no BUNIT to"
        frame = frame.with_notes(Notes(f"quantity: {what} say whether blocks of pixels add up or average"))
    final = quantity or stated
    header = FitsHeader(
        primary=wcs.sanitised(chosen.hdus[0].header),
        image=wcs.sanitised(chosen.image.header),
        rest=rest_of(chosen, used),
        version=int(chosen.image.ver),
        plain=chosen.index == 0,
        checksum="CHECKSUM" in chosen.image.header,
        quantity=final,
    )
    wide = frame.facts.get("psf_known")
    psf = f"gaussian:fwhm={wide:g}px" if wide else None
    return frame.with_(quantity=final, header=header, psf=psf)
