"""Registration of two frames of one sky by different instruments: ratio of zero points, PSFs and displacement."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sciresdiff.checks import registration
from sciresdiff.checks.arrays import Array, Mask, fill_with_median
from sciresdiff.checks.check import UnmeasuredError
from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import Frame, PixelSize, Quantity
from sciresdiff.io.jsonable import jsonable
from sciresdiff.jobs.evaluate.image_plane import ImagePlane, read_plane
from sciresdiff.jobs.evaluate.overlap import PixelMap, crop_overlap, map_pixels, resample
from sciresdiff.notes import Notes
from sciresdiff.physics import psf
from sciresdiff.physics.registration import Displacement, displacement, shift_image
from sciresdiff.region import Region

RADIUS_FWHM = 6.0
"""Default radius of the aperture in FWHM of the blurrier PSF: 0.5 % of a Moffat's light is beyond."""
ASSUMED_FWHM = 3.0
"""FWHM that an aperture is sized for where no PSF is known, px of the coarser frame."""


@dataclass(frozen=True)
class Registration:
    """Flux ratio, displacement and PSF widths of two frames of one sky; lengths in ``unit``."""

    flux_ratio: float | None
    """Flux in ``high`` over flux in ``low``, in the same aperture; None where it could not be measured."""
    radius: float | None
    """Of the aperture."""
    centre: tuple[float, float] | None
    """Of the aperture, (y, x) px of ``high``."""
    fitted_ratio: float | None
    """The same ratio from a straight line through all pixels of the matched images."""
    shift: tuple[float, float] | None
    """Position of a source in ``low`` less that in ``high``, along the rows and columns (y, x) of ``high``."""
    shift_error: float | None
    """Standard error per axis."""
    correlation: float | None
    """Of the registered and matched images."""
    fwhm_high: float | None
    fwhm_low: float | None
    unit: str
    """arcsec, um, or px of ``high``."""
    notes: Notes = field(default_factory=Notes)
    """What was assumed, and why something was not measured."""

    @property
    def distance(self) -> float | None:
        """Length of the displacement."""
        return None if self.shift is None else float(np.hypot(*self.shift))


def register(
    high: str | Path | Frame,
    low: str | Path | Frame,
    *,
    psf_high: str | Path | Array | None = None,
    psf_low: str | Path | Array | None = None,
    pixel_high: float | PixelSize | None = None,
    pixel_low: float | PixelSize | None = None,
    plane_high: int = 0,
    plane_low: int = 0,
    radius: float | None = None,
    quantity: Quantity | None = None,
) -> Registration:
    """Measure flux ratio, PSFs and displacement of two frames of one sky.

    The coarser frame is resampled to the finer one's pixels (`overlap.map_pixels`). Each image is blurred with the
    *other's* PSF, so that both have the same one and nothing is divided. Then `physics.registration.displacement` and
    `checks.registration.aperture` measure, the latter on the brightest source about which the aperture fits.

    Parameters
    ----------
    high, low : str, Path or Frame
        The finer and the coarser frame.
    psf_high, psf_low : str, Path, (K, L) array or None
        SPEC, file (of a cube the plane of the frame) or image, on the frame's own pixels and with the pixel in it;
        None: what the frame states, else what its stars show.
    pixel_high, pixel_low : float, PixelSize or None
        Sides of the pixels, a number in arcsec; they win over the files.
    plane_high, plane_low : int
        Numbers of the planes, from 0.
    radius : float or None
        Of the aperture, in the unit of the pixel sizes (without any, px of ``high``), above 0; None: 6 FWHM of the
        blurrier PSF, or less where the frame is small.
    quantity : {"sum", "mean", None}
        Whether pixels add up; None: as the frames say, else by kind.

    Raises
    ------
    InputError
        A file that cannot be read, ``high`` coarser than ``low``, no overlap, or no such plane.
    UsageError
        A radius that is not above 0.
    """
    if radius is not None and not radius > 0:
        raise UsageError(f"radius: {radius:g} is no radius; give a number above 0")
    fine, notes = read_plane(high, plane_high, pixel_high, psf_high)
    coarse, of_coarse = read_plane(low, plane_low, pixel_low, psf_low)
    pixel_map, of_map = map_pixels(fine, coarse)
    pixel_map, region, of_crop = crop_overlap(pixel_map, coarse)
    known = quantity or fine.frame.quantity or coarse.frame.quantity
    known, of_quantity = fine.frame.quantity_or_usual(known)
    pair, of_blur = _match_blur(fine, coarse, pixel_map, region, known)
    notes = notes + of_coarse + of_map + of_crop + of_quantity + of_blur
    return _measure(fine, coarse, pixel_map, region, pair, radius, notes)


