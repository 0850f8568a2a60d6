"""Light of simulated galaxies, each over the whole padded frame with peak 1, and fields of many small ones."""

from __future__ import annotations

import numpy as np

from sciresdiff.scenes.draw import (
    MARGIN,
    Array,
    Rng,
    add_field,
    log_uniform,
    padded_grid,
    padded_side,
    random_field,
    uniform_positions,
)


def ellipse(size: int, cx: float, cy: float, ratio: float, angle: float) -> tuple[Array, Array]:
    """Coordinates over the padded frame along the major axis, and across it stretched to a circle."""
    y, x = padded_grid(size)
    x, y = x - np.float32(cx), y - np.float32(cy)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * c + y * s, (y * c - x * s) / np.float32(ratio)


def sersic(r: Array, re: float, n: float) -> Array:
    """Sersic's profile exp(-b_n ((r / re)^(1/n) - 1)), 1 at the half-light radius.

    b_n = 2 n - 1/3 + 0.009876 / n (Ciotti & Bertin 1999), so that half of the light lies within ``re``.

    Parameters
    ----------
    r : (Y, X) array
        Radius in pixels.
    re : float
        Half-light radius, pixels.
    n : float
        Index: 0.5 a Gaussian, 1 a disc, 4 a giant elliptical.
    """
    b = 2 * n - 1 / 3 + 0.009876 / n
    return np.exp(np.float32(-b) * ((r / np.float32(re)) ** np.float32(1 / n) - 1))


def soft_radius(u: Array, v: Array, by: float = 0.35) -> Array:
    """Radius sqrt(u^2 + v^2 + by^2) of coordinates (Y, X) in pixels.

    It does not reach 0, so that the peak of a cusp does not depend on where in its pixel the centre lies.
    """
    return np.sqrt(u * u + v * v + np.float32(by) ** 2)


def faint_galaxies(rng: Rng, canvas: Array, size: int, n: int, brightest: float | None = None) -> None:
    """Draw many small galaxies, 1 to 6 pixels in half-light radius, onto a canvas in place.

    Parameters
    ----------
    rng : numpy.random.Generator
    canvas : (m, m) array
    size : int
        Of the frame, pixels.
    n : int
        Galaxies; those that reach over the border of the canvas are left out.
    brightest : float, optional
        Largest peak; random from 5 to 2000 where it is not given.
    """
    x, y = uniform_positions(rng, size, n)
    top = brightest or log_uniform(rng, 5, 2000)
    values = top * rng.random(n) ** rng.uniform(1.5, 4)
    reach = 20
    padded = np.zeros((padded_side(size),) * 2, np.float32)
    local = np.arange(-reach, reach + 1, dtype=np.float32)
    for cx, cy, value in zip(x, y, values, strict=True):
        ix, iy = int(round(cx)) + MARGIN, int(round(cy)) + MARGIN
        if min(ix, iy) < reach or max(ix, iy) >= padded_side(size) - reach:
            continue
        angle, ratio, re = rng.uniform(0, np.pi), rng.uniform(0.25, 1.0), log_uniform(rng, 0.7, 5.0)
        dx, dy = local[None, :] - (cx - ix + MARGIN), local[:, None] - (cy - iy + MARGIN)
        u, v = dx * np.cos(angle) + dy * np.sin(angle), (dy * np.cos(angle) - dx * np.sin(angle)) / ratio
        index = min(rng.uniform(0.6, 4.0), 6 - re)
        blob = sersic(soft_radius(u, v), re, index) * np.clip((reach - np.hypot(dx, dy)) / 6, 0, 1)
        padded[iy - reach : iy + reach + 1, ix - reach : ix + reach + 1] += value * blob / blob.max()
    add_field(canvas, padded)


def elliptical(rng: Rng, size: int, cx: float, cy: float, re: float) -> Array:
    """A smooth galaxy of Sersic index 2 to 6, peak 1; now and then with a dust lane."""
    ratio, angle = rng.uniform(0.5, 1.0), rng.uniform(0, np.pi)
    u, v = ellipse(size, cx, cy, ratio, angle)
    light = sersic(soft_radius(u, v), re, rng.uniform(2, 6))
    if rng.random() < 0.2:
        lane = np.exp(-(((v - rng.normal(0, 0.1 * re)) / (0.15 * re)) ** 2) - (u / (0.8 * re)) ** 2)
        light *= np.exp(-rng.uniform(0.5, 2) * lane)
    return light / light.max()


