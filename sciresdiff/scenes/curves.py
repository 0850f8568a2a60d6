"""Curves, outlines and blobs from which simulated cells are drawn."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial import Voronoi

from sciresdiff.scenes.draw import (
    MARGIN,
    Array,
    Rng,
    add_field,
    add_points,
    log_uniform,
    padded_grid,
    padded_side,
    random_field,
    uniform_positions,
    values_at,
)

Curves = tuple[Array, Array]

"""x and y, (n, steps) each, in pixels of the frame."""

SPACING = 0.6
"""Pixels between the points of a curve: finer than any point spread function here."""


def random_walks(rng: Rng, x: Array, y: Array, angle: Array, length: float, persistence: float) -> Curves:
    """Persistent random walks, as filaments bend.

    Parameters
    ----------
    rng : numpy.random.Generator
    x, y, angle : (n,) array
        Starts in pixels of the frame, and directions in radians.
    length, persistence : float
        Pixels along a curve, and over which it keeps its direction.
    """
    steps = max(2, int(length / SPACING))
    bend = ndimage.uniform_filter1d(rng.standard_normal((len(x), steps)), min(steps, 15), axis=1) * np.sqrt(15)
    turn = angle[:, None] + np.cumsum(bend, 1) * np.sqrt(SPACING / persistence) * 0.5
    return x[:, None] + SPACING * np.cumsum(np.cos(turn), 1), y[:, None] + SPACING * np.cumsum(np.sin(turn), 1)


def streamlines(heading: Array, x: Array, y: Array, length: float, size: int) -> Curves:
    """Curves of the given length that follow a field of directions.

    Parameters
    ----------
    heading : (m, m) array
        Directions in radians over the padded frame.
    x, y : (n,) array
        Starts in pixels of the frame.
    length : float
        Pixels.
    size : int
        Of the frame, pixels.
    """
    stride, path = 5 * SPACING, [(x, y)]
    for _ in range(max(2, int(length / stride))):
        angle = values_at(heading, x, y)
        x, y = x + stride * np.cos(angle), y + stride * np.sin(angle)
        path.append((x, y))
    knots: Array = np.array(path)
    t = np.arange(0, len(knots) - 1, 0.2)
    i, part = t.astype(int)[:, None, None], (t % 1)[:, None, None]
    fine = knots[i[:, 0, 0]] * (1 - part) + knots[i[:, 0, 0] + 1] * part
    return fine[:, 0].T, fine[:, 1].T


def bezier_curves(a: Array, b: Array, c: Array) -> Curves:
    """Quadratic Bezier curves (1 - t)^2 a + 2 t (1 - t) b + t^2 c.

    Parameters
    ----------
    a, b, c : (n, 2) array
        Starts, the points that the curves are pulled towards, and ends, as x, y in pixels.
    """
    steps = 2 + int(np.hypot(*(np.abs(b - a) + np.abs(c - b)).max(0)) / SPACING)
    t = np.linspace(0, 1, steps)[:, None, None]
    curve = (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c
    return curve[..., 0].T, curve[..., 1].T


def brightness_along(rng: Rng, shape: tuple[int, ...], roughness: float) -> Array:
    """Brightness along curves: log-normal, changing over about 15 pixels.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : (n, steps)
        Of the curves.
    roughness : float
        Standard deviation of the logarithm.
    """
    coarse = rng.standard_normal((shape[0], shape[1] // 40 + 4))
    where = np.linspace(1, coarse.shape[1] - 2, shape[1])
    i, t = where.astype(int), where % 1
    return np.exp(roughness * (coarse[:, i] * (1 - t) + coarse[:, i + 1] * t))


def add_curves(rng: Rng, canvas: Array, curves: Curves, value: Array, width: float = 0.0, strands: int = 1) -> None:
    """Draw curves onto a canvas in place.

    Parameters
    ----------
    rng : numpy.random.Generator
    canvas : (m, m) array
    curves : Curves
    value : (n, 1) or (n, steps) array
        Flux per pixel of length.
    width : float
        Thickness (standard deviation, pixels).
    strands : int
        Parallel lines with a Gaussian profile that are spread over it.
    """
    x, y = curves
    step = np.hypot(np.gradient(x, axis=1), np.gradient(y, axis=1)) + 1e-9
    nx, ny = -np.gradient(y, axis=1) / step, np.gradient(x, axis=1) / step
    offsets = np.linspace(-2, 2, strands) if strands > 1 else np.zeros(1)
    weights = np.exp(-(offsets**2) / 2)
    for offset, weight in zip(offsets * width, weights / weights.sum(), strict=True):
        flux = np.broadcast_to(value, x.shape) * step * weight
        add_points(canvas, (x + offset * nx).ravel(), (y + offset * ny).ravel(), flux.ravel(), smooth=False)


def strands_for(width: float) -> int:
    """How many parallel curves draw a line of this width (sigma, fine px) without gaps."""
    return 1 if width < 0.3 else 2 * int(np.ceil(1.6 * width)) + 1


def blob_mask(rng: Rng, size: int, cx: float, cy: float, radius: float, lobes: float, edge: float) -> Array:
    """A cell body seen from above: a disc with a wavy outline and a smooth edge, 0 to 1 over the padded frame.

    Parameters
    ----------
    rng : numpy.random.Generator
    size : int
        Of the frame, pixels.
    cx, cy, radius : float
        Pixels of the frame.
    lobes : float
        How wavy the outline is; 0 is a circle.
    edge : float
        Width of the edge, pixels.
    """
    y, x = padded_grid(size)
    dx, dy = x - np.float32(cx), y - np.float32(cy)
    order = np.arange(1, 8)
    theta = np.linspace(-np.pi, np.pi, 181)
    wave = rng.normal(size=7) * lobes / order**1.5
    outline = radius * np.exp((wave[:, None] * np.cos(order[:, None] * theta + rng.uniform(0, 6, (7, 1)))).sum(0))
    limit = np.interp(np.arctan2(dy, dx).ravel(), theta, outline, period=2 * np.pi).reshape(len(x[0]), -1)
    return (1 / (1 + np.exp(np.clip((np.hypot(dx, dy) - limit) / edge, -30, 30)))).astype(np.float32)


def web_outline(rng: Rng, size: int) -> tuple[Array, Array]:
    """Corners (n, 2) of a spread cell and the control points of the arcs between them, bowed inwards."""
    n = int(rng.integers(3, 7))
    angle = np.sort(rng.uniform(0, 2 * np.pi, n))
    reach = rng.uniform(0.4, 1.2, n) * size * rng.uniform(0.6, 1.3)
    centre = rng.uniform(0.2, 0.8, 2) * size
    corners = centre + reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) * rng.uniform(0.4, 1, 2)
    middle = (corners + np.roll(corners, -1, 0)) / 2
    return corners, middle + rng.uniform(0.1, 0.6, (n, 1)) * (centre - middle)


def polygon_mask(size: int, x: Array, y: Array) -> Array:
    """Inside of a closed curve (even-odd rule), 0 or 1 with edges a few pixels soft.

    Parameters
    ----------
    size : int
        Of the frame, pixels.
    x, y : (n,) array
        Corners in pixels of the frame; the last is joined to the first.

    Returns
    -------
    (m, m) float32 array
        Over the padded frame.
    """
    n, coarse = padded_side(size), 4
    line = np.arange(-MARGIN + coarse / 2, size + MARGIN, coarse)
    x2, y2 = np.roll(x, -1), np.roll(y, -1)
    crosses = (y[None] > line[:, None]) != (y2[None] > line[:, None])
    cut = x + (line[:, None] - y) * (x2 - x) / np.where(y2 == y, 1e-9, y2 - y)
    inside = (crosses[:, None, :] & (line[None, :, None] < cut[:, None, :])).sum(2) % 2
    return ndimage.zoom(inside.astype(np.float32), n / len(line), order=1, mode="nearest", grid_mode=True)[:n, :n]


def add_blobs(rng: Rng, canvas: Array, size: int, x: Array, y: Array, radius: Array, value: Array) -> None:
    """Draw round vesicles, filled or hollow, onto a canvas in place; those that reach over its border are left out.

    Parameters
    ----------
    rng : numpy.random.Generator
    canvas : (m, m) array
    size : int
        Of the frame, pixels.
    x, y, radius : (n,) array
        Pixels of the frame.
    value : (n,) array
        Surface brightness.
    """
    padded, n = np.zeros((padded_side(size),) * 2, np.float32), padded_side(size)
    hollow = rng.uniform(0, 0.9) * (rng.random(len(x)) < rng.uniform(0, 0.5))
    for cx, cy, r, v, h in zip(x + MARGIN, y + MARGIN, radius, value, hollow, strict=True):
        reach = int(2 * r) + 3
        ix, iy = int(round(cx)), int(round(cy))
        if min(ix, iy) < reach or max(ix, iy) >= n - reach:
            continue
        line = np.arange(-reach, reach + 1)
        rr = np.hypot(line[None, :] - (cx - ix), line[:, None] - (cy - iy))
        disc = np.clip(r - rr + 0.5, 0, 1) - h * np.clip(0.7 * r - rr + 0.5, 0, 1)
        padded[iy - reach : iy + reach + 1, ix - reach : ix + reach + 1] += v * disc
    add_field(canvas, padded)


def draw_positions(rng: Rng, size: int, n: int) -> Curves:
    """``n`` positions over the padded frame: uniform, or clustered around parents (a Thomas process)."""
    if rng.random() < 0.4:
        return uniform_positions(rng, size, n)
    px, py = uniform_positions(rng, size, int(rng.integers(2, 30)))
    parent, spread = rng.integers(0, len(px), n), log_uniform(rng, 0.01, 0.15) * size
    return px[parent] + rng.normal(0, spread, n), py[parent] + rng.normal(0, spread, n)


def cell_walls(rng: Rng, size: int, cell: float, order: float) -> tuple[Curves, Array]:
    """Walls between Voronoi cells of about `cell` pixels as curves (n, steps), and the seeds (m, 2)."""
    reach = size / 2 + MARGIN + cell
    line = np.arange(-reach, reach, cell)
    seeds = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2) + size / 2
    seeds[:, 0] += cell / 2 * (np.arange(len(seeds)) // len(line) % 2)
    seeds = seeds + rng.normal(0, order * cell, seeds.shape)
    diagram = Voronoi(seeds)
    ridge = np.array([r for r in diagram.ridge_vertices if r[0] >= 0])
    a, b = diagram.vertices[ridge[:, 0]], diagram.vertices[ridge[:, 1]]
    short = np.hypot(*(b - a).T) < 4 * cell
    t = np.linspace(0, 1, 2 + int(1.2 * cell / SPACING))
    x, y = (a[short, i, None] + t * (b - a)[short, i, None] for i in (0, 1))
    return (x, y), seeds


def bend_curves(rng: Rng, size: int, curves: Curves, amount: float, scale: float) -> Curves:
    """Curves displaced by a smooth random field.

    Parameters
    ----------
    rng : numpy.random.Generator
    size : int
        Of the frame, pixels.
    curves : Curves
    amount, scale : float
        Standard deviation of the displacement and its longest wavelength, pixels.
    """
    dx, dy = (np.float32(amount) * random_field(rng, padded_side(size), 4.0, longest=scale, shortest=4) for _ in "xy")
    smooth = [_interpolate(field, *curves) for field in (dx, dy)]
    return curves[0] + smooth[0], curves[1] + smooth[1]


def _interpolate(field: Array, x: Array, y: Array) -> Array:
    """A field of the padded frame at positions, linearly."""
    return ndimage.map_coordinates(field, [y + MARGIN, x + MARGIN], order=1, mode="nearest")
