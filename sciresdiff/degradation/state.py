"""A plane on its way through a chain: its pixels on the present grid, and what is known of its noise and blur."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sciresdiff.degradation.grids import Array, Mask, block_any, propagate_variance
from sciresdiff.degradation.resize import resize_image, resize_matrix
from sciresdiff.frame import Quantity
from sciresdiff.physics.detector import Detector

CORRELATED = "correlated noise that was blurred or resized again"


@dataclass(frozen=True)
class ChainState:
    """A plane between two steps of a chain; arrays have the shape (Y, X) of the present grid."""

    pixels: Array
    coarse: tuple[int, int]
    """(h, w) of the last grid."""
    scale: int
    """Fine pixels per coarse pixel and axis."""
    quantity: Quantity
    """Whether values of pixels that are joined add up or average."""
    saturated: Mask
    """Saturated pixels of this grid."""
    levels: tuple[float, float] = (0.0, 1.0)
    """Values of the fine image that 8-bit noise and coding take for 0 and 255."""
    shared_seed: tuple[int, ...] | None = None
    """Seed of what all planes of a colour image share."""
    variance: Array | None = None
    """Of the noise that was added, else of the fine image's own; None where it is not known."""
    white: bool = True
    """Whether the noise of neighbouring pixels is independent, so that the variance after a linear step is known."""
    added: bool = False
    """Whether the variance is that of noise which was added."""
    pending: Array | None = None
    """A blur of this grid that is still to be carried out, with the pixel integration if that is next."""
    kernel: Array | None = None
    """The blur of all steps so far, on the fine grid."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """``variance``, ``kernel`` -> why it is not known."""
    expected: Array | None = None
    """The pixels before the last noise."""
    detector: Detector | None = None
    """What read them out last."""

    @property
    def pixel_area(self) -> float:
        """What a value of this grid sums up, in pixels of the fine one: its area for quantity ``sum``, else 1."""
        area = self.coarse[0] * self.coarse[1] * self.scale**2 / self.pixels.size
        return area if self.quantity == "sum" else 1.0

    @property
    def black(self) -> float:
        """The value that is coded as 0, in the unit of this grid's pixels."""
        return self.levels[0] * self.pixel_area

    @property
    def span(self) -> float:
        """From 0 to 255, in the unit of this grid's pixels."""
        return (self.levels[1] - self.levels[0]) * self.pixel_area

    @property
    def factor(self) -> int | None:
        """Fine pixels per pixel and axis on the fine and the coarse grid; None between."""
        fine = self.coarse[0] * self.scale, self.coarse[1] * self.scale
        return 1 if self.pixels.shape == fine else self.scale if self.pixels.shape == self.coarse else None

    def forget(self, **why: str) -> ChainState:
        """Without the fields named, the first reason for each kept in ``unknown``."""
        gone: dict[str, Any] = {name: None for name in why}
        return replace(self, unknown={**why, **self.unknown}, **gone)


def apply_pending_blur(state: ChainState) -> ChainState:
    """The pending blur carried out on this grid."""
    if state.pending is None:
        return state
    return blur_and_bin(state, state.pixels.shape, 1, state.pending)


def blur_and_bin(state: ChainState, shape: tuple[int, ...], scale: int, kernel: Array | None) -> ChainState:
    """Blur and pixel integration in one, as `operators.Operator` has them.

    Parameters
    ----------
    state : ChainState
    shape : (h, w)
        Of the new grid.
    scale : int
        Pixels of this grid per pixel of the new one and axis.
    kernel : (K, L) array or None
        Odd sides, on this grid.

    Raises
    ------
    InputError
        A kernel that is larger than the image.
    """
    import torch

    from sciresdiff.physics.operators import Operator

    operator = Operator((shape[0], shape[1]), scale, kernel, state.quantity, torch.float64)
    pixels = operator.apply(torch.from_numpy(np.ascontiguousarray(state.pixels))).numpy()
    saturated = block_any(state.saturated, scale)
    if state.variance is not None and not state.white:
        state = state.forget(variance=CORRELATED)
    noise = None if state.variance is None else propagate_variance(state.variance, scale, kernel, state.quantity)
    white = state.white and kernel is None  # sums over blocks share no pixel, blurs do
    return replace(state, pixels=pixels, saturated=saturated, pending=None, variance=noise, white=white)


def resample(state: ChainState, shape: tuple[int, int], name: str, antialias: bool) -> ChainState:
    """The state on a grid of another shape.

    Flux is kept where the quantity is ``sum``; variances go through the squares of the filter's weights, so that
    **correlations of neighbouring pixels are lost**, and the kernel is not known any more.

    Parameters
    ----------
    state : ChainState
    shape : (h, w)
        Of the new grid.
    name : str
        A key of `resize.FILTERS`.
    antialias : bool
        Whether the filter is stretched with the new pixel.
    """
    down, across = (resize_matrix(name, n, m, antialias) for n, m in zip(state.pixels.shape, shape, strict=True))
    share = state.pixels.size / (shape[0] * shape[1]) if state.quantity == "sum" else 1.0
    touched = (abs(across) @ (abs(down) @ state.saturated.astype(float)).T).T > 1e-9
    if state.variance is not None and not state.white:
        state = state.forget(variance=CORRELATED)
    noise = state.variance
    if noise is not None:
        noise = share**2 * np.asarray((across.power(2) @ (down.power(2) @ noise).T).T)
    pixels = share * resize_image(state.pixels, shape, name, antialias)
    after = replace(state, pixels=pixels, saturated=np.asarray(touched), variance=noise, white=False)
    return after.forget(kernel=f"a resizing ({name}) to a grid that is no whole number of times coarser")


def add_noise(state: ChainState, pixels: Array, variance: Array, saturated: Mask | None = None) -> ChainState:
    """The state with independent noise in it.

    The variance is that of the noise added by the chain: the fine image's own noise, which counts as part of the truth,
    is forgotten.

    Parameters
    ----------
    state : ChainState
        Before the noise.
    pixels : (Y, X) array
        With the noise in them.
    variance : (Y, X) array
        Of this noise alone.
    saturated : (Y, X) bool array, optional
        Pixels that became saturated.
    """
    if not state.added:
        unknown = {key: why for key, why in state.unknown.items() if key != "variance"}
        state = replace(state, variance=np.zeros(pixels.shape), white=True, added=True, unknown=unknown)
    total = None if state.variance is None else state.variance + variance
    full = state.saturated if saturated is None else state.saturated | saturated
    return replace(state, pixels=pixels, variance=total, saturated=full, expected=state.pixels)
