"""Probes: the restoration repeated on data whose truth is known, blank sky and point sources injected into the frame.

They need no truth of the frame, and judge the method that made the image on this frame's own noise, blur and crowding.
Every random number comes from a fixed seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sciresdiff.checks.arrays import Array, Mask, fill_with_median
from sciresdiff.checks.background import background
from sciresdiff.checks.baselines import bicubic, bicubic_image
from sciresdiff.checks.check import Check, UnmeasuredError
from sciresdiff.checks.detection import (
    KERNEL,
    MATCH_PX,
    MIN_PIXELS,
    THRESHOLD,
    aperture_sums,
    detect,
)
from sciresdiff.checks.evidence import Evidence
from sciresdiff.checks.foreground import foreground
from sciresdiff.checks.result import Range, Result
from sciresdiff.checks.scatter import count_margin, mad_std, median_error
from sciresdiff.checks.source_lists import detection_noise
from sciresdiff.physics.psf.shapes import FWHM_PER_SIGMA

SNRS = (5.0, 10.0, 20.0, 50.0)
"""Signal to noise in the data of the injected sources: matched filter, on sky, with their own photon noise."""
JUDGED_SNR = 20.0
"""From here on a source must be found, at its position and with its flux; below, noise decides."""
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
"""Accepted flux bias from `JUDGED_SNR` on, before what chance allows, mag."""
OFFSET_PX = 0.15
"""Accepted median distance of a found source from `JUDGED_SNR` on, coarse px."""
BLANK_SEED, SOURCE_SEED = 20_001, 20_002
CLEAR = 1.5
"""Height over the detector's threshold, in a perfect image, from which on a missed source counts."""
SKY_SIGMAS = 3.0
"""Height above the sky beyond which a coarse pixel is not counted as sky, sigma."""
PHOTON_RANGE = (10.0, 100.0)
"""Light above the sky of the pixels on which the growth of the variance is measured, sigma of the sky."""
ENOUGH_BRIGHT = 20
"""Fewest of these pixels."""
DRAWING_PX = 5.0
"""Half side of the drawing of a source, in its sigmas."""


@dataclass(frozen=True, eq=False)
class Sky:
    """The frame without its sources."""

    level: Array
    """(h, w), unit of the data."""
    variance: Array
    """(h, w), unit^2."""


@dataclass(frozen=True, eq=False)
class Injected:
    """Point sources injected into the frame and searched for in the image that is made of it."""

    xy: Array
    """(n, 2), px of the image."""
    snr: Array
    """(n,), one of `SNRS`."""
    flux: Array
    """(n,), in the apertures of `detection.APERTURE_PX`, unit of the image."""
    measured: Array
    """(n,), the same of the repeated image, above its background; forced at ``xy``."""
    offset: Array
    """(n,), distance to the nearest detection, px; infinite where none is within `detection.MATCH_PX`."""
    fwhm: float
    """Of the sources, px."""
    clear: Mask
    """(n,), whether a perfect image would show it `CLEAR` times above the detector's threshold."""


