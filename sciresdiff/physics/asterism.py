"""The map of one list of sources onto another of which nothing is known: pairs of sources laid on pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sciresdiff.errors import UnmeasuredError
from sciresdiff.physics.affine import LEAST_MATCHES, Affine
from sciresdiff.physics.source_list import Sources

Array = NDArray[np.float64]

BRIGHTEST = 30
"""Sources of each frame that pairs are made of."""
SHORTEST = 8.0
"""Least distance of the two sources of a pair, px."""
LARGEST_SCALE_ERROR = 0.03
"""How far the ratio of pixel sizes may be from what is stated, for a pair to be compared."""
LEAST_SHARE = 0.25
"""Share of the bright sources of the frame with fewer that must lie on others."""
RIVAL = 0.6
"""Share of the best map's matches from which another map is possible, too."""


def search_map(one: Sources, other: Sources, scale: float, middle: Array, reach: float) -> Affine:
    """Find the map of two lists of sources of which nothing is known but the ratio of the pixel sizes.

    Every pair of bright sources of one list is laid on every pair of the other of the same length; the map that brings
    the most sources onto others wins, if no different map does nearly as well.

    Parameters
    ----------
    one, other : the sources, brightest first.
    scale : px of ``other`` per px of ``one``, to 3 %.
    middle : (2,) of the map.
    reach : how far a source may be from another to count, px.

    Raises
    ------
    UnmeasuredError : too few sources, no map, or several.
    """
    a, b = one.places[:BRIGHTEST], other.places[:BRIGHTEST]
    if min(len(a), len(b)) < LEAST_MATCHES:
        raise UnmeasuredError(f"{len(a)} and {len(b)} sources are found, and {LEAST_MATCHES} in both are needed")
    maps = _hypotheses(a, b, scale)
    if not len(maps):
        raise UnmeasuredError("no two sources of one lie as two of the other do")
    counts, tree = np.zeros(len(maps), int), cKDTree(b)
    for start in range(0, len(maps), 512):
        part = maps[start : start + 512]
        laid = (a @ [1, 1j]) * part[:, :1] + part[:, 1:]
        distance = tree.query(np.stack([laid.real, laid.imag], -1), distance_upper_bound=reach)[0]
        counts[start : start + 512] = np.isfinite(distance).sum(1)
    best = int(np.argmax(counts))
    least = max(LEAST_MATCHES, int(np.ceil(LEAST_SHARE * min(len(a), len(b)))))
    if counts[best] < least:
        raise UnmeasuredError(f"no map brings more than {counts[best]} sources onto others; {least} are needed")
    z = (a - a.mean(0)) @ [1, 1j]
    centre = a.mean(0) @ [1, 1j]
    apart = abs((maps[:, 0] * centre + maps[:, 1]) - (maps[best, 0] * centre + maps[best, 1]))
    turned = abs(maps[:, 0] - maps[best, 0]) * max(float(np.abs(z).max()), 1.0)
    rivals = counts[(apart > 3 * reach) | (turned > 6 * reach)]
    if len(rivals) and rivals.max() > max(RIVAL * counts[best], LEAST_MATCHES - 1):
        raise UnmeasuredError(
            f"two maps bring {counts[best]} and {rivals.max()} sources onto others; the sources repeat a pattern"
        )
    c, d = maps[best]
    matrix = np.array([[c.real, -c.imag], [c.imag, c.real]])
    return Affine(matrix, matrix @ middle + [d.real, d.imag] - middle, middle)


def _hypotheses(a: Array, b: Array, scale: float) -> NDArray[np.complex128]:
    """Similarities that lay a pair of ``a`` on one of ``b``: (n, 2), places y + ix times the first plus the second."""
    za, zb = a @ [1, 1j], b @ [1, 1j]
    i, j = np.triu_indices(len(a), 1)
    k, m = np.nonzero(~np.eye(len(b), dtype=bool))
    da, db = za[j] - za[i], zb[m] - zb[k]
    long = abs(da) > SHORTEST
    i, j, da = i[long], j[long], da[long]
    ratio = abs(db) / (scale * abs(da)[:, None])
    p, q = np.nonzero(abs(ratio - 1) < np.minimum(LARGEST_SCALE_ERROR, 2 / abs(da)[:, None] + 0.002))
    turn = db[q] / da[p]
    return np.stack([turn, zb[k[q]] - turn * za[i[p]]], 1)
