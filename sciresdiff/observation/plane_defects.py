"""What is no data in a plane, decided on all of its pixels, which are read by bands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.io import quality_bits as bits
from sciresdiff.observation.bands import Band, Bands
from sciresdiff.observation.flat_tops import count_tops, saturation_level
from sciresdiff.observation.options import Stated
from sciresdiff.observation.outliers import absurd_level, count_magnitudes, exponent_of, find_ends, find_sentinels
from sciresdiff.observation.padding import BOXES, Padding, constant_values, find_padding, mark_padding
from sciresdiff.observation.peaks import ANY_PSF, PeakNoise, measure_peak_noise, sharp_peaks
from sciresdiff.observation.sample import Sample

Array = NDArray[Any]
Mask = NDArray[np.bool_]
Flags = NDArray[np.int32]

LEVELS = (bits.BLANK, bits.SENTINEL, bits.PADDING, bits.ABSURD, bits.SATURATED)
"""Kinds that the value of a pixel, or those in a row with it, decide."""
MOST_PEAKS = 0.02
"""Share of the pixels that single peaks may be; where there are more the noise is another than is thought."""


@dataclass(frozen=True)
class PlaneDefects:
    """What is no data in a plane."""

    absurd: float = np.inf
    """Magnitude from which on a pixel is absurd, the file's unit."""
    padding: tuple[Padding, ...] = ()
    sentinels: tuple[float, ...] = ()
    saturation: float = np.inf
    """Value from which on it is saturated."""
    noise: PeakNoise | None = None
    """What single pixels are held against; None: they are not looked for."""
    constant: bool = False
    """Whether all of it is one value."""
    unweighted: float = np.inf
    """Variance from which on it weighs nothing, the file's unit squared."""
    unweighted_count: int = 0
    """Pixels with such a variance in all of the plane."""
    counts: tuple[int, ...] = (0,) * len(LEVELS)
    """Pixels of each of `LEVELS` in all of the plane."""
    sources: int = 0
    """Objects that the saturated ones make up."""

    def levels(self, pixels: Array) -> Flags:
        """Bits (h, w) of what the value of a pixel, or those in a row with it, decide; blank ones aside."""
        if not self.has_levels:
            return np.zeros(pixels.shape, np.int32)
        with np.errstate(invalid="ignore"):
            found = np.where(np.abs(pixels) >= self.absurd, bits.ABSURD.bit, 0).astype(np.int32)
            found |= np.where(mark_padding(pixels, self.padding), bits.PADDING.bit, 0).astype(np.int32)
            if self.sentinels:
                found |= np.where(np.isin(pixels, self.sentinels), bits.SENTINEL.bit, 0).astype(np.int32)
            full = (pixels >= self.saturation) & (found == 0)
        return np.asarray(np.where(full, found | bits.SATURATED.bit, found), np.int32)

    @property
    def has_levels(self) -> bool:
        """Whether any finite pixel is no data by its value."""
        return bool(self.padding or self.sentinels) or min(self.absurd, self.saturation) < np.inf


@dataclass(frozen=True)
class Range:
    """What the first look at a plane tells."""

    magnitudes: NDArray[np.int64]
    """As of `outliers.count_magnitudes`."""
    valid: int
    """Pixels that are not masked."""
    blank: int
    """Pixels without a finite value."""
    least: float
    """The least finite value, that of masked pixels among them."""
    greatest: float
    deviations: NDArray[np.int64]
    """As `magnitudes`, of the noise's standard deviation that the file states."""


def find_plane_defects(bands: Bands, look: Callable[[PlaneDefects], Sample], stated: Stated) -> PlaneDefects:
    """What is no data in a plane, one kind after the other, each without what is known already.

    Single exact values are looked for in all pixels; what most pixels are like (median, noise) is measured on a sample.

    Parameters
    ----------
    bands : all of the plane.
    look : a sample of the plane without what is known.
    stated : which kinds are looked for.
    """
    first = measure_range(bands)
    unweighted = absurd_level(first.deviations) if stated.absurd else np.inf
    beyond = int(first.deviations[exponent_of(unweighted) :].sum()) if unweighted < np.inf else 0
    counts = (first.blank, *(0 for _ in LEVELS[1:]))
    found = PlaneDefects(counts=counts, unweighted=unweighted**2, unweighted_count=beyond)
    if not first.valid or first.least == first.greatest:
        return replace(found, constant=first.least == first.greatest)

    def rest() -> Iterator[Band]:
        return (band.without(found.levels(band.pixels) != 0) for band in bands()) if found.has_levels else bands()

    sample = look(found)

    def unknown() -> Mask:
        return sample.mask | ~np.isfinite(sample.pixels) | (found.levels(sample.pixels) != 0)

    if stated.absurd:
        found = replace(found, absurd=absurd_level(first.magnitudes))
    if stated.padding and (values := constant_values(rest)):
        blocks = tuple(Padding(value, BOXES[0]) for value in values)
        picture = look(replace(found, padding=blocks))
        bad = picture.mask | ~np.isfinite(picture.pixels) | (found.levels(picture.pixels) != 0)
        found = replace(found, padding=find_padding(rest, values, picture.pixels, bad))
        sample = look(found)
    ends = find_ends(band.valid for band in rest())
    if stated.sentinels:
        found = replace(found, sentinels=find_sentinels(ends, sample.pixels[~unknown()]))
        for value in found.sentinels:
            ends = ends.without(value)
    noise = measure_peak_noise(sample.pixels, unknown())
    if stated.saturated and stated.saturation is None and ends.size:
        found = replace(found, saturation=saturation_level(rest, float(ends.high[0][-1]), noise))
    keep = noise is not None and _are_peaks_rare(sample.pixels, unknown(), noise)
    return count_levels(bands, replace(found, noise=noise if keep else None))


def measure_range(bands: Bands) -> Range:
    """The first look at a plane."""
    magnitudes, valid, blank, least, greatest = count_magnitudes(np.zeros(0)), 0, 0, np.inf, -np.inf
    deviations = magnitudes
    for band in bands():
        pixels, good = band.pixels[band.core], band.valid
        finite = np.isfinite(pixels)
        magnitudes = magnitudes + count_magnitudes(good)
        valid, blank = valid + good.size, blank + int((~finite).sum())
        least = float(np.min(pixels, initial=least, where=finite))
        greatest = float(np.max(pixels, initial=greatest, where=finite))
        if band.variance is not None:
            variance = band.variance[band.core]
            deviations = deviations + count_magnitudes(np.sqrt(variance[variance > 0]))
    return Range(magnitudes, valid, blank, least, greatest, deviations)


def count_levels(bands: Bands, found: PlaneDefects) -> PlaneDefects:
    """The same with the pixels of each kind counted in all of the plane."""
    if not found.has_levels:
        return found
    counts, sources = np.zeros(len(LEVELS), np.int64), 0
    for band in bands():
        flags = found.levels(band.pixels)
        blank = int((~np.isfinite(band.pixels[band.core])).sum())
        counts += (blank, *(int(bits.where(flags[band.core], kind).sum()) for kind in LEVELS[1:]))
        sources += count_tops(bits.where(flags, bits.SATURATED), band.core, 1)[0]
    return replace(found, counts=tuple(map(int, counts)), sources=sources)


def _are_peaks_rare(pixels: Array, bad: Mask, noise: PeakNoise) -> bool:
    """Whether few pixels are sharper than any light, as defects are."""
    return int(np.sum(sharp_peaks(pixels, bad, noise, ANY_PSF))) < MOST_PEAKS * pixels.size
