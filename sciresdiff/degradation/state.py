"""A plane on its way through a chain: its pixels on the present grid, and what is known of its noise and blur."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sciresdiff.degradation.grids import Array, Mask, any_of, inherited
from sciresdiff.degradation.resize import matrix, resized
from sciresdiff.frame import Quantity
from sciresdiff.physics.detector import Detector

CORRELATED = "correlated noise that was blurred or resized again"


@dataclass(frozen=True)
class State:
    """A plane on its way."""

    pixels: Array
    coarse: tuple[int, int]
    """Shape of the last grid."""
    scale: int
    quantity: Quantity
    full: Mask
    """Saturated pixels of this grid."""
    levels: tuple[float, float] = (0.0, 1.0)
    """Values of the fine image that 8-bit noise and coding take for 0 and 255."""
    together: tuple[int, ...] | None = None
    """Seed of what all planes of a colour image share."""
    variance: Array | None = None
    white: bool = True
    """Whether the noise of neighbouring pixels is independent, so that a linear step's variance can be told."""
    added: bool = False
    """Whether the variance is that of noise which was added."""
    pending: Array | None = None
    """A blur of this grid that is still to be carried out, with the pixel integration if that is next."""
    kernel: Array | None = None
    unknown: Mapping[str, str] = field(default_factory=dict)
    expected: Array | None = None
    camera: Detector | None = None

    @property
    def pixel(self) -> float:
        """Sum of the values of a pixel of this grid, in pixels of the fine one: its area for quantity ``sum``."""
        area = self.coarse[0] * self.coarse[1] * self.scale**2 / self.pixels.size
        return area if self.quantity == "sum" else 1.0

    @property
    def black(self) -> float:
        """The value that is coded as 0."""
        return self.levels[0] * self.pixel

    @property
    def span(self) -> float:
        """From 0 to 255, in the unit of this grid's pixels."""
        return (self.levels[1] - self.levels[0]) * self.pixel

    @property
    def factor(self) -> int | None:
        """Fine pixels per pixel and axis on the fine and the coarse grid; None between."""
        fine = self.coarse[0] * self.scale, self.coarse[1] * self.scale
        return 1 if self.pixels.shape == fine else self.scale if self.pixels.shape == self.coarse else None

    def lost(self, **why: str) -> State:
        """What is not known any more, the first reason for each; what is unknown has no number."""
        gone: dict[str, Any] = {name: None for name in why}
        return replace(self, unknown={**why, **self.unknown}, **gone)


def settled(state: State) -> State:
    """The pending blur carried out on this grid."""
    if state.pending is None:
        return state
    return measured(state, state.pixels.shape, 1, state.pending)


def measured(state: State, shape: tuple[int, ...], scale: int, kernel: Array | None) -> State:
    """Blur and pixel integration in one, as `operators.Operator` has them."""
    import torch

    from sciresdiff.physics.operators import Operator

    operator = Operator((shape[0], shape[1]), scale, kernel, state.quantity, torch.float64)
    pixels = operator.apply(torch.from_numpy(np.ascontiguousarray(state.pixels))).numpy()
    full = any_of(state.full, scale)
    if state.variance is not None and not state.white:
        state = state.lost(variance=CORRELATED)
    noise = None if state.variance is None else inherited(state.variance, scale, kernel, state.quantity)
    return replace(state, pixels=pixels, full=full, pending=None, variance=noise, white=state.white and kernel is None)


def resampled(state: State, shape: tuple[int, int], name: str, smooth: bool) -> State:
    """The state on a grid of another shape (h, w), by the filter ``name``, antialiased if ``smooth``.

    Flux is kept where the quantity is ``sum``; variances go through the squares of the filter's weights, so that
    **correlations of neighbouring pixels are lost**, and the kernel is not known any more.
    """
    down, across = (matrix(name, n, m, smooth) for n, m in zip(state.pixels.shape, shape, strict=True))
    share = state.pixels.size / (shape[0] * shape[1]) if state.quantity == "sum" else 1.0
    touched = (abs(across) @ (abs(down) @ state.full.astype(float)).T).T > 1e-9
    if state.variance is not None and not state.white:
        state = state.lost(variance=CORRELATED)
    noise = state.variance
    if noise is not None:
        noise = share**2 * np.asarray((across.power(2) @ (down.power(2) @ noise).T).T)
    pixels = share * resized(state.pixels, shape, name, smooth)
    after = replace(state, pixels=pixels, full=np.asarray(touched), variance=noise, white=False)
    return after.lost(kernel=f"a resizing ({name}) to a grid that is no whole number of times coarser")


def noisier(state: State, pixels: Array, variance: Array, full: Mask | None = None) -> State:
    """The state with independent noise in it; the input's own, which counts as part of the truth, is forgotten."""
    if not state.added:
        unknown = {key: why for key, why in state.unknown.items() if key != "variance"}
        state = replace(state, variance=np.zeros(pixels.shape), white=True, added=True, unknown=unknown)
    total = None if state.variance is None else state.variance + variance
    full = state.full if full is None else state.full | full
    return replace(state, pixels=pixels, variance=total, full=full, expected=state.pixels)
