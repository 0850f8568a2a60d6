"""Probes: the restoration made again of data whose truth is known, blank sky and point sources put into the frame.

They look at no truth of the frame, and they judge the method that made the image on this frame's own noise, blur and
crowding. Every random number comes from a fixed seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sciresdiff.checks.check import Check, UnmeasuredError
from sciresdiff.checks.evidence import Array, Evidence, Mask, Range, Result, bright_pixels, filled

SNRS = (5.0, 10.0, 20.0, 50.0)
"""Signal to noise in the data of the sources that are put in: matched filter, on sky, with their own photons."""
JUDGED_SNR = 20.0
"""From here on a source must be found, in place and of the right flux; below, noise decides."""
MOST_SOURCES = 400
FEWEST_SOURCES = 4
"""Fewest of one flux that figures are given for."""
CELL_PX = 24
"""Side of the cells that hold a source each, fine px; 8 coarse px where that is more. Sources keep half of it apart."""
DEFAULT_FWHM = 2.0
"""FWHM of the sources where the image's PSF is not known, fine px."""
COMPLETE = 0.9
"""Share that must be found from `JUDGED_SNR` on."""
BIAS_MAG = 0.05
OFFSET_PX = 0.15
"""Median distance of a found source that is accepted from `JUDGED_SNR` on, coarse px."""
BLANK_SEED, SOURCE_SEED = 20_001, 20_002
CLEAR = 1.5
"""How far above the detector's threshold a source must stand in a perfect image before it counts that it is missed."""
SKY_SIGMAS = 3.0
"""Above the sky by more than this a coarse pixel is not counted as sky."""
PHOTON_RANGE = (10.0, 100.0)
"""Light above the sky, in sigmas of it, that the growth of the variance is measured on."""
ENOUGH_BRIGHT = 20


@dataclass(frozen=True, eq=False)
class Sky:
    """What the frame would be without sources, (h, w)."""

    level: Array
    variance: Array


@dataclass(frozen=True, eq=False)
class Injected:
    """Point sources put into the frame and looked for in the image that is made of it."""

    xy: Array
    """(n, 2), px of the image."""
    snr: Array
    """(n,), one of `SNRS`."""
    flux: Array
    """(n,), in the apertures of `detection.APERTURE_PX`, unit of the image."""
    measured: Array
    """(n,), the same of the image made again, above its background; forced at ``xy``."""
    offset: Array
    """(n,), distance to the nearest detection, px; infinite where none is within `detection.MATCH_PX`."""
    fwhm: float
    clear: Mask
    """(n,), whether the detector would see it well in a perfect image, `CLEAR` times above its threshold."""


def photon_gain(low: Array, variance: Array, good: Mask) -> float | None:
    """d(variance) / d(value) of the data: the median slope of pixels 10 to 100 sigma above the median.

    Returns
    -------
    In the unit of the data, 0 or more; None where fewer than 20 pixels are that bright.
    """
    if not good.any():
        return None
    sky, floor = float(np.median(low[good])), float(np.median(variance[good]))
    light = np.where(good, low - sky, 0.0) / np.sqrt(floor) if floor > 0 else np.zeros(low.shape)
    bright = (light > PHOTON_RANGE[0]) & (light < PHOTON_RANGE[1])
    if bright.sum() < ENOUGH_BRIGHT:
        return None
    return max(0.0, float(np.median((variance[bright] - floor) / (low[bright] - sky))))


def sky_of(evidence: Evidence) -> Sky:
    """Level and variance of the data without sources; what a bright pixel adds to its variance is left out.

    Raises
    ------
    UnmeasuredError : no valid coarse pixel.
    """
    from sciresdiff.checks.detection import background

    assert evidence.low is not None and evidence.variance is not None
    valid = _valid(evidence)
    if not valid.any():
        raise UnmeasuredError("no coarse pixel is valid")
    low = filled(evidence.low, valid)
    level = np.asarray(np.broadcast_to(background(low, ~valid)[0], low.shape), np.float64)
    dark = valid & (low - level < SKY_SIGMAS * np.sqrt(np.where(valid, evidence.variance, 1)))
    usual = float(np.median(evidence.variance[dark if dark.any() else valid]))
    return Sky(level, np.where(dark, evidence.variance, usual))


