"""What a PSF that changes over the field costs: restorations with it, over those with one PSF of the same size.

    python docs/benchmarks/bench_field.py [--side 256] [--rank 4] [--threads 1]

A frame of stars is simulated with a Moffat whose width and ellipticity turn with the place, and restored by the physics
at x2 with its PSF of the stated rank, and with the mean PSF; both take turns, and the best of three counts.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from sciresdiff.observation.observation import Observation
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.psf.kernel import moffat
from sciresdiff.physics.psf.profile_fit import same_size
from sciresdiff.restoration.restore import restore
from sciresdiff.restoration.settings import Settings

SCALE, FWHM, STAMP = 2, (4.4, 8.0), 49
"""Output px per px; FWHM in the middle and at the corners, and side of the PSF's stamp, output px."""


def field_of(side: int, rank: int) -> PSF:
    """A PSF that is wider and turned away from the middle, as a sum of basis kernels times maps."""
    line = np.linspace(-1, 1, side * SCALE)
    v, u = np.meshgrid(line, line, indexing="ij")
    maps = [np.ones_like(u), (u**2 + v**2) / 2, u * v, u, v, u**2 - v**2][:rank]

    def stamp(kernel: np.ndarray) -> np.ndarray:
        """The kernel on STAMP x STAMP px, of sum 1."""
        found = same_size(kernel, (STAMP, STAMP))
        return found / found.sum()

    narrow, wide = (stamp(moffat(width, 3.0)) for width in FWHM)
    turned = [stamp(moffat(6.0, 3.0, ratio=0.7, theta=t)) for t in (45, 135, 0, 90, 20, 110)]
    modes = [wide - narrow, (turned[0] - turned[1]) / 4, (turned[2] - turned[3]) / 8, (turned[4] - turned[5]) / 8, wide]
    kernels = [narrow, *modes[: rank - 1]]
    return PSF(np.stack(kernels), np.stack(maps))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--side", type=int, default=256, help="of the frame, px")
    parser.add_argument("--rank", type=int, default=4, choices=range(2, 6))
    parser.add_argument("--threads", type=int, default=1)
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    rng, psf = np.random.default_rng(0), field_of(told.side, told.rank)
    truth = np.zeros((told.side * SCALE,) * 2)
    truth[tuple(rng.integers(0, told.side * SCALE, (2, 600)))] = 10 ** rng.uniform(2, 4.5, 600)
    seen = Operator((told.side, told.side), SCALE, psf).apply(torch.from_numpy(truth)[None, None].float())[0, 0].numpy()
    variance = np.clip(seen, 0, None) + 25
    noisy = seen + rng.normal(size=seen.shape) * np.sqrt(variance)
    best = {}
    for _ in range(3):
        for name, used in (("one PSF", PSF.constant(psf.mean)), ("varying", psf)):
            start = time.perf_counter()
            restore(Observation.of_arrays(noisy, variance, SCALE, used), None, Settings(refine=False))
            best[name] = min(best.get(name, np.inf), time.perf_counter() - start)
            operator = Operator((told.side, told.side), SCALE, used)
            x = torch.from_numpy(truth)[None, None].float()
            start = time.perf_counter()
            for _ in range(20):
                operator.adjoint(operator.apply(x))
            key = f"{name}, A and its adjoint"
            best[key] = min(best.get(key, np.inf), (time.perf_counter() - start) / 20)
    for name, seconds in best.items():
        print(f"{name}: {seconds:.4f} s")
    print(f"restoration: {best['varying'] / best['one PSF']:.2f} times")
    a = ", A and its adjoint"
    print(f"A and its adjoint: {best['varying' + a] / best['one PSF' + a]:.2f} times")


if __name__ == "__main__":
    main()
