"""Elliptical Moffat profiles fitted to many sources at once."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from sciresdiff.physics.psf.spec import PSFSpec

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

NAMES = ("amplitude", "y", "x", "ln_fwhm", "wings", "e1", "e2", "sky")
"""Parameters of a profile, in the order of the fit; ``wings`` is 1 / beta, 0 of a Gaussian."""

LOW = np.array([0, -3, -3, np.log(0.25), 0.004, -1.5, -1.5, -np.inf])
HIGH = np.array([np.inf, 3, 3, np.log(60), 0.85, 1.5, 1.5, np.inf])
"""Limits of the parameters; the centre is in px from the pixel that the source was found at."""

MODEL_ERROR = 0.02
"""What no Moffat describes of a real PSF, as a share of its value; it keeps bright sources from outweighing others."""

CHUNK = 60_000
"""Pixels times sources that are worked on at a time."""


@dataclass(frozen=True)
class MoffatShape:
    """An elliptical Moffat without its place and flux."""

    fwhm: float
    """Geometric mean of the axes, px, before the pixel integrates it."""
    wings: float
    """1 / beta; 0 of a Gaussian."""
    e1: float = 0.0
    """Logarithm of the axis ratio times cos(2 theta)."""
    e2: float = 0.0
    """The same times sin(2 theta)."""

    @property
    def spec(self) -> PSFSpec:
        """As a SPEC: a Gaussian where beta is above 40, a circle where the axes agree to 2 %."""
        params: dict[str, tuple[float, str]] = {"fwhm": (self.fwhm, "px")}
        gaussian = self.wings < 1 / 40
        if not gaussian:
            params["beta"] = (1 / self.wings, "")
        e = float(np.hypot(self.e1, self.e2))
        if e > 0.02:
            theta = float(np.rad2deg(0.5 * np.arctan2(self.e2, self.e1)))
            params |= {"ratio": (float(np.exp(-e)), ""), "theta": (theta, "deg")}
        return PSFSpec("gaussian" if gaussian else "moffat", params)


@dataclass(frozen=True)
class Prior:
    """What is known of the shape before a source is fitted: Gaussians in 1 / beta, e1 and e2."""

    wings: float = 0.25
    wings_error: float = 0.2
    e1: float = 0.0
    e2: float = 0.0
    e_error: float = 0.4

    @property
    def mean(self) -> Array:
        """(8,) of the parameters; 0 where nothing is known."""
        return np.array([0, 0, 0, 0, self.wings, self.e1, self.e2, 0])

    @property
    def weight(self) -> Array:
        """(8,) 1 / error^2."""
        return np.array([0, 0, 0, 0, self.wings_error**-2, self.e_error**-2, self.e_error**-2, 0])


@dataclass(frozen=True)
class MoffatFits:
    """Fits of n sources; every field is an (n,) array."""

    y: Array
    """Centre, px of the frame."""
    x: Array
    peak: Array
    """Of the profile before the pixel integrates it, in the frame's unit."""
    sky: Array
    fwhm: Array
    """Geometric mean of the axes, px, before the pixel integrates it."""
    wings: Array
    """1 / beta, the power of the wings; 0 of a Gaussian."""
    e1: Array
    """Logarithm of the axis ratio times cos(2 theta)."""
    e2: Array
    """The same times sin(2 theta)."""
    error: Array
    """Of ln FWHM, from noise and misfit."""
    e_error: Array
    """Of e1 and e2."""
    snr: Array
    """Of the peak."""
    misfit: Array
    """What the profile leaves in the core beyond the noise, rms, as a share of the peak."""

    def __len__(self) -> int:
        """Number of sources."""
        return len(self.y)

    def __getitem__(self, chosen: Mask | NDArray[np.int64]) -> MoffatFits:
        """Some of them."""
        return MoffatFits(*(getattr(self, f.name)[chosen] for f in fields(self)))


@dataclass(frozen=True)
class Stamps:
    """Cut-outs of n sources of (2 r + 1)^2 pixels each."""

    data: Array
    """(n, P)."""
    noise: Array
    """(n, P) variance; infinite where a pixel does not count."""
    places: NDArray[np.int64]
    """(n, 2) pixel of the frame at the middle."""
    radius: int

    def __len__(self) -> int:
        """Number of sources."""
        return len(self.data)

    @property
    def grid(self) -> tuple[Array, Array]:
        """(P,) offsets of the pixels from the middle, y and x."""
        line = np.arange(-self.radius, self.radius + 1.0)
        y, x = np.meshgrid(line, line, indexing="ij")
        return y.ravel(), x.ravel()

    def __getitem__(self, chosen: Mask | slice | NDArray[np.int64]) -> Stamps:
        """Some of them."""
        return Stamps(self.data[chosen], self.noise[chosen], self.places[chosen], self.radius)


