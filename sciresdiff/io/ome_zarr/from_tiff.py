"""What a TIFF says of its axes and channels, as NGFF has it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from sciresdiff.io.ome_zarr.read import ZarrHeader
from sciresdiff.io.tiff.meta import MICROMETRES, TiffHeader, clean_unit, first, parsed, to_float
from sciresdiff.io.tiff.ome import new_ome

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0, "h": 3600.0}
"""Units of time as OME writes them."""
WHITE = "-1"


def header_of(header: TiffHeader) -> ZarrHeader:
    """Z spacing in micrometres, time step in seconds, names and colours of channels; what is not stated is left out."""
    pixels = first(parsed(header.ome or new_ome(header)), "Pixels")
    if pixels is None:
        return ZarrHeader("")
    steps = [
        ("z", _length(pixels, "PhysicalSizeZ", MICROMETRES, "um"), "micrometer"),
        ("t", _length(pixels, "TimeIncrement", SECONDS, "s"), "second"),
    ]
    known = [step for step in steps if step[1] > 0]
    channels = [_channel(e) for e in pixels if e.tag.rpartition("}")[2] == "Channel"]
    return ZarrHeader(
        "".join(axis for axis, _, _ in known),
        scale=tuple(value for _, value, _ in known),
        units=tuple(unit for _, _, unit in known),
        omero={"channels": channels} if any("label" in channel for channel in channels) else {},
    )


def _length(pixels: ET.Element, name: str, units: dict[str, float], usual: str) -> float:
    return to_float(pixels.get(name)) * units.get(clean_unit(pixels.get(f"{name}Unit", usual)), 0.0)


def _channel(channel: ET.Element) -> dict[str, Any]:
    """Colours are red, green, blue and opacity in one signed number of OME, the first three in hexadecimal of NGFF."""
    try:
        colour = f"{(int(channel.get('Color', WHITE)) & 0xFFFFFFFF) >> 8:06X}"
    except ValueError:
        colour = "FFFFFF"
    name = channel.get("Name")
    return {"color": colour, "active": True, **({"label": name} if name else {})}
