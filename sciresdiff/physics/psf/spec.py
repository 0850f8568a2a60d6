"""SPEC of a point spread function: text to numbers with units, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import PixelSize
from sciresdiff.physics.psf.shapes import AIRY_FWHM, FWHM_PER_SIGMA, SHAPES

LENGTHS = {"px": 1.0, "arcsec": 1.0, "mas": 1e-3, "um": 1.0, "nm": 1e-3}
METRES = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "nm": 1e-9, "angstrom": 1e-10}
MEASURED = ("measure", "beads", "blind")
"""Words that ask for a measurement on a frame; ``beads:FILE`` is another, which needs a frame's pixel size."""

UNITS: dict[str, tuple[str, ...]] = {
    "length": tuple(LENGTHS),
    "aperture": ("m", "cm", "mm"),
    "wavelength": ("nm", "um", "mm", "cm", "m", "angstrom"),
    "angle": ("deg", ""),
    **dict.fromkeys(("ratio", "share", "number", "count", "signed"), ("",)),
}
"""Kind of a value -> units it may have, the first being the one to suggest."""

OF_FILES = {"oversample": "number", "effective": "share"}
"""Kinds of the values that may follow the name of a file."""

RANGES: dict[str, tuple[float, float]] = {
    "ratio": (1e-3, 1), "share": (0, 0.99), "count": (0, 32), "angle": (-360, 360), "signed": (-5, 5),
    "beta": (1.01, 100), "na": (0.01, 2), "ri": (1, 2), "oversample": (0.05, 64), "effective": (0, 1),
}  # fmt: skip
"""Kind or name of a value -> smallest and largest; everything else has to be above 0."""

SPECS = (
    "gaussian:fwhm=2.1px, gaussian:sigma=0.9px, moffat:fwhm=0.8arcsec,beta=3, airy:na=1.4,wavelength=525nm, "
    "airy:aperture=2.4m,wavelength=606nm, none, measure, beads, beads:FILE, blind, or a FITS/TIFF file"
)
ARCSEC = 180 * 3600 / np.pi


@dataclass(frozen=True)
class PSFSpec:
    """A point spread function by name and numbers, not yet an array: what a SPEC says."""

    shape: str
    """A name of SHAPES, ``none``, ``measure`` or ``file``."""
    params: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    """Parameter -> value and unit."""
    path: str | None = None
    """Of a PSF file, with ``[EXT]``."""

    def __str__(self) -> str:
        """The SPEC, as `parse` reads it."""
        params = ",".join(f"{name}={value:.6g}{unit}" for name, (value, unit) in self.params.items())
        if self.shape == "file":
            return f"{self.path},{params}" if params else str(self.path)
        return f"{self.shape}:{params}" if params else self.shape


def parse(spec: str) -> PSFSpec:
    """Read a SPEC.

    Parameters
    ----------
    spec : str
        ``SHAPE:name=value,...``, ``none``, ``measure``, or a FITS, TIFF or HDF5 file with an optional ``[EXT]``, and
        where the file does not say it ``,oversample=N`` (samples per pixel of the frame) and ``,effective=1`` (the
        frame's pixel is in the image) or ``0``. Shapes and their parameters:

        - ``gaussian``: ``fwhm`` or ``sigma``; ``ratio`` (minor / major axis), ``theta`` (deg, major axis from +x to +y)
        - ``moffat``: ``fwhm``, ``beta``; ``ratio``, ``theta``
        - ``airy``: ``aperture`` and ``wavelength`` (telescope), ``na`` and ``wavelength`` (microscope), or ``fwhm``;
          ``obstruction`` (ratio of diameters)
        - ``vectorial`` (objective of high aperture): ``na``, ``ri`` (refractive index of the immersion) and
          ``wavelength``; of a confocal microscope also ``pinhole`` (Airy units) and ``excitation``
        - ``optical``: as ``airy``, with ``spiders``, ``spider_width`` and aberrations in rms waves (``defocus``,
          ``astigmatism``, ``astigmatism45``, ``coma``, ``coma90``, ``trefoil``, ``spherical``)

        With ``ratio`` the width is the geometric mean of the two axes. Lengths are in px, arcsec, mas, um or nm.

    Raises
    ------
    UsageError
        Not a SPEC, with what is allowed.
    InputError
        A file that is not there.
    """
    text = spec.strip()
    name, colon, rest = text.partition(":")
    if name in SHAPES:
        return _check(PSFSpec(name, _parse_params(text, name, rest)), text)
    if text in ("none", *MEASURED):
        return PSFSpec(text)
    if not colon and (found := _parse_file(text)):
        return found
    raise UsageError(f"psf: {spec!r} is not known; give {SPECS}")


