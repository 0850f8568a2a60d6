"""TIFF out: the input's axes, type and metadata style, with the pixel size adapted wherever it stands."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from sciresdiff.frame import Frame
from sciresdiff.io import stem
from sciresdiff.io.files import typed, write_whole
from sciresdiff.io.tiff import from_planes
from sciresdiff.io.tiff_meta import MICROMETRES, NAMESPACE, TiffHeader, clean_unit, first

Array = NDArray[Any]
BESIDE = ("ERR", "SUPPORT", "TRUST", "VAR", "DRAWS")
"""Planes that get a file of their own beside the image."""

IMAGEJ_TYPES = ("uint8", "uint16", "int16", "float32")
BIG = 2**32 - 2**25
OME_TYPES = {"f4": "float", "f8": "double", "f2": "float"}
OME_NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
ANNOTATION = "Annotation:sciresdiff:0"


def write(
    path: str | Path,
    frame: Frame,
    *,
    planes: Mapping[str, Array],
    provenance: Mapping[str, object],
    history: Sequence[str],
    scale: float = 1.0,
    overwrite: bool = False,
    dtype: str | np.dtype[Any] | None = None,
) -> dict[str, Any]:
    """Write the image, and ERR, SUPPORT, TRUST and VAR beside it; see ``sciresdiff.io.write``."""
    path = Path(path)
    header = _fitting(frame)
    told = _told(frame, planes, provenance, history, scale)
    wanted = np.dtype(dtype) if dtype is not None else frame.dtype
    data, clipped = typed(_shaped(frame.pixels, header), wanted)
    writers: dict[Path, Callable[[Path], object]] = {path: lambda p: _write_one(p, data, header, scale, told)}
    for name in BESIDE:
        if name in planes:
            other = path.with_name(f"{stem(path)}_{name.lower()}.tif")
            writers[other] = _plane_writer(np.asarray(planes[name]), header, scale)
    files = write_whole(writers, overwrite=overwrite)
    return {"clipped": clipped, "files": files}


def _plane_writer(plane: Array, header: TiffHeader, scale: float) -> Callable[[Path], object]:
    """Planes are plain TIFF in float32 (a style's display settings belong to the image); draws get an axis in front."""
    stack = plane.reshape(-1, *plane.shape[-2:]).astype(np.float32)
    plain = replace(header, style="plain" if header.style != "new" else "new", ome="", imagej={}, description="")
    if len(stack) != _count(header):
        plain = replace(plain, axes="TYX", shape=stack.shape, colour=False)
    return lambda p: _write_one(p, _shaped(stack, plain), plain, scale, {})


def _count(header: TiffHeader) -> int:
    """How many planes the input's axes hold."""
    lead = [n for a, n in zip(header.axes, header.shape, strict=True) if a not in "YX"]
    return int(np.prod(lead, initial=1))


def _fitting(frame: Frame) -> TiffHeader:
    """The input's header, where its axes hold as many planes as there are; a stack of another kind is plain."""
    header = frame.header if isinstance(frame.header, TiffHeader) else _fresh(frame)
    header = replace(header, quantity=frame.quantity)
    if _count(header) == frame.planes:
        return header
    return replace(header, style="plain", axes="TYX", shape=frame.pixels.shape, colour=False)


def _fresh(frame: Frame) -> TiffHeader:
    """A header for a frame that does not come from TIFF; its pixel size is already the new one."""
    shape = tuple(frame.shape)
    fits = len(frame.axes) == len(shape) and int(np.prod(shape[:-2], initial=1)) == frame.planes
    axes, shape = (frame.axes, shape) if fits else ("TYX", frame.pixels.shape)
    if len(axes) == 3 and frame.planes == 1 and not fits:
        axes, shape = "YX", shape[1:]
    return TiffHeader(style="new", axes=axes, shape=shape, pixel_size=frame.pixel_size)


def _told(
    frame: Frame, planes: Mapping[str, Array], provenance: Mapping[str, object], history: Sequence[str], scale: float
) -> dict[str, Any]:
    """Everything that FITS would have in cards and planes, JSON-able."""
    told: dict[str, Any] = {key: _plain(x) for key, x in provenance.items() if x is not None}
    kernel = planes.get("KERNEL", frame.kernel if scale < 1 else None)
    if kernel is not None:
        told.setdefault("SRDKSCAL", frame.kernel_scale if frame.kernel_scale and scale < 1 else round(1 / scale))
        told["SRDKERN" if isinstance(kernel, str) else "KERNEL"] = _plain(kernel)
    if "VAR" in planes:
        told["VAR"] = True
    if frame.quantity and told:
        told["quantity"] = frame.quantity
    if history:
        told["history"] = list(history)
    return told


def _plain(x: object) -> Any:
    if isinstance(x, np.ndarray | np.generic):
        return x.tolist()
    return x if isinstance(x, bool | int | float | str | list | dict) else str(x)


def _shaped(planes: Array, header: TiffHeader) -> Array:
    stack = planes.reshape(-1, *planes.shape[-2:])
    return from_planes(stack, header.axes, header.shape)


def _write_one(path: Path, data: Array, header: TiffHeader, scale: float, told: dict[str, Any]) -> None:
    if header.style == "ome":
        return _write_ome(path, data, header, scale, told)
    ordered = [a for a in "TZCYXS" if a in header.axes] == list(header.axes)
    if header.style == "imagej" and ordered and data.dtype.name in IMAGEJ_TYPES and data.nbytes < BIG:
        return _write_imagej(path, data, header, scale, told)
    return _write_plain(path, data, header, scale, told)


def _size(header: TiffHeader, scale: float) -> tuple[float, float] | None:
    """Pixel size of the output in micrometres, (y, x); None where it is unknown."""
    size = header.pixel_size
    if size is None or size.unit != "um":
        return None
    factor = 1.0 if header.style == "new" else scale
    return size.y / factor, size.x / factor


def _resolution(header: TiffHeader, scale: float) -> dict[str, Any]:
    """Resolution tags: those of the input times the scale, where they mean something; else as they were."""
    size = _size(header, scale)
    if size is not None and not (header.stated and header.resolution and header.resolution[2] in (2, 3)):
        return {"resolution": (1e4 / size[1], 1e4 / size[0]), "resolutionunit": "CENTIMETER"}
    if header.resolution is None:
        return {}
    x, y, unit = header.resolution
    factor = scale if header.stated else 1.0
    return {"resolution": (x * factor, y * factor), "resolutionunit": unit}


def _common(data: Array, header: TiffHeader) -> dict[str, Any]:
    colour = header.axes[-1] == "S" and data.shape[-1] in (3, 4)
    return {
        "photometric": "rgb" if colour else "minisblack",
        "planarconfig": "contig" if colour else None,
        "software": NAMESPACE,
        "bigtiff": data.nbytes > BIG,
    }


def _write_plain(path: Path, data: Array, header: TiffHeader, scale: float, told: dict[str, Any]) -> None:
    """Metadata as JSON in ImageDescription; the input's own description stays in it as text."""
    metadata: dict[str, Any] = {"axes": header.axes}
    if size := _size(header, scale):
        metadata |= {"PhysicalSizeX": size[1], "PhysicalSizeY": size[0], "PhysicalSizeXUnit": "um"}
    if header.description and not header.description.startswith(("{", "ImageJ=", "<?xml", "<OME")):
        metadata["description"] = header.description
    if told:
        metadata[NAMESPACE] = told
    tifffile.imwrite(path, data, metadata=metadata, **_resolution(header, scale), **_common(data, header))


def _write_imagej(path: Path, data: Array, header: TiffHeader, scale: float, told: dict[str, Any]) -> None:
    """ImageJ's own style: unit and Z spacing as they were, display range kept only where values keep theirs."""
    drop = {"ImageJ", "images", "channels", "slices", "frames", "hyperstack", "Properties"}
    if header.quantity == "sum":
        drop |= {"min", "max", "Ranges"}
    metadata = {key: x for key, x in header.imagej.items() if key not in drop}
    metadata["axes"] = header.axes
    lines = [x for x in str(metadata.pop("Info", "")).splitlines() if not x.startswith(f"{NAMESPACE}: ")]
    lines += [f"{NAMESPACE}: {json.dumps(told, sort_keys=True)}"] if told else []
    metadata |= {"Info": "\n".join(lines)} if lines else {}
    resolution = _imagej_resolution(header, scale, metadata)
    common = {**_common(data, header), "bigtiff": False}
    if common["photometric"] == "rgb":
        return _write_imagej_colour(path, data, metadata, {**resolution, **common})
    tifffile.imwrite(path, data, imagej=True, metadata=metadata, **resolution, **common)


def _write_imagej_colour(path: Path, data: Array, metadata: dict[str, Any], common: dict[str, Any]) -> None:
    """16-bit colour: ImageJ reads and writes it, tifffile's ImageJ mode does not; so the tags are made here."""
    names = ["Info", "Labels", "Ranges", "LUTs", "Overlays", "ROI"]
    own: dict[str, Any] = {key: metadata.pop(key) for key in names if key in metadata}
    lines = {"ImageJ": "1.11a", "channels": data.shape[-1], **metadata}
    text = "".join(f"{k}={str(x).lower() if isinstance(x, bool) else x}\n" for k, x in lines.items() if k != "axes")
    tags = tifffile.imagej_metadata_tag(own, "<")
    tifffile.imwrite(path, data, byteorder="<", description=text, metadata=None, extratags=tags, **common)


def _imagej_resolution(header: TiffHeader, scale: float, metadata: dict[str, Any]) -> dict[str, Any]:
    """Pixels per ``unit``, the unit being the file's own."""
    size = _size(header, scale)
    if size is None:
        return _resolution(header, scale)
    factor = MICROMETRES.get(clean_unit(str(metadata.get("unit", ""))))
    if factor is None:
        metadata["unit"], factor = "um", 1.0
    return {"resolution": (factor / size[1], factor / size[0]), "resolutionunit": "NONE"}


def _write_ome(path: Path, data: Array, header: TiffHeader, scale: float, told: dict[str, Any]) -> None:
    """The input's own OME-XML with sizes, type and annotations adapted; resolution tags besides."""
    xml = _ome_xml(data, header, scale, told)
    keep = _common(data, header)
    tifffile.imwrite(path, data, description=xml, metadata=None, **_resolution(header, scale), **keep)


def _ome_xml(data: Array, header: TiffHeader, scale: float, told: dict[str, Any]) -> bytes:
    root = ET.fromstring(header.ome)
    space = root.tag.rpartition("}")[0].lstrip("{") or OME_NAMESPACE
    ET.register_namespace("", space)
    _one_image(root)
    _adapt_pixels(root, data, header, scale, space)
    _annotate(root, told, space)
    return b'<?xml version="1.0" encoding="UTF-8"?>' + ET.tostring(root, encoding="utf-8")


def _one_image(root: ET.Element) -> None:
    """Keep the first Image, the only one that is written."""
    root.attrib.pop("UUID", None)
    images = [e for e in root if e.tag.rpartition("}")[2] == "Image"]
    for element in [*images[1:], *(e for e in root if e.tag.rpartition("}")[2] == "BinaryOnly")]:
        root.remove(element)


def _adapt_pixels(root: ET.Element, data: Array, header: TiffHeader, scale: float, space: str) -> None:
    pixels = first(root, "Pixels")
    if pixels is None:
        return
    shape = dict(zip(header.axes, data.shape, strict=True))
    pixels.set("SizeX", str(shape["X"]))
    pixels.set("SizeY", str(shape["Y"]))
    pixels.set("Type", OME_TYPES.get(data.dtype.str[1:], data.dtype.name))
    pixels.set("BigEndian", "false")
    pixels.attrib.pop("SignificantBits", None)
    for axis, side in zip("YX", _size(header, scale) or (), strict=False):
        factor = MICROMETRES.get(clean_unit(pixels.get(f"PhysicalSize{axis}Unit", "um")), 0.0)
        if not factor:
            pixels.set(f"PhysicalSize{axis}Unit", "µm")
        pixels.set(f"PhysicalSize{axis}", repr(float(side / (factor or 1.0))))
    kinds = [e for e in pixels if e.tag.rpartition("}")[2] in ("TiffData", "BinData", "MetadataOnly")]
    place = list(pixels).index(kinds[0]) if kinds else len([e for e in pixels if e.tag.endswith("Channel")])
    for element in kinds:
        pixels.remove(element)
    pixels.insert(place, ET.Element(f"{{{space}}}TiffData"))


def _annotate(root: ET.Element, told: dict[str, Any], space: str) -> None:
    """A MapAnnotation of ours; an older one is replaced."""
    holder = first(root, "StructuredAnnotations")
    if holder is not None:
        holder[:] = [e for e in holder if e.get("Namespace") != NAMESPACE]
    if not told:
        return
    if holder is None:
        holder = ET.Element(f"{{{space}}}StructuredAnnotations")
        names = [e.tag.rpartition("}")[2] for e in root]
        root.insert(names.index("ROI") if "ROI" in names else len(names), holder)
    note = ET.SubElement(holder, f"{{{space}}}MapAnnotation", ID=ANNOTATION, Namespace=NAMESPACE)
    entries = ET.SubElement(note, f"{{{space}}}Value")
    for key, x in told.items():
        ET.SubElement(entries, f"{{{space}}}M", K=key).text = json.dumps(x)
