"""The image of a point source as a PSF: its light found, brought to the centre, its sky removed, normalised."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sciresdiff.errors import InputError
from sciresdiff.notes import Notes

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

CENTRED = 1e-3
"""Offset of the centroid, px, below which an image is not resampled."""
BRIGHT = 0.05
"""Share of the peak from which a pixel tells where the light lies."""
BOTH_ENDS = 0.03
"""Share of the light at each end of an axis from which it wraps around the image's border."""
MIDDLE = 0.35
"""Share of the light in the middle half of an axis above which it does not."""
CUT = 0.2
"""Share of the peak at the border from which light off the centre is taken to be cut off."""
APART = 3.0
"""Distance from the peak, in its own FWHM, from which a pixel above half of it is a second source."""
TOLD_SKY = 0.01
"""Share of the light that a removed sky has to have to be told."""
FLAT, SMALL = 0.05, 16
"""Share of the peak by which a border may vary and be sky, and sides of stamps that are looked at for it, px."""
NEGLIGIBLE = 1e-5
"""Share of the absolute light beyond a radius from which on a stamp is cut."""
FEWEST = 12
"""Pixels on each side of its centre that a stamp keeps, however little light they have."""
TOLD_NOISE = 1e-3
"""Share of the light in what is cut off as noise from which it is told."""


def centre_psf(image: Array, name: str = "psf") -> Array:
    """A PSF from an image of a point source: see `describe_centring`, which also tells what was done."""
    return describe_centring(image, name)[0]


def describe_centring(image: Array, name: str = "psf") -> tuple[Array, Notes]:
    """A PSF from an image of a point source: sky removed, centred, normalised; and what was done to it.

    - Pixels that are NaN or infinite count as empty; among the light they are refused.
    - Light that lies at both ends of an axis wraps around the border, as Fourier transforms put it; along that axis the
      image is rolled.  Each axis by itself.
    - The sky is the median of the outermost tenth of the image; **a PSF that still has wings there loses them**.  Where
      the border is not flat, the light is cut off there: the sky is the lowest value of the border, with a warning.
    - What lies beyond the light, empty or noise, is cut off.
    - The centroid is that of the pixels above a thousandth of the peak; the image is moved there by whole pixels and
      then by a Fourier shift.  Negative lobes are kept.

    Parameters
    ----------
    image : (Y, X) array
        Any unit, at least 3 x 3.
    name : str
        Of the file, for messages.

    Returns
    -------
    psf : (K, L) array
        Odd sides, sum 1.
    notes : Notes
        A line for each thing done that a centred stamp without sky does not need.

    Raises
    ------
    InputError
        Not 2-D, smaller than 3 px, NaN among the light, no flux, light at the border or at two places.
    """
    image = np.asarray(image, np.float64)
    if image.ndim != 2 or min(image.shape) < 3:
        raise InputError(f"{name}: an image of shape {image.shape}; a PSF is 2-D and has at least 3 x 3 pixels")
    finite = np.isfinite(image)
    if not finite.any():
        raise InputError(f"{name}: every pixel of the PSF is NaN or infinite; check the file, or its extension")
    image, finite, notes = unwrap(image, finite, name)
    image, of_sky = remove_sky(image, finite, name)
    if not image.sum() > 0 or not image.max() > 0:
        raise InputError(f"{name}: the image of the PSF has no flux above its sky; check the file, or its extension")
    notes += _note_missing(image, finite, name) + of_sky
    refuse_astray(image, name)
    moved = _offset(image) - (np.array(image.shape) - 1) / 2
    if np.abs(moved).max() > 1:
        notes += Notes(f"{name}: its light lies {moved[0]:+.1f}, {moved[1]:+.1f} px (y, x) off the middle; centred")
    image, of_wings = cut_empty(image, name)
    notes += of_wings
    for _ in range(3):  # the threshold of the centroid moves with the image
        image = _recentre(image)
    return image / image.sum(), notes


def unwrap(image: Array, finite: Mask, name: str = "psf") -> tuple[Array, Mask, Notes]:
    """The image with light that wraps around a border brought together, along each axis where it does.

    Parameters
    ----------
    image, finite : (Y, X) arrays
    name : str
        Of the file, for messages.
    """
    above = np.where(finite, image - np.median(image[finite]), 0)
    light = np.where(above > BRIGHT * above.max(), above, 0)
    axes = [axis for axis in (0, 1) if image.shape[axis] >= 8 and _wraps(light.sum(1 - axis))]
    if not axes:
        return image, finite, Notes()
    for axis in axes:
        line = light.sum(1 - axis)
        n = len(line)
        # the mean on a circle has no border to be cut at
        mean = np.angle((line * np.exp(2j * np.pi * np.arange(n) / n)).sum()) * n / (2 * np.pi)
        shift = n // 2 - round(float(mean))
        image, finite = np.roll(image, shift, axis), np.roll(finite, shift, axis)
    where = "in the corners" if len(axes) == 2 else f"on both borders along {'yx'[axes[0]]}"
    return image, finite, Notes(f"{name}: its light lies {where}, as Fourier transforms put it; rolled to the middle")


