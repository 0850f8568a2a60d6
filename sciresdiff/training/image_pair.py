"""Pairs whose coarse image is given: brought to noise units, with their own noise and PSF, and cut into patches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sciresdiff.degradation import resize
from sciresdiff.degradation.grids import block_any
from sciresdiff.errors import InputError
from sciresdiff.frame import Quantity
from sciresdiff.physics import psf
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.sky import MAD_TO_SIGMA, estimate_sky
from sciresdiff.region import Region
from sciresdiff.restoration.ops import psf_features
from sciresdiff.training.kernel_terms import crop_terms, kernel_terms, rotate_terms, trim_kernel
from sciresdiff.training.pair import Array, CoarseImage, Pair

RANK = 6
"""Separable terms of a PSF that is given."""
BEYOND = 0.01
"""Share of a PSF's light that may come from beyond a patch's border, at most."""
SECOND_DIFFERENCE = np.outer([1, -2, 1], [1, -2, 1]) / 6
"""Of white noise it has the noise's own standard deviation, of a plane of any slope it is 0 (Immerkaer 1996)."""


@dataclass(frozen=True)
class ImagePair:
    """One plane of a pair in units of the coarse image's median noise, quantity ``sum``, the sky taken off."""

    low: Array
    """(h, w), 0 where not valid."""
    high: Array
    """(s*h, s*w)"""
    variance: Array
    """(h, w), of ``low``; 1 where not valid."""
    valid: Array
    """(h, w), 1 or 0."""
    kernel: NDArray[np.float64]
    """(K, K), the PSF between the two on the fine grid, odd, sum 1."""

    @property
    def scale(self) -> int:
        """Fine pixels per pixel of ``low`` and axis."""
        return self.high.shape[0] // self.low.shape[0]

    @cached_property
    def terms(self) -> NDArray[np.float64]:
        """The PSF's separable terms, (RANK, 2, K)."""
        return kernel_terms(self.kernel, RANK)

    @cached_property
    def reach(self) -> int:
        """Coarse pixels from a border within which more than BEYOND of the light may come from outside.

        The least r with sum |k| beyond r <= BEYOND sum |k|, r the larger of |y| and |x|, rounded up to coarse px.
        """
        size = np.abs(self.kernel)
        y, x = (np.abs(np.arange(n) - n // 2) for n in size.shape)
        radius = np.maximum(y[:, None], x[None, :])
        outside = np.array([size[radius > r].sum() / size.sum() for r in range(int(radius.max()) + 1)])
        return -(-int(np.argmax(outside <= BEYOND)) // self.scale)


def normalize_pair(
    name: str,
    low: NDArray[Any],
    high: NDArray[Any],
    *,
    kernel: NDArray[np.float64] | None,
    quantity: Quantity,
    variance: NDArray[Any] | None = None,
    step: NDArray[Any] | float = 0.0,
    mask: NDArray[np.bool_] | None = None,
    high_mask: NDArray[np.bool_] | None = None,
) -> ImagePair:
    """Bring a pair to noise units: (image - sky) / sigma, with the sky and the median noise of the coarse image.

    A coarse pixel with a bad fine pixel in it is not valid.

    Parameters
    ----------
    name : of the file, for errors.
    low, high : (h, w) and (s*h, s*w), in one unit.
    kernel : (K, K), PSF between them on the fine grid; None for pixel integration alone.
    quantity : whether s^2 fine pixels add up to a coarse one (``sum``), or it is their mean.
    variance : (h, w) of ``low``; where no pixel's is a number above 0 the noise is measured, see `measure_noise`.
    step : what one code more adds to a pixel of ``low``, one number or (h, w); rounding adds step^2 / 12.
    mask, high_mask : (h, w) and (s*h, s*w), True where bad.

    Raises
    ------
    InputError : no valid pixel, or a constant image whose noise is not given.
    """
    scale = high.shape[0] // low.shape[0]
    wrong, bad = find_bad(low, high, mask, high_mask)
    if bad.all():
        raise InputError(f"{name}: no pixel is valid in both images of the pair")
    noise = _variance(name, np.asarray(low, np.float64), bad, variance, step)
    sky, _ = estimate_sky(low, bad)
    sigma = float(np.sqrt(np.median(noise[~bad])))
    # Of a mean, a fine pixel has the whole sky; it is brought to a sum by the share 1 / s^2.
    per_fine, share = (scale**2, 1.0) if quantity == "sum" else (1, 1.0 / scale**2)
    truth = np.where(wrong, 0, (np.asarray(high, np.float64) - sky / per_fine) * share / sigma)
    return ImagePair(
        low=np.where(bad, 0, (np.asarray(low, np.float64) - sky) / sigma).astype(np.float32),
        high=truth.astype(np.float32),
        variance=np.where(bad, 1, noise / sigma**2).astype(np.float32),
        valid=(~bad).astype(np.float32),
        kernel=np.ones((1, 1)) if kernel is None else trim_kernel(kernel),
    )


def find_bad(
    low: NDArray[Any], high: NDArray[Any], mask: NDArray[np.bool_] | None, high_mask: NDArray[np.bool_] | None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Bad fine pixels, (s*h, s*w), and coarse pixels (h, w) that are bad or have a bad fine one in them."""
    wrong = ~np.isfinite(high) | (np.zeros(high.shape, bool) if high_mask is None else high_mask)
    bad = ~np.isfinite(low) | (np.zeros(low.shape, bool) if mask is None else mask)
    return wrong, bad | block_any(wrong, high.shape[0] // low.shape[0])


def _variance(
    name: str, low: NDArray[np.float64], bad: NDArray[np.bool_], stated: NDArray[Any] | None, step: NDArray[Any] | float
) -> NDArray[np.float64]:
    """The stated variance where there is one, else that of the measured noise and of rounding, (h, w)."""
    known = np.zeros(low.shape) if stated is None else np.nan_to_num(np.asarray(stated, np.float64))
    there = (known > 0) & ~bad
    if there.any():  # as io has it: a pixel without a variance gets the median of the others
        return np.where(known > 0, known, np.median(known[there]))
    measured = np.maximum(measure_noise(low, bad) ** 2, np.square(step) / 12)
    if not (np.broadcast_to(measured, low.shape)[~bad] > 0).all():
        raise InputError(
            f"{name}: the low image is constant or free of noise, which cannot be measured; give a variance"
        )
    return np.asarray(np.broadcast_to(measured, low.shape))


def measure_noise(pixels: NDArray[np.float64], bad: NDArray[np.bool_]) -> float:
    """Measure the standard deviation of the noise by the second differences in y and x (Immerkaer 1996).

    sigma = 1.4826 median |D * pixels|, with D = (1, -2, 1) x (1, -2, 1) / 6.  A median in place of the mean of that
    paper leaves edges out.  **Structure finer than two pixels over more than half of the image counts as noise.**

    Parameters
    ----------
    pixels, bad : (h, w); bad pixels and their neighbours are left out.
    """
    flat = np.where(bad, np.median(pixels[~bad]), pixels)
    ripples = ndimage.convolve(flat, SECOND_DIFFERENCE, mode="reflect")
    good = ~ndimage.binary_dilation(bad, np.ones((3, 3)))
    return float(MAD_TO_SIGMA * np.median(np.abs(ripples[good if good.any() else ~bad])))


def crop_pair(pair: ImagePair, side: int, rng: np.random.Generator) -> Pair:
    """Cut a random patch of ``side`` coarse pixels, turned and mirrored at random together with its PSF.

    Where the patch is cut out of a larger image, the coarse pixels that light from beyond the cut reaches are not
    valid: the operator of a patch reflects at its border, the image went on.

    Parameters
    ----------
    pair : at least side x side coarse pixels.
    side : p, coarse px.
    rng : draws place, turn and mirror.
    """
    scale, (h, w) = pair.scale, pair.low.shape
    y0, x0 = int(rng.integers(h - side + 1)), int(rng.integers(w - side + 1))
    turns, flip = int(rng.integers(4)), bool(rng.random() < 0.5)
    low = Region(y0, y0 + side, x0, x0 + side)
    high = low.scaled(scale).slices

    def rotate(image: NDArray[Any]) -> NDArray[Any]:
        turned = np.rot90(image, turns)
        return turned[::-1] if flip else turned

    truth, y, variance, valid = (
        np.ascontiguousarray(rotate(image))
        for image in (
            pair.high[high],
            pair.low[low.slices],
            pair.variance[low.slices],
            pair.valid[low.slices] * _interior(low, (h, w), pair.reach),
        )
    )
    terms = crop_terms(pair.terms, (side * scale - 1) // 2)  # no wider than the patch
    return Pair(
        truth=truth,
        terms=rotate_terms(terms, turns, flip).astype(np.float32),
        features=psf_features(PSF.constant(rotate(pair.kernel)), scale),
        valid=valid,
        coarse=CoarseImage(y, variance),
    )


def _interior(patch: Region, shape: tuple[int, int], rim: int) -> Array:
    """1 but in the rim along those borders of a patch (h, w) that are not the image's own."""
    inside = np.ones(patch.shape, np.float32)
    if rim:
        inside[:rim] *= patch.y0 == 0
        inside[-rim:] *= patch.y1 == shape[0]
        inside[:, :rim] *= patch.x0 == 0
        inside[:, -rim:] *= patch.x1 == shape[1]
    return inside


def render_kernel(spec: str, scale: int) -> NDArray[np.float64] | None:
    """Render a PSF (K, K) on the fine grid by its SPEC, in fine px; None for ``none``.

    ``area``, ``bilinear`` and ``bicubic`` are the antialiased reductions by ``scale``.

    Raises
    ------
    UsageError : a SPEC that is none.
    """
    if spec in resize.FILTERS:
        return resize.antialias_kernel(spec, scale)
    shape = psf.parse(spec)
    return None if shape.shape == "none" else psf.render(shape, None, integrate=False)
