"""What is measured on a frame is measured on a sample of each plane: all of it, or windows side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import PLANES, Frame
from sciresdiff.io.source import Source
from sciresdiff.notes import Notes
from sciresdiff.region import Region

WHOLE = 2048**2
"""Pixels up to which a plane is its own sample."""
SIDE, WINDOWS = 512, 16
"""Side and number of the windows of a larger one, coarse px."""
STRIP = 6
"""Pixels that are masked on each side of a seam between two windows, so that nothing is measured across it."""
FEWEST = 0.25
"""Share of valid pixels below which the windows with the most of them are taken instead."""


@dataclass(frozen=True)
class Window:
    """A part of a plane, and its place in the sample."""

    region: Region
    at: tuple[slice, slice]


@dataclass(frozen=True)
class Sample:
    """A plane's sample, as a frame of one plane."""

    frame: Frame
    windows: tuple[Window, ...]

    @property
    def whole(self) -> bool:
        """Whether it is the plane itself."""
        return len(self.windows) == 1

    @property
    def pixels(self) -> NDArray[np.float32]:
        """(h, w)."""
        return self.frame.pixels[0]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(h, w), True where nothing is known, and at seams."""
        return self.frame.mask[0]

    def places_of(self, y: NDArray[np.float64], x: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Places of the sample, px, as places of the plane: two (n,) arrays."""
        plane = np.stack([y, x]).astype(np.float64)
        for window in self.windows:
            rows, columns = window.at
            inside = (y >= rows.start - 0.5) & (y < rows.stop - 0.5) & (x >= columns.start - 0.5)
            inside &= x < columns.stop - 0.5
            shift = np.array([window.region.y0 - rows.start, window.region.x0 - columns.start], np.float64)
            plane[:, inside] = np.stack([y, x])[:, inside] + shift[:, None]
        return plane[0], plane[1]

    @property
    def notes(self) -> Notes:
        """Where things were measured, if not everywhere."""
        if self.whole:
            return Notes()
        size = "{} x {}".format(*self.windows[0].region.shape)
        return Notes(f"measured: sky, noise and PSF on {len(self.windows)} windows of {size} px spread over the frame")


Samples = Callable[[int], Sample]
"""Number of a plane -> its sample."""


