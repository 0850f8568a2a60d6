"""Which parts of a large image are looked at where reading all of it would take too long."""

from __future__ import annotations

import numpy as np

from sciresdiff.region import Region

MOST, SIDE = 2048**2, 512
"""Pixels up to which an image is read as a whole; side of the regions that are sampled of a larger one."""


def is_whole(shape: tuple[int, ...]) -> bool:
    """Whether the sample of an image (planes, Y, X) is all of it."""
    return int(np.prod(shape)) <= MOST


def sample_regions(shape: tuple[int, ...]) -> list[tuple[int, Region]]:
    """Choose the planes and regions on which an image is measured.

    Parameters
    ----------
    shape : tuple of int
        (planes, Y, X).

    Returns
    -------
    list of (plane, Region)
        The whole image if it has at most ``MOST`` pixels; else squares of side ``SIDE`` on a regular grid over up to
        four of its planes, as many as fill ``MOST``.
    """
    planes, h, w = shape
    if is_whole(shape):
        return [(plane, Region(0, h, 0, w)) for plane in range(planes)]
    chosen = sorted({round(i) for i in np.linspace(0, planes - 1, min(planes, 4))})
    count = max(1, int((MOST / len(chosen) / SIDE**2) ** 0.5))
    ys, xs = ([(round(a), min(round(a) + SIDE, n)) for a in np.linspace(0, max(n - SIDE, 0), count)] for n in (h, w))
    regions = [Region(*y, *x) for y in dict.fromkeys(ys) for x in dict.fromkeys(xs)]
    return [(plane, region) for plane in chosen for region in regions]
