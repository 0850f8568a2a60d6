"""The options of ``upscale``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sciresdiff.observation.options import Stated
from sciresdiff.options import CHECKS, MODEL, OUTPUT, SAMPLING, option, same_as
from sciresdiff.run.options import ComputeOptions, RunOptions


@dataclass(frozen=True)
class UpscaleOptions(Stated):
    """What is stated of the frame, and how it is restored."""

    model: str | None = option(
        "A shipped model, a model's folder or file, or physics (no network). Default: by kind and scale.",
        None,
        panel=MODEL,
        metavar="NAME|PATH|physics",
    )
    then: str | None = option(
        "Second-stage model (cascade), which refines the samples of --model; the scale is the product of both.",
        None,
        panel=MODEL,
        metavar="NAME|PATH",
    )
    method: str | None = option(
        "Diffusion method to run the model's refiner by, if it fits the network. Default: the model's own.",
        None,
        panel=MODEL,
        metavar="NAME|FILE.toml",
    )
    scale: int | None = option("Fine pixels per input pixel, each axis.", None, panel=MODEL, metavar="2|4", at_least=1)
    samples: int = option("Posterior samples; the output is their mean.", 8, panel=SAMPLING, metavar="K", at_least=1)
    save_samples: bool = option(
        "Save posterior samples (for errors of apertures, colours, lengths).", False, panel=SAMPLING
    )
    steps: int | None = option("Refiner steps; default: the model's.", None, panel=SAMPLING, metavar="N", at_least=1)
    realism: float | None = option(
        "0 (posterior mean) to 1 (posterior sample), for one-step models trained for both; default: 1.",
        None,
        panel=SAMPLING,
        metavar="R",
    )
    refine: bool = option(
        "Sample with the refiner, or stop at the prior (with --model physics: no samples).",
        True,
        panel=SAMPLING,
    )
    consistency: Literal["noise", "exact", "off"] = option(
        "How closely the data are fitted: within their noise, exactly, or not at all.", "noise", panel=SAMPLING
    )
    tile: int = option(
        "Tile side in input pixels; 0 takes a frame, or each block of a large one, at once.",
        256,
        panel=SAMPLING,
        metavar="PX",
        at_least=0,
    )
    checks: bool = option("Run the checks that need no truth on the output.", True, panel=CHECKS)
    strict: bool = option(
        "Exit with 4 where the image contradicts its data: a WARNING of chi2, noise, flux or rings.",
        False,
        panel=CHECKS,
    )
    dtype: str | None = option(
        "Type of the pixels. Default: float32 for FITS, the input's for TIFF.", None, panel=OUTPUT, metavar="TYPE"
    )
    pyramid: bool = option(
        "Write tiles, lossless compression and downsampled copies (block means), in .ome.tif and .ome.zarr.",
        False,
        panel=OUTPUT,
    )
    seed: int = same_as(ComputeOptions, "seed")
    device: str = same_as(ComputeOptions, "device")
    threads: int | None = same_as(ComputeOptions, "threads")
    overwrite: bool = same_as(RunOptions, "overwrite")
