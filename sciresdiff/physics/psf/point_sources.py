"""Point-like sources of a frame: where they are, which of them stand clear of others, and which have one width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from sciresdiff.physics.psf.moffat_fit import MoffatFits, Prior, Stamps, cut_stamps, fit_moffats
from sciresdiff.physics.sky import background_map, sky_noise

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Places = NDArray[np.int64]

DETECTED = 12.0
"""Signal to noise of a source in the smoothed frame."""

CLEAR = (0.01, 0.03, 0.1, 0.3)
"""Light of its neighbours at a source's middle, as a share of its own: what is allowed, in turn, until enough pass."""

ENOUGH = 40
"""Sources that are enough for a stricter choice."""

NARROWEST = 0.5
"""FWHM, px, below which a peak is a hot pixel: the optics of no star are narrower than half a pixel."""

ROUNDEST_CORE = 1.2
"""Largest logarithm of an axis ratio: 3.3; tracks of cosmic rays are longer."""

POOREST = 0.12
"""Largest misfit in the core, as a share of the peak; doubles, galaxies with arms and tracks have more."""

DOMINANT = 0.6
"""Share of what all sources say from which those of one width are the points, however many narrower ones there are."""

ENVELOPE = 0.25
"""What the narrowest sources have to say, as a share of what the most numerous ones do."""

STRAY = 0.1
"""Narrower sources that may be strays beside such a majority, as a share of what it says."""

NARROWEST_OF_FEW = 1.2
"""FWHM, px, below which a minority is no star but what cosmic rays leave."""

WELL = 0.08
"""Error of ln FWHM up to which a source is well measured."""

BRIGHT = 12.0
"""Signal to noise of the peak from which a source may be the narrowest."""

SCATTER = 0.04
"""Least width of a kernel in ln FWHM, with which the density of sources is measured."""


@dataclass(frozen=True)
class Field:
    """A plane that is ready to be measured."""

    flat: Array
    """(Y, X) without background; 0 where bad."""
    noise: Array
    """(Y, X) variance; infinite where bad."""
    bad: Mask
    sigma: float
    """Of the sky; 0 where there is none to measure."""


@dataclass(frozen=True)
class Population:
    """The fits of the sources of a field that can be used, and which of them are taken for points."""

    fits: MoffatFits
    stamps: Stamps
    point: Mask
    """(n,) True for those of one width."""
    share: float
    """What they say of the width, as a share of what all say that can be used."""
    found: int
    """Sources that were seen at all."""

    @property
    def points(self) -> MoffatFits:
        """The sources that are taken for points."""
        return self.fits[self.point]


def prepare_field(pixels: NDArray[Any], mask: Mask | None, variance: NDArray[Any] | None) -> Field:
    """Background taken off, noise of every pixel, bad pixels out.

    Parameters
    ----------
    pixels : (Y, X) array
    mask : (Y, X) bool array or None
        True where a pixel is bad.
    variance : (Y, X) array or None
        Without it the sky's scatter serves.
    """
    pixels = np.asarray(pixels, np.float64)
    bad = ~np.isfinite(pixels) if mask is None else ~np.isfinite(pixels) | mask
    flat = np.where(bad, 0.0, pixels - background_map(pixels, bad))
    sigma = sky_noise(pixels, bad) if (~bad).any() else 0.0
    noise = np.full(pixels.shape, sigma**2)
    if variance is not None:
        stated = np.asarray(variance, np.float64)
        # a plane of variance that says nothing of a pixel, or says 0, leaves it to the sky's scatter
        noise = np.where(np.isfinite(stated), np.maximum(stated, 0.01 * sigma**2), sigma**2)
    return Field(flat, np.where(bad, np.inf, noise), bad, sigma)


def find_peaks(field: Field, fwhm: float) -> tuple[Places, Array]:
    """Local maxima of the frame smoothed over about half of the PSF, `DETECTED` sigma above the sky; brightest first.

    Parameters
    ----------
    field : Field
    fwhm : float
        About that of the PSF, px.

    Returns
    -------
    (n, 2) pixels and (n,) heights, the latter of the smoothed frame.
    """
    spread = max(0.3 * fwhm, 0.6)
    smooth = ndimage.gaussian_filter(field.flat, spread)
    noise = field.sigma / (2 * np.sqrt(np.pi) * spread)  # of white noise under a Gaussian
    side = 2 * max(1, round(0.5 * fwhm)) + 1
    top = (smooth == ndimage.maximum_filter(smooth, side)) & (smooth > DETECTED * noise) & ~field.bad
    places = np.argwhere(top)
    heights = smooth[top]
    order = np.argsort(-heights, kind="stable")
    return places[order], heights[order]


