"""Classical methods that every restoration is compared with, on the same data and with the same kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from sciresdiff.checks.arrays import Array, Sampling, fill_with_median, pixels_per_value
from sciresdiff.checks.background import background_noise
from sciresdiff.checks.evidence import Evidence
from sciresdiff.errors import UsageError

ITERATIONS = 30
"""Richardson-Lucy iterations of the plain baseline."""

FAST_ITERATIONS = 11
"""Accelerated iterations that go about as far as the plain ones (k**2 / 4)."""

FADE_PX = 16
"""Margin that the Wiener filter's frame fades over, coarse px."""

REFILLS = 8
"""Times that the Wiener filter fills masked pixels with what its image gives there."""

STEEPNESS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
"""Exponents that the spectrum of the Wiener filter is chosen among: points are 0, scenes of edges about 2 to 3."""

STOPS = (1, 2, 3, 5, 8, 12, 20, 30, 60)
"""Iterations among which the best stopping point is looked for."""


def bicubic(data: Array, sampling: Sampling) -> Array:
    """Interpolate with cubic splines through the pixel centres, pixel-area registered, borders reflected.

    **The flux of a block is conserved only on average.**

    Parameters
    ----------
    data : (h, w), finite.
    sampling : an `Evidence` or ``Operator``; for quantity ``sum`` the values are divided by scale^2.

    Returns
    -------
    (scale*h, scale*w), in the unit of a fine pixel.
    """
    from scipy.ndimage import zoom

    fine = zoom(np.asarray(data, np.float64), sampling.scale, order=3, grid_mode=True, mode="reflect")
    return np.asarray(fine / pixels_per_value(sampling))


def bicubic_image(evidence: Evidence) -> Array:
    """Make the `bicubic` image (Y, X) of the evidence's data, once for all images compared on them; needs ``low``."""
    return evidence.share("bicubic", lambda: bicubic(_finite_data(evidence), evidence))


def lanczos(data: Array, sampling: Sampling, lobes: int = 3) -> Array:
    """Interpolate with a windowed sinc, registration and borders as `bicubic`.

    Weights are sinc(t) sinc(t / a) for ``|t| < a``, with a the number of lobes, renormalised to sum 1 (Duchon 1979, J.
    Appl. Meteorol. 18, 1016). **Rings around sharp sources, below zero too; flux as for `bicubic`.**

    Parameters
    ----------
    data : (h, w), finite.
    sampling : an `Evidence` or ``Operator``; for quantity ``sum`` the values are divided by scale^2.
    lobes : a, coarse px.

    Returns
    -------
    (scale*h, scale*w), in the unit of a fine pixel.
    """
    scale = sampling.scale
    fine = _lanczos_axis(_lanczos_axis(np.asarray(data, np.float64), scale, lobes).T, scale, lobes).T
    return np.asarray(fine / pixels_per_value(sampling))


def lanczos_image(evidence: Evidence) -> Array:
    """Make the `lanczos` image (Y, X) of the evidence's data; needs ``low``."""
    return lanczos(_finite_data(evidence), evidence)


def _finite_data(evidence: Evidence) -> Array:
    """The data with the median in the place of what is not finite."""
    assert evidence.low is not None
    return fill_with_median(evidence.low, np.isfinite(evidence.low))


def _lanczos_axis(data: Array, scale: int, lobes: int) -> Array:
    """Interpolate along the first axis: (h, w) to (scale*h, w)."""
    padded = np.pad(data, [(lobes, lobes), (0, 0)], mode="symmetric")
    fine = np.empty((data.shape[0] * scale, data.shape[1]))
    taps = np.arange(-lobes, lobes + 1)
    for phase in range(scale):
        # the centre of fine pixel `phase` lies at (phase + 1/2) / scale - 1/2 of its coarse pixel
        t = taps - ((phase + 0.5) / scale - 0.5)
        weights = np.where(np.abs(t) < lobes, np.sinc(t) * np.sinc(t / lobes), 0)
        weights /= weights.sum()
        fine[phase::scale] = sum(
            weight * padded[lobes + tap : lobes + tap + data.shape[0]]
            for tap, weight in zip(taps, weights, strict=True)
        )
    return fine


