"""Time and memory of a z-stack that is restored in depth: one of its blocks, in a process of its own.

    python docs/benchmarks/bench_stack.py [--planes 40] [--side 4096] [--channels 2] [--samples 2]

The stack is simulated: beads of one voxel under a widefield microscope (NA 1.3, oil, 525 nm, planes 0.25 um apart,
0.13 um pixels). It is as large as three blocks each way at most; all inner blocks of a larger one have the size, the
cost and the memory of its middle one, which is restored. What a whole stack takes is that, times its blocks.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
import torch
from scipy.fft import irfftn, rfftn

from sciresdiff.io import open_files
from sciresdiff.jobs.upscale import job as upscale
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.jobs.upscale.piece import read_piece, restore_piece

OPTICS = {"na": 1.3, "ri": 1.515, "wavelength": "525", "pixel_size": "0.13um", "z_step": "0.25um"}
OPTIONS = UpscaleOptions(**OPTICS, scale=2, gain=1.0, read_noise=1.5, offset=0.0, samples=2, checks=False)
LIGHT, DENSITY, LEVEL = 4000.0, 2e-4, 10.0
"""Electrons of a bead, beads in a voxel, and electrons of the background."""
PART = 96
"""Side of the part of the stack that is simulated, and repeated, px."""


def build(path: Path, planes: int, side: int) -> None:
    """Write a stack of one channel; the blur of its beads goes on at the opposite side of the part that is repeated."""
    from sciresdiff.frame import PixelSize
    from sciresdiff.physics.psf.microscope import Microscope

    rng = np.random.default_rng(0)
    part = np.where(rng.random((planes, PART, PART)) < DENSITY, LIGHT, 0.0)
    kernel = Microscope(1.3, 1.515, 0.525).kernel(PixelSize(0.13, 0.13, "um"), 0.25, planes - 1)[0].kernel
    folded = np.zeros((len(kernel), PART, PART))
    rows, columns = ((np.arange(n) - n // 2) % PART for n in kernel.shape[1:])
    np.add.at(folded, (slice(None), rows[:, None], columns), kernel)
    size = (planes + len(kernel), PART, PART)
    seen = irfftn(rfftn(part, size) * rfftn(folded, size), size)[len(kernel) // 2 :][:planes]
    times = -(-side // PART)
    expected = np.tile(np.clip(seen, 0, None) + LEVEL, (1, times, times))[:, :side, :side]
    noisy = rng.poisson(expected) + 1.5 * rng.standard_normal(expected.shape)
    tifffile.imwrite(path, noisy.astype(np.float32), metadata={"axes": "ZYX"}, ome=True)


def restore_middle(path: Path, samples: int) -> dict[str, float]:
    """Seconds of a core and peak memory of the middle block of a file."""
    started, options = time.process_time(), replace(OPTIONS, samples=samples)
    with open_files.use(path):
        task = upscale.task_of(path, path.with_name("out.ome.tif"), options)
        prepared = time.process_time()
        block = task.blocks[len(task.blocks) // 2]
        restore_piece(task.job, block, read_piece(task.job, block))
    core = block.tile.core
    voxels = len(block.planes) * (core.y1 - core.y0) * (core.x1 - core.x0) * OPTIONS.scale**2
    return {
        "core": core.y1 - core.y0,
        "blocks": len(task.blocks),
        "prepared": prepared - started,
        "seconds": time.process_time() - prepared,
        "mvoxel": voxels / 1e6,
        "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Read the command line, restore a block in a process of its own, and print what it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--planes", type=int, default=40)
    parser.add_argument("--side", type=int, default=4096, help="of the stack whose time is told, px")
    parser.add_argument("--channels", type=int, default=2)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.file:
        print(json.dumps(restore_middle(told.file, told.samples)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stack.ome.tif"
        build(path, told.planes, min(told.side, 768))
        command = [sys.executable, __file__, "--file", str(path), "--samples", str(told.samples)]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    each, whole = found["seconds"] / found["mvoxel"], told.planes * told.channels * (2 * told.side) ** 2 / 1e6
    print(f"core {found['core']:.0f} px, {found['mvoxel']:.1f} output Mvoxel, {found['threads']:.0f} thread(s)")
    print(f"{found['seconds']:.0f} s of a core, {each:.2f} s per output Mvoxel; peak {found['mb']:.0f} MB")
    print(f"the whole stack, {whole:.0f} output Mvoxel: {each * whole / 3600:.1f} h")


if __name__ == "__main__":
    main()
