"""TIFF in: OME, ImageJ and plain files, with the pixel size and optics that their metadata state."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import Frame, PixelSize, Quantity
from sciresdiff.io.files import existing, first_line, split_spec

Array = NDArray[Any]

MICROMETRES: dict[str, float] = {
    "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0, "micrometers": 1.0,
    "nm": 1e-3, "nanometer": 1e-3, "mm": 1e3, "pm": 1e-6, "angstrom": 1e-4, "å": 1e-4, "m": 1e6,
}  # fmt: skip
"""Length units as files write them. Centimetres and inches are left out: there they are what a printer needs."""

SCREEN_DPI = (72, 96, 100, 144, 150, 200, 220, 300, 600)
"""Resolutions of screens and printers: they say nothing about the specimen."""

BIT_DEPTHS = (8, 10, 12, 14)
"""Cameras whose values end below the integer type's maximum."""

NAMESPACE = "sciresdiff"


@dataclass(frozen=True)
class TiffHeader:
    """What the writer needs of the input."""

    style: str
    """``ome``, ``imagej`` or ``plain``."""
    axes: str
    shape: tuple[int, ...]
    pixel_size: PixelSize | None = None
    stated: bool = False
    """Whether the file itself has the pixel size (else the user gave it, or nobody knows it)."""
    resolution: tuple[float, float, int] | None = None
    """X and Y resolution tags and their unit, as they are."""
    ome: str = ""
    imagej: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    colour: bool = False
    quantity: str | None = None


def read(
    path: str | Path,
    *,
    ext: str | None = None,
    variance: str | None = None,
    mask: str | None = None,
    axes: str | None = None,
    quantity: Quantity | None = None,
    pixel_size: float | PixelSize | None = None,
) -> Frame:
    """Read the first image series of a TIFF; ``sciresdiff.io.read`` describes the parameters.

    Raises
    ------
    InputError
        Missing, truncated or foreign file, ambiguous or wrong axes, 8-bit colour, NaN only.
    """
    file, _ = split_spec(path)
    data, header, said = _load(file, axes)
    planes = to_planes(data, header.axes).astype(np.float32)
    bad = ~np.isfinite(planes)
    if bad.all():
        raise InputError(f"{file}: all pixels are NaN or infinite; nothing to restore from")
    planes[bad] = np.nan
    header = _sized(header, pixel_size)
    facts = _optics(header.ome)
    if header.pixel_size is None:
        said = [*said, "pixel size: the file does not say; give --pixel-size for sizes in micrometres"]
    frame = Frame(
        pixels=planes,
        mask=bad,
        kind="micro",
        quantity=quantity,
        pixel_size=header.pixel_size,
        facts=facts,
        axes=header.axes,
        shape=header.shape,
        dtype=data.dtype,
        header=header,
        said=tuple(said),
    )
    return _restored(_other_planes(_saturation(frame), file, variance, mask), file)


def read_image(path: str | Path) -> NDArray[np.float64]:
    """The first series as it is: (Y, X), or (planes, Y, X) with every other axis in front."""
    file, _ = split_spec(path)
    with _opened(file) as tif:
        data, letters = _decoded_pixels(file, tif), str(tif.series[0].axes)
    if data.ndim > 2 and letters.endswith("S"):
        data = np.moveaxis(data, -1, 0)
    return data.astype(np.float64)


def to_planes(data: Array, axes: str) -> Array:
    """(planes, Y, X) from an array with any order of axes."""
    order = [i for i, a in enumerate(axes) if a not in "YX"] + [axes.index("Y"), axes.index("X")]
    moved = data.transpose(order)
    return moved.reshape(-1, *moved.shape[-2:])


def from_planes(planes: Array, axes: str, shape: tuple[int, ...]) -> Array:
    """The array that ``to_planes`` came from, Y and X being those of the planes."""
    others = [i for i, a in enumerate(axes) if a not in "YX"]
    order = [*others, axes.index("Y"), axes.index("X")]
    return planes.reshape(*(shape[i] for i in others), *planes.shape[-2:]).transpose(np.argsort(order))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    existing(path)
    try:
        tif = tifffile.TiffFile(path)
    except Exception as error:  # tifffile raises many kinds on damaged files
        raise InputError(f"{path}: not a whole TIFF file ({first_line(error)}); check or fetch it again") from error
    with tif:
        if not tif.series:
            raise InputError(f"{path}: no image in it")
        yield tif