def blank_field(evidence: Evidence) -> Array:
    """Data of the frame's sky and its noise, without any source: (h, w)."""
    sky = sky_of(evidence)
    return sky.level + np.random.default_rng(BLANK_SEED).standard_normal(sky.level.shape) * np.sqrt(sky.variance)


def _threshold(evidence: Evidence) -> float:
    """Noise that detection counts in where there is no truth; the same flux for the frame and for the probes."""
    return replace(evidence, truth=None).noise


def blank_spurious_per_mpix(evidence: Evidence) -> Result:
    """Detections per 10^6 fine pixels in the image made of blank sky; every one is false.

    Data are drawn with the frame's sky level and variance (Park et al. 2024, appendix A), restored in the same way, and
    searched at the flux that the frame itself is searched at. Accepted up to N + 2 sqrt(N + 1), N being those of the
    same detector in the bicubic image of the same data. **The noise is drawn white: what correlated noise, cosmic rays
    or a sky with structure make is not seen, nor what is invented around real sources.**
    """
    from sciresdiff.checks.baselines import bicubic
    from sciresdiff.checks.detection import detect

    assert evidence.again is not None
    blank, noise, mask = blank_field(evidence), _threshold(evidence), ~evidence.good_high
    if mask.all():
        raise UnmeasuredError("every pixel is masked")
    count = len(detect(evidence.again(blank), noise=noise, mask=mask).inner)
    plain = len(detect(bicubic(blank, evidence.scale, evidence.quantity), noise=noise, mask=mask).inner)
    mpix = evidence.high.size / 1e6
    meaning = f"{count} detections where there is nothing; {plain} in the bicubic image of the same noise"
    limit = (None, (plain + 2 * float(np.sqrt(plain + 1))) / mpix)
    return Result("blank_spurious_per_mpix", count / mpix, "1/Mpix", evidence.dark_name, limit, meaning=meaning)


def places(evidence: Evidence, rng: np.random.Generator) -> Array:
    """Empty places to put sources, (n, 2) as x, y in fine px, at most `MOST_SOURCES`, in random order.

    The frame is cut into cells; of the middle of each the pixel is taken that is farthest from the border, from masked
    pixels and from what stands 3 sigma above the sky of the bicubic image, if that is 3 coarse px and 8 fine px away.
    """
    from scipy.ndimage import distance_transform_edt

    free = np.zeros(tuple(side + 2 for side in evidence.high.shape), bool)
    free[1:-1, 1:-1] = evidence.good_high & ~bright_pixels(evidence.bicubic, "astro")
    distance = distance_transform_edt(free)[1:-1, 1:-1]
    side = max(CELL_PX, 8 * evidence.scale)
    quarter, least = side // 4, max(8, 3 * evidence.scale)
    found = []
    for y in range(quarter, distance.shape[0] - side + quarter + 1, side):
        for x in range(quarter, distance.shape[1] - side + quarter + 1, side):
            cell = distance[y : y + side // 2, x : x + side // 2]
            row, column = np.unravel_index(int(cell.argmax()), cell.shape)
            if cell[row, column] >= least:
                found.append((x + column, y + row))
    xy = np.array(found, float).reshape(-1, 2)
    return xy[rng.permutation(len(xy))][:MOST_SOURCES] + rng.uniform(-0.5, 0.5, (min(len(xy), MOST_SOURCES), 2))


def points(shape: tuple[int, ...], xy: Array, flux: Array, fwhm: float) -> Array:
    """An image of round Gaussian sources, each with its flux as the sum of its pixels: (Y, X)."""
    sigma = fwhm / 2.3548
    reach = int(np.ceil(5 * sigma)) + 1
    image = np.zeros(shape)
    for (x, y), total in zip(xy, flux, strict=True):
        top, left = max(0, round(y) - reach), max(0, round(x) - reach)
        rows, columns = (
            np.arange(top, min(shape[0], top + 2 * reach + 1)),
            np.arange(left, min(shape[1], left + 2 * reach + 1)),
        )
        stamp = np.outer(*(np.exp(-((at - c) ** 2) / (2 * sigma**2)) for at, c in ((rows, y), (columns, x))))
        image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] += total * stamp / stamp.sum()
    return image


