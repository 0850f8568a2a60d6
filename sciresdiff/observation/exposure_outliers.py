"""Pixels of an exposure that contradict the other exposures of the field: cosmic rays, hot and dead pixels, trails.

A pixel is held to what the others have at its place, as in Astrodrizzle's `driz_cr` (Gonzaga et al. 2012, The
DrizzlePac Handbook, 4.2.8):

    |data - prediction| > 5 sigma + c D + 0.02 |prediction|

with D the largest difference of the prediction between neighbouring pixels, which allows for places and PSFs that are
not quite alike. Everything is decided from pixels at most `HALO` away: a window gives what the whole frame gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, maximum_filter, minimum_filter

from sciresdiff.notes import Notes
from sciresdiff.observation.alignment import PixelMap
from sciresdiff.physics.interpolation import REACH, resample_cubic
from sciresdiff.region import Region

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

FIRST = 5.0
"""Standard deviations of data and prediction that a pixel must be off by."""
BESIDE = 3.0
"""The same beside a pixel that is off."""
ROOM = 0.65
"""Part of the largest error by sampling that is allowed. On dithered stars of FWHM 1.4 to 1.8 px (47 Tuc among them,
PSFs of +-20 %) 0.5 masks 8 of 100,000 clean pixels, all of them cores, and 0.65 masks 1."""
BLUNT = 1.5
"""Ratio of the FWHM from which a blurrier exposure tells nothing of a sharper one's pixels."""
WIDTH_ERRORS = 2.0
"""Standard errors of the widths that are allowed for."""
LEAST_ROOM = 0.1
"""c of exposures whose sampling and PSFs are alike: places that are known to a tenth of a pixel."""
CALIBRATION = 0.02
"""Error of the ratio of the exposures' fluxes, as a share."""
NOISE_OF_STEP = 2.5
"""Standard deviations by which neighbouring pixels of an empty sky differ at the most; they are no part of D."""
DARK_SIGMAS = 4.0
"""Standard deviations by which a dark pixel is off, which has to be below the sky by itself, too."""
DARK = 0.3
"""Share of the others' light below which a pixel is dark."""
CANDIDATE = 3.0
"""Standard deviations above the sky from which a pixel, and those next to it, are looked at."""
HALO = 2 * (REACH + 3)
"""Pixels around a window that decide about it, on exposures of one pixel size."""


FirstRound = Callable[[int, Region], Mask]
"""(number of an exposure, window of it) -> (h, w), what stands out in it against all others."""


@dataclass(frozen=True)
class Cut:
    """A window of an exposure, without its sky and in the flux of the reference; every plane is (h, w)."""

    values: Array
    variance: Array
    bad: Mask
    region: Region
    """Where it lies in its exposure."""

    def with_bad(self, more: Mask) -> Cut:
        """The same with more bad pixels."""
        return replace(self, bad=self.bad | more)

    def part(self, region: Region) -> Cut:
        """The part of it in a region of the exposure."""
        cut = region.within(self.region).slices
        return Cut(self.values[cut], self.variance[cut], self.bad[cut], region)


@dataclass(frozen=True)
class Shown:
    """An exposure as others are held to it."""

    read: Callable[[Region], Cut]
    """A window of it."""
    shape: tuple[int, int]
    to_reference: PixelMap
    from_reference: PixelMap
    fwhm: float
    """Of its PSF with the pixel, px of its own."""
    step: float = 1.0
    """Side of its pixels, px of the reference."""
    width_error: float = 0.0
    """Standard error of ``fwhm``, as a share."""

    @property
    def width(self) -> float:
        """FWHM, px of the reference."""
        return self.fwhm * self.step

    @classmethod
    def of_arrays(
        cls,
        pixels: NDArray[np.floating],
        variance: NDArray[np.floating],
        bad: Mask,
        maps: tuple[PixelMap, PixelMap],
        fwhm: float,
        sky: float = 0.0,
        factor: float = 1.0,
        step: float = 1.0,
    ) -> Shown:
        """An exposure in memory.

        Parameters
        ----------
        pixels, variance, bad : (h, w), unit and unit**2.
        maps : to the reference and back.
        fwhm : px.
        sky : unit.
        factor : its flux over that of the reference, per pixel of the reference's size.
        step : side of its pixels, px of the reference.
        """

        def read(region: Region) -> Cut:
            cut = region.slices
            values = (np.asarray(pixels[cut], np.float64) - sky) / factor
            sound = np.isfinite(values) & ~bad[cut]
            return Cut(np.where(sound, values, 0), np.asarray(variance[cut]) / factor**2, ~sound, region)

        return cls(read, (pixels.shape[0], pixels.shape[1]), *maps, fwhm, step)


