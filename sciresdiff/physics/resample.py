"""What the pixels of one grid see of an image on another: shifted, turned, of another scale, or distorted.

The value of a pixel is the integral of the image over its area, which is a quadrilateral on the grid of the image.
A pixel of the image holds the light that falls on it, and its light is spread over it by parabolas (`density`) whose
integral over every whole pixel is what the pixel holds: where pixels are blocks of those of the image, their values are
the block sums.  Areas of overlap with image pixels, as drizzle has them, would take the image for a pavement of
squares: a shift of half a pixel then blurs it by another 0.5 px.

The weights are a sparse matrix, so that the adjoint is the transpose of the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from sciresdiff.errors import InputError

Array = NDArray[np.float64]

POINTS, TURNED_POINTS = 2, 4
"""Nodes of the integral (Gauss-Legendre) per axis between two lines of the image's grid, and where pixels are turned:
a parabola needs 2. They leave 4e-4 of a star's peak at 3 degrees and 2e-3 at 45."""
SKEW = 0.15
"""Px of the image by which the ends of a side lie apart across it where a pixel is turned."""
BEYOND = 0.05
"""Part of a pixel of the image that counts with the one before it: the density changes little across it."""
STRAIGHT = 1e-6
"""Px of the image by which the edges of pixels may be off the lines of its grid and are taken to lie along them."""
PARABOLAS = np.array([[-1, 7, 7, -1, 0], [4, -26, 30, -10, 2], [-3, 18, -30, 18, -3]]) / 12
"""Weights of five pixels in a row in the density within the middle one: of 1, t and t^2, t from 0 to 1 across it."""
SEEN = 1e-2
"""Share by which the weights of an image pixel may be off 1 in all and are brought to it; where they are off more, it
lies at the edge of the exposure and is seen in part."""
ROWS = 2**9
"""Pixels whose weights are made at a time: their arrays stay in the cache of a processor."""


class Product:
    """A sparse matrix as it is multiplied with rows of images: scipy's on a CPU, torch's elsewhere."""

    def __init__(self, matrix: Any, dtype: torch.dtype, device: torch.device | str) -> None:
        """Hold the matrix on the device of the images; on a CPU as it is, without a copy."""
        self.matrix, self.dtype = matrix, np.float64 if dtype == torch.float64 else np.float32
        self.tensor = None
        if torch.device(device).type != "cpu":
            whole = sparse.coo_array(matrix)
            index = torch.from_numpy(np.stack([whole.row, whole.col]))
            values = torch.from_numpy(whole.data.astype(self.dtype))
            self.tensor = torch.sparse_coo_tensor(index, values, matrix.shape).to(device).coalesce()

    def __call__(self, flat: Tensor) -> Tensor:
        """The products with rows (n, columns): (n, rows)."""
        if self.tensor is not None:
            return (self.tensor @ flat.T).T
        found = [self.matrix @ row for row in flat.detach().numpy()]
        return torch.from_numpy(np.stack(found).astype(self.dtype, copy=False))


@dataclass(frozen=True)
class Resampling:
    """The matrix R of an exposure's pixels on the pixels of an image, y = R x."""

    matrix: sparse.csr_array
    """(h w, Y X): integrals over areas; a pixel whose area leaves the image has no weights."""
    shape: tuple[int, int]
    """(h, w) of the exposure."""
    size: tuple[int, int]
    """(Y, X) of the image."""
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"

    @cached_property
    def coverage(self) -> NDArray[np.bool_]:
        """(h, w), True where a pixel's area lies on the image."""
        return np.asarray(np.diff(self.matrix.indptr) > 0).reshape(self.shape)

    @cached_property
    def area(self) -> Array:
        """(h, w), of every pixel in pixels of the image; 0 where it has no `coverage`."""
        return np.asarray(self.matrix.sum(axis=1)).reshape(self.shape)

    @cached_property
    def rows(self) -> Product:
        """R, for `apply`."""
        return Product(self.matrix, self.dtype, self.device)

    @cached_property
    def columns(self) -> Product:
        """R^T, for `adjoint`."""
        return Product(self.matrix.T, self.dtype, self.device)

    def apply(self, image: Tensor) -> Tensor:
        """R x, (..., Y, X) to (..., h, w): the light that falls on every pixel; 0 where it has no `coverage`."""
        return self.rows(image.reshape(-1, self.size[0] * self.size[1])).reshape(*image.shape[:-2], *self.shape)

    def adjoint(self, seen: Tensor) -> Tensor:
        """R^T y, (..., h, w) to (..., Y, X)."""
        return self.columns(seen.reshape(-1, self.shape[0] * self.shape[1])).reshape(*seen.shape[:-2], *self.size)

    def single(self) -> Resampling:
        """The same with weights of single precision, which take two thirds of the memory."""
        return replace(self, matrix=self.matrix.astype(np.float32))

    def magnitude(self) -> Resampling:
        """The same with the absolute values of the weights, in float64."""
        return Resampling(abs(self.matrix), self.shape, self.size, torch.float64, self.device)


