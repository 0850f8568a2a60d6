"""From several files and what the user states of each to one measurement of the image that they show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError, UnmeasuredError, UsageError
from sciresdiff.frame import Frame
from sciresdiff.io.source import Source
from sciresdiff.notes import Notes
from sciresdiff.observation.agreement import Pair
from sciresdiff.observation.alignment import (
    Alignment,
    PixelMap,
    describe_alignment,
    measure_alignment,
    middle_on_middle,
    refuse_alignment,
)
from sciresdiff.observation.exposure_outliers import Shown
from sciresdiff.observation.flux_scale import choose_scale, refuse_units, stated_ratio, stated_scales
from sciresdiff.observation.grid import Grid
from sciresdiff.observation.joint import Joint, Part
from sciresdiff.observation.noise import PER_PIXEL
from sciresdiff.observation.observation import Observation
from sciresdiff.observation.options import Stated
from sciresdiff.observation.origins import refuse_twice, warn_filters, warn_instrument
from sciresdiff.observation.outlier_mask import Calibration, show_exposure, survey_changes, survey_outliers
from sciresdiff.observation.placement import Placement, between, sky_of
from sciresdiff.observation.psf import TARGET_FWHM
from sciresdiff.observation.psf_on_grid import centroid_offset, hold_light, misplaced_light, psf_on_grid
from sciresdiff.observation.resolve import observe, refuse_unusable
from sciresdiff.observation.sample import samples_of_source
from sciresdiff.observation.screening import Screened, screen
from sciresdiff.observation.whole_psf import describe_profile, profile_of_file
from sciresdiff.physics.psf.file import open_psf
from sciresdiff.physics.psf.point_sources import Field
from sciresdiff.physics.psf.shapes import FWHM_PER_SIGMA
from sciresdiff.physics.psf.spec import parse
from sciresdiff.physics.sky import estimate_sky
from sciresdiff.region import Region
from sciresdiff.run.findings import Findings

BEYOND = 48
"""Output px around the grid that are restored with it at the most."""
WHOLE = 0.02
"""How far a scale may be from a whole number, as a share, that is taken for it: distortions change it by place."""
FINER = 3
"""Pixels of the grid of a blur per output pixel, where it is interpolated."""
WARNING = "WARNING "
COVERED = 0.01
"""Share of the output's grid that an exposure has to cover."""


@dataclass(frozen=True)
class Given:
    """One exposure as it comes: an open file and what is stated of it."""

    path: str | None
    """None for an image in memory."""
    source: Source
    stated: Stated
    name: str


def resolve_joint(given: Sequence[Given], scale: float, grid: Any = None, align: str = "wcs") -> Joint:
    """The measurement of one image by several exposures.

    Parameters
    ----------
    given : the exposures; the first one's unit, and its grid unless another is given, are the output's.
    scale : output px along the side of a pixel of the first one, where no grid is given.
    grid : astropy.io.fits.Header of the output's grid, optional.
    align : ``wcs`` or ``measure``.

    Raises
    ------
    InputError : exposures that do not overlap, of units that contradict each other, or without a place.
    UsageError : files of several planes.
    """
    found = []
    names, frames = [one.name for one in given], [one.source.frame for one in given]
    for one in given:
        refuse_planes(one)
        refuse_units((given[0].name, one.name), (given[0].source.frame.unit, one.source.frame.unit))
        found.append((one, screen(one.source, one.stated)))
    refuse_twice(names, [one.path for one in given], [one.source for one in given])
    screened = [screened for _, screened in found]
    places, shape, ratio, notes = place_exposures(given, screened, scale, grid, align)
    margin = min(BEYOND, largest_overhang(places, given, shape))
    canvas = Grid(shape, refined_pixel(given[0], ratio))
    around = Region(-margin, shape[0] + margin, -margin, shape[1] + margin)
    parts: list[Part] = []
    lines, first = Notes(), None
    for (one, seen), place in zip(found, places, strict=True):
        part, observation, more = resolve_part(one, seen, place, around, len(parts))
        lines += name_lines(one.name, more)
        first = observation if first is None else first
        if observation.quantity != first.quantity:
            raise InputError(f"{one.name}: --quantity {observation.quantity}, but {first.quantity} of {given[0].name}")
        parts.append(part)
    assert first is not None
    joint = Joint(parts, parts[0].sky, parts[0].sigma, canvas, ratio, first.quantity, margin, first.target_fwhm)
    parts, more = with_factors(parts, given, joint, align)
    return replace(joint, parts=parts, notes=warn_filters(names, frames) + notes + lines + more)


