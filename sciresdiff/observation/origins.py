"""Whether files that belong together say that they come from one instrument, and are not one file twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame
from sciresdiff.io.source import Source
from sciresdiff.notes import Notes
from sciresdiff.region import Region

FILTERS = ("FILTER", "FILTER1", "FILTER2", "FILTNAM1", "PUPIL", "BAND")
"""Cards of what was in the light's way."""
OPEN = ("CLEAR", "OPEN", "NONE")
"""Beginnings of values of these that say nothing was."""
INSTRUMENT = ("TELESCOP", "INSTRUME", "DETECTOR", "CCDNUM")
"""Cards of what a PSF belongs to, besides the filter."""
PATCH = 64
"""Side of what is compared of two files, px."""


def cards_of(frame: Frame) -> dict[str, str]:
    """Instrument and filters as the headers of a FITS frame have them; empty where it has none."""
    found: dict[str, str] = {}
    for name in ("primary", "image"):
        found |= _cards(getattr(frame.header, name, None))
    return found


def _cards(header: Any) -> dict[str, str]:
    """Those of one header, in capitals."""
    if header is None:
        return {}
    kept = {key: str(header[key]).strip().upper() for key in (*INSTRUMENT, *FILTERS) if key in header}
    return {key: " ".join(value.split()) for key, value in kept.items() if not value.startswith(OPEN) and value}


def warn_filters(names: Sequence[str], frames: Sequence[Frame]) -> Notes:
    """A warning where exposures were taken through other filters than the first one: their sky is another.

    Parameters
    ----------
    names : of the files.
    frames : of the exposures.
    """
    lines, first = [], cards_of(frames[0])
    for name, frame in zip(names[1:], frames[1:], strict=True):
        here = cards_of(frame)
        for key in FILTERS:
            if key in first and key in here and first[key] != here[key]:
                lines.append(
                    f"WARNING filter: {name}: {key} is {here[key]}, and that of {names[0]} is {first[key]}; one image"
                    " of both is of no band"
                )
                break
    return Notes(*lines)


def warn_instrument(frame: Frame, path: str | Path) -> Notes:
    """A warning where the file of a PSF says that it belongs to another instrument, detector or filter.

    Parameters
    ----------
    frame : whose PSF it is to be.
    path : of the PSF, ``FILE`` or ``FILE[EXT]``, whose own header counts then; others than FITS say nothing.
    """
    from astropy.io import fits

    from sciresdiff.io.files import split_spec

    said, (file, part) = cards_of(frame), split_spec(str(path))
    try:
        with fits.open(file, memmap=True) as hdus:
            named = hdus[:2] if part is None else [hdus[0], hdus[int(part) if part.isdigit() else part]]
            found = {key: value for hdu in named for key, value in _cards(hdu.header).items()}
    except (OSError, ValueError, LookupError):
        return Notes()
    for key in (*INSTRUMENT, "FILTER"):
        if key in said and key in found and said[key] != found[key]:
            return Notes(
                f"WARNING psf: {Path(path).name}: its {key} is {found[key]}, but the frame's is {said[key]}; is it the"
                " frame's PSF?"
            )
    return Notes()


def refuse_twice(names: Sequence[str], paths: Sequence[str | None], sources: Sequence[Source]) -> None:
    """Refuse a file that is given twice, and a copy of one: its noise would count for that of two.

    Raises
    ------
    UsageError : the same path.
    InputError : the same pixels.
    """
    for k, (path, source) in enumerate(zip(paths, sources, strict=True)):
        for j in range(k):
            if path is not None and paths[j] is not None and _place(path) == _place(str(paths[j])):
                raise UsageError(f"--joint: {names[k]} is given twice; give every exposure once")
            if _same(source, sources[j]):
                raise InputError(f"{names[k]}: has the very pixels of {names[j]}; give every exposure once")


def _place(path: str) -> str:
    """A path as it is compared."""
    return str(Path(path).expanduser().absolute())


def _same(one: Source, other: Source) -> bool:
    """Whether two images have the same pixels in their middle."""
    shape = one.frame.pixels.shape
    if shape != other.frame.pixels.shape:
        return False
    y, x = (max(n // 2 - PATCH // 2, 0) for n in shape[-2:])
    region = Region(y, min(y + PATCH, shape[-2]), x, min(x + PATCH, shape[-1]))
    here, there = (source.window(0, region).pixels for source in (one, other))
    finite = np.isfinite(here)
    return bool(finite.any() and np.ptp(here[finite]) > 0 and np.array_equal(here, there, equal_nan=True))
