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
from sciresdiff.io.fits.carry import Carried, ready
from sciresdiff.io.fits.layout import Slot
from sciresdiff.io.fits.read import FitsHeader
from sciresdiff.io.sink import IMAGE, Plane

Array = NDArray[Any]


@dataclass(frozen=True)
class Plan:
    """What the file will hold, and where."""

    slots: tuple[Slot, ...]
    rest: tuple[Carried, ...]
    kernel: Array | None
    provenance: Mapping[str, object]
    history: Sequence[str]
    checksum: bool

    @property
    def rest_at(self) -> int:
        """First byte of what is carried over."""
        return self.slots[-1].data_at + self.slots[-1].length

    @property
    def size(self) -> int:
        """Of the file, in bytes."""
        return self.rest_at + sum(len(c.header) + c.length for c in self.rest)

    def header(self, slot: Slot, cards: Mapping[str, object]) -> fits.Header:
        """Of an HDU, with the values that are known."""
        known = {key: layout.fitted(cards.get(key, told), key, told) for key, told in self.provenance.items()}
        return layout.stamped(slot, known, self.history)


def plan(
    frame: Frame,
    planes: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]],
    provenance: Mapping[str, object],
    history: Sequence[str],
    scale: float,
    dtype: str | np.dtype[Any] | None,
) -> Plan:
    """Headers and places of all HDUs, for planes of those shapes and types."""
    kept = frame.header if isinstance(frame.header, FitsHeader) else _fresh(frame)
    kept = replace(kept, quantity=frame.quantity or kept.quantity)
    provenance = _with_kernel(frame, provenance, planes, scale)
    known = isinstance(frame.kernel, np.ndarray) and frame.kernel_scale and scale < 1 and "KERNEL" not in planes
    kernel = np.asarray(frame.kernel) if known else None
    if kernel is not None:
        planes = {"KERNEL": (kernel.shape, kernel.dtype), **planes}
    science = _science(kept, frame, scale, np.dtype(dtype or "f4"))
    slots = [_primary(kept, scale), science]
    slots += [_plane(kept, name, shape, kind, science, frame.unit) for name, (shape, kind) in planes.items()]
    slots = [replace(s, blocks=layout.reserved(s, provenance, history, kept.checksum)) for s in slots]
    mine = {("SCI", kept.version), *((name, kept.version) for name in planes)}
    rest = tuple(ready(c, scale) for c in kept.rest if (c.name, c.version) not in mine)
    return Plan(layout.placed(slots), rest, kernel, provenance, history, kept.checksum)


def _fresh(frame: Frame) -> FitsHeader:
    """A header for a frame that does not come from FITS."""
    image = fits.Header()
    if frame.unit:
        image["BUNIT"] = frame.unit
    if frame.pixel_size and frame.pixel_size.unit == "arcsec":
        image["PIXSCAL1"], image["PIXSCAL2"] = frame.pixel_size.x, frame.pixel_size.y
    return FitsHeader(fits.Header(), image, quantity=frame.quantity)


def _with_kernel(
    frame: Frame, provenance: Mapping[str, object], planes: Mapping[str, object], scale: float
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


def layers(frame: Frame, plane: Plane) -> tuple[int, ...]:
    """A plane's shape; layers of a single image have no axis for its planes."""
    shape = plane.shape(frame.pixels.shape)
    return shape[1:] if plane.layers and shape[0] == 1 else shape


def _primary(kept: FitsHeader, scale: float) -> Slot:
    """The input's primary header without data; of a plain image only what is not about its pixels."""
    cards = layout.cards(kept.primary, scale, kept.quantity)
    if kept.plain:
        where = {card.keyword for card in wcs.wcs_cards(cards).cards}
        cards = fits.Header([c for c in cards.cards if c.keyword not in where and c.keyword != "HISTORY"])
    return layout.primary(cards)


def _science(kept: FitsHeader, frame: Frame, scale: float, kind: np.dtype[Any]) -> Slot:
    cards = layout.cards(kept.image, scale, kept.quantity)
    if "INHERIT" in kept.image:
        cards["INHERIT"] = (True, "inherit the primary header")
    return layout.image(IMAGE, kept.version, _shape(frame), kind, cards, stamped=True)


def _plane(
    kept: FitsHeader, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], science: Slot, unit: str | None
) -> Slot:
    """A plane on the grid of SCI, with its coordinates; a kernel as it is."""
    if name == "KERNEL":
        return layout.image(name, kept.version, shape, np.float64, fits.Header(), stamped=False)
    kind: Any = np.int32 if dtype.kind in "biu" else dtype if name == "VAR" else np.float32
    cards = wcs.wcs_cards(science.header)
    if stated := {"ERR": unit, "VAR": f"({unit})**2" if unit else None}.get(name):
        cards["BUNIT"] = stated
    same = np.prod(shape) == np.prod(science.shape)
    return layout.image(name, kept.version, science.shape if same else shape, kind, cards, stamped=False)
