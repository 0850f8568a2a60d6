"""``make bench``: seconds per output megapixel of a restoration, and its peak memory, beside Richardson-Lucy.

    python docs/bench.py [--model astro-x4] [--side 512] [--threads 2]

Everything is timed in one run on one simulated star field, because absolute figures drift from machine to machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

SIGMA_LOW_PX = 0.6
TARGET_SIGMA_PX = 1.0
"""Width of a star in the image that is wanted, fine px."""


def scene(side: int, scale: int, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stars on a sky, measured through the kernel: data and their variance, (side, side), in units of the sky noise."""
    import torch

    from sciresdiff.physics.operators import Operator

    rng = np.random.default_rng(0)
    image = np.zeros((side * scale,) * 2, "f4")
    stars = rng.integers(0, side * scale, (side * side // 200, 2))
    image[stars[:, 0], stars[:, 1]] = 10 ** rng.uniform(1, 4, len(stars))
    from scipy.ndimage import gaussian_filter

    sharp = gaussian_filter(image, TARGET_SIGMA_PX)
    clean = Operator((side, side), scale, kernel).apply(torch.from_numpy(sharp)[None, None])[0, 0].numpy()
    variance = (1 + 0.1 * np.clip(clean, 0, None)).astype("f4")
    return (clean + rng.normal(size=clean.shape) * np.sqrt(variance)).astype("f4"), variance


def timed(work: Callable[[], object]) -> float:
    """Seconds, the first run (which warms up) not counted."""
    work()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(what: str, side: int, model_name: str, threads: int) -> dict[str, float]:
    """Seconds and peak memory of one method, in a process of its own."""
    import torch

    torch.set_num_threads(threads)
    from sciresdiff import model as models
    from sciresdiff.physics import psf
    from sciresdiff.restore import Settings, prepared, restore

    model = models.load(model_name)
    scale = model.scale
    kernel = psf.render(psf.parse(f"gaussian:sigma={SIGMA_LOW_PX * scale}px"), None, integrate=False)
    pixels, variance = scene(side, scale, kernel)
    mask = np.zeros(pixels.shape, bool)

    def ours() -> object:
        used = None if what == "physics" else model
        settings = Settings(samples=1, refine=what == "prior + refiner")
        return restore(pixels, variance, mask, kernel, scale, "sum", used, settings)

    def richardson_lucy() -> object:
        data, _ = prepared(pixels, variance, mask, kernel, scale, "sum", torch.device("cpu"))
        y = (data.y + 5).clamp_min(1e-3)
        x = data.operator.adjoint(y) / scale**2
        share = data.operator.adjoint(torch.ones_like(y))
        for _ in range(30):
            x = x * data.operator.adjoint(y / data.operator.apply(x).clamp_min(1e-6)) / share
        return x

    seconds = timed(richardson_lucy if what == "Richardson-Lucy, 30 iterations" else ours)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "s_per_mpix": seconds / (pixels.size * scale**2 / 1e6), "peak_mb": peak}


METHODS = ("Richardson-Lucy, 30 iterations", "physics", "prior", "prior + refiner")


def main() -> None:
    """Time every method and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="astro-x4")
    parser.add_argument("--side", type=int, default=512, help="side of the coarse frame, px")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=METHODS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(measure(given.only, given.side, given.model, given.threads)))
        return
    print(f"{given.model}, {given.side} x {given.side} px, {given.threads} threads, one draw")
    print(f"{'':32}{'s':>8}{'s/Mpix out':>12}{'peak MB':>9}")
    for what in METHODS:
        words = [sys.executable, __file__, *sys.argv[1:], "--only", what]
        figures = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
        row = f"{figures['seconds']:8.1f}{figures['s_per_mpix']:12.2f}{figures['peak_mb']:9.0f}"
        print(f"{what:32}{row}", flush=True)


if __name__ == "__main__":
    main()
