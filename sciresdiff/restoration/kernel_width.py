"""What a frame says of the width of its kernel, where that is known to a few per cent only.

The error of a kernel's width is common to the whole frame, so that the frame tells it.  Two witnesses are heard:

- Pixels that were hidden from a restoration are predicted best with the right kernel.  One that is too wide asks for
  structure that is not there, and one that is too narrow leaves open what lies between the pixels.  Nothing has to be a
  point for that, but some structure has to be about as fine as the kernel.
- The sharpest sources are as wide as the kernel and a point of the wanted image together.  That is exact where the PSF
  of the wanted image is stated, and uncertain where it is not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from sciresdiff.notes import Notes
from sciresdiff.observation.noise import PER_PIXEL
from sciresdiff.observation.observation import Observation
from sciresdiff.observation.psf_error import with_width_errors
from sciresdiff.observation.sample import Sample, Samples, first_with_data
from sciresdiff.physics.consistency import Data
from sciresdiff.physics.psf import target_psf
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.psf.rescale import SAMPLED
from sciresdiff.physics.psf.shapes import FWHM_PER_SIGMA
from sciresdiff.physics.psf.source_width import SourceWidths, source_widths
from sciresdiff.physics.psf.width import sigma_of_square
from sciresdiff.region import Region
from sciresdiff.restoration.fallback import physics_estimate
from sciresdiff.tiling import Tile

Array = NDArray[np.float64]

ASKED = ("--psf", "--kernel", "header")
"""Origins of a PSF that the frame is asked about; a measured one is the frame's own word."""
DOUBTFUL = 0.02
"""Error from which the frame is asked: it does not know better."""
FEWEST = 12
"""Sources that tell a width."""
SHARPEST = 0.125
"""Share of the sources that is sharper than the edge which counts: blends and small galaxies are wider than points, and
cosmic rays that were missed are sharper, so that neither the mean nor the extreme is a star's."""
BEST = 0.01
"""Smallest error of such an edge: no PSF is a stated one drawn out to better than this."""
POINT_FWHM, POINT_ERROR = 2.0, 0.75
"""FWHM of a point in a wanted image whose PSF nobody states, output px, and its error: well sampled, and not more."""
SIDE, GRID = 128, 7
"""Largest side of the part of a frame that is predicted, px, and widths that are tried."""
WITHIN = 2.0
"""Standard errors of the statement within which they lie; what lies beyond has nothing to do with the statement."""
DISTINCT = 1.25
"""Errors of what the frame shows by which it has to differ from the statement, to be heard."""
PREDICTION = 0.05
"""Error of the width that is found by prediction: on two star fields it was 5 % too narrow (x4) and 2 % too wide (x2)."""
SLOPE = 0.5
"""Relative slope of the loss with the width that something else than the kernel may cause, as how far the restoration
has converged.  It moves the minimum by slope over curvature, which in a smooth frame is far."""
PROFILE = 0.02
"""Share of a pixel's light by which its prediction may be off, so that the brightest star does not decide alone."""


@dataclass(frozen=True)
class KernelWidth:
    """A width of the kernel that the frame shows, in units of the one that is stated."""

    factor: float
    error: float

    def join(self, other: KernelWidth | None) -> KernelWidth:
        """The mean of both, weighted by their errors."""
        if other is None:
            return self
        a, b = self.error**-2, other.error**-2
        return KernelWidth((a * self.factor + b * other.factor) / (a + b), float((a + b) ** -0.5))


