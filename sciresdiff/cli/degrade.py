"""``sciresdiff degrade``."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from sciresdiff.cli import options as o
from sciresdiff.cli.run import over_files, set_threads


def degrade(
    inputs: o.Inputs,
    output: o.Output,
    scale: o.Scale,
    kernel: o.Kernel = None,
    quantity: o.Quantity = None,
    gain: o.Gain = None,
    read_noise: o.ReadNoise = None,
    sky: Annotated[
        float,
        typer.Option(
            metavar="E", callback=o.at_least(0), rich_help_panel=o.NOISE, help="Sky in electrons per coarse pixel."
        ),
    ] = 0.0,
    dark: Annotated[
        float,
        typer.Option(
            metavar="E", callback=o.at_least(0), rich_help_panel=o.NOISE, help="Dark electrons per coarse pixel."
        ),
    ] = 0.0,
    full_well: Annotated[
        float | None,
        typer.Option(
            metavar="E", callback=o.above_zero, rich_help_panel=o.NOISE, help="Electrons at which a pixel saturates."
        ),
    ] = None,
    bits: Annotated[
        int | None,
        typer.Option(
            metavar="N", callback=o.at_least(1), rich_help_panel=o.NOISE, help="Bits of the converter: quantise."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.toml",
            rich_help_panel=o.PHYSICS,
            help="Draw blur and noise at random: astro, micro, first-order, second-order, real-esrgan, bicubic, star, "
            "or a TOML file. After real-esrgan (JPEG) noise and blur are unknown: no VAR and no KERNEL.",
        ),
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(metavar="SET.h5", rich_help_panel=o.OUTPUT, help="Write an HDF5 training set of patches as well."),
    ] = None,
    patch: Annotated[
        int,
        typer.Option(
            metavar="PX", callback=o.at_least(1), rich_help_panel=o.OUTPUT, help="Side of a --pairs patch, fine pixels."
        ),
    ] = 256,
    axes: o.Axes = None,
    manifest: o.Manifest = None,
    recursive: o.Recursive = False,
    overwrite: o.Overwrite = False,
    dry_run: o.DryRun = False,
    shard: o.Shard = None,
    scheduler: o.Scheduler = None,
    seed: o.Seed = 0,
    threads: o.Threads = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    json: o.Json = False,
    config: o.Config = None,
) -> None:
    """Make coarser, blurred, noisy frames from fine ones, with their variance and kernel inside.

    Example: sciresdiff degrade high.fits -o low.fits --scale 4 --kernel gaussian:sigma=2.4px --gain 10 --read-noise 8

    Photon noise is on when a gain is given or a recipe sets one. Noise acts on the coarse frame, per coarse pixel.

    Large frames go through memory block by block; recipes that resize twice, code JPEG or blur noise again (star,
    second-order, real-esrgan) take a frame whole, up to 4096 px a side.
    """
    values = dict(locals())
    from sciresdiff.jobs import degrade as job

    values.update(gain=o.number("--gain", gain), read_noise=o.number("--read-noise", read_noise))
    options = o.pick(job.DegradeOptions, values)
    set_threads(threads)
    over_files(
        inputs,
        o.pick(o.Shared, values),
        options,
        scale_of=lambda path: scale,
        work=lambda path, target, progress, shard: job.run(path, target, options, progress, shard, scheduler),
        plan=lambda path: job.plan(path, options),
        remote=partial(job.run, options=options),
    )
