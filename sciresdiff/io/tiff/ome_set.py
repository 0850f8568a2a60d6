"""OME-TIFF in several files: the companion file that describes them, and the files that it names.

OME-TIFF specification, "Distribution across multiple files" and "Partial OME-XML metadata".
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path

import tifffile

from sciresdiff.errors import InputError
from sciresdiff.io.files import require_file
from sciresdiff.io.outside import leads_outside, refuse_outside
from sciresdiff.io.provenance import to_float
from sciresdiff.io.tiff.metadata import find_element, parse_xml

DEEPEST = 100
"""Levels of OME-XML; the schema has about ten."""
MOST_PLANES = 10**7
"""Planes that an image may be said to have; tifffile makes an object for each."""


def resolve_ome_set(path: Path, outside: bool = False) -> tuple[Path, str | None]:
    """Find the TIFF to open, and the OME-XML of the whole set where it is in another file.

    A companion (``.companion.ome``) leads to the first of its files that exists; a file that points to a companion
    leads to its XML.

    Parameters
    ----------
    path : Path
        The file that is named.
    outside : bool
        Whether the others may lie outside its folder.

    Raises
    ------
    InputError
        No such file; a companion that is broken, or none of whose files exists; a file outside the folder.
    """
    with require_file(path).open("rb") as stream:
        start = stream.read(3)
    if start.startswith((b"<", b"\xef\xbb\xbf")):
        xml = path.read_text("utf-8-sig", errors="replace")
        check_ome(path, xml, outside)
        return _first_file(path, xml), xml
    companion = _companion(path, outside)
    return (path, companion.read_text("utf-8-sig", errors="replace")) if companion else (path, None)


def check_ome(path: Path, xml: str, outside: bool = False) -> None:
    """Refuse OME-XML that is no description of an image, before it is followed; broken XML is left to the reader.

    Parameters
    ----------
    path : Path
        The file that holds it.
    xml : str
        The text.
    outside : bool
        Whether it may name files outside the folder that exist.

    Raises
    ------
    InputError
        It is too deep, states more planes than any image has, or names a file elsewhere.
    """
    root = parse_xml(xml.strip())
    if root is None:
        return
    if _depth(root) > DEEPEST:
        raise InputError(f"{path}: its OME-XML is more than {DEEPEST} levels deep; check or fetch it again")
    for pixels in (e for e in root.iter() if _local(e) == "Pixels"):
        counts = [to_float(pixels.get(f"Size{axis}", "1")) for axis in "ZCT"]
        counts += [to_float(e.get("PlaneCount", "1")) for e in pixels if _local(e) == "TiffData"]
        if max(math.prod(counts[:3]), *counts) > MOST_PLANES:
            raise InputError(f"{path}: its OME-XML states more than {MOST_PLANES} planes; check or fetch it again")
    own = root.get("UUID")
    for element in (e for e in root.iter() if _local(e) == "UUID" and not outside):
        name = element.get("FileName") or ""
        if leads_outside(path.parent, name) and (path.parent / name).exists() and (element.text or "").strip() != own:
            refuse_outside(path, name)


def _local(element: ET.Element) -> str:
    """An element's name without its namespace."""
    return element.tag.rpartition("}")[2]


def _depth(root: ET.Element) -> int:
    """Levels of a tree, counted up to one more than `DEEPEST`."""
    level, depth = [root], 0
    while level and depth <= DEEPEST:
        level, depth = [child for element in level for child in element], depth + 1
    return depth


def members(companion: Path) -> list[Path]:
    """Files that a companion names, in its order; none where it is broken."""
    try:
        root = parse_xml(companion.read_text("utf-8-sig", errors="replace").strip())
    except OSError:
        root = None
    return list(dict.fromkeys(companion.parent / name for name in _names(root)))


def _names(root: ET.Element | None) -> list[str]:
    found = [e.get("FileName") for e in root.iter() if e.tag.rpartition("}")[2] == "UUID"] if root is not None else []
    return [name for name in found if name]


def _first_file(path: Path, xml: str) -> Path:
    root = parse_xml(xml.strip())
    if root is None or not root.tag.endswith("OME"):
        raise InputError(f"{path}: not whole OME-XML; check or fetch it again")
    names = _names(root)
    there = next((path.parent / name for name in names if (path.parent / name).is_file()), None)
    if there is None:
        problem = (
            f"none of its {len(set(names))} files is beside it, {names[0]} for instance" if names else "no file in it"
        )
        raise InputError(f"{path}: {problem}")
    return there


def _companion(path: Path, outside: bool) -> Path | None:
    """Companion that a file points to, if it exists; one elsewhere is refused, unless it may lie ``outside``."""
    try:
        with tifffile.TiffFile(path) as tif:
            text = str(tif.pages.first.description or "")
    except Exception:  # a damaged file is reported when it is opened
        return None
    root = parse_xml(text) if "BinaryOnly" in text else None
    pointer = find_element(root, "BinaryOnly")
    name = pointer.get("MetadataFile") if pointer is not None else None
    if not name or not (path.parent / name).is_file():
        return None
    if not outside and leads_outside(path.parent, name):
        refuse_outside(path, name)
    return path.parent / name
