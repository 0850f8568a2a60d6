"""Noise and coding of the 8-bit chains (Wang et al. 2021, Real-ESRGAN, sections 3.1 and 3.4), on images of any unit.

Two percentiles of the fine image stand for the codes 0 and 255; what lies beyond is only cut where it is coded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError

Array = NDArray[np.float64]

TOP = 255
PERCENTILES = (0.1, 99.9)
"""Of the fine image: what is coded as 0 and as 255."""

LARGEST = 65_500
"""Longest side of a JPEG image, px."""

USED_BY = ("gaussian", "poisson", "jpeg")
"""Steps that need the levels."""


def percentile_levels(image: Array, percentiles: tuple[float, float] = PERCENTILES) -> tuple[float, float]:
    """The values that are coded as 0 and 255; of a constant image the value and 1 above it.

    Parameters
    ----------
    image : (...) array
        Any unit, finite.
    percentiles : (low, high)
        0 ... 100.

    Returns
    -------
    low, high : float
        In the unit of the image, high > low.
    """
    low, high = (float(x) for x in np.percentile(image, percentiles))
    if not high > low:
        low, high = float(image.min()), float(image.max())
    return (low, high) if high > low else (low, low + 1.0)


def shared_generator(
    shared_seed: tuple[int, ...] | None, numbers: Mapping[str, Any], rng: np.random.Generator
) -> np.random.Generator:
    """The generator of a step's noise: where it is ``grey`` the one that all planes of a colour image have.

    Parameters
    ----------
    shared_seed : tuple of int or None
        Of the colour image; None for a single plane.
    numbers : mapping
        Of the step: ``grey``, and ``place``, its number in the chain.
    rng : numpy.random.Generator
        The plane's own, which serves where the noise is not grey.
    """
    if not numbers.get("grey") or shared_seed is None:
        return rng
    return np.random.default_rng([*shared_seed, int(numbers.get("place", 0))])


def poisson_noise(
    light: Array, numbers: Mapping[str, Any], rng: np.random.Generator, shared_seed: tuple[int, ...] | None
) -> tuple[Array, Array]:
    """strength (n / E - light) with n ~ Poisson(E light), and its variance strength^2 light / E.

    Parameters
    ----------
    light : (Y, X) array
        1 at the 8-bit white, >= 0.
    numbers : mapping
        ``strength``; ``electrons`` E, without which it is the number of 8-bit levels that occur, rounded up to a power
        of two; ``grey``: the planes' numbers come from one uniform field.
    rng : numpy.random.Generator
        The plane's own.
    shared_seed : tuple of int or None
        Of the colour image.

    Returns
    -------
    noise, variance : (Y, X) array
        In units of ``light`` and their square.
    """
    full, strength = float(numbers.get("electrons") or count_levels(light)), float(numbers["strength"])
    if numbers.get("grey") and shared_seed is not None:
        from scipy import stats

        # one uniform field for all planes, each through its own distribution: grey photon noise

        counts = stats.poisson.ppf(shared_generator(shared_seed, numbers, rng).random(light.shape), full * light)
        counts = np.where(light > 0, counts, 0.0)
    else:
        counts = rng.poisson(full * light).astype(np.float64)
    return strength * (counts / full - light), strength**2 * light / full


def count_levels(light: Array) -> float:
    """Number of 8-bit levels that occur, rounded up to a power of two."""
    return float(2 ** np.ceil(np.log2(np.unique(_to_bytes(light)).size)))


def jpeg_round_trip(code: Array, quality: int) -> Array:
    """Values after 8 bits and JPEG, as one grey plane.

    Parameters
    ----------
    code : (Y, X) array
        0 ... 1; **what lies beyond is cut**.
    quality : int
        1 ... 100.

    Raises
    ------
    InputError
        A side beyond what JPEG holds.
    """
    import imagecodecs

    if max(code.shape) > LARGEST:
        raise InputError(f"jpeg: an image of {code.shape} px has a side above {LARGEST}; cut it first")
    whole = imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(_to_bytes(code), level=quality))
    return np.asarray(whole, np.float64) / TOP


def _to_bytes(code: Array) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.rint(np.clip(code, 0, 1) * TOP).astype(np.uint8))