@dataclass(frozen=True)
class _MatchedPair:
    """Two images on one grid."""

    high: Array
    """(Y, X)."""
    low: Array
    """(Y, X)."""
    good: Mask
    """(Y, X), True where both are valid."""


def _match_blur(
    fine: ImagePlane, coarse: ImagePlane, pixel_map: PixelMap, region: Region, quantity: Quantity
) -> tuple[_MatchedPair, Notes]:
    """Both frames on the finer grid, each convolved with the PSF of the other where both are known."""
    high, good_high = fine.pixels[region.slices], fine.good[region.slices]
    low, good_low = resample(coarse, pixel_map, quantity)
    notes = Notes()
    if fine.psf is not None and coarse.psf is not None:
        # (x * p) * q = (x * q) * p: both images have the blur p * q, and no noise is amplified by a division
        other = registration.resample_psf(coarse.psf, pixel_map.jacobian)
        high, good_high = registration.convolve(high, good_high, other)
        low, good_low = registration.convolve(low, good_low, fine.psf)
    else:
        notes = Notes("psf: not known of both frames; they are compared as they are, and the flux ratio has the light"
                      " in it that the blurrier one spreads beyond the aperture")  # fmt: skip
    return _MatchedPair(high, low, good_high & good_low), notes


def _measure(
    fine: ImagePlane,
    coarse: ImagePlane,
    pixel_map: PixelMap,
    region: Region,
    pair: _MatchedPair,
    radius: float | None,
    notes: Notes,
) -> Registration:
    """Displacement and flux ratio of a matched pair, in the unit of the finer frame's pixels."""
    coarse_side = fine.side / float(np.sqrt(pixel_map.area))
    fwhm_high = None if fine.psf is None else psf.fwhm(fine.psf) * fine.side
    fwhm_low = None if coarse.psf is None else psf.fwhm(coarse.psf) * coarse_side
    moved, of_shift = _measure_displacement(pair)
    if moved is not None:  # both fluxes are summed about the same place of the sky
        pair = _MatchedPair(pair.high, shift_image(pair.low, (-moved.y, -moved.x)), pair.good)
    found, of_flux = _measure_fluxes(pair, fine.sides, radius, fwhm_low or ASSUMED_FWHM * coarse_side)
    fluxes = None if found is None else found[0]
    return Registration(
        flux_ratio=None if fluxes is None or not fluxes.low > 0 else fluxes.high / fluxes.low,
        radius=None if fluxes is None else fluxes.radius,
        centre=None if found is None else (float(found[1][0] + region.y0), float(found[1][1] + region.x0)),
        fitted_ratio=None if moved is None or not moved.slope > 0 else 1 / moved.slope,
        shift=None if moved is None else (moved.y * fine.sides[0], moved.x * fine.sides[1]),
        shift_error=None if moved is None else moved.error * fine.side,
        correlation=None if moved is None else moved.correlation,
        fwhm_high=fwhm_high,
        fwhm_low=fwhm_low,
        unit=fine.frame.pixel_size.unit if fine.frame.pixel_size else "px",
        notes=notes + of_shift + of_flux,
    )


def _measure_displacement(pair: _MatchedPair) -> tuple[Displacement | None, Notes]:
    """The displacement; None, and the reason, where the images have too little in common."""
    try:
        return displacement(pair.high, pair.low, pair.good), Notes()
    except UnmeasuredError as why:
        return None, Notes(f"shift: not measured: {why}")


