"""Drawing for simulated scenes: points and fields on an oversampled canvas, and its image through an optical profile.

A canvas is an array of OVER x OVER sub-pixels per pixel that reaches MARGIN pixels beyond the frame on every side, so
that light from outside comes in. Points are drawn with a cubic B-spline, which is a quadratic B-spline integrated
over the sub-pixel: flux and centroid are exact at any position, nothing rings and nothing is negative. One FFT
convolution with the optical profile and a block sum (the pixel) finish the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Array = NDArray[Any]
Rng = np.random.Generator

OVER = 2
"""Sub-pixels of the canvas per pixel and axis."""

MARGIN = 48
"""Pixels that the canvas reaches beyond the frame on every side."""


@dataclass(frozen=True)
class Scene:
    """A simulated truth.

    Attributes
    ----------
    pixels : (size, size) float32
        Expected flux per fine pixel in arbitrary units above a zero background, never negative.
    fwhm_px : float
        Full width at half maximum of the point spread function that the truth has, in fine pixels, pixel included.
    label : str
        The kind that was drawn; a mixture names the member.
    """

    pixels: Array
    fwhm_px: float
    label: str


@dataclass(frozen=True)
class ScenePSF:
    """An optical profile on the sub-pixel grid, and what a lone star looks like through it.

    Attributes
    ----------
    kernel : (2 * OVER * MARGIN, 2 * OVER * MARGIN) float32
        Non-negative, sum 1, centred on element (n / 2, n / 2).
    fwhm_px, peak : float
        Width of a lone star in pixels, and the share of its flux in the pixel that it is centred on.
    """

    kernel: Array
    fwhm_px: float
    peak: float


def padded_side(size: int) -> int:
    """Side of the padded frame in pixels, for a frame of ``size`` pixels."""
    return size + 2 * MARGIN


def empty_canvas(size: int) -> Array:
    """Empty canvas for a frame of ``size`` pixels: (OVER * padded_side, ) * 2, float32."""
    return np.zeros((OVER * padded_side(size),) * 2, np.float32)


def padded_grid(size: int) -> tuple[Array, Array]:
    """Open pixel coordinates (y, x) of the padded frame; pixel centres are integers, 0 is the frame's first."""
    line = np.arange(-MARGIN, size + MARGIN, dtype=np.float32)
    return line[:, None], line[None, :]


def _spline(position: Array) -> tuple[Array, Array]:
    """First tap and the four cubic B-spline weights (4, n) of sub-pixel positions."""
    first = np.floor(position).astype(np.int64)
    t = position - first
    weights = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    return first - 1, np.stack(weights) / 6


def _linear(position: Array) -> tuple[Array, Array]:
    """First tap and the two linear weights (2, n) of sub-pixel positions."""
    first = np.floor(position).astype(np.int64)
    t = position - first
    return first, np.stack([1 - t, t])


def add_points(canvas: Array, x: Array, y: Array, flux: Array, smooth: bool = True) -> None:
    """Add point sources to a canvas in place; points that leave the canvas are dropped.

    Parameters
    ----------
    canvas : (n, n) float32 array
    x, y : (n,) array
        Frame coordinates in pixels, 0 the centre of the frame's first pixel.
    flux : (n,) array
        Total flux of each; points of 0 and below are left out.
    smooth : bool
        Cubic B-spline weights (exact for stars); otherwise linear ones, four times cheaper, for dense curves.
    """
    n = canvas.shape[0]
    taps = _spline if smooth else _linear
    ix, wx = taps((np.asarray(x, np.float64) + MARGIN + 0.5) * OVER - 0.5)
    iy, wy = taps((np.asarray(y, np.float64) + MARGIN + 0.5) * OVER - 0.5)
    k = len(wx)
    inside = (np.asarray(flux) > 0) & (ix >= 0) & (iy >= 0) & (ix + k <= n) & (iy + k <= n)
    ix, iy, wx, wy = ix[inside], iy[inside], wx[:, inside], wy[:, inside] * np.asarray(flux)[inside]
    # bincount adds up points that share a sub-pixel, which indexing would not
    step = np.arange(k)
    index = (iy + step[:, None])[:, None] * n + (ix + step[:, None])[None]
    canvas += np.bincount(index.ravel(), (wy[:, None] * wx[None]).ravel(), n * n).reshape(n, n).astype(np.float32)


def add_field(canvas: Array, field: Array) -> None:
    """Add a field of surface brightness, (n, n) at the pixels of the padded frame, to a canvas in place."""
    n = field.shape[0]
    canvas.reshape(n, OVER, n, OVER)[...] += np.asarray(field, np.float32)[:, None, :, None] / OVER**2


