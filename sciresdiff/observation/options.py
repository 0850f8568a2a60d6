"""What the user states of a measurement; what is not stated is read from the file or measured on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sciresdiff.options import INPUT, NOISE, PHYSICS, option


@dataclass(frozen=True)
class Stated:
    """What the user states of a frame; None: read it from the file, else measure it, and say so."""

    psf: str | None = option(
        "Whole PSF of the input: gaussian:fwhm=2.1px, moffat:fwhm=0.8arcsec,beta=3, airy:na=1.4,wavelength=525nm,"
        " none, measure, or a file.",
        None,
        panel=PHYSICS,
        metavar="SPEC",
    )
    kernel: str | None = option(
        "Blur between the fine and the coarse image, in fine pixels, for instance gaussian:sigma=1.2px; wins over"
        " --psf.",
        None,
        panel=PHYSICS,
        metavar="SPEC",
    )
    target_fwhm: float | None = option(
        "FWHM of the Gaussian PSF of the fine image, in fine pixels.", None, panel=PHYSICS, metavar="PX", above=0
    )
    quantity: Literal["sum", "mean"] | None = option(
        "What a block of pixels does: add up (counts) or average (brightness). Default: BUNIT, else sum for FITS and"
        " mean for TIFF.",
        None,
        panel=PHYSICS,
    )
    gain: float | str | None = option(
        "Electrons per unit of the file: a number or a map.", None, panel=NOISE, metavar="E_PER_ADU", at_least=0
    )
    read_noise: float | str | None = option(
        "Read noise in electrons per pixel: a number or a map.", None, panel=NOISE, metavar="E", at_least=0
    )
    offset: float | str | None = option(
        "Bias level in units of the file: a number or a map.", None, panel=NOISE, metavar="ADU", finite=True
    )
    variance: str | None = option(
        "Noise of every input pixel: an extension or a file. Its name tells whether it is a variance, an error or a"
        " weight; FITS: rms:EXT|FILE, sigma:, variance:, ivar: and weight: say it.",
        None,
        panel=NOISE,
        metavar="EXT|FILE",
    )
    mask: str | None = option("Bad pixels (not zero): an extension or a file.", None, panel=NOISE, metavar="EXT|FILE")
    saturation: float | None = option("Value from which a pixel is saturated.", None, panel=NOISE, metavar="ADU")
    axes: str | None = option("Axes of a TIFF, for instance ZCYX.", None, panel=INPUT, metavar="AXES")
    allow_outside: bool = option(
        "Read pixels that the input says lie in files outside its folder (OME, HDF5, Zarr).", False, panel=INPUT
    )
    pixel_size: str | None = option(
        "Side of a pixel, for instance 0.065um or 0.05arcsec.", None, panel=INPUT, metavar="SIZE"
    )
    assume_2d: bool = option("Restore a widefield z-stack plane by plane.", False, panel=INPUT)
