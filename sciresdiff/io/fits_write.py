"""FITS out: the input's own file with a new pixel scale, and the planes that belong to the result."""

from __future__ import annotations

import gzip
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sciresdiff.frame import Frame
from sciresdiff.io import wcs
from sciresdiff.io.files import typed, write_whole
from sciresdiff.io.fits import FitsHeader

Array = NDArray[Any]
LOOKUP_TABLES = ("WCSDVARR", "D2IMARR")
STRUCTURE = re.compile(r"SIMPLE|BITPIX|NAXIS\d*|EXTEND|XTENSION|PCOUNT|GCOUNT|GROUPS|EXTNAME|EXTVER|INHERIT|SRD\w+")


def write(
    path: str | Path,
    frame: Frame,
    *,
    planes: Mapping[str, Array],
    provenance: Mapping[str, object],
    history: Sequence[str],
    scale: float = 1.0,
    overwrite: bool = False,
    dtype: str | np.dtype[Any] | None = None,
) -> dict[str, Any]:
    """Write a frame as primary header + SCI + planes + the input's other extensions; see ``sciresdiff.io.write``."""
    path = Path(path)
    kept = frame.header if isinstance(frame.header, FitsHeader) else _fresh(frame)
    kept = replace(kept, quantity=frame.quantity or kept.quantity)
    provenance = _with_kernel(frame, provenance, planes, scale)
    data, clipped = typed(frame.pixels.reshape(_shape(frame)), dtype)
    if scale < 1 and frame.kernel_scale and isinstance(frame.kernel, np.ndarray):
        planes = {"KERNEL": frame.kernel, **planes}
    primary = _primary(kept, scale)
    science = _science(kept, data, scale)
    for header in (primary.header, science.header):
        _stamp(header, provenance, history)
    others = [_plane(kept, name, plane, science, frame.unit) for name, plane in planes.items()]
    mine = {("SCI", kept.version), *((h.name, h.ver) for h in others)}
    rest = [_rest(hdu, scale) for hdu in kept.rest if (hdu.name, hdu.ver) not in mine]
    hdus = fits.HDUList([primary, science, *others, *rest])
    files = write_whole({path: lambda p: _save(p, path, hdus, kept.checksum)}, overwrite=overwrite)
    return {"clipped": clipped, "files": files}


def _fresh(frame: Frame) -> FitsHeader:
    """A header for a frame that does not come from FITS."""
    image = fits.Header()
    if frame.unit:
        image["BUNIT"] = frame.unit
    if frame.pixel_size and frame.pixel_size.unit == "arcsec":
        image["PIXSCAL1"], image["PIXSCAL2"] = frame.pixel_size.x, frame.pixel_size.y
    return FitsHeader(fits.Header(), image, quantity=frame.quantity)


def _with_kernel(
    frame: Frame, provenance: Mapping[str, object], planes: Mapping[str, Array], scale: float
) -> Mapping[str, object]:
    """``degrade`` says which scale its kernel belongs to, and names a kernel that is no image."""
    if scale >= 1:
        return provenance
    told: dict[str, object] = {}
    if frame.kernel_scale is not None or "KERNEL" in planes:
        told["SRDKSCAL"] = frame.kernel_scale or round(1 / scale)
    if isinstance(frame.kernel, str) and "KERNEL" not in planes:
        told["SRDKERN"] = frame.kernel
    return {**told, **provenance}


def _shape(frame: Frame) -> tuple[int, ...]:
    lead = tuple(frame.shape[:-2])
    whole = (*lead, *frame.pixels.shape[1:])
    return whole if int(np.prod(lead, initial=1)) == frame.planes else frame.pixels.shape


def _cards(header: fits.Header, scale: float, quantity: str | None) -> fits.Header:
    new = wcs.rescale_header(header, scale, quantity=quantity)
    return fits.Header([card for card in new.cards if not STRUCTURE.fullmatch(card.keyword)])


def _primary(kept: FitsHeader, scale: float) -> fits.PrimaryHDU:
    """The input's primary header without data; of a plain image only what is not about its pixels."""
    cards = _cards(kept.primary, scale, kept.quantity)
    if kept.plain:
        where = {card.keyword for card in wcs.wcs_cards(cards).cards}
        cards = fits.Header([c for c in cards.cards if c.keyword not in where and c.keyword != "HISTORY"])
    return fits.PrimaryHDU(header=cards)


def _science(kept: FitsHeader, data: Array, scale: float) -> fits.ImageHDU:
    hdu = fits.ImageHDU(data, _cards(kept.image, scale, kept.quantity), name="SCI", ver=kept.version)
    if "INHERIT" in kept.image:
        hdu.header["INHERIT"] = (True, "inherit the primary header")
    return hdu


def _plane(kept: FitsHeader, name: str, plane: Array, science: fits.ImageHDU, unit: str | None) -> fits.ImageHDU:
    """A plane on the grid of SCI, with its coordinates; a kernel as it is."""
    plane = np.asarray(plane)
    if name == "KERNEL":
        return fits.ImageHDU(plane.astype(np.float64), name=name, ver=kept.version)
    shaped = plane.reshape(science.shape) if plane.size == science.data.size else plane
    kind: Any = np.int32 if plane.dtype.kind in "biu" else plane.dtype if name == "VAR" else np.float32
    hdu = fits.ImageHDU(shaped.astype(kind), wcs.wcs_cards(science.header), name=name, ver=kept.version)
    units = {"ERR": unit, "VAR": f"({unit})**2" if unit else None}
    if units.get(name):
        hdu.header["BUNIT"] = units[name]
    return hdu


def _rest(hdu: Any, scale: float) -> Any:
    return wcs.rescale_lookup(hdu, scale) if hdu.name in LOOKUP_TABLES and hdu.data is not None else hdu


def _stamp(header: fits.Header, provenance: Mapping[str, object], history: Sequence[str]) -> None:
    for key, told in provenance.items():
        if told is not None and not (isinstance(told, float) and not np.isfinite(told)):  # a card holds no NaN
            header[key] = told if isinstance(told, bool | int | float | str) else str(told)
    for line in history:
        header.add_history(line.encode("ascii", "replace").decode())


def _save(temporary: Path, final: Path, hdus: fits.HDUList, checksum: bool) -> None:
    """Bytes that depend on the content alone: no clock in CHECKSUM comments or in gzip headers."""
    if checksum:
        for hdu in hdus:
            hdu.add_checksum(when="by sciresdiff")
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hdus.writeto(buffer, output_verify="silentfix+ignore")
    with temporary.open("xb") as stream:
        packed = final.name.endswith(".gz")
        stream.write(gzip.compress(buffer.getvalue(), mtime=0) if packed else buffer.getvalue())
