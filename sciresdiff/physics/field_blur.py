"""The blur by a PSF that changes over the field, all of its basis kernels in one pass, with an exact adjoint.

A source at q sends its light to q + d by its own kernel, k(q; d) = sum_j w_j(q) P_j(d).  The frame, with a margin in
which it is reflected, is cut into patches.  Inside a patch the PSF changes little, so that few kernels and maps, found
by principal components, make up all that its pixels have; their convolutions are added up as spectra, and every patch
sends its light to its surroundings.  A patch costs one Fourier transform for every kernel and one for all of them.

What is not separable, as elongated and turned PSFs are, would need hundreds of separable terms for all of a field.
Rounding is that of a patch, and not of the frame: 1e-7 of its root mean square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from torch import Tensor

from sciresdiff.errors import InputError
from sciresdiff.physics.psf.field import PSF, SmoothMaps
from sciresdiff.region import Region

Array = NDArray[np.float64]
Index = NDArray[np.int64]

ERROR = 2e-4
"""Share of its light that the local kernel of any source may have misplaced in all."""
COUNTS = (1, 2, 3, 4, 6, 8, 12, 16)
"""Patches along an axis that are tried."""
EVERY = 16
"""Pixels between places by which their number is chosen, where weights are given for every pixel."""
CACHE = 2**20
"""Numbers of a patch with which transforms take twice as long as those of a few, which stay in the cache."""
WORK = 2**23
"""Numbers that are worked on at a time."""


@dataclass(frozen=True)
class LocalKernels:
    """What the kernels of a patch are made of: k(q; d) = sum_r c_r(q) m_r(d)."""

    modes: Array
    """(R, K, L)."""
    mixing: Array
    """(J, R): c = w mixing."""

    @classmethod
    def of_psf(cls, kernels: Array) -> LocalKernels:
        """Kernels (J, K, L) as sums of orthonormal ones."""
        q, triangle = np.linalg.qr(kernels.reshape(len(kernels), -1).T)
        return cls(q.T.reshape(-1, *kernels.shape[1:]), triangle.T)

    def principal(self, weights: Array, error: float = ERROR) -> LocalKernels:
        """The principal components at some places, of orthonormal kernels: as many as every place needs.

        What is left out at a place is at most sum_r |c_r| sum_d |m_r(d)| over the components that are left out, which
        is held below ``error`` of the local kernel's sum.

        Parameters
        ----------
        weights : (J, n) array
            At all pixels, or at places between which they are linear.
        error : float
            Share of the light.
        """
        flat = self.modes.reshape(len(self.modes), -1)
        found = self.mixing.T @ weights
        turn = np.linalg.eigh(found @ found.T)[1][:, ::-1]
        modes, mixing = turn.T @ flat, self.mixing @ turn
        left = np.abs(mixing.T @ weights) * np.abs(modes).sum(1)[:, None]
        beyond = np.cumsum(left[::-1], 0)[::-1]  # of the components from r on
        enough = (beyond <= error * np.abs(flat.sum(1) @ found)).all(1)
        rank = max(int(np.argmax(enough)), 1) if enough.any() else len(flat)
        return LocalKernels(modes[:rank].reshape(-1, *self.modes.shape[1:]), mixing[:, :rank])

    def negative(self, weights: Array) -> Array:
        """How far any of the kernels at some places is below 0, (K, L), >= 0.

        Parameters
        ----------
        weights : (J, n) array
            As for `principal`; of a convex sum of kernels no value is below the lowest of theirs.
        """
        mixed, flat = self.mixing.T @ weights, self.modes.reshape(len(self.modes), -1)
        step, lowest = max(1, WORK // flat.shape[1]), np.zeros(flat.shape[1])
        for i in range(0, mixed.shape[1], step):
            lowest = np.minimum(lowest, (mixed[:, i : i + step].T @ flat).min(0))
        return np.asarray(-lowest.reshape(self.modes.shape[1:]))


@dataclass(frozen=True)
class Patch:
    """A part of the frame with its margin, and the spectra of its kernels."""

    region: Region
    """Of the frame with its margin."""
    weights: Tensor
    """(R, h, w)."""
    spectra: Tensor
    """(R, m, n // 2 + 1), complex; of kernels whose first pixel is at the origin."""
    room: tuple[int, int]
    """(m, n), of the transforms."""

    def blur(self, light: Tensor) -> Tensor:
        """What the patch (..., h, w) sends to itself and its surroundings, (..., m, n)."""
        parts = torch.fft.rfft2(light[..., None, :, :] * self.weights, s=self.room)
        return torch.fft.irfft2(sum_of_products(parts, self.spectra), s=self.room)

    def gather(self, seen: Tensor) -> Tensor:
        """The transpose of `blur`: from what lies in its reach to (..., h, w)."""
        light = torch.fft.rfft2(seen, s=self.room)
        h, w = self.region.shape
        parts = torch.fft.irfft2(light[..., None, :, :] * self.adjoint_spectra, s=self.room)[..., :h, :w]
        return sum_of_products(parts, self.weights)

    @cached_property
    def adjoint_spectra(self) -> Tensor:
        """The spectra of the kernels turned by half a turn."""
        return self.spectra.conj().resolve_conj()


def sum_of_products(parts: Tensor, factors: Tensor) -> Tensor:
    """sum_r parts_r factors_r, of (..., R, m, n) and (R, m, n), without a product for every r in memory."""
    total = parts[..., 0, :, :] * factors[0]
    for r in range(1, len(factors)):
        total = total.addcmul_(parts[..., r, :, :], factors[r])
    return total


@dataclass(frozen=True)
class FieldBlur:
    """The blur of a frame by a `PSF` with weights; borders reflect about the pixel edge, the weights with the image.

    Parameters
    ----------
    psf : PSF
        With weights, of the frame's size.
    size : (Y, X)
        Of the frame, output px.
    dtype, device
        Of images and weights.
    bounding : bool
        Whether it is the bound of the absolute values instead: k + 2 max(-k, 0), the latter the largest of the patch.
    """

    psf: PSF
    size: tuple[int, int]
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"
    bounding: bool = False

    def __post_init__(self) -> None:
        """Hold the weights against the frame."""
        assert self.psf.weights is not None
        if self.psf.weights.shape[1:] != self.size:
            raise InputError(
                f"psf: weight maps of {self.psf.weights.shape[1:]} fine px for a frame of {self.size}; take its window"
            )

    def apply(self, image: Tensor) -> Tensor:
        """The blurred image, (..., Y, X) to (..., Y, X)."""
        y, x = (torch.from_numpy(line).to(image.device) for line in self.reflection)
        wide = image.index_select(-2, y).index_select(-1, x)
        out = image.new_zeros((*image.shape[:-2], *self.reach(Region.of_shape(wide.shape)).shape))
        for patch in self.patches:
            to = self.reach(patch.region)
            m, n = to.shape
            out[..., *to.slices] += patch.blur(wide[..., *patch.region.slices])[..., :m, :n]
        return out[..., *self.inside.slices]

    def adjoint(self, seen: Tensor) -> Tensor:
        """The transpose of `apply`, (..., Y, X) to (..., Y, X)."""
        shape = tuple(len(line) for line in self.reflection)
        room = seen.new_zeros((*seen.shape[:-2], *self.reach(Region.of_shape(shape)).shape))
        room[..., *self.inside.slices] = seen
        wide = seen.new_empty((*seen.shape[:-2], *shape))
        for patch in self.patches:
            wide[..., *patch.region.slices] = patch.gather(room[..., *self.reach(patch.region).slices])
        return fold(fold(wide, self.size[0], -2), self.size[1], -1)

    @property
    def sides(self) -> tuple[int, int]:
        """(K, L) of the kernels."""
        rows, columns = self.psf.kernels.shape[1:]
        return rows, columns

    def reach(self, region: Region) -> Region:
        """What a part of the frame with its margin sends light to: as much more again."""
        h, w = region.shape
        return Region(region.y0, region.y0 + h + self.sides[0] - 1, region.x0, region.x0 + w + self.sides[1] - 1)

    @property
    def inside(self) -> Region:
        """The frame within the reach of its margin."""
        (top, left), (h, w) = (k - 1 for k in self.sides), self.size
        return Region(top, top + h, left, left + w)

    @cached_property
    def reflection(self) -> tuple[Index, Index]:
        """Rows and columns of the frame that the frame with its margin is made of."""
        y, x = (reflected_line(n, k // 2) for n, k in zip(self.size, self.sides, strict=True))
        return y, x

    @cached_property
    def patches(self) -> list[Patch]:
        """The parts of the frame with its margin, in rows."""
        rows, columns = self._cheapest()
        return [self._patch(Region(*y, *x)) for y in rows for x in columns]

    @cached_property
    def _orthonormal(self) -> LocalKernels:
        return LocalKernels.of_psf(self.psf.kernels)

    def _cheapest(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """First and last rows, and columns, of the patches whose transforms cost the least."""
        lengths = [n + 2 * (k // 2) for n, k in zip(self.size, self.sides, strict=True)]
        best, chosen = np.inf, ([(0, lengths[0])], [(0, lengths[1])])
        for count in COUNTS:
            rows, columns = (split(n, count, k) for n, k in zip(lengths, self.sides, strict=True))
            cost = sum(self._cost(Region(*y, *x)) for y in rows for x in columns)
            if cost < best:
                best, chosen = cost, (rows, columns)
            if cost > 2 * best or max(len(rows), len(columns)) < count:
                break
        return chosen

    def _cost(self, region: Region) -> float:
        """Time of the transforms of a patch, in units of that of a number."""
        kernels = self._orthonormal.principal(self._weights_at(region, EVERY))
        m, n = room_of(region.shape, self.sides)
        numbers = (len(kernels.modes) + 1) * m * n
        return float(numbers * (1 + min(numbers / CACHE, 2.0)))

    def _lines(self, region: Region) -> tuple[Index, Index]:
        """Rows and columns of the frame that are in a part of the frame with its margin."""
        y, x = self.reflection
        return y[region.y0 : region.y1], x[region.x0 : region.x1]

    def _weights_at(self, region: Region, every: int = 1) -> Array:
        """Weights (J, n) that stand for a part of the frame with its margin.

        Parameters
        ----------
        every : int
            Pixels between places, where the weights are known at every pixel.
        """
        inside, weights = bounds(*self._lines(region)), self.psf.weights
        if isinstance(weights, SmoothMaps):
            found = weights.knots_around(inside)
        else:
            assert weights is not None
            found = weights[:, inside.y0 : inside.y1 : every, inside.x0 : inside.x1 : every]
        return np.asarray(found.reshape(len(found), -1), np.float64)

    def _patch(self, region: Region) -> Patch:
        """The kernels, weights and spectra of a part of the frame with its margin."""
        places = self._weights_at(region)
        found = self._orthonormal.principal(places)
        modes, maps = found.modes, self._maps(region, found.mixing)
        if self.bounding:
            modes = np.concatenate([modes, 2 * found.negative(places)[None]])
            maps = np.concatenate([maps, np.ones((1, *maps.shape[1:]))])
        room = room_of(region.shape, self.sides)
        spectra = torch.fft.rfft2(torch.from_numpy(modes).to(self.device), s=room)
        number = torch.complex128 if self.dtype == torch.float64 else torch.complex64
        return Patch(region, torch.from_numpy(maps).to(self.device, self.dtype), spectra.to(number), room)

    def _maps(self, region: Region, mixing: Array) -> Array:
        """The weights of a patch's own kernels, (R, h, w)."""
        y, x = self._lines(region)
        inside, weights = bounds(y, x), self.psf.weights
        assert weights is not None
        whole = weights.window(inside).maps if isinstance(weights, SmoothMaps) else weights[:, *inside.slices]
        mixed = np.tensordot(mixing.T, np.asarray(whole, np.float64), 1)
        return np.ascontiguousarray(mixed[:, y - inside.y0][:, :, x - inside.x0])


def bounds(y: Index, x: Index) -> Region:
    """The smallest rectangle with these rows and columns."""
    return Region(int(y.min()), int(y.max()) + 1, int(x.min()), int(x.max()) + 1)


def reflected_line(size: int, margin: int) -> Index:
    """Positions from ``-margin`` to ``size + margin``, reflected about the pixel edge (d c b a | a b c d | d c b a)."""
    at = np.arange(-margin, size + margin) % (2 * size)
    return np.minimum(at, 2 * size - 1 - at)


def fold(wide: Tensor, size: int, axis: int) -> Tensor:
    """The transpose of the reflection of `reflected_line` along an axis, of which ``size`` pixels are left."""
    margin = (wide.shape[axis] - size) // 2
    if margin > size:
        shape = list(wide.shape)
        shape[axis] = size
        line = torch.from_numpy(reflected_line(size, margin)).to(wide.device)
        return wide.new_zeros(shape).index_add_(axis, line, wide)
    inner = wide.narrow(axis, margin, size).clone()
    inner.narrow(axis, 0, margin).add_(wide.narrow(axis, 0, margin).flip(axis))
    inner.narrow(axis, size - margin, margin).add_(wide.narrow(axis, size + margin, margin).flip(axis))
    return inner


def split(length: int, count: int, least: int) -> list[tuple[int, int]]:
    """First and last of at most so many parts of equal length, none shorter than half of ``least``."""
    count = max(1, min(count, 2 * length // max(least, 1)))
    ends = np.linspace(0, length, count + 1).round().astype(int)
    return [(int(a), int(b)) for a, b in zip(ends[:-1], ends[1:], strict=True)]


def room_of(shape: tuple[int, int], sides: Sequence[int]) -> tuple[int, int]:
    """Lengths of the transforms of a patch, in which no light wraps around."""
    m, n = (16 * next_fast_len(-(-(h + k - 1) // 16), real=True) for h, k in zip(shape, sides, strict=True))
    return m, n
