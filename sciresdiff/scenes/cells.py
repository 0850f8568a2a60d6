"""Simulated microscopy: filaments, puncta, nuclei, membranes, organelles, tissue, out-of-focus haze.

A structure is a function ``(rng, canvas, size)`` that draws itself onto a canvas (see `draw`) in arbitrary units, for a
frame of ``size`` pixels; `_render_scene` brings the scene to a peak of 8 to 2000 in units in which the noise is of the
order of 1 per fine pixel.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from sciresdiff.scenes.curves import (
    add_blobs,
    add_curves,
    bend_curves,
    blob_mask,
    brightness_along,
    cell_walls,
    draw_positions,
    strands_for,
)
from sciresdiff.scenes.draw import (
    MARGIN,
    Array,
    Rng,
    Scene,
    ScenePSF,
    add_field,
    add_points,
    blur,
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
from sciresdiff.scenes.fibres import actin, adhesions, bacteria, filaments, microtubules, mitochondria, neurites
from sciresdiff.scenes.psf import gaussian_psf, halo_psf, pupil_psf

Structure = Callable[[Rng, Array, int], None]
"""(rng, canvas, size): draws onto the canvas in place."""


def lens_psf(rng: Rng) -> ScenePSF:
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


def _render_scene(rng: Rng, canvas: Array, label: str) -> Scene:
    """Convolve, scale to a random peak, light unevenly, add out-of-focus haze, crop."""
    psf = lens_psf(rng)
    frame = render(canvas, psf)
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
        canvas = empty_canvas(size)
        structure(rng, canvas, size)
        return _render_scene(rng, canvas, label)

    return draw


def mixed_structures(rng: Rng, size: int) -> Scene:
    """Two or three structures in one frame, each with a weight of its own."""
    total = empty_canvas(size)
    for name in rng.choice(list(STRUCTURES), int(rng.integers(2, 4)), replace=False):
        canvas = empty_canvas(size)
        STRUCTURES[str(name)](rng, canvas, size)
        total += canvas * np.float32(
            log_uniform(rng, 0.1, 1) / (np.quantile(canvas[::4, ::4], 0.998) + canvas.max() / 50 + 1e-20)
        )
    return _render_scene(rng, total, "mixed")


def puncta(rng: Rng, canvas: Array, size: int) -> None:
    """Spots below the resolution and vesicles of up to 8 pixels, over a weak cell body."""
    density = (padded_side(size) / 384) ** 2
    x, y = draw_positions(rng, size, int(log_uniform(rng, 15, 1500) * density) + 1)
    add_points(canvas, x, y, 10 * np.exp(rng.normal(0, rng.uniform(0.2, 1.3), len(x))))
    if rng.random() < 0.7:
        x, y = draw_positions(rng, size, int(log_uniform(rng, 5, 200) * density) + 1)
        radius = np.minimum(log_uniforms(rng, 0.8, 5, len(x)), 4.5)
        add_blobs(rng, canvas, size, x, y, radius, np.exp(rng.normal(0, 0.7, len(x))))
    if rng.random() < 0.6:
        mask = blob_mask(
            rng, size, rng.uniform(0.2, 0.8) * size, rng.uniform(0.2, 0.8) * size, rng.uniform(0.2, 0.5) * size, 0.4, 4
        )
        cloud = np.exp(0.4 * random_field(rng, padded_side(size), 2.5, longest=size / 6))
        add_field(canvas, mask * cloud * np.float32(log_uniform(rng, 0.02, 0.6)))


def nuclei(rng: Rng, canvas: Array, size: int) -> None:
    """Cell nuclei: ellipses of uneven outline with chromatin texture and dark nucleoli, some of them dividing."""
    mean = log_uniform(rng, 6, 45)
    n = max(1, int(rng.uniform(0.1, 0.8) * padded_side(size) ** 2 / (4 * mean**2)))
    x, y = draw_positions(rng, size, n) if rng.random() < 0.4 else uniform_positions(rng, size, n)
    texture = random_field(rng, padded_side(size), rng.uniform(1.8, 3.2), longest=mean, shortest=1.0)
    bend = random_field(rng, padded_side(size), 4.0, longest=2 * mean)
    padded = np.zeros((padded_side(size),) * 2, np.float32)
    rough, edge = log_uniform(rng, 0.05, 0.6), rng.uniform(0.4, 2.0)
    for cx, cy in zip(x, y, strict=True):
        _nucleus(rng, padded, (cx + MARGIN, cy + MARGIN), mean * rng.uniform(0.7, 1.3), texture * rough, bend, edge)
    add_field(canvas, padded)


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


def membranes(rng: Rng, canvas: Array, size: int) -> None:
    """Outlines of cells that touch: thin lines of uneven brightness, brighter where three meet."""
    cell = log_uniform(rng, 14, 110)
    (x, y), _ = cell_walls(rng, size, cell, rng.uniform(0.1, 0.35))
    curves = bend_curves(rng, size, (x, y), cell * rng.uniform(0, 0.08), cell)
    value = rng.uniform(0.4, 1.2, (len(x), 1)) * brightness_along(rng, x.shape, rng.uniform(0.1, 0.6))
    ends = np.abs(np.linspace(-1, 1, x.shape[1])) ** 8
    width = log_uniform(rng, 0.1, 1.5)
    add_curves(rng, canvas, curves, value * (1 + rng.uniform(0, 1.5) * ends), width, strands_for(width))
    texture = np.exp(0.5 * random_field(rng, padded_side(size), 2.4, longest=cell))
    add_field(canvas, texture * np.float32(log_uniform(rng, 0.003, 0.1)))
    if rng.random() < 0.4:
        px, py = draw_positions(rng, size, int(log_uniform(rng, 10, 300)))
        add_points(canvas, px, py, log_uniforms(rng, 0.3, 5, len(px)))


def reticulum(rng: Rng, canvas: Array, size: int) -> None:
    """Endoplasmic reticulum: a fine net of tubes around a nucleus, denser towards it."""
    cell = rng.uniform(7, 22)
    curves, _ = cell_walls(rng, size, cell, rng.uniform(0.25, 0.4))
    curves = bend_curves(rng, size, curves, cell * rng.uniform(0.1, 0.35), 2 * cell)
    cx, cy = rng.uniform(0.2, 0.8, 2) * size
    radius = rng.uniform(0.3, 0.8) * size
    body = blob_mask(rng, size, cx, cy, radius, 0.25, 4)
    hole = blob_mask(rng, size, cx, cy, radius * 0.3, 0.1, 2)
    x, y = curves
    dense = np.exp(-np.hypot(x - cx, y - cy) / (0.6 * radius))
    keep = (rng.random((len(x), 1)) < 0.8) * brightness_along(rng, x.shape, 0.3)
    add_curves(rng, canvas, curves, keep * (0.2 + dense) * values_at(body * (1 - hole), x, y))
    add_field(canvas, body * (1 - hole) * np.float32(rng.uniform(0, 0.05)))


def tissue(rng: Rng, canvas: Array, size: int) -> None:
    """Plant tissue: thick double walls, contents that differ from cell to cell, chloroplasts in some."""
    cell = log_uniform(rng, 20, 110)
    curves, seeds = cell_walls(rng, size, cell, rng.uniform(0.05, 0.3))
    width = log_uniform(rng, 0.5, 3.0)
    value = rng.uniform(0.6, 1.2, (len(curves[0]), 1)) * brightness_along(rng, curves[0].shape, 0.2) * 2 * width
    add_curves(rng, canvas, curves, value, width, strands_for(width))
    points = np.ones((padded_side(size),) * 2, bool)
    inside = np.rint(seeds + MARGIN).astype(int)
    inside = inside[((inside >= 0) & (inside < padded_side(size))).all(1)]
    points[inside[:, 1], inside[:, 0]] = False
    iy, ix = ndimage.distance_transform_edt(points, return_distances=False, return_indices=True)
    content = log_uniform(rng, 0.02, 0.5) * rng.random((padded_side(size),) * 2).astype(np.float32) ** 2
    texture = np.exp(0.5 * random_field(rng, padded_side(size), 2.2, longest=cell / 2))
    add_field(canvas, blur(content[iy, ix], 1.0) * texture)
    if rng.random() < 0.5:
        x, y = draw_positions(rng, size, int(log_uniform(rng, 20, 400)))
        add_blobs(rng, canvas, size, x, y, rng.uniform(1.5, 4.5, len(x)), rng.uniform(0.2, 1, len(x)))


def worm(rng: Rng, canvas: Array, size: int) -> None:
    """A nematode or muscle fibre: a long striated body with seams, out-of-focus spheres around it."""
    y, x = padded_grid(size)
    angle = rng.uniform(0, np.pi)
    along_, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    centre = rng.uniform(0.2, 0.8, 2) @ np.array([-np.sin(angle), np.cos(angle)]) * size
    bend = random_field(rng, padded_side(size), 4.0, longest=size, shortest=25)
    bend = bend * np.float32(rng.uniform(1, 0.05 * size + 1))
    half = rng.uniform(0.06, 0.25) * size
    across = (across - np.float32(centre) + bend) / np.float32(half)
    edge = np.float32(rng.uniform(0.02, 0.15))
    body = 1 / (1 + np.exp(np.clip((np.abs(across) - 1) / edge, -30, 30)))
    jitter = random_field(rng, padded_side(size), 2.5, longest=30) * np.float32(rng.uniform(0.2, 1.5))
    stripe = 1 + rng.uniform(0, 0.5) * np.sin(
        (along_ + 0.2 * half * across) * 2 * np.pi / rng.uniform(3.5, 14) + jitter
    )
    for seam in rng.uniform(-0.8, 0.8, int(rng.integers(0, 4))):
        body *= 1 - rng.uniform(0.3, 0.9) * np.exp(-(((across - seam) / rng.uniform(0.02, 0.1)) ** 2))
    texture = np.exp(
        log_uniform(rng, 0.05, 0.4) * random_field(rng, padded_side(size), rng.uniform(1.8, 3.4), longest=half)
    )
    if rng.random() < 0.5:  # a cylinder is thicker in the middle
        body *= np.sqrt(np.maximum(1 - (0.95 * np.clip(across, -1, 1)) ** 2, 0))
    add_field(canvas, (body * stripe * texture).astype(np.float32))
    _spheres(rng, canvas, size)


def _spheres(rng: Rng, canvas: Array, size: int) -> None:
    """Faint out-of-focus discs."""
    n = int(rng.integers(0, 15))
    x, y = uniform_positions(rng, size, n)
    field = empty_canvas(size)
    add_blobs(rng, field, size, x, y, rng.uniform(4, 0.06 * size + 5, n), rng.uniform(0.02, 0.25, n))
    canvas += blur(field, rng.uniform(1.5, 6))


def embryo(rng: Rng, canvas: Array, size: int) -> None:
    """An embryo in widefield: an egg filled with soft nuclei in several planes, granules, a shell."""
    n, radius = padded_side(size), rng.uniform(0.25, 0.5) * size
    cx, cy = rng.uniform(0.35, 0.65, 2) * size
    mask = blob_mask(rng, size, cx, cy, radius, 0.15, rng.uniform(1, 5))
    add_field(
        canvas, mask * np.exp(0.4 * random_field(rng, n, 2.4, longest=radius / 3)) * np.float32(rng.uniform(0.1, 0.5))
    )
    for plane in log_uniforms(rng, 0.5, 9, int(rng.integers(1, 4))):
        count = int(rng.integers(8, 70))
        x, y = rng.normal(0, 0.45 * radius, (2, count)) + np.array([[cx], [cy]])
        field = empty_canvas(size)
        radii = rng.uniform(0.04, 0.14) * radius * rng.uniform(0.8, 1.2, count) + 1
        add_blobs(rng, field, size, x, y, radii, rng.uniform(0.2, 1, count))
        canvas += blur(field, 2 * float(plane))
    x, y = rng.normal(0, 0.5 * radius, (2, int(log_uniform(rng, 10, 400)))) + np.array([[cx], [cy]])
    add_points(canvas, x, y, log_uniforms(rng, 0.2, 4, len(x)))


def texture(rng: Rng, canvas: Array, size: int) -> None:
    """A section without clear objects: warped multi-scale texture with sharp boundaries."""
    n = padded_side(size)
    field = random_field(rng, n, rng.uniform(1.6, 3.4), longest=log_uniform(rng, 10, 200))
    strength = np.float32(log_uniform(rng, 1, 20))
    field = warp(field, *(strength * random_field(rng, n, 3.5, longest=n / 4) for _ in "yx"))
    step = np.tanh(field * np.float32(log_uniform(rng, 0.5, 8))) + 1
    add_field(canvas, step * np.exp(rng.uniform(0.1, 1) * random_field(rng, n, 2.2, longest=60)))


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
"""Name -> structure."""

CELLS = {name: _kind(name, structure) for name, structure in STRUCTURES.items()} | {"mixed": mixed_structures}
"""Name -> kind of scene."""

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
"""How often each kind is drawn in the mixture ``micro``."""
