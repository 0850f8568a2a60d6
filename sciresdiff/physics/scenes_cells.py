"""Simulated microscopy: filaments, puncta, nuclei, membranes, organelles, tissue, out-of-focus haze.

A structure draws itself onto a canvas in arbitrary units; `_finish` brings the scene to a peak of 8 to 2000 in units in
which the noise is of the order of 1 per fine pixel.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage
from scipy.spatial import Voronoi

from .scenes_draw import (
    MARGIN,
    Array,
    Psf,
    Rng,
    Scene,
    add_field,
    add_points,
    at,
    blur,
    canvas,
    crop,
    gaussian_psf,
    grid,
    halo_psf,
    log_uniform,
    log_uniforms,
    positions,
    pupil_psf,
    random_field,
    render,
    side,
    warp,
)

Structure = Callable[[Rng, Array, int], None]
Curves = tuple[Array, Array]
SPACING = 0.6  # pixels between the points of a curve: finer than any point spread function here


def lens_psf(rng: Rng) -> Psf:
    """A microscope's profile: Gaussian, diffraction by a clear pupil, confocal or with a halo; FWHM 1.7 to 4.4 px."""
    pick = rng.random()
    width = rng.uniform(1.75, 3.2) if rng.random() < 0.65 else rng.uniform(3.2, 4.4)
    if pick < 0.45:
        return gaussian_psf(width, rng.uniform(0, 0.08), rng.uniform(0, np.pi))
    if pick < 0.7:
        return pupil_psf(rng, 0.9 * width, 0.0, 0.0, log_uniform(rng, 0.01, 0.08))
    if pick < 0.82:
        return pupil_psf(rng, 1.2 * width, 0.0, 0.0, log_uniform(rng, 0.01, 0.06), power=2)
    return halo_psf(width, width * rng.uniform(2, 5), rng.uniform(0.05, 0.4))


def _finish(rng: Rng, sub: Array, label: str) -> Scene:
    """Convolve, scale to a random peak, light unevenly, add out-of-focus haze, crop."""
    psf = lens_psf(rng)
    frame = render(sub, psf)
    if rng.random() < 0.3:
        frame *= np.exp(np.float32(0.3) * random_field(rng, len(frame), 4.0))
    if rng.random() < 0.6:
        frame += np.float32(log_uniform(rng, 0.03, 0.8)) * blur(frame, log_uniform(rng, 3, 30))
    if rng.random() < 0.3:
        frame += np.float32(log_uniform(rng, 0.02, 0.3)) * blur(frame[::-1, ::-1], log_uniform(rng, 8, 40))
    level = float(np.quantile(crop(frame)[::2, ::2], 0.998))
    level = level if level > 0 else float(frame.max()) + 1e-20
    return Scene(crop(frame * np.float32(log_uniform(rng, 8, 2000) / level)), psf.fwhm_px, label)


def _kind(label: str, structure: Structure) -> Callable[[Rng, int], Scene]:
    def draw(rng: Rng, size: int) -> Scene:
        sub = canvas(size)
        structure(rng, sub, size)
        return _finish(rng, sub, label)

    return draw


def mixed(rng: Rng, size: int) -> Scene:
    """Two or three structures in one frame, each with a weight of its own."""
    total = canvas(size)
    for name in rng.choice(list(STRUCTURES), int(rng.integers(2, 4)), replace=False):
        sub = canvas(size)
        STRUCTURES[str(name)](rng, sub, size)
        total += sub * np.float32(
            log_uniform(rng, 0.1, 1) / (np.quantile(sub[::4, ::4], 0.998) + sub.max() / 50 + 1e-20)
        )
    return _finish(rng, total, "mixed")


# --- curves -----------------------------------------------------------------------------------------------------


def walks(rng: Rng, x: Array, y: Array, angle: Array, length: float, persistence: float) -> Curves:
    """Persistent random walks from the given starts: curves (n, steps) of the given length and stiffness in pixels."""
    steps = max(2, int(length / SPACING))
    bend = ndimage.uniform_filter1d(rng.standard_normal((len(x), steps)), min(steps, 15), axis=1) * np.sqrt(15)
    turn = angle[:, None] + np.cumsum(bend, 1) * np.sqrt(SPACING / persistence) * 0.5
    return x[:, None] + SPACING * np.cumsum(np.cos(turn), 1), y[:, None] + SPACING * np.cumsum(np.sin(turn), 1)


