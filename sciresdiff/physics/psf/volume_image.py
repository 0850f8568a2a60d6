"""An image of a PSF in three dimensions, or of beads, as the kernel on a stack's planes and the output's pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sciresdiff.errors import InputError
from sciresdiff.notes import Notes
from sciresdiff.physics.psf.volume import VolumePSF

Array = NDArray[np.float64]
Place = tuple[float, float, float]

SMOOTH = 1.0
"""Sigma, in voxels, of the Gaussian that peaks are looked for behind."""
SURE = 10.0
"""Height of a bead's peak, behind that Gaussian, in its noise."""
BRIGHT = 0.15
"""The same as a share of the brightest bead's."""
WINGS = 3.0
"""Local means of a bead's wings below so much of their own noise are no light."""
FEWEST_PLANES = 3
"""Of an image of a PSF."""


@dataclass(frozen=True)
class Sampling:
    """Voxels of an image, and those of the kernel that is made of it, in one unit of length."""

    image: Place
    """Sides (z, y, x) of the image's voxels."""
    kernel: Place
    """Sides of the kernel's: distance of the stack's planes, and the output's pixel."""


def kernel_of_image(image: Array, sampling: Sampling, name: str) -> tuple[VolumePSF, Notes]:
    """The kernel that an image of a PSF is, its centre found and its pixel taken off.

    The image has its own pixel in it.  Its spectrum is multiplied by the ratio of the responses of the output's pixel
    and of its own, up to its Nyquist frequency; between its samples it is interpolated by cubic splines.

    Parameters
    ----------
    image : (Z, Y, X), without background.
    sampling : of image and kernel.
    name : for messages.

    Raises
    ------
    InputError : fewer than 3 planes, values that are not finite, no light, or a centre at the edge.
    """
    if image.ndim != 3 or len(image) < FEWEST_PLANES:
        raise InputError(
            f"{name}: has {len(image) if image.ndim == 3 else 1} planes, but a PSF in depth needs {FEWEST_PLANES} or "
            "more, an odd number on both sides of the focus; give another, or --depth plane"
        )
    if not np.isfinite(image).all() or not image.max() > 0:
        raise InputError(f"{name}: a PSF has finite values and light, and this one does not; check it")
    centre = find_centre(image)
    steps = [k / i for k, i in zip(sampling.kernel, sampling.image, strict=True)]
    half = [
        int(np.floor(min(c, n - 1 - c) / step + 1e-6)) for c, n, step in zip(centre, image.shape, steps, strict=True)
    ]
    if half[0] < 1 or min(half[1:]) < 2:
        raise InputError(f"{name}: its light is centred at plane {centre[0]:.1f} of {len(image)}, too near an edge")
    sharp = change_pixel(image, (steps[1], steps[2]))
    lines = [c + step * np.arange(-n, n + 1) for c, n, step in zip(centre, half, steps, strict=True)]
    kernel = ndimage.map_coordinates(sharp, np.meshgrid(*lines, indexing="ij"), order=3, mode="nearest")
    place = ", ".join(f"{c:.1f}" for c in centre)
    line = f"{name}: centred at (z, y, x) {place} of {' x '.join(map(str, image.shape))} voxels; {half[0]} planes of "
    line += "the stack on either side of the focus"
    return VolumePSF.of_array(kernel, name), Notes(line)


def find_centre(image: Array) -> Place:
    """Centre of the light around the peak, (z, y, x): the centroid of what exceeds half the peak near it."""
    smooth = ndimage.gaussian_filter(image, SMOOTH, mode="nearest")
    half = smooth > smooth.max() / 2
    labels, _ = ndimage.label(half)
    at = np.unravel_index(int(smooth.argmax()), smooth.shape)
    core = np.where(labels == labels[at], smooth - smooth.max() / 2, 0)
    return tuple(float(c) for c in ndimage.center_of_mass(core))  # type: ignore[return-value]