def resample(
    corners: NDArray[Any],
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Resampling:
    """The resampling of an image onto pixels whose corners are known.

    Inside a pixel the map is bilinear between its corners. Every image pixel that the exposure sees as a whole has
    weights of sum 1, so that its flux is kept to rounding; those at the edge of the exposure are seen in part.

    Parameters
    ----------
    corners : (h + 1, w + 1, 2) array
        (y, x) of the corners of the exposure's pixels, px of the image, whose first pixel has its middle at (0, 0).
    size : (int, int)
        (Y, X) of the image.
    dtype, device
        Of the images.

    Raises
    ------
    InputError
        Corners that are not finite, or pixels so much larger than those of the image that no block of it holds them.
    """
    corners = np.asarray(corners, np.float64)
    if not np.isfinite(corners).all():
        raise InputError("wcs: pixels of an exposure have no place on the output grid; crop it to where they have one")
    h, w = corners.shape[0] - 1, corners.shape[1] - 1
    around = np.stack([corners[:-1, :-1], corners[:-1, 1:], corners[1:, :-1], corners[1:, 1:]], axis=2)
    around = around.reshape(h * w, 4, 2)
    extent = around.max(1) - around.min(1)
    reach = int(np.ceil(extent.max())) + 5
    if reach > min(size) + 5 or reach > 256:
        raise InputError(
            f"wcs: a pixel of an exposure spans {extent.max():.3g} px of the output grid, which has {size[0]} x"
            f" {size[1]} px; give a --scale or --grid of similar pixels"
        )
    if (lines := straight_edges(corners)) is not None:
        each = (along_line(line, n) for line, n in zip(lines, size, strict=True))
        matrix = sparse.csr_array(sparse.kron(*each, format="csr"))
    else:
        inside = is_inside(around, size)
        rows = (slice(i, i + ROWS) for i in range(0, h * w, ROWS))
        parts = [weights_of(around[some], inside[some], reach, size) for some in rows]
        matrix = sparse.csr_array(sparse.vstack(parts, format="csr"))
    if max(matrix.nnz, *matrix.shape) < 2**31:  # with narrow indices a product takes half the time
        narrow = matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)
        matrix = sparse.csr_array((matrix.data, *narrow), shape=matrix.shape)
    return Resampling(with_whole_pixels(matrix), (h, w), size, dtype, device)