def _decoded_pixels(path: Path, tif: Any) -> Array:
    """The first series; tifffile would fill what is missing with zeros, so the file's length is looked at first."""
    series, length = tif.series[0], tif.filehandle.size
    try:
        pages = [page for page in series.pages if page is not None]
        ends = [o + n for page in pages for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
        whole = max(ends, default=0) <= length
        data = np.asarray(series.asarray()) if whole else None
    except Exception as error:  # unknown codecs, damaged strips
        raise InputError(f"{path}: pixels cannot be read ({first_line(error)}); check or fetch it again") from error
    if data is None:
        raise InputError(f"{path}: not a whole TIFF file (truncated at {length} bytes); check or fetch it again")
    return data


def _load(path: Path, axes: str | None) -> tuple[Array, TiffHeader, list[str]]:
    with _opened(path) as tif:
        series = tif.series[0]
        letters = _letters(path, series, axes)
        said = [f"{len(tif.series)} image series in the file: read the first"] if len(tif.series) > 1 else []
        data = _decoded_pixels(path, tif)
        _check(path, data, letters)
        if "S" in letters:
            said.append("colour: channels are read one by one; gamma-coded colour is not photometric")
        header, more = _header(tif, series, letters)
    return data.astype(data.dtype.newbyteorder("="), copy=False), header, said + more


def _letters(path: Path, series: Any, axes: str | None) -> str:
    """Axis letters, from the user, else from the file where it is sure."""
    shape = tuple(series.shape)
    letters = axes.upper() if axes else str(series.axes)
    if not axes and set(letters) & set("QI"):
        example = letters.replace("Q", "T").replace("I", "T")
        raise InputError(
            f"{path}: axes {letters} of shape {shape} do not say what {'/'.join(sorted(set(letters) & set('QI')))} is; "
            f"give --axes, for instance {example} (time) or {example.replace('T', 'Z')} (depth)"
        )
    sound = len(letters) == len(shape) and len(set(letters)) == len(letters) and {"Y", "X"} <= set(letters)
    if not sound or not letters.isalpha():
        raise InputError(f"{path}: axes {letters!r} do not fit shape {shape}; one letter per axis, Y and X among them")
    return letters


def _check(path: Path, data: Array, letters: str) -> None:
    if 0 in data.shape:
        raise InputError(f"{path}: an axis has no pixel; shape {data.shape}")
    if data.dtype.kind not in "iuf":
        raise InputError(f"{path}: pixels of type {data.dtype}; integers or floats are read")
    if "S" in letters and data.dtype.itemsize == 1:
        raise InputError(f"{path}: 8-bit colour is gamma-coded for display; give the channels as measured, without it")


def _header(tif: Any, series: Any, letters: str) -> tuple[TiffHeader, list[str]]:
    page = tif.pages[0]
    tags = [page.tags.get(name) for name in ("XResolution", "YResolution", "ResolutionUnit")]
    resolution = None
    if tags[0] is not None and tags[1] is not None:
        unit = int(tags[2].value) if tags[2] is not None else 2
        resolution = (_ratio(tags[0].value), _ratio(tags[1].value), unit)
    ome = str(tif.ome_metadata or "") if tif.is_ome else ""
    imagej = dict(tif.imagej_metadata or {}) if tif.is_imagej else {}
    style = "ome" if _parsed(ome) is not None else "imagej" if tif.is_imagej else "plain"
    size, said = _size(style, ome, imagej, resolution)
    header = TiffHeader(
        style=style,
        axes=letters,
        shape=tuple(series.shape),
        pixel_size=size,
        stated=size is not None,
        resolution=resolution,
        ome=ome if style == "ome" else "",
        imagej=imagej,
        description=str(page.description or ""),
        colour="S" in letters,
    )
    return header, said


def _ratio(value: Any) -> float:
    n, d = value if isinstance(value, tuple) else (value, 1)
    return float(n) / float(d) if d else 0.0


def _size(
    style: str, ome: str, imagej: Mapping[str, Any], resolution: tuple[float, float, int] | None
) -> tuple[PixelSize | None, list[str]]:
    """Pixel size in micrometres, and what was not believed. Never invented."""
    if style == "ome" and (size := _ome_size(ome)):
        return size, []
    if resolution is None or min(resolution[:2]) <= 0:
        return None, []
    x, y, code = resolution
    if style == "imagej":
        factor = MICROMETRES.get(clean_unit(str(imagej.get("unit", ""))))
        return (PixelSize(factor / y, factor / x, "um"), []) if factor else (None, [])
    per = {2: 25400.0, 3: 10000.0}.get(code)
    if per is None or x == 1 or (code == 2 and round(x) in SCREEN_DPI):
        return None, ([f"pixel size: {x:g} per inch is a screen's or printer's, not used"] if code == 2 else [])
    side = PixelSize(per / y, per / x, "um")
    return (side, []) if 1e-3 < side.x < 1e2 else (None, [f"pixel size: {side.x:g} um is not believed, not used"])


def clean_unit(unit: str) -> str:
    """A length unit in small ASCII letters; the micro sign may be escaped, Greek, or neither."""
    plain = unit.strip().lower().replace("\\u00b5", "u").replace("\\u03bc", "u").replace("µ", "u").replace("μ", "u")
    return plain.replace("\x00", "")


def _parsed(xml: str) -> ET.Element | None:
    try:
        return ET.fromstring(xml) if xml else None
    except ET.ParseError:
        return None


def first(root: ET.Element | None, name: str) -> ET.Element | None:
    """The first element of that name, whatever its namespace."""
    return None if root is None else next((e for e in root.iter() if e.tag.rpartition("}")[2] == name), None)


def _ome_size(xml: str) -> PixelSize | None:
    pixels = first(_parsed(xml), "Pixels")
    if pixels is None:
        return None
    sides = []
    for axis in "YX":
        factor = MICROMETRES.get(clean_unit(pixels.get(f"PhysicalSize{axis}Unit", "um")), 0.0)
        sides.append(_float(pixels.get(f"PhysicalSize{axis}")) * factor)
    return PixelSize(sides[0], sides[1], "um") if min(sides) > 0 else None


def _float(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def _optics(xml: str) -> dict[str, float]:
    """``na`` and ``wavelength`` (nm, of the first channel; ``wavelength_1`` ... of the others), where OME has them."""
    root = _parsed(xml)
    facts: dict[str, float] = {}
    objective = first(root, "Objective")
    if objective is not None and (na := _float(objective.get("LensNA"))) > 0:
        facts["na"] = na
    channels = [e for e in root.iter() if e.tag.rpartition("}")[2] == "Channel"] if root is not None else []
    for i, channel in enumerate(channels):
        factor = 1000 * MICROMETRES.get(clean_unit(channel.get("EmissionWavelengthUnit", "nm")), 0.0)
        if (length := _float(channel.get("EmissionWavelength")) * factor) > 0:
            facts["wavelength" if i == 0 else f"wavelength_{i}"] = length
    return facts


def _sized(header: TiffHeader, given: float | PixelSize | None) -> TiffHeader:
    if given is None:
        return header
    size = given if isinstance(given, PixelSize) else PixelSize(float(given), float(given), "um")
    return replace(header, pixel_size=size, stated=False)


def _saturation(frame: Frame) -> Frame:
    """Mask pixels at the integer type's maximum, or at the end of a camera's 8 to 14 bits where several lie there."""
    if frame.dtype.kind not in "iu":
        return frame
    top = float(np.iinfo(frame.dtype).max)
    largest = float(np.nanmax(frame.pixels))
    camera = largest in [2.0**bits - 1 for bits in BIT_DEPTHS] and frame.dtype.itemsize > 1
    level = largest if camera and (frame.pixels == largest).sum() > 1 else top
    full = frame.pixels == np.float32(level)
    facts = {**frame.facts, "saturation": level}
    if full.mean() > 0.5:
        return frame.with_(facts=facts).say(f"saturation: most pixels are {level:g}; taken as values, not masked")
    frame = frame.with_(facts=facts, saturated=full, mask=frame.mask | full)
    return frame.say(f"saturation: {int(full.sum())} pixels at {level:g}, masked") if full.any() else frame


def _other_planes(frame: Frame, file: Path, variance: str | None, mask: str | None) -> Frame:
    """Variance and mask from files of their own."""
    from sciresdiff.io.planes import file_to_variance

    if mask is not None:
        plane = _plane(frame, file, "mask", mask)
        frame = frame.with_(mask=frame.mask | (np.nan_to_num(plane, nan=1.0) != 0))
    if variance is not None:
        plane = _plane(frame, file, "variance", variance)
        return _with_variance(frame, file_to_variance(split_spec(variance)[0], "", plane))
    return frame


def _plane(frame: Frame, file: Path, what: str, spec: str) -> Array:
    from sciresdiff.io import read_image as read_any

    if not split_spec(spec)[0].is_file():
        raise InputError(f"{split_spec(spec)[0]}: no such file; {what} of a TIFF is a file of its own")
    plane = read_any(spec)
    if plane.shape[-2:] != frame.pixels.shape[1:] or (plane.ndim == 3 and len(plane) not in (1, frame.planes)):
        raise InputError(f"{file}: {what} {spec} has shape {plane.shape}, the image {frame.shape}")
    return np.broadcast_to(plane, frame.pixels.shape)


def _with_variance(frame: Frame, variance: Array) -> Frame:
    good = np.isfinite(variance)
    if not good.any():
        raise InputError("variance: no pixel has one above 0; give another file, or gain and read noise")
    filled = np.where(good, variance, np.median(variance[good])).astype(np.float32)
    return frame.with_(variance=filled, mask=frame.mask | ~good)


def _restored(frame: Frame, file: Path) -> Frame:
    """What this program wrote about its own files: kernel, scale, target PSF, and the variance beside."""
    told = provenance(frame.header)
    if "SRDKSCAL" in told:
        kernel = told.get("KERNEL", told.get("SRDKERN", "none"))
        array = np.asarray(kernel, np.float64) if isinstance(kernel, list) else kernel
        frame = frame.with_(kernel=array, kernel_scale=round(float(told["SRDKSCAL"])))
    facts = dict(frame.facts)
    for name, key in (("scale", "SRDSCALE"), ("psf_known", "SRDTFWHM")):
        if (found := _float(str(told.get(key, "")))) > 0:
            facts[name] = found
    psf = f"gaussian:fwhm={facts['psf_known']:g}px" if "psf_known" in facts else None
    frame = frame.with_(facts=facts, psf=psf, quantity=frame.quantity or told.get("quantity"))
    if told.get("VAR") and frame.variance is None:
        return _beside(frame, file)
    return frame


def _beside(frame: Frame, file: Path) -> Frame:
    from sciresdiff.io import stem

    other = file.with_name(f"{stem(file)}_var.tif")
    if not other.is_file():
        return frame.say(f"noise: {other.name} is not beside the image any more")
    return _with_variance(frame, _plane(frame, file, "variance", str(other))).say(f"noise: {other.name}")


def provenance(header: TiffHeader) -> dict[str, Any]:
    """What this program wrote into the metadata, in any of the three styles."""
    if header.style == "ome":
        root = _parsed(header.ome)
        found = [e for e in root.iter() if e.get("Namespace") == NAMESPACE] if root is not None else []
        entries = [m for e in found for m in e.iter() if m.tag.rpartition("}")[2] == "M"]
        return {str(m.get("K")): _decoded(m.text or "") for m in entries}
    if header.style == "imagej":
        match = re.search(rf"^{NAMESPACE}: (\{{.*\}})$", str(header.imagej.get("Info", "")), re.MULTILINE)
        return dict(_decoded(match[1])) if match else {}
    told = _decoded(header.description)
    ours = told.get(NAMESPACE) if isinstance(told, dict) else None
    return dict(ours) if isinstance(ours, dict) else {}


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