def spiral(rng: Rng, size: int, cx: float, cy: float, re: float) -> Array:
    """A disc with arms, a bulge, perhaps a bar or a ring, clumps and dust along the arms; peak 1."""
    ratio, angle = np.sqrt(rng.uniform(0.03, 1.0)), rng.uniform(0, np.pi)
    u, v = ellipse(size, cx, cy, ratio, angle)
    r = soft_radius(u, v)
    texture = random_field(rng, padded_side(size), rng.uniform(2.0, 3.0), longest=2 * re)
    theta = np.arctan2(v, u) + np.float32(0.25) * texture
    arms, pitch = rng.integers(1, 5), np.tan(rng.uniform(0.15, 0.6)) * rng.choice([-1, 1])
    wave = arms * (theta - np.log(r / re) / np.float32(pitch)) + np.float32(rng.uniform(0, 2 * np.pi))
    sharp = rng.uniform(0.5, 3.0)
    arm = np.exp(np.float32(sharp) * (np.cos(wave) - 1))
    disc = sersic(r, re, 1.0) * (rng.uniform(0.1, 0.7) + arm)
    if rng.random() < 0.2:
        disc += rng.uniform(0.5, 2) * np.exp(-(((r - rng.uniform(0.7, 1.5) * re) / (0.15 * re)) ** 2))
    clumps = np.exp(np.float32(rng.uniform(0.3, 1.5)) * texture)
    dust = np.float32(rng.uniform(0, 1.2)) * np.exp(np.float32(sharp) * (np.cos(wave + 0.9) - 1)) * clumps / 2
    light = disc * (0.6 + 0.4 * clumps) * np.exp(-dust)
    return _with_bulge(rng, light, u, v, float(ratio), re)


def _with_bulge(rng: Rng, light: Array, u: Array, v: Array, ratio: float, re: float) -> Array:
    """Add a round bulge and perhaps a bar to a disc, and scale the peak to 1."""
    bulge = sersic(soft_radius(u, v * np.sqrt(np.float32(ratio))), re * rng.uniform(0.05, 0.3), rng.uniform(1, 4))
    light = light + bulge * rng.uniform(0, 3)
    if rng.random() < 0.4:
        turn = rng.uniform(0, np.pi)
        a, b = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
        bar = (np.abs(a) / (0.5 * re)) ** 3 + (np.abs(b) / (0.12 * re)) ** 2
        light += rng.uniform(0.5, 3) * np.exp(-np.minimum(bar, 60)).astype(np.float32)
    return light / light.max()


def edge_on(rng: Rng, size: int, cx: float, cy: float, re: float) -> Array:
    """A disc seen from the side, with a bulge and a dust lane; peak 1."""
    u, v = ellipse(size, cx, cy, 1.0, rng.uniform(0, np.pi))
    height = re * rng.uniform(0.06, 0.2)
    light = np.exp(-np.abs(u) * np.float32(1.7 / re)) / np.cosh(np.minimum(np.abs(v) / np.float32(height), 20)) ** 2
    light = light + rng.uniform(0, 2) * np.exp(-soft_radius(u, v * 1.3) / np.float32(0.3 * re))
    texture = random_field(rng, padded_side(size), 2.5, longest=re)
    lane = np.exp(-(((v - rng.normal(0, 0.3) * height) / (0.4 * height)) ** 2) - (u / (2 * re)) ** 2)
    light *= np.exp(-np.float32(rng.uniform(0, 2)) * lane * np.exp(0.7 * texture))
    return (light / light.max()).astype(np.float32)


def irregular(rng: Rng, size: int, cx: float, cy: float, re: float) -> Array:
    """A dwarf or a distant clumpy galaxy: a lumpy body without symmetry; peak 1."""
    u, v = ellipse(size, cx, cy, rng.uniform(0.3, 1.0), rng.uniform(0, np.pi))
    texture = random_field(rng, padded_side(size), rng.uniform(2.0, 3.2), longest=2 * re)
    bend = random_field(rng, padded_side(size), 4.0, longest=4 * re) * np.float32(0.3 * re)
    light = sersic(soft_radius(u + bend, v - bend), re, rng.uniform(0.5, 1.2)) * np.exp(rng.uniform(0.6, 1.8) * texture)
    return (light / light.max()).astype(np.float32)


GALAXIES = {"spiral": spiral, "elliptical": elliptical, "edge-on": edge_on, "irregular": irregular}


GALAXY_SHARES = (0.45, 0.2, 0.15, 0.2)


def galaxy_light(rng: Rng, size: int, cx: float, cy: float, re: float) -> Array:
    """A galaxy of a random kind, (size, size); ``cx``, ``cy`` its centre and ``re`` its half-light radius in px."""
    return GALAXIES[str(rng.choice(list(GALAXIES), p=GALAXY_SHARES))](rng, size, cx, cy, re)
