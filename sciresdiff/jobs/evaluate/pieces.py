"""The pieces in which a large frame is judged, each with its surroundings, so that sources on its border are whole."""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd

from sciresdiff import tiling
from sciresdiff.frame import Frame
from sciresdiff.observation.observation import Observation
from sciresdiff.region import Region
from sciresdiff.tiling import Tile

WHOLE = 4096
"""Longest side of a plane that is judged whole, fine px."""
SIDE = 2048
"""Longest side of a piece, fine px."""
AROUND = 64
"""What is read around a piece beyond the reach of the blur, fine px; also the side of the squares in which the sky is
measured, so pieces begin on multiples of it."""


def plan_pieces(shape: tuple[int, int], observation: Observation | None) -> tuple[Tile, ...]:
    """The pieces of a plane, row by row, coarse px; a single one where the plane is small enough.

    Parameters
    ----------
    shape : (int, int)
        (h, w) of the coarse grid.
    observation : Observation or None
        Has the scale, and the PSF, which a piece reaches beyond; None where there are no data.
    """
    scale = 1 if observation is None else observation.scale
    psfs = () if observation is None else observation.exposure.distinct_psfs
    if scale * max(shape) <= WHOLE:
        whole = Region.of_shape(shape)
        return (Tile(whole, whole),)
    step = AROUND // gcd(AROUND, scale)
    reach = max((max(psf.mean.shape) // 2 for psf in psfs if psf is not None), default=0)
    return tuple(tiling.plan(shape, max(SIDE // scale // step, 1) * step, -(-(AROUND + reach) // scale), step))


def describe_place(tile: Tile, scale: int) -> str:
    """The first fine pixel of a core in words: ``y 2048, x 0``."""
    return f"y {scale * tile.core.y0}, x {scale * tile.core.x0}"


def windows(shape: tuple[int, ...], side: int = SIDE) -> Iterator[Region]:
    """Windows that together cover a plane of shape (h, w) once, row by row."""
    h, w = shape
    for y in range(0, h, side):
        for x in range(0, w, side):
            yield Region(y, min(y + side, h), x, min(x + side, w))


def fits_in_memory(frame: Frame) -> bool:
    """Whether a frame, all its planes together, is small enough to be read at once."""
    return frame.pixels.size <= WHOLE**2
