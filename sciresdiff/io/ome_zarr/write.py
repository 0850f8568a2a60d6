"""OME-Zarr out: NGFF 0.5 on Zarr 3, written by chunks. Needs the extra ``zarr``.

The image is the root group; ERR, SUPPORT, GATE, TRUST, VAR (``variance``) and DQ are images in groups below it;
posterior samples, for which NGFF has no axis, are a plain array.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.files import open_plain
from sciresdiff.frame import Frame
from sciresdiff.io.atomic import atomic_folder
from sciresdiff.io.dtypes import cast_pixels
from sciresdiff.io.ome_zarr import from_tiff
from sciresdiff.io.ome_zarr.read import MICROMETRES, ZarrHeader, require_zarr
from sciresdiff.io.provenance import NAMESPACE, output_pixel_size, provenance_writer
from sciresdiff.io.pyramid import SIDE, downsample, iter_tiles, level_shapes, parent_region
from sciresdiff.io.raw_array import lock_bytes
from sciresdiff.io.sink import IMAGE, Finish, Plane, Sink, count_clipped, put_image, split_layers
from sciresdiff.io.tiff.metadata import TiffHeader
from sciresdiff.region import Region

Array = NDArray[Any]
TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
"""Axis -> its type in NGFF."""
LOCK = ".lock"
"""File that processes lock while they write, for regions share chunks."""


def write(
    path: str | Path,
    frame: Frame,
    *,
    planes: Mapping[str, Array],
    provenance: Mapping[str, object],
    history: Sequence[str],
    scale: float = 1.0,
    overwrite: bool = False,
    dtype: str | np.dtype[Any] | None = None,
    pyramid: bool = False,
) -> dict[str, Any]:
    """Write the image and its planes.

    Parameters, returns and errors are those of `sciresdiff.io.write`.
    """
    arrays = {name: np.asarray(planes[name]) for name in planes if name != "KERNEL"}
    stacks = {name: array.reshape(-1, *array.shape[-2:]) for name, array in arrays.items()}
    kinds = {name: (len(stack), stack.dtype) for name, stack in stacks.items()}
    plan = _plan(frame, kinds, provenance_writer(frame, planes, provenance, history, scale), scale, dtype, pyramid)
    with _open_store(Path(path), plan, overwrite, None) as (store, finish):
        return {"clipped": put_image(store.put, frame.pixels, stacks), **finish({})}


@contextmanager
def sink(
    path: str | Path,
    frame: Frame,
    *,
    planes: Mapping[str, Plane],
    provenance: Mapping[str, object],
    history: Sequence[str],
    scale: float = 1.0,
    overwrite: bool = False,
    dtype: str | np.dtype[Any] | None = None,
    pyramid: bool = False,
    part: Path | None = None,
) -> Iterator[Sink]:
    """Open the same store to be written region by region; see `sciresdiff.io.open_sink`.

    **No room is reserved**: the size of compressed chunks is not known, and a full disk is found while writing.
    """
    kinds = {name: (max(1, p.layers) * frame.planes, np.dtype(p.dtype)) for name, p in planes.items()}
    plan = _plan(frame, kinds, provenance_writer(frame, planes, provenance, history, scale), scale, dtype, pyramid)
    with _open_store(Path(path), plan, overwrite, part) as (store, finish):
        put, get = split_layers(store.put, store.get, planes)
        yield count_clipped(put, finish, get, os.sync, plan.images[IMAGE].dtype)


@dataclass(frozen=True)
class Image:
    """An array of the store."""

    place: str
    """Path of its group; empty for the root."""
    axes: str
    """A small letter for each axis: ``tczyx``, or ``kyx`` for what is no image of NGFF."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: tuple[int, ...] = ()
    """Sizes of the axes that count planes, in the order of the frame."""
    moved: tuple[int, ...] = ()
    """For each of these axes of the array, its number in the frame."""

    @property
    def array(self) -> str:
        """Path of the array at full size."""
        return "/".join(filter(None, (self.place, "0")))

    def at(self, plane: int) -> tuple[int, ...]:
        """Index of a plane in the array."""
        if not self.order:
            return ()
        where = np.unravel_index(plane, self.order)
        return tuple(int(where[i]) for i in self.moved)


@dataclass(frozen=True)
class Plan:
    """What a store will hold."""

    images: Mapping[str, Image]
    frame: Frame
    scale: float
    record: Callable[[Mapping[str, object]], dict[str, Any]]
    pyramid: bool


