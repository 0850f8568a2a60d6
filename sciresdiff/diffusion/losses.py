"""Losses: how far an answer is from its target, by name, with one signature.

    LOSSES[name](answer, target, context) -> a map like the answer, or a scalar

Answer and target are (B, 1, s*h, s*w); `Context` says in which unit an error counts as one, which pixels count, and
what is known of the noise.  The losses that compare pixel by pixel need neither target nor context: LOSSES[name](error)
is the same as an answer to a target of zero, in units of one.  What stands at masked pixels never matters: the answer
is taken to be right there.  A right answer has the loss 0 (a likelihood: its smallest for that scale).

What a network learns under a loss is the value that makes the expected loss smallest, given what it sees.  For the
squared error that is the mean of the posterior, **for an absolute error its median, which is fainter than the mean
where the posterior is skewed, as that of a faint source is**: docs/explanation/losses.md has the measurement.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sciresdiff import plugins
from sciresdiff.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

CHARBONNIER = 1e-3
"""Width of the parabola of `charbonnier`, in units."""
REACH, SIGMA = 5, 1.5
"""Half the side and sigma of SSIM's Gaussian windows, px (Wang et al. 2004)."""
LEVELS = 3
"""Levels of the Haar pyramid."""
FFT_SIDE = 16
"""Side of the windows of `fft`, px; they overlap by half."""
CELL = 8
"""Side of the cells of `flux`, coarse px."""


@dataclass(frozen=True, eq=False)
class Context:
    """What a loss may know beside answer and target; the pixel-wise losses need none of it."""

    unit: Any = 1.0
    """The error that counts as one: a number, or a tensor that broadcasts to the answer, > 0."""
    valid: Tensor | None = None
    """(B, 1, s*h, s*w), above 0 where a pixel counts; None: all do."""
    scale: Tensor | None = None
    """The predicted scale of the answer's error, in the answer's own values, > 0."""
    noise: Tensor | None = None
    """(B, 1, h, w), the variance of the coarse pixels."""
    sky: Any = None
    """(B, 1, 1, 1) or a number: that variance without signal."""
    slope: Any = None
    """The same shape: its growth with the signal of a coarse pixel, > 0; 1 / slope is the gain, electrons per value."""
    knee: float = 3.0
    """From how many units on Huber's loss grows linearly."""


PLAIN = Context()
"""Everything counts, in units of one."""
Loss = Callable[..., Any]


def _error(answer: Tensor, target: Any, c: Context) -> Tensor:
    """(answer - target) / unit, 0 where masked."""
    import torch

    error = (answer - target) / c.unit
    return error if c.valid is None else torch.where(c.valid > 0, error, 0.0)


def _fill_masked(answer: Tensor, target: Tensor, c: Context) -> Tensor:
    """The answer, and the target where masked."""
    import torch

    return answer if c.valid is None else torch.where(c.valid > 0, answer, target)


def _require(value: Any, name: str, what: str) -> Any:
    """Something of the context that a loss cannot do without.

    Raises
    ------
    UsageError : it is not there.
    """
    if value is None:
        raise UsageError(f"loss: {name!r} needs {what}, which is not known here; allowed are {', '.join(PIXELWISE)}")
    return value


def mse(answer: Tensor, target: Any = 0.0, c: Context = PLAIN) -> Tensor:
    """e^2 with e = (answer - target) / unit: learns the mean of the posterior.

    Parameters
    ----------
    answer, target : (B, 1, Y, X). c : unit and valid pixels.

    Returns
    -------
    (B, 1, Y, X), 0 where masked.
    """
    error = _error(answer, target, c)
    return error * error


def l1(answer: Tensor, target: Any = 0.0, c: Context = PLAIN) -> Tensor:
    """|e|: learns the median, **and loses the flux of a skewed posterior**.

    Parameters
    ----------
    answer, target : (B, 1, Y, X). c : unit and valid pixels.
    """
    return _error(answer, target, c).abs()


