"""Simulated exposures of a field that together make a mosaic: shifted by much and by parts of a pixel, turned a little.

    python docs/benchmarks/mosaic.py folder --side 8192
    sciresdiff upscale folder/exposure*.fits --joint --grid folder/mosaic.hdr -o mosaic.fits

Exposures lie in a pattern of 2 x 3 pointings: where all meet six see the sky, in the bands around it one to five do.
They differ in PSF, exposure time, read noise and angle, and have cosmic rays.  Stars are integrated over the pixels;
everything is written strip by strip, so that memory does not grow with the size.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from scipy.special import erf

SCALE = 2
"""Output px along the side of a pixel."""
PATTERN = ((0.0, 0.0), (1.0, 1.0), (0.0, 0.5), (1.0, 0.5), (0.0, 1.0), (1.0, 0.0))
"""(y, x) of the pointings, in units of how far they lie apart."""
APART = 0.12
"""How far the outer pointings lie apart, as a share of the side of the mosaic."""
DENSITY, RAYS = 0.004, 0.0004
"""Stars, and pixels hit by cosmic rays, per pixel."""
SKY, PIXEL = 15.0, 0.1
"""Electrons in a pixel at an exposure time of 1; side of a pixel, arcsec."""
STRIP, REACH = 256, 9
"""Rows that are written at once, and px from a star that its light reaches."""


@dataclass(frozen=True)
class Pointing:
    """One exposure."""

    number: int
    side: int
    """Of the exposure, px."""
    matrix: NDArray[np.float64]
    """Place (y, x) less the middle -> the same in px of the mosaic's coarse grid, by an angle alone."""
    middle: NDArray[np.float64]
    """Where its middle lies on the coarse grid."""
    fwhm: float
    time: float
    read_noise: float

    @classmethod
    def of_number(cls, number: int, side: int, whole: int) -> Pointing:
        """The pointing of a number, of exposures of a side on a mosaic of a side, coarse px."""
        rng = np.random.default_rng([number, 1])
        angle = np.radians(rng.uniform(-0.05, 0.05))
        first = (side - 1) / 2 + 1.0
        corner = np.array(PATTERN[number]) * (whole - side - 3) + rng.uniform(0, 1, 2)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        lead = number == 0
        return cls(
            number, side, turn, first + corner,
            2.6 * (1.0 if lead else 1 + 0.2 * rng.uniform(-1, 1)),
            1.0 if lead else rng.uniform(0.5, 1.5),
            rng.uniform(3, 8),
        )  # fmt: skip

    def places(self, coarse: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where places (n, 2) of the coarse grid lie, px of the exposure."""
        return np.asarray((coarse - self.middle) @ self.matrix + (self.side - 1) / 2)

    def header(self, center: float) -> fits.Header:
        """Its WCS, unit and exposure time; ``center`` is the middle of the coarse grid, which lies at CRVAL."""
        at = self.places(np.full((1, 2), center))[0]
        flip = np.array([[0, 1], [1, 0]])
        cd = np.diag([-PIXEL, PIXEL]) / 3600 @ (flip @ self.matrix @ flip)
        header = tangent_plane(at, cd)
        header["BUNIT"], header["EXPTIME"] = "electron", 100 * self.time
        return header

    def psf(self) -> NDArray[np.float32]:
        """The image of a point, with the pixel."""
        line = pixel_line(np.arange(-10, 11)[None], np.zeros((1, 1)), self.fwhm)[0]
        image = line[:, None] * line
        return np.asarray(image / image.sum(), np.float32)


def tangent_plane(at: NDArray[np.float64], cd: NDArray[np.float64]) -> fits.Header:
    """A header with a WCS whose reference lies at (y, x)."""
    header = fits.Header()
    header.update({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.1, "CRVAL2": 2.2, "CUNIT1": "deg"})
    header.update({"CUNIT2": "deg", "CRPIX1": at[1] + 1, "CRPIX2": at[0] + 1})
    header.update({f"CD{i + 1}_{j + 1}": cd[i, j] for i in (0, 1) for j in (0, 1)})
    return header


def pixel_line(pixels: NDArray[Any], middles: NDArray[np.float64], fwhm: float) -> NDArray[np.float64]:
    """A Gaussian of area 1 at middles (n, 1), integrated over pixels (n, m) in a row."""
    width = fwhm / 2.35482 * 2**0.5
    return np.asarray((erf((pixels + 0.5 - middles) / width) - erf((pixels - 0.5 - middles) / width)) / 2)


def stars_of(whole: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places (n, 2) on the coarse grid and electrons of all stars, by their y."""
    rng = np.random.default_rng(1)
    count = int(DENSITY * whole**2)
    places = rng.uniform(0, whole, (count, 2))
    order = np.argsort(places[:, 0])
    return places[order], (10 ** rng.uniform(2.5, 5, count))[order]


def strips(one: Pointing, stars: tuple[NDArray[np.float64], NDArray[np.float64]]) -> Iterator[NDArray[np.float64]]:
    """What an exposure expects of the stars and the sky, strip by strip."""
    places, light = one.places(stars[0]), stars[1] * one.time
    near = (places[:, 1] > -REACH) & (places[:, 1] < one.side + REACH)
    places, light = places[near], light[near]
    reach = np.arange(-REACH, REACH + 1)
    for start in range(0, one.side, STRIP):
        rows = min(STRIP, one.side - start)
        here = (places[:, 0] > start - REACH - 1) & (places[:, 0] < start + rows + REACH)
        at, pad = places[here] - [start, 0], REACH + 1
        image = np.full((rows + 4 * pad, one.side + 4 * pad), SKY * one.time)
        y, x = (np.rint(at[:, i]).astype(int)[:, None] + reach for i in (0, 1))
        spread = pixel_line(y, at[:, :1], one.fwhm)[:, :, None] * pixel_line(x, at[:, 1:], one.fwhm)[:, None]
        index = np.broadcast_arrays(y[:, :, None] + 2 * pad, x[:, None] + 2 * pad)
        np.add.at(image, tuple(index), light[here][:, None, None] * spread)
        yield image[2 * pad : 2 * pad + rows, 2 * pad : 2 * pad + one.side]


def write(one: Pointing, path: Path, whole: int, stars: tuple[NDArray[np.float64], NDArray[np.float64]]) -> None:
    """Write an exposure: pixels with cosmic rays, variance and PSF."""
    fits.PrimaryHDU().writeto(path, overwrite=True)
    for kind in ("SCI", "VAR"):
        header = fits.ImageHDU(np.zeros((1, 1), np.float32), name=kind).header
        header["NAXIS1"] = header["NAXIS2"] = one.side
        header.update(one.header((whole - 1) / 2) if kind == "SCI" else {})
        with path.open("ab") as stream:
            stream.write(header.tostring().encode())
            for number, mean in enumerate(strips(one, stars)):
                rng = np.random.default_rng([one.number, 2, number])
                noisy = rng.poisson(mean) + one.read_noise * rng.standard_normal(mean.shape)
                hits = rng.integers(0, mean.size, int(RAYS * mean.size))
                noisy.ravel()[hits] += 10 ** rng.uniform(2.3, 3.8, len(hits))
                stream.write((noisy if kind == "SCI" else mean + one.read_noise**2).astype(">f4").tobytes())
            stream.write(bytes(-stream.tell() % 2880))  # FITS comes in pieces of 2880 bytes
    fits.append(path, one.psf(), fits.Header([("EXTNAME", "PSF")]))


def build(folder: Path, side: int) -> tuple[list[Path], Path]:
    """Write the exposures of a mosaic of a side in output px, and the header of its grid.

    Returns
    -------
    The exposures, and the header.
    """
    whole = side // SCALE
    single = whole - round(APART * whole)
    stars, names = stars_of(whole), []
    for number in range(len(PATTERN)):
        names.append(folder / f"exposure{number}.fits")
        write(Pointing.of_number(number, single, whole), names[-1], whole, stars)
    middle = (side - 1) / 2
    header = tangent_plane(np.full(2, middle), np.diag([-PIXEL, PIXEL]) / 3600 / SCALE)
    grid = fits.Header([("NAXIS", 2), ("NAXIS1", side), ("NAXIS2", side)]) + header
    grid.totextfile(folder / "mosaic.hdr", overwrite=True)
    return names, folder / "mosaic.hdr"


def main() -> None:
    """Read the command line and write the exposures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=8192, metavar="PX", help="side of the mosaic, output px")
    told = parser.parse_args()
    told.folder.mkdir(parents=True, exist_ok=True)
    build(told.folder, told.side)


if __name__ == "__main__":
    main()
