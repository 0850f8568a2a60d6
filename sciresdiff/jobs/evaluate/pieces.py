"""The pieces that a large frame is judged in: each with what surrounds it, so that sources on its border are whole."""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd

from sciresdiff import tiling
from sciresdiff.observation.observation import Observation
from sciresdiff.region import Region
from sciresdiff.tiling import Tile

WHOLE = 4096
"""Longest side of a plane that is judged whole, fine px."""
SIDE = 2048
"""Longest side of a piece, fine px."""
AROUND = 64
"""Fine px about a piece beyond the reach of the blur; also the squares that the sky is measured in, which pieces begin
on multiples of."""


def pieces(shape: tuple[int, int], observation: Observation | None) -> tuple[Tile, ...]:
    """The pieces of a plane, row by row; one where it is small enough.

    Parameters
    ----------
    shape : (h, w) of the coarse grid.
    observation : has the scale, and the PSF, which a piece reaches beyond; None where there are no data.
    """
    scale = 1 if observation is None else observation.scale
    psf = None if observation is None else observation.exposure.psf
    if scale * max(shape) <= WHOLE:
        whole = Region.of_shape(shape)
        return (Tile(whole, whole),)
    step = AROUND // gcd(AROUND, scale)
    reach = 0 if psf is None else max(psf.mean.shape) // 2
    return tuple(tiling.plan(shape, max(SIDE // scale // step, 1) * step, -(-(AROUND + reach) // scale), step))


def named(tile: Tile, scale: int) -> str:
    """``y 2048, x 0``: the first fine pixel of a core."""
    return f"y {scale * tile.core.y0}, x {scale * tile.core.x0}"


def windows(shape: tuple[int, ...], side: int = SIDE) -> Iterator[tuple[slice, slice]]:
    """Windows that cover a plane once."""
    h, w = shape
    for y in range(0, h, side):
        for x in range(0, w, side):
            yield slice(y, min(y + side, h)), slice(x, min(x + side, w))
