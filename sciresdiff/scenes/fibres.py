"""Simulated structures made of curves: actin, filaments, microtubules, mitochondria, plaques, neurons, rods."""

from __future__ import annotations

import numpy as np

from sciresdiff.scenes.curves import (
    Curves,
    add_blobs,
    add_curves,
    bezier_curves,
    blob_mask,
    brightness_along,
    draw_positions,
    polygon_mask,
    random_walks,
    strands_for,
    streamlines,
    web_outline,
)
from sciresdiff.scenes.draw import (
    Array,
    Rng,
    add_field,
    add_points,
    blur,
    log_uniform,
    log_uniforms,
    padded_side,
    random_field,
    uniform_positions,
    values_at,
)


def actin(rng: Rng, canvas: Array, size: int) -> None:
    """Stress fibres of one or two spread cells: bright concave edges, aligned fibres, a faint mesh inside."""
    for _ in range(int(rng.integers(1, 3))):
        corners, control = web_outline(rng, size)
        ex, ey = bezier_curves(corners, control, np.roll(corners, -1, 0))
        width = rng.uniform(0.2, 2.5)
        value = brightness_along(rng, ex.shape, 0.5) * log_uniform(rng, 0.5, 4) * (1 + width)
        add_curves(rng, canvas, (ex, ey), value, width, strands_for(width))
        mask = polygon_mask(size, ex[:, ::60].ravel(), ey[:, ::60].ravel())
        body = mask * np.exp(rng.uniform(0.2, 0.8) * random_field(rng, padded_side(size), 2.6, longest=size / 4))
        add_field(canvas, body * np.float32(log_uniform(rng, 0.01, 0.15)))
        _fibres(rng, canvas, corners, mask, size)
        _mesh(rng, canvas, mask, size)


def _fibres(rng: Rng, canvas: Array, corners: Array, mask: Array, size: int) -> None:
    """Bundles that span the cell between neighbourhoods of its corners."""
    n, k = int(log_uniform(rng, 4, 50)), len(corners)
    first, second = rng.integers(0, k, n), rng.integers(1, k, n)
    spread = rng.uniform(0.03, 0.25) * size
    a = corners[first] + rng.normal(0, spread, (n, 2))
    c = corners[(first + second) % k] + rng.normal(0, spread, (n, 2))
    b = (a + c) / 2 + rng.normal(0, 0.04 * size, (n, 2)) + 0.4 * (corners.mean(0) - (a + c) / 2)
    x, y = bezier_curves(a, b, c)
    value = log_uniforms(rng, 0.05, 1.5, n)[:, None] * brightness_along(rng, x.shape, 0.5) * values_at(mask, x, y)
    cut = n // 3
    width = rng.uniform(0.4, 2.0)
    add_curves(rng, canvas, (x[:cut], y[:cut]), 2 * value[:cut], width, strands_for(width))
    add_curves(rng, canvas, (x[cut:], y[cut:]), value[cut:])


def _mesh(rng: Rng, canvas: Array, mask: Array, size: int) -> None:
    """Many short filaments that follow a common, slowly turning direction, some of them thick, and stray ones."""
    heading = rng.uniform(0, np.pi) + rng.uniform(0.1, 0.9) * random_field(
        rng, padded_side(size), 5.0, longest=size / 2
    )
    strength = log_uniform(rng, 0.03, 0.6)
    for share, width in ((0.75, 0.0), (0.25, rng.uniform(0.5, 2.0))):
        x, y = uniform_positions(rng, size, int(log_uniform(rng, 200, 2500) * share))
        x, y = (v[values_at(mask, x, y) > 0.3] for v in (x, y))
        turned = heading + np.float32(rng.choice([0, 0, 1.2]))
        curves = streamlines(turned, x, y, log_uniform(rng, 20, 160), size)
        ends = np.sin(np.linspace(0.1, np.pi - 0.1, curves[0].shape[1])) ** 0.5
        value = strength * np.exp(rng.normal(0, 0.7, (len(x), 1))) * (1 + width) * ends
        add_curves(rng, canvas, curves, value * values_at(mask, *curves), width, strands_for(width))
    n = int(log_uniform(rng, 5, 100))
    x, y = uniform_positions(rng, size, n)
    curves = random_walks(rng, x, y, rng.uniform(0, 2 * np.pi, n), rng.uniform(20, 80), log_uniform(rng, 20, 200))
    add_curves(rng, canvas, curves, strength * rng.uniform(0.2, 1, n)[:, None] * values_at(mask, *curves))


