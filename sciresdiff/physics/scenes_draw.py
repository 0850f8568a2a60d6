"""Drawing for simulated scenes: points and fields on an oversampled canvas, point spread functions, detector scars.

A canvas is an array of OVER x OVER sub-pixels per pixel that reaches MARGIN pixels beyond the frame on every side, so
that light from outside comes in. Points are drawn with a cubic B-spline, which is a quadratic B-spline integrated
over the sub-pixel: flux and centroid are exact at any position, nothing rings and nothing is negative. One FFT
convolution with the optical profile and a block sum (the pixel) finish the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Array = NDArray[Any]
Rng = np.random.Generator

OVER = 2
MARGIN = 48
# variance (pixels squared) that the B-spline and the block sum add to every optical profile
PIXEL_VARIANCE = (4 / 12 + 1 / 4) / OVER**2
FWHM_OF_SIGMA = 2.3548200450309493


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
class Psf:
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


def side(size: int) -> int:
    """Side of the padded frame in pixels."""
    return size + 2 * MARGIN


def canvas(size: int) -> Array:
    """Empty sub-pixel canvas for a frame of `size` pixels."""
    return np.zeros((OVER * side(size),) * 2, np.float32)


def grid(size: int) -> tuple[Array, Array]:
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
    first = np.floor(position).astype(np.int64)
    t = position - first
    return first, np.stack([1 - t, t])


def add_points(sub: Array, x: Array, y: Array, flux: Array, smooth: bool = True) -> None:
    """Add point sources to a canvas in place; points that leave the canvas are dropped.

    Parameters
    ----------
    sub : canvas
    x, y : (n,) frame coordinates in pixels
    flux : (n,) total flux of each
    smooth : bool
        Cubic B-spline weights (exact for stars); otherwise linear ones, four times cheaper, for dense curves.
    """
    n = sub.shape[0]
    taps = _spline if smooth else _linear
    ix, wx = taps((np.asarray(x, np.float64) + MARGIN + 0.5) * OVER - 0.5)
    iy, wy = taps((np.asarray(y, np.float64) + MARGIN + 0.5) * OVER - 0.5)
    k = len(wx)
    inside = (np.asarray(flux) > 0) & (ix >= 0) & (iy >= 0) & (ix + k <= n) & (iy + k <= n)
    ix, iy, wx, wy = ix[inside], iy[inside], wx[:, inside], wy[:, inside] * np.asarray(flux)[inside]
    step = np.arange(k)
    index = (iy + step[:, None])[:, None] * n + (ix + step[:, None])[None]
    sub += np.bincount(index.ravel(), (wy[:, None] * wx[None]).ravel(), n * n).reshape(n, n).astype(np.float32)


def add_field(sub: Array, field: Array) -> None:
    """Add a field of surface brightness, sampled at the pixels of the padded frame, to a canvas in place."""
    n = field.shape[0]
    sub.reshape(n, OVER, n, OVER)[...] += np.asarray(field, np.float32)[:, None, :, None] / OVER**2


def render(sub: Array, psf: Psf) -> Array:
    """Canvas seen through a point spread function: (side, side) float32, total flux kept, border periodic."""
    n, k = sub.shape[0], psf.kernel.shape[0]
    padded = np.zeros_like(sub)
    padded[:k, :k] = psf.kernel
    kernel = np.roll(padded, (-(k // 2), -(k // 2)), (0, 1))
    image = fft.irfft2(fft.rfft2(sub) * fft.rfft2(kernel), s=sub.shape)
    blocks = np.maximum(image, 0).reshape(n // OVER, OVER, n // OVER, OVER)
    return blocks.sum((1, 3), dtype=np.float32)


def crop(frame: Array) -> Array:
    """The frame without its margin."""
    return np.ascontiguousarray(frame[MARGIN:-MARGIN, MARGIN:-MARGIN], dtype=np.float32)


# --- point spread functions -------------------------------------------------------------------------------------


def _plane() -> tuple[Array, Array]:
    line = (np.arange(2 * OVER * MARGIN, dtype=np.float32) - OVER * MARGIN) / OVER
    return line[:, None], line[None, :]


def finish_psf(profile: Array) -> Psf:
    """Taper a profile to zero at the margin, normalise it, and measure it as a lone star."""
    y, x = _plane()
    taper = np.clip((MARGIN - np.hypot(x, y)) / (0.25 * MARGIN), 0, 1)
    kernel = profile * taper * taper * (3 - 2 * taper)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    fwhm, peak = _lone_star(kernel)
    return Psf(kernel, fwhm, peak)


def _lone_star(kernel: Array) -> tuple[float, float]:
    """Width (of the circle with the area above half maximum) and peak of a star as `render` shows it."""
    c, r = kernel.shape[0] // 2, 10 * OVER
    core = kernel[c - r : c + r + 1, c - r : c + r + 1].astype(np.float64)
    taps = np.convolve([1 / 48, 23 / 48, 23 / 48, 1 / 48], np.ones(2))  # B-spline half-way, then the pixel
    core = ndimage.convolve1d(ndimage.convolve1d(core, taps, 0), taps, 1)
    fine = ndimage.zoom(core, 8, order=3)
    step = (core.shape[0] - 1) / (fine.shape[0] - 1) / OVER
    area = np.count_nonzero(fine > fine.max() / 2) * step**2
    return float(2 * np.sqrt(area / np.pi)), float(core.max())


def optical(fwhm_px: float) -> float:
    """Optical width that, with the pixel, gives `fwhm_px`."""
    return float(np.sqrt(fwhm_px**2 - PIXEL_VARIANCE * FWHM_OF_SIGMA**2))


def _radius2(ellipticity: float, angle: float) -> Array:
    """Squared elliptical radius over the kernel's plane, area kept."""
    y, x = _plane()
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return u**2 * (1 - ellipticity) + v**2 / (1 - ellipticity)


