"""Masks that are the wrong way round: 1 where a pixel is good, as several surveys and programs write them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import Frame
from sciresdiff.io.sampling import is_whole, sample_regions
from sciresdiff.notes import Notes
from sciresdiff.region import Region

Part = tuple[Frame, NDArray[np.bool_]]
"""A window of the image without the mask, and what the mask flags there, both (1, h, w)."""

MOST_MASKED = 0.8
"""Share of the pixels with data beyond which a mask is doubtful whatever it leaves."""

HALF = 0.5
"""A mask of more than this share of the data is doubtful if less than this share of what it leaves holds data."""


def warn_inverted(name: str, parts: Iterable[Part], whole: bool) -> Notes:
    """Warn of a mask that flags nearly all pixels with data, or that leaves mainly pixels without.

    Parameters
    ----------
    name : str
        Of the mask, for the user.
    parts : iterable of (Frame, bool array)
        Windows of the image, and what the mask flags there. A pixel has data if it is finite, not masked otherwise and
        not 0, with which borders are filled.
    whole : bool
        Whether the windows are all of the image.

    Raises
    ------
    InputError
        All of the image is flagged.
    """
    flagged = data = left = empty = 0
    for frame, bad in parts:
        there = np.isfinite(frame.pixels) & ~frame.mask & (frame.pixels != 0)
        data += int(there.sum())
        flagged += int((there & bad).sum())
        left += int((~bad).sum())
        empty += int((~bad & ~there).sum())
    if not data:
        return Notes()
    if flagged == data and whole:
        raise InputError(
            f"mask: {name} flags every pixel that holds data; what is not 0 in a mask is bad: if these are the good "
            "pixels, invert it and give it with --mask"
        )
    share = flagged / data
    if share <= MOST_MASKED and not (share > HALF and empty > HALF * left):
        return Notes()
    text = "all" if flagged == data else f"{100 * share:.3g} % of the"
    return Notes(
        f"WARNING mask: {name} flags {text} pixels that hold data; what is not 0 in a mask is bad: if these are the "
        "good pixels, invert it and give it with --mask"
    )


def check_mask(
    name: str,
    shape: tuple[int, ...],
    window: Callable[[int, Region], Frame],
    read: Callable[[int, Region], NDArray[np.bool_]],
) -> Notes:
    """Apply `warn_inverted` to an image that is read region by region, on a sample of a large one.

    Parameters
    ----------
    name : str
        Of the mask, for the user.
    shape : (planes, Y, X)
        Of the image.
    window : callable
        (plane, region) -> the image there, without the mask.
    read : callable
        (plane, region) -> (1, h, w), True where the mask flags.
    """
    places = sample_regions(shape)
    return warn_inverted(name, ((window(*place), read(*place)) for place in places), is_whole(shape))