def refuse_planes(one: Given) -> None:
    """Refuse a file with more than one plane.

    Raises
    ------
    UsageError
    """
    if one.source.frame.planes > 1:
        raise UsageError(
            f"--joint: {one.name} has {one.source.frame.planes} planes; give one image of each exposure, FILE[EXT]"
        )


def refined_pixel(first: Given, ratio: float) -> Any:
    """The side of an output pixel, where that of the first exposure is known."""
    size = first.source.frame.pixel_size
    return None if size is None else replace(size, y=size.y / ratio, x=size.x / ratio)


def shape_of(frame: Frame) -> tuple[int, int]:
    """(h, w) of a frame."""
    return frame.pixels.shape[-2], frame.pixels.shape[-1]


def place_exposures(
    given: Sequence[Given], screened: Sequence[Screened], scale: float, grid: Any, align: str
) -> tuple[list[Placement], tuple[int, int], float, Notes]:
    """Where every exposure lies on the output's grid, its shape, and output px per px of the first exposure."""
    h, w = shape_of(given[0].source.frame)
    notes = Notes()
    if grid is None:
        shape = (round(scale * h), round(scale * w))

        def output(places: np.ndarray) -> np.ndarray:
            return np.asarray(scale * (places + 0.5) - 0.5)

        maps: list[PixelMap] = [output]
        for k in range(1, len(given)):
            to_first, more = map_to_first(given, screened, k, align)
            notes += more
            maps.append(lambda places, to_first=to_first: output(to_first(places)))  # type: ignore[misc]
    else:
        if align == "measure":
            raise UsageError("--align measure: places are measured on the first exposure; leave --grid out")
        shape = (int(grid["NAXIS2"]), int(grid["NAXIS1"]))
        there = sky_of(grid, "", "--grid")
        maps = [between(sky_of(header_of(one), one.path or "", one.name), there, one.name) for one in given]
    placed = []
    for one, place in zip(given, maps, strict=True):
        found = Placement.of_function(place, shape_of(one.source.frame))
        refuse_distance(one, found, shape)
        placed.append(found)
        if found.error > 1e-3:
            notes += Notes(f"wcs: {one.name}: its distortion is known to {found.error:.2g} output px between knots")
    return placed, shape, placed[0].scale, notes


def header_of(one: Given) -> Any:
    """The FITS header of an exposure; None where it has none."""
    return getattr(one.source.frame.header, "image", None)


def map_to_first(
    given: Sequence[Given], screened: Sequence[Screened], number: int, align: str
) -> tuple[PixelMap, Notes]:
    """Pixels of an exposure -> pixels of the first one: by their WCS, or as measured."""
    first, one = given[0], given[number]
    headers = [header_of(each) for each in (first, one)]
    if align == "wcs":
        here, there = (sky_of(h, e.path or "", e.name) for h, e in ((headers[1], one), (headers[0], first)))
        return between(here, there, one.name), Notes()
    shapes = [shape_of(each.source.frame) for each in (first, one)]
    try:
        here, there = (sky_of(h, e.path or "", e.name) for h, e in ((headers[1], one), (headers[0], first)))
        said = between(here, there, one.name), between(there, here, one.name)
    except InputError:
        said = middle_on_middle(shapes[0], shapes[1])
    try:
        found: Alignment = measure_alignment(
            field_of(screened[0]), field_of(screened[number]), (2.0, 2.0), said[0], said[1]
        )
    except UnmeasuredError as error:
        raise refuse_alignment(one.name, error) from error
    map_, to_first = found.map, said[0]
    return lambda places: map_(to_first(places)), describe_alignment(one.name, found)


def field_of(screened: Screened) -> Field:
    """A sample of an exposure as sources are looked for in it."""
    sample = screened.samples(0)
    sky, sigma = estimate_sky(sample.pixels, sample.mask)
    flat = np.where(sample.mask, 0, sample.pixels.astype(np.float64) - sky)
    variance = sample.frame.variance
    noise = np.full(flat.shape, sigma**2) if variance is None else variance[0].astype(np.float64)
    return Field(flat, np.where(sample.mask, np.inf, noise), sample.mask, float(sigma))


