"""The file of a PSF as the blur on the output grid, or as an image on the frame's pixels."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from sciresdiff.errors import InputError
from sciresdiff.frame import PixelSize
from sciresdiff.io.psf_file import PSFFile, read_psf_file
from sciresdiff.io.psf_places import Polynomial, Positions
from sciresdiff.notes import Notes
from sciresdiff.physics.psf.centre import describe_centring, refuse_astray
from sciresdiff.physics.psf.field import PSF, SmoothMaps
from sciresdiff.physics.psf.image import difference_kernel, divide, edge_window, ends_in_light, resample, trim_radius
from sciresdiff.physics.psf.spec import PSFSpec

Array = NDArray[np.float64]

KNOTS = 8
"""Output pixels between places where the weights of a varying PSF are computed."""
COMPRESSED = 5e-4
"""Share of a kernel's absolute sum by which principal components may differ from it at any place."""
PLACES = 9
"""Places along each axis of a frame at which that is looked at."""
TOLD_WINGS, LOST_WINGS, MOST_LOST = 1e-4, 0.01, 0.5
"""Share of the light beyond a frame's size from which it is told, is a warning, and is refused."""


def open_psf(psf: PSFSpec, size: tuple[int, int] | None = None) -> PSFFile:
    """The file that a SPEC names, with what it states after the name.

    Parameters
    ----------
    psf : PSFSpec
        Of a file.
    size : (int, int), optional
        (h, w) of the frame.
    """
    return read_psf_file(str(psf.path), {name: value for name, (value, _) in psf.params.items()}, size)


def kernels_of_file(
    found: PSFFile, planes: int, pixel: PixelSize | None, scale: int, target: Array, size: tuple[int, int] | None = None
) -> tuple[list[Array], Notes]:
    """The kernels of a file with one image, or one for each plane of the frame.

    Parameters
    ----------
    found : PSFFile
        Without places.
    planes : int
        Of the frame.
    pixel : PixelSize or None
        Of the frame.
    scale : int
        Output pixels per pixel of the frame and axis.
    target : (M, M) array
        PSF of the wanted image on the output grid.
    size : (int, int), optional
        (h, w) of the frame: what reaches farther is cut.

    Returns
    -------
    kernels : list of (K, L) arrays
        One, or ``planes``.
    notes : Notes
    """
    if len(found.images) not in (1, planes):
        raise InputError(
            f"{found.name}: {len(found.images)} images for a frame of {planes} planes; give one 2-D image, a cube with "
            "an image for each plane, or an extension with FILE[EXT]"
        )
    step, effective, notes = found.sampling.of_frame(pixel, found.name)
    notes, kernels = found.notes + notes, []
    for i, one in enumerate(found.images):
        name = found.name if len(found.images) == 1 else f"{found.name}, plane {i}"
        image, more = describe_centring(one, name)
        if size is not None:
            image = _crop(image, [2 * int(n / s) + 1 for n, s in zip(size, step, strict=True)])
        notes += more
        kernels.append(_kernel(image / image.sum(), target, step, effective, scale))
    return kernels, notes


def _kernel(image: Array, target: Array, step: tuple[float, float], effective: bool, scale: int) -> Array:
    fine = step[0] * scale, step[1] * scale
    return difference_kernel(image, target, scale=scale, step=fine, effective=effective)


def image_of_file(psf: PSFSpec, pixel: PixelSize | None, plane: int = 0) -> tuple[Array, Notes]:
    """The PSF of a file as the frame's pixels show it; one that varies over the field as it is in its middle.

    Parameters
    ----------
    psf : PSFSpec
        Of a file.
    pixel : PixelSize or None
        Of the frame.
    plane : int
        Number of the frame's plane.

    Returns
    -------
    image : (K, L) array
        Odd sides, centred, sum 1.
    notes : Notes
    """
    found = open_psf(psf)
    step, effective, notes = found.sampling.of_frame(pixel, found.name)
    if found.field is not None:
        one = np.tensordot(found.field.weights(*map(np.asarray, found.field.middle)), found.images, 1)
    else:
        one = found.images[min(plane, len(found.images) - 1)]
    image, more = describe_centring(one, found.name)
    notes = found.notes + notes + more
    return (image if step == (1.0, 1.0) else resample(image, step, effective)), notes


def field_of_file(
    found: PSFFile,
    pixel: PixelSize | None,
    scale: int,
    target: Array,
    size: tuple[int, int],
    origin: tuple[float, float] | None,
) -> tuple[PSF, Notes]:
    """The PSF of a file whose images belong to places of the frame; its own centre is kept.

    Parameters
    ----------
    found : PSFFile
        With places.
    pixel, scale, target
        As for `kernels_of_file`.
    size : (int, int)
        (h, w) of the frame.
    origin : (float, float) or None
        Where the frame's first pixel lies in the pixels of the places, (y, x); None where that is not known: the PSF is
        then that of the middle of the places, everywhere.

    Returns
    -------
    psf : PSF
        On the output grid; the sum of the local kernel is 1 everywhere.
    notes : Notes
    """
    assert found.field is not None
    step, effective, notes = found.sampling.of_frame(pixel, found.name)
    images, fine = _odd(found.images), (step[0] * scale, step[1] * scale)
    middle = found.field.weights(*map(np.asarray, found.field.middle))
    central = np.tensordot(middle, images, 1)
    refuse_astray(central, found.name)
    if ends_in_light(central):
        images = images * edge_window(images.shape[1:])
    kernel = _kernel(central / central.sum(), target, step, effective, scale)  # refuses what is too narrow
    if origin is None:
        return PSF.constant(kernel), found.notes + notes
    whole = np.stack([divide(one, target, scale=scale, step=fine, effective=effective, part=True) for one in images])
    places = np.meshgrid(*(np.linspace(first, first + n - 1, PLACES) for first, n in zip(origin, size, strict=True)))
    weights = found.field.weights(places[0].ravel(), places[1].ravel()).T
    local = (np.tensordot(one, whole, 1) for one in weights[:: PLACES - 1])
    side = 2 * max(trim_radius(one) for one in local) + 1
    (h, w), side = size, min(side, whole.shape[-1])
    _, more = fit_to_frame(_crop(kernel, [side, side]), (scale * h, scale * w), found.name)
    kernels = np.stack([_crop(one, [min(side, scale * n - 1 + scale * n % 2) for n in size]) for one in whole])
    mixing, kernels = compress(kernels, weights)
    at = partial(local_weights, found.field, origin, scale, mixing, kernels.sum((1, 2)))
    maps = SmoothMaps.of_function(at, (scale * h, scale * w), KNOTS)
    return PSF(kernels, maps), found.notes + notes + more


