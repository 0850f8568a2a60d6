"""Axes and channels of a TIFF in the terms of NGFF."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from sciresdiff.io.ome_zarr.read import ZarrHeader
from sciresdiff.io.provenance import to_float
from sciresdiff.io.tiff.metadata import MICROMETRES, TiffHeader, clean_unit, find_element, parse_xml
from sciresdiff.io.tiff.ome import new_ome

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0, "h": 3600.0}
"""Units of time in OME -> seconds."""
WHITE = "-1"
"""Default colour of a channel in OME."""


def from_tiff_header(header: TiffHeader) -> ZarrHeader:
    """Convert the metadata of a TIFF: Z spacing in micrometres, time step in seconds, names and colours of channels.

    What the TIFF does not state is left out.
    """
    pixels = find_element(parse_xml(header.ome or new_ome(header)), "Pixels")
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
    """Name and colour of a channel.

    OME has red, green, blue and opacity in one signed number, NGFF the first three in hexadecimal.
    """
    try:
        # two's complement of 32 bits, opacity last
        colour = f"{(int(channel.get('Color', WHITE)) & 0xFFFFFFFF) >> 8:06X}"
    except ValueError:
        colour = "FFFFFF"
    name = channel.get("Name")
    return {"color": colour, "active": True, **({"label": name} if name else {})}
