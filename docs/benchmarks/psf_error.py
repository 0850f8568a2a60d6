"""What a wrong width of the kernel costs, with and without --psf-error: the table of docs/how-to/psf.md.

    python docs/benchmarks/psf_error.py [FRAME[EXT] ...] [--scale 4] [--error 0.1] [--model NAME]

Every frame is blurred, binned and given noise by code of this file alone (scipy), and restored with kernels that are
too narrow or too wide; the rows are markdown.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

import sciresdiff

Array = NDArray[np.float64]
OFF = (-0.1, -0.05, 0.0, 0.05, 0.1)
SIDE = 512
SIGMA = 0.6
"""Of the true kernel, input px."""
GAIN, READ = 10.0, 8.0
"""Electrons per unit, and noise of the sky per output pixel, unit."""


def measured(truth: Array, scale: int) -> tuple[Array, Array]:
    """Low frame and variance."""
    h, w = truth.shape
    seen = gaussian_filter(truth, SIGMA * scale, truncate=5)
    expected = seen.reshape(h // scale, scale, w // scale, scale).sum((1, 3))
    variance = np.clip(expected, 0, None) / GAIN + (scale * READ) ** 2
    return expected + np.random.default_rng(1).normal(size=expected.shape) * np.sqrt(variance), variance


def score(restored: Any, truth: Array) -> list[str]:
    """PSNR, and the shares of pixels within one and two ERR."""
    off = np.asarray(restored.sci, np.float64).reshape(truth.shape) - truth
    z = np.abs(off) / np.asarray(restored.err, np.float64).reshape(truth.shape)
    psnr = 10 * np.log10(np.ptp(truth) ** 2 / np.mean(off**2))
    return [f"{psnr:.2f}", f"{np.mean(z < 1):.2f}", f"{np.mean(z < 2):.2f}"]


def main() -> None:
    """Print the table of every frame."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", nargs="*", default=["sample_data/47tuc.fits"])
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--error", type=float, default=0.1)
    parser.add_argument("--model", default=None)
    options = parser.parse_args()
    for name in options.frames:
        pixels = np.nan_to_num(sciresdiff.read(name).pixels[0][:SIDE, :SIDE].astype(np.float64))
        h, w = (n // options.scale * options.scale for n in pixels.shape)
        truth = pixels[:h, :w]
        low, variance = measured(truth, options.scale)
        print(f"\n{name}, {h} x {w}, x{options.scale}\n")
        print("| stated width | PSNR, dB | within ERR | within 2 ERR | with --psf-error | within ERR | within 2 ERR |")
        print("|---|---|---|---|---|---|---|")
        for off in OFF:
            kernel = f"gaussian:sigma={SIGMA * options.scale * (1 + off):.6g}px"
            cells = [f"{100 * off:+.0f} %"]
            for error in (0.0, options.error):
                restored = sciresdiff.restore(
                    low.astype(np.float32), scale=options.scale, kernel=kernel, variance=variance, quantity="sum",
                    model=options.model, psf_error=error,
                )  # fmt: skip
                cells += score(restored, truth)
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
