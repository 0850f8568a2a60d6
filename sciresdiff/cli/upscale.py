"""``sciresdiff upscale``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sciresdiff.cli.parameters import command
from sciresdiff.cli.run import Together, inputs_of, over_files
from sciresdiff.jobs.upscale.options import UpscaleOptions
from sciresdiff.run.options import FileOptions


@command()
def upscale(options: UpscaleOptions, files: FileOptions) -> None:
    """Restore frames on a finer grid, with planes for the error and for the support by the data.

    Example: sciresdiff upscale low.fits -o high.fits --scale 4 --psf gaussian:fwhm=2.1px --variance VAR

    Missing settings are read from the header or measured on the frame, and reported on stderr in one line each.
    """
    from sciresdiff.jobs import upscale as job

    if options.match_psf:
        match_files(options, files)
        return
    if options.resamples:
        resample_files(options, files)
        return
    over_files(
        files,
        options,
        scale_of=lambda path: _scale_of(path, options),
        work=lambda path, target, progress, shard: job.run(path, target, options, progress, shard, files.scheduler),
        plan=lambda path: job.plan(path, options),
        remote=partial(job.run, options=options),
    )


def resample_files(options: UpscaleOptions, files: FileOptions) -> None:
    """Restore one image of all inputs (``--joint``), or each on pixels that are no whole parts of its own."""
    from sciresdiff.jobs.upscale import joint as job

    over_files(
        files,
        options,
        scale_of=lambda _path: options.scale or 2,  # type: ignore[arg-type, return-value]
        work=lambda path, target, progress, shard: job.run_joint(
            [path], target, options, progress, shard, files.scheduler
        ),
        plan=lambda path: job.plan_joint([path], options),
        remote=partial(_run_alone, options=options),
        together=Together(
            work=lambda paths, _first, target, progress, shard: job.run_joint(
                paths, target, options, progress, shard, files.scheduler
            ),
            plan=lambda paths: job.plan_joint(paths, options),
            identify=lambda paths: job.identify_joint([str(path) for path in paths], options),
        )
        if options.joint
        else None,
        identify=lambda path: job.identify_joint([str(path)], options),
    )


def match_files(options: UpscaleOptions, files: FileOptions) -> None:
    """Restore every input by itself, all on one grid and with one PSF (``--match-psf``)."""
    from sciresdiff.jobs.upscale import joint as job
    from sciresdiff.jobs.upscale.match import match_bands

    paths = [one.path for one in inputs_of(files)]
    each = dict(zip(paths, match_bands(paths, options), strict=True))
    over_files(
        replace(files, inputs=tuple(map(str, paths)), recursive=False),  # a list on stdin is read once
        options,
        scale_of=lambda _path: None,
        work=lambda path, target, progress, shard: job.run_joint(
            [path], target, each[path], progress, shard, files.scheduler
        ),
        plan=lambda path: job.plan_joint([path], each[path]),
        remote=partial(_run_band, each=each),
        identify=lambda path: job.identify_joint([str(path)], each[path]),
    )


def _run_band(path: Path, target: Path, each: Mapping[Path, UpscaleOptions]) -> Mapping[str, Any]:
    """One of several bands, as a worker does it."""
    return _run_alone(path, target, each[path])


def _run_alone(path: Path, target: Path, options: UpscaleOptions) -> Mapping[str, Any]:
    """One file on other pixels, as a worker does it."""
    from sciresdiff.jobs.upscale.joint import run_joint

    return run_joint([path], target, options)


def _scale_of(path: Path, options: UpscaleOptions) -> int | None:
    """The scale in an output's name; None where it cannot be known, and the run itself says what is wrong."""
    from sciresdiff.jobs.upscale import models

    try:
        return models.scale_of(path, options)
    except Exception:
        return None
