"""``sciresdiff upscale``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sciresdiff.cli.parameters import command
from sciresdiff.cli.run import over_files
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.run.options import FileOptions


@command()
def upscale(options: UpscaleOptions, files: FileOptions) -> None:
    """Restore frames on a finer grid, with planes for the error and for the support by the data.

    Example: sciresdiff upscale low.fits -o high.fits --scale 4 --psf gaussian:fwhm=2.1px --variance VAR

    Missing settings are read from the header or measured on the frame, and reported on stderr in one line each.
    """
    from sciresdiff.jobs import upscale as job

    over_files(
        files,
        options,
        scale_of=lambda path: _scale_of(path, options),
        work=lambda path, target, progress, shard: job.run(path, target, options, progress, shard, files.scheduler),
        plan=lambda path: job.plan(path, options),
        remote=partial(job.run, options=options),
    )


def _scale_of(path: Path, options: UpscaleOptions) -> int | None:
    """The scale in an output's name; None where it cannot be known, and the run itself says what is wrong."""
    from sciresdiff.jobs.upscale import models

    try:
        return models.scale_of(path, options)
    except Exception:
        return None