@dataclass(frozen=True)
class Store:
    """A store that is being written, in any order."""

    images: Mapping[str, Image]
    group: Any
    lock: int

    def put(self, name: str, plane: int, y0: int, x0: int, values: Array) -> int:
        """Write values into a plane.

        Parameters
        ----------
        name : str
            Of the plane, in capitals.
        plane : int
            Number of the (Y, X) plane.
        y0, x0 : int
            First row and column.
        values : (h, w) array
            Pixels.

        Returns
        -------
        int
            Number of the image's values that an integer type could not hold.
        """
        image = self.images[name]
        data, lost = cast_pixels(values, image.dtype) if name == IMAGE else (values.astype(image.dtype), 0)
        h, w = data.shape
        with lock_bytes(self.lock, 1, 0):  # windows share chunks
            self.group[image.array][(*image.at(plane), slice(y0, y0 + h), slice(x0, x0 + w))] = data
        return lost

    def get(self, name: str, plane: int, region: Region) -> Array:
        """Read back a region (h, w)."""
        image = self.images[name]
        return np.asarray(self.group[image.array][(*image.at(plane), *region.slices)])


@contextmanager
def _open_store(path: Path, plan: Plan, overwrite: bool, part: Path | None) -> Iterator[tuple[Store, Finish]]:
    zarr = require_zarr(path)
    with atomic_folder(path, overwrite=overwrite, part=part) as (place, publish):
        group = zarr.open_group(str(place), mode="a", zarr_format=3)
        for image in plan.images.values():
            if image.array not in group:  # else an earlier run made it: resume
                _create_array(zarr, group, image.array, image, image.shape)
        lock = open_plain(place / LOCK, os.O_RDWR | os.O_CREAT)

        def finish(cards: Mapping[str, object]) -> dict[str, Any]:
            for image in plan.images.values():
                _finish_image(zarr, group, image, plan)
            record = {**plan.record(cards), **_own_metadata(plan.frame, plan.scale)}
            group.attrs.update({NAMESPACE: record})
            for left in (place / LOCK, *place.rglob("*.partial")):  # of a chunk at which a run was killed
                left.unlink()
            return {"files": publish()}

        try:
            yield Store(plan.images, group, lock), finish
        finally:
            os.close(lock)


def _create_array(zarr: Any, group: Any, name: str, image: Image, shape: tuple[int, ...]) -> Any:
    lead = len(shape) - 2
    return group.create_array(
        name,
        shape=shape,
        dtype=image.dtype,
        # one plane per chunk, so that reading a plane reads nothing of others
        chunks=(*[1] * lead, *(min(SIDE, n) for n in shape[lead:])),
        compressors=zarr.codecs.ZstdCodec(level=3),
        fill_value=0,
        dimension_names=list(image.axes),
        overwrite=True,
    )


def _finish_image(zarr: Any, group: Any, image: Image, plan: Plan) -> None:
    """Write pyramid levels and metadata of an image; posterior samples have none."""
    if "k" in image.axes:
        return
    whole = plan.pyramid and image.place == ""
    levels = level_shapes(*image.shape[-2:]) if whole else [image.shape[-2:]]
    for number, size in enumerate(levels[1:], 1):
        name = "/".join(filter(None, (image.place, str(number))))
        _fill_level(group[f"{name[: -len(str(number))]}{number - 1}"],
               _create_array(zarr, group, name, image, (*image.shape[:-2], *size)))  # fmt: skip
    node = group[image.place] if image.place else group
    node.attrs.update({"ome": _ngff_metadata(image, plan, len(levels))})


def _fill_level(fine: Any, coarse: Any) -> None:
    """Compute a level from the one before."""
    for lead in np.ndindex(*coarse.shape[:-2]):
        for tile in iter_tiles(*coarse.shape[-2:]):
            values = np.asarray(fine[(*lead, *parent_region(tile, *fine.shape[-2:]).slices)])
            coarse[(*lead, *tile.slices)] = downsample(values)


def _ngff_metadata(image: Image, plan: Plan, levels: int) -> dict[str, Any]:
    """NGFF 0.5 metadata. The centre of the first pixel moves, for new pixels cover the area of the old ones."""
    header = _header(plan.frame)
    steps, shifts, units = _grid(image.axes, header, plan)
    axes = [{"name": a, "type": TYPES[a], **({"unit": units[a]} if units.get(a) else {})} for a in image.axes]
    sets = []
    for level in range(levels):
        grow = {a: 2.0**level if a in "yx" else 1.0 for a in image.axes}
        scale = [steps[a] * grow[a] for a in image.axes]
        # the centre of a pixel of level n is that of its block of 2**n pixels
        shift = [shifts[a] + steps[a] * (grow[a] - 1) / 2 for a in image.axes]
        sets.append({"path": str(level), "coordinateTransformations": [
            {"type": "scale", "scale": scale}, {"type": "translation", "translation": shift}]})  # fmt: skip
    name = image.place or header.name
    ome: dict[str, Any] = {"version": "0.5", "multiscales": [
        {"axes": axes, "datasets": sets, **({"name": name} if name else {}), "type": "mean of 2 x 2"}]}  # fmt: skip
    if image.place == "" and (omero := _omero_metadata(header, image, plan.frame)):
        ome["omero"] = omero
    return ome


