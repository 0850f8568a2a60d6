"""Some pixels of an image, few of many: held by their places, read by windows."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciresdiff.region import Region


@dataclass(frozen=True)
class PixelSet:
    """Pixels of an image; 8 bytes for each, and it pickles."""

    shape: tuple[int, int]
    """(h, w) of the image."""
    index: NDArray[np.int64]
    """(n,), y w + x of every pixel once, ascending."""

    @classmethod
    def of_places(cls, shape: tuple[int, int], places: Iterable[NDArray[np.integer]]) -> PixelSet:
        """The pixels at places, each (n, 2) of y and x, which may be there several times."""
        every = np.concatenate([np.zeros((0, 2), np.int64), *places]).astype(np.int64)
        return cls(shape, np.unique(every[:, 0] * shape[1] + every[:, 1]))

    def __len__(self) -> int:
        """How many pixels these are."""
        return len(self.index)

    def window(self, region: Region) -> NDArray[np.bool_]:
        """(h, w) of a region, True where a pixel is one of them."""
        width = self.shape[1]
        first, last = np.searchsorted(self.index, [region.y0 * width, region.y1 * width])
        y, x = np.divmod(self.index[first:last], width)
        inside = (x >= region.x0) & (x < region.x1)
        found = np.zeros(region.shape, bool)
        found[y[inside] - region.y0, x[inside] - region.x0] = True
        return found


def to_text(places: NDArray[np.integer]) -> str:
    """Places (n, 2) as text: 4-byte numbers, compressed and in base 64."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(places, "<i4").tobytes())).decode()


def of_text(text: str) -> NDArray[np.int32]:
    """The places (n, 2) of such a text."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<i4").reshape(-1, 2)
