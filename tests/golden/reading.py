"""What an output says: its structure, its cards and records, and its pixels, without clocks, versions and prose."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py
import numpy as np
import tifffile
from astropy.io import fits

Values = dict[str, Any]
"""A number, a text or an array by its name."""

UNTOLD = {"meaning", "said", "about", "version", "torch", "seconds", "minutes", "checksums", "host"}
"""Keys of records that hold prose, a version, a clock or the checksum of a file with such things in it."""
CARDS = {"HISTORY", "COMMENT", "CHECKSUM", "DATASUM", "DATE", "SRDVERS", ""}
MODEL = "SRDHASH"
"""The hash of a model's file, in which a clock stands where the model was trained a moment ago."""
HASH = re.compile(r"\b[0-9a-f]{32,}\b")
PROSE = 4
"""Words from which a text is prose, of which it is only said that it is there."""
SKIPPED = (".html", ".png", ".state")
"""Pages to look at, and the state of a training run."""


def file_names(folder: Path) -> list[str]:
    """Everything in a folder; an OME-Zarr is one output."""
    every = sorted(p for p in folder.rglob("*") if p.is_file() or p.suffix == ".zarr")
    inside = [p for p in every if any(parent.suffix == ".zarr" for parent in p.parents)]
    return [p.relative_to(folder).as_posix() for p in every if p not in inside]


def values(path: Path) -> Values:
    """What is compared of an output."""
    if path.suffix in SKIPPED:
        return {"is there": True}
    for ends, read in READERS.items():
        if path.name.endswith(tuple(ends.split())):
            return dict(read(path))
    raise ValueError(f"{path.name}: a kind of output that is not compared yet")


def exact(path: Path) -> str:
    """A checksum of an output: of its bytes, or of what it says where a clock, a version or prose stands in it."""
    if path.suffix in SKIPPED:
        return "is there"
    if path.is_dir():
        parts = [(p.relative_to(path).as_posix(), p.read_bytes()) for p in sorted(path.rglob("*")) if p.is_file()]
        return digest(*(b"%s %d %s" % (name.encode(), len(data), data) for name, data in parts))
    if path.name.endswith((".fits", ".fits.fz")):
        return digest(*fits_bytes(path))
    if path.name.endswith((".json", ".jsonl", ".csv", ".safetensors")):
        return digest(*(f"{k}={v.tobytes() if isinstance(v, np.ndarray) else v!r}\n".encode()
                        for k, v in values(path).items()))  # fmt: skip
    return digest(path.read_bytes())


def digest(*parts: bytes) -> str:
    """The SHA-256 of all parts in turn."""
    return hashlib.sha256(b"".join(parts)).hexdigest()


def fits_bytes(path: Path) -> Iterator[bytes]:
    """Every header without the cards that may be worded anew, and the bytes of the data as they lie in the file."""
    raw = path.read_bytes()
    with fits.open(path, disable_image_compression=True) as hdus:
        for hdu in hdus:
            place = hdu.fileinfo()
            cards = [str(card) for card in hdu.header.cards if card.keyword not in {*CARDS, MODEL}]
            yield "\n".join(cards).encode()
            yield raw[place["datLoc"] : place["datLoc"] + place["datSpan"]]


def read_fits(path: Path) -> Iterator[tuple[str, Any]]:
    """Extensions with their cards and pixels; comments of cards are prose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path) as hdus:
            yield "extensions", ", ".join(f"{hdu.name or 'PRIMARY'} {hdu.ver}" for hdu in hdus)
            for number, hdu in enumerate(hdus):
                at = f"{number} {hdu.name}"
                for card in hdu.header.cards:
                    if card.keyword not in CARDS:
                        yield f"{at} card {card.keyword}", plain("(hash)" if card.keyword == MODEL else card.value)
                if isinstance(hdu.data, np.recarray):
                    yield from ((f"{at} {name}", np.asarray(hdu.data[name])) for name in hdu.data.names)
                elif hdu.data is not None:
                    yield at, native(hdu.data)


def native(array: Any) -> Any:
    """An array in the machine's own order of bytes."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def read_tiff(path: Path) -> Iterator[tuple[str, Any]]:
    """Images with their axes, tags and levels, and what OME-XML and ImageJ say."""
    with tifffile.TiffFile(path) as file:
        yield "order", file.byteorder
        for number, series in enumerate(file.series):
            yield f"image {number} axes", series.axes
            for level, shown in enumerate(series.levels):
                yield f"image {number}" + f" level {level}" * (level > 0), native(shown.asarray())
        for tag in file.pages[0].tags:
            if tag.name in ("XResolution", "YResolution", "ResolutionUnit", "PhotometricInterpretation", "Compression",
                            "SampleFormat", "PlanarConfiguration", "TileWidth", "Software"):  # fmt: skip
                yield f"tag {tag.name}", plain(str(tag.value))
        if file.ome_metadata:
            yield from read_xml(ElementTree.fromstring(file.ome_metadata), "ome")
        yield from flat(file.imagej_metadata or {}, "imagej")


