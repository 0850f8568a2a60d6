"""Point spread functions as arrays: drawn from a SPEC, and turned into the kernel that the operator blurs with.

Two kinds are kept apart. An *optical* PSF is what falls on the detector; seen by the detector it is integrated over
the pixel. An *effective* PSF, measured or read from a file, has the pixel in it already; integrating it again would
widen it by 5-15 %.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sciresdiff.errors import InputError, UsageError
from sciresdiff.frame import PixelSize
from sciresdiff.physics.psf.centre import centre_psf
from sciresdiff.physics.psf.image import difference_kernel, too_narrow
from sciresdiff.physics.psf.shapes import FWHM_PER_SIGMA, SHAPES, extent
from sciresdiff.physics.psf.spec import MEASURED, PSFSpec, parse, pixel_step, profile_values

Array = NDArray[np.float64]

LARGEST = 255
"""Largest radius of a drawn PSF, px."""

CLOSED_FORM = 0.6
"""Narrowest difference of two Gaussians, sigma in px, whose samples stand for the continuous function (to 1e-3)."""


def render(psf: PSFSpec | str, pixel: PixelSize | None, *, integrate: bool, oversample_of: int = 1) -> Array:
    """A PSF as an array.

    Parameters
    ----------
    psf : PSFSpec or str
        SPEC, parsed or not.
    pixel : PixelSize or None
        Size of the pixel that the SPEC's ``px`` are; needed for arcsec, um and nm.
    integrate : bool
        Mean over each pixel of the grid (a PSF that a detector sees) instead of the value at its centre (a kernel). Of
        a file: an effective PSF, to be centred, instead of a kernel, to be taken as it is.
    oversample_of : int
        The grid is this many times finer than ``pixel``.

    Returns
    -------
    (K, L) array
        Odd sides, centred, sum 1: out to 5 sigma for a Gaussian (radius ``int(5 sigma + 0.5)``), else to where 1e-6 of
        the flux is left or 8 FWHM, whichever is nearer. **What an Airy pattern or a Moffat profile has beyond 8 FWHM
        (2 % of an Airy pattern's light) is spread over the rest by the normalisation.** Round Gaussians are integrated
        exactly, other shapes by Gauss-Legendre quadrature.

    Raises
    ------
    UsageError
        A unit without a pixel size; ``measure``, which needs a frame.
    InputError
        A file that is no image, or has no centre.
    """
    psf = parse(psf) if isinstance(psf, str) else psf
    if psf.shape == "none":
        return np.ones((1, 1))
    if psf.shape in MEASURED:
        raise UsageError(f"psf: {psf.shape} needs a frame with stars or beads; give a shape or a file here")
    if psf.shape == "file":
        return _read_psf(psf, integrate, oversample_of, pixel)
    return _render_shape(psf, pixel_step(psf, pixel), integrate, oversample_of)


def _render_shape(psf: PSFSpec, step: tuple[float, float], integrate: bool, fine: int) -> Array:
    """A shape on pixels of ``step`` / ``fine``, in the unit of its lengths."""
    shape, values = SHAPES[psf.shape], profile_values(psf)
    steps = step[0] / fine, step[1] / fine  # pixels need not be square on the sky
    reach = [shape.reach(values) * e / s for e, s in zip(extent(values), steps, strict=True)]
    y, x = (_pixel_centres(r, s) for s, r in zip(steps, reach, strict=True))
    if integrate and psf.shape == "gaussian" and values.get("ratio", 1.0) == 1.0:
        lines = (_pixel_integrated_gaussian(line, s, values["sigma"]) for line, s in zip((y, x), steps, strict=True))
        kernel = np.outer(*lines)
    elif integrate:
        kernel = _integrate_over_pixels(psf, y, x, steps)
    else:
        kernel = shape.profile(y[:, None], x[None, :], values)
    return kernel / kernel.sum()


def _pixel_centres(reach: float, step: float) -> Array:
    """Positions of the pixels' centres, out to ``reach`` pixels."""
    r = int(min(reach + 0.5, LARGEST))
    return np.asarray(step * np.arange(-r, r + 1), np.float64)


def _pixel_integrated_gaussian(line: Array, step: float, sigma: float) -> Array:
    """A Gaussian integrated over pixels of side ``step``."""
    edges = np.append(line - step / 2, line[-1] + step / 2)
    return np.asarray(np.diff(special.erf(edges / (sigma * np.sqrt(2)))))


def _integrate_over_pixels(psf: PSFSpec, y: Array, x: Array, steps: tuple[float, float]) -> Array:
    """Quadrature over every pixel, with more points the narrower the profile is."""
    shape, values = SHAPES[psf.shape], profile_values(psf)
    narrow = shape.fwhm(values) * np.sqrt(values.get("ratio", 1.0)) / max(steps)
    # between two nodes the profile must not change much: the narrower it is in pixels, the more of them
    nodes, weights = np.polynomial.legendre.leggauss(int(np.clip(np.ceil(8 / narrow) + 2, 4, 24)))
    kernel = np.zeros((len(y), len(x)))
    for dy, wy in zip(nodes / 2, weights, strict=True):
        for dx, wx in zip(nodes / 2, weights, strict=True):
            kernel += wy * wx * shape.profile((y + dy * steps[0])[:, None], (x + dx * steps[1])[None, :], values)
    return kernel


def _read_psf(psf: PSFSpec, effective: bool, fine: int, pixel: PixelSize | None) -> Array:
    """The image of a PSF in a file: on the frame's pixels where it is an effective PSF, else as it is."""
    from sciresdiff.io import read_image
    from sciresdiff.physics.psf.file import image_of_file

    if fine != 1:
        raise InputError(f"psf: {psf} is an image on its own grid; kernel_from_psf brings it to a finer one")
    if effective:
        return image_of_file(psf, pixel)[0]
    image = np.asarray(read_image(str(psf.path)))
    if image.ndim == 3 and len(image) == 1:
        image = image[0]
    if image.ndim != 2:
        raise InputError(f"psf: {psf} has shape {image.shape}; give one 2-D image, or an extension with FILE[EXT]")
    return normalize_kernel(image, str(psf))


def normalize_kernel(image: Array, name: str = "kernel") -> Array:
    """An image as a kernel: as it is, normalised to sum 1; an even side gets a row of zeros behind.

    Parameters
    ----------
    image : (Y, X) array
    name : str
        Of the file, for messages.

    Returns
    -------
    (K, L) array
        Odd sides. **Not centred**: an image that is off its centre shifts what it blurs.

    Raises
    ------
    InputError
        NaN, or a sum that is not above 0.
    """
    if not np.isfinite(image).all() or not image.sum() > 0:
        raise InputError(f"{name}: a kernel has finite values and a sum above 0, and this one does not; check it")
    padded = np.pad(np.asarray(image, np.float64), [(0, 1 - n % 2) for n in image.shape])
    return np.asarray(padded / padded.sum())


def gaussian(fwhm_px: float, *, ratio: float = 1.0, theta: float = 0.0, integrate: bool = True) -> Array:
    """A Gaussian PSF, (K, L), sum 1.

    Parameters
    ----------
    fwhm_px : float
        Geometric mean of the FWHM along the axes.
    ratio : float
        Minor over major axis, 0 ... 1.
    theta : float
        Angle of the major axis in degrees, from +x towards +y.
    integrate : bool
        Over the pixels, else sampled at their centres.
    """
    return _render_named("gaussian", integrate, fwhm=(fwhm_px, "px"), ratio=(ratio, ""), theta=(theta, "deg"))


def moffat(fwhm_px: float, beta: float, *, ratio: float = 1.0, theta: float = 0.0, integrate: bool = True) -> Array:
    """A Moffat profile (1 + r^2 / alpha^2)^-beta, beta > 1; other parameters as for `gaussian`."""
    params = {"fwhm": (fwhm_px, "px"), "beta": (beta, ""), "ratio": (ratio, ""), "theta": (theta, "deg")}
    return _render_named("moffat", integrate, **params)


def airy(fwhm_px: float, *, obstruction: float = 0.0, integrate: bool = True) -> Array:
    """An Airy pattern of lambda / D = fwhm_px / 1.029, the FWHM being that of the unobstructed pupil."""
    return _render_named("airy", integrate, fwhm=(fwhm_px, "px"), obstruction=(obstruction, ""))


def optical(fwhm_px: float, *, integrate: bool = True, **aberrations: float) -> Array:
    """Diffraction by a pupil with ``obstruction``, ``spiders``, ``spider_width`` and aberrations in rms waves."""
    return _render_named("optical", integrate, fwhm=(fwhm_px, "px"), **{key: (x, "") for key, x in aberrations.items()})


def _render_named(name: str, integrate: bool, **params: tuple[float, str]) -> Array:
    return render(parse(str(PSFSpec(name, params))), None, integrate=integrate)


def kernel_from_psf(
    psf: PSFSpec | str | Array,
    *,
    pixel: PixelSize | None,
    scale: int,
    target_fwhm_px_fine: float = 2.0,
    effective: bool | None = None,
) -> Array | None:
    """The kernel k on the fine grid between the wanted image and the frame: target * k = PSF.

    The wanted image has a Gaussian effective PSF of the given FWHM. An analytic PSF is optical: k is such that
    target * k is the PSF integrated over the fine pixel, and the operator's block sum makes the low pixel of it. An
    image or a file is an effective PSF on the low grid: k is such that target * k, summed over the low pixel, is that
    image; it is interpolated to the fine grid by Fourier series, **so an image of FWHM below 2 px is not known well
    enough**.

    Parameters
    ----------
    psf : PSFSpec, str or (Y, X) array
        SPEC, parsed or not, whose ``px`` are low pixels, or an image of the PSF on the low grid.
    pixel : PixelSize or None
        Size of the low pixel.
    scale : int
        Fine pixels per low pixel and axis.
    target_fwhm_px_fine : float
        FWHM of the wanted image's PSF, fine px.
    effective : bool, optional
        Whether the PSF has the low pixel in it; by default images and files have, shapes have not.

    Returns
    -------
    (K, L) array or None
        Odd sides, centred, sum 1; None for ``none``, pixel integration alone.

    Raises
    ------
    InputError
        The PSF is narrower than the target, with both widths.
    UsageError
        As `render`.
    """
    if isinstance(psf, str | PSFSpec):
        psf = parse(psf) if isinstance(psf, str) else psf
        if psf.shape == "none":
            return None
        if psf.shape == "file" and effective is None:
            return _kernel_from_file(psf, pixel, scale, target_fwhm_px_fine)
        effective = psf.shape == "file" if effective is None else effective
        if not effective:
            return _kernel_from_optical(psf, pixel, scale, target_fwhm_px_fine)
        image = render(psf, pixel, integrate=psf.shape == "file")  # a file is centred, a shape already is
    else:
        image = centre_psf(psf)
    return difference_kernel(image, target_psf(target_fwhm_px_fine), scale=scale)


def _kernel_from_file(psf: PSFSpec, pixel: PixelSize | None, scale: int, target_fwhm: float) -> Array:
    """The kernel of a file that holds one image, on whatever grid."""
    from sciresdiff.physics.psf.file import kernels_of_file, open_psf

    (kernel,), _ = kernels_of_file(open_psf(psf), 1, pixel, scale, target_psf(target_fwhm))
    return kernel


def target_psf(fwhm_px: float) -> Array:
    """The wanted image's PSF, (K, K): a Gaussian of this FWHM as its pixels show it, sampled at their centres."""
    return render(PSFSpec("gaussian", {"fwhm": (fwhm_px, "px")}), None, integrate=False)


def _kernel_from_optical(psf: PSFSpec, pixel: PixelSize | None, scale: int, target_fwhm: float) -> Array:
    """The kernel of a shape that has no pixel in it; in closed form where it is a Gaussian."""
    if psf.shape == "gaussian" and (kernel := _gaussian_difference(psf, pixel, scale, target_fwhm)) is not None:
        return kernel
    whole = render(psf, pixel, integrate=True, oversample_of=scale)
    return difference_kernel(whole, target_psf(target_fwhm))


def _gaussian_difference(psf: PSFSpec, pixel: PixelSize | None, scale: int, target_fwhm: float) -> Array | None:
    """Gaussian over Gaussian: the covariances' difference, over the pixel; None where it is too narrow to sample.

    The target's samples and the kernel's integrals over pixels convolve to the PSF's integrals over pixels.
    """
    values, step = profile_values(psf), np.array(pixel_step(psf, pixel)) / scale
    angle, ratio = np.deg2rad(values.get("theta", 0.0)), values.get("ratio", 1.0)
    major = np.array([np.sin(angle), np.cos(angle)])
    across = np.array([np.cos(angle), -np.sin(angle)])
    covariance = values["sigma"] ** 2 * (np.outer(major, major) / ratio + np.outer(across, across) * ratio)
    covariance = covariance / np.outer(step, step)
    target = target_fwhm / FWHM_PER_SIGMA
    # covariances add under convolution: Sigma_k = Sigma_psf - Sigma_target
    variances, axes = np.linalg.eigh(covariance - target**2 * np.eye(2))
    # the target is narrower than the PSF as its pixels show it, which are 1/12 px^2 wider
    if variances[0] < -1 / 12:
        widths = np.sqrt(np.linalg.eigvalsh(covariance) + 1 / 12) * FWHM_PER_SIGMA
        raise too_narrow(float(widths[0]), target_fwhm)
    if variances[0] < CLOSED_FORM**2:
        return None
    minor, long = np.sqrt(variances)
    params: dict[str, Any] = {"sigma": (float(np.sqrt(minor * long)), "px")}
    if long - minor > 1e-9 * long:
        theta = float(np.rad2deg(np.arctan2(axes[0, 1], axes[1, 1])))
        params |= {"ratio": (float(minor / long), ""), "theta": (theta, "deg")}
    return render(PSFSpec("gaussian", params), None, integrate=True)
