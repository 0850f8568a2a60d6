"""The scale w of the noise: how far each pixel may move on the way.

The default method has the prior's own scale.  What else a method file may name is in `sciresdiff.lab.weights`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sciresdiff.plugins import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from sciresdiff.diffusion.path import Path

NewScale = Callable[[int, "Tensor"], "Tensor"]
"""(t, x_t) -> the scale that the noise is to have after the step from index t, (B, C, Y, X)."""


class DynamicScale(ABC):
    """A scale of the noise that is made anew from the state on the way back."""

    @property
    @abstractmethod
    def w(self) -> Tensor:
        """The present map, (B, C, Y, X)."""

    @abstractmethod
    def at(self, path: Path, t: Any, x: Tensor) -> DynamicScale:
        """The map renewed at a state.

        Parameters
        ----------
        path : the process. t : index of the state: one, or (B,) in training. x : (B, C, Y, X), the state.
        """

    @abstractmethod
    def following(self, path: Path) -> NewScale:
        """The scales of one way back along the path; the same tensor where nothing is due."""


def ones(prior: Tensor, scale: Tensor, up: Tensor) -> Tensor:
    """The same noise everywhere, whatever the images are.

    Parameters
    ----------
    prior, scale, up : (..., Y, X); only the shape counts.
    """
    return scale.new_ones(scale.shape)


def scale_of_prior(prior: Tensor, scale: Tensor, up: Tensor) -> Tensor:
    """The prior's own scale: noise is as large as the prior may be wrong.

    Parameters
    ----------
    prior, scale, up : (..., Y, X), the prior's mean, its scale, and the interpolated frame.
    """
    return scale


WEIGHTS: Registry[Callable[..., Tensor]] = Registry(
    {
        "ones": "sciresdiff.diffusion.weight:ones",
        "scale": "sciresdiff.diffusion.weight:scale_of_prior",
        "upsr": "sciresdiff.lab.weights:upsr",
        "edge-frequency": "sciresdiff.lab.weights:edge_frequency",
    }
)
"""Name -> (prior, scale, up) -> w, all (..., Y, X): the prior's mean, its scale, the interpolated frame."""
DYNAMIC = ("edge-frequency",)
"""Weights that change on the way back."""
