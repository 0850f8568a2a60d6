"""The options of ``upscale``."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from sciresdiff.errors import UsageError
from sciresdiff.observation.options import Stated
from sciresdiff.options import CHECKS, INPUT, MODEL, OUTPUT, SAMPLING, option, same_as
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
    scale: float | None = option(
        "Fine pixels per input pixel, each axis; without a network 1, 3 and decimal numbers too.",
        None,
        panel=MODEL,
        metavar="S",
        at_least=1,
    )
    joint: bool = option(
        "Restore one image of all inputs: exposures of one field. An option may be given for each, with | between.",
        False,
        panel=INPUT,
        names=("--joint",),
    )
    align: Literal["wcs", "measure"] = option(
        "Where exposures lie: by their WCS, or measured on what they show.", "wcs", panel=INPUT
    )
    grid: str | None = option(
        "Pixels of the output: those of a FITS image, or of a text file of header cards.",
        None,
        panel=INPUT,
        metavar="FILE",
    )
    match_psf: bool = option(
        "Restore every input by itself on the grid of the first one (or --grid), with one PSF that all of them support:"
        " bands, whose colours are right then. An option may be given for each, with | between.",
        False,
        panel=INPUT,
    )
    leave_out: int | None = option(
        "Leave exposure K of --joint out, counted from 0, and tell the chi2 of its prediction from the others.",
        None,
        panel=CHECKS,
        metavar="K",
        at_least=0,
    )
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

    def __post_init__(self) -> None:
        """A whole number stays one.

        Raises
        ------
        UsageError : options of several exposures without ``joint``, or what ``match_psf`` cannot do.
        """
        if self.scale is not None and self.scale == int(self.scale):
            object.__setattr__(self, "scale", int(self.scale))
        for name, given in (("--leave-out", self.leave_out is not None), ("--align measure", self.align == "measure")):
            if given and not self.joint:
                raise UsageError(f"{name}: belongs to --joint, which makes one image of several exposures; add it")
        if self.match_psf:
            self._refuse_unmatched()

    def _refuse_unmatched(self) -> None:
        """Refuse what leaves the PSF or the error of a matched image unknown.

        Raises
        ------
        UsageError
        """
        if self.joint:
            raise UsageError("--match-psf: makes an image of every input, and --joint one of all; give one of them")
        if self.kernel is not None:
            raise UsageError("--match-psf: needs the whole PSF of every input; give --psf instead of --kernel")
        if not self.refine:
            raise UsageError("--match-psf: measures ERR on samples; leave --no-refine out")

    @property
    def whole_scale(self) -> int | None:
        """The scale of an output whose pixels are whole parts of the input's.

        Raises
        ------
        UsageError : a decimal number.
        """
        if isinstance(self.scale, int | None):
            return self.scale
        raise UsageError(f"--scale: {self.scale:g} is given, but a whole number is allowed here")

    @property
    def resamples(self) -> bool:
        """Whether the output's pixels are no whole parts of one input's."""
        return self.joint or self.match_psf or self.grid is not None or not isinstance(self.scale, int | None)


def of_exposures(options: UpscaleOptions, count: int) -> list[UpscaleOptions]:
    """The options of every exposure: those with ``|`` between have one for each.

    Raises
    ------
    UsageError : another number of them than there are exposures.
    """
    split: dict[str, Any] = {}
    for field in fields(Stated):
        value = getattr(options, field.name)
        if isinstance(value, str) and "|" in value:
            parts = [part.strip() or None for part in value.split("|")]
            if len(parts) != count:
                name = "--" + field.name.replace("_", "-")
                raise UsageError(f"{name}: {len(parts)} values are given for {count} exposures; give one, or one each")
            split[field.name] = parts
    return [replace(options, **{name: parts[k] for name, parts in split.items()}) for k in range(count)]
