"""One large frame on a GPU: wall time, and what it goes into.

    python docs/benchmarks/bench_gpu.py [--size 10000] [--model astro-x4] [--samples 1] [--folder FOLDER]

The frame is that of ``big_frame.py`` and is restored from file to file, blocks, journal and checksums included.
Reading and writing overlap with the rest, so the shares may add up to more than the whole. ``--device cpu`` with a
small ``--size`` tries the script where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from bench_parts import Parts, watched
from big_frame import FWHM, READ_NOISE, build

from sciresdiff.jobs.upscale import job as upscale
from sciresdiff.jobs.upscale import piece
from sciresdiff.run import journal


@contextmanager
def files_watched(parts: Parts) -> Iterator[None]:
    """Reading and writing are clocked by themselves: they have threads of their own."""

    def clocked(part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            start = parts.clock()
            try:
                return work(*args, **named)
            finally:
                parts.seconds[part] = parts.seconds.get(part, 0.0) + parts.clock() - start

        return call

    with (
        mock.patch.object(piece, "read_block", clocked("reading", piece.read_block)),
        mock.patch.object(journal.Journal, "put", clocked("writing", journal.Journal.put)),
        mock.patch.object(upscale.RestoredFile, "finish", clocked("finishing", upscale.RestoredFile.finish)),
    ):
        yield


def restored(folder: Path, told: argparse.Namespace) -> tuple[float, Parts, dict[str, Any]]:
    """Wall seconds of one frame, what they went into, and its record."""
    low = folder / "low.fits"
    build(low, told.size, 0)
    options = upscale.UpscaleOptions(
        model=told.model,
        scale=None,
        samples=told.samples,
        refine=told.samples > 0,
        device=told.device,
        gain=1.0,
        read_noise=READ_NOISE,
        psf=f"gaussian:fwhm={FWHM}px",
    )
    with watched(parts := Parts(time.perf_counter)), files_watched(parts):
        start = time.perf_counter()
        record = upscale.run(low, folder / "high.fits", options)
        return time.perf_counter() - start, parts, record


def main() -> None:
    """Restore the frame and print what was found, as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=10_000, metavar="PX", help="side of the frame")
    parser.add_argument("--model", default="astro-x4")
    parser.add_argument("--samples", type=int, default=1, help="draws; 0 for the prior alone")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--folder", type=Path, help="where the files lie for a while: on a fast disk")
    told = parser.parse_args()
    if told.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("--device cuda: there is no GPU here; nothing was measured")
    with tempfile.TemporaryDirectory(dir=told.folder) as folder:
        seconds, parts, record = restored(Path(folder), told)
    mpix = (told.size * record["scale"]) ** 2 / 1e6
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if told.device.startswith("cuda") else "cpu",
        "seconds": round(seconds, 2),
        "output_mpix": mpix,
        "mpix_per_s": round(mpix / seconds, 2),
        "share": {name: round(spent / seconds, 3) for name, spent in sorted(parts.seconds.items())},
    }
    if told.device.startswith("cuda"):
        found["peak_gpu_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
