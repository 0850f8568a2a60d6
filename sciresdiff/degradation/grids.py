"""Planes on two grids: which fine pixels a coarse one has, what becomes of their flags, noise and blur."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from sciresdiff.errors import InputError
from sciresdiff.frame import Quantity

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def crop_to_multiple(plane: NDArray[Any], scale: int) -> NDArray[Any]:
    """The plane (..., Y, X) without the last rows and columns that fill no coarse pixel: a view.

    Raises
    ------
    InputError
        Nothing is left.
    """
    h, w = plane.shape[-2] // scale * scale, plane.shape[-1] // scale * scale
    if not (h and w):
        raise InputError(f"--scale {scale}: an image of {plane.shape[-2:]} holds no coarse pixel; give a smaller scale")
    return plane[..., :h, :w]


def block_view(plane: NDArray[Any], scale: int) -> NDArray[Any]:
    """A view (..., h, scale, w, scale) of a plane (..., Y, X), whose sides are multiples of ``scale``."""
    return plane.reshape(*plane.shape[:-2], plane.shape[-2] // scale, scale, plane.shape[-1] // scale, scale)


def block_any(mask: NDArray[Any], scale: int) -> Mask:
    """True for a coarse pixel with any fine pixel that is True: (..., h, w) of a mask (..., Y, X)."""
    return np.asarray(block_view(mask, scale).any((-3, -1)))


def block_or(bits: NDArray[np.int32], scale: int) -> NDArray[np.int32]:
    """All the bits that the fine pixels of a coarse one have: (..., h, w) of flags (..., Y, X)."""
    down = np.bitwise_or.reduce(block_view(bits, scale), axis=-1)
    return np.asarray(np.bitwise_or.reduce(down, axis=-2))


def fill_nearest(image: Array, bad: Mask) -> Array:
    """The image (Y, X) with bad pixels replaced by their nearest good one; itself where none is bad.

    Raises
    ------
    InputError
        There is no good one.
    """
    if not bad.any():
        return image
    if bad.all():
        raise InputError("image: no pixel has a finite value; nothing to degrade")
    nearest = ndimage.distance_transform_edt(bad, return_distances=False, return_indices=True)
    return np.asarray(image[tuple(nearest)])


def propagate_variance(variance: NDArray[Any], scale: int, kernel: Array | None, quantity: Quantity) -> Array:
    """Variance of the coarse pixels that comes from independent noise of the fine ones.

    var_i = sum_j a_ij^2 var_j, with a_ij the weight of fine pixel j in coarse pixel i: kernel and box together, squared
    (the box sum of kernel^2 alone would miss that a blurred pixel enters several of a block). **The coarse pixels are
    then correlated with each other**, which no variance plane says, and within the kernel's reach of the border, where
    light is reflected, the variance is too small.

    Parameters
    ----------
    variance : (Y, X) array
        Of the fine pixels; what is not finite is taken from the nearest pixel that is.
    scale : int
        Fine pixels per coarse pixel and axis.
    kernel : (K, L) array or None
        The blur on the fine grid.
    quantity : {"sum", "mean"}
        Whether blocks add up or average.

    Returns
    -------
    (Y / scale, X / scale) array
        In the unit of ``variance``.
    """
    box = np.ones((scale, scale)) / (scale**2 if quantity == "mean" else 1)
    weight = np.square(box if kernel is None else signal.convolve(kernel, box))
    known = np.asarray(variance, np.float64)
    known = fill_nearest(known, ~np.isfinite(known))
    # the full convolution, taken at every scale-th place where box and block coincide
    reach = [(n - scale) // 2 for n in weight.shape]
    padded = np.pad(known, [(r, r) for r in reach], mode="symmetric")
    spread = signal.oaconvolve(padded, weight, mode="valid")[::scale, ::scale]
    return np.asarray(np.maximum(spread, 0))


def compose_kernels(first: Array | None, second: Array | None) -> Array | None:
    """One kernel for two blurs, one after the other; None is no blur.

    Of kernels (K, L) and (M, N) it is (K + M - 1, L + N - 1), sum 1.
    """
    if first is None or second is None:
        return second if first is None else first
    both = signal.convolve(first, second)
    return np.asarray(both / both.sum())


def crop_kernel(kernel: Array, radius: int) -> Array:
    """The kernel (K, L) out to a radius in px along each axis, its sum 1 again."""
    keep = [slice(max(0, n // 2 - radius), n // 2 + radius + 1) for n in kernel.shape]
    return np.asarray(kernel[tuple(keep)] / kernel[tuple(keep)].sum())


def dilate_kernel(kernel: Array | None, factor: int) -> Array | None:
    """The kernel on the fine grid that, before blocks of ``factor`` pixels are summed, does what this one does after.

    Zeros come between its values (the noble identity: K(z) after the sampling is K(z^factor) before it), so that (K, L)
    becomes ((K - 1) factor + 1, (L - 1) factor + 1).
    """
    if kernel is None or factor == 1:
        return kernel
    wide = np.zeros([(n - 1) * factor + 1 for n in kernel.shape])
    wide[::factor, ::factor] = kernel
    return wide