def _wraps(line: Array) -> bool:
    """Whether light along an axis lies at both ends and not between."""
    total, end = line.sum(), -(-len(line) // 4)
    if not total > 0:
        return False
    ends = line[:end].sum() / total, line[-end:].sum() / total
    return min(ends) > BOTH_ENDS and 1 - sum(ends) < MIDDLE


def remove_sky(image: Array, finite: Mask, name: str = "psf") -> tuple[Array, Notes]:
    """The image without its sky, and what that was, where it matters.

    Parameters
    ----------
    image, finite : (Y, X) arrays
    name : str
        Of the file, for messages.
    """
    border = _border(image.shape) & finite
    values = image[border] if border.any() else image[finite]
    sky, top = float(np.median(values)), float(image[finite].max())
    # a sky is flat; the wings of a PSF are fainter in the corners of its stamp than at the middle of its sides
    reach = float(np.ptp(values)) / (top - sky) if top > sky else 0.0
    truncated = reach > FLAT and min(image.shape) < SMALL
    sky = float(values.min()) if truncated else sky
    above = np.where(finite, image - sky, 0)
    light = above.sum()
    if truncated:
        return above, Notes(
            f"WARNING {name}: its light reaches the border ({100 * reach:.2g} % of the peak), where its wings are cut; "
            "give a larger image"
        )
    if light > 0 and abs(sky * finite.sum() / light) > TOLD_SKY:
        return above, Notes(
            f"{name}: a sky of {sky:.3g}, the median of its border, is removed; wings that reach it are lost"
        )
    return above, Notes()


def cut_empty(image: Array, name: str = "psf") -> tuple[Array, Notes]:
    """The square about the light that holds all of it: beyond, there is less than 1e-5 of it, or noise.

    Noise is told from wings by the mean over rings: within three times its error, with the scatter of the border.

    Parameters
    ----------
    image : (Y, X) array
        Without sky.
    name : str
        Of the file, for messages.
    """
    y, x = (round(float(at)) for at in _offset(image))
    rows, columns = np.indices(image.shape)
    ring = np.maximum(np.abs(rows - y), np.abs(columns - x)).ravel()
    flat = image.ravel()
    count, sums, sizes = np.bincount(ring), np.bincount(ring, flat), np.bincount(ring, np.abs(flat))
    radius = int(np.searchsorted(np.cumsum(sizes), (1 - NEGLIGIBLE) * sizes.sum()))
    edge = image[_border(image.shape)]
    noise = 1.4826 * float(np.median(np.abs(edge - np.median(edge))))
    seen = np.flatnonzero(np.abs(sums) > 3 * noise * np.sqrt(count))
    radius = max(min(radius, int(seen.max()) + 2 if noise > 0 and len(seen) else radius), FEWEST)
    left = float(sums[radius + 1 :].sum() / flat.sum())
    inside = image[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
    if abs(left) < TOLD_NOISE:
        return inside, Notes()
    return inside, Notes(
        f"{name}: beyond {radius} px of its middle there is only noise, with {100 * left:.2g} % of the light; cut off"
    )


def _border(shape: tuple[int, ...]) -> Mask:
    """True in the outermost tenth of an image, a twentieth on every side."""
    inside = np.zeros(shape, bool)
    width = [max(1, n // 20) for n in shape]
    inside[width[0] : -width[0], width[1] : -width[1]] = True
    return ~inside


def _note_missing(image: Array, finite: Mask, name: str) -> Notes:
    """Note pixels without a value; refuse them where the light is."""
    if finite.all():
        return Notes()
    light = ndimage.binary_dilation(image > BRIGHT * image.max())
    if (light & ~finite).any():
        raise InputError(
            f"{name}: {int((light & ~finite).sum())} pixels among the PSF's light are NaN or infinite; give an image "
            "whose core is whole"
        )
    return Notes(f"{name}: {int((~finite).sum())} pixels that are NaN or infinite count as empty")


def refuse_astray(image: Array, name: str = "psf") -> None:
    """Refuse a PSF whose light runs off its image, or lies at two places.

    Parameters
    ----------
    image : (Y, X) array
        Without sky.
    name : str
        Of the file, for messages.

    Raises
    ------
    InputError
        Says where the light lies.
    """
    peak = np.array(np.unravel_index(int(np.argmax(image)), image.shape))
    top = image.max()
    over = image > top / 2
    label, _ = ndimage.label(over, np.ones((3, 3)))
    own = label == label[tuple(peak)]
    width = 2 * np.sqrt(own.sum() / np.pi)
    size, middle = " x ".join(map(str, image.shape)), (np.array(image.shape) - 1) / 2
    edge = max(image[[0, -1]].max(), image[:, [0, -1]].max())
    off = np.abs(peak - middle) / np.array(image.shape)
    if off.max() > 0.25 and edge > CUT * top:
        raise InputError(
            f"{name}: its light lies at y {peak[0]}, x {peak[1]} of {size} px, cut off by the border; give an image "
            "that has all of it, best in the middle"
        )
    far = np.hypot(*(np.indices(image.shape) - peak[:, None, None])) > max(APART * width, 3)
    if (over & far).any():
        y, x = np.unravel_index(int(np.argmax(np.where(far, image, -np.inf))), image.shape)
        raise InputError(
            f"{name}: it has light at y {peak[0]}, x {peak[1]} and at y {y}, x {x} of {size} px; give an image of one "
            "point source"
        )


def _offset(image: Array) -> Array:
    """Centroid (y, x) of the pixels above a thousandth of the peak."""
    return np.array(ndimage.center_of_mass(np.where(image > 1e-3 * image.max(), image, 0)))


def _recentre(image: Array) -> Array:
    """The image on an odd grid with its centroid at the centre."""
    offset = _offset(image)
    whole = np.rint(offset).astype(int)
    radius = [n // 2 for n in image.shape]
    padded = np.pad(image, [(r, r) for r in radius])
    out = padded[whole[0] : whole[0] + 2 * radius[0] + 1, whole[1] : whole[1] + 2 * radius[1] + 1]
    part = offset - whole
    if np.abs(part).max() < CENTRED:
        return np.asarray(out)
    room = np.pad(out, 8)  # a Fourier shift wraps around
    moved = np.fft.ifft2(ndimage.fourier_shift(np.fft.fft2(room), -part)).real
    return np.asarray(moved[8:-8, 8:-8])
