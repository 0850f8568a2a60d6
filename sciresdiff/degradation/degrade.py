"""From a fine image to the coarse, blurred, noisy one that an instrument would have taken: a chain of three steps."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.degradation.chain import DegradedPlane, Step, run_chain
from sciresdiff.degradation.grids import Array, Mask
from sciresdiff.frame import Quantity
from sciresdiff.physics.detector import Detector


def instrument_chain(kernel: Array | None, detector: Detector | None, spec: str = "none") -> list[Step]:
    """The chain of an instrument: blur on the fine grid, integration over the coarse pixel, read-out.

    Parameters
    ----------
    kernel : (K, L) array or None
        The blur on the fine grid.
    detector : Detector or None
        None for no read-out.
    spec : str
        What the record calls the kernel.
    """
    steps = [Step("blur", {"kernel": spec} if kernel is None else {"kernel": spec, "image": kernel})]
    steps.append(Step("resize", {"to": "coarse", "filter": "area"}))
    if detector is not None:
        steps.append(Step("detector", {item.name: getattr(detector, item.name) for item in fields(detector)}))
    return steps


def degrade(
    high: NDArray[Any],
    *,
    scale: int,
    kernel: Array | None,
    quantity: Quantity,
    detector: Detector | None,
    rng: np.random.Generator,
    mask: Mask | None = None,
    variance: NDArray[Any] | None = None,
    saturated: Mask | None = None,
) -> DegradedPlane:
    """Blur, integrate over the coarse pixel, and read out.

    Parameters
    ----------
    high : (Y, X) array
        Fine image; rows and columns beyond a multiple of ``scale`` are left out. NaN is filled from the nearest pixel
        before the blur, so that it does not reach the neighbours, and is NaN again in the result.
    scale : int
        Fine pixels per coarse pixel and axis.
    kernel : (K, L) array or None
        Blur on the fine grid, sum 1; None for none.
    quantity : {"sum", "mean"}
        Whether blocks add up or average.
    detector : Detector or None
        Acts on the coarse pixels, gain in electrons per unit of the image; None for no noise.
    rng : numpy.random.Generator
        The only source of noise.
    mask, variance, saturated : (Y, X) array, optional
        Planes of the fine image: True where it is bad, variance in its unit squared, True where it is saturated.

    Raises
    ------
    InputError
        An image smaller than a coarse pixel or than the kernel, or without a finite pixel.
    """
    return run_chain(
        high,
        instrument_chain(kernel, detector),
        scale=scale,
        quantity=quantity,
        rng=rng,
        mask=mask,
        variance=variance,
        saturated=saturated,
    )
