"""``make bench-size``: wall time and peak memory of ``upscale`` as frames grow.

    python docs/benchmarks/bench_size.py [--sizes 2000 4000 8000] [--scale 2] [--folder FOLDER]

Frames are those of ``big_frame.py``. Each is restored with the physics alone by the command line, in a process of
its own; the flux of what is written is added up, and the files are removed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.io import fits
from big_frame import FWHM, READ_NOISE, build

STRIP = 512
"""Rows of the frames that are read at once."""


def restored(low: Path, high: Path, scale: int, threads: int) -> tuple[float, float]:
    """Wall seconds and peak MB of the command, and of nothing else."""
    words = ["upscale", str(low), "-o", str(high), "--scale", str(scale), "--model", "physics", "--no-refine"]
    words += ["--gain", "1", "--read-noise", str(READ_NOISE), "--psf", f"gaussian:fwhm={FWHM}px"]
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "sciresdiff", *words, "--threads", str(threads), "-q"])
    _, status, used = os.wait4(child.pid, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise SystemExit(f"upscale ended with {code}")
    return time.perf_counter() - start, used.ru_maxrss / 1024


def total(path: Path) -> float:
    """Flux of the first image of a file, as astropy reads it."""
    with fits.open(path) as file:
        image = next(hdu for hdu in file if hdu.shape)
        rows = range(0, image.shape[0], STRIP)
        return sum(float(image.section[y : y + STRIP].sum(dtype=np.float64)) for y in rows)


def main() -> None:
    """Restore every size and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 4000, 8000], metavar="PX", help="sides")
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the frames go for a while (default: the system's)")
    told = parser.parse_args()
    print(
        "| side, px | output, Mpix | s | s per output Mpix | peak MB | total flux off by |\n|---|---|---|---|---|---|"
    )
    for side in told.sizes:
        with tempfile.TemporaryDirectory(dir=told.folder) as folder:
            low, high = Path(folder, "low.fits"), Path(folder, "high.fits")
            build(low, side, 0)
            seconds, peak = restored(low, high, told.scale, told.threads)
            mpix, off = (told.scale * side) ** 2 / 1e6, total(high) / total(low) - 1
            print(
                f"| {side} | {mpix:.0f} | {seconds:.0f} | {seconds / mpix:.3f} | {peak:.0f} | {off:.1e} |", flush=True
            )


if __name__ == "__main__":
    main()