def _header(frame: Frame) -> ZarrHeader:
    """What is known of axes and channels besides the pixel size."""
    if isinstance(frame.header, TiffHeader):
        return from_tiff.from_tiff_header(frame.header)
    return frame.header if isinstance(frame.header, ZarrHeader) else ZarrHeader("")


def _grid(axes: str, header: ZarrHeader, plan: Plan) -> tuple[dict[str, float], dict[str, float], dict[str, str]]:
    """Step, position of the first pixel and unit of every axis of the output."""
    letters = header.axes.lower()
    old = dict(zip(letters, header.scale, strict=False))
    first = dict(zip(letters, header.translation, strict=False))
    units = {a: unit for a, unit in zip(letters, header.units, strict=False) if unit and a in axes}
    size = output_pixel_size(plan.frame, plan.scale)
    if size is not None and size.unit == "um":
        for a, side in (("y", size.y), ("x", size.x)):
            units[a] = units[a] if units.get(a) in MICROMETRES else "micrometer"
            old[a] = side * plan.scale / MICROMETRES[units[a]]
    steps = {a: old.get(a, 1.0) / (plan.scale if a in "yx" else 1.0) for a in axes}
    # centre of the first new pixel: (new step - old step) / 2 from that of the old one
    shifts = {a: first.get(a, 0.0) + ((steps[a] - old.get(a, 1.0)) / 2 if a in "yx" else 0.0) for a in axes}
    return steps, shifts, units


def _omero_metadata(header: ZarrHeader, image: Image, frame: Frame) -> dict[str, Any]:
    """Names and colours of the channels; display windows only where values keep their size."""
    channels = header.omero.get("channels", [])
    count = dict(zip(image.axes, image.shape, strict=True)).get("c", 1)
    if len(channels) != count or not all(isinstance(c, Mapping) for c in channels):
        return {}
    drop = {"window"} if frame.quantity == "sum" else set()
    return {**header.omero, "channels": [{k: x for k, x in c.items() if k not in drop} for c in channels]}


def _own_metadata(frame: Frame, scale: float) -> dict[str, Any]:
    """What NGFF has no place for: kind, unit, quantity, pixel sizes on the sky."""
    found: dict[str, Any] = {"kind": frame.kind} if frame.kind != "micro" else {}
    size = output_pixel_size(frame, scale)
    if size is not None and size.unit == "arcsec":
        found["pixel_size"] = [size.y, size.x]
    found |= {key: x for key, x in (("unit", frame.unit), ("quantity", frame.quantity)) if x}
    return found


def _plan(
    frame: Frame,
    kinds: Mapping[str, tuple[int, np.dtype[Any]]],
    record: Callable[[Mapping[str, object]], dict[str, Any]],
    scale: float,
    dtype: str | np.dtype[Any] | None,
    pyramid: bool,
) -> Plan:
    wanted = np.dtype(dtype) if dtype is not None else frame.dtype
    image = _image("", frame, (np.dtype(np.float32) if wanted == np.float16 else wanted).newbyteorder("="))
    images = {IMAGE: image}
    for name, (count, kind) in kinds.items():
        place = {"VAR": "variance"}.get(name, name.lower())
        if count == frame.planes and name != "DRAWS":
            images[name] = Image(place, image.axes, image.shape, kind.newbyteorder("="), image.order, image.moved)
        else:
            shape = (count, *frame.pixels.shape[1:])
            images[name] = Image(place, "kyx", shape, kind.newbyteorder("="), (count,), (0,))
    return Plan(images, frame, scale, record, pyramid)


def _image(place: str, frame: Frame, dtype: np.dtype[Any]) -> Image:
    """The image on NGFF's axes (time, channel, space); axes that NGFF does not know become channels."""
    lead = [(a.lower(), n) for a, n in zip(frame.axes, frame.shape, strict=True) if a not in "YX"]
    if int(np.prod([n for _, n in lead], initial=1)) != frame.planes:
        lead = [("t", frame.planes)]
    free = [a for a in "ctz" if a not in dict(lead)]
    named = [(a if a in "tcz" else free.pop(0) if free else a, n) for a, n in lead]
    if not {a for a, _ in named} <= set("tcz"):
        named = [("c", frame.planes)]
    moved = tuple(sorted(range(len(named)), key=lambda i: "tcz".index(named[i][0])))
    order = tuple(n for _, n in named)
    axes = "".join(named[i][0] for i in moved) + "yx"
    return Image(place, axes, (*(order[i] for i in moved), *frame.pixels.shape[1:]), dtype, order, moved)