def photon_gain(low: Array, variance: Array, good: Mask) -> float | None:
    """Measure d(variance) / d(value) of the data: the median slope of pixels 10 to 100 sigma above the median.

    Parameters
    ----------
    low, variance : (h, w), unit of the data and unit^2.
    good : (h, w), pixels to use.

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


def measure_sky(evidence: Evidence) -> Sky:
    """Measure level and variance of the data without sources; bright pixels have the median variance of the sky.

    Raises
    ------
    UnmeasuredError : no valid coarse pixel.
    """
    valid = evidence.valid_low
    assert evidence.low is not None and evidence.variance is not None and valid is not None
    if not valid.any():
        raise UnmeasuredError("no coarse pixel is valid")
    low = fill_with_median(evidence.low, valid)
    level = np.asarray(np.broadcast_to(background(low, ~valid)[0], low.shape), np.float64)
    dark = valid & (low - level < SKY_SIGMAS * np.sqrt(np.where(valid, evidence.variance, 1)))
    usual = float(np.median(evidence.variance[dark if dark.any() else valid]))
    return Sky(level, np.where(dark, evidence.variance, usual))


def blank_field(evidence: Evidence) -> Array:
    """Simulate data (h, w) of the frame's sky and its noise, without any source.

    Gaussian, white, and the same for every call (`BLANK_SEED`).
    """
    sky = measure_sky(evidence)
    return sky.level + np.random.default_rng(BLANK_SEED).standard_normal(sky.level.shape) * np.sqrt(sky.variance)


def _threshold(evidence: Evidence) -> float:
    """Noise of detection without a truth, so that frame and probes are searched down to the same flux."""
    return detection_noise(replace(evidence, truth=None))


def blank_spurious_per_mpix(evidence: Evidence) -> Result:
    """Detections per 10^6 fine pixels in the image made of blank sky; every one is false.

    Data are drawn with the frame's sky level and variance (Park et al. 2024, appendix A), restored in the same way, and
    searched at the flux that the frame itself is searched at. Accepted up to N + 2 sqrt(N + 1), N being those of the
    same detector in the bicubic image of the same data. **The noise is drawn white: what correlated noise, cosmic rays
    or a sky with structure make is not seen, nor what is invented around real sources.**
    """
    assert evidence.again is not None
    blank, noise, mask = blank_field(evidence), _threshold(evidence), ~evidence.good_high
    if mask.all():
        raise UnmeasuredError("every pixel is masked")
    count = len(detect(evidence.again(blank), noise=noise, mask=mask).inner)
    plain = len(detect(bicubic(blank, evidence), noise=noise, mask=mask).inner)
    mpix = evidence.high.size / 1e6
    meaning = f"{count} detections where there is nothing; {plain} in the bicubic image of the same noise"
    limit = (None, count_margin(plain) / mpix)
    return Result("blank_spurious_per_mpix", count / mpix, "1/Mpix", evidence.dark_name, limit, meaning=meaning)


def empty_positions(evidence: Evidence, rng: np.random.Generator) -> Array:
    """Find empty positions for sources, (n, 2) as x, y in fine px, at most `MOST_SOURCES`, in random order.

    The frame is cut into cells; of the middle of each the pixel is taken that is farthest from the border, from masked
    pixels and from what stands 3 sigma above the sky of the bicubic image, if that is 3 coarse px and 8 fine px away.
    """
    from scipy.ndimage import distance_transform_edt

    # a ring of taken pixels around the frame makes the border count as an obstacle, too
    free = np.zeros(tuple(side + 2 for side in evidence.high.shape), bool)
    free[1:-1, 1:-1] = evidence.good_high & ~foreground(bicubic_image(evidence), "astro")
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


def draw_gaussians(shape: tuple[int, ...], xy: Array, flux: Array, fwhm: float) -> Array:
    """Draw round Gaussian sources, sampled at pixel centres, each with its flux as the sum of its pixels in the frame.

    Parameters
    ----------
    shape : (Y, X).
    xy : (n, 2), positions as x, y, px.
    flux : (n,).
    fwhm : of all sources, px.

    Returns
    -------
    (Y, X), in the unit of ``flux`` per pixel.
    """
    sigma = fwhm / FWHM_PER_SIGMA
    reach = int(np.ceil(DRAWING_PX * sigma)) + 1
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


def inject_sources(evidence: Evidence) -> Injected:
    """Inject sources of `SNRS` into the data, with their photon noise where the variance shows any, and measure them.

    Raises
    ------
    UnmeasuredError : too few empty places.
    """
    assert evidence.again is not None and evidence.low is not None and evidence.variance is not None
    rng = np.random.default_rng(SOURCE_SEED)
    xy, sky = empty_positions(evidence, rng), measure_sky(evidence)
    if len(xy) < FEWEST_SOURCES:
        raise UnmeasuredError(f"{len(xy)} empty places for a source, {FEWEST_SOURCES} are needed")
    fwhm, gain = evidence.target_fwhm_px or DEFAULT_FWHM, _gain(evidence)
    snr = np.resize(SNRS, len(xy))
    flux = np.resize([_flux_at(snr, evidence, sky, fwhm, gain) for snr in SNRS], len(xy))
    added = draw_gaussians(evidence.high.shape, xy, flux, fwhm)
    image, noise = evidence.again(_inject(evidence, added, gain, rng)), _threshold(evidence)
    found = detect(image, noise=noise, mask=~evidence.good_high)
    fluxes = aperture_sums(added, xy), aperture_sums(found.flat, xy)
    return Injected(
        xy, snr, *fluxes, _offsets(xy, found.xy), fwhm, flux * _fifth_pixel(fwhm) > CLEAR * THRESHOLD * noise
    )


def _fifth_pixel(fwhm: float) -> float:
    """Value of the fifth-brightest pixel of a source of flux 1, smoothed as for detection, which needs five pixels."""
    from scipy.ndimage import convolve

    side = 2 * int(np.ceil(3 * fwhm)) + 5
    one = draw_gaussians((side, side), np.full((1, 2), side / 2 - 0.25), np.ones(1), fwhm)
    return float(np.sort(convolve(one, KERNEL).ravel())[-MIN_PIXELS])


def _gain(evidence: Evidence) -> float:
    """`photon_gain` of the frame; 0 where it cannot be measured."""
    valid = evidence.valid_low
    assert evidence.low is not None and evidence.variance is not None and valid is not None
    return photon_gain(evidence.low, evidence.variance, valid) or 0.0


def _flux_at(snr: float, evidence: Evidence, sky: Sky, fwhm: float, gain: float) -> float:
    """The flux F with F^2 sum(a^2 / (v + gain F a)) = snr^2, a the data of flux 1 and v the usual variance of sky."""
    h, w = evidence.high.shape
    a = evidence.degrade(draw_gaussians((h, w), np.array([[w / 2, h / 2]]), np.ones(1), fwhm))
    a, v, flux = np.clip(a[a > 1e-6 * a.max()], 0, None), float(np.median(sky.variance)), 0.0
    # photon noise makes v grow with F: a fixed point, whose error shrinks by half at least in every step
    for _ in range(60):
        flux = snr / float(np.sqrt((a**2 / (v + gain * flux * a)).sum()))
    return flux


def _inject(evidence: Evidence, image: Array, gain: float, rng: np.random.Generator) -> Array:
    """The data (h, w) with the light of an image (Y, X) added, and with its photon noise."""
    assert evidence.low is not None and evidence.valid_low is not None
    light = evidence.degrade(image)
    # Gaussian, as the noise of the frame is modelled; a negative expectation has no photons
    noise = rng.standard_normal(light.shape) * np.sqrt(gain * np.clip(light, 0, None))
    return fill_with_median(evidence.low, evidence.valid_low) + light + noise


def _offsets(xy: Array, found: Array) -> Array:
    """Distance of every position to the nearest detection, px: (n,); infinite beyond `detection.MATCH_PX`."""
    from scipy.spatial import cKDTree

    if not len(found):
        return np.full(len(xy), np.inf)
    return np.asarray(cKDTree(found).query(xy, distance_upper_bound=MATCH_PX)[0], np.float64)


def injection_completeness(evidence: Evidence) -> list[Result]:
    """Point sources injected into the data at empty positions: share found, flux and position, by S/N in the data.

    ``injection_completeness``: share with a detection within 2 px, at the flux that the frame itself is searched at.
    ``injection_bias_mag``: -2.5 log10 of the median of measured over injected flux, in circles of 4 px forced at the
    position, so that nothing is selected. ``injection_offset_px``: median distance of those that were found. Sources
    are Gaussians of the image's PSF, blurred by the operator, with their photon noise where the variance grows with the
    light; 5, 10, 20 and 50 is the matched filter's S/N. Judged from 20 on: 0.9 less chance, 0.05 mag and 3 of its
    standard errors, 0.15 coarse px; share and position only where the source would stand 1.5 times above the detector's
    threshold in a perfect image, because the threshold counts crowding and texture as noise. **Empty positions only:
    crowding and the wings of bright sources are not tried; a wrong kernel is wrong here in the same way, and is not
    noticed.**
    """
    done = inject_sources(evidence)
    return [result for snr in SNRS for result in _recovery(done, snr, evidence.scale)]


def _recovery(done: Injected, snr: float, scale: int) -> list[Result]:
    """The three results of one signal to noise."""
    chosen = done.snr == snr
    n = int(chosen.sum())
    if n < FEWEST_SOURCES:
        return []
    region, judged = f"snr {snr:g}", snr >= JUDGED_SNR
    visible = judged and bool(done.clear[chosen].all())
    offset = done.offset[chosen]
    found = np.isfinite(offset)
    meaning = f"{int(found.sum())} of {n} point sources of FWHM {done.fwhm:g} px are found"
    meaning += "" if visible or not judged else "; the threshold is too high here to judge it"
    least: Range = (COMPLETE - 2 * float(np.sqrt(COMPLETE * (1 - COMPLETE) / n)), None) if visible else (None, None)
    results = [Result("injection_completeness", float(found.mean()), "", region, least, meaning=meaning)]
    results += _bias(done.measured[chosen] / done.flux[chosen], region, judged)
    if found.any():
        most: Range = (None, OFFSET_PX * scale) if visible else (None, None)
        value, meaning = float(np.median(offset[found])), f"median distance of {int(found.sum())} sources"
        results.append(Result("injection_offset_px", value, "px", region, most, meaning=meaning))
    return results


def _bias(ratio: Array, region: str, judged: bool) -> list[Result]:
    """Magnitude bias of the median ratio of fluxes (n,); none where that is not above 0."""
    middle = float(np.median(ratio))
    if not middle > 0:
        return []
    scatter = mad_std(ratio) / middle * 2.5 / np.log(10)  # d(mag) = 2.5 / ln 10 dF / F
    width = BIAS_MAG + 3 * median_error(scatter, ratio.size)
    meaning = f"above 0 is too faint; scatter {scatter:.3f} mag of {ratio.size} sources"
    limit: Range = (-width, width) if judged else (None, None)
    return [Result("injection_bias_mag", -2.5 * float(np.log10(middle)), "mag", region, limit, meaning=meaning)]


CHECKS = {
    "blank_spurious_per_mpix": Check(
        blank_spurious_per_mpix,
        "Detections per million pixels in the image made of noise like this frame's, compared with bicubic.",
        "Inventions around real sources, or made of correlated noise and cosmic rays.",
        ("low", "variance", "again"),
        rivals=False,
    ),
    "injection_completeness": Check(
        injection_completeness,
        "Point sources injected into the data at empty positions: fraction detected, their flux and position.",
        "Crowded regions; and a wrong kernel, which is wrong here in the same way.",
        ("low", "variance", "operator", "again"),
        names=("injection_completeness", "injection_bias_mag", "injection_offset_px"),
        rivals=False,
    ),
}
