"""OME-Zarr in: images of NGFF 0.4 and 0.5, and bare Zarr arrays, read by chunks. Needs the extra ``zarr``.

NGFF: https://ngff.openmicroscopy.org/0.5/ (multiscales, axes, coordinateTransformations). **A chunk that is lost cannot
be told from one that was never written**: both are the array's fill value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame, PixelSize, Quantity
from sciresdiff.io.files import first_line, split_spec
from sciresdiff.io.planes import part_in_single, settled
from sciresdiff.io.source import Source, empty
from sciresdiff.io.told import restored
from sciresdiff.io.windows import Cut, changed, looked_through, middle, saturation, telling
from sciresdiff.notes import Notes
from sciresdiff.region import Region

Array = NDArray[Any]
NAMESPACE = "sciresdiff"

MICROMETRES: dict[str, float] = {
    "picometer": 1e-6, "angstrom": 1e-4, "nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "meter": 1e6,
}  # fmt: skip
"""Units of length of a pixel that NGFF has."""


@dataclass(frozen=True)
class ZarrHeader:
    """What the writer needs of the input."""

    axes: str
    scale: tuple[float, ...] = ()
    """Of each axis, in the file's unit; 1 where it is not stated."""
    translation: tuple[float, ...] = ()
    units: tuple[str, ...] = ()
    """Empty where an axis has none."""
    name: str = ""
    omero: Mapping[str, Any] = field(default_factory=dict)
    """Names, colours and windows of the channels."""
    told: Mapping[str, Any] = field(default_factory=dict)


def ready(path: str | Path) -> Any:
    """The library.

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
    """Read the first image of a store, at its full size; ``sciresdiff.io.read`` describes the parameters.

    Raises
    ------
    UsageError
        The library zarr is not installed.
    InputError
        No such store, no image in it, axes or planes that do not fit, NaN only, a chunk that is damaged.
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
) -> Iterator[Source]:
    """The same, window by window. ``ext`` is an array's or image's path in the store; so are the other planes."""
    file, inside = split_spec(path)
    root = _root(file)
    data, header, notes = _image(file, root, ext or inside, axes)
    size = _size(header, pixel_size)
    if size is None:
        notes += Notes("pixel size: the file does not say; give --pixel-size")
    frame = _frame(data, header, size, quantity).with_notes(notes)
    image = Source(frame, _plain(file, data, frame), str(file))
    most = looked_through(file, image)
    image = saturation(image, most) if frame.kind == "micro" else image
    told = restored(image.frame, header.told)
    image = telling(image, told)
    own = "variance" if header.told.get("VAR") and not (ext or inside) else None
    yield _with_planes(image, file, root, variance or own, mask)


def read_image(path: str | Path) -> NDArray[np.float64]:
    """One image or array as it is: (Y, X), or with every other axis in front."""
    file, inside = split_spec(path)
    data, _, _ = _image(file, _root(file), inside, None)
    cut = _cut(file, data)
    planes = [cut(i, Region.of_shape(data.shape)) for i in range(_planes(data.shape))]
    return np.stack(planes).reshape(data.shape).astype(np.float64)


def _root(path: Path) -> Any:
    zarr = ready(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    try:
        return zarr.open(str(path), mode="r")
    except Exception as error:  # zarr raises many kinds on what is no store
        raise InputError(f"{path}: not a Zarr store ({first_line(error)}); check or fetch it again") from error


def _planes(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[:-2], initial=1))


def _image(path: Path, root: Any, inside: str | None, axes: str | None) -> tuple[Any, ZarrHeader, Notes]:
    """The array, and what is said of it."""
    node, notes = _node(path, root, inside)
    if hasattr(node, "shape"):
        header = ZarrHeader(_letters(path, axes or "TCZYX"[-node.ndim :], node.shape))
        return _checked(path, node), header, notes
    attrs = _ngff(node)
    scales = attrs.get("multiscales")
    if not isinstance(scales, list) or not scales:
        raise InputError(f"{path}: no image in it; {_there(node)} FILE[PATH]")
    if len(scales) > 1:
        notes += Notes(f"{len(scales)} multiscale images in the group: read the first")
    try:
        data = node[str(scales[0]["datasets"][0]["path"])]
        header = _header(path, node, scales[0], data, axes)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(f"{path}: its NGFF metadata do not fit its arrays ({first_line(error)})") from error
    return _checked(path, data), header, notes


def _there(node: Any) -> str:
    names = sorted(node.keys())[:8]
    return f"there are {', '.join(names)};" if names else "it is empty;"


def _node(path: Path, root: Any, inside: str | None) -> tuple[Any, Notes]:
    """The image's group or array: the one asked for, else the root, else the first of a bioformats2raw series."""
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
    """NGFF metadata: 0.5 has them under ``ome``, 0.4 does not."""
    attrs = dict(node.attrs)
    ome = attrs.get("ome")
    return dict(ome) if isinstance(ome, Mapping) else attrs


def _checked(path: Path, data: Any) -> Any:
    if data.ndim < 2 or 0 in data.shape or np.dtype(data.dtype).kind not in "iuf":
        raise InputError(f"{path}: array {data.path!r} of shape {data.shape} and type {data.dtype} is not an image")
    return data


