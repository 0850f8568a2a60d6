"""One plane of a frame that is compared with another frame: its values, which of them are good, and its PSF."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sciresdiff import io
from sciresdiff.checks import registration
from sciresdiff.checks.arrays import Array, Mask
from sciresdiff.errors import InputError
from sciresdiff.frame import Frame, PixelSize
from sciresdiff.notes import Notes
from sciresdiff.observation.measured_psf import measure_plane
from sciresdiff.observation.psf import psf_of_header
from sciresdiff.physics import psf
from sciresdiff.physics.psf.file import image_of_file

NEGATIVE_WINGS = 0.02
"""Share of a PSF's light that its wings may be below zero by before a warning is given."""


@dataclass(frozen=True)
class ImagePlane:
    """One plane of a frame."""

    frame: Frame
    """All planes, with the pixel size that holds for this one."""
    name: str
    """Of the file, for messages."""
    pixels: Array
    """(h, w), in the frame's unit."""
    good: Mask
    """(h, w), True where a pixel is finite and not masked."""
    psf: Array | None
    """(K, L), integrated over the pixel, centred, sum 1; None where it is not known."""

    @property
    def sides(self) -> tuple[float, float]:
        """Sides (y, x) of a pixel in the unit of the pixel size; 1 px where there is none."""
        size = self.frame.pixel_size
        return (1.0, 1.0) if size is None else (size.y, size.x)

    @property
    def side(self) -> float:
        """Side of a square of a pixel's area, in the same unit."""
        return float(np.sqrt(self.sides[0] * self.sides[1]))


def read_plane(
    image: str | Path | Frame,
    plane: int = 0,
    pixel_size: float | PixelSize | None = None,
    given_psf: str | Path | Array | None = None,
) -> tuple[ImagePlane, Notes]:
    """Read one plane of a file, or take it out of a frame, and find its PSF.

    Parameters
    ----------
    image : str, Path or Frame
        The file, or the frame that was read of it.
    plane : int
        Number of the plane, from 0.
    pixel_size : float, PixelSize or None
        Side of a pixel, a number in arcsec; None: as the file states it.
    given_psf : str, Path, (K, L) array or None
        See `resolve_whole_psf`.

    Returns
    -------
    plane : ImagePlane
    notes : Notes
        How the PSF was found, and a warning where its wings are negative.

    Raises
    ------
    InputError
        No such plane, every pixel masked, or a file that cannot be read.
    """
    frame = image if isinstance(image, Frame) else io.read(image)
    name = "frame" if isinstance(image, Frame) else Path(image).name
    if not 0 <= plane < frame.planes:
        raise InputError(f"{name}: no plane {plane}; it has {frame.planes}, counted from 0")
    if isinstance(pixel_size, int | float):
        pixel_size = PixelSize(float(pixel_size), float(pixel_size), "arcsec")
    frame = frame.with_(pixel_size=pixel_size or frame.pixel_size)
    good = ~frame.mask[plane] & np.isfinite(frame.pixels[plane])
    if not good.any():
        raise InputError(f"{name}: every pixel is masked; there is nothing to register")
    whole, notes = resolve_whole_psf(frame, plane, given_psf, name)
    if whole is not None and (share := registration.negative_wings(whole)) > NEGATIVE_WINGS:
        notes += Notes(
            f"{name}: the PSF's wings are negative, {100 * share:.0f} % of its light; its sky was taken too high, and"
            " the ratio that is fitted to matched images is wrong by as much"
        )
    return ImagePlane(frame, name, frame.pixels[plane].astype(np.float64), good, whole), notes


def resolve_whole_psf(
    frame: Frame, plane: int, given: str | Path | Array | None, name: str
) -> tuple[Array | None, Notes]:
    """Find the PSF of a plane, integration over the pixel included: given, stated by the file, or measured on stars.

    Unlike `observation.psf.resolve_psf` it is not divided by the PSF of a wanted image, and that there is none is no
    error.

    Parameters
    ----------
    frame : Frame
    plane : int
        Number of the plane.
    given : str, Path, (K, L) array or None
        SPEC, file (of a cube the plane of that number) or image, on the frame's pixels and with the pixel in it.
    name : str
        Of the frame, for messages.

    Returns
    -------
    psf : (M, N) array or None
        Odd sides, centred, sum 1; None where nothing states it and too few stars show it.
    notes : Notes
    """
    if isinstance(given, np.ndarray):
        return psf.centre_psf(given.astype(np.float64)), Notes()
    if given is not None:
        return _read_whole_psf(frame, plane, str(given))
    if stated := psf_of_header(frame, plane):
        return psf.render(stated, frame.pixel_size, integrate="psf_known" not in frame.facts), Notes()
    try:
        found = measure_plane(frame, plane)
    except InputError:
        return None, Notes(f"{name}: no PSF is given or stated, and there are too few stars to measure one")
    return found.render(), Notes(f"{name}: PSF of fwhm {found.fwhm:.3g} px measured on {found.used} stars")


def _read_whole_psf(frame: Frame, plane: int, spec: str) -> tuple[Array, Notes]:
    """The PSF that a SPEC or the name of a file says, (K, L), and what was done to it."""
    parsed = psf.parse(spec)
    if parsed.shape != "file":
        return psf.render(parsed, frame.pixel_size, integrate=True), Notes()
    return image_of_file(parsed, frame.pixel_size, plane)
