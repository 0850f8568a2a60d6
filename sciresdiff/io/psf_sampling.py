"""The sampling of a PSF image: which pixels it has, by the cards of its header."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from astropy.io import fits

from sciresdiff.errors import InputError
from sciresdiff.frame import PixelSize
from sciresdiff.io.fits.header import card_number, card_value
from sciresdiff.io.fits.wcs import has_wcs, pixel_size
from sciresdiff.notes import Notes

SIZES = ("PIXELSCL", "PIXSCALE", "PIXSCAL", "PIXSCL", "PIXELSCALE", "SECPIX", "GS_SCALE")
"""Cards with the side of a pixel."""
SIZES_BY_AXIS = (("PIXSCAL2", "PIXSCAL1"), ("SECPIX2", "SECPIX1"))
"""The same along y and along x."""
ANGLES = {"mas": 1e-3, "milliarcsec": 1e-3, "arcmin": 60.0, "deg": 3600.0, "degree": 3600.0, "rad": 206264.806}
"""Units that a card's comment may name -> arcsec."""
FACTORS = ("DET_SAMP", "OVERSAMP", "OVERSAMPLE", "OVERSMPL", "OSAMP", "SUBSAMP")
"""Cards with the number of samples per detector pixel, the first that is there."""
DETECTOR = ("DET_SAMP", "DET_DIST")
"""Names of extensions of STPSF and WebbPSF that are binned to the detector's pixels."""
OPTICAL = ("OVERSAMP", "OVERDIST")
"""Names of those that are finer, and do not have the detector's pixel in them."""
PSFEX = ("POLNAXIS", "PSFNAXIS", "PSF_FWHM", "CHI2")
"""Cards that PSFEx writes beside PSF_SAMP."""
EXACT, DIFFERENT = 0.005, 0.1
"""Relative difference of two samplings that counts as rounding, and above which two cards contradict each other."""
BELIEVED = (1 / 64, 5.0)
"""Frame pixels per sample between which a stated size is believed."""


@dataclass(frozen=True)
class Sampling:
    """How finely a PSF image is sampled; with nothing set, like the frame."""

    size: PixelSize | None = None
    """Side of one of its pixels."""
    step: float | None = None
    """Frame pixels per pixel of the image, by a card that counts samples."""
    of_size: str = ""
    """The card of the size, in words."""
    of_step: str = ""
    """The card of the step, in words."""
    approximate: bool = False
    """Whether the size is said to be approximate."""
    effective: bool | None = None
    """Whether the frame's pixel is in the image; None: it is unless the image is finer than the frame."""
    notes: Notes = Notes()

    def of_frame(self, pixel: PixelSize | None, name: str) -> tuple[tuple[float, float], bool, Notes]:
        """Frame pixels along y and x per pixel of the image, whether it has the frame's pixel in it, and why.

        Parameters
        ----------
        pixel : PixelSize or None
            Of the frame.
        name : str
            Of the file, for messages.

        Raises
        ------
        InputError
            A size that makes no sense beside the frame's, and nothing else to go by.
        """
        step, notes = self._step(pixel, name)
        finer = float(np.sqrt(step[0] * step[1])) < 1 - DIFFERENT
        effective = not finer if self.effective is None else self.effective
        if not effective:
            notes += Notes(f"{name}: finer than the frame, so integrated over its pixel; FILE,effective=1 where it is "
                           "in the image already (a measured ePSF)")  # fmt: skip
        if min(step) > 1 + DIFFERENT:
            notes += Notes(
                f"WARNING {name}: sampled {max(step):.3g} times coarser than the frame; finer detail of the PSF is lost"
            )
        return step, effective, self.notes + notes

    def _step(self, pixel: PixelSize | None, name: str) -> tuple[tuple[float, float], Notes]:
        """`of_frame` without what it says of the pixel."""
        counted = None if self.step is None else (self.step, self.step)
        if self.size is None:
            if counted is None:
                return (1.0, 1.0), Notes(f"{name}: no card says how it is sampled; taken as sampled like the frame")
            return counted, Notes(f"{name}: {self.of_step}: {describe_step(counted)}")
        if pixel is None or pixel.unit != self.size.unit:
            if counted is not None:
                return counted, Notes(f"{name}: {self.of_step}: {describe_step(counted)}; the frame's pixel size is "
                                      f"unknown, so {self.of_size} is not used")  # fmt: skip
            return (1.0, 1.0), Notes(
                f"WARNING {name}: {self.of_size}, but the frame's pixel size is unknown; taken as sampled like the "
                "frame: give --pixel-size, or --psf FILE,oversample=N"
            )
        step = self.size.y / pixel.y, self.size.x / pixel.x
        if not BELIEVED[0] <= min(step) <= max(step) <= BELIEVED[1]:
            return self._doubt(step, pixel, name)
        if self.approximate:
            step = _whole_factor(step)
        step = (1.0, 1.0) if max(abs(s - 1) for s in step) < EXACT else step
        line = f"{name}: {self.of_size}, the frame's pixel {pixel.x:.4g} {pixel.unit}: {describe_step(step)}"
        if counted is not None and abs(np.sqrt(step[0] * step[1]) / counted[0] - 1) > DIFFERENT:
            return step, Notes(f"WARNING {line}; {self.of_step} says {describe_step(counted)}, and is not used")
        return step, Notes(line)

    def _doubt(self, step: tuple[float, float], pixel: PixelSize, name: str) -> tuple[tuple[float, float], Notes]:
        """A size that cannot be in the unit that it is taken for."""
        what = f"{name}: {self.of_size} is not believed beside the frame's pixel of {pixel.x:.4g} {pixel.unit}"
        if self.step is None:
            raise InputError(f"{what} ({describe_step(step)}); check its unit, or give --psf FILE,oversample=N")
        counted = self.step, self.step
        return counted, Notes(f"WARNING {what}; {self.of_step}: {describe_step(counted)}")