def filaments(rng: Rng, canvas: Array, size: int) -> None:
    """A network of single filaments and bundles that cross, with or without a common direction."""
    n = int(log_uniform(rng, 6, 160))
    x, y = uniform_positions(rng, size, n)
    angle = rng.uniform(0, 2 * np.pi) + rng.normal(0, log_uniform(rng, 0.1, 6), n)
    curves = random_walks(rng, x, y, angle, rng.uniform(0.2, 1.2) * size, log_uniform(rng, 15, 600))
    value = log_uniforms(rng, 0.1, 1, n)[:, None] * brightness_along(rng, curves[0].shape, rng.uniform(0, 0.5))
    thick = rng.random(n) < rng.uniform(0, 0.3)
    width = log_uniform(rng, 0.3, 2.0)
    add_curves(rng, canvas, (curves[0][~thick], curves[1][~thick]), value[~thick])
    add_curves(rng, canvas, (curves[0][thick], curves[1][thick]), 2 * value[thick], width, strands_for(width))


def microtubules(rng: Rng, canvas: Array, size: int) -> None:
    """Thin curved tubes that leave one or two centres and fill the cell, all about equally bright."""
    for _ in range(int(rng.integers(1, 4))):
        n, spread = int(log_uniform(rng, 30, 160)), rng.uniform(2, 0.1 * size + 3)
        cx, cy = rng.uniform(0, 1, 2) * size
        angle, radius = rng.uniform(0, 2 * np.pi, n), rng.exponential(spread, n)
        x, y = cx + radius * np.cos(angle), cy + radius * np.sin(angle)
        start = angle + rng.normal(0, 0.6, n)
        curves = random_walks(rng, x, y, start, rng.uniform(0.3, 0.7) * size, log_uniform(rng, 30, 250))
        reach = rng.uniform(0.3, 1.0, n)[:, None] > np.linspace(0, 1, curves[0].shape[1])
        add_curves(rng, canvas, curves, rng.uniform(0.7, 1.3, n)[:, None] * reach)
    if rng.random() < 0.5:
        mask = blob_mask(rng, size, cx, cy, 0.5 * size, 0.3, 6)
        add_field(canvas, mask * np.float32(rng.uniform(0, 0.1)))


def mitochondria(rng: Rng, canvas: Array, size: int) -> None:
    """Worm-like organelles a few pixels thick, around the place of a nucleus."""
    n = int(log_uniform(rng, 15, 250))
    cx, cy, hole = *rng.uniform(0.2, 0.8, 2) * size, rng.uniform(0.05, 0.15) * size
    angle = rng.uniform(0, 2 * np.pi, n)
    r = hole + rng.exponential(rng.uniform(0.1, 0.35) * size, n)
    curves = random_walks(rng, cx + r * np.cos(angle), cy + r * np.sin(angle), angle + rng.normal(0, 1.2, n),
                   log_uniform(rng, 10, 70), log_uniform(rng, 6, 50))  # fmt: skip
    length = curves[0].shape[1]
    reach = rng.uniform(0.2, 1.0, n)[:, None] > np.linspace(0, 1, length)
    value = rng.uniform(0.4, 1.0, n)[:, None] * brightness_along(rng, curves[0].shape, 0.3) * reach
    width = rng.uniform(0.5, 1.8)
    add_curves(rng, canvas, curves, value, width, strands_for(width))
    mask = blob_mask(rng, size, cx, cy, rng.uniform(0.3, 0.6) * size, 0.3, 5)
    add_field(canvas, mask * np.float32(log_uniform(rng, 0.003, 0.1)))


