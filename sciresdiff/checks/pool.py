"""Results of a plane that is judged in pieces: how those of the pieces become one, for every result of the registry.

Totals, squares, moments and counts add up: those results are the whole plane's, to rounding. What follows from counts
of sources differs by those at thresholds, because sky and noise are measured in every piece. The others are means or
medians of the pieces, and say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from sciresdiff.checks.check import UnmeasuredError, absent, finite
from sciresdiff.checks.consistency import chi2_of, chi2_sums
from sciresdiff.checks.evidence import NAMES, Evidence, Range, Result
from sciresdiff.checks.fidelity import moments_of_both, of_moments, pair_sums
from sciresdiff.checks.flux import (
    block_flux_of,
    block_flux_sums,
    total_flux_of,
    total_flux_sums,
)
from sciresdiff.checks.limits import LIMITS, judged
from sciresdiff.checks.residual import most_blobs
from sciresdiff.checks.sources import least_purity
from sciresdiff.frame import Kind

Sums = Mapping[str, Mapping[str, float]]
"""What one piece adds: name -> numbers that add up."""
Ends = tuple[float, ...]


@dataclass(frozen=True)
class Piece:
    """What one piece says."""

    results: Sequence[Result]
    sums: Sums
    place: str
    """Where it lies, in words."""


@dataclass(frozen=True)
class Pool:
    """How a result is pooled."""

    words: str
    value: Callable[[np.ndarray, np.ndarray], float] | None = None
    """(values, weights) of the pieces -> value; None: made of sums, or left out."""
    shrinks: bool = False
    """Whether the room that its limits leave for chance shrinks with the number of pieces."""


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    return float((values * weights).sum() / weights.sum()) if weights.sum() > 0 else float(values.mean())


def _root(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.sqrt(_mean(values**2, weights)))


def _median(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.median(values))


EXACT = Pool("sums over the whole plane")
HALVES = Pool("sums over the whole plane; the darker half is that of every piece")
PIXELS = Pool("mean of the pieces by pixels", _mean, True)
OWN = Pool("mean of the pieces by pixels, each with range, background and gain of its own", _mean)
SOURCES = Pool("mean of the pieces by sources", _mean, True)
LENGTHS = Pool("mean of the pieces by sources (its limit is that of a piece: chance does not cancel in lengths)", _mean)
LIGHT = Pool("mean of the pieces by light", _mean, True)
RATE = Pool("counts over the whole plane", _mean)
COUNT = Pool("counts over the whole plane", lambda values, weights: float(values.sum()))
SQUARES = Pool("root mean square of the pieces by pixels, each with gain and offset of its own", _root)
MEDIAN = Pool("median of the pieces", _median)
NONE = Pool("left out: a piece has too few patches")

POOLS: dict[str, Pool] = {
    "psnr": EXACT, "si_psnr": EXACT, "si_gain": EXACT, "si_offset": EXACT, "nrmse": EXACT,
    "ssim": PIXELS, "microssim": OWN, "lpips": OWN, "fid": NONE,
    "total_flux_ratio": EXACT, "block_flux_rms_sigma": EXACT,
    "source_flux_bias_mag": SOURCES, "source_flux_scatter_mag": SOURCES,
    "flux_error_star": SOURCES, "flux_error_rel": SOURCES,
    "chi2": EXACT, "chi2_sources": HALVES, "chi2_sky": HALVES, "chi2_draw": PIXELS, "chi2_excess": PIXELS,
    "residual_lag1": PIXELS, "residual_blobs": COUNT, "residual_normality": MEDIAN,
    "completeness": SOURCES, "completeness_equal_spurious": SOURCES, "purity": SOURCES,
    "spurious_per_mpix": RATE, "astrometric_offset_px": LENGTHS, "hallucination_fraction": SOURCES,
    "negative_per_mpix": RATE, "empty_aperture_sigma": MEDIAN, "empty_aperture_mean": PIXELS,
    "fwhm_px": SOURCES, "fwhm_scatter_px": SOURCES,
    "ellipticity_bias": SOURCES, "ellipticity_offset": LENGTHS, "size_bias": SOURCES,
    "rse": SQUARES, "rsp": MEDIAN, "squirrel_outliers": COUNT,
    "frc_resolution_px": MEDIAN, "decorrelation_px": MEDIAN, "power_ratio_high": MEDIAN, "coherence_half_px": MEDIAN,
    "coverage_68": PIXELS, "coverage_90": PIXELS, "coverage_snr": PIXELS, "ence": PIXELS,
    "spread_error_rank": MEDIAN, "support_fraction": LIGHT, "prior_share": LIGHT,
    "trust_risk": PIXELS, "trusted_share": PIXELS,
}  # fmt: skip
"""Name of a result -> how it is pooled; those that are not here are the `USUAL` way."""
USUAL = MEDIAN

SUMMED = ("psnr", "si_psnr", "nrmse", "total_flux_ratio", "block_flux_rms_sigma", "chi2", "chi2_sources", "chi2_sky")
"""Checks that are made of sums, in the order of the registry; a piece need not compute them."""
BY_MAGNITUDE = "mag "
"""Regions that begin so count magnitudes from the brightest source of a piece, and are left out."""


def pool_of(name: str) -> Pool:
    """How a result is pooled."""
    return POOLS.get(name, USUAL)


def sums_of(evidence: Evidence) -> dict[str, dict[str, float]]:
    """What one piece adds to the results of `SUMMED`, over the pixels of it that are judged."""
    found = {f"pair {region}": moments for region, moments in pair_sums(evidence).items()}
    for name, make in (("total_flux_ratio", total_flux_sums), ("block_flux_rms_sigma", block_flux_sums)):
        try:
            found[name] = make(evidence)
        except UnmeasuredError:
            continue
    return {**found, **chi2_sums(evidence)}


def off(sums: Sums) -> float:
    """How far a piece is from the data, chi2, else from the truth, mean square; 0 where neither is known."""
    if (chi2 := sums.get("chi2")) and chi2["pixels"]:
        return chi2["squares"] / chi2["pixels"]
    pair = sums.get("pair all")
    return pair["error2"] / pair["n"] if pair else 0.0


def added(parts: Iterable[Sums]) -> dict[str, Mapping[str, float]]:
    """Sums of all pieces; the side of flux regions is the same in all."""
    total: dict[str, list[Mapping[str, float]]] = {}
    for part in parts:
        for name, sums in part.items():
            total.setdefault(name, []).append(sums)
    return {name: reduce(moments_of_both if name.startswith("pair ") else _plus, sums) for name, sums in total.items()}


def _plus(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    return {name: a[name] if name == "side" else a[name] + b[name] for name in a}


def summed(total: Sums, kind: Kind) -> list[Result]:
    """The results of `SUMMED` that there are sums for."""
    bright, dark = NAMES[kind]
    found: list[Result | None] = []
    for region in ("all", "clear"):
        moments = total.get(f"pair {region}")
        if moments and (region == "all" or moments["n"] < total["pair all"]["n"]):
            found += of_moments(region, moments)
    for name, make in (("total_flux_ratio", total_flux_of), ("block_flux_rms_sigma", block_flux_of)):
        try:
            found.append(make(total[name]) if name in total else None)
        except UnmeasuredError as why:
            found.append(absent(name, str(why)))
    for name, region in (("chi2", "all"), ("chi2_sources", bright), ("chi2_sky", dark)):
        found.append(chi2_of(total[name], name, region, kind) if name in total else None)
    return [finite(result) for result in found if result is not None]


def pooled(pieces: Sequence[Piece], names: Iterable[str], own: Mapping[str, Range], kind: Kind) -> list[Result]:
    """The results of a plane out of those of its pieces, judged.

    Parameters
    ----------
    pieces : what every piece says; those where nothing is judged are not among them.
    names : all names that a result can have, in the order of the report.
    own : limits that the user gave.
    """
    exact = summed(added(piece.sums for piece in pieces), kind)
    found: list[Result] = []
    for name in names:
        mine = [result for result in exact if result.name == name]
        found += mine or _pooled(pieces, name, kind)
    return [judged(result, own, kind) for result in found]


def _pooled(pieces: Sequence[Piece], name: str, kind: Kind) -> list[Result]:
    """The results of one name: a region each, else why there is none."""
    there = [(result, piece.place) for piece in pieces for result in piece.results if result.name == name]
    regions = dict.fromkeys(result.region for result, _ in there if not result.region.startswith(BY_MAGNITUDE))
    parts = ([(r, place) for r, place in there if r.region == region] for region in regions)
    made = [_of_region(part, len(pieces), kind) for part in parts]
    measured = [result for result in made if result.value is not None]
    return measured or made[:1]


def _of_region(there: list[tuple[Result, str]], count: int, kind: Kind) -> Result:
    """One result of one region."""
    known = [(result, place) for result, place in there if result.value is not None]
    first, pool = there[0][0], pool_of(there[0][0].name)
    if not known:
        return first
    if pool.value is None:
        return absent(first.name, f"the plane is judged in pieces; {pool.words}")
    values = np.array([result.value for result, _ in known], float)
    weights = np.array([result.weight for result, _ in known], float)
    results = [result for result, _ in known]
    value = pool.value(values, weights)
    meaning = f"{pool.words}, {_range(values, [place for _, place in known], count)}"
    return replace(
        known[0][0], value=value, limit=_limit(results, pool, kind), passed=None, meaning=meaning,
        weight=float(weights.sum()),
    )  # fmt: skip


def _range(values: np.ndarray, places: list[str], count: int) -> str:
    """``0.81 (y 0, x 2048) to 0.95 (y 4096, x 0) in 15 of 16``."""
    low, high = int(values.argmin()), int(values.argmax())
    return f"{values[low]:.4g} ({places[low]}) to {values[high]:.4g} ({places[high]}) in {len(values)} of {count}"


def _limit(results: Sequence[Result], pool: Pool, kind: Kind) -> Range | None:
    """What is accepted of the pooled value: by the pooled count where that decides, else made of the pieces' limits."""
    name, total = results[0].name, sum(result.weight for result in results)
    if name == "purity":
        return least_purity(total)
    if name == "residual_blobs":
        return most_blobs(total)
    limits = [(result.limit, result.weight) for result in results if result.limit is not None]
    if not limits:
        return None
    if name in ("spurious_per_mpix", "negative_per_mpix"):
        return None, _most(limits) / sum(weight for _, weight in limits)
    table = LIMITS[kind].get(name)
    base = (None, None) if table is None else (table.low, table.high)
    ends = [_end([(limit[i], weight) for limit, weight in limits], base[i] if pool.shrinks else None) for i in (0, 1)]
    return ends[0], ends[1]


def _end(ends: Sequence[tuple[float | None, float]], base: float | None) -> float | None:
    """An end of the limits: their mean; with a base the room beyond it shrinks as that of a mean does."""
    known = [(end, weight) for end, weight in ends if end is not None]
    total = sum(weight for _, weight in known)
    if not known or not total > 0:
        return None
    if base is None:
        return sum(end * weight for end, weight in known) / total
    sign = np.sign(sum(end - base for end, _ in known))
    return float(base + sign * np.sqrt(sum(((end - base) * weight) ** 2 for end, weight in known)) / total)


def _most(limits: Sequence[tuple[Range, float]]) -> float:
    """N + 2 sqrt(N + 1) for the N of all pieces, out of that of each, A = (sqrt(N + 1) + 1)^2 - 2."""
    allowed = [float(limit[1]) * weight for limit, weight in limits if limit[1] is not None]
    n = sum((np.sqrt(a + 2) - 1) ** 2 - 1 for a in allowed)
    return float(n + 2 * np.sqrt(n + 1))
