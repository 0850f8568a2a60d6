"""``make bench-size``: wall time and peak memory of ``upscale`` as frames grow.

    python docs/bench_size.py [--sizes 2000 4000 8000] [--scale 2] [--folder FOLDER]

Frames are those of ``docs/big_frame.py``. Each is restored with the physics alone by the command line, in a process of
its own; what is written is checked in windows, and removed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np
from astropy.io import fits
from big_frame import FWHM, READ_NOISE, build

CORNERS = 4
"""Windows of the output that are compared with the data, along each side of the frame."""
WINDOW = 256
"""Their side, coarse px."""


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


def flux_error(low: Path, high: Path, scale: int) -> float:
    """Largest relative difference of flux in windows all over the frame, as astropy reads them."""
    worst = 0.0
    with fits.open(low, memmap=True) as one, fits.open(high, memmap=True) as two:
        data, fine = (next(hdu for hdu in file if hdu.shape) for file in (one, two))
        for y, x in product(np.linspace(0, data.shape[0] - WINDOW, CORNERS).astype(int), repeat=2):
            wanted = data.section[y : y + WINDOW, x : x + WINDOW].sum(dtype=float)
            found = fine.section[scale * y : scale * (y + WINDOW), scale * x : scale * (x + WINDOW)].sum(dtype=float)
            worst = max(worst, abs(found / wanted - 1))
    return worst


def main() -> None:
    """Restore every size and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 4000, 8000], metavar="PX", help="sides")
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the frames go for a while (default: the system's)")
    told = parser.parse_args()
    print(
        "| side, px | output, Mpix | s | s per output Mpix | peak MB | flux off by at most |\n|---|---|---|---|---|---|"
    )
    for side in told.sizes:
        with tempfile.TemporaryDirectory(dir=told.folder) as folder:
            low, high = Path(folder, "low.fits"), Path(folder, "high.fits")
            build(low, side, 0)
            seconds, peak = restored(low, high, told.scale, told.threads)
            mpix, off = (told.scale * side) ** 2 / 1e6, flux_error(low, high, told.scale)
            print(
                f"| {side} | {mpix:.0f} | {seconds:.0f} | {seconds / mpix:.3f} | {peak:.0f} | {off:.1e} |", flush=True
            )


if __name__ == "__main__":
    main()