def huber(answer: Tensor, target: Any = 0.0, c: Context = PLAIN) -> Tensor:
    """e^2 / 2 up to the knee k, from there k (|e| - k / 2) (Huber 1964): the mean, if errors are within a few units.

    **Beyond the knee it is l1**, with l1's bias.

    Parameters
    ----------
    answer, target : (B, 1, Y, X). c : unit, valid pixels, and the knee in units.
    """
    size = _error(answer, target, c).abs()
    near = size.clamp_max(c.knee)
    return near * (size - near / 2)


def charbonnier(answer: Tensor, target: Any = 0.0, c: Context = PLAIN, width: float = CHARBONNIER) -> Tensor:
    """sqrt(e^2 + width^2) - width (Charbonnier et al. 1994), the pseudo-Huber loss of consistency models.

    With a width far below the errors it is a smooth l1 **and learns a median**.

    Parameters
    ----------
    answer, target : (B, 1, Y, X). c : unit and valid pixels. width : of the parabola, in units, > 0.
    """
    error = _error(answer, target, c)
    return error * error / ((error * error + width**2).sqrt() + width)  # the difference would lose the small errors


def gaussian_nll(answer: Tensor, target: Any = 0.0, c: Context = PLAIN) -> Tensor:
    """ln(scale / unit) + ((answer - target) / scale)^2 / 2: learns mean and standard deviation together.

    **Where the scale is large a wrong mean costs little**, so that bright and difficult places are learnt last.

    Parameters
    ----------
    answer, target : (B, 1, Y, X). c : with the predicted ``scale``, (B, 1, Y, X), > 0.

    Raises
    ------
    UsageError : no scale is predicted.
    """
    scale = _require(c.scale, "gaussian-nll", "a predicted scale")
    error = _error(answer, target, c) * (c.unit / scale)
    return _zero_masked((scale / c.unit).log() + error * error / 2, c)


def laplace_nll(answer: Tensor, target: Any = 0.0, c: Context = PLAIN) -> Tensor:
    """ln(2 b / unit) + |answer - target| / b with b = scale / sqrt(2): learns **the median** and its spread.

    Parameters
    ----------
    answer, target : (B, 1, Y, X). c : with the predicted ``scale``, (B, 1, Y, X), > 0: the standard deviation.

    Raises
    ------
    UsageError : no scale is predicted.
    """
    b = _require(c.scale, "laplace-nll", "a predicted scale") / math.sqrt(2)
    return _zero_masked((2 * b / c.unit).log() + _error(answer, target, c).abs() * (c.unit / b), c)


def _zero_masked(values: Tensor, c: Context) -> Tensor:
    """A map, 0 where masked."""
    import torch

    return values if c.valid is None else torch.where(c.valid > 0, values, 0.0)


