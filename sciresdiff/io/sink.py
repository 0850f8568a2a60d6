"""An output that is written region by region and appears under its name when it is complete."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.frame import Frame
from sciresdiff.region import Region

Array = NDArray[Any]
Put = Callable[[str, int, int, int, Array], int]
"""(name, plane, y0, x0, values) -> number of values that an integer type could not hold."""
Get = Callable[[str, int, Region], Array]
"""(name, plane, region) -> values."""
Finish = Callable[[Mapping[str, object]], dict[str, Any]]
"""(cards whose values were not known before) -> report."""
IMAGE = "SCI"
"""Name under which the image itself is written; planes have their own (``ERR``, ``SUPPORT`` ...)."""


@dataclass(frozen=True)
class Plane:
    """A plane that belongs to the image."""

    dtype: Any = np.float32
    """Type of its pixels."""
    layers: int = 0
    """0: one value per pixel of every image plane; K: K of them (posterior samples), on an axis before y and x."""

    def shape(self, image: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the plane for an image (planes, Y, X): the same, or (planes, K, Y, X)."""
        return (image[0], self.layers, *image[1:]) if self.layers else image

    def file_shape(self, image: tuple[int, ...]) -> tuple[int, ...]:
        """Shape in a file, for an image (planes, Y, X): layers of a single plane have no axis for it."""
        shape = self.shape(image)
        return shape[1:] if self.layers and shape[0] == 1 else shape


@dataclass(frozen=True)
class Sink:
    """An output that is being written."""

    put: Callable[[str, int, int, int, Array], int | None]
    """(name, plane, y0, x0, values): values (h, w), or (K, h, w) of layers, are written from row y0 and column x0 on.

    No region is given, for the values have its size. Returns the number of values that an integer type could not hold;
    None where only ``finish`` knows.
    """
    finish: Finish
    """(cards whose values were not known before) -> the report of `sciresdiff.io.write`; the file gets its name."""
    get: Get | None = None
    """(name, plane, region) -> what the unfinished file holds there, in the file's own type.

    None: the format is written in one go, and an interrupted run begins again.
    """
    sync: Callable[[], None] = lambda: None
    """Returns when everything that was put is on the disk and survives a power cut."""
    dtype: Any = np.float32
    """Of the image's pixels in the file."""


def file_shape(frame: Frame) -> tuple[int, ...]:
    """Shape of the image in an output.

    The axes of the input with the output's Y and X, where they hold as many planes as the output has; else (planes, Y,
    X).
    """
    lead = tuple(frame.shape[:-2]) if not frame.axes or frame.axes.endswith("YX") else ()
    return (*lead, *frame.pixels.shape[1:]) if math.prod(lead) == frame.planes else frame.pixels.shape


def in_memory(
    shape: tuple[int, ...],
    planes: Mapping[str, Plane],
    write: Callable[[Array, Mapping[str, Array], Mapping[str, object]], dict[str, Any]],
    dtype: Any = np.float32,
) -> Sink:
    """Return a sink that collects everything in memory, for formats that are written in one go.

    Parameters
    ----------
    shape : tuple of int
        (planes, Y, X) of the image.
    planes : mapping
        Name -> type and layers.
    write : callable
        (image, planes, cards) -> report; writes the file.
    dtype : dtype
        Of the image's pixels in the file.
    """
    arrays = {IMAGE: np.full(shape, np.nan, np.float32)}
    arrays |= {name: np.zeros(plane.shape(shape), plane.dtype) for name, plane in planes.items()}

    def put(name: str, plane: int, y0: int, x0: int, values: Array) -> None:
        h, w = values.shape[-2:]
        arrays[name][plane][..., y0 : y0 + h, x0 : x0 + w] = values

    def finish(cards: Mapping[str, object]) -> dict[str, Any]:
        # layers of a single plane have no axis for it, as in `Plane.file_shape`
        others = {name: array[0] if planes[name].layers and len(array) == 1 else array
                  for name, array in arrays.items() if name != IMAGE}  # fmt: skip
        return write(arrays[IMAGE], others, cards)

    return Sink(put, finish, dtype=np.dtype(dtype))


def count_clipped(put: Put, finish: Finish, get: Get, sync: Callable[[], None], dtype: Any) -> Sink:
    """Return a sink whose report has ``clipped``, the sum of what ``put`` returned."""
    clipped = 0

    def counting(name: str, plane: int, y0: int, x0: int, values: Array) -> int:
        nonlocal clipped
        lost = put(name, plane, y0, x0, values)
        clipped += lost
        return lost

    return Sink(counting, lambda cards: {"clipped": clipped, **finish(cards)}, get, sync, np.dtype(dtype))


def split_layers(put: Put, get: Get, planes: Mapping[str, Plane]) -> tuple[Put, Get]:
    """Return ``put`` and ``get`` that take all layers (K, h, w) of a plane, for files that take one layer (h, w) at a
    time.

    The layers of a plane follow one another in the file.
    """

    def put_all(name: str, plane: int, y0: int, x0: int, values: Array) -> int:
        stack = values.reshape(-1, *values.shape[-2:])
        return sum(put(name, plane * len(stack) + k, y0, x0, layer) for k, layer in enumerate(stack))

    def get_all(name: str, plane: int, region: Region) -> Array:
        k = planes[name].layers if name in planes else 0
        found = [get(name, plane * max(k, 1) + i, region) for i in range(max(k, 1))]
        return np.stack(found) if k else found[0]

    return put_all, get_all


def put_image(put: Put, image: Array, others: Mapping[str, Array]) -> int:
    """Write a whole image and its planes.

    Parameters
    ----------
    put : callable
        Of a sink.
    image : (planes, Y, X) array
        Pixels.
    others : mapping
        Name -> array (..., Y, X).

    Returns
    -------
    int
        Number of the image's values that an integer type could not hold.
    """
    clipped = sum(put(IMAGE, i, 0, 0, plane) for i, plane in enumerate(image))
    for name, array in others.items():
        for i, layer in enumerate(array.reshape(-1, *array.shape[-2:])):
            put(name, i, 0, 0, layer)
    return clipped
