"""Pixels that are no data: what they are in a plane is decided once, then marked window by window.

`find_defects` measures every plane on its sample (levels, numbers that stand for no data, the noise of peaks); `mark`
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
from sciresdiff.io.source import BAND, Source, in_memory
from sciresdiff.observation import padding, peaks
from sciresdiff.observation.flat_tops import saturation_level
from sciresdiff.observation.options import Stated
from sciresdiff.observation.outliers import absurd_level, count_magnitudes, find_sentinels
from sciresdiff.observation.padding import Padding, find_padding, mark_padding
from sciresdiff.observation.peaks import ANY_PSF, UNDERSAMPLED, PeakNoise, measure_peak_noise, sharp_peaks
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
MOST_PEAKS = 0.02
"""Share of the pixels that single peaks may be; where there are more the noise is another than is thought."""
PLANES_LOOKED_AT = 8
"""Planes whose sources are counted for that, at most."""


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
        found |= _bits_of_levels(pixels, one)
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
    samples, frame = samples_of_source(source, stated.saturation), source.frame
    planes = tuple(
        _defects_of(samples(plane), stated, partial(_magnitudes, source, plane)) for plane in range(frame.planes)
    )
    if frame.planes == 1 or not stated.padding:  # a single constant image is a fault to be told
        planes = tuple(replace(one, constant=False) for one in planes)
    micro = frame.kind == "micro"
    return Defects(
        planes,
        (frame.pixels.shape[1], frame.pixels.shape[2]),
        frame.kind,
        stated.hot_pixels if micro else stated.cosmic,
        stated.hot_pixels,
    )


def _defects_of(sample: Sample, stated: Stated, magnitudes: Callable[[], NDArray[np.int64]]) -> PlaneDefects:
    """What is no data in a plane, one kind after the other, each without what is known already."""
    pixels, bad = sample.pixels, sample.mask | ~np.isfinite(sample.pixels)
    valid, finite = pixels[~bad], pixels[np.isfinite(pixels)]
    if not valid.size or finite.min() == finite.max():
        return PlaneDefects(constant=bool(finite.size) and bool(finite.min() == finite.max()))
    found = PlaneDefects()

    def unknown() -> Mask:
        return bad | (_bits_of_levels(pixels, found) != 0)

    if stated.absurd:
        # a single pixel may lie outside of the sample of a large plane
        found = replace(found, absurd=absurd_level(count_magnitudes(valid) if sample.whole else magnitudes()))
    if stated.padding:
        found = replace(found, padding=find_padding(pixels, unknown()))
    if stated.sentinels:
        found = replace(found, sentinels=find_sentinels(pixels, unknown()))
    noise = measure_peak_noise(pixels, unknown())
    if stated.saturated and stated.saturation is None:
        found = replace(found, saturation=saturation_level(pixels, unknown(), noise))
    return replace(found, noise=noise if noise and _are_peaks_rare(pixels, unknown(), noise) else None)


def _are_peaks_rare(pixels: Array, bad: Mask, noise: PeakNoise) -> bool:
    """Whether few pixels are sharper than any light, as defects are."""
    return int(np.sum(sharp_peaks(pixels, bad, noise, ANY_PSF))) < MOST_PEAKS * pixels.size


def _bits_of_levels(pixels: Array, one: PlaneDefects) -> Flags:
    """Bits (h, w) of what the value of a pixel, or those in a row with it, decide."""
    with np.errstate(invalid="ignore"):
        found = np.where(np.abs(pixels) >= one.absurd, bits.ABSURD.bit, 0).astype(np.int32)
        found |= np.where(mark_padding(pixels, one.padding), bits.PADDING.bit, 0).astype(np.int32)
        if one.sentinels:
            found |= np.where(np.isin(pixels, one.sentinels), bits.SENTINEL.bit, 0).astype(np.int32)
        full = (pixels >= one.saturation) & (found == 0)
    return np.asarray(np.where(full, found | bits.SATURATED.bit, found), np.int32)


def _magnitudes(source: Source, plane: int) -> NDArray[np.int64]:
    """Counts of the magnitudes of all pixels of a plane, which is read by bands of rows."""
    _, h, w = source.frame.pixels.shape
    step = max(1, BAND // w)
    bands = (source.window(plane, Region(y, min(y + step, h), 0, w)) for y in range(0, h, step))
    return np.sum([count_magnitudes(np.where(band.mask, np.nan, band.pixels)) for band in bands], axis=0)


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
