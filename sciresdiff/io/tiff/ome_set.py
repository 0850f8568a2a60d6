"""OME-TIFF in several files: the companion file that describes them, and the files that it names.

OME-TIFF specification, "Distribution across multiple files" and "Partial OME-XML metadata".
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import tifffile

from sciresdiff.errors import InputError
from sciresdiff.io.files import require_file
from sciresdiff.io.tiff.metadata import find_element, parse_xml


def resolve_ome_set(path: Path) -> tuple[Path, str | None]:
    """Find the TIFF to open, and the OME-XML of the whole set where it is in another file.

    A companion (``.companion.ome``) leads to the first of its files that exists; a file that points to a companion
    leads
    to its XML.

    Raises
    ------
    InputError
        No such file; a companion that is broken, or none of whose files exists.
    """
    with require_file(path).open("rb") as stream:
        start = stream.read(3)
    if start.startswith((b"<", b"\xef\xbb\xbf")):
        xml = path.read_text("utf-8-sig", errors="replace")
        return _first_file(path, xml), xml
    companion = _companion(path)
    return (path, companion.read_text("utf-8-sig", errors="replace")) if companion else (path, None)


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


def _companion(path: Path) -> Path | None:
    """Companion that a file points to, if it exists."""
    try:
        with tifffile.TiffFile(path) as tif:
            text = str(tif.pages.first.description or "")
    except Exception:  # a damaged file is reported when it is opened
        return None
    root = parse_xml(text) if "BinaryOnly" in text else None
    pointer = find_element(root, "BinaryOnly")
    name = pointer.get("MetadataFile") if pointer is not None else None
    return path.parent / name if name and (path.parent / name).is_file() else None