def streamlines(heading: Array, x: Array, y: Array, length: float, size: int) -> Curves:
    """Curves (n, steps) of the given length that follow a field of directions (radians, padded frame)."""
    stride, path = 5 * SPACING, [(x, y)]
    for _ in range(max(2, int(length / stride))):
        angle = at(heading, x, y)
        x, y = x + stride * np.cos(angle), y + stride * np.sin(angle)
        path.append((x, y))
    knots: Array = np.array(path)
    t = np.arange(0, len(knots) - 1, 0.2)
    i, part = t.astype(int)[:, None, None], (t % 1)[:, None, None]
    fine = knots[i[:, 0, 0]] * (1 - part) + knots[i[:, 0, 0] + 1] * part
    return fine[:, 0].T, fine[:, 1].T


def beziers(a: Array, b: Array, c: Array) -> Curves:
    """Quadratic curves from `a` to `c` pulled towards `b`, each (n, 2), as arrays (n, steps)."""
    steps = 2 + int(np.hypot(*(np.abs(b - a) + np.abs(c - b)).max(0)) / SPACING)
    t = np.linspace(0, 1, steps)[:, None, None]
    curve = (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c
    return curve[..., 0].T, curve[..., 1].T


def along(rng: Rng, shape: tuple[int, ...], roughness: float) -> Array:
    """Brightness along curves (n, steps): log-normal, changing over about 15 pixels."""
    coarse = rng.standard_normal((shape[0], shape[1] // 40 + 4))
    where = np.linspace(1, coarse.shape[1] - 2, shape[1])
    i, t = where.astype(int), where % 1
    return np.exp(roughness * (coarse[:, i] * (1 - t) + coarse[:, i + 1] * t))


def add_curves(rng: Rng, sub: Array, curves: Curves, value: Array, width: float = 0.0, strands: int = 1) -> None:
    """Draw curves; `value` (n, 1) or (n, steps) is flux per pixel of length.

    `width` is the thickness (standard deviation, pixels) over which `strands` parallel lines with a Gaussian profile
    are spread.
    """
    x, y = curves
    step = np.hypot(np.gradient(x, axis=1), np.gradient(y, axis=1)) + 1e-9
    nx, ny = -np.gradient(y, axis=1) / step, np.gradient(x, axis=1) / step
    offsets = np.linspace(-2, 2, strands) if strands > 1 else np.zeros(1)
    weights = np.exp(-(offsets**2) / 2)
    for offset, weight in zip(offsets * width, weights / weights.sum(), strict=True):
        flux = np.broadcast_to(value, x.shape) * step * weight
        add_points(sub, (x + offset * nx).ravel(), (y + offset * ny).ravel(), flux.ravel(), smooth=False)


def _strands(width: float) -> int:
    return 1 if width < 0.3 else 2 * int(np.ceil(1.6 * width)) + 1


# --- cell bodies ------------------------------------------------------------------------------------------------


def blob_mask(rng: Rng, size: int, cx: float, cy: float, radius: float, lobes: float, edge: float) -> Array:
    """A cell body seen from above: a disc with a wavy outline and a smooth edge, 0 to 1 over the padded frame."""
    y, x = grid(size)
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
    """Inside of a closed curve (even-odd rule), 0 or 1 with edges a few pixels soft."""
    n, coarse = side(size), 4
    line = np.arange(-MARGIN + coarse / 2, size + MARGIN, coarse)
    x2, y2 = np.roll(x, -1), np.roll(y, -1)
    crosses = (y[None] > line[:, None]) != (y2[None] > line[:, None])
    cut = x + (line[:, None] - y) * (x2 - x) / np.where(y2 == y, 1e-9, y2 - y)
    inside = (crosses[:, None, :] & (line[None, :, None] < cut[:, None, :])).sum(2) % 2
    return ndimage.zoom(inside.astype(np.float32), n / len(line), order=1, mode="nearest", grid_mode=True)[:n, :n]


# --- structures -------------------------------------------------------------------------------------------------


def actin(rng: Rng, sub: Array, size: int) -> None:
    """Stress fibres of one or two spread cells: bright concave edges, aligned fibres, a faint mesh inside."""
    for _ in range(int(rng.integers(1, 3))):
        corners, control = web_outline(rng, size)
        ex, ey = beziers(corners, control, np.roll(corners, -1, 0))
        width = rng.uniform(0.2, 2.5)
        value = along(rng, ex.shape, 0.5) * log_uniform(rng, 0.5, 4) * (1 + width)
        add_curves(rng, sub, (ex, ey), value, width, _strands(width))
        mask = polygon_mask(size, ex[:, ::60].ravel(), ey[:, ::60].ravel())
        body = mask * np.exp(rng.uniform(0.2, 0.8) * random_field(rng, side(size), 2.6, longest=size / 4))
        add_field(sub, body * np.float32(log_uniform(rng, 0.01, 0.15)))
        _fibres(rng, sub, corners, mask, size)
        _mesh(rng, sub, mask, size)


def _fibres(rng: Rng, sub: Array, corners: Array, mask: Array, size: int) -> None:
    """Bundles that span the cell between neighbourhoods of its corners."""
    n, k = int(log_uniform(rng, 4, 50)), len(corners)
    first, second = rng.integers(0, k, n), rng.integers(1, k, n)
    spread = rng.uniform(0.03, 0.25) * size
    a = corners[first] + rng.normal(0, spread, (n, 2))
    c = corners[(first + second) % k] + rng.normal(0, spread, (n, 2))
    b = (a + c) / 2 + rng.normal(0, 0.04 * size, (n, 2)) + 0.4 * (corners.mean(0) - (a + c) / 2)
    x, y = beziers(a, b, c)
    value = log_uniforms(rng, 0.05, 1.5, n)[:, None] * along(rng, x.shape, 0.5) * at(mask, x, y)
    cut = n // 3
    width = rng.uniform(0.4, 2.0)
    add_curves(rng, sub, (x[:cut], y[:cut]), 2 * value[:cut], width, _strands(width))
    add_curves(rng, sub, (x[cut:], y[cut:]), value[cut:])


def _mesh(rng: Rng, sub: Array, mask: Array, size: int) -> None:
    """Many short filaments that follow a common, slowly turning direction, some of them thick, and stray ones."""
    heading = rng.uniform(0, np.pi) + rng.uniform(0.1, 0.9) * random_field(rng, side(size), 5.0, longest=size / 2)
    strength = log_uniform(rng, 0.03, 0.6)
    for share, width in ((0.75, 0.0), (0.25, rng.uniform(0.5, 2.0))):
        x, y = positions(rng, size, int(log_uniform(rng, 200, 2500) * share))
        x, y = (v[at(mask, x, y) > 0.3] for v in (x, y))
        turned = heading + np.float32(rng.choice([0, 0, 1.2]))
        curves = streamlines(turned, x, y, log_uniform(rng, 20, 160), size)
        ends = np.sin(np.linspace(0.1, np.pi - 0.1, curves[0].shape[1])) ** 0.5
        value = strength * np.exp(rng.normal(0, 0.7, (len(x), 1))) * (1 + width) * ends
        add_curves(rng, sub, curves, value * at(mask, *curves), width, _strands(width))
    n = int(log_uniform(rng, 5, 100))
    x, y = positions(rng, size, n)
    curves = walks(rng, x, y, rng.uniform(0, 2 * np.pi, n), rng.uniform(20, 80), log_uniform(rng, 20, 200))
    add_curves(rng, sub, curves, strength * rng.uniform(0.2, 1, n)[:, None] * at(mask, *curves))


def filaments(rng: Rng, sub: Array, size: int) -> None:
    """A network of single filaments and bundles that cross, with or without a common direction."""
    n = int(log_uniform(rng, 6, 160))
    x, y = positions(rng, size, n)
    angle = rng.uniform(0, 2 * np.pi) + rng.normal(0, log_uniform(rng, 0.1, 6), n)
    curves = walks(rng, x, y, angle, rng.uniform(0.2, 1.2) * size, log_uniform(rng, 15, 600))
    value = log_uniforms(rng, 0.1, 1, n)[:, None] * along(rng, curves[0].shape, rng.uniform(0, 0.5))
    thick = rng.random(n) < rng.uniform(0, 0.3)
    width = log_uniform(rng, 0.3, 2.0)
    add_curves(rng, sub, (curves[0][~thick], curves[1][~thick]), value[~thick])
    add_curves(rng, sub, (curves[0][thick], curves[1][thick]), 2 * value[thick], width, _strands(width))


def microtubules(rng: Rng, sub: Array, size: int) -> None:
    """Thin curved tubes that leave one or two centres and fill the cell, all about equally bright."""
    for _ in range(int(rng.integers(1, 4))):
        n, spread = int(log_uniform(rng, 30, 160)), rng.uniform(2, 0.1 * size + 3)
        cx, cy = rng.uniform(0, 1, 2) * size
        angle, radius = rng.uniform(0, 2 * np.pi, n), rng.exponential(spread, n)
        x, y = cx + radius * np.cos(angle), cy + radius * np.sin(angle)
        start = angle + rng.normal(0, 0.6, n)
        curves = walks(rng, x, y, start, rng.uniform(0.3, 0.7) * size, log_uniform(rng, 30, 250))
        reach = rng.uniform(0.3, 1.0, n)[:, None] > np.linspace(0, 1, curves[0].shape[1])
        add_curves(rng, sub, curves, rng.uniform(0.7, 1.3, n)[:, None] * reach)
    if rng.random() < 0.5:
        mask = blob_mask(rng, size, cx, cy, 0.5 * size, 0.3, 6)
        add_field(sub, mask * np.float32(rng.uniform(0, 0.1)))


def add_blobs(rng: Rng, sub: Array, size: int, x: Array, y: Array, radius: Array, value: Array) -> None:
    """Round vesicles: filled, Gaussian or hollow discs."""
    padded, n = np.zeros((side(size),) * 2, np.float32), side(size)
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
    add_field(sub, padded)


def scatter(rng: Rng, size: int, n: int) -> Curves:
    """Positions: even, or clustered around parents (a Thomas process)."""
    if rng.random() < 0.4:
        return positions(rng, size, n)
    px, py = positions(rng, size, int(rng.integers(2, 30)))
    parent, spread = rng.integers(0, len(px), n), log_uniform(rng, 0.01, 0.15) * size
    return px[parent] + rng.normal(0, spread, n), py[parent] + rng.normal(0, spread, n)


def puncta(rng: Rng, sub: Array, size: int) -> None:
    """Spots below the resolution and vesicles of up to 8 pixels, over a weak cell body."""
    density = (side(size) / 384) ** 2
    x, y = scatter(rng, size, int(log_uniform(rng, 15, 1500) * density) + 1)
    add_points(sub, x, y, 10 * np.exp(rng.normal(0, rng.uniform(0.2, 1.3), len(x))))
    if rng.random() < 0.7:
        x, y = scatter(rng, size, int(log_uniform(rng, 5, 200) * density) + 1)
        radius = np.minimum(log_uniforms(rng, 0.8, 5, len(x)), 4.5)
        add_blobs(rng, sub, size, x, y, radius, np.exp(rng.normal(0, 0.7, len(x))))
    if rng.random() < 0.6:
        mask = blob_mask(
            rng, size, rng.uniform(0.2, 0.8) * size, rng.uniform(0.2, 0.8) * size, rng.uniform(0.2, 0.5) * size, 0.4, 4
        )
        cloud = np.exp(0.4 * random_field(rng, side(size), 2.5, longest=size / 6))
        add_field(sub, mask * cloud * np.float32(log_uniform(rng, 0.02, 0.6)))


def nuclei(rng: Rng, sub: Array, size: int) -> None:
    """Cell nuclei: ellipses of uneven outline with chromatin texture and dark nucleoli, some of them dividing."""
    mean = log_uniform(rng, 6, 45)
    n = max(1, int(rng.uniform(0.1, 0.8) * side(size) ** 2 / (4 * mean**2)))
    x, y = scatter(rng, size, n) if rng.random() < 0.4 else positions(rng, size, n)
    texture = random_field(rng, side(size), rng.uniform(1.8, 3.2), longest=mean, shortest=1.0)
    bend = random_field(rng, side(size), 4.0, longest=2 * mean)
    padded = np.zeros((side(size),) * 2, np.float32)
    rough, edge = log_uniform(rng, 0.05, 0.6), rng.uniform(0.4, 2.0)
    for cx, cy in zip(x, y, strict=True):
        _nucleus(rng, padded, (cx + MARGIN, cy + MARGIN), mean * rng.uniform(0.7, 1.3), texture * rough, bend, edge)
    add_field(sub, padded)


def _nucleus(
    rng: Rng, padded: Array, at_: tuple[float, float], radius: float, texture: Array, bend: Array, edge: float
) -> None:
    """Add one nucleus to the padded frame in place; a dividing one is small, long and bright."""
    dividing = rng.random() < 0.08
    ratio, angle = (rng.uniform(0.25, 0.45) if dividing else rng.uniform(0.6, 1.0)), rng.uniform(0, np.pi)
    radius = radius * (0.8 if dividing else 1.0)
    x0, y0 = (max(0, int(c - 1.6 * radius - 4)) for c in at_)
    window = np.s_[y0 : int(at_[1] + 1.6 * radius + 5), x0 : int(at_[0] + 1.6 * radius + 5)]
    tile = padded[window]
    dy, dx = np.ogrid[: tile.shape[0], : tile.shape[1]]
    dx, dy = dx + x0 - at_[0], dy + y0 - at_[1]
    u, v = dx * np.cos(angle) + dy * np.sin(angle), (dy * np.cos(angle) - dx * np.sin(angle)) / ratio
    distance = np.hypot(u, v) - radius * (1 + 0.08 * bend[window])
    light = np.exp(texture[window]) / (1 + np.exp(np.clip(distance / edge * np.sqrt(ratio), -30, 30)))
    for _ in range(0 if dividing else int(rng.integers(0, 4))):
        hx, hy, hole = *rng.normal(0, 0.3 * radius, 2), radius * rng.uniform(0.08, 0.25)
        light *= 1 - rng.uniform(0.2, 0.8) * np.exp(-((((dx - hx) ** 2 + (dy - hy) ** 2) / hole**2) ** 2))
    tile += (light * rng.uniform(0.4, 1.0) * (2.5 if dividing else 1.0)).astype(np.float32)


def _edges(rng: Rng, size: int, cell: float, order: float) -> tuple[Curves, Array]:
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


def _bend(rng: Rng, size: int, curves: Curves, amount: float, scale: float) -> Curves:
    """Curves displaced by a smooth random field."""
    dx, dy = (np.float32(amount) * random_field(rng, side(size), 4.0, longest=scale, shortest=4) for _ in "xy")
    smooth = [_read(field, *curves) for field in (dx, dy)]
    return curves[0] + smooth[0], curves[1] + smooth[1]


def _read(field: Array, x: Array, y: Array) -> Array:
    return ndimage.map_coordinates(field, [y + MARGIN, x + MARGIN], order=1, mode="nearest")


def membranes(rng: Rng, sub: Array, size: int) -> None:
    """Outlines of cells that touch: thin lines of uneven brightness, brighter where three meet."""
    cell = log_uniform(rng, 14, 110)
    (x, y), _ = _edges(rng, size, cell, rng.uniform(0.1, 0.35))
    curves = _bend(rng, size, (x, y), cell * rng.uniform(0, 0.08), cell)
    value = rng.uniform(0.4, 1.2, (len(x), 1)) * along(rng, x.shape, rng.uniform(0.1, 0.6))
    ends = np.abs(np.linspace(-1, 1, x.shape[1])) ** 8
    width = log_uniform(rng, 0.1, 1.5)
    add_curves(rng, sub, curves, value * (1 + rng.uniform(0, 1.5) * ends), width, _strands(width))
    texture = np.exp(0.5 * random_field(rng, side(size), 2.4, longest=cell))
    add_field(sub, texture * np.float32(log_uniform(rng, 0.003, 0.1)))
    if rng.random() < 0.4:
        px, py = scatter(rng, size, int(log_uniform(rng, 10, 300)))
        add_points(sub, px, py, log_uniforms(rng, 0.3, 5, len(px)))


def reticulum(rng: Rng, sub: Array, size: int) -> None:
    """Endoplasmic reticulum: a fine net of tubes around a nucleus, denser towards it."""
    cell = rng.uniform(7, 22)
    curves, _ = _edges(rng, size, cell, rng.uniform(0.25, 0.4))
    curves = _bend(rng, size, curves, cell * rng.uniform(0.1, 0.35), 2 * cell)
    cx, cy = rng.uniform(0.2, 0.8, 2) * size
    radius = rng.uniform(0.3, 0.8) * size
    body = blob_mask(rng, size, cx, cy, radius, 0.25, 4)
    hole = blob_mask(rng, size, cx, cy, radius * 0.3, 0.1, 2)
    x, y = curves
    dense = np.exp(-np.hypot(x - cx, y - cy) / (0.6 * radius))
    keep = (rng.random((len(x), 1)) < 0.8) * along(rng, x.shape, 0.3)
    add_curves(rng, sub, curves, keep * (0.2 + dense) * at(body * (1 - hole), x, y))
    add_field(sub, body * (1 - hole) * np.float32(rng.uniform(0, 0.05)))


def mitochondria(rng: Rng, sub: Array, size: int) -> None:
    """Worm-like organelles a few pixels thick, around the place of a nucleus."""
    n = int(log_uniform(rng, 15, 250))
    cx, cy, hole = *rng.uniform(0.2, 0.8, 2) * size, rng.uniform(0.05, 0.15) * size
    angle = rng.uniform(0, 2 * np.pi, n)
    r = hole + rng.exponential(rng.uniform(0.1, 0.35) * size, n)
    curves = walks(rng, cx + r * np.cos(angle), cy + r * np.sin(angle), angle + rng.normal(0, 1.2, n),
                   log_uniform(rng, 10, 70), log_uniform(rng, 6, 50))  # fmt: skip
    length = curves[0].shape[1]
    reach = rng.uniform(0.2, 1.0, n)[:, None] > np.linspace(0, 1, length)
    value = rng.uniform(0.4, 1.0, n)[:, None] * along(rng, curves[0].shape, 0.3) * reach
    width = rng.uniform(0.5, 1.8)
    add_curves(rng, sub, curves, value, width, _strands(width))
    mask = blob_mask(rng, size, cx, cy, rng.uniform(0.3, 0.6) * size, 0.3, 5)
    add_field(sub, mask * np.float32(log_uniform(rng, 0.003, 0.1)))


def adhesions(rng: Rng, sub: Array, size: int) -> None:
    """Focal adhesions: short plaques that point to the rim of a cell, over a weak ventral haze."""
    for _ in range(int(rng.integers(1, 4))):
        cx, cy, radius = *rng.uniform(0, 1, 2) * size, rng.uniform(0.1, 0.45) * size
        mask = blob_mask(rng, size, cx, cy, radius, 0.35, 2)
        depth = blur(mask, radius / 4)
        n = int(log_uniform(rng, 60, 900))
        x, y = rng.uniform(-1.6, 1.6, (2, 3 * n)) * radius + np.array([[cx], [cy]])
        chance = at(mask, x, y) * np.exp(-rng.uniform(0, 5) * at(depth, x, y))
        keep = np.flatnonzero(rng.random(3 * n) * 0.6 < chance)[:n]
        x, y = x[keep], y[keep]
        point = np.arctan2(y - cy, x - cx) + rng.normal(0, rng.uniform(0.1, 0.5), len(x))
        curves = walks(rng, x, y, point, log_uniform(rng, 5, 25), 100)
        reach = rng.uniform(0.2, 1.0, len(x))[:, None] > np.linspace(0, 1, curves[0].shape[1])
        width = rng.uniform(0.3, 1.6)
        value = np.exp(rng.normal(0, 0.6, len(x)))[:, None] * reach
        add_curves(rng, sub, curves, value, width, _strands(width))
        cloud = np.exp(rng.uniform(0.2, 0.7) * random_field(rng, side(size), 2.2, longest=radius))
        add_field(sub, mask * cloud * np.float32(log_uniform(rng, 0.01, 0.25)))


def tissue(rng: Rng, sub: Array, size: int) -> None:
    """Plant tissue: thick double walls, contents that differ from cell to cell, chloroplasts in some."""
    cell = log_uniform(rng, 20, 110)
    curves, seeds = _edges(rng, size, cell, rng.uniform(0.05, 0.3))
    width = log_uniform(rng, 0.5, 3.0)
    value = rng.uniform(0.6, 1.2, (len(curves[0]), 1)) * along(rng, curves[0].shape, 0.2) * 2 * width
    add_curves(rng, sub, curves, value, width, _strands(width))
    points = np.ones((side(size),) * 2, bool)
    inside = np.rint(seeds + MARGIN).astype(int)
    inside = inside[((inside >= 0) & (inside < side(size))).all(1)]
    points[inside[:, 1], inside[:, 0]] = False
    iy, ix = ndimage.distance_transform_edt(points, return_distances=False, return_indices=True)
    content = log_uniform(rng, 0.02, 0.5) * rng.random((side(size),) * 2).astype(np.float32) ** 2
    texture = np.exp(0.5 * random_field(rng, side(size), 2.2, longest=cell / 2))
    add_field(sub, blur(content[iy, ix], 1.0) * texture)
    if rng.random() < 0.5:
        x, y = scatter(rng, size, int(log_uniform(rng, 20, 400)))
        add_blobs(rng, sub, size, x, y, rng.uniform(1.5, 4.5, len(x)), rng.uniform(0.2, 1, len(x)))


def worm(rng: Rng, sub: Array, size: int) -> None:
    """A nematode or muscle fibre: a long striated body with seams, out-of-focus spheres around it."""
    y, x = grid(size)
    angle = rng.uniform(0, np.pi)
    along_, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    centre = rng.uniform(0.2, 0.8, 2) @ np.array([-np.sin(angle), np.cos(angle)]) * size
    bend = random_field(rng, side(size), 4.0, longest=size, shortest=25) * np.float32(rng.uniform(1, 0.05 * size + 1))
    half = rng.uniform(0.06, 0.25) * size
    across = (across - np.float32(centre) + bend) / np.float32(half)
    edge = np.float32(rng.uniform(0.02, 0.15))
    body = 1 / (1 + np.exp(np.clip((np.abs(across) - 1) / edge, -30, 30)))
    jitter = random_field(rng, side(size), 2.5, longest=30) * np.float32(rng.uniform(0.2, 1.5))
    stripe = 1 + rng.uniform(0, 0.5) * np.sin(
        (along_ + 0.2 * half * across) * 2 * np.pi / rng.uniform(3.5, 14) + jitter
    )
    for seam in rng.uniform(-0.8, 0.8, int(rng.integers(0, 4))):
        body *= 1 - rng.uniform(0.3, 0.9) * np.exp(-(((across - seam) / rng.uniform(0.02, 0.1)) ** 2))
    texture = np.exp(log_uniform(rng, 0.05, 0.4) * random_field(rng, side(size), rng.uniform(1.8, 3.4), longest=half))
    if rng.random() < 0.5:  # a cylinder is thicker in the middle
        body *= np.sqrt(np.maximum(1 - (0.95 * np.clip(across, -1, 1)) ** 2, 0))
    add_field(sub, (body * stripe * texture).astype(np.float32))
    _spheres(rng, sub, size)


def _spheres(rng: Rng, sub: Array, size: int) -> None:
    """Faint out-of-focus discs."""
    n = int(rng.integers(0, 15))
    x, y = positions(rng, size, n)
    field = canvas(size)
    add_blobs(rng, field, size, x, y, rng.uniform(4, 0.06 * size + 5, n), rng.uniform(0.02, 0.25, n))
    sub += blur(field, rng.uniform(1.5, 6))


def embryo(rng: Rng, sub: Array, size: int) -> None:
    """An embryo in widefield: an egg filled with soft nuclei in several planes, granules, a shell."""
    n, radius = side(size), rng.uniform(0.25, 0.5) * size
    cx, cy = rng.uniform(0.35, 0.65, 2) * size
    mask = blob_mask(rng, size, cx, cy, radius, 0.15, rng.uniform(1, 5))
    add_field(
        sub, mask * np.exp(0.4 * random_field(rng, n, 2.4, longest=radius / 3)) * np.float32(rng.uniform(0.1, 0.5))
    )
    for plane in log_uniforms(rng, 0.5, 9, int(rng.integers(1, 4))):
        count = int(rng.integers(8, 70))
        x, y = rng.normal(0, 0.45 * radius, (2, count)) + np.array([[cx], [cy]])
        field = canvas(size)
        radii = rng.uniform(0.04, 0.14) * radius * rng.uniform(0.8, 1.2, count) + 1
        add_blobs(rng, field, size, x, y, radii, rng.uniform(0.2, 1, count))
        sub += blur(field, 2 * float(plane))
    x, y = rng.normal(0, 0.5 * radius, (2, int(log_uniform(rng, 10, 400)))) + np.array([[cx], [cy]])
    add_points(sub, x, y, log_uniforms(rng, 0.2, 4, len(x)))


def neurites(rng: Rng, sub: Array, size: int) -> None:
    """Neurons: bright somata, tapering branched processes with varicosities and spines."""
    for _ in range(int(rng.integers(1, 5))):
        cx, cy = rng.uniform(-0.1, 1.1, 2) * size
        n = int(rng.integers(3, 9))
        x, y, angle = np.full(n, cx), np.full(n, cy), rng.uniform(0, 2 * np.pi, n)
        value, width = np.full(n, log_uniform(rng, 1, 4)), rng.uniform(0.6, 2.0)
        soma = np.array([rng.uniform(0.015, 0.05) * size])
        add_blobs(rng, sub, size, np.array([cx]), np.array([cy]), soma, np.array([rng.uniform(0.5, 2)]))
        for _level in range(int(rng.integers(2, 5))):
            curves = walks(rng, x, y, angle, rng.uniform(0.1, 0.35) * size, log_uniform(rng, 40, 300))
            taper = np.linspace(1, 0.7, curves[0].shape[1])
            add_curves(
                rng, sub, curves, value[:, None] * taper * along(rng, curves[0].shape, 0.3), width, _strands(width)
            )
            _spines(rng, sub, curves, float(value.mean()))
            keep = rng.integers(0, len(x), int(1.6 * len(x)))
            turn = np.arctan2(curves[1][:, -1] - curves[1][:, -2], curves[0][:, -1] - curves[0][:, -2])
            x, y = curves[0][keep, -1], curves[1][keep, -1]
            angle, value, width = turn[keep] + rng.normal(0, 0.5, len(keep)), 0.6 * value[keep], 0.7 * width


def _spines(rng: Rng, sub: Array, curves: Curves, value: float) -> None:
    """Small heads beside the processes."""
    n = int(log_uniform(rng, 2, 150))
    i, j = rng.integers(0, curves[0].shape[0], n), rng.integers(0, curves[0].shape[1], n)
    dx, dy = rng.normal(0, 2.5, (2, n))
    add_points(sub, curves[0][i, j] + dx, curves[1][i, j] + dy, value * log_uniforms(rng, 0.3, 4, n))


def bacteria(rng: Rng, sub: Array, size: int) -> None:
    """Rods, filled or stained at the membrane, single or in chains."""
    n = int(log_uniform(rng, 10, 400))
    x, y = scatter(rng, size, n)
    angle = rng.uniform(0, np.pi) + rng.normal(0, log_uniform(rng, 0.1, 4), n)
    width = rng.uniform(1.0, 2.5)
    curves = walks(rng, x, y, angle, rng.uniform(6, 28), 400)
    reach = rng.uniform(0.4, 1.0, n)[:, None] > np.linspace(0, 1, curves[0].shape[1])
    value = rng.uniform(0.5, 1, n)[:, None] * reach
    if rng.random() < 0.7:
        add_curves(rng, sub, curves, value, width, _strands(width))
        return
    for sign in (-1, 1):
        nx, ny = -np.sin(angle)[:, None] * sign * width, np.cos(angle)[:, None] * sign * width
        add_curves(rng, sub, (curves[0] + nx, curves[1] + ny), value, 0.3, 3)


def texture(rng: Rng, sub: Array, size: int) -> None:
    """A section without clear objects: warped multi-scale texture with sharp boundaries."""
    n = side(size)
    field = random_field(rng, n, rng.uniform(1.6, 3.4), longest=log_uniform(rng, 10, 200))
    strength = np.float32(log_uniform(rng, 1, 20))
    field = warp(field, *(strength * random_field(rng, n, 3.5, longest=n / 4) for _ in "yx"))
    step = np.tanh(field * np.float32(log_uniform(rng, 0.5, 8))) + 1
    add_field(sub, step * np.exp(rng.uniform(0.1, 1) * random_field(rng, n, 2.2, longest=60)))


STRUCTURES: dict[str, Structure] = {
    "actin": actin,
    "filaments": filaments,
    "microtubules": microtubules,
    "puncta": puncta,
    "nuclei": nuclei,
    "membranes": membranes,
    "reticulum": reticulum,
    "mitochondria": mitochondria,
    "adhesions": adhesions,
    "tissue": tissue,
    "worm": worm,
    "embryo": embryo,
    "neurites": neurites,
    "bacteria": bacteria,
    "texture": texture,
}
CELLS = {name: _kind(name, structure) for name, structure in STRUCTURES.items()} | {"mixed": mixed}
CELL_SHARES = {
    "actin": 0.14,
    "filaments": 0.07,
    "microtubules": 0.07,
    "puncta": 0.09,
    "nuclei": 0.09,
    "membranes": 0.07,
    "reticulum": 0.04,
    "mitochondria": 0.06,
    "adhesions": 0.09,
    "tissue": 0.05,
    "worm": 0.05,
    "embryo": 0.04,
    "neurites": 0.03,
    "bacteria": 0.03,
    "texture": 0.03,
    "mixed": 0.05,
}
