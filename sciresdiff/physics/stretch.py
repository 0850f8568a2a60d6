"""Stretches: invertible maps from a frame's own units to the units that a network sees.

A stretch is fitted once per frame, never per tile. Its family and settings belong to the model; its background and
noise scale are measured on the frame. ``inverse(forward(x)) == x`` to float64 rounding, for any x.

**A mean taken in stretched units is not the stretched mean**: only ``identity``, ``noise`` and ``percentile`` are
affine; averages belong in linear units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import UsageError
from sciresdiff.physics.photon_transfer import gain_from_variance
from sciresdiff.physics.sky import estimate_sky, sorted_sample

Values = NDArray[np.float64]
Parameters = Mapping[str, float]


@dataclass(frozen=True)
class Family:
    """One kind of stretch: how it is fitted, applied and undone."""

    fit: Callable[..., dict[str, float]]
    """(pixels, mask, variance, **settings) -> parameters."""
    forward: Callable[[Any, Parameters], Any]
    """(data units, parameters) -> stretched units."""
    inverse: Callable[[Any, Parameters], Any]
    """(stretched units, parameters) -> data units."""
    scale: Callable[[Parameters], float]
    """Data units per stretched unit, at the sky."""


@dataclass(frozen=True)
class Stretch:
    """A fitted stretch. Works on numpy arrays (in float64) and on torch tensors (in their own type)."""

    name: str
    """A key of `STRETCHES`."""
    parameters: Mapping[str, float] = field(default_factory=dict)
    """What was fitted: ``sky``, ``sigma`` ... in data units."""

    def forward(self, x: Any) -> Any:
        """Data units -> stretched units, any shape."""
        return STRETCHES[self.name].forward(_float64_or_tensor(x), self.parameters)

    def inverse(self, u: Any) -> Any:
        """Stretched units -> data units, any shape."""
        return STRETCHES[self.name].inverse(_float64_or_tensor(u), self.parameters)

    @property
    def scale(self) -> float:
        """Data units per stretched unit, at the sky."""
        return STRETCHES[self.name].scale(self.parameters)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form; ``Stretch.from_dict`` undoes it."""
        return {"name": self.name, **self.parameters}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Stretch:
        """The stretch that ``to_dict`` wrote.

        Raises
        ------
        UsageError
            Where the name is not in ``STRETCHES``.
        """
        parameters = {key: float(value) for key, value in stored.items() if key != "name"}
        return cls(_known_name(str(stored.get("name"))), parameters)


def fit_stretch(
    name: str,
    pixels: NDArray[Any],
    mask: NDArray[np.bool_] | None = None,
    variance: NDArray[Any] | None = None,
    **settings: float,
) -> Stretch:
    """Fit a stretch to one whole frame.

    Parameters
    ----------
    name : str
        A key of ``STRETCHES``.
    pixels : array
        Values in data units, any shape.
    mask : bool array, optional
        True where a pixel says nothing.
    variance : array, optional
        Variance per pixel, in data units squared; gives the noise scale in place of the scatter of the sky.
    **settings : float
        ``softening`` (asinh), ``pmin`` and ``pmax`` (percentile), ``gain``, ``read_noise`` and ``offset`` (anscombe).

    Returns
    -------
    Stretch
        For ``noise``, ``asinh`` and ``percentile`` and a > 0 the stretched pixels are those of the frame itself after
        ``fit_stretch(a y + b, a^2 variance)``.

    Raises
    ------
    UsageError
        Unknown name or setting, or a setting out of its range.
    InputError
        No valid pixel.
    """
    family = STRETCHES[_known_name(name)]
    try:
        return Stretch(name, family.fit(pixels, mask, variance, **settings))
    except TypeError as error:
        raise UsageError(f"stretch {name}: {sorted(settings)} given; {_settings_of(family)} can be set") from error


def _sky_and_noise(
    pixels: NDArray[Any], mask: NDArray[np.bool_] | None, variance: NDArray[Any] | None
) -> tuple[float, float]:
    """Sky, and the noise there: from the variance where there is one, else the scatter; 1 where that is 0."""
    sky, sigma = estimate_sky(pixels, mask)
    if variance is None:
        return sky, sigma or 1.0
    # the variance of sky pixels alone: photon noise of sources is not the noise of the sky
    good = np.isfinite(variance) & (variance > 0) & (np.abs(pixels - sky) <= 3 * sigma)
    if mask is not None:
        good &= ~mask
    return sky, float(np.sqrt(np.median(variance[good]))) if good.any() else sigma or 1.0


def _fit_identity(pixels: Any, mask: Any, variance: Any) -> dict[str, float]:
    return {}


def _fit_noise(pixels: Any, mask: Any, variance: Any) -> dict[str, float]:
    """Units of the sky's noise, 0 at the sky."""
    sky, sigma = _sky_and_noise(pixels, mask, variance)
    return {"sky": sky, "sigma": sigma}


