"""The way of one small frame through ``upscale``, counted: files entered, functions called, moves between files.

    python docs/benchmarks/trace.py [--side 39] [--model physics]

A reader who follows a run by hand makes these moves; `docs/architecture.md` has the figures.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from astropy.io import fits


def main() -> None:
    """Restore a frame once to load everything, and once more under the profiler."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=39, help="of the frame, px")
    parser.add_argument("--model", default="physics")
    told = parser.parse_args()
    from sciresdiff.cli.app import app

    with tempfile.TemporaryDirectory() as folder:
        low = Path(folder) / "low.fits"
        sky = np.random.default_rng(0).normal(100, 3, (told.side, told.side)).astype("f4")
        sky[told.side // 2, told.side // 2] += 500
        noise = fits.ImageHDU(np.full_like(sky, 9), name="VAR")
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(sky, name="SCI"), noise]).writeto(low)
        words = ["upscale", str(low), "--scale", "2", "--kernel", "gaussian:sigma=1.2px", "--model", told.model, "-q"]
        app([*words, "-o", f"{folder}/first.fits"], standalone_mode=False)
        trace = Trace()
        sys.setprofile(trace)
        try:
            app([*words, "-o", f"{folder}/second.fits"], standalone_mode=False)
        finally:
            sys.setprofile(None)
    functions = {(name, line) for name, line in trace.functions}
    print(f"files entered {len(trace.files)}, functions {len(functions)}, moves between files {trace.moves}")


class Trace:
    """A profile function that counts what is entered of the package."""

    def __init__(self) -> None:
        """Nothing was entered yet."""
        self.files: set[str] = set()
        self.functions: set[tuple[str, int]] = set()
        self.moves = 0
        self.stack: list[str] = []
        self.here = ""

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Count a call of the package's code, and a move where it lies in another file than its caller."""
        name = frame.f_code.co_filename
        if "/sciresdiff/" not in name or frame.f_code.co_name.startswith("<"):  # comprehensions stand where they are
            return
        if event == "call":
            self.files.add(name)
            self.functions.add((name, frame.f_code.co_firstlineno))
            self.move(name)
            self.stack.append(name)
        elif event == "return" and self.stack:
            self.stack.pop()
            if self.stack:
                self.move(self.stack[-1])

    def move(self, name: str) -> None:
        """The reader's eye goes to a file."""
        self.moves += name != self.here
        self.here = name


if __name__ == "__main__":
    main()
