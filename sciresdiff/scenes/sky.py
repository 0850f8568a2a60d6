"""Simulated sky: star fields up to the cores of globular clusters, galaxies, clusters of galaxies, nebulae.

Brightness is in units in which the noise of the sky is of the order of 1 per fine pixel: peaks run from 0.1 to 1e5.
"""

from __future__ import annotations

import numpy as np

from sciresdiff.scenes.detector import add_hits, bleed
from sciresdiff.scenes.draw import (
    MARGIN,
    Array,
    Rng,
    Scene,
    ScenePSF,
    add_field,
    add_points,
    crop,
    empty_canvas,
    log_uniform,
    log_uniforms,
    padded_grid,
    padded_side,
    random_field,
    render,
    uniform_positions,
    values_at,
    warp,
)
from sciresdiff.scenes.galaxies import ellipse, elliptical, faint_galaxies, galaxy_light, soft_radius
from sciresdiff.scenes.psf import gaussian_psf, halo_psf, moffat_psf, pupil_psf


def telescope_psf(rng: Rng) -> ScenePSF:
    """A space telescope (half of the time), seeing, a Gaussian or a core with a halo; FWHM 1.7 to 3.2 pixels."""
    pick, width = rng.random(), rng.uniform(1.75, 3.2)
    angle = rng.uniform(0, np.pi)
    if pick < 0.5:
        waves, stretch = log_uniform(rng, 0.01, 0.08), rng.uniform(0.92, 1.08)
        spider = rng.uniform(0.015, 0.05)
        return pupil_psf(
            rng,
            rng.uniform(1.45, 2.6),
            rng.uniform(0.1, 0.4),
            spider,
            float(waves),
            stretch,
            scatter=rng.uniform(0, 0.1),
        )
    if pick < 0.75:
        return moffat_psf(width, rng.uniform(2.5, 5.0), rng.uniform(0, 0.12), angle)
    if pick < 0.9:
        return gaussian_psf(width, rng.uniform(0, 0.12), angle)
    return halo_psf(width, width * rng.uniform(2, 4), rng.uniform(0.05, 0.3))


def _render_scene(rng: Rng, canvas: Array, psf: ScenePSF, label: str, peaks: Array | None = None) -> Scene:
    """Convolve, let the brightest stars bleed in a third of the scenes that have any, add rare hits, crop."""
    frame = render(canvas, psf)
    if peaks is not None and len(peaks) > 4 and rng.random() < 0.35:
        well = float(np.quantile(peaks, 1 - log_uniform(rng, 0.001, 0.2)))
        # not so low that trails or a galaxy's flat body are all that is left of the frame
        least = max(float(np.quantile(frame[::4, ::4], 0.997)), float(frame.max()) * log_uniform(rng, 0.02, 0.3))
        frame = bleed(rng, frame, max(well, least, 200.0))
    if rng.random() < 0.1:
        add_hits(rng, frame, rng.poisson(frame.size * log_uniform(rng, 1e-5, 3e-4)), log_uniform(rng, 50, 2e4))
    return Scene(crop(frame), psf.fwhm_px, label)


def star_peaks(rng: Rng, n: int, brightest: float) -> Array:
    """Peaks of `n` stars: a power law or a broken one with a bump, over three to six decades below `brightest`."""
    top = np.log10(brightest)
    log_peak = np.linspace(max(top - rng.uniform(3, 6), -0.7), top, 512)
    if rng.random() < 0.35:
        log_density = -rng.uniform(0.2, 1.2) * log_peak
    else:
        knee = max(1.0, top - rng.uniform(0.8, 3.5))
        faint, bright = rng.uniform(-0.6, 0.4), rng.uniform(0.6, 1.6)
        log_density = -np.where(log_peak < knee, faint, bright) * (log_peak - knee)
        bump, width = rng.uniform(knee, top), rng.uniform(0.05, 0.3)
        log_density += rng.uniform(0, 0.8) * np.exp(-(((log_peak - bump) / width) ** 2))
    share = np.cumsum(10**log_density)
    return 10 ** np.interp(rng.random(n), share / share[-1], log_peak)