def read_xml(element: ElementTree.Element, at: str) -> Iterator[tuple[str, Any]]:
    """Attributes and texts of an element and all below it."""
    if element.attrib.get("K") == MODEL:
        return
    for name, value in element.attrib.items():
        if name not in ("UUID", "Creator") and "schemaLocation" not in name:
            yield f"{at} {name}", plain(number_of(value))
    if element.text and element.text.strip():
        yield f"{at} text", plain(number_of(element.text.strip()))
    for number, child in enumerate(element):
        yield from read_xml(child, f"{at}/{child.tag.rsplit('}')[-1]}{number}")


def read_hdf5(path: Path) -> Iterator[tuple[str, Any]]:
    """Datasets and attributes."""
    with h5py.File(path) as file:
        yield from ((f"attribute {name}", plain(value)) for name, value in sorted(file.attrs.items()))
        names: list[str] = []
        file.visit(names.append)
        for name in sorted(names):
            yield from ((f"{name} attribute {key}", plain(value)) for key, value in sorted(file[name].attrs.items()))
            if isinstance(file[name], h5py.Dataset):
                yield name, file[name][()]


def read_zarr(path: Path) -> Iterator[tuple[str, Any]]:
    """Attributes of every group and the values of every array."""
    import zarr

    group = zarr.open_group(str(path), mode="r")
    yield from flat(dict(group.attrs), "attribute")
    for name, member in sorted(group.members(max_depth=None)):
        yield from flat(dict(member.attrs), f"{name} attribute")
        if isinstance(member, zarr.Array):
            yield name, member[:]


def read_model(path: Path) -> Iterator[tuple[str, Any]]:
    """The card, and of every tensor the sum and that of its absolute values."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        for name, text in (file.metadata() or {}).items():
            yield from flat(json.loads(text), name)
        for name in sorted(file.keys()):
            yield name, file.get_tensor(name)


def read_json(path: Path) -> Iterator[tuple[str, Any]]:
    """Every number and word of a record."""
    yield from flat(json.loads(path.read_text()), "")


def read_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """A record to a line."""
    for number, line in enumerate(path.read_text().splitlines()):
        yield from flat(json.loads(line), str(number))


def read_csv(path: Path) -> Iterator[tuple[str, Any]]:
    """Every cell of a table, by the number of its row and the name of its column."""
    with path.open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            for name, cell in row.items():
                if name not in UNTOLD:
                    yield f"{number} {name}", plain(number_of(cell))


def number_of(cell: str) -> Any:
    """A number where a cell holds one."""
    try:
        return float(cell)
    except ValueError:
        return cell


def flat(record: Any, at: str) -> Iterator[tuple[str, Any]]:
    """The leaves of a record by their path."""
    if isinstance(record, dict):
        for name, value in sorted(record.items()):
            if name not in UNTOLD:
                yield from flat("(hash)" if name == MODEL else value, f"{at}/{name}")
    elif isinstance(record, list | tuple) and record:
        for number, value in enumerate(record):
            yield from flat(value, f"{at}/{number}")
    else:
        yield at, plain(record)


def plain(value: Any) -> Any:
    """A value as JSON keeps it, without the hash of a file; of prose, that it is there."""
    if isinstance(value, np.ndarray):
        return value if value.ndim else plain(value.item())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, str):
        return "(prose)" if len(value.split()) >= PROSE else HASH.sub("(hash)", value)
    return value if isinstance(value, bool | int | float) or value is None else str(value)


READERS: dict[str, Callable[[Path], Iterator[tuple[str, Any]]]] = {
    ".fits .fits.fz": read_fits,
    ".tif": read_tiff,
    ".h5": read_hdf5,
    ".zarr": read_zarr,
    ".safetensors": read_model,
    ".json": read_json,
    ".jsonl": read_lines,
    ".csv": read_csv,
}
