"""From a fine image to the coarse, blurred, noisy one that an instrument would have taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from sciresdiff.errors import InputError
from sciresdiff.frame import Quantity

from .detector import Detector

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Low:
    """A degraded plane."""

    pixels: Array
    """(h, w), unit of the fine image; offset, sky and dark current are taken off again: its mean is A high."""
    mask: Mask
    """True where a fine pixel of this area was masked."""
    variance: Array | None
    """Of the noise that was added; where none was, of the fine image's own noise, if that is known."""
    saturated: Mask
    """True where the detector was full, or a fine pixel of this area was flagged so."""
    expected: Array
    """The pixels without noise, A high."""
    detector: Detector | None = None
    """What read them out."""


def degrade(
    high: NDArray[Any],
    *,
    scale: int,
    kernel: Array | None,
    quantity: Quantity,
    detector: Detector | Callable[[Array], Detector] | None,
    rng: np.random.Generator,
    mask: Mask | None = None,
    variance: NDArray[Any] | None = None,
    saturated: Mask | None = None,
) -> Low:
    """Blur, integrate over the coarse pixel, and read out.

    Parameters
    ----------
    high : (Y, X) fine image; rows and columns beyond a multiple of ``scale`` are left out. NaN is filled from the
        nearest pixel before the blur, so that it does not reach the neighbours, and is NaN again in the result.
    scale : fine pixels per coarse pixel and axis.
    kernel : blur on the fine grid, sum 1; None for none.
    quantity : whether blocks add up or average.
    detector : acts on the coarse pixels, gain in electrons per unit of the image; None for no noise; a function makes
        it from the expected coarse pixels.
    mask, variance, saturated : (Y, X) planes of the fine image.

    Returns
    -------
    Low

    Raises
    ------
    InputError : an image smaller than a coarse pixel or than the kernel, or without a finite pixel.
    """
    import torch

    from .operators import Operator

    high = trimmed(np.asarray(high, np.float64), scale)
    shape = high.shape[0] // scale, high.shape[1] // scale
    bad = ~np.isfinite(high)
    operator = Operator(shape, scale, kernel, quantity, torch.float64)
    expected = operator.apply(torch.from_numpy(filled(high, bad))).numpy()
    masked = any_of(bad if mask is None else bad | trimmed(mask, scale), scale)
    full = np.zeros(shape, bool) if saturated is None else any_of(trimmed(saturated, scale), scale)
    pixels, noise = expected.copy(), None
    camera = detector(expected) if callable(detector) else detector
    if camera is not None and camera.noisy:
        pixels, noise, hit = _read_out(expected, camera, rng)
        full = full | hit
    elif variance is not None:
        noise = inherited(trimmed(variance, scale), scale, kernel, quantity)
    pixels[any_of(bad, scale)] = np.nan
    return Low(pixels, masked | full, noise, full, expected, camera)


def _read_out(expected: Array, detector: Detector, rng: np.random.Generator) -> tuple[Array, Array, Mask]:
    """Pixels with the pedestal taken off, the variance of their noise, and which are full."""
    exposure = detector.expose(expected * detector.gain, rng)
    pixels = exposure.pixels - detector.pedestal
    return pixels, detector.variance(expected + detector.pedestal), exposure.saturated


def trimmed(plane: NDArray[Any], scale: int) -> NDArray[Any]:
    """The plane (..., Y, X) without the last rows and columns that fill no coarse pixel.

    Raises
    ------
    InputError : nothing is left.
    """
    h, w = plane.shape[-2] // scale * scale, plane.shape[-1] // scale * scale
    if not (h and w):
        raise InputError(f"--scale {scale}: an image of {plane.shape[-2:]} holds no coarse pixel; give a smaller scale")
    return plane[..., :h, :w]


def blocks(plane: NDArray[Any], scale: int) -> NDArray[Any]:
    """A view (..., h, scale, w, scale) of a plane (..., Y, X)."""
    return plane.reshape(*plane.shape[:-2], plane.shape[-2] // scale, scale, plane.shape[-1] // scale, scale)


def any_of(mask: NDArray[Any], scale: int) -> Mask:
    """True for a coarse pixel with any fine pixel that is True."""
    return np.asarray(blocks(mask, scale).any((-3, -1)))


def or_of(bits: NDArray[np.int32], scale: int) -> NDArray[np.int32]:
    """All the bits that the fine pixels of a coarse one have."""
    down = np.bitwise_or.reduce(blocks(bits, scale), axis=-1)
    return np.asarray(np.bitwise_or.reduce(down, axis=-2))


def filled(image: Array, bad: Mask) -> Array:
    """The image with bad pixels replaced by their nearest good one.

    Raises
    ------
    InputError : there is no good one.
    """
    if not bad.any():
        return image
    if bad.all():
        raise InputError("image: no pixel has a finite value; nothing to degrade")
    nearest = ndimage.distance_transform_edt(bad, return_distances=False, return_indices=True)
    return np.asarray(image[tuple(nearest)])


def inherited(variance: NDArray[Any], scale: int, kernel: Array | None, quantity: Quantity) -> Array:
    """Variance of the coarse pixels that comes from independent noise of the fine ones.

    var_i = sum_j a_ij^2 var_j, with a_ij the weight of fine pixel j in coarse pixel i: kernel and box together, squared
    (the box sum of kernel^2 alone would miss that a blurred pixel enters several of a block). **The coarse pixels are
    then correlated with each other**, which no variance plane says, and within the kernel's reach of the border, where
    light is reflected, the variance is too small.
    """
    box = np.ones((scale, scale)) / (scale**2 if quantity == "mean" else 1)
    weight = np.square(box if kernel is None else signal.convolve(kernel, box))
    known = np.asarray(variance, np.float64)
    known = filled(known, ~np.isfinite(known))
    reach = [(n - scale) // 2 for n in weight.shape]
    padded = np.pad(known, [(r, r) for r in reach], mode="symmetric")
    spread = signal.oaconvolve(padded, weight, mode="valid")[::scale, ::scale]
    return np.asarray(np.maximum(spread, 0))


def compose(first: Array | None, second: Array | None) -> Array | None:
    """One kernel for two blurs, one after the other."""
    if first is None or second is None:
        return second if first is None else first
    both = signal.convolve(first, second)
    return np.asarray(both / both.sum())


def cut(kernel: Array, radius: int) -> Array:
    """The kernel out to a radius, its sum 1 again."""
    keep = [slice(max(0, n // 2 - radius), n // 2 + radius + 1) for n in kernel.shape]
    return np.asarray(kernel[tuple(keep)] / kernel[tuple(keep)].sum())