def poisson_nll(answer: Tensor, target: Any = 0.0, c: Context = PLAIN) -> Tensor:
    """m - n + n ln(n / m), with n the electrons of the target and m those of the answer: learns the mean.

    It is the negative log-likelihood of n under a Poisson law of mean m, less that of the best m (half the deviance).
    A fine pixel has value / slope electrons and its share of the sky's, sky / (slope s)^2.  Below half a sky the answer
    goes on along the parabola that touches there, so that the loss is convex and finite for every answer.

    Parameters
    ----------
    answer, target : (B, 1, s*h, s*w). c : with noise (B, 1, h, w), and sky and slope of the variance, (B, 1, 1, 1).

    Raises
    ------
    UsageError : noise, sky or slope is not known.
    """
    sky, slope = (_require(v, "poisson-nll", "sky and slope of the variance") for v in (c.sky, c.slope))
    square = (answer.shape[-1] // _require(c.noise, "poisson-nll", "the noise").shape[-1]) ** 2
    floor = 0.5 * sky / (slope * slope * square)
    n = (target / slope + 2 * floor).clamp_min(floor)
    m = n + (_fill_masked(answer, target, c) - target) / slope
    safe = m.clamp_min(floor)
    below = (m - safe) / safe
    ratio = (safe - n) / n
    touch = n * (ratio - ratio.log1p())
    return touch + below * (safe - n) + n * below * below / 2


def ssim(answer: Tensor, target: Tensor, c: Context = PLAIN) -> Tensor:
    """1 - SSIM (Wang et al. 2004) in Gaussian windows; its constants are the unit squared, not a data range.

    A star's peak then does not set what counts as structure.  **It sees no common factor well** (mean and contrast
    are compared by ratios that are flat about one), **and the flux with it**.

    Parameters
    ----------
    answer, target : (B, 1, Y, X). c : unit and valid pixels.
    """
    import torch

    answer = _fill_masked(answer, target, c)
    unit2 = torch.as_tensor(c.unit, dtype=answer.dtype, device=answer.device) ** 2
    mx, my = _gaussian_mean(answer), _gaussian_mean(target)
    dx, dy = answer - mx, target - my
    vx, vy, cxy = (_gaussian_mean(v) for v in (dx * dx, dy * dy, dx * dy))
    light = (2 * mx * my + unit2) / (mx * mx + my * my + unit2)
    return 1 - light * (2 * cxy + unit2) / (vx + vy + unit2)


def _gaussian_mean(x: Tensor) -> Tensor:
    """Gaussian means, (B, 1, Y, X); the border is repeated."""
    import torch
    import torch.nn.functional as F

    line = torch.exp(-0.5 * (torch.arange(-REACH, REACH + 1, dtype=x.dtype, device=x.device) / SIGMA) ** 2)
    line = line / line.sum()
    x = F.pad(x, (REACH,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(x, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))


def haar(answer: Tensor, target: Any = 0.0, c: Context = PLAIN) -> Tensor:
    """Mean absolute coefficient of the error's orthonormal Haar pyramid, every level and the last mean weighing alike.

    **An absolute error of sums: it learns medians**, of sums that are less skewed than a pixel the coarser they are.

    Parameters
    ----------
    answer, target : (B, 1, Y, X). c : unit and valid pixels.

    Returns
    -------
    A scalar.
    """
    return sum(band.abs().mean() for band in _pyramid(_error(answer, target, c))) / (3 * LEVELS + 1)  # type: ignore[return-value]


def _pyramid(x: Tensor) -> Iterator[Tensor]:
    """The bands of `LEVELS` levels and the mean that is left; sides are filled up with zeros."""
    import torch.nn.functional as F

    side = 2**LEVELS
    x = F.pad(x, (0, -x.shape[-1] % side, 0, -x.shape[-2] % side))
    for _ in range(LEVELS):
        top, bottom = x[..., 0::2, :], x[..., 1::2, :]
        sums, differences = top + bottom, top - bottom
        yield (sums[..., 0::2] - sums[..., 1::2]) / 2
        yield (differences[..., 0::2] + differences[..., 1::2]) / 2
        yield (differences[..., 0::2] - differences[..., 1::2]) / 2
        x = (sums[..., 0::2] + sums[..., 1::2]) / 2
    yield x


def fft(answer: Tensor, target: Tensor, c: Context = PLAIN) -> Tensor:
    """Mean of ||F answer| - |F target|| over Hann windows, both in units first.

    **It knows strengths and no phases: what is moved within a window costs nothing, nor does a changed sign.**

    Parameters
    ----------
    answer, target : (B, 1, Y, X). c : unit and valid pixels.

    Returns
    -------
    A scalar.
    """
    ours, theirs = (_spectra(image / c.unit).abs() for image in (_fill_masked(answer, target, c), target))
    return (ours - theirs).abs().mean()


def _spectra(x: Tensor) -> Tensor:
    """Orthonormal Fourier transforms of overlapping windows; a side that ends within one is filled up with zeros."""
    import torch
    import torch.nn.functional as F

    half = FFT_SIDE // 2
    fill = [max(FFT_SIDE - n, -(n - FFT_SIDE) % half) for n in x.shape[-2:]]
    parts = F.pad(x, (0, fill[1], 0, fill[0])).unfold(-2, FFT_SIDE, half).unfold(-2, FFT_SIDE, half)
    hann = torch.hann_window(FFT_SIDE, dtype=x.dtype, device=x.device)
    return torch.fft.rfft2(parts * hann * hann[:, None], norm="ortho")


def flux_error(error: Tensor, noise: Tensor, cell: int = CELL) -> Tensor:
    """Error of the flux in cells of 8 x 8 coarse pixels, in units of the noise of that sum.

    Parameters
    ----------
    error : (B, 1, s*h, s*w). noise : (B, 1, h, w), variance of the coarse pixels.
    cell : side of a cell; smaller images are one cell.

    Returns
    -------
    (B, 1, h // cell, w // cell)
    """
    import torch.nn.functional as F

    scale, cell = error.shape[-1] // noise.shape[-1], min(cell, *noise.shape[-2:])
    total = F.avg_pool2d(error, cell * scale, divisor_override=1)
    return total / F.avg_pool2d(noise, cell, divisor_override=1).sqrt()


def flux(answer: Tensor, target: Any = 0.0, c: Context = PLAIN) -> Tensor:
    """Mean Huber loss, knee 2, of the flux of cells in units of its noise; sums of answer and target decide alone.

    **How the flux lies within a cell costs nothing**: it goes beside a loss that looks at pixels.

    Parameters
    ----------
    answer, target : (B, 1, s*h, s*w). c : with noise (B, 1, h, w), the variance of the coarse pixels.

    Raises
    ------
    UsageError : the noise is not known.
    """
    import torch
    import torch.nn.functional as F

    noise = _require(c.noise, "flux", "the noise of the coarse pixels, and an image for an answer")
    error = answer - target
    off = flux_error(error if c.valid is None else torch.where(c.valid > 0, error, 0.0), noise)
    return F.huber_loss(off, torch.zeros_like(off), delta=2.0)


def lpips(answer: Tensor, target: Tensor, c: Context = PLAIN) -> Tensor:
    """Learned perceptual similarity (Zhang et al. 2018, version 0.1, AlexNet), a mean over the batch.

    Images are asinh(x / unit) between the target's own ends, as three equal channels.  **Its network has learnt from
    photographs: it knows no flux, and an invention that looks right costs nothing.**

    Parameters
    ----------
    answer, target : (B, 1, Y, X), 32 px or more on a side. c : unit and valid pixels.

    Raises
    ------
    UsageError : the package or its weights are not there, or the image is too small.
    """
    if min(answer.shape[-2:]) < 32:
        raise UsageError(f"loss: 'lpips' needs 32 px on each side, the patch has {min(answer.shape[-2:])}; take larger")
    network = plugins.load("sciresdiff.lab.lpips_network:load_network")().to(answer.device)
    ours, theirs = (image.div(c.unit).asinh() for image in (_fill_masked(answer, target, c), target))
    low, high = theirs.amin((-2, -1), keepdim=True), theirs.amax((-2, -1), keepdim=True)
    pair = ((2 * (x - low) / (high - low).clamp_min(1e-6) - 1).expand(-1, 3, -1, -1) for x in (ours, theirs))
    return network(*pair).mean()  # type: ignore[no-any-return]


LOSSES: dict[str, Loss] = {
    "mse": mse,
    "l1": l1,
    "huber": huber,
    "charbonnier": charbonnier,
    "gaussian-nll": gaussian_nll,
    "laplace-nll": laplace_nll,
    "poisson-nll": poisson_nll,
    "ssim": ssim,
    "haar": haar,
    "fft": fft,
    "lpips": lpips,
    "flux": flux,
}
"""Losses by name; **an absolute error loses flux of faint sources: see docs/explanation/losses.md**."""
PIXELWISE = ("mse", "l1", "huber", "charbonnier")
"""Those that an error alone is enough for."""
