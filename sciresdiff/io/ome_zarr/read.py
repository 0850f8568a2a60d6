"""OME-Zarr in: images of NGFF 0.4 and 0.5, and plain Zarr arrays, read by chunks. Needs the extra ``zarr``.

NGFF: https://ngff.openmicroscopy.org/0.5/ (multiscales, axes, coordinateTransformations). **A lost chunk cannot be told
from one that was never written**: both read as the array's fill value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame, PixelSize, Quantity
from sciresdiff.io.chunked import add_planes, frame_reader, plane_reader, read_whole, region_reader
from sciresdiff.io.files import first_line, split_spec
from sciresdiff.io.outside import refuse_links
from sciresdiff.io.provenance import NAMESPACE, apply_provenance
from sciresdiff.io.saturation import mask_saturated, scan_maximum
from sciresdiff.io.source import ReadRegion, Source, check_size, count_planes, placeholder, replace_frame
from sciresdiff.notes import Notes
from sciresdiff.region import Region

Array = NDArray[Any]

MICROMETRES: dict[str, float] = {
    "picometer": 1e-6, "angstrom": 1e-4, "nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "meter": 1e6,
}  # fmt: skip
"""Units of length in NGFF -> micrometres."""


@dataclass(frozen=True)
class ZarrHeader:
    """What the writer needs of the input."""

    axes: str
    scale: tuple[float, ...] = ()
    """Step of each axis in the file's unit; 1 where it is not stated."""
    translation: tuple[float, ...] = ()
    units: tuple[str, ...] = ()
    """Unit of each axis; empty where it has none."""
    name: str = ""
    omero: Mapping[str, Any] = field(default_factory=dict)
    """Names, colours and display windows of the channels."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """What this program wrote into its own files."""


def require_zarr(path: str | Path) -> Any:
    """Import the library.

    Raises
    ------
    UsageError
        It is not installed.
    """
    try:
        import zarr
    except ImportError:
        raise UsageError(f"{path}: OME-Zarr needs the library zarr; pip install 'sciresdiff[zarr]'") from None
    return zarr


def read(path: str | Path, **options: Any) -> Frame:
    """Read the first image of a store at full size; `sciresdiff.io.read` describes the options.

    Raises
    ------
    UsageError
        The library zarr is not installed.
    InputError
        No such store, no image in it, axes or planes that do not fit, NaN only, a damaged chunk.
    """
    with source(path, **options) as opened:
        return opened.whole()


@contextmanager
def source(
    path: str | Path,
    *,
    ext: str | None = None,
    variance: str | None = None,
    mask: str | None = None,
    axes: str | None = None,
    quantity: Quantity | None = None,
    pixel_size: float | PixelSize | None = None,
    saturated: bool = True,
    outside: bool = False,
) -> Iterator[Source]:
    """Open the first image of a store, to be read region by region; errors as in `read`.

    ``ext``, ``variance`` and ``mask`` are paths of arrays or images in the store.
    """
    file, inside = split_spec(path)
    root = _open(file, outside)
    data, header, notes = _image(file, root, ext or inside, axes)
    size = _pixel_size(header, pixel_size)
    if size is None:
        notes += Notes("pixel size: the file does not say; give --pixel-size")
    frame = _frame(data, header, size, quantity).with_notes(notes)
    image = Source(frame, frame_reader(file, _regions(file, data), frame), str(file))
    maximum = scan_maximum(file, image)
    image = mask_saturated(image, maximum) if frame.kind == "micro" and saturated else image
    image = replace_frame(image, apply_provenance(image.frame, header.provenance))
    own = "variance" if header.provenance.get("VAR") and not (ext or inside) else None
    bad = _plane(file, root, "mask", mask, image)
    values = _plane(file, root, "variance", variance or own, image)
    yield add_planes(image, None if values is None else _positive(values), bad, variance is not None)


def read_image(path: str | Path) -> NDArray[np.float64]:
    """Read one image or array as it is: (Y, X), or (..., Y, X) with every other axis in front.

    Raises
    ------
    UsageError
        The library zarr is not installed.
    InputError
        No such store, no such image in it, a damaged chunk.
    """
    file, inside = split_spec(path)
    data, _, _ = _image(file, _open(file), inside, None)
    return read_whole(_regions(file, data), data.shape)


def _open(path: Path, outside: bool = False) -> Any:
    zarr = require_zarr(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if not outside:
        refuse_links(path)
    try:
        return zarr.open(str(path), mode="r")
    except Exception as error:  # zarr raises many kinds on what is no store
        raise InputError(f"{path}: not a Zarr store ({first_line(error)}); check or fetch it again") from error


def _image(path: Path, root: Any, inside: str | None, axes: str | None) -> tuple[Any, ZarrHeader, Notes]:
    """The array of an image, its metadata, and notes."""
    node, notes = _find_node(path, root, inside)
    if hasattr(node, "shape"):
        header = ZarrHeader(_check_axes(path, axes or "TCZYX"[-node.ndim :], node.shape))
        return _check_array(path, node), header, notes
    attrs = _ngff(node)
    scales = attrs.get("multiscales")
    if not isinstance(scales, list) or not scales:
        raise InputError(f"{path}: no image in it; {_list_members(node)} FILE[PATH]")
    if len(scales) > 1:
        notes += Notes(f"{len(scales)} multiscale images in the group: read the first")
    try:
        data = node[str(scales[0]["datasets"][0]["path"])]
        header = _header(path, node, scales[0], data, axes)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(f"{path}: its NGFF metadata do not fit its arrays ({first_line(error)})") from error
    return _check_array(path, data), header, notes


def _list_members(node: Any) -> str:
    names = sorted(node.keys())[:8]
    return f"there are {', '.join(names)};" if names else "it is empty;"


def _find_node(path: Path, root: Any, inside: str | None) -> tuple[Any, Notes]:
    """Group or array of the image: the one asked for, else the root, else the first of a bioformats2raw series."""
    if inside:
        if hasattr(root, "shape") or inside.strip("/") not in root:
            raise InputError(f"{path}: no {inside!r} in it")
        return root[inside.strip("/")], Notes()
    if (
        not hasattr(root, "shape")
        and "multiscales" not in _ngff(root)
        and "0" in root
        and not hasattr(root["0"], "shape")
    ):
        return root["0"], Notes("several images in the store: read the first")
    return root, Notes()


def _ngff(node: Any) -> dict[str, Any]:
    """NGFF metadata: under ``ome`` in 0.5, at the top in 0.4."""
    attrs = dict(node.attrs)
    ome = attrs.get("ome")
    return dict(ome) if isinstance(ome, Mapping) else attrs


def _check_array(path: Path, data: Any) -> Any:
    if data.ndim < 2 or 0 in data.shape or np.dtype(data.dtype).kind not in "iuf":
        raise InputError(f"{path}: array {data.path!r} of shape {data.shape} and type {data.dtype} is not an image")
    check_size(path, data.shape)
    return data


def _check_axes(path: Path, axes: str, shape: tuple[int, ...]) -> str:
    letters = axes.upper()
    if len(letters) != len(shape) or not letters.endswith("YX") or len(set(letters)) != len(letters):
        raise InputError(f"{path}: axes {letters!r} do not fit shape {shape}; one letter per axis, YX last")
    return letters


def _header(path: Path, node: Any, image: Mapping[str, Any], data: Any, axes: str | None) -> ZarrHeader:
    """Axes, scale and translation of the full size; the group's transformations are applied after the array's."""
    stated = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in image.get("axes", [])]
    letters = axes or "".join(str(axis["name"])[:1] for axis in stated) or "TCZYX"[-data.ndim :]
    scale, shift = np.ones(data.ndim), np.zeros(data.ndim)
    steps = [*image["datasets"][0].get("coordinateTransformations", []), *image.get("coordinateTransformations", [])]
    for step in steps:
        if step["type"] == "scale":
            factor = np.asarray(step["scale"], float)
            scale, shift = scale * factor, shift * factor  # a later scale acts on the translation too
        elif step["type"] == "translation":
            shift = shift + np.asarray(step["translation"], float)
    # metadata of other programs may be of any type
    own, omero = dict(node.attrs).get(NAMESPACE), _ngff(node).get("omero")
    return ZarrHeader(
        _check_axes(path, letters, data.shape),
        tuple(scale.tolist()),
        tuple(shift.tolist()),
        tuple(str(axis.get("unit") or "") for axis in stated),
        str(image.get("name") or ""),
        dict(omero) if isinstance(omero, Mapping) and isinstance(omero.get("channels"), list) else {},
        dict(own) if isinstance(own, Mapping) else {},
    )


def _pixel_size(header: ZarrHeader, given: float | PixelSize | None) -> PixelSize | None:
    """Pixel size: the user's, else the file's in micrometres, else what this program noted for a sky image."""
    if given is not None:
        return given if isinstance(given, PixelSize) else PixelSize(given, given, "um")
    units = [MICROMETRES.get(unit) for unit in header.units[-2:]]
    if len(units) == 2 and all(units) and min(header.scale[-2:]) > 0:
        y, x = (float(side * (unit or 0)) for side, unit in zip(header.scale[-2:], units, strict=True))
        return PixelSize(y, x, "um")
    noted = header.provenance.get("pixel_size")
    return PixelSize(float(noted[0]), float(noted[1]), "arcsec") if noted else None


def _z_step(header: ZarrHeader) -> dict[str, float]:
    """Distance ``z_step`` of the planes in micrometres, where the file has it."""
    if "Z" not in header.axes or len(header.units) != len(header.axes) or len(header.scale) != len(header.axes):
        return {}
    at = header.axes.index("Z")
    step = header.scale[at] * MICROMETRES.get(header.units[at], 0.0)
    return {"z_step": float(step)} if step > 0 else {}


def _frame(data: Any, header: ZarrHeader, size: PixelSize | None, quantity: Quantity | None) -> Frame:
    shape = (count_planes(data.shape), *data.shape[-2:])
    return Frame(
        pixels=placeholder(shape, np.float32),
        mask=placeholder(shape, bool),
        kind="astro" if header.provenance.get("kind") == "astro" else "micro",
        quantity=quantity,
        unit=header.provenance.get("unit"),
        pixel_size=size,
        facts=_z_step(header),
        axes=header.axes,
        shape=tuple(data.shape),
        dtype=np.dtype(data.dtype).newbyteorder("="),
        header=header,
    )


def _regions(path: Path, data: Any) -> ReadRegion:
    # the codecs that a store may use raise many kinds of errors on damaged chunks
    return region_reader(path, data, f"array {data.path!r}", (Exception,))


def _plane(path: Path, root: Any, what: str, name: str | None, image: Source) -> ReadRegion | None:
    """Reads regions (1, h, w) of an image of the same store; None without a name."""
    if name is None:
        return None
    data, _, _ = _image(path, root, name, None)
    return plane_reader(_regions(path, data), data.shape, image.frame.pixels.shape, f"{path}: {what} {name}")


def _positive(read_variance: ReadRegion) -> ReadRegion:
    """A variance that is not positive is unknown."""

    def positive(plane: int, region: Region) -> Array:
        found = read_variance(plane, region)
        return np.where(found > 0, found.astype(np.float64), np.nan)

    return positive