def richardson_lucy(evidence: Evidence, iterations: int = ITERATIONS, accelerated: bool = False) -> Array:
    """Deconvolve by Richardson-Lucy with the true kernel, from a flat start; needs ``low`` and ``operator``.

    x <- x * A^T(m y / A x) / A^T m, with m = 0 on masked pixels (Richardson 1972, JOSA 62, 55; Lucy 1974, AJ 79, 745).
    The data are raised above zero first, and the image lowered again, so that sky-subtracted frames can be treated;
    **the result depends on that offset, and after many iterations it fits the noise.**

    Parameters
    ----------
    evidence : the data, their mask and the operator.
    iterations : steps; 1 or more.
    accelerated : before every step x is extrapolated in its logarithm, x (x / x_before)^((k - 1) / (k + 2)), so that k
        steps do the work of about k^2 / 4 (after Biggs & Andrews 1997, Applied Optics 36, 1766, with the fixed
        momentum of Nesterov 1983); the stopping point matters all the more.

    Returns
    -------
    (Y, X) after ``iterations`` steps.
    """
    return next(image for _, image in richardson_lucy_at(evidence, [iterations], accelerated))


def richardson_lucy_at(
    evidence: Evidence, stops: Iterable[int], accelerated: bool = False
) -> Iterator[tuple[int, Array]]:
    """Yield the images (Y, X) of `richardson_lucy` at several stopping points, rising, at the cost of the last.

    Parameters
    ----------
    evidence, accelerated : as in `richardson_lucy`.
    stops : numbers of iterations.
    """
    import torch

    operator, y, valid = evidence.operator, evidence.low, evidence.unmasked_low
    assert operator is not None and y is not None and valid is not None
    unit = _unit(evidence)
    offset = max(0.0, -float(y[valid].min())) + unit if valid.any() else unit
    # the iteration multiplies: data of 0 or less would fix the image at 0
    raised = torch.from_numpy(np.clip(fill_with_median(y, valid) + offset, 1e-6 * unit, None))[None, None]
    weight = torch.from_numpy(valid.astype(float))[None, None]
    share = pixels_per_value(evidence)
    cover = operator.adjoint(weight).clamp_min(1e-12)
    x = before = torch.full_like(cover, float(raised.mean()) / share)
    wanted = set(stops)
    for n in range(1, max(wanted) + 1):
        # extrapolate log x with the momentum of Nesterov 1983, (k - 1) / (k + 2)
        guess = x * (x / before).clamp(1e-2, 1e2).pow((n - 1) / (n + 2)) if accelerated else x
        before = x
        ratio = weight * raised / operator.apply(guess).clamp_min(1e-9 * unit)
        x = (guess * operator.adjoint(ratio) / cover).clamp_min(1e-12 * unit)  # 0 / 0 in the next extrapolation
        if n in wanted:
            yield n, x[0, 0].numpy() - offset / share


def _unit(evidence: Evidence) -> float:
    """What the data are raised to above zero at least: 1, or the noise where that is less."""
    if evidence.variance is None:
        return 1.0
    good = evidence.variance[np.isfinite(evidence.variance) & (evidence.variance > 0)]
    return float(min(1.0, np.sqrt(np.median(good)))) if good.size else 1.0


def best_richardson_lucy(
    evidence: Evidence, iterations: Iterable[int] = STOPS, accelerated: bool = False
) -> tuple[int, Array]:
    """Find where Richardson-Lucy comes closest to the truth (least squared error): stopping point and image (Y, X).

    **Nobody who has no truth can stop there**; it is the best that the method can do.

    Parameters
    ----------
    evidence, accelerated : as in `richardson_lucy`.
    iterations : stopping points to choose among.

    Raises
    ------
    UsageError : there is no truth.
    """
    if evidence.truth is None:
        raise UsageError("--baselines: the best stopping point needs a truth; give --truth, or richardson-lucy")
    truth, good = evidence.truth[evidence.good_high], evidence.good_high
    found = [(float(np.mean((image[good] - truth) ** 2)), n, image)
             for n, image in richardson_lucy_at(evidence, iterations, accelerated)]  # fmt: skip
    _, n, image = min(found, key=lambda one: one[0])
    return n, image


