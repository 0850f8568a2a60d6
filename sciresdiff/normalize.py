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

from sciresdiff.errors import InputError, UsageError

Values = NDArray[np.float64]
Parameters = Mapping[str, float]

SAMPLE = 400_000  # pixels that a background is measured on; its error is then below 0.01 sigma
MAD_TO_SIGMA = 1.482602218505602  # of a Gaussian


@dataclass(frozen=True)
class Family:
    """One kind of stretch: how it is fitted, applied and undone."""

    fit: Callable[..., dict[str, float]]
    forward: Callable[[Any, Parameters], Any]
    inverse: Callable[[Any, Parameters], Any]
    scale: Callable[[Parameters], float]


@dataclass(frozen=True)
class Stretch:
    """A fitted stretch. Works on numpy arrays (in float64) and on torch tensors (in their own type)."""

    name: str
    parameters: Mapping[str, float] = field(default_factory=dict)

    def forward(self, x: Any) -> Any:
        """Data units -> stretched units."""
        return STRETCHES[self.name].forward(_wide(x), self.parameters)

    def inverse(self, u: Any) -> Any:
        """Stretched units -> data units."""
        return STRETCHES[self.name].inverse(_wide(u), self.parameters)

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
        return cls(_known(str(stored.get("name"))), parameters)