def is_inside(around: Array, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which areas lie on the image as a whole, (n,), by their corners (n, m, axes)."""
    return np.asarray((around.min(1) >= -0.5 - 1e-9).all(1) & (around.max(1) <= np.array(size) - 0.5 + 1e-9).all(1))


def straight_edges(corners: Array) -> tuple[Array, Array] | None:
    """The lines y (h + 1,) and x (w + 1,) that pixels lie between; None where these turn or bend by `STRAIGHT`."""
    y, x = corners[:, :1, 0], corners[:1, :, 1]
    if max(np.abs(corners[..., 0] - y).max(), np.abs(corners[..., 1] - x).max()) > STRAIGHT:
        return None
    return y[:, 0], x[0]


def along_line(edges: Array, size: int) -> sparse.csr_array:
    """Integrals of the density between the edges of pixels in a row, (n, X): exact.

    Parameters
    ----------
    edges : (n + 1,) array
        px of the image.
    size : int
        X.
    """
    low, high = np.minimum(edges[1:], edges[:-1]), np.maximum(edges[1:], edges[:-1])
    inside = is_inside(np.stack([low, high], 1)[..., None], (size,))
    # an edge on the border of two pixels belongs to either; rounding must not make a weight of it
    low, high = (np.where(np.abs(e + 0.5 - np.round(e + 0.5)) < 1e-9, np.round(e + 0.5) - 0.5, e) for e in (low, high))
    first = np.floor(low + 0.5).astype(np.int64) - 2
    reach = int(np.ceil((high - low).max())) + 5
    upper, lower = (light_before(e - first, reach) for e in (high, low))
    values = (upper - lower) * inside[:, None]
    columns = reflect_positions(first[:, None] + np.arange(reach), size)
    row = np.broadcast_to(np.arange(len(low))[:, None], columns.shape)
    keep = values != 0
    return sparse.csr_array(sparse.coo_array((values[keep], (row[keep], columns[keep])), shape=(len(low), size)))


def nodes_between_lines(first: Array, last: Array, points: int) -> tuple[Array, Array]:
    """Nodes of integrals along n sides of quadrilaterals, and their weights of sum 1, (n, m) each.

    Gauss-Legendre rules between the lines of the image's grid, at which the density has kinks.

    Parameters
    ----------
    first, last : (n,) arrays
        Where the sides begin and end, px of the image; a place on them is told by a number from 0 to 1.
    points : int
        Between two lines.
    """
    length = last - first
    count = max(1, int(np.ceil(np.abs(length).max() - BEYOND)))
    lines = np.ceil(np.minimum(first, last) + 0.5)[:, None] - 0.5 + np.arange(count)
    span = np.where(np.abs(length) < STRAIGHT, 1.0, length)[:, None]
    cuts = np.sort(np.clip((lines - first[:, None]) / span, 0, 1), 1)
    cuts = np.concatenate([np.zeros((len(cuts), 1)), cuts, np.ones((len(cuts), 1))], 1)
    at, weight = np.polynomial.legendre.leggauss(points)
    width = np.diff(cuts)[:, :, None]
    nodes = cuts[:, :-1, None] + width * (at + 1) / 2
    return nodes.reshape(len(cuts), -1), (width * weight / 2).reshape(len(cuts), -1)


def weights_of(around: Array, inside: NDArray[np.bool_], reach: int, size: tuple[int, int]) -> sparse.csr_array:
    """Rows of the matrix: integrals of the image's density over quadrilaterals.

    Parameters
    ----------
    around : (n, 4, 2) array
        Corners (y, x): top left, top right, bottom left, bottom right.
    inside : (n,) bool array
        Which of them have weights.
    reach : int
        Image pixels that a quadrilateral and the density in it reach over along an axis.
    size : (Y, X)
    """
    top_left, top_right, low_left, low_right = (around[:, k] for k in range(4))
    down, right = low_left + low_right - top_left - top_right, top_right + low_right - top_left - low_left
    a = 0 if np.abs(down[:, 0]).sum() >= np.abs(down[:, 1]).sum() else 1  # the axis along which its sides go down
    skew = max(np.abs(down[:, 1 - a]).max(), np.abs(right[:, a]).max()) / 2
    points = POINTS if skew < SKEW else TURNED_POINTS
    v, by_v = nodes_between_lines((top_left + top_right)[:, a] / 2, (low_left + low_right)[:, a] / 2, points)
    a = 1 - a
    u, by_u = nodes_between_lines((top_left + low_left)[:, a] / 2, (top_right + low_right)[:, a] / 2, points)
    # the bilinear map at (v, u) and its derivatives: its left and right sides at v, and what lies between them
    v, u, slope = v[:, :, None, None], u[:, None, :, None], (low_left - top_left)[:, None, None]
    left = top_left[:, None, None] + v * slope
    across = (top_right - top_left)[:, None, None] + v * ((low_right - top_right)[:, None, None] - slope)
    steep = slope + u * ((low_right - top_right)[:, None, None] - slope)
    area = np.abs(steep[..., 0] * across[..., 1] - steep[..., 1] * across[..., 0]) * by_v[:, :, None] * by_u[:, None]
    places = np.moveaxis(left + u * across, -1, 1).reshape(len(around), 2, -1)
    area = area.reshape(len(around), -1)
    first = np.floor(around.min(1) + 0.5).astype(np.int64) - 2
    steps = np.arange(reach)
    one, other = (density(places[:, a] - first[:, None, a], reach) for a in (0, 1))
    found = np.matmul((one * (area * inside[:, None])[..., None]).swapaxes(1, 2), other)
    rows, columns = ((first[:, a, None] + steps) for a in (0, 1))
    # the image reflects at its border
    rows, columns = (reflect_positions(line, n) for line, n in zip((rows, columns), size, strict=True))
    index = (rows[:, :, None] * size[1] + columns[:, None, :]).reshape(len(around), -1)
    values = found.reshape(len(around), -1)
    keep = values != 0
    row = np.broadcast_to(np.arange(len(around))[:, None], index.shape)
    shape = len(around), size[0] * size[1]
    return sparse.csr_array(sparse.coo_array((values[keep], (row[keep], index[keep])), shape=shape))


def density(places: Array, reach: int) -> Array:
    """Weights of ``reach`` pixels in a row, (..., reach), in the density of their light at places on them.

    The parabola in a pixel that has its light and at its edges the density (7 (c_i + c_i+1) - c_i-1 - c_i+2) / 12,
    Colella & Woodward 1984 (J. Comput. Phys. 54, 174), eqs. 1.5 and 1.9 without the limits that keep it monotonic.  It
    is the derivative of the sum of all light before a place, interpolated between the edges of pixels by cubic
    convolution of six points, Keys 1981 (IEEE Trans. ASSP 29, 1153), eq. 20: exact for parabolas.

    Parameters
    ----------
    places : from 1.5 to ``reach`` - 2.5, px from the middle of the first.
    """
    return _on_pixels(places, reach, [1, 1, 1], 0)


def light_before(places: Array, reach: int) -> Array:
    """Weights of ``reach`` pixels in a row, (..., reach), in the light before places on them: the integral."""
    taps = _on_pixels(places, reach, [1, 1 / 2, 1 / 3], 1)
    whole = np.floor(places + 0.5).astype(np.int64)
    return np.asarray(taps + (np.arange(reach) < whole[..., None]))


def _on_pixels(places: Array, reach: int, factors: Sequence[float], power: int) -> Array:
    """Parabolas with other factors of 1, t and t^2, times a power of t, as weights (..., reach)."""
    whole = np.floor(places + 0.5).astype(np.int64)
    t = (places + 0.5 - whole)[..., None]
    one, two, three = (f * line for f, line in zip(factors, PARABOLAS, strict=True))
    taps = t**power * (one + t * (two + t * three))
    out = np.zeros((*places.shape, reach))
    np.put_along_axis(out, (whole - 2)[..., None] + np.arange(5), taps, -1)
    return out


def reflect_positions(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Positions beyond the border, reflected about the pixel edge (d c b a | a b c d | d c b a)."""
    index = index % (2 * size)
    return np.minimum(index, 2 * size - 1 - index)


def with_whole_pixels(matrix: sparse.csr_array) -> sparse.csr_array:
    """The matrix with weights of sum 1 for every image pixel whose weights are within `SEEN` of that."""
    total = np.asarray(matrix.sum(axis=0))
    factor = np.where(np.abs(total - 1) < SEEN, 1 / np.where(total == 0, 1, total), 1.0)
    out = matrix.copy()
    out.data = out.data * factor[out.indices]
    return out


def corners_of(shape: tuple[int, int], place: Callable[[Array], Array]) -> Array:
    """The corners of an exposure's pixels on another grid, (h + 1, w + 1, 2).

    Parameters
    ----------
    shape : (h, w)
        Of the exposure.
    place : (..., 2) of y and x in px of the exposure, whose first pixel has its middle at (0, 0) -> the same on the
        other grid.
    """
    y, x = (np.arange(n + 1) - 0.5 for n in shape)
    return np.asarray(place(np.stack(np.meshgrid(y, x, indexing="ij"), -1)), np.float64)
