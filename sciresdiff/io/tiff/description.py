"""Metadata tags of an output in the input's own style: OME, ImageJ or plain."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import tifffile

from sciresdiff.io.provenance import NAMESPACE
from sciresdiff.io.tiff.ifd import BIG, Tag
from sciresdiff.io.tiff.metadata import MICROMETRES, TiffHeader, clean_unit
from sciresdiff.io.tiff.ome import adapt_ome

IMAGEJ_TYPES = ("uint8", "uint16", "int16", "float32")
IMAGEJ_OWN = ("Info", "Labels", "Ranges", "LUTs", "Overlays", "ROI")
"""What ImageJ keeps in a tag of its own instead of the description."""

UNITS = {"NONE": 1, "CENTIMETER": 3}
"""Values of ResolutionUnit."""


def description_tags(
    header: TiffHeader, dtype: np.dtype[Any], scale: float, provenance: Mapping[str, Any]
) -> dict[int, Tag]:
    """Tags of the first page: the description, and ImageJ's own.

    Parameters
    ----------
    header : TiffHeader
        Of the output: its axes and shape.
    dtype : dtype
        Of the output's pixels.
    scale : float
        Output pixels per input pixel; the pixel size in ``header`` is the input's.
    provenance : mapping
        This program's record, in JSON's types.
    """
    if header.style == "ome":
        return {270: Tag("s", adapt_ome(header, dtype, _output_size(header, scale), provenance))}
    if header.style == "imagej" and fits_imagej(header, dtype):
        return _imagej(header, scale, provenance)
    return {270: Tag("s", _json(header, scale, provenance).encode())}


def resolution_tags(header: TiffHeader, dtype: np.dtype[Any], scale: float) -> dict[int, Tag]:
    """Resolution tags: the input's times the scale where they state a pixel size, else unchanged.

    Parameters
    ----------
    header : TiffHeader
        Of the output, with the input's pixel size.
    dtype : dtype
        Of the output's pixels.
    scale : float
        Output pixels per input pixel.
    """
    x, y, unit = _resolution(header, dtype, scale)
    return {282: Tag("R", [x]), 283: Tag("R", [y]), 296: Tag("H", [unit])}


def fits_imagej(header: TiffHeader, dtype: np.dtype[Any]) -> bool:
    """Whether ImageJ's style can hold an image.

    Axes have to be in the order TZCYXS, the type has to be one of `IMAGEJ_TYPES`, and ImageJ does not read BigTIFF.
    """
    ordered = [a for a in "TZCYXS" if a in header.axes] == list(header.axes)
    return ordered and dtype.name in IMAGEJ_TYPES and int(np.prod(header.shape)) * dtype.itemsize < BIG


def _output_size(header: TiffHeader, scale: float) -> tuple[float, float] | None:
    """Pixel size of the output in micrometres, (y, x); None where it is unknown."""
    size = header.pixel_size
    return (size.y / scale, size.x / scale) if size is not None and size.unit == "um" else None


def _resolution(header: TiffHeader, dtype: np.dtype[Any], scale: float) -> tuple[float, float, int]:
    size = _output_size(header, scale)
    if size is not None and header.style == "imagej" and fits_imagej(header, dtype):
        factor = MICROMETRES.get(clean_unit(str(header.imagej.get("unit", "")))) or 1.0
        return factor / size[1], factor / size[0], UNITS["NONE"]
    # a stated resolution in inches or centimetres keeps its unit; any other size is written in centimetres
    if size is not None and not (header.stated and header.resolution and header.resolution[2] in (2, 3)):
        return 1e4 / size[1], 1e4 / size[0], UNITS["CENTIMETER"]
    if header.resolution is None:
        return 1.0, 1.0, UNITS["NONE"]
    x, y, unit = header.resolution
    factor = scale if header.stated else 1.0
    return x * factor, y * factor, unit


def _json(header: TiffHeader, scale: float, provenance: Mapping[str, Any]) -> str:
    """Metadata as JSON, as tifffile writes them; the input's own description stays in them as text."""
    metadata: dict[str, Any] = {"shape": list(header.shape), "axes": header.axes}
    if size := _output_size(header, scale):
        metadata |= {"PhysicalSizeX": size[1], "PhysicalSizeY": size[0], "PhysicalSizeXUnit": "um"}
    if header.description and not header.description.startswith(("{", "ImageJ=", "<?xml", "<OME")):
        metadata["description"] = header.description
    if provenance:
        metadata[NAMESPACE] = dict(provenance)
    return json.dumps(metadata)


def _imagej(header: TiffHeader, scale: float, provenance: Mapping[str, Any]) -> dict[int, Tag]:
    """Tags in ImageJ's style: unit and Z spacing as they were; display range only where values keep their size."""
    drop = {"ImageJ", "images", "channels", "slices", "frames", "hyperstack", "Properties", "axes", "SCIFIO"}
    if header.quantity == "sum":  # values shrink with the pixels
        drop |= {"min", "max", "Ranges"}
    metadata = {key: x for key, x in header.imagej.items() if key not in drop}
    stated = str(metadata.get("unit", ""))
    factor = MICROMETRES.get(clean_unit(stated))
    # a micro sign that was written as other text is one that ImageJ does not know
    if _output_size(header, scale) and (not factor or (factor == 1 and not re.fullmatch(r"(\\u00B5|[µa-z])+", stated))):
        metadata["unit"] = "um"
    lines = [x for x in str(metadata.pop("Info", "")).splitlines() if not x.startswith(f"{NAMESPACE}: ")]
    # ImageJ shows Info as text, so the record is a line of it
    lines += [f"{NAMESPACE}: {json.dumps(provenance, sort_keys=True)}"] if provenance else []
    own = {key: metadata.pop(key) for key in IMAGEJ_OWN if key in metadata}
    own |= {"Info": "\n".join(lines)} if lines else {}
    tags = {270: Tag("s", _imagej_text(header, metadata).encode())}
    for code, _, _, data, _ in tifffile.imagej_metadata_tag(own, "<"):
        tags[code] = Tag({50838: "I", 50839: "B"}[code], data)
    return tags


def _imagej_text(header: TiffHeader, metadata: Mapping[str, Any]) -> str:
    """ImageJ's description: ``key=value`` lines in ASCII, the sizes of the hyperstack first."""
    n = dict(zip(header.axes, header.shape, strict=True))
    sides = {"channels": n.get("C", 1) * n.get("S", 1), "slices": n.get("Z", 1), "frames": n.get("T", 1)}
    lines: dict[str, Any] = {"ImageJ": "1.11a", "images": int(np.prod([n[a] for a in n if a not in "YXS"], initial=1))}
    lines |= {key: count for key, count in sides.items() if count > 1} | {"hyperstack": True}
    if "mode" not in metadata and "S" not in n:
        lines["mode"] = "grayscale"
    lines |= {key.lower(): x for key, x in metadata.items()}
    text = "".join(f"{k}={str(x).lower() if isinstance(x, bool) else x}\n" for k, x in lines.items())
    return "".join(c if c.isascii() else f"\\u{ord(c):04X}" for c in text)


def without_style(header: TiffHeader) -> TiffHeader:
    """The same grid as plain TIFF, for planes beside an image: its display settings do not apply to them."""
    return replace(header, style="plain", ome="", imagej={}, description="")
