"""Metadata of a TIFF in the styles OME, ImageJ and plain: pixel size, optics, and this program's own record."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sciresdiff.frame import PixelSize
from sciresdiff.io.provenance import NAMESPACE, to_float
from sciresdiff.notes import Notes
from sciresdiff.parse import parse_json

MICROMETRES: dict[str, float] = {
    "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0, "micrometers": 1.0,
    "micrometres": 1.0, "umeter": 1.0, "nm": 1e-3, "nanometer": 1e-3, "nanometers": 1e-3, "nanometre": 1e-3,
    "millimeter": 1e3, "millimetre": 1e3, "mm": 1e3, "pm": 1e-6, "angstrom": 1e-4, "å": 1e-4, "m": 1e6,
}  # fmt: skip
"""Units of length as files write them -> micrometres.

Centimetres and inches are left out: there they are what a printer needs.
"""

_MICRO = re.compile(
    r"\\+u00b5|\\+u03bc|\\+x(c2\\+x)?b5|\\+xce\\+xbc|\\+265|&(micro|mu|#181|#xb5|#956|#x3bc);|[ãâ]?[µμ]|\xce\xbc|î¼|\ufffd+(?=m)"
)
"""Ways in which the micro sign stands in files (small letters)."""

SCREEN_DPI = (72, 96, 100, 144, 150, 200, 220, 300, 600)
"""Resolutions of screens and printers, which say nothing about the specimen."""


@dataclass(frozen=True)
class TiffHeader:
    """What the writer needs of the input."""

    style: str
    """``ome``, ``imagej`` or ``plain``."""
    axes: str
    shape: tuple[int, ...]
    pixel_size: PixelSize | None = None
    stated: bool = False
    """Whether the file itself has the pixel size (else the user gave it, or it is unknown)."""
    resolution: tuple[float, float, int] | None = None
    """XResolution, YResolution and ResolutionUnit, unchanged."""
    ome: str = ""
    imagej: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    colour: bool = False
    quantity: str | None = None


def rational_to_float(value: Any) -> float:
    """A TIFF rational as a number; 0 where its denominator is 0."""
    n, d = value if isinstance(value, tuple) else (value, 1)
    return float(n) / float(d) if d else 0.0


def read_pixel_size(
    style: str, ome: str, imagej: Mapping[str, Any], resolution: tuple[float, float, int] | None
) -> tuple[PixelSize | None, Notes]:
    """Read the pixel size in micrometres; it is never guessed.

    Parameters
    ----------
    style : str
        ``ome``, ``imagej`` or ``plain``.
    ome : str
        OME-XML.
    imagej : mapping
        ImageJ metadata.
    resolution : (x, y, unit) or None
        Resolution tags, pixels per unit.

    Returns
    -------
    size : PixelSize or None
    notes : Notes
        What was not believed: screen resolutions, sizes outside 1 nm to 100 um.
    """
    if style == "ome" and (size := _ome_pixel_size(ome)):
        return size, Notes()
    if resolution is None or min(resolution[:2]) <= 0:
        return None, Notes()
    x, y, code = resolution
    if style == "imagej":
        factor = MICROMETRES.get(clean_unit(str(imagej.get("unit", ""))))
        return PixelSize(factor / y, factor / x, "um") if factor else None, Notes()
    per = {2: 25400.0, 3: 10000.0}.get(code)
    # 1 pixel per unit, or a screen's resolution, is what programs write that know no size
    if per is None or x == 1 or (code == 2 and round(x) in SCREEN_DPI):
        screen = Notes(f"pixel size: {x:g} per inch is a screen's or printer's, not used")
        return None, screen if code == 2 else Notes()
    side = PixelSize(per / y, per / x, "um")
    if 1e-3 < side.x < 1e2:
        return side, Notes()
    return None, Notes(f"pixel size: {side.x:g} um is not believed, not used")


def clean_unit(unit: str) -> str:
    r"""Write a unit of length in small ASCII letters.

    The micro sign comes as Latin or Greek, as text in place of the character (``\u00B5``, which ImageJ writes,
    ``\xb5``, which programs in Python write, or an entity of XML), and as what is left after a wrong decoding.
    """
    plain = _MICRO.sub("u", unit.strip("\x00 \t\r\n[](){}'\"").lower())
    return re.sub(r"[\x00 _.]", "", plain)


def parse_xml(xml: str) -> ET.Element | None:
    """Root of an XML text; None where there is none, or it is broken."""
    try:
        return ET.fromstring(xml) if xml else None
    except ET.ParseError:
        return None


def find_element(root: ET.Element | None, name: str) -> ET.Element | None:
    """First element of a name, in any namespace."""
    return None if root is None else next((e for e in root.iter() if e.tag.rpartition("}")[2] == name), None)


def _ome_pixel_size(xml: str) -> PixelSize | None:
    pixels = find_element(parse_xml(xml), "Pixels")
    if pixels is None:
        return None
    sides = []
    for axis in "YX":
        factor = MICROMETRES.get(clean_unit(pixels.get(f"PhysicalSize{axis}Unit", "um")), 0.0)
        sides.append(to_float(pixels.get(f"PhysicalSize{axis}")) * factor)
    return PixelSize(sides[0], sides[1], "um") if min(sides) > 0 else None


IMMERSIONS = {
    "oil": 1.515, "water": 1.333, "waterdipping": 1.333, "glycerol": 1.47, "air": 1.0,
}  # fmt: skip
"""Immersion as OME names it -> its refractive index."""


def read_optics(xml: str) -> dict[str, float]:
    """Read what OME-XML says of the objective and the channels of the first image.

    Returns
    -------
    dict
        ``na``; ``refractive_index`` of the immersion; ``wavelength`` (emission) and ``excitation`` in nm of the first
        channel, ``wavelength_1`` ... of the others; where it has them.
    """
    root = parse_xml(xml)
    image = find_element(root, "Image")
    if root is None or image is None:
        return {}
    facts: dict[str, float] = {}
    settings = find_element(image, "ObjectiveSettings")
    objectives = [e for e in root.iter() if e.tag.rpartition("}")[2] == "Objective"]
    used = "" if settings is None else settings.get("ID", "")
    objective = next((e for e in objectives if e.get("ID") == used), objectives[0] if objectives else None)
    if objective is not None:
        facts["na"] = to_float(objective.get("LensNA"))
        facts["refractive_index"] = IMMERSIONS.get(objective.get("Immersion", "").lower(), 0.0)
    if settings is not None and (index := to_float(settings.get("RefractiveIndex"))) > 0:
        facts["refractive_index"] = index
    for i, channel in enumerate(e for e in image.iter() if e.tag.rpartition("}")[2] == "Channel"):
        for name, key in (("wavelength", "EmissionWavelength"), ("excitation", "ExcitationWavelength")):
            factor = 1000 * MICROMETRES.get(clean_unit(channel.get(f"{key}Unit", "nm")), 0.0)
            facts[name if i == 0 else f"{name}_{i}"] = to_float(channel.get(key)) * factor
    return {name: value for name, value in facts.items() if value > 0} | _read_pinhole(image, objective)


def _read_pinhole(image: ET.Element, objective: ET.Element | None) -> dict[str, float]:
    """``confocal`` 1 where a channel was taken through a pinhole, and its diameter ``pinhole_um`` in the specimen."""
    channels = [e for e in image.iter() if e.tag.rpartition("}")[2] == "Channel"]
    facts = {"confocal": 1.0} if any("Confocal" in e.get("AcquisitionMode", "") for e in channels) else {}
    magnification = 0.0 if objective is None else to_float(objective.get("NominalMagnification"))
    for channel in channels:
        size = to_float(channel.get("PinholeSize"))
        size *= MICROMETRES.get(clean_unit(channel.get("PinholeSizeUnit", "um")), 0.0)
        if size > 0 and magnification > 0:
            return {**facts, "pinhole_um": size / magnification}
    return facts


def read_z_step(style: str, ome: str, imagej: Mapping[str, Any]) -> dict[str, float]:
    """Distance ``z_step`` of the planes of a stack in micrometres, where OME-XML or ImageJ's metadata have it."""
    step = 0.0
    if style == "ome" and (pixels := find_element(parse_xml(ome), "Pixels")) is not None:
        factor = MICROMETRES.get(clean_unit(pixels.get("PhysicalSizeZUnit", "um")), 0.0)
        step = to_float(pixels.get("PhysicalSizeZ")) * factor
    elif style == "imagej":
        factor = MICROMETRES.get(clean_unit(str(imagej.get("unit", ""))), 0.0)
        step = abs(to_float(str(imagej.get("spacing", "")))) * factor
    return {"z_step": step} if step > 0 else {}


def read_provenance(header: TiffHeader) -> dict[str, Any]:
    """Read the record that this program wrote.

    It is a MapAnnotation in OME-XML, a line of ``Info`` in ImageJ's metadata, or a key of the JSON description.
    """
    if header.style == "ome":
        root = parse_xml(header.ome)
        found = [e for e in root.iter() if e.get("Namespace") == NAMESPACE] if root is not None else []
        entries = [m for e in found for m in e.iter() if m.tag.rpartition("}")[2] == "M"]
        return {str(m.get("K")): _decode(m.text or "") for m in entries}
    if header.style == "imagej":
        match = re.search(rf"^{NAMESPACE}: (\{{.*\}})$", str(header.imagej.get("Info", "")), re.MULTILINE)
        return dict(_decode(match[1])) if match else {}
    metadata = _decode(header.description)
    ours = metadata.get(NAMESPACE) if isinstance(metadata, dict) else None
    return dict(ours) if isinstance(ours, dict) else {}


def _decode(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return text
