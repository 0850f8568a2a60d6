"""What an error of the PSF's width changes in the data.

With the kernel drawn out by a factor 1 + f, A x changes by f dA x.  For a Gaussian kernel of covariance C that is f
times the sum of C_ij times the second derivatives of A x, which needs nothing but the data: negative in the cores of
stars, positive in the ring around them, and next to nothing where the image is smooth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import interp1d

from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.psf.width import moments_of_square
from sciresdiff.region import Region

Array = NDArray[np.float64]

PLACES = 9
"""Places along each axis at which a kernel that changes over the field is looked at."""
REACH = 1
"""Pixels around a pixel on which its change depends."""


@dataclass(frozen=True)
class WidthError:
    """How well the width of a frame's kernel is known."""

    share: float
    """Standard error, as a share of the width."""
    covariance: tuple[Any, Any, Any]
    """yy, xx and xy of the kernel's Gaussian equivalent, px^2 of the frame: numbers, or maps (h, w) of a window."""
    places: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]] | None = None
    """Where the kernel changes over the field: y and x of a lattice, px of the frame, and there the covariances, in
    rows, three at each place.  Between the places they are linear."""

    @classmethod
    def of_kernel(cls, kernel: Array, scale: int, share: float) -> WidthError:
        """That of a kernel (K, L) on a grid ``scale`` times finer than the frame."""
        return cls(share, covariance_of(kernel, scale))

    @classmethod
    def of_psf(cls, psf: PSF, scale: int, share: float) -> WidthError:
        """That of a PSF on a grid ``scale`` times finer than the frame."""
        mean = covariance_of(psf.mean, scale)
        if psf.weights is None:
            return cls(share, mean)
        y, x = (np.linspace(0, n - 1, PLACES) for n in psf.weights.shape[1:])
        found = tuple(value for v in y for u in x for value in covariance_of(psf.at(v, u), scale))
        low = (tuple(((at + 0.5) / scale - 0.5).tolist()) for at in (y, x))
        return cls(share, mean, (*low, found))  # type: ignore[arg-type]

    def window(self, region: Region) -> WidthError:
        """That of a part of the frame."""
        if self.places is not None:
            y, x, found = self.places
            table = np.reshape(found, (len(y), len(x), 3))
            rows = interp1d(y, table, axis=0)(np.clip(np.arange(region.y0, region.y1), y[0], y[-1]))
            maps = interp1d(x, rows, axis=1)(np.clip(np.arange(region.x0, region.x1), x[0], x[-1]))
            return WidthError(self.share, (maps[..., 0], maps[..., 1], maps[..., 2]))
        yy, xx, xy = (v if np.ndim(v) == 0 else v[region.slices] for v in self.covariance)
        return WidthError(self.share, (yy, xx, xy))

    def change(self, light: NDArray[Any], bad: NDArray[np.bool_]) -> Array:
        """dA x: change of the data with the logarithm of the kernel's width, unit of the data.

        Second differences of the data in place of A x; their noise is within 3 % of it at a share of 0.1, and within
        0.1 % at 0.01.  **In undersampled frames they are up to a third smaller than the derivatives.**

        Parameters
        ----------
        light : (h, w), the data or what is expected of them.
        bad : (h, w), True where they say nothing: there, and across them, no change is counted.

        Returns
        -------
        (h, w)
        """
        values = np.where(bad | ~np.isfinite(light), np.nan, light).astype(np.float64)
        wide = np.pad(values, REACH, mode="edge")
        centre = values
        h, w = values.shape

        def at(dy: int, dx: int) -> Array:
            """The neighbour, or the pixel itself where there is none."""
            near = wide[1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w]
            return np.where(np.isfinite(near), near, centre)

        yy, xx, xy = self.covariance
        change = yy * (at(1, 0) + at(-1, 0) - 2 * centre) + xx * (at(0, 1) + at(0, -1) - 2 * centre)
        if np.any(xy):
            change = change + xy * (at(1, 1) + at(-1, -1) - at(1, -1) - at(-1, 1)) / 2
        return np.nan_to_num(change, nan=0.0)


def covariance_of(kernel: Array, scale: int) -> tuple[float, float, float]:
    """yy, xx and xy of the Gaussian equivalent of a kernel (K, L), px^2 of a frame ``scale`` times coarser."""
    yy, xx, xy = moments_of_square(kernel)  # half of a Gaussian's own
    return 2 * yy / scale**2, 2 * xx / scale**2, 2 * xy / scale**2
