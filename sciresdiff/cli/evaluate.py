"""``sciresdiff evaluate``."""

from __future__ import annotations

from typing import Annotated

import typer

from sciresdiff.cli import options as o


def evaluate(
    inputs: o.Inputs,
    low: Annotated[
        list[str] | None,
        typer.Option(metavar="LOW", rich_help_panel=o.INPUT, help="The frames that were restored, in the same order."),
    ] = None,
    truth: Annotated[
        list[str] | None,
        typer.Option(metavar="TRUTH", rich_help_panel=o.INPUT, help="The true images, where they are known."),
    ] = None,
    psf: o.Psf = None,
    kernel: o.Kernel = None,
    variance: o.Variance = None,
    quantity: o.Quantity = None,
    report: Annotated[
        str | None,
        typer.Option(metavar="PAGE", rich_help_panel=o.OUTPUT, help="Write a picture (.png) or a page (.html)."),
    ] = None,
    csv: Annotated[
        str | None, typer.Option(metavar="FILE", rich_help_panel=o.OUTPUT, help="Write all results as a table.")
    ] = None,
    baselines: Annotated[
        str,
        typer.Option(
            metavar="LIST", rich_help_panel=o.CHECKS, help="Methods to compare with: bicubic, lanczos, richardson-lucy."
        ),
    ] = "bicubic,lanczos,richardson-lucy",
    strict: Annotated[
        bool, typer.Option("--strict", rich_help_panel=o.CHECKS, help="Exit with 4 where a check fails.")
    ] = False,
    limits: Annotated[
        str | None,
        typer.Option(metavar="FILE.toml", rich_help_panel=o.CHECKS, help="Other limits for the checks, by name."),
    ] = None,
    recursive: o.Recursive = False,
    overwrite: o.Overwrite = False,
    dry_run: o.DryRun = False,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    threads: o.Threads = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    json: o.Json = False,
    config: o.Config = None,
) -> None:
    """Measure restored images: fluxes, sources, agreement with the data, calibration, beside the classical methods.

    Example: sciresdiff evaluate high.fits --low low.fits --truth truth.fits --report high.png

    Without a truth every check that needs none is run. Several pairs are matched by stem, else by order.
    """