def _fit_asinh(pixels: Any, mask: Any, variance: Any, softening: float = 3.0) -> dict[str, float]:
    """Linear below ``softening`` sigma of the sky, logarithmic above (Lupton, Gunn & Szalay 1999)."""
    if not softening > 0:
        raise UsageError(f"softening {softening}: has to be above 0, in units of the noise; 3 is the default")
    return {**_fit_noise(pixels, mask, variance), "softening": float(softening)}


def _fit_percentile(pixels: Any, mask: Any, variance: Any, pmin: float = 3.0, pmax: float = 99.8) -> dict[str, float]:
    """Percentiles as in CARE (Weigert et al. 2018)."""
    if not 0 <= pmin < pmax <= 100:
        raise UsageError(f"pmin {pmin}, pmax {pmax}: 0 <= pmin < pmax <= 100; 3 and 99.8 are the defaults")
    low, high = np.percentile(sorted_sample(pixels, mask), [pmin, pmax])
    return {"low": float(low), "width": float(high - low) or 1.0}


def _fit_anscombe(
    pixels: Any,
    mask: Any,
    variance: Any,
    gain: float | None = None,
    read_noise: float | None = None,
    offset: float = 0.0,
) -> dict[str, float]:
    """Gain (e-/unit) and read noise (e-) as given, else by the line variance = (x - offset)/gain + (read/gain)^2."""
    if gain is None and variance is not None:
        gain, line_read = gain_from_variance(pixels, mask, variance, offset)
        read_noise = line_read if read_noise is None else read_noise
    gain, read_noise = 1.0 if gain is None else gain, 0.0 if read_noise is None else read_noise
    if not (gain > 0 and read_noise >= 0):
        raise UsageError(f"gain {gain}, read noise {read_noise}: a gain above 0 e-/unit and a noise of 0 e- or more")
    sky = estimate_sky(pixels, mask)[0]
    return {"gain": float(gain), "read_noise": float(read_noise), "offset": float(offset), "sky": sky}


def _asinh(z: Any, p: Parameters) -> Any:
    w = (z - p["sky"]) / (p["sigma"] * p["softening"])
    return p["softening"] * (w.arcsinh() if hasattr(w, "arcsinh") else np.arcsinh(w))


def _sinh(u: Any, p: Parameters) -> Any:
    w = u / p["softening"]
    return (w.sinh() if hasattr(w, "sinh") else np.sinh(w)) * (p["sigma"] * p["softening"]) + p["sky"]


def _anscombe(x: Any, p: Parameters) -> Any:
    """2 sqrt(e + 3/8 + read^2) (Starck, Murtagh & Bijaoui 1998), continued by its tangent below e = -read^2."""
    v = p["gain"] * (x - p["offset"]) + 0.375 + p["read_noise"] ** 2
    # 2 sqrt(v) has slope 0.375^-1/2 at v = 0.375: the tangent keeps the map invertible where a root has no value
    return 2 * v.clip(0.375, None) ** 0.5 + (v.clip(None, 0.375) - 0.375) / 0.375**0.5


def _inverse_anscombe(u: Any, p: Parameters) -> Any:
    """The algebraic inverse: exact, **not** the unbiased one of a mean over noise."""
    corner = 2 * 0.375**0.5
    v = (u.clip(corner, None) / 2) ** 2 + (u.clip(None, corner) - corner) * 0.375**0.5
    return (v - 0.375 - p["read_noise"] ** 2) / p["gain"] + p["offset"]


def _anscombe_scale(p: Parameters) -> float:
    v = p["gain"] * (p["sky"] - p["offset"]) + 0.375 + p["read_noise"] ** 2
    return max(v, 0.375) ** 0.5 / p["gain"]


def _float64_or_tensor(x: Any) -> Any:
    """Numpy in float64; a torch tensor as it is."""
    return x if hasattr(x, "detach") else np.asarray(x, np.float64)


def _known_name(name: str) -> str:
    if name not in STRETCHES:
        raise UsageError(f"stretch {name!r}: not known; one of {', '.join(STRETCHES)}")
    return name


def _settings_of(family: Family) -> str:
    code = family.fit.__code__
    return ", ".join(code.co_varnames[3 : code.co_argcount]) or "nothing"


STRETCHES: dict[str, Family] = {
    "identity": Family(_fit_identity, lambda x, p: x, lambda u, p: u, lambda p: 1.0),
    "noise": Family(
        _fit_noise,
        lambda x, p: (x - p["sky"]) / p["sigma"],
        lambda u, p: u * p["sigma"] + p["sky"],
        lambda p: p["sigma"],
    ),
    "asinh": Family(_fit_asinh, _asinh, _sinh, lambda p: p["sigma"]),
    "percentile": Family(
        _fit_percentile,
        lambda x, p: (x - p["low"]) / p["width"],
        lambda u, p: u * p["width"] + p["low"],
        lambda p: p["width"],
    ),
    "anscombe": Family(_fit_anscombe, _anscombe, _inverse_anscombe, _anscombe_scale),
}
"""Name -> family."""
