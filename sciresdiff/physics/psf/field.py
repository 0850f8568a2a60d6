"""The point spread function of a frame, which may change over the field.

The local kernel is a low-rank sum of basis kernels with smooth weight maps, k(q; d) = sum_j w_j(q) P_j(d), where q is
the place of the source on the output grid and d the offset from it.  PSFEx (polynomials of the position) and the
principal components of a grid of PSFs have this form.  A PSF that is the same everywhere is one kernel of weight 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sciresdiff.errors import InputError
from sciresdiff.physics.psf.rescale import rescale_kernel
from sciresdiff.physics.psf.width import sigma_of_square
from sciresdiff.region import Region

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SmoothMaps:
    """Weight maps that change slowly over the field: known at knots, linear between them.

    They take the memory of the knots, however large the field is.
    """

    knots: NDArray[np.float32]
    """(J, rows, columns): the weights at every ``step``-th output pixel, from the centre of the first one on."""
    step: int
    size: tuple[int, int]
    """(Y, X) of the output grid, or of a window of it."""
    origin: tuple[int, int] = (0, 0)
    """(y, x) of the first output pixel, counted from the first knot."""

    @classmethod
    def of_function(cls, function: Callable[[Array, Array], Array], size: tuple[int, int], step: int) -> SmoothMaps:
        """The maps of a function of the place.

        Parameters
        ----------
        function : (y, x) in output pixels from the centre of the first, any shape -> (J, ...) weights.
        size : (Y, X).
        step : output pixels between knots.
        """
        y, x = (step * np.arange(-(-(n - 1) // step) + 1, dtype=np.float64) for n in size)
        return cls(np.asarray(function(*np.meshgrid(y, x, indexing="ij")), np.float32), step, size)

    def __len__(self) -> int:
        """J."""
        return len(self.knots)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(J, Y, X)."""
        return len(self.knots), *self.size

    def window(self, region: Region) -> SmoothMaps:
        """The maps of a part of the field; the knots are shared."""
        return replace(self, size=region.shape, origin=(self.origin[0] + region.y0, self.origin[1] + region.x0))

    def knots_around(self, region: Region) -> NDArray[np.float32]:
        """The knots (J, m, n) between which all weights of a part of the field lie."""
        (y0, y1, _), (x0, x1, _) = self._lines(region)
        return self.knots[:, y0[0] : y1[-1] + 1, x0[0] : x1[-1] + 1]

    @property
    def maps(self) -> NDArray[np.float32]:
        """The weights of every pixel, (J, Y, X); every value depends on its place alone."""
        (y0, y1, fy), (x0, x1, fx) = self._lines(Region.of_shape(self.size))
        rows = self.knots[:, y0] * (1 - fy)[:, None] + self.knots[:, y1] * fy[:, None]
        return np.asarray(rows[:, :, x0] * (1 - fx) + rows[:, :, x1] * fx, np.float32)

    def at(self, y: float, x: float) -> Array:
        """The weights (J,) at a place, output px from the centre of the first; beyond the knots the nearest's."""
        grid = [[(v + first) / self.step] for v, first in zip((y, x), self.origin, strict=True)]
        return np.array([ndimage.map_coordinates(w, grid, order=1, mode="nearest")[0] for w in self.knots])

    def mean(self) -> Array:
        """The weights (J,) averaged over the field."""
        here = self.knots_around(Region.of_shape(self.size))
        return np.asarray(here.mean((1, 2), dtype=np.float64))

    def _lines(self, region: Region) -> list[tuple[Any, Any, NDArray[np.float32]]]:
        """Of y and of x: the knots before and after every pixel, and the way between them."""
        lines = []
        for first, last, count, start in (
            (region.y0, region.y1, self.knots.shape[1], self.origin[0]),
            (region.x0, region.x1, self.knots.shape[2], self.origin[1]),
        ):
            at = np.arange(first, last) + start
            low = np.minimum(at // self.step, max(count - 2, 0))
            lines.append((low, np.minimum(low + 1, count - 1), ((at - low * self.step) / self.step).astype(np.float32)))
        return lines


@dataclass(frozen=True, eq=False)
class PSF:
    """The kernel between the wanted image and the data, before pixel integration, over the whole field.

    Two are equal where their kernels and weights are equal bit by bit.

    Parameters
    ----------
    kernels : (J, K, L) float array
        Basis kernels P_j on the output grid, odd sides, centred.  Where the local kernel has sum 1 the flux is kept;
        a single basis kernel may have any sum and negative values.
    weights : (J, Y, X) float array or SmoothMaps, optional
        Weight maps w_j on the output grid; None for one kernel that is the same everywhere.
    width_error : float, optional
        Standard error of the width, as a share of it; None where it is not known.

    Raises
    ------
    InputError
        Shapes that do not fit, even sides, several kernels without weights, or values that are not finite.
    """

    kernels: Array
    weights: NDArray[np.floating[Any]] | SmoothMaps | None = None
    width_error: float | None = None

    def __post_init__(self) -> None:
        """Check the shapes; kernels become float64, weights keep their float type."""
        kernels = np.asarray(self.kernels, np.float64)
        object.__setattr__(self, "kernels", kernels)
        if kernels.ndim != 3 or any(side % 2 == 0 for side in kernels.shape[1:]):
            raise InputError(f"psf: kernels of shape {kernels.shape}; give (J, K, L) with odd K and L")
        if not np.isfinite(kernels).all():
            raise InputError("psf: a kernel has NaN or infinite values; give one without")
        if self.weights is None:
            if len(kernels) != 1:
                raise InputError(f"psf: {len(kernels)} kernels without weights; give a weight map for each")
            return
        if isinstance(self.weights, SmoothMaps):
            if len(self.weights) != len(kernels) or not np.isfinite(self.weights.knots).all():
                raise InputError(
                    f"psf: {len(self.weights)} weight maps for {len(kernels)} kernels; give a finite one each"
                )
            return
        weights = np.asarray(self.weights)
        weights = weights if weights.dtype.kind == "f" else weights.astype(np.float64)
        object.__setattr__(self, "weights", weights)
        if weights.ndim != 3 or len(weights) != len(kernels):
            raise InputError(f"psf: weights of shape {weights.shape} for {len(kernels)} kernels; give (J, Y, X)")
        if not np.isfinite(weights).all():
            raise InputError("psf: a weight map has NaN or infinite values; give one without")

    @classmethod
    def constant(cls, kernel: Array) -> PSF:
        """The PSF that is ``kernel``, (K, L), everywhere."""
        return cls(np.asarray(kernel, np.float64)[None])

    @property
    def varies(self) -> bool:
        """Whether there are weight maps, so that the kernel depends on the place."""
        return self.weights is not None

    def window(self, region: Region) -> PSF:
        """The PSF of a part of the field.

        Parameters
        ----------
        region : Region
            On the output grid, inside the field.

        Returns
        -------
        PSF
            Its ``at(y, x)`` is this one's ``at(region.y0 + y, region.x0 + x)``; the weights are a view of these.
        """
        if self.weights is None:
            return self
        if isinstance(self.weights, SmoothMaps):
            return replace(self, weights=self.weights.window(region))
        return PSF(self.kernels, self.weights[:, *region.slices], self.width_error)

    @property
    def maps(self) -> NDArray[np.floating[Any]] | None:
        """The weights as an array (J, Y, X); None for one kernel that is the same everywhere."""
        return self.weights.maps if isinstance(self.weights, SmoothMaps) else self.weights

    def at(self, y: float, x: float) -> Array:
        """The kernel of a source at (y, x), which are output pixels from the centre of the first one.

        Returns
        -------
        (K, L) array
            ``sum_j w_j(y, x) P_j``, the weights interpolated linearly; beyond the field the nearest pixel's.
        """
        if self.weights is None:
            return self.kernels[0]
        if isinstance(self.weights, SmoothMaps):
            return np.asarray(np.tensordot(self.weights.at(y, x), self.kernels, 1))
        weights = [ndimage.map_coordinates(w, [[y], [x]], order=1, mode="nearest")[0] for w in self.weights]
        return np.asarray(np.tensordot(weights, self.kernels, 1))

    def lattice(self, every: int) -> tuple[Array, Array]:
        """Lines y and x of a lattice over the field, ``every`` output px apart; windows of one field share it.

        Of a window they begin before its first pixel and end after its last, for ``at`` and linear interpolation.
        """
        assert self.weights is not None
        first = self.weights.origin if isinstance(self.weights, SmoothMaps) else (0, 0)
        y, x = (
            every * np.arange(start // every, -(-(start + n - 1) // every) + 1.0) - start
            for start, n in zip(first, self.weights.shape[1:], strict=True)
        )
        return y, x

    @cached_property
    def mean(self) -> Array:
        """(K, L), the kernel averaged over the field."""
        if self.weights is None:
            return self.kernels[0]
        if isinstance(self.weights, SmoothMaps):
            return np.asarray(np.tensordot(self.weights.mean(), self.kernels, 1))
        return np.asarray(np.tensordot(self.weights.mean((1, 2), dtype=np.float64), self.kernels, 1))

    @property
    def simplest(self) -> PSF:
        """This one, or the one kernel that it is where its weights are the same everywhere."""
        if self.weights is None:
            return self
        maps = self.weights.knots if isinstance(self.weights, SmoothMaps) else self.weights
        first = maps[:, 0, 0]
        if not (maps == first[:, None, None]).all():
            return self
        return PSF(np.tensordot(first, self.kernels, 1)[None], width_error=self.width_error)

    def rescale(self, factor: float) -> PSF:
        """The PSF with its kernels drawn out by a factor, see `rescale_kernel`; the weights stay."""
        return replace(self, kernels=np.stack([rescale_kernel(kernel, factor) for kernel in self.kernels]))

    @property
    def width(self) -> float:
        """Sigma of the mean kernel, output px: see `sigma_of_square`."""
        return sigma_of_square(self.mean)

    @cached_property
    def widths(self) -> tuple[float, float]:
        """Least and largest sigma of the local kernel, output px, at 5 x 5 places: see `sigma_of_square`."""
        if self.weights is None:
            return self.width, self.width
        lines = [np.linspace(0, n - 1, 5) for n in self.weights.shape[1:]]
        found = [sigma_of_square(self.at(y, x)) for y in lines[0] for x in lines[1]]
        return min(found), max(found)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over shapes, types and values: what tells one PSF from another in records of a run."""
        hashed = hashlib.sha256()
        maps = self.weights
        if isinstance(maps, SmoothMaps):
            hashed.update(f"{maps.size}{maps.step}{maps.origin}".encode())
            maps = maps.knots
        for array in (self.kernels, maps):
            if array is not None:
                hashed.update(f"{array.shape}{array.dtype.str}".encode())
                hashed.update(np.ascontiguousarray(array).data)
        if self.width_error:
            hashed.update(repr(self.width_error).encode())
        return hashed.hexdigest()

    def __eq__(self, other: object) -> bool:
        """Same kernels and weights, bit by bit."""
        return isinstance(other, PSF) and self.digest == other.digest

    def __hash__(self) -> int:
        """Of the digest."""
        return hash(self.digest)