def injected(evidence: Evidence) -> Injected:
    """Put sources of `SNRS` into the data, with their photon noise where the variance shows any, and measure them.

    Raises
    ------
    UnmeasuredError : too few empty places.
    """
    from sciresdiff.checks.detection import THRESHOLD, aperture_sums, detect

    assert evidence.again is not None and evidence.low is not None and evidence.variance is not None
    rng = np.random.default_rng(SOURCE_SEED)
    xy, sky = places(evidence, rng), sky_of(evidence)
    if len(xy) < FEWEST_SOURCES:
        raise UnmeasuredError(f"{len(xy)} empty places for a source, {FEWEST_SOURCES} are needed")
    fwhm, gain = evidence.target_fwhm_px or DEFAULT_FWHM, _gain(evidence)
    snr = np.resize(SNRS, len(xy))
    flux = np.resize([_flux_of(snr, evidence, sky, fwhm, gain) for snr in SNRS], len(xy))
    put = points(evidence.high.shape, xy, flux, fwhm)
    image, noise = evidence.again(_with(evidence, put, gain, rng)), _threshold(evidence)
    found = detect(image, noise=noise, mask=~evidence.good_high)
    fluxes = aperture_sums(put, xy), aperture_sums(found.flat, xy)
    return Injected(xy, snr, *fluxes, _offsets(xy, found.xy), fwhm, flux * _fifth(fwhm) > CLEAR * THRESHOLD * noise)


def _fifth(fwhm: float) -> float:
    """The faintest of the pixels that the detector asks for, of a source of flux 1 as the detector smooths it."""
    from scipy.ndimage import convolve

    from sciresdiff.checks.detection import KERNEL, MIN_PIXELS

    side = 2 * int(np.ceil(3 * fwhm)) + 5
    one = points((side, side), np.full((1, 2), side / 2 - 0.25), np.ones(1), fwhm)
    return float(np.sort(convolve(one, KERNEL).ravel())[-MIN_PIXELS])


def _gain(evidence: Evidence) -> float:
    """`photon_gain` of the frame; 0 where it cannot be told."""
    assert evidence.low is not None and evidence.variance is not None
    return photon_gain(evidence.low, evidence.variance, _valid(evidence)) or 0.0


def _valid(evidence: Evidence) -> Mask:
    """Coarse pixels with a value and a variance that are not masked."""
    assert evidence.low is not None and evidence.variance is not None
    valid = np.isfinite(evidence.low) & np.isfinite(evidence.variance) & (evidence.variance > 0)
    return valid if evidence.mask_low is None else valid & ~evidence.mask_low


def _flux_of(snr: float, evidence: Evidence, sky: Sky, fwhm: float, gain: float) -> float:
    """The flux F with F^2 sum(a^2 / (v + gain F a)) = snr^2, a the data of flux 1 and v the usual variance of sky."""
    h, w = evidence.high.shape
    a = evidence.degraded(points((h, w), np.array([[w / 2, h / 2]]), np.ones(1), fwhm))
    a, v, flux = np.clip(a[a > 1e-6 * a.max()], 0, None), float(np.median(sky.variance)), 0.0
    for _ in range(60):  # the error shrinks by half at least
        flux = snr / float(np.sqrt((a**2 / (v + gain * flux * a)).sum()))
    return flux


def _with(evidence: Evidence, put: Array, gain: float, rng: np.random.Generator) -> Array:
    """The data with sources added, and with the noise of their light."""
    assert evidence.low is not None
    added = evidence.degraded(put)
    noise = rng.standard_normal(added.shape) * np.sqrt(gain * np.clip(added, 0, None))
    return filled(evidence.low, _valid(evidence)) + added + noise