def companions(rng: Rng, x: Array, y: Array, peaks: Array) -> tuple[Array, Array, Array]:
    """Give a random share of the stars a fainter neighbour at 0.7 to 4 pixels.

    Parameters
    ----------
    rng : numpy.random.Generator
    x, y, peaks : (n,) array
        Stars.

    Returns
    -------
    x, y, peaks : (n + m,) array
        Stars and neighbours.
    """
    pick = np.flatnonzero(rng.random(len(x)) < rng.uniform(0, 0.35))
    far, angle = rng.uniform(0.7, 4.0, len(pick)), rng.uniform(0, 2 * np.pi, len(pick))
    ratio = log_uniforms(rng, 0.02, 1.0, len(pick))
    return (
        np.concatenate([x, x[pick] + far * np.cos(angle)]),
        np.concatenate([y, y[pick] + far * np.sin(angle)]),
        np.concatenate([peaks, peaks[pick] * ratio]),
    )


def draw_stars(rng: Rng, canvas: Array, psf: ScenePSF, x: Array, y: Array, brightest: float) -> Array:
    """Draw stars with random peaks at the given positions, some of them double, onto a canvas in place.

    Parameters
    ----------
    rng : numpy.random.Generator
    canvas : (m, m) array
    psf : ScenePSF
        Turns a peak into a flux.
    x, y : (n,) array
        Pixels of the frame.
    brightest : float
        Largest peak possible.

    Returns
    -------
    (k,) array
        Peaks, those of neighbours too.
    """
    x, y, peaks = companions(rng, x, y, star_peaks(rng, len(x), brightest))
    add_points(canvas, x, y, peaks / psf.peak)
    return peaks


def _count(rng: Rng, size: int, low: float, high: float) -> int:
    """A number of objects for the padded frame from a density per 512 x 512, uniform in the logarithm."""
    return int(rng.poisson(log_uniform(rng, low, high) * padded_side(size) ** 2 / 512**2))


def gradient(rng: Rng, size: int, amplitude: float) -> Array:
    """A smooth background: a tilted plane with a little curvature, zero at its lowest."""
    y, x = (v / size for v in padded_grid(size))
    a, b, c, d = rng.normal(size=4)
    field = a * x + b * y + 0.5 * (c * x * x + d * y * y)
    field = field - field.min()
    return (amplitude * field / (field.max() + 1e-9)).astype(np.float32)


def empty_field(rng: Rng, size: int) -> Scene:
    """Sky with at most a few faint things on it."""
    canvas, psf = empty_canvas(size), telescope_psf(rng)
    x, y = uniform_positions(rng, size, int(rng.integers(0, 4)))
    add_points(canvas, x, y, log_uniforms(rng, 0.1, 20, len(x)) / psf.peak)
    if rng.random() < 0.4:
        add_field(canvas, gradient(rng, size, log_uniform(rng, 0.1, 10)))
    return _render_scene(rng, canvas, psf, "empty")


def sparse_field(rng: Rng, size: int) -> Scene:
    """A field with few stars, and faint galaxies between them half of the time."""
    canvas, psf = empty_canvas(size), telescope_psf(rng)
    x, y = uniform_positions(rng, size, _count(rng, size, 4, 120))
    peaks = draw_stars(rng, canvas, psf, x, y, log_uniform(rng, 1e2, 3e5))
    if rng.random() < 0.5:
        faint_galaxies(rng, canvas, size, _count(rng, size, 5, 60))
    return _render_scene(rng, canvas, psf, "sparse", peaks)


def crowded_field(rng: Rng, size: int) -> Scene:
    """A field in the Milky Way or a nearby galaxy: hundreds to thousands of stars, patchy where dust is in front."""
    canvas, psf = empty_canvas(size), telescope_psf(rng)
    x, y = uniform_positions(rng, size, _count(rng, size, 150, 8000))
    if rng.random() < 0.25:
        dust = random_field(rng, padded_side(size), rng.uniform(2.5, 3.5))
        keep = rng.random(len(x)) < np.exp(-np.exp(rng.uniform(0.3, 1.2) * values_at(dust, x, y)))
        x, y = x[keep], y[keep]
    peaks = draw_stars(rng, canvas, psf, x, y, log_uniform(rng, 1e3, 1e6))
    return _render_scene(rng, canvas, psf, "crowded", peaks)