def render(canvas: Array, psf: ScenePSF) -> Array:
    """Canvas seen through a point spread function: (n, n) float32 of the padded frame.

    **Flux is kept but for rounding below 0, which is cut; borders are periodic.**
    """
    n, k = canvas.shape[0], psf.kernel.shape[0]
    padded = np.zeros_like(canvas)
    padded[:k, :k] = psf.kernel
    # centre of the kernel to the origin, where an FFT has it
    kernel = np.roll(padded, (-(k // 2), -(k // 2)), (0, 1))
    image = fft.irfft2(fft.rfft2(canvas) * fft.rfft2(kernel), s=canvas.shape)
    blocks = np.maximum(image, 0).reshape(n // OVER, OVER, n // OVER, OVER)
    return blocks.sum((1, 3), dtype=np.float32)


def crop(frame: Array) -> Array:
    """The frame (size, size), without the margin of a padded one."""
    return np.ascontiguousarray(frame[MARGIN:-MARGIN, MARGIN:-MARGIN], dtype=np.float32)


def random_field(rng: Rng, n: int, slope: float, longest: float = np.inf, shortest: float = 0.0) -> Array:
    """Gaussian random field (n, n) of mean 0 and variance 1 with the power spectrum k^-slope.

    Parameters
    ----------
    rng : numpy.random.Generator
    n : int
        Side in pixels.
    slope : float
        2 is rough, 4 is smooth.
    longest, shortest : float
        Wavelengths in pixels beyond which the spectrum is flat, and below which it falls off.
    """
    m = fft.next_fast_len(n, real=True)
    ky, kx = np.fft.fftfreq(m).astype(np.float32)[:, None], np.fft.rfftfreq(m).astype(np.float32)[None, :]
    k2 = kx * kx + ky * ky + np.float32(max(1 / m, 1 / longest) ** 2)
    # the amplitude is the root of the power k^-slope, and k2 is k squared
    amplitude = k2 ** np.float32(-slope / 4) * np.exp(-0.5 * k2 * np.float32(shortest) ** 2)
    amplitude[0, 0] = 0
    noise = rng.standard_normal((2, m, m // 2 + 1), np.float32)
    field = fft.irfft2((noise[0] + 1j * noise[1]) * amplitude, s=(m, m))[:n, :n]
    field = field - field.mean()
    return (field / (field.std() + 1e-20)).astype(np.float32)


def blur(field: Array, sigma: float) -> Array:
    """Periodic Gaussian blur of a field (Y, X) by FFT, which costs the same for any width; never negative.

    ``sigma`` is in pixels.
    """
    fy, fx = np.fft.fftfreq(field.shape[0])[:, None], np.fft.rfftfreq(field.shape[1])[None, :]
    gain = np.exp(-2 * (np.pi * sigma) ** 2 * (fy * fy + fx * fx)).astype(np.float32)
    return np.maximum(fft.irfft2(fft.rfft2(field) * gain, s=field.shape), 0)


def warp(field: Array, dy: Array, dx: Array) -> Array:
    """A field read at displaced positions, periodic, with linear interpolation; **flux is not kept**.

    Parameters
    ----------
    field : (Y, X) array
    dy, dx : (Y, X) array
        Displacements in pixels.
    """
    y, x = np.indices(field.shape, dtype=np.float32)
    return ndimage.map_coordinates(field, [y + dy, x + dx], order=1, mode="grid-wrap").astype(np.float32)


def values_at(field: Array, x: Array, y: Array) -> Array:
    """Values of a field at positions: those of the nearest pixel, clamped at the border.

    Parameters
    ----------
    field : (n, n) array
        Over the padded frame.
    x, y : (...) array
        Pixels of the frame.
    """
    n = field.shape[0]
    iy, ix = (np.clip(np.rint(v + MARGIN).astype(int), 0, n - 1) for v in (y, x))
    return field[iy, ix]


def uniform_positions(rng: Rng, size: int, n: int) -> tuple[Array, Array]:
    """`n` uniform positions over the padded frame, as (x, y)."""
    x, y = rng.uniform(-MARGIN, size + MARGIN, (2, n))
    return x, y


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """A number between `low` and `high`, uniform in the logarithm."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def log_uniforms(rng: Rng, low: float, high: float, n: int) -> Array:
    """`n` such numbers."""
    return np.exp(rng.uniform(np.log(low), np.log(high), n))