def choose_clear(places: Places, heights: Array, fwhm: float, most: int) -> tuple[Places, list[Places]]:
    """Sources that neighbours reach least, of every brightness; and for each the numbers of its neighbours.

    Half of them are the brightest ones, the others are spread over all ranks, so that bright sources that cannot be
    used (saturated, with spikes) do not decide.

    Parameters
    ----------
    places, heights : (n, 2) and (n,)
        As `find_peaks`.
    fwhm : float
        About that of the PSF, px.
    most : int
        How many.

    Returns
    -------
    (m,) numbers of sources, and m arrays of numbers.
    """
    near = cKDTree(places).query_ball_point(places, 4 * fwhm + 4)
    others = [np.array([j for j in row if j != i], np.int64) for i, row in enumerate(near)]
    light = np.array(
        [
            (heights[row] * wing(np.hypot(*(places[row] - places[i]).T), fwhm)).sum() / heights[i] if len(row) else 0.0
            for i, row in enumerate(others)
        ]
    )
    wanted = min(ENOUGH, most)
    clear = next((np.flatnonzero(light < limit) for limit in CLEAR if (light < limit).sum() >= wanted), None)
    if clear is None:
        clear = np.flatnonzero(light < CLEAR[-1])
    if len(clear) > most:
        rest = clear[most // 2 :]
        clear = np.r_[clear[: most // 2], rest[np.linspace(0, len(rest) - 1, most - most // 2).astype(int)]]
    return clear, [others[i] for i in clear]


def wing(distance: Array, fwhm: float) -> Array:
    """A round Moffat profile of beta 3, 1 at the centre: how far the light of a neighbour reaches, about."""
    return np.asarray((1 + 4 * (2 ** (1 / 3) - 1) * (distance / fwhm) ** 2) ** -3.0)


def mask_neighbours(
    stamps: Stamps, places: Places, heights: Array, own: Places, others: list[Places], fwhm: float
) -> Stamps:
    """The stamps without the pixels where a neighbour has more than a third of the source's own light.

    Parameters
    ----------
    stamps : Stamps
        Of the sources ``own``.
    places, heights : (n, 2) and (n,)
        Of all sources.
    own : (m,) numbers
    others : m arrays of numbers
    fwhm : float
        About that of the PSF, px.
    """
    y, x = stamps.grid
    noise = stamps.noise.copy()
    for k, (i, row) in enumerate(zip(own, others, strict=True)):
        mine = heights[i] * wing(np.hypot(y, x), fwhm)
        for j in row:
            dy, dx = places[j] - places[i]
            theirs = heights[j] * wing(np.hypot(y - dy, x - dx), fwhm)
            noise[k, theirs > mine / 3] = np.inf
    return Stamps(stamps.data, noise, stamps.places, stamps.radius)


def whole_enough(stamps: Stamps, fwhm: float) -> Mask:
    """Stamps whose core has no bad pixel and of which 40 % are left: (n,)."""
    good = np.isfinite(stamps.noise)
    core = np.hypot(*stamps.grid) <= max(0.6 * fwhm, 1.0)
    return np.asarray(good[:, core].all(1) & (good.mean(1) > 0.4))


def fit_population(field: Field, fwhm: float, most: int, prior: Prior | None = None) -> Population:
    """Fits of the sources that stand clear, and which of them are of one width.

    Parameters
    ----------
    field : Field
    fwhm : float
        A guess, px.
    most : int
        Sources that are fitted.
    prior : Prior, optional
        Of the shape.
    """
    radius = int(np.clip(np.ceil(2.5 * fwhm), 5, 30))
    places, heights = find_peaks(field, fwhm)
    if not len(places):
        nothing = cut_stamps(field.flat, field.noise, np.zeros((0, 2), np.int64), radius)
        return Population(fit_moffats(nothing, fwhm), nothing, np.zeros(0, bool), 0.0, 0)
    own, others = choose_clear(places, heights, fwhm, most)
    stamps = cut_stamps(field.flat, field.noise, places[own], radius)
    stamps = mask_neighbours(stamps, places, heights, own, others, fwhm)
    stamps = stamps[whole_enough(stamps, fwhm)]
    fits = fit_moffats(stamps, fwhm, prior)
    usable = is_usable(fits, stamps)
    fits, stamps = fits[usable], stamps[usable]
    return Population(fits, stamps, *choose_points(fits), len(places))


def is_usable(fits: MoffatFits, stamps: Stamps) -> Mask:
    """Fits that may be of a point source: no hot pixel, no track, nothing that a Moffat does not describe: (n,)."""
    off = np.hypot(fits.y - stamps.places[:, 0], fits.x - stamps.places[:, 1])
    sound = np.isfinite(fits.fwhm) & np.isfinite(fits.error) & (fits.peak > 0) & (fits.error < 0.3)
    shape = (fits.fwhm > NARROWEST) & (fits.fwhm < 1.6 * stamps.radius) & (np.hypot(fits.e1, fits.e2) < ROUNDEST_CORE)
    return np.asarray(sound & shape & (off < np.maximum(1.5, 0.6 * fits.fwhm)) & (fits.misfit < POOREST))


def choose_points(fits: MoffatFits) -> tuple[Mask, float]:
    """The sources that are taken for points, (n,), and their share of what all sources say.

    Where most sources have one width and shape, as stars and beads have, it is they. Elsewhere galaxies are in the
    majority, which are wider than points and differ; then it is the narrowest sources that agree with each other.

    Every source counts as a Gaussian as wide as its error, so that well measured ones make a sharp peak and poor ones
    a low one.

    Parameters
    ----------
    fits : MoffatFits
    """
    if not len(fits):
        return np.zeros(0, bool), 0.0
    s, se, weight = _kernels(fits)
    place = np.stack([np.log(fits.fwhm), fits.e1, fits.e2], 1)
    scale = np.stack([s, se, se], 1)
    says = weight * np.minimum(1, (SCATTER / fits.error) ** 2) * np.minimum(1, (fits.snr / BRIGHT) ** 2)

    def settle(middle: Array, reach: float, rounds: int) -> Mask:
        for _ in range(rounds):
            far = (((place - middle) / scale) ** 2).sum(1)
            pull = says / s * np.exp(-0.5 * far)
            if not pull.sum() > 0:
                break
            middle = pull @ place / pull.sum()
        return np.asarray((((place - middle) / scale) ** 2).sum(1) < reach**2)

    far = (((place[:, None] - place) / scale) ** 2).sum(2)
    # the densest place, whose own Gaussian a lone source has too
    most = settle(place[int(np.argmax((weight / s * np.exp(-0.5 * far)).sum(1)))], 3.0, 8)
    total = max(float(says.sum()), 1e-12)
    share = float(says[most].sum() / total)
    sure = (fits.error < WELL) & (fits.snr > BRIGHT) & (weight > 0.3) & (fits.fwhm > NARROWEST_OF_FEW)
    narrower = sure & (place[:, 0] < np.average(place[:, 0], weights=says * most + 1e-12) - 3 * s)
    if share >= DOMINANT and says[narrower].sum() <= STRAY * says[most].sum():
        return most, share
    share = min(share, DOMINANT)
    agree = ((far < 4) * says).sum(1)
    start = sure & (agree >= ENVELOPE * agree.max())
    if not start.any():
        return most, share
    first = int(np.flatnonzero(start)[np.argmin(place[start, 0])])
    # one round: more of them would climb to the galaxies
    narrow = settle(place[first], 2.0, 1)
    return narrow, min(float(says[narrow].sum() / total), 0.99 * DOMINANT)


def clump_density(fits: MoffatFits, ln_fwhm: float, e: tuple[float, float]) -> float:
    """The density of sources about a width and an ellipticity, as `choose_points` counts it.

    Parameters
    ----------
    fits : MoffatFits
    ln_fwhm : float
        Of the place.
    e : two floats
        e1 and e2 of the place.
    """
    s, se, weight = _kernels(fits)
    far = ((np.log(fits.fwhm) - ln_fwhm) / s) ** 2 + ((fits.e1 - e[0]) ** 2 + (fits.e2 - e[1]) ** 2) / se**2
    return float((weight / s * np.exp(-0.5 * far)).sum())


def _kernels(fits: MoffatFits) -> tuple[Array, Array, Array]:
    """Widths of the sources' Gaussians in ln FWHM and in e, and their weights: (n,) each."""
    weight = np.exp(-0.5 * (fits.misfit / 0.05) ** 2)
    return np.hypot(fits.error, SCATTER), np.hypot(fits.e_error, SCATTER), weight
