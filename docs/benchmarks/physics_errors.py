"""How often the truth lies within the errors of the physics alone (``--model physics``), in pixels and in sums.

    python docs/benchmarks/physics_errors.py [--side 128] [--frames 2] [--samples 8]

Simulated scenes of every kind at x2 with photon noise on a sky of 50, under PSFs of sigma 0 (no blur but the pixel's),
1.2 and 2 output px, and one that grows from 1 to 2 px from left to right. 0.68 is right. Sums are over squares of 3 x 3
and 7 x 7 output px; bright pixels are the brightest 3 %.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, uniform_filter

from sciresdiff import scenes
from sciresdiff.observation.observation import Observation
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.psf.field import PSF, SmoothMaps
from sciresdiff.restoration.restore import restore
from sciresdiff.restoration.settings import Settings

Array = NDArray[np.float64]

KINDS = ("survey", "crowded", "galaxy-cluster", "nebula", "microtubules", "nuclei")
PSFS = ((0.0,), (1.2,), (2.0,), (1.0, 2.0))
SIDES = (1, 3, 7)
SKY, EDGE = 50.0, 8


def psf_of(sigmas: tuple[float, ...], side: int) -> PSF:
    """A Gaussian PSF, or one that changes from left to right."""
    point = np.zeros((25, 25))
    point[12, 12] = 1
    kernels = np.stack([gaussian_filter(point, sigma) for sigma in sigmas])
    if len(sigmas) == 1:
        return PSF.constant(kernels[0])
    return PSF(kernels, SmoothMaps.of_function(lambda y, x: np.stack([1 - x / side, x / side]), (side, side), 8))


def frame(kind: str, seed: int, sigmas: tuple[float, ...], side: int) -> tuple[Observation, Array]:
    """A frame of ``side`` px, and its truth."""
    rng = np.random.default_rng(seed)
    truth = scenes.scene(kind, rng, 2 * side).pixels.astype(np.float64)
    truth *= 3000 / max(float(np.percentile(truth, 99.9)), 1e-9)
    psf = psf_of(sigmas, 2 * side)
    seen = Operator((side, side), 2, psf, dtype=torch.float64).apply(torch.from_numpy(truth)).numpy()
    variance = np.clip(seen, 0, None) + SKY
    pixels = seen + np.sqrt(variance) * rng.normal(size=seen.shape)
    return Observation.of_arrays(pixels.astype(np.float32), variance.astype(np.float32), scale=2, psf=psf), truth


def shares(observation: Observation, truth: Array, samples: int) -> list[float]:
    """Share of pixels, of sums and of bright pixels whose truth is within the error."""
    found = restore(observation, None, Settings(samples=samples, keep_draws=True))
    assert found.draws is not None
    off, draws, inner = found.mean - truth, found.draws - found.mean, (slice(EDGE, -EDGE),) * 2
    held = []
    for side in SIDES:
        scatter = np.sqrt(np.mean([uniform_filter(draw, side) ** 2 for draw in draws], 0))
        held.append((np.abs(uniform_filter(off, side)) <= scatter)[inner])
    bright = truth[inner] > np.percentile(truth[inner], 97)
    return [*(float(one.mean()) for one in held), float(held[0][bright].mean())]


def main() -> None:
    """Read the command line and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--frames", type=int, default=2)
    parser.add_argument("--samples", type=int, default=8)
    told = parser.parse_args()
    print("| sigma of the PSF, output px | " + " | ".join(KINDS) + " |")
    print("|---" * (len(KINDS) + 1) + "|")
    for sigmas in PSFS:
        cells = []
        for kind in KINDS:
            each = [shares(*frame(kind, n, sigmas, told.side), told.samples) for n in range(told.frames)]
            cells.append(", ".join(f"{value:.2f}" for value in np.mean(each, 0)))
        print(f"| {' to '.join(f'{sigma:g}' for sigma in sigmas)} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