def globular(rng: Rng, size: int) -> Scene:
    """A globular cluster: stars that crowd towards a centre, which may lie outside the frame."""
    canvas, psf = empty_canvas(size), telescope_psf(rng)
    n, core = _count(rng, size, 1200, 12000), log_uniform(rng, 0.05, 1.0) * size
    cx, cy = rng.uniform(-0.2, 1.2, 2) * size
    # King's surface density (1 + (r / core)^2)^-1 out to a tidal radius
    r = core * np.sqrt(np.expm1(rng.random(n) * np.log1p((1.2 * size / core) ** 2)))
    angle, flat = rng.uniform(0, 2 * np.pi, n), rng.uniform(0.8, 1.0)
    peaks = draw_stars(
        rng, canvas, psf, cx + r * np.cos(angle), cy + flat * r * np.sin(angle), log_uniform(rng, 1e4, 2e6)
    )
    return _render_scene(rng, canvas, psf, "globular", peaks)


def _knots(rng: Rng, canvas: Array, size: int, light: Array, peak: float, psf: ScenePSF) -> None:
    """Star clusters and HII regions, drawn where a galaxy is bright (its light to a random power)."""
    n = int(log_uniform(rng, 3, 400))
    share = np.cumsum(light.ravel().astype(np.float64) ** rng.uniform(0.5, 1.0))
    index = np.searchsorted(share, rng.random(n) * share[-1])
    y, x = np.divmod(np.minimum(index, light.size - 1), light.shape[1])
    x, y = x - MARGIN + rng.uniform(-0.5, 0.5, n), y - MARGIN + rng.uniform(-0.5, 0.5, n)
    flux = peak * 0.3 * np.minimum(rng.pareto(rng.uniform(0.8, 1.6), n) * 0.02, 1) / psf.peak
    add_points(canvas, x, y, flux)


def galaxy(rng: Rng, size: int) -> Scene:
    """One large galaxy, with companions, background galaxies and foreground stars."""
    canvas, psf = empty_canvas(size), telescope_psf(rng)
    cx, cy = rng.uniform(0.2, 0.8, 2) * size
    light, peak = galaxy_light(rng, size, cx, cy, log_uniform(rng, 0.03, 0.3) * size), log_uniform(rng, 10, 3e4)
    add_field(canvas, light * np.float32(peak))
    if rng.random() < 0.6:
        _knots(rng, canvas, size, light, peak, psf)
    if rng.random() < 0.15:
        add_points(canvas, np.array([cx]), np.array([cy]), peak * log_uniforms(rng, 0.1, 30, 1) / psf.peak)
    faint_galaxies(rng, canvas, size, _count(rng, size, 3, 80))
    x, y = uniform_positions(rng, size, _count(rng, size, 1, 60))
    peaks = draw_stars(rng, canvas, psf, x, y, log_uniform(rng, 1e2, 1e5))
    return _render_scene(rng, canvas, psf, "galaxy", peaks)


def merger(rng: Rng, size: int) -> Scene:
    """Two or three galaxies in contact, with tidal tails."""
    canvas, psf = empty_canvas(size), telescope_psf(rng)
    cx, cy, re = *rng.uniform(0.3, 0.7, 2) * size, log_uniform(rng, 0.04, 0.15) * size
    peak, total = log_uniform(rng, 30, 2e4), np.zeros((padded_side(size),) * 2, np.float32)
    for _ in range(int(rng.integers(2, 4))):
        dx, dy = rng.normal(0, re, 2)
        total += np.float32(rng.uniform(0.2, 1)) * galaxy_light(rng, size, cx + dx, cy + dy, re * rng.uniform(0.4, 1.2))
    bend = (
        random_field(rng, padded_side(size), 4.5, longest=5 * re) * np.float32(re * rng.uniform(0.2, 0.8)) for _ in "yx"
    )
    total = warp(total, *bend)
    add_field(canvas, total * np.float32(peak))
    _knots(rng, canvas, size, total, peak, psf)
    _tail(rng, canvas, cx, cy, re, peak * re * 0.5)
    faint_galaxies(rng, canvas, size, _count(rng, size, 5, 80))
    return _render_scene(rng, canvas, psf, "merger")


