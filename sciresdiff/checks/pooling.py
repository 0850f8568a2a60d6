"""Pooling: how the results of the pieces of a large plane become one, for every result of the registry.

Totals, squares, moments and counts add up: those results are the whole plane's, to rounding. What follows from counts
of sources differs by those at thresholds, because sky and noise are measured in every piece. The others are means or
medians of the pieces, and say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.fidelity import pair_sums, results_of_moments
from sciresdiff.checks.limits import LIMITS, judge
from sciresdiff.checks.residual import blob_limit
from sciresdiff.checks.result import Range, Result, drop_nan, not_computed
from sciresdiff.checks.scatter import count_margin
from sciresdiff.checks.sources import purity_limit
from sciresdiff.checks.sums import MOMENTS, Sums, add_sums, data_results, data_sums
from sciresdiff.frame import Kind


@dataclass(frozen=True)
class Piece:
    """Results and sums of one piece."""

    results: Sequence[Result]
    sums: Sums
    place: str
    """Its position, in words."""


@dataclass(frozen=True)
class Pool:
    """How a result is pooled."""

    words: str
    value: Callable[[np.ndarray, np.ndarray], float] | None = None
    """(values, weights) of the pieces, (n,) each -> value; None: made of sums, or left out."""
    shrinks: bool = False
    """Whether the margin for chance in its limits shrinks with the number of pieces."""


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> float:
    """Mean of the pieces' values (n,) by their weights (n,); the plain mean where all weights are 0."""
    return float((values * weights).sum() / weights.sum()) if weights.sum() > 0 else float(values.mean())


def root_mean_square(values: np.ndarray, weights: np.ndarray) -> float:
    """Root of the weighted mean of squares of (n,) values by (n,) weights."""
    return float(np.sqrt(weighted_mean(values**2, weights)))


def plain_median(values: np.ndarray, weights: np.ndarray) -> float:
    """Median of the pieces' values (n,); the weights (n,) are not used."""
    return float(np.median(values))


EXACT = Pool("sums over the whole plane")
HALVES = Pool("sums over the whole plane; the darker half is that of every piece")
PIXELS = Pool("mean of the pieces by pixels", weighted_mean, True)
OWN = Pool("mean of the pieces by pixels, each with range, background and gain of its own", weighted_mean)
SOURCES = Pool("mean of the pieces by sources", weighted_mean, True)
LENGTHS = Pool(
    "mean of the pieces by sources (its limit is that of a piece: chance does not cancel in lengths)", weighted_mean
)
LIGHT = Pool("mean of the pieces by light", weighted_mean, True)
RATE = Pool("counts over the whole plane", weighted_mean)
COUNT = Pool("counts over the whole plane", lambda values, weights: float(values.sum()))
SQUARES = Pool("root mean square of the pieces by pixels, each with gain and offset of its own", root_mean_square)
MEDIAN = Pool("median of the pieces", plain_median)
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
"""Name of a result -> how it is pooled; one that is not named is the median of the pieces, and says so."""

SUMMED = ("psnr", "si_psnr", "nrmse", "total_flux_ratio", "block_flux_rms_sigma", "chi2", "chi2_sources", "chi2_sky")
"""Checks that are made of sums, in the order of the registry; they are not computed piece by piece."""
BY_MAGNITUDE = "mag "
"""Regions that begin so count magnitudes from the brightest source of a piece, and are left out."""


def pool_of(name: str) -> Pool:
    """Get the way a result is pooled."""
    return POOLS.get(name, MEDIAN)


def piece_sums(evidence: Evidence) -> dict[str, dict[str, float]]:
    """Add up the results of `SUMMED` over the judged pixels of one piece."""
    return {**{MOMENTS + region: moments for region, moments in pair_sums(evidence).items()}, **data_sums(evidence)}


def misfit(sums: Sums) -> float:
    """How far a piece is from the data, chi2, else from the truth, mean square error; 0 where neither is known.

    A report shows the piece with the largest.
    """
    if (chi2 := sums.get("chi2")) and chi2["pixels"]:
        return chi2["squares"] / chi2["pixels"]
    pair = sums.get(f"{MOMENTS}all")
    return pair["error2"] / pair["n"] if pair else 0.0