def _measure_fluxes(
    pair: _MatchedPair, sides: tuple[float, float], radius: float | None, fwhm: float
) -> tuple[tuple[registration.Aperture, tuple[int, int]] | None, Notes]:
    """Fluxes about the brightest source with room for an aperture.

    Parameters
    ----------
    pair : _MatchedPair
        Registered.
    sides : (float, float)
        Of a pixel (y, x).
    radius : float or None
        Of the aperture in the unit of the sides; None: 6 ``fwhm``, or as much as the frame has room for.
    fwhm : float
        Of the blurrier PSF, in the same unit.

    Returns
    -------
    found : (Aperture, (int, int)) or None
        Fluxes, and the centre (y, x) of the aperture, px.
    notes : Notes
        Radius and sky, or the reason why nothing was measured.
    """
    high, low = (fill_with_median(image, pair.good) for image in (pair.high, pair.low))
    # a small frame may have room for half the radius only; a radius that was asked for is kept
    room = radius or RADIUS_FWHM / 2 * fwhm
    if (centre := registration.brightest(high, pair.good, room, sides)) is None:
        reason = f"no place for an aperture of radius {room:.3g} in the overlap"
        return None, Notes(f"flux ratio: not measured: {reason}")
    edge = min((min(p, n - 1 - p) + 0.5) * s for p, n, s in zip(centre, high.shape, sides, strict=True))
    # the whole ring of the sky lies inside the frame
    radius = radius or min(RADIUS_FWHM * fwhm, edge / registration.ANNULUS[1])
    try:
        fluxes = registration.aperture(high, low, pair.good, centre, radius, sides)
    except UnmeasuredError as why:
        return None, Notes(f"flux ratio: not measured: {why}")
    return (fluxes, centre), Notes(f"flux ratio: aperture of radius {fluxes.radius:.3g}, sky the {fluxes.sky}")


def register_truth(
    image: Frame,
    truth: Frame,
    psf_image: str | Path | Array | None = None,
    psf_truth: str | Path | Array | None = None,
) -> tuple[dict[str, Any], Notes]:
    """Register an image and a truth by another instrument, for the record of an evaluation.

    Parameters
    ----------
    image, truth : Frame
        The first plane of each is compared.
    psf_image, psf_truth : str, Path, (K, L) array or None
        As for `register`.

    Returns
    -------
    record : dict
        ``flux_ratio`` and ``fitted_ratio`` (truth over image), ``shift`` (position in the truth less that in the
        image, y and x of the finer frame), ``shift_error``, ``distance``, ``fwhm_image``, ``fwhm_truth``, ``unit``,
        ``radius`` and ``place`` of the aperture, ``finer``, ``said``. What cannot be measured is None, and ``said`` has
        the reason.
    notes : Notes
        A line with the figures, and one for every assumption.
    """
    sizes = [1.0 if f.pixel_size is None else f.pixel_size.y * f.pixel_size.x for f in (image, truth)]
    truth_is_finer = sizes[0] > sizes[1]
    try:
        found = (
            register(truth, image, psf_high=psf_truth, psf_low=psf_image)
            if truth_is_finer
            else register(image, truth, psf_high=psf_image, psf_low=psf_truth)
        )
    except InputError as problem:
        return {"said": [str(problem)]}, Notes(f"registration: {problem}")
    lines = (f"registration: {line}" for line in found.notes)
    return _as_record(found, truth_is_finer), Notes(f"registration: {summary(found)}", *lines)


def _as_record(found: Registration, truth_is_finer: bool) -> dict[str, Any]:
    """The registration in JSON's types, ratios and shift of the truth against the image."""
    ratios, shift = [found.flux_ratio, found.fitted_ratio], found.shift
    fwhm_image, fwhm_truth = found.fwhm_high, found.fwhm_low
    if truth_is_finer:
        fwhm_image, fwhm_truth = fwhm_truth, fwhm_image
        shift = None if shift is None else (-shift[0], -shift[1])
    else:
        ratios = [ratio and 1 / ratio for ratio in ratios]
    record = {
        "flux_ratio": ratios[0],
        "radius": found.radius,
        "place": found.centre,
        "fitted_ratio": ratios[1],
        "shift": shift,
        "shift_error": found.shift_error,
        "correlation": found.correlation,
        "unit": found.unit,
        "said": found.notes.lines,
        "fwhm_image": fwhm_image,
        "fwhm_truth": fwhm_truth,
        "finer": "truth" if truth_is_finer else "image",
        "distance": found.distance,
    }
    return dict(jsonable(record))


def summary(found: Registration) -> str:
    """The figures of a registration in one line."""
    ratio = "-" if found.flux_ratio is None else f"{found.flux_ratio:.4g} (radius {found.radius:.3g} {found.unit})"
    widths = ["-" if x is None else f"{x:.3g}" for x in (found.fwhm_high, found.fwhm_low)]
    shift = "-" if found.shift is None else (
        f"({found.shift[0]:+.3f}, {found.shift[1]:+.3f}) +- {found.shift_error:.3f} {found.unit}"
    )  # fmt: skip
    return f"flux finer / coarser {ratio}, FWHM {widths[0]} and {widths[1]} {found.unit}, shift {shift}"