def _tail(rng: Rng, canvas: Array, cx: float, cy: float, re: float, flux: float) -> None:
    """A curved, fading stream of light that leaves a galaxy."""
    n = 3000
    t = rng.random(n) ** 0.7
    start, turn = rng.uniform(0, 2 * np.pi), rng.uniform(-2, 2)
    r, angle = re * (0.5 + rng.uniform(1.5, 4) * t), start + turn * t
    spread = rng.normal(0, 1, (2, n)) * re * rng.uniform(0.05, 0.15) * (0.5 + t)
    weight = flux * np.exp(-3 * t) / n * 3
    add_points(canvas, cx + r * np.cos(angle) + spread[0], cy + r * np.sin(angle) + spread[1], weight, smooth=False)


def survey(rng: Rng, size: int) -> Scene:
    """A deep survey field: many small galaxies, a few larger ones, some stars."""
    canvas, psf = empty_canvas(size), telescope_psf(rng)
    faint_galaxies(rng, canvas, size, _count(rng, size, 30, 300))
    for _ in range(int(rng.integers(0, 4))):
        cx, cy = rng.uniform(0, size, 2)
        light = galaxy_light(rng, size, cx, cy, log_uniform(rng, 2, 12))
        add_field(canvas, light * np.float32(log_uniform(rng, 5, 3e3)))
    x, y = uniform_positions(rng, size, _count(rng, size, 3, 60))
    peaks = draw_stars(rng, canvas, psf, x, y, log_uniform(rng, 1e2, 1e5))
    return _render_scene(rng, canvas, psf, "survey", peaks)


def galaxy_cluster(rng: Rng, size: int) -> Scene:
    """A cluster of galaxies: a giant in diffuse light, members around it, now and then lensed arcs."""
    canvas, psf = empty_canvas(size), telescope_psf(rng)
    cx, cy = rng.uniform(0.2, 0.8, 2) * size
    peak = log_uniform(rng, 100, 1e4)
    add_field(canvas, elliptical(rng, size, cx, cy, rng.uniform(0.08, 0.3) * size) * np.float32(peak))
    for _ in range(int(rng.integers(2, 7))):
        x, y = np.array([cx, cy]) + rng.normal(0, 0.25 * size, 2)
        member = elliptical(rng, size, x, y, log_uniform(rng, 2, 12))
        add_field(canvas, member * np.float32(peak * rng.uniform(0.05, 0.8)))
    faint_galaxies(rng, canvas, size, _count(rng, size, 30, 200), 0.2 * peak)
    for _ in range(int(rng.integers(0, 4))):
        _arc(rng, canvas, cx, cy, rng.uniform(0.1, 0.35) * size, peak)
    x, y = uniform_positions(rng, size, _count(rng, size, 2, 20))
    return _render_scene(
        rng, canvas, psf, "galaxy-cluster", draw_stars(rng, canvas, psf, x, y, log_uniform(rng, 1e2, 1e5))
    )


def _arc(rng: Rng, canvas: Array, cx: float, cy: float, radius: float, peak: float) -> None:
    """A gravitational arc: a thin piece of a circle around the giant."""
    length = rng.uniform(0.1, 0.9)
    n = 1 + int(8 * radius * length)
    angle = rng.uniform(0, 2 * np.pi) + length * (np.arange(n) / n - 0.5)
    fade = np.sin(np.pi * (np.arange(n) + 0.5) / n) * np.exp(0.5 * np.cos(rng.uniform(10, 40) * angle))
    width = rng.normal(0, rng.uniform(0.3, 1.2), n)
    flux = peak * rng.uniform(0.005, 0.08) * fade / 4
    add_points(canvas, cx + (radius + width) * np.cos(angle), cy + (radius + width) * np.sin(angle), flux, smooth=False)


