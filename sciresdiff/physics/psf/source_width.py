"""How wide a frame's point sources are, in units of the PSF that is believed of it.

All sources of a window are fitted at once: flux, place and width of each, above a smooth background.  That is what
tells the width in a crowded field, where no source stands alone.  The profile is the PSF itself, drawn out radially, so
that any PSF will do, a measured image too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import linalg
from scipy.spatial import cKDTree

from sciresdiff.physics.psf.width import sigma_of_square
from sciresdiff.physics.sky import background_map

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SIDE, WINDOWS = 32, 16
"""Side of a window, px, and how many are fitted at most: those with the most bright sources."""
PASSES, LOOKS = 7, 4
"""Least-squares steps, and after how many of the first ones the residual is searched for more sources."""
FIRST, FAINT = 20.0, 10.0
"""Height of a peak over its noise, in the first look and in the others."""
BRIGHT = 50.0
"""Signal-to-noise ratio of a source from which its width counts."""
SHARP = 0.05
"""Largest error of a width that counts."""
PROFILE_ERROR = 0.02
"""Share of a pixel's light by which the profile may be wrong, so that the brightest source does not decide alone."""
MISFIT = 9.0
"""Largest chi2 per pixel of a source that counts: what is worse is no point source, or several."""
LOOSE_PLACE, LOOSE_WIDTH = 0.3, 0.15
"""Standard deviations, px and relative, to which a step of place and width is held where the data say nothing."""


@dataclass(frozen=True)
class SourceWidths:
    """Widths of point-like sources."""

    widths: Array
    """(n,), in units of the PSF's."""
    errors: Array
    """(n,), standard deviations by the noise alone."""


