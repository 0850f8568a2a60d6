"""A PSF that is stated, held against the point sources of the frame.

Two ways to be wrong are told apart, because they are known with different certainty. Sources that are *narrower* than
the PSF cannot be, so that a few of one width refute it. Sources that are *wider* may be galaxies, nuclei or puncta;
only where they all have one width, as stars and beads have, is the PSF too narrow. A statement is compared by what the
same fit makes of it, so that a shape that is no Moffat is not taken for another width. Where a header states a width
alone, its shape is only assumed, and the wings of stars tell it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator
from scipy.signal import fftconvolve

from sciresdiff.frame import Frame
from sciresdiff.notes import Notes
from sciresdiff.observation.sample import Sample, Samples, first_with_data
from sciresdiff.physics import psf
from sciresdiff.physics.psf.field import PSF
from sciresdiff.physics.psf.measure import find_population, summarise
from sciresdiff.physics.psf.measured import MeasuredPSF
from sciresdiff.physics.psf.moffat_fit import MoffatFits, Stamps, fit_moffats
from sciresdiff.physics.psf.point_sources import WELL, Population, choose_points, clump_density, prepare_field
from sciresdiff.physics.psf.wings import has_wings

Array = NDArray[np.float64]
T = TypeVar("T")

TOLERANCE = 0.10
"""Share of the width, and difference of the logarithm of the axis ratio, that a statement may be off."""

NARROW, WIDE = 5, 8
"""Sources that refute a PSF that is too wide, and one that is too narrow."""

DOMINANT_NARROW, DOMINANT_WIDE = 0.3, 0.6
"""Share of what all sources say that they have to have."""

MOST_PLANES = 4
"""Different PSFs of one frame that are looked at."""

PLACES = 5
"""Places along each axis of a field at which a PSF that changes over it is drawn."""

TIGHT = 0.05
"""Largest scatter of ln FWHM beyond the errors of measurement, for sources to be of one width."""


@dataclass(frozen=True)
class Refuted:
    """A stated PSF that the point sources of the frame contradict."""

    stated_fwhm: float
    """px of the frame, the pixel's own width included."""
    measured: MeasuredPSF
    """What the sources show."""
    measured_fwhm: float
    """As ``stated_fwhm``."""
    what: str
    """In which respect, for the user."""

    @property
    def numbers(self) -> str:
        """Both sides in words."""
        found = self.measured
        return (
            f"{self.what}; {found.used} point sources of the frame show fwhm {self.measured_fwhm:.3g} +-"
            f" {max(found.fwhm_error, 0.01) * self.measured_fwhm:.2g} px (pixel included)"
        )


def refute_psf(frame: Frame, stated: Array, plane: int = 0, *, width_alone: bool = False) -> Refuted | None:
    """Hold a stated PSF against the point sources of a plane.

    Parameters
    ----------
    frame : Frame
        Its values in memory.
    stated : (K, L) array
        The whole PSF as the frame's pixels show it, odd sides, centred.
    plane : int
        Number of the plane.
    width_alone : bool
        A width is stated and a Gaussian is assumed, which stars of one width refute by their wings.

    Returns
    -------
    Refuted or None
        None where the sources agree to 10 % and the error of the measurement, and where there are too few of one width
        to say: **no sources, no verdict**.
    """
    variance = None if frame.variance is None else frame.variance[plane]
    population = find_population(prepare_field(frame.pixels[plane], frame.mask[plane], variance))
    if population.point.sum() < NARROW:
        return None
    width = psf.fwhm(stated)
    moffat = summarise(population, table=False)
    shape = _lacks_wings(population, moffat, width) if width_alone else None
    if width < 2 * moffat.fwhm + 2:  # wider ones do not fit into the stamps
        same = _fit_stated(stated, population)
        if _contradiction(float(same.fwhm[0]), same, moffat, moffat.fwhm, population) is None and shape is None:
            return None
    else:
        same = None
    # the width at half maximum with the table of residuals does not depend on a shape
    full = summarise(population)
    measured_width = psf.fwhm(full.render())
    what = _contradiction(width, same, full, measured_width, population) or shape
    return None if what is None else Refuted(width, full, measured_width, what)


def _lacks_wings(population: Population, found: MeasuredPSF, width: float) -> str | None:
    """That a Gaussian lacks the wings which sources of one width have; None where they have none, or are too few.

    Galaxies have wings, too, but they are wider than is stated.
    """
    points = population.points
    one = len(points) >= WIDE and population.share >= DOMINANT_NARROW and found.scatter < TIGHT
    wider = np.log(psf.fwhm(found.render()) / width) > TOLERANCE
    if not one or wider or not has_wings(points, population.stamps[population.point], found.shape.wings):
        return None
    return (
        f"it is a width alone, and no Gaussian has the wings of the sources (Moffat beta {1 / found.shape.wings:.2g})"
    )


