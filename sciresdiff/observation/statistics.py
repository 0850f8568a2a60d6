"""What a plane that is restored in parts is like as a whole, measured once on its sample."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciresdiff.errors import InputError
from sciresdiff.observation.exposure import Exposure
from sciresdiff.observation.noise import PER_PIXEL
from sciresdiff.observation.sample import Sample, Samples
from sciresdiff.physics.consistency import Data
from sciresdiff.physics.held_out import SIDE, predicting_iterations, regions_of_windows, unit_noise
from sciresdiff.physics.operators import Operator
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.richardson_lucy import MOST_ITERATIONS, explained_sums, pedestal, richardson_lucy, structure
from sciresdiff.physics.sky import estimate_sky
from sciresdiff.physics.statistics import PlaneStatistics
from sciresdiff.region import Region

VALUES = 2**17
"""Pixels that are kept of a plane; the darkest thousandth is then known from a hundred of them."""
WINDOWS = 4
"""Along an axis: what Richardson-Lucy needs is measured on so many windows, which have the pixels of one core."""
LOCAL = 4
"""Windows of a mosaic that are looked at where the PSF varies over the field."""


def measure_statistics(exposure: Exposure, scale: int, samples: Samples, core: int) -> tuple[PlaneStatistics, ...]:
    """The statistics of every plane; a plane of a stack that has no valid pixel gets any.

    Parameters
    ----------
    exposure : with all of its planes.
    scale : output pixels per pixel of the exposure.
    samples : of its planes.
    core : largest side of the parts that a plane is restored in, output px.

    Raises
    ------
    InputError : a single plane without a valid pixel.
    """
    planes = range(exposure.image.frame.planes)
    return tuple(measure_plane(exposure, scale, samples(plane), plane, core) for plane in planes)


def measure_plane(exposure: Exposure, scale: int, sample: Sample, plane: int, core: int) -> PlaneStatistics:
    """Sky, noise, a share of the pixels, and the iterations of Richardson-Lucy.

    Parameters
    ----------
    exposure, scale, core : as for `measure_statistics`.
    sample, plane : of the plane, and its number.
    """
    variance = exposure.noise.limited(PER_PIXEL).variance_of_sample(sample, plane)
    good = ~sample.mask & np.isfinite(sample.pixels) & np.isfinite(variance) & (variance > 0)
    if not good.any() and exposure.image.frame.planes > 1:
        return PlaneStatistics(0.0, 1.0, np.zeros(1, np.float32), np.ones(1, np.float32), 1)
    if not good.any():
        raise InputError("variance: no pixel is valid and has a variance above zero; give --variance or --mask")
    sky, _ = estimate_sky(sample.pixels, ~good)
    sigma = float(np.sqrt(np.median(variance[good])))
    every = -(-int(good.sum()) // VALUES)
    y = ((sample.pixels[good][::every] - sky) / sigma).astype(np.float32)
    noise = (variance[good][::every] / sigma**2).astype(np.float32)
    statistics = PlaneStatistics(float(sky), sigma, y, noise, MOST_ITERATIONS)
    psf = exposure.psf_of(plane)
    if psf is not None and psf.varies:
        return measure_field(replace(exposure, psf=psf, psfs=()), scale, statistics, sample, variance, good)
    windows = windows_of_sample(
        replace(exposure, psf=exposure.psf_of(plane), psfs=()), scale, statistics, sample.pixels, variance, good, core
    )
    return statistics if windows is None else replace(statistics, iterations=count_iterations(windows))


def measure_field(
    exposure: Exposure,
    scale: int,
    statistics: PlaneStatistics,
    sample: Sample,
    variance: NDArray[Any],
    good: NDArray[np.bool_],
) -> PlaneStatistics:
    """The statistics with the iterations that parts of the plane take, each with the PSF of its own place.

    Parameters
    ----------
    exposure, scale : of the plane, whose PSF varies.
    statistics : without iterations.
    sample, variance, good : of the plane; (h, w) each.
    """
    psf, cases = exposure.psf, []
    assert psf is not None
    for here, place in windows_with_places(sample, scale):
        if not good[here.slices].any():
            continue
        y, noise, valid = (
            torch.from_numpy(v[here.slices].astype(np.float32))[None, None]
            for v in (
                np.where(good, (sample.pixels - statistics.sky) / statistics.sigma, 0),
                np.where(good, variance / statistics.sigma**2, 1),
                good,
            )
        )
        operator = Operator(here.shape, scale, psf.window(place.scaled(scale)))
        cases.append(Data(y, noise, valid, operator, statistics))
    if not cases:
        return statistics
    with torch.inference_mode():
        predicting = predicting_iterations([(data, unit_noise(data)) for data in cases])
    return replace(statistics, iterations=count_iterations(*cases), predicting=predicting)


def windows_with_places(sample: Sample, scale: int) -> list[tuple[Region, Region]]:
    """Parts of a sample that are looked at where the PSF varies: their places in the sample and in the plane."""
    if sample.whole:
        return [(one, one) for one in regions_of_windows(sample.pixels.shape, scale)]
    found = []
    for window in sample.windows[:: max(1, (len(sample.windows) - 1) // (LOCAL - 1))][:LOCAL]:
        h, w = (min(SIDE // scale, n) for n in window.region.shape)
        dy, dx = ((n - m) // 2 for n, m in zip(window.region.shape, (h, w), strict=True))
        here, place = (
            Region(top + dy, top + dy + h, left + dx, left + dx + w)
            for top, left in ((window.at[0].start, window.at[1].start), (window.region.y0, window.region.x0))
        )
        found.append((here, place))
    return found


def windows_of_sample(
    exposure: Exposure,
    scale: int,
    statistics: PlaneStatistics,
    pixels: NDArray[Any],
    variance: NDArray[Any],
    good: NDArray[np.bool_],
    core: int,
) -> Data | None:
    """Windows in the middle of their shares of a sample, as one batch in noise units; None where none fits.

    Parameters
    ----------
    pixels, variance, good : (h, w) of the sample.

    Returns
    -------
    Data of (windows, 1, side, side).
    """
    psf = None if exposure.psf is None else PSF.constant(exposure.psf.mean)
    widest = 0 if psf is None else max(psf.mean.shape)
    side = -(-max(core // WINDOWS, widest) // scale)  # a PSF has to fit into a window
    places = [(y, x) for y in centres(pixels.shape[0], side) for x in centres(pixels.shape[1], side)]
    if side > min(pixels.shape) or not places:
        return None

    def stack(plane: NDArray[Any]) -> Tensor:
        parts = np.stack([plane[y : y + side, x : x + side] for y, x in places])[:, None]
        return torch.from_numpy(parts.astype(np.float32))

    y = stack(np.where(good, (pixels - statistics.sky) / statistics.sigma, 0))
    noise = stack(np.where(good, variance / statistics.sigma**2, 1))
    return Data(y, noise, stack(good), Operator((side, side), scale, psf), statistics)


def count_iterations(*windows: Data) -> int:
    """Iterations of Richardson-Lucy until chi2 over all windows is 1: what the whole plane would take."""
    with torch.inference_mode():
        where = [structure(data) for data in windows]
        runs = [richardson_lucy(data, pedestal(data)) for data in windows]
        for k in range(1, MOST_ITERATIONS + 1):
            found = [explained_sums(d, next(run), at) for d, run, at in zip(windows, runs, where, strict=True)]
            if sum(left for left, _ in found) <= sum(pixels for _, pixels in found):
                return k
    return MOST_ITERATIONS


def centres(length: int, side: int) -> list[int]:
    """First pixels of windows in the middle of their shares."""
    count = min(WINDOWS, length // side)
    return [round((i + 0.5) * length / count - side / 2) for i in range(count)]