def local_weights(
    field: Polynomial | Positions,
    origin: tuple[float, float],
    scale: int,
    mixing: Array,
    sums: Array,
    y: Array,
    x: Array,
) -> Array:
    """Weights of basis kernels at places of the output grid, such that the local kernel has sum 1.

    Parameters
    ----------
    field : Polynomial or Positions
        Of the images.
    origin, scale
        As for `field_of_file`.
    mixing : (images, J) array
        How much of every basis kernel is in an image.
    sums : (J,) array
        Of the basis kernels.
    y, x : (...) arrays
        Output pixels from the centre of the first one.

    Returns
    -------
    (J, ...) array
    """
    low = [(at + 0.5) / scale - 0.5 + first for at, first in zip((y, x), origin, strict=True)]
    weights = np.tensordot(mixing.T, field.weights(low[0], low[1]), 1)
    return np.asarray(weights / np.tensordot(sums, weights, 1))


def compress(kernels: Array, weights: Array) -> tuple[Array, Array]:
    """Kernels as sums of fewer: the principal components of what they add up to, as many as `COMPRESSED` needs.

    Parameters
    ----------
    kernels : (I, K, L) array
        Of the images.
    weights : (P, I) array
        Of the images at places all over the frame.

    Returns
    -------
    mixing : (I, J) array
        How much of every basis kernel is in an image's.
    basis : (J, K, L) array
    """
    flat = kernels.reshape(len(kernels), -1)
    local = weights @ flat
    _, _, modes = np.linalg.svd(local, full_matrices=False)
    size = np.abs(local).sum(1)
    for rank in range(1, len(modes) + 1):
        mixing, basis = flat @ modes[:rank].T, modes[:rank]
        if (np.abs(local - weights @ mixing @ basis).sum(1) <= COMPRESSED * size).all():
            break
    return mixing, basis.reshape(-1, *kernels.shape[1:])


def fit_to_frame(kernel: Array, size: tuple[int, ...], name: str = "psf") -> tuple[Array, Notes]:
    """A kernel cut to the size of the frame, which it has to fit into.

    Parameters
    ----------
    kernel : (K, L) array
        Odd sides.
    size : (int, int)
        (Y, X) of the output grid.
    name : str
        Of the file or option, for messages.

    Returns
    -------
    kernel : (M, N) array
        The same sum; **light beyond the frame's size is spread over the rest**.
    notes : Notes
        How much light that is, where it is not negligible.

    Raises
    ------
    InputError
        Most of its light lies beyond the frame.
    """
    if all(k <= n for k, n in zip(kernel.shape, size, strict=True)):
        return kernel, Notes()
    cut = _crop(kernel, [n - 1 + n % 2 for n in size])
    lost = float(1 - cut.sum() / kernel.sum())
    if lost > MOST_LOST:
        raise InputError(
            f"{name}: {100 * lost:.2g} % of its light lies beyond the frame's {size[0]} x {size[1]} output px; check "
            "its unit and the pixel size, or give a narrower one"
        )
    line = (
        f"{name}: cut to the frame's {size[0]} x {size[1]} output px, beyond which {100 * lost:.2g} % of its light lies"
    )
    notes = Notes() if abs(lost) < TOLD_WINGS else Notes(f"WARNING {line}" if abs(lost) > LOST_WINGS else line)
    return cut * (kernel.sum() / cut.sum()), notes


def _crop(image: Array, most: list[int]) -> Array:
    """The middle of an image of odd sides, at most so many pixels (odd) a side."""
    cuts = [max(0, (n - m) // 2) for n, m in zip(image.shape, most, strict=True)]
    return image[cuts[0] : image.shape[0] - cuts[0], cuts[1] : image.shape[1] - cuts[1]]


def _crop_all(kernels: Array, radius: int) -> Array:
    """The middle of every kernel."""
    n = kernels.shape[-1] // 2
    return kernels[:, n - radius : n + radius + 1, n - radius : n + radius + 1]


def _odd(images: Array) -> Array:
    """Images of odd sides about the same centre: a half-pixel shift where a side is even."""
    for axis in (1, 2):
        n = images.shape[axis]
        if n % 2 == 0:
            f = np.fft.fftfreq(n + 8)
            room = np.pad(images, [(0, 8 if a == axis else 0) for a in range(3)])
            wave = np.exp(-1j * np.pi * f).reshape([-1 if a == axis else 1 for a in range(3)])
            moved = np.fft.ifft(np.fft.fft(room, axis=axis) * wave, axis=axis).real
            images = np.take(moved, np.arange(n + 1), axis=axis)
    return images
