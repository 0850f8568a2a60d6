"""What a detector leaves in a scene: saturated columns and cosmic-ray hits."""

from __future__ import annotations

import numpy as np

from sciresdiff.scenes.draw import Array, Rng, log_uniform


def saturate(frame: Array, well: float | Array, up: float | Array = 0.5) -> Array:
    """Clip at the full well and bleed the excess along the columns until it is absorbed.

    Parameters
    ----------
    frame : (rows, columns) array
        Flux per pixel.
    well : float or (rows, columns) array
        Full well, in the unit of the frame.
    up : float or (columns,) array
        Share of the excess that moves towards row 0.

    Returns
    -------
    (rows, columns) array
        Flux is kept, **except for what bleeds over the first or last row**.
    """
    wells = np.broadcast_to(np.asarray(well, np.float64), frame.shape)
    hot = np.flatnonzero((frame > wells).any(0))
    limit = wells[:, hot]
    column = np.asarray(frame, np.float64)[:, hot]
    excess = np.maximum(column - limit, 0)
    share = np.broadcast_to(np.asarray(up, np.float64), frame.shape[1:])[hot]
    column = _carry_down_rows(column - excess, excess * (1 - share), limit)
    column = _carry_down_rows(column[::-1], (excess * share)[::-1], limit[::-1])[::-1]
    out = np.array(frame)
    out[:, hot] = column
    return out


def _carry_down_rows(column: Array, excess: Array, limit: Array) -> Array:
    """Carry the excess down the rows, each pixel taking what it has room for."""
    out, carry = column.copy(), np.zeros(column.shape[1])
    for row in range(len(out)):
        total = out[row] + excess[row] + carry
        out[row] = np.minimum(total, limit[row])
        carry = total - out[row]
    return out


def bleed(rng: Rng, frame: Array, well: float) -> Array:
    """`saturate` a frame (rows, columns) along a random axis; full wells differ by half a per cent between pixels."""
    wells = well * (1 + 0.005 * rng.standard_normal(frame.shape))
    up = rng.uniform(0.3, 0.7, frame.shape[1])
    if rng.random() < 0.25:
        return saturate(frame.T, wells, up).T.astype(np.float32)
    return saturate(frame, wells, up).astype(np.float32)


def add_hits(rng: Rng, frame: Array, n: int, brightest: float) -> None:
    """Add cosmic-ray hits in place: tracks one pixel wide, most of them short.

    Parameters
    ----------
    rng : numpy.random.Generator
    frame : (rows, columns) array
    n : int
        Hits.
    brightest : float
        Per pixel, above 10, which is the faintest.
    """
    for _ in range(n):
        length = max(1, int(rng.exponential(4.0)))
        x, y = rng.uniform(0, frame.shape[0], 2)
        angle = rng.uniform(0, 2 * np.pi)
        t = np.arange(length)
        ix, iy = (x + t * np.cos(angle)).astype(int), (y + t * np.sin(angle)).astype(int)
        inside = (ix >= 0) & (iy >= 0) & (ix < frame.shape[1]) & (iy < frame.shape[0])
        value = log_uniform(rng, 10, brightest) * rng.uniform(0.4, 1.6, length)
        frame[iy[inside], ix[inside]] += value[inside].astype(np.float32)
