"""How an exposure lies on another one, measured on what both show: `--align measure`, and what the WCS is held to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sciresdiff.errors import InputError, UnmeasuredError
from sciresdiff.notes import Notes
from sciresdiff.physics.affine import ENOUGH, Affine, fit_robustly, match_sources
from sciresdiff.physics.asterism import search_map
from sciresdiff.physics.interpolation import resample_cubic
from sciresdiff.physics.psf.point_sources import Field
from sciresdiff.physics.registration import displacement, find_whole_shift
from sciresdiff.physics.source_list import Sources, find_sources

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
PixelMap = Callable[[Array], Array]
"""Places (..., 2) of y and x, px of one exposure -> px of another."""

OFF = 0.1
"""Displacement from which a WCS is warned of, px."""
SURE = 5.0
"""Standard errors that it must exceed, too."""
BLURS = (0.0, 1.5, 3.0)
"""Standard deviations of the Gaussians of which that counts with which the images tell the displacement best, px."""
TILES = 3
"""Parts per side in which a displacement is measured on images without sources."""
LEAST_TILE = 30
"""Their side at the least, px."""
LEAST_GOOD = 0.5
"""Share of a part's pixels that must be good."""
COMPRESSED = 3.0
"""Standard deviations of the noise from which brightness counts by its logarithm, so that no source decides alone."""
SHARP = 0.03
"""Standard error of the place by sources below which the images are not asked, px."""
UNCERTAIN = 0.5
"""Standard error from which a measured place is refused, px."""


@dataclass(frozen=True)
class Alignment:
    """Where an exposure lies, against where it was said to lie."""

    map: Affine
    """Place on the reference where a source is said to lie -> where it is, px of the reference."""
    error: float
    """Largest standard error per axis in the overlap, px of the reference."""
    method: str
    """``sources`` or ``image``."""
    matches: int
    """Sources, or parts of the image."""
    shape: tuple[int, int]
    """Of the reference."""

    @property
    def move(self) -> Array:
        """(2,) displacement y, x in the middle of the reference, px."""
        return np.asarray(self.map(self.map.middle[None])[0] - self.map.middle)

    @property
    def move_error(self) -> float:
        """Its standard error per axis."""
        return float(self.map.error(self.map.middle[None])[0])

    @property
    def words(self) -> str:
        """The figures, for a line."""
        y, x = self.move
        of = "matched sources" if self.method == "sources" else "parts of the image"
        turned = "" if self.map.rotation == 0 else f", rotation {self.map.rotation:+.4f} deg"
        scaled = "" if self.map.scale == 1 else f", scale {self.map.scale:.6f}"
        return f"shift ({y:+.3f}, {x:+.3f}) px (y, x) +- {self.move_error:.3f}{turned}{scaled}, of {self.matches} {of}"


def measure_alignment(
    reference: Field, other: Field, fwhm: tuple[float, float], to_reference: PixelMap, from_reference: PixelMap
) -> Alignment:
    """Measure where an exposure lies on the reference.

    Sources of both are matched whatever the displacement and rotation; where that is not sharp, the images are
    correlated, too, and the displacement measured in parts. The sharper of the two counts; they may not contradict.
    **Colours, variable and moving sources and PSFs that are not centred are displacements, too.**

    Parameters
    ----------
    reference, other : Field
        The exposures, without sky, with the variance of their pixels.
    fwhm : two floats
        About those of their PSFs, px of each.
    to_reference, from_reference : functions
        Where pixels of ``other`` are said to lie on the reference, and the way back. Without WCS: `middle_on_middle`.

    Raises
    ------
    UnmeasuredError : nothing in common, too little, or several places are possible.
    """
    found: list[Alignment] = []
    reasons: list[str] = []
    for measure in (_align_sources, _align_images):
        try:
            found.append(_believe(measure(reference, other, fwhm, to_reference, from_reference)))
        except UnmeasuredError as error:
            reasons.append(str(error))
        if found and found[0].error < SHARP:
            return found[0]
    if not found:
        raise UnmeasuredError("; ".join(dict.fromkeys(reasons)))
    if len(found) == 2:
        _refuse_contradiction(*found)
    # a few matches tell no rotation, and their error does not know of it
    return min(found, key=lambda one: (one.method == "sources" and one.matches < ENOUGH, one.error))


