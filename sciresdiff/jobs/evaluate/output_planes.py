"""The planes that ``upscale`` has written with an image: ERR, SUPPORT, TRUST and DRAWS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff import io
from sciresdiff.errors import InputError
from sciresdiff.frame import Frame
from sciresdiff.io.files import split_spec
from sciresdiff.io.source import Source
from sciresdiff.jobs.evaluate.pieces import fits_in_memory
from sciresdiff.region import Region

PLANES = ("ERR", "SUPPORT", "TRUST")
"""Planes with one value per pixel of the image."""

ReadPlane = Callable[[int, Region], NDArray[Any]]
"""(plane of the image, region in its pixels) -> (h, w) array; (K, h, w) for draws."""


@dataclass(frozen=True)
class _Stack:
    """Layers of one size, open."""

    shape: tuple[int, ...]
    """(n, Y, X)."""
    read: Callable[[slice, Region], NDArray[Any]]
    """(layers, region) -> (n, h, w) array."""


def open_planes(stack: ExitStack, high: str | Path, image: Frame) -> Mapping[str, ReadPlane]:
    """Open the planes of an image: extensions of its file, or for TIFF files beside it.

    Parameters
    ----------
    stack : ExitStack
        Closes the files.
    high : str or Path
        The image's file.
    image : Frame
        Its frame; planes of another shape are left out.

    Returns
    -------
    mapping
        Those of `PLANES` that there are.
    """
    found = {name: _open_stack(stack, high, name, image) for name in PLANES}
    return {name: _read_layer(one) for name, one in found.items() if one and one.shape == image.pixels.shape}


def open_draws(stack: ExitStack, high: str | Path, image: Frame) -> ReadPlane | None:
    """Open the posterior samples of an image; None where there are none of its size.

    Parameters
    ----------
    stack, high, image : as for `open_planes`.
    """
    found = _open_stack(stack, high, "DRAWS", image)
    if found is None:
        return None
    layers, *size = found.shape
    if tuple(size) != image.pixels.shape[1:] or not layers or layers % image.planes:
        return None
    k, read = layers // image.planes, found.read

    def read_draws(plane: int, region: Region) -> NDArray[np.float32]:
        return np.asarray(read(slice(k * plane, k * (plane + 1)), region), np.float32)

    return read_draws


def _read_layer(found: _Stack) -> ReadPlane:
    return lambda plane, region: found.read(slice(plane, plane + 1), region)[0]


def _open_stack(stack: ExitStack, high: str | Path, name: str, image: Frame) -> _Stack | None:
    """All layers of that name, in memory where the image is small; None where there are none."""
    file = split_spec(high)[0]
    kind = io.format_of(file)
    path = file.with_name(f"{io.stem(file)}_{name.lower()}.tif") if kind == "tiff" else f"{file}[{name}]"
    try:
        if not fits_in_memory(image):
            return _stack_of_source(stack.enter_context(io.open_source(path)))
        found = io.read_image(path)
    except InputError:
        return None
    found = found.reshape(-1, *found.shape[-2:])
    return _Stack(found.shape, lambda layers, region: found[(layers, *region.slices)])


def _stack_of_source(source: Source) -> _Stack:
    """The planes of an open file."""

    def read(layers: slice, region: Region) -> NDArray[Any]:
        return np.concatenate([source.window(i, region).pixels for i in range(layers.start, layers.stop)])

    return _Stack(source.frame.pixels.shape, read)
