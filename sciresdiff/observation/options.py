"""The options of ``upscale``, which ``evaluate`` shares where it reads the same frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sciresdiff.errors import UsageError
from sciresdiff.frame import PixelSize, Quantity


@dataclass(frozen=True)
class UpscaleOptions:
    """The options of ``upscale``; None means: read it from the file, else measure it, and say so."""

    model: str | None = None
    then: str | None = None
    """A second model, which goes on with the first one's draws."""
    method: str | None = None
    """A method, or its file, to run the refiner by instead of its own."""
    scale: int | None = None
    psf: str | None = None
    kernel: str | None = None
    target_fwhm: float | None = None
    """FWHM of the wanted image's PSF, output px."""
    quantity: Quantity | None = None
    gain: float | str | None = None
    """Electrons per unit of the file; a number, or the file of a map."""
    read_noise: float | str | None = None
    """Electrons, likewise."""
    offset: float | str | None = None
    """The value of a dark pixel, in the file's unit, likewise."""
    variance: str | None = None
    mask: str | None = None
    saturation: float | None = None
    samples: int = 8
    save_samples: bool = False
    steps: int | None = None
    realism: float | None = None
    """0 (a mean) to 1 (a likely image), for models that have the knob."""
    refine: bool = True
    consistency: Literal["noise", "exact", "off"] = "noise"
    tile: int = 256
    checks: bool = True
    axes: str | None = None
    pixel_size: str | None = None
    assume_2d: bool = False
    dtype: str | None = None
    pyramid: bool = False
    """Smaller copies of the image in its file, to look at."""
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    overwrite: bool = False


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