def _ridges(rng: Rng, n: int, slope: float, thin: float) -> Array:
    """Filaments: where a random field crosses zero, in a field of the same slope that makes them come and go."""
    lines = np.exp(-np.abs(random_field(rng, n, slope)) / np.float32(thin))
    return lines * np.exp(random_field(rng, n, slope))


def gas(rng: Rng, size: int) -> Array:
    """A cloud of gas: exponentiated multi-fractal field, warped, with filaments and dark clouds; largest value 1."""
    n, slope = padded_side(size), rng.uniform(2.4, 3.8)
    cloud = np.exp(rng.uniform(0.6, 1.6) * random_field(rng, n, slope))
    if rng.random() < 0.7:
        cloud = cloud + rng.uniform(0.3, 3) * _ridges(rng, n, rng.uniform(2.6, 3.6), rng.uniform(0.02, 0.2))
    strength = np.float32(log_uniform(rng, 2, 25))
    cloud = warp(cloud, *(strength * random_field(rng, n, 3.5, longest=n / 3) for _ in "yx"))
    if rng.random() < 0.5:
        cloud *= np.exp(-np.exp(rng.uniform(0.8, 2) * (random_field(rng, n, rng.uniform(2.6, 3.4)) - 0.5)))
    return (cloud / (np.quantile(cloud[::4, ::4], 0.9995) + 1e-9)).astype(np.float32)


def shell(rng: Rng, size: int) -> Array:
    """A supernova remnant or planetary nebula: a limb-brightened bubble, torn into filaments; largest value about 1."""
    n = padded_side(size)
    cx, cy = rng.uniform(0.2, 0.8, 2) * size
    u, v = ellipse(size, cx, cy, rng.uniform(0.6, 1.0), rng.uniform(0, np.pi))
    radius = log_uniform(rng, 0.06, 0.45) * size
    r = soft_radius(u, v) / np.float32(radius) * (1 + np.float32(rng.uniform(0.01, 0.15)) * random_field(rng, n, 3.2))
    thick = rng.uniform(0.05, 0.4)
    limb = np.sqrt(np.maximum(1 - r * r, 0)) - np.sqrt(np.maximum((1 - thick) ** 2 - r * r, 0))
    torn = _ridges(rng, n, 3.0, rng.uniform(0.05, 0.4)) if rng.random() < 0.6 else np.exp(random_field(rng, n, 2.8))
    light = limb * torn + rng.uniform(0, 0.3) * np.exp(-(r**2) * 2)
    return (light / (np.quantile(light[::4, ::4], 0.9995) + 1e-9)).astype(np.float32)


def nebula(rng: Rng, size: int) -> Scene:
    """Gas in emission and absorption, or a shell, with stars in front and behind."""
    canvas, psf = empty_canvas(size), telescope_psf(rng)
    light = shell(rng, size) if rng.random() < 0.35 else gas(rng, size)
    light = light * np.float32(log_uniform(rng, 3, 5e3))
    add_field(canvas, light)
    if rng.random() < 0.3:
        add_field(canvas, gradient(rng, size, log_uniform(rng, 1, 100)))
    x, y = uniform_positions(rng, size, _count(rng, size, 3, 1200))
    peaks = draw_stars(rng, canvas, psf, x, y, log_uniform(rng, 1e2, 2e5))
    return _render_scene(rng, canvas, psf, "nebula", peaks)


SKY = {
    "empty": empty_field,
    "sparse": sparse_field,
    "crowded": crowded_field,
    "globular": globular,
    "survey": survey,
    "galaxy": galaxy,
    "merger": merger,
    "galaxy-cluster": galaxy_cluster,
    "nebula": nebula,
}
"""Name -> kind of scene."""

SKY_SHARES = {
    "empty": 0.04,
    "sparse": 0.11,
    "crowded": 0.22,
    "globular": 0.22,
    "survey": 0.13,
    "galaxy": 0.11,
    "merger": 0.03,
    "galaxy-cluster": 0.05,
    "nebula": 0.09,
}
"""How often each kind is drawn in the mixture ``astro``."""
