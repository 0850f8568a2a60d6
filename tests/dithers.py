"""Small exposures of one field, each with its own place, turn, PSF, exposure time, noise and cosmic rays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Sky:
    """Gaussian sources on the reference's pixels."""

    places: Array
    """(n, 2), px."""
    flux: Array
    """(n,) electrons in an exposure of time 1."""
    size: Array
    """(n,) standard deviation before the PSF, px; 0 of stars."""
    level: float = 15.0
    """Electrons per pixel of the empty sky."""


@dataclass(frozen=True)
class Taken:
    """One exposure."""

    pixels: Array
    variance: Array
    clean: Array
    """Without noise and cosmic rays."""
    cosmic: Mask
    """Where cosmic rays are."""
    matrix: Array
    shift: Array
    time: float
    sigma: float

    def to_reference(self, places: Array) -> Array:
        """Where places (..., 2) of this exposure lie on the reference's pixels."""
        middle = (np.array(self.pixels.shape) - 1) / 2
        return np.asarray((places - middle) @ self.matrix.T + middle + self.shift)

    def from_reference(self, places: Array) -> Array:
        """The way back."""
        middle = (np.array(self.pixels.shape) - 1) / 2
        return np.asarray((places - middle - self.shift) @ np.linalg.inv(self.matrix).T + middle)


def turn(degrees: float, scale: float = 1.0) -> Array:
    """(2, 2) matrix of a rotation, for (y, x)."""
    t = np.deg2rad(degrees)
    return scale * np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])


def make_sky(rng: np.random.Generator, side: int, stars: int = 60, galaxies: int = 10, brightest: float = 5.0) -> Sky:
    """A field of stars and round galaxies, which reaches beyond the frame."""
    n = stars + galaxies
    size = np.r_[np.zeros(stars), rng.uniform(1.0, 3.0, galaxies)]
    flux = np.r_[10 ** rng.uniform(2.5, brightest, stars), 10 ** rng.uniform(3.5, 4.5, galaxies)]
    return Sky(rng.uniform(-6, side + 6, (n, 2)), flux, size)


def draw(sky: Sky, shape: tuple[int, int], places: Array, sigma: float, area: float = 1.0) -> Array:
    """The field on a frame, integrated over its pixels: no sampling of anything is assumed."""
    image = np.full(shape, sky.level * area)
    for (y, x), flux, size in zip(places, sky.flux, sky.size, strict=True):
        width = np.hypot(size, sigma) * np.sqrt(2)
        lines = [np.diff(erf((np.arange(n + 1) - 0.5 - c) / width)) / 2 for n, c in zip(shape, (y, x), strict=True)]
        image += flux * np.outer(*lines)
    return image


def expose(
    sky: Sky,
    rng: np.random.Generator,
    side: int,
    *,
    shift: tuple[float, float] = (0.0, 0.0),
    degrees: float = 0.0,
    scale: float = 1.0,
    time: float = 1.0,
    sigma: float = 0.6,
    read_noise: float = 5.0,
    hits: float = 0.0,
) -> Taken:
    """One exposure of the field; ``sigma`` is the PSF's before the pixel, px, ``hits`` the cosmic rays per pixel."""
    one = Taken(np.zeros((side, side)), np.zeros(0), np.zeros(0), np.zeros(0, bool), turn(degrees, scale),
                np.array(shift), time, sigma)  # fmt: skip
    clean = time * draw(sky, (side, side), one.from_reference(sky.places), sigma, scale**2)
    variance = clean + read_noise**2
    pixels = rng.poisson(clean) + read_noise * rng.normal(size=clean.shape)
    cosmic = np.zeros(clean.shape, bool)
    for _ in range(round(hits * side * side)):
        y, x, m = rng.integers(0, side), rng.integers(0, side), rng.integers(1, 5)
        cut = np.s_[y : y + 1, x : x + m] if rng.random() < 0.5 else np.s_[y : y + m, x : x + 1]
        pixels[cut] += 10 ** rng.uniform(2.3, 3.8)
        cosmic[cut] = True
    return Taken(pixels, variance, clean, cosmic, one.matrix, one.shift, time, sigma)


def dither(sky: Sky, rng: np.random.Generator, side: int, count: int, hits: float = 0.0) -> list[Taken]:
    """Exposures as of one visit: whole and sub-pixel shifts, up to half a degree, PSFs of +-20 %."""
    taken = [expose(sky, rng, side, hits=hits)]
    for _ in range(count - 1):
        shift = rng.uniform(-0.5, 0.5, 2) + rng.integers(-1, 2, 2)
        taken.append(
            expose(
                sky, rng, side, shift=tuple(shift), degrees=rng.uniform(-0.5, 0.5), time=rng.uniform(0.5, 1.5),
                sigma=0.6 * rng.uniform(0.8, 1.2), read_noise=rng.uniform(3, 8), hits=hits,
            )
        )  # fmt: skip
    return taken
