"""What the user states of a measurement; what is not stated is read from the file or measured on it."""

from __future__ import annotations

from dataclasses import dataclass

from sciresdiff.errors import UsageError
from sciresdiff.frame import PixelSize, Quantity


@dataclass(frozen=True)
class Stated:
    """What the user states of a frame; None: read it from the file, else measure it, and say so."""

    psf: str | None = None
    """SPEC of the frame's PSF, input px; ``measure``: from its own sources."""
    kernel: str | None = None
    """SPEC of the blur between the wanted image and the frame, output px; wins over ``psf``."""
    target_fwhm: float | None = None
    """FWHM of the wanted image's PSF, output px."""
    quantity: Quantity | None = None
    gain: float | str | None = None
    """Electrons per unit of the file; a number, or the file of a map."""
    read_noise: float | str | None = None
    """Electrons, likewise."""
    offset: float | str | None = None
    """Bias level, in the file's unit, likewise."""
    variance: str | None = None
    """Extension or file of the variance, in the file's unit squared; ``rms:FILE`` of its root, ``weight:FILE`` of its
    inverse."""
    mask: str | None = None
    """Extension or file; a pixel that is not zero is bad."""
    saturation: float | None = None
    """Value from which a pixel is saturated."""
    axes: str | None = None
    pixel_size: str | None = None
    """For instance ``0.11um`` or ``0.2arcsec``."""
    assume_2d: bool = False
    """Take the planes of a z-stack for independent images."""


def pixel_size_of(text: str | None) -> PixelSize | None:
    """``0.2arcsec`` or ``0.11um`` as a pixel size.

    Raises
    ------
    UsageError : no number above 0, or another unit.
    """
    if text is None:
        return None
    units: dict[str, tuple[float, str]] = {"arcsec": (1, "arcsec"), "um": (1, "um"), "nm": (1e-3, "um")}
    for unit, (factor, base) in units.items():
        if text.endswith(unit):
            try:
                side = float(text.removesuffix(unit)) * factor
            except ValueError:
                break
            if 0 < side < float("inf"):
                return PixelSize(side, side, base)  # type: ignore[arg-type]
    raise UsageError(f"--pixel-size: {text!r} is no size; give a number with arcsec, um or nm, for example 0.11um")
