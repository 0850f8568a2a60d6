"""The detector: from the expected electrons of a pixel to the number that is read out, and its variance."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import UsageError
from sciresdiff.physics.variance_model import VarianceModel
from sciresdiff.region import Region

Array = NDArray[np.float64]
Number = float | NDArray[Any]


@dataclass(frozen=True)
class Readout:
    """A frame as it comes from the detector."""

    pixels: Array
    """ADU, offset, sky and dark current still in it."""
    saturated: NDArray[np.bool_]
    """True where the full well or the converter's limit was reached."""


def excess_of_multiplication(em_gain: float) -> float:
    """Excess noise factor F^2 of an electron multiplier of many stages: 2 - 1 / M of mean multiplication M.

    Robbins & Hadwen (2003), IEEE Trans. Electron Devices 50, 1227: F^2 = 2 (M - 1) M^(-(n + 1) / n) + 1 / M of n
    stages, for many of them. 1 without multiplication, 2 at a high one.
    """
    return 2 - 1 / em_gain


@dataclass(frozen=True)
class Detector:
    """Noise model of a camera, per pixel; every number may be an array of the frame's shape.

    Raises
    ------
    UsageError
        A gain that is not above 0, a negative or infinite number elsewhere, bits outside 1 ... 32.
    """

    gain: Number = 1.0
    """Electrons per ADU."""
    read_noise: Number = 0.0
    """Electrons, standard deviation."""
    dark: Number = 0.0
    """Electrons of dark current in the exposure."""
    sky: Number = 0.0
    """Electrons of sky in the exposure, on top of what the image holds."""
    full_well: Number | None = None
    """Electrons at which a pixel is full."""
    bits: int | None = None
    """Of the analogue-to-digital converter: whole numbers from 0 to 2^bits - 1; None leaves fractions."""
    offset: Number = 0.0
    """Bias level, ADU: what a pixel without light reads."""
    excess: Number = 1.0
    """Excess noise factor F^2 of an electron multiplier: 1 without, 2 for an EMCCD at high gain."""
    photons: bool = True
    """Whether light comes in quanta; off where the gain is not known."""

    def __post_init__(self) -> None:
        """Check that every number is one that a detector can have."""
        for item in fields(self):
            value = getattr(self, item.name)
            option = "--" + item.name.replace("_", "-")
            if value is None or item.name in ("photons", "offset"):
                continue
            if not np.all(np.isfinite(value)) or np.any(np.asarray(value) < 0):
                raise UsageError(f"{option}: {value} is no number of 0 or more")
            if item.name in ("gain", "full_well") and not np.all(np.asarray(value) > 0):
                raise UsageError(f"{option}: {value} is given, but has to be above 0")
        if np.any(np.asarray(self.excess) < 1):
            raise UsageError(f"excess: {self.excess} is below 1; F^2 is 1 without multiplication, 2 for an EMCCD")
        if self.bits is not None and not 1 <= self.bits <= 32:
            raise UsageError(f"--bits: {self.bits} is given; give 1 to 32")

    @property
    def pedestal(self) -> Number:
        """ADU that a pixel without an image reads on average: offset, sky and dark current."""
        return self.offset + (self.sky + self.dark) / self.gain

    @property
    def limit(self) -> Number:
        """ADU at which a pixel is saturated, infinity without a full well or bits."""
        full = np.inf if self.full_well is None else self.full_well / self.gain + self.offset
        return np.minimum(full, np.inf if self.bits is None else 2.0**self.bits - 1)

    @property
    def noisy(self) -> bool:
        """Whether anything here changes what is read from what is expected."""
        still = not np.any(self.read_noise) and self.full_well is None and self.bits is None
        return self.photons or not still

    def expose(self, rate: NDArray[Any], rng: np.random.Generator) -> Readout:
        """Read out a frame: photons, dark current, sky, full well, multiplication, read noise, gain, offset, converter.

        Parameters
        ----------
        rate : (Y, X) array, or any shape
            Electrons that the image alone gives on average. A negative expectation, as in a frame whose sky is
            subtracted, passes without photon noise, so that the mean is kept.
        rng : numpy.random.Generator

        Returns
        -------
        Readout
            Of the shape of ``rate``; its mean is ``rate / gain + pedestal`` **except where it saturates or is cut off
            at 0 ADU**.
        """
        expected = np.asarray(rate, np.float64) + self.sky + self.dark
        electrons = np.where(expected > 0, self._draw_photons(np.maximum(expected, 0), rng), expected)
        full = np.zeros(electrons.shape, bool)
        if self.full_well is not None:
            full, electrons = electrons >= self.full_well, np.minimum(electrons, self.full_well)
        electrons = self._multiply(electrons, rng)
        if np.any(self.read_noise):
            electrons = electrons + self.read_noise * rng.standard_normal(electrons.shape)
        adu = electrons / self.gain + self.offset
        if self.bits is not None:
            top = 2.0**self.bits - 1
            full, adu = full | (adu >= top), np.clip(np.rint(adu), 0, top)
        return Readout(adu, full)

    def _draw_photons(self, expected: Array, rng: np.random.Generator) -> Array:
        """Poisson numbers; beyond 1e9, the normal ones that they become."""
        if not self.photons:
            return expected
        many = expected > 1e9
        drawn = rng.poisson(np.where(many, 0.0, expected)).astype(np.float64)
        return np.where(many, expected + np.sqrt(expected) * rng.standard_normal(expected.shape), drawn)

    def _multiply(self, electrons: Array, rng: np.random.Generator) -> Array:
        """The gain register: n electrons become a gamma-distributed number of mean n and variance n (F^2 - 1)."""
        if not self.photons or np.all(np.asarray(self.excess) == 1):
            return electrons
        spread = np.broadcast_to(np.asarray(self.excess, np.float64) - 1, electrons.shape)
        active = (electrons > 0) & (spread > 0)
        drawn = rng.gamma(np.where(active, electrons / np.where(active, spread, 1), 1.0), np.where(active, spread, 1.0))
        return np.where(active, drawn, electrons)

    def sample(self, rate: NDArray[Any], rng: np.random.Generator) -> Array:
        """The pixels of `expose`, ADU.

        Parameters
        ----------
        rate : (Y, X) array, or any shape
            Electrons that the image alone gives on average.
        rng : numpy.random.Generator
        """
        return self.expose(rate, rng).pixels

    @property
    def model(self) -> VarianceModel:
        """Variance as a function of the expected value, ADU^2: F^2 max(e - offset, 0) / gain + (read_noise / gain)^2,
        and 1/12 for the rounding of a converter."""
        rounding = 0.0 if self.bits is None else 1 / 12
        floor = np.square(np.asarray(self.read_noise, np.float64) / self.gain) + rounding
        slope = self.excess / np.asarray(self.gain, np.float64) if self.photons else 0.0
        return VarianceModel(floor, slope, self.offset)

    def variance(self, expected: NDArray[Any]) -> Array:
        """Variance of pixels, ADU^2; see `model`.

        **A saturated pixel has no meaningful variance.** At few photons a measured value must not stand for the
        expectation: pixels that fluctuated down would get too small a variance (`physics.expectation`).

        Parameters
        ----------
        expected : (Y, X) array, or any shape
            Their expected values, ADU, pedestal still in them.
        """
        return np.asarray(self.model.at(np.asarray(expected, np.float64)) + np.zeros(np.shape(expected)))

    def crop(self, region: Region) -> Detector:
        """The detector of a part of the frame: maps are cut."""
        known: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        maps: dict[str, Any] = {n: v[region.slices] for n, v in known.items() if isinstance(v, np.ndarray) and v.ndim}
        return replace(self, **maps)
