"""Classical methods that every restoration is compared with, on the same data and with the same kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.evidence import Array, Evidence, Mask, filled
from sciresdiff.frame import Quantity

ITERATIONS = 30
"""Richardson-Lucy iterations of the plain baseline."""

STOPS = (1, 2, 3, 5, 8, 12, 20, 30, 60)
"""Iterations among which the best stopping point is looked for."""


def bicubic(y: NDArray[np.floating], scale: int, quantity: Quantity = "sum") -> Array:
    """Cubic splines through the pixel centres, pixel-area registered, borders reflected.

    Parameters
    ----------
    y : (h, w), finite.
    scale : fine pixels per pixel and axis.
    quantity : for ``sum`` the values are divided by scale**2.

    Returns
    -------
    (scale*h, scale*w). **The flux of a block is conserved only on average.**
    """
    from scipy.ndimage import zoom

    fine = zoom(np.asarray(y, np.float64), scale, order=3, grid_mode=True, mode="reflect")
    return np.asarray(fine / _share(scale, quantity))


def lanczos(y: NDArray[np.floating], scale: int, quantity: Quantity = "sum", lobes: int = 3) -> Array:
    """Windowed sinc, sinc(t) sinc(t / a) for ``|t| < a``, renormalised to sum 1; registration and borders as `bicubic`.

    **Rings around sharp sources, below zero too.**
    """
    fine = _lanczos_axis(_lanczos_axis(np.asarray(y, np.float64), scale, lobes).T, scale, lobes).T
    return np.asarray(fine / _share(scale, quantity))


def _lanczos_axis(y: Array, scale: int, lobes: int) -> Array:
    """Finer along the first axis."""
    padded = np.pad(y, [(lobes, lobes), (0, 0)], mode="symmetric")
    out = np.empty((y.shape[0] * scale, y.shape[1]))
    taps = np.arange(-lobes, lobes + 1)
    for phase in range(scale):
        t = taps - ((phase + 0.5) / scale - 0.5)
        weights = np.where(np.abs(t) < lobes, np.sinc(t) * np.sinc(t / lobes), 0)
        weights /= weights.sum()
        out[phase::scale] = sum(
            weight * padded[lobes + tap : lobes + tap + y.shape[0]] for tap, weight in zip(taps, weights, strict=True)
        )
    return out


def _share(scale: int, quantity: Quantity) -> int:
    """Fine pixels that one coarse value is shared among."""
    return scale**2 if quantity == "sum" else 1


def richardson_lucy(evidence: Evidence, iterations: int = ITERATIONS) -> Array:
    """Richardson-Lucy with the true kernel, unaccelerated, from a flat start; needs ``low`` and ``operator``.

    x <- x * A^T(m y / A x) / A^T m, with m = 0 on masked pixels (Richardson 1972, JOSA 62, 55; Lucy 1974, AJ 79, 745).
    The data are lifted above zero first, and the image lowered again, so that sky-subtracted frames can be treated;
    **the answer depends on that lift, and after many iterations it fits the noise.**

    Returns
    -------
    (Y, X) after ``iterations`` steps.
    """
    return next(image for _, image in richardson_lucy_at(evidence, [iterations]))


def richardson_lucy_at(evidence: Evidence, stops: Iterable[int]) -> Iterator[tuple[int, Array]]:
    """The images of `richardson_lucy` at several stopping points, in rising order, at the cost of the last."""
    import torch

    operator, y = evidence.operator, evidence.low
    assert operator is not None and y is not None
    valid = _valid(evidence)
    unit = _unit(evidence)
    lift = max(0.0, -float(y[valid].min())) + unit if valid.any() else unit
    lifted = torch.from_numpy(np.clip(filled(y, valid) + lift, 1e-6 * unit, None))[None, None]
    weight = torch.from_numpy(valid.astype(float))[None, None]
    share = _share(evidence.scale, evidence.quantity)
    cover = operator.adjoint(weight).clamp_min(1e-12)
    x = torch.full_like(cover, float(lifted.mean()) / share)
    wanted = set(stops)
    for n in range(1, max(wanted) + 1):
        x = x * operator.adjoint(weight * lifted / operator.apply(x).clamp_min(1e-9 * unit)) / cover
        if n in wanted:
            yield n, x[0, 0].numpy() - lift / share


def _valid(evidence: Evidence) -> Mask:
    assert evidence.low is not None
    finite = np.isfinite(evidence.low)
    return finite if evidence.mask_low is None else finite & ~evidence.mask_low


def _unit(evidence: Evidence) -> float:
    """What the data are lifted by above their lowest value: 1, or the noise where that is less."""
    if evidence.variance is None:
        return 1.0
    good = evidence.variance[np.isfinite(evidence.variance) & (evidence.variance > 0)]
    return float(min(1.0, np.sqrt(np.median(good)))) if good.size else 1.0


def best_richardson_lucy(evidence: Evidence, iterations: Iterable[int] = STOPS) -> tuple[int, Array]:
    """Richardson-Lucy where it comes closest to the truth (least squared error): stopping point and image.

    **Nobody who has no truth can stop there**; it is the most that the method has in it.
    """
    assert evidence.truth is not None
    truth, good = evidence.truth[evidence.good_high], evidence.good_high
    found = [(float(np.mean((image[good] - truth) ** 2)), n, image)
             for n, image in richardson_lucy_at(evidence, iterations)]  # fmt: skip
    _, n, image = min(found, key=lambda one: one[0])
    return n, image


def _lanczos_of(evidence: Evidence) -> Array:
    assert evidence.low is not None
    return lanczos(filled(evidence.low, np.isfinite(evidence.low)), evidence.scale, evidence.quantity)


BASELINES: dict[str, Callable[[Evidence], Array]] = {
    "bicubic": lambda evidence: evidence.bicubic,
    "lanczos": _lanczos_of,
    "richardson-lucy": richardson_lucy,
}
"""Name -> the image that the method makes of the evidence's data."""

NEED_KERNEL = frozenset({"richardson-lucy"})
"""Methods that cannot be run where the blur is not known."""
