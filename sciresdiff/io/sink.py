"""A result, written window by window: the file appears under its name when it is whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.region import Region

Array = NDArray[Any]
Put = Callable[[str, int, int, int, Array], int]
Get = Callable[[str, int, Region], Array]
IMAGE = "SCI"
"""Name under which the image itself is put; the others have their own (``ERR``, ``SUPPORT`` ...)."""


@dataclass(frozen=True)
class Plane:
    """A plane that belongs to the image: type of its pixels, and how many layers it has (draws)."""

    dtype: Any = np.float32
    layers: int = 0
    """0: one value a pixel of every image plane; K: as many, with an axis in front of y and x."""

    def shape(self, image: tuple[int, ...]) -> tuple[int, ...]:
        """Of the whole plane, for an image of (planes, Y, X): that, or (planes, K, Y, X)."""
        return (image[0], self.layers, *image[1:]) if self.layers else image


@dataclass(frozen=True)
class Sink:
    """An output that is being written.

    ``put`` takes the first pixel only: the values carry their own size.
    """

    put: Callable[[str, int, int, int, Array], int | None]
    """(name, plane, y0, x0, values): values (h, w), or (K, h, w) of layers, belong at ``[y0:y0+h, x0:x0+w]``.

    Returns how many of them an integer type could not hold; None where only ``finish`` knows.
    """
    finish: Callable[[Mapping[str, object]], dict[str, Any]]
    """(cards whose values were not known before) -> the report of `sciresdiff.io.write`; the file has its name."""
    get: Get | None = None
    """(name, plane, region) -> what the unfinished file holds there, in the file's own type.

    None: the format is written in one go, and a run that stopped begins anew.
    """
    sync: Callable[[], None] = lambda: None
    """Returns when all that was put is on the disk, and survives a power cut."""


def in_memory(
    shape: tuple[int, ...],
    planes: Mapping[str, Plane],
    write: Callable[[Array, Mapping[str, Array], Mapping[str, object]], dict[str, Any]],
) -> Sink:
    """A sink that collects everything and writes it at the end, for formats that are written in one go."""
    arrays = {IMAGE: np.full(shape, np.nan, np.float32)}
    arrays |= {name: np.zeros(plane.shape(shape), plane.dtype) for name, plane in planes.items()}

    def put(name: str, plane: int, y0: int, x0: int, values: Array) -> None:
        h, w = values.shape[-2:]
        arrays[name][plane][..., y0 : y0 + h, x0 : x0 + w] = values

    def finish(cards: Mapping[str, object]) -> dict[str, Any]:
        others = {name: array[0] if planes[name].layers and len(array) == 1 else array
                  for name, array in arrays.items() if name != IMAGE}  # fmt: skip
        return write(arrays[IMAGE], others, cards)

    return Sink(put, finish)


def counted(
    put: Put, finish: Callable[[Mapping[str, object]], dict[str, Any]], get: Get, sync: Callable[[], None]
) -> Sink:
    """A sink whose report has ``clipped``: the values that ``put`` said an integer type could not hold."""
    clipped = 0

    def counting(name: str, plane: int, y0: int, x0: int, values: Array) -> int:
        nonlocal clipped
        lost = put(name, plane, y0, x0, values)
        clipped += lost
        return lost

    return Sink(counting, lambda cards: {"clipped": clipped, **finish(cards)}, get, sync)


def layered(put: Put, get: Get, planes: Mapping[str, Plane]) -> tuple[Put, Get]:
    """`put` and `get` of a sink, for files that take a layer (h, w) at a time; those of a plane follow one another."""

    def put_all(name: str, plane: int, y0: int, x0: int, values: Array) -> int:
        stack = values.reshape(-1, *values.shape[-2:])
        return sum(put(name, plane * len(stack) + k, y0, x0, layer) for k, layer in enumerate(stack))

    def get_all(name: str, plane: int, region: Region) -> Array:
        k = planes[name].layers if name in planes else 0
        found = [get(name, plane * max(k, 1) + i, region) for i in range(max(k, 1))]
        return np.stack(found) if k else found[0]

    return put_all, get_all


def put_whole(put: Put, image: Array, others: Mapping[str, Array]) -> int:
    """Every plane of an image (planes, Y, X), and every layer of what belongs to it; how many values were clipped."""
    clipped = sum(put(IMAGE, i, 0, 0, plane) for i, plane in enumerate(image))
    for name, array in others.items():
        for i, layer in enumerate(array.reshape(-1, *array.shape[-2:])):
            put(name, i, 0, 0, layer)
    return clipped