def describe_step(step: tuple[float, float]) -> str:
    """A sampling in words: how many samples a pixel of the frame has."""
    if step == (1.0, 1.0):
        return "sampled like the frame"
    each = [1 / s for s in step]
    if abs(each[0] / each[1] - 1) < EXACT:
        return f"{each[0]:.4g} samples per frame pixel"
    return f"{each[0]:.4g} x {each[1]:.4g} samples per frame pixel"


def _whole_factor(step: tuple[float, float]) -> tuple[float, float]:
    """1/N where an approximate size is near it; else the step as it is."""
    mean = float(np.sqrt(step[0] * step[1]))
    n = max(round(1 / mean), 1)
    return (1 / n, 1 / n) if abs(mean * n - 1) < DIFFERENT else step


def sampling_of_header(header: fits.Header) -> Sampling:
    """The sampling that the header of a PSF image states.

    Parameters
    ----------
    header : Header
        Of the image's own HDU.
    """
    name = str(card_value(header, "EXTNAME", "")).strip().upper()
    size, of_size, approximate = _size(header)
    step, of_step, notes = _step(header, name)
    grid = "DET_YX0" in header or "NXPSFS" in header
    effective = True if grid or name in DETECTOR or "PSF_SAMP" in header else False if name in OPTICAL else None
    return Sampling(size, step, of_size, of_step, approximate, effective, notes)


def _size(header: fits.Header) -> tuple[PixelSize | None, str, bool]:
    """Side of a pixel, the card in words, and whether it is approximate."""
    for pair in (*SIZES_BY_AXIS, *((key, key) for key in SIZES)):
        sides = [abs(card_number(header, key) or 0) for key in pair]
        if not all(sides):
            continue
        comment = str(header.comments[pair[0]]).lower()
        words = re.findall(r"[a-zµ]+", comment)
        micron = any(word in ("um", "µm", "micron", "microns", "micrometer", "micrometre") for word in words)
        factor = next((ANGLES[w.removesuffix("s")] for w in words if w.removesuffix("s") in ANGLES), None)
        factor = next((ANGLES[w] for w in words if w in ANGLES), factor) or 1.0
        y, x = (factor * side for side in sides)
        unit: Any = "um" if micron and "arc" not in comment else "arcsec"
        return PixelSize(y, x, unit), f"{pair[0]} = {x:.6g} {unit}", "approx" in comment
    if has_wcs(header) and (found := pixel_size(header)):
        return found, f"its WCS: {found.x:.6g} arcsec a pixel", False
    return None, "", False


def _step(header: fits.Header, name: str) -> tuple[float | None, str, Notes]:
    """Frame pixels per sample, the card in words, and what is doubtful of it."""
    if name in DETECTOR:
        return 1.0, f"extension {name}", Notes()
    if (samples := card_number(header, "PSF_SAMP")) and samples > 0:
        psfex = any(key in header for key in PSFEX) or samples >= 1 - DIFFERENT
        doubt = (
            "WARNING psf: PSF_SAMP of an image that is not PSFEx's: taken as sampled with the frame's pixel in it, as "
            "those are; give FILE,effective=0 where it is the optics alone"
        )
        return samples, f"PSF_SAMP = {samples:g} px a sample", Notes() if psfex else Notes(doubt)
    for key in FACTORS:
        factor = card_number(header, key)
        if not factor or factor <= 0:
            continue
        if factor < 1:  # a step where a factor belongs
            return (
                factor,
                f"{key} = {factor:g}",
                Notes(f"WARNING psf: {key} = {factor:g} is below 1, and taken as frame pixels per sample"),
            )
        return 1 / factor, f"{key} = {factor:g}", Notes()
    if "NXPSFS" in header and "NYPSFS" in header:
        return 0.25, "an STDPSF, 4 samples a pixel", Notes()
    return None, "", Notes()


def with_stated(sampling: Sampling, stated: Mapping[str, float]) -> Sampling:
    """The sampling with what the user states after the file's name: ``oversample`` and ``effective``."""
    if "effective" in stated:
        # what is doubtful of PSF_SAMP is whether the pixel is in it, which is stated
        left = Notes(*(line for line in sampling.notes if "PSF_SAMP" not in line))
        sampling = replace(sampling, effective=bool(stated["effective"]), notes=left)
    if "oversample" in stated:
        factor = stated["oversample"]
        sampling = replace(sampling, size=None, step=1 / factor, of_step=f"oversample={factor:g}", notes=Notes())
    return sampling