def wiener(evidence: Evidence) -> Array:
    """Restore by the Wiener filter with the true kernel and noise, aliasing included; needs ``low`` and ``operator``.

    The linear estimate of least expected squared error of a stationary image with power spectrum P (Wiener 1949; for
    restoration Andrews & Hunt 1977, Digital Image Restoration, section 7.2). A coarse frequency F holds the scale**2
    fine ones f = F + k / scale that fold onto it, so with G the response of blur and block sum and v the noise

        x^(f) = P(f) conj(G(f)) y^(F) / (sum over f of P |G|^2 / scale^2 + v).

    P = a / (f^2 + f0^2)^(p / 2), with f0 one period a frame, is fitted to the data's own periodogram (Whittle's
    likelihood, 1953, J. R. Statist. Soc. B 15, 125), nothing of the truth goes in. v is the median variance, without
    one the square of the sky's scatter. The median of the data is taken off and put back; borders reflect and fade.
    Masked pixels are sky at first, and then eight times what the image before gives there (expectation-maximisation:
    Dempster, Laird & Rubin 1977, J. R. Statist. Soc. B 39, 1). **Rings around bright sources, also below zero; one
    noise level for the whole frame; a masked core that outshines its wings comes back only in part.**

    Returns
    -------
    (Y, X).
    """
    valid = evidence.unmasked_low
    assert evidence.low is not None and valid is not None
    y = fill_with_median(evidence.low, valid)
    image = _wiener_step(evidence, y)
    for _ in range(0 if valid.all() else REFILLS):
        image = _wiener_step(evidence, np.where(valid, evidence.low, evidence.degrade(image)))
    return image