def _offsets(xy: Array, found: Array) -> Array:
    """Distance of every place to the nearest detection; infinite beyond `detection.MATCH_PX`."""
    from scipy.spatial import cKDTree

    from sciresdiff.checks.detection import MATCH_PX

    if not len(found):
        return np.full(len(xy), np.inf)
    return np.asarray(cKDTree(found).query(xy, distance_upper_bound=MATCH_PX)[0], np.float64)


def injection_completeness(evidence: Evidence) -> list[Result]:
    """Point sources put into the data at empty places: share found, flux and place, by signal to noise in the data.

    ``injection_completeness``: share with a detection within 2 px, at the flux that the frame itself is searched at.
    ``injection_bias_mag``: -2.5 log10 of the median of flux measured over flux put in, in circles of 4 px forced at the
    place, so that nothing is selected. ``injection_offset_px``: median distance of those that were found. Sources are
    Gaussians of the image's PSF, blurred by the operator, with their photon noise where the variance grows with the
    light; 5, 10, 20 and 50 is the matched filter's S/N. Judged from 20 on: 0.9 less chance, 0.05 mag and 3 of its
    standard errors, 0.15 coarse px; share and place only where the source would stand 1.5 times above the detector's
    threshold in a perfect image, which takes crowding and texture for noise. **Empty places only: crowding and the
    wings of bright sources are not tried; a wrong kernel is wrong here in the same way, and is not noticed.**
    """
    done = injected(evidence)
    return [result for snr in SNRS for result in _recovery(done, snr, evidence.scale)]


def _recovery(done: Injected, snr: float, scale: int) -> list[Result]:
    """The three figures of one flux."""
    chosen = done.snr == snr
    n = int(chosen.sum())
    if n < FEWEST_SOURCES:
        return []
    region, judged = f"snr {snr:g}", snr >= JUDGED_SNR
    seen = judged and bool(done.clear[chosen].all())
    offset = done.offset[chosen]
    found = np.isfinite(offset)
    told = f"{int(found.sum())} of {n} point sources of FWHM {done.fwhm:g} px are found"
    told += "" if seen or not judged else "; the threshold is too high here to judge it"
    least: Range = (COMPLETE - 2 * float(np.sqrt(COMPLETE * (1 - COMPLETE) / n)), None) if seen else (None, None)
    results = [Result("injection_completeness", float(found.mean()), "", region, least, meaning=told)]
    results += _bias(done.measured[chosen] / done.flux[chosen], region, judged)
    if found.any():
        most: Range = (None, OFFSET_PX * scale) if seen else (None, None)
        value, told = float(np.median(offset[found])), f"median distance of {int(found.sum())} sources"
        results.append(Result("injection_offset_px", value, "px", region, most, meaning=told))
    return results


def _bias(ratio: Array, region: str, judged: bool) -> list[Result]:
    """Magnitude bias, of the median ratio of fluxes; none where that is not above 0."""
    middle = float(np.median(ratio))
    if not middle > 0:
        return []
    scatter = 1.4826 * float(np.median(np.abs(ratio - middle))) / middle * 2.5 / np.log(10)
    width = BIAS_MAG + 3 * 1.2533 * scatter / float(np.sqrt(ratio.size))
    told = f"above 0 is too faint; scatter {scatter:.3f} mag of {ratio.size} sources"
    limit: Range = (-width, width) if judged else (None, None)
    return [Result("injection_bias_mag", -2.5 * float(np.log10(middle)), "mag", region, limit, meaning=told)]


CHECKS = {
    "blank_spurious_per_mpix": Check(
        blank_spurious_per_mpix,
        "Sources that the method makes of pure noise like this frame's, in a million pixels, beside bicubic's.",
        "What it invents around real sources, and what correlated noise or cosmic rays make it do.",
        ("low", "variance", "again"),
        rivals=False,
    ),
    "injection_completeness": Check(
        injection_completeness,
        "Point sources put into the data at empty places: the share that the image shows, their flux and their place.",
        "Crowded places; a wrong kernel, which is wrong here in the same way.",
        ("low", "variance", "operator", "again"),
        names=("injection_completeness", "injection_bias_mag", "injection_offset_px"),
        rivals=False,
    ),
}
