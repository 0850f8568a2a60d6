"""OME-XML of an output: the input's own with sizes, type and record adapted, or a new one (schema 2016-06).

Edited as a tree, so that elements of any vendor survive; tifffile's OmeXml makes new metadata only. There is no clock
and no UUID in it, so that the same content gives the same bytes.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

import numpy as np

from sciresdiff.io.provenance import NAMESPACE
from sciresdiff.io.tiff.metadata import MICROMETRES, TiffHeader, clean_unit, find_element

OME_NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
ANNOTATION = "Annotation:sciresdiff:0"
OME_TYPES = {
    "int8": "int8", "int16": "int16", "int32": "int32", "uint8": "uint8", "uint16": "uint16", "uint32": "uint32",
    "float32": "float", "float64": "double",
}  # fmt: skip
"""Types of pixels in OME -> their names there."""


NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 does not have (section 2.2); a file that held them could not be read again."""


def adapt_ome(
    header: TiffHeader, dtype: np.dtype[Any], size: tuple[float, float] | None, provenance: Mapping[str, Any]
) -> bytes:
    """Return the description of the output.

    Parameters
    ----------
    header : TiffHeader
        Of the output: axes and shape; ``ome`` is the input's XML.
    dtype : dtype
        One of `OME_TYPES`.
    size : (y, x), optional
        Pixel size in micrometres.
    provenance : mapping
        Written as a MapAnnotation, each value as JSON.
    """
    root = ET.fromstring(header.ome)
    space = root.tag.rpartition("}")[0].lstrip("{") or OME_NAMESPACE
    ET.register_namespace("", space)  # else every element gets a prefix, which some readers do not expect
    _keep_first_image(root)
    _adapt_pixels(root, header, dtype, size, space)
    _annotate(root, provenance, space)
    return b'<?xml version="1.0" encoding="UTF-8"?>' + ET.tostring(root, encoding="utf-8")


def new_ome(header: TiffHeader) -> str:
    """Make OME-XML for an image whose file had none.

    The description, and Z spacing and time step of an ImageJ file, are kept.
    """
    n = dict(zip(header.axes, header.shape, strict=True))
    root = ET.Element(f"{{{OME_NAMESPACE}}}OME")
    image = ET.SubElement(root, f"{{{OME_NAMESPACE}}}Image", ID="Image:0", Name="Image0")
    if text := _user_text(header):
        ET.SubElement(image, f"{{{OME_NAMESPACE}}}Description").text = text
    attributes = {"ID": "Pixels:0", "DimensionOrder": _order(header), "Type": "float"}
    attributes |= _sizes(header) | _steps(header)
    pixels = ET.SubElement(image, f"{{{OME_NAMESPACE}}}Pixels", attributes)
    for i in range(n.get("C", 1)):
        ET.SubElement(pixels, f"{{{OME_NAMESPACE}}}Channel", ID=f"Channel:0:{i}", SamplesPerPixel=str(n.get("S", 1)))
    return ET.tostring(root, encoding="unicode")


def _user_text(header: TiffHeader) -> str:
    """Text that a person wrote into the file."""
    text = header.description
    if header.style == "imagej":
        lines = str(header.imagej.get("Info", "")).splitlines()
        text = "\n".join(line for line in lines if not line.startswith(f"{NAMESPACE}: "))
    elif text.startswith(("{", "ImageJ=", "<?xml", "<OME")):
        return ""
    return NOT_XML.sub("", text)


def _steps(header: TiffHeader) -> dict[str, str]:
    """Z spacing and time step of an ImageJ file."""
    found: dict[str, str] = {}
    factor = MICROMETRES.get(clean_unit(str(header.imagej.get("unit", ""))))
    spacing, interval = (_positive(header.imagej.get(key)) for key in ("spacing", "finterval"))
    if factor and spacing:
        found |= {"PhysicalSizeZ": repr(spacing * factor), "PhysicalSizeZUnit": "µm"}
    if interval:
        found |= {"TimeIncrement": repr(interval), "TimeIncrementUnit": "s"}
    return found


