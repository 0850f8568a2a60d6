"""FITS in: an image with its noise and quality planes, and what its header knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import Frame, PixelSize, Quantity
from sciresdiff.io import wcs
from sciresdiff.io.facts import facts_of, quantity_of, unit_of
from sciresdiff.io.files import split_spec
from sciresdiff.io.fits_open import Source, choose, is_image, opened, pixels_of, role_of
from sciresdiff.io.fits_planes import with_planes
from sciresdiff.io.planes import OUR_PLANES, in_single

Array = NDArray[Any]


@dataclass(frozen=True)
class FitsHeader:
    """What the writer needs of the input."""

    primary: fits.Header
    image: fits.Header
    rest: tuple[Any, ...] = ()
    version: int = 1
    plain: bool = False
    checksum: bool = False
    quantity: str | None = None


def read(
    path: str | Path,
    *,
    ext: str | None = None,
    variance: str | None = None,
    mask: str | None = None,
    axes: str | None = None,
    quantity: Quantity | None = None,
    pixel_size: float | PixelSize | None = None,
) -> Frame:
    """Read one FITS image with all that belongs to it; ``sciresdiff.io.read`` describes the parameters.

    Raises
    ------
    InputError
        Missing, truncated or foreign file, no image in it, an extension that it has not, NaN only, wrong axes.
    """
    file, inside = split_spec(path)
    with opened(file) as hdus:
        index, said = choose(file, hdus, ext or inside)
        source = Source(file, hdus, index)
        data = pixels_of(source)
        letters = _axes(file, data.shape, axes)
        frame = _frame(source, data, letters, pixel_size)
        frame = frame.say(*said)
        frame, used = with_planes(frame, source, variance, mask)
        return _finished(frame, source, used, quantity)


def read_image(path: str | Path) -> NDArray[np.float64]:
    """One image, or stack of planes, as it is: no planes, no facts."""
    file, inside = split_spec(path)
    with opened(file) as hdus:
        index, _ = choose(file, hdus, inside)
        return pixels_of(Source(file, hdus, index)).astype(np.float64)


def _axes(path: Path, shape: tuple[int, ...], axes: str | None) -> str:
    letters = axes.upper() if axes else "TCZYX"[-len(shape) :] if len(shape) <= 5 else ""
    if len(letters) != len(shape) or not letters.endswith("YX") or len(set(letters)) != len(letters):
        raise InputError(f"{path}: axes {axes or '?'!r} do not fit shape {shape}; one letter per axis, YX last")
    return letters


def _frame(source: Source, data: Array, axes: str, size: float | PixelSize | None) -> Frame:
    planes, bad = in_single(source.path, data.reshape(-1, *data.shape[-2:]))
    headers = source.headers
    if not isinstance(size, PixelSize | None):
        size = PixelSize(float(size), float(size), "arcsec")
    size = size or next((found for h in headers if (found := wcs.pixel_size(h))), None)
    unit = unit_of(headers)
    facts, said = facts_of(headers, unit, size)
    return Frame(
        pixels=planes,
        mask=bad,
        kind="astro",
        unit=unit,
        pixel_size=size,
        facts={**facts, **_our_facts(headers)},
        axes=axes,
        shape=data.shape,
        dtype=data.dtype,
        said=tuple(said),
    )


def _our_facts(headers: tuple[fits.Header, ...]) -> dict[str, float]:
    found = {name: next((x for h in headers if (x := wcs.number(h, key))), None) for name, key in
             (("scale", "SRDSCALE"), ("psf_known", "SRDTFWHM"))}  # fmt: skip
    return {name: x for name, x in found.items() if x is not None}


def _finished(frame: Frame, source: Source, used: set[int], quantity: Quantity | None) -> Frame:
    stated = quantity_of(frame.unit)
    if quantity is None and stated is None:
        what = f"BUNIT {frame.unit!r} does not" if frame.unit else "there is no BUNIT to"
        frame = frame.say(f"quantity: {what} say whether blocks of pixels add up or average")
    final = quantity or stated
    others = [h for i, h in enumerate(source.hdus) if i not in used and (i > 0 or is_image(h))]
    rest = [hdu for h in others if (hdu := _carried(h)) is not None]
    plain = source.index == 0
    header = FitsHeader(
        primary=wcs.sanitised(source.hdus[0].header),
        image=wcs.sanitised(source.image.header),
        rest=tuple(rest),
        version=int(source.image.ver),
        plain=plain,
        checksum="CHECKSUM" in source.image.header,
        quantity=final,
    )
    wide = frame.facts.get("psf_known")
    psf = f"gaussian:fwhm={wide:g}px" if wide else None
    return frame.with_(quantity=final, header=header, psf=psf)


def _carried(hdu: Any) -> Any:
    """A copy of an HDU that lives on after the file is closed; None for planes of ours and for what cannot be read."""
    if role_of(hdu) in OUR_PLANES:
        return None
    try:
        if isinstance(hdu, fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU):
            data = None if hdu.data is None else np.array(hdu.data)
            return fits.ImageHDU(data, wcs.sanitised(hdu.header))
        return hdu.copy()
    except Exception:  # a damaged extension that is only carried over has no say over the image
        return None