def correct_width(observation: Observation, samples: Samples, point: float | None) -> Observation:
    """The observation with a kernel as wide as the frame shows it, within the error that is stated.

    It is left alone where it is exact, measured, or different over the field; where the frame tells nothing; and where
    the two agree within the error of what the frame tells, so that a kernel that is right stays as it is.

    Parameters
    ----------
    observation : of a file or of planes in memory; its PSF has the stated error.
    samples : of its planes; the first one with a valid pixel is asked.
    point : FWHM of a point in the wanted image, output px; None where nobody states it.

    Returns
    -------
    The observation, and what was found in its notes.  The error that remains is in its PSF and its noise.
    """
    exposure, scale = observation.exposure, observation.scale
    psf, origin = exposure.psf, observation.notes.origins.get("psf", "")
    if psf is None or not psf.width_error or origin not in ASKED or psf.varies or exposure.psfs:
        return observation
    if psf.width_error < DOUBTFUL or sigma_of_square(psf.kernels[0]) < SAMPLED:
        return observation
    plane = first_with_data(samples, exposure.image.frame.planes)
    sample, error = samples(plane), psf.width_error
    extended = exposure.image.frame.kind == "micro"
    sources = width_of_sources(observation, sample, plane, point)
    found, by = sources, "its sharpest sources show"
    if point is None:
        # sources alone cannot tell a kernel that is too narrow from a wanted image that is not sharp
        predicted = width_by_prediction(observation, sample, plane, error)
        sharp = predicted is not None and predicted.error <= error
        near = sources is not None and abs(sources.factor - 1) < WITHIN * error and not extended
        found = predicted.join(sources if near else None) if predicted is not None and sharp else None
        by = "the frame is predicted best with"
    factor, left, line = weigh(error, found, by, extended)
    (psf,), noise = with_width_errors((psf.rescale(factor),), exposure.noise, scale, [left])
    notes = observation.notes + Notes(*([line] if line else []), psf_factor=f"{factor:.4f}", psf_error=f"{left:.4f}")
    return replace(observation, exposures=[replace(exposure, psf=psf, noise=noise)], notes=notes)


def weigh(error: float, found: KernelWidth | None, by: str, extended: bool) -> tuple[float, float, str]:
    """The factor of the kernel's width, its remaining error, and the line that says so; no line where nothing changes.

    Both are normal: a width of 1 with the stated error, and the one found with its own.

    Parameters
    ----------
    error : of the kernel's width, as a share.
    found : by the frame; None for nothing.
    by : how, for the line.
    extended : whether what looks like a point may well be larger, as in a microscope image; it cannot be smaller.
    """
    if found is None:
        return 1.0, error, ""
    off, both = found.factor - 1, float(np.hypot(error, found.error))
    if abs(off) < DISTINCT * found.error or off > WITHIN * error or (off > 0 and extended):
        return 1.0, error, ""
    factor = 1 + float(np.clip(off, -WITHIN * error, WITHIN * error)) * error**2 / both**2
    left = error * found.error / both
    line = (
        f"{by} a kernel {describe_width(found.factor)} than stated; it is taken {describe_width(factor)}, with an error"
        f" of {100 * left:.2g} %"
    )
    if off < -WITHIN * error:
        return factor, left, f"WARNING psf: {line}; no source can be sharper than the PSF, check it"
    return factor, left, f"psf: {line}"


def describe_width(factor: float) -> str:
    """How much wider or narrower than 1."""
    return f"{100 * abs(factor - 1):.1f} % {'wider' if factor > 1 else 'narrower'}"


def width_of_sources(observation: Observation, sample: Sample, plane: int, point: float | None) -> KernelWidth | None:
    """The width of the kernel by the sharpest sources of a sample; None where there are too few.

    Parameters
    ----------
    plane : of the sample.
    point : as for `correct_width`.
    """
    exposure, scale = observation.exposure, observation.scale
    assert exposure.psf is not None
    kernel, fwhm = exposure.psf.kernels[0], point or POINT_FWHM
    variance = exposure.noise.limited(0).variance_of_sample(sample, plane)
    found = source_widths(sample.pixels, sample.mask, variance, fftconvolve(kernel, target_psf(fwhm)), scale)
    if len(found.widths) < FEWEST:
        return None
    return kernel_width(found, sigma_of_square(kernel) ** 2, fwhm / FWHM_PER_SIGMA,
                        0.0 if point else POINT_ERROR / FWHM_PER_SIGMA)  # fmt: skip


