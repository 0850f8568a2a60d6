"""What a FITS output will hold, and where, before any of its values is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sciresdiff.frame import Frame
from sciresdiff.io.fits import layout, wcs
from sciresdiff.io.fits.extensions import Extension, rescale_extension
from sciresdiff.io.fits.layout import HDUSlot
from sciresdiff.io.fits.read import FitsHeader
from sciresdiff.io.quality_bits import header_cards
from sciresdiff.io.sink import IMAGE, file_shape

Array = NDArray[Any]


@dataclass(frozen=True)
class Plan:
    """HDUs, copied extensions and provenance of an output."""

    slots: tuple[HDUSlot, ...]
    rest: tuple[Extension, ...]
    kernel: Array | None
    provenance: Mapping[str, object]
    history: Sequence[str]
    checksum: bool

    @property
    def rest_offset(self) -> int:
        """First byte of the copied extensions."""
        return self.slots[-1].data_offset + self.slots[-1].data_size

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.rest_offset + sum(len(c.header) + c.length for c in self.rest)

    def header(self, slot: HDUSlot, cards: Mapping[str, object]) -> fits.Header:
        """Header of an HDU.

        Parameters
        ----------
        slot : HDUSlot
            The HDU.
        cards : mapping
            Values that are known only at the end; texts are cut to the room that was reserved.
        """
        return layout.add_provenance(slot, layout.fit_provenance(self.provenance, cards), self.history)


def plan_output(
    frame: Frame,
    planes: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]],
    provenance: Mapping[str, object],
    history: Sequence[str],
    scale: float,
    dtype: str | np.dtype[Any] | None,
) -> Plan:
    """Plan the headers and places of all HDUs.

    Parameters
    ----------
    frame : Frame
        The output, with the input's header.
    planes : mapping
        Name -> shape and type.
    provenance, history, scale, dtype
        As in `sciresdiff.io.write`.
    """
    header = frame.header if isinstance(frame.header, FitsHeader) else _new_header(frame)
    header = replace(header, quantity=frame.quantity or header.quantity)
    provenance = _with_kernel(frame, provenance, planes, scale)
    # degrade stores its kernel; upscale's output has another PSF
    known = isinstance(frame.kernel, np.ndarray) and frame.kernel_scale and scale < 1 and "KERNEL" not in planes
    kernel = np.asarray(frame.kernel) if known else None
    if kernel is not None:
        planes = {"KERNEL": (kernel.shape, kernel.dtype), **planes}
    science = _science(header, frame, scale, np.dtype(dtype or "f4"))
    slots = [_primary(header, scale), science]
    slots += [_plane(header, name, shape, kind, science, frame.unit) for name, (shape, kind) in planes.items()]
    if scale >= 1:  # a frame that is degraded is simulated, and has every pixel
        for slot in (slot for slot in slots if slot.name == "DQ"):
            slot.header.extend(header_cards())
    room = [layout.count_header_blocks(slot, provenance, history, header.checksum) for slot in slots]
    slots = [replace(slot, header_blocks=blocks) for slot, blocks in zip(slots, room, strict=True)]
    # an extension of the input that has the name of an output plane is replaced by it
    mine = {("SCI", header.version), *((name, header.version) for name in planes)}
    others = [rescale_extension(c, scale) for c in header.rest if (c.name, c.version) not in mine]
    rest = tuple(c for c in others if c is not None)
    return Plan(layout.assign_offsets(slots), rest, kernel, provenance, history, header.checksum)


def _new_header(frame: Frame) -> FitsHeader:
    """Header for a frame that does not come from FITS."""
    image = fits.Header()
    if frame.unit:
        image["BUNIT"] = frame.unit
    if frame.pixel_size and frame.pixel_size.unit == "arcsec":
        image["PIXSCAL1"], image["PIXSCAL2"] = frame.pixel_size.x, frame.pixel_size.y
    return FitsHeader(fits.Header(), image, quantity=frame.quantity)


def _with_kernel(
    frame: Frame, provenance: Mapping[str, object], planes: Mapping[str, object], scale: float
) -> Mapping[str, object]:
    """Add the cards of ``degrade``: the scale that its kernel belongs to, and the SPEC of a kernel that is no image."""
    if scale >= 1:
        return provenance
    cards: dict[str, object] = {}
    if frame.kernel_scale is not None or "KERNEL" in planes:
        cards["SRDKSCAL"] = frame.kernel_scale or round(1 / scale)
    if isinstance(frame.kernel, str) and "KERNEL" not in planes:
        cards["SRDKERN"] = frame.kernel
    return {**cards, **provenance}


def _primary(header: FitsHeader, scale: float) -> HDUSlot:
    """The input's primary header without data; that of a plain image without what is about its pixels."""
    cards = layout.rescale_cards(header.primary, scale, header.quantity, header.plane_axes if header.plain else None)
    if header.plain:
        where = {card.keyword for card in wcs.wcs_cards(cards).cards}
        cards = fits.Header([c for c in cards.cards if c.keyword not in where and c.keyword != "HISTORY"])
    return layout.primary_slot(cards)


def _science(header: FitsHeader, frame: Frame, scale: float, kind: np.dtype[Any]) -> HDUSlot:
    cards = layout.rescale_cards(header.image, scale, header.quantity, header.plane_axes)
    if "INHERIT" in header.image:
        cards["INHERIT"] = (True, "inherit the primary header")
    shape, axes = _file_shape(frame, header.axes)
    return layout.image_slot(IMAGE, header.version, shape, kind, cards, provenance=True, axes=axes)


def _file_shape(frame: Frame, axes: str) -> tuple[tuple[int, ...], str]:
    """Shape of the image in the file, and its axes where they are those of an input that does not end in Y and X."""
    if not axes or axes.endswith("YX") or len(axes) != len(frame.shape):
        return file_shape(frame), ""
    fine = dict(zip("YX", frame.pixels.shape[1:], strict=True))
    return tuple(fine.get(a, n) for a, n in zip(axes, frame.shape, strict=True)), axes


def _plane(
    header: FitsHeader, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], science: HDUSlot, unit: str | None
) -> HDUSlot:
    """A plane on the grid of SCI, with its WCS; a kernel as it is."""
    if name == "KERNEL":
        return layout.image_slot(name, header.version, shape, np.float64, fits.Header(), provenance=False)
    # variances of faint images are below the smallest float32, so VAR keeps its type
    kind: Any = np.int32 if dtype.kind in "biu" else dtype if name == "VAR" else np.float32
    cards = wcs.wcs_cards(science.header)
    if stated := {"ERR": unit, "VAR": f"({unit})**2" if unit else None}.get(name):
        cards["BUNIT"] = stated
    same = np.prod(shape) == np.prod(science.shape)
    if not same and science.axes:  # layers are an axis of their own, before Y and X
        cards = fits.Header()
    shape, axes = (science.shape, science.axes) if same else (shape, "")
    return layout.image_slot(name, header.version, shape, kind, cards, provenance=False, axes=axes)