def refute_field(sample: Sample, blur: PSF, scale: int, target_fwhm: float) -> Refuted | None:
    """Hold a PSF that changes over the field against the point sources of a plane, each against the PSF of its place.

    What is stated is drawn at 5 x 5 places; between them its width and ellipticity are interpolated.  The fits of the
    sources are brought to the middle of the field by what is stated to change, and compared with the PSF there.

    Parameters
    ----------
    sample : of the plane.
    blur : on the output grid, for all of the plane.
    scale : output pixels per pixel of the frame.
    target_fwhm : of the wanted image's PSF, output px.

    Returns
    -------
    Refuted or None
        As `refute_psf`.
    """
    assert blur.weights is not None
    frame, size = sample.frame, blur.weights.shape[1:]
    variance = None if frame.variance is None else frame.variance[0]
    seen = find_population(prepare_field(frame.pixels[0], frame.mask[0], variance))
    if len(seen.fits) < NARROW:
        return None
    everyone = replace(seen, point=np.ones(len(seen.fits), bool))
    lines = [np.linspace(0, n - 1, PLACES) for n in size]
    stated = [
        [_fit_stated(psf_on_frame(blur.at(y, x), target_fwhm, scale), everyone) for x in lines[1]] for y in lines[0]
    ]
    numbers = np.array([[[np.log(f.fwhm[0]), f.e1[0], f.e2[0]] for f in row] for row in stated])
    y, x = ((at + 0.5) * scale - 0.5 for at in sample.places_of(seen.fits.y, seen.fits.x))
    inside = [np.clip(at, 0, n - 1) for at, n in zip((y, x), size, strict=True)]
    middle = numbers[PLACES // 2, PLACES // 2]
    ln, e1, e2 = (RegularGridInterpolator(lines, numbers)(np.stack(inside, -1)) - middle).T
    fits = replace(seen.fits, fwhm=seen.fits.fwhm * np.exp(-ln), e1=seen.fits.e1 - e1, e2=seen.fits.e2 - e2)
    population = Population(fits, seen.stamps, *choose_points(fits), seen.found)
    if population.point.sum() < NARROW:
        return None
    found, same = summarise(population, table=False), stated[PLACES // 2][PLACES // 2]
    at_middle = psf_on_frame(blur.at(*(line[PLACES // 2] for line in lines)), target_fwhm, scale)
    width, measured_width = psf.fwhm(at_middle), psf.fwhm(found.render())
    what = _contradiction(width, same, found, measured_width, population)
    return None if what is None else Refuted(width, found, measured_width, f"in the middle of its field {what}")


def _contradiction(
    width: float, same: MoffatFits | None, found: MeasuredPSF, found_width: float, population: Population
) -> str | None:
    """In what a statement and the sources differ by more than the tolerance; None where nothing is certain."""
    fits, points = population.fits, population.points
    well = fits.error < WELL
    share = population.share
    n = int((population.point & well).sum())
    off = float(np.log(width / found_width))
    tolerance = TOLERANCE + 2 * found.fwhm_error
    # where as many sources have the stated width as have another one, nothing is refuted
    e1, e2 = found.shape.e1, found.shape.e2
    turned = (e1, e2) if same is None else (float(same.e1[0]), float(same.e2[0]))
    there = clump_density(fits, np.log(found.shape.fwhm) + off, turned)
    here = clump_density(fits, np.log(found.shape.fwhm), (e1, e2))
    if off > tolerance and n >= NARROW and share >= DOMINANT_NARROW and there < 0.5 * here:
        return f"fwhm {width:.3g} px is too wide"
    one = n >= WIDE and share >= DOMINANT_WIDE and found.scatter < TIGHT and there < 0.1 * here
    if off < -tolerance and one:
        return f"fwhm {width:.3g} px is too narrow"
    if same is None or not one:
        return None
    e = float(np.hypot(turned[0] - e1, turned[1] - e2))
    spread = float(np.hypot(points.e1.std(), points.e2.std()))
    if e > TOLERANCE + 3 * found.e_error + spread / 2:
        ratio, angle = axes(e1, e2)
        stated, turn = axes(*turned)
        return f"axis ratio {stated:.2f} at {turn:.0f} deg, but that of the sources is {ratio:.2f} at {angle:.0f} deg"
    return None


def axes(e1: float, e2: float) -> tuple[float, float]:
    """Minor over major axis, and the angle of the major one from +x towards +y, 0 to 180 degrees."""
    return float(np.exp(-np.hypot(e1, e2))), float(np.rad2deg(0.5 * np.arctan2(e2, e1)) % 180)


def _fit_stated(stated: Array, population: Population) -> MoffatFits:
    """What the fit of the sources makes of the statement, on a stamp of their size with the noise of one of them."""
    radius = population.stamps.radius
    room = np.pad(stated, radius)
    y, x = (n // 2 for n in room.shape)
    data = room[y - radius : y + radius + 1, x - radius : x + radius + 1].ravel()[None]
    bright = float(np.quantile(population.points.snr, 0.75))
    noise = np.full(data.shape, (data.max() / max(bright, 10.0)) ** 2)
    stamps = Stamps(data, noise, np.zeros((1, 2), np.int64), radius)
    return fit_moffats(stamps, float(np.median(population.points.fwhm)))


def psf_on_frame(kernel: Array, target_fwhm: float, scale: int) -> Array:
    """The PSF as the frame's pixels show it, from the kernel and the wanted image's PSF: (K, L), odd sides, sum 1.

    target * kernel, averaged over ``scale`` x ``scale`` fine pixels about its middle.

    Parameters
    ----------
    kernel : (K, L) array
        On the output grid, odd sides.
    target_fwhm : float
        Output px.
    scale : int
        Output pixels per pixel of the frame.
    """
    fine = fftconvolve(kernel, psf.target_psf(target_fwhm))
    # an even number of pixels has its middle between two: cubic convolution takes it half a pixel on without a blur
    line = np.ones(scale) if scale % 2 else np.convolve(np.ones(scale), np.array([-1, 9, 9, -1]) / 16)
    fine = fftconvolve(fine, np.outer(line, line))
    middle = [n // 2 for n in fine.shape]
    image = fine[middle[0] % scale :: scale, middle[1] % scale :: scale]
    reach = [min(m // scale, n - 1 - m // scale) for m, n in zip(middle, image.shape, strict=True)]
    middle = [m // scale for m in middle]
    image = image[middle[0] - reach[0] : middle[0] + reach[0] + 1, middle[1] - reach[1] : middle[1] + reach[1] + 1]
    return np.asarray(image / image.sum())


def hold_blurs(
    frame: Frame, samples: Samples, blurs: Sequence[PSF | None], scale: int, target_fwhm: float, stated: str
) -> Notes:
    """Warnings where the frame's point sources contradict what an option or a PSF file states, with both numbers.

    It is believed all the same.

    Parameters
    ----------
    frame : what the file says.
    samples : of its planes.
    blurs : one on the output grid, or one for each plane.
    scale : output pixels per pixel of the frame.
    target_fwhm : of the wanted image's PSF, output px.
    stated : who states it, for the words.
    """
    notes, seen = Notes(), set[int]()
    for plane, blur in _planes_of(frame, samples, blurs):
        if blur is None or id(blur) in seen or len(seen) == MOST_PLANES:
            continue
        seen.add(id(blur))
        if blur.varies:
            refuted = refute_field(samples(plane), blur, scale, target_fwhm)
        else:
            refuted = refute_psf(samples(plane).frame, psf_on_frame(blur.mean, target_fwhm, scale))
        if refuted is not None:
            where = f" (plane {plane})" if len(blurs) > 1 else ""
            line = f"WARNING psf: {stated}{where} is taken, but {refuted.numbers}; check it, or give --psf measure"
            notes += Notes(line)
    return notes


def refute_specs(frame: Frame, samples: Samples, specs: Sequence[str]) -> Notes | None:
    """Why the PSF of a header or of metadata is not believed; None where it is.

    Parameters
    ----------
    frame : what the file says.
    samples : of its planes.
    specs : one, or one for each plane.
    """
    seen = set[str]()
    for plane, spec in _planes_of(frame, samples, specs):
        if spec in seen or len(seen) == MOST_PLANES:
            continue
        seen.add(spec)
        image = psf.render(spec, frame.pixel_size, integrate=True)
        # the beam of a radio map is a Gaussian by definition, and beads of a microscope have no seeing
        alone = frame.kind == "astro" and frame.psf is None and "fwhm" in frame.facts
        refuted = refute_psf(samples(plane).frame, image, width_alone=alone)
        if refuted is not None:
            by = "SEEING, FWHM, PSF_FWHM or BMAJ" if "fwhm" in frame.facts else "aperture and wavelength"
            words = f"psf: {psf.parse(spec)} of the header ({by}) is not believed, and the PSF is measured instead"
            return Notes(f"{words}: {refuted.numbers}")
    return None


def _planes_of(frame: Frame, samples: Samples, stated: Sequence[T]) -> list[tuple[int, T]]:
    """Planes to look at, with what is stated of each: the first with data where one stands for all."""
    if len(stated) == 1:
        return [(first_with_data(samples, frame.planes), stated[0])]
    return list(enumerate(stated))