def kernel_width(found: SourceWidths, kernel: float, target: float, error: float) -> KernelWidth:
    """The kernel's width from those of sources: variances add, q^2 (k + t) = factor^2 k + t.

    Parameters
    ----------
    found : q, in units of the width of kernel and target together.
    kernel : k, variance of the kernel, output px^2.
    target, error : sigma of the target, whose variance is t, and its error, output px.
    """
    sharp, edge, wide = np.quantile(found.widths, (SHARPEST / 2, SHARPEST, 2 * SHARPEST))
    t = target**2
    factor = float(np.sqrt(max(edge**2 * (kernel + t) - t, 0.1 * kernel) / kernel))
    spread = max(float(wide - sharp) / 2, BEST)
    by_edge, by_target = edge * (kernel + t) / (kernel * factor) * spread, target * error / (kernel * factor)
    return KernelWidth(factor, float(np.hypot(by_edge, by_target)))


def width_by_prediction(observation: Observation, sample: Sample, plane: int, error: float) -> KernelWidth | None:
    """The width with which hidden pixels of a sample are predicted best; None where no width within reach is best.

    Two of every 5 x 5 pixels are hidden, the rest restored by the physics, and sum log(1 + z^2) of the hidden ones
    compared, with z their deviation in units of the noise and 2 % of their light.

    Parameters
    ----------
    plane : of the sample.
    error : of the kernel's width; widths within `WITHIN` times it are tried.
    """
    exposure = observation.exposure
    limited = replace(exposure, noise=exposure.noise.limited(PER_PIXEL))
    part = busiest_part(replace(observation, exposures=[limited]).of_sample(sample, plane))
    psf = part.exposure.psf
    if psf is None or max(psf.mean.shape) > min(part.grid.shape):
        return None
    factors = 1 + WITHIN * error * np.linspace(-1, 1, GRID)
    losses = np.array([prediction_loss(part, psf.rescale(factor)) for factor in factors])
    best = int(np.argmin(losses))
    if best == GRID - 1 or not np.isfinite(losses).all():
        return None  # the image is smooth, and any wider kernel would do as well
    if best == 0:
        return KernelWidth(float(factors[0]), PREDICTION)
    near = slice(max(best - 2, 0), best + 3)
    a, b, _ = np.polyfit(factors[near], losses[near] / losses[best], 2)
    if not a > 0:
        return None
    error = max(PREDICTION, SLOPE / (2 * a))  # the curvature is 2 a
    return KernelWidth(float(np.clip(-b / (2 * a), factors[best - 1], factors[best + 1])), float(error))


def busiest_part(observation: Observation) -> Observation:
    """The square of a plane in memory, of `SIDE` pixels or less, with the most light."""
    exposure = observation.exposure
    h, w = exposure.grid.shape
    light = np.where(exposure.valid, exposure.pixels - observation.units.sky, 0.0)
    places = [(y, x) for y in corners(h) for x in corners(w)]
    shape = min(SIDE, h), min(SIDE, w)
    regions = [Region(y, y + shape[0], x, x + shape[1]) for y, x in places]
    best = max(regions, key=lambda region: float(np.maximum(light[region.slices], 0).sum()))
    return observation.window(0, Tile(best, best))


def corners(length: int) -> list[int]:
    """First pixels of the parts along a side."""
    side = min(SIDE, length)
    return list(range(0, length - side + 1, side))


@torch.inference_mode()
def prediction_loss(observation: Observation, psf: PSF) -> float:
    """sum log(1 + z^2) of pixels that the physics did not see, with a PSF in place of the observation's own."""
    part = replace(observation, exposures=[replace(observation.exposure, psf=replace(psf, width_error=None))])
    data = part.data()
    hidden = torch.zeros_like(data.valid)
    hidden[..., 1::5, 1::5] = hidden[..., 3::5, 4::5] = 1
    seen: Data = replace(data, valid=data.valid * (1 - hidden))
    deviation = (data.y - data.operator.apply(physics_estimate(seen).x)) * data.valid * hidden
    return float((deviation.square() / (data.noise + (PROFILE * data.y).square())).log1p().sum(dtype=torch.float64))
