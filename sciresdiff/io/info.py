"""What the program understands of a file, for ``sciresdiff info``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sciresdiff.errors import InputError
from sciresdiff.frame import Frame, Quantity
from sciresdiff.io import format_of, read
from sciresdiff.notes import Notes


def describe(path: str | Path, **options: Any) -> dict[str, Any]:
    """Describe a file in JSON's types.

    Parameters
    ----------
    path : str or Path
        The file.
    **options
        Of `sciresdiff.io.read`.

    Returns
    -------
    dict
        Format, axes, shape, quantity, unit, sources of noise and PSF, WCS, pixel size, masked pixels, facts, and the
        assumptions under ``said``.

    Raises
    ------
    InputError
        As `sciresdiff.io.read`.
    """
    frame = read(path, **options)
    size = frame.pixel_size
    quantity, assumed = _quantity(frame)
    return {
        "file": str(path),
        "format": format_of(path),
        "kind": frame.kind,
        "axes": frame.axes,
        "shape": list(frame.shape),
        "dtype": str(frame.dtype),
        "planes": frame.planes,
        "quantity": quantity,
        "unit": frame.unit,
        "noise": _noise_source(frame),
        "psf": _psf_source(frame),
        "wcs": _has_wcs(frame),
        "pixel_size": {"y": size.y, "x": size.x, "unit": size.unit} if size else None,
        "masked_fraction": float(frame.mask.mean()),
        "saturated_pixels": int(frame.saturated.sum()) if frame.saturated is not None else None,
        "facts": {key: float(x) for key, x in frame.facts.items()},
        "said": list(frame.notes + assumed),
    }


def _quantity(frame: Frame) -> tuple[Quantity | None, Notes]:
    """Quantity; None, and why, where values are not linear in light."""
    try:
        return frame.quantity_or_usual()
    except InputError as error:
        return None, Notes(str(error))


def _noise_source(frame: Frame) -> str:
    if frame.variance is not None:
        return "plane"
    return "gain and read noise" if {"gain", "read_noise"} <= set(frame.facts) else "to be measured"


def _psf_source(frame: Frame) -> str:
    if frame.kernel is not None:
        return f"kernel for x{frame.kernel_scale}"
    if frame.psf:
        return frame.psf if isinstance(frame.psf, str) else f"{frame.psf[0]} and others, one for each plane"
    if "fwhm" in frame.facts:
        return f"header: FWHM {frame.facts['fwhm']:.3g} px"
    optics = {"na", "wavelength"} <= set(frame.facts)
    return "NA and emission wavelength" if optics else "to be measured"


def _has_wcs(frame: Frame) -> bool:
    header = getattr(frame.header, "image", None)
    if header is None:
        return False
    from sciresdiff.io.fits.wcs import has_wcs

    return has_wcs(header)
