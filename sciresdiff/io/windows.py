"""What formats do with the windows of a source: lay more over them, go through all of them, find the middle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import Frame
from sciresdiff.io.planes import NO_VARIANCE, nothing_in, patches
from sciresdiff.io.source import Source, empty
from sciresdiff.notes import Notes
from sciresdiff.region import Region

Array = NDArray[Any]
Cut = Callable[[int, Region], Array]
"""(plane, region) -> values."""
Change = Callable[[Frame, int, Region], Frame]
"""(window, plane, region) -> the window with more laid over it."""

BIT_DEPTHS = (8, 10, 12, 14)
"""Cameras whose values end below the integer type's maximum."""

BAND = 2**22
"""Pixels that are looked at at once."""


def changed(image: Source, change: Change, frame: Frame) -> Source:
    """A source whose windows go through ``change``, and say what ``frame`` says."""

    def cut(plane: int, region: Region) -> Frame:
        window = change(image.cut(plane, region), plane, region)
        return window.with_(notes=frame.notes, facts=frame.facts, psf=frame.psf, quantity=frame.quantity,
                            kernel=frame.kernel, kernel_scale=frame.kernel_scale)  # fmt: skip

    return Source(frame, cut, image.path)


def telling(image: Source, frame: Frame) -> Source:
    """A source with the same values that says what ``frame`` says."""
    return changed(image, lambda window, *_: window, frame)


def bands(image: Source) -> Iterator[Frame]:
    """Every plane, in bands of rows."""
    planes, h, w = image.frame.pixels.shape
    step = max(1, BAND // w)
    for plane in range(planes):
        for y in range(0, h, step):
            yield image.cut(plane, Region(y, min(y + step, h), 0, w))


def looked_through(path: Path, image: Source) -> tuple[float, int]:
    """The largest value, and how many pixels have it; of floats only whether there is one at all.

    Raises
    ------
    InputError
        No number anywhere.
    """
    largest, count = -np.inf, 0
    for band in bands(image):
        if not band.mask.all():
            top = float(np.nanmax(band.pixels))
            count = int((band.pixels == top).sum()) + (count if top == largest else 0) if top >= largest else count
            largest = max(largest, top)
            if image.frame.dtype.kind == "f":
                break
    if largest == -np.inf:
        raise InputError(nothing_in(path))
    return largest, count


def middle(get: Cut, shape: tuple[int, ...]) -> float:
    """The median of a variance, where it is a number."""
    found = np.concatenate([v[np.isfinite(v)] for v in (get(*place) for place in patches(shape))])
    planes, h, w = shape
    rows = ((plane, Region(y, min(y + 64, h), 0, w)) for plane in range(planes) for y in range(0, h, 64))
    while not found.size:
        place = next(rows, None)
        if place is None:
            raise InputError(NO_VARIANCE)
        values = get(*place)
        found = values[np.isfinite(values)]
    return float(np.median(found))


def saturation(image: Source, most: tuple[float, int]) -> Source:
    """Mask pixels at the integer type's maximum, or at the end of a camera's 8 to 14 bits where several lie there."""
    frame, (largest, count) = image.frame, most
    if frame.dtype.kind not in "iu":
        return image
    top = float(np.iinfo(frame.dtype).max)
    camera = largest in [2.0**bits - 1 for bits in BIT_DEPTHS] and frame.dtype.itemsize > 1 and count > 1
    level = np.float32(largest if camera else top)
    full = count if largest == level else 0
    facts = {**frame.facts, "saturation": largest if camera else top}
    if full > 0.5 * frame.pixels.size:
        frame = frame.with_notes(Notes(f"saturation: most pixels are {level:.9g}; taken as values, not masked"))
        return telling(image, frame.with_(facts=facts))
    if full:
        frame = frame.with_notes(Notes(f"saturation: {full} pixels at {level:.9g}, masked"))

    def mark(window: Frame, _plane: int, _region: Region) -> Frame:
        here = window.pixels == level
        return window.with_(saturated=here, mask=window.mask | here)

    return changed(image, mark, frame.with_(facts=facts, saturated=empty(frame.pixels.shape, bool)))