def gaussian_psf(fwhm_px: float, ellipticity: float = 0.0, angle: float = 0.0) -> Psf:
    """Gaussian whose lone star has the width `fwhm_px` (pixel included)."""
    sigma = optical(fwhm_px) / FWHM_OF_SIGMA
    return finish_psf(np.exp(-_radius2(ellipticity, angle) / (2 * sigma**2)))


def moffat_psf(fwhm_px: float, beta: float, ellipticity: float = 0.0, angle: float = 0.0) -> Psf:
    """Moffat profile (1 + r^2 / a^2)^-beta, the seeing of a ground-based telescope."""
    a2 = (optical(fwhm_px) / 2) ** 2 / (2 ** (1 / beta) - 1)
    return finish_psf((1 + _radius2(ellipticity, angle) / a2) ** -beta)


def halo_psf(core_px: float, halo_px: float, share: float) -> Psf:
    """Two Gaussians: a core, and a halo with `share` of the flux."""
    r2 = _radius2(0.0, 0.0)
    core, halo = (optical(w) / FWHM_OF_SIGMA for w in (core_px, halo_px))
    inner = (1 - share) * np.exp(-r2 / (2 * core**2)) / core**2
    return finish_psf(inner + share * np.exp(-r2 / (2 * halo**2)) / halo**2)


def pupil_psf(
    rng: Rng,
    width_px: float,
    obstruction: float,
    spider: float,
    waves: float,
    stretch: float = 1.0,
    power: int = 1,
    scatter: float = 0.0,
) -> Psf:
    """Diffraction by an aberrated pupil, averaged over a band of wavelengths.

    Parameters
    ----------
    rng : random generator, for the aberrations
    width_px : float
        wavelength / diameter, in pixels (the width of the core is about the same).
    obstruction, spider : float
        Diameter of the central obstruction and width of the four vanes, in units of the pupil's diameter; 0 for none.
    waves : float
        Root-mean-square aberration in waves: low orders, and a weak zonal part that makes the halo's speckle.
    stretch : float
        Ratio of the pixel's sides on the sky.
    power : int
        2 for a confocal microscope (illumination times detection).
    scatter : float
        Share of the light in an exponential halo a few pixels wide.
    """
    n = 2 * OVER * MARGIN
    line = (np.arange(n, dtype=np.float32) - n / 2) * (2 * OVER * width_px / n)
    y, x = line[:, None] * stretch, line[None, :] / stretch
    turn = rng.uniform(0, np.pi / 2)
    total = np.zeros((n, n), np.float32)
    phase = _zernikes(rng, waves)
    zonal = [0.4 * waves * field for field in (random_field(rng, n, 2.0), random_field(rng, n, 1.0))]
    rough = zonal[0] + 0.5 * zonal[1]
    for shift in (0.9, 0.97, 1.03, 1.1):
        u, v = x * shift, y * shift
        wave = np.exp(np.complex64(2j * np.pi / shift) * (phase(u, v) + rough))
        field = np.fft.fft2(_aperture(u, v, obstruction, spider, turn, 2 * OVER * width_px / n) * wave)
        total += np.abs(field).astype(np.float32) ** 2
    profile = ndimage.gaussian_filter(np.fft.fftshift(total) ** power, OVER * rng.uniform(0.2, 0.4))
    far = np.sqrt(_radius2(0.0, 0.0)) / rng.uniform(4, 15)
    return finish_psf(profile / profile.sum() + scatter * np.exp(-far) / np.exp(-far).sum())


