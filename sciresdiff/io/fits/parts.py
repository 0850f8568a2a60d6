"""The frame of a window, made of the image, its flags, its noise and the level of saturation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sciresdiff.frame import Frame
from sciresdiff.io import planes as rules
from sciresdiff.io.fits.layer import Layer
from sciresdiff.io.planes import flagged, settled
from sciresdiff.region import Region

Array = NDArray[Any]


@dataclass(frozen=True)
class Flags:
    """A quality plane, and what it means."""

    layer: Layer
    simple: bool
    """Whether all that is not 0 is bad."""
    headers: tuple[fits.Header, ...] = ()

    @property
    def bits(self) -> bool:
        """Whether it tells bad pixels from saturated ones."""
        return not self.simple and self.layer.dtype.kind in "iu"


@dataclass(frozen=True)
class Noise:
    """A noise plane, and how it becomes a variance."""

    layer: Layer
    turn: Callable[[Array], Array]
    role: str = ""
    factor: float = 1.0
    fill: float | None = None
    """The variance of pixels without one."""


@dataclass(frozen=True)
class Parts:
    """What the frames of windows are made of."""

    image: Layer
    flags: Flags | None = None
    noise: Noise | None = None
    level: float | None = None
    """From where on a pixel is saturated."""


def framed(hollow: Frame, parts: Parts, plane: int, region: Region) -> Frame:
    """The frame of a region, in which there need not be a number."""
    values = parts.image.window(plane, region)
    pixels, bad = rules.part_in_single(parts.image.path, values[None])
    frame = hollow.with_(pixels=pixels, mask=bad, variance=None, saturated=None, dq=None)
    if parts.flags:
        frame = _with_flags(frame, parts.flags, plane, region)
    if parts.noise:
        frame = settled(frame, variance_of(parts.noise, plane, region), parts.noise.fill)
    return frame if parts.level is None else _with_level(frame, parts.level)


def window_of(layer: Layer, plane: int, region: Region) -> Array:
    """A region of a layer, (1, h, w); a layer of one plane serves all of the image's."""
    return layer.window(plane if layer.planes > 1 else 0, region)[None]


def _with_flags(frame: Frame, flags: Flags, plane: int, region: Region) -> Frame:
    found = window_of(flags.layer, plane, region)
    if not flags.bits:
        return frame.with_(mask=frame.mask | (np.nan_to_num(found, nan=1.0) != 0))
    dq = found.astype(np.int64).astype(np.int32)
    bad, saturated, _ = flagged(dq, flags.headers, flags.layer.header)
    return frame.with_(mask=frame.mask | bad | saturated, dq=dq, saturated=saturated)


def variance_of(noise: Noise, plane: int, region: Region) -> Array:
    """Variance of a region, (1, h, w), float64; NaN where there is no information."""
    found = noise.turn(window_of(noise.layer, plane, region))
    return found if noise.factor == 1 else found * noise.factor


def _with_level(frame: Frame, level: float) -> Frame:
    with np.errstate(invalid="ignore"):
        full = frame.pixels >= level
    known = full if frame.saturated is None else frame.saturated | full
    return frame.with_(saturated=known, mask=frame.mask | known)
