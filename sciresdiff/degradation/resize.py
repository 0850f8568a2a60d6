"""Resizing without a shift: the new grid covers exactly the area of the old one.

Pixel i of n reaches from i / n to (i + 1) / n of the side, whatever n is, and borders reflect at the pixel's edge. (Of
released code: F.interpolate with a scale factor takes the factor for the spacing although it rounds the size, which
moves the last pixel by up to one.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal, sparse

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Filter:
    """How a new pixel is made of old ones."""

    profile: Callable[[Array, bool], Array]
    """(distance in px, whether it is stretched) -> weight."""
    radius: float


def triangle(u: Array, stretched: bool) -> Array:
    """1 - |u|."""
    return np.maximum(1 - np.abs(u), 0)


def cubic(u: Array, stretched: bool) -> Array:
    """Keys' cubic (1981): a = -0.5 with antialiasing (MATLAB, Pillow), -0.75 as an interpolation (OpenCV, torch)."""
    a, u = -0.5 if stretched else -0.75, np.abs(u)
    near = ((a + 2) * u - (a + 3)) * u * u + 1
    far = a * (((u - 5) * u + 8) * u - 4)
    return np.where(u <= 1, near, np.where(u < 2, far, 0.0))


FILTERS: dict[str, Filter | None] = {"area": None, "bilinear": Filter(triangle, 1), "bicubic": Filter(cubic, 2)}
"""Name -> filter; ``area`` averages what a new pixel covers."""


def resize_matrix(name: str, n: int, m: int, antialias: bool = False) -> Any:
    """The weights that make m pixels of n, as a sparse matrix (m, n) with rows of sum 1.

    Parameters
    ----------
    name : str
        A key of `FILTERS`.
    n, m : int
        Old and new pixels along the axis, which cover the same length.
    antialias : bool
        Stretch the filter with the new pixel where that is larger. **Without it, as in torch, a reduction by more than
        2 passes over pixels**; ``area`` always has it.
    """
    found = FILTERS[name]
    rows, columns, weights = _overlaps(n, m) if found is None else _taps(found, n, m, antialias)
    return sparse.csr_array((weights.ravel(), (rows.ravel(), columns.ravel())), shape=(m, n))


def _overlaps(n: int, m: int) -> tuple[NDArray[Any], NDArray[Any], Array]:
    """Rows, columns and values: the share of every new pixel that lies in every old one."""
    ratio = n / m
    first = np.floor(np.arange(m) * ratio).astype(int)
    columns = np.minimum(first[:, None] + np.arange(int(np.ceil(ratio)) + 1), n - 1)
    start, stop = np.arange(m)[:, None] * ratio, (np.arange(m)[:, None] + 1) * ratio
    place = first[:, None] + np.arange(int(np.ceil(ratio)) + 1)
    share = np.clip(np.minimum(stop, place + 1) - np.maximum(start, place), 0, None) * (place < n)
    rows = np.broadcast_to(np.arange(m)[:, None], columns.shape)
    return rows, columns, share / share.sum(1, keepdims=True)


def _taps(found: Filter, n: int, m: int, antialias: bool) -> tuple[NDArray[Any], NDArray[Any], Array]:
    """Rows, columns and values: the filter's weights about the centre of every new pixel."""
    ratio = n / m
    stretch = max(ratio, 1.0) if antialias else 1.0
    centre = (np.arange(m) + 0.5) * ratio - 0.5
    reach = found.radius * stretch
    place = np.floor(centre - reach).astype(int)[:, None] + np.arange(int(np.ceil(2 * reach)) + 2)
    weights = found.profile((place - centre[:, None]) / stretch, antialias)
    folded = np.mod(place, 2 * n)  # reflected about the pixel edge
    columns = np.minimum(folded, 2 * n - 1 - folded)
    rows = np.broadcast_to(np.arange(m)[:, None], columns.shape)
    return rows, columns, weights / weights.sum(1, keepdims=True)


def resize_image(image: NDArray[Any], shape: tuple[int, int], name: str, antialias: bool = False) -> Array:
    """The image on a grid of another shape, values per area kept.

    Parameters
    ----------
    image : (Y, X) array
    shape : (h, w)
        Of the new grid.
    name : str
        A key of `FILTERS`.
    antialias : bool
        As for `resize_matrix`.

    Returns
    -------
    (h, w) array
        **Only ``area`` keeps the flux exactly at every ratio**; the others keep it where the filter's weights of every
        old pixel have one sum, as with antialiasing at whole ratios, else up to what the image holds beyond the new
        grid's Nyquist frequency.
    """
    down = resize_matrix(name, image.shape[0], shape[0], antialias)
    across = resize_matrix(name, image.shape[1], shape[1], antialias)
    return np.asarray((across @ (down @ np.asarray(image, np.float64)).T).T)


def antialias_kernel(name: str, scale: int) -> Array | None:
    """The kernel k whose blur, followed by the mean over blocks, is the antialiased reduction by a whole ``scale``.

    The filter's samples sum to the same over every comb of spacing ``scale`` (a partition of unity), so that their
    polynomial holds the block's as a factor; k is the other one, of odd side. None for ``area``.
    """
    found = FILTERS[name]
    if found is None or scale == 1:
        return None
    half = int(found.radius * scale)
    # the centre of an even block lies between two pixels
    offsets = np.arange(-half, half + 1) + (0.5 if scale % 2 == 0 else 0.0)
    taps = found.profile(offsets / scale, True)
    taps = taps[np.flatnonzero(taps)[0] : np.flatnonzero(taps)[-1] + 1]
    line, _ = signal.deconvolve(taps, np.ones(scale))
    # symmetric but for rounding, which grows along a deconvolution
    line = (line + line[::-1]) / (2 * line.sum())
    return np.asarray(np.outer(line, line))
