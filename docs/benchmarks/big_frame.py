"""A simulated frame of any size, written window by window: crowded stars and galaxies, a scene that repeats.

    python docs/benchmarks/big_frame.py sky.fits --size 20000
    sciresdiff upscale sky.fits -o big.fits --model physics --no-refine --gain 1 --read-noise 5 --psf gaussian:fwhm=3px

The scene is 1024 px wide and goes on from one of its sides to the other, so that it has no seams; the noise does not
repeat. Memory does not grow with the size.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sciresdiff import io
from sciresdiff.frame import Frame
from sciresdiff.io.sink import IMAGE
from sciresdiff.io.source import placeholder

SCENE = 1024
"""Side of the scene, and of the windows that are written, px."""
SKY, READ_NOISE, FWHM = 40.0, 5.0, 3.0
"""Electrons, electrons, px."""


def scene(seed: int, stars: int = 4000, galaxies: int = 150) -> NDArray[np.float64]:
    """Electrons that every pixel expects, without the sky; the left border goes on at the right, and so on."""
    rng = np.random.default_rng([seed, 0])
    light = np.zeros((SCENE, SCENE))
    places = rng.integers(0, SCENE, (2, stars))
    np.add.at(light, tuple(places), 10 ** (2 + 3 * rng.power(0.4, stars)))
    away = np.minimum(np.arange(SCENE), SCENE - np.arange(SCENE)).astype(float)
    for _ in range(galaxies):
        size, ratio = 10 ** rng.uniform(0.3, 1.2), rng.uniform(0.3, 1)
        shape = np.exp(-np.hypot(away[:, None], away / ratio) / size)
        shape *= 10 ** rng.uniform(3, 5.5) / shape.sum()
        light += np.roll(shape, rng.integers(0, SCENE, 2), (0, 1))
    return gaussian_filter(light, FWHM / 2.3548, mode="wrap")


def windows(side: int) -> Iterator[tuple[int, int, int, int]]:
    """(y0, y1, x0, x1), row by row."""
    for y in range(0, side, SCENE):
        for x in range(0, side, SCENE):
            yield y, min(y + SCENE, side), x, min(x + SCENE, side)


def build(path: Path, side: int, seed: int, overwrite: bool = False) -> None:
    """Write a square frame."""
    mean = scene(seed) + SKY
    shape = (1, side, side)
    frame = Frame(placeholder(shape, np.float32), placeholder(shape, bool), "astro", unit="electron", shape=shape[1:])
    with io.open_sink(path, frame, overwrite=overwrite) as sink:
        for y0, y1, x0, x1 in windows(side):
            rng = np.random.default_rng([seed, 1, y0, x0])
            here = mean[: y1 - y0, : x1 - x0]
            noisy = rng.poisson(here) + READ_NOISE * rng.standard_normal(here.shape)
            sink.put(IMAGE, 0, y0, x0, noisy.astype(np.float32))
        sink.finish({})


def main() -> None:
    """Read the command line and write the frame."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path, help="FITS, TIFF or HDF5 by its name")
    parser.add_argument("--size", type=int, default=4096, metavar="PX", help="side of the frame")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true")
    told = parser.parse_args()
    build(told.output, told.size, told.seed, told.overwrite)


if __name__ == "__main__":
    main()