def results_of_sums(total: Sums, kind: Kind) -> list[Result]:
    """Make the results of `SUMMED` that there are sums for."""
    found: list[Result] = []
    for region in ("all", "clear"):
        moments = total.get(MOMENTS + region)
        if moments and (region == "all" or moments["n"] < total[f"{MOMENTS}all"]["n"]):
            found += results_of_moments(region, moments)
    return [*map(drop_nan, found), *data_results(total, kind).values()]


def pool_pieces(pieces: Sequence[Piece], names: Iterable[str], own: Mapping[str, Range], kind: Kind) -> list[Result]:
    """Make the results of a plane out of those of its pieces, judged.

    Parameters
    ----------
    pieces : results and sums of every piece in which something is judged.
    names : all names that a result can have, in the order of the report.
    own : limits of the user, by the result's name.
    kind : whose limits hold.
    """
    exact = results_of_sums(add_sums(piece.sums for piece in pieces), kind)
    found: list[Result] = []
    for name in names:
        mine = [result for result in exact if result.name == name]
        found += mine or _pool_name(pieces, name, kind)
    return [judge(result, own, kind) for result in found]


def _pool_name(pieces: Sequence[Piece], name: str, kind: Kind) -> list[Result]:
    """The results of one name: a region each, else why there is none."""
    there = [(result, piece.place) for piece in pieces for result in piece.results if result.name == name]
    regions = dict.fromkeys(result.region for result, _ in there if not result.region.startswith(BY_MAGNITUDE))
    parts = ([(r, place) for r, place in there if r.region == region] for region in regions)
    made = [_pool_region(part, len(pieces), kind) for part in parts]
    measured = [result for result in made if result.value is not None]
    return measured or made[:1]


def _pool_region(there: list[tuple[Result, str]], count: int, kind: Kind) -> Result:
    """One result of one region."""
    known = [(result, place) for result, place in there if result.value is not None]
    first, pool = there[0][0], pool_of(there[0][0].name)
    if not known:
        return first
    if pool.value is None:
        return not_computed(first.name, f"the plane is judged in pieces; {pool.words}")
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
    """Limit of the pooled value: of the pooled count where that decides, else made of the pieces' limits."""
    name, total = results[0].name, sum(result.weight for result in results)
    if name == "purity":
        return purity_limit(total)
    if name == "residual_blobs":
        return blob_limit(total)
    limits = [(result.limit, result.weight) for result in results if result.limit is not None]
    if not limits:
        return None
    if name in ("spurious_per_mpix", "negative_per_mpix"):
        return None, _pool_count_limits(limits) / sum(weight for _, weight in limits)
    table = LIMITS[kind].get(name)
    base = (None, None) if table is None else (table.low, table.high)
    ends = [_end([(limit[i], weight) for limit, weight in limits], base[i] if pool.shrinks else None) for i in (0, 1)]
    return ends[0], ends[1]


def _end(ends: Sequence[tuple[float | None, float]], base: float | None) -> float | None:
    """An end of the limits: their mean; with a base the margin beyond it shrinks as the error of a mean does."""
    known = [(end, weight) for end, weight in ends if end is not None]
    total = sum(weight for _, weight in known)
    if not known or not total > 0:
        return None
    if base is None:
        return sum(end * weight for end, weight in known) / total
    # margins of independent pieces add in quadrature, weighted as the values are
    sign = np.sign(sum(end - base for end, _ in known))
    return float(base + sign * np.sqrt(sum(((end - base) * weight) ** 2 for end, weight in known)) / total)


def _pool_count_limits(limits: Sequence[tuple[Range, float]]) -> float:
    """`count_margin` of the N of all pieces, out of that of each: A = N + 2 sqrt(N + 1) = (sqrt(N + 1) + 1)^2 - 2."""
    allowed = [float(limit[1]) * weight for limit, weight in limits if limit[1] is not None]
    n = sum((np.sqrt(a + 2) - 1) ** 2 - 1 for a in allowed)
    return count_margin(n)
