"""The blur of an exposure on the grid of the output, and how well that grid holds it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.signal import fftconvolve

from sciresdiff.errors import InputError
from sciresdiff.notes import Notes
from sciresdiff.observation.placement import Placement
from sciresdiff.physics.affine import Affine
from sciresdiff.physics.psf.field import PSF, SmoothMaps
from sciresdiff.physics.psf.point_sources import Field
from sciresdiff.physics.psf.regrid import regrid_kernels, trim_kernels
from sciresdiff.physics.psf.shapes import FWHM_PER_SIGMA
from sciresdiff.physics.resample import Resampling, corners_of, resample
from sciresdiff.physics.source_list import find_sources
from sciresdiff.region import Region

Array = NDArray[Any]

KNOTS = 8
"""Output px between the knots of a PSF that changes over the field."""
TOLD, MOST = 0.02, 0.1
"""Share of a star's light that lies elsewhere than the PSF says from which it is a warning, and is refused."""
STARS = 3
"""Neighbouring pixels of an exposure on which a star is put for that: they lie differently on the output's grid."""
ROOM, FARTHEST = 4, 24
"""Pixels of an exposure around a star's image, and how far out it is compared at the most."""


def psf_on_grid(psf: PSF | None, own_scale: int, place: Placement, joint: Region) -> PSF:
    """The blur on the output's grid that comes before an exposure's pixels.

    Parameters
    ----------
    psf : the blur on a grid of whole pixels ``own_scale`` times finer than the exposure's; None for none.
    place : the exposure's.
    joint : the canvas of the output, px of its grid.

    Returns
    -------
    PSF
        Of local kernels of sum 1. **It is as it is in the middle of the exposure where a distortion turns or stretches
        it**; its weights follow the distortion.
    """
    kernels = np.ones((1, 1, 1)) if psf is None else psf.kernels
    moved = trim_kernels(regrid_kernels(kernels, place.affine.matrix / own_scale))
    if psf is None or psf.weights is None:
        return PSF(moved / moved.sum(), None, None if psf is None else psf.width_error)
    sums = moved.sum((1, 2))

    def at(y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        here = place.inverse(np.stack([y + joint.y0, x + joint.x0], -1))
        values = weights_at(psf, own_scale * (here + 0.5) - 0.5)
        return np.asarray(values / np.tensordot(sums, values, 1))

    return PSF(moved, SmoothMaps.of_function(at, joint.shape, KNOTS), psf.width_error)


def weights_at(psf: PSF, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (J, ...) at places (..., 2), px of the grid of a PSF that varies; beyond it the nearest's."""
    weights = psf.weights
    if isinstance(weights, SmoothMaps):
        places, maps = (places + np.array(weights.origin)) / weights.step, weights.knots
    else:
        maps = np.asarray(weights)
    places = np.moveaxis(places, -1, 0)
    return np.array([ndimage.map_coordinates(np.float64(one), places, order=1, mode="nearest") for one in maps])


def misplaced_light(
    psf: PSF | None, blur: PSF, own_scale: int, place: Placement, joint: Region, target: float
) -> float:
    """Share of a star's light that lies on other pixels of an exposure than its PSF says, in the mean of a few stars.

    Half the sum of the differences between what comes of the star by the blur on the output's grid and the exposure's
    pixels on it, and what comes of it by the blur on the exposure's own finer grid and block sums.

    Parameters
    ----------
    psf, own_scale, place, joint
        As of `psf_on_grid`.
    blur : what that gives; of one that varies the kernel in the middle of the exposure is looked at.
    target : FWHM of the wanted image's PSF, output px.
    """
    centre = place.affine.middle
    there = place(centre[None])[0]
    own = np.ones((1, 1)) if psf is None else psf.at(*(own_scale * (centre + 0.5) - 0.5))
    here = blur.at(*(there - np.array([joint.y0, joint.x0])))
    wide = max(own.shape) / own_scale, max(here.shape) / place.scale, 6 * target / place.scale
    half = min(int(np.ceil(max(wide) / 2)) + ROOM, FARTHEST)
    pixels, lies = middle_pixels(place, half)
    side, n = pixels.shape[0], pixels.size[0]
    size = side * own_scale
    lost = []
    for k in range(STARS):
        star = np.array([half + k, half + k], float)
        wanted = draw_star((size, size), own_scale * (star + 0.5) - 0.5, target * own_scale / place.scale)
        wanted = fftconvolve(wanted, own, mode="same")
        wanted = wanted.reshape(side, own_scale, side, own_scale).sum((1, 3))
        seen = fftconvolve(draw_star((n, n), lies(star), target), here, mode="same")
        got = pixels.apply(torch.from_numpy(seen)).numpy()
        lost.append(np.abs(wanted / wanted.sum() - got / got.sum())[pixels.coverage].sum() / 2)
    return float(np.mean(lost))


def middle_pixels(place: Placement, half: int) -> tuple[Resampling, Affine]:
    """Pixels like those in the middle of an exposure on a part of the output, and the map of their places.

    Parameters
    ----------
    place : the exposure's.
    half : pixels of it on either side of the first of `STARS` stars.
    """
    centre, matrix, side = place.affine.middle, place.affine.matrix, 2 * half + STARS
    n = int(np.ceil(np.abs(matrix).sum(1).max() * side)) + 2 * ROOM
    # the middle of the exposure lies like this between the pixels of the output
    lies = Affine(matrix, n // 2 + place(np.floor(centre)[None])[0] % 1 - half, np.array([half, half], float))
    return resample(corners_of((side, side), lies), (n, n), torch.float64), lies


def centroid_offset(blur: PSF, place: Placement, joint: Region, target: float, fwhm: float) -> NDArray[np.float64]:
    """By what the centroid of a star in the middle of an exposure differs from its place, (y, x) in px of the exposure.

    It is that of `find_sources`: nothing where the PSF is symmetric, tenths of a pixel where it has a tail.  **Of a PSF
    that varies only the middle is looked at.**

    Parameters
    ----------
    blur, place, joint, target
        As of `misplaced_light`.
    fwhm : of the centroid's weight, px of the exposure.
    """
    here = blur.at(*(place(place.affine.middle[None])[0] - np.array([joint.y0, joint.x0])))
    wide = max(max(here.shape) / place.scale, 6 * target / place.scale, 4 * fwhm)
    half = min(int(np.ceil(wide / 2)) + ROOM, FARTHEST)
    pixels, lies = middle_pixels(place, half)
    star = np.full(2, half + STARS // 2, float)
    seen = fftconvolve(draw_star(pixels.size, lies(star), target), here, mode="same")
    got = pixels.apply(torch.from_numpy(seen)).numpy()
    noise = 1e-3 * float(got.max())
    found = find_sources(Field(got, np.full(got.shape, noise**2), np.zeros(got.shape, bool), noise), fwhm, 1)
    return found.places[0] - star if len(found) else np.zeros(2)


def draw_star(shape: tuple[int, int], place: NDArray[np.float64], fwhm: float) -> NDArray[np.float64]:
    """A star of sum 1 as the wanted image shows it: a Gaussian at the centres of pixels, (Y, X)."""
    sigma = fwhm / FWHM_PER_SIGMA
    lines = (np.exp(-0.5 * ((np.arange(n) - at) / sigma) ** 2) for n, at in zip(shape, place, strict=True))
    star = np.outer(*lines)
    return star / star.sum()


def hold_light(name: str, share: float) -> Notes:
    """A warning where the output's grid misplaces light of an exposure.

    Parameters
    ----------
    name : of the exposure.
    share : of `misplaced_light`.

    Raises
    ------
    InputError : more than `MOST`.
    """
    if share < TOLD:
        return Notes()
    line = f"psf: {name}: on the output's grid {100 * share:.2g} % of a star's light lies elsewhere than its PSF says"
    advice = "give a larger --target-fwhm, or a larger --scale (a finer --grid)"
    if share > MOST:
        raise InputError(f"{line}, and {100 * MOST:g} % are allowed; {advice}")
    return Notes(f"WARNING {line}; {advice}")
