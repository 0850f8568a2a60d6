"""What the user states of a measurement; what is not stated is read from the file or measured on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sciresdiff.errors import UsageError
from sciresdiff.options import INPUT, NOISE, PHYSICS, option


def check_noise(given: str) -> None:
    """Refuse a ``--noise`` that is no word of it and no factor.

    Raises
    ------
    UsageError
    """
    try:
        known = given in ("white", "measured") or 0.1 <= float(given) <= 100
    except ValueError:
        known = False
    if not known:
        raise UsageError(f"--noise: {given} is given; give white, measured, or a factor of 0.1 to 100")


@dataclass(frozen=True)
class Stated:
    """What the user states of a frame; None: read it from the file, else measure it, and say so."""

    psf: str | None = option(
        "Whole PSF of the input: gaussian:fwhm=2.1px, moffat:fwhm=0.8arcsec,beta=3, airy:na=1.4,wavelength=525nm,"
        " none, a file (FILE,oversample=4 where it does not say), measure (on the frame's stars or beads), beads (the"
        " frame shows beads), beads:FILE, blind (a width from the spectrum); one for each channel with ; between.",
        None,
        panel=PHYSICS,
        metavar="SPEC",
    )
    na: float | None = option(
        "Numerical aperture of the objective; with --wavelength it gives the PSF.", None, panel=PHYSICS, above=0
    )
    ri: float | None = option(
        "Refractive index of the immersion: the PSF of a high aperture instead of an Airy pattern.",
        None,
        panel=PHYSICS,
        at_least=1,
    )
    wavelength: str | None = option(
        "Emission wavelength in nm; of several channels with commas between, 525,610.",
        None,
        panel=PHYSICS,
        metavar="NM",
    )
    pinhole: float | None = option(
        "Diameter of a confocal pinhole in Airy units.", None, panel=PHYSICS, metavar="AU", above=0
    )
    z_step: str | None = option(
        "Distance between the planes of a z-stack, for instance 0.25um.", None, panel=PHYSICS, metavar="SIZE"
    )
    sample_ri: float | None = option(
        "Refractive index of the specimen where it is not that of the immersion; with --sample-depth.",
        None,
        panel=PHYSICS,
        at_least=1,
    )
    sample_depth: float | None = option(
        "Depth of the specimen's middle below the cover glass, micrometres.",
        None,
        panel=PHYSICS,
        metavar="UM",
        at_least=0,
    )
    sheet: float | None = option(
        "Thickness (FWHM) of a light sheet, micrometres.", None, panel=PHYSICS, metavar="UM", above=0
    )
    kernel: str | None = option(
        "Blur between the fine and the coarse image, in fine pixels, for instance gaussian:sigma=1.2px; wins over"
        " --psf.",
        None,
        panel=PHYSICS,
        metavar="SPEC",
    )
    psf_error: float | None = option(
        "How well the width of the PSF or kernel is known, as a share of it: 0.1 for 10 %. Default: 0.01 for --psf, 0"
        " for --kernel and files of degrade, 0.05 from a header, the measurement's where it is measured.",
        None,
        panel=PHYSICS,
        metavar="F",
        at_least=0,
        at_most=0.5,
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
    em_gain: float | None = option(
        "Mean multiplication of an EMCCD; gain and read noise are then those without it.",
        None,
        panel=NOISE,
        metavar="M",
        at_least=1,
    )
    noise: str | None = option(
        "Whether neighbouring pixels share their noise: white (they do not), measured (in empty sky; the default), or"
        " the factor by which sums of pixels scatter more than independent ones would.",
        None,
        panel=NOISE,
        metavar="white|measured|FACTOR",
        check=check_noise,
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
    axes: str | None = option(
        "Axes of the file, a letter each: ZCYX; of FITS the first axis last.", None, panel=INPUT, metavar="AXES"
    )
    allow_outside: bool = option(
        "Read pixels that the input says lie in files outside its folder (OME, HDF5, Zarr).", False, panel=INPUT
    )
    pixel_size: str | None = option(
        "Side of a pixel, for instance 0.065um or 0.05arcsec.", None, panel=INPUT, metavar="SIZE"
    )
    depth: Literal["plane", "3d"] | None = option(
        "How a z-stack is seen: 3d, with the light that planes receive of each other (the default; needs the optics or"
        " a PSF in three dimensions), or plane by plane.",
        None,
        panel=INPUT,
    )
    assume_2d: bool = option("The same as --depth plane.", False, panel=INPUT)
    sentinels: bool = option(
        "Mask numbers that stand for no data: -999, 1e30 and others far outside of all values.", True, panel=NOISE
    )
    padding: bool = option("Mask borders, blocks and planes of one constant value.", True, panel=NOISE)
    absurd: bool = option("Mask magnitudes far beyond all others.", True, panel=NOISE)
    saturated: bool = option(
        "Mask saturated pixels: from the header's level on, at the end of the integer range, stars cut flat.",
        True,
        panel=NOISE,
        names=("--saturated/--no-saturation",),
    )
    hot_pixels: bool = option("Mask hot and dead pixels.", True, panel=NOISE)
    cosmic: bool = option("Mask cosmic rays: peaks sharper than the PSF allows.", True, panel=NOISE)


SWITCHES = ("sentinels", "padding", "absurd", "saturated", "hot_pixels", "cosmic")
"""The fields of `Stated` that switch off a mask each."""