def samples_of_source(source: Source, saturation: float | None = None) -> Samples:
    """The samples of a source; the last ones, as many as one large plane's worth, are kept."""
    _, h, w = source.frame.pixels.shape

    @lru_cache(max(1, WHOLE // (h * w)))
    def sample(plane: int) -> Sample:
        return _sample_plane(source, plane, saturation)

    return sample


def samples_of_frame(frame: Frame) -> Samples:
    """Every plane of a frame in memory as its own sample."""
    planes = list(frame)
    _, h, w = frame.pixels.shape
    return lambda plane: Sample(planes[plane], (Window(Region(0, h, 0, w), (slice(0, h), slice(0, w))),))


def first_with_data(samples: Samples, planes: int) -> int:
    """Number of the first plane that has a picture: one whose sample is not all masked; 0 where none has.

    What one plane stands for all with (correlation of the noise, the PSF) is measured on it.
    """
    return next((plane for plane in range(planes) if not samples(plane).mask.all()), 0)


def refuse_empty(samples: Samples, planes: int, name: str) -> None:
    """Refuse a frame without a number in it.

    Raises
    ------
    InputError
    """
    if not any(np.isfinite(samples(plane).pixels).any() for plane in range(planes)):
        raise InputError(f"{name}: all pixels are NaN or infinite; nothing to restore from")


def refuse_saturation(samples: Samples, planes: int, level: float | None) -> None:
    """Refuse a saturation level that would mask every pixel.

    Raises
    ------
    UsageError : no finite number, or one below all pixels.
    """
    if level is None:
        return
    if not any((samples(plane).pixels < level).any() for plane in range(planes)):
        raise UsageError(f"--saturation: {level:g} is not above the frame's darkest pixel; give a higher one")


def mask_saturated(frame: Frame, level: float | None) -> Frame:
    """The frame with pixels at or above ``--saturation`` masked."""
    if level is None:
        return frame
    full = frame.pixels >= level
    old = frame.saturated if frame.saturated is not None else np.zeros_like(full)
    return frame.with_(saturated=full | old, mask=frame.mask | full)


def _sample_plane(source: Source, plane: int, saturation: float | None) -> Sample:
    """All of a plane, or windows spread evenly over it; those with the most valid pixels, where it is mostly empty."""
    _, h, w = source.frame.pixels.shape
    if h * w <= WHOLE:
        whole = mask_saturated(source.window(plane, Region(0, h, 0, w)), saturation)
        return Sample(whole, (Window(Region(0, h, 0, w), (slice(0, h), slice(0, w))),))
    rows, columns = _grid(h, w)
    found = _mosaic(source, plane, [(y, x) for y in _spread(h, rows) for x in _spread(w, columns)], columns)
    if (~found.frame.mask & np.isfinite(found.frame.pixels)).mean() < FEWEST:
        found = _mosaic(source, plane, _most_valid(source, plane, rows * columns), columns)
    return Sample(mask_saturated(found.frame, saturation), found.windows)


def _grid(h: int, w: int) -> tuple[int, int]:
    """Rows and columns of windows that do not overlap."""
    rows = max(1, min(4, h // SIDE))
    columns = max(1, min(WINDOWS // rows, w // SIDE))
    return max(1, min(WINDOWS // columns, h // SIDE)), columns


def _spread(length: int, count: int) -> list[int]:
    """First pixels of so many windows along a side, each in the middle of its share."""
    side = min(SIDE, length)
    return [round((i + 0.5) * length / count - side / 2) for i in range(count)]


def _most_valid(source: Source, plane: int, count: int) -> list[tuple[int, int]]:
    """The windows of a grid with the most valid pixels, in the order of their places."""
    _, h, w = source.frame.pixels.shape
    valid = {(y, x): int((~part.mask & np.isfinite(part.pixels)).sum()) for y, x, part in _tiles(source, plane, h, w)}
    best = sorted(valid, key=lambda place: (-valid[place], place))[:count]
    return sorted(best)


def _tiles(source: Source, plane: int, h: int, w: int) -> Iterator[tuple[int, int, Frame]]:
    """Window by window, those that fit."""
    dy, dx = min(SIDE, h), min(SIDE, w)
    for y in range(0, h - dy + 1, dy):
        for x in range(0, w - dx + 1, dx):
            yield y, x, source.window(plane, Region(y, y + dy, x, x + dx))


def _mosaic(source: Source, plane: int, places: list[tuple[int, int]], columns: int) -> Sample:
    """Windows side by side, with a masked strip at their seams."""
    _, h, w = source.frame.pixels.shape
    dy, dx = min(SIDE, h), min(SIDE, w)
    windows = []
    for i, (y, x) in enumerate(places):
        r, c = dy * (i // columns), dx * (i % columns)
        windows.append(Window(Region(y, y + dy, x, x + dx), (slice(r, r + dy), slice(c, c + dx))))
    parts = [source.window(plane, window.region) for window in windows]
    size = (1, dy * (len(places) // columns), dx * columns)
    there = [name for name in PLANES if getattr(parts[0], name) is not None]
    arrays = {name: np.empty(size, getattr(parts[0], name).dtype) for name in there}
    for window, part in zip(windows, parts, strict=True):
        for name, array in arrays.items():
            array[(0, *window.at)] = getattr(part, name)[0]
    arrays["mask"] |= _seams(size, dy, dx)
    return Sample(parts[0].with_(**arrays), tuple(windows))


def _seams(size: tuple[int, int, int], dy: int, dx: int) -> NDArray[np.bool_]:
    """True near the seams, not at the outer border."""
    near = []
    for length, side in ((size[1], dy), (size[2], dx)):
        at = np.arange(length)
        inner = (at >= STRIP) & (at < length - STRIP)
        near.append(inner & ((at % side < STRIP) | (at % side >= side - STRIP)))
    return near[0][None, :, None] | near[1][None, None, :]