def refuse_distance(one: Given, place: Placement, shape: tuple[int, int]) -> None:
    """Refuse an exposure that does not lie on the output's grid.

    Raises
    ------
    InputError
    """
    y0, y1, x0, x1 = place.extent(shape_of(one.source.frame))
    high = min(y1, shape[0] - 0.5) - max(y0, -0.5)
    wide = min(x1, shape[1] - 0.5) - max(x0, -0.5)
    if high <= 0 or wide <= 0 or high * wide < COVERED * min(shape[0] * shape[1], (y1 - y0) * (x1 - x0)):
        raise InputError(
            f"{one.name}: does not overlap the output's grid: it lies at y {y0:.0f} to {y1:.0f}, x {x0:.0f} to "
            f"{x1:.0f} of {shape[0]} x {shape[1]} output px; is its WCS right, is it of another field?"
        )


def largest_overhang(places: Sequence[Placement], given: Sequence[Given], shape: tuple[int, int]) -> int:
    """By how many output px exposures reach beyond the grid, at the most."""
    most = 0.0
    for place, one in zip(places, given, strict=True):
        y0, y1, x0, x1 = place.extent(shape_of(one.source.frame))
        most = max(most, -y0, -x0, y1 - shape[0] + 1, x1 - shape[1] + 1)
    return int(np.ceil(most)) + 1


def resolve_part(
    one: Given, seen: Screened, place: Placement, canvas: Region, number: int
) -> tuple[Part, Observation, Notes]:
    """One exposure among several, with its blur on the output's grid."""
    own = own_scale(place.scale)
    target = one.stated.target_fwhm or TARGET_FWHM
    stated, notes = with_profile(one)
    stated = replace(stated, target_fwhm=target * own / place.scale)
    frame = seen.source.frame
    refuse_unusable(one.name, frame, seen.samples, stated)
    observation = observe_named(one, seen, stated, own)
    exposure = observation.exposure
    sample = samples_of_source(exposure.image)(0)
    variance = exposure.noise.limited(PER_PIXEL).variance_of_sample(sample, 0)
    good = ~sample.mask & np.isfinite(sample.pixels) & np.isfinite(variance) & (variance > 0)
    if not good.any():
        raise InputError(f"{one.name}: no pixel is valid and has a variance above zero; give --variance or --mask")
    sky, _ = estimate_sky(sample.pixels, ~good)
    blur = psf_on_grid(exposure.psf, own, place, canvas)
    notes += hold_light(one.name, misplaced_light(exposure.psf, blur, own, place, canvas, target))
    exposure = replace(exposure, psf=blur)
    observation = replace(observation, target_fwhm=target if observation.target_fwhm is not None else None)
    sigma = float(np.sqrt(np.median(variance[good])))
    part = Part(exposure, place, 1.0, float(sky), sigma, one.name, number)
    return part, observation, notes + observation.notes + frame.notes


def observe_named(one: Given, seen: Screened, stated: Stated, own: int) -> Observation:
    """`observe`, whose errors name the exposure.

    Raises
    ------
    UsageError, InputError
    """
    try:
        return observe(one.path, seen, stated, own)
    except (UsageError, InputError) as error:
        if one.name in str(error):
            raise
        raise type(error)(f"{one.name}: {error}") from error


def name_lines(name: str, notes: Notes) -> Notes:
    """Lines about an exposure with its name before their subject, where they do not have it; warnings stay such."""
    lines = []
    for line in notes:
        words = line.removeprefix(WARNING)
        lines.append(line if name in line else f"{line[: len(line) - len(words)]}{name}: {words}")
    return Notes(*lines)


def with_target(given: Given, target: float) -> Given:
    """The same with another PSF of the wanted image, FWHM in output px."""
    return replace(given, stated=replace(given.stated, target_fwhm=target))


def own_scale(ratio: float) -> int:
    """Pixels per side of an exposure's pixel of the grid on which its blur is made.

    That of the output where it has a whole number of them, else a finer one between whose pixels the blur is smooth.
    """
    whole = max(1, round(ratio))
    return whole if abs(ratio - whole) < WHOLE * whole else int(np.ceil(FINER * ratio))


