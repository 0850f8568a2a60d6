"""Kernels by family: those of Real-ESRGAN beside the shapes of a point spread function.

The families are those of Wang et al. 2021 (Real-ESRGAN, sections 3.1 and 3.3), with q = r^T Sigma^-1 r and Sigma the
covariance of the axes ``sigma_x``, ``sigma_y`` turned by ``theta``: generalised Gaussian exp(-q^beta / 2), of which
beta = 1 is the Gaussian, and plateau 1 / (1 + q^beta). Sampled at the pixels' centres on an odd square, sum 1.

A family is a function of positions ``y`` (K, 1) and ``x`` (1, K) in px of its grid from the centre, and of its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sciresdiff.physics.psf.spec import PSFSpec

Array = NDArray[np.float64]
Values = Mapping[str, float]


@dataclass(frozen=True)
class Family:
    """A family of kernels."""

    kernel: Callable[[Array, Array, Values], Array]
    """(y, x, values) -> values of the kernel, any constant factor."""
    takes: tuple[str, ...]
    """Numbers that it needs, in px of its grid and degrees."""


def mahalanobis_squared(y: Array, x: Array, values: Values) -> Array:
    """q = r^T Sigma^-1 r.

    Parameters
    ----------
    y, x : (K, 1) and (1, K) arrays
        Positions from the centre, px.
    values : mapping
        ``sigma_x``, ``sigma_y`` (px, the same where it is missing), and ``theta``, degrees by which the axis of
        ``sigma_x`` is turned from +x towards +y.
    """
    angle = np.deg2rad(values.get("theta", 0.0))
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return (along / values["sigma_x"]) ** 2 + (across / values.get("sigma_y", values["sigma_x"])) ** 2


def generalised_gaussian(y: Array, x: Array, values: Values) -> Array:
    """exp(-q^beta / 2); beta below 1 has a sharp peak and wide wings.

    Parameters
    ----------
    y, x : (K, 1) and (1, K) arrays
        Positions from the centre, px.
    values : mapping
        Those of `mahalanobis_squared`, and ``beta``, 1 where it is missing.
    """
    return np.asarray(np.exp(-0.5 * mahalanobis_squared(y, x, values) ** values.get("beta", 1.0)))


def plateau(y: Array, x: Array, values: Values) -> Array:
    """1 / (1 + q^beta): flat about the centre, with wings that fall as a power.

    Parameters
    ----------
    y, x : (K, 1) and (1, K) arrays
        Positions from the centre, px.
    values : mapping
        Those of `mahalanobis_squared`, and ``beta``.
    """
    return np.asarray(1 / (1 + mahalanobis_squared(y, x, values) ** values["beta"]))


def sinc(y: Array, x: Array, values: Values) -> Array:
    """The circular low-pass w J1(w r) / (2 pi r), w^2 / (4 pi) at the centre: it rings, as sharpening does.

    Parameters
    ----------
    y, x : (K, 1) and (1, K) arrays
        Positions from the centre, px.
    values : mapping
        ``cutoff`` w, radians per px.
    """
    r, w = np.hypot(y, x), values["cutoff"]
    return np.asarray(np.where(r == 0, w**2 / (4 * np.pi), w * special.j1(w * r) / (2 * np.pi * np.where(r, r, 1))))


_ROUND, _OVAL = ("side", "sigma_x"), ("side", "sigma_x", "sigma_y", "theta")

FAMILIES: dict[str, Family] = {
    "iso": Family(generalised_gaussian, _ROUND),
    "aniso": Family(generalised_gaussian, _OVAL),
    "generalised-iso": Family(generalised_gaussian, (*_ROUND, "beta")),
    "generalised-aniso": Family(generalised_gaussian, (*_OVAL, "beta")),
    "plateau-iso": Family(plateau, (*_ROUND, "beta")),
    "plateau-aniso": Family(plateau, (*_OVAL, "beta")),
    "sinc": Family(sinc, ("side", "cutoff")),
}
"""Name in a recipe -> family."""


def kernel_from_numbers(numbers: Mapping[str, Any]) -> Array | None:
    """The kernel (K, L) of a blur step, sum 1; None for none.

    Parameters
    ----------
    numbers : mapping
        ``image`` (an array), or ``kernel`` (the SPEC of a PSF, or a family's name with its numbers beside it).
    """
    if "image" in numbers:
        image: Array = numbers["image"]
        return image
    name = str(numbers["kernel"])
    if name in FAMILIES:
        return family_kernel(name, numbers)
    from sciresdiff.physics.psf.kernel import parse, render

    psf = parse(name)
    return None if psf.shape == "none" else crop_to_reach(render(psf, None, integrate=False), numbers)


def family_kernel(name: str, values: Values) -> Array:
    """A kernel of a family.

    Parameters
    ----------
    name : str
        A key of `FAMILIES`.
    values : mapping
        What the family takes, in px of its grid and degrees; other keys are not used.

    Returns
    -------
    (side, side) array
        Sum 1.
    """
    radius = int(values["side"]) // 2
    line = np.arange(-radius, radius + 1, dtype=np.float64)
    taken = {key: x for key, x in values.items() if key in FAMILIES[name].takes}
    kernel = FAMILIES[name].kernel(line[:, None], line[None, :], taken)
    return np.asarray(kernel / kernel.sum())


def crop_to_reach(kernel: Array, numbers: Mapping[str, Any]) -> Array:
    """The kernel (K, L) out to ``reach`` px, where the numbers have one."""
    from sciresdiff.degradation.grids import crop_kernel

    return crop_kernel(kernel, int(numbers["reach"])) if "reach" in numbers else kernel


def kernel_text(numbers: Mapping[str, Any]) -> str:
    """A blur as one word: the SPEC, or ``family:name=value,...``."""
    name = str(numbers["kernel"])
    more = [f"{key}={x:.6g}" for key, x in numbers.items() if key not in ("kernel", "image", "reach")]
    return f"{name}:{','.join(more)}" if more else name


def airy_from_first_ring(radius: float) -> PSFSpec:
    """An Airy pattern by the ``radius`` of its first dark ring, px: 1.2196699 lambda / D."""
    from sciresdiff.physics.psf.shapes import AIRY_FWHM

    return PSFSpec("airy", {"fwhm": (radius * AIRY_FWHM / 1.2196699, "px")})
