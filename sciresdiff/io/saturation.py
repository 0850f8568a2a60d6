"""Saturated pixels of camera images whose files do not state a level: those at the end of the integer range."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sciresdiff.errors import InputError
from sciresdiff.frame import Frame
from sciresdiff.io.quality_bits import SATURATED
from sciresdiff.io.source import Source, iter_bands, no_finite_pixel, overlay, placeholder, replace_frame
from sciresdiff.notes import Notes
from sciresdiff.region import Region

BIT_DEPTHS = (8, 10, 12, 14)
"""Cameras whose converter has fewer bits than the integer type of the file."""

MASKED = f"masked (DQ {SATURATED.bit}); {SATURATED.option} keeps them"
"""End of the lines about saturated pixels."""

MOST_SATURATED = 0.5
"""Share of pixels at the level beyond which they are taken as values (a binary image, an empty background)."""


def scan_maximum(path: Path, source: Source) -> tuple[float, int]:
    """Find the largest value of an image, and how many pixels have it.

    Of floating-point images only the first band with a finite pixel is read: their type has no level of saturation.

    Raises
    ------
    InputError
        No pixel is finite.
    """
    largest, count = -np.inf, 0
    for band in iter_bands(source):
        if not band.mask.all():
            top = float(np.nanmax(band.pixels))
            count = int((band.pixels == top).sum()) + (count if top == largest else 0) if top >= largest else count
            largest = max(largest, top)
            if source.frame.dtype.kind == "f":
                break
    if largest == -np.inf:
        raise InputError(no_finite_pixel(path))
    return largest, count


def mask_saturated(source: Source, maximum: tuple[float, int]) -> Source:
    """Mask pixels at the maximum of the integer type, or of a camera of 8 to 14 bits.

    Parameters
    ----------
    source : Source
        The image; floating-point images are returned as they are.
    maximum : (float, int)
        Largest value and its count, from `scan_maximum`. A value of ``2**bits - 1`` is a camera's limit only if
        several pixels have it.
    """
    frame, (largest, count) = source.frame, maximum
    if frame.dtype.kind not in "iu":
        return source
    top = float(np.iinfo(frame.dtype).max)
    # 12-bit data in uint16 saturate at 4095; a lone pixel of that value may be chance
    camera = largest in [2.0**bits - 1 for bits in BIT_DEPTHS] and frame.dtype.itemsize > 1 and count > 1
    level = np.float32(largest if camera else top)
    full = count if largest == level else 0
    facts = {**frame.facts, "saturation": largest if camera else top}
    if full > MOST_SATURATED * frame.pixels.size:
        notes = Notes(f"saturation: most pixels are {level:.9g}; taken as values, not masked")
        return replace_frame(source, frame.with_notes(notes).with_(facts=facts))
    if full:
        frame = frame.with_notes(Notes(f"saturation: {full} pixels at {level:.9g}, {MASKED}"))

    def mark(window: Frame, _plane: int, _region: Region) -> Frame:
        here = window.pixels == level
        return window.with_(saturated=here, mask=window.mask | here)

    return overlay(source, mark, frame.with_(facts=facts, saturated=placeholder(frame.pixels.shape, bool)))
