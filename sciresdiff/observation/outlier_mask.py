"""Exposures of one field with what contradicts the others masked: looked for once, and applied to every window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.frame import Frame
from sciresdiff.io.quality_bits import OUTLIER
from sciresdiff.io.source import Source
from sciresdiff.notes import Notes
from sciresdiff.observation.alignment import PixelMap
from sciresdiff.observation.defects import count_objects
from sciresdiff.observation.exposure import Exposure
from sciresdiff.observation.exposure_outliers import (
    Cut,
    FirstRound,
    Shown,
    describe_outliers,
    find_outliers,
    take_first,
)
from sciresdiff.observation.field_change import Change, describe_changes, find_changes, warn_contradiction
from sciresdiff.observation.pixel_set import PixelSet, of_text, to_text
from sciresdiff.region import Region
from sciresdiff.run.findings import Findings

TILE = 512
"""Side of the windows that a whole exposure is looked at by, px."""


@dataclass(frozen=True)
class Calibration:
    """How an exposure's pixels compare with the reference's."""

    sky: float
    """Of the exposure, in its unit."""
    factor: float
    """Its flux over the reference's, per pixel of the reference's size."""
    fwhm: float
    """Of its PSF with the pixel, px of its own."""
    step: float = 1.0
    """Side of its pixels, px of the reference."""
    width_error: float = 0.0
    """Standard error of ``fwhm``, as a share."""


def show_exposure(exposure: Exposure, known: Calibration, maps: tuple[PixelMap, PixelMap], plane: int = 0) -> Shown:
    """An exposure as others are held to it, read by windows; it pickles if the maps do.

    Parameters
    ----------
    exposure : of a file or in memory.
    known : its sky, flux and width.
    maps : px of the exposure -> px of the reference, and back.
    plane : its number.
    """
    read = partial(_read, exposure, known, plane)
    return Shown(read, exposure.grid.shape, *maps, fwhm=known.fwhm, step=known.step, width_error=known.width_error)


def _read(exposure: Exposure, known: Calibration, plane: int, region: Region) -> Cut:
    """A window of an exposure in the units of the reference."""
    window = exposure.window(plane, region)
    values = (window.pixels.astype(np.float64) - known.sky) / known.factor
    variance = np.where(window.valid, window.pixel_variance, 0).astype(np.float64) / known.factor**2
    return Cut(np.where(window.valid, values, 0), variance, ~window.valid, region)


def _flag_outliers(frame: Frame, found: NDArray[np.bool_]) -> Frame:
    """A frame with pixels (1, h, w) masked as outliers."""
    bit = np.where(found, OUTLIER.bit, 0).astype(np.int32)
    return frame.with_(mask=frame.mask | found, flags=bit if frame.flags is None else frame.flags | bit)


def mask_pixels(exposure: Exposure, pixels: PixelSet) -> Exposure:
    """The same exposure, of one plane; its windows have some pixels masked, with the bit of `OUTLIER` in ``flags``.

    Parameters
    ----------
    exposure : of a file or in memory.
    pixels : of it.
    """
    if not len(pixels):
        return exposure
    source = exposure.image
    return replace(exposure, image=Source(source.frame, partial(_cut, source, pixels), source.path))


def _cut(image: Source, pixels: PixelSet, plane: int, region: Region) -> Frame:
    """A window of an exposure with some of its pixels masked."""
    return _flag_outliers(image.window(plane, region), pixels.window(region)[None])


def count_places(pixels: PixelSet) -> int:
    """Number of objects that pixels make up, those that touch each other being one."""
    return count_objects(pixels.window(Region.of_shape(pixels.shape))) if len(pixels) else 0


def regions_of(shape: tuple[int, int], side: int) -> list[Region]:
    """The windows of an exposure (h, w), row by row."""
    h, w = shape
    return [Region(y, min(y + side, h), x, min(x + side, w)) for y in range(0, h, side) for x in range(0, w, side)]


def survey_outliers(
    names: Sequence[str], shown: Sequence[Shown], findings: Findings | None = None, tile: int = TILE
) -> tuple[list[PixelSet], Notes]:
    """Look at all of every exposure once: what contradicts the others, and what changed in the field.

    Parameters
    ----------
    names : of the exposures' files.
    shown : the exposures.
    findings : keeps what is found in each window.
    tile : side of the windows they are read by, px.

    Returns
    -------
    The pixels of every exposure that are to be masked, and the lines about them and about what changed.
    """
    findings = findings or Findings()
    first = [_look_over(f"first {k}", shown, k, tile, findings, _find_first)[0] for k in range(len(shown))]

    def first_round(number: int, region: Region) -> NDArray[np.bool_]:
        return first[number].window(region)

    found, notes = [], Notes()
    for k, name in enumerate(names):
        pixels, changes = _look_over(f"second {k}", shown, k, tile, findings, partial(_find_second, first_round))
        size, others = shown[k].shape[0] * shown[k].shape[1], len(shown) - 1
        notes += describe_outliers(name, len(pixels), count_places(pixels), OUTLIER.bit, others)
        notes += describe_changes(name, sorted(changes, key=lambda change: -abs(change.sigmas)))
        notes += warn_contradiction(name, len(pixels), size)
        found.append(pixels)
    return found, notes


Look = Callable[[Sequence[Shown], int, Region], tuple[NDArray[np.bool_], list[Change]]]
"""(exposures, number of one, window of it) -> pixels (h, w) that are off, and what changed there."""


def _find_first(shown: Sequence[Shown], number: int, region: Region) -> tuple[NDArray[np.bool_], list[Change]]:
    """What the first round takes in a window."""
    return take_first(shown, number, region), []


def _find_second(
    first_round: FirstRound, shown: Sequence[Shown], number: int, region: Region
) -> tuple[NDArray[np.bool_], list[Change]]:
    """What contradicts the others in a window, and what changed in it."""
    changes = find_changes(shown, number, region, first_round)
    return find_outliers(shown, number, region, first_round), changes


def _look_over(
    name: str, shown: Sequence[Shown], number: int, tile: int, findings: Findings, look: Look
) -> tuple[PixelSet, list[Change]]:
    """Look at all of an exposure, window by window."""
    one = shown[number]

    def look_at(region: Region) -> dict[str, Any]:
        off, changed = look([replace(each, read=LastRead(each.read)) for each in shown], number, region)
        at = np.argwhere(off) + np.array([region.y0, region.x0])
        return {"places": to_text(at), "changes": [astuple(change) for change in changed]}

    regions = regions_of(one.shape, tile)
    found = findings.all({f"{name} {r.y0} {r.y1} {r.x0} {r.x1}": partial(look_at, r) for r in regions}).values()
    changes = [Change(*values) for here in found for values in here["changes"]]
    return PixelSet.of_places(one.shape, [of_text(here["places"]) for here in found]), changes


class LastRead:
    """Reads windows of an exposure; one that lies in the last that was read is cut out of it."""

    def __init__(self, read: Callable[[Region], Cut]) -> None:
        """Take the function that reads."""
        self.read = read
        self.last: Cut | None = None

    def __call__(self, region: Region) -> Cut:
        """A window."""
        if self.last is None or not self.last.region.holds(region):
            self.last = self.read(region)
        return self.last.part(region)


def survey_changes(names: Sequence[str], shown: Sequence[Shown], tile: int = TILE) -> Notes:
    """Tell what changed in the field between the first of some exposures and the others; nothing is masked.

    Parameters
    ----------
    names : of the files of all but the first.
    shown : the exposures.
    tile : side of the windows they are read by, px.
    """
    notes = Notes()
    for k, name in enumerate(names, start=1):
        changes = [change for region in regions_of(shown[k].shape, tile) for change in find_changes(shown, k, region)]
        notes += describe_changes(name, sorted(changes, key=lambda change: -abs(change.sigmas)))
    return notes