def _aperture(u: Array, v: Array, obstruction: float, spider: float, turn: float, step: float) -> Array:
    """Transmission of the pupil (radius 1), edges softened over one sample."""
    r = np.hypot(u, v)
    open_ = np.clip((1 - r) / step + 0.5, 0, 1) * np.clip((r - obstruction) / step + 0.5, 0, 1)
    if spider > 0:
        a, b = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
        for across in (a, b):
            open_ = open_ * np.clip((np.abs(across) - spider) / step + 0.5, max(0.0, 1 - 2 * spider / step), 1)
    return open_.astype(np.float32)


def _zernikes(rng: Rng, waves: float) -> Callable[[Array, Array], Array]:
    """Random defocus, astigmatism, coma, trefoil and sphere of `waves` in all, as a function of the pupil's plane."""
    c = rng.normal(size=8) * np.array([1, 1, 1, 0.8, 0.8, 0.5, 0.5, 0.7])
    c *= waves / np.sqrt((c**2).sum())

    def phase(u: Array, v: Array) -> Array:
        r2 = u * u + v * v
        low = c[0] * 1.73 * (2 * r2 - 1) + c[1] * 2.45 * (u * u - v * v) + c[2] * 4.9 * u * v
        coma = 2.83 * (3 * r2 - 2) * (c[3] * u + c[4] * v)
        trefoil = 2.83 * (c[5] * u * (u * u - 3 * v * v) + c[6] * v * (3 * u * u - v * v))
        return np.where(r2 < 1.2, low + coma + trefoil + c[7] * 2.24 * (6 * r2 * r2 - 6 * r2 + 1), 0).astype(np.float32)

    return phase


# --- fields -----------------------------------------------------------------------------------------------------


