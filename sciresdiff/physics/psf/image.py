"""Images of a PSF: centring, width and shape, and the kernel that lies between two of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sciresdiff.errors import InputError

Array = NDArray[np.float64]

FLOOR = 1e-3
"""Response of the target below which a spatial frequency is not divided out, as a share of the response at 0."""

CENTRED = 1e-3
"""Offset of the centroid, px, below which an image is not resampled."""


def centre_psf(image: Array) -> Array:
    """A PSF from an image of a point source: sky removed, centred, normalised.

    The sky is the median of the outermost tenth of the image; **a PSF that still has wings there loses them**. The
    centroid is that of the pixels above a thousandth of the peak; the image is moved there by whole pixels and then by
    a Fourier shift. Negative lobes are kept.

    Parameters
    ----------
    image : (Y, X) array
        Any unit, at least 3 x 3.

    Returns
    -------
    (K, L) array
        Odd sides, sum 1.

    Raises
    ------
    InputError
        Not 2-D, not finite, no flux, or smaller than 3 px.
    """
    image = np.asarray(image, np.float64)
    if image.ndim != 2 or min(image.shape) < 3:
        raise InputError(f"psf: an image of shape {image.shape}; a PSF is 2-D and has at least 3 x 3 pixels")
    if not np.isfinite(image).all():
        raise InputError("psf: the image of the PSF has NaN or infinite pixels; give one without")
    image = image - np.median(image[_border(image.shape)])
    if not image.sum() > 0 or not image.max() > 0:
        raise InputError("psf: the image of the PSF has no flux above its sky; check the file, or its extension")
    for _ in range(3):  # the threshold of the centroid moves with the image
        image = _recentre(image)
    return image / image.sum()


def _border(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """True in the outermost tenth of an image, a twentieth on every side."""
    inside = np.zeros(shape, bool)
    width = [max(1, n // 20) for n in shape]
    inside[width[0] : -width[0], width[1] : -width[1]] = True
    return ~inside


def _recentre(image: Array) -> Array:
    """The image on an odd grid with its centroid at the centre."""
    weight = np.where(image > 1e-3 * image.max(), image, 0)
    offset = np.array(ndimage.center_of_mass(weight))
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


def fwhm(kernel: NDArray[np.floating]) -> float:
    """Full width at half maximum: diameter of the circle with the area in which the image exceeds half its peak.

    The image is interpolated by splines of order 5 so that the area is known to about a thousandth. What lies above
    half the peak elsewhere in the image counts too.

    Parameters
    ----------
    kernel : (K, L) array
        Without sky, positive at its peak.

    Returns
    -------
    float
        px.
    """
    around = np.pad(kernel, 6)
    rough = float(np.sqrt(np.count_nonzero(around > around.max() / 2) * 4 / np.pi))
    radius = min(int(1.5 * rough) + 4, min(around.shape) // 2)
    peak = np.unravel_index(int(np.argmax(around)), around.shape)
    over = max(1, int(np.ceil(160 / (2 * radius))) * 2)
    line = np.arange(-radius * over, radius * over + 1) / over
    grid = np.meshgrid(peak[0] + line, peak[1] + line, indexing="ij")
    fine = ndimage.map_coordinates(around, grid, order=5, mode="constant")
    return float(np.sqrt(np.count_nonzero(fine > fine.max() / 2) * 4 / np.pi) / over)


def too_narrow(psf_fwhm: float, target_fwhm: float) -> InputError:
    """The error of a PSF that is sharper than the image wanted; both FWHM in fine px."""
    return InputError(
        f"psf: FWHM {psf_fwhm:.3g} fine px is narrower than the target's {target_fwhm:.3g};"
        " give a smaller --target-fwhm, a larger --scale, or a wider PSF"
    )


def difference_kernel(whole: Array, target: Array, *, scale: int | None = None, floor: float = FLOOR) -> Array:
    """The kernel k with target * k = whole, by regularised Fourier division.

    k^ = w^ t^ / (t^2 + floor^2), with t^ the target's response (Tikhonov). The error of
    target * k is at most ``w^ / (1 + (t^ / floor)^2)`` per frequency.

    Parameters
    ----------
    whole : (K, L) array
        PSF, odd sides, centred, sum 1: on the fine grid and integrated over its pixel, or with ``scale`` an effective
        PSF on the low grid; then k is such that target * k summed over ``scale x scale`` pixels is the PSF.
    target : (M, N) array
        PSF of the wanted image on the fine grid, odd sides, centred.
    scale : int, optional
        Fine pixels per low pixel, where ``whole`` is on the low grid.
    floor : float
        Response of the target, relative to the one at 0, below which a frequency is left out.

    Returns
    -------
    (R, R) array
        On the fine grid, odd sides, centred, sum 1; **may have negative lobes**.

    Raises
    ------
    InputError
        The PSF is narrower than the target.
    """
    side = max(*whole.shape, *target.shape) if scale is None else scale * max(*whole.shape, *target.shape)
    n = (side + 2 * max(target.shape)) | 1  # odd, so that it has a centre, and padded against wrapping around
    response = _spectrum(target, n)
    wanted = _spectrum(_taper_edges(whole), n) if scale is None else _coarse_spectrum(whole, scale, n)
    if scale is not None:
        line = _dirichlet(n, scale)
        response = response * np.outer(line, line)
    _check_width(wanted, response)
    # t^ in place of its conjugate: it is real, since the target is symmetric about its centre
    spectrum = wanted * response / (response**2 + floor**2 * response[0, 0] ** 2)
    kernel = np.fft.fftshift(np.fft.ifft2(spectrum).real)
    return _trim(kernel / kernel.sum())


def _spectrum(kernel: Array, n: int) -> NDArray[np.complex128]:
    """Transform of a centred kernel, its centre at the origin."""
    room = np.zeros((n, n))
    top, left = ((n - side) // 2 for side in kernel.shape)
    room[top : top + kernel.shape[0], left : left + kernel.shape[1]] = kernel
    return np.asarray(np.fft.fft2(np.fft.ifftshift(room)))


def _dirichlet(n: int, scale: int) -> Array:
    """Response of a sum over ``scale`` pixels about its centre (for an even number half a pixel off the grid)."""
    f = np.fft.fftfreq(n)
    safe = np.where(f == 0, 0.5, f)
    return np.asarray(np.where(f == 0, scale, np.sin(np.pi * scale * safe) / np.sin(np.pi * safe)))


def _coarse_spectrum(image: Array, scale: int, n: int) -> NDArray[np.complex128]:
    """Transform on the fine grid of an image on the low one: the same up to the low grid's Nyquist, 0 beyond."""
    image = _taper_edges(image)
    y, x = (np.arange(side) - side // 2 for side in image.shape)
    f = np.fft.fftfreq(n) * scale
    inside = (np.abs(f) < 0.5).astype(np.float64)
    rows = np.exp(-2j * np.pi * np.outer(f, y)) * inside[:, None]
    columns = np.exp(-2j * np.pi * np.outer(x, f)) * inside[None, :]
    return np.asarray(rows @ image @ columns * scale**2)


def _taper_edges(image: Array) -> Array:
    """The outer fifth brought to zero smoothly, where the image does not end in zeros: a step would ring."""
    edge = max(np.abs(image[[0, -1]]).max(), np.abs(image[:, [0, -1]]).max())
    if edge < 1e-5 * image.max() or min(image.shape) < 9:
        return image
    lines = []
    for side in image.shape:
        depth = np.minimum(np.arange(side), np.arange(side)[::-1]) + 1
        lines.append(np.sin(np.pi / 2 * np.clip(depth / (0.1 * side + 1), 0, 1)) ** 2)
    out = image * np.outer(*lines)
    return np.asarray(out / out.sum() * image.sum())


def _check_width(wanted: NDArray[np.complex128], response: NDArray[np.complex128]) -> None:
    """Refuse a PSF whose FWHM is below the target's, but for the half per cent that measuring costs."""
    seen, target = (fwhm(_core(np.fft.fftshift(np.fft.ifft2(s).real))) for s in (wanted, response))
    if seen < 0.995 * target:
        raise too_narrow(seen, target)


def _core(image: Array) -> Array:
    """The middle of an image, as far as a half-maximum can lie."""
    n = image.shape[0]
    over = np.count_nonzero(image > image.max() / 2)
    r = min(n // 2, int(2 * np.sqrt(over)) + 8)
    return image[n // 2 - r : n // 2 + r + 1, n // 2 - r : n // 2 + r + 1]


def _trim(kernel: Array, left: float = 1e-5) -> Array:
    """The middle beyond which less than ``left`` of the absolute sum lies, normalised again."""
    n = kernel.shape[0]
    away = np.maximum(*np.abs(np.indices(kernel.shape) - n // 2))
    mass = np.cumsum(np.bincount(away.ravel(), np.abs(kernel).ravel()))
    r = int(np.searchsorted(mass, (1 - left) * mass[-1]))
    cut = kernel[n // 2 - r : n // 2 + r + 1, n // 2 - r : n // 2 + r + 1]
    return np.asarray(cut / cut.sum())