def _refuse_contradiction(one: Alignment, other: Alignment) -> None:
    """Refuse two measurements of one place that are further apart than their errors allow."""
    places = one.map.middle[None]
    apart = float(np.hypot(*(one.map(places) - other.map(places))[0]))
    allowed = SURE * np.hypot(one.move_error, other.move_error) * np.sqrt(2)
    if apart > max(allowed, OFF):
        raise UnmeasuredError(
            f"the sources and the images say different shifts: {one.words}; {other.words}; {apart:.2f} px apart"
        )


def _align_sources(
    reference: Field, other: Field, fwhm: tuple[float, float], to_reference: PixelMap, from_reference: PixelMap
) -> Alignment:
    """The place by the sources of both."""
    shape = (reference.flat.shape[0], reference.flat.shape[1])
    middle = (np.array(shape) - 1) / 2
    here, there = find_sources(other, fwhm[1]), find_sources(reference, fwhm[0])
    said = _carry(here, to_reference)
    reach = max(1.0, 0.5 * fwhm[0])
    start = search_map(said, there, 1.0, middle, reach)
    found = match_sources(said, there, start, 1.5 * reach, middle)
    places = there.places[found.pairs[:, 1]]
    error = float(found.map.error(places).max())
    return Alignment(found.map, error, "sources", len(found.pairs), shape)


def _believe(found: Alignment) -> Alignment:
    """The same, if its error is small enough."""
    if not found.error < UNCERTAIN:
        raise UnmeasuredError(f"the place is uncertain by {found.error:.2g} px ({found.matches} matches)")
    return found


def _carry(sources: Sources, to_reference: PixelMap) -> Sources:
    """Sources with their places and errors in px of the reference."""
    if not len(sources):
        return sources
    places = to_reference(sources.places)
    step = to_reference(sources.places + [1.0, 0.0]) - places
    return Sources(places, sources.errors * np.hypot(*step.T), sources.light)


def middle_on_middle(shape: tuple[int, int], other: tuple[int, int], scale: float = 1.0) -> tuple[PixelMap, PixelMap]:
    """Maps of frames without WCS: their middles lie on each other.

    Parameters
    ----------
    shape, other : (h, w) of the reference and of the exposure.
    scale : px of the reference per px of the exposure.
    """
    a, b = (np.array(shape) - 1) / 2, (np.array(other) - 1) / 2
    return (lambda p: np.asarray((p - b) * scale + a)), (lambda p: np.asarray((p - a) / scale + b))


def _align_images(
    reference: Field, other: Field, fwhm: tuple[float, float], to_reference: PixelMap, from_reference: PixelMap
) -> Alignment:
    """The place by the images as they are, whatever they show."""
    shape = (reference.flat.shape[0], reference.flat.shape[1])
    middle = (np.array(shape) - 1) / 2
    grid = np.moveaxis(np.indices(shape).astype(float), 0, -1)
    planes = [(reference.flat, ~reference.bad), _laid(other, from_reference, grid)]
    if not planes[1][1].any():
        raise UnmeasuredError("the exposures do not overlap")
    noise = [max(reference.sigma, 1e-300), max(other.sigma, 1e-300)]
    one, two = (np.arcsinh(v / (COMPRESSED * s)) for (v, _), s in zip(planes, noise, strict=True))
    whole = find_whole_shift(one, two, planes[0][1], planes[1][1])
    moved = np.array([whole.y, whole.x], float)
    laid, good = _laid(other, from_reference, grid + moved)
    both = good & planes[0][1]
    pair = np.arcsinh(laid / (COMPRESSED * noise[1])), one
    found = [_align_parts(pair, both, blur, moved, middle) for blur in BLURS]
    some = [alignment for alignment in found if alignment is not None]
    if not some:
        raise UnmeasuredError("no part of the images has structure in common")
    return min(some, key=lambda alignment: alignment.error)


