"""Files written and read window by window: MB/s and peak memory, each in a process of its own.

    python docs/benchmarks/bench_io.py [--size 10000] [--ends fits tif h5] [--folder FOLDER]

The cache of the system is warm when a file is read.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from big_frame import windows

from sciresdiff import io
from sciresdiff.frame import Frame
from sciresdiff.io.sink import IMAGE
from sciresdiff.io.source import placeholder
from sciresdiff.region import Region


def wrote(path: Path, side: int) -> None:
    """A square frame of float32, by windows."""
    values = np.random.default_rng(0).normal(100, 5, (1024, 1024)).astype(np.float32)
    shape = (1, side, side)
    frame = Frame(placeholder(shape, np.float32), placeholder(shape, bool), "astro", unit="electron", shape=shape[1:])
    with io.open_sink(path, frame, overwrite=True) as sink:
        for y0, y1, x0, x1 in windows(side):
            sink.put(IMAGE, 0, y0, x0, values[: y1 - y0, : x1 - x0])
        sink.finish({})


def seen(path: Path, side: int) -> None:
    """All of it, by windows."""
    with io.open_source(path) as source:
        for window in windows(side):
            source.window(0, Region(*window))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=10_000, metavar="PX", help="side of the frame")
    parser.add_argument("--ends", nargs="+", default=["fits", "tif", "h5"], help="of the files' names")
    parser.add_argument("--folder", type=Path, help="where the files lie for a while")
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.only:
        what, path = told.only
        start = time.perf_counter()
        {"write": wrote, "read": seen}[what](Path(path), told.size)
        rate = 4e-6 * told.size**2 / (time.perf_counter() - start)
        print(f"{rate:.0f} | {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}")
        return
    print("| | write, MB/s | peak MB | read, MB/s | peak MB |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(dir=told.folder) as folder:
        for end in told.ends:
            words = [sys.executable, __file__, "--size", str(told.size), "--only"]
            cells = [
                subprocess.run([*words, what, f"{folder}/a.{end}"], check=True, capture_output=True, text=True).stdout
                for what in ("write", "read")
            ]
            print(f"| .{end} | {' | '.join(cell.strip() for cell in cells)} |", flush=True)


if __name__ == "__main__":
    main()
