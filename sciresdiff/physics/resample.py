"""What the pixels of one grid see of an image on another: shifted, turned, of another scale, or distorted.

The value of a pixel is the integral of the image over its area, which is a quadrilateral on the grid of the image, and
between the image's own pixels the image is its cubic interpolation.  Areas of overlap with image pixels, as drizzle has
them, would take the image for a pavement of squares: a shift of half a pixel then blurs it by another 0.5 px.

The weights are a sparse matrix, so that the adjoint is the transpose of the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
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

POINTS = 3
"""Nodes of the integral (Gauss-Legendre) per pixel of the image and axis."""
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
    def covered(self) -> NDArray[np.bool_]:
        """(h, w), True where a pixel's area lies on the image."""
        return np.asarray(np.diff(self.matrix.indptr) > 0).reshape(self.shape)

    @cached_property
    def area(self) -> Array:
        """(h, w), of every pixel in pixels of the image; 0 where it is not `covered`."""
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
        """R x, (..., Y, X) to (..., h, w): the light that falls on every pixel; 0 where it is not `covered`."""
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
    reach = int(np.ceil(extent.max())) + 4
    if reach > min(size) + 4 or reach > 256:
        raise InputError(
            f"wcs: a pixel of an exposure spans {extent.max():.3g} px of the output grid, which has {size[0]} x"
            f" {size[1]} px; give a --scale or --grid of similar pixels"
        )
    inside = (around.min(1) >= -0.5 - 1e-9).all(1) & (around.max(1) <= np.array(size) - 0.5 + 1e-9).all(1)
    nodes = legendre(max(2, int(np.ceil(POINTS * np.median(extent)))))
    parts = [weights_of(around[i : i + ROWS], inside[i : i + ROWS], nodes, reach, size) for i in range(0, h * w, ROWS)]
    matrix = sparse.csr_array(sparse.vstack(parts, format="csr"))
    if max(matrix.nnz, *matrix.shape) < 2**31:  # with narrow indices a product takes half the time
        narrow = matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)
        matrix = sparse.csr_array((matrix.data, *narrow), shape=matrix.shape)
    return Resampling(with_whole_pixels(matrix), (h, w), size, dtype, device)


def legendre(count: int) -> tuple[Array, Array]:
    """Nodes in 0 ... 1 and weights of sum 1 of the Gauss-Legendre rule."""
    at, weight = np.polynomial.legendre.leggauss(count)
    return (at + 1) / 2, weight / 2


def weights_of(
    around: Array, inside: NDArray[np.bool_], nodes: tuple[Array, Array], reach: int, size: tuple[int, int]
) -> sparse.csr_array:
    """Rows of the matrix: integrals of the image's cubic interpolation over quadrilaterals.

    Parameters
    ----------
    around : (n, 4, 2) array
        Corners (y, x): top left, top right, bottom left, bottom right.
    inside : (n,) bool array
        Which of them have weights.
    nodes : as of `legendre`, along each axis.
    reach : int
        Image pixels that a quadrilateral and the interpolation reach over along an axis.
    size : (Y, X)
    """
    at, weight = nodes
    v, u = np.meshgrid(at, at, indexing="ij")
    share = np.stack([(1 - v) * (1 - u), (1 - v) * u, v * (1 - u), v * u], -1).reshape(-1, 4)
    axes = around.swapaxes(1, 2).reshape(-1, 4)  # (n y and x, corner)

    def at_nodes(terms: Array) -> Array:
        """Sums over the corners, (n, 2, nodes)."""
        return (axes @ terms.T).reshape(len(around), 2, -1)

    places = at_nodes(share)
    # derivatives of the bilinear map along its rows (v) and columns (u)
    slopes = (
        np.stack([-(1 - u), -u, 1 - u, u], -1).reshape(-1, 4),
        np.stack([-(1 - v), 1 - v, -v, v], -1).reshape(-1, 4),
    )
    by_v, by_u = map(at_nodes, slopes)
    area = np.abs(by_v[:, 0] * by_u[:, 1] - by_v[:, 1] * by_u[:, 0]) * np.outer(weight, weight).ravel()
    first = np.floor(around.min(1)).astype(np.int64) - 1
    steps = np.arange(reach)
    one, other = (lines_of(places[:, a] - first[:, None, a], reach) for a in (0, 1))
    found = np.matmul((one * (area * inside[:, None])[..., None]).swapaxes(1, 2), other)
    rows, columns = ((first[:, a, None] + steps) for a in (0, 1))
    # the interpolation reflects at the border of the image
    rows, columns = (reflected(line, n) for line, n in zip((rows, columns), size, strict=True))
    index = (rows[:, :, None] * size[1] + columns[:, None, :]).reshape(len(around), -1)
    values = found.reshape(len(around), -1)
    keep = values != 0
    row = np.broadcast_to(np.arange(len(around))[:, None], index.shape)
    shape = len(around), size[0] * size[1]
    return sparse.csr_array(sparse.coo_array((values[keep], (row[keep], index[keep])), shape=shape))


def lines_of(places: Array, reach: int) -> Array:
    """Weights of ``reach`` pixels in a row, (..., reach), in the cubic interpolation at places between them.

    Cubic convolution, Keys 1981 (IEEE Trans. ASSP 29, 1153), eq. 15 with a = -1/2: of the four pixels about a place.

    Parameters
    ----------
    places : from 1 to ``reach`` - 2.
    """
    whole = np.floor(places).astype(np.int64)
    t = places - whole
    rest = 1 - t
    near, far = t * t * rest / 2, rest * rest * t / 2
    taps = np.stack([-far, rest + 2 * far - near, t + 2 * near - far, -near], -1)
    out = np.zeros((*places.shape, reach))
    np.put_along_axis(out, (whole - 1)[..., None] + np.arange(4), taps, -1)
    return out


def reflected(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
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
