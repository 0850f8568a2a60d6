"""Adaptive moments: size and shape of sources, weighted by the Gaussian that fits them best.

Hirata and Seljak 2003 and Bernstein and Jarvis 2002, for all sources at once; `galsim.hsm` measures one stamp at a time
and is compared with in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.arrays import Array, Mask

STEPS = 200
"""Most iterations; half a dozen do for a star."""
CLOSE = 1e-7
"""Change of centre and moments, relative to the size, below which a source has converged."""
START_SIGMA = 1.5
"""Size that the search starts with, px."""
DRIFT = 2.0
"""Farthest that a centre may move from where it started, px."""
NARROWEST, WIDEST = 0.3, 0.35
"""Accepted sizes: px, and as a share of the stamp's half side; beyond, the weight does not fit the stamp."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Adaptive moments of n sources; NaN where ``ok`` is False."""

    xy: Array
    """(n, 2), centres as x, y in px of the image."""
    mxx: Array
    """(n,), px^2."""
    myy: Array
    mxy: Array
    rho4: Array
    """(n,), weighted mean of the fourth power of the radius in units of the ellipse; 2 for a Gaussian."""
    ok: Mask
    """(n,), whether the source converged, on light above 0."""

    @property
    def sigma(self) -> Array:
        """(n,), (det M)^(1/4), px."""
        return np.asarray(np.sqrt(np.sqrt(self.mxx * self.myy - self.mxy**2)))

    @property
    def e1(self) -> Array:
        """(n,), distortion (Mxx - Myy) / (Mxx + Myy): (1 - q^2) / (1 + q^2) along the rows for an axis ratio q."""
        return np.asarray((self.mxx - self.myy) / (self.mxx + self.myy))

    @property
    def e2(self) -> Array:
        """(n,), distortion 2 Mxy / (Mxx + Myy), along the diagonals."""
        return np.asarray(2 * self.mxy / (self.mxx + self.myy))

    @property
    def e(self) -> Array:
        """(n,), length of (e1, e2)."""
        return np.asarray(np.hypot(self.e1, self.e2))


