"""How an array is stored in TIFF pages, and the tags of each page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sciresdiff.io.provenance import NAMESPACE
from sciresdiff.io.tiff.ifd import Directory, Tag

FORMATS = {"u": 1, "i": 2, "f": 3}
"""Kind of a numpy type -> SampleFormat."""


@dataclass(frozen=True)
class Layout:
    """An array stored in pages, one after the other."""

    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def inner(self) -> int:
        """Number of last axes that make a page: two, or three with samples before or after Y and X."""
        return 3 if self.axes.endswith(("YXS", "SYX")) else 2

    @property
    def pages(self) -> int:
        """Number of pages."""
        return int(np.prod(self.shape[: -self.inner], initial=1))

    @property
    def sides(self) -> tuple[int, int, int]:
        """Height, width and samples of a page."""
        page = self.shape[-self.inner :]
        if self.inner == 2:
            return page[0], page[1], 1
        return (page[1], page[2], page[0]) if self.axes.endswith("SYX") else (page[0], page[1], page[2])

    @property
    def separate(self) -> bool:
        """Whether the samples of a page are stored one after the other (PlanarConfiguration 2)."""
        return self.inner == 3 and self.axes.endswith("SYX")

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels."""
        return int(np.prod(self.shape, initial=1)) * self.dtype.itemsize


def page_tags(layout: Layout, resolution: Mapping[int, Tag], height: int, width: int) -> dict[int, Tag]:
    """Tags of a page, without those that say where its pixels are.

    Parameters
    ----------
    layout : Layout
        The array.
    resolution : mapping
        Resolution tags.
    height, width : int
        Of the page, which may be a pyramid level.
    """
    samples = layout.sides[2]
    colour = samples in (3, 4)
    found = {
        254: Tag("I", [0]),
        256: Tag("I", [width]),
        257: Tag("I", [height]),
        258: Tag("H", [8 * layout.dtype.itemsize] * samples),
        259: Tag("H", [1]),
        262: Tag("H", [2 if colour else 1]),
        277: Tag("H", [samples]),
        284: Tag("H", [2 if layout.separate else 1]),
        305: Tag("s", NAMESPACE.encode()),
        339: Tag("H", [FORMATS[layout.dtype.kind]] * samples),
        **resolution,
    }
    extra = samples - (3 if colour else 1)
    return found | ({338: Tag("H", [0] * extra)} if extra else {})


def page_directories(
    layout: Layout, start: int, big: bool, resolution: Mapping[int, Tag], first: Mapping[int, Tag]
) -> Sequence[Directory]:
    """Directories of pages with one strip for each page and sample.

    Parameters
    ----------
    layout : Layout
        The array.
    start : int
        First byte of its pixels.
    big : bool
        Whether the file is BigTIFF.
    resolution, first : mapping
        Tags of every page, and of the first one.
    """
    height, width, samples = layout.sides
    strips = samples if layout.separate else 1
    size = layout.nbytes // max(1, layout.pages * strips)
    kind, common = "Q" if big else "I", page_tags(layout, resolution, height, width)
    found = []
    for page in range(layout.pages):
        offsets = [start + (page * strips + i) * size for i in range(strips)]
        where = {273: Tag(kind, offsets), 278: Tag("I", [height]), 279: Tag(kind, [size] * strips)}
        found.append(Directory({**common, **where, **(first if page == 0 else {})}))
    return found