def _align_parts(pair: tuple[Array, Array], good: Mask, blur: float, moved: Array, middle: Array) -> Alignment | None:
    """The place by parts of two images after a Gaussian blur; None where they have nothing in common."""
    blurred = [_blur(image, good, blur) for image in pair]
    parts = _displace_parts(blurred[0], blurred[1], good)
    if not parts:
        return None
    places, steps, errors = (np.array(v) for v in zip(*parts, strict=True))
    # a source that is said to lie at p + moved lies at p + step
    kind = "similarity" if len(places) >= 4 else "shift"
    found, kept, _ = fit_robustly(places + moved, places + steps, errors, kind, middle)
    error = float(found.error(places[kept]).max())
    return Alignment(found, error, "image", int(kept.sum()), (good.shape[0], good.shape[1]))


def _blur(image: Array, good: Mask, sigma: float) -> Array:
    """A Gaussian blur over the good pixels."""
    if not sigma:
        return image
    weight = gaussian_filter(good.astype(float), sigma)
    return np.asarray(gaussian_filter(np.where(good, image, 0), sigma) / np.maximum(weight, 1e-3))


def _laid(other: Field, from_reference: PixelMap, places: Array) -> tuple[Array, Mask]:
    """An exposure at places (h, w, 2) of the reference, and where it is valid."""
    at = np.moveaxis(from_reference(places), -1, 0)
    laid = resample_cubic(other.flat, np.zeros(other.flat.shape), other.bad, at)
    return np.where(laid.valid, laid.values, 0), laid.valid


def _displace_parts(laid: Array, reference: Array, good: Mask) -> list[tuple[Array, Array, float]]:
    """Middle, displacement (y, x) and its error of the parts of two images that have structure in common, px."""
    h, w = reference.shape
    n = [int(np.clip(size // LEAST_TILE, 1, TILES)) for size in (h, w)]
    rows, columns = (np.linspace(0, size, count + 1).astype(int) for size, count in zip((h, w), n, strict=True))
    found = []
    for y0, y1 in zip(rows[:-1], rows[1:], strict=True):
        for x0, x1 in zip(columns[:-1], columns[1:], strict=True):
            cut = np.s_[y0:y1, x0:x1]
            if good[cut].mean() < LEAST_GOOD:
                continue
            try:
                one = displacement(laid[cut], reference[cut], good[cut])
            except UnmeasuredError:
                continue
            if np.isfinite(one.error) and max(abs(one.y), abs(one.x)) < 3:
                middle = np.array([(y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2])
                found.append((middle, np.array([one.y, one.x]), max(one.error, 1e-3)))
    return found


def describe_alignment(name: str, found: Alignment) -> Notes:
    """The line about an exposure whose place was measured.

    Parameters
    ----------
    name : of its file.
    found : its place.
    """
    return Notes(f"align: {name}: {found.words}", align="measured")


def hold_wcs(name: str, found: Alignment) -> Notes:
    """A warning where an exposure does not lie where its WCS says, by more than 0.1 px and 5 standard errors.

    Parameters
    ----------
    name : of its file.
    found : its place against that of the WCS.
    """
    h, w = found.shape
    corners = np.array([(y, x) for y in (0, (h - 1) / 2, h - 1) for x in (0, (w - 1) / 2, w - 1)], float)
    off = np.hypot(*(found.map(corners) - corners).T)
    sure = off > np.maximum(OFF, SURE * np.sqrt(2) * found.map.error(corners))
    if not sure.any():
        return Notes()
    return Notes(
        f"WARNING align: {name}: its sources lie up to {off[sure].max():.2f} px from where its WCS has them"
        f" ({found.words}); --align measure uses what is measured"
    )


def refuse_alignment(name: str, error: UnmeasuredError) -> InputError:
    """The error of an exposure whose place cannot be measured.

    Parameters
    ----------
    name : of its file.
    error : why.
    """
    return InputError(f"--align measure: {name}: {error}; give files with a WCS, or leave this one out")