def _wiener_step(evidence: Evidence, y: Array) -> Array:
    """Filter data (h, w) without gaps: (Y, X)."""
    s, sky = evidence.scale, float(np.median(y))
    margin = min(FADE_PX, *(side // 2 for side in y.shape))
    periodic = _fade_borders(y - sky, margin)
    image = _wiener_periodic(periodic, _response(evidence, periodic.shape), s, _noise_power(evidence, y))
    inner = tuple(slice(s * margin, s * (margin + side)) for side in y.shape)
    return np.asarray(image[inner] + sky / pixels_per_value(evidence))


def _fade_borders(y: Array, margin: int) -> Array:
    """Add a reflected margin that falls to zero, so that the frame is periodic without a step."""
    ramp = np.sin(np.pi / 2 * (np.arange(margin) + 0.5) / max(margin, 1)) ** 2
    out = np.pad(y, margin, mode="symmetric")
    for axis in (0, 1):
        line = np.concatenate([ramp, np.ones(out.shape[axis] - 2 * margin), ramp[::-1]])
        out = out * (line[:, None] if axis == 0 else line)
    return np.asarray(out)


def _response(evidence: Evidence, shape: tuple[int, ...]) -> NDArray[np.complex128]:
    """G: the transform of blur and block sum (or mean) on the fine grid of a coarse frame of this shape."""
    from scipy import fft

    s, operator = evidence.scale, evidence.operator
    assert operator is not None
    kernel = np.ones((1, 1)) if operator.kernel is None else np.asarray(operator.kernel)
    room = np.zeros([s * side for side in shape])
    # the kernel with its centre at pixel (0, 0); one larger than the frame wraps around
    index = np.ix_(*((np.arange(k) - k // 2) % side for k, side in zip(kernel.shape, room.shape, strict=True)))
    np.add.at(room, index, kernel)
    # the transform of a block sum along one axis: sum over j < s of exp(2 pi i f j)
    steps = [np.exp(2j * np.pi * np.outer(np.fft.fftfreq(side), np.arange(s))).sum(1) for side in room.shape]
    share = s**2 if evidence.quantity == "mean" else 1
    return np.asarray(fft.fft2(room) * np.outer(*steps) / share)


def _noise_power(evidence: Evidence, y: Array) -> float:
    """Noise variance of a coarse pixel: the median of those stated, else as measured on the data (h, w)."""
    if evidence.variance is not None and evidence.unmasked_low is not None:
        good = evidence.variance[evidence.unmasked_low & (evidence.variance > 0)]
        if good.size:
            return float(np.median(good))
    return background_noise(y) ** 2


def _wiener_periodic(y: Array, response: NDArray[np.complex128], scale: int, noise: float) -> Array:
    """Filter a periodic frame (h, w) without its sky: (scale*h, scale*w); equation of `wiener`."""
    from scipy import fft

    data = fft.fft2(y)
    f2 = np.add.outer(*(np.fft.fftfreq(side) ** 2 for side in response.shape))
    f2 += min(1 / side for side in response.shape) ** 2  # f0^2, one period a frame
    passed = np.abs(response) ** 2 / scale**2  # |G|^2 / scale^2, what a fine frequency adds to the data's power
    noise = max(noise, 1e-12 * float(np.mean(np.abs(data) ** 2)) / data.size)
    if not noise > 0:
        return np.zeros(response.shape)
    a, p = _fit_spectrum(np.abs(data) ** 2 / data.size, passed, f2, scale, noise)
    power = a * f2 ** (-p / 2)
    level = _fold(power * passed, scale) + noise  # expected power of the data, the denominator
    image = fft.ifft2(np.tile(data / level, (scale, scale)) * power * np.conj(response)).real
    return np.asarray(image)


def _fold(fine: Array, scale: int) -> Array:
    """Sum the fine frequencies that one coarse frequency cannot tell apart: (scale*h, scale*w) to (h, w)."""
    h, w = (side // scale for side in fine.shape)
    return np.asarray(fine.reshape(scale, h, scale, w).sum((0, 2)))


def _fit_spectrum(periodogram: Array, passed: Array, f2: Array, scale: int, noise: float) -> tuple[float, float]:
    """Height and steepness (a, p) of the image's power spectrum a f2^(-p / 2), by Whittle's likelihood."""
    from scipy.optimize import minimize_scalar

    def height(p: float) -> tuple[float, float]:
        unit = _fold(f2 ** (-p / 2) * passed, scale)
        found = minimize_scalar(lambda t: _whittle(periodogram, np.exp(t) * unit + noise), _bracket(unit, noise))
        return float(found.fun), float(np.exp(found.x))

    # for every steepness p the height a has one maximum, found on a logarithmic scale
    steps = [height(p) + (p,) for p in STEEPNESS]
    _, a, p = min(steps)
    return a, p


def _bracket(unit: Array, noise: float) -> tuple[float, float]:
    """Two logarithms of the height to begin the search with: light as strong as the noise, and e^9 times."""
    start = float(np.log(max(noise, 1e-300) / unit.mean()))
    return start, start + 9.0


def _whittle(periodogram: Array, spectrum: Array) -> float:
    """-log likelihood of a periodogram (Whittle 1953), over its size and up to a constant."""
    return float(np.mean(np.log(spectrum) + periodogram / spectrum))


BASELINES: dict[str, Callable[[Evidence], Array]] = {
    "bicubic": bicubic_image,
    "lanczos": lanczos_image,
    "wiener": wiener,
    "richardson-lucy": richardson_lucy,
    "richardson-lucy-10": lambda evidence: richardson_lucy(evidence, 10),
    "richardson-lucy-60": lambda evidence: richardson_lucy(evidence, 60),
    "richardson-lucy-accelerated": lambda evidence: richardson_lucy(evidence, FAST_ITERATIONS, accelerated=True),
    "richardson-lucy-accelerated-best": lambda evidence: best_richardson_lucy(evidence, accelerated=True)[1],
}
"""Name -> the image that the method makes of the evidence's data."""

NEED_KERNEL = frozenset(BASELINES) - {"bicubic", "lanczos"}
"""Methods that cannot be run where the blur is not known."""