def change_pixel(image: Array, sides: tuple[float, float]) -> Array:
    """An image (Z, Y, X) that is integrated over its pixels, integrated over others of these sides (px) instead."""
    pad = [(0, 0)] + [(min(n, 16),) * 2 for n in image.shape[1:]]
    wide = np.pad(image, pad, mode="edge")
    response = []
    for n, side in zip(wide.shape[1:], sides, strict=True):
        f = np.abs(np.fft.fftfreq(n))
        response.append(np.sinc(f * side) / np.sinc(f))  # at most pi / 2, at the Nyquist frequency
    found = np.fft.ifft2(np.fft.fft2(wide) * (response[0][:, None] * response[1])).real
    inside = tuple(slice(before, before + n) for (before, _), n in zip(pad, image.shape, strict=True))
    return np.asarray(found[inside])


def average_beads(stack: Array, name: str) -> tuple[Array, int]:
    """The mean image of the isolated beads of a stack (Z, Y, X), without background; and how many they are.

    Every bead is cut out as far as half the way to the next one and to the edge, less the median of the outermost
    pixels of each of its planes' corners; wings that are not above their noise are 0.  **The size of the beads stays
    in it.**

    Raises
    ------
    InputError : no bead stands alone, or every one is at an edge.
    """
    places = find_beads(stack)
    if not places:
        raise InputError(f"{name}: no bead stands out of its noise; give a stack that shows beads in focus")
    reach = [_free_radius(place, places, stack.shape) for place in places]
    radius = int(np.median([r for r in reach if r >= 4])) if max(reach) >= 4 else 0
    used = [place for place, r in zip(places, reach, strict=True) if r >= radius > 0]
    if not used:
        raise InputError(f"{name}: of {len(places)} beads none stands alone, 4 px from the next and from the edge")
    half = min(min(int(z), len(stack) - 1 - int(np.ceil(z))) for z, _, _ in used)
    if half < 1:
        raise InputError(f"{name}: beads lie at the first or the last of its {len(stack)} planes; give more planes")
    total = np.zeros((2 * half + 1, 2 * radius + 1, 2 * radius + 1))
    for place in used:
        lines = [c + np.arange(-n, n + 1) for c, n in zip(place, (half, radius, radius), strict=True)]
        cut = ndimage.map_coordinates(stack, np.meshgrid(*lines, indexing="ij"), order=3, mode="nearest")
        total += cut - np.median(_shell(cut))
    mean = total / len(used)
    noise = 1.4826 * float(np.median(np.abs(_shell(mean) - np.median(_shell(mean)))))
    local = ndimage.uniform_filter(mean, 3, mode="nearest")
    return np.where(local > WINGS * noise / np.sqrt(27), np.clip(mean, 0, None), 0), len(used)


def find_beads(stack: Array) -> list[Place]:
    """Centres of peaks that stand out of the noise of a stack (Z, Y, X)."""
    smooth = ndimage.gaussian_filter(stack, SMOOTH, mode="nearest")
    level = float(np.median(smooth))
    noise = 1.4826 * float(np.median(np.abs(smooth - level))) or 1e-6 * float(np.ptp(smooth))
    least = level + max(SURE * noise, BRIGHT * (float(smooth.max()) - level))
    tops = np.argwhere((smooth == ndimage.maximum_filter(smooth, 7)) & (smooth > least))
    found = []
    for top in tops:
        here = tuple(slice(max(c - 6, 0), c + 7) for c in top)
        local = find_centre(stack[here] - level)
        found.append(tuple(float(c + s.start) for c, s in zip(local, here, strict=True)))
    return found  # type: ignore[return-value]


def _free_radius(place: Place, places: list[Place], shape: tuple[int, ...]) -> int:
    """Pixels around a bead that are its own."""
    edge = min(min(c, n - 1 - c) for c, n in zip(place[1:], shape[1:], strict=True))
    others = [np.hypot(place[1] - b[1], place[2] - b[2]) / 2 for b in places if b is not place]
    return int(min([edge, *others]))


def _shell(cut: Array) -> Array:
    """The corners of every plane of a cut-out, where a round PSF has least light."""
    side = max(cut.shape[1] // 5, 1)
    ends = (slice(None, side), slice(-side, None))
    return np.concatenate([cut[:, a, b].ravel() for a in ends for b in ends])