def stamps(plane: NDArray[Any], xy: NDArray[Any], half: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Cut squares about positions out of a plane.

    Parameters
    ----------
    plane : (Y, X).
    xy : (n, 2) as x, y, at least ``half`` px inside the plane; the middle is the nearest pixel.
    half : half side, px; a square has 2 half + 1.

    Returns
    -------
    (n, k, k) values, and (n, 2) their middle pixels as x, y.
    """
    middle = np.rint(xy).astype(np.int64)
    span = np.arange(-half, half + 1)
    rows, columns = middle[:, 1, None, None] + span[None, :, None], middle[:, 0, None, None] + span[None, None, :]
    return np.asarray(plane[rows, columns]), middle


def adaptive_moments(plane: Array, xy: Array, half: int = 15) -> Moments:
    """Measure moments weighted by the elliptical Gaussian that has the same centre and the same moments.

    Centre c and moments M solve  sum(w I (r - c)) = 0  and  M = 2 sum(w I (r - c)(r - c)^T) / sum(w I)  with
    w = exp(-(r - c)^T M^-1 (r - c) / 2): Bernstein and Jarvis 2002, AJ 123, 583, section 3.1; Hirata and Seljak 2003,
    MNRAS 343, 459, section 2.1. **The pixel and the PSF are in M. Light of neighbours that lies under the weight is
    in it, too.**

    Parameters
    ----------
    plane : (Y, X), above its background, finite.
    xy : (n, 2), where to start, at least ``half`` px inside the plane.
    half : half side of the stamps, px.
    """
    image, middle = stamps(plane, xy, half)
    state = np.zeros((len(xy), 5))  # dx, dy from the middle pixel, Mxx, Myy, Mxy
    state[:, :2], state[:, 2:4] = xy - middle, START_SIGMA**2
    start, moving = state[:, :2].copy(), np.ones(len(xy), bool)
    good = np.ones(len(xy), bool)
    # only sources that still move are computed again: most stars are done after six steps, a galaxy takes dozens
    for _ in range(STEPS):
        here = np.flatnonzero(moving & good)
        if not here.size:
            break
        new, change = _step(image[here], state[here])
        state[here] = new
        good[here] = np.isfinite(new).all(1) & _is_valid(new, start[here], half)
        moving[here] = ~(change < CLOSE)
    good &= ~moving
    rho4 = np.full(len(xy), np.nan)
    rho4[good] = _fourth_moment(image[good], state[good])
    state[~good] = np.nan
    return Moments(middle + state[:, :2], state[:, 2], state[:, 3], state[:, 4], rho4, good)


def _is_valid(state: Array, start: Array, half: int) -> Mask:
    """Whether a source has stayed in place and its weight fits the stamp."""
    with np.errstate(invalid="ignore"):
        near = (np.abs(state[:, :2] - start) < DRIFT).all(1)
        area = state[:, 2] * state[:, 3] - state[:, 4] ** 2
        size = np.sqrt(np.sqrt(np.where(area > 0, area, np.nan)))
        return np.asarray(near & (size > NARROWEST) & (size < WIDEST * half))


def _weight_light(image: Array, state: Array) -> tuple[Array, Array, Array, Array]:
    """w I, dx, dy and rho^2 = (r - c)^T M^-1 (r - c), (n, k, k) each."""
    half = image.shape[1] // 2
    span = np.arange(-half, half + 1.0)
    dx = span[None, None, :] - state[:, 0, None, None]
    dy = span[None, :, None] - state[:, 1, None, None]
    mxx, myy, mxy = (state[:, i, None, None] for i in (2, 3, 4))
    # rho^2 = (r - c)^T M^-1 (r - c), Bernstein and Jarvis 2002, section 3.1
    rho2 = (myy * dx**2 - 2 * mxy * dx * dy + mxx * dy**2) / (mxx * myy - mxy**2)
    return np.exp(-rho2 / 2) * image, dx, dy, rho2


def _step(image: Array, state: Array) -> tuple[Array, Array]:
    """Next centre and moments (n, 5), and how far they are from the last, relative to the size, (n,).

    With C the weighted moments the next M is (C^-1 - M^-1)^-1, the source's own if it is Gaussian: the fixed point is
    M = 2 C. Where that is no ellipse, or more than twice as large or as small (det M by 16), M = 2 C is the
    step.
    """
    light, dx, dy, _ = _weight_light(image, state)
    with np.errstate(all="ignore"):  # what is no source ends as NaN, and is left out
        total = light.sum((1, 2))
        mx, my = (np.asarray((light * d).sum((1, 2)) / total) for d in (dx, dy))
        c = [(light * p).sum((1, 2)) / total for p in (dx * dx, dy * dy, dx * dy)]
        twice = np.stack([2 * c[0], 2 * c[1], 2 * c[2]], 1)
        # a Gaussian of moments S under the weight M has C^-1 = S^-1 + M^-1
        own = _remove_weight(np.stack(c, 1), state[:, 2:])
        area, before = _determinant(own), _determinant(state[:, 2:])
        fair = (own[:, 0] > 0) & (area > before / 16) & (area < before * 16)
        moments = np.where(fair[:, None], own, twice)
        moments[~(total > 0)] = np.nan
        # the weighted centroid of a Gaussian lies half way between weight and source, hence the factor 2
        centre = state[:, :2] + np.clip(2 * np.stack([mx, my], 1), -1, 1)
        new = np.concatenate([centre, moments], 1)
        scale = np.sqrt(before)
        change = np.maximum(
            np.abs(new - state)[:, :2].max(1) / np.sqrt(scale), np.abs(new - state)[:, 2:].max(1) / scale
        )
    return new, change


def _determinant(m: Array) -> Array:
    """det M of (n, 3) moments xx, yy, xy."""
    return np.asarray(m[:, 0] * m[:, 1] - m[:, 2] ** 2)


def _inverse(m: Array) -> Array:
    """M^-1, (n, 3)."""
    return np.asarray(np.stack([m[:, 1], m[:, 0], -m[:, 2]], 1) / _determinant(m)[:, None])


def _remove_weight(c: Array, m: Array) -> Array:
    """(C^-1 - M^-1)^-1, (n, 3): the moments without their weight, exact for a Gaussian."""
    return _inverse(_inverse(c) - _inverse(m))


def _fourth_moment(image: Array, state: Array) -> Array:
    """sum(w I rho^4) / sum(w I), (n,)."""
    light, _, _, rho2 = _weight_light(image, state)
    return np.asarray((light * rho2**2).sum((1, 2)) / light.sum((1, 2)))