def _parse_file(text: str) -> PSFSpec | None:
    """A SPEC that is a file; None where it looks like none."""
    from sciresdiff.io import FORMATS
    from sciresdiff.io.files import split_spec

    name, params = text, {}
    while (match := re.fullmatch(r"(.+),\s*(oversample|effective)=([^,\s]+)", name)) and not split_spec(name)[
        0
    ].is_file():
        name, params[match[2]] = match[1], _parse_value(text, match[2], match[3], OF_FILES[match[2]])
    path = split_spec(name)[0]
    if path.is_file():
        return PSFSpec("file", params, name)
    if path.name.lower().endswith((*FORMATS, ".psf", ".piff")):
        raise InputError(f"psf: {path}: no such file")
    return None


def _parse_params(spec: str, shape: str, rest: str) -> dict[str, tuple[float, str]]:
    takes = SHAPES[shape].takes
    params = {}
    for item in filter(None, (part.strip() for part in rest.split(","))):
        key, _, text = (part.strip() for part in item.partition("="))
        if key not in takes:
            raise UsageError(f"psf: {spec}: {shape} has no {key!r}; it takes {', '.join(takes)}")
        if key in params:
            raise UsageError(f"psf: {spec}: {key} is given twice; give it once")
        params[key] = _parse_value(spec, key, text, takes[key])
    return params


def _parse_value(spec: str, key: str, text: str, kind: str) -> tuple[float, str]:
    match = re.fullmatch(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-zµμ]*)", text)
    unit = match[2].replace("µ", "u").replace("μ", "u") if match else ""
    if match is None or unit not in UNITS[kind]:
        allowed = ", ".join(u for u in UNITS[kind] if u) or "no unit"
        raise UsageError(f"psf: {spec}: {key}={text or '?'} is no number with its unit; allowed: {allowed}")
    value = float(match[1])
    low, high = RANGES.get(key, RANGES.get(kind, (0.0, np.inf)))
    if not (low <= value <= high and (value > 0 or low < 0 or kind in ("share", "count")) and np.isfinite(value)):
        limits = f"from {low:g} to {high:g}" if np.isfinite(high) else f"above {low:g}"
        raise UsageError(f"psf: {spec}: {key}={text} is out of range; give a number {limits}")
    return value, unit


def _check(psf: PSFSpec, spec: str) -> PSFSpec:
    """Refuse what is missing or given twice."""
    given = set(psf.params)
    for choice in SHAPES[psf.shape].needs:
        if len(given & set(choice)) != 1:
            raise UsageError(f"psf: {spec}: give {' or '.join(choice)}{', one of them' if choice[1:] else ' too'}")
    if bool({"aperture", "na"} & given) != ("wavelength" in given):
        raise UsageError(f"psf: {spec}: a wavelength goes with aperture or na, for example wavelength=525nm")
    if "ri" in given and psf.params["ri"][0] <= psf.params["na"][0]:
        raise UsageError(f"psf: {spec}: na has to be below ri, the refractive index of the immersion")
    return psf


def length_unit(psf: PSFSpec) -> str:
    """The unit of length in which a shape lives: px, arcsec or um."""
    if "aperture" in psf.params:
        return "arcsec"
    if "na" in psf.params:
        return "um"
    unit = next(psf.params[key][1] for key in ("fwhm", "sigma") if key in psf.params)
    return {"mas": "arcsec", "nm": "um"}.get(unit, unit)


def profile_values(psf: PSFSpec) -> dict[str, float]:
    """The numbers that a profile needs, all lengths in `length_unit`."""
    takes = SHAPES[psf.shape].takes
    values = {key: x * (LENGTHS[unit] if takes[key] == "length" else 1) for key, (x, unit) in psf.params.items()}
    if psf.shape == "gaussian":
        values.setdefault("sigma", values.get("fwhm", 0.0) / FWHM_PER_SIGMA)
    if "wavelength" in psf.params:
        wavelength = _metres(psf, "wavelength")
        telescope = "aperture" in psf.params
        values["scale"] = (
            ARCSEC * wavelength / _metres(psf, "aperture") if telescope else 1e6 * wavelength / (2 * values["na"])
        )
        if "excitation" in values:
            values["excitation"] = _metres(psf, "excitation") / wavelength
    elif "beta" not in values and psf.shape != "gaussian":
        values["scale"] = values["fwhm"] / AIRY_FWHM
    return values


def _metres(psf: PSFSpec, key: str) -> float:
    value, unit = psf.params[key]
    return value * METRES[unit]


def pixel_step(psf: PSFSpec, pixel: PixelSize | None) -> tuple[float, float]:
    """The side of a pixel along y and x in the unit of the shape.

    Raises
    ------
    UsageError
        The shape is in arcsec or um, and the pixel size is unknown or of the other kind.
    """
    unit = length_unit(psf)
    if unit == "px":
        return 1.0, 1.0
    if pixel is None or pixel.unit != unit:
        known = "unknown" if pixel is None else f"in {pixel.unit}"
        raise UsageError(f"psf: {psf} is in {unit}, but the pixel size is {known}; give it in px, or --pixel-size")
    return pixel.y, pixel.x