def _letters(path: Path, axes: str, shape: tuple[int, ...]) -> str:
    letters = axes.upper()
    if len(letters) != len(shape) or not letters.endswith("YX") or len(set(letters)) != len(letters):
        raise InputError(f"{path}: axes {letters!r} do not fit shape {shape}; one letter per axis, YX last")
    return letters


def _header(path: Path, node: Any, image: Mapping[str, Any], data: Any, axes: str | None) -> ZarrHeader:
    """Axes, scale and translation of the full size; the group's own transformations come after the array's."""
    stated = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in image.get("axes", [])]
    letters = axes or "".join(str(axis["name"])[:1] for axis in stated) or "TCZYX"[-data.ndim :]
    scale, shift = np.ones(data.ndim), np.zeros(data.ndim)
    steps = [*image["datasets"][0].get("coordinateTransformations", []), *image.get("coordinateTransformations", [])]
    for step in steps:
        if step["type"] == "scale":
            factor = np.asarray(step["scale"], float)
            scale, shift = scale * factor, shift * factor
        elif step["type"] == "translation":
            shift = shift + np.asarray(step["translation"], float)
    told, omero = dict(node.attrs).get(NAMESPACE), _ngff(node).get("omero")
    return ZarrHeader(
        _letters(path, letters, data.shape),
        tuple(scale.tolist()),
        tuple(shift.tolist()),
        tuple(str(axis.get("unit") or "") for axis in stated),
        str(image.get("name") or ""),
        dict(omero) if isinstance(omero, Mapping) and isinstance(omero.get("channels"), list) else {},
        dict(told) if isinstance(told, Mapping) else {},
    )


def _size(header: ZarrHeader, given: float | PixelSize | None) -> PixelSize | None:
    """The pixel's size: the user's, else the file's in micrometres, else what this program noted of a sky."""
    if given is not None:
        return given if isinstance(given, PixelSize) else PixelSize(given, given, "um")
    units = [MICROMETRES.get(unit) for unit in header.units[-2:]]
    if len(units) == 2 and all(units) and min(header.scale[-2:]) > 0:
        y, x = (float(side * (unit or 0)) for side, unit in zip(header.scale[-2:], units, strict=True))
        return PixelSize(y, x, "um")
    noted = header.told.get("pixel_size")
    return PixelSize(float(noted[0]), float(noted[1]), "arcsec") if noted else None


def _frame(data: Any, header: ZarrHeader, size: PixelSize | None, quantity: Quantity | None) -> Frame:
    shape = (_planes(data.shape), *data.shape[-2:])
    return Frame(
        pixels=empty(shape, np.float32),
        mask=empty(shape, bool),
        kind="astro" if header.told.get("kind") == "astro" else "micro",
        quantity=quantity,
        unit=header.told.get("unit"),
        pixel_size=size,
        axes=header.axes,
        shape=tuple(data.shape),
        dtype=np.dtype(data.dtype).newbyteorder("="),
        header=header,
    )


def _cut(path: Path, data: Any) -> Cut:
    """Windows of an array, of which the chunks that they touch are read."""

    def cut(plane: int, region: Region) -> Array:
        lead = tuple(int(i) for i in np.unravel_index(plane, data.shape[:-2])) if data.ndim > 2 else ()
        try:
            found = np.asarray(data[(*lead, *region.slices)])
        except Exception as error:  # codecs raise many kinds on damaged chunks
            raise InputError(
                f"{path}: array {data.path!r} cannot be read at plane {plane}, rows {region.y0} to {region.y1 - 1} "
                f"({first_line(error)}); check or fetch it again"
            ) from error
        return found.astype(found.dtype.newbyteorder("="), copy=False)

    return cut


def _plain(path: Path, data: Any, frame: Frame) -> Callable[[int, Region], Frame]:
    cut = _cut(path, data)

    def window(plane: int, region: Region) -> Frame:
        pixels, bad = part_in_single(path, cut(plane, region)[None])
        return frame.with_(pixels=pixels, mask=bad)

    return window


def _with_planes(image: Source, path: Path, root: Any, variance: str | None, mask: str | None) -> Source:
    """Variance and mask, which are images of the same store."""
    shape = image.frame.pixels.shape
    if mask is not None:
        bad = _plane(path, root, "mask", mask, shape)

        def hide(window: Frame, plane: int, region: Region) -> Frame:
            return window.with_(mask=window.mask | (bad(plane, region) != 0))

        image = changed(image, hide, image.frame)
    if variance is None:
        return image
    values = _plane(path, root, "variance", variance, shape)

    def positive(plane: int, region: Region) -> Array:
        found = values(plane, region)
        return np.where(found > 0, found.astype(np.float64), np.nan)

    fill = middle(positive, shape)
    frame = image.frame.with_(variance=empty(shape, np.float64))
    return changed(image, lambda window, plane, region: settled(window, positive(plane, region), fill), frame)


def _plane(path: Path, root: Any, what: str, name: str, shape: tuple[int, ...]) -> Cut:
    data, _, _ = _image(path, root, name, None)
    planes = _planes(data.shape)
    if data.shape[-2:] != shape[1:] or planes not in (1, shape[0]):
        raise InputError(f"{path}: {what} {name} has shape {data.shape}, the image {shape}")
    cut = _cut(path, data)
    return lambda plane, region: cut(plane % planes, region)[None]
