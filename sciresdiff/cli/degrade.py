"""``sciresdiff degrade``."""

from __future__ import annotations

from functools import partial

from sciresdiff.cli.parameters import command
from sciresdiff.cli.run import over_files, set_threads
from sciresdiff.jobs.degrade.options import DegradeOptions
from sciresdiff.run.options import FileOptions


@command()
def degrade(options: DegradeOptions, files: FileOptions) -> None:
    """Make coarser, blurred, noisy frames from fine ones, with their variance and kernel inside.

    Example: sciresdiff degrade high.fits -o low.fits --scale 4 --kernel gaussian:sigma=2.4px --gain 10 --read-noise 8

    Photon noise is on when a gain is given or a recipe sets one. Noise acts on the coarse frame, per coarse pixel.

    Large frames go through memory block by block; recipes that resize twice, code JPEG or blur noise again (star,
    second-order, real-esrgan) take a frame whole, up to 4096 px a side.
    """
    from sciresdiff.jobs import degrade as job

    set_threads(files.threads)
    over_files(
        files,
        options,
        scale_of=lambda path: options.scale,
        work=lambda path, target, progress, shard: job.run(path, target, options, progress, shard, files.scheduler),
        plan=lambda path: job.plan(path, options),
        remote=partial(job.run, options=options),
    )