@dataclass(frozen=True)
class Profile:
    """A PSF on a fine grid, drawn out or pressed together, as pixels that are ``scale`` times larger see it."""

    whole: Array
    """(K, L), odd sides, centred, sum 1, on the fine grid."""
    scale: int

    @cached_property
    def cumulative(self) -> Array:
        """Spline coefficients of the integral from the corner to every edge between two fine pixels."""
        total = np.pad(self.whole, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
        return np.asarray(ndimage.spline_filter(total, order=3))

    @cached_property
    def sigma(self) -> float:
        """Sigma as the coarse pixel sees it, coarse px; a pixel adds 1/12 px^2."""
        return float(np.sqrt(sigma_of_square(self.whole) ** 2 + self.scale**2 / 12) / self.scale)

    def at(self, place: Array, width: float, radius: int) -> Array:
        """The light in the pixels around sources of flux 1.

        The integral of p(r / q) / q^2 over a pixel is that of p over the pixel divided by q, which is why one table
        serves all widths.

        Parameters
        ----------
        place : (n, 2), of the sources in units of px from the centre of the middle pixel.
        width : q, in units of the PSF's.
        radius : px on each side of the middle one.

        Returns
        -------
        (n, 2 radius + 1, 2 radius + 1)
        """
        edges = np.arange(-radius, radius + 2) - 0.5
        middle = [n / 2 for n in self.whole.shape]
        y, x = ((edges - place[:, axis, None]) * (self.scale / width) + middle[axis] for axis in (0, 1))
        size = (len(place), len(edges), len(edges))
        at = [np.broadcast_to(y[:, :, None], size), np.broadcast_to(x[:, None, :], size)]
        total = ndimage.map_coordinates(self.cumulative, at, order=3, prefilter=False, mode="nearest")
        return np.asarray(np.diff(np.diff(total, axis=1), axis=2))


@dataclass(frozen=True)
class Window:
    """A part of a frame above its sky, with a masked border as wide as a source reaches."""

    light: Array
    """(h, w), any unit."""
    good: Mask
    variance: Array
    radius: int

    @cached_property
    def background(self) -> sparse.csr_matrix:
        """(h w, n): bilinear hats on a coarse mesh, whose sum any smooth background is."""
        return bilinear_hats(self.light.shape, max(8, 4 * self.radius))

    @cached_property
    def weight(self) -> Array:
        """(h w,), one over the standard deviation; 0 where masked."""
        sigma = np.sqrt(self.variance + (PROFILE_ERROR * self.light) ** 2)
        return np.asarray(np.where(self.good, 1 / sigma, 0).ravel())


@dataclass(frozen=True)
class Sources:
    """What is known of the sources in a window."""

    place: Array = field(default_factory=lambda: np.zeros((0, 2)))
    """(n, 2), y and x, px."""
    flux: Array = field(default_factory=lambda: np.zeros(0))

    def add(self, peaks: NDArray[np.int64], flux: Array) -> Sources:
        """With peaks (m, 2) that are further than a pixel from all others."""
        new = np.ones(len(peaks), bool)
        if len(self.place) and len(peaks):
            new = cKDTree(self.place).query(peaks)[0] > 1
        return Sources(np.concatenate([self.place, peaks[new]]), np.concatenate([self.flux, flux[new]]))


def source_widths(pixels: NDArray[Any], mask: Mask, variance: NDArray[Any], whole: Array, scale: int) -> SourceWidths:
    """Widths of the bright sources of a frame that look like points.

    Parameters
    ----------
    pixels : (h, w), any unit.
    mask : (h, w), True where a pixel is bad.
    variance : (h, w), that unit squared.
    whole : (K, L), the PSF on a grid ``scale`` times finer, not integrated over the frame's pixel; odd sides, centred.
    scale : fine pixels per pixel of the frame.

    Returns
    -------
    SourceWidths of none, where the frame shows none.  **Sources that blend, and small galaxies, come out too wide**;
    nothing but a cosmic ray or a hot pixel comes out too narrow.
    """
    good = ~mask & np.isfinite(pixels) & np.isfinite(variance) & (variance > 0)
    none = SourceWidths(np.zeros(0), np.zeros(0))
    if min(pixels.shape) < 16 or good.mean() < 0.05:
        return none
    profile = Profile(whole / whole.sum(), scale)
    radius = int(np.clip(np.ceil(3 * profile.sigma), 2, 12))
    light = np.where(good, pixels - background_map(pixels, ~good), 0.0).astype(np.float64)
    noise = np.where(good, variance, 1.0).astype(np.float64)
    found = [fit_window(window, profile) for window in busy_windows(light, good, noise, radius)]
    return SourceWidths(*(np.concatenate(each) for each in zip(*found, strict=True))) if found else none


def busy_windows(light: Array, good: Mask, variance: Array, radius: int) -> list[Window]:
    """The windows of a frame with the most bright peaks, in the order of their places."""
    peaks = find_peaks(light, light, good, variance, FIRST)
    tiles = peaks // SIDE
    places, counts = np.unique(tiles, axis=0, return_counts=True) if len(peaks) else (tiles, np.zeros(0, int))
    best = places[np.argsort(-counts, kind="stable")[:WINDOWS]]
    windows = []
    for y, x in sorted(map(tuple, best * SIDE)):
        here = slice(y, y + SIDE), slice(x, x + SIDE)
        seen = np.pad(good[here], radius, constant_values=False)
        noise = np.pad(variance[here], radius, constant_values=1)
        windows.append(Window(np.pad(light[here], radius), seen, noise, radius))
    return windows


def find_peaks(residual: Array, light: Array, good: Mask, variance: Array, height: float) -> NDArray[np.int64]:
    """(n, 2) pixels that are the highest of their 3 x 3 and so many times their noise.

    Parameters
    ----------
    residual, light : (h, w), what is searched, and the frame, of which 5 % count as noise beside bright sources.
    """
    noise = np.sqrt(variance + (0.05 * np.where(residual is light, 0, light)) ** 2)
    highest = ndimage.maximum_filter(residual, 3) == residual
    return np.argwhere(highest & good & (residual > height * noise))


def fit_window(window: Window, profile: Profile) -> tuple[Array, Array]:
    """Widths of a window's point sources and their errors, by Gauss-Newton steps for all of them at once."""
    sources, width, model = Sources(), 1.0, np.zeros_like(window.light)
    widths = errors = np.zeros(0)
    for step in range(PASSES):
        if step < LOOKS:
            residual = window.light - model
            peaks = find_peaks(residual, window.light if step else residual, window.good, window.variance,
                               FAINT if step else FIRST)  # fmt: skip
            top = profile.at(np.zeros((1, 2)), width, 0).item()
            sources = sources.add(peaks, residual[tuple(peaks.T)] / top)
        if not len(sources.flux):
            break
        fit = fit_sources(window, profile, sources, width, step >= LOOKS - 1)
        sources, model = fit.sources, fit.model
        widths, errors = fit.widths, fit.errors
        if len(widths) >= 5:
            width = float(np.clip(np.median(widths), 0.5, 2.0))
    return widths, errors


@dataclass(frozen=True)
class SceneFit:
    """One step of the fit of a window."""

    sources: Sources
    model: Array
    """(h, w), of all sources and the background."""
    widths: Array
    """(n,), of the sources that count."""
    errors: Array


def fit_sources(window: Window, profile: Profile, sources: Sources, width: float, free: bool) -> SceneFit:
    """A linear least-squares step for fluxes, places, background and, if ``free``, the width of every source.

    Parameters
    ----------
    sources : so far.
    width : about which the profile is linear, in units of the PSF's.
    """
    n, radius, e = len(sources.flux), window.radius, 0.05
    middle = np.clip(np.rint(sources.place).astype(int), radius, np.array(window.light.shape) - radius - 1)
    offset, flux = sources.place - middle, sources.flux[:, None, None]

    def slope(dy: float, dx: float, dq: float) -> Array:
        """Central difference of the profile."""
        shift = np.array([dy, dx])
        ahead, behind = (profile.at(offset + sign * shift, width + sign * dq, radius) for sign in (1, -1))
        return flux * (ahead - behind) / (2 * (dy + dx + dq))

    line = np.arange(-radius, radius + 1)
    rows = (
        (middle[:, 0, None] + line)[:, :, None] * window.light.shape[1] + (middle[:, 1, None] + line)[:, None]
    ).reshape(n, -1)
    unit = profile.at(offset, width, radius)
    parts = [unit, slope(e, 0, 0), slope(0, e, 0), *([slope(0, 0, e)] if free else [])]
    columns = np.stack([part.reshape(n, -1) for part in parts])  # (kinds, n, pixels)
    numbers = np.repeat(np.arange(len(parts) * n), rows.shape[1])
    at = np.tile(rows.ravel(), len(parts))
    shape = (window.light.size, len(parts) * n)
    matrix = sparse.hstack([sparse.csr_matrix((columns.ravel(), (at, numbers)), shape=shape), window.background])
    known = np.bincount(rows.ravel(), (flux * unit).ravel(), window.light.size)
    change = solve(matrix, window.light.ravel() - known, window.weight, n, len(parts))
    model = known + matrix @ change
    chi2 = (((window.light.ravel() - model) * window.weight) ** 2)[rows].mean(1)
    moved = sources.place + np.clip(change[n : 3 * n].reshape(2, n).T, -0.5, 0.5)
    after, inside = (
        sources.flux + change[:n],
        ((moved >= radius) & (moved < np.array(window.light.shape) - radius)).all(1),
    )
    widths = errors = np.zeros(0)
    if free:
        errors, signal = width_errors(columns, window.weight[rows], after)
        core = window.good[tuple(middle.T)] & (errors < SHARP) & (signal > BRIGHT) & (chi2 < MISFIT) & (after > 0)
        widths, errors = (width + change[3 * n : 4 * n])[core], errors[core]
    keep = (after > 0) & inside
    return SceneFit(Sources(moved[keep], after[keep]), model.reshape(window.light.shape), widths, errors)


def solve(matrix: sparse.spmatrix, residual: Array, weight: Array, n: int, kinds: int) -> Array:
    """Weighted least squares with loose bounds on what the data do not tell.

    Parameters
    ----------
    matrix : (pixels, unknowns), of ``kinds`` unknowns of every one of ``n`` sources and the background.
    residual, weight : (pixels,).
    """
    weighted = sparse.diags(weight) @ matrix
    normal = (weighted.T @ weighted).tocsc()
    diagonal = normal.diagonal()
    bound = np.full(len(diagonal), 1e-6 * diagonal[kinds * n :].max())
    bound[:n] = 1e-9 * diagonal[:n] + np.finfo(float).tiny
    bound[n : 3 * n] = 1 / LOOSE_PLACE**2
    bound[3 * n : kinds * n] = 1 / LOOSE_WIDTH**2
    # symmetric and positive, so that no pivots need be looked for: SuperLU is then four times as fast
    factors = linalg.splu(
        normal + sparse.diags(bound).tocsc(), "MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )
    return np.asarray(factors.solve(weighted.T @ (weight * residual)))


def width_errors(columns: Array, weight: Array, flux: Array) -> tuple[Array, Array]:
    """Errors of the widths, and the signal-to-noise ratio of the fluxes, of sources by themselves.

    Parameters
    ----------
    columns : (4, n, pixels), the derivatives by flux, y, x and width.
    weight : (n, pixels).
    flux : (n,).
    """
    scaled = columns * weight
    normal = np.einsum("inp,jnp->nij", scaled, scaled)
    kinds = np.arange(4)
    normal[:, kinds, kinds] = normal[:, kinds, kinds] * (1 + 1e-9) + np.finfo(float).tiny
    return np.sqrt(np.linalg.pinv(normal)[:, 3, 3]), flux * np.sqrt(normal[:, 0, 0])


def bilinear_hats(shape: tuple[int, ...], step: int) -> sparse.csr_matrix:
    """(h w, n) weights that interpolate n values of a mesh of so many px to every pixel."""
    y, x = (np.arange(side) / step for side in shape)
    columns = int(x[-1]) + 2
    rows = np.arange(shape[0] * shape[1])
    count = (int(y[-1]) + 2) * columns
    total = sparse.csr_matrix((len(rows), count))
    for dy in (0, 1):
        for dx in (0, 1):
            i, j = y.astype(int) + dy, x.astype(int) + dx
            share = np.outer(1 - np.abs(y - i), 1 - np.abs(x - j))
            total = total + sparse.csr_matrix(
                (share.ravel(), (rows, np.add.outer(i * columns, j).ravel())), total.shape
            )
    return total
