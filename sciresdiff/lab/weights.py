"""Scales of the noise to compare with the prior's own: UPSR's, and one that follows the image as it appears."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sciresdiff.diffusion.path import Path
from sciresdiff.diffusion.weight import DynamicScale, NewScale

if TYPE_CHECKING:
    from torch import Tensor


RADIUS = 16
"""Half the side of the window, px, whose mean gradient or high-pass is the unit of a pixel's own."""
STAGES = ((2 / 3, 4), (1 / 3, 2), (0.0, 1))
"""Above which share of the path the map is renewed every how many indices: rarely while noisy, always at the end."""


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


def edge_frequency(
    prior: Tensor, scale: Tensor, up: Tensor, alpha: float = 0.5, floor: float = 0.2, smooth: float = 0.5
) -> Tensor:
    """The first map of `Staged`, made of the interpolated frame alone.

    Parameters
    ----------
    prior, scale, up : (..., Y, X), the prior's mean (not used), its scale, the interpolated frame.
    alpha : share of the edges, 0..1; what a learned one begins with.
    floor : smallest weight in units of ``scale``, above 0 up to 1. smooth : share of the old map in a new one, 0..1.
    """
    return start_staged(scale, up, alpha, floor, smooth).w


def _pad_edge(x: Tensor, size: int) -> Tensor:
    """(N, 1, Y, X) with the values at its border repeated."""
    from torch.nn.functional import pad

    return pad(x, (size, size, size, size), mode="replicate")


def _relative(size: Tensor) -> Tensor:
    """v / (v + mean of v about the pixel), 0..1, 1/2 where a pixel is like its surroundings; 0 where all are 0."""
    from torch.nn.functional import avg_pool2d

    about = avg_pool2d(size, 2 * RADIUS + 1, stride=1, padding=RADIUS, count_include_pad=False)
    return size / (size + about).clamp_min(1e-30)


def edges(image: Tensor) -> Tensor:
    """E: the magnitude of Sobel's gradient relative to its mean within `RADIUS`, 0..1; (..., Y, X).

    Neither a constant added to the image nor a factor on it changes this.
    """
    x = _pad_edge(image.reshape(-1, 1, *image.shape[-2:]), 1)
    down = x[..., 2:, :] - x[..., :-2, :]
    right = x[..., :, 2:] - x[..., :, :-2]
    gy = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    gx = right[..., :-2, :] + 2 * right[..., 1:-1, :] + right[..., 2:, :]
    return _relative((gx.square() + gy.square()).sqrt()).view(image.shape)


def high_pass(image: Tensor) -> Tensor:
    """F: |x - its binomial mean over 5 x 5| relative to the mean of that within `RADIUS`, 0..1; (..., Y, X)."""
    x = _pad_edge(image.reshape(-1, 1, *image.shape[-2:]), 2)
    binomial = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
    h, w = image.shape[-2:]
    rows = sum((k * x[..., i : i + h, :] for i, k in enumerate(binomial)), 0 * x[..., :h, :])
    low = sum((k * rows[..., i : i + w] for i, k in enumerate(binomial)), 0 * rows[..., :w])
    return _relative((x[..., 2:-2, 2:-2] - low).abs()).view(image.shape)


@dataclass(frozen=True, eq=False)
class Staged(DynamicScale):
    """The weight W = alpha E + (1 - alpha) F of edges and high frequencies, renewed on the way back.

    w = scale (floor + (1 - floor) 2 W), which is ``scale`` where a pixel has as much of both as its surroundings.  E
    and F are those of p x_t + (1 - p) up with p = a / (a + s), so that noise is not taken for structure; a new map is
    smooth times the old one and 1 - smooth times that of the present state.
    """

    scale: Tensor
    up: Tensor
    alpha: Any
    """A number, or a tensor that is learned; 0..1."""
    floor: float
    smooth: float
    edge: Tensor
    high: Tensor
    shift: Any = 0.0
    stretch: Any = 1.0
    """An image is shift + stretch x, with x a state without its decay."""

    @property
    def w(self) -> Tensor:
        """The present map."""
        mixed = self.alpha * self.edge + (1 - self.alpha) * self.high
        return self.scale * (self.floor + (2 * (1 - self.floor)) * mixed)

    def at(self, path: Path, t: Any, x: Tensor) -> Staged:
        """The map renewed at a state; it is differentiable in alpha alone.

        Parameters
        ----------
        t : index of the state: one, or (B,) in training. x : (B, C, Y, X), the state.
        """
        p = path.at(t) if isinstance(t, int) else path.at(t, x)
        share = p.a / (p.a + p.s)
        image = self.shift + self.stretch * (x.detach() / (p.a + p.b))  # without its decay, in the frame's units
        mixture = share * image + (1 - share) * self.up
        edge, high = edges(mixture), high_pass(mixture)
        edge, high = (
            self.smooth * old + (1 - self.smooth) * new for old, new in ((self.edge, edge), (self.high, high))
        )
        return replace(self, edge=edge, high=high)

    def following(self, path: Path) -> NewScale:
        """(t, x_t) -> w for one way back along the path; the same tensor where nothing is due."""
        now, w = self, self.w

        def weigh(t: int, x: Tensor) -> Tensor:
            nonlocal now, w
            if is_due(path, t):
                now = now.at(path, t, x)
                w = now.w
            return w

        return weigh


def is_due(path: Path, t: int) -> bool:
    """Whether the map is renewed at the state of index t, see `STAGES`."""
    return t % next(every for share, every in STAGES if t > share * path.T) == 0


def start_staged(
    scale: Tensor,
    up: Tensor,
    alpha: Any = 0.5,
    floor: float = 0.2,
    smooth: float = 0.5,
    shift: Any = 0.0,
    stretch: Any = 1.0,
) -> Staged:
    """The first map of a way back, of the interpolated frame; see `Staged`.

    Parameters
    ----------
    scale, up : (..., Y, X), in units of the state, and of the image.
    shift, stretch : see `Staged`; 0 and 1 where the state has the image's units.
    """
    return Staged(scale, up, alpha, floor, smooth, edges(up), high_pass(up), shift=shift, stretch=stretch)
