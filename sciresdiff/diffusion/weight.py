"""Maps of the noise's scale: how far a pixel may move."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def ones(prior: Tensor, scale: Tensor, up: Tensor) -> Tensor:
    """The same noise everywhere."""
    return scale.new_ones(scale.shape)


def scale_of_prior(prior: Tensor, scale: Tensor, up: Tensor) -> Tensor:
    """The prior's own scale."""
    return scale


def upsr(prior: Tensor, scale: Tensor, up: Tensor, floor: float = 0.4, knee: float = 0.1, unit: float = 1.0) -> Tensor:
    """w = floor + (1 - floor) min(psi, knee) / knee with psi = |prior - up| / 2 (UPSR, Zhang et al. 2025).

    Parameters
    ----------
    prior, up : (..., Y, X), the prior's estimate and the interpolated frame, one unit.
    floor : smallest weight, 0..1. knee : psi from which the weight is 1, > 0.
    unit : pixel values per half range of the images; 1 for images in [-1, 1], as in the paper.
        **The weight is not invariant under a change of unit**.
    """
    psi = (prior - up).abs() / (2 * unit)
    return floor + (1 - floor) / knee * psi.clamp_max(knee)


WEIGHTS: dict[str, Callable[..., Tensor]] = {"ones": ones, "scale": scale_of_prior, "upsr": upsr}
"""(prior, scale, up) -> w, all (..., Y, X)."""
DYNAMIC: tuple[str, ...] = ()
"""Weights that change on the way back."""