def random_field(rng: Rng, n: int, slope: float, longest: float = np.inf, shortest: float = 0.0) -> Array:
    """Gaussian random field (n, n) of mean 0 and variance 1 with the power spectrum k^-slope.

    Parameters
    ----------
    longest, shortest : float
        Wavelengths in pixels beyond which the spectrum is flat, and below which it falls off.
    """
    m = fft.next_fast_len(n, real=True)
    ky, kx = np.fft.fftfreq(m).astype(np.float32)[:, None], np.fft.rfftfreq(m).astype(np.float32)[None, :]
    k2 = kx * kx + ky * ky + np.float32(max(1 / m, 1 / longest) ** 2)
    amplitude = k2 ** np.float32(-slope / 4) * np.exp(-0.5 * k2 * np.float32(shortest) ** 2)
    amplitude[0, 0] = 0
    noise = rng.standard_normal((2, m, m // 2 + 1), np.float32)
    field = fft.irfft2((noise[0] + 1j * noise[1]) * amplitude, s=(m, m))[:n, :n]
    field = field - field.mean()
    return (field / (field.std() + 1e-20)).astype(np.float32)


def blur(field: Array, sigma: float) -> Array:
    """Periodic Gaussian blur by FFT, which costs the same for any width; never negative."""
    fy, fx = np.fft.fftfreq(field.shape[0])[:, None], np.fft.rfftfreq(field.shape[1])[None, :]
    gain = np.exp(-2 * (np.pi * sigma) ** 2 * (fy * fy + fx * fx)).astype(np.float32)
    return np.maximum(fft.irfft2(fft.rfft2(field) * gain, s=field.shape), 0)


def warp(field: Array, dy: Array, dx: Array) -> Array:
    """Field read at displaced positions (pixels), periodic."""
    y, x = np.indices(field.shape, dtype=np.float32)
    return ndimage.map_coordinates(field, [y + dy, x + dx], order=1, mode="grid-wrap").astype(np.float32)


def at(field: Array, x: Array, y: Array) -> Array:
    """Values of a padded-frame field at frame coordinates (nearest pixel, clamped)."""
    n = field.shape[0]
    iy, ix = (np.clip(np.rint(v + MARGIN).astype(int), 0, n - 1) for v in (y, x))
    return field[iy, ix]


def positions(rng: Rng, size: int, n: int) -> tuple[Array, Array]:
    """`n` uniform positions over the padded frame, as (x, y)."""
    x, y = rng.uniform(-MARGIN, size + MARGIN, (2, n))
    return x, y


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """A number between `low` and `high`, uniform in the logarithm."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def log_uniforms(rng: Rng, low: float, high: float, n: int) -> Array:
    """`n` such numbers."""
    return np.exp(rng.uniform(np.log(low), np.log(high), n))


# --- detector scars in the truth --------------------------------------------------------------------------------


def saturate(frame: Array, well: float | Array, up: float | Array = 0.5) -> Array:
    """Clip at the full well and bleed the excess along the columns until it is absorbed.

    Parameters
    ----------
    frame : (rows, columns)
    well : full well, a number or an array like `frame`
    up : share of the excess that moves towards row 0; a number or one per column

    Returns
    -------
    (rows, columns) array; flux is kept, **except for what bleeds over the first or last row**.
    """
    wells = np.broadcast_to(np.asarray(well, np.float64), frame.shape)
    hot = np.flatnonzero((frame > wells).any(0))
    limit = wells[:, hot]
    column = np.asarray(frame, np.float64)[:, hot]
    excess = np.maximum(column - limit, 0)
    share = np.broadcast_to(np.asarray(up, np.float64), frame.shape[1:])[hot]
    column = _push(column - excess, excess * (1 - share), limit)
    column = _push(column[::-1], (excess * share)[::-1], limit[::-1])[::-1]
    out = np.array(frame)
    out[:, hot] = column
    return out


def _push(column: Array, excess: Array, limit: Array) -> Array:
    """Carry the excess down the rows, each pixel taking what it has room for."""
    out, carry = column.copy(), np.zeros(column.shape[1])
    for row in range(len(out)):
        total = out[row] + excess[row] + carry
        out[row] = np.minimum(total, limit[row])
        carry = total - out[row]
    return out


def bleed(rng: Rng, frame: Array, well: float) -> Array:
    """`saturate` along a random axis, with a full well that differs by half a per cent from pixel to pixel."""
    wells = well * (1 + 0.005 * rng.standard_normal(frame.shape))
    up = rng.uniform(0.3, 0.7, frame.shape[1])
    if rng.random() < 0.25:
        return saturate(frame.T, wells, up).T.astype(np.float32)
    return saturate(frame, wells, up).astype(np.float32)


def add_hits(rng: Rng, frame: Array, n: int, brightest: float) -> None:
    """Add cosmic-ray hits in place: tracks one pixel wide, most of them short."""
    for _ in range(n):
        length = max(1, int(rng.exponential(4.0)))
        x, y = rng.uniform(0, frame.shape[0], 2)
        angle = rng.uniform(0, 2 * np.pi)
        t = np.arange(length)
        ix, iy = (x + t * np.cos(angle)).astype(int), (y + t * np.sin(angle)).astype(int)
        inside = (ix >= 0) & (iy >= 0) & (ix < frame.shape[1]) & (iy < frame.shape[0])
        value = log_uniform(rng, 10, brightest) * rng.uniform(0.4, 1.6, length)
        frame[iy[inside], ix[inside]] += value[inside].astype(np.float32)
