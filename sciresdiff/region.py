"""A rectangle of pixels: the one way to say which part of an image is meant."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Region:
    """Rows ``y0 ... y1 - 1`` and columns ``x0 ... x1 - 1`` of an image, in its own pixels."""

    y0: int
    y1: int
    x0: int
    x1: int

    @classmethod
    def of_shape(cls, shape: tuple[int, ...]) -> Region:
        """All of an image of shape (..., h, w)."""
        return cls(0, shape[-2], 0, shape[-1])

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, as an array is indexed with."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def scaled(self, scale: int) -> Region:
        """The same area in pixels that are ``scale`` times finer (pixel-area registration)."""
        return Region(scale * self.y0, scale * self.y1, scale * self.x0, scale * self.x1)

    def within(self, other: Region) -> Region:
        """The same area, counted from the first pixel of ``other``."""
        return Region(self.y0 - other.y0, self.y1 - other.y0, self.x0 - other.x0, self.x1 - other.x0)

    def holds(self, other: Region) -> bool:
        """Whether all of the other lies in it."""
        return self.y0 <= other.y0 and other.y1 <= self.y1 and self.x0 <= other.x0 and other.x1 <= self.x1

    def grown(self, margin: int, shape: tuple[int, ...]) -> Region:
        """With ``margin`` pixels more on every side, as far as the image of shape (..., h, w) has them."""
        return Region(
            max(self.y0 - margin, 0), min(self.y1 + margin, shape[-2]),
            max(self.x0 - margin, 0), min(self.x1 + margin, shape[-1]),
        )  # fmt: skip