def find_outliers(
    exposures: Sequence[Shown], number: int, region: Region, first_round: FirstRound | None = None
) -> Mask:
    """Pixels of a window of an exposure that contradict the other exposures.

    A first round takes what stands out against the lower median of the others, which a cosmic ray at the same place
    does not spoil; a second one leaves out what the first took in the others, and looks beside what is off, too. Where
    nothing of the others is left, the first one counts. With one other exposure only what is too bright is taken.
    **An exposure 1.5 times sharper than all others is not judged; on a star less than its PSF may change is not seen.**

    Parameters
    ----------
    exposures : all of the field.
    number : of the exposure in question.
    region : its window, px of its own.
    first_round : what the first round takes; it is run here without.

    Returns
    -------
    (h, w), True where a pixel is to be masked.
    """
    one, first_round = exposures[number], first_round or partial(take_first, exposures)
    wide = region.grown(2, one.shape)
    cut = one.read(wide)
    clean = others_of(exposures, number, wide, first_round)
    off, judged = _stand_out(one, cut, clean, FIRST)
    off |= first_round(number, wide) & ~judged
    beside = binary_dilation(off, np.ones((3, 3), bool)) & ~off
    off |= _stand_out(one, cut, clean, BESIDE, beside)[0]
    return off[region.within(wide).slices]


def take_first(exposures: Sequence[Shown], number: int, region: Region) -> Mask:
    """Pixels (h, w) of a window of an exposure that stand out against the lower median of the others as they are."""
    one = exposures[number]
    return _stand_out(one, one.read(region), others_of(exposures, number, region), FIRST, sure=False)[0]


def others_of(
    exposures: Sequence[Shown], number: int, region: Region, first_round: FirstRound | None = None
) -> list[tuple[Shown, Cut]]:
    """What the other exposures have in a window of one.

    Parameters
    ----------
    exposures : all of the field.
    number : of the one.
    region : its window, px of its own.
    first_round : takes pixels of the others that are left out; none are without.
    """
    one, found = exposures[number], []
    for k, other in enumerate(exposures):
        if k == number or (area := counterpart(one, region, other)) is None:
            continue
        theirs = other.read(area)
        found.append((other, theirs if first_round is None else theirs.with_bad(first_round(k, area))))
    return found


def counterpart(one: Shown, region: Region, other: Shown) -> Region | None:
    """The window of another exposure that values in a window are made of; None where they do not overlap."""
    y, x = ([a, (a + b - 1) / 2, b - 1] for a, b in ((region.y0, region.y1), (region.x0, region.x1)))
    places = other.from_reference(one.to_reference(np.array([(j, i) for j in y for i in x], float)))
    if not np.isfinite(places).all():
        return None
    low, high = np.floor(places.min(0)).astype(int) - REACH - 1, np.ceil(places.max(0)).astype(int) + REACH + 2
    h, w = other.shape
    y0, y1, x0, x1 = max(low[0], 0), min(high[0], h), max(low[1], 0), min(high[1], w)
    return Region(int(y0), int(y1), int(x0), int(x1)) if y0 < y1 and x0 < x1 else None


def _stand_out(
    one: Shown,
    cut: Cut,
    others: Sequence[tuple[Shown, Cut]],
    sigmas: float,
    where: Mask | None = None,
    sure: bool = True,
) -> tuple[Mask, Mask]:
    """Pixels of a window that are too bright or too dark for what the others have there, and those that were judged.

    ``sure`` where the others are without cosmic rays.
    """
    off, judged = np.zeros(cut.values.shape, bool), np.zeros(cut.values.shape, bool)
    places = np.argwhere(_candidates(cut) if where is None else where & ~cut.bad)
    if not len(places) or not others:
        return off, judged
    found = predict(one, others, places + [cut.region.y0, cut.region.x0])
    rank = np.argsort(np.where(found.valid, found.values, np.inf), axis=0, kind="stable")
    count, every, mine = found.valid.sum(0), np.arange(len(places)), tuple(places.T)
    data, noise = cut.values[mine], cut.variance[mine]
    for sign in (1, -1):
        # of an even number of others the lower one where cosmic rays may be in them, else that nearer to the data
        upper = count // 2 if sure and sign > 0 else (count - 1) // 2
        which = rank[np.clip(upper, 0, len(others) - 1), every], every
        p, room = found.values[which], found.room[which] * sigmas / FIRST
        room = (
            room
            + (sigmas if sign > 0 else DARK_SIGMAS) * np.sqrt(noise + found.variance[which])
            + CALIBRATION * np.abs(p)
        )
        # cosmic rays in two of three exposures make the third one look dark, but not darker than the sky
        dark = (count >= 2) & ((data < -CANDIDATE * np.sqrt(noise)) | (count >= 3) & (data < DARK * p))
        off[mine] |= (sign * (data - p) > room) & (dark if sign < 0 else count >= 1)
    judged[mine] = count >= 1
    return off, judged