def cut_stamps(flat: Array, noise: Array, places: NDArray[np.int64], radius: int) -> Stamps:
    """Cut-outs around places; what lies outside the frame does not count.

    Parameters
    ----------
    flat : (Y, X) array
        Without sky.
    noise : (Y, X) array
        Variance; infinite at bad pixels.
    places : (n, 2) integer array
        y and x.
    radius : int
        Half of the side.
    """
    offsets = np.arange(-radius, radius + 1)
    y, x = places[:, 0, None, None] + offsets[:, None], places[:, 1, None, None] + offsets[None, :]
    inside = (y >= 0) & (y < flat.shape[0]) & (x >= 0) & (x < flat.shape[1])
    y, x = np.clip(y, 0, flat.shape[0] - 1), np.clip(x, 0, flat.shape[1] - 1)
    shape = len(places), (2 * radius + 1) ** 2
    data, variance = flat[y, x].astype(np.float64), np.where(inside, noise[y, x], np.inf)
    return Stamps(data.reshape(shape), variance.reshape(shape), places, radius)


def fit_moffats(stamps: Stamps, fwhm: float, prior: Prior | None = None, rounds: int = 30) -> MoffatFits:
    """Fits of all sources by damped least squares (Levenberg 1944; Marquardt 1963), every source for itself.

    Flux, centre, width, wings, ellipticity and sky are free; the profile is integrated over the pixel.

    Parameters
    ----------
    stamps : Stamps
        Of the sources.
    fwhm : float
        A first guess, px.
    prior : Prior, optional
        Of the shape; a wide one by default.
    rounds : int
        Iterations at most.
    """
    prior = prior or Prior()
    step = max(1, CHUNK // stamps.data.shape[1])
    parts = [_fit_part(stamps[i : i + step], fwhm, prior, rounds) for i in range(0, len(stamps), step)]
    if not parts:
        return MoffatFits(*(np.zeros(0) for _ in fields(MoffatFits)))
    return MoffatFits(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(MoffatFits)))


def _fit_part(stamps: Stamps, fwhm: float, prior: Prior, rounds: int) -> MoffatFits:
    """As `fit_moffats`, of a few sources; amplitudes in units of the brightest pixel."""
    unit = np.maximum(np.where(np.isfinite(stamps.noise), stamps.data, -np.inf).max(1), 1e-300)[:, None]
    unit = np.where(np.isfinite(unit), unit, 1.0)
    data, noise = stamps.data / unit, stamps.noise / unit**2
    data = np.where(np.isfinite(noise), data, 0.0)
    weight = 1 / (noise + (MODEL_ERROR * np.clip(data, 0, None)) ** 2)
    p = np.tile([1.0, 0, 0, np.log(fwhm), prior.wings, prior.e1, prior.e2, 0], (len(data), 1))
    p, cost, curvature = _minimise(p, data, weight, stamps.grid, prior, fwhm, rounds)
    used = np.isfinite(noise).sum(1)
    chi2 = cost / np.maximum(used - len(NAMES), 1)
    covariance = np.linalg.inv(curvature + 1e-12 * np.eye(len(NAMES))) * np.maximum(chi2, 1)[:, None, None]
    spread = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0))
    core = np.hypot(stamps.grid[0] - p[:, 1:2], stamps.grid[1] - p[:, 2:3]) < np.maximum(np.exp(p[:, 3:4]), 1.5)
    misfit = _misfit(p, data, noise, stamps.grid, core, fwhm)
    scale = unit[:, 0]
    sigma = np.sqrt(np.median(np.where(np.isfinite(noise), noise, np.nanmedian(noise)), 1))
    return MoffatFits(
        y=stamps.places[:, 0] + p[:, 1], x=stamps.places[:, 1] + p[:, 2], peak=p[:, 0] * scale, sky=p[:, 7] * scale,
        fwhm=np.exp(p[:, 3]), wings=p[:, 4], e1=p[:, 5], e2=p[:, 6],
        error=spread[:, 3], e_error=np.hypot(spread[:, 5], spread[:, 6]) / np.sqrt(2),
        snr=p[:, 0] / np.maximum(sigma, 1e-300), misfit=misfit,
    )  # fmt: skip


def _misfit(p: Array, data: Array, noise: Array, grid: tuple[Array, Array], core: Mask, fwhm: float) -> Array:
    """rms residual over the core, without what the noise adds, over the peak of the profile as the pixels show it."""
    model = moffat_pixels(p, grid, fwhm)[0]
    good = core & np.isfinite(noise)
    count = np.maximum(good.sum(1), 1)
    squares = (np.where(good, (data - model) ** 2 - noise, 0.0)).sum(1) / count
    top = np.maximum((model - p[:, 7:8]).max(1), 1e-12)
    return np.asarray(np.sqrt(np.maximum(squares, 0)) / top)


