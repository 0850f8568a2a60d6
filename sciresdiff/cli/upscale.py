"""``sciresdiff upscale``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from sciresdiff.cli import options as o
from sciresdiff.cli.run import over_files

ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME|PATH|physics",
        rich_help_panel=o.MODEL,
        help="A shipped model, a model's folder or file, or physics (no network). Default: by kind and scale.",
    ),
]
Then = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PATH",
        rich_help_panel=o.MODEL,
        help="A second model, which goes on with the draws of --model (a cascade); the scale is both scales' product.",
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE.toml",
        rich_help_panel=o.MODEL,
        help="Run the model's refiner by another method that asks the same of a network. Default: the one it has.",
    ),
]
Scale = Annotated[
    int | None,
    typer.Option(
        metavar="2|4", callback=o.at_least(1), rich_help_panel=o.MODEL, help="Fine pixels per input pixel, each axis."
    ),
]
Offset = Annotated[
    str | None,
    typer.Option(metavar="ADU", rich_help_panel=o.NOISE, help="Value of a pixel without light: a number or a map."),
]
Mask = Annotated[
    str | None,
    typer.Option(metavar="EXT|FILE", rich_help_panel=o.NOISE, help="Bad pixels (not zero): an extension or a file."),
]
Saturation = Annotated[
    float | None, typer.Option(metavar="ADU", rich_help_panel=o.NOISE, help="Value from which a pixel is saturated.")
]
Samples = Annotated[
    int,
    typer.Option(
        metavar="K", callback=o.at_least(1), rich_help_panel=o.SAMPLING, help="Draws from the posterior; mean out."
    ),
]
SaveSamples = Annotated[
    bool,
    typer.Option(
        "--save-samples",
        rich_help_panel=o.SAMPLING,
        help="Keep the draws: errors of sums, colours and lengths are measured on them.",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        metavar="N", callback=o.at_least(1), rich_help_panel=o.SAMPLING, help="Refiner steps; default: the model's."
    ),
]
Realism = Annotated[
    float | None,
    typer.Option(
        metavar="R",
        rich_help_panel=o.SAMPLING,
        help="0 (a mean) to 1 (a likely image), for a one-step student that was taught both; default: 1.",
    ),
]
Refine = Annotated[
    bool,
    typer.Option(
        "--refine/--no-refine",
        rich_help_panel=o.SAMPLING,
        help="Draw with the refiner, or stop at the prior; with the physics alone, no draws.",
    ),
]
Consistency = Annotated[
    Literal["noise", "exact", "off"],
    typer.Option(
        metavar="noise|exact|off",
        rich_help_panel=o.SAMPLING,
        help="How the data are met: within their noise, exactly, or not at all.",
    ),
]
Tile = Annotated[
    int,
    typer.Option(
        metavar="PX",
        callback=o.at_least(0),
        rich_help_panel=o.SAMPLING,
        help="Tile side in input pixels; 0 takes a frame, or each block of a large one, at once.",
    ),
]
Checks = Annotated[
    bool,
    typer.Option(
        "--checks/--no-checks", rich_help_panel=o.CHECKS, help="Run the checks that need no truth on the output."
    ),
]
Assume2D = Annotated[
    bool,
    typer.Option(
        "--assume-2d", rich_help_panel=o.INPUT, help="Restore a widefield z-stack plane by plane all the same."
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="TYPE",
        rich_help_panel=o.OUTPUT,
        help="Type of the pixels. Default: float32 for FITS, the input's for TIFF.",
    ),
]
Pyramid = Annotated[
    bool,
    typer.Option(
        "--pyramid",
        rich_help_panel=o.OUTPUT,
        help="Tiles, lossless compression and smaller copies to look at (block means), in .ome.tif and .ome.zarr.",
    ),
]


def upscale(
    inputs: o.Inputs,
    output: o.Output,
    model: ModelName = None,
    then: Then = None,
    method: Method = None,
    scale: Scale = None,
    psf: o.Psf = None,
    kernel: o.Kernel = None,
    target_fwhm: o.TargetFwhm = None,
    quantity: o.Quantity = None,
    gain: o.Gain = None,
    read_noise: o.ReadNoise = None,
    offset: Offset = None,
    variance: o.Variance = None,
    mask: Mask = None,
    saturation: Saturation = None,
    samples: Samples = 8,
    save_samples: SaveSamples = False,
    steps: Steps = None,
    realism: Realism = None,
    refine: Refine = True,
    consistency: Consistency = "noise",
    tile: Tile = 256,
    checks: Checks = True,
    axes: o.Axes = None,
    pixel_size: o.PixelSize = None,
    assume_2d: Assume2D = False,
    dtype: Dtype = None,
    pyramid: Pyramid = False,
    manifest: o.Manifest = None,
    recursive: o.Recursive = False,
    overwrite: o.Overwrite = False,
    dry_run: o.DryRun = False,
    shard: o.Shard = None,
    scheduler: o.Scheduler = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    threads: o.Threads = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    json: o.Json = False,
    config: o.Config = None,
) -> None:
    """Restore frames on a finer grid, with planes for the error and for the support by the data.

    Example: sciresdiff upscale low.fits -o high.fits --scale 4 --psf gaussian:fwhm=2.1px --variance VAR

    What is not given is read from the header, else measured from the frame, and said on stderr in one line each.
    """
    values = dict(locals())
    from sciresdiff.jobs import upscale as job

    values.update(
        gain=o.number("--gain", gain),
        read_noise=o.number("--read-noise", read_noise),
        offset=o.number("--offset", offset, low=None),
    )
    options = o.pick(job.UpscaleOptions, values)

    def scale_of(path: Path) -> int | None:
        from sciresdiff.jobs.upscale import models

        try:
            return models.scale_of(path, options)
        except Exception:  # the run itself tells what is wrong with this file
            return None

    over_files(
        inputs,
        o.pick(o.Shared, values),
        options,
        scale_of,
        work=lambda path, target, progress, shard: job.run(path, target, options, progress, shard, scheduler),
        plan=lambda path: job.plan(path, options),
        remote=partial(job.run, options=options),
    )