def fit(
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
        ``fit(a y + b, a^2 variance)``.

    Raises
    ------
    UsageError
        Unknown name or setting, or a setting out of its range.
    InputError
        No valid pixel.
    """
    family = STRETCHES[_known(name)]
    try:
        return Stretch(name, family.fit(pixels, mask, variance, **settings))
    except TypeError as error:
        raise UsageError(f"stretch {name}: {sorted(settings)} given; {_allowed(family)} can be set") from error


def background(pixels: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> tuple[float, float]:
    """Level and scatter of the sky, robust against sources, crowding and padded borders.

    A clipped median; where the clipped pixels are still skewed (a crowded field, a full microscope image) the mode
    takes its place, and the scatter is that of the pixels below it. Equivariant: ``a y + b`` gives ``a sky + b`` and
    ``|a| sigma`` for a > 0.

    Parameters
    ----------
    pixels, mask : arrays
        Values, and True where a pixel says nothing.

    Returns
    -------
    sky, sigma : float
        In data units; sigma is 0 where all pixels are equal.

    Raises
    ------
    InputError
        No valid pixel.
    """
    values = _without_padding(_sample(pixels, mask))
    if values[0] == values[-1]:
        return float(values[0]), 0.0
    sky, sigma, kept = _clip(values)
    if sigma == 0:
        return sky, _scatter_of_counts(values)
    if (kept.mean() - sky) > 0.1 * sigma:
        sky = _mode(kept)
        below = sky - kept[kept < sky]
        sigma = MAD_TO_SIGMA * float(np.median(below)) if len(below) else sigma
    return sky, sigma


def _sample(pixels: NDArray[Any], mask: NDArray[np.bool_] | None) -> Values:
    good = np.isfinite(pixels) if mask is None else np.isfinite(pixels) & ~np.asarray(mask, bool)
    values = np.asarray(pixels)[good]
    if not values.size:
        raise InputError("no valid pixel: all are NaN or masked")
    step = 1 + values.size // SAMPLE
    return np.sort(values[::step].astype(np.float64))


def _without_padding(values: Values) -> Values:
    """Drop a value that fills a border: far commoner than any other, and not where the rest has its sky."""
    level, counts = np.unique(values, return_counts=True)
    order = np.argsort(counts)
    filler = level[order[-1]]
    if counts[order[-1]] < 0.05 * values.size or len(level) < 3:
        return values
    rest = values[values != filler]
    sky, sigma, _ = _clip(rest)
    continuous = counts[order[-2]] < 0.02 * rest.size
    straddles = 0.1 < np.mean(rest < filler) < 0.9
    return rest if abs(sky - filler) > 5 * sigma > 0 or (continuous and straddles) else values


def _clip(values: Values, limit: float = 3.0, rounds: int = 20) -> tuple[float, float, Values]:
    """Median and scatter of sorted values, those beyond ``limit`` scatters left out until none is."""
    for _ in range(rounds):
        sky = float(np.median(values))
        sigma = MAD_TO_SIGMA * float(np.median(np.abs(values - sky)))
        low, high = np.searchsorted(values, [sky - limit * sigma, sky + limit * sigma])
        if sigma == 0 or high - low == values.size:
            break
        values = values[low:high]
    return sky, sigma, values


def _mode(values: Values, fraction: float = 0.5, least: float = 0.1) -> float:
    """Median of the densest part of sorted values: the shortest half, again and again, down to a tenth of them."""
    stop = max(least * values.size, 10)
    while values.size > stop:
        n = int(np.ceil(fraction * values.size))
        start = int(np.argmin(values[n - 1 :] - values[: values.size - n + 1]))
        values = values[start : start + n]
    return float(np.median(values))


def _scatter_of_counts(values: Values) -> float:
    """Scatter of values more than half of which are equal, as in photon counting: standard deviation, clipped."""
    for _ in range(3):
        values = values[np.abs(values - np.median(values)) <= 5 * values.std()]
    return float(values.std())


def _noise_scale(
    pixels: NDArray[Any], mask: NDArray[np.bool_] | None, variance: NDArray[Any] | None
) -> tuple[float, float]:
    """Sky, and the noise there: from the variance where there is one, else the scatter; 1 where that is 0."""
    sky, sigma = background(pixels, mask)
    if variance is None:
        return sky, sigma or 1.0
    good = np.isfinite(variance) & (variance > 0) & (np.abs(pixels - sky) <= 3 * sigma)
    if mask is not None:
        good &= ~mask
    return sky, float(np.sqrt(np.median(variance[good]))) if good.any() else sigma or 1.0


def _fit_identity(pixels: Any, mask: Any, variance: Any) -> dict[str, float]:
    return {}


def _fit_noise(pixels: Any, mask: Any, variance: Any) -> dict[str, float]:
    sky, sigma = _noise_scale(pixels, mask, variance)
    return {"sky": sky, "sigma": sigma}


def _fit_asinh(pixels: Any, mask: Any, variance: Any, softening: float = 3.0) -> dict[str, float]:
    if not softening > 0:
        raise UsageError(f"softening {softening}: has to be above 0, in units of the noise; 3 is the default")
    return {**_fit_noise(pixels, mask, variance), "softening": float(softening)}


def _fit_percentile(pixels: Any, mask: Any, variance: Any, pmin: float = 3.0, pmax: float = 99.8) -> dict[str, float]:
    """Percentiles as in CARE (Weigert et al. 2018)."""
    if not 0 <= pmin < pmax <= 100:
        raise UsageError(f"pmin {pmin}, pmax {pmax}: 0 <= pmin < pmax <= 100; 3 and 99.8 are the defaults")
    low, high = np.percentile(_sample(pixels, mask), [pmin, pmax])
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
        gain, line_read = _photon_transfer(pixels, mask, variance, offset)
        read_noise = line_read if read_noise is None else read_noise
    gain, read_noise = 1.0 if gain is None else gain, 0.0 if read_noise is None else read_noise
    if not (gain > 0 and read_noise >= 0):
        raise UsageError(f"gain {gain}, read noise {read_noise}: a gain above 0 e-/unit and a noise of 0 e- or more")
    sky = background(pixels, mask)[0]
    return {"gain": float(gain), "read_noise": float(read_noise), "offset": float(offset), "sky": sky}


def _photon_transfer(pixels: Any, mask: Any, variance: Any, offset: float) -> tuple[float, float]:
    good = np.isfinite(pixels) & np.isfinite(variance) & (variance > 0)
    if mask is not None:
        good &= ~mask
    x, var = np.asarray(pixels, np.float64)[good] - offset, np.asarray(variance, np.float64)[good]
    if x.size < 2 or np.ptp(x) == 0:
        raise UsageError("anscombe: the variance does not tell a gain on a constant frame; give gain and read_noise")
    slope, level = np.polyfit(x, var, 1)
    if slope <= 0:
        raise UsageError("anscombe: the variance does not grow with the signal; give gain and read_noise")
    return 1 / slope, float(np.sqrt(max(level, 0.0)) / slope)


def _asinh(z: Any, p: Parameters) -> Any:
    w = (z - p["sky"]) / (p["sigma"] * p["softening"])
    return p["softening"] * (w.arcsinh() if hasattr(w, "arcsinh") else np.arcsinh(w))


def _sinh(u: Any, p: Parameters) -> Any:
    w = u / p["softening"]
    return (w.sinh() if hasattr(w, "sinh") else np.sinh(w)) * (p["sigma"] * p["softening"]) + p["sky"]


def _anscombe(x: Any, p: Parameters) -> Any:
    """2 sqrt(e + 3/8 + read^2) (Starck, Murtagh & Bijaoui 1998), continued by its tangent below e = -read^2."""
    v = p["gain"] * (x - p["offset"]) + 0.375 + p["read_noise"] ** 2
    return 2 * v.clip(0.375, None) ** 0.5 + (v.clip(None, 0.375) - 0.375) / 0.375**0.5


def _anscombe_back(u: Any, p: Parameters) -> Any:
    """The algebraic inverse: exact, **not** the unbiased one of a mean over noise."""
    corner = 2 * 0.375**0.5
    v = (u.clip(corner, None) / 2) ** 2 + (u.clip(None, corner) - corner) * 0.375**0.5
    return (v - 0.375 - p["read_noise"] ** 2) / p["gain"] + p["offset"]


def _anscombe_scale(p: Parameters) -> float:
    v = p["gain"] * (p["sky"] - p["offset"]) + 0.375 + p["read_noise"] ** 2
    return max(v, 0.375) ** 0.5 / p["gain"]


def _wide(x: Any) -> Any:
    """Numpy in float64; a torch tensor as it is."""
    return x if hasattr(x, "detach") else np.asarray(x, np.float64)


def _known(name: str) -> str:
    if name not in STRETCHES:
        raise UsageError(f"stretch {name!r}: not known; one of {', '.join(STRETCHES)}")
    return name


def _allowed(family: Family) -> str:
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
    "anscombe": Family(_fit_anscombe, _anscombe, _anscombe_back, _anscombe_scale),
}
"""Name -> family."""
