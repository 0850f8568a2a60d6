"""What the frame of a region is made of: the image, its flags, its noise and the level of saturation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sciresdiff.frame import Frame
from sciresdiff.io.dtypes import to_float32
from sciresdiff.io.fits.dq import decode_flags, flag_words, fold_flags
from sciresdiff.io.fits.image_reader import ImageReader
from sciresdiff.io.variance import fill_variance
from sciresdiff.region import Region

Array = NDArray[Any]


@dataclass(frozen=True)
class Flags:
    """A data-quality plane."""

    layer: ImageReader
    bits: bool
    """Whether its values are flags, which tell bad pixels from saturated ones; else every value but 0 is bad."""
    headers: tuple[fits.Header, ...] = ()

    def bad(self, values: Array) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Bad and saturated pixels, each (..., h, w), of values of the plane; NaN is bad."""
        unknown = ~np.isfinite(values)
        if not self.bits:
            return unknown | (values != 0), np.zeros(values.shape, bool)
        bad, saturated, _ = decode_flags(flag_words(values), self.headers, self.layer.header)
        return bad | unknown, saturated


@dataclass(frozen=True)
class Noise:
    """A noise plane, and how it becomes a variance."""

    layer: ImageReader
    turn: Callable[[Array], Array]
    """Conversion to a variance."""
    role: str = ""
    factor: float = 1.0
    """Variance in unit**2 per converted value."""
    fill: float | None = None
    """Variance that pixels without one get."""


@dataclass(frozen=True)
class Components:
    """The parts of an image."""

    image: ImageReader
    flags: Flags | None = None
    noise: Noise | None = None
    level: float | None = None
    """Value from which on a pixel is saturated."""


def assemble_frame(hollow: Frame, parts: Components, plane: int, region: Region) -> Frame:
    """Read a region as a frame.

    Parameters
    ----------
    hollow : Frame
        Everything but the values.
    parts : Components
        Where the values come from.
    plane : int
        Number of the plane.
    region : Region
        Rows and columns.

    Returns
    -------
    Frame
        Of one plane; it may be without a finite pixel.
    """
    values = parts.image.window(plane, region)
    pixels, bad = to_float32(parts.image.path, values[None])
    frame = hollow.with_(pixels=pixels, mask=bad, variance=None, saturated=None, dq=None)
    if parts.flags:
        frame = _apply_flags(frame, parts.flags, plane, region)
    if parts.noise:
        frame = fill_variance(frame, read_variance(parts.noise, plane, region), parts.noise.fill)
    return frame if parts.level is None else _mask_saturated(frame, parts.level)


def read_region(layer: ImageReader, plane: int, region: Region) -> Array:
    """Read a region of a plane of flags or noise.

    Parameters
    ----------
    layer : ImageReader
        The plane; a single one serves all planes of the image.
    plane : int
        Number of the image's plane.
    region : Region
        Rows and columns.

    Returns
    -------
    (1, h, w) array
    """
    return layer.window(plane if layer.planes > 1 else 0, region)[None]


def _apply_flags(frame: Frame, flags: Flags, plane: int, region: Region) -> Frame:
    found = read_region(flags.layer, plane, region)
    bad, saturated = flags.bad(found)
    if not flags.bits:
        return frame.with_(mask=frame.mask | bad)
    return frame.with_(mask=frame.mask | bad | saturated, dq=fold_flags(flag_words(found)), saturated=saturated)


def read_variance(noise: Noise, plane: int, region: Region) -> Array:
    """Read the variance of a region.

    Parameters
    ----------
    noise : Noise
        The noise plane.
    plane : int
        Number of the image's plane.
    region : Region
        Rows and columns.

    Returns
    -------
    (1, h, w) float64 array
        In unit**2; NaN where it is unknown.
    """
    found = noise.turn(read_region(noise.layer, plane, region))
    return found if noise.factor == 1 else found * noise.factor


def _mask_saturated(frame: Frame, level: float) -> Frame:
    with np.errstate(invalid="ignore"):
        full = frame.pixels >= level
    known = full if frame.saturated is None else frame.saturated | full
    return frame.with_(saturated=known, mask=frame.mask | known)