def with_profile(one: Given) -> tuple[Stated, Notes]:
    """What is stated, with the profile of an undersampled image of a PSF in its place."""
    frame, stated = one.source.frame, one.stated
    if stated.kernel is not None or not isinstance(spec := stated.psf or frame.psf, str):
        return stated, Notes()
    try:
        parsed = parse(spec)
        if parsed.shape != "file":
            return stated, Notes()
        found = open_psf(parsed, shape_of(frame))
    except (InputError, UsageError):  # whoever reads it says what is wrong
        return stated, Notes()
    profile = profile_of_file(found)
    if profile is None:
        return stated, Notes()
    notes = describe_profile(f"psf: {Path(spec).name}", profile) + warn_instrument(frame, str(parsed.path))
    return replace(stated, psf=str(profile)), notes


def with_factors(parts: Sequence[Part], given: Sequence[Given], joint: Joint, align: str) -> tuple[list[Part], Notes]:
    """The exposures with their fluxes over the first one's, and warnings of a WCS that is off.

    The headers' fluxes count where what both show does not contradict them.
    """
    first = given[0].source.frame
    out, notes = [parts[0]], Notes()
    first_offset = cache(lambda: offset_of(parts[0], joint))
    for part, one in zip(parts[1:], given[1:], strict=True):
        frame = one.source.frame
        stated = stated_ratio(stated_scales(first.unit, first.facts), stated_scales(frame.unit, frame.facts))
        measured, reason = None, ""
        try:
            pair = Pair.read(shown_of(parts[0], joint), shown_of(part, joint))
            if align == "wcs":
                notes += pair.hold_place(one.name, (first_offset(), offset_of(part, joint)))
            measured = pair.scale(joint.quantity == "sum")
        except UnmeasuredError as error:
            reason = str(error)
        factor, more = choose_scale(one.name, stated, measured, reason)
        notes += more
        out.append(replace(part, factor=factor))
    return out, notes


def offset_of(part: Part, joint: Joint) -> NDArray[np.float64]:
    """By what centroids of an exposure's stars differ from their places, (y, x) in px of it."""
    psf, target = part.exposure.psf, joint.target_fwhm or TARGET_FWHM
    if psf is None:
        return np.zeros(2)
    return centroid_offset(psf, part.place, joint.canvas, target, joint_width(part))


def shown_of(part: Part, joint: Joint) -> Shown:
    """An exposure as others are held to it, in the flux of the first one."""
    step = part.place.scale / joint.scale
    maps = ReferenceMap(part.place, joint.scale), ReferenceMap(part.place, joint.scale, back=True)
    area = step**2 if joint.quantity == "sum" else 1.0
    known = Calibration(part.sky, part.factor * area, joint_width(part), step, joint_width_error(part))
    return show_exposure(part.exposure, known, maps)


def without_outliers(joint: Joint, findings: Findings | None = None) -> Joint:
    """The exposures with what contradicts the others masked, where there are three or more.

    Parameters
    ----------
    joint : of exposures from files or in memory.
    findings : keeps what is found in each window of them.
    """
    shown, names = [shown_of(part, joint) for part in joint.parts], [part.name for part in joint.parts]
    if len(joint.parts) < 3:  # of two that differ nobody knows which is right
        return replace(joint, notes=joint.notes + survey_changes(names[1:], shown)) if len(joint.parts) == 2 else joint
    found, notes = survey_outliers(names, shown, findings)
    return replace(joint.masking(found), notes=joint.notes + notes)


def joint_width(part: Part) -> float:
    """FWHM of an exposure's PSF with the target's and the pixel, px of its own."""
    psf = part.exposure.psf
    sigma = 0.0 if psf is None else psf.width
    fine = np.hypot(sigma * FWHM_PER_SIGMA, TARGET_FWHM) / part.place.scale
    return float(np.hypot(fine, FWHM_PER_SIGMA / np.sqrt(12)))


def joint_width_error(part: Part) -> float:
    """Standard error of that FWHM, as a share: that of the PSF; the target and the pixel are exact."""
    psf = part.exposure.psf
    if psf is None or not psf.width_error:
        return 0.0
    own = psf.width * FWHM_PER_SIGMA / part.place.scale
    return psf.width_error * (own / joint_width(part)) ** 2


@dataclass(frozen=True)
class ReferenceMap:
    """Places of an exposure on a grid with pixels as large as the first one's, or back; it pickles."""

    place: Placement
    scale: float
    back: bool = False

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """Of (..., 2) y and x, px."""
        if self.back:
            return self.place.inverse(self.scale * (places + 0.5) - 0.5)
        return np.asarray((self.place(places) + 0.5) / self.scale - 0.5)
