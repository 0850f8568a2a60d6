"""Many small files in one batch: what each costs beside its restoration.

    python docs/benchmarks/bench_files.py [--count 1000] [--side 32] [--end fits]

Restored with the physics alone, in one process, from folder to folder with a manifest. The first file, which loads
libraries, does not count.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from sciresdiff.cli.app import app
from sciresdiff.frame import Frame
from sciresdiff.io import write
from sciresdiff.jobs.upscale import block as work


def frames(folder: Path, count: int, side: int, end: str) -> None:
    """Noise and a source each."""
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.normal(100, 5, (1, side, side)).astype(np.float32)
        pixels[0, side // 2, side // 2] += 1000
        write(folder / f"{i:05}.{end}", Frame(pixels, np.zeros(pixels.shape, bool), "astro", unit="electron"))


class Clock:
    """Seconds in a function, call by call, and when each call ended."""

    def __init__(self) -> None:
        self.spent: list[float] = []
        self.ended: list[float] = []

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The function, clocked."""

        def clocked(*args: Any, **named: Any) -> Any:
            start = time.perf_counter()
            out = call(*args, **named)
            self.ended.append(time.perf_counter())
            self.spent.append(self.ended[-1] - start)
            return out

        return clocked


def main() -> None:
    """Restore the files and print what was found, as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--side", type=int, default=32, help="px")
    parser.add_argument("--end", default="fits", help="of the files' names")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        low, high, clock = Path(place, "low"), Path(place, "high"), Clock()
        low.mkdir()
        frames(low, told.count, told.side, told.end)
        words = ["upscale", str(low), "-o", str(high), "--model", "physics", "--no-refine", "--scale", "2", "-q"]
        words += [
            "--gain",
            "1",
            "--read-noise",
            "5",
            "--psf",
            "gaussian:fwhm=2.5px",
            "--manifest",
            f"{place}/all.jsonl",
        ]
        with mock.patch.object(work, "restore_window", clock.around(work.restore_window)):
            app(words, standalone_mode=False)
        done = sum(json.loads(line)["status"] == "done" for line in Path(place, "all.jsonl").read_text().splitlines())
        start = time.perf_counter()
        app(words, standalone_mode=False)
        again = time.perf_counter() - start
    others = told.count - 1
    wall, restoring = clock.ended[-1] - clock.ended[0], sum(clock.spent[1:])
    found = {
        "files": told.count,
        "done": done,
        "restoring_ms": 1000 * restoring / others,
        "beside_ms": 1000 * (wall - restoring) / others,
        "skipping_ms": 1000 * again / told.count,
    }
    print(json.dumps({k: round(v, 2) for k, v in found.items()}))


if __name__ == "__main__":
    main()