def _positive(x: Any) -> float:
    return float(x) if isinstance(x, int | float) and 0 < x < float("inf") else 0.0


def _keep_first_image(root: ET.Element) -> None:
    """Remove all other images, and pointers to files of the input."""
    root.attrib.pop("UUID", None)
    images = [e for e in root if e.tag.rpartition("}")[2] == "Image"]
    for element in [*images[1:], *(e for e in root if e.tag.rpartition("}")[2] == "BinaryOnly")]:
        root.remove(element)


def _adapt_pixels(
    root: ET.Element, header: TiffHeader, dtype: np.dtype[Any], size: tuple[float, float] | None, space: str
) -> None:
    pixels = find_element(root, "Pixels")
    if pixels is None:
        return
    _adapt_axes(pixels, header)
    pixels.set("Type", OME_TYPES[dtype.name])
    pixels.set("BigEndian", "false")
    pixels.attrib.pop("SignificantBits", None)  # of the input's type
    for axis, side in zip("YX", size or (), strict=False):
        factor = MICROMETRES.get(clean_unit(pixels.get(f"PhysicalSize{axis}Unit", "um")), 0.0)
        if not factor:
            pixels.set(f"PhysicalSize{axis}Unit", "µm")
        pixels.set(f"PhysicalSize{axis}", repr(float(side / (factor or 1.0))))
    kinds = [e for e in pixels if e.tag.rpartition("}")[2] in ("TiffData", "BinData", "MetadataOnly")]
    # the schema has a fixed order: Channel, then TiffData, then Plane
    place = list(pixels).index(kinds[0]) if kinds else len([e for e in pixels if e.tag.endswith("Channel")])
    for element in kinds:
        pixels.remove(element)
    pixels.insert(place, ET.Element(f"{{{space}}}TiffData"))


def _adapt_axes(pixels: ET.Element, header: TiffHeader) -> None:
    """Set the sizes; if those of Z, C and T differ from the XML's, its order of dimensions is replaced too."""
    sizes = _sizes(header)
    if set(header.axes) <= set("TZCYXS") and any(pixels.get(key) != sizes[key] for key in ("SizeZ", "SizeC", "SizeT")):
        pixels.set("DimensionOrder", _order(header))
        for key in ("SizeZ", "SizeC", "SizeT"):
            pixels.set(key, sizes[key])
    pixels.set("SizeX", sizes["SizeX"])
    pixels.set("SizeY", sizes["SizeY"])


def _sizes(header: TiffHeader) -> dict[str, str]:
    n = dict(zip(header.axes, header.shape, strict=True))
    return {f"Size{a}": str(n.get(a, 1) * (n.get("S", 1) if a == "C" else 1)) for a in "XYZCT"}


def _order(header: TiffHeader) -> str:
    lead = [a for a in header.axes if a not in "YXS"]
    return "XY" + "".join([*reversed(lead), *(a for a in "ZCT" if a not in lead)])


def _annotate(root: ET.Element, provenance: Mapping[str, Any], space: str) -> None:
    """Add this program's MapAnnotation; an older one is replaced."""
    holder = find_element(root, "StructuredAnnotations")
    if holder is not None:
        holder[:] = [e for e in holder if e.get("Namespace") != NAMESPACE]
    if not provenance:
        return
    if holder is None:
        holder = ET.Element(f"{{{space}}}StructuredAnnotations")
        names = [e.tag.rpartition("}")[2] for e in root]
        root.insert(names.index("ROI") if "ROI" in names else len(names), holder)
    note = ET.SubElement(holder, f"{{{space}}}MapAnnotation", ID=ANNOTATION, Namespace=NAMESPACE)
    entries = ET.SubElement(note, f"{{{space}}}Value")
    for key, x in provenance.items():
        ET.SubElement(entries, f"{{{space}}}M", K=key).text = json.dumps(x)
