"""Bands of one field on one grid and with one PSF: which PSF all of them support, and what each band is told."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from sciresdiff.errors import UsageError
from sciresdiff.io import open_files
from sciresdiff.jobs.upscale.joint import open_exposure
from sciresdiff.jobs.upscale.joint_output import grid_of
from sciresdiff.jobs.upscale.options import UpscaleOptions, of_exposures
from sciresdiff.observation.psf import TARGET_FWHM
from sciresdiff.observation.resolve_band import RESOLVED, measure_width


def match_bands(paths: Sequence[str | Path], options: UpscaleOptions) -> list[UpscaleOptions]:
    """The options of every band, with the grid and the PSF that all of them get.

    The grid is that of ``--grid``, or of the first band; ``--scale`` times finer, by default 1 and 2 times.  The PSF is
    a Gaussian of ``--target-fwhm``, else of `RESOLVED` times the FWHM of the widest band, and `TARGET_FWHM` at least.

    Parameters
    ----------
    paths : of the bands.
    options : those of the command; one with ``|`` between has a value for each band.

    Returns
    -------
    One for each band, with ``grid``, ``scale`` and ``target_fwhm`` (output px) set.

    Raises
    ------
    UsageError, InputError : fewer than two bands; as `observation.resolve_band.measure_width`.
    """
    if len(paths) < 2:
        raise UsageError("--match-psf: one file is given; give the bands of a field, two or more")
    scale = options.scale or (1 if options.grid else 2)
    options = replace(options, grid=options.grid or str(paths[0]), scale=scale)
    each = of_exposures(options, len(paths))
    if options.target_fwhm is None:
        try:
            widths = [width_of(str(path), one) for path, one in zip(paths, each, strict=True)]
        finally:
            open_files.close()
        target = round(max(TARGET_FWHM, RESOLVED * max(widths)), 3)
        each = [replace(one, target_fwhm=target) for one in each]
    return each


def width_of(path: str, options: UpscaleOptions) -> float:
    """FWHM of a band's PSF with the band's pixel on the grid of all, output px."""
    with ExitStack() as stack:
        return measure_width(open_exposure(stack, path, options), grid_of(options))[1]
