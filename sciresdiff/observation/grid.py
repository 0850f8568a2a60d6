"""The pixels of one plane: how many there are, and how large they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import PixelSize


@dataclass(frozen=True)
class Grid:
    """A grid of pixels; fine pixels s*i ... s*i+s-1 are the area of coarse pixel i, on both axes."""

    shape: tuple[int, int]
    """(rows, columns)."""
    pixel_size: PixelSize | None = None
    """Side of a pixel; None where the file does not say."""

    def refine(self, scale: int) -> Grid:
        """The grid with ``scale`` times more pixels along each axis over the same area."""
        h, w = self.shape
        return Grid((scale * h, scale * w), self.pixel_size.refine(scale) if self.pixel_size else None)

    def ratio(self, other: Grid) -> int:
        """How many pixels of this grid lie along the side of one of ``other``.

        Raises
        ------
        InputError : the two do not cover the same area with a whole number of pixels each.
        """
        (H, W), (h, w) = self.shape, other.shape
        if H % h or W % w or H // h != W // w:
            raise InputError(f"grid: {H} x {W} px are no whole multiple of {h} x {w} px; crop the image to one that is")
        return H // h


def upsample_nearest(coarse: NDArray[Any], scale: int) -> NDArray[Any]:
    """Repeat every coarse pixel over its area of the fine grid.

    **Sums are not conserved**: values that add up are to be divided by scale^2.

    Parameters
    ----------
    coarse : (..., h, w) array of values, masks or flags.
    scale : fine pixels per coarse pixel and axis.

    Returns
    -------
    (..., scale * h, scale * w) array of the same type.
    """
    return coarse.repeat(scale, axis=-2).repeat(scale, axis=-1)