def adhesions(rng: Rng, canvas: Array, size: int) -> None:
    """Focal adhesions: short plaques that point to the rim of a cell, over a weak ventral haze."""
    for _ in range(int(rng.integers(1, 4))):
        cx, cy, radius = *rng.uniform(0, 1, 2) * size, rng.uniform(0.1, 0.45) * size
        mask = blob_mask(rng, size, cx, cy, radius, 0.35, 2)
        depth = blur(mask, radius / 4)
        n = int(log_uniform(rng, 60, 900))
        x, y = rng.uniform(-1.6, 1.6, (2, 3 * n)) * radius + np.array([[cx], [cy]])
        chance = values_at(mask, x, y) * np.exp(-rng.uniform(0, 5) * values_at(depth, x, y))
        keep = np.flatnonzero(rng.random(3 * n) * 0.6 < chance)[:n]
        x, y = x[keep], y[keep]
        point = np.arctan2(y - cy, x - cx) + rng.normal(0, rng.uniform(0.1, 0.5), len(x))
        curves = random_walks(rng, x, y, point, log_uniform(rng, 5, 25), 100)
        reach = rng.uniform(0.2, 1.0, len(x))[:, None] > np.linspace(0, 1, curves[0].shape[1])
        width = rng.uniform(0.3, 1.6)
        value = np.exp(rng.normal(0, 0.6, len(x)))[:, None] * reach
        add_curves(rng, canvas, curves, value, width, strands_for(width))
        cloud = np.exp(rng.uniform(0.2, 0.7) * random_field(rng, padded_side(size), 2.2, longest=radius))
        add_field(canvas, mask * cloud * np.float32(log_uniform(rng, 0.01, 0.25)))


def neurites(rng: Rng, canvas: Array, size: int) -> None:
    """Neurons: bright somata, tapering branched processes with varicosities and spines."""
    for _ in range(int(rng.integers(1, 5))):
        cx, cy = rng.uniform(-0.1, 1.1, 2) * size
        n = int(rng.integers(3, 9))
        x, y, angle = np.full(n, cx), np.full(n, cy), rng.uniform(0, 2 * np.pi, n)
        value, width = np.full(n, log_uniform(rng, 1, 4)), rng.uniform(0.6, 2.0)
        soma = np.array([rng.uniform(0.015, 0.05) * size])
        add_blobs(rng, canvas, size, np.array([cx]), np.array([cy]), soma, np.array([rng.uniform(0.5, 2)]))
        for _level in range(int(rng.integers(2, 5))):
            curves = random_walks(rng, x, y, angle, rng.uniform(0.1, 0.35) * size, log_uniform(rng, 40, 300))
            taper = np.linspace(1, 0.7, curves[0].shape[1])
            add_curves(
                rng,
                canvas,
                curves,
                value[:, None] * taper * brightness_along(rng, curves[0].shape, 0.3),
                width,
                strands_for(width),
            )
            _spines(rng, canvas, curves, float(value.mean()))
            keep = rng.integers(0, len(x), int(1.6 * len(x)))
            turn = np.arctan2(curves[1][:, -1] - curves[1][:, -2], curves[0][:, -1] - curves[0][:, -2])
            x, y = curves[0][keep, -1], curves[1][keep, -1]
            angle, value, width = turn[keep] + rng.normal(0, 0.5, len(keep)), 0.6 * value[keep], 0.7 * width


def _spines(rng: Rng, canvas: Array, curves: Curves, value: float) -> None:
    """Small heads beside the processes."""
    n = int(log_uniform(rng, 2, 150))
    i, j = rng.integers(0, curves[0].shape[0], n), rng.integers(0, curves[0].shape[1], n)
    dx, dy = rng.normal(0, 2.5, (2, n))
    add_points(canvas, curves[0][i, j] + dx, curves[1][i, j] + dy, value * log_uniforms(rng, 0.3, 4, n))


def bacteria(rng: Rng, canvas: Array, size: int) -> None:
    """Rods, filled or stained at the membrane, single or in chains."""
    n = int(log_uniform(rng, 10, 400))
    x, y = draw_positions(rng, size, n)
    angle = rng.uniform(0, np.pi) + rng.normal(0, log_uniform(rng, 0.1, 4), n)
    width = rng.uniform(1.0, 2.5)
    curves = random_walks(rng, x, y, angle, rng.uniform(6, 28), 400)
    reach = rng.uniform(0.4, 1.0, n)[:, None] > np.linspace(0, 1, curves[0].shape[1])
    value = rng.uniform(0.5, 1, n)[:, None] * reach
    if rng.random() < 0.7:
        add_curves(rng, canvas, curves, value, width, strands_for(width))
        return
    for sign in (-1, 1):
        nx, ny = -np.sin(angle)[:, None] * sign * width, np.cos(angle)[:, None] * sign * width
        add_curves(rng, canvas, (curves[0] + nx, curves[1] + ny), value, 0.3, 3)
