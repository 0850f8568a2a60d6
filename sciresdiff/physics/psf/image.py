"""Images of a PSF: width, another sampling, and the kernel that lies between two of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sciresdiff.errors import InputError

Array = NDArray[np.float64]

FLOOR = 1e-3
"""Response of the target below which a spatial frequency is not divided out, as a share of the response at 0."""

MOST_NEGATIVE = 1.8
"""Negative light of a kernel, in units of its sum. Gaussians as wide as the target have up to 1.74; a single bright
pixel on the low grid has 2.4 to 6.2 at x4 to x2, and Richardson-Lucy then runs away."""

ROLL_OFF = 0.2
"""Width, in cycles per pixel of an image, over which its spectrum falls to zero about the Nyquist frequency."""


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


class TooNarrowError(InputError):
    """A PSF that is sharper than the image wanted, or has finer detail."""


def too_narrow(psf_fwhm: float, target_fwhm: float) -> TooNarrowError:
    """The error of a PSF that is sharper than the image wanted; both FWHM in fine px."""
    return TooNarrowError(
        f"psf: FWHM {psf_fwhm:.3g} fine px is narrower than the target's {target_fwhm:.3g};"
        " give a smaller --target-fwhm, a larger --scale, or a wider PSF"
    )


def difference_kernel(
    whole: Array,
    target: Array,
    *,
    scale: int | None = None,
    step: tuple[float, float] | None = None,
    effective: bool = True,
    floor: float = FLOOR,
) -> Array:
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
        Fine pixels per low pixel, where ``whole`` is not on the fine grid.
    step : (float, float), optional
        Fine pixels along y and x per pixel of ``whole``; ``scale`` where it is sampled like the low grid.
    effective : bool
        With ``scale``: whether ``whole`` has the low pixel in it, else only its own pixel.
    floor : float
        Response of the target, relative to the one at 0, below which a frequency is left out.

    Returns
    -------
    (R, R) array
        On the fine grid, odd sides, centred, sum 1; **may have negative lobes**.

    Raises
    ------
    TooNarrowError
        The PSF is narrower than the target, or has finer detail.
    """
    kernel = divide(whole, target, scale=scale, step=step, effective=effective, floor=floor)
    kernel = kernel / kernel.sum()
    if (below := -kernel[kernel < 0].sum()) > MOST_NEGATIVE:
        raise TooNarrowError(
            f"psf: it has finer detail than the target: the kernel between the two has {below:.2g} times its light in"
            " negative lobes; give a smaller --target-fwhm, a larger --scale, a wider PSF, or one on a finer grid"
        )
    return _trim(kernel)


def divide(
    whole: Array,
    target: Array,
    *,
    scale: int | None = None,
    step: tuple[float, float] | None = None,
    effective: bool = True,
    floor: float = FLOOR,
    part: bool = False,
) -> Array:
    """The kernel of `difference_kernel` with all of its wings: linear in ``whole``, whose sum may be any.

    Parameters
    ----------
    whole, target, scale, step, effective, floor
        As for `difference_kernel`.
    part : bool
        Whether ``whole`` is one of several images that add up to a PSF: then its edges are as they are, and its width
        is not checked.

    Returns
    -------
    (R, R) array
        On the fine grid, odd sides, centred.
    """
    if scale is not None and step is None:
        step = (float(scale), float(scale))
    reach = max(int(np.ceil(n * s)) for n, s in zip(whole.shape, step or (1.0, 1.0), strict=True))
    n = (max(reach, *target.shape) + 2 * max(target.shape)) | 1  # odd, so that it has a centre, and padded
    response, image = _spectrum(target, n), whole if part else _taper_edges(whole)
    wanted = _spectrum(image, n) if step is None else resampled_spectrum(image, step, n, effective)
    if scale is not None and effective:
        line = _dirichlet(n, scale) / scale
        response = response * np.outer(line, line)
    if not part:
        _check_width(wanted, response)
    # t^ in place of its conjugate: it is real, since the target is symmetric about its centre
    spectrum = wanted * response / (response**2 + floor**2 * response[0, 0] ** 2)
    return np.asarray(np.fft.fftshift(np.fft.ifft2(spectrum).real))