def _candidates(cut: Cut) -> Mask:
    """Pixels that may be off: bright ones and those next to them, and those well below the sky."""
    significance = np.where(cut.bad, 0, cut.values / np.sqrt(np.maximum(cut.variance, 1e-300)))
    return np.asarray((maximum_filter(significance, 3) > CANDIDATE) | (significance < -CANDIDATE)) & ~cut.bad


@dataclass(frozen=True)
class Predictions:
    """What each of the m other exposures has at n places; every plane is (m, n)."""

    values: Array
    variance: Array
    valid: Mask
    room: Array
    """c D: by how much an exposure of another place and PSF may differ."""


def predict(one: Shown, others: Sequence[tuple[Shown, Cut]], places: Array) -> Predictions:
    """Predict an exposure at some of its pixels from what others have there.

    Parameters
    ----------
    one : the exposure.
    others : with their windows, which reach far enough.
    places : (n, 2), px of the exposure.
    """
    at_reference = one.to_reference(places.astype(float))
    found, rooms = [], []
    for other, theirs in others:
        at = (other.from_reference(at_reference) - [theirs.region.y0, theirs.region.x0]).T
        got = resample_cubic(theirs.values, theirs.variance, theirs.bad, at)
        filled = np.where(theirs.bad, 0, theirs.values)
        nearest = [
            np.clip(np.rint(np.nan_to_num(v)).astype(int), 0, n - 1) for v, n in zip(at, filled.shape, strict=True)
        ]
        above, below = (f(filled, 3)[*nearest] for f in (maximum_filter, minimum_filter))
        # beside a sharp star cubic convolution goes below the sky: no value lies below all those around it
        value = np.maximum(got.values, below)
        difference = np.maximum(above - value, value - below)
        difference = np.maximum(difference - NOISE_OF_STEP * np.sqrt(theirs.variance[*nearest]), 0)
        room = _room(one, other)
        rooms.append((room if np.isfinite(room) else 0.0) * difference)
        found.append(replace(got, values=value, valid=got.valid & np.isfinite(room)))
    return Predictions(
        np.stack([got.values for got in found]),
        np.stack([got.variance for got in found]),
        np.stack([got.valid for got in found]),
        np.stack(rooms),
    )


def _room(one: Shown, other: Shown) -> float:
    """c for the prediction by another exposure: what sampling and PSF may change at the peak of a Gaussian.

    Between four pixels cubic convolution has p = (9/8 g(1/2) - 1/8 g(3/2))^2 of a peak of 1, with
    g(r) = exp(-4 ln 2 r^2 / b^2), and 1 - p is lost: in units of what p is above the darkest pixel next to it.
    Gaussians of FWHM a and b always differ by |b^2 / a^2 - 1| of the second one's peak, and as their widths are not
    known better by the errors of these more: in units of what a peak on a pixel is above that, 1 - g(2^1/2).
    Infinite for an exposure that is too blurred.
    """
    a, b = max(one.width / other.step, 1.0), max(other.fwhm, 1.0)
    half, three_halves = (np.exp(-4 * np.log(2) * r**2 / b**2) for r in (0.5, 1.5))
    p = (1.125 * half - 0.125 * three_halves) ** 2
    step = p - half * three_halves
    if b > BLUNT * a:
        return float("inf")
    unknown = WIDTH_ERRORS * 2 * np.hypot(one.width_error, other.width_error) * b**2 / a**2
    other_peak = (abs(b**2 / a**2 - 1) + unknown) * p / (1 - half**8)
    return float(ROOM * (1 - p) / step + other_peak + LEAST_ROOM)


def describe_outliers(name: str, pixels: int, objects: int, bit: int, others: int) -> Notes:
    """The line about the pixels of an exposure that contradict the others.

    Parameters
    ----------
    name : of its file.
    pixels, objects : how many, and in how many places.
    bit : of DQ.
    others : number of the other exposures.
    """
    if not pixels:
        return Notes()
    against = "the other exposure" if others == 1 else f"{others} other exposures"
    return Notes(
        f"cosmic rays: {name}: {pixels} pixel{'s' if pixels > 1 else ''} in {objects} place{'s' if objects > 1 else ''}"
        f" that contradict{'s' if pixels == 1 else ''} {against} masked (DQ {bit}); --no-cosmic keeps"
        f" {'them' if pixels > 1 else 'it'}"
    )
