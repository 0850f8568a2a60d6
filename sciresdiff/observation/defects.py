"""Pixels that are no data: what they are in a plane is decided once, then marked window by window.

`find_defects` decides for every plane as a whole (levels, numbers that stand for no data, the noise of peaks); `mark`
is a function of that and of the pixels up to `MARGIN` around one, so that blocks, shards and processes agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sciresdiff.frame import Frame, Kind
from sciresdiff.io import quality_bits as bits
from sciresdiff.io.source import Source, in_memory
from sciresdiff.observation import padding, peaks
from sciresdiff.observation.bands import bands_of_plane, variance_of
from sciresdiff.observation.options import Stated
from sciresdiff.observation.peaks import ANY_PSF, UNDERSAMPLED, PeakNoise, sharp_peaks
from sciresdiff.observation.plane_defects import MOST_PEAKS, PlaneDefects, find_plane_defects
from sciresdiff.observation.sample import Sample, Samples, mask_saturated, samples_of_source
from sciresdiff.region import Region

Array = NDArray[Any]
Mask = NDArray[np.bool_]
Flags = NDArray[np.int32]

MARGIN = padding.REACH + peaks.REACH
"""Pixels around a window that decide about those in it."""
PILES = ((0.8, 1.6), (0.5, 2.5))
"""(share, factor): more than ``factor`` times as many sources sharper than T as sharper than ``share`` T are stars; of
cosmic rays 47 Tuc has 1.3 and 2.2 times as many."""
PLANES_LOOKED_AT = 8
"""Planes whose sources are counted for that, at most."""


@dataclass(frozen=True)
class Defects:
    """What is no data in the planes of a file; it pickles."""

    planes: tuple[PlaneDefects, ...]
    shape: tuple[int, int]
    """(h, w) of a plane."""
    kind: Kind
    peaks: bool = True
    """Whether single bright pixels are masked."""
    holes: bool = True
    """Whether dark ones are."""
    least: float = ANY_PSF
    """Mean of a peak's neighbours over the peak, the least that the PSF allows: see `peaks.least_neighbour`."""

    def flags(self, frame: Frame, plane: int) -> Flags:
        """Bits (h, w) of a window of a plane; right but for `MARGIN` pixels at sides where the plane goes on."""
        one, pixels, known = self.planes[plane], frame.pixels[0], frame.mask[0] | ~np.isfinite(frame.pixels[0])
        found = np.where(np.isfinite(pixels), 0, bits.BLANK.bit).astype(np.int32)
        if one.constant:
            return found | np.int32(bits.PADDING.bit)
        found |= one.levels(pixels)
        variance = variance_of(frame)
        if variance is not None and one.unweighted < np.inf:
            found |= np.where(variance >= one.unweighted, bits.ABSURD.bit, 0).astype(np.int32)
        if frame.saturated is not None:
            found |= np.where(frame.saturated[0], bits.SATURATED.bit, 0).astype(np.int32)
        if one.noise is not None and (self.peaks or self.holes):
            up, down = sharp_peaks(pixels, known | (found != 0), one.noise, self.least)
            bright = bits.COSMIC if self.kind == "astro" else bits.HOT
            found |= np.where(up & self.peaks, bright.bit, 0).astype(np.int32)
            found |= np.where(down & self.holes, bits.HOT.bit, 0).astype(np.int32)
        return found

    def mark(self, frame: Frame, plane: int) -> Frame:
        """A window of a plane with what is no data masked, and the reasons in ``flags``."""
        found = self.flags(frame, plane)[None]
        full = bits.where(found, bits.SATURATED)
        saturated = full if frame.saturated is None else frame.saturated | full
        return frame.with_(mask=frame.mask | (found != 0), saturated=saturated, flags=found)

    def window(self, read: Callable[[Region], Frame], plane: int, region: Region) -> Frame:
        """Read a window with the pixels around it that decide about it, and mark it.

        Parameters
        ----------
        read : region -> frame of the plane.
        """
        wide = region.grown(MARGIN, self.shape)
        return in_memory(self.mark(read(wide), plane)).window(0, region.within(wide))


def masked_source(source: Source, defects: Defects, saturation: float | None = None) -> Source:
    """The same image with what is no data masked in every window.

    Parameters
    ----------
    source : the image.
    defects : of its planes.
    saturation : value from which a pixel is saturated, where it is stated.
    """

    def cut(plane: int, region: Region) -> Frame:
        return defects.window(lambda wide: mask_saturated(source.window(plane, wide), saturation), plane, region)

    return Source(source.frame, cut, source.path)


def find_defects(source: Source, stated: Stated) -> Defects:
    """What is no data in an image, as far as it shows without a PSF.

    Parameters
    ----------
    source : the image.
    stated : which kinds are looked for, and the level of saturation.
    """
    frame = source.frame
    shape = (frame.pixels.shape[1], frame.pixels.shape[2])
    samples = samples_of_source(source, stated.saturation)

    def look(plane: int, found: PlaneDefects) -> Sample:
        sample = samples(plane)
        if sample.whole or not found.has_levels:
            return sample
        # the windows of a large plane are chosen for the data in them
        known = Defects((found,) * frame.planes, shape, frame.kind)
        return samples_of_source(masked_source(source, known, stated.saturation))(plane)

    planes = []
    for plane in range(frame.planes):
        bands = bands_of_plane(source, plane, samples(plane), stated.saturation)
        planes.append(find_plane_defects(bands, partial(look, plane), stated))
    if frame.planes == 1 or not stated.padding:  # a single constant image is a fault to be told
        planes = [replace(one, constant=False) for one in planes]
    micro = frame.kind == "micro"
    return Defects(tuple(planes), shape, frame.kind, stated.hot_pixels if micro else stated.cosmic, stated.hot_pixels)


def believed_sharpness(samples: Samples, defects: Defects, least: float) -> float:
    """T of `peaks` as far as the frame's own sources bear it out.

    Where the true PSF is narrower than the stated one, stars pile up just below its T, while cosmic rays are of every
    sharpness. T is lowered until they do not.

    Parameters
    ----------
    samples : of the planes.
    defects : of the planes, for their noise.
    least : T of the stated PSF.
    """
    known = [plane for plane, one in enumerate(defects.planes) if one.noise is not None][:PLANES_LOOKED_AT]
    most = MOST_PEAKS * sum(samples(plane).pixels.size for plane in known)

    @cache
    def count(limit: float) -> int:
        return sum(_count_peaks(samples(plane), defects.planes[plane].noise, limit) for plane in known)

    while least > UNDERSAMPLED:
        here = count(least)
        if here <= most and all(here <= pile * count(share * least) + 5 for share, pile in PILES):
            return least
        least *= PILES[0][0]
    return 0.0


def _count_peaks(sample: Sample, noise: PeakNoise | None, least: float) -> int:
    """Peaks of a sample that are sharper than ``least``, those that are masked as such with them."""
    assert noise is not None
    flags = sample.frame.flags
    peaks = np.zeros(sample.mask.shape, bool) if flags is None else (flags[0] & (bits.COSMIC.bit | bits.HOT.bit)) != 0
    bad = sample.mask & ~peaks | ~np.isfinite(sample.pixels)
    return count_objects(sharp_peaks(sample.pixels, bad, noise, least)[0])


def count_objects(mask: Mask) -> int:
    """Number of objects that the pixels of a mask, (h, w), make up."""
    return int(ndimage.label(mask, np.ones((3, 3)))[1])