def resample(image: Array, step: tuple[float, float], effective: bool = True) -> Array:
    """A PSF on another grid, by Fourier series.

    Parameters
    ----------
    image : (K, L) array
        Odd sides, centred.
    step : (float, float)
        Pixels of the new grid along y and x per pixel of the image.
    effective : bool
        Whether the new grid's pixel is in the image already; else the image, which has its own pixel in it, is
        integrated over the new one.

    Returns
    -------
    (R, R) array
        Odd sides, centred, sum 1. **Detail finer than two new pixels is lost.**
    """
    n = (max(int(np.ceil(side * s)) for side, s in zip(image.shape, step, strict=True)) + 2) | 1
    values = np.fft.fftshift(np.fft.ifft2(resampled_spectrum(_taper_edges(image), step, n, effective)).real)
    return np.asarray(values / values.sum())


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


def resampled_spectrum(
    image: Array, step: tuple[float, float], n: int, effective: bool = True
) -> NDArray[np.complex128]:
    """Transform, on a grid of n x n pixels, of an image on another grid: the same up to both Nyquist frequencies.

    Parameters
    ----------
    image : (K, L) array
        Odd sides, centred.
    step : (float, float)
        Pixels of the grid along y and x per pixel of the image.
    n : int
        Pixels of the grid per axis.
    effective : bool
        Whether the values are what the grid is to show; else each is a mean over the image's own pixel, and what the
        grid shows are means over its.

    Returns
    -------
    (n, n) complex array
        **0 beyond 1.2 times the image's own Nyquist frequency.**
    """
    lines = []
    for side, s in zip(image.shape, step, strict=True):
        f = np.fft.fftfreq(n)
        own = np.abs(s * f)  # cycles per pixel of the image
        wave = np.exp(-2j * np.pi * s * np.outer(f, np.arange(side) - side // 2)) * roll_off(own)[:, None]
        if not effective:
            wave *= (np.sinc(f) / np.sinc(np.minimum(own, 0.5)))[:, None]
        lines.append(wave)
    return np.asarray(lines[0] @ image @ lines[1].T)


def roll_off(f: Array) -> Array:
    """Raised cosine about the Nyquist frequency: 1 below it, 0 above, its sum over all aliases 1.

    Parameters
    ----------
    f : array
        Frequencies, cycles per px, at least 0.

    So the interpolated image goes through its samples, as with a sharp cut, whose ripples would fall off with the
    distance only instead of with its cube.
    """
    rise = np.clip((f - 0.5) / ROLL_OFF, -0.5, 0.5)
    return np.asarray(np.cos(np.pi / 2 * (rise + 0.5)) ** 2)


def _taper_edges(image: Array) -> Array:
    """The outer fifth brought to zero smoothly, where the image does not end in zeros: a step would ring."""
    if not ends_in_light(image):
        return image
    out = image * edge_window(image.shape)
    return np.asarray(out / out.sum() * image.sum())


def ends_in_light(image: Array) -> bool:
    """Whether an image (K, L) has light on its border.

    Parameters
    ----------
    image : (K, L) array
        Smaller ones than 9 px have no room for a smooth end, and give False.
    """
    edge = max(np.abs(image[[0, -1]]).max(), np.abs(image[:, [0, -1]]).max())
    return bool(edge >= 1e-5 * image.max() and min(image.shape) >= 9)


def edge_window(shape: tuple[int, ...]) -> Array:
    """A window (K, L) that is 1 in the middle and falls smoothly over the outer fifth."""
    lines = []
    for side in shape:
        depth = np.minimum(np.arange(side), np.arange(side)[::-1]) + 1
        lines.append(np.sin(np.pi / 2 * np.clip(depth / (0.1 * side + 1), 0, 1)) ** 2)
    return np.outer(*lines)


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


def _trim(kernel: Array) -> Array:
    """The middle beyond which nothing worth the name lies, normalised again."""
    n, r = kernel.shape[0], trim_radius(kernel)
    cut = kernel[n // 2 - r : n // 2 + r + 1, n // 2 - r : n // 2 + r + 1]
    return np.asarray(cut / cut.sum())


def trim_radius(kernel: Array, left: float = 1e-5) -> int:
    """Half the side of the middle beyond which less than ``left`` of the absolute sum lies, px.

    Parameters
    ----------
    kernel : (K, L) array
        Odd sides.
    left : float
        Share.
    """
    away = np.maximum(*(np.abs(i - n // 2) for i, n in zip(np.indices(kernel.shape), kernel.shape, strict=True)))
    mass = np.cumsum(np.bincount(away.ravel(), np.abs(kernel).ravel()))
    return int(np.searchsorted(mass, (1 - left) * mass[-1]))