def _minimise(
    p: Array, data: Array, weight: Array, grid: tuple[Array, Array], prior: Prior, fwhm: float, rounds: int
) -> tuple[Array, Array, Array]:
    """Parameters (n, 8), weighted sum of squares without the prior (n,), curvature with it (n, 8, 8)."""
    n = len(p)
    mean, known = prior.mean, prior.weight
    damp = np.full(n, 1e-2)
    live = np.arange(n)
    cost, total, gradient, curvature = (np.zeros(n), np.zeros(n), np.zeros((n, 8)), np.zeros((n, 8, 8)))

    def evaluate(q: Array, i: NDArray[np.int64]) -> tuple[Array, Array, Array, Array]:
        model, slope = moffat_pixels(q, grid, fwhm)
        left = (data[i] - model) * weight[i]
        off = q - mean
        bare = ((data[i] - model) * left).sum(1)
        down = np.einsum("npk,np->nk", slope, left) - known * off
        bend = np.einsum("npk,npl->nkl", slope * weight[i][:, :, None], slope) + np.diag(known)
        return bare, bare + (known * off**2).sum(1), down, bend

    cost[:], total[:], gradient[:], curvature[:] = evaluate(p, live)
    for _ in range(rounds):
        bend = curvature[live]
        diagonal = np.diagonal(bend, axis1=1, axis2=2)
        bend = bend + (damp[live, None] * diagonal + 1e-12)[:, :, None] * np.eye(8)
        step = np.linalg.solve(bend, gradient[live][:, :, None])[:, :, 0]
        # a step of the width by more than a factor of 1.6 leaves the range where the profile is nearly linear
        step[:, 1:7] = np.clip(step[:, 1:7], -0.5, 0.5)
        trial = np.clip(p[live] + step, LOW, HIGH)
        found = evaluate(trial, live)
        better = found[1] <= total[live]
        done = better & (np.abs(trial - p[live])[:, 1:7].max(1) < 1e-4)
        win = live[better]
        p[win] = trial[better]
        for store, new in zip((cost, total, gradient, curvature), found, strict=True):
            store[win] = new[better]
        damp[live] = np.where(better, damp[live] / 5, damp[live] * 6)
        live = live[~done & (damp[live] < 1e8)]
        if not len(live):
            break
    return p, cost, curvature


def moffat_pixels(p: Array, grid: tuple[Array, Array], fwhm: float) -> tuple[Array, Array]:
    """Profiles integrated over the pixel, and their derivatives by the parameters.

    With r2 = x'^2 e^-e + y'^2 e^e the squared elliptical radius: m = (1 + r2 / alpha^2)^-beta,
    alpha^2 = FWHM^2 / (4 (2^(1/beta) - 1)).

    Parameters
    ----------
    p : (n, 8) array
        As `NAMES`.
    grid : two (P,) arrays
        y and x of the pixels.
    fwhm : float
        About the width, px: the narrower, the more nodes are taken over a pixel.

    Returns
    -------
    (n, P) and (n, P, 8) arrays
    """
    amplitude, y0, x0, width, wings, e1, e2, sky = (p[:, k : k + 1] for k in range(8))
    beta = 1 / wings
    growth = np.exp2(1 / beta) - 1
    per_alpha2 = 4 * growth * np.exp(-2 * width)
    bend = -np.exp2(1 / beta) * np.log(2) / beta**2 / growth  # d ln(growth) / d beta
    e = np.hypot(e1, e2)
    c, s = np.cosh(e), np.where(e > 1e-6, np.sinh(e) / np.maximum(e, 1e-6), 1.0)
    ds = np.where(e > 1e-3, (c - s) / np.maximum(e, 1e-3) ** 2, 1 / 3)  # d s / d e over e
    y, x = grid[0][None] - y0, grid[1][None] - x0
    model, slope = np.zeros(y.shape), np.zeros((*y.shape, 8))
    nodes, weights = np.polynomial.legendre.leggauss(4 if fwhm < 2 else 3 if fwhm < 4 else 2)
    for dy, wy in zip(nodes / 2, weights / 2, strict=True):
        for dx, wx in zip(nodes / 2, weights / 2, strict=True):
            yy, xx = y + dy, x + dx
            plus, minus, cross = xx**2 + yy**2, xx**2 - yy**2, 2 * xx * yy
            along = e1 * minus + e2 * cross
            r2 = (plus * c - s * along) * per_alpha2
            m = wy * wx * (1 + r2) ** -beta
            model += m
            by_r2 = -beta * m / (1 + r2) * per_alpha2
            slope[:, :, 1] -= by_r2 * (2 * yy * (c + s * e1) - 2 * s * e2 * xx)
            slope[:, :, 2] -= by_r2 * (2 * xx * (c - s * e1) - 2 * s * e2 * yy)
            slope[:, :, 3] -= by_r2 / per_alpha2 * 2 * r2
            slope[:, :, 4] -= beta**2 * (-np.log1p(r2) * m + by_r2 / per_alpha2 * r2 * bend)
            slope[:, :, 5] += by_r2 * (plus * s * e1 - ds * e1 * along - s * minus)
            slope[:, :, 6] += by_r2 * (plus * s * e2 - ds * e2 * along - s * cross)
    slope *= amplitude[:, :, None]
    slope[:, :, 0] = model
    slope[:, :, 7] = 1
    return amplitude * model + sky, slope
